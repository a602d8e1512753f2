//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, section 3.4), with Envoy's way of giving weights.
//!
//! Every member has its own permutation of the slots; in turn each takes the first free slot of
//! its permutation, the heaviest at every turn and the others as often as their weight is of the
//! heaviest. A look-up is one remainder; the price is that a change also moves a few keys between
//! members that did not change.

use xxhash_rust::xxh64::xxh64;

use super::Member;
use crate::Invalid;

/// Slots at most; Envoy's limit. The table of that size takes 20 MiB.
pub const TABLE_SIZE_MAX: u32 = 5_000_011;

/// Checks the size of a Maglev table. Only with a prime is every permutation complete.
///
/// # Errors
///
/// [`Invalid`] at `table_size`, naming the next prime above a size that is none.
pub fn table_size(size: u32) -> Result<u32, Invalid> {
    if !(2..=TABLE_SIZE_MAX).contains(&size) {
        return Err(Invalid::range(
            "table_size",
            format!("must be a prime of 2 to {TABLE_SIZE_MAX}, found {size}"),
        ));
    }
    if is_prime(size) {
        return Ok(size);
    }
    let next = (size..=TABLE_SIZE_MAX).find(|&n| is_prime(n)).unwrap_or(TABLE_SIZE_MAX);
    Err(Invalid::range("table_size", format!("must be prime, found {size}; the next is {next}")))
}

/// Trial division; 1,118 steps at the largest size.
fn is_prime(n: u32) -> bool {
    n >= 2 && (2..=n.isqrt()).all(|d| !n.is_multiple_of(d))
}

/// A full table.
#[derive(Clone, Debug)]
pub(super) struct Maglev {
    slots: Vec<u32>,
}

/// Where a member is in its permutation.
struct Turn {
    owner: u32,
    weight: f64,
    target: f64,
    slot: u64,
    skip: u64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// Fills `size` slots, which must be prime.
    #[expect(clippy::cast_precision_loss, reason = "Envoy computes in f64")]
    pub(super) fn build(members: &[Member<'_>], size: u32) -> Self {
        let total: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
        let modulus = u64::from(size);
        let mut turns: Vec<Turn> = (0_u32..)
            .zip(members)
            .filter(|(_, m)| m.weight > 0)
            .map(|(owner, m)| Turn {
                owner,
                weight: f64::from(m.weight) / total as f64,
                target: 0.0,
                slot: xxh64(m.key.as_bytes(), 0) % modulus,
                skip: xxh64(m.key.as_bytes(), 1) % (modulus - 1) + 1,
            })
            .collect();
        if turns.is_empty() {
            return Self { slots: Vec::new() };
        }
        let largest = turns.iter().map(|t| t.weight).fold(0.0, f64::max);
        let mut slots = vec![FREE; size as usize];
        let mut left = slots.len();
        let mut round = 0.0;
        while left > 0 {
            round += 1.0;
            for turn in &mut turns {
                if left == 0 {
                    break;
                }
                if round * turn.weight < turn.target {
                    continue;
                }
                turn.target += largest;
                turn.take(&mut slots, modulus);
                left -= 1;
            }
        }
        Self { slots }
    }

    /// Owners by slot; empty when no member has a weight.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The slot of `hash`, another one on each attempt.
    pub(super) fn find(&self, hash: u64, attempt: u32) -> usize {
        if self.slots.is_empty() {
            return 0;
        }
        let hash = match attempt {
            0 => hash,
            a => hash ^ (u64::MAX - u64::from(a) + 1),
        };
        crate::balance::below(hash, self.slots.len())
    }
}

impl Turn {
    /// Takes the next free slot of the permutation.
    #[expect(clippy::cast_possible_truncation, reason = "below `modulus`, which is a u32")]
    fn take(&mut self, slots: &mut [u32], modulus: u64) {
        while slots[self.slot as usize] != FREE {
            self.advance(modulus);
        }
        slots[self.slot as usize] = self.owner;
        self.advance(modulus);
    }

    fn advance(&mut self, modulus: u64) {
        self.slot += self.skip;
        if self.slot >= modulus {
            self.slot -= modulus;
        }
    }
}
