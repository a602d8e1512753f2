//! One of several members: by weight, by cost, from any place on.

use crate::balance::snapshot::Member;

/// The member drawn by weight; `None` if there is none.
pub(super) fn weighted<'a>(
    members: impl Iterator<Item = &'a Member> + Clone,
    draw: u64,
    weight: impl Fn(&Member) -> u64,
) -> Option<usize> {
    let total: u64 = members.clone().map(&weight).sum();
    let mut place = draw.checked_rem(total)?;
    members.into_iter().find_map(|member| match place.checked_sub(weight(member)) {
        Some(rest) => {
            place = rest;
            None
        }
        None => Some(member.index),
    })
}

/// The first of the cheapest.
pub(super) fn cheapest<'a>(
    members: impl Iterator<Item = &'a Member>,
    can: impl Fn(usize) -> bool,
    cost: impl Fn(&Member) -> f64,
) -> Option<usize> {
    let mut best = None;
    for member in members.filter(|member| can(member.index)) {
        let cost = cost(member);
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, member.index));
        }
    }
    best.map(|(_, index)| index)
}

pub(super) fn rotated(members: &[Member], start: usize) -> impl Iterator<Item = &Member> {
    members[start..].iter().chain(&members[..start])
}

/// One more draw out of another: the finalizer of `SplitMix64` (Steele, Lea and Flood, 2014).
pub(super) const fn mix(draw: u64) -> u64 {
    let z = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
