//! What verbs do to a node that is stopped, and the records of it.

use std::path::Path;

use mainstay_coord::audit::{self, Actor, Author, Record, Target};
use mainstay_coord::moment::Moment;
use mainstay_coord::{BootClock, Timer as _};
use serde_json::Value as Json;

use super::Session;
use super::backup::runtime;
use crate::cluster::opening;
use crate::cluster::settings::StoreConfig;
use crate::report::causes;
use crate::settings::Errors;

/// Whoever sits before this machine, and why they do it.
pub(super) fn author(why: Option<String>) -> Author {
    let actor = Actor {
        principal: "operator".to_owned(),
        kind: "user".to_owned(),
        via: "cli".to_owned(),
        roles: vec!["admin".to_owned()],
        ..Actor::default()
    };
    Author { reason: why, ..Author::new(actor) }
}

/// The record of what was done to `target`, of which `shown` is what it was and became.
pub(super) fn record(
    action: &str,
    target: Target,
    why: Option<String>,
    (before, after): (Json, Json),
) -> Record {
    let now = Moment::from_unix_millis(BootClock.unix_millis());
    Record::done(now, action, target, &author(why)).changed(before, after)
}

/// Records what was done to a file of the node whose data directory is `data`. It is done already: a
/// store that does not take the record is said, and changes nothing.
pub(super) fn noted(
    config: &StoreConfig,
    data: &Path,
    (action, target, why, shown): (&str, Target, Option<String>, (Json, Json)),
    session: &mut Session<'_>,
) {
    let record = record(action, target, why, shown);
    let note = || {
        runtime()?.block_on(async {
            let store = opening::offline(config, data)?;
            let noted = audit::note(&*store, &BootClock, &record).await;
            drop(store.close().await);
            Ok::<_, Errors>(noted.map_err(|error| causes(&error)))
        })
    };
    let why = match note() {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(errors) => {
            errors.reports.first().map(|report| report.message.clone()).unwrap_or_default()
        }
    };
    session.note(&format!("not recorded in the store: {why}"));
}
