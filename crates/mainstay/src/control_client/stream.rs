//! Following a stream of the control plane.

use std::time::Duration;

use http_body_util::BodyExt as _;
use mainstay_api::stream::COMMENT_EVERY_SECONDS;
use serde_json::Value as Json;

use super::{ANSWER_TIMEOUT, Control, RETRY_AFTER, whole};

/// Without a sign of life for this long the stream is taken to be lost: two comments missed.
const SILENCE_MAX: Duration = Duration::from_secs(COMMENT_EVERY_SECONDS * 5 / 2);

/// Largest event taken: the switches of a namespace, or the contents of a group.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// How a stream ended.
pub(super) enum Ended {
    /// The reader has enough.
    Enough,
    /// There is no stream, but an answer.
    Answer(u16, Json),
    /// It was lost, and cannot be had again.
    Lost(String),
}

/// How one connection ended.
enum Cut {
    Ended(Ended),
    /// After so many events.
    Lost(String, usize),
}

pub(super) async fn follow(
    control: &Control,
    method: &str,
    path: &str,
    body: Option<&Json>,
    take: &mut impl FnMut(&Json) -> bool,
) -> Ended {
    let mut last = None;
    // The connection is dialled again once in a row without an event.
    let mut failures = 0;
    loop {
        match once(control, (method, path, body), &mut last, take).await {
            Cut::Ended(ended) => return ended,
            Cut::Lost(why, 0) if 0 < failures => return Ended::Lost(why),
            Cut::Lost(_, 0) => failures += 1,
            Cut::Lost(..) => failures = 0,
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn once(
    control: &Control,
    (method, path, body): (&str, &str, Option<&Json>),
    last: &mut Option<String>,
    take: &mut impl FnMut(&Json) -> bool,
) -> Cut {
    let lost = |why: String| Cut::Lost(why, 0);
    let mut request = match control.request(method, path, body, None) {
        Ok(request) => request,
        Err(error) => return lost(error.to_string()),
    };
    if let Some(id) = last.as_deref().and_then(|id| id.parse().ok()) {
        request.headers_mut().insert("last-event-id", id);
    }
    let reading = control.connected(|mut sender| async move {
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return lost(error.to_string()),
            Err(_elapsed) => return lost("no answer came".to_owned()),
        };
        let (status, body) = (answer.status().as_u16(), answer.into_body());
        if status != 200 {
            let bytes = whole(body).await.unwrap_or_default();
            let document = serde_json::from_slice(&bytes).unwrap_or(Json::Null);
            return Cut::Ended(Ended::Answer(status, document));
        }
        read(body, last, take).await
    });
    reading.await.unwrap_or_else(lost)
}

async fn read(
    mut body: hyper::body::Incoming,
    last: &mut Option<String>,
    take: &mut impl FnMut(&Json) -> bool,
) -> Cut {
    let (mut kept, mut events) = (Vec::new(), 0);
    loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Cut::Lost(error.to_string(), events),
            Ok(None) => return Cut::Lost("the stream ended".to_owned(), events),
            Err(_elapsed) => return Cut::Lost("nothing was heard of it".to_owned(), events),
        };
        let Some(data) = frame.data_ref() else { continue };
        kept.extend_from_slice(data);
        while let Some(end) = kept.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = kept.drain(..end + 2).collect();
            let Some(event) = event(&String::from_utf8_lossy(&block), last) else { continue };
            events += 1;
            if !take(&event) {
                return Cut::Ended(Ended::Enough);
            }
        }
        if EVENT_BYTES_MAX < kept.len() {
            return Cut::Lost("an event is too large".to_owned(), events);
        }
    }
}

/// The event of a block of lines, with its name; `None` for a comment.
fn event(block: &str, last: &mut Option<String>) -> Option<Json> {
    let field = |name: &str| {
        block.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
        })
    };
    if let Some(id) = field("id") {
        *last = Some(id);
    }
    let mut document: Json = serde_json::from_str(&field("data")?).ok()?;
    let name = field("event").unwrap_or_else(|| "message".to_owned());
    if let Some(fields) = document.as_object_mut() {
        fields.insert("event".to_owned(), name.into());
    }
    Some(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_event_or_a_comment() {
        let mut last = None;
        assert_eq!(event(": \n\n", &mut last), None);
        let found =
            event("event: change\nid: 7\ndata: {\"a\":1}\n\n", &mut last).expect("an event");
        assert_eq!(found, serde_json::json!({"a": 1, "event": "change"}));
        assert_eq!(last.as_deref(), Some("7"));
        assert_eq!(event("data: no document\n\n", &mut last), None);
    }
}
