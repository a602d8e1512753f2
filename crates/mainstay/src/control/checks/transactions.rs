//! Checks of global transactions, as this node coordinates them.

use std::time::Duration;

use mainstay_txn::resource::LogStanding;
use mainstay_txn::run::Glance;
use mainstay_txn::{Moment, State};

use super::{checked, named};
use crate::check::{Checked, State as Verdict};
use crate::cluster::Cluster;
use crate::transaction::Transactions;
use crate::transaction::databases::Shown;

const CATEGORY: &str = "transactions";

/// How long a decision may take to reach everybody before that is worth a word.
const IN_DOUBT: Duration = Duration::from_secs(30);

/// Names that are looked for; there may be very many.
const SEEN_MAX: usize = 100;

/// All of them.
pub(super) fn all(cluster: &Cluster) -> [Checked; 3] {
    let Some(transactions) = &cluster.transactions else {
        let skip = |id| {
            let summary = "this node coordinates no transactions".to_owned();
            checked(id, CATEGORY, Verdict::Skip, summary, None, None)
        };
        return ["transactions-in-doubt", "heuristic-outcomes", "rm-reachable"].map(skip);
    };
    let now = Moment::from_unix_millis(cluster.unix_millis());
    [
        live(
            transactions,
            "transactions-in-doubt",
            "decided for over 30 s and not at their end",
            |glance| {
                let is_decided = matches!(glance.state, State::Committing | State::Aborting);
                is_decided && glance.decided_at.is_some_and(|at| IN_DOUBT <= now.since(at))
            },
        ),
        live(
            transactions,
            "heuristic-outcomes",
            "mixed: something ended against the decision",
            |glance| glance.state == State::Mixed,
        ),
        reachable(&transactions.databases().all()),
    ]
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
    let found = coordinator.glances(None, is_bad, SEEN_MAX);
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
