//! Reading an expression.

use regex::RegexBuilder;
use serde_json::Value;

use super::{DEPTH_MAX, Field, FilterInvalid, Node, PATTERN_BYTES_MAX, Test};

/// What is asked of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Contains,
    Matches,
    Empty,
}

impl Operator {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Contains => "contains",
            Self::Matches => "matches",
            Self::Empty => "is empty",
        }
    }
}

/// Reads from the front to the end, one word ahead at most.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    of: &'static Field,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(text: &'a str, of: &'static Field) -> Self {
        Self { text, at: 0, of }
    }

    /// The whole text as one expression.
    pub(super) fn whole(mut self) -> Result<Node, FilterInvalid> {
        let node = self.any(0)?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.unexpected("`and`, `or` or the end"));
        }
        Ok(node)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    const fn unexpected(&self, wanted: &'static str) -> FilterInvalid {
        FilterInvalid::Unexpected { at: self.at, wanted }
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Takes `sign`, after any space.
    fn takes(&mut self, sign: &str) -> bool {
        self.space();
        let is_there = self.rest().starts_with(sign);
        if is_there {
            self.at += sign.len();
        }
        is_there
    }

    /// Takes `word` as a word of its own, after any space.
    fn says(&mut self, word: &str) -> bool {
        self.space();
        let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '[');
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let is_there = !after.starts_with(goes_on);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn any(&mut self, depth: u32) -> Result<Node, FilterInvalid> {
        let mut nodes = vec![self.all(depth)?];
        while self.says("or") {
            nodes.push(self.all(depth)?);
        }
        Ok(one_or(nodes, Node::Or))
    }

    fn all(&mut self, depth: u32) -> Result<Node, FilterInvalid> {
        let mut nodes = vec![self.term(depth)?];
        while self.says("and") {
            nodes.push(self.term(depth)?);
        }
        Ok(one_or(nodes, Node::And))
    }

    fn term(&mut self, depth: u32) -> Result<Node, FilterInvalid> {
        if DEPTH_MAX <= depth {
            return Err(FilterInvalid::TooDeep);
        }
        if self.says("not") {
            return Ok(Node::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.takes("(") {
            let inner = self.any(depth + 1)?;
            return if self.takes(")") { Ok(inner) } else { Err(self.unexpected("`)`")) };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, FilterInvalid> {
        let began = self.at;
        self.space();
        if self.rest().starts_with(['"', '`']) || self.rest().starts_with(is_number) {
            let value = self.value()?;
            return self.value_in(value);
        }
        let path = self.selector()?;
        let (operator, is_not) = if self.takes("==") {
            (Operator::Equal, false)
        } else if self.takes("!=") {
            (Operator::Equal, true)
        } else if self.says("is") {
            let is_not = self.says("not");
            if !self.says("empty") {
                return Err(self.unexpected("`empty`"));
            }
            return self.tested(path, Operator::Empty, "", is_not);
        } else {
            let is_not = self.says("not");
            if self.says("contains") {
                (Operator::Contains, is_not)
            } else if self.says("matches") {
                (Operator::Matches, is_not)
            } else if self.says("in") {
                // What stood first was a value written without quotes.
                self.at = began;
                let value = self.value()?;
                return self.value_in(value);
            } else {
                return Err(self.unexpected("an operator"));
            }
        };
        let value = self.value()?;
        self.tested(path, operator, &value, is_not)
    }

    fn value_in(&mut self, value: String) -> Result<Node, FilterInvalid> {
        let is_not = self.says("not");
        if !self.says("in") {
            return Err(self.unexpected("`in`"));
        }
        let path = self.selector()?;
        self.tested(path, Operator::Contains, &value, is_not)
    }

    /// A selector: names joined by dots, or in brackets and quotes.
    fn selector(&mut self) -> Result<Vec<String>, FilterInvalid> {
        self.space();
        let mut path = vec![self.name()?];
        loop {
            if self.rest().starts_with('.') {
                self.at += 1;
                path.push(self.name()?);
            } else if self.rest().starts_with('[') {
                self.at += 1;
                let name = self.quoted()?;
                path.push(name);
                if !self.takes("]") {
                    return Err(self.unexpected("`]`"));
                }
            } else {
                return Ok(path);
            }
        }
    }

    fn name(&mut self) -> Result<String, FilterInvalid> {
        let rest = self.rest();
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(self.unexpected("a selector"));
        }
        let name = name.to_owned();
        self.at += end;
        Ok(name)
    }

    /// A value: in quotes, a number, or a word.
    fn value(&mut self) -> Result<String, FilterInvalid> {
        self.space();
        let rest = self.rest();
        if rest.starts_with(['"', '`']) {
            return self.quoted();
        }
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default().to_owned();
        if word.is_empty() {
            return Err(self.unexpected("a value"));
        }
        self.at += end;
        Ok(word)
    }

    /// A text in double quotes, with escapes, or in back quotes, without.
    fn quoted(&mut self) -> Result<String, FilterInvalid> {
        let rest = self.rest();
        if let Some(inner) = rest.strip_prefix('`') {
            let Some((text, _)) = inner.split_once('`') else {
                return Err(self.unexpected("a closing quote"));
            };
            let (text, bytes) = (text.to_owned(), text.len() + 2);
            self.at += bytes;
            return Ok(text);
        }
        if !rest.starts_with('"') {
            return Err(self.unexpected("a text in quotes"));
        }
        let mut is_escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            ends
        });
        let Some((end, _)) = end else { return Err(self.unexpected("a closing quote")) };
        let literal = rest.get(..=end).unwrap_or_default();
        // What JSON and Go both escape is what people write.
        let text = serde_json::from_str(literal);
        let text = text.map_err(|_wrong| self.unexpected("escapes of JSON"))?;
        self.at += end + 1;
        Ok(text)
    }

    fn tested(
        &self,
        path: Vec<String>,
        operator: Operator,
        value: &str,
        is_not: bool,
    ) -> Result<Node, FilterInvalid> {
        let selector = || path.join(".");
        let field = path.iter().try_fold(self.of, |field, name| match field {
            Field::Map(of) => Some(*of),
            Field::Object(members) => {
                members.iter().find(|(member, _)| member == name).map(|(_, field)| *field)
            }
            _ => None,
        });
        let field = field.ok_or_else(|| FilterInvalid::Selector(selector()))?;
        let wrong = || FilterInvalid::Value { value: value.to_owned(), selector: selector() };
        let test = match (operator, field) {
            (Operator::Equal, Field::Text) => Test::Equal(Value::from(value)),
            (Operator::Equal, Field::Number) => {
                let number = serde_json::from_str(value).ok().filter(Value::is_number);
                Test::Equal(number.ok_or_else(wrong)?)
            }
            (Operator::Equal, Field::Flag) => Test::Equal(flag(value).ok_or_else(wrong)?.into()),
            (Operator::Contains, Field::Text | Field::List | Field::Map(_)) => {
                Test::Contains(value.to_owned())
            }
            (Operator::Matches, Field::Text) => {
                let pattern = RegexBuilder::new(value).size_limit(PATTERN_BYTES_MAX).build();
                let pattern = pattern.ok();
                Test::Matches(pattern.ok_or_else(|| FilterInvalid::Pattern(value.to_owned()))?)
            }
            (Operator::Empty, Field::Text | Field::List | Field::Objects | Field::Map(_)) => {
                Test::Empty
            }
            _ => {
                let operator = operator.as_str();
                return Err(FilterInvalid::Operator { operator, selector: selector() });
            }
        };
        let node = Node::Match { path, test };
        Ok(if is_not { Node::Not(Box::new(node)) } else { node })
    }
}

fn one_or(mut nodes: Vec<Node>, many: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => {
            nodes.extend(last);
            many(nodes)
        }
    }
}

fn is_number(c: char) -> bool {
    c.is_ascii_digit() || c == '-'
}

/// As Go reads it.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}
