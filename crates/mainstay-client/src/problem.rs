//! Problem documents of whoever uses this crate to refuse.

use mainstay_api::problem::Problem;
use mainstay_core::Effect;
use mainstay_core::problem::Code;

/// A document that says what happened here.
pub(crate) fn problem(code: Code, detail: String, effect: Option<Effect>) -> Problem {
    Problem {
        kind: format!("docs/problems/{code}.md"),
        code: code.as_str().to_owned(),
        title: code.title().to_owned(),
        status: code.http(),
        detail,
        effect: effect.map(|effect| effect.as_str().to_owned()),
        retry_after: None,
        trace_id: None,
        holder: None,
        queued: None,
    }
}
