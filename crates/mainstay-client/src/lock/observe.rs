//! Who leads, as it changes.

use http::Method;
use mainstay_api::lock::{Area, Leader, Leadership};
use mainstay_api::stream::{CHANGE, SNAPSHOT};

use super::{check_name, place_path};
use crate::client::Client;
use crate::control::Call;
use crate::error::ClientError;
use crate::pause::pause;
use crate::stream::{HEAD_TIMEOUT, Stream};

/// Yields who leads, at first and at every change.
#[derive(Debug)]
pub struct Observer {
    client: Client,
    call: Call,
    stream: Option<Stream>,
    /// Streams in a row that could not be opened, or told nothing.
    tries: u32,
    /// What was yielded last.
    seen: Option<Leadership>,
}

impl Observer {
    pub(crate) fn new(client: Client, name: &str) -> Result<Self, ClientError> {
        check_name(name)?;
        let path = place_path(Area::Election, &client.shared.namespace, name);
        let call = Call::new(Method::GET, format!("{path}/observe"), HEAD_TIMEOUT);
        Ok(Self { client, call, stream: None, tries: 0, seen: None })
    }

    /// The next that differs from the one before; `None` is "nobody". Of changes faster than this
    /// is called, or made while no server answered, only the last is seen.
    ///
    /// # Errors
    ///
    /// [`ClientError`], from a server that refuses. While none answers it goes on asking.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Option<Leader>, ClientError> {
        loop {
            if let Some(stream) = &mut self.stream {
                let Some(event) = stream.next().await else {
                    self.stream = None;
                    continue;
                };
                if ![SNAPSHOT, CHANGE].contains(&event.name.as_str()) {
                    continue;
                }
                let Ok(told) = serde_json::from_str::<Leadership>(&event.data) else { continue };
                self.tries = 0;
                if self.seen.as_ref() == Some(&told) {
                    continue;
                }
                self.seen = Some(told.clone());
                return Ok(told.leader);
            }
            if 0 < self.tries {
                pause(self.tries, None).await;
            }
            self.tries += 1;
            match Stream::open(&self.client.shared.control, &self.call).await {
                Ok(stream) => self.stream = Some(stream),
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
        }
    }
}
