//! What the guard lets pass, another parser reads as the same number of requests, however the bytes
//! are cut. The first byte of the input chooses the cuts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_proxy::framing::{Guard, Limits, Refusal, Verdict};

#[path = "../../crates/mainstay-proxy/src/framing/reference.rs"]
mod reference;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let feed = |cuts: &[usize]| {
        let mut guard = Guard::new(Limits::default());
        let (passed, refusal) = reference::run(bytes, cuts, |bytes| guard.feed(bytes));
        (passed, refusal, guard.heads())
    };
    let whole = feed(&[]);
    assert_eq!(feed(&[1]), whole, "byte by byte");
    assert_eq!(feed(&[usize::from(cut) + 1, 3]), whole, "in pieces");
    assert_eq!(reference::read_again(&whole.0), whole.2);
});
