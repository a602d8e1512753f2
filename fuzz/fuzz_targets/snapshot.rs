//! Whatever bytes are given as a snapshot: read to the end or refused, never a panic, and never
//! more than a block of them in memory. What is read twice is read alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_store::snapshot::file::verify;

fuzz_target!(|bytes: &[u8]| {
    let once = verify(bytes).ok();
    assert_eq!(verify(bytes).ok(), once);
    // Past the compression, where a fuzzer would hardly get by itself.
    if let Ok(packed) = zstd::encode_all(bytes, 1) {
        drop(verify(packed.as_slice()));
    }
});
