//! A chunked body that passed is read alike by another parser, and ends at the same byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_proxy::framing::{Guard, Limits, Refusal, Verdict};

#[path = "../../crates/mainstay-proxy/src/framing/reference.rs"]
mod reference;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fuzz_target!(|body: &[u8]| {
    let bytes = [HEAD, body].concat();
    let feed = |cuts: &[usize]| {
        let mut guard = Guard::new(Limits::default());
        let (passed, refusal) = reference::run(&bytes, cuts, |bytes| guard.feed(bytes));
        (passed, refusal, guard.heads())
    };
    let whole = feed(&[]);
    assert_eq!(feed(&[1]), whole, "byte by byte");
    assert_eq!(reference::read_again(&whole.0), whole.2);
});
