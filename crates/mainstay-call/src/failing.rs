//! Instances that fail their callers, for whoever takes that to the registry.
//!
//! A caller knows first that an instance does not answer: its outlier rules eject it, or a circuit
//! finds a sub-window of timeouts and nothing else. Calls only leave a word here, which costs a
//! short mutex when such a thing happens and nothing otherwise; who takes the words waits for
//! them, and asks nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_resilience::circuit::{Reason, Scope, Transition};
use mainstay_resilience::outlier::Change;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::circuit::SharedCircuit;
use crate::endpoint::Endpoint;
use crate::observe::Observer;

/// Instances that failed and were not taken yet. One that fails again meanwhile is the same one.
#[derive(Debug, Default)]
pub struct Failing {
    told: Mutex<BTreeMap<(Arc<str>, Arc<str>), String>>,
    news: Notify,
    taken: AtomicU64,
    dropped: AtomicU64,
}

/// An instance that failed its callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Name of its service.
    pub service: Arc<str>,
    /// Its name: its id, where a registry knows it.
    pub instance: Arc<str>,
    /// What was met, in one clause.
    pub why: String,
}

/// Instances that wait to be taken: of about 200 bytes each. Where nobody takes them, they stay.
const WAITING_MAX: usize = 1_024;

impl Failing {
    /// Waits for instances that failed, and takes them. One task does that.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not returned is still there.
    pub async fn next(&self) -> Vec<Failed> {
        loop {
            let told = std::mem::take(&mut *self.told.lock());
            if !told.is_empty() {
                self.taken.fetch_add(told.len() as u64, Ordering::Relaxed);
                let failed = |((service, instance), why)| Failed { service, instance, why };
                return told.into_iter().map(failed).collect();
            }
            self.news.notified().await;
        }
    }

    /// How many were taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn tell(&self, service: &str, instance: &str, why: String) {
        let key = (Arc::from(service), Arc::from(instance));
        let mut told = self.told.lock();
        if told.len() < WAITING_MAX || told.contains_key(&key) {
            told.insert(key, why);
            drop(told);
            self.news.notify_one();
        } else {
            drop(told);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Observer for Failing {
    fn circuit_changed(&self, circuit: &SharedCircuit, transition: &Transition) {
        let is_verdict = transition.is_trip() && transition.cause.reason == Reason::Unavailable;
        if !is_verdict || circuit.scope() != Scope::Instance {
            return;
        }
        if let Some((service, instance)) = circuit.key().subject.split_once('@') {
            let tally = &transition.evidence.tally;
            let why = format!("{} of {} calls timed out", tally.timeouts, tally.calls);
            self.tell(service, instance, why);
        }
    }

    fn ejection(&self, service: &str, endpoint: Option<&Endpoint>, change: &Change) {
        if let (Some(endpoint), Change::Ejected { ejection, .. }) = (endpoint, change) {
            let found = &ejection.evidence;
            let (rule, observed, threshold) =
                (found.rule.as_str(), found.observed, found.threshold);
            let why = format!("ejected by `{rule}`: {observed:.3}, threshold {threshold:.3}");
            self.tell(service, endpoint.name(), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_failed_is_taken_once_with_its_newest_reason() {
        let failing = Failing::default();
        failing.tell("order", "a", "first".to_owned());
        failing.tell("order", "a", "second".to_owned());
        failing.tell("order", "b", "other".to_owned());
        let taken = failing.next().await;
        let shown: Vec<(&str, &str)> =
            taken.iter().map(|failed| (&*failed.instance, &*failed.why)).collect();
        assert_eq!(shown, [("a", "second"), ("b", "other")]);
        let none = tokio::time::timeout(Duration::from_millis(20), failing.next()).await;
        assert!(none.is_err(), "nothing new");
        let later = async { failing.tell("order", "a", "again".to_owned()) };
        let (taken, ()) = tokio::join!(failing.next(), later);
        assert_eq!(taken.len(), 1);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let failing = Failing::default();
        for number in 0..=WAITING_MAX {
            failing.tell("order", &number.to_string(), String::new());
        }
        failing.tell("order", "7", "known".to_owned());
        assert_eq!(failing.dropped(), 1);
    }
}
