//! JSON (RFC 8259) in which nothing can be meant twice.
//!
//! Most readers take the last of two members of one name, some the first, and what is signed is
//! both. So a second one is refused, at any depth, and so is what is nested deeper than anything
//! an issuer writes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deepest nesting, the outermost object counted.
const DEPTH_MAX: usize = 8;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(serde_json::Number),
    /// A text.
    Text(Box<str>),
    /// A list.
    List(Vec<Value>),
    /// An object.
    Object(Object),
}

/// A JSON object whose members have different names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(Box<str>, Value)>);

/// Why bytes are no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// They are no JSON, not UTF-8, or something stands after it.
    Malformed,
    /// They are JSON, but not an object.
    NoObject,
}

impl Object {
    /// Reads one object, and nothing after it but white space.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Nested(DEPTH_MAX).deserialize(&mut reader);
        let value = value.and_then(|value| reader.end().map(|()| value));
        match value.map_err(|_why| Invalid::Malformed)? {
            Value::Object(object) => Ok(object),
            _ => Err(Invalid::NoObject),
        }
    }

    /// The member called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(member, _)| **member == *name).map(|(_, value)| value)
    }
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { number.as_f64() } else { None }
    }
}

/// Reads a value that may be nested so many times.
struct Nested(usize);

impl Nested {
    fn deeper<E: Error>(&self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        // An empty list is a level too.
        self.deeper::<A::Error>()?;
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Vec::new();
        // A set beside the list would cost more than it saves: tokens have a dozen members. A list
        // that an attacker makes long is bounded by the length of a token.
        let mut seen = std::collections::BTreeSet::<Box<str>>::new();
        while let Some(name) = members.next_key::<Box<str>>()? {
            let twice = if object.len() < SHORT {
                object.iter().any(|(other, _): &(Box<str>, Value)| *other == name)
            } else {
                if seen.is_empty() {
                    seen.extend(object.iter().map(|(name, _)| name.clone()));
                }
                !seen.insert(name.clone())
            };
            if twice {
                return Err(A::Error::custom("a member stands there twice"));
            }
            object.push((name, members.next_value_seed(self.deeper()?)?));
        }
        self.deeper::<A::Error>()?;
        Ok(Value::Object(Object(object)))
    }
}

/// Members that are compared one by one; more are looked up, so that no object takes quadratic
/// time.
const SHORT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_meant_twice_is_refused() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":{"a":1,"a":2}}"#,
            r#"{"b":[{"a":1,"a":2}]}"#,
            r#"{"a":1}{"#,
            r#"{"a":1}{}"#,
            r#"{"a":1,}"#,
            "{'a':1}",
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            "\u{feff}{}",
            "",
            "{",
        ] {
            assert_eq!(Object::parse(bad.as_bytes()), Err(Invalid::Malformed), "{bad}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}"), Err(Invalid::Malformed));
        for other in ["[]", "1", "null", r#""{}""#] {
            assert_eq!(Object::parse(other.as_bytes()), Err(Invalid::NoObject), "{other}");
        }
    }

    #[test]
    fn many_members_are_told_apart_like_few() {
        let text = |twice: usize| {
            let mut names: Vec<String> = (0..100).map(|at| format!(r#""m{at}":0"#)).collect();
            names.push(format!(r#""m{twice}":0"#));
            format!("{{{}}}", names.join(","))
        };
        assert!(Object::parse(text(100).as_bytes()).is_ok());
        for twice in [0, 31, 32, 33, 99] {
            assert!(Object::parse(text(twice).as_bytes()).is_err(), "{twice}");
        }
    }

    #[test]
    fn eight_levels_are_read_and_nine_are_not() {
        let nested = |levels: usize| {
            format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)).into_bytes()
        };
        assert!(Object::parse(&nested(8)).is_ok());
        assert!(Object::parse(&nested(9)).is_err());
        let list =
            |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(Object::parse(list(7).as_bytes()).is_ok());
        assert!(Object::parse(list(8).as_bytes()).is_err());
    }
}
