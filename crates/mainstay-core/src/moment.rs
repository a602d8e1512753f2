//! Moments of the wall clock, as people write them.
//!
//! Records and rules bear the time of day as RFC 3339 has it. Nothing a lease or a lock depends on
//! is decided by it: a wall clock may be wrong, and may go back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in UTC, written `2026-01-02T03:04:05.678Z`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, format = DateTime)]
pub struct Moment(u64);

/// A text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time like 2026-01-02T03:04:05Z")]
pub struct MomentInvalid(String);

impl Moment {
    /// The last moment that can be written: the end of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// `millis` milliseconds after the beginning of 1970; later than [`Moment::MAX`] counts as it.
    pub const fn from_unix_millis(millis: u64) -> Self {
        if millis < Self::MAX.0 { Self(millis) } else { Self::MAX }
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self::from_unix_millis(self.0.saturating_add(millis))
    }

    /// Time from `earlier` to this moment; zero when `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads RFC 3339: with `Z` or an offset, with or without parts of a second. A leap second
    /// counts as the one after it; what is finer than a millisecond is left out.
    ///
    /// # Errors
    ///
    /// [`MomentInvalid`], also for what lies before 1970 or after 9999.
    pub fn parse(text: &str) -> Result<Self, MomentInvalid> {
        read(text.as_bytes()).map(Self).ok_or_else(|| MomentInvalid(text.to_owned()))
    }
}

fn read(text: &[u8]) -> Option<u64> {
    let (head, tail) = text.split_at_checked(19)?;
    let [
        y @ ..,
        b'-',
        m1,
        m2,
        b'-',
        d1,
        d2,
        b'T' | b't' | b' ',
        h1,
        h2,
        b':',
        n1,
        n2,
        b':',
        s1,
        s2,
    ] = head
    else {
        return None;
    };
    let two = |high: &u8, low: &u8| number(&[*high, *low]);
    let (year, month, day) = (number(y)?, two(m1, m2)?, two(d1, d2)?);
    let (hour, minute, second) = (two(h1, h2)?, two(n1, n2)?, two(s1, s2)?);
    let is_real = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let (millis, zone) = fraction(tail)?;
    let offset = offset_seconds(zone)?;
    let local = days_before(year, month, day)? * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = i64::try_from(local).ok()?.checked_sub(offset)?;
    let total = u64::try_from(seconds).ok()?.checked_mul(1_000)?.checked_add(millis)?;
    (is_real && total <= Moment::MAX.0).then_some(total)
}

/// The milliseconds at the start of `text`, and what follows them.
fn fraction(text: &[u8]) -> Option<(u64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = digits.split_at_checked(end)?;
    let millis = digits.iter().chain(b"00").take(3).copied().collect::<Vec<_>>();
    Some((if digits.is_empty() { None } else { number(&millis) }?, rest))
}

/// Seconds the local time is ahead of UTC.
fn offset_seconds(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let [h1, h2, b':', m1, m2] = digits else { return None };
    let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    let seconds = i64::try_from(hours * 3_600 + minutes * 60).ok()?;
    (hours < 24 && minutes < 60).then_some(sign * seconds)
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to a date, none before it. Source: Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `days_from_civil`.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

impl fmt::Display for Moment {
    /// Source: as above, `civil_from_days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        let shifted_days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (shifted_days / 146_097, shifted_days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl TryFrom<String> for Moment {
    type Error = MomentInvalid;

    fn try_from(text: String) -> Result<Self, MomentInvalid> {
        Self::parse(&text)
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_and_read_as_rfc_3339_has_it() {
        for (text, millis) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T00:00:00.000Z", 951_782_400_000),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(Moment::from_unix_millis(millis).to_string(), text);
            assert_eq!(Moment::parse(text), Ok(Moment(millis)));
        }
    }

    #[test]
    fn offsets_fractions_and_leap_seconds_are_understood() {
        for (text, same) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
            ("2026-01-02T11:04:05+08:00", "2026-01-02T03:04:05.000Z"),
            ("2026-01-01t22:34:05.5-04:30", "2026-01-02T03:04:05.500Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Moment::parse(text).unwrap().to_string(), same, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05.Z",
            "1969-12-31T23:59:59Z",
            "2026-01-02T03:04:05+0800",
            "２026-01-02T03:04:05Z",
            "+026-01-02T03:04:05Z",
        ] {
            assert!(Moment::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Whatever moment: what is written of it is read as it, and the order is that of texts.
        #[test]
        fn a_moment_comes_back(a in 0..=Moment::MAX.0, b in 0..=Moment::MAX.0) {
            let (a, b) = (Moment(a), Moment(b));
            prop_assert_eq!(Moment::parse(&a.to_string()), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        /// Whatever text is looked at, nothing fails.
        #[test]
        fn any_text_can_be_looked_at(text in "\\PC{0,40}|[0-9TZ:.+-]{0,30}") {
            drop(Moment::parse(&text));
        }
    }
}
