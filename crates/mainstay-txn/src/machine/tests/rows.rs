//! The transition table, row by row.

use std::time::Duration;

use super::stage::{
    START, Stage, begin, called, endpoint, id, operator, own, policy, resource, step, tcc, vote,
};
use crate::error::Refused;
use crate::machine::{By, Event, Finding, Outcome, Resolution, Submit, VoteOf};
use crate::name::ResourceName;
use crate::target::Target;
use crate::transaction::{Begin, Transaction};
use crate::word::{Decision, Mode, Op, Prepare, State, Vote, Why};

const MINUTE: Duration = Duration::from_mins(1);

fn asked() -> By {
    By::Initiator(String::new())
}

fn message(submit: bool) -> Begin {
    let check = Some(Target::Url("http://shop/check".to_owned()));
    let steps = vec![endpoint(&[Op::Action], Prepare::Own); 2];
    Begin { check, steps, submit, ..begin(Mode::Message) }
}

fn why(stage: &Stage) -> Option<Why> {
    stage.transaction.register.reason.as_ref().map(|reason| reason.why)
}

#[test]
fn row_1_a_two_phase_commit_begins_without_waiting_for_the_log_unless_it_is_ordered() {
    Stage::new(begin(Mode::Xa)).is(State::Active, false, &[]);
    // No submit says an order again.
    let ordered = Begin { ordered: true, ..begin(Mode::Xa) };
    Stage::new(ordered).is(State::Active, true, &[]);
}

#[test]
fn row_2_a_tcc_or_prepared_message_is_durable_before_its_answer() {
    Stage::new(begin(Mode::Tcc)).is(State::Active, true, &[]);
    Stage::new(message(false)).is(State::Active, true, &[]);
}

#[test]
fn row_3_what_is_submitted_at_once_is_created_and_decided_in_one_record() {
    let saga = Stage::saga(2);
    saga.is(State::Committing, true, &["01 action"]);
    assert!(saga.last.write.body && saga.last.write.register);
    let steps = vec![endpoint(&[Op::Action], Prepare::Own)];
    let once = Begin { steps, submit: true, ..begin(Mode::Message) };
    Stage::new(once).is(State::Committing, true, &["01 action"]);
}

#[test]
fn row_4_endpoints_join_durably_and_resources_lazily() {
    let mut stage = Stage::new(begin(Mode::Xa));
    stage.does(Event::Register(own())).is(State::Active, true, &[]);
    stage.does(Event::Register(resource("orders"))).is(State::Active, false, &[]);
    let ids: Vec<_> = stage.transaction.branches.iter().map(|b| b.id.to_string()).collect();
    assert_eq!(ids, ["01", "02"]);
    stage.now = START.plus(MINUTE);
    assert_eq!(stage.tries(Event::Register(own())), Err(Refused::DeadlinePassed));
}

#[test]
fn row_5_all_votes_yes_commit_and_who_only_read_is_not_told() {
    let mut stage = Stage::joined(Mode::Xa, &[own(), own(), resource("orders")]);
    stage.submits(&[vote(1, Vote::Yes), vote(2, Vote::ReadOnly), vote(3, Vote::Yes)]);
    stage.is(State::Committing, true, &["01 commit", "03 commit"]);
    stage.done(3, Op::Commit).is(State::Committing, false, &[]);
    stage.done(1, Op::Commit).is(State::Committed, false, &[]);
    let mut readers = Stage::joined(Mode::Xa, &[own()]);
    readers.submits(&[vote(1, Vote::ReadOnly)]).is(State::Committed, true, &[]);
    let mut tcc = Stage::joined(Mode::Tcc, &[tcc(), tcc()]);
    tcc.submits(&[]).is(State::Committing, true, &["01 confirm", "02 confirm"]);
}

#[test]
fn row_6_and_7_who_is_called_prepares_first() {
    let mut stage = Stage::joined(Mode::Xa, &[called(), own(), called()]);
    stage.submits(&[vote(2, Vote::Yes)]);
    stage.is(State::Preparing, false, &["01 prepare", "03 prepare"]);
    stage.done(1, Op::Prepare).is(State::Preparing, false, &[]);
    stage.done(3, Op::Prepare);
    stage.is(State::Committing, true, &["01 commit", "02 commit", "03 commit"]);
}

#[test]
fn row_6_a_resource_that_was_not_listed_is_looked_for() {
    let unlisted = VoteOf { listed: false, ..vote(1, Vote::Yes) };
    let mut stage = Stage::joined(Mode::Xa, &[resource("orders")]);
    stage.submits(std::slice::from_ref(&unlisted)).is(State::Preparing, false, &["01 prepare"]);
    stage.done(1, Op::Prepare).is(State::Committing, true, &["01 commit"]);
    let mut stage = Stage::joined(Mode::Xa, &[resource("orders")]);
    stage.submits(&[unlisted]).answers(1, Op::Prepare, Outcome::Refused("not listed".to_owned()));
    stage.is(State::Aborting, true, &["01 rollback"]);
    assert_eq!(why(&stage), Some(Why::VoteNo));
}

#[test]
fn row_8_one_no_a_missing_vote_a_wish_or_the_deadline_aborts() {
    let joined = || Stage::joined(Mode::Xa, &[own(), own()]);
    let both = ["01 rollback", "02 rollback"];
    let mut no = joined();
    no.submits(&[vote(1, Vote::Yes), vote(2, Vote::No)]).is(State::Aborting, true, &both);
    assert_eq!(why(&no), Some(Why::VoteNo));
    let mut missing = joined();
    missing.submits(&[vote(1, Vote::Yes)]).is(State::Aborting, true, &both);
    assert_eq!(why(&missing), Some(Why::VoteMissing));
    let mut asks = joined();
    asks.does(Event::Abort(asked())).is(State::Aborting, true, &both);
    assert_eq!(why(&asks), Some(Why::Asked));
    let mut late = joined();
    late.waits(Duration::from_millis(59_999)).is(State::Active, false, &[]);
    late.waits(Duration::from_millis(1)).is(State::Aborting, true, &both);
    assert_eq!(why(&late), Some(Why::Deadline));
    late.done(1, Op::Rollback).done(2, Op::Rollback).is(State::Aborted, false, &[]);
    let mut preparing = Stage::joined(Mode::Xa, &[called()]);
    preparing.submits(&[]).does(Event::Abort(operator()));
    preparing.is(State::Aborting, true, &["01 rollback"]);
    preparing.done(1, Op::Prepare).is(State::Aborting, false, &[]);
    assert_eq!(preparing.transaction.branches[0].vote, None, "too late to vote");
}

#[test]
fn row_9_and_10_the_sender_of_a_message_is_asked_after_the_deadline() {
    let late = || {
        let mut stage = Stage::new(message(false));
        stage.waits(MINUTE).is(State::Querying, false, &["00 msg"]);
        stage
    };
    late().sender_answers(Outcome::Done).is(State::Committing, true, &["01 action"]);
    let mut refused = late();
    refused.sender_answers(Outcome::Refused("rolled back".to_owned()));
    refused.is(State::Aborted, true, &[]);
    assert_eq!(why(&refused), Some(Why::CheckRefused));
    let mut ongoing = late();
    ongoing.sender_answers(Outcome::Ongoing).is(State::Querying, false, &[]);
    ongoing.waits(Duration::from_millis(500)).is(State::Querying, false, &["00 msg"]);
    ongoing.submits(&[]).is(State::Committing, true, &["01 action"]);
}

#[test]
fn row_11_a_saga_turns_round() {
    let mut failed = Stage::saga(2);
    failed.done(1, Op::Action).answers(2, Op::Action, Outcome::Refused("sold out".to_owned()));
    failed.is(State::Aborting, true, &["02 compensate"]);
    assert!(failed.last.write.branches.contains(&1), "in the same record");
    let mut asked_to = Stage::saga(2);
    asked_to.does(Event::Abort(operator())).is(State::Aborting, true, &["01 compensate"]);
    let steps = vec![step()];
    let mut late = Stage::new(Begin { deadline: Some(MINUTE), steps, ..begin(Mode::Saga) });
    late.waits(MINUTE).is(State::Aborting, true, &["01 compensate"]);
    let steps = vec![step()];
    let mut limited = Stage::new(Begin { retry_limit: Some(1), steps, ..begin(Mode::Saga) });
    limited.answers(1, Op::Action, Outcome::Unknown("reset".to_owned()));
    limited.waits(MINUTE).answers(1, Op::Action, Outcome::Unknown("reset".to_owned()));
    limited.is(State::Aborting, true, &["01 compensate"]);
    assert_eq!(why(&limited), Some(Why::RetryLimit));
}

#[test]
fn row_12_and_13_it_ends_when_every_branch_has_heard() {
    let mut stage = Stage::joined(Mode::Tcc, &[tcc(), tcc()]);
    stage.does(Event::Abort(asked())).done(2, Op::Cancel).is(State::Aborting, false, &[]);
    stage.done(1, Op::Cancel).is(State::Aborted, false, &[]);
}

#[test]
fn row_14_and_15_a_contradiction_makes_it_mixed_until_a_person_resolves_it() {
    let mut stage = Stage::joined(Mode::Xa, &[resource("orders"), resource("stock")]);
    stage.submits(&[vote(1, Vote::Yes), vote(2, Vote::Yes)]);
    stage.answers(1, Op::Commit, Outcome::Contradicted("no receipt".to_owned()));
    stage.is(State::Committing, true, &[]);
    assert!(matches!(stage.findings()[..], [Finding::Contradiction { .. }]));
    stage.done(2, Op::Commit).is(State::Mixed, true, &[]);
    assert_eq!(stage.findings(), [&Finding::Mixed]);
    assert_eq!(stage.tries(Event::Submit(Submit::default())), Err(Refused::Mixed));
    let resolution = Resolution { by: operator(), decision: Decision::Commit, branch: None };
    stage.does(Event::Resolve(resolution)).is(State::Committed, true, &[]);
    assert!(stage.transaction.register.heuristic);
}

#[test]
fn row_15_what_cannot_be_reached_is_ended_by_hand() {
    let mut stage = Stage::joined(Mode::Xa, &[own(), own()]);
    stage.submits(&[vote(1, Vote::Yes), vote(2, Vote::Yes)]).done(1, Op::Commit);
    let by_hand = |decision| Resolution { by: operator(), decision, branch: Some(id(2)) };
    stage.does(Event::Resolve(by_hand(Decision::Commit)));
    stage.is(State::Committed, true, &[]);
    let late = stage.done(2, Op::Commit);
    assert!(late.last.write.is_empty(), "an operator was faster");

    let mut against = Stage::joined(Mode::Xa, &[own()]);
    against.submits(&[vote(1, Vote::Yes)]);
    let branch = Some(id(1));
    let resolution = Resolution { by: operator(), decision: Decision::Abort, branch };
    against.does(Event::Resolve(resolution)).is(State::Mixed, true, &[]);
}

#[test]
fn row_16_a_pause_calls_nobody_and_deadlines_decide_all_the_same() {
    let mut stage = Stage::joined(Mode::Xa, &[own()]);
    stage.does(Event::Pause(operator())).is(State::Active, true, &[]);
    stage.waits(MINUTE).is(State::Aborting, true, &[]);
    assert!(!stage.transaction.wants(&id(1), Op::Rollback));
    stage.does(Event::Resume(operator())).is(State::Aborting, true, &["01 rollback"]);
    assert!(stage.transaction.wants(&id(1), Op::Rollback));
}

#[test]
fn row_17_it_gets_stuck_by_attempts_by_time_and_by_what_no_attempt_will_change() {
    let told = || {
        let mut stage = Stage::joined(Mode::Xa, &[resource("orders")]);
        stage.submits(&[vote(1, Vote::Yes)]);
        stage
    };
    for outcome in [Outcome::Refused("no".to_owned()), Outcome::Denied("password".to_owned())] {
        let mut at_once = told();
        at_once.answers(1, Op::Commit, outcome).is(State::Committing, false, &[]);
        assert!(matches!(at_once.findings()[..], [Finding::Stuck { .. }]));
        at_once.waits(MINUTE).is(State::Committing, false, &["01 commit"]);
        at_once.done(1, Op::Commit).is(State::Committed, false, &[]);
        assert!(!at_once.transaction.register.stuck);
    }
    let mut slow = told();
    slow.waits(Duration::from_mins(10)).is(State::Committing, false, &[]);
    assert!(matches!(slow.findings()[..], [Finding::Stuck { branch: None, .. }]));
    assert!(slow.waits(MINUTE).findings().is_empty(), "told once");
}

#[test]
fn row_18_a_branch_without_a_record_is_rolled_back() {
    let found = (ResourceName::new("orders").unwrap(), id(1));
    let (transaction, last) = Transaction::orphan(begin(Mode::Xa), found, START);
    let stage = Stage { transaction, policy: policy(), now: START, last };
    stage.is(State::Aborting, true, &["01 rollback"]);
    assert_eq!(why(&stage), Some(Why::Orphan));
}

#[test]
fn row_19_a_submit_whose_begin_was_lost_commits_before_its_deadline() {
    let votes =
        vec![VoteOf { resource: Some(ResourceName::new("orders").unwrap()), ..vote(1, Vote::Yes) }];
    let lost = |now, mode| {
        let submit = Submit { votes: votes.clone() };
        Transaction::submit_lost(begin(mode), (START, START.plus(MINUTE)), submit, now, &policy())
    };
    let (transaction, last) = lost(START.plus(MINUTE / 2), Mode::Xa).unwrap();
    assert!(last.write.body && last.write.register);
    let stage = Stage { transaction, policy: policy(), now: START, last };
    stage.is(State::Committing, true, &["01 commit"]);
    assert_eq!(lost(START.plus(MINUTE), Mode::Xa).unwrap_err(), Refused::TooOld);
    assert_eq!(lost(START, Mode::Tcc).unwrap_err(), Refused::Aborted(None), "presumed");
}

#[test]
fn row_20_a_verb_said_again_changes_nothing() {
    let mut stage = Stage::joined(Mode::Xa, &[own()]);
    let again = crate::transaction::NewBranch { branch: Some(id(1)), ..own() };
    stage.does(Event::Register(again.clone())).is(State::Active, false, &[]);
    let payload = crate::transaction::Payload { bytes: "x".into(), ..Default::default() };
    let other = crate::transaction::NewBranch { payload, ..again };
    assert_eq!(stage.tries(Event::Register(other)), Err(Refused::BranchTaken { branch: id(1) }));
    stage.submits(&[vote(1, Vote::Yes)]).submits(&[vote(1, Vote::Yes)]);
    stage.is(State::Committing, false, &[]);
    let mut aborted = Stage::joined(Mode::Xa, &[]);
    aborted.does(Event::Abort(asked())).does(Event::Abort(asked()));
    assert!(aborted.last.write.is_empty());
}

#[test]
fn row_21_what_was_decided_stays_decided() {
    let mut stage = Stage::joined(Mode::Tcc, &[tcc()]);
    stage.submits(&[]);
    assert_eq!(stage.tries(Event::Abort(operator())), Err(Refused::Committed));
    assert_eq!(
        stage.tries(Event::Register(tcc())),
        Err(Refused::NotActive { state: State::Committing })
    );
    let mut aborted = Stage::joined(Mode::Tcc, &[tcc()]);
    aborted.does(Event::Abort(asked()));
    let refused = aborted.tries(Event::Submit(Submit::default())).unwrap_err();
    assert_eq!(refused.code(), "transaction-aborted");
}

#[test]
fn branches_told_in_order_wait_for_each_other() {
    let ordered = || {
        let mut stage = Stage::new(Begin { ordered: true, ..begin(Mode::Tcc) });
        stage.does(Event::Register(tcc())).does(Event::Register(tcc()));
        stage
    };
    let mut commits = ordered();
    commits.submits(&[]).is(State::Committing, true, &["01 confirm"]);
    commits.done(1, Op::Confirm).is(State::Committing, false, &["02 confirm"]);
    let mut aborts = ordered();
    aborts.does(Event::Abort(asked())).is(State::Aborting, true, &["02 cancel"]);
    aborts.done(2, Op::Cancel).is(State::Aborting, false, &["01 cancel"]);
}

#[test]
fn a_message_is_delayed_and_given_up_and_delivered_again() {
    let steps = vec![endpoint(&[Op::Action], Prepare::Own)];
    let (delay, give_up_after) = (MINUTE, Some(MINUTE * 2));
    let once = Begin { delay, give_up_after, steps, submit: true, ..begin(Mode::Message) };
    let mut stage = Stage::new(once);
    stage.is(State::Committing, true, &[]);
    stage.waits(MINUTE).is(State::Committing, false, &["01 action"]);
    stage.answers(1, Op::Action, Outcome::Unknown("reset".to_owned()));
    stage.waits(MINUTE).is(State::Aborted, true, &[]);
    assert_eq!(why(&stage), Some(Why::GaveUp));
    let again = stage.transaction.redelivery(1).unwrap();
    assert_eq!(again.gid.as_str(), "order-1.r1");
    Stage::new(again).is(State::Committing, true, &["01 action"]);
    assert!(Stage::saga(1).transaction.redelivery(1).is_err());
}

#[test]
fn a_verb_of_a_person_has_a_reason() {
    let silent = By::Operator { name: "ada".to_owned(), reason: "no".to_owned() };
    let refused = Stage::saga(1).tries(Event::Abort(silent)).unwrap_err();
    assert_eq!((refused.code(), refused.http()), ("transaction-invalid", 400));
}
