//! Sagas: steps that are done at once, and undone if a later one fails.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_api::transaction::{self as api, BeginTransaction, Target, Transaction};
use serde::Serialize;

use super::asking::{self, insist, outcome, post};
use super::{Body, PATIENCE, TxError, at, begin, new_gid};
use crate::client::Client;

/// A saga that is being put together.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `submit`"]
pub struct Saga {
    client: Client,
    begin: BeginTransaction,
    steps: Vec<Step>,
    patience: Duration,
}

/// A step of a saga.
#[derive(Clone, Debug)]
pub struct Step {
    service: String,
    action: Option<Target>,
    compensate: Option<Target>,
    after: Vec<u16>,
    body: Body,
    headers: BTreeMap<String, String>,
}

/// How far a submit waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is decided: for good, whatever happens to this program. A saga is when it is
    /// durable, though it may still turn back.
    Decided,
    /// Until every branch has heard.
    Done,
}

/// A transaction that was decided to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its name.
    pub gid: String,
    /// Whether every branch has heard.
    pub is_done: bool,
}

impl Saga {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, begin: begin("saga", name), steps: Vec::new(), patience: PATIENCE }
    }

    /// Its name, 1 to 128 bytes; one that nobody has used unless told. The same gid with the same
    /// content is the same saga: it is how one that came out unknown is asked for again.
    pub fn gid(mut self, gid: impl Into<String>) -> Self {
        self.begin.gid = Some(gid.into());
        self
    }

    /// What it can be found by, one of at most 16.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.begin.labels.insert(key.into(), value.into());
        self
    }

    /// How long it may go forward; then it is undone. For ever unless told.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.begin.deadline_seconds = Some(deadline.as_secs_f64());
        self
    }

    /// How often one step is tried again before everything is undone; for ever unless told.
    pub fn retry_limit(mut self, retries: u32) -> Self {
        self.begin.retry_limit = Some(retries);
        self
    }

    /// Steps do not wait for those before them, unless they say so by [`Step::after`].
    pub fn concurrent(mut self) -> Self {
        self.begin.concurrent = true;
        self
    }

    /// How long servers may be silent before it counts as unknown; 15 s unless told.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Another step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Hands it to the coordinator, and waits as far as told. [`Wait::Done`] waits as long as the
    /// saga takes, which without a deadline may be for ever; put a timeout around it.
    ///
    /// # Errors
    ///
    /// [`TxError`]; [`TxError::Aborted`] when everything has been undone, or is being undone.
    ///
    /// # Cancel safety
    ///
    /// Whether it is submitted is open; once it is, it goes on without this program.
    pub async fn submit(self, wait: Wait) -> Result<Settled, TxError> {
        let Self { client, mut begin, steps, patience } = self;
        let gid = begin.gid.get_or_insert_with(new_gid).clone();
        begin.steps = steps.into_iter().map(Step::document).collect::<Result<_, _>>()?;
        let call = post("/transactions".to_owned(), Duration::ZERO).document(&begin);
        let shared = &client.shared;
        let mut seen: Transaction =
            insist(shared, &call, patience).await.map_err(|error| error.of_submit(&gid))?;
        if wait == Wait::Done {
            seen = asking::ended(shared, &gid, patience).await?;
        }
        let seen = outcome(seen)?;
        Ok(Settled { gid, is_done: seen.summary.state == "committed" })
    }
}

impl Step {
    /// A step of a registered service.
    pub fn on(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            action: None,
            compensate: None,
            after: Vec::new(),
            body: Body::default(),
            headers: BTreeMap::new(),
        }
    }

    /// A step that is done by a call of `url`, which the configuration has to allow.
    pub fn url(url: impl Into<String>) -> Self {
        Self { action: Some(Target::Url { url: url.into() }), ..Self::on("") }
    }

    /// The path that does it.
    pub fn action(mut self, path: impl Into<String>) -> Self {
        self.action = Some(at(self.service.clone(), path));
        self
    }

    /// The path that undoes it, and must not fail for good. Without one nothing needs to be done.
    pub fn compensate(mut self, path: impl Into<String>) -> Self {
        self.compensate = Some(at(self.service.clone(), path));
        self
    }

    /// The URL that undoes it.
    pub fn compensate_url(mut self, url: impl Into<String>) -> Self {
        self.compensate = Some(Target::Url { url: url.into() });
        self
    }

    /// What both are sent, as JSON; nothing unless told.
    pub fn body(mut self, body: &impl Serialize) -> Self {
        self.body = Body::of(body);
        self
    }

    /// A header both are sent, one of at most 32.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Steps that have to be done before it, by their place from 0; the one before it unless told,
    /// or none in a concurrent saga.
    pub fn after(mut self, steps: &[u16]) -> Self {
        self.after = steps.to_vec();
        self
    }

    fn document(self) -> Result<api::Step, crate::error::ClientError> {
        let Self { service: _, action, compensate, after, body, headers } = self;
        let why = "must have an action";
        let missing = crate::error::ClientError::Invalid { what: "step", why };
        Ok(api::Step {
            branch: None,
            action: action.ok_or(missing)?,
            compensate,
            after,
            payload: body.checked()?,
            payload_base64: None,
            content_type: None,
            headers,
        })
    }
}
