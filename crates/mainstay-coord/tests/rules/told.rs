//! What people change of the registry and of configuration, and the records of it, are equal sets,
//! whatever fails.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mainstay_coord::audit::{Actor, Author, Filter};
use mainstay_coord::centre::{self, Centre, Editor};
use mainstay_coord::health::targets::Addresses;
use mainstay_coord::keys::{GroupRef, InstanceRef, ServiceRef};
use mainstay_coord::name::{GroupName, InstanceId, Namespace, NodeName};
use mainstay_coord::registry::{Options, RawSettings, Registration, Registry, Settings, Shares};
use mainstay_coord::{Keyring, Outbox};
use mainstay_core::name::ServiceName;
use mainstay_store::{Range, Revision, Store, WatchItem, WatchRequest};
use proptest::prelude::*;
use serde_json::json;

use crate::equal::fates;
use crate::world::{Node, World, settle};

/// What somebody does.
#[derive(Clone, Copy, Debug)]
enum What {
    Weigh(u8),
    Drain,
    Enable,
    Maintain,
    Deregister,
    Settings(u8),
    Remove,
    Draft(u8),
    Undraft,
    Publish(u8),
    PublishDrafts,
    Canary(u8),
    Promote,
    Abort,
    Back(u8),
}

/// One process.
struct Desk {
    node: Node,
    outbox: Outbox,
    registry: Registry,
    centre: Centre,
    author: Author,
}

impl Desk {
    async fn new(world: &World, name: &str, keyring: &Keyring) -> Self {
        let node = world.node();
        let (store, timer) =
            (Arc::clone(&node.link) as Arc<dyn Store>, Arc::new(node.clock.clone()));
        let (outbox, of) = (node.outbox(), NodeName::new(name).unwrap());
        let options = Options::new(of.clone());
        let registry = Registry::start(Arc::clone(&store), timer.clone(), outbox.clone(), options);
        let options = centre::Options::new(of);
        let centre = Centre::start(store, timer, outbox.clone(), keyring.clone(), options);
        let actor = Actor { principal: name.to_owned(), ..Actor::default() };
        let desk = Self { node, outbox, registry, centre, author: Author::new(actor) };
        let ready = async { tokio::join!(desk.registry.ready(), desk.centre.ready()) };
        let ((), ()) = within(world, ready).await;
        desk
    }

    async fn play(&self, second: bool, what: What) {
        let Self { registry, centre, author, .. } = self;
        let at = &order().instance(&InstanceId::new(if second { "b" } else { "a" }).unwrap());
        let group = &group();
        let editor = Editor { author: author.clone(), base: None, dry_run: false };
        let publication = |json| serde_json::from_value(json).unwrap();
        // Whether it worked is not the question.
        match what {
            What::Weigh(weight) => drop(registry.weigh(at, weight.into(), author).await),
            What::Drain => drop(registry.drain(at, 3_600, author).await),
            What::Enable => drop(registry.bring_up(at, author).await),
            What::Maintain => drop(registry.maintain(at, "disk", author).await),
            What::Deregister => drop(registry.deregister(at, Some(author)).await),
            What::Settings(share) => {
                let raw: RawSettings =
                    serde_json::from_value(json!({ "metadata": { "n": share.to_string() } }))
                        .unwrap();
                let settings = Settings::new(raw, Shares::default()).unwrap();
                drop(registry.set_settings(&order(), &settings, None, author).await);
            }
            What::Remove => drop(registry.delete_service(&order(), author).await),
            What::Draft(n) => {
                let raw = serde_json::from_value(json!({ "content": n.to_string() })).unwrap();
                drop(centre.edit_draft(group, "a", raw, author).await);
            }
            What::Undraft => drop(centre.remove_draft(group, "a", author).await),
            What::Publish(n) => {
                let items = json!({ "items": { "a": { "content": n.to_string() } } });
                drop(centre.publish(group, &publication(items), &editor).await);
            }
            What::PublishDrafts => {
                let drafts = publication(json!({ "from_drafts": true }));
                drop(centre.publish(group, &drafts, &editor).await);
            }
            What::Canary(n) => {
                let items = json!({ "items": { "a": { "content": n.to_string() } },
                    "canary": { "percent": 10 } });
                drop(centre.publish(group, &publication(items), &editor).await);
            }
            What::Promote => drop(centre.promote(group, &editor).await),
            What::Abort => drop(centre.abort(group, &editor).await),
            What::Back(to) => drop(centre.roll_back(group, to.into(), "", &editor).await),
        }
    }
}

fn order() -> ServiceRef {
    let namespace = Namespace::new("shop").unwrap();
    ServiceRef { namespace, name: ServiceName::new("order").unwrap() }
}

fn group() -> GroupRef {
    let namespace = Namespace::new("shop").unwrap();
    GroupRef { namespace, name: GroupName::new("payment").unwrap() }
}

/// Does `act` while time passes, until it is done.
async fn within<T>(world: &World, act: impl Future<Output = T>) -> T {
    let mut act = std::pin::pin!(act);
    loop {
        tokio::select! {
            biased;
            done = &mut act => return done,
            () = world.pass(100) => {}
        }
    }
}

/// Registers two instances, which stay, and publishes a first release.
async fn prepare(desk: &Desk) -> Vec<InstanceRef> {
    let mut there = Vec::new();
    for id in ["a", "b"] {
        let raw = json!({ "id": id, "address": "10.0.0.7", "port": 80, "kind": "persistent" });
        let addresses = Addresses { loopback: true, allowed: Vec::new() };
        let raw = serde_json::from_value(raw).unwrap();
        let registration = Registration::new(raw, 15, &addresses).unwrap();
        desk.registry.register(&order(), &registration).await.unwrap();
        there.push(order().instance(&InstanceId::new(id).unwrap()));
    }
    let first = serde_json::from_value(json!({ "items": { "a": { "content": "0" } } })).unwrap();
    desk.centre.publish(&group(), &first, &Editor::default()).await.unwrap();
    there
}

/// For each revision after `since` that changed something people change, or has records: how many
/// records it has.
fn compared(world: &World, since: Revision) -> Vec<(u64, bool, usize)> {
    let request = WatchRequest::new(Range::prefix("")).from(since.next());
    let mut watch = world.memory.watch(request).unwrap();
    let mut found = Vec::new();
    while let Some(Some(item)) = watch.next().now_or_never() {
        let WatchItem::Changes { revision, events } = item else { continue };
        let begins = |start: &str| {
            let start = start.as_bytes();
            events.iter().filter(|event| event.key().starts_with(start)).count()
        };
        let changed = 0 < begins("ins/") + begins("svc/") + begins("cfg/");
        let told = begins("aud/out/");
        if changed || 0 < told {
            found.push((revision.get(), changed, told));
        }
    }
    found
}

fn steps() -> impl Strategy<Value = Vec<(bool, bool, What)>> {
    let what = prop_oneof![
        4 => (0u8..3).prop_map(What::Weigh),
        2 => Just(What::Drain),
        2 => Just(What::Enable),
        2 => Just(What::Maintain),
        1 => Just(What::Deregister),
        2 => (0u8..3).prop_map(What::Settings),
        1 => Just(What::Remove),
        3 => (0u8..3).prop_map(What::Draft),
        1 => Just(What::Undraft),
        3 => (0u8..3).prop_map(What::Publish),
        2 => Just(What::PublishDrafts),
        2 => (0u8..3).prop_map(What::Canary),
        2 => Just(What::Promote),
        1 => Just(What::Abort),
        2 => (1u8..5).prop_map(What::Back),
    ];
    prop::collection::vec((any::<bool>(), any::<bool>(), what), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever becomes of the batches of two people at once: what is changed is recorded once, in
    /// the same revision of the store, and nothing else is.
    #[test]
    fn each_administrative_change_has_its_record(
        steps in steps(), first in fates(), second in fates(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (world, keyring) = (World::new(), Keyring::fresh(0));
            let desks =
                [Desk::new(&world, "ann", &keyring).await, Desk::new(&world, "bob", &keyring).await];
            within(&world, prepare(&desks[0])).await;
            settle().await;
            let since = world.revision().await;
            desks[0].node.link.script(first);
            desks[1].node.link.script(second);
            let playing = async |desk: &Desk, is_second: bool| {
                for (who, which, what) in &steps {
                    if *who == is_second {
                        desk.play(*which, *what).await;
                    }
                }
            };
            let both = async { tokio::join!(playing(&desks[0], false), playing(&desks[1], true)) };
            let mut both = std::pin::pin!(both);
            loop {
                tokio::select! {
                    biased;
                    _done = &mut both => break,
                    () = world.pass(500) => {}
                }
                for desk in &desks {
                    desk.node.link.deliver().await;
                }
            }
            for desk in &desks {
                desk.node.link.heal();
                desk.node.link.deliver().await;
            }
            for (revision, changed, told) in compared(&world, since) {
                assert_eq!((changed, told), (true, 1), "at {revision} of {steps:?}");
            }
            for desk in &desks {
                desk.registry.shutdown(Duration::from_secs(1)).await;
                desk.outbox.shutdown(Duration::from_secs(1)).await;
            }
        });
    }
}

#[tokio::test]
async fn a_record_says_who_did_what_and_why_and_what_is_as_it_should_be_has_none() {
    let (world, keyring) = (World::new(), Keyring::fresh(0));
    let desk = Desk::new(&world, "ann", &keyring).await;
    let there = within(&world, prepare(&desk)).await;
    let since = world.revision().await;
    let author = desk.author.clone().because("slow disk");
    within(&world, desk.registry.weigh(&there[0], 7, &author)).await.unwrap();
    within(&world, desk.registry.weigh(&there[0], 7, &author)).await.unwrap();
    assert_eq!(compared(&world, since).len(), 1, "the second changed nothing");
    let page = desk.outbox.list(&Filter::default(), None, 1).await.unwrap();
    let told = &page.items[0].record;
    assert_eq!((&*told.action, &*told.target.id), ("instance:weight", "shop/order/a"));
    assert_eq!((&told.before["weight"], &told.after["weight"]), (&json!(1), &json!(7)));
    assert_eq!((&*told.actor.principal, told.reason.as_deref()), ("ann", Some("slow disk")));
    assert!(told.target.revision_before.is_some());
    // A reason that is none: nothing is changed.
    let author = desk.author.clone().because("x");
    let refused = desk.registry.weigh(&there[0], 8, &author).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "reason-required");
}
