//! Locks and atomics; under `--cfg mainstay_loom` those of loom, which tries every order of the
//! threads. (The name `loom` would reach tokio too, which then has no sockets.)

#[cfg(not(mainstay_loom))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(mainstay_loom)]
pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(mainstay_loom))]
pub(super) use parking_lot::Mutex;

#[cfg(mainstay_loom)]
pub(super) use self::modelled::Mutex;

/// Shards of what is counted beside a circuit: threads beyond that many share them. Two under
/// loom, which has as many threads to order.
pub(super) const SHARDS: usize = if cfg!(mainstay_loom) { 2 } else { 4 };

/// The shard of this thread. Threads get theirs in turn, so that no two share one while there are
/// no more threads than shards.
#[cfg(not(mainstay_loom))]
#[inline]
pub(super) fn shard() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

#[cfg(mainstay_loom)]
pub(super) fn shard() -> usize {
    use loom::sync::atomic::AtomicUsize;

    loom::lazy_static! {
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }
    loom::thread_local! {
        static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    SHARD.with(|shard| *shard)
}

#[cfg(mainstay_loom)]
mod modelled {
    use loom::sync::MutexGuard;

    /// loom's mutex with the face of parking_lot's.
    #[derive(Debug)]
    pub(in crate::circuit) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::circuit) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(in crate::circuit) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model ends with the first panic")
        }
    }
}
