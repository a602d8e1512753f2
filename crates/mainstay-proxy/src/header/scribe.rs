//! Writes header values, all of a request's into one piece of memory.
//!
//! A value made of a `String` is an allocation of its own, and another when it is first copied, as
//! a call that may be sent again copies its head. Values cut from one buffer share that, and their
//! copies are counts. The digits are written by hand: the formatting of the standard library costs
//! several times the digits themselves.

use std::cell::Cell;
use std::fmt::Write;
use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use http::header::HeaderValue;
use mainstay_resilience::deadline::Digits;

/// Writes header values; see the [module](self).
#[derive(Debug)]
pub struct Scribe(BytesMut);

/// What the gateway writes for a usual request: an id of 32 bytes, a trace of 55, a host, an
/// address of at most 45, a port. What is longer may cost an allocation more.
const ROOM_BYTES: usize = 192;

/// A page is good for some ten requests of a thread, and lives as long as any of them.
const PAGE_BYTES: usize = 2_048;

thread_local! {
    /// The page of this thread, from where the last scribe has stopped.
    static PAGE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

impl Scribe {
    /// A scribe with room for the values of a request.
    pub fn new() -> Self {
        let page = PAGE.take();
        let room = page.capacity() - page.len();
        Self(if room < ROOM_BYTES { BytesMut::with_capacity(PAGE_BYTES) } else { page })
    }

    /// Writes `text` as it is.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.put_slice(text.as_bytes());
        self
    }

    /// Writes `number` in 16 hexadecimal digits.
    pub fn hex(&mut self, number: u64) -> &mut Self {
        let [high, low] = [number >> 32, number & u64::from(u32::MAX)];
        self.0.put_u64(digits(high));
        self.0.put_u64(digits(low));
        self
    }

    /// Writes `byte` in two hexadecimal digits.
    pub fn hex_byte(&mut self, byte: u8) -> &mut Self {
        let [.., tens, ones] = digits(byte.into()).to_be_bytes();
        self.0.put_slice(&[tens, ones]);
        self
    }

    /// Writes `number` in decimal digits.
    pub fn number(&mut self, number: u32) -> &mut Self {
        self.0.put_slice(Digits::of(number).as_bytes());
        self
    }

    /// Writes `address` as it is written in a list of hops.
    pub fn address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => {
                let mut page = [0; V4_BYTES_MAX];
                let mut end = 0;
                for octet in address.octets() {
                    let place =
                        [b'.', b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
                    let skipped = 2 - usize::from(octet > 9) - usize::from(octet > 99);
                    for digit in std::iter::once(&place[0]).chain(&place[1 + skipped..]) {
                        page[end] = *digit;
                        end += 1;
                    }
                }
                // The first dot stands before the address.
                self.0.put_slice(&page[1..end]);
                self
            }
            IpAddr::V6(address) => {
                let _always_room = write!(self.0, "{address}");
                self
            }
        }
    }

    /// The value written since the last one was cut; `None` when it is not legal as one.
    pub fn cut(&mut self) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(self.0.split().freeze()).ok()
    }
}

/// The eight hexadecimal digits of the lower half of `word`, as the bytes of one word, the first
/// digit highest: their values are spread over its bytes and turned into letters all at once.
fn digits(word: u64) -> u64 {
    let word = (word << 16 | word) & 0x0000_FFFF_0000_FFFF;
    let word = (word << 8 | word) & 0x00FF_00FF_00FF_00FF;
    let word = (word << 4 | word) & 0x0F0F_0F0F_0F0F_0F0F;
    // One where the value is 10 or more, and so a letter.
    let letters = ((word + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    word + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
}

/// Three digits and a dot for each of four bytes.
const V4_BYTES_MAX: usize = 16;

impl Drop for Scribe {
    fn drop(&mut self) {
        self.0.clear(); // What was written and not cut is nobody's.
        PAGE.set(std::mem::take(&mut self.0));
    }
}

impl Default for Scribe {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(write: impl FnOnce(&mut Scribe) -> &mut Scribe, want: &str) {
        let mut scribe = Scribe::new();
        let value = write(scribe.text("before").cut().map(|_| &mut scribe).expect("legal")).cut();
        assert_eq!(value.expect("legal"), want);
    }

    #[test]
    fn values_are_cut_one_behind_the_other() {
        check(|s| s.text("a").text("b"), "ab");
        check(|s| s.hex(0xab).text("-").hex_byte(0xF), "00000000000000ab-0f");
        check(|s| s.hex(0x0123_4567_89ab_cdef), "0123456789abcdef");
        check(|s| s.hex(u64::MAX), &"f".repeat(16));
        check(|s| s.number(0).text(" ").number(65_535), "0 65535");
        check(|s| s.address(IpAddr::from([10, 0, 200, 1])), "10.0.200.1");
        check(|s| s.address(IpAddr::from([255, 99, 100, 255])), "255.99.100.255");
        check(|s| s.address("2001:db8::7".parse().expect("legal")), "2001:db8::7");
        assert_eq!(Scribe::new().text("a\nb").cut(), None);
    }
}
