//! How the key of a request becomes a number.

use xxhash_rust::xxh64::Xxh64;

use crate::key::KeyPart;

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
    /// `find` gives the text of a part, borrowed or made for the purpose. A part the request does
    /// not have is left out; `None` when it has none of them, or when all are empty: such calls
    /// would else all go to one instance.
    pub fn hash_parts<T: AsRef<str>>(
        self,
        parts: &[KeyPart],
        mut find: impl FnMut(&KeyPart) -> Option<T>,
    ) -> Option<u64> {
        let mut find = |part| find(part).filter(|text| !text.as_ref().is_empty());
        if let [only] = parts {
            return find(only).map(|text| self.hash(text.as_ref().as_bytes()));
        }
        let texts = parts.iter().filter_map(find);
        let mut found = false;
        let hash = match self {
            Self::Crc32 => {
                let mut crc = crc32fast::Hasher::new();
                texts.for_each(|text| {
                    found = true;
                    crc.update(text.as_ref().as_bytes());
                });
                u64::from(crc.finalize())
            }
            Self::Xxh64 => {
                let mut xxh = Xxh64::new(0);
                texts.for_each(|text| {
                    found = true;
                    xxh.update(text.as_ref().as_bytes());
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
    fn joined_parts_hash_like_the_joined_text() {
        let parts: Vec<KeyPart> =
            ["header:a", "path", "query:b"].map(|part| part.parse().unwrap()).into();
        let find = |part: &KeyPart| match part {
            KeyPart::Header(_) => Some("one"),
            KeyPart::WholePath => None,
            _ => Some("two"),
        };
        for function in [Function::Crc32, Function::Xxh64] {
            assert_eq!(function.hash_parts(&parts, find), Some(function.hash(b"onetwo")));
            assert_eq!(function.hash_parts(&parts[..1], find), Some(function.hash(b"one")));
            assert_eq!(function.hash_parts(&parts[1..2], find), None);
            assert_eq!(function.hash_parts(&parts, |_| Some("")), None);
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
