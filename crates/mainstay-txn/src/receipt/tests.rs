//! The table of outcomes, and a database that forgets.

use proptest::prelude::*;

use super::*;
use crate::machine::{Event, Submit, VoteOf};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::policy::Policy;
use crate::transaction::{Begin, Transaction};
use crate::word::{Mode, Vote};

/// What is asked when the database answers `told`, and what becomes of the branch.
#[track_caller]
fn check(decision: Decision, told: &[Told], asked: &[Ask], over: &str) {
    let (mut resolve, first) = Resolve::new(decision);
    let mut questions = vec![first];
    let mut outcome = None;
    for told in told {
        assert_eq!(outcome, None, "it was over");
        match resolve.told(told.clone()) {
            Then::Ask(ask) => questions.push(ask),
            Then::Over(over) => outcome = Some(over),
        }
    }
    assert_eq!(questions, asked);
    let outcome = format!("{:?}", outcome.expect("it is over"));
    assert!(outcome.starts_with(over), "{outcome}");
}

#[test]
fn outcomes_are_those_of_the_table() {
    use Ask::{Bury, Finish, List, Look, Read};
    use Told::{Busy, Ended, Listed, NoSuchBranch, Receipt as Found};
    let (commit, abort) = (Decision::Commit, Decision::Abort);
    let (done, tomb) = (Found(Some(Receipt::Done)), Found(Some(Receipt::Tomb)));
    let look = Look(LOOK_AFTER);
    check(commit, &[Ended], &[Finish(commit)], "Done");
    check(commit, &[NoSuchBranch, Listed(true)], &[Finish(commit), List], "Held");
    let (unlisted, read) = ([NoSuchBranch, Listed(false)], [Finish(commit), List, Read]);
    check(commit, &[&unlisted[..], std::slice::from_ref(&done)].concat(), &read, "Done");
    let twice = [&read[..], &[look, look]].concat();
    for missing in [Found(None), tomb.clone()] {
        let told = [&unlisted[..], &[missing.clone(), missing.clone(), missing]].concat();
        check(commit, &told, &twice, "Contradicted");
    }
    let late = [&unlisted[..], &[Found(None), done.clone()]].concat();
    check(commit, &late, &[&read[..], &[look]].concat(), "Done");
    for first in [Ended, NoSuchBranch] {
        let asked = [Finish(abort), Bury];
        check(abort, &[first.clone(), tomb.clone()], &asked, "Done");
        check(abort, &[first.clone(), Busy("lock wait".to_owned())], &asked, "Unknown");
        check(abort, &[first, done.clone()], &asked, "Contradicted");
    }
    let denied = Told::Denied("28P01".to_owned());
    check(commit, &[denied], &[Finish(commit)], "Denied");
    check(commit, &[Busy("read-only".to_owned())], &[Finish(commit)], "Unknown");
    check(commit, &[NoSuchBranch, Ended], &[Finish(commit), List], "Unknown");
}

/// A database with one branch.
#[derive(Clone, Copy, Debug, Default)]
struct Database {
    prepared: bool,
    /// The session that prepared it lives, and only it can end the branch.
    held: bool,
    receipt: Option<Receipt>,
    /// The receipt is written and not committed: whoever inserts waits.
    pending: bool,
}

impl Database {
    fn answer(&mut self, ask: Ask) -> Told {
        match ask {
            Ask::Finish(_) if !self.prepared || self.held => Told::NoSuchBranch,
            Ask::Finish(decision) => {
                self.prepared = false;
                if decision == Decision::Commit {
                    self.receipt = Some(Receipt::Done);
                }
                Told::Ended
            }
            Ask::List => Told::Listed(self.prepared),
            Ask::Read | Ask::Look(_) => Told::Receipt(self.receipt),
            Ask::Bury if self.pending || self.prepared => Told::Busy("lock wait".to_owned()),
            Ask::Bury => Told::Receipt(Some(*self.receipt.get_or_insert(Receipt::Tomb))),
        }
    }
}

proptest! {
    /// I7: whoever is told that a branch is done finds it as decided, whatever happens before and
    /// meanwhile; a held or half prepared branch is never taken for one that has ended.
    #[test]
    fn unknown_never_becomes_done(
        commits: bool,
        prepared: bool,
        held: bool,
        pending: bool,
        rounds in prop::collection::vec((any::<bool>(), any::<bool>()), 1..12),
    ) {
        let decision = if commits { Decision::Commit } else { Decision::Abort };
        let mut database = Database { prepared, held: held && prepared, pending: pending && !prepared, receipt: None };
        for (loses, releases) in rounds {
            if releases {
                database.held = false;
                if database.pending {
                    // What was being prepared is prepared now.
                    (database.pending, database.prepared) = (false, database.receipt.is_none());
                }
            }
            let (mut resolve, mut ask) = Resolve::new(decision);
            let outcome = loop {
                let told = database.answer(ask);
                let told = if loses { Told::Unclear("reset".to_owned()) } else { told };
                match resolve.told(told) {
                    Then::Ask(next) => ask = next,
                    Then::Over(outcome) => break outcome,
                }
            };
            match outcome {
                Outcome::Done if commits => prop_assert_eq!(database.receipt, Some(Receipt::Done)),
                Outcome::Done => {
                    prop_assert_eq!(database.receipt, Some(Receipt::Tomb));
                    prop_assert!(!database.prepared && !database.pending);
                }
                Outcome::Contradicted(_) => prop_assert!(commits && !database.prepared),
                _ => {}
            }
        }
    }
}

#[test]
fn a_sweep_does_what_the_record_says() {
    let policy = Policy::default();
    let begin = Begin::new(Gid::new("order-1").unwrap(), Mode::Xa);
    let (active, _) = Transaction::begin(begin.clone(), Moment::default(), &policy).unwrap();
    let (first, second) = (BranchId::number(1), BranchId::number(2));
    let vote = VoteOf {
        branch: first.clone(),
        resource: Some(ResourceName::new("orders").unwrap()),
        vote: Vote::Yes,
        listed: true,
        session_id: None,
    };
    let mut committing = active.clone();
    let submit = Event::Submit(Submit { votes: vec![vote] });
    committing.step(submit, Moment::default(), &policy).unwrap();
    let found = (ResourceName::new("orders").unwrap(), first.clone());
    let (aborting, _) = Transaction::orphan(begin, found, Moment::default());
    let mut paused = committing.clone();
    paused.register.paused = true;
    let judge = |record, branch, seconds| {
        verdict(record, branch, Duration::from_secs(seconds), ORPHAN_GRACE)
    };
    assert_eq!(judge(Some(&committing), &first, 0), Verdict::Commit);
    assert_eq!(judge(Some(&committing), &second, 0), Verdict::RollbackUnvoted);
    assert_eq!(judge(Some(&aborting), &first, 0), Verdict::Rollback);
    assert_eq!(judge(Some(&active), &first, 9_999), Verdict::Leave);
    assert_eq!(judge(Some(&paused), &first, 9_999), Verdict::Leave);
    assert_eq!(judge(None, &first, 89), Verdict::Leave);
    assert_eq!(judge(None, &first, 90), Verdict::Orphan);
}
