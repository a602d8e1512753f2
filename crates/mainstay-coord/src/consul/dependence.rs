//! Ending sessions whose checks fail.
//!
//! A session names checks; when one of them turns critical or is gone, or its node has left, it
//! ends. What all sessions depend on is read as one set of results and watched, so a hundred
//! thousand locks on a healthy node cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{Range, Revision};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::browse::Part;
use super::catalog::Catalog;
use super::reaper::Cause;
use super::session::{ConsulSession, Record};
use super::{Consul, ConsulError, NODE_CHECK};
use crate::events::consul::{FollowingStore, SessionLost};
use crate::health::Health;
use crate::keys::{self, RegistryArea};
use crate::name::Namespace;

/// How long a process may be away before its node has left: a restart is no departure.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// Wait before following the store again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long one watch lasts.
const WATCHED: Duration = Duration::from_mins(10);

/// Why a session cannot live; the words are Consul's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dependence {
    /// Its node is not registered.
    #[error("Missing node registration")]
    Node,
    /// A check is not registered.
    #[error("Missing check '{0}' registration")]
    Missing(String),
    /// A check is critical.
    #[error("Check '{0}' is in critical state")]
    Critical(String),
}

impl Record {
    /// Why the session cannot live by what `catalog` shows, if so.
    pub(super) fn dependence(&self, catalog: &Catalog) -> Option<Dependence> {
        let Some(node) = catalog.nodes.get(&self.node) else { return Some(Dependence::Node) };
        let services = catalog.services.iter().filter(|service| service.node == self.node);
        let of_services = services.flat_map(|service| &service.checks);
        let all = node.checks.iter().chain(of_services);
        let known: BTreeMap<&str, Health> = all.map(|check| (&*check.id, check.status)).collect();
        self.check_ids().into_iter().find_map(|id| match known.get(&*id) {
            None => Some(Dependence::Missing(id)),
            Some(Health::Critical) => Some(Dependence::Critical(id)),
            Some(_) => None,
        })
    }

    fn check_ids(&self) -> Vec<String> {
        let id = |check: &Value| Some(check.get("ID")?.as_str()?.to_owned());
        let services = self.service_checks.iter().filter_map(id);
        self.node_checks.iter().cloned().chain(services).collect()
    }

    /// Whether it depends on no more than that its node is there.
    fn is_plain(&self) -> bool {
        self.service_checks.is_empty() && self.node_checks.iter().all(|id| id == NODE_CHECK)
    }
}

impl Consul {
    /// Why a session of `record`'s kind cannot live, if so.
    pub(super) async fn dependence(
        &self,
        record: &Record,
    ) -> Result<Option<Dependence>, ConsulError> {
        let is_own = record.node == self.shared.options.node.as_str();
        if is_own {
            self.be_listed().await?;
        }
        let part = if record.is_plain() { Part::Nodes } else { everything() };
        let found = self.browse(&part, Revision::NEVER, Duration::ZERO).await?;
        // Whoever asks this process knows that it is there.
        let is_here = |why: &Dependence| is_own && *why == Dependence::away();
        Ok(record.dependence(&found.catalog).filter(|why| !is_here(why)))
    }
}

impl Dependence {
    /// The process of its node is not there.
    fn away() -> Self {
        Self::Critical(NODE_CHECK.to_owned())
    }
}

/// Services of Consul without namespaces are those of this one.
fn everything() -> Part {
    Part::All(Namespace::new("default").expect("a name"))
}

/// Ends sessions whose checks fail, until told to stop.
pub(super) async fn run(consul: Consul, stop: CancellationToken) {
    let mut away = BTreeMap::new();
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = look(&consul, &mut away) => ended,
        };
        if let Err(error) = ended {
            FollowingStore { what: "checks of sessions", why: &error.to_string() }.emit();
            let until = consul.shared.timer.now().plus(PAUSE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = consul.shared.timer.sleep_until(until) => {}
            }
        }
    }
}

/// Looks once, and waits until something has changed. `away` holds nodes that are not there, and
/// since when.
async fn look(consul: &Consul, away: &mut BTreeMap<String, Instant>) -> Result<(), ConsulError> {
    let shared = &*consul.shared;
    let mut ranges =
        vec![keys::consul_sessions(), keys::consul_nodes(), RegistryArea::Nodes.range()];
    let found = consul.find(&ranges[..1]).await?;
    // One that a newer version wrote is no reason to leave the others be.
    let sessions =
        found.entries.iter().flatten().filter_map(|entry| ConsulSession::read(entry).ok());
    let sessions: Vec<ConsulSession> = sessions.collect();
    let mut part = Part::Nodes;
    if sessions.iter().any(|session| !session.record.is_plain()) {
        ranges.push(Range::prefix("ins/default/"));
        part = everything();
    }
    let read = found.read;
    let catalog = consul.browse(&part, Revision::NEVER, Duration::ZERO).await?.catalog;
    let now = shared.timer.now();
    let used: BTreeSet<&String> = sessions.iter().map(|session| &session.record.node).collect();
    away.retain(|node, _| used.contains(node));
    let mut due = None::<Instant>;
    for session in &sessions {
        let Some(why) = session.record.dependence(&catalog) else {
            away.remove(&session.record.node);
            continue;
        };
        // That a process is gone counts once it has been for long enough.
        if why == Dependence::away() {
            let since = *away.entry(session.record.node.clone()).or_insert(now);
            let until = since.plus(AWAY_MAX);
            if now < until {
                due = Some(due.map_or(until, |due| due.min(until)));
                continue;
            }
        }
        SessionLost { session: session.id.as_str(), why: &why.to_string() }.emit();
        consul.end_session(&session.id, Cause::Destroyed).await?;
    }
    let wait = due.map_or(WATCHED, |due| due.since(now));
    consul.changed(&ranges, read, wait).await
}
