//! What no example can say.

use std::collections::BTreeMap;

use mainstay_core::switch::BUCKETS;
use proptest::prelude::*;
use serde_json::json;

use super::stage::{World, agree, anna, canary, client, payment, publish};
use crate::centre::canary::{Percent, bucket, effective};
use crate::centre::diff::{self, Turn};
use crate::centre::publish::running;
use crate::centre::record::Head;
use crate::centre::{Format, Item};
use crate::name::ClientId;

fn head(percent: u16, clients: &[String]) -> Head {
    let mut raw = canary(json!({ "clients": clients }));
    raw.percent = Percent::of_hundredths(percent).unwrap();
    Head { release: 1, last: 2, canary: Some(running(&raw, 2, 0)), ..Head::default() }
}

fn items(of: &BTreeMap<String, (String, bool)>) -> BTreeMap<String, Item> {
    let item = |(name, (content, secret)): (&String, &(String, bool))| {
        let content = content.as_str().into();
        (name.clone(), Item { format: Format::Text, content, secret: *secret, schema: None })
    };
    of.iter().map(item).collect()
}

proptest! {
    #[test]
    fn raising_the_percentage_only_adds_clients(
        id in "[!-~]{1,40}", a in 0u16..=10_000, b in 0u16..=10_000, listed: bool,
    ) {
        let (low, high) = (a.min(b), a.max(b));
        let clients = if listed { vec![id.clone()] } else { vec![] };
        let one = client(&id);
        let gets = |percent| effective(&payment(), &head(percent, &clients), Some(&one)) == 2;
        prop_assert!(!gets(low) || gets(high));
        prop_assert!(gets(10_000));
        prop_assert_eq!(gets(0), listed);
        let own = bucket(&payment(), &ClientId::new(id).unwrap());
        prop_assert!(own < BUCKETS);
        prop_assert_eq!(gets(low), listed || own < u64::from(low));
    }

    #[test]
    fn the_release_a_client_gets_depends_on_nothing_else(
        id in "[!-~]{1,40}", percent in 0u16..=10_000, others in prop::collection::vec("[a-z]{1,5}", 0..5),
    ) {
        let (one, head) = (client(&id), head(percent, &others));
        let first = effective(&payment(), &head, Some(&one));
        for other in &others {
            effective(&payment(), &head, Some(&client(other)));
        }
        prop_assert_eq!(effective(&payment(), &head, Some(&one)), first);
        prop_assert!(head.names(first));
    }

    /// Applying what differs to the old gives the new; of secrets nothing is shown.
    #[test]
    fn a_difference_applied_to_the_old_gives_the_new(
        old in prop::collection::btree_map("[a-e]", ("[xy\n]{0,12}", any::<bool>()), 0..5),
        new in prop::collection::btree_map("[a-e]", ("[xy\n]{0,12}", any::<bool>()), 0..5),
    ) {
        let (old, new) = (items(&old), items(&new));
        let diff = diff::diff((1, &old), (2, &new));
        let mut patched = old.clone();
        for it in &diff.items {
            match it.change {
                Turn::Removed => drop(patched.remove(&it.item)),
                Turn::Added | Turn::Changed => {
                    drop(patched.insert(it.item.clone(), new[&it.item].clone()));
                }
            }
            let sides = [old.get(&it.item), new.get(&it.item)];
            let is_secret = sides.iter().flatten().any(|item| item.secret);
            prop_assert_eq!(is_secret, it.secret);
            prop_assert!(!is_secret || it.unified.is_none());
        }
        prop_assert_eq!(&patched, &new);
        prop_assert_eq!(diff.items.is_empty(), old == new);
        prop_assert!(diff::diff((2, &new), (2, &new)).items.is_empty());
    }
}

/// What somebody does to a group.
#[derive(Clone, Debug)]
enum Deed {
    Publish(Vec<(u8, Option<u8>)>, bool),
    RollBack(u64),
    Promote,
    Abort,
}

fn deed() -> impl Strategy<Value = Deed> {
    let change = (0u8..4, prop::option::of(0u8..3));
    let changes = prop::collection::vec(change, 1..4);
    prop_oneof![
        4 => (changes, any::<bool>()).prop_map(|(items, some)| Deed::Publish(items, some)),
        1 => (1u64..8).prop_map(Deed::RollBack),
        1 => Just(Deed::Promote),
        1 => Just(Deed::Abort),
    ]
}

/// A group as a list of contents: so simple that it needs no test.
#[derive(Default)]
struct Model {
    releases: Vec<BTreeMap<String, String>>,
    release: usize,
    canary: Option<usize>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is done to a group, it holds what the model holds; and a node that listed only
    /// now knows what one knows that followed each change.
    #[test]
    fn a_group_is_what_a_list_of_contents_would_be(deeds in prop::collection::vec(deed(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::memory();
            let node = world.node("n1").await;
            publish(&node, &payment(), &["first=x"]).await.unwrap();
            let first = BTreeMap::from([("first".to_owned(), "x".to_owned())]);
            let mut model = Model { releases: vec![BTreeMap::new(), first], release: 1, canary: None };
            for deed in deeds {
                play(&node, &mut model, deed).await;
                for (id, release) in [("all", model.release), ("one", model.canary.unwrap_or(model.release))] {
                    let got = node.fetch(&payment(), Some(&client(id)), false).await.unwrap();
                    assert_eq!(got.release, u64::try_from(release).unwrap());
                    let got: BTreeMap<String, String> = got.items.into_iter()
                        .map(|(name, item)| (name, item.content.unwrap().to_string())).collect();
                    assert_eq!(got, model.releases[release]);
                }
            }
            let fresh = world.node("n2").await;
            assert!(agree(&node, &fresh));
        });
    }
}

async fn play(node: &crate::centre::Centre, model: &mut Model, deed: Deed) {
    let next = model.releases.len();
    match deed {
        Deed::Publish(items, some) => {
            let mut want = model.releases[model.release].clone();
            let mut said = BTreeMap::new();
            for (name, content) in items {
                said.insert(format!("i{name}"), content.map(|content| content.to_string()));
            }
            for (name, content) in &said {
                match content {
                    Some(content) => drop(want.insert(name.clone(), content.clone())),
                    None => drop(want.remove(name)),
                }
            }
            let texts: Vec<String> = said
                .iter()
                .map(|(name, it)| {
                    it.as_ref().map_or_else(|| format!("-{name}"), |it| format!("{name}={it}"))
                })
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut publication = super::stage::texts(&texts);
            publication.canary = some.then(|| canary(json!({ "clients": ["one"] })));
            let done = node.publish(&payment(), &publication, &anna()).await;
            if model.canary.is_some() {
                assert!(done.is_err());
                return;
            }
            let is_new = want != model.releases[model.release];
            assert_eq!(done.unwrap().is_new, is_new);
            if is_new {
                model.releases.push(want);
                if some { model.canary = Some(next) } else { model.release = next }
            }
        }
        Deed::RollBack(to) => {
            let done = node.roll_back(&payment(), to, "", &anna()).await;
            let Some(want) = model.releases.get(usize::try_from(to).unwrap()).cloned() else {
                assert!(done.is_err());
                return;
            };
            let is_new = want != model.releases[model.release] || model.canary.is_some();
            assert_eq!(done.unwrap().is_new, is_new);
            if is_new {
                model.releases.push(want);
                (model.release, model.canary) = (next, None);
            }
        }
        Deed::Promote => match (node.promote(&payment(), &anna()).await, model.canary.take()) {
            (Ok(_), Some(canary)) => model.release = canary,
            (Err(_), None) => {}
            (done, canary) => panic!("{done:?} with {canary:?}"),
        },
        Deed::Abort => {
            let done = node.abort(&payment(), &anna()).await;
            assert_eq!(done.is_ok(), model.canary.take().is_some());
        }
    }
}
