//! Who of a semaphore's waiters is woken, and in which order they come in.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_coord::{Credential, Grant, LockError, Request};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use crate::world::{Node, World, lock_name, namespace, owner, settle};

const LIMIT: u32 = 4;

fn permits(count: u32) -> Request {
    Request::permits(namespace(), lock_name(), count, LIMIT).unwrap()
}

/// One that asked: its session, and the grant it has or waits for.
struct Asked {
    own: Credential,
    permits: u32,
    asking: JoinHandle<Result<Grant, LockError>>,
}

impl Asked {
    async fn new(node: &Node, count: u32) -> Self {
        let ttl = Duration::from_mins(10);
        let own = node.ground.sessions().open(owner("far"), ttl).await.unwrap().credential;
        let (locks, asker) = (node.ground.locks(), own.clone());
        let asking = tokio::spawn(async move { locks.acquire(&asker, permits(count)).await });
        settle().await;
        Self { own, permits: count, asking }
    }

    /// Gives back what it has, or gives up.
    async fn leave(self, node: &Node) {
        if !self.asking.is_finished() {
            self.asking.abort();
            return settle().await;
        }
        let grant = self.asking.await.unwrap().unwrap();
        let op = mainstay_coord::name::RequestId::random();
        let place = permits(1).place().clone();
        node.ground.locks().release(&self.own, &place, grant.token, &op).await.unwrap();
        settle().await;
    }
}

#[tokio::test]
async fn a_release_wakes_whose_turn_it_is_and_nobody_else() {
    let world = World::new();
    let node = world.node();
    let mut queue = VecDeque::new();
    for count in [4, 2, 2, 3, 1, 1, 4, 1, 2] {
        queue.push_back(Asked::new(&node, count).await);
    }
    // The first four make room for two; those read the queue again, and only those.
    let first = queue.pop_front().unwrap();
    let before = node.link.ranges();
    first.leave(&node).await;
    let held: Vec<bool> = queue.iter().map(|asked| asked.asking.is_finished()).collect();
    assert_eq!(held, [true, true, false, false, false, false, false, false]);
    let reads = node.link.ranges() - before;
    assert!(reads <= 3, "{reads} reads of the queue for two grants");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(u32),
    /// The one at this place, counted around, gives back or gives up.
    Leave(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever comes and goes, in whatever order: those hold who are the first of the queue as far
    /// as their permits fit, and nobody is forgotten.
    #[test]
    fn permits_go_to_the_first_of_the_queue_and_to_all_for_whom_there_are_some(
        steps in prop::collection::vec(
            prop_oneof![
                3 => (1..=LIMIT).prop_map(Step::Ask),
                2 => (0..12_usize).prop_map(Step::Leave)
            ], 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let node = world.node();
            let mut queue: Vec<Asked> = Vec::new();
            for step in steps {
                match step {
                    Step::Ask(count) => queue.push(Asked::new(&node, count).await),
                    Step::Leave(at) if !queue.is_empty() => {
                        let at = at % queue.len();
                        queue.remove(at).leave(&node).await;
                    }
                    Step::Leave(_) => {}
                }
                let mut taken = 0;
                let mut fits = true;
                for asked in &queue {
                    taken += asked.permits;
                    fits &= taken <= LIMIT;
                    assert_eq!(asked.asking.is_finished(), fits, "{} permits", asked.permits);
                }
            }
        });
    }
}
