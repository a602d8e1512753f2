//! What a switch can be set to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Longest text of a switch, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// Parts of a whole that callers, and clients of a gradual release, are spread over.
pub const BUCKETS: u64 = 10_000;

/// What kind of value a switch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SwitchType {
    /// On or off.
    Boolean,
    /// A number.
    Number,
    /// A text.
    String,
    /// On for a share of the callers, the same ones every time.
    Percent,
}

impl SwitchType {
    /// What a value of this type must be.
    pub const fn wanted(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Number => "a number",
            Self::String => "a text of at most 1,024 bytes",
            Self::Percent => "a number from 0 to 100 with at most two decimals",
        }
    }
}

/// A value of a switch.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// On or off.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A text.
    String(Arc<str>),
    /// On for this share of the callers.
    Percent(Percent),
}

impl Setting {
    /// Reads a value of the type `kind`; `None` when it is none.
    pub fn read(kind: SwitchType, value: &Value) -> Option<Self> {
        match kind {
            SwitchType::Boolean => value.as_bool().map(Self::Boolean),
            SwitchType::Number => value.as_f64().filter(|n| n.is_finite()).map(Self::Number),
            SwitchType::String => {
                let text = value.as_str().filter(|text| text.len() <= TEXT_BYTES_MAX)?;
                Some(Self::String(text.into()))
            }
            SwitchType::Percent => value.as_f64().and_then(Percent::new).map(Self::Percent),
        }
    }
}

/// A share of callers, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    /// `percent` of the callers: 0 to 100, with at most two decimals.
    pub fn new(percent: f64) -> Option<Self> {
        let hundredths = (percent * 100.0).round();
        let is_exact = (percent * 100.0 - hundredths).abs() < 1e-6;
        if !is_exact || !(0.0..=10_000.0).contains(&hundredths) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 0 to 10,000"
        )]
        Some(Self(hundredths as u16))
    }

    /// Whether the caller `key` is among those of the switch `scope` (`namespace/name`). More
    /// percent only adds callers. Without a key there is nobody to be among them: on only at
    /// 100 %.
    pub fn includes(self, scope: &str, key: Option<&str>) -> bool {
        match key {
            Some(key) => bucket(scope, key) < u64::from(self.0),
            None => u64::from(self.0) == BUCKETS,
        }
    }
}

/// Where `key` stands within `scope` (`namespace/name`), 0 to 9,999: the first eight bytes, big
/// endian, of SHA-256 of both with a zero between, modulo 10,000.
pub fn bucket(scope: &str, key: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(scope);
    hash.update([0]);
    hash.update(key);
    let hash = hash.finalize();
    let first = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    first % BUCKETS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CHECKOUT: &str = "default/checkout-v2";

    #[test]
    fn buckets_are_those_of_the_worked_table() {
        for (key, want) in [("u-1", 8_667), ("u-2", 7_609), ("u-3", 487)] {
            assert_eq!(bucket(CHECKOUT, key), want, "{key}");
        }
        let five = Percent::new(5.0).unwrap();
        let on: Vec<&str> = ["u-1", "u-2", "u-3"]
            .into_iter()
            .filter(|key| five.includes(CHECKOUT, Some(key)))
            .collect();
        assert_eq!(on, ["u-3"]);
        assert!(!five.includes(CHECKOUT, None));
        assert!(Percent::new(100.0).unwrap().includes(CHECKOUT, None));
    }

    #[test]
    fn values_are_of_their_type_or_none() {
        use SwitchType::{Boolean, Number, Percent, String};

        let read = |kind, value: Value| Setting::read(kind, &value).is_some();
        for (kind, value, want) in [
            (Boolean, json!(true), true),
            (Boolean, json!("true"), false),
            (Boolean, json!(1), false),
            (Number, json!(-1.5), true),
            (Number, json!("1"), false),
            (String, json!("x".repeat(1_024)), true),
            (String, json!("x".repeat(1_025)), false),
            (Percent, json!(0), true),
            (Percent, json!(12.34), true),
            (Percent, json!(100), true),
            (Percent, json!(100.01), false),
            (Percent, json!(-1), false),
            (Percent, json!(0.001), false),
            (Number, json!(null), false),
        ] {
            assert_eq!(read(kind, value.clone()), want, "{kind:?} {value}");
        }
    }

    proptest! {
        /// Whatever callers and shares: more percent only adds callers.
        #[test]
        fn more_percent_only_adds(key in "\\PC{0,20}", a in 0u32..=10_000, b in 0u32..=10_000) {
            let percent = |hundredths: u32| Percent::new(f64::from(hundredths) / 100.0).unwrap();
            let (less, more) = (percent(a.min(b)), percent(a.max(b)));
            let key = Some(&*key);
            prop_assert!(!less.includes(CHECKOUT, key) || more.includes(CHECKOUT, key));
            prop_assert!(percent(10_000).includes(CHECKOUT, key));
            prop_assert!(!percent(0).includes(CHECKOUT, key));
        }
    }
}
