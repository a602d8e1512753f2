//! Server-sent events, as far as the API uses them: a machine that takes bytes and gives events.
//!
//! Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name.
    pub(crate) name: String,
    /// The revision it is as of, if it has one.
    pub(crate) id: Option<u64>,
    /// Its lines of data, joined.
    pub(crate) data: String,
}

/// A line or event beyond what is taken: the stream cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLong;

/// Longest event: a snapshot of 10,000 places of 400 bytes is 4 MB.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// Makes events of bytes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    line: Vec<u8>,
    event: Event,
}

impl Reader {
    /// Takes bytes; gives the events that are complete with them.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, is_whole) = match piece.split_last() {
                Some((b'\n', part)) => (part, true),
                _ => (piece, false),
            };
            if EVENT_BYTES_MAX < self.line.len() + part.len() + self.event.data.len() {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            if is_whole {
                let line = std::mem::take(&mut self.line);
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                events.extend(self.line(&String::from_utf8_lossy(line)));
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" => self.event.id = value.parse().ok(),
            // A comment, or something new.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = ": hello\n\nid: 7\nevent: snapshot\ndata: {\"a\":\ndata: 1}\n\r\nevent: none\n\n\
                    event:change\r\ndata:{}\r\n\r\ndata: half";
        let event = |name: &str, id, data: &str| Event { name: name.into(), id, data: data.into() };
        let want = [event("snapshot", Some(7), "{\"a\":\n1}"), event("change", None, "{}")];
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let chunks = text.as_bytes().chunks(size);
            let got: Vec<Event> = chunks.flat_map(|chunk| reader.take(chunk).unwrap()).collect();
            assert_eq!(got, want, "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut reader = Reader::default();
        let chunk = vec![b'x'; 1 << 20];
        assert!((0..8).all(|_| reader.take(&chunk).is_ok()));
        assert_eq!(reader.take(b"x"), Err(TooLong));
    }
}
