//! Where in a text something stands.
//!
//! Parsers speak of byte offsets, people of lines and columns. Lines and columns count from one;
//! a column is a character, so that `# 限流` moves the caret by as many places as an editor does.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A file as read: without its byte-order mark, with the name the user gave it.
#[derive(Debug)]
pub struct Text {
    /// Path as given, or relative to the folder of the main file.
    pub name: String,
    /// Content after the byte-order mark.
    pub body: String,
}

impl Text {
    /// Takes `content`; a byte-order mark at its beginning is no part of the text.
    pub fn new(name: impl Into<String>, content: &str) -> Arc<Self> {
        let body = content.strip_prefix('\u{feff}').unwrap_or(content).to_owned();
        Arc::new(Self { name: name.into(), body })
    }

    /// Line and column of byte `offset`, both from one. Beyond the end: the end.
    pub fn position(&self, offset: usize) -> Position {
        let before = self.body.get(..offset).unwrap_or(&self.body);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        Position { line, column }
    }

    /// Line `number` (from one) without its end; empty when there is none.
    pub fn line(&self, number: usize) -> &str {
        self.body.lines().nth(number.saturating_sub(1)).unwrap_or("")
    }

    /// The byte offset of line and column, both from one.
    pub fn offset_of(&self, line: usize, column: usize) -> usize {
        let before: usize =
            self.body.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = self.body.get(before..).unwrap_or("");
        let within = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |c| c.0);
        before + within
    }
}

/// Line and column, both from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Character within the line.
    pub column: usize,
}

/// Where a key or a value was written.
#[derive(Clone, Debug)]
pub enum Place {
    /// Bytes `span` of a file.
    File {
        /// The file.
        text: Arc<Text>,
        /// Bytes within it.
        span: Range<usize>,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(String),
}

impl Place {
    /// Bytes `span` of `text`.
    pub fn file(text: &Arc<Text>, span: Range<usize>) -> Self {
        Self::File { text: Arc::clone(text), span }
    }

    /// `conf.d/20-b.toml:4`: the place without its column.
    pub fn brief(&self) -> String {
        match self {
            Self::File { text, span } => {
                format!("{}:{}", text.name, text.position(span.start).line)
            }
            Self::Environment(_) | Self::Flag(_) => self.to_string(),
        }
    }

    /// The name of the file, when it is one.
    pub fn file_name(&self) -> Option<&str> {
        match self {
            Self::File { text, .. } => Some(&text.name),
            Self::Environment(_) | Self::Flag(_) => None,
        }
    }

    /// Line and column, when it is a file.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::File { text, span } => Some(text.position(span.start)),
            Self::Environment(_) | Self::Flag(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { text, span } => {
                let Position { line, column } = text.position(span.start);
                write!(f, "{}:{line}:{column}", text.name)
            }
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, needle: &str, line: usize, column: usize) {
        let text = Text::new("t", content);
        let offset = text.body.find(needle).expect("the needle is in the text");
        assert_eq!(text.position(offset), Position { line, column });
        assert_eq!(text.offset_of(line, column), offset);
    }

    #[test]
    fn columns_count_characters_and_lines_end_either_way() {
        check("a = 1\nb = 2\n", "b", 2, 1);
        check("a = 1\r\nb = 2\r\n", "2", 2, 5);
        check("\u{feff}a = 1", "a", 1, 1);
        check("中文 = 1\n\"限流\" = 2", "2", 2, 8);
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let text = Text::new("t", "a\nb");
        assert_eq!(text.position(99), Position { line: 2, column: 2 });
        assert_eq!((text.line(2), text.line(3)), ("b", ""));
    }
}
