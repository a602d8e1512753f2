//! Calls about deferred requests.

use mainstay_api::deferred::{DeferredQueues, DeferredRequest, DeferredRequests};
use mainstay_api::transaction::Operate;
use mainstay_core::problem::Code;

use super::call::{Call, call};
use crate::control::deferred::Wanted;

const TAG: &str = "deferred";

pub(super) fn calls() -> Vec<Call> {
    vec![
        logged(call("get", TAG, "listDeferredQueues", "/deferred", "Lists queues."))
            .gives::<DeferredQueues>(200, "All of them, as this node sees them."),
        logged(call("get", TAG, "listDeferred", "/deferred/{queue}", "Lists deferred requests."))
            .query::<Wanted>()
            .gives::<DeferredRequests>(200, "A page of what this node owns."),
        one("get", "showDeferred", "", "Shows a deferred request.")
            .gives::<DeferredRequest>(200, "How it stands."),
        one("post", "replayDeferred", "/replay", "Makes a dead request again.")
            .takes::<Operate>()
            .gives::<DeferredRequest>(200, "It is queued, under the same receipt, or was already.")
            .refuses(&[
                Code::TransactionVerbNotAllowed,
                Code::TransactionGidTaken,
                Code::TransactionOverloaded,
                Code::TransactionLogBehind,
            ])
            .audited(),
        one("post", "discardDeferred", "/discard", "Gives a request up, or forgets a dead one.")
            .takes::<Operate>()
            .done(204, "It is.")
            .refuses(&[Code::TransactionVerbNotAllowed])
            .audited(),
    ]
}

/// A call about one request.
fn one(method: &'static str, id: &str, rest: &str, summary: &str) -> Call {
    let path = format!("/deferred/{{queue}}/{{receipt}}{rest}");
    logged(call(method, TAG, id, path, summary)).refuses(&[Code::TransactionOwnerUnknown])
}

/// A call that needs the log.
fn logged(call: Call) -> Call {
    call.refuses(&[
        Code::NotFound,
        Code::TransactionLogUnavailable,
        Code::TransactionLogOverloaded,
        Code::LogFormatNewer,
    ])
}
