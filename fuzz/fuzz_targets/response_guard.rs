//! The verdict on an answer does not depend on how its bytes are cut. The first byte of the input
//! chooses what was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_proxy::framing::{Asked, Refusal, ResponseGuard, Verdict};

#[path = "../../crates/mainstay-proxy/src/framing/reference.rs"]
#[expect(dead_code, reason = "answers have no second reader")]
mod reference;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let all = [Asked::Plain, Asked::Head, Asked::Upgrade, Asked::Connect, Asked::Nothing];
    let asked = all[usize::from(choice) % all.len()];
    let feed = |cuts: &[usize]| {
        let mut guard = ResponseGuard::new(65_536);
        guard.ask(asked);
        reference::run(bytes, cuts, |bytes| guard.feed(bytes))
    };
    assert_eq!(feed(&[1]), feed(&[]));
});
