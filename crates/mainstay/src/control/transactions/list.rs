//! Lists of transactions.
//!
//! In which order, and how many are read for one page, is said in [`walk`](mod@super::walk).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use mainstay_api::transaction::Transactions as Page;
use mainstay_txn::run::Glance;
use mainstay_txn::{Mode, Moment, Part, Transaction};
use percent_encoding::percent_decode_str;

use super::show::summary;
use super::walk::{Picks, Place, Walked, walk};
use super::{moment, of};
use crate::cluster::Cluster;
use crate::control::answer::Refused;

/// Most of a page.
pub(in crate::control) const LIMIT_MAX: usize = 500;

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
    let (filter, place, limit) = read(pairs)?;
    let wanted = Picks {
        might: |glance: &Glance| filter.might(glance),
        takes: |transaction: &Transaction| filter.takes(transaction),
        also_ended: !filter.only_live(),
    };
    let Walked { items, next, partial } = walk(&coordinator, place, limit, wanted).await?;
    let items = items.iter().map(summary).collect();
    Ok(Json(Page { items, next: next.map(|place| place.text()), partial }))
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
