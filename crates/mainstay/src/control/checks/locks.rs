//! Checks of locks and semaphores, as the store has them. Those who stand for election wait for as
//! long as they live, so they are not looked at.

use std::time::Duration;

use mainstay_coord::lock::LockError;
use mainstay_coord::{Area, Place};
use mainstay_store::LeaseStatus;

use super::{checked, named};
use crate::check::{Checked, State as Verdict};
use crate::cluster::Cluster;

const CATEGORY: &str = "locks";

/// For both.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Places that are looked at in an area; there may be very many.
const SEEN_MAX: usize = 100;

/// Who waits for longer is worth a word.
const LONG: Duration = Duration::from_mins(1);

/// A lock or semaphore that is held.
struct Seen {
    place: Place,
    /// Sessions of its holders, but for those that it is bound to a transaction by.
    leases: Vec<LeaseStatus>,
    /// How long whoever waits longest has done so.
    waits: Duration,
}

/// Both of them.
pub(super) async fn all(cluster: &Cluster) -> [Checked; 2] {
    let mut seen = Vec::new();
    let why = match tokio::time::timeout(TIMEOUT, look(cluster, &mut seen)).await {
        Ok(Ok(more)) => return [short(&seen, more), long(&seen, more)],
        // Where there are many, those that were seen in time have to do.
        Err(_elapsed) if !seen.is_empty() => return [short(&seen, true), long(&seen, true)],
        Ok(Err(error)) => format!("locks could not be looked at: {error}"),
        Err(_elapsed) => "locks could not be looked at within 2 s".to_owned(),
    };
    ["lock-lease-short", "lock-waiters-long"]
        .map(|id| checked(id, CATEGORY, Verdict::Unknown, why.clone(), None, None))
}

/// Looks at the first of them; returns whether there are more.
async fn look(cluster: &Cluster, all: &mut Vec<Seen>) -> Result<bool, LockError> {
    let locks = cluster.coordination.locks();
    let now = cluster.unix_millis();
    let mut more = false;
    for area in [Area::Lock, Area::Semaphore] {
        let page = locks.list_all(area).await?;
        more |= page.more || SEEN_MAX < page.places.len();
        for place in page.places.into_iter().take(SEEN_MAX) {
            let line = locks.status(&place).await?.line;
            let mut leases = Vec::new();
            for holder in line.holders().iter().filter(|holder| holder.bound_gid().is_none()) {
                // One that is gone meanwhile holds nothing.
                leases.extend(cluster.store.lease(holder.session()).await.ok());
            }
            let behind = line.waiters().iter().skip(line.holders().len());
            let asked = behind.filter_map(mainstay_coord::lock::line::Waiter::asked_unix_ms).min();
            let waits = asked.map_or(0, |asked| now.saturating_sub(asked));
            all.push(Seen { place, leases, waits: Duration::from_millis(waits) });
        }
    }
    Ok(more)
}

/// Which are held by somebody who does not renew: a holder renews when a third of its ttl is gone,
/// so one that has less than a third left has tried in vain, or not at all.
fn short(all: &[Seen], more: bool) -> Checked {
    let is_short = |lease: &LeaseStatus| lease.remaining < lease.granted / 3;
    let words = "are held by a session that is about to end";
    judged("lock-lease-short", words, all, more, |seen| seen.leases.iter().any(is_short))
}

/// Which somebody waits for in vain.
fn long(all: &[Seen], more: bool) -> Checked {
    let words = "are waited for by somebody for a minute or longer";
    judged("lock-waiters-long", words, all, more, |seen| LONG <= seen.waits)
}

fn judged(
    id: &str,
    words: &str,
    all: &[Seen],
    more: bool,
    is_bad: impl Fn(&Seen) -> bool,
) -> Checked {
    let found: Vec<&Place> = all.iter().filter(|seen| is_bad(seen)).map(|s| &s.place).collect();
    let first = if more { "the first " } else { "" };
    let summary = format!("{} of {first}{} locks and semaphores {words}", found.len(), all.len());
    if found.is_empty() {
        return checked(id, CATEGORY, Verdict::Pass, summary, None, None);
    }
    let names: Vec<_> = found.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
    // Semaphores are shown by the API alone.
    let next = found
        .iter()
        .find(|place| place.area == Area::Lock)
        .map(|place| format!("mainstay lock show {} --namespace {}", place.name, place.namespace));
    checked(id, CATEGORY, Verdict::Warn, summary, Some(named(&names)), next.as_deref())
}

#[cfg(test)]
mod tests {
    use mainstay_coord::name::{LockName, Namespace};

    use super::*;

    fn seen(left: u64, waits: u64) -> Seen {
        let (namespace, name) = (Namespace::new("shop").unwrap(), LockName::new("stock").unwrap());
        let (granted, remaining) = (Duration::from_secs(30), Duration::from_secs(left));
        Seen {
            place: Place { area: Area::Lock, namespace, name },
            leases: vec![LeaseStatus { granted, remaining, keys: Vec::new() }],
            waits: Duration::from_secs(waits),
        }
    }

    #[test]
    fn holders_that_do_not_renew_and_waiters_that_do_not_get_on_are_told() {
        let check = |one: Seen| {
            let all = [seen(30, 0), one];
            [short(&all, false).state, long(&all, false).state]
        };
        assert_eq!(check(seen(10, 59)), [Verdict::Pass, Verdict::Pass]);
        assert_eq!(check(seen(9, 0)), [Verdict::Warn, Verdict::Pass]);
        assert_eq!(check(seen(20, 60)), [Verdict::Pass, Verdict::Warn]);
        let told = long(&[seen(30, 90)], true);
        assert_eq!(told.next.as_deref(), Some("mainstay lock show stock --namespace shop"));
        assert!(told.summary.starts_with("1 of the first 1 locks"), "{}", told.summary);
    }
}
