//! Hashes that send a key to the same instance again, and keep doing so when others come and go.
//!
//! Three tables, each the twin of one that people run today, so that a cache behind them stays
//! warm on the day of the migration: [`ketama`] puts every key where nginx's `hash … consistent`
//! puts it, [`ring`] where Envoy's ring hash does, [`maglev`] where Envoy's Maglev does. The files
//! in `tests/fixtures` were written by those two programs.
//!
//! A table is built over *all* instances of a level that have a weight, usable or not, and the
//! pick walks on past those it may not use. So a flapping instance costs no rebuild, and its
//! absence moves its own keys only. A table is immutable, and building one takes up to
//! milliseconds: build it off the hot path and swap it in.
//!
//! | table | look-up | memory for 100 equal instances | keys moved by one change of n |
//! |---|---|---|---|
//! | ketama | one bucket, about two comparisons | 320 KiB | about 1/n |
//! | ring | the same | 20 KiB | about 1/n, and some: points are counted anew |
//! | maglev | one remainder, one load | 256 KiB | about 1/n, and a little shuffling |

mod function;
mod ketama;
mod maglev;
mod points;
mod ring;

pub use function::Function;
pub use maglev::{TABLE_SIZE_MAX, table_size};
pub use ring::RING_MAX;

use maglev::Maglev;
use points::Points;

/// Which table to build, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// nginx's: 160 points for each unit of weight.
    Ketama,
    /// Envoy's ring hash.
    Ring {
        /// Points at least, when all weights are equal.
        min: u32,
        /// Points at most.
        max: u32,
    },
    /// Envoy's Maglev.
    Maglev {
        /// Slots; a prime, see [`table_size`].
        size: u32,
    },
}

impl Layout {
    /// The function that keys of this table are hashed with.
    pub const fn function(self) -> Function {
        match self {
            Self::Ketama => Function::Crc32,
            Self::Ring { .. } | Self::Maglev { .. } => Function::Xxh64,
        }
    }
}

/// One instance as a table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// What its points are derived from: `address:port`, or a name.
    pub key: &'a str,
    /// Relative share, at least 1; a member of weight 0 gets no entry.
    pub weight: u32,
}

/// A table from hashes to positions in the list of members it was built from.
#[derive(Clone, Debug)]
pub struct Table {
    layout: Layout,
    entries: Entries,
}

#[derive(Clone, Debug)]
enum Entries {
    Points(Points),
    Slots(Maglev),
}

impl Table {
    /// Builds the table. The order of `members` matters where two points fall together, and for
    /// Maglev everywhere: give a static list as it is written, any other ascending by key.
    pub fn build(layout: Layout, members: &[Member<'_>]) -> Self {
        let entries = match layout {
            Layout::Ketama => Entries::Points(ketama::points(members)),
            Layout::Ring { min, max } => Entries::Points(ring::points(members, min, max)),
            Layout::Maglev { size } => Entries::Slots(Maglev::build(members, size)),
        };
        Self { layout, entries }
    }

    /// What was asked of [`Table::build`].
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The member that `hash` belongs to, or `None` when there is no member with a weight.
    ///
    /// `hash` comes from the [`Layout::function`] of this table.
    pub fn first(&self, hash: u64) -> Option<usize> {
        self.walk(hash, 0).next()
    }

    /// The members in the order in which `hash` should try them, once around the table.
    ///
    /// A member comes once for each entry it has, never twice in a row: the caller skips what it
    /// may not use, and so also what it has already seen. `attempt` counts from 0; on a ring it
    /// changes nothing, in Maglev it starts elsewhere, as in Envoy.
    pub fn walk(&self, hash: u64, attempt: u32) -> Walk<'_> {
        let (owners, start) = match &self.entries {
            Entries::Points(points) => (points.owners(), points.find(self.scaled(hash))),
            Entries::Slots(maglev) => (maglev.slots(), maglev.find(hash, attempt)),
        };
        Walk { owners, at: start, left: owners.len(), last: None }
    }

    /// `hash` in the range of the points: nginx's circle has 2³² places, ours 2⁶⁴.
    const fn scaled(&self, hash: u64) -> u64 {
        match self.layout {
            Layout::Ketama => hash << 32,
            Layout::Ring { .. } | Layout::Maglev { .. } => hash,
        }
    }
}

/// Members in the order of preference; see [`Table::walk`].
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    owners: &'a [u32],
    at: usize,
    left: usize,
    last: Option<u32>,
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            let owner = self.owners[self.at];
            self.at = if self.at + 1 == self.owners.len() { 0 } else { self.at + 1 };
            self.left -= 1;
            if self.last != Some(owner) {
                self.last = Some(owner);
                return Some(owner as usize);
            }
        }
        None
    }
}
