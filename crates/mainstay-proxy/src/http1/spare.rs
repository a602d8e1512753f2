//! Maps that are used again: one of header fields and one of extensions a thread.
//!
//! As a rule a head is written in the turn in which it was read, so that one map serves one message
//! after the other: its memory is asked for once and stays in the processor's cache.

use std::cell::Cell;

use http::{Extensions, HeaderMap};

/// Fields that are usually added on the way: room for them spares the map from growing.
const ROOM: usize = 10;

/// A map that has grown to more than this many fields is let go.
const FIELDS_MAX: usize = 64;

thread_local! {
    static FIELDS: Cell<Option<HeaderMap>> = const { Cell::new(None) };
    static EXTENSIONS: Cell<Option<Extensions>> = const { Cell::new(None) };
}

/// An empty map for a head of `count` fields.
pub(crate) fn fields(count: usize) -> HeaderMap {
    let mut fields = FIELDS.take().unwrap_or_default();
    fields.reserve(count + ROOM);
    fields
}

/// No extensions yet.
pub(crate) fn extensions() -> Extensions {
    EXTENSIONS.take().unwrap_or_default()
}

/// Takes back the fields of a head that is written.
pub(crate) fn give_back(mut fields: HeaderMap) {
    if (1..=FIELDS_MAX).contains(&fields.capacity()) {
        fields.clear();
        FIELDS.set(Some(fields));
    }
}

/// Takes back the extensions of a request that is written.
pub(crate) fn give_back_extensions(mut extensions: Extensions) {
    extensions.clear();
    EXTENSIONS.set(Some(extensions));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_empty_when_it_comes_again() {
        let mut first = fields(3);
        first.append("x", "1".parse().unwrap());
        first.append("x", "2".parse().unwrap());
        let room = first.capacity();
        give_back(first);
        let second = fields(3);
        assert_eq!((second.len(), second.capacity()), (0, room));
        assert!(!second.contains_key("x"));
        let mut long = fields(FIELDS_MAX + 1);
        long.append("x", "1".parse().unwrap());
        give_back(long);
        assert!(fields(0).capacity() <= FIELDS_MAX, "a long one is not kept");
        let mut known = extensions();
        known.insert(7);
        give_back_extensions(known);
        assert_eq!(extensions().get::<i32>(), None);
    }
}
