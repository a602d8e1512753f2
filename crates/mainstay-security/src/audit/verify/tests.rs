//! Logs that were tampered with, by someone who changes records alone, their hashes too, or even the
//! numbers in them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::canonical::canonical;

fn record(seq: u64, text: &str) -> Vec<u8> {
    canonical(&json!({ "seq": seq, "action": "switch:write", "reason": text })).into_bytes()
}

/// A log of `size` records.
fn log(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(|seq| record(seq, &format!("why {seq}"))).collect()
}

fn hashes(log: &[Vec<u8>]) -> Vec<Hash> {
    log.iter().map(|record| Hash::leaf(record)).collect()
}

fn head(log: &[Vec<u8>], size: usize) -> Head {
    let mut tree = Frontier::default();
    for hash in hashes(&log[..size]) {
        tree.push(hash);
    }
    Head { origin: "log".to_owned(), size: size as u64, root: tree.root() }
}

fn verify(log: &[Vec<u8>], kept: &[Hash], heads: Vec<Head>) -> Result<Verified, Bad> {
    let mut verifier = Verifier::new(heads)?;
    let count = log.len().max(kept.len()).div_ceil(256);
    for number in 0..count {
        let range = |len: usize| (number * 256).min(len)..((number + 1) * 256).min(len);
        let records: Vec<&[u8]> = log[range(log.len())].iter().map(Vec::as_slice).collect();
        verifier.bundle(&records, &kept[range(kept.len())])?;
    }
    verifier.finish()
}

/// What is found of a log of 600 with heads at 100, 300 and 600, once `change` was made to it. The
/// hashes kept are those of before.
#[track_caller]
fn check(change: impl FnOnce(&mut Vec<Vec<u8>>), want: Option<(u64, What)>) {
    let good = log(600);
    let heads = [100, 300, 600].map(|size| head(&good, size)).to_vec();
    let mut bad = good.clone();
    change(&mut bad);
    let found = verify(&bad, &hashes(&good), heads.clone());
    assert_eq!(found.err().map(|bad| (bad.seq, bad.what)), want, "records alone");
    // Whoever makes the hashes anew is found out all the same, by numbers or by a head.
    let found = verify(&bad, &hashes(&bad), heads);
    assert_eq!(found.is_err(), want.is_some(), "hashes too: {found:?}");
    if let (Err(found), Some((seq, _))) = (found, want) {
        // Of two with one number it is the second that stands wrong.
        assert!(found.seq <= seq + 1, "{found} is after {seq}");
    }
}

#[test]
fn a_log_that_is_as_it_was_is_found_so() {
    check(|_| {}, None);
    let good = log(600);
    let verified = verify(&good, &hashes(&good)[..512], vec![head(&good, 300)]).unwrap();
    let Verified { size, signed, heads, removed, .. } = verified;
    assert_eq!((size, signed, heads, removed), (600, 300, 1, 0));
    let nothing = verify(&[], &[], vec![head(&good, 0)]).unwrap();
    assert_eq!((nothing.size, nothing.root), (0, Hash::empty()));
}

#[test]
fn the_first_record_that_is_not_as_it_was_is_named() {
    check(|log| log[0][9] ^= 1, Some((0, What::Changed)));
    check(|log| log[345][3] ^= 64, Some((345, What::Changed)));
    check(|log| log[599][20] ^= 128, Some((599, What::Changed)));
    check(|log| drop(log.remove(17)), Some((17, What::Missing)));
    check(|log| drop(log.remove(599)), Some((599, What::Missing)));
    check(|log| log.insert(40, record(40, "never")), Some((40, What::Inserted)));
    check(|log| log.swap(300, 302), Some((300, What::Reordered)));
    check(|log| log.swap(511, 510), Some((510, What::Reordered)));
}

#[test]
fn whoever_makes_hashes_and_numbers_anew_meets_the_heads() {
    let good = log(600);
    let heads = [100, 300, 600].map(|size| head(&good, size)).to_vec();
    let mut bad = good.clone();
    bad[250] = record(250, "a nicer story");
    let found = verify(&bad, &hashes(&bad), heads.clone()).unwrap_err();
    assert_eq!((found.seq, found.what), (100, What::Fork));
    assert!(found.why.contains("size 300"), "{found}");
    // Cut off at a place no head is of.
    let found = verify(&good[..450], &hashes(&good[..450]), heads.clone()).unwrap_err();
    assert_eq!((found.seq, found.what), (450, What::Missing));
    // With a head signed for it, by someone who has the key: a copy kept elsewhere tells.
    let mut forged = heads;
    forged.push(head(&bad, 600));
    let found = verify(&bad, &hashes(&bad), forged).unwrap_err();
    assert_eq!((found.seq, found.what), (300, What::Fork));
}

#[test]
fn what_was_removed_must_be_said_to_be() {
    let mut log = log(600);
    let tombstone = json!({ "seq": 600, "action": TOMBSTONE, "after": { "from": 0, "to": 256 } });
    log.push(canonical(&tombstone).into_bytes());
    let kept = hashes(&log);
    let heads = vec![head(&log, 300), head(&log, 601)];
    let verify = |removed: &[usize]| {
        let mut verifier = Verifier::new(heads.clone())?;
        for number in 0..3 {
            let range = number * 256..((number + 1) * 256).min(log.len());
            if removed.contains(&number) {
                verifier.removed(&kept[range])?;
            } else {
                let records: Vec<&[u8]> = log[range.clone()].iter().map(Vec::as_slice).collect();
                verifier.bundle(&records, &kept[range])?;
            }
        }
        verifier.finish()
    };
    assert_eq!(verify(&[0]).map(|found| (found.removed, found.signed)), Ok((256, 601)));
    let found = verify(&[0, 1]).unwrap_err();
    assert_eq!((found.seq, found.what), (256, What::Missing));
}

proptest! {
    /// Whatever bit of whatever record is turned, record taken away, put in twice or swapped: the
    /// place is named exactly.
    #[test]
    fn every_single_change_is_found_where_it_is(
        size in 2usize..700,
        at in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
        kind in 0u8..4,
    ) {
        let good = log(size as u64);
        let kept = hashes(&good);
        let heads = vec![head(&good, size)];
        let at = at.index(size);
        let mut bad = good;
        let want = match kind {
            0 => {
                let bit = bit.index(bad[at].len() * 8);
                bad[at][bit / 8] ^= 1 << (bit % 8);
                (at, What::Changed)
            }
            1 => {
                bad.remove(at);
                (at, What::Missing)
            }
            2 => {
                bad.insert(at, record(at as u64, "never"));
                (at, What::Inserted)
            }
            _ => {
                let other = bit.index(size);
                prop_assume!(other != at);
                bad.swap(at, other);
                (at.min(other), What::Reordered)
            }
        };
        let found = verify(&bad, &kept, heads).unwrap_err();
        prop_assert_eq!(found.seq, want.0 as u64, "{}", found);
        // At the edge of a bundle the neighbour that would tell lies in the next one.
        if at % 256 < 254 && kind < 3 {
            prop_assert!(found.what == want.1 || found.seq + 1 == size as u64, "{}", found);
        }
    }
}
