//! Checks of global transactions, as this node coordinates them.

use std::time::Duration;

use mainstay_txn::resource::LogStanding;
use mainstay_txn::run::{Glance, Glances};
use mainstay_txn::{Mode, Moment, State};

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
            |glance| is_in_doubt(glance, now),
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
