//! Random draws for choices that need not be secret.
//!
//! Machines take draws as arguments; this is where running code gets them: wyrand, a generator
//! of one multiplication, seeded for each thread from the process's hash seed, which comes from
//! the operating system. Source: Wang Yi, <https://github.com/wangyi-fudan/wyhash> (public domain).

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0x6d61_696e_u64));
}

/// The next draw of this thread, uniform over all values.
pub fn next() -> u64 {
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0xa076_1d64_78bd_642f);
        state.set(seed);
        let product = u128::from(seed) * u128::from(seed ^ 0xe703_7ed1_a0b4_28db);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are folded together")]
        let folded = (product >> 64) as u64 ^ product as u64;
        folded
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn draws_differ_and_use_every_bit() {
        let draws: Vec<u64> = (0..1_000).map(|_| super::next()).collect();
        assert_eq!(draws.iter().collect::<BTreeSet<_>>().len(), 1_000);
        assert_eq!(draws.iter().fold(0, |all, d| all | d), u64::MAX);
        let ones: u32 = draws.iter().map(|d| d.count_ones()).sum();
        assert!((31_000..33_000).contains(&ones), "{ones} ones in 64,000 bits");
    }
}
