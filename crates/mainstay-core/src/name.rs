//! Names of the things Mainstay looks after.
//!
//! A name is 1 to 128 bytes of letters, digits, `-`, `_` and `.`, beginning with a letter or a
//! digit, so that it fits a header, a label, a path segment and a file name without escaping.
//! Clones share one allocation.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name, in bytes: two DNS labels and a dot.
pub const NAME_BYTES_MAX: usize = 128;

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "name {0:?} must be 1 to 128 letters, digits, `-`, `_` or `.`, and begin with a letter or digit"
)]
pub struct InvalidName(String);

fn parse(text: &str) -> Result<Arc<str>, InvalidName> {
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if starts_well && text.len() <= NAME_BYTES_MAX && text.bytes().all(legal) {
        Ok(Arc::from(text))
    } else {
        Err(InvalidName(text.chars().take(NAME_BYTES_MAX).collect()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads a name.
            ///
            /// # Errors
            ///
            /// [`InvalidName`] when `text` is empty, too long or holds other characters.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                parse(text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same, to be shared.
            pub const fn shared(&self) -> &Arc<str> {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// Name of a service: what callers ask for, whoever answers.
    ServiceName
}
name! {
    /// Name of a route of the gateway.
    RouteName
}
name! {
    /// Name of a policy: a circuit, a limit, a fallback.
    PolicyName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_wherever_it_is_written() {
        for good in ["order", "order-v2", "a.b_c", "7", &"x".repeat(128)] {
            assert_eq!(ServiceName::new(good).map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "订单", "a\n", &"x".repeat(129)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_read_from_a_document_is_checked() {
        assert!(serde_json::from_str::<RouteName>("\"../etc\"").is_err());
        assert_eq!(
            serde_json::from_str::<RouteName>("\"orders\"").expect("legal").as_str(),
            "orders"
        );
    }
}
