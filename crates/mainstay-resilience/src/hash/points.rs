//! Sorted points on a circle, found in constant time.
//!
//! A binary search over 16,000 points misses the cache about fourteen times. The points are hashes,
//! hence evenly spread, so the upper bits of a hash already tell where to look: `starts` holds, for
//! each of about as many buckets as there are points, the first point in it. What is left is a walk
//! of one or two steps. It costs four bytes a point.

/// Points ascending, each with its owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    places: Vec<u64>,
    owners: Vec<u32>,
    starts: Vec<u32>,
    shift: u32,
}

impl Points {
    /// Sorts `pairs` of point and owner; of equal points the first given comes first.
    pub(super) fn new(mut pairs: Vec<(u64, u32)>) -> Self {
        pairs.sort_by_key(|&(point, _)| point);
        Self::sorted(pairs)
    }

    /// The same, keeping only the first of equal points.
    pub(super) fn distinct(mut pairs: Vec<(u64, u32)>) -> Self {
        pairs.sort_by_key(|&(point, _)| point);
        pairs.dedup_by_key(|&mut (point, _)| point);
        Self::sorted(pairs)
    }

    fn sorted(pairs: Vec<(u64, u32)>) -> Self {
        // At least two buckets, so that the shift stays below 64.
        let bits = pairs.len().next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS - bits;
        let (places, owners): (Vec<u64>, Vec<u32>) = pairs.into_iter().unzip();
        let mut starts = Vec::with_capacity(1 << bits);
        let mut at = 0;
        for bucket in 0..1_u64 << bits {
            while places.get(at).is_some_and(|&point| point < bucket << shift) {
                at += 1;
            }
            starts.push(u32::try_from(at).expect("a ring has at most 2^23 points"));
        }
        Self { places, owners, starts, shift }
    }

    /// Owners in the order of their points.
    pub(super) fn owners(&self) -> &[u32] {
        &self.owners
    }

    /// Position of the first point at or above `hash`, else of the first of all.
    pub(super) fn find(&self, hash: u64) -> usize {
        let Some(&start) =
            usize::try_from(hash >> self.shift).ok().and_then(|b| self.starts.get(b))
        else {
            return 0;
        };
        let rest = &self.places[start as usize..];
        match rest.iter().position(|&point| point >= hash) {
            Some(step) => start as usize + step,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_binary_search_finds() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state
        };
        for count in [1, 2, 3, 7, 160, 1_000] {
            let points = Points::new((0..count).map(|owner| (next(), owner)).collect());
            let edges =
                points.places.iter().flat_map(|&p| [p, p.wrapping_add(1), p.wrapping_sub(1)]);
            for hash in
                edges.chain([0, u64::MAX]).chain((0..500).map(|_| next())).collect::<Vec<_>>()
            {
                let want = points.places.partition_point(|&p| p < hash) % points.places.len();
                assert_eq!(points.find(hash), want, "{hash} among {count} points");
            }
        }
    }

    #[test]
    fn points_that_all_fall_into_one_bucket_are_still_found() {
        let points = Points::distinct(vec![(5, 0), (5, 1), (7, 2), (6, 3)]);
        assert_eq!(points.owners(), [0, 3, 2]);
        assert_eq!([0, 5, 6, 7, 8].map(|hash| points.find(hash)), [0, 0, 1, 2, 0]);
    }

    #[test]
    fn an_empty_circle_has_no_owner() {
        let points = Points::new(Vec::new());
        assert_eq!(points.owners(), [] as [u32; 0]);
        assert_eq!(points.find(u64::MAX), 0);
    }
}
