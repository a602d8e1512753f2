//! Opening the log of a node, and beginning another where it is not what it was.
//!
//! What is looked at on each start: the signature of the newest head, that the tree still has its
//! root, the records since the last full bundle and of that bundle, and the head that the store has
//! of this node. The whole log is looked through by `mainstay audit verify`.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_coord::Moment;
use mainstay_coord::audit::Outcome;
use mainstay_coord::keyring::Secret;
use mainstay_coord::keys::AuditId;
use mainstay_security::audit::tile::{self, LEVELS, Level, Tile, WIDTH};
use mainstay_security::audit::tree::merged;
use mainstay_security::audit::{Bad, Frontier, Hash, Head, Note, Signer, Verifier, What};
use mainstay_store::Revision;
use serde_json::{Value, json};

use super::files::{self, CHECKPOINT, Files, KEYS, lines, names};
use super::index::{self, marks};
use super::log::{Log, subtree};
use super::signers;

/// The action of the first record of a log that goes on for one that was tampered with.
pub(crate) const BROKEN: &str = "audit:broken";

/// What opening needs to know.
pub(super) struct Around<'a> {
    /// Where the logs of this node lie.
    pub(super) folder: &'a Path,
    /// What a new log's name begins with, and the name of its keys. One that is there may have begun
    /// on another store, before a restore, and goes by that one's.
    pub(super) name: String,
    /// What the keys of the keyring are made of, the current one last.
    pub(super) seeds: Vec<Secret>,
    /// The head of this node that the store has.
    pub(super) agreed: Option<Note>,
    pub(super) now: Moment,
}

/// An opened log.
pub(super) struct Opened {
    pub(super) log: Log,
    /// What was wrong with the one before it, if it was.
    pub(super) broken: Option<Broken>,
}

/// A log that is not what it was.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// Its name, or where it was.
    pub(super) log: String,
    /// What its newest head said, if it can be read.
    pub(super) head: Option<Head>,
    pub(super) bad: Bad,
}

/// Opens the newest log in the folder, or begins one. Blocks.
///
/// # Errors
///
/// What the system says.
pub(super) fn open(around: Around<'_>) -> io::Result<Opened> {
    files::create(around.folder)?;
    let mut logs = numbered(around.folder)?;
    let Some((number, path)) = logs.pop() else {
        let lost = around.agreed.as_ref().filter(|head| 0 < head.unproven().size);
        let broken = lost.map(|head| missing(head.unproven().clone()));
        return begin(around, 1, broken);
    };
    let files = Files::new(path);
    let found = existing(&files, &around.seeds)?;
    let broken = match found {
        Ok(log) => match agrees(&log, &around, &logs)? {
            None => return Ok(Opened { log: *log, broken: None }),
            Some(broken) => broken,
        },
        Err(broken) => broken,
    };
    begin(around, number + 1, Some(broken))
}

/// A log that the store has a head of, and no file is left.
fn missing(head: Head) -> Broken {
    let why = format!("the store has a head of {} records, and the log is not there", head.size);
    let bad = Bad { seq: 0, what: What::Missing, why };
    Broken { log: head.origin.clone(), head: Some(head), bad }
}

/// What the head in the store says against `log`.
fn agrees(log: &Log, around: &Around<'_>, older: &[(u32, PathBuf)]) -> io::Result<Option<Broken>> {
    let Some(note) = &around.agreed else { return Ok(None) };
    let head = note.unproven();
    let signers = signers_of(&around.seeds, &head.origin);
    let keys: Vec<_> = signers.iter().map(|signer| signer.key().clone()).collect();
    if note.opened_by(&keys).is_err() {
        // Of a keyring that is gone: nothing can be told by it.
        return Ok(None);
    }
    if head.origin != log.origin {
        // One before this one is as good as none: a crash came before the first head of this.
        let is_older = older.iter().any(|(_, path)| head.origin.ends_with(&own_name(path)));
        return Ok((!is_older && 0 < head.size).then(|| missing(head.clone())));
    }
    let bad = if log.size() < head.size {
        let why = format!("the store has a signed head of {} records", head.size);
        Bad { seq: log.size(), what: What::Missing, why }
    } else if log.root(head.size)? == head.root {
        return Ok(None);
    } else {
        let why = format!("the head of {} records in the store has another root", head.size);
        Bad { seq: 0, what: What::Fork, why }
    };
    Ok(Some(Broken { log: log.origin.clone(), head: Some(log.head.unproven().clone()), bad }))
}

/// The keys that sign the log `origin`.
fn signers_of(seeds: &[Secret], origin: &str) -> Vec<Signer> {
    signers(seeds, origin.rsplit_once('/').map_or("", |(name, _)| name))
}

/// The logs in `folder`, oldest first.
fn numbered(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let all = names(folder)?.into_iter().filter_map(|name| {
        let (number, own) = name.split_once('-')?;
        let is_one = own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = number.parse().ok().filter(|_| is_one)?;
        let path = folder.join(&name);
        // What has no head was never begun.
        path.join(CHECKPOINT).exists().then_some((number, path))
    });
    let mut all: Vec<(u32, PathBuf)> = all.collect();
    all.sort();
    Ok(all)
}

/// The name a folder gives its log.
fn own_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split_once('-').map_or_else(String::new, |(_, own)| own.to_owned())
}

/// Begins the log `number`.
fn begin(around: Around<'_>, number: u32, broken: Option<Broken>) -> io::Result<Opened> {
    let own = format!("{:016x}", mainstay_call::draw::next());
    let files = Files::new(around.folder.join(format!("{number:04}-{own}")));
    files::create(&files.path(""))?;
    let signer = signers(&around.seeds, &around.name).pop().expect("a keyring has a key");
    let origin = format!("{}/{own}", around.name);
    let head = Head { origin: origin.clone(), size: 0, root: Hash::empty() };
    let head = signer.sign(&head);
    files.write(KEYS, format!("{}\n", signer.key()).as_bytes())?;
    files.add_head(&head.to_string())?;
    files.write(CHECKPOINT, head.to_string().as_bytes())?;
    crate::backup::whole::sync_folder(&files.path(""))?;
    let mut log = Log {
        files,
        origin,
        signer,
        tree: Frontier::default(),
        levels: Vec::new(),
        tail: Vec::new(),
        file: None,
        spans: Vec::new(),
        recent: VecDeque::new(),
        head,
        kept_from: 0,
    };
    if let Some(Broken { log: old, head, bad }) = &broken {
        let reason = "the log before this one is not what it was";
        let record = log.own(around.now, BROKEN, reason);
        let record = record.instead_of(Outcome::Failed, "audit-tampered");
        let head =
            head.as_ref().map(|head| json!({ "size": head.size, "root": head.root.to_base64() }));
        let before = json!({ "log": old, "head": head });
        let after = json!({ "seq": bad.seq, "what": bad.what.as_str(), "why": bad.why });
        log.note(&record.changed(before, after))?;
        log.sign()?;
    }
    Ok(Opened { log, broken })
}

/// The log in `files`, or what is wrong with it.
fn existing(files: &Files, seeds: &[Secret]) -> io::Result<Result<Box<Log>, Broken>> {
    let text = files.read(CHECKPOINT)?.unwrap_or_default();
    let own = files.path("").display().to_string();
    let broken = |head: Option<Head>, (seq, what, why): (u64, What, String)| {
        let log = head.as_ref().map_or_else(|| own.clone(), |head| head.origin.clone());
        Broken { log, head, bad: Bad { seq, what, why } }
    };
    let note = match Note::parse(&String::from_utf8_lossy(&text)) {
        Ok(note) => note,
        Err(error) => return Ok(Err(broken(None, (0, What::Changed, error.to_string())))),
    };
    let mut signers = signers_of(seeds, &note.unproven().origin);
    let keys: Vec<_> = signers.iter().map(|signer| signer.key().clone()).collect();
    let head = match note.opened_by(&keys) {
        Ok(head) => head.clone(),
        Err(error) => return Ok(Err(broken(None, (0, What::Fork, error.to_string())))),
    };
    let ids: Vec<String> = note.key_ids().collect();
    let at = signers.iter().position(|signer| ids.contains(&signer.key().id()));
    let recovered = match recovered(files) {
        Ok(recovered) => recovered,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Ok(Err(broken(Some(head), (0, What::Changed, error.to_string()))));
        }
        Err(error) => return Err(error),
    };
    let Recovered { tree, levels, tail } = recovered;
    let size = tree.size();
    if size < head.size {
        let why = format!("the newest signed head is of {} records", head.size);
        return Ok(Err(broken(Some(head), (size, What::Missing, why))));
    }
    match looked_at(files, &levels, &tail, &head, size) {
        Ok(None) => {}
        Ok(Some(Bad { seq, what, why })) => return Ok(Err(broken(Some(head), (seq, what, why)))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Ok(Err(broken(Some(head), (0, What::Missing, error.to_string()))));
        }
        Err(error) => return Err(error),
    }
    let signer = signers.swap_remove(at.expect("the key that opened it is there"));
    let spans = index::read(files, size / WIDTH)?;
    let log = Log {
        files: files.clone(),
        origin: head.origin,
        signer,
        tree,
        levels,
        tail,
        file: None,
        spans,
        recent: VecDeque::new(),
        head: note,
        kept_from: kept_from(files, size / WIDTH)?,
    };
    Ok(Ok(Box::new(log)))
}

/// What is wrong with the right edge of a log, or else with its tree by `head`.
fn looked_at(
    files: &Files,
    levels: &[Vec<Hash>],
    tail: &[(AuditId, Vec<u8>)],
    head: &Head,
    size: u64,
) -> io::Result<Option<Bad>> {
    if let Some(bad) = edge(files, levels, size, tail, head.size)? {
        return Ok(Some(bad));
    }
    let root = mainstay_security::audit::tree::root(head.size, |height, index| {
        subtree(files, levels, size, tile::place(height, index))
    })?;
    let why = format!("the newest head, of {} records, has another root", head.size);
    Ok((root != head.root).then_some(Bad { seq: 0, what: What::Fork, why }))
}

/// What the files of a log come to.
struct Recovered {
    tree: Frontier,
    levels: Vec<Vec<Hash>>,
    tail: Vec<(AuditId, Vec<u8>)>,
}

/// Reads the right edge. A line of the tail that was cut, by a crash before anybody was told, goes.
fn recovered(files: &Files) -> io::Result<Recovered> {
    let mut whole = 0;
    while files.has(Tile::whole(Level::Hashes(0), whole))? {
        whole += 1;
    }
    // The tiles of the last bundle are written before it gets its name.
    let is_named = |bundle| files.has(Tile::whole(Level::Entries, bundle));
    if 0 < whole && files.tail(whole - 1).try_exists()? && !is_named(whole - 1)? {
        whole -= 1;
    }
    let mut levels: Vec<Vec<Hash>> = vec![Vec::new()];
    let mut nodes = whole;
    for level in 1..=LEVELS {
        let below = Level::Hashes(level - 1);
        let first = nodes / WIDTH * WIDTH;
        let roots =
            (first..nodes).map(|index| Ok(merged(&files.hashes(Tile::whole(below, index))?)));
        levels.push(roots.collect::<io::Result<_>>()?);
        nodes /= WIDTH;
        // A crash may have come between a tile and the one above it.
        if 0 < nodes && !files.has(Tile::whole(Level::Hashes(level), nodes - 1))? {
            let last = (nodes - 1) * WIDTH..nodes * WIDTH;
            let roots = last.map(|index| Ok(merged(&files.hashes(Tile::whole(below, index))?)));
            let roots: Vec<Hash> = roots.collect::<io::Result<_>>()?;
            files.write_hashes(Tile::whole(Level::Hashes(level), nodes - 1), &roots)?;
        }
        if nodes == 0 {
            break;
        }
    }
    let tail = read_tail(files, whole)?;
    if tail.len() as u64 == WIDTH {
        // A crash came before this bundle got its name.
        let hashes: Vec<Hash> = tail.iter().map(|(_, record)| Hash::leaf(record)).collect();
        files.write_hashes(Tile::whole(Level::Hashes(0), whole), &hashes)?;
        files.finish_tail(whole)?;
        return recovered(files);
    }
    let size = whole * WIDTH;
    let mut tree = Frontier::of(size, |height, index| {
        subtree(files, &levels, size, tile::place(height, index))
    })?;
    for (_, record) in &tail {
        let hash = Hash::leaf(record);
        tree.push(hash);
        levels.first_mut().expect("it was made with one").push(hash);
    }
    Ok(Recovered { tree, levels, tail })
}

fn read_tail(files: &Files, whole: u64) -> io::Result<Vec<(AuditId, Vec<u8>)>> {
    let path = files.tail(whole);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let tail: Vec<(AuditId, Vec<u8>)> = lines(&bytes)
        .map(|line| {
            let value = serde_json::from_slice(line).unwrap_or(Value::Null);
            let id = marks(&value).map(|(id, _)| id);
            // One that cannot be read is found when it is compared.
            (id.unwrap_or_else(|| AuditId::first_at(Revision::NEVER)), line.to_vec())
        })
        .collect();
    let whole: usize = tail.iter().map(|(_, line)| line.len() + 1).sum();
    if whole < bytes.len() {
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(whole as u64)?;
        file.sync_all()?;
    }
    Ok(tail)
}

/// The first record of the last full bundle, or after it, that is not what it was.
fn edge(
    files: &Files,
    levels: &[Vec<Hash>],
    size: u64,
    tail: &[(AuditId, Vec<u8>)],
    signed: u64,
) -> io::Result<Option<Bad>> {
    let whole = (size - tail.len() as u64) / WIDTH;
    let behind = |bundles: u64| {
        Frontier::of(bundles * WIDTH, |height, index| {
            subtree(files, levels, size, tile::place(height, index))
        })
    };
    if let Some(last) = whole.checked_sub(1) {
        let bytes = files.read(&Tile::whole(Level::Entries, last).to_string())?;
        let hashes = files.hashes(Tile::whole(Level::Hashes(0), last))?;
        if let Some(bytes) = bytes {
            let records: Vec<&[u8]> = lines(&bytes).collect();
            if let Err(bad) = Verifier::behind(behind(last)?).bundle(&records, &hashes) {
                return Ok(Some(bad));
            }
        }
    }
    let first = whole * WIDTH;
    let width = signed.checked_sub(first).and_then(|width| u8::try_from(width).ok());
    let hashes = match width.filter(|width| 0 < *width) {
        None => Vec::new(),
        Some(width) => {
            let tile = Tile { level: Level::Hashes(0), index: whole, width: Some(width) };
            let bytes = files.read(&tile.to_string())?;
            bytes.and_then(|bytes| tile::read(&bytes)).unwrap_or_default()
        }
    };
    let records: Vec<&[u8]> = tail.iter().map(|(_, line)| line.as_slice()).collect();
    Ok(Verifier::behind(behind(whole)?).bundle(&records, &hashes).err())
}

/// The first record that has its text: bundles go from the left.
fn kept_from(files: &Files, whole: u64) -> io::Result<u64> {
    let (mut gone, mut there) = (0, whole);
    while gone < there {
        let middle = gone.midpoint(there);
        if files.has(Tile::whole(Level::Entries, middle))? {
            there = middle;
        } else {
            gone = middle + 1;
        }
    }
    Ok(gone * WIDTH)
}
