//! Why a switch was not changed.

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::Error;

use crate::keys::RuleRef;
use crate::revisions::{Fault, RuleError};

/// Why a switch was not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SwitchError {
    /// Something refers to it. Take the reference out first.
    #[error("switch {switch} is in use by {}", references.join(", "))]
    InUse {
        /// The switch.
        switch: RuleRef,
        /// What refers to it.
        references: Vec<String>,
    },
    /// The value is not of the switch's type, or the type is not the one it has.
    #[error("switch {switch}: {}", faults.first().map_or("", |fault| &*fault.detail))]
    Type {
        /// The switch.
        switch: RuleRef,
        /// What is wrong; at least one thing.
        faults: Vec<Fault>,
    },
    /// As for every object with a history.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl From<Error> for SwitchError {
    fn from(error: Error) -> Self {
        Self::Rule(error.into())
    }
}

impl SwitchError {
    /// Whether the same request may be sent again as it is.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Rule(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// What the request may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Rule(error) => error.effect(),
            _ => Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::SwitchInUse,
            Self::Type { .. } => Code::SwitchType,
            Self::Rule(error) => error.code(),
        }
    }
}
