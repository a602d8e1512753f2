//! "Did you mean": which known key a wrong one was probably meant to be.
//!
//! Three rules, the first that hits, letters compared without case:
//! 1. a key of the same table that is equal up to an underscore on either side, so `window` finds
//!    `window_seconds` and `burst_max` finds `burst`;
//! 2. the key of that table nearest by Damerau-Levenshtein distance, within `max(1, length / 3)`;
//! 3. the same key in another table.
//!
//! Among equals the nearest wins, then the first by alphabet, so the answer never depends on the
//! order of a map.

use strsim::damerau_levenshtein;

/// The key of `known` that `given` was probably meant to be, by rules 1 and 2.
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let given = given.to_lowercase();
    let mut known: Vec<(usize, &str)> = known
        .into_iter()
        .map(|key| (damerau_levenshtein(&given, &key.to_lowercase()), key))
        .collect();
    known.sort_unstable();
    let up_to_underscore = known.iter().find(|(_, key)| extends(&given, &key.to_lowercase()));
    let near = (given.chars().count() / 3).max(1);
    up_to_underscore
        .or_else(|| known.first().filter(|(distance, _)| *distance <= near))
        .map(|(_, key)| *key)
}

/// Whether one is the other and more behind an underscore, or in front of one.
fn extends(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    !short.is_empty()
        && (long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
            || long.strip_suffix(short).is_some_and(|rest| rest.ends_with('_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 7] =
        ["max", "window_seconds", "burst", "sub_windows", "queue_max", "wait_max_seconds", "kind"];

    #[track_caller]
    fn check(given: &str, want: Option<&str>) {
        assert_eq!(nearest(given, KNOWN), want, "{given}");
    }

    #[test]
    fn a_key_equal_up_to_an_underscore_comes_first() {
        check("window", Some("window_seconds"));
        check("burst_max", Some("burst"));
        check("WINDOW", Some("window_seconds"));
        check("queue", Some("queue_max"));
    }

    #[test]
    fn then_the_nearest_within_a_third_of_its_length() {
        check("mxa", Some("max"));
        check("brst", Some("burst"));
        check("sub_window", Some("sub_windows"));
        check("windowseconds", Some("window_seconds"));
        check("min", None);
        check("colour", None);
        check("", None);
    }
}
