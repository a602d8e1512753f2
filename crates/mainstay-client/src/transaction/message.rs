//! Messages: with a local part, or one way.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_api::transaction::{
    Accepted, BeginTransaction, SendMessage, Step, Target, Transaction,
};
use serde::Serialize;

use super::asking::{insist, outcome, post};
use super::saga::Settled;
use super::{Body, PATIENCE, TxError, at, begin, new_gid};
use crate::client::Client;
use crate::error::ClientError;

/// A message, before it is sent.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send` or a local part"]
pub struct Message {
    pub(super) client: Client,
    pub(super) begin: BeginTransaction,
    receivers: Vec<(Target, Body)>,
    pub(super) patience: Duration,
}

/// A call without an answer, before it is said what it promises.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct OneWay {
    client: Client,
    target: Target,
}

/// A call that is made until its receiver says that it has it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct AtLeastOnce {
    client: Client,
    document: SendMessage,
    patience: Duration,
}

impl Message {
    pub(super) fn new(client: Client, name: String) -> Self {
        let receivers = Vec::new();
        Self { client, begin: begin("message", name), receivers, patience: PATIENCE }
    }

    /// Its name, 1 to 128 bytes; one that nobody has used unless told. Receivers tell a repetition
    /// by it.
    pub fn gid(mut self, gid: impl Into<String>) -> Self {
        self.begin.gid = Some(gid.into());
        self
    }

    /// Another receiver; they get it one after the other.
    pub fn to(
        mut self,
        service: impl Into<String>,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Self {
        self.receivers.push((at(service, path), Body::of(body)));
        self
    }

    /// The same at a URL, which the configuration has to allow.
    pub fn at_url(mut self, url: impl Into<String>, body: &impl Serialize) -> Self {
        self.receivers.push((Target::Url { url: url.into() }, Body::of(body)));
        self
    }

    /// Who is asked whether the local part was committed, should this program not say so: a path of
    /// a service whose handler answers by [`Check`](crate::barrier::Check).
    pub fn check(mut self, service: impl Into<String>, path: impl Into<String>) -> Self {
        self.begin.check = Some(at(service, path));
        self
    }

    /// The same at a URL.
    pub fn check_url(mut self, url: impl Into<String>) -> Self {
        self.begin.check = Some(Target::Url { url: url.into() });
        self
    }

    /// How long the local part may take before the check is asked; what the configuration says
    /// unless told.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.begin.deadline_seconds = Some(deadline.as_secs_f64());
        self
    }

    /// How long after its creation it is delivered; at once unless told.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.begin.delay_seconds = delay.as_secs_f64();
        self
    }

    /// How long servers may be silent before it counts as unknown; 15 s unless told.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it, without a local part: when this returns it is durable, and is delivered.
    ///
    /// # Errors
    ///
    /// [`TxError`]; [`TxError::Refused`] if it has a check, which asks for a local part.
    ///
    /// # Cancel safety
    ///
    /// Whether it is sent is open.
    pub async fn send(self) -> Result<Settled, TxError> {
        if self.begin.check.is_some() {
            let why = "is for a message with a local part";
            return Err(ClientError::Invalid { what: "check", why }.into());
        }
        let (shared, patience) = (self.client.shared.clone(), self.patience);
        let (gid, begin) = self.document()?;
        let call = post("/transactions".to_owned(), Duration::ZERO).document(&begin);
        let seen: Transaction =
            insist(&shared, &call, patience).await.map_err(|error| error.of_submit(&gid))?;
        let seen = outcome(seen)?;
        Ok(Settled { gid, is_done: seen.summary.state == "committed" })
    }

    pub(super) fn document(self) -> Result<(String, BeginTransaction), ClientError> {
        let Self { client: _, mut begin, receivers, patience: _ } = self;
        let gid = begin.gid.get_or_insert_with(new_gid).clone();
        let step = |(action, body): (Target, Body)| {
            Ok(Step {
                branch: None,
                action,
                compensate: None,
                after: Vec::new(),
                payload: body.checked()?,
                payload_base64: None,
                content_type: None,
                headers: BTreeMap::new(),
            })
        };
        begin.steps = receivers.into_iter().map(step).collect::<Result<_, ClientError>>()?;
        Ok((gid, begin))
    }
}

impl OneWay {
    pub(super) const fn new(client: Client, target: Target) -> Self {
        Self { client, target }
    }

    /// It is made until its receiver says 2xx, also if this program is gone. The receiver may see
    /// it more than once, and tells a repetition by its gid.
    pub fn at_least_once(self) -> AtLeastOnce {
        let document = SendMessage {
            gid: None,
            target: self.target,
            headers: BTreeMap::new(),
            payload: None,
            payload_base64: None,
            content_type: None,
            delay_seconds: 0.0,
            give_up_after_seconds: None,
        };
        AtLeastOnce { client: self.client, document, patience: PATIENCE }
    }
}

impl AtLeastOnce {
    /// Its name, 1 to 128 bytes; one that nobody has used unless told.
    pub fn gid(mut self, gid: impl Into<String>) -> Self {
        self.document.gid = Some(gid.into());
        self
    }

    /// A header it is sent with, one of at most 32.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.document.headers.insert(name.into(), value.into());
        self
    }

    /// How long after this it is made; at once unless told.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.document.delay_seconds = delay.as_secs_f64();
        self
    }

    /// How long it is tried; for ever unless told. What was given up is shown, and can be delivered
    /// again (`mainstay transaction redeliver`).
    pub fn give_up_after(mut self, after: Duration) -> Self {
        self.document.give_up_after_seconds = Some(after.as_secs_f64());
        self
    }

    /// How long servers may be silent before it counts as unknown; 15 s unless told.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Hands it over; returns its gid when it is durable.
    ///
    /// # Errors
    ///
    /// [`TxError`]. After [`TxError::Unknown`] sending it again under that gid does no harm.
    ///
    /// # Cancel safety
    ///
    /// Whether it is handed over is open.
    pub async fn send(self, body: &(impl Serialize + Sync)) -> Result<String, TxError> {
        let Self { client, mut document, patience } = self;
        document.payload = Body::of(body).checked()?;
        let gid = document.gid.get_or_insert_with(new_gid).clone();
        let call = post("/messages".to_owned(), Duration::ZERO).document(&document);
        let accepted: Result<Accepted, _> = insist(&client.shared, &call, patience).await;
        accepted.map(|accepted| accepted.gid).map_err(|error| error.of_submit(&gid))
    }
}
