//! The one taxonomy of failed calls: the same in library, gateway and control API.

use mainstay_core::Effect;
use mainstay_core::problem::Code;

/// Why no answer that can be passed on came back from an attempt.
///
/// A complete answer that the classifier judges failed is not in this list: it is an answer, its
/// effect is done, and it is passed on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Sent, but no complete response head within the attempt's timeout.
    RequestTimeout,
    /// TCP or TLS was not up in time.
    ConnectTimeout,
    /// One of these two, but this process itself stood still for most of the time
    /// ([`pause`](crate::pause)): nobody learns from it.
    Overslept {
        /// There was no connection yet.
        connecting: bool,
    },
    /// The connection broke, stalled, or none was free.
    Congestion(Congestion),
    /// Refused, unreachable, TLS or name failure.
    ConnectFailed {
        /// The peer answered but could not prove who it is. Sending again cannot help.
        identity: bool,
    },
    /// The peer provably did not process the stream: `REFUSED_STREAM`, or a `GOAWAY` below it.
    Unprocessed,
    /// The peer broke off after its response head.
    Truncated,
    /// The peer's answer was no valid message.
    Malformed,
    /// The time given to the whole call is used up.
    Deadline {
        /// Whether any attempt had been sent.
        sent: bool,
    },
    /// The caller went away.
    Cancelled,
}

/// What kind of congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Congestion {
    /// Reset or end of stream before a response head, or an HTTP/2 ping that nobody answered.
    Lost {
        /// Whether any byte of the request had been handed to the socket. A reused connection
        /// that dies is no proof that the request was not processed.
        sent: bool,
    },
    /// No byte and no window for `stall_seconds`.
    WriteStalled,
    /// No connection was free and too many calls were waiting for one.
    PoolExhausted,
}

impl Failure {
    /// What the attempt may have done on the other side.
    pub const fn effect(self) -> Effect {
        match self {
            Self::ConnectTimeout
            | Self::Overslept { connecting: true }
            | Self::ConnectFailed { .. }
            | Self::Unprocessed
            | Self::Congestion(Congestion::PoolExhausted | Congestion::Lost { sent: false })
            | Self::Deadline { sent: false } => Effect::None,
            Self::RequestTimeout
            | Self::Overslept { connecting: false }
            | Self::Congestion(Congestion::WriteStalled | Congestion::Lost { sent: true })
            | Self::Truncated
            | Self::Malformed
            | Self::Deadline { sent: true }
            | Self::Cancelled => Effect::Unknown,
        }
    }

    /// Whether sending again can help at all. Whether it may be done is for the retry policy,
    /// which also looks at [`Failure::effect`] and at whether the call is idempotent.
    ///
    /// A peer that could not prove who it is will not be somebody else a moment later; a deadline
    /// that has passed stays passed; a truncated answer has already reached the caller in part.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::RequestTimeout
            | Self::ConnectTimeout
            | Self::Overslept { .. }
            | Self::Congestion(_)
            | Self::ConnectFailed { identity: false }
            | Self::Unprocessed => true,
            Self::ConnectFailed { identity: true }
            | Self::Truncated
            | Self::Malformed
            | Self::Deadline { .. }
            | Self::Cancelled => false,
        }
    }

    /// The problem a caller is told of.
    pub const fn code(self) -> Code {
        match self {
            Self::RequestTimeout | Self::Overslept { connecting: false } => Code::UpstreamTimeout,
            Self::ConnectTimeout | Self::Overslept { connecting: true } => Code::ConnectTimeout,
            Self::Congestion(_) => Code::NetworkCongestion,
            Self::ConnectFailed { .. } => Code::ConnectFailed,
            Self::Unprocessed => Code::RefusedStream,
            Self::Truncated => Code::ResponseTruncated,
            Self::Malformed => Code::UpstreamMalformed,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
        }
    }
}
