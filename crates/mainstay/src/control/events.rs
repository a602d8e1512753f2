//! What is noted of a change, and why it was made.

use axum::http::HeaderMap;
use mainstay_coord::audit::{Author, Outcome, Target};
use mainstay_core::problem::Code;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::answer::Refused;
use crate::cluster::Cluster;
use crate::role::Shared;

/// Somebody changed something by hand.
#[derive(Debug)]
pub(super) struct Changed<'a> {
    /// What was done: `circuit.mode`.
    pub(super) what: &'static str,
    /// To what.
    pub(super) subject: &'a str,
    /// How it was.
    pub(super) before: &'a Value,
    /// How it is.
    pub(super) after: &'a Value,
    /// Why, in the words of who did it.
    pub(super) reason: Option<&'a str>,
}

impl Changed<'_> {
    /// Reports a change of this process alone: a log line, and an audit record where there is an
    /// outbox, as `kind`. A circuit is forced open just when the store is away, so nobody waits for
    /// the record.
    pub(super) fn emit_audited(self, shared: &Shared, kind: &str, author: &Author) {
        if let Some(cluster) = &shared.cluster {
            let (kind, id) = (kind.to_owned(), self.subject.to_owned());
            let target = Target { kind, id, ..Target::default() };
            let author = Author { reason: self.reason.map(str::to_owned), ..author.clone() };
            let action = self.what.replacen('.', ":", 1);
            let record = cluster.outbox.record(&action, target, &author);
            cluster.outbox.tell(record.changed(self.before.clone(), self.after.clone()));
        }
        self.emit();
    }

    /// Reports it: one log line at `info`. Whoever bears the token did it; nobody else is known.
    pub(super) fn emit(self) {
        let Self { what, subject, before, after, reason } = self;
        // Foreign words are quoted with their control characters escaped: one change, one line.
        tracing::info!(
            who = "operator",
            what,
            ?subject,
            %before,
            %after,
            reason = ?reason.unwrap_or_default(),
            "administrative change"
        );
    }
}

/// Does what no batch of the store is made of that its record could be part of: that comes first, and
/// another should it fail.
///
/// # Errors
///
/// Why it was not done, [`Refused::without_record`] then; or why it could not be recorded.
pub(super) async fn recorded<T>(
    cluster: &Cluster,
    action: &str,
    target: Target,
    author: &Author,
    work: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    let outbox = &cluster.outbox;
    outbox.admit(author)?;
    outbox.note(&outbox.record(action, target.clone(), author)).await?;
    match work.await {
        Ok(done) => Ok(done),
        Err(refused) => {
            let record = outbox.record(action, target, author);
            outbox.note(&record.instead_of(Outcome::Failed, refused.code())).await?;
            Err(refused.without_record())
        }
    }
}

/// The reason of a change, from its document or else the `Mainstay-Reason` field, which is
/// percent-encoded since field values are ASCII.
///
/// # Errors
///
/// `reason-required` when it has fewer than 3 or more than 500 characters.
pub(super) fn reason(
    document: Option<String>,
    headers: &HeaderMap,
) -> Result<Option<String>, Refused> {
    let field = || {
        let field = headers.get("mainstay-reason")?.to_str().ok()?;
        Some(percent_decode_str(field).decode_utf8_lossy().into_owned())
    };
    let given = document.or_else(field).map(|text| text.trim().to_owned());
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    let length = text.chars().count();
    if (3..=500).contains(&length) {
        return Ok(Some(text));
    }
    let detail = format!("a reason has 3 to 500 characters, this one {length}");
    Err(Refused::new(Code::ReasonRequired, detail))
}

/// The same where there must be one.
pub(super) fn needed_reason(
    document: Option<String>,
    headers: &HeaderMap,
) -> Result<String, Refused> {
    reason(document, headers)?.ok_or_else(|| {
        Refused::new(Code::ReasonRequired, "this change needs a reason of 3 to 500 characters")
    })
}
