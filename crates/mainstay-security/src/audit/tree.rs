//! The Merkle tree of RFC 6962, section 2.1, with SHA-256.
//!
//! A leaf is hashed with `0x00` before it and a node with `0x01`, so no node can be passed off as a
//! leaf. Of a tree of n leaves the left part is the largest power of two below n; so every subtree
//! but those at the right edge is complete and never changes again.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// A SHA-256 of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// The root of the tree without leaves.
    pub fn empty() -> Self {
        hashed(&[])
    }

    /// The hash of a leaf.
    pub fn leaf(record: &[u8]) -> Self {
        hashed(&[&[0], record])
    }

    /// The hash of two neighbours.
    pub fn node(left: Self, right: Self) -> Self {
        hashed(&[&[1], &left.0, &right.0])
    }

    /// `bytes`, if they are as many as a hash has.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// In base64, as heads have it.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// What [`Hash::to_base64`] wrote.
    pub fn parse_base64(text: &str) -> Option<Self> {
        Self::from_slice(&STANDARD.decode(text).ok()?)
    }
}

fn hashed(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    Hash::from_slice(context.finish().as_ref()).expect("SHA-256 has 32 bytes")
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// The right edge of a tree: the roots of its complete subtrees, largest first. It is all that is
/// needed to go on: at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The edge of a tree of `size` leaves, of which `subtree` knows complete subtrees by height
    /// and index.
    ///
    /// # Errors
    ///
    /// What `subtree` says.
    pub fn of<E>(
        size: u64,
        mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>,
    ) -> Result<Self, E> {
        let heights = (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1);
        let peaks = heights.map(|height| subtree(height, (size >> height) - 1));
        Ok(Self { size, peaks: peaks.collect::<Result<_, _>>()? })
    }

    /// Leaves so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    #[expect(clippy::missing_panics_doc, reason = "there is a peak for each bit of the size")]
    pub fn push(&mut self, leaf: Hash) {
        let mut whole = leaf;
        let mut rest = self.size;
        while rest & 1 == 1 {
            let left = self.peaks.pop().expect("there is a peak for each bit of the size");
            whole = Hash::node(left, whole);
            rest >>= 1;
        }
        self.peaks.push(whole);
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return Hash::empty() };
        peaks.fold(last, |right, left| Hash::node(left, right))
    }
}

/// The root of complete subtrees beside each other, a power of two of them.
pub fn merged(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.push(*hash);
    }
    frontier.root()
}

/// The largest power of two below `n`, which is at least 2.
const fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// Complete subtrees by height and index.
type Subtree<'a, E> = &'a mut dyn FnMut(u32, u64) -> Result<Hash, E>;

/// The root of the leaves from `from` up to `to`, where one of the tree's own subtrees.
fn range<E>(from: u64, to: u64, subtree: Subtree<'_, E>) -> Result<Hash, E> {
    let size = to - from;
    if size.is_power_of_two() {
        let height = size.trailing_zeros();
        return subtree(height, from >> height);
    }
    let middle = from + split(size);
    Ok(Hash::node(range(from, middle, subtree)?, range(middle, to, subtree)?))
}

/// The root of the first `size` leaves.
///
/// # Errors
///
/// What `subtree` says.
pub fn root<E>(size: u64, mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    if size == 0 { Ok(Hash::empty()) } else { range(0, size, &mut subtree) }
}

/// Proves that the leaf `seq` is in the tree of `size` leaves (RFC 6962, 2.1.1); `None` when it is
/// not below it.
///
/// # Errors
///
/// What `subtree` says.
pub fn inclusion<E>(
    seq: u64,
    size: u64,
    mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if size <= seq {
        return Ok(None);
    }
    let (mut from, mut to, mut proof) = (0, size, Vec::new());
    while 1 < to - from {
        let middle = from + split(to - from);
        if seq < middle {
            proof.push(range(middle, to, &mut subtree)?);
            to = middle;
        } else {
            proof.push(range(from, middle, &mut subtree)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(Some(proof))
}

/// Proves that the tree of `to` leaves goes on from that of `from` leaves (RFC 6962, 2.1.2); `None`
/// when `from` is not 1 to `to`.
///
/// # Errors
///
/// What `subtree` says.
pub fn consistency<E>(
    from: u64,
    to: u64,
    mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if from == 0 || to < from {
        return Ok(None);
    }
    let (mut low, mut high, mut proof) = (0, to, Vec::new());
    let mut is_whole = true;
    while from < high {
        let middle = low + split(high - low);
        if from <= middle {
            proof.push(range(middle, high, &mut subtree)?);
            high = middle;
        } else {
            proof.push(range(low, middle, &mut subtree)?);
            (low, is_whole) = (middle, false);
        }
    }
    if !is_whole {
        proof.push(range(low, high, &mut subtree)?);
    }
    proof.reverse();
    Ok(Some(proof))
}

/// Whether `proof` shows that `leaf` is the leaf `seq` of a tree of `size` leaves with that `root`
/// (RFC 9162, 2.1.3.2).
pub fn is_included(leaf: Hash, seq: u64, size: u64, proof: &[Hash], root: Hash) -> bool {
    if size <= seq {
        return false;
    }
    let (mut at, mut last, mut hash) = (seq, size - 1, leaf);
    for beside in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = Hash::node(*beside, hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = Hash::node(hash, *beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// Whether `proof` shows that the tree of `to` leaves with the second root goes on from that of
/// `from` leaves with the first (RFC 9162, 2.1.4.2).
pub fn is_consistent(
    (from, first): (u64, Hash),
    (to, second): (u64, Hash),
    proof: &[Hash],
) -> bool {
    if from == 0 || to < from {
        return false;
    }
    if from == to {
        return proof.is_empty() && first == second;
    }
    let mut rest = proof.iter().copied();
    let start = if from.is_power_of_two() { Some(first) } else { rest.next() };
    let Some(start) = start else { return false };
    let (mut at, mut last) = (from - 1, to - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old, mut new) = (start, start);
    for beside in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            (old, new) = (Hash::node(beside, old), Hash::node(beside, new));
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new = Hash::node(new, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old == first && new == second
}

#[cfg(test)]
mod tests;
