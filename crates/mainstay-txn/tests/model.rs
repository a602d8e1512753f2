//! Every order of events of a two-phase commit over two databases, with two nodes.
//!
//! The coordinator is the real machine; the model is what lies around it: a log that refuses
//! writes of older epochs, nodes that die, take over, and go on as zombies, messages that are lost
//! and come twice, databases with prepared branches and receipts, a manager that repeats itself, a
//! deadline, a sweep. All states that can be reached are visited, so what is asserted holds in every
//! one of them. A mistake that the specification warns of, a sweep that rolls back before its
//! record is durable, has to be found.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_txn::invariants;
use mainstay_txn::transaction::Transaction;
use mainstay_txn::word::{Decision, Mode, Op, State, Vote};
use mainstay_txn::{
    Begin, BranchId, By, Effect, Event, Gid, Moment, Outcome, Policy, ResourceName, Step, Submit,
    VoteOf,
};
use stateright::{Checker as _, Model, Property};

const START: Moment = Moment::from_unix_millis(1_000_000);
const DEADLINE: Duration = Duration::from_mins(1);
const NODES: usize = 2;
const EPOCHS: u8 = 2;

/// A branch at its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Nothing yet, or refused.
    Empty,
    /// It has voted yes.
    Prepared,
    Committed,
    /// Rolled back, with a tomb: it can never be prepared any more.
    RolledBack,
}

/// A process that coordinates, or believes that it does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    epoch: u8,
    memory: Option<Transaction>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Epoch of the owner, as the store has it.
    epoch: u8,
    /// What is durable.
    log: Option<Transaction>,
    nodes: [Option<Node>; NODES],
    places: [Place; 2],
    refused: [bool; 2],
    /// Calls under way: who sent them, to which branch, what.
    calls: BTreeSet<(usize, usize, Op)>,
    /// What the manager was told.
    told: Option<Decision>,
    late: bool,
    /// What must not happen, and did.
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Begin(usize),
    Prepare(usize),
    Refuse(usize),
    Submit(usize),
    Abort(usize),
    Expire,
    Time(usize),
    Flush(usize),
    Die(usize),
    TakeOver(usize),
    /// A call arrives and is answered; the answer is lost, or the call stays to come again.
    Deliver {
        call: (usize, usize, Op),
        answered: bool,
        again: bool,
    },
    Lose((usize, usize, Op)),
    Sweep(usize, usize),
}

/// The protocol, or one with a mistake in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Right,
    /// A sweep rolls an orphan back before its record is durable.
    HastySweep,
}

fn branch(at: usize) -> BranchId {
    BranchId::number(at + 1)
}

fn begin() -> Begin {
    Begin { deadline: Some(DEADLINE), ..Begin::new(Gid::new("g").expect("a gid"), Mode::Xa) }
}

/// Leaves out what would make the same state look new: counts, moments, notes.
fn plain(mut transaction: Transaction) -> Transaction {
    transaction.timeline.clear();
    transaction.timeline_dropped = 0;
    transaction.register.decided_at = None;
    transaction.register.finished_at = None;
    transaction.register.stuck = false;
    for record in transaction.branches.iter_mut().flat_map(|branch| &mut branch.ops) {
        record.attempts = 0;
        record.next_at = START;
        record.last_error = None;
    }
    transaction
}

impl World {
    fn now(&self) -> Moment {
        if self.late { START.plus(DEADLINE) } else { START }
    }

    fn submit(&self) -> Option<Submit> {
        let vote = |at: usize| {
            let vote = match (self.places[at], self.refused[at]) {
                (_, true) => Vote::No,
                (Place::Empty, false) => return None,
                _ => Vote::Yes,
            };
            let resource = Some(ResourceName::new("orders").expect("a name"));
            Some(VoteOf { branch: branch(at), resource, vote, listed: true, session_id: None })
        };
        Some(Submit { votes: vec![vote(0)?, vote(1)?] })
    }

    /// Does what a driver does with a step: log, then effects. A zombie's write fails, and it
    /// stops.
    fn take(&mut self, at: usize, transaction: Transaction, step: &Step, protocol: Protocol) {
        let Some(node) = &mut self.nodes[at] else { return };
        let transaction = plain(transaction);
        let hasty = protocol == Protocol::HastySweep
            && transaction
                .register
                .reason
                .as_ref()
                .is_some_and(|reason| reason.why == mainstay_txn::word::Why::Orphan);
        if step.write.durable && !hasty {
            if node.epoch != self.epoch {
                self.nodes[at] = None;
                return;
            }
            let before = self.log.as_ref().and_then(|log| log.register.decision);
            let after = transaction.register.decision;
            if before.is_some() && before != after {
                self.broken = Some("decided twice");
            }
            self.log = Some(transaction.clone());
        }
        node.memory = Some(transaction);
        let logged = self.log.as_ref().and_then(|log| log.register.decision);
        for effect in &step.effects {
            if let Effect::Call { branch: id, op, .. } = effect {
                if !invariants::durable_before_told(*op, logged) && !hasty {
                    self.broken = Some("told before it was durable");
                }
                let place = usize::from(*id == branch(1));
                self.calls.insert((at, place, *op));
            }
        }
    }

    /// The state an event led to, if the node could write it down.
    fn happens(&mut self, at: usize, event: Event, protocol: Protocol) -> Option<State> {
        let node = self.nodes[at].as_ref()?;
        let mut transaction = node.memory.clone()?;
        let step = transaction.step(event, self.now(), &Policy::default()).ok()?;
        let state = transaction.state();
        self.take(at, transaction, &step, protocol);
        self.nodes[at].is_some().then_some(state)
    }

    /// The same, where nobody waits for an answer.
    fn goes_on(&mut self, at: usize, event: Event, protocol: Protocol) {
        let _state: Option<State> = self.happens(at, event, protocol);
    }

    /// What the database does with a call.
    fn perform(&mut self, place: usize, op: Op) -> Outcome {
        let found = self.places[place];
        let (after, outcome) = match (op, found) {
            (Op::Commit, Place::Prepared | Place::Committed) => (Place::Committed, Outcome::Done),
            (Op::Commit, _) => {
                self.broken = Some("decided commit, and the branch is gone");
                (found, Outcome::Contradicted(String::new()))
            }
            (_, Place::Committed) => {
                self.broken = Some("decided abort, and the branch was committed");
                (found, Outcome::Contradicted(String::new()))
            }
            _ => (Place::RolledBack, Outcome::Done),
        };
        self.places[place] = after;
        outcome
    }

    fn tell(&mut self, state: State) {
        let now = match state {
            State::Committing | State::Committed => Decision::Commit,
            State::Aborting | State::Aborted => Decision::Abort,
            _ => return,
        };
        if self.told.is_some_and(|before| before != now) {
            self.broken = Some("the manager was told both ways");
        }
        self.told = Some(now);
    }

    /// The manager submits; a begin that was lost is no reason to abort before the deadline.
    fn submits(&mut self, at: usize, submit: Submit, protocol: Protocol) {
        let Some(node) = &self.nodes[at] else { return };
        if node.memory.is_some() {
            if let Some(state) = self.happens(at, Event::Submit(submit), protocol) {
                self.tell(state);
            }
            return;
        }
        let span = (START, START.plus(DEADLINE));
        let taken = Transaction::submit_lost(begin(), span, submit, self.now(), &Policy::default());
        if let Ok((transaction, step)) = taken {
            let state = transaction.state();
            self.take(at, transaction, &step, protocol);
            if self.nodes[at].is_some() {
                self.tell(state);
            }
        }
    }

    fn sweep(&mut self, at: usize, place: usize, protocol: Protocol) {
        let found = (ResourceName::new("orders").expect("a name"), branch(place));
        let (transaction, step) = Transaction::orphan(begin(), found, self.now());
        self.take(at, transaction, &step, protocol);
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            epoch: 1,
            log: None,
            nodes: [Some(Node { epoch: 1, memory: None }), None],
            places: [Place::Empty; 2],
            refused: [false; 2],
            calls: BTreeSet::new(),
            told: None,
            late: false,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for at in 0..2 {
            if world.places[at] == Place::Empty && !world.refused[at] {
                actions.push(Action::Prepare(at));
            }
            // Branches are alike, so it is enough that one of them can refuse.
            if at == 1 && world.places[at] == Place::Empty && !world.refused[at] {
                actions.push(Action::Refuse(at));
            }
        }
        for (at, node) in world.nodes.iter().enumerate() {
            let Some(node) = node else {
                if world.epoch < EPOCHS {
                    actions.push(Action::TakeOver(at));
                }
                continue;
            };
            actions.extend([Action::Die(at), Action::Submit(at)]);
            if node.memory.is_some() {
                actions.extend([Action::Abort(at), Action::Time(at), Action::Flush(at)]);
            } else {
                actions.push(Action::Begin(at));
                actions.extend(
                    (0..2)
                        .filter(|place| world.places[*place] == Place::Prepared)
                        .map(|place| Action::Sweep(at, place)),
                );
            }
        }
        if !world.late {
            actions.push(Action::Expire);
        }
        for call in &world.calls {
            let call = *call;
            actions.push(Action::Lose(call));
            for (answered, again) in [(true, false), (true, true), (false, false)] {
                actions.push(Action::Deliver { call, answered, again });
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Prepare(at) => world.places[at] = Place::Prepared,
            Action::Refuse(at) => world.refused[at] = true,
            Action::Expire => world.late = true,
            Action::Begin(at) => {
                // Whoever is told to abort does not begin again.
                let fresh = world.log.is_none() && world.told.is_none() && !world.late;
                let (transaction, _) = Transaction::begin(begin(), START, &Policy::default())
                    .ok()
                    .filter(|_| fresh)?;
                world.nodes[at].as_mut()?.memory = Some(plain(transaction));
            }
            Action::Submit(at) => world.submits(at, before.submit()?, *self),
            Action::Abort(at) => {
                let event = Event::Abort(By::Initiator(String::new()));
                if let Some(state) = world.happens(at, event, *self) {
                    world.tell(state);
                }
            }
            Action::Time(at) => world.goes_on(at, Event::Time, *self),
            Action::Flush(at) => {
                let node = world.nodes[at].as_ref()?;
                if node.epoch == world.epoch {
                    world.log.clone_from(&node.memory);
                } else {
                    world.nodes[at] = None;
                }
            }
            // What it has sent is under way all the same.
            Action::Die(at) => world.nodes[at] = None,
            Action::TakeOver(at) => {
                world.epoch += 1;
                let memory = world.log.clone().map(read_again);
                world.nodes[at] = Some(Node { epoch: world.epoch, memory });
            }
            Action::Deliver { call, answered, again } => {
                let (sender, place, op) = call;
                if !again {
                    world.calls.remove(&call);
                }
                let outcome = world.perform(place, op);
                let outcome = if answered { outcome } else { Outcome::Unknown("lost".to_owned()) };
                let event = Event::Answered { branch: branch(place), op, outcome, draw: 0 };
                world.goes_on(sender, event, *self);
            }
            Action::Lose(call) => {
                let (sender, place, op) = call;
                world.calls.remove(&call);
                let outcome = Outcome::Unknown("lost".to_owned());
                let event = Event::Answered { branch: branch(place), op, outcome, draw: 0 };
                world.goes_on(sender, event, *self);
            }
            Action::Sweep(at, place) => world.sweep(at, place, *self),
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1, I2, I7: nothing is broken", |_, world: &World| {
                world.broken.is_none()
            }),
            Property::always("the branches agree", |_, world: &World| {
                let has = |place| world.places.contains(&place);
                !(has(Place::Committed) && has(Place::RolledBack))
            }),
            Property::always("the manager was told what happens", |_, world: &World| {
                match world.told {
                    Some(Decision::Commit) => !world.places.contains(&Place::RolledBack),
                    Some(Decision::Abort) => !world.places.contains(&Place::Committed),
                    None => true,
                }
            }),
            Property::always("what was told is durable", |_, world: &World| {
                let logged = world.log.as_ref().and_then(|log| log.register.decision);
                world.told.is_none() || world.told == logged
            }),
            Property::sometimes("all can commit", |_, world: &World| {
                world.places == [Place::Committed; 2]
            }),
            Property::sometimes("all can commit after a takeover", |_, world: &World| {
                world.epoch == EPOCHS && world.places == [Place::Committed; 2]
            }),
            Property::sometimes("all can roll back", |_, world: &World| {
                world.places == [Place::RolledBack; 2]
            }),
        ]
    }
}

/// What a node reads that takes over.
fn read_again(log: Transaction) -> Transaction {
    let Transaction { begin, created_at, deadline_at, register, branches, .. } = log;
    let branches = branches.into_iter().map(|mut branch| {
        branch.ops.retain(|record| record.state.is_settled());
        branch
    });
    Transaction::restore(mainstay_txn::transaction::Parts {
        begin: Begin::clone(&begin),
        created_at,
        deadline_at,
        register,
        branches: branches.collect(),
        timeline: Vec::new(),
    })
}

#[test]
fn no_order_of_events_breaks_a_two_phase_commit() {
    let checker = Protocol::Right.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them new", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn a_sweep_that_rolls_back_before_its_record_is_durable_is_found() {
    let checker = Protocol::HastySweep.checker().threads(2).spawn_bfs().join();
    let found = checker.discoveries();
    let names: Vec<_> = found.keys().copied().collect();
    assert!(
        names.iter().any(|name| name.contains("agree") || name.contains("broken")),
        "{names:?}"
    );
}
