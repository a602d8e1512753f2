//! Participants: accounts at several services, each with a barrier, and one sum over all of them.
//!
//! What a participant stores is durable at once; that calls to it and its answers are lost, late
//! and repeated is the affair of whoever carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_api::barrier::{LOCAL_OP, Passage, ROLLED_BACK, undone};
use mainstay_txn::{BranchId, Decision, Gid, Mode, Op, invariants};
use parking_lot::Mutex;

use super::log::Log;
use super::mutant::Mutant;

/// Participants have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Refused,
}

/// One request to a participant.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) gid: Gid,
    pub(super) branch: BranchId,
    pub(super) mode: Mode,
    pub(super) op: Op,
    /// Whose account.
    pub(super) account: String,
    /// By how much it changes.
    pub(super) change: i64,
}

/// All participants. Clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Books {
    inner: Arc<Mutex<Inner>>,
    log: Log,
    mutant: Option<Mutant>,
}

#[derive(Debug, Default)]
struct Inner {
    accounts: BTreeMap<String, i64>,
    places: BTreeMap<(Gid, BranchId), Place>,
    counts: BTreeMap<&'static str, u64>,
}

/// What one participant knows of one branch.
#[derive(Debug, Default)]
struct Place {
    /// Rows of the barrier, with their reasons.
    barrier: BTreeMap<&'static str, &'static str>,
    /// What is set aside and neither taken nor given back.
    held: Option<i64>,
    /// What a two-phase commit left behind: committed, or never to be prepared.
    receipt: Option<Receipt>,
    /// By how much the branch has changed the account.
    moved: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receipt {
    Done,
    Tomb,
}

impl Books {
    pub(super) fn new(log: Log, mutant: Option<Mutant>) -> Self {
        let accounts = ACCOUNTS.iter().map(|account| ((*account).to_owned(), OPENING)).collect();
        let inner = Inner { accounts, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), log, mutant }
    }

    /// How often things were done.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().counts.clone()
    }

    /// The coordinator asks: what it says must stand in the log already.
    pub(super) fn coordinator_asks(&self, ask: &Ask) -> Reply {
        let logged = self.log.decision(&ask.gid);
        let right = match ask.op {
            // A copy that is late may arrive after a saga has turned round.
            Op::Action => logged.is_some() || ask.mode == Mode::Xa,
            op => invariants::durable_before_told(op, logged),
        };
        if !right {
            self.log.wrong(format!("{ask:?} arrives, and the log says {logged:?}"));
        }
        self.asks(ask)
    }

    /// An initiator asks: the coordinator must be able to find the branch again.
    pub(super) fn initiator_asks(&self, ask: &Ask) -> Reply {
        if !self.log.has_branch(&ask.gid, &ask.branch) {
            self.log.wrong(format!("{ask:?} arrives, and the log knows of no such branch"));
        }
        self.asks(ask)
    }

    fn asks(&self, ask: &Ask) -> Reply {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let place = inner.places.entry((ask.gid.clone(), ask.branch.clone())).or_default();
        let balance = inner.accounts.entry(ask.account.clone()).or_default();
        let reply = match ask.mode {
            Mode::Xa => place.two_phases(ask, balance),
            _ if ask.op == Op::Check => Ok(place.local_part()),
            _ => Ok(place.behind_the_barrier(ask, balance, self.mutant, &mut inner.counts)),
        };
        let reply = reply.unwrap_or_else(|wrong| {
            self.log.wrong(wrong);
            Reply::Done
        });
        self.log.note(|| {
            format!("{} {} {} at {}: {reply:?}", ask.gid, ask.branch, ask.op, ask.account)
        });
        reply
    }

    /// The local transaction of whoever sends a message; whether it was committed.
    pub(super) fn local(&self, gid: &Gid, account: &str, change: i64) -> bool {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let balance = inner.accounts.entry(account.to_owned()).or_default();
        let place = inner.places.entry((gid.clone(), local_branch())).or_default();
        if place.moved == 0 && *balance + change < 0 {
            return false;
        }
        let reason = *place.barrier.entry(LOCAL_OP).or_insert(LOCAL_OP);
        if reason != LOCAL_OP {
            return false;
        }
        if place.moved == 0 {
            place.moves(balance, change);
        }
        true
    }

    /// By how much each branch of `gid` has changed its account.
    pub(super) fn moved(&self, gid: &Gid, branch: &BranchId) -> i64 {
        let inner = self.inner.lock();
        inner.places.get(&(gid.clone(), branch.clone())).map_or(0, |place| place.moved)
    }

    /// No money came or went, and none is set aside for nobody.
    pub(super) fn check(&self) -> Result<(), String> {
        let inner = self.inner.lock();
        let held: BTreeSet<_> = inner
            .places
            .iter()
            .filter(|(_, place)| place.held.is_some())
            .map(|(at, _)| at)
            .collect();
        if !held.is_empty() {
            return Err(format!("money is still set aside for {held:?}"));
        }
        let sum: i64 = inner.accounts.values().sum();
        let opening = OPENING * i64::try_from(ACCOUNTS.len()).unwrap_or(0);
        if sum != opening {
            return Err(format!("there were {opening}, and now {sum}: {:?}", inner.accounts));
        }
        Ok(())
    }
}

impl Place {
    /// Sagas, try, confirm and cancel, and steps of messages.
    fn behind_the_barrier(
        &mut self,
        ask: &Ask,
        balance: &mut i64,
        mutant: Option<Mutant>,
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Reply {
        let before = self.barrier.clone();
        let passage = self.arrives(ask.op);
        match passage {
            Passage::Run => {}
            Passage::Duplicate => *counts.entry("duplicates").or_default() += 1,
            Passage::EmptyRollback => *counts.entry("empty rollbacks").or_default() += 1,
            Passage::Hanging => *counts.entry("hanging calls").or_default() += 1,
        }
        match passage {
            Passage::Hanging => return Reply::Refused,
            Passage::Run => {}
            _ if mutant == Some(Mutant::NoBarrier) => {}
            _ => return Reply::Done,
        }
        match ask.op {
            Op::Action | Op::Try if *balance + ask.change < 0 => {
                // An error rolls everything back, also the rows.
                self.barrier = before;
                return Reply::Refused;
            }
            Op::Action => self.moves(balance, ask.change),
            Op::Compensate => self.moves(balance, -ask.change),
            Op::Try => self.set_aside(balance, ask.change),
            Op::Confirm => self.take(balance),
            Op::Cancel => self.give_back(balance),
            _ => {}
        }
        Reply::Done
    }

    fn arrives(&mut self, op: Op) -> Passage {
        let places = undone(op.as_str()).iter();
        let taken = places.map(|place| self.insert(place, op.as_str())).sum();
        let own = self.insert(op.as_str(), op.as_str());
        let reason = self.barrier.get(op.as_str()).copied();
        Passage::judge(op.as_str(), taken, own, reason)
    }

    fn insert(&mut self, op: &'static str, reason: &'static str) -> u64 {
        let before = self.barrier.len();
        self.barrier.entry(op).or_insert(reason);
        u64::from(before < self.barrier.len())
    }

    /// Branches of a two-phase commit, which go by receipts.
    fn two_phases(&mut self, ask: &Ask, balance: &mut i64) -> Result<Reply, String> {
        match (ask.op, self.receipt) {
            (Op::Action | Op::Prepare, Some(Receipt::Tomb)) => Ok(Reply::Refused),
            (Op::Action | Op::Prepare, None) if self.held.is_some() => Ok(Reply::Done),
            (Op::Action | Op::Prepare, None) if *balance + ask.change < 0 => Ok(Reply::Refused),
            (Op::Action | Op::Prepare, None) => {
                self.set_aside(balance, ask.change);
                Ok(Reply::Done)
            }
            (Op::Action | Op::Prepare | Op::Commit, Some(Receipt::Done)) => Ok(Reply::Done),
            (Op::Commit, None) if self.held.is_some() => {
                self.take(balance);
                self.receipt = Some(Receipt::Done);
                Ok(Reply::Done)
            }
            (Op::Commit, _) => Err(format!("{ask:?} arrives, and it is not prepared")),
            (Op::Rollback, Some(Receipt::Done)) => {
                Err(format!("{ask:?} arrives, and it has committed"))
            }
            (Op::Rollback, _) => {
                self.give_back(balance);
                self.receipt = Some(Receipt::Tomb);
                Ok(Reply::Done)
            }
            _ => Err(format!("{ask:?} arrives at a two-phase commit")),
        }
    }

    /// What whoever sends a message says of its local part.
    fn local_part(&mut self) -> Reply {
        let reason = *self.barrier.entry(LOCAL_OP).or_insert(ROLLED_BACK);
        if reason == ROLLED_BACK { Reply::Refused } else { Reply::Done }
    }

    const fn moves(&mut self, balance: &mut i64, change: i64) {
        *balance += change;
        self.moved += change;
    }

    /// What goes away is set aside at once, what comes is there when it is confirmed.
    fn set_aside(&mut self, balance: &mut i64, change: i64) {
        self.held = Some(change);
        *balance += change.min(0);
    }

    fn take(&mut self, balance: &mut i64) {
        let held = self.held.take().unwrap_or(0);
        *balance += held.max(0);
        self.moved += held;
    }

    fn give_back(&mut self, balance: &mut i64) {
        *balance -= self.held.take().unwrap_or(0).min(0);
    }
}

/// The local part of a message, as it is called in a barrier.
pub(super) fn local_branch() -> BranchId {
    BranchId::number(0)
}

/// Which way a transaction went, as its participants show it.
pub(super) fn fits(moved: &[(i64, i64)], decision: Decision) -> bool {
    moved.iter().all(|(moved, change)| match decision {
        Decision::Commit => moved == change,
        Decision::Abort => *moved == 0,
    })
}

/// Whose money it is.
pub(super) const ACCOUNTS: [&str; 4] = ["ada", "ben", "cleo", "dora"];

/// What everybody has in the beginning: little, so that some are refused.
const OPENING: i64 = 12;
