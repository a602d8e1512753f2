//! Lists and counts.

use std::time::Duration;

use mainstay_store::{Batch, Put, Store as _};

use super::stories::{endpoint, gid, operator, saga};
use super::town::{Node, Town};
use crate::log;
use crate::name::{ResourceName, Shards};
use crate::owner::Replace;
use crate::transaction::{Begin, NewBranch, Part, Payload};
use crate::word::{Mode, Op, State};

#[tokio::test(start_paused = true)]
async fn what_is_live_and_what_has_ended_is_listed_newest_first_and_counted() {
    let town = Town::new(40);
    let node = town.node("n1", Replace::Everybody).await;
    for name in ["t1", "t2", "t3"] {
        let branch = endpoint("stock", &[Op::Confirm, Op::Cancel]);
        node.coordinator.begin(Begin::new(gid(name), Mode::Tcc)).await.unwrap();
        node.coordinator.register(&gid(name), branch).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for name in ["s1", "s2"] {
        node.coordinator.begin(saga(name, "stock")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    node.coordinator.abort(&gid("t2"), operator()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;

    let names = |list: crate::run::Glances| {
        list.items.iter().map(|glance| glance.begin.gid.to_string()).collect::<Vec<_>>()
    };
    let all = node.coordinator.glances(None, |_| true, 10);
    assert!(!all.more && !all.partial);
    assert_eq!(names(all), ["t3", "t1"]);
    let first = node.coordinator.glances(None, |_| true, 1);
    let mark = first.items[0].mark();
    assert!(first.more);
    assert_eq!(names(node.coordinator.glances(Some(&mark), |_| true, 1)), ["t1"]);
    let none = node.coordinator.glances(None, |glance| glance.state == State::Aborting, 10);
    assert_eq!(names(none), [""; 0]);
    let ended = node.coordinator.ended_before(None, 10);
    assert!(!ended.partial);
    let ended: Vec<_> = ended.items.iter().map(|(_, gid)| gid.to_string()).collect();
    assert_eq!(ended, ["t2", "s2", "s1"]);

    let text = node.metrics();
    for line in [
        "mainstay_transaction_begun_total{mode=\"tcc\"} 3",
        "mainstay_transaction_begun_total{mode=\"saga\"} 2",
        "mainstay_transaction_decided_total{mode=\"tcc\",decision=\"abort\"} 1",
        "mainstay_transaction_finished_total{mode=\"saga\",outcome=\"committed\"} 2",
        "mainstay_transaction_live_count{state=\"active\"} 2",
        "mainstay_transaction_stuck_count 0",
        "mainstay_transaction_decision_seconds_count{mode=\"tcc\"} 1",
        "mainstay_transaction_phase_two_seconds_count{mode=\"saga\"} 2",
        "mainstay_transaction_log_queue_records 0",
        "mainstay_shard_owned_count 8",
        "mainstay_shard_takeovers_total 8",
        "mainstay_transaction_history_count 3",
        "mainstay_transaction_history_forgotten_total 0",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_is_used_while_a_branch_in_it_is_live_or_may_be() {
    let town = Town::new(41);
    let [orders, stock] = ["orders", "stock"].map(|name| ResourceName::new(name).unwrap());
    let uses = |node: &Node| [&orders, &stock].map(|resource| node.coordinator.uses(resource));
    let node = town.node("n1", Replace::Everybody).await;
    let name = gid("order-1");
    node.coordinator.begin(Begin::new(name.clone(), Mode::Xa)).await.unwrap();
    assert_eq!(uses(&node), [false, false]);
    let (part, payload) = (Part::Resource(orders.clone()), Payload::default());
    let branch = NewBranch { branch: None, part, after: Vec::new(), payload };
    node.coordinator.register(&name, branch).await.unwrap();
    assert_eq!(uses(&node), [true, false]);
    node.coordinator.abort(&name, operator()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(uses(&node), [false, false], "it has ended");
    assert_eq!(node.coordinator.shutdown(Duration::from_secs(6)).await, 0);
    // One that cannot be read may use any, also while somebody tries to read it.
    let damaged = log::Keys::new(&gid("order-2"), Shards::new(8).unwrap()).register();
    let put = Batch::new().then(Put::new(damaged, "\u{1}\u{7f}"));
    assert!(town.store.apply(put).await.unwrap().succeeded);
    let node = town.node("n1", Replace::Everybody).await;
    let slot = node.coordinator.slot(&gid("order-2")).unwrap();
    let _reading = slot.kept.lock().await;
    assert_eq!(uses(&node), [true, true]);
}
