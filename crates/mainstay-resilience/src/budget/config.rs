//! The `budget` table as written, and what it means.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::BudgetPolicy;
use crate::Invalid;
use crate::invalid::{span, within};

/// `[upstream.N.retry.budget]`: how many retries an upstream bears from all calls together.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBudget {
    /// What retries are measured against: `window` (default), `concurrent` or `tokens`.
    pub kind: Option<RawKind>,
    /// Kinds `window` and `concurrent`: retries allowed for each hundred first attempts of the
    /// window, or for each hundred calls in flight. 0 to 1000 percent; default 20.
    pub ratio_percent: Option<f64>,
    /// Kind `window`: retries a second that are always allowed. 0 to 100000; default 10.
    pub min_per_second: Option<u32>,
    /// Kind `window`: how far back attempts count, in seconds. 1 to 60; default 10.
    pub ttl_seconds: Option<f64>,
    /// Kind `concurrent`: retries that may always be outstanding. 0 to 100000; default 3.
    pub min_concurrent: Option<u32>,
    /// Kind `tokens`: the full balance. A failed attempt takes one token, and retries are allowed
    /// while more than half is left. Above 0, at most 1000, in thousandths; default 10.
    pub tokens_max: Option<f64>,
    /// Kind `tokens`: what a success puts back. 0.001 to 1000, further decimals are cut off;
    /// default 0.1.
    pub token_ratio: Option<f64>,
}

/// The `kind` of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawKind {
    /// A share of the first attempts of the last `ttl_seconds`.
    #[default]
    Window,
    /// A share of the calls in flight.
    Concurrent,
    /// A balance, as gRPC's retry throttling keeps it.
    Tokens,
}

impl TryFrom<RawBudget> for BudgetPolicy {
    type Error = Invalid;

    fn try_from(raw: RawBudget) -> Result<Self, Invalid> {
        raw.refuse_keys_of_other_kinds()?;
        let ratio = || {
            within("ratio_percent", raw.ratio_percent.unwrap_or(20.0), 0.0, 1_000.0)
                .map(|percent| whole(percent * 10_000.0 + 0.5))
        };
        Ok(match raw.kind.unwrap_or_default() {
            RawKind::Window => Self::Window {
                ratio_millionths: ratio()?,
                min_per_second: within(
                    "min_per_second",
                    raw.min_per_second.unwrap_or(10),
                    0,
                    100_000,
                )?,
                ttl: span("ttl_seconds", raw.ttl_seconds.unwrap_or(10.0), 1.0, 60.0)?,
            },
            RawKind::Concurrent => Self::Concurrent {
                ratio_millionths: ratio()?,
                min_concurrent: within(
                    "min_concurrent",
                    raw.min_concurrent.unwrap_or(3),
                    0,
                    100_000,
                )?,
            },
            RawKind::Tokens => Self::Tokens {
                max_thousandths: thousandths("tokens_max", raw.tokens_max.unwrap_or(10.0))?,
                ratio_thousandths: thousandths("token_ratio", raw.token_ratio.unwrap_or(0.1))?,
            },
        })
    }
}

impl RawBudget {
    /// A key that has no meaning under the kind chosen is a misunderstanding, not a comment.
    fn refuse_keys_of_other_kinds(&self) -> Result<(), Invalid> {
        use RawKind::{Concurrent, Tokens, Window};
        let kind = self.kind.unwrap_or_default();
        let keys: [(&str, bool, &[RawKind]); 6] = [
            ("ratio_percent", self.ratio_percent.is_some(), &[Window, Concurrent]),
            ("min_per_second", self.min_per_second.is_some(), &[Window]),
            ("ttl_seconds", self.ttl_seconds.is_some(), &[Window]),
            ("min_concurrent", self.min_concurrent.is_some(), &[Concurrent]),
            ("tokens_max", self.tokens_max.is_some(), &[Tokens]),
            ("token_ratio", self.token_ratio.is_some(), &[Tokens]),
        ];
        match keys.into_iter().find(|(_, given, kinds)| *given && !kinds.contains(&kind)) {
            Some((key, ..)) => {
                Err(Invalid::contradiction(key, format!("has no meaning with `kind = \"{kind}\"`")))
            }
            None => Ok(()),
        }
    }
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self::Window {
            ratio_millionths: 200_000,
            min_per_second: 10,
            ttl: std::time::Duration::from_secs(10),
        }
    }
}

impl fmt::Display for RawKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Window => "window",
            Self::Concurrent => "concurrent",
            Self::Tokens => "tokens",
        })
    }
}

/// `tokens` in thousandths, further decimals cut off; at least one and at most 1,000 tokens.
fn thousandths(path: &str, tokens: f64) -> Result<u32, Invalid> {
    // 0.29 × 1,000 is 289.99… in binary; a millionth of a token is no decimal anybody wrote.
    let cut = (0.0..=1_000.0).contains(&tokens).then(|| whole(tokens * 1_000.0 + 1e-6));
    cut.filter(|&cut| cut != 0)
        .ok_or_else(|| Invalid::range(path, format!("must be 0.001 to 1000, found {tokens}")))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the callers have checked that it lies between 0 and 10,000,001"
)]
fn whole(number: f64) -> u32 {
    number as u32
}
