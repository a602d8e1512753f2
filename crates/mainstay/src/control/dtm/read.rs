//! What is asked and changes nothing; and the one read of DTM that does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use mainstay_txn::run::{Glance, VerbError};
use mainstay_txn::{Begin, Gid, Mode, Moment, State as Stands, Transaction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Said};
use super::documents::{branches, status, transaction};
use super::of;
use super::verbs::retry;
use super::words::{gid, mode};
use crate::cluster::Cluster;
use crate::control::author::By;
use crate::control::transactions::walk::{Picks, Place, walk};

/// The version of DTM whose API this is.
const LIKE: &str = "v1.19.0";

/// Items of a page, and transactions hurried at once, unless others are asked for.
const LIMIT: usize = 100;

/// Most of both.
const LIMIT_MAX: usize = 500;

/// `GET version`
pub(super) async fn version() -> Json<Value> {
    Json(json!({ "version": format!("{LIKE}+mainstay.{}", env!("CARGO_PKG_VERSION")) }))
}

/// `GET newGid`: a name; nothing is kept of it.
pub(super) async fn new_gid(State(cluster): State<Arc<Cluster>>) -> Answer {
    let (transactions, _) = of(&cluster)?;
    let gid = transactions.generate();
    Ok(Json(json!({ "gid": gid.as_str(), "dtm_result": "SUCCESS" })))
}

/// Which transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    gid: String,
}

/// Which transaction the query of `uri` names.
pub(super) fn named(uri: &Uri) -> Option<Gid> {
    let Query(Which { gid: text }) = Query::try_from_uri(uri).ok()?;
    gid(&text).ok()
}

/// `GET query`
pub(super) async fn query(
    State(cluster): State<Arc<Cluster>>,
    Query(Which { gid: text }): Query<Which>,
) -> Answer {
    let (transactions, coordinator) = of(&cluster)?;
    let gid = gid(&text)?;
    match coordinator.get(&gid).await {
        Ok(seen) => {
            let shown = transaction(&seen.transaction, &transactions.config().dtm);
            let branches = branches(&seen.transaction);
            Ok(Json(json!({ "transaction": shown, "branches": branches })))
        }
        Err(VerbError::Unknown { .. }) => Ok(Json(json!({ "transaction": null, "branches": [] }))),
        Err(error) => Err(error.into()),
    }
}

/// Which transactions.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Wanted {
    position: String,
    limit: String,
    gid: String,
    status: String,
    trans_type: String,
    create_time_start: String,
    create_time_end: String,
}

/// `GET all`
pub(super) async fn all(
    State(cluster): State<Arc<Cluster>>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let (transactions, coordinator) = of(&cluster)?;
    let config = &transactions.config().dtm;
    let shown = |found: &Transaction| transaction(found, config);
    let page = |items: Vec<Value>, next: Option<String>| {
        Ok(Json(json!({ "transactions": items, "next_position": next.unwrap_or_default() })))
    };
    let limit = number("limit", &wanted.limit)?;
    let limit = limit.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(LIMIT_MAX));
    let Some(filter) = filter(&wanted)? else { return page(Vec::new(), None) };
    let is_wanted = |found: &Transaction| {
        filter.fits(&found.begin, found.created_at)
            && (wanted.status.is_empty() || wanted.status == status(found))
    };
    if !wanted.gid.is_empty() {
        let found = match coordinator.get(&gid(&wanted.gid)?).await {
            Ok(seen) => Some(seen.transaction),
            Err(VerbError::Unknown { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let found = found.filter(is_wanted);
        return page(found.iter().map(shown).collect(), None);
    }
    let place = match wanted.position.as_str() {
        "" => Place::Live(None),
        text => Place::read(text).ok_or_else(|| {
            Said::Wrong(format!("position must be one of a page before, found {text:?}"))
        })?,
    };
    let picks = Picks {
        might: |glance: &Glance| filter.fits(&glance.begin, glance.created_at),
        takes: is_wanted,
        also_ended: true,
    };
    let walked = walk(&coordinator, place, limit.clamp(1, LIMIT_MAX), picks).await?;
    let next = walked.next.map(|place| place.text());
    page(walked.items.iter().map(shown).collect(), next)
}

/// What is known to be wanted without reading a transaction.
#[derive(Debug)]
struct Filter {
    mode: Option<Mode>,
    since: Option<Moment>,
    until: Option<Moment>,
}

impl Filter {
    fn fits(&self, begin: &Begin, created_at: Moment) -> bool {
        self.mode.is_none_or(|mode| mode == begin.mode)
            && self.since.is_none_or(|since| since <= created_at)
            && self.until.is_none_or(|until| created_at <= until)
    }
}

/// What is wanted; `None` when there can be none.
fn filter(wanted: &Wanted) -> Result<Option<Filter>, Said> {
    let mode = match wanted.trans_type.as_str() {
        "" => None,
        word => match mode(word) {
            Some(mode) => Some(mode),
            None => return Ok(None),
        },
    };
    let moment = |name: &str, text: &str| {
        number(name, text).map(|millis| millis.map(Moment::from_unix_millis))
    };
    let since = moment("createTimeStart", &wanted.create_time_start)?;
    let until = moment("createTimeEnd", &wanted.create_time_end)?;
    Ok(Some(Filter { mode, since, until }))
}

/// Which transactions are hurried.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Late {
    timeout: String,
    limit: String,
}

/// `GET resetCronTime`: what would be tried only later than `timeout` seconds from now is tried now.
pub(super) async fn hurry_all(
    State(cluster): State<Arc<Cluster>>,
    Query(late): Query<Late>,
    by: By,
) -> Answer {
    let (_, coordinator) = of(&cluster)?;
    let timeout = Duration::from_secs(number("timeout", &late.timeout)?.unwrap_or(105));
    let limit = number("limit", &late.limit)?;
    let limit = limit.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(LIMIT_MAX));
    let after = Moment::from_unix_millis(cluster.unix_millis()).plus(timeout);
    let (later, has_remaining) = coordinator.due_later(after, limit.min(LIMIT_MAX));
    let mut succeeded = 0;
    for gid in later {
        succeeded += usize::from(hurry(&cluster, &gid, by.clone()).await?);
    }
    Ok(Json(json!({ "has_remaining": has_remaining, "succeed_count": succeeded })))
}

/// Whether there was something to be tried.
async fn hurry(cluster: &Cluster, gid: &Gid, by: By) -> Result<bool, Said> {
    let (_, coordinator) = of(cluster)?;
    let found = match coordinator.get(gid).await {
        Ok(seen) => seen.transaction,
        Err(VerbError::Unknown { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // Of what is not submitted only the deadline is due; what is being called is not late.
    let state = found.state();
    if state.is_final() || state == Stands::Active || found.is_calling() {
        return Ok(false);
    }
    match retry(cluster, gid, by).await {
        Ok(_) => Ok(true),
        // It has just ended, or was not begun through this door.
        Err(Said::Failure(_) | Said::Wrong(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// A number of a query, if it is there.
fn number(name: &str, text: &str) -> Result<Option<u64>, Said> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Said::Wrong(format!("{name} must be a whole number, found {text:?}"));
    text.parse().map(Some).map_err(wrong)
}
