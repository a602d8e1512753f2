//! The label an instance goes by in a name.
//!
//! An id may hold what a label may not, or not well: `10.0.0.7:8080` has dots, and hosts look names
//! up that have letters, digits and hyphens alone. An id that is such a label already stands for
//! itself. Any other becomes its letters and digits, as far as there is room, and a hash of the
//! whole, so that two ids with the same letters are told apart.

use xxhash_rust::xxh64::xxh64;

/// Longest label of an instance, in bytes: a UUID with hyphens. With it every service of every
/// namespace has names of instances within the 255 bytes of a name, as long as the zone's own name
/// has at most [`DOMAIN_BYTES_MAX`]: 37 + 129 + 64 + 5 + 19 + 1.
pub const LABEL_BYTES_MAX: usize = 36;

/// Longest name of a zone, in bytes.
pub const DOMAIN_BYTES_MAX: usize = 18;

/// Hexadecimal digits of the hash.
const HASH_DIGITS: usize = 16;

/// The label of `id`, 1 to 36 of `a-z`, `0-9` and `-`.
pub fn of_instance(id: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = id.len() <= LABEL_BYTES_MAX && id.bytes().all(is_plain);
    if fits && !id.starts_with('-') && !id.ends_with('-') {
        return id.to_owned();
    }
    let tame = |b: u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
    let room = LABEL_BYTES_MAX - HASH_DIGITS - 1;
    let readable: String = id.bytes().take(room).map(|b| char::from(tame(b))).collect();
    let readable = readable.trim_matches('-');
    let join = if readable.is_empty() { "" } else { "-" };
    format!("{readable}{join}{:016x}", xxh64(id.as_bytes(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_id_where_that_is_one() {
        for id in ["a", "web-1", "3f2c9a1e-7b54-4c0d-9e55-0a1b2c3d4e5f", "7"] {
            assert_eq!(of_instance(id), id);
        }
    }

    #[test]
    fn any_other_id_has_a_label_of_its_own() {
        let odd =
            ["10.0.0.7:8080", "10-0-0-7:8080", "-a", "a-", "A", "订单", ":", &"x".repeat(255)];
        let mut seen = std::collections::BTreeSet::new();
        for id in odd {
            let label = of_instance(id);
            assert!((1..=LABEL_BYTES_MAX).contains(&label.len()), "{id}: {label}");
            assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{label}");
            assert!(!label.starts_with('-') && !label.ends_with('-'), "{label}");
            assert_eq!(of_instance(&label), label, "a label stands for itself");
            assert!(seen.insert(label), "{id} shares its label");
        }
        assert!(of_instance("10.0.0.7:8080").starts_with("10-0-0-7-8080-"));
    }
}
