//! What the stage refuses with, and the evidence for it.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Effect;
use mainstay_core::problem::Code;

use super::call::Otherwise;
use super::settings::Fallbacks;
use crate::error::{CallError, Figures, Refusal};

/// What the `fail` step of `code` refuses with, called for by `cause` after `attempts`: with the
/// evidence of the refusal it stands for, and without denying a call that was made.
pub(super) fn of_step<S, B, R>(
    rule: &Arc<str>,
    (code, status): (Code, u16),
    otherwise: &Otherwise<S, B, R>,
    cause: &'static str,
    attempts: u32,
) -> Refusal {
    let failed = Figures { observed: attempts.into(), threshold: 1.0, unit: "failed attempts" };
    let standing = Figures { observed: 1.0, threshold: 1.0, unit: cause };
    let own = |figures| Refusal { status: Some(status), ..own(rule, code, figures) };
    match otherwise {
        Otherwise::Send(..) => own(standing),
        Otherwise::Limited(cause, ..) => by(own(standing), cause),
        Otherwise::Return(Err(CallError::Refused(cause))) => by(own(standing), cause),
        Otherwise::Return(Ok(_)) => Refusal { effect: Effect::Done, ..own(failed) },
        Otherwise::Return(Err(error)) => Refusal { effect: error.effect(), ..own(failed) },
    }
}

/// The refusal of a call that was to be delayed, when `most` are already.
pub(super) fn crowded(rule: &Arc<str>, most: u32) -> Refusal {
    let most = f64::from(most);
    let figures = Figures { observed: most, threshold: most, unit: "calls held" };
    own(rule, Code::DelayQueueFull, figures)
}

/// The refusal of a call whose body was read to be kept, but was longer than the `most` bytes that
/// are: it cannot be read once more.
pub(super) fn spent(rule: &Arc<str>, most: usize) -> Refusal {
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    let most = most as f64;
    let figures = Figures { observed: most, threshold: most, unit: "bytes of body kept" };
    own(rule, Code::BodyTooLarge, figures)
}

/// The refusal of a route that is switched off.
pub(super) fn switched_off(fallbacks: &Fallbacks) -> CallError {
    let switch = fallbacks.switch.as_ref().map_or("", |name| name.as_str());
    let figures = Figures { observed: 0.0, threshold: 1.0, unit: "switches on" };
    own(&Arc::from(switch), Code::SwitchedOff, figures).into()
}

fn own(rule: &Arc<str>, code: Code, figures: Figures) -> Refusal {
    Refusal {
        code,
        stage: "fallback",
        scope: None,
        rule: Arc::clone(rule),
        figures,
        since: Duration::ZERO,
        retry_after: None,
        status: None,
        effect: Effect::None,
    }
}

/// `own` with the evidence of `cause`.
fn by(own: Refusal, cause: &Refusal) -> Refusal {
    Refusal {
        figures: cause.figures,
        since: cause.since,
        retry_after: cause.retry_after,
        effect: cause.effect,
        ..own
    }
}
