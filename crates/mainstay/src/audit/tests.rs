//! Logs on disk: grown, cut, opened anew, tampered with.

use std::path::{Path, PathBuf};

use mainstay_coord::Moment;
use mainstay_coord::audit::{Actor, Author, Record, Target, Waiting};
use mainstay_coord::keys::AuditId;
use mainstay_security::audit::{Note, PublicKey, Signer, What};
use mainstay_store::Revision;
use tempfile::TempDir;

use super::log::Log;
use super::offline::{self, Failed};
use super::opening::{Around, Opened, open};

const NAME: &str = "mainstay/0000000000000001/audit";

fn signer(number: u8) -> Signer {
    Signer::new(NAME, &[number; 32])
}

fn moment(millis: u64) -> Moment {
    Moment::from_unix_millis(millis)
}

/// The log of `folder`, with the keys of these numbers, the current one last.
fn opened(folder: &TempDir, keys: &[u8], agreed: Option<Note>) -> Opened {
    let seeds = keys.iter().map(|key| [*key; 32].into()).collect();
    let name = NAME.to_owned();
    open(Around { folder: folder.path(), name, seeds, agreed, now: moment(9) }).unwrap()
}

#[track_caller]
fn log(folder: &TempDir) -> Log {
    let Opened { log, broken } = opened(folder, &[1], None);
    assert!(broken.is_none(), "{broken:?}");
    log
}

/// The record `number`, which is always the same.
fn waiting(number: u64) -> Waiting {
    let id =
        AuditId::parse(&format!("{number:016x}-{:016x}", number.wrapping_mul(0x9e37))).unwrap();
    let target = Target { kind: "switch".to_owned(), id: number.to_string(), ..Target::default() };
    let author = Author::new(Actor::default());
    let record = Record::done(moment(number), "switch:write", target, &author);
    let value = serde_json::to_vec(&record).unwrap().into();
    Waiting { id, revision: Revision::new(number + 1), value }
}

fn grow(log: &mut Log, numbers: std::ops::Range<u64>) {
    let records: Vec<Waiting> = numbers.map(waiting).collect();
    log.append(&records).unwrap();
}

/// The folder of the only log in `folder`.
fn place(folder: &TempDir, number: u32) -> PathBuf {
    let start = format!("{number:04}-");
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    let mut all = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&start));
    all.next().expect("there is a log").path()
}

fn verified(place: &Path, keys: &[u8]) -> Result<(u64, u64), Failed> {
    let keys: Vec<PublicKey> = keys.iter().map(|key| signer(*key).key().clone()).collect();
    let found = offline::verify(&mut offline::folder(place), Some(keys), &[])?;
    Ok((found.size, found.signed))
}

#[test]
fn a_log_goes_on_where_it_was_however_often_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut at = 0;
    for more in [0, 1, 254, 1, 1, 255, 300, 7] {
        let mut log = log(&folder);
        assert_eq!(log.size(), at);
        grow(&mut log, at..at + more);
        at += more;
        assert_eq!(log.root(at).unwrap(), log.tree.root());
        // Not every one is stopped well.
        if more % 2 == 1 {
            log.sign().unwrap();
        }
    }
    let mut log = log(&folder);
    log.sign().unwrap();
    assert_eq!(verified(&place(&folder, 1), &[1]), Ok((819, 819)));
    assert_eq!(log.find(waiting(3).id).unwrap(), log.bundle(0).unwrap().unwrap().get(3).cloned());
    assert_eq!(log.find(waiting(900).id).unwrap(), None);
}

#[test]
fn the_same_record_twice_is_one_leaf() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = log(&folder);
    grow(&mut first, 0..5_000);
    // In the same batch, the bundles in memory, older ones, and after a restart.
    let twice = [5_000, 5_000, 4_999, 4_000, 3, 255, 256].map(waiting);
    assert_eq!(first.append(&twice).unwrap().len(), 1);
    drop(first);
    let mut again = log(&folder);
    assert_eq!(again.append(&twice).unwrap().len(), 0);
    assert_eq!(again.size(), 5_001);
}

#[test]
fn what_a_crash_cut_is_put_again() {
    let folder = tempfile::tempdir().unwrap();
    grow(&mut log(&folder), 0..300);
    let tail = place(&folder, 1).join("tile/entries/001.p/tail");
    let whole = std::fs::read(&tail).unwrap();
    for cut in [1, 50, 5_000] {
        std::fs::write(&tail, &whole[..whole.len() - cut]).unwrap();
        let mut log = log(&folder);
        assert!(log.size() < 300);
        grow(&mut log, 250..300);
        assert_eq!(std::fs::read(&tail).unwrap(), whole, "{cut}");
    }
    // Between the parts of finishing a bundle.
    let mut log = log(&folder);
    grow(&mut log, 300..512);
    drop(log);
    let (bundle, tail) = ("tile/entries/001", "tile/entries/001.p/tail");
    for lost in [&["tile/0/001", "index"][..], &["index"], &[]] {
        let at = place(&folder, 1);
        std::fs::create_dir_all(at.join("tile/entries/001.p")).unwrap();
        std::fs::rename(at.join(bundle), at.join(tail)).unwrap();
        for name in lost {
            std::fs::remove_file(at.join(name)).unwrap();
        }
        let mut log = self::log(&folder);
        assert_eq!(log.size(), 512, "{lost:?}");
        assert!(at.join(bundle).exists() && log.has(waiting(400).id).unwrap());
        assert_eq!(log.sign().unwrap().is_some(), lost.len() == 2);
        assert_eq!(verified(&at, &[1]), Ok((512, 512)));
    }
}

/// What is found of a log of 600 records, with heads at 300 and 600, once `change` was made to its
/// files: by the verifier, and by the next start. `want` is the first record that is not as it was.
#[track_caller]
fn check(change: impl Fn(&Path), want: (u64, What), at_start: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut first = log(&folder);
    grow(&mut first, 0..300);
    first.sign().unwrap();
    grow(&mut first, 300..600);
    first.sign().unwrap();
    drop(first);
    let at = place(&folder, 1);
    assert_eq!(verified(&at, &[1]), Ok((600, 600)));
    change(&at);
    match verified(&at, &[1]) {
        Err(Failed::Tampered(bad)) => assert_eq!((bad.seq, bad.what), want, "{bad}"),
        other => panic!("{other:?}"),
    }
    let Opened { mut log, broken } = opened(&folder, &[1], None);
    assert_eq!(broken.is_some(), at_start, "{broken:?}");
    let Some(broken) = broken else { return };
    // Another log goes on, and says why.
    assert_eq!(log.size(), 1);
    let record = String::from_utf8(log.bundle(0).unwrap().unwrap().remove(0)).unwrap();
    assert!(
        record.contains("audit:broken") && record.contains(broken.bad.what.as_str()),
        "{record}"
    );
    grow(&mut log, 600..700);
    log.sign().unwrap();
    assert_eq!(verified(&place(&folder, 2), &[1]), Ok((101, 101)));
    assert!(opened(&folder, &[1], None).broken.is_none(), "it is said once");
}

fn edit(path: &Path, change: impl Fn(&mut Vec<Vec<u8>>)) {
    let bytes = std::fs::read(path).unwrap();
    let mut lines: Vec<Vec<u8>> =
        bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    change(&mut lines);
    std::fs::write(path, lines.concat()).unwrap();
}

#[test]
fn whatever_was_done_to_files_is_named() {
    let whole =
        |change: fn(&mut Vec<Vec<u8>>)| move |at: &Path| edit(&at.join("tile/entries/000"), change);
    check(whole(|lines| lines[17][30] ^= 1), (17, What::Changed), false);
    check(whole(|lines| drop(lines.remove(40))), (40, What::Missing), false);
    check(whole(|lines| lines.insert(9, b"{}\n".to_vec())), (9, What::Inserted), false);
    check(whole(|lines| lines.swap(100, 200)), (100, What::Reordered), false);
    // What a start looks at: the last bundle, and the tail.
    let last = |at: &Path| edit(&at.join("tile/entries/001"), |lines| lines[4][12] ^= 4);
    check(last, (260, What::Changed), true);
    let tail = |at: &Path| edit(&at.join("tile/entries/002.p/tail"), |lines| lines.swap(1, 2));
    check(tail, (513, What::Reordered), true);
    let cut = |at: &Path| edit(&at.join("tile/entries/002.p/tail"), |lines| lines.truncate(80));
    check(cut, (592, What::Missing), true);
    let gone = |at: &Path| std::fs::remove_file(at.join("tile/entries/001")).unwrap();
    check(gone, (256, What::Missing), false);
    let forged = |at: &Path| {
        let head = std::fs::read_to_string(at.join("checkpoint")).unwrap();
        std::fs::write(at.join("checkpoint"), head.replacen("\n600\n", "\n599\n", 1)).unwrap();
    };
    check(forged, (599, What::Fork), true);
}

#[test]
fn a_log_whose_end_was_taken_away_with_its_head_is_told_by_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = log(&folder);
    grow(&mut first, 0..10);
    first.sign().unwrap();
    let at = place(&folder, 1);
    let before = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp").arg("-rT").args([from, to]).status().unwrap();
        assert!(done.success());
    };
    copy(&at, before.path());
    grow(&mut first, 10..20);
    let agreed = first.sign().unwrap();
    drop(first);
    assert!(opened(&folder, &[1], agreed.clone()).broken.is_none());
    std::fs::remove_dir_all(&at).unwrap();
    copy(before.path(), &at);
    assert_eq!(verified(&at, &[1]), Ok((10, 10)), "nothing tells, in the log alone");
    let broken = opened(&folder, &[1], agreed.clone()).broken.expect("the store tells");
    assert_eq!((broken.bad.seq, broken.bad.what), (10, What::Missing));
    // The whole folder, too.
    let empty = tempfile::tempdir().unwrap();
    let broken = opened(&empty, &[1], agreed).broken.expect("the store tells");
    assert_eq!((broken.bad.seq, broken.bad.what), (0, What::Missing));
}

#[test]
fn a_key_is_followed_by_the_one_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = log(&folder);
    grow(&mut first, 0..10);
    first.sign().unwrap();
    first.use_signer(moment(9), signer(2)).unwrap();
    grow(&mut first, 10..20);
    first.sign().unwrap();
    drop(first);
    let at = place(&folder, 1);
    assert_eq!(verified(&at, &[1]), Ok((21, 21)), "who has the first key trusts the second");
    let Err(Failed::Tampered(bad)) = verified(&at, &[3]) else { panic!("another key") };
    assert_eq!(bad.what, What::Fork);
    // The keyring was rotated while the node was stopped, and then the old key was forgotten.
    let Opened { mut log, broken } = opened(&folder, &[1, 2, 3], None);
    assert!(broken.is_none());
    log.use_signer(moment(9), signer(3)).unwrap();
    grow(&mut log, 20..25);
    log.sign().unwrap();
    drop(log);
    assert_eq!(verified(&at, &[1]), Ok((27, 27)));
    assert!(opened(&folder, &[3], None).broken.is_none());
    assert!(opened(&folder, &[4], None).broken.is_some());
}

#[test]
fn what_is_old_goes_and_its_proofs_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = log(&folder);
    grow(&mut first, 0..1_000);
    assert_eq!(first.remove(moment(5_000), moment(255)).unwrap(), 0, "its last is not old enough");
    assert_eq!(first.remove(moment(5_000), moment(600)).unwrap(), 512);
    assert_eq!(first.remove(moment(5_000), moment(600)).unwrap(), 0, "once");
    grow(&mut first, 1_000..1_010);
    first.sign().unwrap();
    let proof = first.inclusion(3, 1_011).unwrap().unwrap();
    let (leaf, root) = (first.leaf(3).unwrap(), first.root(1_011).unwrap());
    assert!(mainstay_security::audit::tree::is_included(leaf, 3, 1_011, &proof, root));
    drop(first);
    let at = place(&folder, 1);
    assert!(!at.join("tile/entries/001").exists() && at.join("tile/entries/002").exists());
    assert_eq!(verified(&at, &[1]), Ok((1_011, 1_011)));
    let again = log(&folder);
    assert_eq!(again.kept_from, 512);
    assert!(again.bundle(1).unwrap().is_none());
    // A bundle more than the log says.
    std::fs::remove_file(at.join("tile/entries/002")).unwrap();
    let Err(Failed::Tampered(bad)) = verified(&at, &[1]) else { panic!("it is gone") };
    assert_eq!((bad.seq, bad.what), (512, What::Missing));
}

#[test]
fn what_is_copied_is_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(&folder);
    grow(&mut log, 0..700);
    log.sign().unwrap();
    // What came since is not signed.
    grow(&mut log, 700..720);
    let copy = tempfile::tempdir().unwrap();
    let mut read = |name: &str| match mainstay_security::audit::Tile::parse(name) {
        Some(tile) => log.tile(tile).map_err(|error| error.to_string()),
        None if name.starts_with("tile/") => Ok(None),
        None => log.files.read(name).map_err(|error| error.to_string()),
    };
    assert_eq!(offline::copy(&mut read, copy.path()), Ok(700));
    assert_eq!(verified(copy.path(), &[1]), Ok((700, 700)));
    let keys = Some(vec![signer(1).key().clone()]);
    let served = offline::verify(&mut read, keys, &[]).unwrap();
    assert_eq!((served.size, served.signed), (700, 700));
}
