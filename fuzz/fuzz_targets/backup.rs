//! Whatever bytes are given as a backup: read to the end or refused, never a panic, and never more
//! than a buffer of a part in memory. What is read twice is read alike.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use mainstay::backup::archive::{Invalid, read};

/// The manifest and how many bytes of parts there were, or nothing.
fn whole(bytes: &[u8]) -> Option<(String, u64)> {
    let mut sum = 0;
    let manifest = read(bytes, |_manifest, _part, part: &mut dyn Read| {
        sum += std::io::copy(part, &mut std::io::sink()).unwrap_or(0);
        Ok::<(), Invalid>(())
    });
    Some((format!("{:?}", manifest.ok()?), sum))
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(whole(bytes), whole(bytes));
    // Past the compression, where a fuzzer would hardly get by itself.
    if let Ok(packed) = zstd::encode_all(bytes, 1) {
        whole(&packed);
    }
});
