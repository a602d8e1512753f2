//! nginx's consistent hash (`ngx_http_upstream_hash_module`), point for point.
//!
//! A server's points depend on its name as written and on nothing else; each is the CRC-32 of the
//! one before, continued from a base over host and port. The name is cut at the last `:` that is
//! followed by digits only.

use super::Member;
use super::points::Points;

/// Points of a member of weight 1.
const POINTS_PER_WEIGHT: u64 = 160;

/// Points altogether: 2²³ of 16 bytes are 128 MiB. nginx has no such bound; beyond 52,428 units of
/// weight all members lose in proportion, which keeps their shares but not nginx's points.
const POINTS_MAX: u64 = 1 << 23;

/// The points of all `members`, those of equal place reduced to the first.
pub(super) fn points(members: &[Member<'_>]) -> Points {
    bounded(members, POINTS_MAX)
}

fn bounded(members: &[Member<'_>], max: u64) -> Points {
    let total: u64 = members.iter().map(|m| u64::from(m.weight) * POINTS_PER_WEIGHT).sum();
    let mut pairs = Vec::with_capacity(usize::try_from(total.min(max)).unwrap_or(0));
    for (owner, member) in (0_u32..).zip(members) {
        let mut count = u64::from(member.weight) * POINTS_PER_WEIGHT;
        if total > max && count > 0 {
            // At most 2^32 · 160 · 2^23, which is below 2^64.
            count = (count * max / total).max(1);
        }
        let base = base(member.key);
        let mut point = 0_u32;
        for _ in 0..count {
            let mut crc = base.clone();
            crc.update(&point.to_le_bytes());
            point = crc.finalize();
            pairs.push((u64::from(point) << 32, owner));
        }
    }
    Points::distinct(pairs)
}

/// CRC-32 over host, a zero byte, port.
fn base(name: &str) -> crc32fast::Hasher {
    let (host, port) = split(name);
    let mut crc = crc32fast::Hasher::new();
    crc.update(host.as_bytes());
    crc.update(&[0]);
    crc.update(port.as_bytes());
    crc
}

/// Host and port as nginx cuts them.
fn split(name: &str) -> (&str, &str) {
    let has_scheme = name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("unix:"));
    if has_scheme {
        return (name.get(5..).unwrap_or_default(), "");
    }
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_as_nginx_cuts_them() {
        let cases = [
            ("10.0.0.1:8080", ("10.0.0.1", "8080")),
            ("order.shop", ("order.shop", "")),
            ("[::1]:80", ("[::1]", "80")),
            ("[::1]", ("[::1]", "")),
            ("unix:/run/order.sock", ("/run/order.sock", "")),
            ("UNIX:/run/a:80", ("/run/a:80", "")),
            ("host:http", ("host:http", "")),
            ("a:1:2", ("a:1", "2")),
            ("host:", ("host", "")),
        ];
        for (name, want) in cases {
            assert_eq!(split(name), want, "{name}");
        }
    }

    #[test]
    fn weights_beyond_the_bound_keep_their_shares() {
        let members =
            [Member { key: "a:1", weight: u32::MAX }, Member { key: "b:1", weight: u32::MAX / 4 }];
        let points = bounded(&members, 10_000);
        let first = points.owners().iter().filter(|&&owner| owner == 0).count();
        assert_eq!((first, points.owners().len() - first), (8_000, 1_999));
    }
}
