//! HTTP/1 as both sides of the proxy write and read it.
//!
//! The [guard](crate::framing) has to read every byte of a head and of the framing of a body anyway,
//! and it is stricter than any parser behind it. So it is the parser: where it found a method, a
//! field or a chunk, the bytes are taken from, and nothing is read a second time. What is left for
//! this module is to make `http`'s types of what was found ([`read`]), and to write messages
//! ([`write`](mod@write), [`Outgoing`]). Reading is pure; an [`Outgoing`] writes to whatever it is given.
//!
//! A message of ours is written anew from its parts, and its framing follows from its body alone:
//! a length when that is known, else chunks. No byte of framing that came in goes out.

mod outgoing;
mod read;
pub(crate) mod room;
pub(crate) mod spare;
mod write;

pub(crate) use outgoing::{Outgoing, SendError};
pub(crate) use read::{fields, request_head, trailers};
pub(crate) use write::{
    DateText, Frame, request_head as write_request_head, response_head as write_response_head,
};

/// Bytes asked for in a read that may bring a head.
pub(crate) const READ_BYTES: usize = 8_192;

/// Most bytes asked for in one read of a body.
pub(crate) const BODY_READ_BYTES_MAX: usize = 65_536;
