//! Options that come with the submit.

use std::time::Duration;

use super::stage::{Stage, begin, id, step, tcc};
use crate::error::Refused;
use crate::machine::{Amendment, Event, Outcome};
use crate::target::Target;
use crate::transaction::Begin;
use crate::word::{Dialect, Mode, Op, State};

/// A prepared message of two steps in the DTM dialect.
fn message() -> Stage {
    let mut step = step();
    if let crate::transaction::Part::Endpoint { targets, .. } = &mut step.part {
        std::sync::Arc::make_mut(targets).remove(&Op::Compensate);
    }
    let steps = vec![step.clone(), step];
    let check = Some(Target::Url("http://shop/check".to_owned()));
    Stage::new(Begin { dialect: Dialect::Dtm, check, steps, ..begin(Mode::Message) })
}

/// What says nothing new of `stage`.
fn same(stage: &Stage) -> Amendment {
    let begin = &stage.transaction.begin;
    Amendment {
        mode: begin.mode,
        headers: begin.headers.clone(),
        words: begin.words.clone(),
        retry_limit: begin.retry_limit,
        retry_interval: begin.retry_interval,
        call_timeout: begin.call_timeout,
        delay: begin.delay,
        concurrent: begin.concurrent,
    }
}

fn amend(amendment: Amendment) -> Event {
    Event::Amend(Box::new(amendment))
}

#[test]
fn what_says_nothing_new_writes_nothing() {
    let mut stage = message();
    let same = same(&stage);
    stage.does(amend(same));
    assert!(stage.last.write.is_empty());
}

#[test]
fn a_message_is_freed_and_put_off_and_its_steps_stay() {
    let mut stage = message();
    let delay = Duration::from_secs(5);
    let headers = vec![("x-a".to_owned(), "1".to_owned())];
    let freed = Amendment { concurrent: true, delay, headers, ..same(&stage) };
    stage.does(amend(freed));
    assert!(stage.last.write.durable && stage.last.write.body);
    assert_eq!(stage.transaction.begin.headers.len(), 1);
    stage.submits(&[]).is(State::Committing, true, &[]);
    stage.waits(delay).is(State::Committing, false, &["01 action", "02 action"]);

    let mut serial = message();
    let interval = Some(Duration::from_secs(1));
    let again = Amendment { retry_interval: interval, ..same(&serial) };
    serial.does(amend(again)).submits(&[]);
    serial.is(State::Committing, true, &["01 action"]);
    let branch = id(1);
    let (op, outcome) = (Op::Action, Outcome::Unknown("reset".to_owned()));
    serial.does(Event::Answered { branch, op, outcome, draw: 0 }).waits(Duration::from_secs(2));
    assert_eq!(serial.calls(), ["01 action"]);
}

#[test]
fn what_is_decided_or_of_another_kind_is_not_amended() {
    let mut stage = message();
    let other = Amendment { mode: Mode::Tcc, ..same(&stage) };
    assert!(matches!(stage.tries(amend(other)), Err(Refused::GidTaken { .. })));
    let same_message = same(&stage);
    stage.submits(&[]);
    assert!(matches!(stage.tries(amend(same_message)), Err(Refused::NotAllowed { .. })));
    let mut native = Stage::joined(Mode::Tcc, &[tcc()]);
    let same = same(&native);
    assert!(matches!(native.tries(amend(same)), Err(Refused::GidTaken { .. })));
}
