//! Expressions that say which elements of a list are wanted: `Service.Tags contains "v1" and
//! Checks is not empty`.
//!
//! The grammar is that of `go-bexpr`, which Consul uses: comparisons joined by `and`, `or`, `not`
//! and parentheses, where `not` binds closer than `and`, and `and` closer than `or`. What can be
//! asked about is known before any element is looked at, so a selector that names nothing is
//! refused, not false for every element.

mod reader;
#[cfg(test)]
mod tests;

use regex::Regex;
use serde_json::Value;

use reader::Reader;

/// Longest expression, in bytes.
const BYTES_MAX: usize = 8_192;

/// Deepest nesting of `not` and parentheses.
const DEPTH_MAX: u32 = 64;

/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// What can be asked about.
#[derive(Debug)]
pub enum Field {
    /// A text.
    Text,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A list of texts.
    List,
    /// A list of objects: whether there are any is all that can be asked.
    Objects,
    /// Any keys, with values of one kind.
    Map(&'static Self),
    /// These members, and no other.
    Object(&'static [(&'static str, &'static Self)]),
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterInvalid {
    /// It is longer than 8,192 bytes.
    #[error("expression has more than {BYTES_MAX} bytes")]
    TooLong,
    /// It nests more than 64 times.
    #[error("expression nests more than {DEPTH_MAX} times")]
    TooDeep,
    /// Something else stands here.
    #[error("at byte {at}: expected {wanted}")]
    Unexpected {
        /// Where, counted from 0.
        at: usize,
        /// What could stand there.
        wanted: &'static str,
    },
    /// There is nothing of this name.
    #[error("Selector {0:?} is not valid")]
    Selector(String),
    /// This cannot be asked about that.
    #[error("Invalid match operator {operator:?} for selector {selector:?}")]
    Operator {
        /// What was asked.
        operator: &'static str,
        /// About what.
        selector: String,
    },
    /// This is no value of that.
    #[error("Failed to coerce value {value:?} for selector {selector:?}")]
    Value {
        /// What was written.
        value: String,
        /// About what.
        selector: String,
    },
    /// This is no regular expression, or too large a one.
    #[error("invalid regular expression {0:?}")]
    Pattern(String),
}

/// An expression, read and checked.
#[derive(Debug)]
pub struct Expression(Node);

#[derive(Debug)]
enum Node {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    Match { path: Vec<String>, test: Test },
}

#[derive(Debug)]
enum Test {
    Equal(Value),
    Contains(String),
    Matches(Regex),
    Empty,
}

impl Expression {
    /// Reads `text`, which asks about elements that look like `of`.
    ///
    /// # Errors
    ///
    /// [`FilterInvalid`].
    pub fn new(text: &str, of: &'static Field) -> Result<Self, FilterInvalid> {
        if BYTES_MAX < text.len() {
            return Err(FilterInvalid::TooLong);
        }
        Reader::new(text, of).whole().map(Self)
    }

    /// Whether `element` is wanted.
    pub fn holds(&self, element: &Value) -> bool {
        holds(&self.0, element)
    }
}

fn holds(node: &Node, element: &Value) -> bool {
    match node {
        Node::Or(any) => any.iter().any(|node| holds(node, element)),
        Node::And(all) => all.iter().all(|node| holds(node, element)),
        Node::Not(node) => !holds(node, element),
        Node::Match { path, test } => {
            let found = path.iter().try_fold(element, |value, name| value.get(name));
            test.holds(found.unwrap_or(&Value::Null))
        }
    }
}

impl Test {
    /// What is not there is empty, equals nothing and contains nothing.
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Equal(Value::Number(wanted)), Value::Number(found)) => {
                wanted.as_f64() == found.as_f64()
            }
            (Self::Equal(wanted), found) => wanted == found,
            (Self::Contains(wanted), Value::String(found)) => found.contains(wanted),
            (Self::Contains(wanted), Value::Array(found)) => {
                found.iter().any(|item| item.as_str() == Some(wanted))
            }
            (Self::Contains(wanted), Value::Object(found)) => found.contains_key(wanted),
            (Self::Matches(pattern), Value::String(found)) => pattern.is_match(found),
            (Self::Empty, Value::String(found)) => found.is_empty(),
            (Self::Empty, Value::Array(found)) => found.is_empty(),
            (Self::Empty, Value::Object(found)) => found.is_empty(),
            (Self::Empty, _) => true,
            (Self::Contains(_) | Self::Matches(_), _) => false,
        }
    }
}
