//! The streams of the API, and what goes with them, over gRPC: the package `mainstay.v1`.
//!
//! The contract stands in `proto/mainstay/v1/*.proto`; the types here are generated from it and
//! committed, so that a build needs no compiler for it. A test compares both, and writes them anew
//! with `UPDATE_GOLDEN=1`.

use std::fmt;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
mod v1;

pub use v1::*;

/// All files of the contract, as a `google.protobuf.FileDescriptorSet`: what reflection answers by.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("grpc/v1.bin");

impl fmt::Debug for SessionCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, secret: _ } = self;
        f.debug_struct("SessionCredential").field("session", session).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConfigItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, secret, content: _ } = self;
        f.debug_struct("ConfigItem")
            .field("format", format)
            .field("secret", secret)
            .finish_non_exhaustive()
    }
}
