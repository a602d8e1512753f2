//! Playing a proposed rule through with the calls of the last minutes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use mainstay_coord::revisions::{Kind, RuleError};
use mainstay_core::Instant;
use mainstay_core::problem::Code;
use mainstay_proxy::summary::AGE_MAX;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{Answer, Document, Refused};
use super::super::moment::Moment;
use super::super::revisions::object;
use super::read::{Fits, blocking, unused, would_be};
use crate::role::Shared;
use crate::rules::replay::Replay;
use crate::rules::rule::{self, DEFAULT_NAMESPACE};

/// What shall be played.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RuleProposal)]
pub(in crate::control) struct Proposal {
    /// The text of the table, or the table.
    content: Value,
    /// How far back, in seconds.
    #[serde(default = "all_of_it")]
    replay_seconds: u64,
    /// Which rule it is meant to be.
    #[serde(default)]
    namespace: Option<String>,
    /// Its name; one that nothing goes by, unless told.
    #[serde(default)]
    name: Option<String>,
}

const fn all_of_it() -> u64 {
    AGE_MAX.as_secs()
}

/// `POST P/simulate`
pub(super) async fn simulate(
    Extension(kind): Extension<Kind>,
    State(shared): State<Arc<Shared>>,
    Document(proposal): Document<Proposal>,
) -> Answer {
    let Proposal { content, replay_seconds, namespace, name } = proposal;
    if !(1..=AGE_MAX.as_secs()).contains(&replay_seconds) {
        let most = AGE_MAX.as_secs();
        let detail = format!("`replay_seconds` must be 1 to {most}, not {replay_seconds}");
        return Err(Refused::invalid(detail));
    }
    let text = match content {
        Value::String(text) => text,
        table => {
            rule::written(&table).map_err(|why| Refused::invalid(format!("`content`: {why}")))?
        }
    };
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let name = name.unwrap_or_else(|| unused(&shared, &kind));
    let rule = object(&kind, namespace, name)?;
    let fits = would_be(&shared, &rule, &text).await?;
    let Fits { meant, .. } =
        fits.map_err(|faults| RuleError::Invalid { kind: rule.kind, faults })?;
    let played = blocking(move || {
        let replay = Replay::of(&meant.plane, &rule)?;
        let moment = Moment::now();
        let since = moment.now.minus(Duration::from_secs(replay_seconds));
        let summaries = shared.gateway.parts().summaries.as_ref();
        let calls = summaries.map(|all| all.since(since, |call| replay.guards(call)));
        let text = |at: Instant| json!(moment.text(at));
        let document = replay.play(moment.now, &calls.unwrap_or_default(), text);
        let took = Moment::now().now.since(moment.now);
        shared.rules.figures().simulated(rule.kind, took);
        Some(document)
    });
    let missing = || Refused::new(Code::Internal, "the rule is not part of what it would be in");
    Ok(Json(played.await?.ok_or_else(missing)?))
}
