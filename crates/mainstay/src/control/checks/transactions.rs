//! Checks of global transactions, as this node coordinates them.

use std::time::Duration;

use futures_util::future::join_all;
use mainstay_txn::ResourceName;
use mainstay_txn::receipt::Verdict as Said;
use mainstay_txn::resource::{Judged, LogStanding, Sighting};
use mainstay_txn::run::{Glance, Glances};
use mainstay_txn::{Mode, Moment, State};

use super::{checked, named};
use crate::check::{Checked, State as Verdict};
use crate::cluster::Cluster;
use crate::transaction::Transactions;
use crate::transaction::databases::{Databases, Shown};

const CATEGORY: &str = "transactions";

/// How long a decision may take to reach everybody before that is worth a word.
const IN_DOUBT: Duration = Duration::from_secs(30);

/// How long a branch of somebody else may stay prepared before that is worth a word.
const STRANGE: Duration = Duration::from_hours(1);

/// How long a database may take to list what it holds prepared.
const LOOK: Duration = Duration::from_secs(2);

/// Names that are looked for; there may be very many.
const SEEN_MAX: usize = 100;

/// All of them.
pub(super) async fn all(cluster: &Cluster) -> [Checked; 4] {
    let Some(transactions) = &cluster.transactions else {
        let skip = |id| {
            let summary = "this node coordinates no transactions".to_owned();
            checked(id, CATEGORY, Verdict::Skip, summary, None, None)
        };
        let ids =
            ["transactions-in-doubt", "heuristic-outcomes", "rm-reachable", "prepared-orphans"];
        return ids.map(skip);
    };
    let now = Moment::from_unix_millis(cluster.unix_millis());
    [
        live(
            transactions,
            "transactions-in-doubt",
            "decided for over 30 s and not at their end",
            |glance| is_in_doubt(glance, now),
        ),
        live(
            transactions,
            "heuristic-outcomes",
            "mixed: something ended against the decision",
            |glance| glance.state == State::Mixed,
        ),
        reachable(&transactions.databases().all()),
        orphans(&prepared(transactions.databases()).await),
    ]
}

/// What databases hold prepared, and what would be made of it; `None` of one that does not say.
async fn prepared(databases: &Databases) -> Vec<(ResourceName, Option<Vec<Sighting>>)> {
    let look = async |name: ResourceName| {
        let found = tokio::time::timeout(LOOK, databases.sweep(&name, true)).await;
        (name, found.ok().flatten().and_then(Result::ok))
    };
    join_all(databases.all().into_iter().map(|shown| look(shown.settings.name))).await
}

/// Whether databases hold prepared what nobody ends: branches of ours that the log knows nothing
/// of, which the next sweep ends unless something is in its way, and old ones of others.
fn orphans(all: &[(ResourceName, Option<Vec<Sighting>>)]) -> Checked {
    let id = "prepared-orphans";
    if all.is_empty() {
        let summary = "no database takes part".to_owned();
        return checked(id, CATEGORY, Verdict::Skip, summary, None, None);
    }
    let is_left = |seen: &&Sighting| match &seen.judged {
        Judged::Foreign => STRANGE <= seen.seen_for,
        Judged::Verdict(said, _) => *said == Said::Orphan,
        Judged::Elsewhere | Judged::Unknown(_) => false,
    };
    let of = |(name, found): &(ResourceName, Option<Vec<Sighting>>)| -> Vec<String> {
        let left = found.iter().flatten().filter(is_left);
        left.map(|seen| format!("{name}: {}", seen.prepared.name)).collect()
    };
    let left: Vec<String> = all.iter().flat_map(of).collect();
    let silent = all.iter().find(|(_, found)| found.is_none()).map(|(name, _)| name);
    let holders = all.iter().find(|one| !of(one).is_empty()).map(|(name, _)| name);
    let summary = format!("{} prepared branches are nobody's", left.len());
    match (holders, silent) {
        (Some(name), _) => {
            let next = format!("mainstay transaction prepared {name}");
            checked(id, CATEGORY, Verdict::Warn, summary, Some(named(&left)), Some(&next))
        }
        (None, Some(name)) => {
            let summary = format!("database {name} does not say what it holds prepared");
            let next = format!("mainstay transaction resource check {name}");
            checked(id, CATEGORY, Verdict::Unknown, summary, None, Some(&next))
        }
        (None, None) => checked(id, CATEGORY, Verdict::Pass, summary, None, None),
    }
}

/// Whether branches may still hold what was decided long ago. Only what prepares holds anything:
/// steps of sagas and messages are done or to be done, however long they take.
fn is_in_doubt(glance: &Glance, now: Moment) -> bool {
    let prepares = matches!(glance.begin.mode, Mode::Xa | Mode::Tcc);
    let is_decided = matches!(glance.state, State::Committing | State::Aborting);
    prepares && is_decided && glance.decided_at.is_some_and(|at| IN_DOUBT <= now.since(at))
}

/// Whether live transactions are as `is_bad` says.
fn live(
    transactions: &Transactions,
    id: &str,
    what: &str,
    is_bad: impl Fn(&Glance) -> bool,
) -> Checked {
    let Some(coordinator) = transactions.coordinator() else {
        let summary = "the coordinator has not started yet".to_owned();
        return checked(id, CATEGORY, Verdict::Unknown, summary, None, None);
    };
    judged(id, what, &coordinator.glances(None, is_bad, SEEN_MAX))
}

/// What it means that `found` are bad.
fn judged(id: &str, what: &str, found: &Glances) -> Checked {
    if found.partial && found.items.is_empty() {
        let summary = "transactions were taken over and are not all read yet".to_owned();
        return checked(id, CATEGORY, Verdict::Unknown, summary, None, None);
    }
    let names: Vec<String> = found.items.iter().map(|one| one.begin.gid.to_string()).collect();
    let more = if found.more { "more than " } else { "" };
    let summary = format!("{more}{} transactions are {what}", names.len());
    match names.first() {
        None => checked(id, CATEGORY, Verdict::Pass, summary, None, None),
        Some(first) => {
            let next = format!("mainstay transaction show {first}");
            checked(id, CATEGORY, Verdict::Warn, summary, Some(named(&names)), Some(&next))
        }
    }
}

/// Whether databases that take part answer, can, and have no objection to the log.
fn reachable(all: &[Shown]) -> Checked {
    let id = "rm-reachable";
    let is_well = |shown: &&Shown| {
        let can = shown.checked.as_ref().is_some_and(|c| c.found.as_ref().is_ok_and(Vec::is_empty));
        can && shown.log == Some(LogStanding::UpToDate)
    };
    let ill: Vec<String> = all
        .iter()
        .filter(|shown| !is_well(shown))
        .map(|shown| shown.settings.name.to_string())
        .collect();
    if all.is_empty() {
        let summary = "no database takes part".to_owned();
        return checked(id, CATEGORY, Verdict::Skip, summary, None, None);
    }
    let summary = format!("{} of {} databases can take part", all.len() - ill.len(), all.len());
    if ill.is_empty() {
        return checked(id, CATEGORY, Verdict::Pass, summary, None, None);
    }
    let next = Some("mainstay transaction resources");
    checked(id, CATEGORY, Verdict::Fail, summary, Some(named(&ill)), next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay_txn::database::Listed;
    use mainstay_txn::resource::Prepared;
    use mainstay_txn::{Begin, Gid};

    use super::*;

    const DECIDED: Moment = Moment::from_unix_millis(1_000);

    fn glance(mode: Mode, state: State) -> Glance {
        Glance {
            begin: Arc::new(Begin::new(Gid::new("order-1").unwrap(), mode)),
            created_at: DECIDED,
            decided_at: (!state.is_undecided()).then_some(DECIDED),
            state,
            stuck: true,
            resources: Vec::new(),
        }
    }

    #[test]
    fn only_what_prepares_can_be_in_doubt() {
        let late = DECIDED.plus(IN_DOUBT);
        for (mode, state, want) in [
            (Mode::Xa, State::Committing, true),
            (Mode::Tcc, State::Aborting, true),
            (Mode::Xa, State::Active, false),
            (Mode::Tcc, State::Mixed, false),
            (Mode::Saga, State::Committing, false),
            (Mode::Saga, State::Aborting, false),
            (Mode::Message, State::Committing, false),
        ] {
            let one = glance(mode, state);
            assert_eq!(is_in_doubt(&one, late), want, "{mode} {state}");
            assert!(!is_in_doubt(&one, DECIDED), "{mode} {state} was decided just now");
        }
    }

    #[test]
    fn what_nobody_ends_is_told_by_its_database() {
        let seen = |judged: Judged, hours: u64| Sighting {
            prepared: Prepared {
                listed: Listed::Foreign,
                name: "other:7".to_owned(),
                age: None,
                owner: None,
            },
            seen_for: Duration::from_hours(hours),
            judged,
        };
        let check = |found: Option<Vec<Sighting>>| {
            let fine = (ResourceName::new("orders").unwrap(), Some(Vec::new()));
            let checked = orphans(&[fine, (ResourceName::new("stock").unwrap(), found)]);
            (checked.state, checked.next)
        };
        let warns = (Verdict::Warn, Some("mainstay transaction prepared stock".to_owned()));
        assert_eq!(check(Some(vec![seen(Judged::Foreign, 1)])), warns);
        assert_eq!(check(Some(vec![seen(Judged::Verdict(Said::Orphan, None), 0)])), warns);
        for fine in [
            seen(Judged::Foreign, 0),
            seen(Judged::Verdict(Said::Commit, None), 9),
            seen(Judged::Elsewhere, 9),
        ] {
            assert_eq!(check(Some(vec![fine])), (Verdict::Pass, None));
        }
        assert_eq!(check(None).0, Verdict::Unknown);
        assert_eq!(orphans(&[]).state, Verdict::Skip);
    }

    #[test]
    fn nothing_found_by_half_a_look_says_nothing() {
        let check = |found: &[Glance], partial: bool| {
            let found = Glances { items: found.to_vec(), more: false, partial };
            judged("transactions-in-doubt", "late", &found).state
        };
        let late = [glance(Mode::Xa, State::Committing)];
        assert_eq!(check(&[], false), Verdict::Pass);
        assert_eq!(check(&[], true), Verdict::Unknown);
        assert_eq!(check(&late, true), Verdict::Warn);
        assert_eq!(check(&late, false), Verdict::Warn);
    }
}
