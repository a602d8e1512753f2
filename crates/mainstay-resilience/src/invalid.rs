//! One wrong field of a policy, named the way the user wrote it.

use mainstay_core::problem::Code;

/// One wrong field. The path is relative to the table being read: whoever reads the whole
/// document adds what stands before it, and finds line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Invalid {
    /// `cooldown_seconds`, `backoff.base_seconds`, `steps[2].when[0]`.
    pub path: String,
    /// One of the `config-…` codes.
    pub code: Code,
    /// What is wrong and what is allowed: `must be 0.01 to 3600, found 0`.
    pub problem: String,
}

impl Invalid {
    /// A value outside its range.
    pub fn range(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), code: Code::ConfigOutOfRange, problem: problem.into() }
    }

    /// Values that do not fit together.
    pub fn contradiction(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), code: Code::ConfigContradiction, problem: problem.into() }
    }

    /// The same error as seen from one table further out.
    #[must_use]
    pub fn within(mut self, table: &str) -> Self {
        self.path = format!("{table}.{}", self.path);
        self
    }
}

/// Checks `namespace` as written: 1 to 63 of `a-z`, `0-9`, `-`.
///
/// # Errors
///
/// When it has another length or other characters.
pub fn namespace(written: Option<&str>) -> Result<(), Invalid> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match written {
        Some(name) if !(1..=63).contains(&name.len()) || !name.bytes().all(legal) => {
            let problem = format!("must be 1 to 63 of `a-z`, `0-9` and `-`, found `{name}`");
            Err(Invalid::range("namespace", problem))
        }
        _ => Ok(()),
    }
}

/// A span of time from `seconds` as written, which must lie in `min..=max` (seconds).
///
/// # Errors
///
/// [`Invalid`] naming `path`, the range and what was found.
pub fn span(path: &str, seconds: f64, min: f64, max: f64) -> Result<std::time::Duration, Invalid> {
    if (min..=max).contains(&seconds) {
        Ok(std::time::Duration::from_secs_f64(seconds))
    } else {
        Err(Invalid::range(path, format!("must be {min} to {max} seconds, found {seconds}")))
    }
}

/// `value` if it lies in `min..=max`.
///
/// # Errors
///
/// [`Invalid`] naming `path`, the range and what was found.
pub fn within<T: PartialOrd + std::fmt::Display + Copy>(
    path: &str,
    value: T,
    min: T,
    max: T,
) -> Result<T, Invalid> {
    if min <= value && value <= max {
        Ok(value)
    } else {
        Err(Invalid::range(path, format!("must be {min} to {max}, found {value}")))
    }
}
