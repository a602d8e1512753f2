//! What answers mean, and what a beginning may not say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stage::{Stage, begin, endpoint, id, own, policy, resource, step, vote};
use crate::limits::BRANCHES_MAX;
use crate::machine::{Event, Outcome, Submit, VoteOf};
use crate::moment::Moment;
use crate::transaction::{Begin, NewBranch, Payload, Transaction};
use crate::word::{Mode, Op, OpState, Prepare, State, Vote};

/// Attempts counted and milliseconds waited after `outcome` of a commit.
#[track_caller]
fn check(outcome: Outcome, attempts: u32, wait_millis: u64) {
    let mut stage = Stage::joined(Mode::Xa, &[resource("orders")]);
    stage.submits(&[vote(1, Vote::Yes)]).answers(1, Op::Commit, outcome);
    let record = stage.transaction.branches[0].op(Op::Commit).unwrap();
    let waited = record.next_at.since(stage.now);
    assert_eq!((record.attempts, waited), (attempts, Duration::from_millis(wait_millis)));
    assert!(!record.state.is_settled(), "unknown never becomes done");
}

#[test]
fn an_answer_counts_as_an_attempt_unless_nothing_was_tried() {
    check(Outcome::Unknown("reset".to_owned()), 1, 500);
    check(Outcome::Refused("no".to_owned()), 1, 500);
    check(Outcome::Denied("password".to_owned()), 1, 500);
    check(Outcome::Ongoing, 0, 500);
    check(Outcome::Held("session 73".to_owned()), 0, 20);
    let open = Some(Duration::from_secs(7));
    check(Outcome::Unsent { why: "circuit open".to_owned(), retry_after: open }, 0, 7_000);
    check(Outcome::Unsent { why: "not connected".to_owned(), retry_after: None }, 1, 500);
}

#[test]
fn what_was_provably_not_sent_has_not_started() {
    let mut stage = Stage::saga(1);
    let unsent = Outcome::Unsent { why: "not connected".to_owned(), retry_after: None };
    stage.answers(1, Op::Action, unsent);
    assert_eq!(stage.transaction.branches[0].state_of(Op::Action), OpState::Waiting);
    stage.does(Event::Abort(super::stage::operator())).is(State::Aborted, true, &[]);
}

#[test]
fn an_answer_nobody_waits_for_changes_nothing() {
    let mut stage = Stage::joined(Mode::Xa, &[own()]);
    stage.submits(&[vote(1, Vote::Yes)]);
    for (number, op) in [(1, Op::Rollback), (7, Op::Commit)] {
        let before = stage.transaction.clone();
        stage.done(number, op);
        assert!(stage.last.write.is_empty(), "{number} {op}");
        assert_eq!(stage.transaction.state(), before.state());
    }
}

#[test]
fn an_answer_after_the_end_writes_nothing() {
    let give_up_after = Some(Duration::from_secs(1));
    let steps = vec![endpoint(&[Op::Action], Prepare::Own)];
    let mut stage =
        Stage::new(Begin { give_up_after, steps, submit: true, ..begin(Mode::Message) });
    stage.waits(Duration::from_secs(1)).is(State::Aborted, true, &[]);
    for outcome in [Outcome::Done, Outcome::Contradicted("a tomb".to_owned())] {
        stage.answers(1, Op::Action, outcome);
        assert!(stage.last.write.is_empty(), "its records go with the end: {:?}", stage.last);
    }
}

#[test]
fn what_is_done_when_time_is_up_is_done() {
    let second = Some(Duration::from_secs(1));
    let mut saga = Stage::new(Begin { deadline: second, steps: vec![step()], ..begin(Mode::Saga) });
    saga.now = saga.now.plus(Duration::from_secs(1));
    saga.done(1, Op::Action).is(State::Committed, true, &[]);
    let steps = vec![endpoint(&[Op::Action], Prepare::Own)];
    let mut message =
        Stage::new(Begin { give_up_after: second, steps, submit: true, ..begin(Mode::Message) });
    message.now = message.now.plus(Duration::from_secs(1));
    message.done(1, Op::Action).is(State::Committed, true, &[]);
}

#[test]
fn a_message_that_is_to_wait_is_not_stuck() {
    let (delay, steps) = (Duration::from_hours(1), vec![endpoint(&[Op::Action], Prepare::Own)]);
    let mut stage = Stage::new(Begin { delay, steps, submit: true, ..begin(Mode::Message) });
    stage.waits(Duration::from_mins(30)).is(State::Committing, false, &[]);
    assert!(!stage.transaction.register.stuck);
    stage.waits(Duration::from_mins(40));
    assert!(stage.transaction.register.stuck, "ten minutes after it was due");
}

#[test]
fn a_vote_bears_a_short_session_id() {
    let mut stage = Stage::joined(Mode::Xa, &[resource("orders")]);
    let long = VoteOf { session_id: Some("7".repeat(65)), ..vote(1, Vote::Yes) };
    let refused = stage.tries(Event::Submit(Submit { votes: vec![long] })).unwrap_err();
    assert_eq!(refused.to_string(), "session_id must be at most 64 bytes");
}

#[test]
fn a_late_action_does_not_bring_a_saga_back() {
    let mut stage = Stage::saga(1);
    stage.does(Event::Abort(super::stage::operator())).done(1, Op::Action);
    stage.is(State::Aborting, false, &[]);
    assert_eq!(stage.transaction.branches[0].state_of(Op::Action), OpState::Done);
    stage.done(1, Op::Compensate).is(State::Aborted, false, &[]);
}

#[test]
fn whom_nobody_need_ask_has_done_it() {
    let only_action = endpoint(&[Op::Action], Prepare::Own);
    let mut stage = Stage::new(Begin { steps: vec![only_action, step()], ..begin(Mode::Saga) });
    stage.done(1, Op::Action).answers(2, Op::Action, Outcome::Refused("no".to_owned()));
    stage.done(2, Op::Compensate).is(State::Aborted, false, &[]);
}

#[test]
fn a_vote_of_a_stranger_changes_nothing() {
    let mut stage = Stage::joined(Mode::Xa, &[own()]);
    let before = stage.transaction.clone();
    let submit = Submit { votes: vec![vote(1, Vote::Yes), vote(2, Vote::Yes)] };
    let refused = stage.tries(Event::Submit(submit)).unwrap_err();
    assert_eq!(refused.code(), "transaction-branch-unknown");
    assert_eq!(stage.transaction, before);
}

#[test]
fn the_next_moment_is_the_first_that_brings_something_about() {
    let policy = policy();
    let mut stage = Stage::joined(Mode::Xa, &[own()]);
    let after = |millis| Some(super::stage::START.plus(Duration::from_millis(millis)));
    assert_eq!(stage.transaction.next_at(&policy), after(60_000));
    stage.submits(&[vote(1, Vote::Yes)]);
    assert_eq!(stage.transaction.next_at(&policy), after(600_000), "a call is under way");
    stage.answers(1, Op::Commit, Outcome::Unknown("reset".to_owned()));
    assert_eq!(stage.transaction.next_at(&policy), after(500));
    stage.does(Event::Pause(super::stage::operator()));
    assert_eq!(stage.transaction.next_at(&policy), after(600_000));
    stage.does(Event::Resume(super::stage::operator())).done(1, Op::Commit);
    let _ended: Option<Moment> = stage.transaction.next_at(&policy);
}

/// Which field of a beginning is refused.
#[track_caller]
fn refuses(change: impl FnOnce(&mut Begin), mode: Mode, want: &str) {
    let mut begin = Begin { steps: vec![step(), step()], ..begin(mode) };
    if matches!(mode, Mode::Xa | Mode::Tcc) {
        begin.steps.clear();
    }
    change(&mut begin);
    let refused = Transaction::begin(begin, Moment::default(), &policy()).unwrap_err();
    let told = format!("{}: {refused}", refused.code());
    assert!(told.contains(want), "{told}");
}

#[test]
fn a_beginning_says_what_it_may() {
    let day = Duration::from_hours(24);
    refuses(|begin| begin.steps.clear(), Mode::Saga, "steps must name at least one");
    refuses(|begin| begin.submit = false, Mode::Saga, "submit must be true");
    refuses(|begin| begin.submit = true, Mode::Tcc, "submit comes after");
    refuses(|begin| begin.steps = vec![step()], Mode::Xa, "steps join by registering");
    refuses(|begin| begin.deadline = Some(day), Mode::Tcc, "at most 3600 s");
    refuses(|begin| begin.give_up_after = Some(day), Mode::Saga, "give_up_after_seconds");
    refuses(|begin| begin.name = Some("a\nb".to_owned()), Mode::Tcc, "name must be");
    refuses(
        |begin| begin.labels = BTreeMap::from([(String::new(), String::new())]),
        Mode::Tcc,
        "labels",
    );
    refuses(|begin| begin.steps[1].after = vec![1], Mode::Saga, "circle");
    refuses(|begin| begin.steps[1].after = vec![2], Mode::Saga, "place from 0");
    refuses(|begin| begin.steps[0] = resource("orders"), Mode::Saga, "`endpoint`");
    refuses(|begin| begin.steps[0] = own(), Mode::Saga, "no `commit` in a saga");
    refuses(|begin| begin.steps[0].branch = Some(id(2)), Mode::Saga, "branch-taken");
    let many = |begin: &mut Begin| begin.steps = vec![step(); BRANCHES_MAX + 1];
    refuses(many, Mode::Saga, "transaction-too-large");
    let of = |bytes: usize| Payload { bytes: vec![0; bytes].into(), ..Payload::default() };
    let large = |begin: &mut Begin| begin.steps[0].payload = of(65_537);
    refuses(large, Mode::Saga, "payload-too-large");
    let many_bytes = |begin: &mut Begin| {
        begin.steps = vec![NewBranch { payload: of(65_536), ..step() }; 9];
    };
    refuses(many_bytes, Mode::Saga, "transaction-too-large");
    let heads = |begin: &mut Begin| {
        let headers = vec![("a".to_owned(), "b".repeat(8_000))];
        let payload = Payload { headers, ..Payload::default() };
        begin.steps = vec![NewBranch { payload, ..step() }; 33];
    };
    refuses(heads, Mode::Saga, "bytes of headers and targets");
    let typed = |begin: &mut Begin| {
        begin.steps[0].payload.content_type = Some("a\nb".to_owned());
    };
    refuses(typed, Mode::Saga, "content_type must be");
    let headers = vec![("a b".to_owned(), "c".to_owned())];
    let named = |begin: &mut Begin| begin.steps[0].payload.headers = headers;
    refuses(named, Mode::Saga, "headers must be names");
}
