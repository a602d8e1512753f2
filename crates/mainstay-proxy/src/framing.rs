//! The head guard: a byte machine that reads HTTP/1 and follows message boundaries itself.
//!
//! Two servers that disagree on where a message ends can be made to see different requests in the
//! same bytes (request smuggling; Linhart et al. 2005, Kettle 2019). Most parsers forgive what an
//! upstream may read differently: they drop a `Content-Length` beside `Transfer-Encoding`, keep one
//! of several equal lengths, and take a bare LF for a line end. By the time a stage sees the
//! request, the evidence is gone. So these machines read the bytes first, let only messages through
//! that can be read in one way, and refuse the rest with the name of the [`Rule`].
//!
//! [`Guard`] reads the requests of a client, [`ResponseGuard`] the answers of an upstream. Both are
//! pure: bytes go in, a [`Verdict`] comes out. An *element* (head, chunk line, end of a chunk,
//! trailer section) is passed whole or not at all: the caller keeps what was not passed and
//! presents it again with what came next. That costs a copy only when an element was cut by a read,
//! and it means that no line is read twice, however slowly the bytes come. A line is
//! judged when its LF is there, so the verdict does not depend on how the bytes were cut.
//!
//! Over HTTP/2 the framing is h2's work, and [`check_h2`] looks at what it leaves to others.
//!
//! The machines are also the parsers: [`crate::http1`] takes heads and bodies from where they found them.
//!
//! What is refused stands in [`Rule`], one entry each; `security.md` 12.1 and `calls.md` 11.3 are
//! the source. The form of HTTP/1.1 is RFC 9112.

mod body;
mod field;
mod h2;
mod host;
mod request;
mod response;
mod rule;
mod scan;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use field::{Line, Span, forbidden_trailer, line};
pub use h2::check_h2;
pub use request::Guard;
pub(crate) use request::Head as RequestHead;
pub(crate) use response::Head as ResponseHead;
pub use response::{Asked, ResponseGuard};
pub use rule::{Refusal, Rule};

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest head, in bytes: start line, fields, and the empty lines around them.
    pub head_bytes_max: usize,
    /// Most fields of a head.
    pub headers_max: usize,
    /// Longest request target, in bytes; from 65,535 on `http` refuses, without naming a rule.
    pub uri_bytes_max: usize,
    /// Longest body, in bytes of content. Where routes differ, the largest of them: the guard
    /// does not know the route.
    pub body_bytes_max: u64,
    /// Whether `CONNECT` passes; only a sidecar's outbound listener tunnels.
    pub connect: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 << 10,
            headers_max: 100,
            uri_bytes_max: 8 << 10,
            body_bytes_max: 10 << 20,
            connect: false,
        }
    }
}

/// What a machine says about the bytes it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first `passed` bytes may go on. The rest begins an element that is not complete: show
    /// it again, at the front, with what comes next.
    Pass {
        /// Bytes that may go on.
        passed: usize,
    },
    /// The first `passed` bytes may go on; they end with a request to switch protocols. What
    /// follows can only be read once that is answered: if it was declined, call [`Guard::resume`]
    /// and show the rest again, else the rest is not HTTP.
    Hold {
        /// Bytes that may go on.
        passed: usize,
    },
    /// The first `passed` bytes may go on, nothing after them ever.
    Refuse {
        /// Bytes that may go on.
        passed: usize,
        /// Why, and whether the broken message had begun to pass.
        refusal: Refusal,
    },
}

/// What a stream of messages goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// A head of so many bytes.
    Head(usize),
    /// So many bytes of content.
    Content(usize),
    /// So many bytes between content: chunk lines and their ends.
    Framing(usize),
    /// A trailer section of so many bytes.
    Trailers(usize),
    /// Nothing that is whole: show it again with what comes next.
    Partial,
    /// A switch of protocols was asked for. What follows can only be read once that is answered: if
    /// it was declined, call [`Guard::resume`], else the rest is not HTTP.
    Held,
}

impl From<body::Piece> for Element {
    fn from(piece: body::Piece) -> Self {
        match piece {
            body::Piece::Content(len) => Self::Content(len),
            body::Piece::Framing(len) => Self::Framing(len),
            body::Piece::Trailers(len) => Self::Trailers(len),
            body::Piece::Partial => Self::Partial,
        }
    }
}

/// Where in the stream a machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between messages; nothing of the next head has come.
    Idle,
    /// In a head.
    Head,
    /// In a body.
    Body {
        /// Bytes of content so far.
        received: u64,
    },
    /// A switch of protocols was asked for and is not answered.
    Held,
    /// Not HTTP any more: everything passes; of an upstream only.
    Tunnel,
    /// The last message has passed, or one was refused: nothing passes any more.
    Ended,
}

impl Verdict {
    /// Bytes that may go on.
    pub fn passed(&self) -> usize {
        match *self {
            Self::Pass { passed } | Self::Hold { passed } | Self::Refuse { passed, .. } => passed,
        }
    }
}
