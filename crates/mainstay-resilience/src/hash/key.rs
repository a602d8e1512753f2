//! Which part of a request decides where it goes.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh64::Xxh64;

use crate::Invalid;

/// One part of a hash key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `header:NAME`: the first header of that name, kept in lower case.
    Header(String),
    /// `cookie:NAME`.
    Cookie(String),
    /// `path`: the path without the query.
    Path,
    /// `path:NAME`: what a route captured under that name.
    Capture(String),
    /// `query:NAME`: the first parameter of that name.
    Query(String),
    /// `client_address`: the address of the caller without its port.
    ClientAddress,
}

impl FromStr for KeyPart {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::range(
                "hash",
                format!(
                    "must be `header:NAME`, `cookie:NAME`, `path`, `path:NAME`, `query:NAME` or \
                     `client_address`, found `{text}`"
                ),
            )
        };
        match text.trim().split_once(':') {
            None if text.trim() == "path" => Ok(Self::Path),
            None if text.trim() == "client_address" => Ok(Self::ClientAddress),
            Some((_, "")) | None => Err(wrong()),
            Some(("header", name)) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("cookie", name)) => Ok(Self::Cookie(name.to_owned())),
            Some(("path", name)) => Ok(Self::Capture(name.to_owned())),
            Some(("query", name)) => Ok(Self::Query(name.to_owned())),
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path => f.write_str("path"),
            Self::Capture(name) => write!(f, "path:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::ClientAddress => f.write_str("client_address"),
        }
    }
}

/// How key text becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// CRC-32 (IEEE), as nginx; the upper half is zero.
    Crc32,
    /// xxHash64 with seed 0, as Envoy.
    Xxh64,
}

impl Function {
    /// The hash of one piece of text.
    pub fn hash(self, text: &[u8]) -> u64 {
        match self {
            Self::Crc32 => u64::from(crc32fast::hash(text)),
            Self::Xxh64 => xxhash_rust::xxh64::xxh64(text, 0),
        }
    }

    /// The hash of the parts of a request, joined without anything between them, as nginx joins
    /// `hash $http_a$http_b`. Nothing is copied.
    ///
    /// A part the request does not have is left out; `None` when it has none of them, or when all
    /// are empty: such calls would else all go to one instance.
    pub fn hash_parts<'a>(
        self,
        parts: &[KeyPart],
        mut find: impl FnMut(&KeyPart) -> Option<&'a [u8]>,
    ) -> Option<u64> {
        if let [only] = parts {
            return find(only).filter(|text| !text.is_empty()).map(|text| self.hash(text));
        }
        let texts = parts.iter().filter_map(find).filter(|text| !text.is_empty());
        let mut found = false;
        let hash = match self {
            Self::Crc32 => {
                let mut crc = crc32fast::Hasher::new();
                texts.for_each(|text| {
                    found = true;
                    crc.update(text);
                });
                u64::from(crc.finalize())
            }
            Self::Xxh64 => {
                let mut xxh = Xxh64::new(0);
                texts.for_each(|text| {
                    found = true;
                    xxh.update(text);
                });
                xxh.digest()
            }
        };
        found.then_some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_are_shown() {
        for text in ["header:x-user", "cookie:Sid", "path", "path:id", "query:q", "client_address"]
        {
            assert_eq!(text.parse::<KeyPart>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse(), Ok(KeyPart::Header("x-user".to_owned())));
        for text in ["", "header", "header:", "body:x", "client_address:x", "Path"] {
            let error = text.parse::<KeyPart>().unwrap_err();
            assert!(error.problem.ends_with(&format!("found `{text}`")), "{error}");
        }
    }

    #[test]
    fn joined_parts_hash_like_the_joined_text() {
        let parts: Vec<KeyPart> =
            ["header:a", "path", "query:b"].map(|part| part.parse().unwrap()).into();
        let find = |part: &KeyPart| match part {
            KeyPart::Header(_) => Some(b"one".as_slice()),
            KeyPart::Path => None,
            _ => Some(b"two".as_slice()),
        };
        for function in [Function::Crc32, Function::Xxh64] {
            assert_eq!(function.hash_parts(&parts, find), Some(function.hash(b"onetwo")));
            assert_eq!(function.hash_parts(&parts[..1], find), Some(function.hash(b"one")));
            assert_eq!(function.hash_parts(&parts[1..2], find), None);
            assert_eq!(function.hash_parts(&parts, |_| Some(b"".as_slice())), None);
            assert_eq!(function.hash_parts(&[], find), None);
        }
    }

    #[test]
    fn the_functions_are_the_published_ones() {
        // Check value of CRC-32/ISO-HDLC, and of the xxHash specification for empty input.
        assert_eq!(Function::Crc32.hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(Function::Xxh64.hash(b""), 0xef46_db37_51d8_e999);
    }
}
