//! Moments at which a test ends this process, as `kill -9` does, and what else a test has happen to
//! it: an answer that is lost, a mistake that it makes.
//!
//! They are there with the feature `crash-points` alone, which only tests turn on; without it
//! nothing of this is compiled. A test names a file in the environment as `CRASH_POINTS_FILE` when
//! it starts the process, and writes the name of a point there when it wants it to end, and behind a
//! space of which transaction; batches are of none. The point that is passed next and bears that
//! name removes the file, so that who is started again lives, and dies.
//!
//! | point | the moment |
//! |---|---|
//! | `begin-taken` | a begin has arrived, nothing is written |
//! | `begin-kept` | it is written as far as its answer wants, which is not given |
//! | `branch-kept` | the same for a branch that joins |
//! | `commit-taken`, `abort-taken` | it is decided so, nothing is written |
//! | `commit-kept`, `abort-kept` | the decision is durable, nobody has heard |
//! | `lazy-waits` | what nobody waits for is about to be written |
//! | `batch-applied` | a batch is applied, its answer lost |
//! | `vote-taken` | one branch has answered whether it is prepared |
//! | `action-answered` | a step is done, which is not noted |
//! | `step-undone` | a step is compensated, and so noted |
//! | `branch-ended` | a branch has ended as decided, which is not noted |
//! | `branch-told` | the same, and noted |
//! | `all-told` | every branch has ended, hooks have not run |
//! | `end-sent` | that it is over is about to be written |
//!
//! At `answer-lost` it lives on: a batch is applied, and it does not hear so. And while the file that
//! `CRASH_CLOCK_FILE` names holds a number, a coordinator that starts takes the time on the wall for so
//! many seconds later than it is. (Nobody asks for that time but one that starts.)

#[cfg(feature = "crash-points")]
mod points {
    use std::path::Path;
    use std::sync::{Arc, OnceLock};

    use rustix::process::{Signal, getpid, kill_process};

    use crate::moment::Moment;
    use crate::name::Gid;
    use crate::port::Surroundings;

    /// Ends the process if a test wants it to end here, in what it does for `gid`.
    pub(crate) fn point(name: &str, gid: &Gid) {
        batch(&format!("{name} {gid}"));
    }

    /// The same in what it does for all.
    pub(crate) fn batch(name: &str) {
        if happens(name) {
            kill_process(getpid(), Signal::KILL).ok();
            loop {
                std::thread::park(); // Nothing more happens here.
            }
        }
    }

    /// Whether a test wants `name` to happen, once.
    pub(crate) fn happens(name: &str) -> bool {
        is_wrong(name) && file().is_some_and(|file| std::fs::remove_file(file).is_ok())
    }

    /// Whether a test wants the mistake `name`.
    pub(crate) fn is_wrong(name: &str) -> bool {
        let wanted = file().map(std::fs::read_to_string);
        matches!(wanted, Some(Ok(wanted)) if wanted == name)
    }

    /// What a coordinator goes by that starts, as wrong as a test wants it.
    pub(crate) fn clock(surroundings: Arc<dyn Surroundings>) -> Arc<dyn Surroundings> {
        let file = std::env::var_os("CRASH_CLOCK_FILE");
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        match text.and_then(|text| text.parse().ok()) {
            Some(seconds) => Arc::new(WrongClock { surroundings, seconds }),
            None => surroundings,
        }
    }

    struct WrongClock {
        surroundings: Arc<dyn Surroundings>,
        seconds: i64,
    }

    impl Surroundings for WrongClock {
        fn now(&self) -> Moment {
            let now = self.surroundings.now().unix_millis();
            Moment::from_unix_millis(now.saturating_add_signed(self.seconds * 1_000))
        }

        fn draw(&self) -> u32 {
            self.surroundings.draw()
        }
    }

    fn file() -> Option<&'static Path> {
        static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os("CRASH_POINTS_FILE"));
        file.as_deref().map(Path::new)
    }
}

#[cfg(feature = "crash-points")]
pub(crate) use points::{batch, clock, happens, is_wrong, point};

/// Nothing, in whatever is not a test.
#[cfg(not(feature = "crash-points"))]
pub(crate) const fn point(_name: &str, _gid: &crate::name::Gid) {}

/// Nothing, in whatever is not a test.
#[cfg(not(feature = "crash-points"))]
pub(crate) const fn batch(_name: &str) {}

/// Nothing happens, in whatever is not a test.
#[cfg(not(feature = "crash-points"))]
pub(crate) const fn happens(_name: &str) -> bool {
    false
}

/// The clock as it is, in whatever is not a test.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn clock(
    surroundings: std::sync::Arc<dyn crate::port::Surroundings>,
) -> std::sync::Arc<dyn crate::port::Surroundings> {
    surroundings
}

/// Nobody wants a mistake, in whatever is not a test.
#[cfg(not(feature = "crash-points"))]
pub(crate) const fn is_wrong(_name: &str) -> bool {
    false
}
