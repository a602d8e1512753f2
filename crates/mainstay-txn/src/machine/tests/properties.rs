//! What holds whatever happens: messages lost, late, answered or not; a log that fails; crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mainstay_store::Key;
use proptest::prelude::*;

use super::stage::{
    START, begin, called, endpoint, id, operator, own, policy, resource, step, tcc,
};
use crate::invariants;
use crate::log::{self, Change, Keys};
use crate::machine::{By, Effect, Event, Outcome, Step, Submit, VoteOf};
use crate::moment::Moment;
use crate::name::{BranchId, Shards};
use crate::target::Target;
use crate::transaction::{Begin, NewBranch, Part, Transaction};
use crate::word::{Decision, Mode, Op, Prepare, State, Vote};

/// A call that was sent.
#[derive(Clone, Debug)]
struct Sent {
    branch: BranchId,
    op: Op,
    /// The process that sent it; an answer to one that has died is lost.
    life: u32,
}

/// One coordinator, its log, its participants.
struct World {
    live: Option<Transaction>,
    ended: Option<State>,
    now: Moment,
    life: u32,
    /// What is durable.
    log: BTreeMap<Key, Bytes>,
    /// What waits for company.
    lazy: Vec<Change>,
    is_down: bool,
    network: Vec<Sent>,
    /// What each branch did, in order: its barrier is applied.
    did: BTreeMap<BranchId, Vec<Op>>,
    /// Decisions the log has held, in order.
    decisions: Vec<Decision>,
    keys: Keys,
    votes: Vec<VoteOf>,
    begin: Begin,
    /// Which branches say no to a first-phase operation.
    refusing: BTreeSet<BranchId>,
}

impl World {
    fn new(begin: Begin, joining: &[NewBranch], refusing: &[usize]) -> Self {
        let (transaction, first) = Transaction::begin(begin.clone(), START, &policy()).unwrap();
        let voted = |(at, branch): (usize, &NewBranch)| {
            let resource = match &branch.part {
                Part::Resource(resource) => Some(resource.clone()),
                Part::Endpoint { prepare: Prepare::Called, .. } => return None,
                Part::Endpoint { .. } => None,
            };
            let (branch, listed) = (id(at + 1), at % 2 == 0);
            Some(VoteOf { branch, resource, vote: Vote::Yes, listed, session_id: None })
        };
        let mut world = Self {
            keys: Keys::new(transaction.gid(), Shards::DEFAULT),
            live: None,
            ended: None,
            now: START,
            life: 0,
            log: BTreeMap::new(),
            lazy: Vec::new(),
            is_down: false,
            network: Vec::new(),
            did: BTreeMap::new(),
            decisions: Vec::new(),
            votes: joining.iter().enumerate().filter_map(voted).collect(),
            begin,
            refusing: refusing.iter().map(|number| id(*number)).collect(),
        };
        let mut transaction = Some(transaction);
        world.take(&mut transaction, None, first);
        world.live = transaction;
        for branch in joining {
            world.happens(Event::Register(branch.clone()));
        }
        world
    }

    /// Does what a driver does with a step: log first, then effects.
    fn take(&mut self, live: &mut Option<Transaction>, before: Option<Transaction>, step: Step) {
        let Some(transaction) = live.as_ref() else { return };
        let change = Change::of(transaction, &step.write, Shards::DEFAULT, 1);
        if step.write.durable {
            if self.is_down {
                *live = before;
                return;
            }
            self.flush();
            change.apply_to(&mut self.log);
            self.look();
        } else if !change.is_empty() {
            self.lazy.push(change);
        }
        let mut is_over = false;
        for effect in step.effects {
            match effect {
                Effect::Call { branch, op, .. } => {
                    self.may_be_told(op);
                    self.network.push(Sent { branch, op, life: self.life });
                }
                Effect::End => is_over = true,
                Effect::Found(_) => {}
            }
        }
        if is_over && let Some(transaction) = live.take() {
            self.lazy.push(Change::end(&transaction, Shards::DEFAULT, 1));
            self.ended = Some(transaction.state());
        }
    }

    fn flush(&mut self) {
        if !self.is_down {
            for change in std::mem::take(&mut self.lazy) {
                change.apply_to(&mut self.log);
            }
            self.look();
        }
    }

    /// The transaction the log holds.
    fn logged(&self) -> Option<Transaction> {
        let body = self.log.get(&self.keys.body())?;
        if let Some(register) = self.log.get(&self.keys.register()) {
            let branches = self.log.iter().filter(|(key, _)| self.keys.branches().contains(key));
            let branches = branches.map(|(_, value)| &**value);
            return Some(log::read(body, register, branches).unwrap());
        }
        let history = self.log.get(&self.keys.history())?;
        Some(log::read_history(body, history).unwrap())
    }

    /// Notes which decision the log holds.
    fn look(&mut self) {
        let decision = self.logged().and_then(|logged| logged.register.decision);
        let Some(decision) = decision else {
            assert_eq!(self.decisions, [], "a decision was forgotten");
            return;
        };
        if self.decisions.last() != Some(&decision) {
            self.decisions.push(decision);
        }
        assert!(invariants::decided_once(self.begin.mode, &self.decisions), "{:?}", self.decisions);
    }

    /// Nobody is told of what is not durable.
    fn may_be_told(&self, op: Op) {
        let logged = self.logged().and_then(|logged| logged.register.decision);
        assert!(invariants::durable_before_told(op, logged), "{op} before {logged:?}");
    }

    fn happens(&mut self, event: Event) {
        let before = self.live.clone();
        let Some(transaction) = &mut self.live else { return };
        let again = match &event {
            Event::Answered { branch, op, .. } => Some((branch.clone(), *op)),
            _ => None,
        };
        let Ok(step) = transaction.step(event, self.now, &policy()) else { return };
        let is_lost = step.write.durable && self.is_down;
        let after = self.live.as_ref().zip(before.as_ref());
        if let Some((after, before)) = after {
            assert!(invariants::ops_move_forward(before, after));
        }
        let mut live = self.live.take();
        self.take(&mut live, before, step);
        self.live = live;
        if is_lost && let (Some((branch, op)), Some(live)) = (again, &mut self.live) {
            live.ask_again(&branch, op, self.now, &policy());
        }
    }

    fn submit(&mut self) {
        let submit = Submit { votes: self.votes.clone() };
        if self.live.is_some() || self.ended.is_some() {
            self.happens(Event::Submit(submit));
        } else if self.begin.mode == Mode::Xa {
            // The lazy begin was lost.
            let span = (START, START.plus(Duration::from_mins(1)));
            let taken =
                Transaction::submit_lost(self.begin.clone(), span, submit, self.now, &policy());
            if let Ok((transaction, step)) = taken {
                let mut live = Some(transaction);
                self.take(&mut live, None, step);
                self.live = live;
            }
        }
    }

    /// The process dies; another one reads the log.
    fn crash(&mut self) {
        self.life += 1;
        self.lazy.clear();
        self.ended = None;
        self.live = self.logged();
        if let Some(state) = self.live.as_ref().map(Transaction::state).filter(|s| s.is_final()) {
            (self.live, self.ended) = (None, Some(state));
        }
    }

    /// One message arrives; `how` says what becomes of it.
    fn deliver(&mut self, which: usize, how: u8) {
        if self.network.is_empty() {
            return;
        }
        let at = which % self.network.len();
        let sent = match how % 5 {
            4 => self.network[at].clone(), // It comes again later.
            _ => self.network.swap_remove(at),
        };
        let Sent { branch, op, life } = sent;
        let outcome = match how % 5 {
            0 => Outcome::Unsent { why: "not connected".to_owned(), retry_after: None },
            1 => Outcome::Unknown("lost".to_owned()),
            2 => {
                let _lost = self.perform(&branch, op);
                Outcome::Unknown("answer lost".to_owned())
            }
            _ => self.perform(&branch, op),
        };
        if life == self.life {
            self.happens(Event::Answered { branch, op, outcome, draw: u32::from(how) });
        }
    }

    /// What a participant does, behind its barrier.
    fn perform(&mut self, branch: &BranchId, op: Op) -> Outcome {
        if op == Op::Check {
            return if self.refusing.is_empty() {
                Outcome::Done
            } else {
                Outcome::Refused("no".to_owned())
            };
        }
        let did = self.did.entry(branch.clone()).or_default();
        let is_first = matches!(op, Op::Action | Op::Prepare) && self.begin.mode != Mode::Message;
        let undone = did.iter().any(|done| matches!(done, Op::Compensate | Op::Rollback));
        if is_first && (self.refusing.contains(branch) || undone) {
            return Outcome::Refused("no".to_owned());
        }
        if !did.contains(&op) {
            did.push(op);
        }
        Outcome::Done
    }

    /// Everything works again, until it is over.
    fn heal(&mut self) {
        self.is_down = false;
        if self.begin.mode == Mode::Message {
            self.submit();
        }
        self.happens(Event::Resume(operator()));
        for _turn in 0..400 {
            if self.live.is_none() {
                break;
            }
            while !self.network.is_empty() && self.live.is_some() {
                self.deliver(0, 3);
            }
            let next = self.live.as_ref().and_then(|live| live.next_at(&policy()));
            self.now = self.now.max(next.unwrap_or(self.now)).plus(Duration::from_millis(1));
            self.happens(Event::Time);
        }
        assert!(self.live.is_none(), "still {:?}", self.live);
        self.flush();
    }

    /// What every participant did fits the outcome.
    fn check(&self) {
        let Some(state) = self.ended else {
            // Its lazy begin was lost, and no submit came: presumed aborted, nobody was told.
            assert!(self.did.values().all(|did| !did.contains(&Op::Commit)));
            return;
        };
        assert_eq!(self.logged().map(|logged| logged.state()), Some(state), "the end is durable");
        for did in self.did.values() {
            assert!(invariants::told_one_way(did), "{did:?}");
        }
        let every = |op: Op| {
            (1..=self.branches())
                .all(|number| self.did.get(&id(number)).is_some_and(|did| did.contains(&op)))
        };
        match (state, self.begin.mode) {
            (State::Committed, Mode::Xa) => assert!(every(Op::Commit)),
            (State::Committed, Mode::Tcc) => assert!(every(Op::Confirm)),
            (State::Committed, _) => assert!(every(Op::Action)),
            (State::Aborted, Mode::Tcc) => assert!(every(Op::Cancel)),
            (State::Aborted, Mode::Saga) => {
                for did in self.did.values().filter(|did| did.contains(&Op::Action)) {
                    assert_eq!(did.last(), Some(&Op::Compensate), "{:?}", self.did);
                }
            }
            (State::Aborted, Mode::Message) => assert!(self.did.is_empty(), "{:?}", self.did),
            _ => {}
        }
    }

    fn branches(&self) -> usize {
        self.begin.steps.len().max(self.votes.len())
    }
}

fn story(kind: u8, refusing: &[usize]) -> World {
    let all = |branch: NewBranch| vec![branch; 3];
    match kind % 6 {
        0 => World::new(begin(Mode::Xa), &[own(), resource("orders"), own()], refusing),
        1 => World::new(begin(Mode::Xa), &[called(), resource("orders")], refusing),
        2 => World::new(begin(Mode::Tcc), &all(tcc()), refusing),
        3 => World::new(Begin { steps: all(step()), ..begin(Mode::Saga) }, &[], refusing),
        4 => {
            let last = NewBranch { after: vec![0, 1], ..step() };
            let steps = vec![step(), step(), last];
            let deadline = Some(Duration::from_secs(20));
            World::new(
                Begin { concurrent: true, deadline, steps, ..begin(Mode::Saga) },
                &[],
                refusing,
            )
        }
        _ => {
            let steps = all(endpoint(&[Op::Action], Prepare::Own));
            let check = Some(Target::Url("http://shop/check".to_owned()));
            World::new(Begin { check, steps, ..begin(Mode::Message) }, &[], refusing)
        }
    }
}

fn chaos(world: &mut World, (what, how): (u8, u8)) {
    match what % 16 {
        0..=6 => world.deliver(usize::from(how / 5), how),
        7 | 8 => {
            world.now = world.now.plus(Duration::from_millis(u64::from(how) * 20));
            world.happens(Event::Time);
        }
        9 => world.submit(),
        10 if how < 40 => world.happens(Event::Abort(By::Initiator(String::new()))),
        11 => world.crash(),
        12 => world.flush(),
        13 => world.is_down = how % 2 == 0,
        14 if how < 60 => world.happens(Event::Pause(operator())),
        15 => world.happens(Event::Retry(operator())),
        _ => world.happens(Event::Resume(operator())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    /// I1 to I5, I7: one decision, durable before anybody is told; every branch told one way;
    /// whatever is lost on the way, it ends, and everybody did what was decided.
    #[test]
    fn it_ends_as_it_was_decided_whatever_happens(
        kind: u8,
        refusing in prop::collection::vec(1_usize..4, 0..2),
        happens in prop::collection::vec(any::<(u8, u8)>(), 0..60),
    ) {
        let mut world = story(kind, &refusing);
        for one in happens {
            chaos(&mut world, one);
        }
        world.heal();
        world.check();
    }

    /// What a driver puts back after a failed write is what was there: nothing was told.
    #[test]
    fn the_log_alone_brings_back_what_was_decided(kind: u8, happens in prop::collection::vec(any::<(u8, u8)>(), 0..40)) {
        let mut world = story(kind, &[]);
        for one in happens {
            chaos(&mut world, one);
        }
        world.is_down = false;
        world.flush();
        if let (Some(live), Some(logged)) = (&world.live, world.logged()) {
            prop_assert_eq!(live.register.decision, logged.register.decision);
            prop_assert_eq!(&live.register.undo, &logged.register.undo);
            prop_assert_eq!(live.branches.len(), logged.branches.len());
            prop_assert_eq!(live.register.paused, logged.register.paused);
        }
    }
}
