//! A store, a clock, and what tests say of configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_store::Store;
use serde_json::{Value, json};

use crate::audit::{Actor, Author};
use crate::centre::{
    Centre, CentreError, Client, Editor, Fetched, Interest, Options, Publication, Published,
    RawCanary,
};
use crate::keyring::Keyring;
use crate::keys::GroupRef;
use crate::name::{ClientId, GroupName, Namespace, NodeName};
use crate::registry::tests::stage::Stage;

/// Nodes on one store, with one keyring.
pub(super) struct World {
    pub(super) stage: Stage,
    pub(super) keyring: Keyring,
}

impl World {
    pub(super) fn memory() -> Self {
        Self { stage: Stage::memory(), keyring: Keyring::fresh(0) }
    }

    pub(super) fn embedded() -> Self {
        Self { stage: Stage::embedded(), keyring: Keyring::fresh(0) }
    }

    /// A node, ready.
    pub(super) async fn node(&self, name: &str) -> Centre {
        self.node_on(Arc::clone(&self.stage.store), name).await
    }

    pub(super) async fn node_on(&self, store: Arc<dyn Store>, name: &str) -> Centre {
        let options = Options::new(NodeName::new(name).unwrap());
        let timer = Arc::new(self.stage.clock.clone());
        let outbox = self.stage.outbox(Arc::clone(&store));
        let centre = Centre::start(store, timer, outbox, self.keyring.clone(), options);
        centre.ready().await;
        centre
    }
}

pub(super) fn group(name: &str) -> GroupRef {
    let namespace = Namespace::new("default").unwrap();
    GroupRef { namespace, name: GroupName::new(name).unwrap() }
}

pub(super) fn payment() -> GroupRef {
    group("payment")
}

pub(super) fn client(id: &str) -> Client {
    Client { id: ClientId::new(id).unwrap(), labels: BTreeMap::new() }
}

pub(super) fn anna() -> Editor {
    Editor { author: by("anna"), base: None, dry_run: false }
}

/// Who changes something.
pub(super) fn by(who: &str) -> Author {
    Author::new(Actor { principal: who.to_owned(), ..Actor::default() })
}

/// A publication written as JSON.
pub(super) fn publication(json: Value) -> Publication {
    serde_json::from_value(json).unwrap()
}

/// Text items, `name=content`; `-name` removes one.
pub(super) fn texts(items: &[&str]) -> Publication {
    let item = |item: &&str| match item.split_once('=') {
        Some((name, content)) => (name.to_owned(), json!({ "content": content })),
        None => (item.trim_start_matches('-').to_owned(), Value::Null),
    };
    let items: serde_json::Map<String, Value> = items.iter().map(item).collect();
    publication(json!({ "items": items }))
}

pub(super) async fn publish(
    node: &Centre,
    group: &GroupRef,
    items: &[&str],
) -> Result<Published, CentreError> {
    node.publish(group, &texts(items), &anna()).await
}

/// A canary written as JSON.
pub(super) fn canary(json: Value) -> RawCanary {
    serde_json::from_value(json).unwrap()
}

/// What a client gets: `release: name=content …`.
pub(super) fn said(fetched: &Fetched) -> String {
    let item = |(name, item): (&String, &crate::centre::Delivered)| {
        format!(" {name}={}", item.content.as_deref().unwrap_or("?"))
    };
    let items: String = fetched.items.iter().map(item).collect();
    format!("{}:{items}", fetched.release)
}

/// What `node` gives a client that does not say who it is.
pub(super) async fn gets(node: &Centre, group: &GroupRef) -> String {
    said(&node.fetch(group, None, false).await.unwrap())
}

pub(super) fn interest(id: &str, groups: &[(GroupRef, Option<u64>)]) -> Interest {
    Interest { client: client(id), groups: groups.to_vec(), secrets: false }
}

/// Whether both copies hold the same; how far each has read is another matter.
pub(super) fn agree(a: &Centre, b: &Centre) -> bool {
    let (a, b) = (a.shared.local.lock(), b.shared.local.lock());
    a.copy.groups().eq(b.copy.groups())
}
