//! Checks of agreed state: the store, and what the registry knows.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_coord::keys;
use mainstay_coord::registry::{Listed, RegistryError, View};
use mainstay_core::Clock as _;
use mainstay_store::{Get, Revision, State, Status};

use super::{checked, named};
use crate::check::{Checked, State as Verdict};
use crate::cluster::Cluster;
use crate::cluster::opening::Opened;
use crate::cluster::probe::Probed;

/// For each check.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a write may take before it is slow, and before it is as good as none.
const SLOW: Duration = Duration::from_millis(100);
const TOO_SLOW: Duration = Duration::from_secs(1);

/// How far the copies of a node may lag behind the store before that is worth a word: what was
/// written is in force everywhere within a second.
const LAGS: Duration = Duration::from_secs(1);

/// All of them; `keyring` is where the keys of this node lie.
pub(super) async fn all(cluster: &Cluster, keyring: PathBuf) -> Vec<Checked> {
    let status = tokio::time::timeout(TIMEOUT, cluster.store.status());
    let (status, quorum, probed, lag, mode) = tokio::join!(
        status,
        quorum(cluster),
        cluster.probe.ask(&*cluster.store, &cluster.node, TIMEOUT),
        watch_lag(cluster),
        keyring_mode(keyring)
    );
    let after = tokio::time::timeout(TIMEOUT, cluster.store.status()).await;
    let after = after.ok().and_then(Result::ok).map(|status| status.revision);
    let status = match status {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("no answer within 2 s".to_owned()),
    };
    let known = status.as_ref().ok();
    let size = size(known, cluster.bytes_max());
    let compaction = compaction(known, cluster.revisions_max());
    let moving = moving(&probed, after);
    let writable = writable(probed);
    let mut all = vec![reachable(&status), size, compaction, quorum, writable, moving, lag, mode];
    all.push(audit_outbox(cluster));
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

/// Whether history is let go of. One compaction may come late; two that did not come are a fault.
fn compaction(status: Option<&Status>, revisions_max: Option<u64>) -> Checked {
    let (id, category) = ("store-compaction", "store");
    let (Some(status), Some(most)) = (status, revisions_max) else {
        let summary = "etcd keeps the history, or the store does not answer".to_owned();
        return checked(id, category, Verdict::Skip, summary, None, None);
    };
    let held = status.revision.get().saturating_sub(status.compacted.get());
    let verdict = if held <= most.saturating_mul(2) { Verdict::Pass } else { Verdict::Warn };
    let summary = format!("{held} revisions of history are kept");
    let evidence = Some(format!("`store.revisions_max` is {most}"));
    let next = (verdict != Verdict::Pass).then_some("mainstay store compact REVISION");
    checked(id, category, verdict, summary, evidence, next)
}

/// Whether most members of etcd answer: a read that must be of now needs them.
async fn quorum(cluster: &Cluster) -> Checked {
    let (id, category) = ("store-quorum", "store");
    if matches!(cluster.opened, Opened::Embedded(_)) {
        let summary = "the store of one node has no members".to_owned();
        return checked(id, category, Verdict::Skip, summary, None, None);
    }
    let began = MonotonicClock.now();
    let get = Get::new(keys::probe());
    let read = tokio::time::timeout(TIMEOUT, cluster.store.get(get)).await;
    let took = MonotonicClock.now().since(began).as_millis();
    let (verdict, summary) = match read {
        Ok(Ok(_)) => (Verdict::Pass, format!("most members of etcd answered within {took} ms")),
        Ok(Err(error)) => (Verdict::Fail, format!("most members of etcd do not answer: {error}")),
        Err(_elapsed) => {
            (Verdict::Fail, "most members of etcd do not answer within 2 s".to_owned())
        }
    };
    let next = (verdict != Verdict::Pass).then_some("mainstay store status");
    checked(id, category, verdict, summary, None, next)
}

/// How long a write takes.
fn writable(probed: Probed) -> Checked {
    let (verdict, summary) = match probed.wrote {
        Err(why) => (Verdict::Fail, why),
        Ok((took, _)) => {
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

/// Whether the store stands where it has been written to: `after` is its revision, read after the
/// write. One that went back, or is another one by now, has lost what clients were promised.
fn moving(probed: &Probed, after: Option<Revision>) -> Checked {
    let (verdict, summary) = match (&probed.wrote, after) {
        (Ok((_, made)), Some(after)) if after < *made => {
            (Verdict::Fail, format!("it is at revision {after}, and a write had made {made}"))
        }
        (Ok((_, made)), Some(_)) => {
            (Verdict::Pass, format!("a write made revision {made}, and it is there"))
        }
        (Err(_), _) => (Verdict::Unknown, "nothing could be written".to_owned()),
        (_, None) => (Verdict::Unknown, "the store does not say where it is".to_owned()),
    };
    let next = (verdict != Verdict::Pass).then_some("mainstay store status");
    checked("store-revision-moving", "store", verdict, summary, None, next)
}

/// How far the registry of this node lags behind the store.
async fn watch_lag(cluster: &Cluster) -> Checked {
    let next = "mainstay store status";
    let (verdict, summary) = match tokio::time::timeout(TIMEOUT, cluster.registry.lag()).await {
        Ok(Ok(lag)) => {
            let verdict = if lag < LAGS { Verdict::Pass } else { Verdict::Warn };
            (verdict, format!("this node had all that the store has after {} ms", lag.as_millis()))
        }
        Ok(Err(RegistryError::Loading)) => {
            (Verdict::Unknown, "the registry has not been read yet".to_owned())
        }
        Ok(Err(error)) => (Verdict::Unknown, format!("the store does not say: {error}")),
        Err(_elapsed) => {
            (Verdict::Fail, "this node lags behind the store by more than 2 s".to_owned())
        }
    };
    let next = (verdict != Verdict::Pass).then_some(next);
    checked("watch-lag", "registry", verdict, summary, None, next)
}

/// Whether others can read the keys that seal secrets.
async fn keyring_mode(path: PathBuf) -> Checked {
    let shown = path.display().to_string();
    let found = tokio::fs::metadata(path).await;
    let own = rustix::process::geteuid().as_raw();
    let (verdict, summary, next) = match &found {
        Err(error) => {
            let summary = format!("the keyring on disk cannot be looked at: {error}");
            (Verdict::Warn, summary, Some("mainstay explain keyring-unreadable".to_owned()))
        }
        Ok(found) if found.mode() & 0o077 != 0 => {
            let mode = found.mode() & 0o777;
            let summary = format!("the keyring has mode {mode:04o}: others can read it");
            (Verdict::Fail, summary, Some(format!("chmod 0600 {shown}")))
        }
        Ok(found) if found.uid() != own => {
            let owner = found.uid();
            let summary = format!("the keyring belongs to user {owner}, not {own}, who runs this");
            (Verdict::Fail, summary, Some(format!("chown {own} {shown}")))
        }
        Ok(_) => (Verdict::Pass, "nobody else can read the keyring".to_owned(), None),
    };
    checked("keyring-mode", "security", verdict, summary, None, next.as_deref())
}

/// Whether audit records reach the log: below a tenth of what may wait they do.
fn audit_outbox(cluster: &Cluster) -> Checked {
    let (found, limits) = (cluster.outbox.tally(), cluster.audit.config().limits());
    let is_above = |part: u64| {
        limits.records_max / part <= found.records || limits.bytes_max / part <= found.bytes
    };
    let waits = format!("{} audit records wait for the log", found.records);
    let (verdict, summary) = if limits.is_required && found.is_overrun(limits) {
        (Verdict::Fail, format!("{waits}: administrative changes are refused"))
    } else if is_above(1) {
        (Verdict::Fail, format!("{waits}: the oldest are lost"))
    } else if is_above(10) {
        (Verdict::Warn, waits)
    } else if limits.is_required {
        (Verdict::Pass, waits)
    } else {
        let summary = "`security.audit.required` is false: records may be lost".to_owned();
        (Verdict::Warn, summary)
    };
    let evidence = format!("{} of {} bytes", found.bytes, limits.bytes_max);
    let next = (verdict != Verdict::Pass).then_some("mainstay explain check-audit-outbox");
    checked("audit-outbox", "security", verdict, summary, Some(evidence), next)
}

/// Which services are protected, which have nobody who is healthy, and which lose instances.
fn registry(cluster: &Cluster) -> [Checked; 3] {
    let (protected, without, expiring) =
        ("protection-active", "services-without-health", "instances-expiring");
    let Ok(services) = cluster.registry.services() else {
        return [protected, without, expiring].map(|id| {
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
    let expires = wanted(&|view| view.instances.iter().any(|listed| listed.instance.is_late));
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
        check(expiring, &expires, "have instances that no longer beat and will be removed"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_went_back_is_found_out() {
        let at = MonotonicClock.now();
        let check = |wrote: Result<u64, &str>, after: Option<u64>| {
            let wrote = wrote.map(|made| (Duration::ZERO, Revision::new(made)));
            let probed = Probed { wrote: wrote.map_err(str::to_owned), at };
            moving(&probed, after.map(Revision::new)).state
        };
        assert_eq!(check(Ok(7), Some(7)), Verdict::Pass);
        assert_eq!(check(Ok(7), Some(9)), Verdict::Pass, "others write too");
        assert_eq!(check(Ok(7), Some(6)), Verdict::Fail);
        assert_eq!(check(Ok(7), None), Verdict::Unknown);
        assert_eq!(check(Err("full"), Some(6)), Verdict::Unknown);
    }
}
