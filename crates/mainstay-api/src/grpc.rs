//! The streams of the API, and what goes with them, over gRPC: the package `mainstay.v1`.
//!
//! The contract stands in `proto/mainstay/v1/*.proto`; the types here are generated from it and
//! committed, so that a build needs no compiler for it. A test compares both, and writes them anew
//! with `UPDATE_GOLDEN=1`.

use std::fmt;

use prost::Message as _;

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

impl RegistryWatchResponse {
    /// The same in messages of at most `bytes_max` bytes of instances, each with one at least:
    /// clients refuse what is larger than their limit. All but the last say that there is `more`,
    /// and bear no revision to come back with.
    pub fn in_parts(self, bytes_max: usize) -> Vec<Self> {
        use registry_watch_response::Item;
        let Self { revision, item } = self;
        let (whole, mut view): (fn(ServiceView) -> Item, ServiceView) = match item {
            Some(Item::Snapshot(view)) => (Item::Snapshot, view),
            Some(Item::Change(view)) => (Item::Change, view),
            item => return vec![Self { revision, item }],
        };
        let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        for instance in std::mem::take(&mut view.instances) {
            let size = instance.encoded_len();
            if bytes_max < bytes + size && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.push(instance);
        }
        let message = |instances, more| {
            let revision = if more { None } else { revision };
            let item = Some(whole(ServiceView { instances, more, ..view.clone() }));
            Self { revision, item }
        };
        let mut messages: Vec<Self> = parts.into_iter().map(|part| message(part, true)).collect();
        messages.push(message(part, false));
        messages
    }
}

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

impl fmt::Debug for ConfigItemPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, content: _, secret, schema_json: _ } = self;
        f.debug_struct("ConfigItemPut")
            .field("format", format)
            .field("secret", secret)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::registry_watch_response::Item;
    use super::*;

    #[test]
    fn a_long_list_comes_in_parts_that_come_to_the_whole() {
        let instance = |n: u32| Instance { id: format!("i{n:04}"), ..Instance::default() };
        let all: Vec<Instance> = (0..1_000).map(instance).collect();
        let view = ServiceView { revision: 7, instances: all.clone(), ..ServiceView::default() };
        let whole = RegistryWatchResponse { revision: Some(7), item: Some(Item::Change(view)) };
        let parts = whole.clone().in_parts(1_000);
        assert!(7 <= parts.len(), "{}", parts.len());
        let mut found = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let is_last = n + 1 == parts.len();
            assert!(part.encoded_len() < 2_000);
            assert_eq!(part.revision, is_last.then_some(7));
            let Some(Item::Change(view)) = &part.item else { panic!("{part:?}") };
            assert_eq!((view.revision, view.more), (7, !is_last));
            found.extend(view.instances.iter().cloned());
        }
        assert_eq!(found, all);
        // What fits comes as it is, and so does what is no list; one that is too large by itself
        // comes alone.
        assert_eq!(whole.clone().in_parts(1 << 20), std::slice::from_ref(&whole));
        let bookmark = RegistryWatchResponse { revision: Some(8), item: None };
        assert_eq!(bookmark.clone().in_parts(0), [bookmark]);
        assert_eq!(whole.in_parts(0).len(), 1_000);
    }
}
