//! Looking through a whole log that lies somewhere: in a folder, or behind the API of a server.
//!
//! Both have the same names below them (`checkpoint`, `heads`, `keys`, `tile/…`), so one reader does
//! for both; [`copy`] brings a log from the one to the other.

use std::io;
use std::path::Path;

use mainstay_security::audit::tile::{self, Level, Tile, WIDTH};
use mainstay_security::audit::{Bad, Head, Note, NoteError, PublicKey, Verified, Verifier, What};
use serde_json::Value;

use super::KEY;
use super::files::{CHECKPOINT, Files, HEADS, KEYS, lines};

/// Reads what lies under a name; `None` when nothing does. An error is a text for people.
pub type Read<'a> = &'a mut dyn FnMut(&str) -> Result<Option<Vec<u8>>, String>;

/// Why a log was not found to be as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is not what it was.
    Tampered(Bad),
    /// It cannot be read.
    Unreadable(String),
}

impl From<Bad> for Failed {
    fn from(bad: Bad) -> Self {
        Self::Tampered(bad)
    }
}

/// What there is of a log, as far as it is read whole.
struct Found {
    /// Of which log.
    origin: String,
    notes: Vec<Note>,
    keys: Vec<PublicKey>,
}

/// A reader of the files in `folder`.
pub fn folder(folder: &Path) -> impl FnMut(&str) -> Result<Option<Vec<u8>>, String> {
    let files = Files::new(folder.to_owned());
    move |name| files.read(name).map_err(|error| format!("{}: {error}", files.path(name).display()))
}

/// Looks through the log that `read` reads. `pinned` are keys that are trusted from elsewhere; with
/// none those the log itself names are taken, which shows only that it fits them. `copies` are
/// heads that were kept elsewhere.
///
/// # Errors
///
/// [`Failed`].
#[expect(clippy::missing_panics_doc, reason = "the newest head is one of those found")]
pub fn verify(
    read: Read<'_>,
    pinned: Option<Vec<PublicKey>>,
    copies: &[Note],
) -> Result<Verified, Failed> {
    let found = found(read)?;
    let is_of_it = |note: &&Note| note.unproven().origin == found.origin;
    let copied: Vec<&Note> = copies.iter().filter(is_of_it).collect();
    if !copies.is_empty() && copied.is_empty() {
        let why = format!("none of the heads that were given is of `{}`", found.origin);
        return Err(Failed::Unreadable(why));
    }
    let notes: Vec<&Note> = found.notes.iter().chain(copied.iter().copied()).collect();
    let trusted = pinned.unwrap_or_else(|| found.keys.clone());
    let keys = trusted_with(named_keys(read)?, trusted, &notes);
    // Those before the key that is trusted prove nothing, and need not.
    let (newest, older) = found.notes.split_last().expect("the newest head is one of them");
    let knows = |note: &&&Note| !matches!(note.opened_by(&keys), Err(NoteError::KeyUnknown { .. }));
    let older: Vec<&Note> = older.iter().collect();
    let mut known: Vec<&Note> = older.iter().filter(knows).copied().collect();
    known.push(newest);
    known.extend(copied);
    let verifier = Verifier::new(opened(&known, &keys)?)?;
    looked_through(read, verifier)
}

fn found(read: Read<'_>) -> Result<Found, Failed> {
    let text = |name: &str, bytes: Option<Vec<u8>>| {
        let bytes = bytes.ok_or_else(|| Failed::Unreadable(format!("`{name}` is not there")))?;
        String::from_utf8(bytes).map_err(|_invalid| broken(name, "it is no text"))
    };
    // Heads first: a log that grows meanwhile has a newest one that is not among them.
    let heads = text(HEADS, read(HEADS).map_err(Failed::Unreadable)?)?;
    let mut notes = Note::parse_all(&heads).map_err(|error| broken(HEADS, &error.to_string()))?;
    let checkpoint = text(CHECKPOINT, read(CHECKPOINT).map_err(Failed::Unreadable)?)?;
    let newest =
        Note::parse(&checkpoint).map_err(|error| broken(CHECKPOINT, &error.to_string()))?;
    let origin = newest.unproven().origin.clone();
    notes.push(newest);
    let lines = text(KEYS, read(KEYS).map_err(Failed::Unreadable)?)?;
    let keys = lines
        .lines()
        .map(|line| PublicKey::parse(line).map_err(|error| broken(KEYS, &error.to_string())));
    Ok(Found { origin, notes, keys: keys.collect::<Result<_, _>>()? })
}

/// A list of the log was changed: nothing can be told of any record by it.
fn broken(name: &str, why: &str) -> Failed {
    Failed::Tampered(Bad { seq: 0, what: What::Changed, why: format!("`{name}`: {why}") })
}

/// The heads that `keys` signed. All must be of one log, and each be signed.
fn opened(notes: &[&Note], keys: &[PublicKey]) -> Result<Vec<Head>, Failed> {
    let open = |note: &&Note| {
        let opened = note.opened_by(keys).map_err(|error| {
            let seq = note.unproven().size;
            Failed::Tampered(Bad { seq, what: What::Fork, why: error.to_string() })
        });
        opened.cloned()
    };
    let heads: Vec<Head> = notes.iter().map(open).collect::<Result<_, _>>()?;
    if let Some(pair) = heads.windows(2).find(|pair| pair[0].origin != pair[1].origin) {
        let why = format!("heads of `{}` and `{}` are mixed", pair[0].origin, pair[1].origin);
        return Err(Bad { seq: pair[1].size, what: What::Fork, why }.into());
    }
    Ok(heads)
}

/// Keys that records of the log name, each with the number of its record.
fn named_keys(read: Read<'_>) -> Result<Vec<(u64, PublicKey)>, Failed> {
    let mut named = Vec::new();
    let mark = format!("\"action\":\"{KEY}\"");
    each_bundle(read, &mut |first, _, records| {
        let Some(records) = records else { return Ok(()) };
        for (seq, record) in (first..).zip(lines(&records)) {
            let has_mark = record.windows(mark.len()).any(|part| part == mark.as_bytes());
            let value: Value = if has_mark {
                serde_json::from_slice(record).unwrap_or_default()
            } else {
                continue;
            };
            let key = value.pointer("/after/key").and_then(Value::as_str);
            named.extend(key.and_then(|key| Some((seq, PublicKey::parse(key).ok()?))));
        }
        Ok(())
    })?;
    Ok(named)
}

/// `trusted`, and each of `named` whose record lies below a head that a trusted key signed: who has
/// an old key says which one comes after it.
fn trusted_with(
    named: Vec<(u64, PublicKey)>,
    mut trusted: Vec<PublicKey>,
    notes: &[&Note],
) -> Vec<PublicKey> {
    for (seq, key) in named {
        let is_below = |note: &&&Note| note.opened_by(&trusted).is_ok_and(|head| seq < head.size);
        if !trusted.contains(&key) && notes.iter().any(|note| is_below(&note)) {
            trusted.push(key);
        }
    }
    trusted
}

fn looked_through(read: Read<'_>, mut verifier: Verifier) -> Result<Verified, Failed> {
    each_bundle(read, &mut |_, hashes, records| {
        let kept = hashes.as_deref().map(|bytes| tile::read(bytes).unwrap_or_default());
        match (records, kept) {
            (Some(records), kept) => {
                let mut all: Vec<&[u8]> = lines(&records).collect();
                if records.last().is_some_and(|last| *last != b'\n') {
                    // What follows the last line break is a record that was cut or added to.
                    let cut = records.rsplit(|byte| *byte == b'\n').next();
                    all.extend(cut);
                }
                verifier.bundle(&all, &kept.unwrap_or_default())?;
            }
            (None, Some(kept)) => verifier.removed(&kept)?,
            (None, None) => {}
        }
        Ok(())
    })?;
    Ok(verifier.finish()?)
}

/// Hands the bundles over from the left: the number of the first record, the bytes of the hashes,
/// those of the records.
fn each_bundle(
    read: Read<'_>,
    take: &mut dyn FnMut(u64, Option<Vec<u8>>, Option<Vec<u8>>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut get = |name: String| read(&name).map_err(Failed::Unreadable);
    let mut bundle = 0;
    loop {
        let hashes = get(Tile::whole(Level::Hashes(0), bundle).to_string())?;
        let mut records = get(Tile::whole(Level::Entries, bundle).to_string())?;
        if hashes.is_some() && records.is_none() {
            // A crash came before it got its name; or its text was removed.
            records = get(format!("{}.p/tail", Tile::whole(Level::Entries, bundle)))?;
        }
        if hashes.is_none() && records.is_none() {
            break;
        }
        take(bundle * WIDTH, hashes, records)?;
        bundle += 1;
    }
    // The edge: as many as the newest head has, or all that a folder has.
    let newest = get(CHECKPOINT.to_owned())?.unwrap_or_default();
    let newest = Note::parse(&String::from_utf8_lossy(&newest)).ok();
    let size = newest.map_or(0, |note| note.unproven().size);
    let part = |level| Tile::at(level, bundle, size).filter(|tile| tile.width.is_some());
    let hashes = match part(Level::Hashes(0)) {
        Some(tile) => get(tile.to_string())?,
        None => None,
    };
    let mut records = get(format!("{}.p/tail", Tile::whole(Level::Entries, bundle)))?;
    if records.is_none()
        && let Some(tile) = part(Level::Entries)
    {
        records = get(tile.to_string())?;
    }
    if hashes.is_none() && records.is_none() {
        return Ok(());
    }
    // Hashes without records are records that are missing.
    take(bundle * WIDTH, hashes, Some(records.unwrap_or_default()))
}

/// Copies the log that `read` reads into `folder`, as far as its newest head goes. Returns how many
/// records that are.
///
/// # Errors
///
/// What could not be read or written, in words.
pub fn copy(read: Read<'_>, folder: &Path) -> Result<u64, String> {
    let files = Files::new(folder.to_owned());
    let wrote =
        |done: io::Result<()>| done.map_err(|error| format!("{}: {error}", folder.display()));
    let mut fetch = |name: &str| read(name)?.ok_or_else(|| format!("`{name}` is not there"));
    // First: whatever is added meanwhile lies beyond it.
    let checkpoint = fetch(CHECKPOINT)?;
    let newest = Note::parse(&String::from_utf8_lossy(&checkpoint)).map_err(|e| e.to_string())?;
    let size = newest.unproven().size;
    for name in [HEADS, KEYS] {
        let bytes = fetch(name)?;
        let bytes = if name == HEADS { heads_up_to(&bytes, size)? } else { bytes };
        wrote(files.write(name, &bytes))?;
    }
    wrote(files.write(CHECKPOINT, &checkpoint))?;
    for level in 0..tile::LEVELS {
        let level = Level::Hashes(level);
        let mut index = 0;
        while let Some(tile) = Tile::at(level, index, size) {
            let name = tile.to_string();
            wrote(files.write(&name, &fetch(&name)?))?;
            index += 1;
        }
    }
    let mut index = 0;
    while let Some(tile) = Tile::at(Level::Entries, index, size) {
        let name = tile.to_string();
        // Records that were old enough have none.
        if let Some(bytes) = read(&name)? {
            wrote(files.write(&name, &bytes))?;
        }
        index += 1;
    }
    Ok(size)
}

/// The heads of no more than `size` records.
fn heads_up_to(bytes: &[u8], size: u64) -> Result<Vec<u8>, String> {
    let notes = Note::parse_all(&String::from_utf8_lossy(bytes)).map_err(|e| e.to_string())?;
    let notes = notes.iter().filter(|note| note.unproven().size <= size);
    let heads: Vec<String> = notes.map(|note| format!("{note}\n\n")).collect();
    Ok(heads.concat().into_bytes())
}
