//! Which hosts a route is for.

use mainstay_resilience::Invalid;

/// Longest host name, in bytes (RFC 1035 §2.3.4, without the dot at the end).
const HOST_BYTES_MAX: usize = 253;

/// Which hosts a route is for. Letter case never matters; names are kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// `*.shop.example`: every name below `shop.example`, at any depth, but not itself. Kept
    /// without `*.`.
    Suffix(Box<str>),
    /// One name or address.
    Exact(Box<str>),
}

impl HostPattern {
    /// Reads `shop.example`, `*.shop.example`, `*`, `[::1]`. One dot at the end is dropped.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at `host` for anything else; a port is refused, since the port a client used
    /// says which listener it came through and not what it wants.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, wild) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let address = name.starts_with('[') && name.ends_with(']') && !wild;
        let legal = |b: u8| match b {
            b'-' | b'_' | b'.' => true,
            b':' | b'[' | b']' => address,
            _ => b.is_ascii_alphanumeric(),
        };
        if name.contains(':') && !address {
            return Err(Invalid::range("host", format!("must be without a port, found `{text}`")));
        }
        let empty_label = !address && name.split('.').any(str::is_empty);
        if HOST_BYTES_MAX < name.len() || empty_label || !name.bytes().all(legal) {
            let problem = format!("must be a name, `*.` and a name, or `*`, found `{text}`");
            return Err(Invalid::range("host", problem));
        }
        let name = name.to_ascii_lowercase().into_boxed_str();
        Ok(if wild { Self::Suffix(name) } else { Self::Exact(name) })
    }

    /// Whether `hostname` (without port and last dot) is one of these.
    pub fn matches(&self, hostname: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => hostname.eq_ignore_ascii_case(name),
            Self::Suffix(suffix) => suffixes(hostname).any(|s| s.eq_ignore_ascii_case(suffix)),
        }
    }

    /// An exact name before a longer suffix before a shorter one before any host.
    pub(crate) fn rank(&self) -> u64 {
        match self {
            Self::Any => 0,
            Self::Suffix(suffix) => 1 + suffix.len() as u64,
            Self::Exact(_) => 2 + HOST_BYTES_MAX as u64,
        }
    }
}

/// Everything behind a dot of `hostname`, longest first. A name too long to be one has none, so
/// that the cost of a look-up has a bound.
pub(crate) fn suffixes(hostname: &str) -> impl Iterator<Item = &str> {
    let name = if hostname.len() <= HOST_BYTES_MAX { hostname } else { "" };
    std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'))
        .map(|(_, rest)| rest)
        .filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, host: &str, want: bool) {
        let parsed = HostPattern::parse(pattern).expect("a legal pattern");
        assert_eq!(parsed.matches(host), want, "{pattern} {host}");
    }

    #[test]
    fn a_name_is_itself_in_any_case() {
        check("shop.example", "shop.example", true);
        check("Shop.Example.", "sHOP.eXAMPLE", true);
        check("shop.example", "a.shop.example", false);
        check("[::1]", "[::1]", true);
        check("*", "", true);
    }

    #[test]
    fn a_suffix_covers_what_is_below_it() {
        check("*.shop.example", "a.shop.example", true);
        check("*.shop.example", "b.A.Shop.example", true);
        check("*.shop.example", "shop.example", false);
        check("*.shop.example", "workshop.example", false);
        check("*.shop.example", ".shop.example", true);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "a:80", "a..b", "*.", "*.*.a", "a b", "a/b", "*.[::1]", &"a".repeat(254)] {
            assert_eq!(HostPattern::parse(bad).expect_err(bad).path, "host");
        }
    }
}
