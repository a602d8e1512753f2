//! Parts of a key: by what a caller is told from other callers.
//!
//! Limits count by a key, hashing balancers place by one, and a weighted route keeps a caller on
//! one side by one. All of them name its parts with the words below, so that `header:x-user` is
//! the same thing, and refused for the same reasons, wherever it is written. A place that cannot
//! use a part refuses it itself.
//!
//! Only the names are here. Reading a part is the business of whoever has the request, and what a
//! part that is missing means is the business of whoever has the key.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// One part of a key. Names are 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `client_address`: the address of the caller without its port; behind trusted proxies, the
    /// one they report.
    ClientAddress,
    /// `principal`: who the caller has proved to be.
    Principal,
    /// `tenant`: on whose behalf the call is made.
    Tenant,
    /// `service`: the one that is called.
    Service,
    /// `path`: the whole path, without the query.
    WholePath,
    /// `header:NAME`: a header field; a token, kept in lower case.
    Header(Box<str>),
    /// `path:NAME`: what the route's path captured under that name.
    Path(Box<str>),
    /// `query:NAME`: a parameter of the query.
    Query(Box<str>),
    /// `cookie:NAME`: a cookie; a token, whose letter case matters.
    Cookie(Box<str>),
}

impl FromStr for KeyPart {
    type Err = Invalid;

    /// Reads `client_address`, `header:x-user` and so on.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when `text` is none of the words, or a name is missing, too long, or has a byte
    /// that no such name can have. Its path is empty: only the reader of the table knows it.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (word, name) = match text.split_once(':') {
            Some((word, name)) => (word, Some(name)),
            None => (text, None),
        };
        match (word, name) {
            ("client_address", None) => Ok(Self::ClientAddress),
            ("principal", None) => Ok(Self::Principal),
            ("tenant", None) => Ok(Self::Tenant),
            ("service", None) => Ok(Self::Service),
            ("path", None) => Ok(Self::WholePath),
            ("header", Some(name)) => {
                token("header", name).map(|name| Self::Header(name.to_ascii_lowercase().into()))
            }
            ("cookie", Some(name)) => token("cookie", name).map(|name| Self::Cookie(name.into())),
            ("path", Some(name)) => printable("capture", name).map(|name| Self::Path(name.into())),
            ("query", Some(name)) => {
                printable("parameter", name).map(|name| Self::Query(name.into()))
            }
            _ => Err(Invalid::range("", format!("must be {PARTS}, found {text:?}"))),
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client_address"),
            Self::Principal => f.write_str("principal"),
            Self::Tenant => f.write_str("tenant"),
            Self::Service => f.write_str("service"),
            Self::WholePath => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// Reads the list `field`; `refusal` says what is wrong with a part that this key cannot have.
pub(crate) fn parts(
    field: &str,
    written: &[String],
    refusal: impl Fn(&KeyPart) -> Option<String>,
) -> Result<Vec<KeyPart>, Invalid> {
    let parse = |(i, text): (usize, &String)| {
        let part: Result<KeyPart, Invalid> = text.parse();
        part.and_then(|part| match refusal(&part) {
            Some(problem) => Err(Invalid::range("", problem)),
            None => Ok(part),
        })
        .map_err(|error| Invalid { path: format!("{field}[{i}]"), ..error })
    };
    written.iter().enumerate().map(parse).collect()
}

/// Whether `byte` may stand in a token (RFC 9110, section 5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^'..=b'`' | b'|' | b'~')
}

fn token<'a>(what: &str, name: &'a str) -> Result<&'a str, Invalid> {
    let want = "letters, digits or any of !#$%&'*+-.^_`|~";
    named(what, name, want, is_token)
}

fn printable<'a>(what: &str, name: &'a str) -> Result<&'a str, Invalid> {
    named(what, name, "bytes without control characters", |byte| !byte.is_ascii_control())
}

fn named<'a>(
    what: &str,
    name: &'a str,
    want: &str,
    legal: impl Fn(u8) -> bool,
) -> Result<&'a str, Invalid> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(name);
    }
    let problem =
        format!("must name a {what} after the `:`, 1 to {NAME_BYTES_MAX} {want}, found {name:?}");
    Err(Invalid::range("", problem))
}

const PARTS: &str = "`client_address`, `principal`, `tenant`, `service`, `path`, `header:NAME`, \
                     `path:NAME`, `query:NAME` or `cookie:NAME`";

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: KeyPart) {
        let part: KeyPart = text.parse().expect(text);
        assert_eq!(part, want);
        assert_eq!(part.to_string(), text);
    }

    #[test]
    fn parts_are_read_as_they_are_shown() {
        check("client_address", KeyPart::ClientAddress);
        check("principal", KeyPart::Principal);
        check("tenant", KeyPart::Tenant);
        check("service", KeyPart::Service);
        check("path", KeyPart::WholePath);
        check("header:x-user", KeyPart::Header("x-user".into()));
        check("path:id", KeyPart::Path("id".into()));
        check("query:filter[a:b]", KeyPart::Query("filter[a:b]".into()));
        check("cookie:Sid", KeyPart::Cookie("Sid".into()));
    }

    #[test]
    fn letter_case_matters_except_in_headers() {
        assert_eq!("header:X-User".parse(), Ok(KeyPart::Header("x-user".into())));
        assert_ne!("cookie:Sid".parse::<KeyPart>(), "cookie:sid".parse());
    }

    #[test]
    fn a_word_nobody_knows_is_refused() {
        for text in
            ["", "ip", "Path", " path", "header", "query", "body:x", "Header:x", "tenant:x", ":x"]
        {
            let error = text.parse::<KeyPart>().expect_err(text);
            assert_eq!(error, Invalid::range("", format!("must be {PARTS}, found {text:?}")));
        }
    }

    #[test]
    fn a_name_that_nothing_can_have_is_refused() {
        for (word, what, bad) in [
            ("header", "header", ["", "a b", "a:b", "ä"]),
            ("cookie", "cookie", ["", "a=b", "a;b", "\"a\""]),
            ("path", "capture", ["", "a\nb", "\0", "\x7f"]),
            ("query", "parameter", ["", "a\nb", "\0", "\x7f"]),
        ] {
            let longest = "n".repeat(NAME_BYTES_MAX);
            assert!(format!("{word}:{longest}").parse::<KeyPart>().is_ok(), "{word}");
            for name in bad.map(str::to_owned).into_iter().chain([format!("{longest}n")]) {
                let error = format!("{word}:{name}").parse::<KeyPart>().expect_err(&name);
                let want = format!("must name a {what} after the `:`, 1 to 128 ");
                assert!(error.problem.starts_with(&want), "{error}");
                assert!(error.problem.ends_with(&format!("found {name:?}")), "{error}");
            }
        }
    }

    #[test]
    fn tokens_are_those_of_http() {
        let legal = (0..=u8::MAX).filter(|&byte| is_token(byte) && !byte.is_ascii_alphanumeric());
        assert_eq!(legal.collect::<Vec<_>>(), b"!#$%&'*+-.^_`|~");
    }

    proptest! {
        #[test]
        fn what_is_read_means_the_same_once_shown(
            text in "(header|path|query|cookie):([A-Za-z0-9_-]{1,9}|.{0,140})",
        ) {
            if let Ok(part) = text.parse::<KeyPart>() {
                prop_assert_eq!(part.to_string().parse(), Ok(part));
            }
        }
    }
}
