//! Whoever begins transactions: asks whichever node answers, calls participants, gives up, dies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_txn::run::{Seen, Until, VerbError};
use mainstay_txn::{
    Begin, BranchId, By, Coordinator, Decision, Gid, Mode, NewBranch, Op, Part, Payload, Prepare,
    Refused, State, Submit, Target, Vote, VoteOf,
};
use parking_lot::Mutex;

use super::books::{ACCOUNTS, Ask, Reply};
use super::member::{Ground, Member};
use crate::draw::Draw;

/// Money that goes from one account to others.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) gid: Gid,
    pub(super) mode: Mode,
    /// Whose account changes by how much, branch by branch. Of a message the first is its sender's.
    pub(super) parts: Vec<(&'static str, i64)>,
}

impl Deed {
    pub(super) fn draw(number: u64, draw: &Draw) -> Self {
        let mode = *draw.pick(&[Mode::Saga, Mode::Tcc, Mode::Message, Mode::Xa]);
        let from = draw.below(4);
        let account = |ahead: u64| *draw.pick(&ACCOUNTS[at(from + ahead)..][..1]);
        let amount = 2 + i64::try_from(draw.below(6)).unwrap_or(0);
        let parts = match mode {
            Mode::Message => vec![(account(0), -amount), (account(1), amount)],
            // Who gets it may be told before who gives it.
            _ if draw.once_in(2) => {
                vec![(account(1), 1), (account(0), -amount), (account(2), amount - 1)]
            }
            _ => vec![(account(0), -amount), (account(1), amount)],
        };
        let gid = Gid::new(&format!("deed-{number}")).expect("a short name");
        Self { gid, mode, parts }
    }

    /// The name of the branch at place `at`: the local part of a message comes before the first.
    pub(super) fn branch(&self, at: usize) -> BranchId {
        BranchId::number(if self.mode == Mode::Message { at } else { at + 1 })
    }

    fn new_branch(&self, at: usize, ops: &[Op], prepare: Prepare) -> NewBranch {
        let (account, change) = self.parts[at];
        let targets: BTreeMap<_, _> = ops.iter().map(|op| (*op, target(account, *op))).collect();
        let bytes = Bytes::from(change.to_string());
        NewBranch {
            branch: Some(self.branch(at)),
            part: Part::Endpoint { targets: targets.into(), prepare },
            after: Vec::new(),
            payload: Payload { bytes, ..Payload::default() },
        }
    }

    fn ask(&self, at: usize, op: Op) -> Ask {
        let (account, change) = self.parts[at];
        let (gid, branch) = (self.gid.clone(), self.branch(at));
        Ask { gid, branch, mode: self.mode, op, account: account.to_owned(), change }
    }
}

fn at(account: u64) -> usize {
    usize::try_from(account).unwrap_or(0) % ACCOUNTS.len()
}

fn target(account: &str, op: Op) -> Target {
    Target::Url(format!("http://{account}/{op}"))
}

/// What initiators were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Transactions that were said to be there, for good.
    pub(super) promised: Vec<Gid>,
    /// How transactions were said to be decided.
    pub(super) decided: BTreeMap<Gid, Decision>,
}

/// Whoever begins one transaction.
#[derive(Clone)]
pub(super) struct Initiator {
    pub(super) ground: Ground,
    pub(super) members: Arc<Mutex<Vec<Member>>>,
    pub(super) told: Arc<Mutex<Told>>,
}

impl Initiator {
    /// Does `deed`, or leaves it half done.
    pub(super) async fn run(self, deed: Deed) {
        self.ground.log.note(|| format!("{deed:?} begins"));
        let done = match deed.mode {
            Mode::Saga => self.saga(&deed).await,
            Mode::Tcc => self.tcc(&deed).await,
            Mode::Message => self.message(&deed).await,
            Mode::Xa => self.two_phases(&deed).await,
        };
        if done.is_none() {
            self.ground.log.note(|| format!("{} is left by its initiator", deed.gid));
        }
    }

    async fn saga(&self, deed: &Deed) -> Option<()> {
        let steps = (0..deed.parts.len())
            .map(|at| deed.new_branch(at, &[Op::Action, Op::Compensate], Prepare::Own));
        let deadline = self.ground.draw.once_in(3).then(|| self.ground.draw.millis(5_000, 30_000));
        let begin = Begin {
            steps: steps.collect(),
            submit: true,
            concurrent: self.ground.draw.once_in(2),
            deadline,
            ..Begin::new(deed.gid.clone(), Mode::Saga)
        };
        self.begin(begin).await?;
        self.promised(deed);
        self.outcome(deed).await
    }

    async fn tcc(&self, deed: &Deed) -> Option<()> {
        let begin = Begin { ordered: self.ground.draw.once_in(2), ..self.two_phased(deed) };
        self.begin(begin).await?;
        self.promised(deed);
        let mut all_tried = true;
        for at in 0..deed.parts.len() {
            self.lives_on()?;
            self.register(deed, deed.new_branch(at, &[Op::Confirm, Op::Cancel], Prepare::Own))
                .await?;
            self.lives_on()?;
            if self.call(&deed.ask(at, Op::Try)).await != Some(Reply::Done) {
                all_tried = false;
                break;
            }
        }
        self.lives_on()?;
        if all_tried { self.submit(deed, Submit::default()).await } else { self.abort(deed).await }
    }

    async fn two_phases(&self, deed: &Deed) -> Option<()> {
        let begin = Begin { ordered: self.ground.draw.once_in(2), ..self.two_phased(deed) };
        self.begin(begin).await?;
        let mut votes = Vec::new();
        for at in 0..deed.parts.len() {
            self.lives_on()?;
            let called = self.ground.draw.once_in(3);
            let (ops, prepare) = if called {
                (&[Op::Prepare, Op::Commit, Op::Rollback][..], Prepare::Called)
            } else {
                (&[Op::Commit, Op::Rollback][..], Prepare::Own)
            };
            self.register(deed, deed.new_branch(at, ops, prepare)).await?;
            self.lives_on()?;
            if called {
                continue;
            }
            let prepared = self.call(&deed.ask(at, Op::Action)).await == Some(Reply::Done);
            votes.push(VoteOf {
                branch: deed.branch(at),
                resource: None,
                vote: if prepared { Vote::Yes } else { Vote::No },
                listed: false,
                session_id: None,
            });
        }
        self.lives_on()?;
        self.submit(deed, Submit { votes }).await
    }

    async fn message(&self, deed: &Deed) -> Option<()> {
        let (sender, change) = deed.parts[0];
        let begin = Begin {
            steps: vec![deed.new_branch(1, &[Op::Action], Prepare::Own)],
            check: Some(target(sender, Op::Check)),
            ..self.two_phased(deed)
        };
        self.begin(begin).await?;
        self.promised(deed);
        self.lives_on()?;
        let local = self.ground.books.local(&deed.gid, sender, change);
        self.ground.log.note(|| format!("{} local part: {local}", deed.gid));
        self.lives_on()?;
        if local { self.submit(deed, Submit::default()).await } else { self.abort(deed).await }
    }

    /// What two-phase commits, tries and messages are begun with.
    fn two_phased(&self, deed: &Deed) -> Begin {
        let deadline = Some(self.ground.draw.millis(4_000, 40_000));
        Begin { deadline, ..Begin::new(deed.gid.clone(), deed.mode) }
    }

    async fn begin(&self, begin: Begin) -> Option<()> {
        let begun = self.ask(|node| {
            let begin = begin.clone();
            async move { node.begin(begin).await }
        });
        begun.await?.ok().map(drop)
    }

    async fn register(&self, deed: &Deed, branch: NewBranch) -> Option<()> {
        let registered = self.ask(|node| {
            let (gid, branch) = (deed.gid.clone(), branch.clone());
            async move { node.register(&gid, branch).await }
        });
        registered.await?.ok().map(drop)
    }

    async fn submit(&self, deed: &Deed, submit: Submit) -> Option<()> {
        let answer = self.ask(|node| {
            let (gid, submit) = (deed.gid.clone(), submit.clone());
            async move { node.submit(&gid, submit, None).await }
        });
        self.is_told(deed, answer.await?);
        self.outcome(deed).await
    }

    async fn abort(&self, deed: &Deed) -> Option<()> {
        let answer = self.ask(|node| {
            let gid = deed.gid.clone();
            async move { node.abort(&gid, By::Initiator("a step was refused".to_owned())).await }
        });
        self.is_told(deed, answer.await?);
        Some(())
    }

    /// Waits for the end, not for ever.
    async fn outcome(&self, deed: &Deed) -> Option<()> {
        let answer = self.ask(|node| {
            let gid = deed.gid.clone();
            async move { node.wait(&gid, Until::Done, Duration::from_secs(4)).await }
        });
        match answer.await? {
            Ok(seen) if !seen.transaction.state().is_final() => {}
            answer => self.is_told(deed, answer),
        }
        Some(())
    }

    fn promised(&self, deed: &Deed) {
        self.told.lock().promised.push(deed.gid.clone());
    }

    /// An answer arrives; two of them may not say different things.
    fn is_told(&self, deed: &Deed, answer: Result<Seen, VerbError>) {
        let told = match &answer {
            Ok(seen) => match seen.transaction.state() {
                // Going forward is no promise of a saga.
                State::Committing if deed.mode == Mode::Saga => None,
                State::Committing | State::Committed => Some(Decision::Commit),
                State::Aborting | State::Aborted => Some(Decision::Abort),
                _ => None,
            },
            Err(VerbError::Refused(Refused::Committed)) => Some(Decision::Commit),
            Err(VerbError::Refused(Refused::Aborted(_)) | VerbError::Unknown { .. }) => {
                Some(Decision::Abort)
            }
            Err(_) => None,
        };
        let Some(told) = told else { return };
        self.ground.log.note(|| format!("{} is told {told:?}", deed.gid));
        let before = self.told.lock().decided.insert(deed.gid.clone(), told);
        if before.is_some_and(|before| before != told) {
            self.ground.log.wrong(format!("{} was told {before:?}, then {told:?}", deed.gid));
        }
    }

    /// `None` when the initiator dies here.
    fn lives_on(&self) -> Option<()> {
        (!self.ground.happens_once_in(25)).then_some(())
    }

    /// Calls a participant; `None` when no answer came, however often it was called.
    async fn call(&self, ask: &Ask) -> Option<Reply> {
        for _attempt in 0..3 {
            let draw = &self.ground.draw;
            tokio::time::sleep(draw.millis(0, 10)).await;
            if self.ground.happens_once_in(12) {
                if self.ground.draw.once_in(2) {
                    // It arrives, when nobody waits for it any more.
                    let (late, books, ask) =
                        (draw.millis(100, 30_000), self.ground.books.clone(), ask.clone());
                    crate::clock::spawn(async move {
                        tokio::time::sleep(late).await;
                        let _nobody_waits: Reply = books.initiator_asks(&ask);
                    });
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let reply = self.ground.books.initiator_asks(ask);
            if self.ground.happens_once_in(12) {
                continue;
            }
            return Some(reply);
        }
        None
    }

    /// Asks one node after the other until one has an answer that stands; `None` when the
    /// initiator gives up.
    async fn ask<F>(&self, verb: impl Fn(Coordinator) -> F) -> Option<Result<Seen, VerbError>>
    where
        F: Future<Output = Result<Seen, VerbError>>,
    {
        for _attempt in 0..80 {
            tokio::time::sleep(self.ground.draw.millis(1, 400)).await;
            let member = self.ground.draw.pick(&self.members.lock()).clone();
            let Some(node) = member.coordinator() else { continue };
            let answer = tokio::time::timeout(Duration::from_secs(6), async {
                member.clock.running().await;
                let answer = verb(node).await;
                member.clock.running().await;
                answer
            });
            let Ok(answer) = answer.await else { continue };
            self.ground.log.note(|| match &answer {
                Ok(seen) => format!(
                    "n{}: {} {}",
                    member.node,
                    seen.transaction.gid(),
                    seen.transaction.state()
                ),
                Err(error) => format!("n{}: {error:?}", member.node),
            });
            if member.is_killed() || self.ground.happens_once_in(20) {
                continue;
            }
            match answer {
                Ok(_) | Err(VerbError::Refused(_) | VerbError::Unknown { .. }) => {
                    return Some(answer);
                }
                Err(_) => {}
            }
        }
        None
    }
}
