//! Sessions, and what hangs on them: locks, semaphores, elections.
//!
//! Below `/api/v1`; `NS` is a namespace, `NAME` the name of a lock as **one** segment of the path,
//! its `/` and `:` percent-encoded.
//!
//! | call | document | answer |
//! |---|---|---|
//! | `POST /sessions` | [`OpenSession`] | 201 [`SessionOpened`] |
//! | `PUT /sessions/ID/renew` | – | 200 [`SessionRenewed`] |
//! | `DELETE /sessions/ID` | – | 204; one that is gone: 404 `session-not-found` |
//! | `GET /sessions/ID/stream` | – | events: `snapshot` [`SessionSnapshot`], `change` [`SessionChange`], `problem` |
//! | `POST /locks/NS/NAME/acquire` | [`AcquireLock`] | 200 [`Granted`]; 409 `lock-busy` (not waiting), `lock-wait-timeout` |
//! | `POST /semaphores/NS/NAME/acquire` | [`AcquirePermits`] | the same; 409 `semaphore-limit-differs` |
//! | `POST /elections/NS/NAME/acquire` | [`StandForElection`] | the same; the token is the term |
//! | `POST /AREA/NS/NAME/release` | [`Release`] | 200 [`Released`]; 409 `lock-not-held` |
//! | `POST /AREA/NS/NAME/bind` | [`Bind`] | 200 [`Bound`] |
//! | `POST /AREA/NS/NAME/force-release` | [`ForceRelease`] | 204; 409 `lock-not-held` |
//! | `POST /locks/NS/NAME/downgrade` | [`Downgrade`] | 204 |
//! | `POST /elections/NS/NAME/proclaim` | [`Proclaim`] | 204 |
//! | `GET /AREA/NS?after=NAME` | – | 200 [`Places`] |
//! | `GET /AREA/NS/NAME` | – | 200 [`Status`] |
//! | `GET /elections/NS/NAME/observe` | – | events: `snapshot` and `change`, both [`Leadership`] |
//!
//! # The secret
//!
//! Every call for a session but the one that opens it carries the session's secret in the header
//! [`SECRET_HEADER`]: a stream has no document to put it in, and paths end up in logs. A missing or
//! wrong one is 403 `permission-missing`.
//!
//! # Once only
//!
//! `request_id` names a request. The same one sent again, to whatever node, does not count twice:
//! whoever got no answer repeats it. A connection that closes while a request waits gives up its
//! place in the queue.
//!
//! # Who judges how long
//!
//! The holder, by a clock of its own that counts suspension, from when it **sent** its last
//! renewal: see [`mainstay_core`].

mod ask;
mod session;
mod status;

#[cfg(test)]
mod tests;

pub use ask::{
    AcquireLock, AcquirePermits, Bind, Bound, Downgrade, ForceRelease, Granted, Mode, Proclaim,
    Release, Released, StandForElection,
};
pub use session::{
    HeldPlace, LossReason, OpenSession, Owner, SECRET_HEADER, SessionChange, SessionOpened,
    SessionRenewed, SessionSnapshot,
};
pub use status::{Area, Holder, Last, Leader, Leadership, Place, Places, Status, Waiter};
