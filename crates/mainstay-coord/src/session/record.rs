//! What `ses/<id>` holds.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use mainstay_store::{Entry, LeaseId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Secret, SessionError};
use crate::name::OwnerName;
use crate::random;

/// Whose a session is; shown to whoever waits for what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What it calls itself.
    pub name: String,
}

impl Owner {
    /// Process `pid` on `host`, which goes by `name`.
    pub fn new(host: OwnerName, pid: u32, name: OwnerName) -> Self {
        Self { host: host.as_str().to_owned(), pid, name: name.as_str().to_owned() }
    }
}

/// The record as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    v: u32,
    pub(super) owner: Owner,
    secret_sha256: String,
    ttl_seconds: u64,
}

impl Record {
    /// Whether `secret` is the one of the opener. How long that takes says nothing about it.
    pub(super) fn was_opened_with(&self, secret: &Secret) -> bool {
        let shown = digest(secret);
        verify_slices_are_equal(self.secret_sha256.as_bytes(), shown.as_bytes()).is_ok()
    }
}

/// The value of a new session's key.
pub(super) fn write(owner: &Owner, secret: &Secret, ttl: Duration) -> Vec<u8> {
    let record = Record {
        v: 1,
        owner: owner.clone(),
        secret_sha256: digest(secret),
        ttl_seconds: ttl.as_secs(),
    };
    serde_json::to_vec(&record).expect("strings and numbers are JSON")
}

/// The record in `entry`, which is the key of `session`.
pub(super) fn read(session: LeaseId, entry: &Entry) -> Result<Record, SessionError> {
    let record = serde_json::from_slice(&entry.value);
    record.map_err(|_not_ours| SessionError::Unreadable { session })
}

/// What is kept of a secret. It is random, so a plain hash does not let it be guessed.
fn digest(secret: &Secret) -> String {
    random::to_hex(&Sha256::digest(secret.reveal()))
}
