//! Global transactions.
//!
//! Below `/api/v1`; `GID` is the name of a transaction as **one** segment of the path.
//!
//! | call | document | answer |
//! |---|---|---|
//! | `POST /transactions` | [`BeginTransaction`] | 201 [`Transaction`]; 200 if it was begun already; 409 `transaction-gid-taken` |
//! | `POST /transactions/GID/branches` | [`RegisterBranch`] | 201 [`Registered`]; 200 again; 409 `transaction-not-active` |
//! | `POST /transactions/GID/submit` | [`SubmitTransaction`] | 200 [`Transaction`]; 202 not as far as was waited for; 409 `transaction-aborted`; 500 `transaction-mixed` |
//! | `POST /transactions/GID/abort` | [`AbortTransaction`] | 200 [`Transaction`]; 409 `transaction-committed` |
//! | `POST /transactions/GID/VERB` | [`Operate`]; of `resolve` [`ResolveTransaction`] | 200 [`Transaction`]; 409 `transaction-verb-not-allowed` |
//! | `GET /transactions/GID` | – | 200 [`Transaction`]; 404 `transaction-unknown` |
//! | `GET /transactions` | – | 200 [`Transactions`], the newest first |
//! | `POST /messages` | [`SendMessage`] | 202 [`Accepted`], durable |
//! | `GET /transaction-resources`, `/NAME` | – | 200 [`Resources`], [`Resource`], as the node asked sees them |
//! | `GET /transaction-resources/NAME/prepared` | – | 200 [`PreparedBranches`]; 503 `resource-unreachable` |
//! | `POST /transaction-resources/NAME/sweep` | [`SweepResource`] | 200 [`PreparedBranches`] |
//! | `POST /transaction-resources/NAME/check` | – | 200 [`Resource`]; 409 `resource-cannot-prepare` |
//! | `POST /transaction-resources/NAME/purge-barrier` | [`PurgeBarrier`] | 200 [`BarrierPurged`]; 409 `resource-cannot-purge` |
//! | `POST /transaction-log/accept` | [`Operate`] | 200 [`LogAccepted`] |
//! | `POST /transaction-resources/NAME/init` | [`Operate`] | 200 [`Resource`]: its tables are there |
//!
//! Verbs are `retry`, `pause`, `resume`, `resolve` and `redeliver`.
//!
//! # Once only
//!
//! Every call may be repeated as it is: by the same gid and branch it counts once. Whoever got no
//! answer, or one with `effect` `unknown`, repeats it.

mod ask;
mod resource;
mod status;

pub use ask::{
    AbortTransaction, BeginTransaction, BranchKind, BranchTargets, BranchVote, Evidence, Operate,
    Outcome, RegisterBranch, ResolveTransaction, SendMessage, Step, SubmitTransaction, Target,
    VoteWord, WaitFor, WhenPrepared,
};
pub use resource::{
    BarrierKey, BarrierPurged, LogAccepted, PreparedBranch, PreparedBranches, PurgeBarrier,
    Resource, ResourceFault, Resources, SweepResource,
};
pub use status::{
    Accepted, Note, Operation, PayloadSeen, Reason, Registered, Summary, Transaction,
    TransactionBranch, Transactions,
};
