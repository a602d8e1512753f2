//! Which etcd answers, and what it can be relied on for.

use std::fmt;

/// A version of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

impl Version {
    /// Reads `3.4.23`; what follows a `-` or `+` is left out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|part| part.parse().ok());
        let mut part = || parts.next().flatten();
        let (major, minor, patch) = (part()?, part()?, part()?);
        Some(Self { major, minor, patch })
    }

    const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Has all of the interface this crate uses: fragments and compares of ranges came with 3.4.
    pub(crate) fn is_usable(self) -> bool {
        Self::new(3, 4, 0) <= self
    }

    /// The oldest this crate is tested with.
    pub(crate) fn is_tested(self) -> bool {
        Self::new(3, 4, 23) <= self
    }

    /// Answers a question for progress only after the events before it (etcd#15220).
    pub(crate) fn tells_progress(self) -> bool {
        let fixed =
            if self < Self::new(3, 5, 0) { Self::new(3, 4, 25) } else { Self::new(3, 5, 8) };
        fixed <= self
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_trusted_with_what_it_does_right() {
        // Version, usable, tested, tells progress.
        let cases = [
            ("3.3.25", false, false, false),
            ("3.4.0", true, false, false),
            ("3.4.23", true, true, false),
            ("3.4.25", true, true, true),
            ("3.5.0", true, true, false),
            ("3.5.7", true, true, false),
            ("3.5.8", true, true, true),
            ("3.6.1-rc.0", true, true, true),
            ("4.0.0", true, true, true),
        ];
        for (text, usable, tested, progress) in cases {
            let version = Version::parse(text).unwrap();
            let got = (version.is_usable(), version.is_tested(), version.tells_progress());
            assert_eq!(got, (usable, tested, progress), "{text}");
        }
        for wrong in ["", "3.4", "three.four.five"] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }
}
