//! Where the hashes of a tree lie: tiles of height 8.
//!
//! A tile of level L has up to 256 hashes, each the root of 256 to the power of L leaves; level 0
//! has the leaves themselves. A tile with 256 hashes never changes; the one at the right edge is
//! **partial** and is named with how many it has, so that each name always means the same bytes.
//! Records lie in bundles of 256 beside them. Names are those of C2SP's tlog-tiles: a number is
//! written in groups of three digits, all but the last with an `x` before them, so that no folder
//! has more than a thousand of them.

use std::fmt;

use super::tree::{HASH_BYTES, Hash};

/// Hashes of a whole tile, records of a whole bundle.
pub const WIDTH: u64 = 256;

/// Its logarithm.
pub const HEIGHT: u32 = 8;

/// Most levels: 256 to the power of 8 leaves are more than are counted.
pub const LEVELS: u8 = 8;

/// What a tile has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Records.
    Entries,
    /// Hashes of this level.
    Hashes(u8),
}

/// One tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it has.
    pub level: Level,
    /// Which one, from the left.
    pub index: u64,
    /// How many it has where it is partial, 1 to 255.
    pub width: Option<u8>,
}

impl Tile {
    /// A whole tile.
    pub const fn whole(level: Level, index: u64) -> Self {
        Self { level, index, width: None }
    }

    /// The tile `index` of `level` in a tree of `size` leaves; `None` when there is none.
    pub fn at(level: Level, index: u64, size: u64) -> Option<Self> {
        let height = match level {
            Level::Entries => 0,
            Level::Hashes(level) => u32::from(level) * HEIGHT,
        };
        let width = size.checked_shr(height)?.checked_sub(index.checked_mul(WIDTH)?)?;
        match u8::try_from(width) {
            Ok(0) => None,
            Ok(width) => Some(Self { level, index, width: Some(width) }),
            Err(_whole) => Some(Self::whole(level, index)),
        }
    }

    /// How many hashes or records it has.
    pub fn len(self) -> usize {
        self.width.map_or(256, usize::from)
    }

    /// Never.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The tile `path` names, as `Display` writes it; nothing else names one.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let level = match level {
            "entries" => Level::Entries,
            number => Level::Hashes(number.parse().ok().filter(|level| *level < LEVELS)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, Some(width.parse::<u8>().ok()?)),
            None => (rest, None),
        };
        let digits: String = index.split('/').map(|group| group.trim_start_matches('x')).collect();
        let tile = Self { level, index: digits.parse().ok()?, width };
        (width != Some(0) && tile.to_string() == path).then_some(tile)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Entries => f.write_str("tile/entries/")?,
            Level::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![self.index % 1_000];
        let mut rest = self.index / 1_000;
        while 0 < rest {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for group in groups.iter().skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups.first().copied().unwrap_or_default())?;
        self.width.map_or(Ok(()), |width| write!(f, ".p/{width}"))
    }
}

/// Where the hashes of a complete subtree stand: level and index of the tile, the first of them, and
/// how many. Merged they are its root.
#[expect(clippy::missing_panics_doc, reason = "a height is below 64, and what a tile has 256")]
pub fn place(height: u32, index: u64) -> (u8, u64, usize, usize) {
    let within = height % HEIGHT;
    let first = index << within;
    let level = u8::try_from(height / HEIGHT).expect("a height is below 64");
    let at = usize::try_from(first % WIDTH).expect("below 256");
    (level, first / WIDTH, at, 1 << within)
}

/// A tile's bytes.
pub fn write(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a tile's bytes; `None` when they are not a whole number of them, or too many.
pub fn read(bytes: &[u8]) -> Option<Vec<Hash>> {
    let is_one = bytes.len().is_multiple_of(HASH_BYTES) && bytes.len() <= 256 * HASH_BYTES;
    is_one.then(|| bytes.chunks_exact(HASH_BYTES).filter_map(Hash::from_slice).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::{Frontier, merged};
    use super::*;

    #[test]
    fn tiles_are_named_as_those_of_every_log() {
        for (tile, name) in [
            (Tile::whole(Level::Hashes(0), 0), "tile/0/000"),
            (Tile::whole(Level::Entries, 1_234_067), "tile/entries/x001/x234/067"),
            (Tile { level: Level::Hashes(1), index: 5, width: Some(3) }, "tile/1/005.p/3"),
        ] {
            assert_eq!(tile.to_string(), name);
            assert_eq!(Tile::parse(name), Some(tile));
        }
        for bad in [
            "tile/0/0",
            "tile/0/x000/001",
            "tile/8/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/00/000",
            "tile/0/001.p/03",
            "tile/0/../000",
            "tile/x/000",
            "tile/0/",
            "",
        ] {
            assert_eq!(Tile::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_tile_at_the_edge_has_what_is_left() {
        let at = |level, index, size| Tile::at(level, index, size).map(|tile| tile.width);
        assert_eq!(at(Level::Entries, 0, 0), None);
        assert_eq!(at(Level::Entries, 0, 255), Some(Some(255)));
        assert_eq!(at(Level::Entries, 0, 256), Some(None));
        assert_eq!(at(Level::Entries, 1, 256), None);
        assert_eq!(at(Level::Hashes(1), 0, 256 * 3 + 7), Some(Some(3)));
        assert_eq!(at(Level::Hashes(7), 0, u64::MAX), Some(Some(255)));
    }

    proptest! {
        #[test]
        fn a_name_means_one_tile(level in 0u8..8, index in 0u64..1 << 56, width in 0u8..=255) {
            let width = (width != 0).then_some(width);
            for level in [Level::Hashes(level), Level::Entries] {
                let tile = Tile { level, index, width };
                prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
            }
        }

        /// Whatever the subtree: the hashes at its place come to its root.
        #[test]
        fn a_subtree_is_where_its_place_says(height in 0u32..11, index in 0u64..3) {
            let leaf = |number: u64| Hash::leaf(&number.to_le_bytes());
            let (level, tile, first, count) = place(height, index);
            let below = 1u64 << (u32::from(level) * HEIGHT);
            let hashes: Vec<Hash> = (0..WIDTH)
                .map(|at| (tile * WIDTH + at) * below)
                .map(|from| merged(&(from..from + below).map(leaf).collect::<Vec<_>>()))
                .collect();
            let want = merged(&(index << height..(index + 1) << height).map(leaf).collect::<Vec<_>>());
            prop_assert_eq!(merged(&hashes[first..first + count]), want);
            prop_assert_eq!(read(&write(&hashes)), Some(hashes));
        }

        #[test]
        fn an_edge_is_made_of_tiles(size in 0u64..2_000) {
            let leaf = |number: u64| Hash::leaf(&number.to_le_bytes());
            let mut grown = Frontier::default();
            (0..size).for_each(|number| grown.push(leaf(number)));
            let Ok(found) = Frontier::of(size, |height, index| {
                let all: Vec<Hash> = (index << height..(index + 1) << height).map(leaf).collect();
                Ok::<_, std::convert::Infallible>(merged(&all))
            });
            prop_assert_eq!(found, grown);
        }
    }
}
