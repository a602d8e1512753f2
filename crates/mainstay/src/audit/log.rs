//! One log: records are added at its end, and heads of it are signed.
//!
//! What is on disk is always the beginning of what is in memory: a call that fails half way leaves
//! a log that must not be used any more, and is opened anew from its files ([`opening`](super::opening)).
//! Everything here blocks.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_coord::Moment;
use mainstay_coord::audit::{Actor, Author, Record, Target, Waiting};
use mainstay_coord::keys::AuditId;
use mainstay_security::audit::canonical::canonical;
use mainstay_security::audit::tile::{self, LEVELS, Level, Tile, WIDTH};
use mainstay_security::audit::tree::{self, merged};
use mainstay_security::audit::{Frontier, Hash, Head, Note, Signer};
use mainstay_store::Revision;
use serde_json::{Value, json};

use super::files::{CHECKPOINT, Files, KEYS, lines};
use super::index::{self, Span, marks};

/// Bundles whose ids are in memory, 100 KiB: what comes again comes soon.
const RECENT_MAX: usize = 16;

/// The action of the record that names the key which signs from then on.
pub(crate) const KEY: &str = "audit:key";

/// The action of the record that says which others were removed: the verifier's
/// [`TOMBSTONE`](mainstay_security::audit::verify::TOMBSTONE).
pub(crate) const REMOVE: &str = "audit:remove";

/// The action of what was put as a record, and is none.
pub(crate) const UNREADABLE: &str = "audit:unreadable";

/// One log of this node.
pub(super) struct Log {
    pub(super) files: Files,
    pub(super) origin: String,
    pub(super) signer: Signer,
    pub(super) tree: Frontier,
    /// The hashes of the tile at the right edge, by level.
    pub(super) levels: Vec<Vec<Hash>>,
    /// The records of the bundle that is not full.
    pub(super) tail: Vec<(AuditId, Vec<u8>)>,
    /// Where they lie, once it is open.
    pub(super) file: Option<File>,
    /// What bundles have that are full.
    pub(super) spans: Vec<Span>,
    /// The ids of the newest of them.
    pub(super) recent: VecDeque<(u64, BTreeSet<AuditId>)>,
    /// The newest head.
    pub(super) head: Note,
    /// From where on records have their text.
    pub(super) kept_from: u64,
}

/// A record that was added: what it was, and what came of it.
pub(super) struct Added {
    pub(super) action: String,
    pub(super) outcome: String,
}

impl Log {
    /// Records.
    pub(super) const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Records that no head covers.
    pub(super) const fn unsigned(&self) -> u64 {
        self.size().saturating_sub(self.head.unproven().size)
    }

    fn bundles(&self) -> u64 {
        self.size() / WIDTH
    }

    /// Adds those of `records` that are not there yet, durably.
    pub(super) fn append(&mut self, records: &[Waiting]) -> io::Result<Vec<Added>> {
        let (mut added, mut unsynced) = (Vec::new(), Vec::new());
        for waiting in records {
            if self.has(waiting.id)? {
                continue;
            }
            let value = serde_json::from_slice::<Value>(&waiting.value).ok();
            let value =
                value.filter(Value::is_object).unwrap_or_else(|| unreadable(&waiting.value));
            added.push(self.push(value, (waiting.id, waiting.revision), &mut unsynced)?);
        }
        self.sync(&mut unsynced)?;
        Ok(added)
    }

    /// Adds a record of the log's own, durably.
    pub(super) fn note(&mut self, record: &Record) -> io::Result<Added> {
        let newest = self.tail.last().map(|(id, _)| *id);
        let newest = newest.or_else(|| self.spans.last().map(|span| span.ids.1));
        let revision = newest.map_or(Revision::FIRST, AuditId::decided_at);
        let mut unsynced = Vec::new();
        let id = (AuditId::draw(revision), revision);
        let added = self.push(json!(record), id, &mut unsynced)?;
        self.sync(&mut unsynced)?;
        Ok(added)
    }

    /// The record of something this log does by itself.
    pub(super) fn own(&self, now: Moment, action: &str, reason: &str) -> Record {
        let target =
            Target { kind: "audit-log".to_owned(), id: self.origin.clone(), ..Target::default() };
        let author = Author::new(Actor::system("audit")).because(reason);
        Record::done(now, action, target, &author)
    }

    fn push(
        &mut self,
        mut value: Value,
        (id, revision): (AuditId, Revision),
        unsynced: &mut Vec<u8>,
    ) -> io::Result<Added> {
        let text =
            |member| value.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
        let added = Added { action: text("action"), outcome: text("outcome") };
        value["id"] = json!(id.to_string());
        value["seq"] = json!(self.size());
        value["store_revision"] = json!(revision.get());
        let bytes = canonical(&value).into_bytes();
        let hash = Hash::leaf(&bytes);
        unsynced.extend_from_slice(&bytes);
        unsynced.push(b'\n');
        self.tail.push((id, bytes));
        self.tree.push(hash);
        self.level(0).push(hash);
        if self.size().is_multiple_of(WIDTH) {
            self.sync(unsynced)?;
            self.finish_bundle()?;
        }
        Ok(added)
    }

    fn level(&mut self, level: usize) -> &mut Vec<Hash> {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        &mut self.levels[level]
    }

    fn sync(&mut self, unsynced: &mut Vec<u8>) -> io::Result<()> {
        if unsynced.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.files.open_tail(self.tree.size().saturating_sub(1) / WIDTH)?),
        };
        file.write_all(unsynced)?;
        file.sync_data()?;
        unsynced.clear();
        Ok(())
    }

    /// The last record filled its bundle: writes the tiles that are full with it, and gives the
    /// bundle its name.
    pub(super) fn finish_bundle(&mut self) -> io::Result<()> {
        let bundle = self.bundles() - 1;
        let mut span = Span::EMPTY;
        for (_, bytes) in &self.tail {
            let record = serde_json::from_slice(bytes).unwrap_or_default();
            if let Some((id, time)) = marks(&record) {
                span.add(id, time);
            }
        }
        let mut index = bundle;
        for level in 0..usize::from(LEVELS) {
            let hashes = std::mem::take(self.level(level));
            let name = Level::Hashes(u8::try_from(level).expect("below 8"));
            self.files.write_hashes(Tile::whole(name, index), &hashes)?;
            let above = self.level(level + 1);
            above.push(merged(&hashes));
            if above.len() as u64 != WIDTH {
                break;
            }
            index /= WIDTH;
        }
        if self.spans.len() as u64 == bundle {
            index::add(&self.files, span)?;
            self.spans.push(span);
        }
        self.file = None;
        self.files.finish_tail(bundle)?;
        let ids = self.tail.drain(..).map(|(id, _)| id).collect();
        self.recent.push_back((bundle, ids));
        if RECENT_MAX < self.recent.len() {
            self.recent.pop_front();
        }
        Ok(())
    }

    /// Where the record `id` is.
    pub(super) fn find(&self, id: AuditId) -> io::Result<Option<Vec<u8>>> {
        if let Some((_, bytes)) = self.tail.iter().find(|(own, _)| *own == id) {
            return Ok(Some(bytes.clone()));
        }
        let known = self.recent.front().map_or_else(|| self.bundles(), |(bundle, _)| *bundle);
        for (at, span) in self.spans.iter().enumerate().rev() {
            let bundle = at as u64;
            let is_recent = known <= bundle;
            let recent = || self.recent.iter().find(|(own, _)| *own == bundle);
            if !span.has(id) || (is_recent && recent().is_some_and(|(_, ids)| !ids.contains(&id))) {
                continue;
            }
            let records = self.bundle(bundle)?.unwrap_or_default();
            for record in records {
                let value = serde_json::from_slice(&record).unwrap_or_default();
                if marks(&value).is_some_and(|(own, _)| own == id) {
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    /// Whether the record `id` is there.
    pub(super) fn has(&self, id: AuditId) -> io::Result<bool> {
        let is_recent = self.recent.iter().any(|(_, ids)| ids.contains(&id));
        Ok(is_recent || self.find(id)?.is_some())
    }

    /// The records of a bundle; `None` when there is none, or their text was removed.
    pub(super) fn bundle(&self, bundle: u64) -> io::Result<Option<Vec<Vec<u8>>>> {
        if bundle == self.bundles() {
            return Ok(Some(self.tail.iter().map(|(_, bytes)| bytes.clone()).collect()));
        }
        let bytes = self.files.read(&Tile::whole(Level::Entries, bundle).to_string())?;
        Ok(bytes.map(|bytes| lines(&bytes).map(<[u8]>::to_vec).collect()))
    }

    /// The bytes of a tile; `None` when there is none.
    pub(super) fn tile(&self, tile: Tile) -> io::Result<Option<Vec<u8>>> {
        let Some(widest) = Tile::at(tile.level, tile.index, self.size()) else { return Ok(None) };
        if widest.len() < tile.len() {
            return Ok(None);
        }
        match tile.level {
            Level::Entries => {
                let Some(records) = self.bundle(tile.index)? else { return Ok(None) };
                let some = records.into_iter().take(tile.len());
                Ok(Some(some.flat_map(|record| [record, b"\n".to_vec()].concat()).collect()))
            }
            Level::Hashes(level) => {
                let hashes = match widest.width {
                    Some(_) => self.levels.get(usize::from(level)).cloned().unwrap_or_default(),
                    None => self.files.hashes(widest)?,
                };
                Ok(hashes.get(..tile.len()).map(tile::write))
            }
        }
    }

    /// The root of a complete subtree.
    fn subtree(&self, height: u32, index: u64) -> io::Result<Hash> {
        let (level, tile, first, count) = tile::place(height, index);
        subtree(&self.files, &self.levels, self.size(), (level, tile, first, count))
    }

    /// The hash of the record `seq`.
    pub(super) fn leaf(&self, seq: u64) -> io::Result<Hash> {
        self.subtree(0, seq)
    }

    /// The root of the first `size` records.
    pub(super) fn root(&self, size: u64) -> io::Result<Hash> {
        tree::root(size, |height, index| self.subtree(height, index))
    }

    pub(super) fn inclusion(&self, seq: u64, size: u64) -> io::Result<Option<Vec<Hash>>> {
        if self.size() < size {
            return Ok(None);
        }
        tree::inclusion(seq, size, |height, index| self.subtree(height, index))
    }

    pub(super) fn consistency(&self, from: u64, to: u64) -> io::Result<Option<Vec<Hash>>> {
        if self.size() < to {
            return Ok(None);
        }
        tree::consistency(from, to, |height, index| self.subtree(height, index))
    }

    /// Signs what there is; `None` when the newest head says so already.
    pub(super) fn sign(&mut self) -> io::Result<Option<Note>> {
        if self.unsigned() == 0 {
            return Ok(None);
        }
        for (level, hashes) in self.levels.iter().enumerate().filter(|(_, all)| !all.is_empty()) {
            let level = u8::try_from(level).expect("below 9");
            let nodes = self.size() >> (u32::from(level) * tile::HEIGHT);
            let width = u8::try_from(hashes.len()).ok();
            let tile = Tile { level: Level::Hashes(level), index: nodes / WIDTH, width };
            self.files.write_hashes(tile, hashes)?;
        }
        let head = Head { origin: self.origin.clone(), size: self.size(), root: self.tree.root() };
        self.head = self.signer.sign(&head);
        let text = self.head.to_string();
        self.files.add_head(&text)?;
        self.files.write(CHECKPOINT, text.as_bytes())?;
        Ok(Some(self.head.clone()))
    }

    /// Signs with `signer` from here on. The key before it signs the record that names it.
    pub(super) fn use_signer(&mut self, now: Moment, signer: Signer) -> io::Result<()> {
        if signer.key() == self.signer.key() {
            return Ok(());
        }
        let (before, after) = (self.signer.key().to_string(), signer.key().to_string());
        let record = self.own(now, KEY, "the keyring has another current key");
        self.note(&record.changed(json!({ "key": before }), json!({ "key": after })))?;
        self.sign()?;
        self.files.add(KEYS, format!("{after}\n").as_bytes())?;
        self.signer = signer;
        Ok(())
    }

    /// Removes the text of bundles whose records are all older than `before`, after a record that
    /// says so. Returns how many records lost it.
    pub(super) fn remove(&mut self, now: Moment, before: Moment) -> io::Result<u64> {
        let first = self.kept_from / WIDTH;
        let spans = self.spans.iter().skip(usize::try_from(first).unwrap_or(usize::MAX));
        let old = spans.take_while(|span| span.times.1 < before).count() as u64;
        if old == 0 {
            return Ok(0);
        }
        let (from, to) = (self.kept_from, (first + old) * WIDTH);
        let root = self.root(to)?.to_base64();
        let record = self.own(now, REMOVE, "older than `audit.retention_days`");
        let range = json!({ "from": from, "to": to, "root": root });
        self.note(&record.changed(Value::Null, range))?;
        // Signed before anything goes: what is gone is what a head says it was.
        self.sign()?;
        for bundle in first..first + old {
            let name = Tile::whole(Level::Entries, bundle).to_string();
            match std::fs::remove_file(self.files.path(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.kept_from = to;
        Ok(to - from)
    }
}

/// The root of the subtree at a place, of a log of `size` records.
pub(super) fn subtree(
    files: &Files,
    levels: &[Vec<Hash>],
    size: u64,
    (level, tile, first, count): (u8, u64, usize, usize),
) -> io::Result<Hash> {
    let at = Tile::at(Level::Hashes(level), tile, size);
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "a hash of the tree is missing");
    let whole;
    let hashes = match at.ok_or_else(missing)?.width {
        Some(_) => levels.get(usize::from(level)).ok_or_else(missing)?,
        None => {
            whole = files.hashes(Tile::whole(Level::Hashes(level), tile))?;
            &whole
        }
    };
    Ok(merged(hashes.get(first..first + count).ok_or_else(missing)?))
}

/// What is logged of a value that is no record: it was put all the same.
fn unreadable(bytes: &[u8]) -> Value {
    json!({
        "v": 1,
        "time": "1970-01-01T00:00:00.000Z",
        "action": UNREADABLE,
        "outcome": "failed",
        "code": null,
        "reason": null,
        "actor": { "principal": "system/audit", "kind": "system", "via": "timer" },
        "target": { "kind": "audit-log", "id": "" },
        "after": { "base64": STANDARD.encode(bytes) },
    })
}
