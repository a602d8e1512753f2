//! Names: of transactions, of their branches, of the databases that take part.

use std::fmt;
use std::sync::Arc;

use crate::limits::{BRANCH_ID_BYTES_MAX, GID_BYTES_MAX, XA_GID_BYTES_MAX};
use crate::moment::Moment;

/// A text that is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} must be {allowed}")]
pub struct NameInvalid {
    what: &'static str,
    text: String,
    allowed: &'static str,
    code: &'static str,
}

impl NameInvalid {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

/// A global transaction, as whoever began it named it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid(Arc<str>);

impl Gid {
    /// Checks `text`: 1 to 128 bytes without control characters.
    ///
    /// # Errors
    ///
    /// [`NameInvalid`], which says what is allowed.
    pub fn new(text: &str) -> Result<Self, NameInvalid> {
        if (1..=GID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            return Ok(Self(text.into()));
        }
        Err(NameInvalid {
            what: "gid",
            text: text.chars().take(GID_BYTES_MAX).collect(),
            allowed: "1 to 128 bytes without control characters",
            code: "transaction-gid-invalid",
        })
    }

    /// Checks that a two-phase commit of our own dialect can bear this name: it becomes part of
    /// what databases call the branch.
    ///
    /// # Errors
    ///
    /// [`NameInvalid`], which says what is allowed.
    pub fn fits_xa(&self) -> Result<(), NameInvalid> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.0.len() <= XA_GID_BYTES_MAX && self.0.bytes().all(legal) {
            return Ok(());
        }
        Err(NameInvalid {
            what: "gid of a two-phase commit",
            text: self.0.to_string(),
            allowed: "1 to 48 of A-Z, a-z, 0-9, `.`, `_` and `-`",
            code: "transaction-gid-invalid",
        })
    }

    /// A name nobody has used: a UUID of version 7 (RFC 9562), so that names sort by time.
    pub fn generate(now: Moment, draw: u128) -> Self {
        let text = mainstay_core::uuid::v7(now.unix_millis(), draw);
        Self(text.into())
    }

    /// The name under which a message that was given up is delivered once more.
    ///
    /// # Errors
    ///
    /// [`NameInvalid`] when that gets too long.
    pub fn again(&self, n: u32) -> Result<Self, NameInvalid> {
        Self::new(&format!("{self}.r{n}"))
    }

    /// Which of `shards` it belongs to: FNV-1a over its bytes, modulo.
    pub fn shard(&self, shards: Shards) -> Shard {
        let [.., last] = (fnv1a(self.0.as_bytes()) % u64::from(shards.0)).to_be_bytes();
        Shard(last) // There are at most 256.
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many parts a log has: a power of two up to 256, fixed when the log is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(u16);

impl Shards {
    /// Unless configured.
    pub const DEFAULT: Self = Self(64);

    /// `count` of them; `None` unless it is a power of two up to 256.
    pub const fn new(count: u16) -> Option<Self> {
        if count.is_power_of_two() && count <= 256 { Some(Self(count)) } else { None }
    }

    /// How many.
    pub const fn count(self) -> u16 {
        self.0
    }

    /// All of them, in order.
    pub fn all(self) -> impl Iterator<Item = Shard> {
        (0..self.0).filter_map(|shard| u8::try_from(shard).ok()).map(Shard)
    }
}

/// A part of the log, owned by one node at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// The shard numbered `number`.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Shard {
    /// Two hexadecimal digits, as in keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// FNV-1a with 64 bits (G. Fowler, L. C. Noll, K.-P. Vo, 1991).
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A branch of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(Arc<str>);

impl BranchId {
    /// Checks `text`: 1 to 64 of `0-9`, `A-Z`, `a-z`, `.` and `-`. `00` is the initiator's own
    /// part and no branch.
    ///
    /// # Errors
    ///
    /// [`NameInvalid`], which says what is allowed.
    pub fn new(text: &str) -> Result<Self, NameInvalid> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
        let fits = (1..=BRANCH_ID_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(legal) && text != INITIATOR {
            return Ok(Self(text.into()));
        }
        Err(NameInvalid {
            what: "branch",
            text: text.chars().take(BRANCH_ID_BYTES_MAX).collect(),
            allowed: "1 to 64 of 0-9, A-Z, a-z, `.` and `-`, and not `00`",
            code: "branch-id-invalid",
        })
    }

    /// The initiator's own part, which is asked whether it was done.
    pub fn initiator() -> Self {
        Self(INITIATOR.into())
    }

    /// Branch number `n`, of which the first is 1.
    pub fn number(n: usize) -> Self {
        Self(format!("{n:02}").into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The branch id of the initiator's own part.
const INITIATOR: &str = "00";

/// A database that takes part in transactions, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Arc<str>);

impl ResourceName {
    /// Checks `text`: 1 to 64 of `a-z`, `0-9`, `_` and `-`.
    ///
    /// # Errors
    ///
    /// [`NameInvalid`], which says what is allowed.
    pub fn new(text: &str) -> Result<Self, NameInvalid> {
        let legal =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text.into()));
        }
        Err(NameInvalid {
            what: "resource",
            text: text.chars().take(64).collect(),
            allowed: "1 to 64 of a-z, 0-9, `_` and `-`",
            code: "resource-unknown",
        })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! shown {
    ($($name:ident)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        })*
    };
}

shown! { Gid BranchId ResourceName }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_belongs_to_the_shard_its_hash_says() {
        let cases = [
            ("", 0xcbf2_9ce4_8422_2325, 37),
            ("a", 0xaf63_dc4c_8601_ec8c, 12),
            ("order-1", 0xdee4_809f_34be_e86d, 45),
        ];
        for (text, hash, shard) in cases {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text:?}");
            assert_eq!(hash % 64, shard, "{text:?}");
        }
        let longer = [("01890a5d-ac96-774b-bcce-b302099a8057", 51), ("转账-7", 20)];
        for (text, shard) in longer {
            let gid = Gid::new(text).unwrap();
            assert_eq!(gid.shard(Shards::DEFAULT), Shard::new(shard), "{text}");
        }
        assert_eq!(Shard::new(45).to_string(), "2d");
    }

    #[test]
    fn names_are_checked_at_their_limits() {
        assert!(Gid::new(&"a".repeat(128)).is_ok() && Gid::new(&"a".repeat(129)).is_err());
        assert!(Gid::new("").is_err() && Gid::new("a\nb").is_err() && Gid::new("转账").is_ok());
        let xa = |text: &str| Gid::new(text).unwrap().fits_xa();
        assert!(xa(&"a".repeat(48)).is_ok() && xa(&"a".repeat(49)).is_err());
        assert!(xa("a:b").is_err() && xa("转账").is_err() && xa("A.b_c-1").is_ok());
        for good in ["01", "0101", "100", "a.b-c"] {
            assert_eq!(BranchId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "00", "a b", "a_b", &"1".repeat(65)] {
            assert_eq!(BranchId::new(bad).unwrap_err().code(), "branch-id-invalid", "{bad:?}");
        }
        assert!(ResourceName::new("orders-1").is_ok() && ResourceName::new("Orders").is_err());
    }

    #[test]
    fn a_generated_gid_is_a_uuid_of_version_7_that_sorts_by_time() {
        let at = Moment::from_unix_millis(0x0189_0a5d_ac96);
        let gid = Gid::generate(at, 0x774b_3cce_b302_099a_8057);
        assert_eq!(gid.as_str(), "01890a5d-ac96-774b-bcce-b302099a8057");
        let extreme = Gid::generate(at, u128::MAX);
        assert_eq!(extreme.as_str(), "01890a5d-ac96-7fff-bfff-ffffffffffff");
        assert!(gid.fits_xa().is_ok());
    }

    #[test]
    fn shards_are_a_power_of_two() {
        assert_eq!(Shards::new(64), Some(Shards::DEFAULT));
        assert_eq!(Shards::new(256).map(|shards| shards.all().count()), Some(256));
        for wrong in [0, 3, 512] {
            assert_eq!(Shards::new(wrong), None, "{wrong}");
        }
    }
}
