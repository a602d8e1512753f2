//! One connection at a time, made again when it is lost.
//!
//! A node has three: for calls, for watches, and for keeping leases alive, so that neither a large
//! answer nor a busy watch holds up a keep-alive (etcd#15402). Members are tried in turn. Whoever
//! needs a connection makes it, and the others wait for that one; nobody dials while nobody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay_core::Instant;
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::draw;
use crate::events::{LinkLost, LinkUp};
use crate::session::{Fault, Session};

/// One connection at a time.
#[derive(Debug)]
pub(crate) struct Link {
    name: &'static str,
    current: RwLock<Option<Arc<Connection>>>,
    /// Held by the one who dials.
    dialling: Mutex<Dialling>,
    /// Whose turn it is.
    member: AtomicUsize,
}

#[derive(Debug, Default)]
struct Dialling {
    backoff: Backoff,
    not_before: Instant,
    /// Whether the operator was told that it is away.
    told: bool,
}

impl Link {
    /// Begins with any member, so that nodes spread over them.
    pub(crate) fn new(name: &'static str) -> Self {
        let member = AtomicUsize::new(usize::try_from(draw::next() >> 33).unwrap_or(0));
        Self { name, current: RwLock::default(), dialling: Mutex::default(), member }
    }

    /// The connection; waits for one, however long that takes. What was in the way meanwhile is
    /// left in `why`.
    ///
    /// # Errors
    ///
    /// Only what waiting does not mend: the cluster is another one.
    pub(crate) async fn connection(
        &self,
        session: &Session,
        why: &mut Option<String>,
    ) -> Result<Arc<Connection>, Fault> {
        if let Some(connection) = self.open() {
            return Ok(connection);
        }
        // Rare, and large: not carried along by every call.
        Box::pin(self.redial(session, why)).await
    }

    async fn redial(
        &self,
        session: &Session,
        why: &mut Option<String>,
    ) -> Result<Arc<Connection>, Fault> {
        let mut dialling = self.dialling.lock().await;
        loop {
            if let Some(connection) = self.open() {
                return Ok(connection);
            }
            let wait = dialling.not_before.since(session.clock.now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let endpoints = &session.options.endpoints;
            let turn = self.member.load(Ordering::Relaxed) % endpoints.len();
            let Some(endpoint) = endpoints.get(turn) else { continue };
            match session.dial(endpoint).await? {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    *self.current.write() = Some(Arc::clone(&connection));
                    dialling.backoff.succeeded();
                    dialling.told = false;
                    let version = connection.version;
                    LinkUp { link: self.name, member: &endpoint.address, version }.emit();
                    return Ok(connection);
                }
                Err(told) => {
                    self.member.fetch_add(1, Ordering::Relaxed);
                    session.figures.dials_failed();
                    if !dialling.told {
                        LinkLost { link: self.name, why: &told }.emit();
                        dialling.told = true;
                    }
                    *why = Some(told);
                    let wait = dialling.backoff.failed(draw::next());
                    dialling.not_before = session.clock.now().plus(wait);
                }
            }
        }
    }

    /// Gives up `connection`; the next one is made to another member.
    pub(crate) fn give_up(&self, connection: &Arc<Connection>) {
        let mut current = self.current.write();
        if current.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection)) {
            *current = None;
            self.member.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up whatever connection there is.
    pub(crate) fn close(&self) {
        *self.current.write() = None;
    }

    fn open(&self) -> Option<Arc<Connection>> {
        self.current.read().clone().filter(|connection| !connection.is_closed())
    }
}
