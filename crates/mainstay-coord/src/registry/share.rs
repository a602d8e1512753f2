//! A part of a whole, from 0 to 1.

use serde::{Deserialize, Serialize};

/// A share in basis points, so that it compares exactly: 3 of 10 is 0.3, never 0.29999.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(try_from = "f64", into = "f64")]
#[schema(value_type = f64, minimum = 0, maximum = 1)]
pub struct Share(u16);

/// A number that is no share.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("must be 0 to 1, not {0}")]
pub struct ShareInvalid(f64);

impl Share {
    /// `points` in 10,000; more counts as all.
    pub const fn of_ten_thousand(points: u16) -> Self {
        Self(if points < WHOLE { points } else { WHOLE })
    }

    /// The share in basis points.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// That share of `count`, rounded down.
    pub fn of(self, count: u32) -> u32 {
        let part = u64::from(count) * u64::from(self.0) / u64::from(WHOLE);
        u32::try_from(part).unwrap_or(count)
    }

    /// Whether `part` of `whole` is less than the share. Nothing of nothing is not less.
    pub fn exceeds(self, part: u32, whole: u32) -> bool {
        u64::from(part) * u64::from(WHOLE) < u64::from(whole) * u64::from(self.0)
    }
}

const WHOLE: u16 = 10_000;

impl TryFrom<f64> for Share {
    type Error = ShareInvalid;

    fn try_from(share: f64) -> Result<Self, ShareInvalid> {
        if !(0.0..=1.0).contains(&share) {
            return Err(ShareInvalid(share));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 10,000 after the check"
        )]
        let points = (share * f64::from(WHOLE)).round() as u16;
        Ok(Self(points))
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        Self::from(share.0) / Self::from(WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_and_written_as_a_number() {
        for text in ["0.0", "0.3", "0.5", "1.0"] {
            let share: Share = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
        }
        for wrong in ["-0.1", "1.1", "null"] {
            assert!(serde_json::from_str::<Share>(wrong).is_err(), "{wrong}");
        }
        assert!(Share::try_from(f64::NAN).is_err());
    }
}
