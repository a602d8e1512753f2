//! What a caller is told when something did not work (RFC 9457).
//!
//! Every code there is stands in [`Code`], with its status for HTTP and gRPC and its title. A code
//! is also the name of a page, `docs/problems/<code>.md`, and `mainstay explain CODE` shows it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::{Effect, Rejection};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $http:literal, $grpc:literal, $title:literal;)*) => {
        /// A stable name for one kind of problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, in the order of the list above.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as written: kebab-case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Status of an HTTP answer; 0 where the code never travels over HTTP.
            pub const fn http(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// Status of a gRPC answer.
            pub const fn grpc(self) -> u8 {
                match self { $(Self::$variant => $grpc,)* }
            }

            /// A short sentence that does not change from one occurrence to the next.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    // The call went out and did not come back well.
    /// No complete response head within the attempt's timeout.
    UpstreamTimeout = "upstream-timeout", 504, 4, "The service did not answer in time";
    /// TCP or TLS was not up in time.
    ConnectTimeout = "connect-timeout", 504, 14, "No connection to the service in time";
    /// The peer refused: 429, 503 with `Retry-After`, gRPC 8.
    RefusedByUpstream = "refused-by-upstream", 503, 14, "The service refused the call";
    /// The connection broke, stalled, or none was free.
    NetworkCongestion = "network-congestion", 502, 14, "The connection to the service failed";
    /// No connection could be made.
    ConnectFailed = "connect-failed", 502, 14, "The service could not be reached";
    /// The peer provably did not process the stream.
    RefusedStream = "refused-stream", 502, 14, "The service did not take the call";
    /// The peer broke off after its response head.
    ResponseTruncated = "response-truncated", 502, 14, "The answer broke off";
    /// The time the caller gave is used up.
    DeadlineExceeded = "deadline-exceeded", 504, 4, "The deadline has passed";
    /// The caller went away.
    Cancelled = "cancelled", 499, 1, "The caller went away";
    /// The peer's answer was no valid message.
    UpstreamMalformed = "upstream-malformed", 502, 13, "The service's answer was not a valid message";

    // A stage refused.
    /// A limit had no permit.
    Limited = "limited", 429, 8, "Too many requests";
    /// Concurrency or system protection refused.
    Shed = "shed", 503, 14, "Overloaded";
    /// A circuit is open.
    CircuitOpen = "circuit-open", 503, 14, "The circuit is open";
    /// Nobody can be asked.
    NoInstance = "no-instance", 503, 14, "No instance can answer";
    /// A switch is off.
    SwitchedOff = "switched-off", 503, 14, "This function is switched off";
    /// The queue of delayed calls is full.
    DelayQueueFull = "delay-queue-full", 503, 14, "Too many delayed calls";
    /// A call costs more than its limit can ever hold.
    CostExceedsQuota = "cost-exceeds-quota", 400, 3, "The call costs more than the quota holds";
    /// A fallback step said so.
    Degraded = "degraded", 503, 14, "The service is degraded";

    // The request itself.
    /// No route matches.
    RouteNotFound = "route-not-found", 404, 12, "No route for this request";
    /// The path has a route, the method has not.
    MethodNotAllowed = "method-not-allowed", 405, 12, "Method not allowed";
    /// The message could be read in more than one way.
    MalformedRequest = "malformed-request", 400, 3, "Malformed request";
    /// The path could be read in more than one way.
    PathAmbiguous = "path-ambiguous", 400, 3, "Ambiguous path";
    /// An upgrade nobody offers.
    UpgradeRefused = "upgrade-refused", 400, 3, "Upgrade refused";
    /// The host is not one of ours.
    MisdirectedHost = "misdirected-host", 421, 3, "Misdirected request";
    /// The request target is too long.
    UriTooLong = "uri-too-long", 414, 8, "Request target too long";
    /// The head is too large.
    HeadersTooLarge = "headers-too-large", 431, 8, "Request head too large";
    /// The body is too large.
    BodyTooLarge = "body-too-large", 413, 8, "Request body too large";
    /// The head did not arrive in time.
    HeadTimeout = "head-timeout", 408, 4, "Request head too slow";
    /// The body did not arrive in time.
    BodyTimeout = "body-timeout", 408, 4, "Request body too slow";
    /// An expectation other than `100-continue`.
    ExpectationFailed = "expectation-failed", 417, 3, "Expectation failed";
    /// The gateway is going away.
    GatewayDraining = "gateway-draining", 503, 14, "The gateway is draining";

    /// The token is not believed.
    JwtInvalid = "jwt-invalid", 401, 16, "The token is not valid";
    /// The keys of a token's issuer are not known.
    JwksUnavailable = "jwks-unavailable", 503, 14, "Tokens cannot be verified now";
    /// The route is for callers who say who they are.
    Unauthenticated = "unauthenticated", 401, 16, "Authentication is required";

    // The control API.
    /// No such object.
    NotFound = "not-found", 404, 5, "Not found";
    /// No token, or a wrong one.
    CredentialMissing = "credential-missing", 401, 16, "Credential missing or wrong";
    /// The host is not of the allow-list.
    HostNotAllowed = "host-not-allowed", 421, 7, "Host not allowed";
    /// A change without a reason.
    ReasonRequired = "reason-required", 422, 3, "A reason is required";
    /// The request document is wrong.
    InvalidRequest = "invalid-request", 422, 3, "Invalid request";
    /// The record was not kept.
    NotRecorded = "not-recorded", 404, 5, "Not recorded";
    // The coordination store.
    /// It could not be reached, or is not ready.
    StoreUnavailable = "store-unavailable", 503, 14, "The coordination store is not available";
    /// This handle is closed.
    StoreClosed = "store-closed", 503, 14, "The coordination store is closed";
    /// Too many batches are queued.
    StoreBusy = "store-busy", 503, 14, "The coordination store is busy";
    /// The batch may or may not have been applied.
    OutcomeUnknown = "outcome-unknown", 504, 4, "The outcome is unknown";
    /// History before that revision is gone.
    Compacted = "compacted", 410, 11, "History is compacted";
    /// A revision that does not exist yet.
    FutureRevision = "future-revision", 400, 11, "Revision does not exist yet";
    /// No such lease, or it has ended.
    LeaseNotFound = "lease-not-found", 404, 5, "Lease not found";
    /// The id asked for is taken.
    LeaseExists = "lease-exists", 409, 6, "Lease exists already";
    /// A lease with as many keys as one may have.
    LeaseFull = "lease-full", 409, 8, "The lease has too many keys";
    /// As many sessions of locks as there may be.
    SessionsFull = "sessions-full", 503, 8, "Too many sessions";
    /// As many streams and questions that wait as may be open at once.
    TooManyStreams = "too-many-streams", 503, 8, "Too many streams";
    /// A ttl that is not granted.
    TtlInvalid = "ttl-invalid", 400, 3, "Invalid ttl";
    /// No key can be written like this.
    KeyInvalid = "key-invalid", 400, 3, "Invalid key";
    /// One branch of a batch changes a key twice.
    DuplicateKey = "duplicate-key", 400, 3, "Key changed twice in one batch";
    /// A value above the limit.
    ValueTooLarge = "value-too-large", 413, 3, "Value too large";
    /// A batch above a limit.
    BatchTooLarge = "batch-too-large", 413, 3, "Batch too large";
    /// Quota or disk is used up.
    StoreFull = "store-full", 507, 8, "The coordination store is full";
    /// A write to the disk failed.
    StoreFailed = "store-failed", 503, 14, "The coordination store has failed";
    /// The store is older than one already seen.
    StoreRegressed = "store-regressed", 503, 14, "The coordination store went back";
    /// Another process has the store open; at start only.
    StoreLocked = "store-locked", 0, 14, "The coordination store is in use";
    /// The store was written by a newer version; at start only.
    StoreFormatNewer = "store-format-newer", 0, 9, "The coordination store is of a newer version";
    /// The store is what a copy left that did not come to its end; at start only.
    StoreIncomplete = "store-incomplete", 0, 9, "The coordination store is the half of a copy";
    /// The store's file is damaged; at start only.
    StoreCorrupt = "store-corrupt", 0, 15, "The coordination store is damaged";
    /// A snapshot or backup that cannot be used.
    BackupInvalid = "backup-invalid", 422, 3, "The backup cannot be used";

    // Sessions, locks, semaphores, elections.
    /// No such session, or it has ended.
    SessionNotFound = "session-not-found", 404, 5, "Session not found";
    /// The caller may not do this.
    PermissionMissing = "permission-missing", 403, 7, "Permission missing";
    /// Somebody else holds it, or waits already.
    LockBusy = "lock-busy", 409, 10, "The lock is busy";
    /// It was not granted in time. Not 408: clients repeat that by themselves.
    LockWaitTimeout = "lock-wait-timeout", 409, 4, "The lock was not granted in time";
    /// It was held, and is no longer.
    LockLost = "lock-lost", 410, 10, "The lock is lost";
    /// The session does not hold it with that token.
    LockNotHeld = "lock-not-held", 409, 9, "The lock is not held";
    /// The session holds it already.
    LockAlreadyHeld = "lock-already-held", 409, 6, "The lock is held already";
    /// A reader cannot become a writer.
    LockUpgradeRefused = "lock-upgrade-refused", 409, 9, "A shared lock cannot become exclusive";
    /// Others agreed on another number of permits.
    SemaphoreLimitDiffers = "semaphore-limit-differs", 409, 9, "The semaphore has another limit";

    /// A later holder of the lock was here.
    FencingTokenStale = "fencing-token-stale", 412, 9, "The fencing token is stale";
    /// Somebody else changed the row first, each time.
    OptimisticConflict = "optimistic-conflict", 409, 10, "Somebody else changed it first";

    // The registry.
    /// Nobody registered such a service.
    ServiceNotFound = "service-not-found", 404, 5, "Service not found";
    /// No such instance is registered; its owner registers it again.
    InstanceNotFound = "instance-not-found", 404, 5, "Instance not found";
    /// A service with instances is not deleted.
    ServiceInUse = "service-in-use", 409, 9, "The service has instances";
    /// A service is ephemeral or persistent as a whole.
    KindConflict = "kind-conflict", 409, 9, "The service has instances of the other kind";
    /// As many instances as a service, or the registry, may have.
    RegistryFull = "registry-full", 409, 8, "Too many instances";
    /// This node has not read the registry yet.
    RegistryLoading = "registry-loading", 503, 14, "The registry is loading";
    /// An instance may not be registered with that address.
    AddressRefused = "address-refused", 422, 7, "The address is not allowed";
    /// A check may not be sent there.
    EgressRefused = "egress-refused", 422, 7, "The target is not allowed";

    // The config centre and the keyring.
    /// No such group or item of configuration.
    ConfigNotFound = "config-not-found", 404, 5, "Configuration not found";
    /// No such release, or it was swept.
    ReleaseNotFound = "release-not-found", 404, 5, "Release not found";
    /// No gradual release is under way.
    CanaryNotFound = "canary-not-found", 404, 5, "No gradual release is under way";
    /// A gradual release is under way.
    CanaryRunning = "canary-running", 409, 9, "A gradual release is under way";
    /// Somebody else changed it since it was read.
    RevisionMoved = "revision-moved", 412, 9, "It was changed meanwhile";
    /// Content that is not of its format.
    FormatInvalid = "format-invalid", 422, 3, "Content does not have its format";
    /// Content that its schema refuses.
    SchemaViolation = "schema-violation", 422, 3, "Content violates its schema";
    /// This node has not read the configuration yet.
    ConfigLoading = "config-loading", 503, 14, "The configuration is loading";
    /// A sealed value does not open with this node's keyring.
    SecretUnreadable = "secret-unreadable", 500, 13, "A secret cannot be opened";
    /// Others can read the keyring; at start only.
    KeyringOpen = "keyring-open", 0, 9, "The keyring is open to others";
    /// The keyring cannot be read; at start only.
    KeyringUnreadable = "keyring-unreadable", 500, 15, "The keyring cannot be read";
    /// Other nodes of the store seal with a key that this one lacks; at start only.
    KeyringDiffers = "keyring-differs", 0, 9, "The keyring is not that of the other nodes";

    // Revisions, switches, plans, and their audit.
    /// Audit records pile up, so nothing is changed.
    AuditUnavailable = "audit-unavailable", 503, 14, "The audit outbox is full";
    /// A proof of what the audit log does not have.
    AuditProofRange = "audit-proof-range", 400, 11, "The audit log has no such records";
    /// An audit log is not what it was.
    AuditTampered = "audit-tampered", 500, 15, "The audit log was tampered with";
    /// An audit log that cannot be read.
    AuditUnreadable = "audit-unreadable", 422, 3, "The audit log cannot be read";
    /// It is kept somewhere else.
    ManagedElsewhere = "managed-elsewhere", 409, 9, "It is managed elsewhere";
    /// Content that its kind does not allow.
    InvalidRule = "invalid-rule", 422, 3, "The rule is not valid";
    /// A rule that others refer to is not removed.
    RuleInUse = "rule-in-use", 409, 9, "The rule is in use";
    /// As many objects of a kind as there may be.
    RulesFull = "rules-full", 409, 8, "Too many objects of this kind";
    /// A switch that something refers to is not removed.
    SwitchInUse = "switch-in-use", 409, 9, "The switch is in use";
    /// A value that is not of the switch's type.
    SwitchType = "switch-type", 422, 3, "The value is not of the switch's type";
    /// Another active plan has one of the switches.
    PlanConflict = "plan-conflict", 409, 9, "Another plan has a switch of this one";
    /// The plan is active already.
    PlanActive = "plan-active", 409, 9, "The plan is active";
    /// The plan is not active.
    PlanInactive = "plan-inactive", 409, 9, "The plan is not active";

    // Global transactions.
    /// No such transaction: it was aborted, or ended longer ago than is kept.
    TransactionUnknown = "transaction-unknown", 404, 5, "The transaction is not known";
    /// A field of a transaction says what it may not.
    TransactionInvalid = "transaction-invalid", 400, 3, "The transaction is not valid";
    /// A text that cannot be the name of a transaction.
    TransactionGidInvalid = "transaction-gid-invalid", 400, 3, "The gid is not valid";
    /// A text that cannot be the name of a branch.
    BranchIdInvalid = "branch-id-invalid", 400, 3, "The branch id is not valid";
    /// A transaction of this name with other content exists.
    TransactionGidTaken = "transaction-gid-taken", 409, 6, "The gid is taken";
    /// A branch of this name with other content exists.
    TransactionBranchTaken = "transaction-branch-taken", 409, 6, "The branch is registered with other content";
    /// The branch was never registered.
    TransactionBranchUnknown = "transaction-branch-unknown", 409, 9, "The branch is not registered";
    /// More branches or bytes than a transaction may have.
    TransactionTooLarge = "transaction-too-large", 409, 8, "The transaction is too large";
    /// A payload above the limit.
    PayloadTooLarge = "payload-too-large", 413, 8, "The payload is too large";
    /// A branch may not be called there.
    BranchTargetDenied = "branch-target-denied", 403, 7, "The branch may not be called there";
    /// A participant says no, for good.
    BranchRefused = "branch-refused", 409, 9, "The branch refuses";
    /// A participant is asked for what was undone before it came.
    BranchAlreadyEnded = "branch-already-ended", 409, 9, "The branch has ended";
    /// A participant is still at it.
    BranchOngoing = "branch-ongoing", 425, 9, "The branch is still at it";
    /// No database is configured under this name.
    ResourceUnknown = "resource-unknown", 409, 9, "The database is not configured";
    /// The database cannot prepare a branch, or the coordinator could not end it there.
    ResourceCannotPrepare = "resource-cannot-prepare", 409, 9, "The database cannot take part";
    /// The rows of the barrier cannot be read or deleted.
    ResourceCannotPurge = "resource-cannot-purge", 409, 9, "The barrier cannot be purged";
    /// The database does not answer.
    ResourceUnreachable = "resource-unreachable", 503, 14, "The database does not answer";
    /// Branches join only while nothing is decided.
    TransactionNotActive = "transaction-not-active", 409, 9, "The transaction is not active";
    /// It was too late to go on.
    TransactionDeadlinePassed = "transaction-deadline-passed", 409, 4, "The deadline of the transaction has passed";
    /// Nobody remembers any more whether it ended.
    TransactionTooOld = "transaction-too-old", 409, 9, "The transaction is too old";
    /// It was decided to abort.
    TransactionAborted = "transaction-aborted", 409, 10, "The transaction was aborted";
    /// It was decided to commit.
    TransactionCommitted = "transaction-committed", 409, 9, "The transaction was committed";
    /// Some of it committed, some rolled back.
    TransactionMixed = "transaction-mixed", 500, 15, "The transaction ended mixed";
    /// The verb does nothing where the transaction stands.
    TransactionVerbNotAllowed = "transaction-verb-not-allowed", 409, 9, "The verb is not possible";
    /// As many live transactions as a node takes, or one that is ending.
    TransactionOverloaded = "transaction-overloaded", 503, 14, "Too many live transactions";
    /// The log was put back from an old backup, and databases know better.
    TransactionLogBehind = "transaction-log-behind", 503, 9, "The transaction log is behind";
    /// Too many records wait for the log.
    TransactionLogOverloaded = "transaction-log-overloaded", 503, 14, "The transaction log is overloaded";
    /// The log could not be written or read.
    TransactionLogUnavailable = "transaction-log-unavailable", 503, 14, "The transaction log is not available";
    /// Another node, or none, owns the transaction's part of the log.
    TransactionOwnerUnknown = "transaction-owner-unknown", 503, 14, "Another node owns the transaction";
    /// The log was written by a newer version.
    LogFormatNewer = "log-format-newer", 503, 9, "The transaction log is of a newer version";

    /// A fault in Mainstay itself.
    Internal = "internal", 500, 13, "Internal error";

    // Configuration and the command line; these never travel over HTTP as an answer to a call.
    /// A key nobody knows.
    ConfigUnknownKey = "config-unknown-key", 422, 3, "Unknown key";
    /// A value of the wrong kind.
    ConfigWrongType = "config-wrong-type", 422, 3, "Wrong type";
    /// A value outside its range.
    ConfigOutOfRange = "config-out-of-range", 422, 3, "Out of range";
    /// One key twice in one file.
    ConfigDuplicateKey = "config-duplicate-key", 422, 3, "Duplicate key";
    /// A file that was named is not there.
    ConfigFileMissing = "config-file-missing", 422, 3, "File missing";
    /// The text is no TOML, YAML or JSON.
    ConfigSyntax = "config-syntax", 422, 3, "Syntax error";
    /// A name that leads nowhere.
    ConfigUnknownReference = "config-unknown-reference", 422, 3, "Reference to something that does not exist";
    /// Values that do not fit together.
    ConfigContradiction = "config-contradiction", 422, 3, "Contradicting values";
    /// Two routes of equal rank overlap.
    RouteAmbiguous = "route-ambiguous", 422, 3, "Ambiguous routes";
    /// Another process listens there.
    PortInUse = "port-in-use", 0, 14, "Port in use";
    /// Another process uses this data directory.
    DataDirInUse = "data-dir-in-use", 0, 14, "Data directory in use";
    /// `dev` on an address others can reach.
    DevNotLoopback = "dev-not-loopback", 0, 3, "dev listens on loopback only";
    /// The control plane does not answer.
    ControlUnreachable = "control-unreachable", 0, 14, "The control plane does not answer";
    /// A program that was run did not become well in time.
    AppNotHealthy = "app-not-healthy", 0, 14, "The program is not well";
    /// The command line is wrong.
    Usage = "usage", 0, 3, "Wrong usage";
}

impl Code {
    /// The code written `text`, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem document, and what the log says instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Which kind.
    pub code: Code,
    /// Status of the HTTP answer; differs from the code's own where a rule says so.
    pub status: u16,
    /// For the caller. Never names a host, an instance, a file or a query.
    pub detail: Cow<'static, str>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// Ties the answer to logs and spans.
    pub trace_id: Option<String>,
    /// What the call may have done.
    pub effect: Effect,
    /// The refusal behind it; shown to callers in full only where `explain = "full"`.
    pub rejection: Option<Box<Rejection>>,
}

impl Problem {
    /// A problem of kind `code` without any effect on the other side.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            status: code.http(),
            detail: detail.into(),
            retry_after: None,
            trace_id: None,
            effect: Effect::None,
            rejection: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_kebab_case_and_found_by_its_name() {
        for &code in Code::ALL {
            let text = code.as_str();
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{text}");
            assert_eq!(Code::parse(text), Some(code), "{text} stands twice");
        }
        assert_eq!(Code::parse("nonsense"), None);
    }
}
