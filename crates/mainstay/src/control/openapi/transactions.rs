//! Calls of global transactions.

use mainstay_api::transaction::{
    AbortTransaction, Accepted, BarrierPurged, BeginTransaction, LogAccepted, Operate,
    PreparedBranches, PurgeBarrier, RegisterBranch, Registered, ResolveTransaction, Resource,
    Resources, SendMessage, SubmitTransaction, SweepResource, Transaction, Transactions,
};
use mainstay_core::problem::Code;

use super::call::{Call, call};
use crate::control::transactions::Waiting;
use crate::control::transactions::list::Wanted;

const TAG: &str = "transactions";

pub(super) fn calls() -> Vec<Call> {
    let begins = [
        Code::TransactionInvalid,
        Code::TransactionGidInvalid,
        Code::BranchIdInvalid,
        Code::TransactionGidTaken,
        Code::TransactionTooLarge,
        Code::PayloadTooLarge,
        Code::BranchTargetDenied,
        Code::TransactionOverloaded,
        Code::TransactionLogBehind,
    ];
    let mut calls = vec![
        logged(call("post", TAG, "beginTransaction", "/transactions", "Begins a transaction."))
            .takes::<BeginTransaction>()
            .gives::<Transaction>(200, "It was begun already, with the same content.")
            .gives::<Transaction>(201, "It is begun; what was to be decided is durable.")
            .gives::<Transaction>(202, "The same, and not as far as was waited for.")
            .refuses(&begins)
            .refuses(&[Code::ResourceUnknown]),
        logged(call("post", TAG, "sendMessage", "/messages", "Sends a message, at least once."))
            .takes::<SendMessage>()
            .gives::<Accepted>(202, "It is durable, and delivered until it is acknowledged.")
            .refuses(&begins),
        logged(call("get", TAG, "listTransactions", "/transactions", "Lists transactions."))
            .query::<Wanted>()
            .gives::<Transactions>(200, "A page of them."),
    ];
    calls.extend(initiated());
    calls.extend(decided());
    calls.extend([
        operate("retry", "Tries everything now."),
        operate("pause", "Calls nobody."),
        operate("resume", "Calls again."),
        operate("redeliver", "Delivers once more a message that was given up, under another gid.")
            .refuses(&[Code::TransactionOverloaded, Code::TransactionLogBehind]),
    ]);
    calls.extend(resources());
    calls.push(accept_log());
    calls
}

fn accept_log() -> Call {
    let path = "/transaction-log/accept";
    call("post", TAG, "acceptTransactionLog", path, "Goes by the log as it is.")
        .takes::<Operate>()
        .gives::<LogAccepted>(200, "Databases object no more.")
        .refuses(&[Code::NotFound, Code::TransactionLogUnavailable])
        .audited()
}

/// Calls about databases, which each node answers as it sees them.
fn resources() -> [Call; 7] {
    let all = "/transaction-resources";
    let one = |method, id, rest: &str, summary: &str| {
        call(method, TAG, id, format!("{all}/{{name}}{rest}"), summary)
            .refuses(&[Code::NotFound, Code::TransactionLogUnavailable])
    };
    let asks = [Code::ResourceCannotPrepare, Code::ResourceUnreachable];
    [
        call("get", TAG, "listTransactionResources", all, "Lists databases that take part.")
            .gives::<Resources>(200, "All of them.")
            .refuses(&[Code::NotFound, Code::TransactionLogUnavailable]),
        one("get", "showTransactionResource", "", "Shows a database that takes part.")
            .gives::<Resource>(200, "How it stands."),
        one("get", "listPreparedBranches", "/prepared", "Lists what a database holds prepared.")
            .gives::<PreparedBranches>(200, "What a sweep would make of each.")
            .refuses(&asks),
        one("post", "checkTransactionResource", "/check", "Looks whether it can take part.")
            .gives::<Resource>(200, "It can.")
            .refuses(&asks),
        one("post", "sweepTransactionResource", "/sweep", "Ends what the log says has ended.")
            .takes::<SweepResource>()
            .gives::<PreparedBranches>(200, "What was found, and what was made of it.")
            .refuses(&asks)
            .audited(),
        one("post", "initTransactionResource", "/init", "Makes the tables that are not there.")
            .takes::<Operate>()
            .gives::<Resource>(200, "How it stands now.")
            .refuses(&asks)
            .audited(),
        one(
            "post",
            "purgeBarrier",
            "/purge-barrier",
            "Deletes old rows of a barrier, for a while.",
        )
        .takes::<PurgeBarrier>()
        .gives::<BarrierPurged>(200, "How many, and where to go on.")
        .refuses(&asks)
        .refuses(&[Code::ResourceCannotPurge, Code::TransactionLogBehind])
        .audited(),
    ]
}

fn initiated() -> [Call; 2] {
    [
        of("get", "showTransaction", "", "Shows a transaction, or waits for it.")
            .query::<Waiting>()
            .gives::<Transaction>(200, "How it stands."),
        of("post", "registerBranch", "/branches", "Takes a branch in.")
            .takes::<RegisterBranch>()
            .gives::<Registered>(200, "It had joined already, with the same content.")
            .gives::<Registered>(201, "It has joined.")
            .refuses(&[
                Code::TransactionInvalid,
                Code::BranchIdInvalid,
                Code::TransactionBranchTaken,
                Code::TransactionNotActive,
                Code::TransactionDeadlinePassed,
                Code::TransactionTooLarge,
                Code::PayloadTooLarge,
                Code::BranchTargetDenied,
                Code::ResourceUnknown,
                Code::ResourceCannotPrepare,
                Code::ResourceUnreachable,
                Code::TransactionVerbNotAllowed,
            ]),
    ]
}

fn decided() -> [Call; 3] {
    [
        of("post", "submitTransaction", "/submit", "Asks for the commit.")
            .takes::<SubmitTransaction>()
            .gives::<Transaction>(200, "It is decided to commit, and as far as was waited for.")
            .gives::<Transaction>(202, "It is not yet as far as was waited for.")
            .refuses(&[
                Code::TransactionInvalid,
                Code::BranchIdInvalid,
                Code::TransactionBranchTaken,
                Code::TransactionBranchUnknown,
                Code::TransactionAborted,
                Code::TransactionMixed,
                Code::TransactionTooOld,
                Code::TransactionTooLarge,
                Code::TransactionLogBehind,
                Code::ResourceUnknown,
                Code::TransactionVerbNotAllowed,
            ]),
        of("post", "abortTransaction", "/abort", "Asks for the abort.")
            .takes::<AbortTransaction>()
            .gives::<Transaction>(200, "It is decided to abort.")
            .refuses(&[Code::TransactionCommitted, Code::TransactionMixed])
            .refuses(&[Code::TransactionVerbNotAllowed])
            .audited(),
        of(
            "post",
            "resolveTransaction",
            "/resolve",
            "Says how something ended. No branch is asked.",
        )
        .takes::<ResolveTransaction>()
        .gives::<Transaction>(200, "It ended so.")
        .refuses(&[Code::BranchIdInvalid, Code::TransactionBranchUnknown])
        .refuses(&[Code::TransactionVerbNotAllowed])
        .audited(),
    ]
}

fn operate(verb: &str, summary: &str) -> Call {
    of("post", &format!("{verb}Transaction"), &format!("/{verb}"), summary)
        .takes::<Operate>()
        .gives::<Transaction>(200, "How it stands now.")
        .refuses(&[Code::TransactionVerbNotAllowed, Code::TransactionMixed])
        .audited()
}

/// A call about one transaction.
fn of(method: &'static str, id: &str, rest: &str, summary: &str) -> Call {
    logged(call(method, TAG, id, format!("/transactions/{{gid}}{rest}"), summary))
        .refuses(&[Code::TransactionUnknown, Code::TransactionGidInvalid])
}

/// A call that needs the log. One that is behind stands in the way of what begins, and of a commit.
fn logged(call: Call) -> Call {
    call.refuses(&[
        Code::NotFound,
        Code::TransactionLogUnavailable,
        Code::TransactionLogOverloaded,
        Code::TransactionOwnerUnknown,
        Code::LogFormatNewer,
    ])
}
