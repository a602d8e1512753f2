//! A world with what rules need in it.

use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::audit::tally::Limits;
use mainstay_coord::audit::{Actor, Author, Filter, Listed, Mask};
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::{Namespace, RuleName};
use mainstay_coord::revisions::{Fault, Kind, Terms};
use mainstay_coord::{HandClock, Outbox, Revisions};
use mainstay_store::{Embedded, Store};
use serde_json::Value;

use crate::world::{Link, World};

/// A kind whose contents have a quota and a secret.
pub(crate) const LIMIT: Kind = Kind {
    key: RuleKind::new("limit"),
    path: "/limits",
    shown: |mask, content| mask.masked(content, &["token"]),
    check: has_a_quota,
};

fn has_a_quota(content: &Value) -> Vec<Fault> {
    let is_there = content.get("quota").is_some_and(Value::is_u64);
    let fault = || Fault::new("quota", "config-out-of-range", "quota must be a number");
    if is_there { Vec::new() } else { vec![fault()] }
}

pub(crate) fn rule(kind: RuleKind, name: &str) -> RuleRef {
    let namespace = Namespace::new("shop").unwrap();
    RuleRef { kind, namespace, name: RuleName::new(name).unwrap() }
}

pub(crate) fn limit(name: &str) -> RuleRef {
    rule(LIMIT.key, name)
}

pub(crate) fn by(who: &str) -> Terms {
    let actor = Actor { principal: who.to_owned(), via: "cli".to_owned(), ..Actor::default() };
    Terms::new(Author::new(actor))
}

/// One process with rules.
pub(crate) struct Desk {
    pub(crate) link: Arc<Link>,
    pub(crate) clock: HandClock,
    pub(crate) rules: Revisions,
}

impl Desk {
    pub(crate) fn in_world(world: &World) -> Self {
        let node = world.node();
        Self::over(Arc::clone(&node.link), node.clock)
    }

    pub(crate) fn over(link: Arc<Link>, clock: HandClock) -> Self {
        let (store, timer) = (Arc::clone(&link) as Arc<dyn Store>, Arc::new(clock.clone()));
        let mask = Mask::new(b"audit key");
        let outbox = Outbox::start(store.clone(), timer.clone(), mask, Limits::default());
        Self { link, clock, rules: Revisions::new(store, timer, outbox) }
    }

    /// Every record, oldest first, by the revision of the store that holds it.
    pub(crate) async fn records(&self) -> Vec<Listed> {
        let (mut records, mut cursor) = (Vec::new(), None);
        loop {
            let outbox = self.rules.outbox();
            let page = outbox.list(&Filter::default(), cursor.as_deref(), 1_000).await.unwrap();
            records.extend(page.items);
            cursor = match page.next {
                Some(next) => Some(next),
                None => break,
            };
        }
        records.sort_by_key(|listed| listed.store_revision);
        records
    }
}

/// An embedded store that closes with its folder.
pub(crate) struct OnDisk {
    pub(crate) store: Arc<Embedded>,
    _folder: tempfile::TempDir,
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = mainstay_store::embedded::Options::new(folder.path().join("store"));
        let store = Arc::new(Embedded::open(options, HandClock::default().hands()).unwrap());
        Self { store, _folder: folder }
    }

    pub(crate) fn desk(&self) -> Desk {
        Desk::over(Arc::new(Link::new(self.store.clone())), HandClock::default())
    }
}

/// Waits in real time until `is_so`.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}
