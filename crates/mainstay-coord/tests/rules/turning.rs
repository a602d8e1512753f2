//! Switches and plans, turned by hand and by time.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_coord::Timers;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::OwnerName;
use mainstay_coord::plan::PLANS;
use mainstay_coord::revisions::Terms;
use mainstay_coord::switch::{Asker, SWITCHES, SwitchType};
use mainstay_coord::{Coordination, Moment, Owner, PlanError, Plans, SwitchError, Switches, Timer};
use mainstay_core::problem::Code;
use mainstay_store::Store;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::stage::{Desk, OnDisk, by, eventually, rule};
use crate::world::{Fate, World, settle};

pub(crate) struct Turning {
    pub(crate) desk: Desk,
    pub(crate) switches: Switches,
    pub(crate) plans: Plans,
}

impl Turning {
    pub(crate) fn new(desk: Desk) -> Self {
        let switches = Switches::start(&desk.rules);
        let plans = Plans::start(&switches);
        Self { desk, switches, plans }
    }

    async fn with_sale(desk: Desk) -> Self {
        let all = Self::new(desk);
        all.put("recommend", json!({"type": "boolean", "value": true})).await;
        all.put("limit", json!({"type": "number", "value": 100})).await;
        all.plan("sale", json!({"switches": {"recommend": false, "limit": 40}})).await;
        all
    }

    async fn put(&self, name: &str, content: Value) {
        self.switches.put(&switch(name), content, &by("ann")).await.unwrap();
    }

    async fn plan(&self, name: &str, content: Value) {
        self.plans.put(&plan(name), content, &by("ann")).await.unwrap();
    }

    async fn set(&self, name: &str, value: Value) {
        self.switches.set(&switch(name), &value, None, &by("bob")).await.unwrap();
    }

    /// `recommend` and `limit`, as calls see them.
    fn seen(&self) -> (bool, f64) {
        let asker = Asker::default();
        let on = self.switches.is_on(&switch("recommend"), asker, false);
        (on, self.switches.number(&switch("limit"), asker, -1.0))
    }

    async fn is_active(&self, name: &str) -> bool {
        self.plans.status(&plan(name)).await.unwrap().state.active.is_some()
    }

    fn now(&self) -> Moment {
        Moment::from_unix_millis(Timer::unix_millis(&self.desk.clock))
    }
}

fn switch(name: &str) -> RuleRef {
    rule(RuleKind::SWITCH, name)
}

fn plan(name: &str) -> RuleRef {
    rule(RuleKind::PLAN, name)
}

#[track_caller]
fn switch_refused(outcome: Result<impl std::fmt::Debug, SwitchError>, code: Code) -> SwitchError {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    error
}

#[track_caller]
fn plan_refused(outcome: Result<impl std::fmt::Debug, PlanError>, code: Code) -> PlanError {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    error
}

/// The worked table of a sale.
async fn a_sale(desk: Desk) {
    let all = Turning::with_sale(desk).await;
    assert_eq!(all.seen(), (true, 100.0));
    is_rehearsed_and_activated(&all).await;
    keeps_what_was_changed(&all).await;
    has_told_of_it(&all).await;
}

async fn is_rehearsed_and_activated(all: &Turning) {
    let sale = plan("sale");

    let shown = all.plans.rehearse(&sale, &by("ann")).await.unwrap();
    assert_eq!(
        serde_json::to_value(&shown.effects).unwrap(),
        json!([
            {"switch": "limit", "from": 100, "to": 40, "overridden": 0},
            {"switch": "recommend", "from": true, "to": false, "overridden": 0}
        ])
    );
    assert_eq!((all.seen(), all.is_active("sale").await), ((true, 100.0), false));

    let terms = by("ann").expecting(1);
    let terms = Terms { author: terms.author.clone().because("flash sale"), ..terms };
    let turned = all.plans.activate(&sale, &terms).await.unwrap();
    assert_eq!(turned.effects, shown.effects);
    assert_eq!((all.seen(), all.is_active("sale").await), ((false, 40.0), true));
    let active = all.plans.status(&sale).await.unwrap().state.active.unwrap();
    assert_eq!((&*active.who, active.why.as_deref()), ("ann", Some("flash sale")));
    let undo: BTreeMap<_, _> =
        active.captured.iter().map(|(name, was)| (&**name, was.value.clone())).collect();
    assert_eq!(undo, BTreeMap::from([("limit", json!(100)), ("recommend", json!(true))]));
    plan_refused(all.plans.activate(&sale, &by("ann")).await, Code::PlanActive);
}

async fn keeps_what_was_changed(all: &Turning) {
    let sale = plan("sale");
    all.set("limit", json!(60)).await;
    assert_eq!(all.seen(), (false, 60.0));
    let turned = all.plans.deactivate(&sale, false, &by("ann")).await.unwrap();
    assert_eq!(turned.kept, ["limit"]);
    assert_eq!((all.seen(), all.is_active("sale").await), ((true, 60.0), false));
    plan_refused(all.plans.deactivate(&sale, false, &by("ann")).await, Code::PlanInactive);

    // Forced, everything goes back.
    all.plans.activate(&sale, &by("ann")).await.unwrap();
    all.set("limit", json!(70)).await;
    let turned = all.plans.deactivate(&sale, true, &by("ann")).await.unwrap();
    assert_eq!((turned.kept.len(), all.seen()), (0, (true, 60.0)));
}

/// Each turn has one record, which names what became of each switch.
async fn has_told_of_it(all: &Turning) {
    let records = all.desk.records().await;
    let turns: Vec<_> = records
        .iter()
        .filter(|listed| listed.record.target.kind == "plan")
        .map(|listed| &*listed.record.action)
        .collect();
    assert_eq!(
        turns,
        ["plan:write", "plan:activate", "plan:deactivate", "plan:activate", "plan:deactivate"]
    );
    let activated = records.iter().find(|at| at.record.action == "plan:activate").unwrap();
    assert_eq!(activated.record.after["switches"]["limit"], json!({"value": 40, "revision": 2}));
    let history = all.desk.rules.history(&switch("recommend"), None, 10).await.unwrap();
    assert_eq!(history.items.len(), 5);
    assert_eq!(history.items[3].why.as_deref(), Some("flash sale"));
}

#[tokio::test]
async fn a_plan_goes_there_and_back_and_keeps_what_others_changed() {
    a_sale(Desk::in_world(&World::new())).await;
    let disk = OnDisk::new();
    a_sale(disk.desk()).await;
}

#[tokio::test]
async fn two_active_plans_have_no_switch_in_common() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    all.plan("night", json!({"switches": {"limit": 10}})).await;
    all.plans.activate(&plan("sale"), &by("ann")).await.unwrap();
    let refused = all.plans.activate(&plan("night"), &by("ann")).await;
    let told = plan_refused(refused, Code::PlanConflict).to_string();
    assert_eq!(told, "plan shop/night shares limit with plan shop/sale, which is active");
    plan_refused(all.plans.rehearse(&plan("night"), &by("ann")).await, Code::PlanConflict);
    plan_refused(all.plans.remove(&plan("sale"), &by("ann")).await, Code::PlanActive);
    all.plans.deactivate(&plan("sale"), false, &by("ann")).await.unwrap();
    all.plans.activate(&plan("night"), &by("ann")).await.unwrap();
    all.plans.remove(&plan("sale"), &by("ann")).await.unwrap();
    plan_refused(all.plans.activate(&plan("sale"), &by("ann")).await, Code::NotFound);
}

#[tokio::test]
async fn of_two_plans_activated_at_once_one_is_told_of_the_other() {
    let world = World::new();
    let one = Turning::with_sale(Desk::in_world(&world)).await;
    let two = Turning::new(Desk::in_world(&world));
    // Sets what is there already: even so only one of them may be active.
    one.plan("same", json!({"switches": {"limit": 100}})).await;
    one.plan("other", json!({"switches": {"limit": 100}})).await;
    for _ in 0..20 {
        let (ann, bob) = (by("ann"), by("bob"));
        let (same, other) = (plan("same"), plan("other"));
        let (a, b) =
            tokio::join!(one.plans.activate(&same, &ann), two.plans.activate(&other, &bob));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        let loser = a.err().or_else(|| b.err()).unwrap();
        assert_eq!(loser.code(), Code::PlanConflict, "{loser}");
        for name in ["same", "other"] {
            drop(one.plans.deactivate(&plan(name), false, &by("ann")).await);
        }
    }
}

#[tokio::test]
async fn a_plan_of_sixty_large_switches_is_one_batch() {
    let world = World::new();
    let all = Turning::new(Desk::in_world(&world));
    let long = |letter: &str| letter.repeat(1_000);
    let mut switches = serde_json::Map::new();
    for number in 0..60 {
        let name = format!("{}-{number}", "n".repeat(120));
        let overrides = json!({"10.0.0.7:8080": long("o")});
        let content = json!({
            "type": "string", "value": long("v"), "default": long("d"), "overrides": overrides,
            "description": "x".repeat(900)
        });
        all.put(&name, content).await;
        switches.insert(name, json!(long("p")));
    }
    all.plan("big", json!({"switches": switches})).await;
    let terms = by(&"w".repeat(200));
    let terms = Terms { author: terms.author.clone().because("字".repeat(500)), ..terms };
    let before = world.revision().await;
    let turned = all.plans.activate(&plan("big"), &terms).await.unwrap();
    assert_eq!((turned.effects.len(), turned.effects[0].overridden), (60, 1));
    assert_eq!(turned.store_revision, before.get() + 1);
    all.plans.deactivate(&plan("big"), false, &terms).await.unwrap();
    switches.insert("one-more".to_owned(), json!("x"));
    let content = json!({"switches": switches});
    plan_refused(all.plans.put(&plan("big"), content, &by("ann")).await, Code::InvalidRule);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    let (switches, limit) = (&all.switches, switch("limit"));
    let ann = by("ann");
    switch_refused(switches.set(&limit, &json!("x"), None, &ann).await, Code::SwitchType);
    let other = json!({"type": "boolean", "value": true});
    switch_refused(switches.put(&limit, other, &ann).await, Code::SwitchType);
    let unknown = json!({"type": "number", "value": 1, "vaule": 2});
    switch_refused(switches.put(&limit, unknown, &ann).await, Code::InvalidRule);
    let until = json!({"type": "number", "value": 1, "until": "2026-01-02T03:04:05Z"});
    switch_refused(switches.put(&limit, until, &ann).await, Code::InvalidRule);
    switch_refused(switches.set(&switch("nobody"), &json!(1), None, &ann).await, Code::NotFound);
    let in_use = switches.remove(&limit, &["route order".to_owned()], &ann).await;
    let told = switch_refused(in_use, Code::SwitchInUse).to_string();
    assert_eq!(told, "switch shop/limit is in use by route order, plan shop/sale");
    all.plan("sale", json!({"switches": {"limit": true}})).await;
    plan_refused(all.plans.activate(&plan("sale"), &ann).await, Code::SwitchType);
    all.plan("sale", json!({"switches": {"nobody": true}})).await;
    plan_refused(all.plans.activate(&plan("sale"), &ann).await, Code::NotFound);
    switches.remove(&limit, &[], &ann).await.unwrap();
    assert!((switches.number(&limit, Asker::default(), 7.0) - 7.0).abs() < 1e-9);
}

#[tokio::test]
async fn reading_never_fails() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    let (switches, asker) = (&all.switches, Asker::default());
    let percent = json!({"type": "percent", "value": 5, "overrides": {"i-1": 100}});
    let checkout = RuleRef { namespace: default_namespace(), ..switch("checkout-v2") };
    all.switches.put(&checkout, percent, &by("ann")).await.unwrap();
    let on = |key: &str| {
        let asker = Asker { key: Some(key), instance: None };
        switches.is_on(&checkout, asker, true)
    };
    assert_eq!([on("u-1"), on("u-2"), on("u-3")], [false, false, true]);
    let own = Asker { instance: Some("i-1"), key: Some("u-1") };
    assert!(switches.is_on(&checkout, own, false));
    // Of another type, or not there: what the call says.
    assert!(switches.is_on(&switch("limit"), asker, true));
    assert_eq!(switches.text(&switch("nobody"), asker, "x"), "x");
    assert_eq!(Switches::validate(&Switches::plain(SwitchType::Boolean, json!(true))), []);
    // The store is away: what was last known.
    all.desk.link.cut(true);
    world.pass(60_000).await;
    assert_eq!(all.seen(), (true, 100.0));
    // Never read: what the call says.
    let fresh = Turning::new(Desk::in_world(&world));
    fresh.desk.link.cut(true);
    world.pass(1_000).await;
    assert_eq!(fresh.seen(), (false, -1.0));
}

fn default_namespace() -> mainstay_coord::name::Namespace {
    mainstay_coord::name::Namespace::new("default").unwrap()
}

fn timers(all: &Turning) -> (Coordination, Timers) {
    let (store, timer) = (all.desk.link.clone(), std::sync::Arc::new(all.desk.clock.clone()));
    let ground = Coordination::new(store, timer);
    let name = |text: &str| OwnerName::new(text).unwrap();
    let owner = Owner::new(name("host"), 7, name("timers"));
    (ground.clone(), Timers::start(ground, owner, all.plans.clone(), vec![SWITCHES, PLANS]))
}

#[tokio::test]
async fn a_switch_whose_time_is_over_goes_back_here_and_for_all() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    let two = Turning::new(Desk::in_world(&world));
    let limit = switch("limit");
    let until = all.now().plus(Duration::from_secs(20));
    all.switches.set(&limit, &json!(5), Some(until), &by("bob")).await.unwrap();
    assert_eq!(all.seen(), (true, 5.0));
    // Nobody has the duty, and the store is away: each reader knows the time.
    all.desk.link.cut(true);
    world.pass(21_000).await;
    assert_eq!(all.seen(), (true, 100.0));
    all.desk.link.cut(false);
    world.pass(12_000).await;
    assert_eq!(all.desk.rules.get(&limit).await.unwrap().revision, 2, "written by nobody yet");

    let (first, second) = (timers(&all), timers(&two));
    world.pass(3_000).await;
    let object = all.desk.rules.get(&limit).await.unwrap();
    assert_eq!((object.revision, &*object.who), (3, "system/timers"), "written once");
    assert_eq!(object.content, json!({"type": "number", "value": 100, "default": 100}));

    // The node that has the duty vanishes: the other has it within its session's time.
    let until = all.now().plus(Duration::from_secs(5));
    all.switches.set(&limit, &json!(5), Some(until), &by("bob")).await.unwrap();
    all.desk.link.cut(true);
    world.pass(20_000).await;
    assert_eq!(two.desk.rules.get(&limit).await.unwrap().revision, 5);
    all.desk.link.cut(false);
    for (ground, timers) in [first, second] {
        assert_eq!(timers.shutdown(Duration::from_secs(5)).await, 0);
        ground.shutdown(Duration::from_secs(5)).await;
    }
    settle().await;
    assert_eq!(world.keys("duty/").await.iter().filter(|key| key.contains("/q/")).count(), 0);
}

#[tokio::test]
async fn a_plan_ends_by_itself_and_not_before() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    let content = json!({"switches": {"limit": 40}, "max_active_seconds": 30});
    all.plan("sale", content).await;
    let (ground, timers) = timers(&all);
    let turned = all.plans.activate(&plan("sale"), &by("ann")).await.unwrap();
    assert_eq!(turned.until, Some(all.now().plus(Duration::from_secs(30))));
    world.pass(29_000).await;
    assert!(all.is_active("sale").await);
    assert_eq!(all.plans.active().len(), 1);
    world.pass(3_000).await;
    assert_eq!((all.is_active("sale").await, all.seen()), (false, (true, 100.0)));
    let last = all.plans.status(&plan("sale")).await.unwrap().state.last.unwrap();
    assert_eq!(last.who, "system/timers");
    assert_eq!(timers.shutdown(Duration::from_secs(5)).await, 0);
    assert_eq!(ground.shutdown(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn a_time_that_is_over_meanwhile_does_not_come_back() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    let limit = switch("limit");
    for (seconds, want) in [(1_000, (true, 5.0)), (10, (true, 100.0))] {
        let until = all.now().plus(Duration::from_secs(seconds));
        all.switches.set(&limit, &json!(5), Some(until), &by("bob")).await.unwrap();
        all.plans.activate(&plan("sale"), &by("ann")).await.unwrap();
        world.pass(20_000).await;
        assert_eq!(all.seen(), (false, 40.0), "the plan's value has no end");
        all.plans.deactivate(&plan("sale"), false, &by("ann")).await.unwrap();
        assert_eq!(all.seen(), want);
    }
}

#[tokio::test]
async fn a_turn_of_unknown_outcome_becomes_known() {
    for fate in [Fate::AnswerLost, Fate::Lost, Fate::Late] {
        for at in 0..2 {
            let world = World::new();
            let all = Turning::with_sale(Desk::in_world(&world)).await;
            all.desk.link.script(std::iter::repeat_n(Fate::Arrives, at).chain([fate]));
            let plans = all.plans.clone();
            let turning = tokio::spawn(async move {
                let on = plans.activate(&plan("sale"), &by("ann")).await;
                (on, plans.deactivate(&plan("sale"), false, &by("ann")).await)
            });
            world.pass(3_000).await;
            let (on, off) = turning.await.unwrap();
            assert_eq!((on.unwrap().effects.len(), off.unwrap().kept.len()), (2, 0), "{fate:?}");
            all.desk.link.deliver().await;
            world.pass(100).await;
            assert_eq!((all.seen(), all.is_active("sale").await), ((true, 100.0), false));
            let history = all.desk.rules.history(&switch("limit"), None, 10).await.unwrap();
            assert_eq!(history.items.len(), 3, "{fate:?} at {at}");
            let records = all.desk.records().await;
            let turns = records.iter().filter(|at| at.record.target.kind == "plan").count();
            assert_eq!(turns, 3, "{fate:?} at {at}");
        }
    }
}

#[tokio::test]
async fn a_removal_that_is_late_does_not_take_an_active_plan_away() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    let other = Turning::new(Desk::in_world(&world));
    all.desk.link.script([Fate::Late]);
    let plans = all.plans.clone();
    let removing = tokio::spawn(async move { plans.remove(&plan("sale"), &by("ann")).await });
    settle().await;
    other.plans.activate(&plan("sale"), &by("bob")).await.unwrap();
    world.pass(3_000).await;
    plan_refused(removing.await.unwrap(), Code::OutcomeUnknown);
    all.desk.link.deliver().await;
    assert!(all.is_active("sale").await);
    plan_refused(all.plans.remove(&plan("sale"), &by("ann")).await, Code::PlanActive);
}

#[tokio::test]
async fn a_switch_that_is_of_another_type_now_gets_nothing_back() {
    let world = World::new();
    let all = Turning::with_sale(Desk::in_world(&world)).await;
    all.plans.activate(&plan("sale"), &by("ann")).await.unwrap();
    // What is active stays as it was activated, and names the switch no longer.
    all.plan("sale", json!({"switches": {"recommend": false}})).await;
    all.switches.remove(&switch("limit"), &[], &by("ann")).await.unwrap();
    all.put("limit", json!({"type": "string", "value": "few"})).await;
    let off = all.plans.deactivate(&plan("sale"), true, &by("ann")).await.unwrap();
    assert_eq!(off.kept, ["limit"]);
    world.pass(100).await;
    let limit = all.desk.rules.get(&switch("limit")).await.unwrap();
    assert_eq!(limit.content["value"], "few");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    On(bool),
    Off(bool, bool),
    Set(bool, u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever two plans and their switches go through: no switch is ever held by two plans, and
    /// every revision of a switch is named by exactly one record.
    #[test]
    fn every_turn_is_told_and_no_switch_has_two_plans(
        steps in prop::collection::vec(prop_oneof![
            2 => any::<bool>().prop_map(Step::On),
            2 => (any::<bool>(), any::<bool>()).prop_map(|(plan, force)| Step::Off(plan, force)),
            1 => (any::<bool>(), 0u64..3).prop_map(|(switch, value)| Step::Set(switch, value))
        ], 1..12),
        fates in prop::collection::vec(prop_oneof![
            3 => Just(Fate::Arrives), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost),
            1 => Just(Fate::Late)
        ], 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let all = Turning::new(Desk::in_world(&world));
            for name in ["a", "b", "c"] {
                all.put(name, json!({"type": "number", "value": 100})).await;
            }
            all.plan("one", json!({"switches": {"a": 1, "b": 1}})).await;
            all.plan("two", json!({"switches": {"b": 2, "c": 2}})).await;
            all.desk.link.script(fates);
            let name = |second: bool| plan(if second { "two" } else { "one" });
            for step in steps {
                let ann = by("ann");
                let turning = async {
                    match step {
                        Step::On(second) => drop(all.plans.activate(&name(second), &ann).await),
                        Step::Off(second, force) => {
                            drop(all.plans.deactivate(&name(second), force, &ann).await);
                        }
                        Step::Set(second, value) => {
                            let at = switch(if second { "b" } else { "a" });
                            drop(all.switches.set(&at, &json!(value), None, &ann).await);
                        }
                    }
                };
                let mut turning = std::pin::pin!(turning);
                loop {
                    tokio::select! {
                        biased;
                        () = &mut turning => break,
                        () = world.pass(500) => {}
                    }
                    all.desk.link.deliver().await;
                }
                let active = [all.is_active("one").await, all.is_active("two").await];
                assert!(active != [true, true], "both have b");
            }
            all.desk.link.heal();
            all.desk.link.deliver().await;
            all_is_told(&world, &all).await;
        });
    }
}

/// Every revision of every switch is named by one record, that of the same batch.
async fn all_is_told(world: &World, all: &Turning) {
    let range = mainstay_store::Range::prefix("rule/switch/rev/shop/");
    let page = world.memory.range(range.into()).await.unwrap();
    let mut changes: Vec<String> = page
        .entries
        .iter()
        .map(|entry| {
            let key = entry.key.to_string();
            let (name, number) =
                key.strip_prefix("rule/switch/rev/shop/").unwrap().split_once('/').unwrap();
            let number: u64 = number.parse().unwrap();
            format!("{name} {number} at {}", entry.create_revision)
        })
        .collect();
    let mut told = Vec::new();
    for listed in all.desk.records().await {
        let (record, at) = (listed.record, listed.store_revision);
        if record.action == "switch:write" {
            let name = record.target.id.strip_prefix("shop/").unwrap().to_owned();
            told.push(format!("{name} {} at {at}", record.target.revision_after.unwrap()));
        }
        let turned = record.after.get("switches").and_then(Value::as_object).cloned();
        if record.action.ends_with("activate") {
            let lines = turned.unwrap_or_default().into_iter();
            told.extend(lines.map(|(name, line)| format!("{name} {} at {at}", line["revision"])));
        }
    }
    changes.sort_unstable();
    told.sort_unstable();
    assert_eq!(changes, told);
    eventually("its copy is at the end", || all.plans.followed().snapshot().is_loaded()).await;
}
