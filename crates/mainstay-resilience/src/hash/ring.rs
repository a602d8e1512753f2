//! Envoy's ring hash with xxHash64 (`source/extensions/load_balancing_policies/ring_hash`).
//!
//! How many points a member gets follows from its weight and from the smallest weight of all, by a
//! running sum in floating point. The sum is part of the format: rounding each member by itself
//! would give a different ring.

use std::io::Write as _;

use xxhash_rust::xxh64::xxh64;

use super::Member;
use super::points::Points;

/// Points at most: 2²³ of 16 bytes are 128 MiB. Envoy's own limit.
pub const RING_MAX: u32 = 8_388_608;

/// The points of all `members`: about `min` when weights are equal, never more than `max` and the
/// number of members together.
#[expect(
    clippy::cast_precision_loss,
    reason = "sums of weights stay far below 2^53, and Envoy computes in f64"
)]
pub(super) fn points(members: &[Member<'_>], min: u32, max: u32) -> Points {
    let total: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
    let weighted = || (0_u32..).zip(members).filter(|(_, m)| m.weight > 0);
    let normalized = |m: &Member<'_>| f64::from(m.weight) / total as f64;
    let least = weighted().map(|(_, m)| normalized(m)).fold(1.0, f64::min);
    let scale = ((least * f64::from(min)).ceil() / least).min(f64::from(max));

    let mut pairs = Vec::new();
    let mut text = Vec::new();
    let (mut count, mut target) = (0.0, 0.0);
    for (owner, member) in weighted() {
        target += scale * normalized(member);
        text.clear();
        text.extend_from_slice(member.key.as_bytes());
        text.push(b'_');
        let stem = text.len();
        let mut i = 0_u32;
        while count < target {
            text.truncate(stem);
            write!(text, "{i}").expect("a vector takes any text");
            pairs.push((xxh64(&text, 0), owner));
            i += 1;
            count += 1.0;
        }
    }
    Points::new(pairs)
}
