//! Backups that are whole, cut, changed, and put together by hand.

use std::io::{Read, Write};
use std::sync::Arc;

use mainstay_coord::Keyring;
use mainstay_core::ManualClock;
use mainstay_store::{Batch, Memory, Put, Store};
use proptest::prelude::*;

use super::archive::{self, Invalid, Piece};
use super::manifest::{FORMAT, Manifest, Part, StoreAsOf, is_safe};
use super::taking::{Beside, take};
use super::verifying::{Keys, verify};
use crate::settings::Sources;

const PASSPHRASE: &str = "correct horse battery";

/// A backup of a small store, with configuration and keys.
async fn backup() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mainstay.toml");
    std::fs::write(&file, "[server]\n").unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(folder.path().join("conf.d/10-a.toml"), "[registry]\n").unwrap();
    let store = Memory::new(ManualClock::default());
    for number in 0..50 {
        let key = format!("ckv/{number:03}").as_str().try_into().unwrap();
        store.apply(Batch::new().then(Put::new(key, vec![b'x'; number * 10]))).await.unwrap();
    }
    let keyring = Keyring::fresh(0);
    let sources = Sources { file: Some(file), ..Sources::default() };
    let beside = Beside { sources: Some(&sources), keys: Some((&keyring, PASSPHRASE)) };
    let mut taken = take(Arc::new(store), beside, folder.path()).await.unwrap();
    let mut bytes = Vec::new();
    taken.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, taken.bytes);
    bytes
}

/// Reads all of it, without what a restore into memory costs.
fn read(bytes: &[u8]) -> Result<Manifest, Invalid> {
    archive::read(bytes, |_, _, _| Ok::<(), Invalid>(()))
}

#[tokio::test]
async fn a_backup_holds_everything_and_says_so() {
    let bytes = backup().await;
    let verified = verify(bytes.as_slice(), Some(PASSPHRASE)).unwrap();
    let names: Vec<&str> = verified.manifest.parts.iter().map(|part| &*part.name).collect();
    let all =
        ["config/mainstay.toml", "config/conf.d/10-a.toml", "keys/keyring.json", "store.msnap"];
    assert_eq!(names, all);
    assert_eq!(verified.restored.entries, 50);
    assert!(matches!(verified.keys, Keys::Opened));
    assert!(matches!(verify(bytes.as_slice(), None).unwrap().keys, Keys::Sealed));
    let wrong = verify(bytes.as_slice(), Some("not this one, sorry")).unwrap_err().to_string();
    assert!(wrong.contains("keys/keyring.json") && wrong.contains("passphrase"), "{wrong}");
}

#[tokio::test]
async fn a_backup_that_was_cut_is_refused_wherever() {
    let bytes = backup().await;
    for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        assert!(read(&bytes[..length]).is_err(), "cut to {length} of {}", bytes.len());
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(read(&longer).is_err());
}

#[tokio::test]
async fn a_changed_byte_is_refused_or_changes_nothing() {
    let bytes = backup().await;
    let whole = read(&bytes).unwrap();
    for at in (0..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        // Fields of the frame's header that say nothing of its content, as the size of a window.
        if let Ok(manifest) = read(&changed) {
            assert_eq!(manifest, whole, "byte {at}");
        }
    }
    // Inside the compression, so that no checksum of the frame helps.
    let inside = zstd::decode_all(bytes.as_slice()).unwrap();
    let last = inside.iter().rposition(|&byte| byte != 0).unwrap();
    for at in (0..last).step_by(11) {
        let mut changed = inside.clone();
        changed[at] ^= 0x10;
        let packed = zstd::encode_all(changed.as_slice(), 1).unwrap();
        if let Ok(manifest) = read(&packed) {
            assert_eq!(manifest.parts, whole.parts, "byte {at} inside");
        }
    }
}

/// A tar of `members`, packed, whatever they are called.
fn packed(members: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes, kind) in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap()
}

fn manifest(names: &[&str]) -> Vec<u8> {
    let part = |name: &&str| Piece::bytes(*name, b"x".to_vec()).part();
    let manifest = Manifest {
        mainstay_backup: FORMAT,
        product: "0.1.0".to_owned(),
        created_unix_seconds: 0,
        store: StoreAsOf {
            id: "0".to_owned(),
            backend: "embedded".to_owned(),
            revision: 1,
            fence_base: 0,
        },
        parts: names.iter().map(part).collect::<Vec<Part>>(),
        left_out: Vec::new(),
    };
    serde_json::to_vec(&manifest).unwrap()
}

/// Refused, and the reason says `why`.
#[track_caller]
fn refused(members: &[(&str, &[u8], tar::EntryType)], why: &str) {
    let error = read(&packed(members)).unwrap_err();
    let text = crate::report::causes(&error);
    assert!(text.contains(why), "no {why:?} in {text:?}");
}

#[test]
fn what_was_put_together_by_hand_is_refused_with_the_place() {
    use tar::EntryType::{Regular, Symlink};
    let good = manifest(&["store.msnap"]);
    let first = ("manifest.json", good.as_slice(), Regular);
    let store = ("store.msnap", b"x".as_slice(), Regular);
    assert!(read(&packed(&[first, store])).is_ok());
    refused(&[], "no backup");
    refused(&[store], "no backup");
    refused(&[("manifest.json", b"{}", Regular)], "no backup");
    let newer = br#"{"mainstay_backup":2}"#;
    refused(&[("manifest.json", newer, Regular)], "format 2");
    refused(&[first], "store.msnap: it is missing");
    refused(&[first, ("store.msnap", b"y", Regular)], "store.msnap: its SHA-256");
    refused(&[first, ("store.msnap", b"xy", Regular)], "it has 2 bytes");
    refused(&[first, ("other", b"x", Regular)], "`other` stands in its place");
    refused(&[first, ("store.msnap", b"x", Symlink)], "no plain file");
    refused(&[first, store, store], "something follows");
    for names in [&["../store.msnap", "store.msnap"][..], &["/etc/passwd", "store.msnap"]] {
        refused(&[("manifest.json", &manifest(names), Regular)], "is no name of a part");
    }
    let twice = manifest(&["store.msnap", "store.msnap"]);
    refused(&[("manifest.json", &twice, Regular)], "stands twice");
    let without = manifest(&["keys/keyring.json"]);
    refused(&[("manifest.json", &without, Regular)], "last part is not `store.msnap`");
}

#[test]
fn a_bomb_is_refused_before_it_fills_memory() {
    // A manifest of 8 GiB of blanks, in a few kilobytes of zstd.
    let mut header = tar::Header::new_ustar();
    header.set_path("manifest.json").unwrap();
    header.set_size(8 << 30);
    header.set_mode(0o600);
    header.set_cksum();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(header.as_bytes()).unwrap();
    encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    let error = read(&encoder.finish().unwrap()).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn names_lead_nowhere_else() {
    for good in ["store.msnap", "config/conf.d/10-a.toml", "keys/keyring.json", "a/b c@1+2"] {
        assert!(is_safe(good), "{good}");
    }
    let long = "x".repeat(101);
    for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a\0", "ä", &long] {
        assert!(!is_safe(bad), "{bad:?}");
    }
    assert!(!is_safe("manifest.json"));
}

proptest! {
    #[test]
    fn whatever_bytes_are_given_they_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&zstd::encode_all(bytes.as_slice(), 1).unwrap()).is_err());
    }
}
