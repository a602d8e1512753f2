//! The first record of a log that is not as it was.
//!
//! Bundles of records go in, from the left, each with the hashes that are kept of it. A record that
//! does not have the hash kept of it was changed, unless its neighbours show that one is missing,
//! one was put in, or some were moved; who changed the hashes too meets the number each record
//! bears, and at last the signed heads, which nobody can make without the key. Every head that is
//! known is compared, not the last alone: those between say about where.

use std::collections::VecDeque;
use std::fmt;

use serde_json::Value;

use super::note::Head;
use super::tile::WIDTH;
use super::tree::{Frontier, Hash};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It does not say what it said.
    Changed,
    /// It is not there.
    Missing,
    /// It was not there.
    Inserted,
    /// It stands where another stood.
    Reordered,
    /// Two heads cannot be of one log, or a head is not of this one.
    Fork,
}

impl What {
    /// In one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Fork => "head fork",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first place where the log is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seq {seq}: {what}: {why}")]
pub struct Bad {
    /// Where.
    pub seq: u64,
    /// What.
    pub what: What,
    /// How that shows.
    pub why: String,
}

impl Bad {
    fn new(seq: u64, what: What, why: impl Into<String>) -> Self {
        Self { seq, what, why: why.into() }
    }
}

/// A log that is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records.
    pub size: u64,
    /// The root of them all.
    pub root: Hash,
    /// Records below the last head: these nobody can have changed. Those after it wait to be
    /// signed.
    pub signed: u64,
    /// Heads that were compared.
    pub heads: u64,
    /// Records whose text was removed when it was old enough; their hashes are there.
    pub removed: u64,
}

/// Looks through a log from the left.
#[derive(Clone, Debug)]
pub struct Verifier {
    heads: VecDeque<Head>,
    compared: u64,
    /// The size of the last head that fits.
    good: u64,
    tree: Frontier,
    /// From where to where records have no text, and from where to where the log says so.
    removed: Vec<(u64, u64)>,
    excused: Vec<(u64, u64)>,
}

impl Verifier {
    /// Compares with `heads`, whose signatures have been checked, all of one log.
    ///
    /// # Errors
    ///
    /// [`What::Fork`] when two of them cannot both be true.
    pub fn new(mut heads: Vec<Head>) -> Result<Self, Bad> {
        heads.sort_by_key(|head| head.size);
        for pair in heads.windows(2) {
            if let [one, other] = pair
                && one.size == other.size
                && one.root != other.root
            {
                let why = format!("two signed heads of size {} have different roots", one.size);
                let before = heads.iter().rev().find(|head| head.size < one.size);
                return Err(Bad::new(before.map_or(0, |head| head.size), What::Fork, why));
            }
        }
        heads.dedup();
        let heads = heads.into();
        let (tree, removed, excused) = (Frontier::default(), Vec::new(), Vec::new());
        let mut new = Self { heads, compared: 0, good: 0, tree, removed, excused };
        new.compare()?;
        Ok(new)
    }

    /// Goes on behind `tree`, which was looked through before; there are no heads.
    pub fn behind(tree: Frontier) -> Self {
        let (heads, removed, excused) = (VecDeque::new(), Vec::new(), Vec::new());
        let good = tree.size();
        Self { heads, compared: 0, good, tree, removed, excused }
    }

    /// Records so far.
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The next bundle: 256 records, or fewer at the right edge. `hashes` are those kept of it, maybe
    /// fewer than records where the edge has grown since.
    ///
    /// # Errors
    ///
    /// [`Bad`] for the first record that is not as it was.
    pub fn bundle(&mut self, records: &[&[u8]], hashes: &[Hash]) -> Result<(), Bad> {
        let first = self.size();
        let found: Vec<Hash> = records.iter().map(|record| Hash::leaf(record)).collect();
        compare(first, &found, hashes)?;
        if WIDTH < found.len() as u64 {
            let why = "the bundle has more records than 256";
            return Err(Bad::new(first + WIDTH, What::Inserted, why));
        }
        for (seq, (record, hash)) in (first..).zip(records.iter().zip(found)) {
            self.numbered(seq, record)?;
            self.push(hash)?;
        }
        Ok(())
    }

    /// The next bundle, of which only hashes are there.
    ///
    /// # Errors
    ///
    /// [`Bad`] when a head says otherwise.
    pub fn removed(&mut self, hashes: &[Hash]) -> Result<(), Bad> {
        let first = self.size();
        match self.removed.last_mut() {
            Some((_, to)) if *to == first => *to += hashes.len() as u64,
            _ => self.removed.push((first, first + hashes.len() as u64)),
        }
        hashes.iter().try_for_each(|hash| self.push(*hash))
    }

    /// There are no more.
    ///
    /// # Errors
    ///
    /// [`Bad`] when a head is of more records, or records are gone and the log does not say why.
    pub fn finish(self) -> Result<Verified, Bad> {
        for (from, to) in &self.removed {
            let mut at = *from;
            while let Some((_, end)) =
                self.excused.iter().find(|(start, end)| *start <= at && at < *end)
            {
                at = *end;
            }
            if at < *to {
                let why = "its record is gone, and no later record says that it was old";
                return Err(Bad::new(at, What::Missing, why));
            }
        }
        if let Some(head) = self.heads.front() {
            let why = format!("a signed head is of {} records", head.size);
            return Err(Bad::new(self.size(), What::Missing, why));
        }
        let removed = self.removed.iter().map(|(from, to)| to - from).sum();
        let Self { good: signed, compared: heads, .. } = self;
        Ok(Verified { size: self.tree.size(), root: self.tree.root(), signed, heads, removed })
    }

    /// A record bears its number, and may say that others were removed.
    fn numbered(&mut self, seq: u64, record: &[u8]) -> Result<(), Bad> {
        let Ok(value) = serde_json::from_slice::<Value>(record) else {
            return Err(Bad::new(seq, What::Changed, "it is no JSON"));
        };
        let Some(own) = value.get("seq").and_then(Value::as_u64) else {
            return Err(Bad::new(seq, What::Changed, "it bears no number"));
        };
        if own != seq {
            let what = if seq < own { What::Missing } else { What::Inserted };
            return Err(Bad::new(seq, what, format!("the record that stands there is seq {own}")));
        }
        let range = |member| value.pointer(member).and_then(Value::as_u64);
        if value.get("action").and_then(Value::as_str) == Some(TOMBSTONE)
            && let (Some(from), Some(to)) = (range("/after/from"), range("/after/to"))
            && from < to
            && to <= seq
        {
            self.excused.push((from, to));
        }
        Ok(())
    }

    fn push(&mut self, leaf: Hash) -> Result<(), Bad> {
        self.tree.push(leaf);
        self.compare()
    }

    fn compare(&mut self) -> Result<(), Bad> {
        while let Some(head) = self.heads.front()
            && head.size == self.tree.size()
        {
            if head.root != self.tree.root() {
                let why = format!(
                    "the signed head of size {} has another root: something from {} on is not \
                     what was signed",
                    head.size, self.good
                );
                return Err(Bad::new(self.good, What::Fork, why));
            }
            (self.good, self.compared) = (head.size, self.compared + 1);
            self.heads.pop_front();
        }
        Ok(())
    }
}

/// The action of the record that says that others were removed.
pub const TOMBSTONE: &str = "audit:remove";

/// Compares the hashes of records with those kept of them, of which there may be fewer.
fn compare(first: u64, found: &[Hash], kept: &[Hash]) -> Result<(), Bad> {
    let differs = found.iter().zip(kept).position(|(found, kept)| found != kept);
    let Some(at) = differs else {
        if found.len() < kept.len() {
            let seq = first + found.len() as u64;
            return Err(Bad::new(seq, What::Missing, "its hash is kept, and no record"));
        }
        return Ok(());
    };
    let seq = first + at as u64;
    let (found_rest, kept_rest) = (tail(found, at), tail(kept, at));
    let is_known = found_rest.first().is_some_and(|hash| kept_rest.contains(hash));
    let is_there = kept_rest.first().is_some_and(|hash| found_rest.contains(hash));
    let (what, why) = match (is_known, is_there) {
        (true, true) => (What::Reordered, "the hash kept of it is that of a record further on"),
        (true, false) => (What::Missing, "the record that stands there is the one after it"),
        (false, true) => (What::Inserted, "no hash is kept of it, and that of the one after it is"),
        (false, false) => (What::Changed, "it does not have the hash that is kept of it"),
    };
    Err(Bad::new(seq, what, why))
}

fn tail(hashes: &[Hash], from: usize) -> &[Hash] {
    hashes.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
