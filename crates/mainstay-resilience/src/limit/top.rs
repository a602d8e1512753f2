//! The keys that ask most, by name.
//!
//! A keyed limit knows its keys as hashes; people want to read them. Text is kept for the
//! [`TOP`] keys that asked most often, and for no other. This is Space-Saving (Metwally, Agrawal,
//! El Abbadi: "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005) in its
//! filtered form (Homem and Carvalho, 2010): a key is first counted on its own, here in its own
//! slot of the key table and so exactly, and takes the place of the least of the hundred only once
//! it has asked more often than that one. A flood of keys that ask once or twice therefore neither
//! pushes anybody out nor costs anything. A key forgotten by the table keeps its place here and
//! counts on when it comes back.

use std::fmt;

/// How many keys are kept with their text.
pub const TOP: usize = 100;

/// Longest text kept of a key, in bytes.
pub const TEXT_BYTES_MAX: usize = 128;

/// One of the keys that asked most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopKey {
    /// Its text, cut to [`TEXT_BYTES_MAX`].
    pub text: String,
    /// Its hash.
    pub key: u128,
    /// How often it asked since it was last remembered.
    pub count: u64,
}

/// Takes the text of a key, and cuts it at [`TEXT_BYTES_MAX`]: `write!` to it.
#[derive(Clone, Copy)]
pub struct KeyText {
    bytes: [u8; TEXT_BYTES_MAX],
    len: usize,
    /// Something did not fit, so nothing more is taken.
    cut: bool,
}

impl KeyText {
    /// What was written so far.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

impl Default for KeyText {
    fn default() -> Self {
        Self { bytes: [0; TEXT_BYTES_MAX], len: 0, cut: false }
    }
}

impl fmt::Write for KeyText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = if self.cut { 0 } else { TEXT_BYTES_MAX - self.len };
        let fits = text.floor_char_boundary(room);
        let end = self.len + fits;
        self.bytes[self.len..end].copy_from_slice(&text.as_bytes()[..fits]);
        self.len = end;
        self.cut |= fits < text.len();
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The list itself. Places are numbered, so that a key's slot can name its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Top {
    counts: Vec<u64>,
    keys: Vec<u128>,
    texts: Vec<KeyText>,
    /// The place with the least count.
    least: usize,
}

impl Top {
    /// Counts one more for the key at `place`.
    pub(super) fn count(&mut self, place: usize) {
        self.counts[place] += 1;
        if place == self.least {
            self.find_least();
        }
    }

    /// Whether a key that asked `count` times belongs on the list.
    pub(super) fn admits(&self, count: u64) -> bool {
        self.counts.len() < TOP || self.counts[self.least] < count
    }

    /// Puts `key` on the list; returns its place, and the key that had to go.
    pub(super) fn put(&mut self, key: u128, count: u64, text: KeyText) -> (usize, Option<u128>) {
        let place = if self.counts.len() < TOP {
            self.counts.push(count);
            self.keys.push(key);
            self.texts.push(text);
            self.find_least();
            return (self.counts.len() - 1, None);
        } else {
            self.least
        };
        let gone = std::mem::replace(&mut self.keys[place], key);
        self.counts[place] = count;
        self.texts[place] = text;
        self.find_least();
        (place, Some(gone))
    }

    /// Place and count of `key`, if it is on the list.
    pub(super) fn find(&self, key: u128) -> Option<(usize, u64)> {
        let place = self.keys.iter().position(|&known| known == key)?;
        Some((place, self.counts[place]))
    }

    /// The first `n`, most frequent first.
    pub(super) fn list(&self, n: usize) -> Vec<TopKey> {
        let mut list: Vec<TopKey> = (0..self.counts.len())
            .map(|i| TopKey {
                text: self.texts[i].as_str().to_owned(),
                key: self.keys[i],
                count: self.counts[i],
            })
            .collect();
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.text.cmp(&b.text)));
        list.truncate(n);
        list
    }

    fn find_least(&mut self) {
        let least = self.counts.iter().enumerate().min_by_key(|&(_, &count)| count);
        self.least = least.map_or(0, |(place, _)| place);
    }
}
