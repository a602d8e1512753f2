//! The worked examples of the specification.

use std::time::Duration;

use super::stage::{START, Stage, begin, step};
use crate::machine::{By, Effect, Event, Outcome};
use crate::moment::Moment;
use crate::transaction::{Begin, NewBranch};
use crate::word::{Dialect, Mode, Op, State};

fn unknown() -> Outcome {
    Outcome::Unknown("reset".to_owned())
}

/// Plays `answers` to the only step of a saga, each at once, and returns when it was called, in
/// seconds, and when it got stuck.
fn attempts(begin: Begin, answers: &[Outcome]) -> (Vec<f64>, Option<f64>) {
    let mut stage = Stage::new(Begin { steps: vec![step()], ..begin });
    let (mut called, mut stuck) = (Vec::new(), None);
    let seconds = |now: Moment| now.since(START).as_secs_f64();
    for answer in answers {
        assert_eq!(stage.calls(), ["01 action"]);
        called.push(seconds(stage.now));
        stage.answers(1, Op::Action, answer.clone());
        if stage.transaction.register.stuck && stuck.is_none() {
            stuck = Some(seconds(stage.now));
        }
        let record = stage.transaction.branches[0].op(Op::Action).unwrap().clone();
        if record.state.is_settled() {
            break;
        }
        stage.now = record.next_at;
        stage.does(Event::Time);
    }
    (called, stuck)
}

#[test]
fn retries_come_when_21_2_says() {
    let native = [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5, 183.5];
    let (called, stuck) = attempts(begin(Mode::Saga), &vec![unknown(); 10]);
    assert_eq!((called, stuck), (native.to_vec(), Some(183.5)));

    let dtm = || Begin {
        dialect: Dialect::Dtm,
        retry_interval: Some(Duration::from_secs(10)),
        ..begin(Mode::Saga)
    };
    let (called, _) = attempts(dtm(), &vec![unknown(); 7]);
    assert_eq!(called, [0.0, 20.0, 60.0, 140.0, 300.0, 600.0, 900.0]);
    let (called, _) = attempts(dtm(), &vec![Outcome::Ongoing; 4]);
    assert_eq!(called, [0.0, 10.0, 20.0, 30.0]);
    let (called, _) = attempts(dtm(), &[unknown(), Outcome::Ongoing, Outcome::Done]);
    assert_eq!(called, [0.0, 20.0, 40.0]);
}

/// A saga of three steps, the third after the two others.
fn fork() -> Stage {
    let last = NewBranch { after: vec![0, 1], ..step() };
    let steps = vec![step(), step(), last];
    Stage::new(Begin { concurrent: true, steps, ..begin(Mode::Saga) })
}

fn refused() -> Outcome {
    Outcome::Refused("no".to_owned())
}

#[test]
fn sagas_end_as_21_3_says() {
    let mut good = fork();
    good.is(State::Committing, true, &["01 action", "02 action"]);
    good.done(1, Op::Action).is(State::Committing, false, &[]);
    good.done(2, Op::Action).is(State::Committing, false, &["03 action"]);
    good.done(3, Op::Action).is(State::Committed, true, &[]);

    let mut last = fork();
    last.done(1, Op::Action).done(2, Op::Action).answers(3, Op::Action, refused());
    last.is(State::Aborting, true, &["03 compensate"]);
    last.done(3, Op::Compensate);
    last.is(State::Aborting, false, &["01 compensate", "02 compensate"]);
    last.done(1, Op::Compensate).done(2, Op::Compensate).is(State::Aborted, false, &[]);

    let mut doubt = fork();
    doubt.answers(1, Op::Action, unknown()).answers(2, Op::Action, refused());
    doubt.is(State::Aborting, true, &["01 compensate", "02 compensate"]);
    doubt.done(2, Op::Compensate).done(1, Op::Compensate).is(State::Aborted, false, &[]);

    let mut serial = Stage::saga(2);
    serial.done(1, Op::Action).answers(2, Op::Action, refused());
    serial.is(State::Aborting, true, &["02 compensate"]);
    serial.done(2, Op::Compensate).is(State::Aborting, false, &["01 compensate"]);
    serial.done(1, Op::Compensate).is(State::Aborted, false, &[]);
}

#[test]
fn the_order_of_the_log_decides_at_the_deadline_as_21_4_says() {
    let mut submit_first = Stage::joined(Mode::Tcc, &[]);
    submit_first.now = START.plus(Duration::from_mins(1));
    submit_first.submits(&[]).is(State::Committed, true, &[]);
    let mut abort_first = Stage::joined(Mode::Tcc, &[]);
    abort_first.waits(Duration::from_mins(1)).is(State::Aborted, true, &[]);
    let refused = abort_first.tries(Event::Submit(crate::machine::Submit::default())).unwrap_err();
    assert_eq!(refused.to_string(), "transaction was aborted: deadline");
}

#[test]
fn a_saga_that_a_failover_interrupted_compensates_what_may_have_been_called() {
    let mut stage = Stage::saga(3);
    stage.done(1, Op::Action);
    let transaction = stage.transaction.clone();
    let parts = crate::transaction::Parts {
        begin: Begin::clone(&transaction.begin),
        created_at: transaction.created_at,
        deadline_at: None,
        register: transaction.register.clone(),
        // Lazy records were lost.
        branches: Stage::saga(3)
            .transaction
            .branches
            .into_iter()
            .map(|mut branch| {
                branch.ops.clear();
                branch
            })
            .collect(),
        timeline: Vec::new(),
    };
    stage.transaction = crate::transaction::Transaction::restore(parts);
    stage.does(Event::Abort(By::Initiator(String::new())));
    stage.is(State::Aborting, true, &["03 compensate"]);
    assert!(matches!(stage.last.effects[..], [Effect::Call { .. }]));
}

/// A saga of the DTM dialect, of one step that is tried once and `limit` times again.
fn limited(limit: u32) -> Stage {
    Stage::new(Begin {
        dialect: Dialect::Dtm,
        retry_limit: Some(limit),
        retry_interval: Some(Duration::from_secs(10)),
        steps: vec![step()],
        ..begin(Mode::Saga)
    })
}

#[test]
fn few_tries_are_close_together_whatever_comes_of_them() {
    let mut stage = limited(2);
    stage.answers(1, Op::Action, unknown()).waits(Duration::from_millis(100));
    assert_eq!(stage.calls(), ["01 action"]);
    stage.answers(1, Op::Action, Outcome::Ongoing).waits(Duration::from_millis(200));
    assert_eq!(stage.calls(), ["01 action"]);
    stage.answers(1, Op::Action, Outcome::Ongoing).is(State::Aborting, true, &["01 compensate"]);
    // To undo has no limit, so its waits are those of everything else.
    stage.answers(1, Op::Compensate, unknown()).waits(Duration::from_secs(19));
    assert_eq!(stage.calls(), Vec::<String>::new());
    stage.waits(Duration::from_secs(1));
    assert_eq!(stage.calls(), ["01 compensate"]);
}

#[test]
fn to_undo_may_take_its_time_also_where_tries_are_few() {
    let mut stage = limited(0);
    stage.answers(1, Op::Action, unknown());
    for _ in 0..stage.policy.stuck_attempts {
        stage.answers(1, Op::Compensate, Outcome::Ongoing).waits(Duration::from_secs(10));
        assert_eq!(stage.calls(), ["01 compensate"]);
    }
    assert!(!stage.transaction.register.stuck);
}

#[test]
fn the_longest_wait_of_dtm_is_configured() {
    let mut stage = limited(0);
    stage.policy.dtm_interval_max = Duration::from_secs(15);
    stage.answers(1, Op::Action, unknown()).answers(1, Op::Compensate, unknown());
    stage.waits(Duration::from_secs(15));
    assert_eq!(stage.calls(), ["01 compensate"]);
}

#[test]
fn a_failure_is_told_in_the_words_of_its_dialect() {
    let detail = |mut stage: Stage| {
        stage.answers(1, Op::Action, refused());
        stage.transaction.register.reason.unwrap().detail
    };
    assert_eq!(detail(Stage::saga(1)), "01: no");
    assert_eq!(detail(limited(1)), "url:http://stock/action return failed: no");
}
