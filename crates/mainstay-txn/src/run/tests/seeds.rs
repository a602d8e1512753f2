//! Seeds: what is lost, late, repeated, killed and taken over is drawn; what must hold is not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stories::{endpoint, gid, operator, saga};
use super::town::{Node, Town};
use crate::invariants;
use crate::machine::{Submit, VoteOf};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::owner::Replace;
use crate::run::Verb;
use crate::transaction::Begin;
use crate::word::{Mode, Op, State, Vote};

/// Transactions of a story.
const TRANSACTIONS: usize = 12;

/// What an initiator was told in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Committed,
    Aborted,
}

/// Does what the initiator of transaction `n` does, at whichever node answers.
async fn initiate(nodes: &[Node], n: usize, which: u64) -> Told {
    let name = format!("g{n}");
    let node = &nodes[usize::try_from(which).unwrap_or(0) % nodes.len()].coordinator;
    let told = |state: State| match state {
        State::Committing | State::Committed => Told::Committed,
        State::Aborting | State::Aborted => Told::Aborted,
        _ => Told::Nothing,
    };
    match n % 3 {
        0 => {
            let answer = node.begin(saga(&name, "stock")).await;
            answer.map_or(Told::Nothing, |_| Told::Nothing)
        }
        1 => {
            let name = gid(&name);
            if node.begin(Begin::new(name.clone(), Mode::Tcc)).await.is_err() {
                return Told::Nothing;
            }
            for number in 1..=2 {
                let mut branch = endpoint("air", &[Op::Confirm, Op::Cancel]);
                branch.branch = Some(BranchId::number(number));
                if node.register(&name, branch).await.is_err() {
                    return Told::Nothing;
                }
            }
            match node.submit(&name, Submit::default(), None).await {
                Ok(seen) => told(seen.transaction.state()),
                Err(_) => Told::Nothing,
            }
        }
        _ => {
            let begin = Begin::new(gid(&name), Mode::Xa);
            let Ok(begun) = node.begin(begin.clone()).await else { return Told::Nothing };
            let begun_at = begun.transaction.created_at;
            let deadline = begun.transaction.deadline_at.unwrap_or(Moment::MAX);
            let vote = |number| VoteOf {
                branch: BranchId::number(number),
                resource: Some(ResourceName::new("orders").unwrap()),
                vote: if n.is_multiple_of(2) || number == 1 { Vote::Yes } else { Vote::No },
                listed: number == 1,
                session_id: None,
            };
            let votes = vec![vote(1), vote(2)];
            let lost = Some((begin, begun_at, deadline));
            match node.submit(&gid(&name), Submit { votes }, lost).await {
                Ok(seen) => told(seen.transaction.state()),
                Err(_) => Told::Nothing,
            }
        }
    }
}

/// Plays one seed to its end.
async fn play(seed: u64) {
    let mut town = Town::new(seed);
    town.faults = 12;
    town.village.faults.store(8, Ordering::Relaxed);
    let several = seed.is_multiple_of(2);
    let replace = if several { Replace::OwnName } else { Replace::Everybody };
    let mut nodes = vec![town.node("n1", replace).await];
    if several {
        nodes.push(town.node("n2", replace).await);
    }
    for n in 0..TRANSACTIONS {
        if town.draw.below(3) == 0 {
            let refusal = format!("g{n} 02 {}", Op::Action);
            town.village.refusing.lock().insert(refusal);
        }
    }
    let told = disturb(&town, &mut nodes, replace).await;
    town.village.faults.store(0, Ordering::Relaxed);
    let left = heal(&town, &nodes).await;
    assert!(left.is_empty(), "seed {seed}: {left:?} have not ended");
    for (n, told) in told.iter().enumerate() {
        check(&town, seed, n, *told).await;
    }
}

/// Initiators do their work, three times over, while nodes die.
async fn disturb(town: &Town, nodes: &mut [Node], replace: Replace) -> [Told; TRANSACTIONS] {
    let mut told = [Told::Nothing; TRANSACTIONS];
    for n in (0..TRANSACTIONS).chain(0..TRANSACTIONS).chain(0..TRANSACTIONS) {
        let initiated = initiate(nodes, n, town.draw.below(2));
        let now = tokio::time::timeout(Duration::from_secs(20), initiated).await;
        let now = now.unwrap_or(Told::Nothing);
        if now != Told::Nothing {
            let before = std::mem::replace(&mut told[n], now);
            assert!(before == Told::Nothing || before == now, "g{n} was told both ways");
        }
        if town.draw.below(6) == 0 {
            // A node dies, and comes back as another process of the same name.
            let at = usize::try_from(town.draw.below(2)).unwrap_or(0) % nodes.len();
            nodes[at].cut();
            nodes[at] = town.node(["n1", "n2"][at], replace).await;
        }
    }
    told
}

/// Participants answer again; returns what has not ended in the end.
async fn heal(town: &Town, nodes: &[Node]) -> Vec<String> {
    for _minute in 0..40 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        if town.keys("txn/s/").await.is_empty() {
            break;
        }
        for n in 0..TRANSACTIONS {
            for node in nodes {
                drop(
                    node.coordinator
                        .operate(&gid(&format!("g{n}")), Verb::Retry(operator()), None)
                        .await,
                );
            }
        }
    }
    town.keys("txn/s/").await
}

/// What everybody did fits how it ended, and what the initiator was told.
async fn check(town: &Town, seed: u64, n: usize, told: Told) {
    let name: Gid = gid(&format!("g{n}"));
    let state = town.ended(&name).await;
    let did = town.village.did.lock().clone();
    let did: Vec<_> = (1..=2)
        .map(|number| did.get(&format!("{name} {number:02}")).cloned().unwrap_or_default())
        .collect();
    let at = format!("seed {seed}: {name} {state:?} told {told:?} did {did:?}");
    match told {
        Told::Committed => assert_eq!(state, Some(State::Committed), "{at}"),
        Told::Aborted => assert!(matches!(state, Some(State::Aborted) | None), "{at}"),
        Told::Nothing => {}
    }
    assert!(did.iter().all(|did| invariants::told_one_way(did)), "{at}");
    let every = |op| did.iter().all(|did| did.contains(&op));
    let none = |op| did.iter().all(|did| !did.contains(&op));
    match (state, n % 3) {
        (Some(State::Committed), 0) => assert!(every(Op::Action) && none(Op::Compensate), "{at}"),
        (Some(State::Committed), 1) => assert!(every(Op::Confirm), "{at}"),
        (Some(State::Committed), _) => assert!(every(Op::Commit), "{at}"),
        (Some(State::Aborted), 0) => {
            let undone = |did: &&Vec<Op>| did.contains(&Op::Action);
            assert!(
                did.iter().filter(undone).all(|did| did.last() == Some(&Op::Compensate)),
                "{at}"
            );
        }
        (Some(State::Aborted), 1) => assert!(none(Op::Confirm), "{at}"),
        (Some(State::Aborted), _) | (None, 2) => assert!(none(Op::Commit), "{at}"),
        (None, _) => assert!(did.iter().all(Vec::is_empty), "{at}"),
        (Some(_), _) => panic!("{at}"),
    }
}

/// `MAINSTAY_SEEDS` plays more of them.
#[test]
fn whatever_is_lost_late_or_killed_it_ends_as_it_was_decided() {
    let seeds = std::env::var("MAINSTAY_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(12) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(seed));
    }
}
