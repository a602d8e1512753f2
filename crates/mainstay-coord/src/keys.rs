//! The key space: every key that coordination reads or writes, by area.
//!
//! | key | value | ends with |
//! |---|---|---|
//! | `meta/format` | the format of all records; written first, or last by a copy | – |
//! | `meta/fence_base` | added to every fencing token | – |
//! | `meta/keyring` | which keys the nodes of the store seal with | – |
//! | `meta/probe` | which node wrote last to find out whether that works | – |
//! | `ses/<session>` | who the session belongs to | the session |
//! | `lock/<ns>/<name>/q/<slot>` | place in the queue of a lock | the session, or a transaction |
//! | `lock/<ns>/<name>/last` | how the lock was last held | sweeping |
//! | `lock/<ns>/<name>/delay` | nobody is granted the lock while this is there | its own lease |
//! | `sem/…`, `elect/…`, `duty/…` | the same for semaphores, elections, duties of nodes | |
//! | `node/<node>` | a process of Mainstay: address, started, roles | 10 s after it vanished |
//! | `svc/<ns>/<service>` | settings of a service | – |
//! | `ins/<ns>/<service>` | which instance went last, and why | – |
//! | `ins/<ns>/<service>/<instance>` | an instance, with its owner and its registration | – |
//! | `cat/<node>` | a node of the Consul door, with its checks | – |
//! | `ckv/<name>` | a pair of the Consul door | – |
//! | `cses/<id>`, `clife/<id>` | a session of the Consul door; that it lives | –; its ttl |
//! | `chold/<id>/<name>` | that the session has acquired the pair | – |
//! | `cdelay/<name>` | nobody acquires the pair while this is there | its own lease |
//! | `obs/<ns>/<service>/<instance>/<reporter>` | a caller met failures there | 30 s |
//! | `cfg/<ns>/<group>/head` | which release is in force, and the canary | – |
//! | `cfg/<ns>/<group>/rel/<n>` | a release: its items, who, when, why | – |
//! | `cfg/<ns>/<group>/draft/<item>`, `…/draft` | a draft; that drafts were edited | publishing |
//! | `blob/<hash>` | a content, after eight bytes that say when it was put | sweeping |
//! | `hold/<node>/<ns>/<group>/<chunk>` | which client holds which release | the node |
//! | `aud/out/<record>` | an audit record that no log has taken over yet | the log; trimming |
//! | `aud/seen/<record>` | one of the newest that a log has taken over, where several nodes look for it | the log |
//! | `aud/trimmed` | how many records were trimmed | – |
//! | `aud/log` | which node takes records over into its log | – |
//! | `aud/head/<log>` | the newest signed head of a log | – |
//! | `sw/<ns>/<switch>`, `plan/<ns>/<plan>` | a switch, a plan: its newest revision | – |
//! | `plan/<ns>/<plan>/undo` | whether a plan is active, and what was before | – |
//! | `rule/<kind>/head/<ns>/<name>` | the newest revision of an object of another kind | – |
//! | `rule/<kind>/rev/<ns>/<name>/<n>` | a revision, of any kind | sweeping |
//!
//! A segment is percent-encoded outside `[A-Za-z0-9._~-]`, so a name holds no `/` once it is part
//! of a key, and `prefix/` covers exactly what lies under it. Nobody writes a key by hand: names
//! come in checked, keys go out of the builders here.

mod audit;
mod centre;
mod consul;
mod queue;
mod registry;
mod rules;
#[cfg(test)]
mod tests;

use mainstay_store::{Key, LeaseId, Range};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub(crate) use audit::audit_area;
pub use audit::{
    AuditId, audit, audit_all_logged, audit_head, audit_heads, audit_holder, audit_logged,
    audit_records, audit_trimmed, parse_audit, parse_audit_head,
};
pub use centre::{CentreKey, GroupRef, blob, blobs, configuration, holds, parse_centre};
pub use consul::{
    ConsulSessionId, PairName, consul_lives, consul_node, consul_node_name, consul_nodes,
    consul_pair_name, consul_pairs, consul_session, consul_sessions,
};
pub use queue::{Area, Place, Slot, area, parse_last, parse_session, parse_slot};
pub use registry::{InstanceRef, RegistryArea, RegistryKey, ServiceRef, node, parse_registry};
pub use rules::{RuleKind, RuleRef, plans_beside};

/// What stays as it is inside a segment, besides letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

/// `text` as one segment of a key.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The text a segment was made of, if it is one.
pub fn unescape(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?.into_owned();
    // One text has one segment, or two keys could mean the same thing.
    (self::segment(&text) == segment).then_some(text)
}

/// What the store says about itself.
pub fn meta() -> Range {
    Range::prefix("meta/")
}

/// The format of all records.
pub fn format() -> Key {
    made("meta/format".to_owned())
}

/// What is added to every create revision to make a fencing token. Missing is 0.
pub fn fence_base() -> Key {
    made("meta/fence_base".to_owned())
}

/// Written to find out whether the store can be written, and never read.
pub fn probe() -> Key {
    made("meta/probe".to_owned())
}

/// Which keys the nodes of the store seal with.
pub fn keyring() -> Key {
    made("meta/keyring".to_owned())
}

/// The records of all sessions.
pub fn sessions() -> Range {
    Range::prefix("ses/")
}

/// The session whose record stands at `key`; `None` for every other key.
pub fn parse_session_key(key: &Key) -> Option<LeaseId> {
    parse_session(std::str::from_utf8(key).ok()?.strip_prefix("ses/")?)
}

/// The record of a session.
pub fn session(id: LeaseId) -> Key {
    made(format!("ses/{id}"))
}

/// A key made of checked names. The longest without a pair's name in it is one of an observation: 6 + 63 + 128 + 2 × 3 × 255
/// is below 2,048, and escaping leaves no NUL.
fn made(text: String) -> Key {
    Key::new(text).expect("checked names make a short key without NUL")
}
