//! Values of the log: one byte of format, then protobuf.
//!
//! Words are written as text, so a dump can be read and a word that a later version adds is told
//! apart from damage. Numbers of fields are for ever.

mod branch;
mod message;
mod transaction;

use bytes::Bytes;
use prost::Message;

pub(super) use branch::branch;
pub(super) use transaction::{
    body, history, read_body, read_branches, read_history, read_register, read_span, register,
};

use message::Pair;

/// The format of this version.
const FORMAT: u8 = 1;

/// A record that cannot be read. If a newer version wrote it the shard it lies in stays closed:
/// whoever goes on without it may undo what was decided. A damaged one stops its transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer version wrote it.
    #[error("record has format {found}, and this version knows {FORMAT}")]
    Newer {
        /// Its format.
        found: u8,
    },
    /// It is no such record.
    #[error("record is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
}

impl Unreadable {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "log-format-newer",
            Self::Damaged { .. } => "store-corrupt",
        }
    }
}

fn damaged(what: impl ToString) -> Unreadable {
    Unreadable::Damaged { what: what.to_string() }
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(FORMAT);
    message.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}

fn unframed<M: Message + Default>(bytes: &[u8]) -> Result<M, Unreadable> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => M::decode(rest).map_err(damaged),
        Some((&found, _)) if FORMAT < found => Err(Unreadable::Newer { found }),
        Some(_) => Err(damaged("its format is none")),
        None => Err(damaged("it is empty")),
    }
}

fn pair((name, value): (&String, &String)) -> Pair {
    Pair { name: name.clone(), value: value.clone() }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn narrow(at: u32) -> Result<u16, Unreadable> {
    u16::try_from(at).map_err(damaged)
}

fn word<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
    parse(text).ok_or_else(|| damaged(format!("`{text}` is no word of it")))
}

macro_rules! impl_value {
    ($($name:ident)*) => {
        $(impl $name {
            /// As a value of the store.
            pub fn write(&self) -> Bytes {
                framed(self)
            }

            /// Reads a value of the store.
            ///
            /// # Errors
            ///
            /// [`Unreadable`].
            pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
                unframed(bytes)
            }
        })*
    };
}

/// What a log says about itself; written once.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Meta {
    /// Eight of `a-z` and `0-9`: part of the names of prepared branches.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// A UUID: another log of the same cluster is told apart by it.
    #[prost(string, tag = "2")]
    pub log_id: String,
    /// How many shards it has.
    #[prost(uint32, tag = "3")]
    pub shards: u32,
}

/// How far a log has come, as databases were told.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct High {
    /// Grows when work was begun.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
}

/// A node that may own shards.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Node {
    /// Where its control port is.
    #[prost(string, tag = "1")]
    pub address: String,
}

/// How far a lane is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Lane {
    /// The session it belongs to.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// Number of its last batch.
    #[prost(uint64, tag = "2")]
    pub batch: u64,
}

/// Who owns a shard.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Owner {
    /// The node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Where its control port is.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Its session.
    #[prost(uint64, tag = "3")]
    pub session: u64,
}

impl_value!(Meta High Node Lane Owner);
