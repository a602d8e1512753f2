//! Looks after the checks of this node: sends them, and notices reports that do not come.
//!
//! The machines are those of the registry. To them the node is one more instance, which is in no
//! list and which no copy holds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mainstay_core::Instant;
use mainstay_core::name::ServiceName;
use mainstay_store::{Range, Revision};
use tokio_util::sync::CancellationToken;

use super::node::NodeRecord;
use super::{Consul, ConsulError, Shared};
use crate::events::consul::{FollowingStore, NodeCheckUnwritten};
use crate::health::Health;
use crate::health::check::Check;
use crate::health::rounds::{Probe, Rounds};
use crate::health::send::send;
use crate::keys::{InstanceRef, ServiceRef, consul_node};
use crate::name::{InstanceId, Namespace, NodeName};
use crate::random;
use crate::registry::owned::{Duty, Owned};
use crate::registry::{Instance, OwnCheck, Stands};

/// Longest time between two looks.
const TICK: Duration = Duration::from_millis(500);
/// Shortest one.
const TICK_MIN: Duration = Duration::from_millis(20);
/// Wait before following the store again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one watch of the node's record lasts.
const WATCHED: Duration = Duration::from_mins(10);

/// What this node owes its own checks.
#[derive(Debug)]
pub(super) struct Own {
    at: InstanceRef,
    owned: Owned,
    rounds: Rounds,
    /// The revision of the record that is followed.
    followed: Revision,
}

impl Own {
    pub(super) fn new(node: &NodeName) -> Self {
        let namespace = Namespace::new("consul").expect("a name");
        let name = ServiceName::new("node").expect("a name");
        let id = InstanceId::new(node.as_str()).expect("names of nodes are ids");
        let at = ServiceRef { namespace, name }.instance(&id);
        let (owned, rounds) = (Owned::default(), Rounds::default());
        Self { at, owned, rounds, followed: Revision::NEVER }
    }

    fn follow(&mut self, now: Instant, revision: Revision, record: Option<&NodeRecord>) {
        if revision < self.followed {
            return;
        }
        self.followed = revision;
        let found = record.map(|record| {
            let checks: Vec<Check> = record.own_checks.iter().filter_map(OwnCheck::check).collect();
            (Arc::new(Instance::of_node(&record.address, record.checks.clone())), checks)
        });
        let owned = found.as_ref().map(|(instance, checks)| (instance, &**checks));
        self.owned.follow(now, &self.at, owned);
        let checked = found.as_ref().map(|(instance, checks)| (&**instance, &**checks));
        self.rounds.follow(now, &self.at, checked, random::share);
    }
}

impl Shared {
    /// This node's record is at `revision` what `record` says.
    pub(super) fn follow_node(&self, revision: Revision, record: Option<&NodeRecord>) {
        self.own.lock().follow(self.timer.now(), revision, record);
    }
}

impl Consul {
    /// Takes a report of a ttl check of this node. `false` when there is none of this name.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; reporting again does no harm.
    pub async fn report(&self, id: &str, said: Stands) -> Result<bool, ConsulError> {
        let shared = &*self.shared;
        let known = {
            let mut own = shared.own.lock();
            let (now, at) = (shared.timer.now(), own.at.clone());
            own.owned.report(now, &at, (id, said.clone()))
        };
        if known.is_some_and(|known| !known.is_news) {
            return Ok(true);
        }
        let node = shared.options.node.as_str();
        self.set_node_check(node, id, said.health, &said.output).await
    }

    /// How a ttl check of this node stands now; the record follows.
    pub fn stands(&self, id: &str) -> Option<Stands> {
        let own = self.shared.own.lock();
        own.owned.stands(self.shared.timer.now(), &own.at, id)
    }
}

/// Makes this node known and looks after its checks, until told to stop.
pub(super) async fn run(consul: Consul, stop: CancellationToken) {
    let shared = &*consul.shared;
    let mut is_listed = false;
    loop {
        let work = async {
            if !is_listed {
                consul.be_listed().await?;
                is_listed = true;
            }
            look_after(&consul).await
        };
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = work => ended,
        };
        if let Err(error) = ended {
            FollowingStore { what: "checks of the node", why: &error.to_string() }.emit();
            let until = shared.timer.now().plus(PAUSE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.timer.sleep_until(until) => {}
            }
        }
    }
}

/// Until the record has changed: then it is read again.
async fn look_after(consul: &Consul) -> Result<(), ConsulError> {
    let shared = &*consul.shared;
    let node = shared.options.node.as_str();
    let key = consul_node(node).ok_or_else(|| ConsulError::NodeName(node.to_owned()))?;
    let range = [Range::key(&key)];
    let found = consul.find(&range).await?;
    let record = found.entries.iter().flatten().next().map(NodeRecord::read).transpose()?;
    shared.follow_node(found.read, record.as_ref());
    let changed = consul.changed(&range, found.read, WATCHED);
    tokio::pin!(changed);
    let mut running = FuturesUnordered::new();
    loop {
        let now = shared.timer.now();
        let (next, duties) = {
            let mut own = shared.own.lock();
            while let Some(probe) = own.rounds.take(now) {
                running.push(check(consul, probe));
            }
            let duties = own.owned.due(now);
            (own.rounds.next().into_iter().chain(own.owned.next()).min(), duties)
        };
        for (_node, duty) in duties {
            if let Duty::MarkCheckLate(id) = duty {
                let says = "no report within its ttl";
                let done = consul.set_node_check(node, &id, Health::Critical, says).await;
                // Nothing under way is given up for it: the duty is told again in a second.
                if let Err(error) = done {
                    NodeCheckUnwritten { check: &id, error: &error }.emit();
                }
            }
        }
        let until = next.unwrap_or(Instant::MAX).max(now.plus(TICK_MIN)).min(now.plus(TICK));
        tokio::select! {
            done = &mut changed => {
                // What is under way is worth its end, and takes no longer than a check may.
                while running.next().await.is_some() {}
                return done;
            }
            Some(()) = running.next(), if !running.is_empty() => {}
            () = shared.timer.sleep_until(until) => {}
        }
    }
}

async fn check(consul: &Consul, probe: Probe) {
    let shared = &*consul.shared;
    let outcome = send(&probe, &shared.options.check_targets).await;
    let news = shared.own.lock().rounds.finished(shared.timer.now(), &probe, outcome);
    let Some(news) = news else { return };
    let node = shared.options.node.as_str();
    // If the write fails, the next result offers it again.
    let done = consul.set_node_check(node, &news.of.check, news.health, &news.output).await;
    if let Err(error) = done {
        NodeCheckUnwritten { check: &news.of.check, error: &error }.emit();
    }
}
