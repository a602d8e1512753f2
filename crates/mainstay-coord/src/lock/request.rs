//! What is asked for, and what is granted.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_store::{Key, Revision};

use super::error::LockError;
use super::record::Token;
use super::{LOCK_DELAY_MAX, VALUE_BYTES_MAX};
use crate::keys::{Area, Place};
use crate::name::{LockName, Namespace, RequestId};

/// How something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Alone.
    Exclusive,
    /// Together with others who want it so.
    Shared,
    /// Some permits of a semaphore.
    Permits {
        /// How many.
        permits: NonZeroU32,
        /// How many there are, 1 to 10,000; everybody who asks must agree.
        limit: NonZeroU32,
    },
}

impl Want {
    /// The word used in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Permits { .. } => "semaphore",
        }
    }
}

/// How long to wait for a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all. Whoever waits already is never overtaken.
    Try,
    /// At most so long.
    AtMost(Duration),
    /// As long as the session lives.
    Forever,
}

/// A request for a lock, permits of a semaphore, or leadership.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) place: Place,
    pub(super) want: Want,
    pub(super) id: RequestId,
    /// Which of the times it is asked for this is: a request that is asked for again under the
    /// same name takes over its place, and what is left of the time before leaves it alone.
    pub(super) attempt: RequestId,
    pub(super) wait: Wait,
    pub(super) reentrant: bool,
    pub(super) lock_delay: Duration,
    pub(super) value: Option<String>,
}

impl Request {
    /// The lock `name`, alone.
    pub fn exclusive(namespace: Namespace, name: LockName) -> Self {
        Self::new(Place { area: Area::Lock, namespace, name }, Want::Exclusive)
    }

    /// The lock `name`, together with other readers.
    pub fn shared(namespace: Namespace, name: LockName) -> Self {
        Self::new(Place { area: Area::Lock, namespace, name }, Want::Shared)
    }

    /// `permits` of the `limit` of semaphore `name`. Each request of a session takes its own.
    ///
    /// # Errors
    ///
    /// [`LockError::RequestInvalid`] unless 1 ≤ `permits` ≤ `limit` ≤ 10,000.
    pub fn permits(
        namespace: Namespace,
        name: LockName,
        permits: u32,
        limit: u32,
    ) -> Result<Self, LockError> {
        let pair = NonZeroU32::new(permits).zip(NonZeroU32::new(limit));
        let legal = pair.filter(|(permits, limit)| permits <= limit && limit.get() <= 10_000);
        let why = "`permits` must be 1 to `limit`, and `limit` 1 to 10,000";
        let (permits, limit) = legal.ok_or(LockError::RequestInvalid { why })?;
        let place = Place { area: Area::Semaphore, namespace, name };
        Ok(Self::new(place, Want::Permits { permits, limit }))
    }

    /// Leadership in the election `name`, proclaiming `value` from the first moment.
    ///
    /// # Errors
    ///
    /// [`LockError::RequestInvalid`] when the value is longer than 4,096 bytes.
    pub fn candidate(
        namespace: Namespace,
        name: LockName,
        value: impl Into<String>,
    ) -> Result<Self, LockError> {
        let value = Some(checked_value(value.into())?);
        let place = Place { area: Area::Election, namespace, name };
        Ok(Self { value, ..Self::new(place, Want::Exclusive) })
    }

    /// The duty `name`: one of the nodes that stand for it has it.
    pub(crate) fn duty(name: LockName) -> Self {
        let namespace = Namespace::new("mainstay").expect("a-z");
        Self::new(Place { area: Area::Duty, namespace, name }, Want::Exclusive)
    }

    /// The request's own name, so that asking again counts once. Random unless given.
    #[must_use]
    pub fn id(mut self, id: RequestId) -> Self {
        self.id = id;
        self
    }

    /// How long to wait; for ever unless told.
    #[must_use]
    pub const fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Refuses what the session holds already, instead of counting it once more.
    #[must_use]
    pub const fn not_reentrant(mut self) -> Self {
        self.reentrant = false;
        self
    }

    /// If this holder vanishes without giving back what it holds alone, the next one waits so
    /// long: time for work that it sent off under the lock to arrive, where nothing checks tokens.
    ///
    /// # Errors
    ///
    /// [`LockError::RequestInvalid`] above a minute.
    pub fn lock_delay(mut self, delay: Duration) -> Result<Self, LockError> {
        if LOCK_DELAY_MAX < delay {
            return Err(LockError::RequestInvalid { why: "the lock delay is at most 60 s" });
        }
        self.lock_delay = delay;
        Ok(self)
    }

    /// What is asked for.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    fn new(place: Place, want: Want) -> Self {
        Self {
            place,
            want,
            id: RequestId::random(),
            attempt: RequestId::random(),
            wait: Wait::Forever,
            reentrant: true,
            lock_delay: Duration::ZERO,
            value: None,
        }
    }
}

/// Checks a value to be proclaimed.
pub(crate) fn checked_value(value: String) -> Result<String, LockError> {
    if VALUE_BYTES_MAX < value.len() {
        return Err(LockError::RequestInvalid { why: "a proclaimed value is at most 4,096 bytes" });
    }
    Ok(value)
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Larger than every token before it of the same lock.
    pub token: Token,
    /// The state of the store in which it was granted.
    pub revision: Revision,
    /// How often the session holds it now.
    pub count: u32,
    /// Its place in the queue.
    pub(super) key: Key,
    /// The revision that brought the place into being.
    pub(super) created: Revision,
}

/// What giving back left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// How often the session still holds it.
    pub count: u32,
}
