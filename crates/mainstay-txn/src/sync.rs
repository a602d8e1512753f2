//! What tasks of a lane share and wait for. With the feature `modelled` it is shuttle's, which plays
//! the orders in which they can meet, drawn by a seed: whatever is locked or told is a moment at which
//! any other task may come first, and time is as long as anybody else takes.

#[cfg(not(feature = "modelled"))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(feature = "modelled"))]
pub(crate) use tokio::sync::Notify;
#[cfg(not(feature = "modelled"))]
pub(crate) use tokio::time::sleep;

#[cfg(feature = "modelled")]
pub(crate) use modelled::{Mutex, Notify, sleep};

#[cfg(feature = "modelled")]
mod modelled {
    use std::time::Duration;

    use shuttle::rand::Rng as _;
    use shuttle::sync::MutexGuard;

    /// shuttle's mutex with the face of parking_lot's.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model ends with the first panic")
        }
    }

    /// tokio's, which keeps nobody but the task that waits: others may come before whoever tells.
    #[derive(Debug)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn new() -> Self {
            Self(tokio::sync::Notify::new())
        }

        pub(crate) fn notify_one(&self) {
            shuttle::thread::yield_now();
            self.0.notify_one();
            shuttle::thread::yield_now();
        }

        pub(crate) async fn notified(&self) {
            self.0.notified().await;
        }
    }

    /// However long it is, others take as many steps meanwhile as is drawn.
    pub(crate) async fn sleep(_span: Duration) {
        for _step in 0..shuttle::rand::thread_rng().gen_range(1..6) {
            shuttle::future::yield_now().await;
        }
    }
}
