//! Locks and atomics; under `--cfg mainstay_loom` those of loom, which tries every order of the
//! threads. (The name `loom` would reach tokio too, which then has no sockets.)

#[cfg(not(mainstay_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(mainstay_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(mainstay_loom))]
pub(crate) use parking_lot::Mutex;

#[cfg(not(mainstay_loom))]
pub(crate) use arc_swap::ArcSwap;

#[cfg(mainstay_loom)]
pub(crate) use self::modelled::{ArcSwap, Mutex};

/// Shards of what is counted beside a circuit: threads beyond that many share them. Two under
/// loom, which has as many threads to order.
pub(crate) const SHARDS: usize = if cfg!(mainstay_loom) { 2 } else { 4 };

/// The shard of this thread. Threads get theirs in turn, so that no two share one while there are
/// no more threads than shards.
#[cfg(not(mainstay_loom))]
#[inline]
pub(crate) fn shard() -> usize {
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
pub(crate) fn shard() -> usize {
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
    use std::sync::Arc;

    use loom::sync::MutexGuard;

    /// loom's mutex with the face of parking_lot's.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model ends with the first panic")
        }
    }

    /// What can be swapped, with as much of arc-swap's face as is used: loom does not know what
    /// that crate's own atomics order.
    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load(&self) -> Arc<T> {
            Arc::clone(&self.0.lock())
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            self.load()
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            *self.0.lock() = value;
        }
    }
}
