//! A process of clients: its clock, its way to the store, its coordination.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_coord::{Coordination, Timer as _};
use mainstay_core::Clock as _;

use crate::clock::SkewedClock;
use crate::draw::Draw;
use crate::link::Link;
use crate::server::Server;

/// A process. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is called.
    pub name: Arc<str>,
    /// Its clock.
    pub clock: SkewedClock,
    /// Its way to the store.
    pub link: Arc<Link>,
    /// Sessions and locks in this process.
    pub ground: Coordination,
    /// The draws of the run.
    pub draw: Draw,
    /// The store's process: to be looked at by checks, never by what a client decides.
    pub server: Server,
    over: Arc<AtomicBool>,
}

impl Node {
    /// A process that starts now.
    pub fn new(name: impl Into<Arc<str>>, server: &Server, draw: &Draw) -> Self {
        let name = name.into();
        // Up to a hundredth too fast or slow: more than any clock does that is not broken.
        let fast = i64::try_from(draw.below(20_001)).unwrap_or(0) - 10_000;
        let clock = SkewedClock::new(fast);
        let link = Link::new(Arc::clone(&name), server.clone(), clock.clone(), draw.clone());
        let link = Arc::new(link);
        let ground = Coordination::new(Arc::clone(&link) as _, Arc::new(clock.clone()));
        let (draw, server) = (draw.clone(), server.clone());
        Self { name, clock, link, ground, draw, server, over: Arc::default() }
    }

    /// Waits on the clock of this process.
    pub async fn sleep(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now().plus(span)).await;
    }

    /// Its clients begin nothing more.
    pub fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether its clients are to begin nothing more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}
