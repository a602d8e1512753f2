//! Rules of the data plane that are kept in the store: routes, upstreams, circuits, limits, fallbacks.
//!
//! The content of a rule is the text of its table, exactly as a configuration file has it, and it is
//! read by the same reader. What the process serves by is the files and the rules together. The
//! files come first: they are whole by themselves, and a name that a file uses belongs to the file.
//!
//! A rule is checked against everything else before it is written. It may still not fit where it
//! arrives: another node has other files, two changes crossed, a file changed while nothing ran. A
//! rule that does not fit is left as it was last in force, or left out, and says so; it never takes
//! the others, or the process, down.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | one rule, read | [`rule`] | decides |
//! | what of it nobody is shown | [`secrets`] | decides |
//! | which of them are in force | [`book`] | decides |
//! | what one would have done with the last calls | [`replay`] | decides |
//! | what is probably not meant | [`warnings`] | decides |
//! | faults, as the API tells them | [`fault`] | decides |
//! | the copy a process serves by | [`copies`] | acts |
//! | that copy, where another process keeps the rules | [`elsewhere`] | acts |
//! | from the copy to the gateway | [`apply`] | acts |
//! | what is told and counted | [`events`], [`figures`] | acts |

pub mod apply;
pub mod book;
pub mod copies;
pub mod elsewhere;
pub mod events;
pub mod fault;
pub mod figures;
pub mod replay;
pub mod rule;
pub mod secrets;
#[cfg(test)]
mod tests;
pub mod warnings;

use mainstay_coord::keys::RuleKind;
use mainstay_coord::revisions::{Fault, Kind};
use mainstay_proxy::config::RawUpstream;
use mainstay_proxy::route::RawRoute;
use mainstay_resilience::circuit::RawCircuit;
use mainstay_resilience::fallback::RawFallback;
use mainstay_resilience::limit::RawLimit;
use serde_json::Value;

pub use apply::Rules;
pub use copies::Copies;
pub use elsewhere::Elsewhere;

/// The kinds, in the order in which they are shown.
pub const KINDS: [Kind; 5] = [
    kind(RuleKind::ROUTE, "/routes"),
    kind(RuleKind::UPSTREAM, "/upstreams"),
    kind(RuleKind::CIRCUIT, "/circuits"),
    kind(RuleKind::LIMIT, "/limits"),
    kind(RuleKind::FALLBACK, "/fallbacks"),
];

const fn kind(key: RuleKind, path: &'static str) -> Kind {
    Kind { key, path, shown: secrets::shown, check }
}

/// What can be said of a content alone: that it is the text of a table. Whether the table fits is
/// said before, against everything else.
fn check(content: &Value) -> Vec<Fault> {
    match content.as_str().map(str::parse::<toml::Table>) {
        Some(Ok(_)) => Vec::new(),
        Some(Err(error)) => vec![Fault::new("", "config-syntax", error.message().to_owned())],
        None => vec![Fault::new("", "config-wrong-type", "expected the text of a table")],
    }
}

/// The JSON Schema of what a rule of `kind` holds; `None` for kinds of other parts.
pub fn schema(kind: RuleKind) -> Option<Value> {
    let schema = match kind {
        RuleKind::ROUTE => schemars::schema_for!(RawRoute),
        RuleKind::UPSTREAM => schemars::schema_for!(RawUpstream),
        RuleKind::CIRCUIT => schemars::schema_for!(RawCircuit),
        RuleKind::LIMIT => schemars::schema_for!(RawLimit),
        RuleKind::FALLBACK => schemars::schema_for!(RawFallback),
        _ => return None,
    };
    Some(schema.to_value())
}
