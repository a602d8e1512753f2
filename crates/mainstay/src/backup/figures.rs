//! What is told of backups, in Prometheus' words.

use std::path::Path;
use std::sync::atomic::AtomicU64;

use mainstay_coord::{BootClock, Timer as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::schedule;

/// How old the newest backup is, and how many were not taken.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    age: Gauge<f64, AtomicU64>,
    failures: Counter,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("backup");
        let age =
            "How old the newest backup in the folder of this node is; NaN where there is none";
        own.register_with_unit("age", age, Unit::Seconds, self.age.clone());
        own.register("failures", "Backups that were due and not taken", self.failures.clone());
    }

    /// Looks how old the newest backup in `folder` is.
    pub fn look(&self, folder: &Path) {
        let now = BootClock.unix_millis() / 1_000;
        let age = schedule::newest(folder).map(|at| now.saturating_sub(at));
        #[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
        self.age.set(age.map_or(f64::NAN, |age| age as f64));
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}
