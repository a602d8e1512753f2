//! Holders of one lock, some of whom stand still for longer than their lease.

use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::name::{LockName, Namespace, OwnerName, RequestId};
use mainstay_coord::{Coordination, Credential, HandClock, Owner, Request, Wait};
use mainstay_store::Memory;

/// The lock that is held.
pub(crate) const RESOURCE: &str = "shop/stock";

const TTL: Duration = Duration::from_secs(2);

/// A store, its locks, and its time.
pub(crate) struct Holders {
    clock: HandClock,
    store: Memory,
    ground: Coordination,
}

/// Somebody who was granted the lock.
pub(crate) struct Holder {
    credential: Credential,
    pub(crate) token: u64,
}

impl Holders {
    pub(crate) fn new() -> Self {
        let clock = HandClock::default();
        let store = Memory::new(clock.clone());
        let ground = Coordination::new(Arc::new(store.clone()), Arc::new(clock.clone()));
        Self { clock, store, ground }
    }

    /// Gets the lock, which must be free.
    pub(crate) async fn acquire(&self, name: &str) -> Holder {
        let name = OwnerName::new(name).unwrap();
        let owner = Owner::new(OwnerName::new("host").unwrap(), 7, name);
        let opened = self.ground.sessions().open(owner, TTL).await.unwrap();
        let request = request().wait(Wait::Try);
        let grant = self.ground.locks().acquire(&opened.credential, request).await.unwrap();
        Holder { credential: opened.credential, token: grant.token.get() }
    }

    pub(crate) async fn release(&self, holder: &Holder) {
        let (locks, op) = (self.ground.locks(), RequestId::random());
        let (place, token) = (request(), mainstay_coord::Token::new(holder.token));
        locks.release(&holder.credential, place.place(), token, &op).await.unwrap();
    }

    /// Twice the ttl goes by, in which nobody renews.
    pub(crate) async fn stand_still(&self) {
        for _ in 0..40 {
            self.clock.advance(TTL / 20);
            self.store.tick();
            tokio::task::yield_now().await;
        }
    }
}

fn request() -> Request {
    Request::exclusive(Namespace::new("shop").unwrap(), LockName::new("stock").unwrap())
}

/// What a register held after each write, and whether it ever went back.
#[derive(Debug, Default)]
pub(crate) struct History(Vec<u64>);

impl History {
    pub(crate) fn saw(&mut self, token: i64) {
        self.0.push(u64::try_from(token).unwrap());
    }

    pub(crate) fn steps_back(&self) -> usize {
        self.0.windows(2).filter(|pair| pair[1] < pair[0]).count()
    }
}
