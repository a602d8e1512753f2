use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{RawCircuit, State};
use mainstay_resilience::limit::RawLimit;

use super::*;
use crate::observe::Silent;

fn machines() -> Machines {
    Machines::new(Arc::new(Silent))
}

fn key(subject: &str) -> CircuitKey {
    CircuitKey { policy: "default".into(), subject: subject.into() }
}

fn policy(raw: RawCircuit) -> Arc<CircuitPolicy> {
    Arc::new(CircuitPolicy::try_from(raw).unwrap())
}

fn plain() -> Arc<CircuitPolicy> {
    policy(RawCircuit::default())
}

fn limit(max: u32, kind: &str) -> Arc<LimitPolicy> {
    let raw: RawLimit = toml::from_str(&format!("max = {max}\nkind = \"{kind}\"")).unwrap();
    Arc::new(LimitPolicy::try_from(raw).unwrap())
}

/// Five failures in a row open a circuit of the default policy.
fn open(circuit: &SharedCircuit) {
    let now = MonotonicClock.now();
    for _ in 0..5 {
        let permit = circuit.admit(now).unwrap();
        circuit.record(now, permit, Outcome::Failure, Duration::from_millis(1));
    }
    assert_eq!(circuit.view(now).state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_same_name_is_the_same_machine_with_a_new_policy() {
    let machines = machines();
    let circuit = machines.circuit(key("order@a"), &plain());
    open(&circuit);
    let slow = RawCircuit { cooldown_seconds: Some(9.0), ..RawCircuit::default() };
    let again = machines.circuit(key("order@a"), &policy(slow));
    assert!(Arc::ptr_eq(&circuit, &again));
    assert!(!again.admits(MonotonicClock.now()), "still open");
    let other = machines.circuit(key("order@b"), &plain());
    assert!(other.admits(MonotonicClock.now()));
    let whole = RawCircuit {
        scope: Some(mainstay_resilience::circuit::Scope::Service),
        ..RawCircuit::default()
    };
    assert!(!Arc::ptr_eq(&circuit, &machines.circuit(key("order@a"), &policy(whole))));
}

#[tokio::test(start_paused = true)]
async fn a_limit_keeps_its_count_unless_its_kind_cannot() {
    let machines = machines();
    let name: Arc<str> = "api".into();
    let first = machines.limit(&name, &limit(10, "bucket"));
    assert!(Arc::ptr_eq(&first, &machines.limit(&name, &limit(20, "bucket"))));
    assert!(Arc::ptr_eq(&first, &machines.find_limit(&name).unwrap()));
    assert!(!Arc::ptr_eq(&first, &machines.limit(&name, &limit(20, "concurrency"))));
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_shared_by_name() {
    let machines = machines();
    let name: Arc<str> = "order".into();
    let first = machines.budget(&name, BudgetPolicy::default());
    assert!(Arc::ptr_eq(&first, &machines.budget(&name, BudgetPolicy::default())));
    assert!(!Arc::ptr_eq(&first, &machines.budget(&"stock".into(), BudgetPolicy::default())));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_that_nobody_uses() {
    let machines = machines();
    let kept = machines.circuit(key("order@kept"), &plain());
    for n in 0..10_000 {
        drop(machines.circuit(key(&format!("order@{n}")), &plain()));
        assert!(machines.circuits.lock().entries.len() <= 2 * SWEEP_MIN);
    }
    machines.retain_used();
    assert_eq!(machines.circuits.lock().entries.len(), 1);
    let all = machines.circuits();
    assert_eq!(all.len(), 1);
    assert!(Arc::ptr_eq(&all[0], &kept));
}

#[tokio::test(start_paused = true)]
async fn lists_are_sorted() {
    let machines = machines();
    let held: Vec<_> =
        ["c", "a", "b"].map(|s| machines.circuit(key(s), &plain())).into_iter().collect();
    let subjects: Vec<Arc<str>> =
        machines.circuits().iter().map(|c| Arc::clone(&c.key().subject)).collect();
    assert_eq!(subjects.join(" "), "a b c");
    let limits: Vec<_> = ["z", "y"].map(|n| machines.limit(&n.into(), &limit(1, "bucket"))).into();
    assert_eq!(&*machines.limits()[0].name().clone(), "y");
    assert_eq!((held.len(), limits.len()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_open_after_a_restart() {
    let before = machines();
    let (a, b) = (before.circuit(key("a"), &plain()), before.circuit(key("b"), &plain()));
    open(&a);
    open(&b);
    let saved = before.snapshot();
    let keys: Vec<_> = saved.circuits.iter().map(|(key, _)| &*key.subject).collect();
    assert_eq!(keys, ["a", "b"]);

    let after = machines();
    let early = after.circuit(key("a"), &plain());
    after.restore(saved.clone(), Duration::from_secs(2));
    assert!(!early.admits(MonotonicClock.now()), "made before the file was read");
    tokio::time::advance(Duration::from_secs(2)).await;
    let late = after.circuit(key("b"), &plain());
    assert!(!late.admits(MonotonicClock.now()), "made after it was");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(late.admits(MonotonicClock.now()), "five seconds have passed since it opened");

    let much_later = machines();
    much_later.restore(saved.clone(), Duration::from_secs(301));
    assert!(much_later.circuit(key("a"), &plain()).admits(MonotonicClock.now()));

    let idle = machines();
    idle.restore(saved, Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(291)).await;
    drop(idle.circuit(key("x"), &plain()));
    assert!(idle.restored.lock().left.circuits.is_empty(), "forgotten once too old");
}

#[tokio::test(start_paused = true)]
async fn bans_run_on_while_nobody_looks() {
    let after = machines();
    let ban = ("order@a".into(), Duration::from_mins(1));
    after.restore(Saved { bans: vec![ban], ..Saved::default() }, Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(after.ban("order@b"), None);
    assert_eq!(after.ban("order@a"), Some(Duration::from_secs(45)));
    assert_eq!(after.ban("order@a"), None, "whoever took it has it");
}
