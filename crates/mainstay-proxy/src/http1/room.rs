//! Where answers are read to: one buffer a thread, for as long as one is enough.
//!
//! A connection that waits for its peer holds no buffer. It is lent one when something has come,
//! and gives it back once what came is passed on. As a rule an answer is written before the next
//! one is read, so the same memory serves one connection after the other and stays in the
//! processor's cache. Where a slow client still holds the last answer, the next gets memory of its
//! own.

use std::cell::Cell;

use bytes::BytesMut;

use super::{BODY_READ_BYTES_MAX, READ_BYTES};

/// A head and a body that is taken together with it, in one read; what is left over shows that
/// there was no more to read.
const ROOM_BYTES: usize = READ_BYTES + BODY_READ_BYTES_MAX;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// An empty buffer with room for one read.
pub(crate) fn lend() -> BytesMut {
    let mut room = SPARE.take();
    room.reserve(ROOM_BYTES);
    room
}

/// Takes an empty `buffer` back. Parts of it may still be in use: whoever is lent it next gets
/// that memory once they are gone, and other memory before.
pub(crate) fn give_back(buffer: &mut BytesMut) {
    let buffer = std::mem::take(buffer);
    if buffer.capacity() != 0 {
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_lent_again_once_nobody_reads_it() {
        let mut first = lend();
        let at = first.as_ptr();
        first.extend_from_slice(b"answer");
        let held = first.split().freeze();
        give_back(&mut first);
        let mut second = lend();
        assert_ne!(second.as_ptr(), at, "{held:?} is still there");
        second.extend_from_slice(b"another");
        let at = second.as_ptr();
        drop(second.split());
        give_back(&mut second);
        let third = lend();
        assert_eq!((third.as_ptr(), third.is_empty()), (at, true));
        assert!(ROOM_BYTES <= third.capacity());
        assert_eq!(held, "answer");
    }
}
