//! Lists of transactions.
//!
//! What is live comes first, the newest first; then what has ended, the last to end first. Of both
//! it is known without reading what they are in order; what a filter asks beyond that is read, at
//! most so much for one answer, and the next page goes on from there.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use mainstay_api::transaction::Transactions as Page;
use mainstay_txn::run::{Glance, VerbError};
use mainstay_txn::{Coordinator, Gid, Mode, Moment, Part, Transaction};
use percent_encoding::percent_decode_str;

use super::show::summary;
use super::{moment, of};
use crate::cluster::Cluster;
use crate::control::answer::Refused;

/// Most of a page.
const LIMIT_MAX: usize = 500;

/// Transactions that one answer reads: of ended ones each is two reads of the store.
const READ_MAX: usize = 2_000;

/// Which transactions are listed. Labels are asked for by their names, `label.NAME=VALUE`.
#[derive(Debug, Default, utoipa::IntoParams)]
#[expect(dead_code, reason = "it describes the query, which is read by name")]
pub(crate) struct Wanted {
    /// `active`, `preparing`, `querying`, `committing`, `aborting`, `committed`, `aborted`, `mixed`.
    state: Option<String>,
    /// `xa`, `tcc`, `saga` or `message`.
    mode: Option<String>,
    /// What kind of transaction it is.
    name: Option<String>,
    /// Whether it gets on.
    stuck: Option<bool>,
    /// A database that takes part.
    resource: Option<String>,
    /// A service, `host:port` or whole target that is called.
    target: Option<String>,
    /// Begun at this moment or later, RFC 3339.
    since: Option<String>,
    /// Begun before this moment.
    until: Option<String>,
    /// Most of a page, 1 to 500. Default 100.
    limit: Option<u32>,
    /// Where the page begins: `next` of the one before.
    cursor: Option<String>,
}

/// `GET /transactions`
pub(super) async fn list(
    State(cluster): State<Arc<Cluster>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, Refused> {
    let (_, coordinator) = of(&cluster)?;
    let (filter, mut place, limit) = read(pairs)?;
    let mut page = Page { items: Vec::new(), next: None, partial: false };
    let mut left = READ_MAX;
    loop {
        let (marks, more) = match &place {
            Place::Live(mark) => {
                let most = left.min(LIMIT_MAX);
                let found = coordinator.glances(mark.as_ref(), |glance| filter.might(glance), most);
                page.partial |= found.partial;
                (found.items.iter().map(Glance::mark).collect::<Vec<_>>(), found.more)
            }
            Place::Ended(mark) => {
                let most = left.min(LIMIT_MAX);
                let found = coordinator.ended_before(mark.as_ref(), most);
                page.partial |= found.partial;
                let more = found.items.len() == most;
                (found.items, more)
            }
        };
        for mark in marks {
            left = left.saturating_sub(1);
            if let Some(transaction) = read_one(&coordinator, &mark.1).await?
                && place.is_of(&transaction)
                && filter.takes(&transaction)
            {
                page.items.push(summary(&transaction));
            }
            place = place.behind(mark);
            if page.items.len() == limit || left == 0 {
                page.next = Some(place.text());
                return Ok(Json(page));
            }
        }
        if !more {
            match place {
                Place::Live(_) if !filter.only_live() => place = Place::Ended(None),
                Place::Live(_) | Place::Ended(_) => return Ok(Json(page)),
            }
        }
    }
}

async fn read_one(coordinator: &Coordinator, gid: &Gid) -> Result<Option<Transaction>, Refused> {
    match coordinator.get(gid).await {
        Ok(seen) => Ok(Some(seen.transaction)),
        // Forgotten, or gone to another node, since it was listed; or damaged.
        Err(VerbError::Unknown { .. } | VerbError::Log(_) | VerbError::Unreadable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where a list goes on: behind a transaction that is live, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Live(Option<(Moment, Gid)>),
    Ended(Option<(Moment, Gid)>),
}

impl Place {
    fn behind(&self, mark: (Moment, Gid)) -> Self {
        match self {
            Self::Live(_) => Self::Live(Some(mark)),
            Self::Ended(_) => Self::Ended(Some(mark)),
        }
    }

    /// Whether `transaction` is listed here: one that ends while the list is made is listed among
    /// those that have ended.
    fn is_of(&self, transaction: &Transaction) -> bool {
        transaction.state().is_final() == matches!(self, Self::Ended(_))
    }

    fn text(&self) -> String {
        let (kind, mark) = match self {
            Self::Live(mark) => ("live", mark),
            Self::Ended(mark) => ("ended", mark),
        };
        match mark {
            Some((at, gid)) => format!("{kind}:{}:{gid}", at.unix_millis()),
            None => kind.to_owned(),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, mark) = match text.split_once(':') {
            None => (text, None),
            Some((kind, rest)) => {
                let (millis, gid) = rest.split_once(':')?;
                let at = Moment::from_unix_millis(millis.parse().ok()?);
                (kind, Some((at, Gid::new(gid).ok()?)))
            }
        };
        match kind {
            "live" => Some(Self::Live(mark)),
            "ended" => Some(Self::Ended(mark)),
            _ => None,
        }
    }
}

/// Which transactions are wanted.
#[derive(Debug, Default)]
struct Filter {
    state: Option<mainstay_txn::State>,
    mode: Option<Mode>,
    name: Option<String>,
    stuck: Option<bool>,
    resource: Option<String>,
    target: Option<String>,
    since: Option<Moment>,
    until: Option<Moment>,
    labels: Vec<(String, String)>,
}

impl Filter {
    fn only_live(&self) -> bool {
        self.state.is_some_and(|state| !state.is_final()) || self.stuck == Some(true)
    }

    /// Whether what is seen of it says nothing against it.
    fn might(&self, glance: &Glance) -> bool {
        let begin = &glance.begin;
        self.state.is_none_or(|state| state == glance.state)
            && self.stuck.is_none_or(|stuck| stuck == glance.stuck)
            && self.fits(begin, glance.created_at)
    }

    fn fits(&self, begin: &mainstay_txn::Begin, created_at: Moment) -> bool {
        self.mode.is_none_or(|mode| mode == begin.mode)
            && self.name.as_ref().is_none_or(|name| begin.name.as_ref() == Some(name))
            && self.since.is_none_or(|since| since <= created_at)
            && self.until.is_none_or(|until| created_at < until)
            && self.labels.iter().all(|(key, value)| begin.labels.get(key) == Some(value))
    }

    fn takes(&self, transaction: &Transaction) -> bool {
        let register = &transaction.register;
        let is_named = |resource: &String| {
            let is_it =
                |part: &Part| matches!(part, Part::Resource(name) if name.as_str() == resource);
            transaction.branches.iter().any(|branch| is_it(&branch.part))
        };
        let is_called = |wanted: &String| {
            let is_it = |target: &mainstay_txn::Target| {
                let peer = target.peer();
                peer == *wanted
                    || peer.strip_prefix("service:") == Some(wanted)
                    || target.to_string() == *wanted
            };
            transaction.branches.iter().any(|branch| match &branch.part {
                Part::Endpoint { targets, .. } => targets.values().any(is_it),
                Part::Resource(_) => false,
            })
        };
        self.state.is_none_or(|state| state == register.state)
            && self.stuck.is_none_or(|stuck| stuck == register.stuck)
            && self.fits(&transaction.begin, transaction.created_at)
            && self.resource.as_ref().is_none_or(is_named)
            && self.target.as_ref().is_none_or(is_called)
    }
}

fn read(pairs: Vec<(String, String)>) -> Result<(Filter, Place, usize), Refused> {
    let (mut filter, mut place, mut limit) = (Filter::default(), None, 100);
    for (key, value) in pairs {
        let wrong = |allowed: &str| {
            Err(Refused::invalid(format!("`{key}` must be {allowed}, found `{value}`")))
        };
        match &*key {
            "state" => match mainstay_txn::State::parse(&value) {
                Some(state) => filter.state = Some(state),
                None => return wrong("a state of transactions, such as `committing`"),
            },
            "mode" => match Mode::parse(&value) {
                Some(mode) => filter.mode = Some(mode),
                None => return wrong("`xa`, `tcc`, `saga` or `message`"),
            },
            "stuck" => match value.parse() {
                Ok(stuck) => filter.stuck = Some(stuck),
                Err(_no_bool) => return wrong("`true` or `false`"),
            },
            "name" => filter.name = Some(value),
            "resource" => filter.resource = Some(value),
            "target" => filter.target = Some(value),
            "since" => filter.since = Some(moment("since", &value)?),
            "until" => filter.until = Some(moment("until", &value)?),
            "limit" => match value.parse() {
                Ok(number @ 1..=LIMIT_MAX) => limit = number,
                Ok(_) | Err(_) => return wrong("1 to 500"),
            },
            "cursor" => match Place::read(&value) {
                Some(read) => place = Some(read),
                None => return wrong("`next` of the page before"),
            },
            key => match key.strip_prefix("label.") {
                Some(label) => {
                    let label = percent_decode_str(label).decode_utf8_lossy().into_owned();
                    filter.labels.push((label, value));
                }
                None => return Err(Refused::invalid(format!("nobody knows `{key}`"))),
            },
        }
    }
    let is_over = filter.state.is_some_and(mainstay_txn::State::is_final);
    let first = if is_over { Place::Ended(None) } else { Place::Live(None) };
    Ok((filter, place.unwrap_or(first), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let mark = (Moment::from_unix_millis(7), Gid::new("a:b 转").unwrap());
        for place in [Place::Live(None), Place::Live(Some(mark.clone())), Place::Ended(Some(mark))]
        {
            assert_eq!(Place::read(&place.text()), Some(place));
        }
        for bad in ["", "live:", "live:x:g", "later:1:g", "ended:1:"] {
            assert_eq!(Place::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_question_nobody_understands_is_refused() {
        let ask = |key: &str, value: &str| read(vec![(key.to_owned(), value.to_owned())]);
        for (key, value) in [
            ("state", "done"),
            ("mode", "2pc"),
            ("stuck", "yes"),
            ("since", "yesterday"),
            ("limit", "0"),
            ("limit", "501"),
            ("cursor", "x"),
            ("colour", "blue"),
        ] {
            assert!(ask(key, value).is_err(), "{key}={value}");
        }
        let (filter, place, limit) = ask("label.shop", "blue").unwrap();
        assert_eq!(filter.labels, [("shop".to_owned(), "blue".to_owned())]);
        assert_eq!((place, limit), (Place::Live(None), 100));
        assert_eq!(ask("state", "committed").unwrap().1, Place::Ended(None));
    }
}
