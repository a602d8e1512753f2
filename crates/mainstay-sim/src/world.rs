//! One run: who is there, what goes wrong, and what must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::seeded;
use mainstay_store::conformance::validators::{self, Record};
use mainstay_store::{Change, Key, Revision};
use parking_lot::Mutex;

use crate::check::OPEN;
use crate::check::locks::{self, Hold};
use crate::check::pairs::{Pairs, What};
use crate::client::{REGISTER, Seen, holder, pairs, remote, watcher};
use crate::clock::{spawn, truth};
use crate::draw::Draw;
use crate::faults::{Fault, Trouble};
use crate::mutant::Mutant;
use crate::node::Node;
use crate::server::Server;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What must not be and was seen, if anything.
    pub wrong: Option<String>,
    /// Two runs with the same digest went the same way.
    pub digest: u64,
    /// How often things were done.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Plays `seed`, with a mistake built in if there is one; tells every step on the standard error
/// when asked to.
///
/// # Panics
///
/// When no runtime can be made.
pub fn play(seed: u64, mutant: Option<Mutant>, trace: bool) -> Outcome {
    seeded::start(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    runtime.block_on(async {
        let world = World::new(seed, mutant, trace);
        world.run().await;
        let seen = &world.seen;
        let mut counts = seen.counts();
        counts.insert("revisions", world.server.recorded(|all| all.last().get()));
        counts.insert("writes refused by token", seen.resource().1);
        Outcome { seed, wrong: world.server.verdict(), digest: world.server.digest(), counts }
    })
}

/// The command that plays a seed again.
pub fn command(seed: u64, mutant: Option<Mutant>) -> String {
    use clap::ValueEnum as _;
    let mutant = mutant.and_then(|mutant| mutant.to_possible_value());
    let mutant = mutant.map(|mutant| format!(" --mutant {}", mutant.get_name()));
    let mutant = mutant.unwrap_or_default();
    format!("cargo run -p mainstay-sim -- --seed {seed} --trace{mutant}")
}

struct World {
    server: Server,
    nodes: Arc<Mutex<Vec<Node>>>,
    draw: Draw,
    seen: Seen,
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, trace: bool) -> Self {
        let draw = Draw::new(seed);
        let server = Server::new(&draw, mutant, trace);
        let seen = Seen::new(server.clone());
        Self { server, nodes: Arc::default(), draw, seen }
    }

    async fn run(&self) {
        self.server.start();
        self.server.run();
        for number in 0..NODES {
            let node = self.node(number);
            self.nodes.lock().push(node);
        }
        let looking = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                self.seen.look();
            }
        };
        let all = async {
            self.trouble().await;
            self.calm().await;
        };
        tokio::select! { biased; () = all => {}, () = looking => {} }
        if self.server.verdict().is_none()
            && let Err(what) = self.judge()
        {
            self.server.wrong(what);
        }
    }

    /// Starts a process of clients.
    fn node(&self, number: usize) -> Node {
        start_node(format!("node-{number}"), &self.server, &self.draw, &self.seen)
    }

    /// Lets faults of this run's kinds happen, two at a time at most.
    async fn trouble(&self) {
        let faults = match self.server.mutant() {
            // It hides where answers come late and then no more: there it is looked for.
            Some(Mutant::ValidityFromReply) => vec![Fault::SlowNode],
            _ => Fault::some(&self.draw),
        };
        self.server.note(|| format!("this run has {faults:?}"));
        let until = truth() + self.draw.millis(8_000, 20_000);
        let trouble = Trouble {
            server: self.server.clone(),
            nodes: Arc::clone(&self.nodes),
            draw: self.draw.clone(),
        };
        let one = async {
            while truth() < until && self.server.verdict().is_none() {
                tokio::time::sleep(self.draw.millis(50, 2_500)).await;
                let fault = *self.draw.pick(&faults);
                trouble.make(fault, |at| self.replace(at)).await;
            }
        };
        let other = async {
            while truth() < until && self.server.verdict().is_none() {
                tokio::time::sleep(self.draw.millis(500, 6_000)).await;
                let fault = *self.draw.pick(&faults);
                trouble.make(fault, |at| self.replace(at)).await;
            }
        };
        tokio::join!(one, other);
        trouble.heal();
    }

    /// Another process in place of one that is no more.
    fn replace(&self, at: usize) {
        self.seen.count("nodes killed");
        let name = format!("node-{at}.{}", self.server.order());
        let node = start_node(name, &self.server, &self.draw, &self.seen);
        if let Some(slot) = self.nodes.lock().get_mut(at) {
            *slot = node;
        }
    }

    /// Once all is well everybody gets what it wants, and then stops.
    async fn calm(&self) {
        self.seen.forget_progress();
        let nodes = self.nodes.lock().clone();
        let until = truth() + CALM_MAX;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.server.verdict().is_some() {
                return;
            }
            let waiting = self.seen.without_progress(&nodes);
            if waiting.is_empty() {
                break;
            }
            if until < truth() {
                return self.server.wrong(format!("all is well, and still no {waiting:?}"));
            }
        }
        nodes.iter().for_each(Node::finish);
        // Whatever is still on its way arrives.
        tokio::time::sleep(Duration::from_secs(30)).await;
    }

    fn judge(&self) -> Result<(), String> {
        self.judge_pairs()?;
        self.judge_locks()?;
        self.judge_streams()
    }

    /// What was acknowledged is there, nothing is there that nobody wrote, and calls are
    /// linearizable.
    fn judge_pairs(&self) -> Result<(), String> {
        let written: BTreeMap<(String, u64), (i64, Revision)> = self.server.recorded(|recorder| {
            let puts = recorder.puts("kv/");
            puts.map(|(seen, revision, entry)| {
                ((entry.key.to_string(), pairs::number(entry)), (seen, revision))
            })
            .collect()
        });
        let mut asked = BTreeSet::new();
        let mut all = Pairs::default();
        for seen in self.seen.pairs() {
            let mut call = seen.call;
            let value = match call.what {
                What::Put(value) | What::Swap { new: value, .. } => value,
                What::Read(_) | What::Delete(_) => {
                    if !seen.refused {
                        all.add(&seen.key, call);
                    }
                    continue;
                }
            };
            asked.insert((seen.key.clone(), value));
            let found = written.get(&(seen.key.clone(), value)).copied();
            match (found, call.returned == OPEN) {
                (Some(_), _) if seen.refused => {
                    return Err(format!("{seen:?} was refused, and happened"));
                }
                (None, false) if 0 < seen.revision => {
                    return Err(format!("{seen:?} was acknowledged, and is gone"));
                }
                (Some((_, revision)), false)
                    if 0 < seen.revision && revision.get() != seen.revision =>
                {
                    return Err(format!("{seen:?} happened at revision {revision}"));
                }
                // Nobody was told, but it was seen: so it had happened by then.
                (Some((when, _)), true) => {
                    call.returned = when;
                    if let What::Swap { swapped, .. } = &mut call.what {
                        *swapped = Some(true);
                    }
                }
                (None, true) => continue,
                _ => {}
            }
            if !seen.refused {
                all.add(&seen.key, call);
            }
        }
        if let Some(invented) = written.keys().find(|pair| !asked.contains(*pair)) {
            return Err(format!("{invented:?} is there, and nobody wrote it"));
        }
        self.judge_both()?;
        all.check()
    }

    /// No batch was torn.
    fn judge_both(&self) -> Result<(), String> {
        self.server.recorded(|recorder| {
            let mut by_revision: BTreeMap<Revision, Vec<u64>> = BTreeMap::new();
            for (_, revision, entry) in recorder.puts("both/") {
                by_revision.entry(revision).or_default().push(pairs::number(entry));
            }
            let torn = by_revision
                .iter()
                .find(|(_, values)| values.len() != 2 || values.first() != values.get(1));
            torn.map_or(Ok(()), |torn| Err(format!("a batch was torn: {torn:?}")))
        })
    }

    fn judge_locks(&self) -> Result<(), String> {
        let ends: BTreeMap<(Key, Revision), Revision> = self.server.recorded(|recorder| {
            let events = recorder
                .history()
                .iter()
                .flat_map(|(revision, events)| events.iter().map(move |event| (*revision, event)));
            events
                .filter_map(|(revision, event)| match (&event.change, &event.previous) {
                    (Change::Delete(key), Some(old)) => {
                        Some(((key.clone(), old.create_revision), revision))
                    }
                    _ => None,
                })
                .collect()
        });
        let still_there = Revision::new(u64::MAX);
        let holds = self.seen.grants().into_iter().map(|grant| Hold {
            token: grant.token,
            granted: grant.revision,
            ended: ends
                .get(&(grant.key, Revision::new(grant.token)))
                .copied()
                .unwrap_or(still_there),
        });
        locks::holds_do_not_overlap(holds.collect())?;
        locks::calls_are_linearizable(&with_the_dead(self.seen.lock_calls()))?;
        let register: Vec<u64> = self.server.recorded(|recorder| {
            recorder.puts(REGISTER).map(|(_, _, entry)| pairs::number(entry)).collect()
        });
        let told = |what: &str, wrong: String| format!("{what}: {wrong}");
        locks::writes_do_not_go_back(&register).map_err(|wrong| told("register", wrong))?;
        let (resource, _) = self.seen.resource();
        locks::writes_do_not_go_back(&resource).map_err(|wrong| told("resource", wrong))
    }

    /// Every watch got what it asked for.
    fn judge_streams(&self) -> Result<(), String> {
        for stream in self.seen.streams() {
            let stream = stream.lock();
            let request = &stream.request;
            self.server.recorded(|recorder| {
                let whole = request.previous.then(|| recorder.complete(&stream.items));
                let items = whole.as_deref().unwrap_or(&stream.items);
                let record = Record { request, items, history: recorder.history() };
                validators::all(record).map_err(|broken| format!("{request:?}: {broken}"))
            })?;
        }
        Ok(())
    }
}

/// Those who were killed while they held give back at some moment after: with their session.
fn with_the_dead(mut calls: Vec<locks::Call>) -> Vec<locks::Call> {
    let token = |call: &locks::Call| match call.what {
        locks::What::Acquire(token) | locks::What::Release(token) => token,
    };
    let ended = |call: &&locks::Call| matches!(call.what, locks::What::Release(_));
    let ended: BTreeSet<u64> = calls.iter().filter(ended).map(token).collect();
    let held = calls.iter().filter(|call| !ended.contains(&token(call)));
    let released: Vec<locks::Call> = held
        .map(|call| locks::Call {
            what: locks::What::Release(token(call)),
            called: call.returned,
            returned: OPEN,
            ..*call
        })
        .collect();
    calls.extend(released);
    calls
}

fn start_node(name: String, server: &Server, draw: &Draw, seen: &Seen) -> Node {
    let node = Node::new(name, server, draw);
    let (to_pairs, to_holder, to_remote) = (node.clone(), node.clone(), node.clone());
    spawn(pairs::run(to_pairs, seen.clone()));
    spawn(holder::run(to_holder, seen.clone()));
    spawn(remote::run(to_remote, seen.clone()));
    spawn(watcher::run(node.clone(), seen.clone()));
    node
}

/// Processes of clients: enough for two to be in trouble while a third goes on.
const NODES: usize = 3;

/// How long after the last fault everybody gets what it wants: sessions of the dead have ended by
/// then, and everybody has had its turn at the lock several times over.
const CALM_MAX: Duration = Duration::from_mins(3);
