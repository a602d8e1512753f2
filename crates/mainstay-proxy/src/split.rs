//! Sharing a route's calls among services by weight.
//!
//! Weights become bounds in 10,000 basis points, laid end to end in the order written: 90 and 10
//! give the first service buckets 0 to 8,999 and the second 9,000 to 9,999. A call falls into a
//! bucket by a random draw, or by the hash of a key; then a caller keeps its bucket, and moving
//! one bound moves only the callers between the old bound and the new one. That is what a canary
//! needs: while its weight grows, nobody who is on it falls back.

use mainstay_core::name::{RouteName, ServiceName};
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

/// Buckets a split has: one per basis point.
pub const BUCKETS: u16 = 10_000;

/// Services one route may share its calls among. A linear look through 64 bounds costs less than
/// the hash before it.
pub const TARGETS_MAX: usize = 64;

/// The `to` of a route as written: one service, or several with weights.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawTo {
    /// Every call goes to this service.
    One(ServiceName),
    /// Calls are shared by weight; 1 to 64 services.
    Weighted(Vec<RawTarget>),
}

/// One service of a weighted `to`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTarget {
    /// Name of the service.
    pub service: ServiceName,
    /// Its share of the sum of all weights, 1 to 4,294,967,295. Default 1.
    pub weight: Option<u32>,
}

/// Calls shared among services by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Services in the order written, each with the bucket behind its last one.
    targets: Box<[(ServiceName, u16)]>,
    /// Keeps two routes with the same key apart: who is a canary here need not be one there.
    seed: u64,
}

impl Split {
    /// Resolves the `to` of `route`.
    ///
    /// Bounds are rounded down to basis points, so a share differs from its weight's by less than
    /// one; a weight below one 10,000th of the sum may get nothing.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at `to` when there is no service or more than [`TARGETS_MAX`], when one stands
    /// there twice, or when a weight is zero.
    pub fn new(route: &RouteName, to: RawTo) -> Result<Self, Invalid> {
        let targets = match to {
            RawTo::One(service) => vec![RawTarget { service, weight: None }],
            RawTo::Weighted(targets) => targets,
        };
        if targets.is_empty() || TARGETS_MAX < targets.len() {
            let problem = format!("must be 1 to {TARGETS_MAX} services, found {}", targets.len());
            return Err(Invalid::range("to", problem));
        }
        let sum: u64 = targets.iter().map(|target| u64::from(target.weight.unwrap_or(1))).sum();
        let mut bounds: Vec<(ServiceName, u16)> = Vec::with_capacity(targets.len());
        let mut cumulated = 0;
        for (index, RawTarget { service, weight }) in targets.into_iter().enumerate() {
            let weight = weight.unwrap_or(1);
            if weight == 0 {
                let problem = "must be at least 1; leave the service out to send it nothing";
                return Err(Invalid::range(format!("to[{index}].weight"), problem));
            }
            if bounds.iter().any(|(known, _)| *known == service) {
                let problem = format!("service `{service}` stands here twice");
                return Err(Invalid::contradiction(format!("to[{index}].service"), problem));
            }
            cumulated += u64::from(weight);
            let bound = cumulated * u64::from(BUCKETS) / sum;
            bounds.push((service, u16::try_from(bound).unwrap_or(BUCKETS)));
        }
        Ok(Self { targets: bounds.into(), seed: xxh64(route.as_str().as_bytes(), 0) })
    }

    /// The service for a random `draw`, uniform over all of `u64`.
    pub fn pick(&self, draw: u64) -> &ServiceName {
        // The upper half of a 128-bit product: as even as a remainder, and without a division.
        let bucket = (u128::from(draw) * u128::from(BUCKETS)) >> 64;
        self.service(u16::try_from(bucket).unwrap_or(0))
    }

    /// The service for everybody with this `key`: xxHash64 of it, seeded by the route's name.
    pub fn pick_for(&self, key: &str) -> &ServiceName {
        self.service(self.bucket(key))
    }

    /// The bucket of everybody with this `key`, 0 to 9,999.
    pub fn bucket(&self, key: &str) -> u16 {
        u16::try_from(xxh64(key.as_bytes(), self.seed) % u64::from(BUCKETS)).unwrap_or(0)
    }

    /// The service that owns `bucket`, 0 to 9,999.
    pub fn service(&self, bucket: u16) -> &ServiceName {
        let owner = self.targets.iter().find(|(_, bound)| bucket < *bound);
        &owner.unwrap_or(&self.targets[self.targets.len() - 1]).0
    }

    /// Services in the order written, each with its share in basis points.
    pub fn shares(&self) -> impl Iterator<Item = (&ServiceName, u16)> {
        let starts = std::iter::once(0).chain(self.targets.iter().map(|(_, bound)| *bound));
        self.targets.iter().zip(starts).map(|((service, bound), start)| (service, bound - start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(weights: &[u32]) -> Result<Split, Invalid> {
        let target = |(index, &weight): (usize, &u32)| RawTarget {
            service: ServiceName::new(&format!("s{index}")).expect("legal"),
            weight: Some(weight),
        };
        let targets = weights.iter().enumerate().map(target).collect();
        Split::new(&RouteName::new("orders").expect("legal"), RawTo::Weighted(targets))
    }

    /// The last bucket of each service.
    #[track_caller]
    fn check(weights: &[u32], want: &[u16]) {
        let split = split(weights).expect("legal weights");
        let mut last = vec![0; weights.len()];
        for bucket in 0..BUCKETS {
            let service = split.service(bucket).as_str();
            last[service.strip_prefix('s').and_then(|n| n.parse::<usize>().ok()).expect("ours")] =
                bucket;
        }
        assert_eq!(last, want, "{weights:?}");
    }

    #[test]
    fn ninety_to_ten_meets_at_nine_thousand() {
        check(&[90, 10], &[8_999, 9_999]);
        check(&[9, 1], &[8_999, 9_999]);
        check(&[1], &[9_999]);
        check(&[1, 1, 1], &[3_332, 6_665, 9_999]);
        check(&[u32::MAX, u32::MAX], &[4_999, 9_999]);
    }

    #[test]
    fn a_draw_covers_every_bucket_evenly() {
        let split = split(&[90, 10]).expect("legal");
        for (draw, want) in [(0, "s0"), (u64::MAX / 10 * 9 - 99, "s0"), (u64::MAX, "s1")] {
            assert_eq!(split.pick(draw).as_str(), want, "{draw}");
        }
        let ones = (0..10_000u64).filter(|i| split.pick(i * (u64::MAX / 10_000)).as_str() == "s1");
        assert!((999..=1_001).contains(&ones.count()));
    }

    #[test]
    fn a_bucket_is_the_hash_seeded_by_the_route() {
        let split = split(&[90, 10]).expect("legal");
        let want = xxh64(b"ada", xxh64(b"orders", 0)) % 10_000;
        assert_eq!(u64::from(split.bucket("ada")), want);
    }

    #[test]
    fn a_split_without_sense_is_refused() {
        for (weights, path) in [(&[][..], "to"), (&[1, 0], "to[1].weight"), (&[1; 65], "to")] {
            assert_eq!(split(weights).expect_err("refused").path, path, "{weights:?}");
        }
    }

    proptest! {
        #[test]
        fn every_share_is_within_one_basis_point(
            weights in prop::collection::vec(1u32.., 1..TARGETS_MAX)
        ) {
            let split = split(&weights).expect("legal");
            let sum: u64 = weights.iter().copied().map(u64::from).sum();
            let mut total = 0;
            for ((_, share), &weight) in split.shares().zip(&weights) {
                let exact = u128::from(weight) * 10_000;
                let got = u128::from(share) * u128::from(sum);
                prop_assert!(got.abs_diff(exact) <= u128::from(sum), "{share} for {weight}");
                total += share;
            }
            prop_assert_eq!(total, BUCKETS);
        }

        #[test]
        fn nobody_falls_back_while_the_last_weight_grows(
            key in ".*", (less, more) in (1u32..100, 1u32..100)
        ) {
            let (less, more) = (less.min(more), less.max(more));
            let before = split(&[100 - less, less]).expect("legal");
            let after = split(&[100 - more, more]).expect("legal");
            if before.pick_for(&key).as_str() == "s1" {
                prop_assert_eq!(after.pick_for(&key).as_str(), "s1");
            }
        }
    }
}
