//! Why the control plane did not do as asked.

use std::time::Duration;

use mainstay_api::problem::Problem;
use mainstay_core::Effect;
use mainstay_core::belief::Loss;
use mainstay_core::problem::Code;

/// Why the control plane did not do as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// What was asked for makes no sense. The caller's fault; nothing was sent.
    #[error("{what} {why}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// What it must be.
        why: &'static str,
    },
    /// No server answered. May be repeated.
    #[error("no server of the control plane answered: {why}")]
    Unreachable {
        /// What the last one did.
        why: String,
        /// Whether it may have been done all the same.
        effect: Effect,
    },
    /// A server refused.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(Box<Problem>),
    /// It was held, or about to be, and is no longer. What is done from here on is not covered.
    #[error("lock is lost: {0}")]
    Lost(Loss),
    /// The client is shutting down.
    #[error("the client is shutting down")]
    Stopped,
}

impl ClientError {
    /// The code of the problem: the server's own, or what stands for it here.
    pub fn code(&self) -> &str {
        match self {
            Self::Invalid { .. } => Code::InvalidRequest.as_str(),
            Self::Unreachable { .. } | Self::Stopped => Code::ControlUnreachable.as_str(),
            Self::Refused(problem) => &problem.code,
            Self::Lost(_) => Code::LockLost.as_str(),
        }
    }

    /// Whether the same request may work if it is made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => {
                matches!(problem.status, 429 | 502..=504)
                    || self.is(Code::LockBusy)
                    || self.is(Code::LockWaitTimeout)
            }
            Self::Invalid { .. } | Self::Lost(_) | Self::Stopped => false,
        }
    }

    /// When asking again may help, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Refused(problem) = self else { return None };
        Duration::try_from_secs_f64(problem.retry_after?).ok()
    }

    /// Whether it is a refusal of this kind.
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(problem) if problem.code == code.as_str())
    }

    /// Whether another server, or the same one a little later, may do better.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 502..=504),
            Self::Invalid { .. } | Self::Lost(_) | Self::Stopped => false,
        }
    }

    /// Whether what was asked for may have happened all the same.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            Self::Unreachable { effect, .. } => *effect != Effect::None,
            Self::Refused(problem) => {
                self.is_passing() && problem.effect.as_deref() != Some("none")
            }
            Self::Invalid { .. } | Self::Lost(_) | Self::Stopped => false,
        }
    }
}
