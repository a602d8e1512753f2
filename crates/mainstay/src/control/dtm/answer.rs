//! Answers as clients of DTM read them: a status, and a text in which they look for one word.
//!
//! They search the whole body. So `FAILURE` stands in the text of a failure alone, `ONGOING` in
//! that of what goes on, once, at the end, and neither in any other answer: wherever a gid or a
//! branch's own answer brings such a word along, it is written small.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_core::problem::Code;
use mainstay_txn::commit::LogError;
use mainstay_txn::run::VerbError;
use serde_json::{Value, json};

use crate::control::answer::Refused;

/// What a verb that is no success answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Said {
    /// 409: it did not and will not happen.
    Failure(String),
    /// 425: it is not over.
    Ongoing(String),
    /// 500: something is wrong, with the request or here. Nobody may take it for a decision.
    Wrong(String),
    /// 403: who asks may not.
    Forbidden(String),
    /// 503: not now.
    Away {
        /// Why.
        why: String,
        /// When it makes sense again.
        after: Duration,
    },
    /// 503: another node owns the transaction.
    Elsewhere {
        /// When it makes sense again.
        after: Duration,
    },
}

/// Marks an answer that another node could give.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Elsewhere;

/// The document of a verb, or why there is none.
pub(super) type Answer = Result<Json<Value>, Said>;

/// A verb that has nothing to tell but that it worked. Clients compare the text.
pub(super) fn success() -> Json<Value> {
    Json(json!({ "dtm_result": "SUCCESS" }))
}

impl Said {
    pub(super) fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    /// What the client reads.
    fn document(&self) -> (StatusCode, Value) {
        let ended = |text: &str, word: &str| {
            let text = plain(text);
            let text = text.trim_end().strip_suffix(&word.to_lowercase()).unwrap_or(&text);
            match text.trim_end() {
                "" => word.to_owned(),
                text => format!("{text} {word}"),
            }
        };
        let told = |result: &str, text: &str| json!({ "dtm_result": result, "message": ended(text, result) });
        match self {
            Self::Failure(text) => (StatusCode::CONFLICT, told("FAILURE", text)),
            Self::Ongoing(text) => (StatusCode::TOO_EARLY, told("ONGOING", text)),
            Self::Wrong(text) => {
                (StatusCode::INTERNAL_SERVER_ERROR, json!({ "message": plain(text) }))
            }
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, json!({ "message": plain(text) })),
            Self::Away { why, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, json!({ "message": plain(why) }))
            }
            Self::Elsewhere { .. } => {
                let why = "this node does not own the transaction, and does not know who does";
                (StatusCode::SERVICE_UNAVAILABLE, json!({ "message": why }))
            }
        }
    }
}

/// `text` without the words that decide.
fn plain(text: &str) -> String {
    text.replace("FAILURE", "failure").replace("ONGOING", "ongoing")
}

impl IntoResponse for Said {
    fn into_response(self) -> Response {
        let (status, document) = self.document();
        let mut response = (status, Json(document)).into_response();
        if let Self::Away { after, .. } | Self::Elsewhere { after } = self {
            let seconds = after.as_secs() + u64::from(0 < after.subsec_nanos());
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if matches!(self, Self::Elsewhere { .. }) {
            response.extensions_mut().insert(Elsewhere);
        }
        response
    }
}

/// What is left once a verb has looked for the refusals that are its own.
impl From<VerbError> for Said {
    fn from(error: VerbError) -> Self {
        match (&error, error.retry_after()) {
            (VerbError::Log(LogError::NotOwner), Some(after)) => Self::Elsewhere { after },
            (_, Some(after)) => Self::Away { why: error.to_string(), after },
            (VerbError::Unknown { gid }, None) => unknown(gid.as_str()),
            (_, None) => Self::Wrong(error.to_string()),
        }
    }
}

/// What the other doors say of the same.
impl From<Refused> for Said {
    fn from(refused: Refused) -> Self {
        let (status, detail, after) = refused.said();
        let detail = detail.to_owned();
        let is_elsewhere = refused.code() == Code::TransactionOwnerUnknown.as_str();
        match (status, after) {
            (_, Some(after)) if is_elsewhere => Self::Elsewhere { after },
            (_, Some(after)) => Self::Away { why: detail, after },
            (StatusCode::CONFLICT, None) => Self::Failure(detail),
            (_, None) => Self::Wrong(detail),
        }
    }
}

/// The words of DTM where nobody is called so.
pub(super) fn unknown(gid: &str) -> Said {
    Said::Wrong(format!("no TransGlobal with gid: {gid} found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &Said, want: u16, text: &str) {
        let (status, document) = said.document();
        assert_eq!((status.as_u16(), document.to_string().as_str()), (want, text));
    }

    #[test]
    fn the_word_that_decides_stands_once_at_the_end_or_nowhere() {
        let failure = |text: &str| Said::Failure(text.to_owned());
        check(&failure("no"), 409, r#"{"dtm_result":"FAILURE","message":"no FAILURE"}"#);
        check(
            &failure("url:http://a return failed: FAILURE"),
            409,
            r#"{"dtm_result":"FAILURE","message":"url:http://a return failed: FAILURE"}"#,
        );
        check(&failure(""), 409, r#"{"dtm_result":"FAILURE","message":"FAILURE"}"#);
        check(
            &failure("FAILURE of x ONGOING"),
            409,
            r#"{"dtm_result":"FAILURE","message":"failure of x ongoing FAILURE"}"#,
        );
        let ongoing = Said::Ongoing("wait".to_owned());
        check(&ongoing, 425, r#"{"dtm_result":"ONGOING","message":"wait ONGOING"}"#);
        let wrong = Said::Wrong("gid FAILURE-1 is taken".to_owned());
        check(&wrong, 500, r#"{"message":"gid failure-1 is taken"}"#);
    }
}
