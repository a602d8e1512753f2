//! A stream of server-sent events, read one by one.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;

use serde_json::Value;

/// One event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// The revision it is as of; 0 when it has none.
    pub(crate) id: u64,
    pub(crate) document: Value,
}

/// The events of an answer.
#[derive(Debug)]
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    /// Those of a request that was sent.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next one. A comment comes after 15 s without any, which is too long.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Event {
        let (mut name, mut id, mut document) = (String::new(), 0, None);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream ended");
            let line = line.trim_end();
            assert!(!line.starts_with(':'), "nothing came for 15 s");
            if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().unwrap();
            } else if let Some(text) = line.strip_prefix("data: ") {
                document = Some(serde_json::from_str(text).unwrap());
            } else if line.is_empty()
                && let Some(document) = document.take()
            {
                return Event { name, id, document };
            }
        }
    }

    /// The document of the next one called `name`; those before it are passed over.
    #[track_caller]
    pub(crate) fn find(&mut self, name: &str) -> Value {
        loop {
            let event = self.next();
            if event.name == name {
                return event.document;
            }
        }
    }
}
