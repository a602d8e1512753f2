//! What an answer that is an error means: whether anything was done, and whether it can help to
//! ask again.
//!
//! etcd tells its reasons in words (`api/v3rpc/rpctypes/error.go`); codes alone do not tell a
//! compacted revision from a future one. Whatever is not known to mean "nothing was done" is taken
//! to leave that open.

use tonic::{Code, Status};

/// What an error answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The revision is compacted.
    Compacted,
    /// The revision does not exist yet.
    Future,
    LeaseNotFound,
    LeaseExists,
    /// A put would keep the lease of a key that is not there.
    KeyMissing,
    /// The quota is used up.
    Full,
    /// Too much is queued there; nothing was done.
    Busy,
    /// The answer has more bytes than were allowed for.
    AnswerTooLarge,
    /// The token is not, or no longer, good; nothing was done.
    Token,
    /// That member cannot serve it now, another may; nothing was done.
    NotHere(String),
    /// It will not be done; asking again does not help.
    Never(String),
    /// It may have been done.
    Open(String),
}

impl Refusal {
    /// The answer that stands for a request which never left.
    pub(crate) fn not_sent(why: &str) -> Status {
        Status::unavailable(format!("{NOT_SENT}: {why}"))
    }

    /// The answer that stands for none.
    pub(crate) fn lost(why: &str) -> Status {
        Status::unknown(format!("connection lost: {why}"))
    }

    pub(crate) fn of(status: &Status) -> Self {
        let text = status.message();
        let has = |words: &str| text.contains(words);
        match status.code() {
            Code::OutOfRange if has("has been compacted") => Self::Compacted,
            Code::OutOfRange if has("future revision") => Self::Future,
            Code::OutOfRange if has("decoded message length too large") => Self::AnswerTooLarge,
            Code::NotFound if has("requested lease not found") => Self::LeaseNotFound,
            Code::FailedPrecondition if has("lease already exists") => Self::LeaseExists,
            Code::InvalidArgument if has("key not found") => Self::KeyMissing,
            Code::ResourceExhausted if has("database space exceeded") => Self::Full,
            Code::ResourceExhausted if has("too many requests") => Self::Busy,
            Code::Unauthenticated => Self::Token,
            Code::InvalidArgument if has("revision of auth store is old") => Self::Token,
            Code::InvalidArgument if has("user name is empty") => Self::Token,
            Code::Unavailable if has(NOT_SENT) => Self::NotHere(text.to_owned()),
            Code::Unavailable if has("no leader") => Self::NotHere(text.to_owned()),
            Code::Unavailable if has("not supported for learner") => Self::NotHere(text.to_owned()),
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::FailedPrecondition
            | Code::NotFound => Self::Never(text.to_owned()),
            _ => Self::Open(text.to_owned()),
        }
    }
}

const NOT_SENT: &str = "request was not sent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_never_left_is_sure_to_have_done_nothing() {
        let not_sent = Refusal::of(&Refusal::not_sent("closed"));
        assert!(matches!(not_sent, Refusal::NotHere(_)), "{not_sent:?}");
        let lost = Refusal::of(&Refusal::lost("reset"));
        assert!(matches!(lost, Refusal::Open(_)), "{lost:?}");
    }

    #[test]
    fn every_answer_of_etcd_has_its_meaning() {
        let told = |text: &str| text.to_owned();
        let cases = [
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Refusal::Compacted,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                Refusal::Future,
            ),
            (Code::NotFound, "etcdserver: requested lease not found", Refusal::LeaseNotFound),
            (Code::FailedPrecondition, "etcdserver: lease already exists", Refusal::LeaseExists),
            (Code::InvalidArgument, "etcdserver: key not found", Refusal::KeyMissing),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Refusal::Full),
            (Code::ResourceExhausted, "etcdserver: too many requests", Refusal::Busy),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Refusal::Token),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Refusal::Token),
            (Code::InvalidArgument, "etcdserver: user name is empty", Refusal::Token),
            (
                Code::Unavailable,
                "etcdserver: no leader",
                Refusal::NotHere(told("etcdserver: no leader")),
            ),
            (Code::PermissionDenied, "no", Refusal::Never(told("no"))),
            // All of these may come after the proposal was made.
            (
                Code::Unavailable,
                "etcdserver: leader changed",
                Refusal::Open(told("etcdserver: leader changed")),
            ),
            (
                Code::Unavailable,
                "etcdserver: request timed out",
                Refusal::Open(told("etcdserver: request timed out")),
            ),
            (
                Code::Unavailable,
                "etcdserver: server stopped",
                Refusal::Open(told("etcdserver: server stopped")),
            ),
            (Code::Unknown, "transport", Refusal::Open(told("transport"))),
            (Code::DeadlineExceeded, "late", Refusal::Open(told("late"))),
        ];
        for (code, text, want) in cases {
            assert_eq!(Refusal::of(&Status::new(code, text)), want, "{code:?} {text}");
        }
    }
}
