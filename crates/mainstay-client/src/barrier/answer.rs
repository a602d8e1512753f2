//! Participants as handlers of axum: the branch they are called for, and their answers.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use mainstay_api::barrier::LOCAL_OP;
use mainstay_api::problem::MEDIA_TYPE;
use mainstay_core::problem::Code;

use super::{BarrierError, Branch, BranchInvalid, Check, Checked, Passed};
use crate::events::BarrierFailed;

/// What a participant can say without a barrier, or for an error of its business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done: 200.
    Done,
    /// It is not, and never will be: 409. For an operation that may say so; what undoes or
    /// completes something is asked again all the same.
    Refused {
        /// Why, for people. It shows as the reason of the transaction.
        why: String,
    },
    /// It is being done: 425, ask again.
    Ongoing,
}

impl Check {
    /// The route at which a sender of messages is asked whether their local parts were committed:
    /// `ask` puts the question to the database they are in. A call that asks anything else is
    /// refused with 422, and nothing is written for it.
    ///
    /// ```
    /// # #[cfg(feature = "mysql")]
    /// # fn routes(pool: mysql_async::Pool) -> axum::Router {
    /// use mainstay_client::barrier::Check;
    ///
    /// let was_paid = Check::route(move |check| {
    ///     let pool = pool.clone();
    ///     async move { check.mysql(&mut pool.get_conn().await?).await }
    /// });
    /// axum::Router::new().route("/was-paid", was_paid)
    /// # }
    /// ```
    pub fn route<S, D, F, Asking>(ask: F) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        D: std::fmt::Display,
        F: Fn(Self) -> Asking + Clone + Send + Sync + 'static,
        Asking: Future<Output = Result<Checked, D>> + Send + 'static,
    {
        // Some coordinators ask by GET, some by POST.
        any(async move |branch: Branch| {
            if branch.op() != LOCAL_OP {
                let detail = format!(
                    "operation {:?} is no question for the local part of a message, which is {LOCAL_OP:?}",
                    branch.op()
                );
                return problem(Code::InvalidRequest, detail);
            }
            match ask(Self::of(&branch)).await {
                Ok(checked) => checked.into_response(),
                Err(error) => failed(&error.to_string()),
            }
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Branch {
    type Rejection = BranchInvalid;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, BranchInvalid> {
        Self::of_request(&parts.headers, parts.uri.query())
    }
}

impl IntoResponse for BranchInvalid {
    fn into_response(self) -> Response {
        problem(Code::InvalidRequest, self.to_string())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Done => StatusCode::OK.into_response(),
            Self::Refused { why } => problem(Code::BranchRefused, why),
            Self::Ongoing => ongoing(),
        }
    }
}

/// What the business statements returned is their answer's body.
impl<T: IntoResponse> IntoResponse for Passed<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Ran(value) => value.into_response(),
            Self::Duplicate | Self::EmptyRollback => StatusCode::OK.into_response(),
            Self::Hanging => {
                let detail = "the branch was undone before this operation of it came";
                problem(Code::BranchAlreadyEnded, detail.to_owned())
            }
        }
    }
}

impl IntoResponse for Checked {
    fn into_response(self) -> Response {
        match self {
            Self::Committed => StatusCode::OK.into_response(),
            Self::RolledBack => {
                let detail = "the local part of the message was not committed, and never will be";
                problem(Code::BranchRefused, detail.to_owned())
            }
            Self::Ongoing => ongoing(),
        }
    }
}

impl<E: IntoResponse, D: std::fmt::Display> IntoResponse for BarrierError<E, D> {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Ongoing => return ongoing(),
            Self::Business(error) => return error.into_response(),
            Self::NothingCommitted => "a statement had failed, whose error was not returned".into(),
            Self::Database(error) => error.to_string(),
        };
        failed(&error)
    }
}

/// What happened is for the log: a caller is told nothing of the database.
fn failed(error: &str) -> Response {
    BarrierFailed { error }.emit();
    problem(Code::Internal, "the local transaction was not committed".to_owned())
}

fn ongoing() -> Response {
    problem(Code::BranchOngoing, "another session is at the same branch".to_owned())
}

fn problem(code: Code, detail: String) -> Response {
    let document = crate::problem::problem(code, detail, None);
    let status = StatusCode::from_u16(code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(document)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}
