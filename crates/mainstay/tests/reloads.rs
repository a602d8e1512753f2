//! A thousand reloads under load: nothing fails, and what a reload needs it gives back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/load.rs"]
mod load;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/support.rs"]
mod support;

use shop::Shop;

/// A debug build spends most of two cores on reloading a hundred routes again and again.
const PER_SECOND: u32 = 60;

/// Not a test: the child process behind the gateway.
#[test]
fn a_backend() {
    backend::serve_if_asked();
}

#[test]
fn a_thousand_reloads_lose_nothing_and_leak_nothing() {
    let mut shop = Shop::open("thousand", "least_request", PER_SECOND);
    shop.be_patient();
    shop.reload(0..200);
    let before = shop.gateway.holds();
    shop.reload(200..1_000);
    let after = shop.gateway.holds();
    shop.closes(0);
    assert_eq!((after.files, after.threads), (before.files, before.threads));
    // Connections come and go with the load; a reload that kept one would show eight hundred more.
    assert!(after.sockets < before.sockets + 400, "{before:?} {after:?}");
    // A snapshot of a hundred routes with their machines is more than 32 KiB; eight hundred were
    // kept if one is kept at each reload.
    let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(grown < 800 * (16 << 10), "{grown} bytes more: {before:?} {after:?}");
}
