//! Requests that are taken on now and made later.
//!
//! [`Deferred`] is the port between a `defer` step and whatever keeps requests over a crash and
//! makes them until they succeed. The promise is "at least once": who is called may be called
//! again, and tells repeats by `Idempotency-Key`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request};
use mainstay_core::Moment;
use mainstay_core::name::PolicyName;

/// Where receipts are asked for: this and the receipt's id.
pub const RECEIPTS: &str = "/.well-known/mainstay/receipts/";

/// Names the receipt to callers who do not read `Location`, as those of gRPC.
pub const RECEIPT_HEADER: HeaderName = HeaderName::from_static("mainstay-receipt");

/// A request that is to be made later.
#[derive(Debug)]
pub struct Deferral {
    /// The queue it waits in.
    pub queue: PolicyName,
    /// The service it is for.
    pub service: Arc<str>,
    /// As the service is to get it, with its whole body.
    pub request: Request<Bytes>,
}

/// An answer of a [`Deferred`] on its way.
pub type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Keeps requests, and makes them until they succeed.
pub trait Deferred: fmt::Debug + Send + Sync {
    /// Longest body that is taken on, in bytes.
    fn body_bytes_max(&self) -> usize;

    /// Takes a request on. When this has returned a receipt the request survives a crash; the same
    /// caller's same request with the same `Idempotency-Key` is given the same receipt.
    ///
    /// # Cancel safety
    ///
    /// The request may be taken on all the same.
    fn defer(&self, deferral: Deferral) -> Answering<Result<Receipt, NotDeferred>>;

    /// What became of the request with the receipt `id`.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    fn look(&self, id: &str) -> Answering<Result<Receipt, NoReceipt>>;
}

/// Why a request was not taken on. Nothing was kept, unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDeferred {
    /// There is nobody to keep it.
    #[error("nobody keeps deferred requests here")]
    Nobody,
    /// As many wait as may, or as many bytes.
    #[error("queue `{0}` is full")]
    Full(PolicyName),
    /// It cannot be kept as it is.
    #[error("the request cannot be deferred: {0}")]
    Unfit(String),
    /// The same key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyTaken,
    /// The same request with the same key was taken on before, and was given up.
    #[error("the request was taken on before and given up")]
    GivenUp,
    /// It could not be written down, or nobody knows whether it was.
    #[error("the request could not be kept: {0}")]
    Away(String),
}

/// Why there is no receipt to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReceipt {
    /// No request has it, or it ended longer ago than is kept.
    #[error("no such receipt, or its request ended too long ago")]
    Unknown,
    /// It cannot be told for now.
    #[error("receipts cannot be read for now: {0}")]
    Away(String),
}

/// What became of a request that was deferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// 32 hexadecimal digits.
    pub id: Arc<str>,
    /// How far it is.
    pub state: ReceiptState,
    /// When it was taken on.
    pub queued_at: Moment,
    /// How often it was sent.
    pub tries: u32,
    /// When it is sent next, if it waits for that.
    pub next_try_at: Option<Moment>,
    /// When it ended.
    pub ended_at: Option<Moment>,
    /// Status of the answer that was the last, where that is known.
    pub status: Option<u16>,
}

/// How far a deferred request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// It waits.
    Queued,
    /// It is being sent.
    Delivering,
    /// It was answered with success.
    Done,
    /// It was given up, and lies among the dead letters.
    Dead,
}

impl ReceiptState {
    /// The state that `word` stands for.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Queued, Self::Delivering, Self::Done, Self::Dead];
        all.into_iter().find(|state| state.as_str() == word)
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivering => "delivering",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

impl Receipt {
    /// Where it is asked for.
    pub fn location(&self) -> String {
        format!("{RECEIPTS}{}", self.id)
    }

    /// What whoever hands a request over is told, as JSON.
    pub fn ticket(&self) -> String {
        let Self { id, state, queued_at, .. } = self;
        format!(r#"{{"receipt":"{id}","state":"{}","queued_at":"{queued_at}"}}"#, state.as_str())
    }

    /// What whoever asks is told, as JSON.
    pub fn document(&self) -> String {
        let Self { tries, next_try_at, ended_at, status, .. } = self;
        let at =
            |at: &Option<Moment>| at.map_or_else(|| "null".to_owned(), |at| format!("\"{at}\""));
        let (next, ended) = (at(next_try_at), at(ended_at));
        let status = status.map_or_else(|| "null".to_owned(), |status| status.to_string());
        let ticket = self.ticket();
        let begun = ticket.strip_suffix('}').unwrap_or_default();
        format!(
            r#"{begun},"tries":{tries},"next_try_at":{next},"ended_at":{ended},"final_status":{status}}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_a_document_for_both_who_hand_over_and_who_ask() {
        let receipt = Receipt {
            id: Arc::from("00ff"),
            state: ReceiptState::Dead,
            queued_at: Moment::from_unix_millis(0),
            tries: 3,
            next_try_at: None,
            ended_at: Some(Moment::from_unix_millis(1_500)),
            status: Some(503),
        };
        let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        let ticket = read(receipt.ticket());
        assert_eq!(ticket["receipt"], "00ff");
        assert_eq!(ticket["state"], "dead");
        let told = read(receipt.document());
        assert_eq!(told["queued_at"], ticket["queued_at"]);
        assert_eq!(told["tries"], 3);
        assert!(told["next_try_at"].is_null());
        assert_eq!(told["final_status"], 503);
        assert!(told["ended_at"].as_str().is_some_and(|at| at.starts_with("1970-01-01T00:00:01")));
        assert_eq!(receipt.location(), "/.well-known/mainstay/receipts/00ff");
    }
}
