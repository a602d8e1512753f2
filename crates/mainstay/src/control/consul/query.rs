//! What stands behind the `?` of a request.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use mainstay_store::Revision;

use super::answer::Text;
use super::span;

/// Longest wait of a blocking query.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// Wait of a blocking query that names none.
const WAIT: Duration = Duration::from_mins(5);

/// The query of a request. Names that are not known are left alone, as Consul does.
#[derive(Clone, Debug)]
pub(super) struct Asked(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Text;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Text> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(rejection) => Err(Text::bad(rejection.body_text())),
        }
    }
}

impl Asked {
    /// Whether `name` is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// Every value of `name`.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// A number of a caller's.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Text> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok();
        number.map(Some).ok_or_else(|| Text::bad(format!("Invalid {name}: {text:?}")))
    }

    /// Since when, and how long to wait for a change.
    pub(super) fn blocking(&self) -> Result<(Revision, Duration), Text> {
        let index = match self.get("index") {
            None | Some("") => 0,
            Some(text) => text.parse().ok().ok_or_else(|| Text::bad("Invalid index"))?,
        };
        let wait = match self.get("wait") {
            None | Some("") => WAIT,
            Some(text) => span(text).ok_or_else(|| Text::bad("Invalid wait time"))?,
        };
        let wait = if wait.is_zero() { WAIT } else { wait.min(WAIT_MAX) };
        Ok((Revision::new(index), wait))
    }

    /// Refuses what is asked of another datacenter.
    pub(super) fn within(&self, datacenter: &str) -> Result<(), Text> {
        if self.get("dc").is_some_and(|dc| !dc.is_empty() && dc != datacenter) {
            return Err(Text::failed("No path to datacenter"));
        }
        Ok(())
    }
}
