//! Writes refused that come from a holder who has lost its lock.
//!
//! A lock alone does not protect data: its holder can stand still between looking and writing, for
//! longer than the lock lasts, and write after the next holder. Where the data is written the
//! fencing token tells the two apart. The database keeps the highest token it has seen for a
//! resource; a write with a lower one is refused, in the same transaction as the write itself
//! (Burrows, "The Chubby lock service", OSDI 2006, sequencers).
//!
//! | database | check | table |
//! |---|---|---|
//! | `PostgreSQL` | `postgres::check` | `postgres::create_table` |
//! | `MariaDB`, `MySQL` | `mysql::check` | `mysql::create_table` |
//!
//! The check takes the caller's connection and must run in the transaction of the write it
//! protects; it begins none. A check that is committed by itself protects nothing: the next
//! holder's write may come between.

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;

use mainstay_core::problem::Code;

use crate::optimistic::Conflicts;

/// The table of the highest tokens seen, one row a resource.
pub const TABLE: &str = "mainstay_fence";

/// Why a write must not be made. Roll back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError<E> {
    /// A later holder has written: this one has lost its lock.
    #[error("fencing token {token} for {resource:?} is older than {seen}, which was here before")]
    Stale {
        /// Whose lock it was.
        resource: String,
        /// The token shown.
        token: u64,
        /// The highest one seen.
        seen: u64,
    },
    /// No resource can be called that. The caller's fault.
    #[error(
        "resource {resource:?} must be 1 to 255 characters without control characters, and end in \
         no space"
    )]
    ResourceInvalid {
        /// What it was called.
        resource: String,
    },
    /// No grant has such a token. The caller's fault.
    #[error("fencing token {token} must be 1 to 9007199254740991")]
    TokenInvalid {
        /// The token shown.
        token: u64,
    },
    /// What the database said.
    #[error("fencing token could not be checked")]
    Database(#[source] E),
}

impl<E> FenceError<E> {
    /// The problem a caller is told of; `None` when that is up to the database's error.
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Stale { .. } => Some(Code::FencingTokenStale),
            Self::ResourceInvalid { .. } | Self::TokenInvalid { .. } => Some(Code::InvalidRequest),
            Self::Database(_) => None,
        }
    }
}

impl<E: Conflicts> Conflicts for FenceError<E> {
    /// Only an error of the database is. A stale token stays stale.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

/// Tokens travel as JSON numbers, so they stay below 2⁵³.
#[cfg(any(feature = "postgres", feature = "mysql", test))]
const TOKEN_MAX: u64 = (1 << 53) - 1;

/// Checks what is to be bound: a database may cut off what is too long, and take names that differ
/// in trailing spaces for the same.
#[cfg(any(feature = "postgres", feature = "mysql", test))]
fn checked<E>(resource: &str, token: u64) -> Result<i64, FenceError<E>> {
    let length = resource.chars().count();
    let is_legal = (1..=255).contains(&length)
        && !resource.ends_with(' ')
        && !resource.chars().any(char::is_control);
    if !is_legal {
        return Err(FenceError::ResourceInvalid { resource: resource.to_owned() });
    }
    let legal = (1..=TOKEN_MAX).contains(&token).then_some(token);
    legal.and_then(|token| i64::try_from(token).ok()).ok_or(FenceError::TokenInvalid { token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_would_change_is_refused_before() {
        let check = |resource: &str, token| checked::<()>(resource, token);
        assert_eq!(check("shop/sku-1", 7), Ok(7));
        assert_eq!(check(&"锁".repeat(255), TOKEN_MAX), Ok(9_007_199_254_740_991));
        for bad in ["", "a ", "a\0", "a\nb", &"x".repeat(256)] {
            assert!(matches!(check(bad, 7), Err(FenceError::ResourceInvalid { .. })), "{bad:?}");
        }
        for bad in [0, TOKEN_MAX + 1, u64::MAX] {
            assert_eq!(check("a", bad), Err(FenceError::TokenInvalid { token: bad }));
        }
    }
}
