//! Sessions: leases with an owner, on which locks hang.
//!
//! A session is a lease and one key, `ses/<id>`, that ends with it and says whose it is. Whatever
//! hangs on a session ends with it, in one revision. There is no default ttl: too short loses locks
//! during a pause, too long delays whoever comes next, and only the caller knows which hurts more.
//!
//! | part | for |
//! |---|---|
//! | [`Sessions`] | whoever speaks for a remote holder: the door. It believes nothing; the holder does |
//! | [`Session`] | a holder in this process: renewed by a task, judged by this process' clock |
//!
//! Every call for a remote session carries the `secret` given when it was opened; the store keeps
//! only its SHA-256. Somebody who reads the store, or sees an id in a list, cannot release what the
//! session holds.
//!
//! # Once only
//!
//! The key also decides what an [`OutcomeUnknown`](mainstay_store::Error::OutcomeUnknown) became.
//! Every batch that could put something new on the session compares the key's mod revision;
//! [`Sessions::settle`] writes it anew. A batch that was under way has then either been applied,
//! which shows, or never will be.

mod error;
mod live;
mod record;
mod renewal;

use std::fmt;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{Batch, Compare, Entry, Error, Get, LeaseId, LeaseStatus, Put, Revision};

use crate::coordination::Coordination;
use crate::patience::Patience;
use crate::{keys, random};

pub use error::SessionError;
pub use live::Session;
pub(crate) use live::{Hold, HoldState};
pub use record::Owner;

/// Shortest ttl of a session: a margin of 500 ms leaves 1.5 s, in which three renewals fit.
pub const TTL_MIN: Duration = Duration::from_secs(2);

/// Longest ttl of a session: an hour. What shall survive its holder longer is bound to a
/// transaction.
pub const TTL_MAX: Duration = Duration::from_hours(1);

/// What only the opener of a session knows. It cannot be compared, but by whoever holds its digest.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// As it came from the caller.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// To be told to the opener, once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A session and the right to act for it.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The session.
    pub session: LeaseId,
    /// What its opener was told.
    pub secret: Secret,
}

/// A session as it was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Id and secret.
    pub credential: Credential,
    /// How long it lives after each renewal; never less than was asked for.
    pub ttl: Duration,
}

/// A session that was just opened.
struct Fresh {
    opened: Opened,
    /// When its lease was asked for.
    sent: Instant,
    /// The revision that wrote its key.
    created: Revision,
}

/// A session as it stands.
#[derive(Clone, Debug)]
pub struct SessionStatus {
    /// Whose it is.
    pub owner: Owner,
    /// Its lease, with everything that hangs on it.
    pub lease: LeaseStatus,
}

/// Opens sessions, and acts for those whose holder is elsewhere.
#[derive(Clone, Debug)]
pub struct Sessions {
    ground: Coordination,
}

impl Sessions {
    pub(crate) const fn new(ground: Coordination) -> Self {
        Self { ground }
    }

    /// Opens a session that is renewed by this process, until it is ended or dropped.
    ///
    /// # Errors
    ///
    /// [`SessionError::TtlInvalid`], and what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: a session that was opened and not returned ends by itself after its ttl.
    pub async fn start(&self, owner: Owner, ttl: Duration) -> Result<Session, SessionError> {
        let fresh = self.open_at(owner, ttl).await?;
        Ok(Session::start(self.ground.clone(), &fresh))
    }

    /// Opens a session for a holder elsewhere, who renews it by [`Sessions::renew`].
    ///
    /// # Errors
    ///
    /// As [`Sessions::start`].
    ///
    /// # Cancel safety
    ///
    /// As [`Sessions::start`].
    pub async fn open(&self, owner: Owner, ttl: Duration) -> Result<Opened, SessionError> {
        self.open_at(owner, ttl).await.map(|fresh| fresh.opened)
    }

    /// Lets a session live for its whole ttl again; returns that ttl. The holder counts from the
    /// moment it **sent** its request.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`], [`SessionError::SecretWrong`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it is renewed is open; the holder must take it as not.
    pub async fn renew(&self, credential: &Credential) -> Result<Duration, SessionError> {
        self.authenticate(credential).await?;
        let session = credential.session;
        let ttl = self.ground.store().keep_alive(session).await;
        let ttl = ttl.map_err(|error| SessionError::of(session, error))?;
        // A store may let a revoked lease live on (etcd before 3.4.38): what hangs on it shows.
        self.authenticate(credential).await?;
        Ok(ttl)
    }

    /// Ends a session; everything that hangs on it goes in one revision.
    ///
    /// # Errors
    ///
    /// As [`Sessions::renew`].
    ///
    /// # Cancel safety
    ///
    /// Whether it ends is open; calling again does no harm.
    pub async fn end(&self, credential: &Credential) -> Result<(), SessionError> {
        self.authenticate(credential).await?;
        match self.end_trusted(credential.session).await {
            Ok(()) | Err(SessionError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A session as it stands.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn status(&self, session: LeaseId) -> Result<SessionStatus, SessionError> {
        let entry = self.entry(session).await?;
        let lease = self.ground.store().lease(session).await;
        let lease = lease.map_err(|error| SessionError::of(session, error))?;
        Ok(SessionStatus { owner: record::read(session, &entry)?.owner, lease })
    }

    /// Whose a session is, and the revision its key was last written at.
    pub(crate) async fn owner(&self, session: LeaseId) -> Result<(Owner, Revision), SessionError> {
        let entry = self.entry(session).await?;
        Ok((record::read(session, &entry)?.owner, entry.mod_revision))
    }

    /// Checks the secret; returns the session's key as it is.
    pub(crate) async fn authenticate(
        &self,
        credential: &Credential,
    ) -> Result<Entry, SessionError> {
        let entry = self.entry(credential.session).await?;
        let record = record::read(credential.session, &entry)?;
        if !record.was_opened_with(&credential.secret) {
            return Err(SessionError::SecretWrong { session: credential.session });
        }
        Ok(entry)
    }

    /// The session's key as it is.
    pub(crate) async fn entry(&self, session: LeaseId) -> Result<Entry, SessionError> {
        let got = self.ground.store().get(Get::new(keys::session(session))).await?;
        got.entry.ok_or(SessionError::NotFound { session })
    }

    /// Writes the session's key anew, so that no batch sent before can be applied any more;
    /// returns the revision of that.
    pub(crate) async fn settle(&self, session: LeaseId) -> Result<Revision, SessionError> {
        let mut patience = Patience::new(self.ground.now(), Patience::FOR_CALLERS);
        loop {
            let error = match self.entry(session).await {
                Ok(entry) => {
                    let put = Put::new(entry.key.clone(), entry.value).keep_lease();
                    let batch = Batch::new()
                        .when(Compare::unchanged_since(&entry.key, entry.mod_revision))
                        .then(put);
                    match self.ground.store().apply(batch).await {
                        Ok(applied) if applied.succeeded => return Ok(applied.revision),
                        Ok(_moved) => continue,
                        Err(error) => error,
                    }
                }
                Err(SessionError::Store(error)) => error,
                Err(error) => return Err(error),
            };
            self.ground.bear(&mut patience, error).await?;
        }
    }

    /// Ends a session of this process.
    pub(crate) async fn end_trusted(&self, session: LeaseId) -> Result<(), SessionError> {
        let mut patience = Patience::new(self.ground.now(), Patience::FOR_CALLERS);
        loop {
            match self.ground.store().revoke(session).await {
                Ok(_revision) => return Ok(()),
                Err(Error::LeaseNotFound { .. }) if patience.is_uncertain() => return Ok(()),
                Err(error @ Error::LeaseNotFound { .. }) => {
                    return Err(SessionError::of(session, error));
                }
                Err(error) => patience.bear(self.ground.timer(), error).await?,
            }
        }
    }

    /// Opens a session.
    async fn open_at(&self, owner: Owner, ttl: Duration) -> Result<Fresh, SessionError> {
        if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
            return Err(SessionError::TtlInvalid { asked: ttl });
        }
        let secret = Secret(random::hex::<16>());
        let store = self.ground.store();
        let mut patience = Patience::new(self.ground.now(), Patience::FOR_CALLERS);
        loop {
            // A new id for each try: a grant whose outcome is unknown leaves at most a lease
            // without keys, which ends by itself.
            let id = u64::from_ne_bytes(random::bytes::<8>()) >> 1;
            let sent = self.ground.now();
            let granted = match store.grant(ttl, LeaseId::new(id)).await {
                Ok(granted) => granted,
                Err(Error::LeaseExists { .. }) => continue,
                Err(error) => {
                    patience.bear(self.ground.timer(), error).await?;
                    continue;
                }
            };
            let key = keys::session(granted.id);
            let value = record::write(&owner, &secret, granted.ttl);
            let batch = Batch::new()
                .when(Compare::missing(&key))
                .then(Put::new(key, value).lease(granted.id));
            match store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    let credential = Credential { session: granted.id, secret };
                    let opened = Opened { credential, ttl: granted.ttl };
                    return Ok(Fresh { opened, sent, created: applied.revision });
                }
                // The key of an id that was drawn at random: not ours. Draw again.
                Ok(_taken) => {}
                Err(error) => patience.bear(self.ground.timer(), error).await?,
            }
        }
    }
}
