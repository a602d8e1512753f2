//! Names that become part of keys, each checked where it comes in.

use std::fmt;
use std::sync::Arc;

use crate::random;

/// A text that cannot be such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} must be {allowed}")]
pub struct NameInvalid {
    what: &'static str,
    text: String,
    allowed: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $max:literal, $allowed:literal, $test:expr;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            ///
            /// [`NameInvalid`], which says what is allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, NameInvalid> {
                let text = text.into();
                let is_legal: fn(u8) -> bool = $test;
                if (1..=$max).contains(&text.len()) && text.bytes().all(is_legal) {
                    return Ok(Self(text.into()));
                }
                Err(NameInvalid { what: $what, text, allowed: $allowed })
            }

            /// As written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        })*
    };
}

names! {
    /// Whose things these are: services, locks and settings of different namespaces never meet.
    Namespace: "namespace", 63, "1 to 63 of a-z, 0-9 and `-`",
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    /// The name of a lock, semaphore or election.
    LockName: "lock name", 255, "1 to 255 of A-Z, a-z, 0-9, `.`, `_`, `:`, `/` and `-`",
        |b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b);
    /// What a caller calls one request, so that asking again does not count twice. 64 bytes hold a
    /// UUID with room to spare.
    RequestId: "request id", 64, "1 to 64 bytes without control characters", is_printable;
    /// A global transaction, as its coordinator names it.
    Gid: "gid", 128, "1 to 128 bytes without control characters", is_printable;
    /// The name a session goes by, shown to whoever waits for what it holds.
    OwnerName: "owner", 255, "1 to 255 bytes without control characters", is_printable;
    /// An instance of a service.
    InstanceId: "instance id", 255, "1 to 255 bytes without control characters", is_printable;
    /// A process of Mainstay.
    NodeName: "node", 255, "1 to 255 bytes without control characters", is_printable;
    /// A switch, a plan, or another object with a history.
    RuleName: "name", 128, "1 to 128 of a-z, 0-9 and `-`",
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    /// Whoever reports what it met when calling an instance: a gateway, a library.
    Reporter: "reporter", 255, "1 to 255 bytes without control characters", is_printable;
    /// A group of configuration: what is published together.
    GroupName: "group", 127, "1 to 127 of A-Z, a-z, 0-9, `.`, `_` and `-`", is_plain;
    /// An item of a group, often the name of a file.
    ItemName: "item", 127, "1 to 127 of A-Z, a-z, 0-9, `.`, `_` and `-`", is_plain;
    /// Whoever holds configuration, the same after a restart: an instance id, a host name.
    ClientId: "client", 255, "1 to 255 bytes without control characters", is_printable;
}

impl RequestId {
    /// A random one, which no other request has.
    pub fn random() -> Self {
        Self(random::hex::<16>().into())
    }
}

const fn is_printable(byte: u8) -> bool {
    !byte.is_ascii_control()
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_their_limits() {
        assert!(Namespace::new("a".repeat(63)).is_ok() && Namespace::new("a".repeat(64)).is_err());
        assert!(LockName::new("a".repeat(255)).is_ok() && LockName::new("a".repeat(256)).is_err());
        assert!(RequestId::new("").is_err() && RequestId::new("订单").is_ok());
        for bad in ["", "Shop", "a b", "a/b", "ä"] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a%", "锁"] {
            assert!(LockName::new(bad).is_err(), "{bad:?}");
        }
        let told = LockName::new("a b").unwrap_err().to_string();
        assert!(told.starts_with("lock name \"a b\" must be 1 to 255 of"), "{told}");
    }
}
