//! Changes and audit records are equal sets, whatever fails.

use std::collections::BTreeMap;

use mainstay_coord::audit::Outcome;
use mainstay_store::{Range, RangeRequest, Store};
use proptest::prelude::*;
use serde_json::json;

use crate::stage::{Desk, LIMIT, by, limit};
use crate::world::{Fate, World};

/// What one of two people does to one of two objects.
#[derive(Clone, Copy, Debug)]
struct Step {
    second_desk: bool,
    second_object: bool,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Put(u64),
    Remove,
    Back(u64),
}

async fn play(desk: &Desk, step: Step) {
    let rule = limit(if step.second_object { "b" } else { "a" });
    let terms = by(if step.second_desk { "bob" } else { "ann" });
    let rules = &desk.rules;
    // Whether it worked is not the question.
    drop(match step.what {
        What::Put(quota) => rules.put(&LIMIT, &rule, json!({"quota": quota}), &terms).await,
        What::Remove => rules.remove(&LIMIT, &rule, &terms).await,
        What::Back(to) => rules.rollback(&LIMIT, &rule, to, &terms).await,
    });
}

/// Which revision of which object each change wrote, and each record tells of.
async fn compared(world: &World, desk: &Desk) -> (Vec<String>, Vec<String>) {
    let range = Range::prefix("rule/limit/rev/");
    let page = world.memory.range(RangeRequest::from(range)).await.unwrap();
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    for entry in &page.entries {
        assert_eq!(entry.version, 1, "{} was written twice", entry.key);
        written.insert(entry.key.to_string(), entry.create_revision.get());
    }
    let changes = written.into_iter().map(|(key, at)| {
        let path = key.strip_prefix("rule/limit/rev/").unwrap();
        let (object, number) = path.rsplit_once('/').unwrap();
        format!("{object} {} at {at}", number.parse::<u64>().unwrap())
    });
    let told = desk.records().await.into_iter().map(|listed| {
        assert_eq!(listed.record.outcome, Outcome::Done);
        let number = listed.record.target.revision_after.unwrap();
        format!("{} {number} at {}", listed.record.target.id, listed.store_revision)
    });
    let (mut changes, mut told): (Vec<_>, Vec<_>) = (changes.collect(), told.collect());
    changes.sort_unstable();
    told.sort_unstable();
    (changes, told)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = prop_oneof![
        4 => (0u64..5).prop_map(What::Put), 1 => Just(What::Remove),
        1 => (1u64..6).prop_map(What::Back)
    ];
    let step = (any::<bool>(), any::<bool>(), what);
    let step = step.prop_map(|(second_desk, second_object, what)| Step {
        second_desk,
        second_object,
        what,
    });
    prop::collection::vec(step, 1..12)
}

pub(crate) fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        3 => Just(Fate::Arrives), 1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Lost), 1 => Just(Fate::Late)
    ];
    prop::collection::vec(fate, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever becomes of the batches of two people who change the same objects at once: each
    /// change has one record, and each record a change, at the same revision of the store.
    #[test]
    fn each_change_has_its_record(steps in steps(), first in fates(), second in fates()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let desks = [Desk::in_world(&world), Desk::in_world(&world)];
            desks[0].link.script(first);
            desks[1].link.script(second);
            let (ann, bob): (Vec<Step>, Vec<Step>) =
                steps.into_iter().partition(|step| !step.second_desk);
            let playing = async |desk: &Desk, steps: Vec<Step>| {
                for step in steps {
                    play(desk, step).await;
                }
            };
            let both = async { tokio::join!(playing(&desks[0], ann), playing(&desks[1], bob)) };
            let mut both = std::pin::pin!(both);
            loop {
                tokio::select! {
                    biased;
                    _done = &mut both => break,
                    () = world.pass(500) => {}
                }
                desks[0].link.deliver().await;
                desks[1].link.deliver().await;
            }
            for desk in &desks {
                desk.link.heal();
                desk.link.deliver().await;
            }
            let (changes, told) = compared(&world, &desks[0]).await;
            assert_eq!(changes, told);
        });
    }
}
