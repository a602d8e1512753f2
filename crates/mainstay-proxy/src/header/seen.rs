//! What the fields of a request are about, found out in one pass over their names.
//!
//! The gateway has to do with some two dozen names, of which a usual request brings two or three.
//! To look each of them up costs a hash and a probe, there or not; one pass costs a few
//! comparisons a field, and what was not seen need not be looked for.

use http::header::HeaderMap;

use super::begins;
use crate::forwarded::is_x_forwarded;

/// Which fields that concern the gateway a request has. What is false here is surely not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Fields of one hop.
    pub hop_by_hop: bool,
    /// `Upgrade`, which is one of them.
    pub upgrade: bool,
    /// `Expect`.
    pub expect: bool,
    /// How long the call may take, by any of the names for that.
    pub patience: bool,
    /// Which attempt of the caller's it is, by any of the names for that.
    pub attempt: bool,
    /// What only we may say of who is calling, in any spelling.
    pub identity: bool,
    /// Hops on the way, by any of the names for them and in any spelling.
    pub forwarded: bool,
    /// `x-request-id`.
    pub request_id: bool,
    /// `traceparent` or `tracestate`.
    pub trace: bool,
    /// `Content-Type`.
    pub content_type: bool,
    /// `Content-Length`.
    pub content_length: bool,
    /// `User-Agent`.
    pub user_agent: bool,
    /// `Referer`.
    pub referer: bool,
}

impl Seen {
    /// Looks at the names in `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            seen.note(name.as_str());
        }
        seen
    }

    fn note(&mut self, name: &str) {
        match name {
            "content-type" => self.content_type = true,
            "content-length" => self.content_length = true,
            "user-agent" => self.user_agent = true,
            "referer" => self.referer = true,
            "upgrade" => (self.upgrade, self.hop_by_hop) = (true, true),
            "connection" | "te" | "transfer-encoding" | "keep-alive" | "proxy-connection"
            | "http2-settings" => self.hop_by_hop = true,
            "expect" => self.expect = true,
            "grpc-timeout" => self.patience = true,
            "grpc-previous-rpc-attempts" => self.attempt = true,
            "traceparent" | "tracestate" => self.trace = true,
            "x-request-id" => self.request_id = true,
            "forwarded" => self.forwarded = true,
            _ => self.note_family(name),
        }
    }

    /// Families of names, which may be spelled with `_` for `-`.
    fn note_family(&mut self, name: &str) {
        match name.as_bytes().first() {
            Some(b'm') if begins(name, "mainstay-") => {
                (self.identity, self.patience, self.attempt) = (true, true, true);
            }
            Some(b'x') if is_x_forwarded(name) => {
                (self.identity, self.forwarded) = (true, true);
            }
            Some(b'x') if begins(name, "x-mainstay-") => self.identity = true,
            _ => (),
        }
    }
}
