//! Whatever bytes are given as heads, keys, names of tiles, tiles and records of an audit log: read
//! or refused, never a panic; what is read is written as it was; no bytes are a log that fits a head
//! they are not the log of.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_security::audit::canonical::canonical;
use mainstay_security::audit::tile::{self, Tile};
use mainstay_security::audit::{Head, Note, PublicKey, Verifier};
use mainstay_security::audit::tree::Hash;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(note) = Note::parse(text) {
            assert_eq!(Note::parse(&note.to_string()).as_ref(), Ok(&note));
            assert_eq!(Note::parse_all(text), Ok(vec![note]));
        }
        if let Ok(key) = PublicKey::parse(text) {
            assert_eq!(key.to_string(), text.trim());
        }
        if let Some(tile) = Tile::parse(text) {
            assert_eq!(tile.to_string(), text);
        }
        if let Ok(value) = serde_json::from_str(text) {
            let once = canonical(&value);
            let read = serde_json::from_str(&once).expect("what is canonical is JSON");
            assert_eq!(canonical(&read), once);
        }
    }
    let hashes = tile::read(bytes).unwrap_or_default();
    let records: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').take(300).collect();
    let root = Hash::leaf(b"another log");
    let head = Head { origin: "log".to_owned(), size: records.len() as u64, root };
    if let Ok(mut verifier) = Verifier::new(vec![head]) {
        let looked = verifier.bundle(&records, &hashes);
        assert!(looked.is_err() || verifier.finish().is_err());
    }
});
