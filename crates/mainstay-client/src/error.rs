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
    pub fn effect(&self) -> Effect {
        match self {
            Self::Unreachable { effect, .. } => *effect,
            Self::Refused(problem) => match problem.effect.as_deref() {
                Some("none") => Effect::None,
                // What says nothing of it has looked at the request and refused it; whatever stands
                // in between may have passed it on.
                None if problem.status < 500 => Effect::None,
                Some(_) | None => Effect::Unknown,
            },
            Self::Invalid { .. } | Self::Lost(_) | Self::Stopped => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::problem;

    #[test]
    fn a_refusal_did_nothing_unless_something_in_between_may_have_passed_it_on() {
        for (code, said, want) in [
            (Code::LockNotHeld, None, Effect::None),
            (Code::Limited, None, Effect::None),
            (Code::StoreUnavailable, None, Effect::Unknown),
            (Code::StoreUnavailable, Some(Effect::Unknown), Effect::Unknown),
            (Code::StoreUnavailable, Some(Effect::None), Effect::None),
        ] {
            let refused = ClientError::Refused(Box::new(problem(code, "no".to_owned(), said)));
            assert_eq!(refused.effect(), want, "{code}, {said:?}");
        }
    }
}
