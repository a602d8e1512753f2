//! Documents as Consul reads them: names of members match without case and without `_`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::answer::Text;
use super::span;

/// An object of a request.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The object `bytes` hold; nothing at all stands for the empty one.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Text> {
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        let value = serde_json::from_slice(bytes).map_err(|error| undecodable(&error))?;
        Self::of(value)
    }

    /// The object `value` is.
    pub(super) fn of(value: Value) -> Result<Self, Text> {
        match value {
            Value::Object(map) => {
                Ok(Self(map.into_iter().map(|(name, value)| (plain(&name), value)).collect()))
            }
            other => Err(Text::bad(format!("Request decode failed: {other} is no object"))),
        }
    }

    /// The member `name`, if it is there and not null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(&plain(name)).filter(|value| !value.is_null())
    }

    /// The member `name`, left where it is.
    pub(super) fn look(&self, name: &str) -> Option<&Value> {
        self.0.get(&plain(name)).filter(|value| !value.is_null())
    }

    /// Sets the member `name`.
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(plain(name), value.into());
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Text> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    /// Texts by name; none where the member is not there.
    pub(super) fn pairs(&mut self, name: &str) -> Result<BTreeMap<String, String>, Text> {
        let Some(value) = self.take(name) else { return Ok(BTreeMap::new()) };
        let pairs = value.as_object().and_then(|members| {
            let pair =
                |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            members.iter().map(pair).collect::<Option<_>>()
        });
        pairs.ok_or_else(|| wrong(name, "an object of strings", &value))
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Text> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a string", &other)),
        }
    }

    /// A number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Text> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| wrong(name, "a number", &value)),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Text> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| {
            list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.map(Some).ok_or_else(|| wrong(name, "a list of strings", &value))
    }

    /// A span of time: as Go writes it, or a number below `seconds_below` of seconds, or a number
    /// of nanoseconds.
    pub(super) fn span(
        &mut self,
        name: &str,
        seconds_below: u64,
    ) -> Result<Option<Duration>, Text> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let read = match &value {
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => span(text),
            Value::Number(_) => value.as_u64().map(|number| {
                if number < seconds_below {
                    Duration::from_secs(number)
                } else {
                    Duration::from_nanos(number)
                }
            }),
            _ => None,
        };
        read.map(Some).ok_or_else(|| wrong(name, "a duration", &value))
    }
}

fn plain(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

fn wrong(name: &str, want: &str, found: &Value) -> Text {
    Text::bad(format!("Request decode failed: '{name}' must be {want}, found {found}"))
}

/// A document that is none.
pub(super) fn undecodable(error: &serde_json::Error) -> Text {
    Text::bad(format!("Request decode failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_match_without_case_and_underscore() {
        for text in
            [r#"{"LockDelay":15}"#, r#"{"lockdelay":"15s"}"#, r#"{"lock_delay":15000000000}"#]
        {
            let mut fields = Fields::read(text.as_bytes()).unwrap();
            let delay = fields.span("LockDelay", 1_000).unwrap();
            assert_eq!(delay, Some(Duration::from_secs(15)), "{text}");
        }
        assert!(Fields::read(b"[]").is_err() && Fields::read(b"{").is_err());
        assert!(Fields::read(b"{\"ttl\":7}").unwrap().text("TTL").is_err());
    }
}
