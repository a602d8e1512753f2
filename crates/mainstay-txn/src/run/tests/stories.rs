//! What happens to one transaction, or a few.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_core::Effect;
use mainstay_store::{Batch, Key, Op as StoreOp, Put, Store};

use super::town::{Node, Town};
use crate::commit::LogError;
use crate::error::Refused;
use crate::log::Unreadable;
use crate::machine::{By, Resolution, Submit, VoteOf};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::owner::{ClaimError, Replace, winner};
use crate::receipt::Verdict;
use crate::run::{Until, Verb, VerbError};
use crate::target::Target;
use crate::transaction::{Begin, NewBranch, Part, Payload};
use crate::word::{Decision, Mode, Op, Prepare, State, Vote};

const LONG: Duration = Duration::from_mins(1);

pub(super) fn gid(text: &str) -> Gid {
    Gid::new(text).unwrap()
}

pub(super) fn endpoint(host: &str, ops: &[Op]) -> NewBranch {
    let targets: BTreeMap<_, _> =
        ops.iter().map(|op| (*op, Target::Url(format!("http://{host}/{op}")))).collect();
    let part = Part::Endpoint { targets: targets.into(), prepare: Prepare::Own };
    NewBranch { branch: None, part, after: Vec::new(), payload: Payload::default() }
}

pub(super) fn saga(name: &str, host: &str) -> Begin {
    let steps = vec![endpoint(host, &[Op::Action, Op::Compensate]); 2];
    Begin { steps, submit: true, ..Begin::new(gid(name), Mode::Saga) }
}

pub(super) fn operator() -> By {
    By::Operator { name: "ada".to_owned(), reason: "the shop is closed".to_owned() }
}

async fn done(node: &Node, name: &str) -> State {
    let seen = node.coordinator.wait(&gid(name), Until::Done, LONG).await.unwrap();
    seen.transaction.state()
}

/// Lets what nobody waits for be written.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_saga_ends_and_only_its_history_stays() {
    let town = Town::new(1);
    let node = town.node("n1", Replace::Everybody).await;
    let seen = node.coordinator.begin(saga("order-1", "stock")).await.unwrap();
    assert_eq!(seen.transaction.state(), State::Committing);
    assert!(seen.epoch > 0);
    assert_eq!(node.coordinator.identity().shards.count(), 8);
    assert_eq!(done(&node, "order-1").await, State::Committed);
    settle().await;
    assert_eq!(node.live(), 0);
    assert_eq!(town.ended(&gid("order-1")).await, Some(State::Committed));
    assert_eq!(town.keys("txn/s/").await.len() + town.keys("txn/b/").await.len(), 0);
    assert_eq!(town.village.ended.lock()[&gid("order-1")], (State::Committed, 1));
    assert_eq!(node.coordinator.shutdown(LONG).await, 0);
    assert_eq!(town.keys("txn/shard/").await.len(), 0, "others may take over at once");
}

#[tokio::test(start_paused = true)]
async fn many_share_few_batches() {
    let town = Town::new(2);
    let node = town.node("n1", Replace::Everybody).await;
    let begun = (0..200).map(|n| node.coordinator.begin(saga(&format!("g{n}"), "stock")));
    for begun in futures_util::future::join_all(begun).await {
        begun.unwrap();
    }
    settle().await;
    assert_eq!(node.live(), 0);
    let figures = node.coordinator.figures();
    let batches = figures.batches();
    assert!(batches < 40, "{batches} batches for 200 sagas");
}

#[tokio::test(start_paused = true)]
async fn a_beginning_said_again_is_the_same_and_another_is_refused() {
    let town = Town::new(3);
    let node = town.node("n1", Replace::Everybody).await;
    let other = saga("order-1", "elsewhere");
    for turn in ["live", "ended"] {
        let again = node.coordinator.begin(saga("order-1", "stock")).await;
        assert!(again.is_ok(), "{turn}: {again:?}");
        let refused = node.coordinator.begin(other.clone()).await.unwrap_err();
        assert_eq!(refused.code(), "transaction-gid-taken", "{turn}");
        settle().await;
    }
    assert_eq!(town.village.did.lock().len(), 2);
    let abort = node.coordinator.abort(&gid("order-1"), operator()).await.unwrap_err();
    assert_eq!(abort.code(), "transaction-committed", "also after its end");
    let unknown = node.coordinator.get(&gid("order-2")).await.unwrap_err();
    assert_eq!(unknown.code(), "transaction-unknown");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_aborts_and_a_late_submit_hears_of_it() {
    let town = Town::new(4);
    let node = town.node("n1", Replace::Everybody).await;
    let name = gid("trip");
    node.coordinator.begin(Begin::new(name.clone(), Mode::Tcc)).await.unwrap();
    let branch = endpoint("air", &[Op::Confirm, Op::Cancel]);
    node.coordinator.register(&name, branch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(done(&node, "trip").await, State::Aborted);
    let late = node.coordinator.submit(&name, Submit::default(), None).await.unwrap_err();
    assert_eq!(late.to_string(), "transaction was aborted: deadline");
    assert_eq!(town.village.did.lock()["trip 01"], [Op::Cancel]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_called_while_the_log_is_behind() {
    let town = Town::new(6);
    let node = town.node("n1", Replace::Everybody).await;
    let coordinator = &node.coordinator;
    let name = gid("trip");
    coordinator.begin(Begin::new(name.clone(), Mode::Tcc)).await.unwrap();
    let branch = endpoint("air", &[Op::Confirm, Op::Cancel]);
    coordinator.register(&name, branch).await.unwrap();
    let before = coordinator.growth();
    coordinator.fall_behind(Some("`orders` was told 7".to_owned()));
    for refused in [
        coordinator.begin(saga("order-1", "stock")).await.unwrap_err(),
        coordinator.submit(&name, Submit::default(), None).await.unwrap_err(),
    ] {
        assert_eq!((refused.code(), refused.effect()), ("transaction-log-behind", Effect::None));
    }
    tokio::time::sleep(Duration::from_mins(3)).await;
    let seen = coordinator.get(&name).await.unwrap();
    assert_eq!(seen.transaction.state(), State::Aborting, "deadlines go on");
    assert!(town.village.did.lock().is_empty(), "and nobody is told");
    assert_eq!(node.live(), 1, "what was refused holds no place");
    coordinator.fall_behind(None);
    assert_eq!(done(&node, "trip").await, State::Aborted);
    assert_eq!(coordinator.growth(), before, "an abort needs no number");
    coordinator.begin(saga("order-1", "stock")).await.unwrap();
    assert_eq!(done(&node, "order-1").await, State::Committed);
    assert_eq!(coordinator.growth(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn another_process_goes_on_where_one_was_killed() {
    for cut_after in [0, 4, 8, 12, 16, 20, 24, 40, 80] {
        let town = Town::new(5);
        let first = town.node("n1", Replace::Everybody).await;
        let coordinator = first.coordinator.clone();
        let mut begun = tokio::task::JoinSet::new();
        begun.spawn(async move { coordinator.begin(saga("order-1", "stock")).await });
        tokio::time::sleep(Duration::from_millis(cut_after)).await;
        first.cut();
        let second = town.node("n1", Replace::Everybody).await;
        settle().await;
        let seen = second.coordinator.get(&gid("order-1")).await;
        let was_told = begun.try_join_next().is_some_and(|told| told.unwrap().is_ok());
        match seen {
            Ok(seen) => {
                assert_eq!(seen.transaction.state(), State::Committed, "after {cut_after} ms");
                assert_eq!(town.ended(&gid("order-1")).await, Some(State::Committed));
            }
            Err(VerbError::Unknown { .. }) => {
                assert!(!was_told, "after {cut_after} ms: what was promised is gone");
                assert!(town.village.did.lock().is_empty(), "told before it was durable");
            }
            Err(error) => panic!("after {cut_after} ms: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_was_told_to_have_committed_does_not_turn_round() {
    let town = Town::new(5);
    let first = town.node("n1", Replace::Everybody).await;
    let begin = Begin { deadline: Some(Duration::from_secs(5)), ..saga("order-1", "stock") };
    first.coordinator.begin(begin).await.unwrap();
    assert_eq!(done(&first, "order-1").await, State::Committed);
    first.cut();
    // Its deadline passes before anybody goes on.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let second = town.node("n1", Replace::Everybody).await;
    assert_eq!(done(&second, "order-1").await, State::Committed);
    settle().await;
    assert_eq!(town.ended(&gid("order-1")).await, Some(State::Committed));
    assert_eq!(town.village.did.lock()["order-1 01"], [Op::Action]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_replaced_decides_nothing() {
    let town = Town::new(6);
    let first = town.node("n1", Replace::OwnName).await;
    let name = gid("trip");
    first.coordinator.begin(Begin::new(name.clone(), Mode::Tcc)).await.unwrap();
    let branch = endpoint("air", &[Op::Confirm, Op::Cancel]);
    first.coordinator.register(&name, branch).await.unwrap();
    let second = town.node("n2", Replace::OwnName).await;
    first.cut();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(second.shards(), 8, "it took all of them");
    let seen = second.coordinator.get(&name).await.unwrap();
    assert_eq!(seen.transaction.state(), State::Active, "nothing is aborted by a failover");
    first.heal();
    let late = first.coordinator.submit(&name, Submit::default(), None).await.unwrap_err();
    assert!(matches!(late, VerbError::Log(LogError::NotOwner | LogError::Lost { .. })), "{late}");
    second.coordinator.submit(&name, Submit::default(), None).await.unwrap();
    assert_eq!(done(&second, "trip").await, State::Committed);
    // The first joins anew, and both have their share in the end.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let shares = [first.shards(), second.shards()];
    assert_eq!(shares.iter().sum::<usize>(), 8);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_written_while_its_shard_is_given_up_is_known_to_whoever_has_it_next() {
    let town = Town::new(22);
    let first = town.node("n1", Replace::OwnName).await;
    let shards = first.coordinator.identity().shards;
    let goes = |gid: &Gid| winner(["n1", "n2"], gid.shard(shards)) == Some("n2");
    let name = (0..1_000).map(|n| gid(&format!("order-{n}"))).find(goes).unwrap();
    let shard = name.shard(shards);
    first.jam(true);
    let (coordinator, begin) = (first.coordinator.clone(), saga(name.as_str(), "stock"));
    let mut begun = tokio::task::JoinSet::new();
    begun.spawn(async move { coordinator.begin(begin).await });
    let second = town.node("n2", Replace::OwnName).await;
    // It waits in vain for what is on its way, and that it releases the shard is lost.
    while first.owns(shard) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // By now it has looked again, and its own key still stands there.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(first.shards() > 4, "it has claimed the others again that n2 should have");
    first.jam(false);
    let begun = begun.join_next().await.unwrap().unwrap();
    assert!(begun.is_ok(), "it was written in the end");
    for _ in 0..1_000 {
        for node in [&first, &second] {
            let asked = node.coordinator.get(&name).await;
            assert!(!matches!(asked, Err(VerbError::Unknown { .. })), "{asked:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(town.ended(&name).await, Some(State::Committed));
}

#[tokio::test(start_paused = true)]
async fn locks_are_released_before_the_end_is_written_and_after_a_kill_between_the_two() {
    let town = Town::new(7);
    town.village.hooks_fail.store(true, Ordering::Relaxed);
    let first = town.node("n1", Replace::Everybody).await;
    first.coordinator.begin(saga("order-1", "stock")).await.unwrap();
    assert_eq!(done(&first, "order-1").await, State::Committed);
    settle().await;
    assert_eq!(town.ended(&gid("order-1")).await, None, "its locks are still held");
    first.cut();
    town.village.hooks_fail.store(false, Ordering::Relaxed);
    let second = town.node("n1", Replace::Everybody).await;
    settle().await;
    assert_eq!(town.village.ended.lock()[&gid("order-1")].0, State::Committed);
    assert_eq!(town.ended(&gid("order-1")).await, Some(State::Committed));
    assert_eq!(second.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_participant_that_hangs_delays_nobody_else() {
    let town = Town::new(8);
    town.village.hanging.lock().insert("slow:80".to_owned());
    let node = town.node("n1", Replace::Everybody).await;
    for n in 0..100 {
        let (slow, quick) = (saga(&format!("slow-{n}"), "slow"), saga(&format!("q-{n}"), "stock"));
        node.coordinator.begin(slow).await.unwrap();
        node.coordinator.begin(quick).await.unwrap();
    }
    settle().await;
    assert_eq!(node.live(), 100, "the quick ones have ended");
    town.village.hanging.lock().clear();
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(node.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_one_pass_hears_when_everybody_was_tried() {
    let town = Town::new(19);
    town.village.hanging.lock().insert("slow:80".to_owned());
    let node = town.node("n1", Replace::Everybody).await;
    node.coordinator.begin(saga("order-1", "slow")).await.unwrap();
    let name = gid("order-1");
    let seen = node.coordinator.wait(&name, Until::Tried, LONG).await.unwrap();
    assert_eq!(town.village.calls.load(Ordering::Relaxed), 1);
    assert_eq!(seen.transaction.state(), State::Committing);
    assert!(!seen.transaction.is_calling());
    let (later, more) = node.coordinator.due_later(Moment::from_unix_millis(0), 9);
    assert_eq!((later, more), (vec![name.clone()], false));
    town.village.hanging.lock().clear();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = node.coordinator.wait(&name, Until::Tried, LONG).await.unwrap();
    assert_eq!(seen.transaction.state(), State::Committed);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_nothing_is_decided_and_the_answer_says_so() {
    let town = Town::new(9);
    let node = town.node("n1", Replace::Everybody).await;
    node.cut();
    let refused = node.coordinator.begin(saga("order-1", "stock")).await.unwrap_err();
    assert_eq!((refused.code(), refused.effect()), ("transaction-log-unavailable", Effect::None));
    node.heal();
    node.coordinator.begin(saga("order-1", "stock")).await.unwrap();
    assert_eq!(done(&node, "order-1").await, State::Committed);
}

#[tokio::test(start_paused = true)]
async fn people_pause_resolve_and_deliver_again() {
    let town = Town::new(10);
    town.village.hanging.lock().insert("mail:80".to_owned());
    let node = town.node("n1", Replace::Everybody).await;
    let (name, first) = (gid("paid"), BranchId::number(1));
    let once = Begin {
        steps: vec![endpoint("mail", &[Op::Action])],
        give_up_after: Some(Duration::from_secs(20)),
        submit: true,
        ..Begin::new(name.clone(), Mode::Message)
    };
    node.coordinator.begin(once).await.unwrap();
    node.coordinator.operate(&name, Verb::Pause(operator()), None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let calls = town.village.calls.load(Ordering::Relaxed);
    assert_eq!(calls, 1, "nobody is called while it is paused");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(done(&node, "paid").await, State::Aborted);
    settle().await;
    town.village.hanging.lock().clear();
    let again = node.coordinator.redeliver(&name, &operator(), None).await.unwrap();
    assert_eq!(again.transaction.gid(), &gid("paid.r1"));
    assert_eq!(done(&node, "paid.r1").await, State::Committed);

    town.village.hanging.lock().insert("stock:80".to_owned());
    node.coordinator.begin(saga("order-1", "stock")).await.unwrap();
    let branch = Some(first);
    let resolution = Resolution { by: operator(), decision: Decision::Commit, branch };
    node.coordinator.operate(&gid("order-1"), Verb::Resolve(resolution), None).await.unwrap();
    let resolution = Resolution { by: operator(), decision: Decision::Commit, branch: None };
    let seen = node
        .coordinator
        .operate(&gid("order-1"), Verb::Resolve(resolution.clone()), None)
        .await
        .unwrap();
    assert_eq!(seen.transaction.state(), State::Committed);
    let refused = node
        .coordinator
        .operate(&gid("paid.r1"), Verb::Resolve(resolution), None)
        .await
        .unwrap_err();
    assert!(matches!(refused, VerbError::Refused(Refused::NotAllowed { .. })), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_aborted_durably_before_it_is_rolled_back() {
    let town = Town::new(12);
    let node = town.node("n1", Replace::Everybody).await;
    let (name, branch) = (gid("lost"), BranchId::number(1));
    let found = || (ResourceName::new("orders").unwrap(), branch.clone());
    let grace = Duration::from_secs(90);
    let judge = async |seconds| {
        let seen_for = Duration::from_secs(seconds);
        node.coordinator.found_prepared(&name, found(), seen_for, grace).await.unwrap()
    };
    assert_eq!(judge(89).await, Verdict::Leave);
    assert_eq!(judge(90).await, Verdict::Orphan);
    assert_eq!(done(&node, "lost").await, State::Aborted);
    assert_eq!(town.village.did.lock()["lost 01"], [Op::Rollback]);
    settle().await;
    assert_eq!(judge(0).await, Verdict::Rollback, "what is prepared again is rolled back again");
    let vote = VoteOf {
        branch: branch.clone(),
        resource: Some(found().0),
        vote: Vote::Yes,
        listed: true,
        session_id: None,
    };
    let begin = Begin::new(name.clone(), Mode::Xa);
    let now = node.coordinator.get(&name).await.unwrap().transaction.created_at;
    let lost = Some((begin, now, now.plus(LONG)));
    let late = node.coordinator.submit(&name, Submit { votes: vec![vote] }, lost).await;
    assert_eq!(late.unwrap_err().code(), "transaction-aborted", "the sweep was first");
}

#[tokio::test(start_paused = true)]
async fn history_is_forgotten_when_it_is_old_also_what_an_earlier_process_left() {
    let mut town = Town::new(13);
    town.remembered = Duration::from_mins(10);
    let first = town.node("n1", Replace::Everybody).await;
    first.coordinator.begin(saga("order-1", "stock")).await.unwrap();
    settle().await;
    assert_eq!(first.coordinator.shutdown(LONG).await, 0);
    let node = town.node("n1", Replace::Everybody).await;
    node.coordinator.begin(saga("order-2", "stock")).await.unwrap();
    settle().await;
    assert!(node.metrics().contains("mainstay_transaction_history_count 2\n"));
    tokio::time::sleep(Duration::from_mins(11)).await;
    let text = node.metrics();
    for line in ["count 0", "bytes 0", "forgotten_total 2"] {
        let line = format!("mainstay_transaction_history_{line}\n");
        assert!(text.contains(&line), "no `{line}` in\n{text}");
    }
    assert_eq!(town.keys("txn/h/").await.len() + town.keys("txn/t/").await.len(), 0);
    let unknown = node.coordinator.get(&gid("order-1")).await.unwrap_err();
    assert_eq!(unknown.code(), "transaction-unknown");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_begins_nothing_and_leaves_nothing_running() {
    let town = Town::new(11);
    town.village.hanging.lock().insert("stock:80".to_owned());
    let node = town.node("n1", Replace::Everybody).await;
    node.coordinator.begin(saga("a", "stock")).await.unwrap();
    assert_eq!(node.coordinator.shutdown(Duration::from_secs(6)).await, 0);
    let refused = node.coordinator.begin(saga("b", "stock")).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::None);
    town.village.hanging.lock().clear();
    let next = town.node("n1", Replace::Everybody).await;
    assert_eq!(done(&next, "a").await, State::Committed);
}

#[tokio::test(start_paused = true)]
async fn a_verb_that_changes_nothing_is_recorded_as_well() {
    let town = Town::new(21);
    let node = town.node("n1", Replace::Everybody).await;
    let name = gid("trip");
    node.coordinator.begin(Begin::new(name.clone(), Mode::Tcc)).await.unwrap();
    for record in ["audit/1", "audit/2"] {
        let put = Put::new(Key::new(record).unwrap(), "who");
        node.coordinator.operate(&name, Verb::Abort(operator()), Some(put)).await.unwrap();
        settle().await; // The second finds what has ended.
    }
    assert_eq!(node.live(), 0);
    assert_eq!(town.keys("audit/").await, ["audit/1", "audit/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_was_not_written_is_told_to_nobody() {
    let town = Town::new(14);
    let node = town.node("n1", Replace::Everybody).await;
    node.cut();
    let twice = (0..2).map(|_| node.coordinator.begin(saga("order-1", "stock")));
    for begun in futures_util::future::join_all(twice).await {
        assert_eq!(begun.unwrap_err().code(), "transaction-log-unavailable");
    }
    node.heal();
    let unknown = node.coordinator.get(&gid("order-1")).await.unwrap_err();
    assert_eq!(unknown.code(), "transaction-unknown");
    assert_eq!(node.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_says_that_a_transaction_is_not_known() {
    let town = Town::new(15);
    let node = town.node("n1", Replace::OwnName).await;
    let name = gid("trip");
    assert_eq!(node.coordinator.get(&name).await.unwrap_err().code(), "transaction-unknown");
    let gone = StoreOp::delete_range(crate::log::owners());
    town.store.apply(Batch::new().then(gone)).await.unwrap();
    let told = [
        node.coordinator.get(&name).await.unwrap_err(),
        node.coordinator.submit(&name, Submit::default(), None).await.unwrap_err(),
    ];
    for error in told {
        assert_eq!(error.code(), "transaction-owner-unknown", "whoever owns it may know it");
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.coordinator.get(&name).await.unwrap_err().code(), "transaction-unknown");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_at_once_that_the_shard_was_given_up() {
    let town = Town::new(20);
    let node = town.node("n1", Replace::OwnName).await;
    let name = gid("trip");
    node.coordinator.begin(Begin::new(name.clone(), Mode::Tcc)).await.unwrap();
    let gone = Batch::new().then(StoreOp::delete_range(crate::log::owners()));
    let waiting = node.coordinator.wait(&name, Until::Decided, Duration::from_secs(50));
    let waiting = tokio::time::timeout(Duration::from_secs(5), waiting);
    let (told, gone) = tokio::join!(waiting, town.store.apply(gone));
    assert!(gone.unwrap().succeeded);
    let told = told.expect("its patience is longer").unwrap_err();
    assert_eq!(told.code(), "transaction-owner-unknown");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_kept_while_shards_are_claimed() {
    let mut town = Town::new(16);
    town.sync = Duration::from_millis(900); // Eight of them take longer than a lease.
    let node = town.start("n1", Replace::Everybody).await.unwrap();
    node.coordinator.begin(saga("order-1", "stock")).await.unwrap();
    assert_eq!(done(&node, "order-1").await, State::Committed);
    assert_eq!(node.shards(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_read_the_log_does_not_start_and_holds_nothing() {
    let town = Town::new(17);
    let order = crate::log::Keys::new(&gid("order-1"), crate::Shards::new(8).unwrap());
    let newer = Put::new(order.register(), "\u{2}");
    town.store.apply(Batch::new().then(newer)).await.unwrap();
    let refused = town.start("n1", Replace::Everybody).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, ClaimError::Unreadable(Unreadable::Newer { .. })), "{refused}");
    assert_eq!(town.keys("txn/node/").await.len() + town.keys("txn/shard/").await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_does_not_wait_for_a_log_that_is_away() {
    let town = Town::new(18);
    let node = town.node("n1", Replace::Everybody).await;
    node.coordinator.begin(Begin::new(gid("transfer"), Mode::Xa)).await.unwrap();
    node.cut();
    assert_eq!(node.coordinator.shutdown(Duration::from_secs(6)).await, 0);
}
