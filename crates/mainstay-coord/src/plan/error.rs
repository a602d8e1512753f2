//! Why a plan was not activated or deactivated.

use mainstay_core::problem::Code;
use mainstay_store::Error;

use crate::keys::RuleRef;
use crate::revisions::{Fault, RuleError};

/// Why a plan was not activated or deactivated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Another plan that is active has set a switch of this one. Deactivate it first.
    #[error(
        "plan {plan} shares {} with plan {other}, which is active", switches.join(", ")
    )]
    Conflict {
        /// The plan asked for.
        plan: RuleRef,
        /// The one that is active.
        other: RuleRef,
        /// What both have.
        switches: Vec<String>,
    },
    /// It is active already.
    #[error("plan {plan} is active")]
    Active {
        /// The plan.
        plan: RuleRef,
    },
    /// It is not active.
    #[error("plan {plan} is not active")]
    Inactive {
        /// The plan.
        plan: RuleRef,
    },
    /// A value is not of its switch's type.
    #[error("plan {plan}: {}", faults.first().map_or("", |fault| &*fault.detail))]
    Type {
        /// The plan.
        plan: RuleRef,
        /// What is wrong; at least one thing.
        faults: Vec<Fault>,
    },
    /// As for every object with a history; also where a switch of the plan is not there.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl From<Error> for PlanError {
    fn from(error: Error) -> Self {
        Self::Rule(error.into())
    }
}

impl PlanError {
    /// Whether the same request may be sent again as it is.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Rule(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// What the request may have done.
    pub const fn effect(&self) -> mainstay_core::Effect {
        match self {
            Self::Rule(error) => error.effect(),
            _ => mainstay_core::Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Conflict { .. } => Code::PlanConflict,
            Self::Active { .. } => Code::PlanActive,
            Self::Inactive { .. } => Code::PlanInactive,
            Self::Type { .. } => Code::SwitchType,
            Self::Rule(error) => error.code(),
        }
    }
}
