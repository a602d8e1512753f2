use std::time::Duration;

use mainstay_core::ManualClock;
use proptest::prelude::*;

use super::*;
use crate::batch::{Batch, Put};
use crate::memory::Memory;
use crate::snapshot::SnapshotItem;
use crate::store::Store;

fn about() -> About {
    About { fence_base: 7, unix_seconds: 1_790_000_000, product: "0.1.0".to_owned() }
}

/// A file of a store with a lease, and what it holds.
async fn file(values: usize) -> (Vec<u8>, Vec<SnapshotItem>) {
    let store = Memory::new(ManualClock::default());
    let lease = store.grant(Duration::from_secs(30), None).await.unwrap().id;
    for number in 0..values {
        let key = format!("k{number:04}").as_str().try_into().unwrap();
        let put = Put::new(key, vec![b'x'; number * 37 % 9_000]);
        let put = if number % 3 == 0 { put.lease(lease) } else { put };
        store.apply(Batch::new().then(put)).await.unwrap();
    }
    let mut out = Vec::new();
    let contents = write(store.snapshot().await.unwrap(), &about(), &mut out).await.unwrap();
    assert_eq!(contents, Contents { leases: 1, entries: values as u64 });
    let (mut items, mut snapshot) = (Vec::new(), store.snapshot().await.unwrap());
    while let Some(item) = snapshot.next().await {
        items.push(item.unwrap());
    }
    (out, items)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// What is inside the compression.
fn open(file: &[u8]) -> Vec<u8> {
    zstd::decode_all(file).unwrap()
}

fn close(inside: &[u8]) -> Vec<u8> {
    zstd::encode_all(inside, 1).unwrap()
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    for values in [0, 1, 700] {
        let (file, items) = wait(file(values));
        let mut reader = Reader::begin(file.as_slice()).unwrap();
        let header = reader.header().clone();
        assert_eq!((header.revision.get(), &header.about), (values as u64 + 1, &about()));
        let mut found = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            found.push(item);
        }
        assert_eq!(found, items);
        assert_eq!(verify(file.as_slice()).unwrap().0, header);
    }
}

#[test]
fn a_file_that_was_cut_is_refused_wherever() {
    let (file, _) = wait(file(40));
    for length in 0..file.len() {
        assert!(verify(&file[..length]).is_err(), "cut to {length} bytes");
    }
    let inside = open(&file);
    for length in (0..inside.len()).step_by(97) {
        assert!(verify(close(&inside[..length]).as_slice()).is_err(), "cut inside to {length}");
    }
}

#[test]
fn what_is_not_a_snapshot_is_told_apart() {
    let foreign = close(&[b'x'; 200]);
    assert!(matches!(verify(foreign.as_slice()), Err(Invalid::Foreign)));
    let (file, _) = wait(file(3));
    let mut longer = open(&file);
    longer.push(0);
    assert!(matches!(verify(close(&longer).as_slice()), Err(Invalid::Damaged { .. })));
}

/// Changes the content of every block by `change` and makes its checksum right again.
fn forged(inside: &[u8], change: impl Fn(u8, &mut Vec<u8>)) -> Vec<u8> {
    let head = 8 + 4 + 5 * 8 + 1 + "0.1.0".len() + 4;
    let (mut out, mut rest) = (inside[..head].to_vec(), &inside[head..]);
    while let [kind, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let mut body = after[..length].to_vec();
        change(*kind, &mut body);
        let mut frame = vec![*kind];
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(&body);
        let crc = crc32c::crc32c(&frame);
        out.extend(frame);
        out.extend(crc.to_be_bytes());
        rest = &after[length + 4..];
    }
    close(&out)
}

#[test]
fn a_forged_block_with_a_right_checksum_is_refused_too() {
    let (file, _) = wait(file(20));
    let inside = open(&file);
    assert!(verify(forged(&inside, |_, _| ()).as_slice()).is_ok(), "unchanged is fine");
    let changes: [fn(u8, &mut Vec<u8>); 4] = [
        |kind, body| {
            if kind == KIND_ENTRIES {
                body[6] = 0xff;
            }
        },
        |kind, body| {
            if kind == KIND_LEASES {
                body[7] ^= 1;
            }
        },
        |kind, body| {
            if kind == KIND_ENTRIES {
                body.truncate(body.len() - 1);
            }
        },
        |kind, body| {
            if kind == KIND_TRAILER {
                body[15] ^= 1;
            }
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(verify(forged(&inside, change).as_slice()).is_err(), "change {number}");
    }
}

proptest! {
    #[test]
    fn no_changed_byte_goes_unseen(at in any::<prop::sample::Index>(), mask in 1u8..=255) {
        let (file, _) = wait(file(5));
        let mut inside = open(&file);
        let at = at.index(inside.len());
        inside[at] ^= mask;
        prop_assert!(verify(close(&inside).as_slice()).is_err());
    }

    #[test]
    fn whatever_is_there_is_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(verify(bytes.as_slice()).is_err());
        let mut inside = MAGIC.to_vec();
        inside.extend(bytes);
        prop_assert!(verify(close(&inside).as_slice()).is_err());
    }
}
