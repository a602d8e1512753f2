//! One stream of events, from its head to its end.

use std::collections::VecDeque;
use std::time::Duration;

use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mainstay_api::stream::COMMENT_EVERY_SECONDS;
use tokio_util::sync::CancellationToken;

use crate::control::{Call, Control};
use crate::error::ClientError;
use crate::pause::reopen_after;
use crate::sse::{Event, Reader};

/// An open stream. Whoever follows something opens the next one when this has ended.
#[derive(Debug)]
pub(crate) struct Stream {
    headers: HeaderMap,
    body: Incoming,
    reader: Reader,
    /// Events that have come and were not returned yet: those of one frame.
    come: VecDeque<Event>,
}

impl Stream {
    /// Opens the stream that `call` asks for.
    pub(crate) async fn open(control: &Control, call: &Call) -> Result<Self, ClientError> {
        let (head, body) = control.send(call).await?.into_parts();
        let headers = head.headers;
        Ok(Self { headers, body, reader: Reader::default(), come: VecDeque::new() })
    }

    /// What a header of the answer says.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    /// The next event; `None` when the stream has ended, broken off, or gone silent.
    ///
    /// Safe to cancel: an event counts as returned only when it is.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.come.pop_front() {
                return Some(event);
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            let bytes = frame.ok()??.ok()?.into_data();
            let Ok(bytes) = bytes else { continue };
            self.come.extend(self.reader.take(&bytes).ok()?);
        }
    }
}

/// Why a stream is not read any more.
pub(crate) enum Ended {
    /// Something else is to be asked for, at once.
    Changed,
    /// It told something, and then ended.
    Over,
    /// It could not be opened, told nothing, or told what could not be taken; and why.
    Refused(String),
}

impl Ended {
    /// There are no more events.
    pub(crate) fn of(has_told: bool) -> Self {
        if has_told { Self::Over } else { Self::Refused("its stream ends".to_owned()) }
    }
}

/// Opens streams and reads each to its end by `read`, one after the other until told to stop; `away`
/// hears why one could not be gone on with.
pub(crate) async fn follow<F: Future<Output = Ended>>(
    stop: &CancellationToken,
    mut read: impl FnMut() -> F,
    away: impl Fn(&str),
) {
    let following = async {
        let mut tries = 0;
        loop {
            match read().await {
                Ended::Changed => tries = 0,
                Ended::Over => tries = 1,
                Ended::Refused(why) => {
                    tries += 1;
                    away(&why);
                }
            }
            if 0 < tries {
                tokio::time::sleep(reopen_after(tries)).await;
            }
        }
    };
    let (Some(()) | None) = stop.run_until_cancelled(following).await;
}

/// For the head of a stream, from a server that is busy.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Without even a comment for as long as two of them, and some, the connection hangs.
const SILENCE_MAX: Duration = Duration::from_secs(2 * COMMENT_EVERY_SECONDS + 5);
