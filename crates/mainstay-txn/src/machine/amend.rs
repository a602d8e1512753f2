//! How an initiator of the DTM dialect changes its mind about how it is driven.
//!
//! Its submit carries the same document as its prepare, and clients set options between the two:
//! what a message waits for is often known only then. Steps stay what they were.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Step;
use super::begin::check_words;
use crate::error::Refused;
use crate::limits::PATIENCE_MAX;
use crate::transaction::{Begin, NewBranch, Transaction};
use crate::word::{Dialect, Mode};

/// What takes the place of what a transaction was begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// The mode it is believed to have; it does not change.
    pub mode: Mode,
    /// Headers of every call.
    pub headers: Vec<(String, String)>,
    /// What its initiator said in the words of its dialect.
    pub words: Option<Bytes>,
    /// Retries of one step of a saga before it is compensated.
    pub retry_limit: Option<u32>,
    /// The interval between retries.
    pub retry_interval: Option<Duration>,
    /// How long a call of a branch may take.
    pub call_timeout: Option<Duration>,
    /// How long after its creation a message is delivered.
    pub delay: Duration,
    /// Steps of a message do not wait for those before them.
    pub concurrent: bool,
}

impl Transaction {
    pub(super) fn amend(&mut self, amendment: Amendment, step: &mut Step) -> Result<(), Refused> {
        if self.begin.dialect != Dialect::Dtm || self.begin.mode != amendment.mode {
            return Err(Refused::GidTaken { mode: self.begin.mode, state: self.state() });
        }
        if !self.state().is_undecided() {
            return Err(self.not_allowed("amend"));
        }
        let Amendment {
            mode: _,
            headers,
            words,
            retry_limit,
            retry_interval,
            call_timeout,
            delay,
            concurrent,
        } = amendment;
        let mut begin = Begin {
            concurrent,
            delay,
            retry_limit,
            retry_interval,
            call_timeout,
            headers,
            words,
            ..Begin::clone(&self.begin)
        };
        if begin == *self.begin {
            return Ok(()); // As nearly always: nothing is to be written.
        }
        check_words(&begin)?;
        if PATIENCE_MAX < delay {
            let problem = "must be at most 30 days".to_owned();
            return Err(Refused::Invalid { field: "delay_seconds", problem });
        }
        if begin.mode == Mode::Message && begin.concurrent != self.begin.concurrent {
            self.line_up(&mut begin);
        }
        self.begin = Arc::new(begin);
        (step.write.durable, step.write.body) = (true, true);
        Ok(())
    }

    /// Has each step of a message wait for the one before it, or none for any.
    fn line_up(&mut self, begin: &mut Begin) {
        let after = |at: usize| -> Vec<u16> {
            let before = at.checked_sub(1).filter(|_| !begin.concurrent);
            before.and_then(|before| u16::try_from(before).ok()).into_iter().collect()
        };
        let orders: Vec<Vec<u16>> = (0..begin.steps.len()).map(after).collect();
        for ((NewBranch { after, .. }, branch), order) in
            begin.steps.iter_mut().zip(&mut self.branches).zip(orders)
        {
            branch.after.clone_from(&order);
            *after = order;
        }
    }
}
