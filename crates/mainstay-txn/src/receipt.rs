//! Receipts: how an unknown outcome at a database is resolved.
//!
//! A database forgets a prepared branch once it has ended, and answers every later command with
//! "unknown". That word alone means nothing: committed, rolled back, not prepared yet, or held by
//! a session that still lives. So the first statement of a branch writes a **receipt** in the same
//! local transaction, and a rollback leaves a **tomb** under the same key: of the two one wins, and
//! what stands there afterwards is evidence.
//!
//! [`Resolve`] is the procedure as a machine: it says what to ask the database next and, from the
//! answers, what became of the branch. It never takes "unknown" for "done". The statements are in
//! [`mainstay_api::receipt`], since applications use them too.

use std::time::Duration;

use crate::crash;
use crate::machine::Outcome;
use crate::word::Decision;

/// What stands under the key of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Its local transaction was committed.
    Done,
    /// It was told to roll back, and can never be prepared any more.
    Tomb,
}

impl Receipt {
    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Tomb => "tomb",
        }
    }

    /// The one `word` stands for.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "done" => Some(Self::Done),
            "tomb" => Some(Self::Tomb),
            _ => None,
        }
    }
}

/// What to ask the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Commit or roll back the prepared branch.
    Finish(Decision),
    /// List prepared branches, ours of this branch among them. Before the receipt is read.
    List,
    /// Read the receipt in a fresh snapshot, on a primary that can be written.
    Read,
    /// Insert a tomb unless something stands there, and read what does.
    Bury,
    /// Wait, then read again: a commit may be on its way to being seen.
    Look(Duration),
}

/// What the database answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The command succeeded.
    Ended,
    /// It knows no such branch (`42704`, `1397`), or says that it was read-only (`1402`).
    NoSuchBranch,
    /// Whether the branch is listed as prepared.
    Listed(bool),
    /// What stands under its key.
    Receipt(Option<Receipt>),
    /// Somebody holds the key: a branch that is being prepared, or a server that only reads.
    Busy(String),
    /// It does not let us: credentials, privileges.
    Denied(String),
    /// Anything else, or nothing.
    Unclear(String),
}

/// How often a missing receipt is looked for before it counts as missing.
const LOOKS: u32 = 3;

/// Between two looks.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// The procedure for one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    decision: Decision,
    asked: Ask,
    looks: u32,
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Ask this.
    Ask(Ask),
    /// This became of it.
    Over(Outcome),
}

impl Resolve {
    /// Begins: what was decided, and the first question.
    pub const fn new(decision: Decision) -> (Self, Ask) {
        let asked = Ask::Finish(decision);
        (Self { decision, asked, looks: 0 }, asked)
    }

    /// Takes an answer in.
    pub fn told(&mut self, told: Told) -> Then {
        let then = match told {
            Told::Denied(why) => Then::Over(Outcome::Denied(why)),
            Told::Busy(why) | Told::Unclear(why) => Then::Over(Outcome::Unknown(why)),
            told => match self.decision {
                Decision::Commit => self.commit(&told),
                Decision::Abort => Self::rollback(&told),
            },
        };
        if let Then::Ask(ask) = then {
            self.asked = ask;
        }
        then
    }

    fn commit(&mut self, told: &Told) -> Then {
        match (self.asked, told) {
            (Ask::Finish(_), Told::Ended) => Then::Over(Outcome::Done),
            // The mistake that a bank of three databases is to find.
            (Ask::Finish(_), Told::NoSuchBranch) if crash::is_wrong("unknown-is-done") => {
                Then::Over(Outcome::Done)
            }
            (Ask::Finish(_), Told::NoSuchBranch) => Then::Ask(Ask::List),
            (Ask::List, Told::Listed(true)) => {
                Then::Over(Outcome::Held("prepared, and held by a live session".to_owned()))
            }
            (Ask::List, Told::Listed(false)) => Then::Ask(Ask::Read),
            (Ask::Read | Ask::Look(_), Told::Receipt(Some(Receipt::Done))) => {
                Then::Over(Outcome::Done)
            }
            (Ask::Read | Ask::Look(_), Told::Receipt(found)) => {
                self.looks += 1;
                if self.looks < LOOKS {
                    return Then::Ask(Ask::Look(LOOK_AFTER));
                }
                let found = found.map_or("no receipt", |_| "a tomb");
                let evidence =
                    format!("decided commit, and there is {found} and no prepared branch");
                Then::Over(Outcome::Contradicted(evidence))
            }
            (asked, told) => out_of_turn(asked, told),
        }
    }

    fn rollback(told: &Told) -> Then {
        match told {
            // Also after a success: a late delivery could begin the branch again.
            Told::Ended | Told::NoSuchBranch => Then::Ask(Ask::Bury),
            Told::Receipt(Some(Receipt::Tomb)) => Then::Over(Outcome::Done),
            Told::Receipt(Some(Receipt::Done)) => {
                let evidence =
                    "decided abort, and its receipt says that it was committed".to_owned();
                Then::Over(Outcome::Contradicted(evidence))
            }
            told => out_of_turn(Ask::Bury, told),
        }
    }
}

/// An answer to another question says nothing.
fn out_of_turn(asked: Ask, told: &Told) -> Then {
    Then::Over(Outcome::Unknown(format!("asked {asked:?} and was told {told:?}")))
}

/// What a sweep does with a prepared branch it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Commit it.
    Commit,
    /// Roll it back.
    Rollback,
    /// Roll it back, and tell the operator: it was prepared and never voted.
    RollbackUnvoted,
    /// Leave it to whoever is at work.
    Leave,
    /// No record speaks of it, and it has been there long enough: decide to abort, durably, then
    /// roll it back.
    Orphan,
}

impl Verdict {
    /// The word for people and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::RollbackUnvoted => "rollback-unvoted",
            Self::Leave => "leave",
            Self::Orphan => "orphan",
        }
    }
}

/// How long a branch without a record is left alone.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(90);

/// What to do with a listed branch. `record` is what the log says of its transaction, `seen_for`
/// how long it has been listed.
pub fn verdict(
    record: Option<&crate::transaction::Transaction>,
    branch: &crate::name::BranchId,
    seen_for: Duration,
    grace: Duration,
) -> Verdict {
    use crate::word::State;
    let Some(transaction) = record else {
        return if grace <= seen_for { Verdict::Orphan } else { Verdict::Leave };
    };
    if transaction.register.paused && !transaction.state().is_final() {
        return Verdict::Leave;
    }
    match transaction.state() {
        State::Active | State::Preparing | State::Querying | State::Mixed => Verdict::Leave,
        State::Aborting | State::Aborted => Verdict::Rollback,
        State::Committing | State::Committed => {
            let voted = transaction.branch(branch).and_then(|branch| branch.vote);
            if voted == Some(crate::word::Vote::Yes) {
                Verdict::Commit
            } else {
                Verdict::RollbackUnvoted
            }
        }
    }
}

#[cfg(test)]
mod tests;
