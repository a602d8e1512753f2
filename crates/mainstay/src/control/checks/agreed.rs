//! Checks of agreed state: the store, and what the registry knows.

use std::sync::Arc;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_coord::keys;
use mainstay_coord::registry::{Listed, View};
use mainstay_core::Clock as _;
use mainstay_store::{Batch, Error, Put, State, Status};

use super::{checked, named};
use crate::check::{Checked, State as Verdict};
use crate::cluster::Cluster;

/// For each check.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a write may take before it is slow, and before it is as good as none.
const SLOW: Duration = Duration::from_millis(100);
const TOO_SLOW: Duration = Duration::from_secs(1);

/// All of them.
pub(super) async fn all(cluster: &Cluster) -> Vec<Checked> {
    let status = tokio::time::timeout(TIMEOUT, cluster.store.status());
    let (status, writable) = tokio::join!(status, writable(cluster));
    let status = match status {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("no answer within 2 s".to_owned()),
    };
    let size = size(status.as_ref().ok(), cluster.bytes_max());
    let mut all = vec![reachable(&status), size, writable];
    all.extend(registry(cluster));
    all
}

fn reachable(status: &Result<Status, String>) -> Checked {
    let next = "mainstay store status";
    let (verdict, summary) = match status {
        Err(why) => (Verdict::Fail, format!("the store does not answer: {why}")),
        Ok(status) => match status.state {
            State::Ready => (Verdict::Pass, format!("at revision {}", status.revision)),
            State::Full => (Verdict::Fail, "the store takes no puts: it is full".to_owned()),
            State::Failed => (Verdict::Fail, "a write to the disk failed: restart".to_owned()),
            State::Away => (Verdict::Fail, "the store could not be reached lately".to_owned()),
            State::Regressed => (Verdict::Fail, "another history answers".to_owned()),
            State::Closed => (Verdict::Fail, "the store is closed".to_owned()),
        },
    };
    let next = (verdict != Verdict::Pass).then_some(next);
    checked("store-reachable", "store", verdict, summary, None, next)
}

fn size(status: Option<&Status>, bytes_max: Option<u64>) -> Checked {
    let (Some(status), Some(most)) = (status, bytes_max) else {
        let summary = "the store sets its own limit, or does not answer".to_owned();
        return checked("store-size", "store", Verdict::Skip, summary, None, None);
    };
    let percent = status.bytes.saturating_mul(100) / most.max(1);
    let verdict = match percent {
        95.. => Verdict::Fail,
        80.. => Verdict::Warn,
        _ => Verdict::Pass,
    };
    let summary = format!("{percent} % of `store.embedded.bytes_max` are used");
    let evidence = Some(format!("{} of {most} bytes", status.bytes));
    let next = (verdict != Verdict::Pass).then_some("mainstay store compact REVISION");
    checked("store-size", "store", verdict, summary, evidence, next)
}

/// Writes one key that is there for this alone.
async fn writable(cluster: &Cluster) -> Checked {
    let began = MonotonicClock.now();
    let put = Put::new(keys::probe(), cluster.node.as_str().to_owned());
    let wrote = tokio::time::timeout(TIMEOUT, cluster.store.apply(Batch::new().then(put))).await;
    let took = MonotonicClock.now().since(began);
    let (verdict, summary) = match wrote {
        Err(_elapsed) => (Verdict::Fail, "a write is not done within 2 s".to_owned()),
        Ok(Err(Error::OutcomeUnknown)) => {
            (Verdict::Fail, "nobody knows what became of a write".to_owned())
        }
        Ok(Err(error)) => (Verdict::Fail, format!("a write is refused: {error}")),
        Ok(Ok(_)) => {
            let verdict = match took {
                took if TOO_SLOW <= took => Verdict::Fail,
                took if SLOW <= took => Verdict::Warn,
                _ => Verdict::Pass,
            };
            (verdict, format!("a write takes {} ms", took.as_millis()))
        }
    };
    let next = (verdict != Verdict::Pass).then_some("mainstay store status");
    checked("store-writable", "store", verdict, summary, None, next)
}

/// Which services are protected, and which have nobody who is healthy.
fn registry(cluster: &Cluster) -> [Checked; 2] {
    let (protected, without) = ("protection-active", "services-without-health");
    let Ok(services) = cluster.registry.services() else {
        return [protected, without].map(|id| {
            let summary = "the registry has not been read yet".to_owned();
            checked(id, "registry", Verdict::Unknown, summary, None, None)
        });
    };
    let views: Vec<(String, Arc<View>)> = services
        .into_iter()
        .filter_map(|(service, _)| {
            Some((service.to_string(), cluster.registry.view(&service).ok()?))
        })
        .collect();
    let wanted = |is_it: &dyn Fn(&View) -> bool| -> Vec<String> {
        views.iter().filter(|(_, view)| is_it(view)).map(|(name, _)| name.clone()).collect()
    };
    let protects = wanted(&|view| view.protected.is_some());
    let nobody = wanted(&|view| {
        !view.instances.is_empty() && !view.instances.iter().any(Listed::is_healthy)
    });
    let check = |id, found: &[String], words: &str| {
        let summary = format!("{} of {} services {words}", found.len(), views.len());
        let verdict = if found.is_empty() { Verdict::Pass } else { Verdict::Warn };
        let evidence = (!found.is_empty()).then(|| named(found));
        let next = (!found.is_empty()).then_some("mainstay service list");
        checked(id, "registry", verdict, summary, evidence, next)
    };
    [
        check(protected, &protects, "are protected: too many of their instances are not healthy"),
        check(without, &nobody, "have instances, and none that is healthy"),
    ]
}
