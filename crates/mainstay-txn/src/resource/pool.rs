//! Sessions of one database: a few, kept open, and made anew when they break.
//!
//! A database that cannot be reached is not asked for a while: whoever wants a session meanwhile is
//! told at once, with what was wrong and how long that lasts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::settings::ResourceSettings;
use super::tls::{self, TlsInvalid};
use super::{Kind, Session, Within, mariadb, postgresql};
use crate::moment::Moment;
use crate::port::Surroundings;
use crate::tasks::Tasks;

/// A session that was not used for this long is asked whether it is still there.
const ASK_AFTER: Duration = Duration::from_secs(30);

/// How long a database that cannot be reached is left alone at first, and at most: it is back for
/// everybody within this time.
const DOWN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Sessions of one database.
pub(super) struct Pool {
    settings: ResourceSettings,
    surroundings: Arc<dyn Surroundings>,
    tasks: Tasks,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<(Session, Moment)>>,
    down: Mutex<Option<Down>>,
}

/// A database that cannot be reached.
#[derive(Clone, Debug)]
pub(super) struct Down {
    pub(super) since: Moment,
    pub(super) why: Failure,
    wait: Duration,
    until: Moment,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) struct NoSession {
    pub(super) why: Failure,
    /// When it makes sense to ask again.
    pub(super) retry_after: Duration,
}

/// A session lent out. Unless it is given back it is closed, however its use ended.
pub(super) struct Lent {
    pub(super) session: Session,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(
        settings: ResourceSettings,
        surroundings: Arc<dyn Surroundings>,
        tasks: Tasks,
    ) -> Self {
        let places = Arc::new(Semaphore::new(settings.connections));
        let (idle, down) = (Mutex::default(), Mutex::default());
        Self { settings, surroundings, tasks, places, idle, down }
    }

    pub(super) const fn settings(&self) -> &ResourceSettings {
        &self.settings
    }

    /// Since when it cannot be reached, and why.
    pub(super) fn down(&self) -> Option<Down> {
        self.down.lock().clone()
    }

    /// Sessions lent out.
    pub(super) fn in_use(&self) -> usize {
        self.settings.connections.saturating_sub(self.places.available_permits())
    }

    /// Closes what is kept, and lends no more: what is lent out is closed when it comes back.
    pub(super) fn close(&self) {
        self.places.close();
        self.idle.lock().clear();
    }

    /// A session for whoever asks, kept or new.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Lent, NoSession> {
        let within = Within::new(self.settings.statement_timeout);
        let waiting = Arc::clone(&self.places).acquire_owned();
        let refused = |why: &str, retry_after| {
            Err(NoSession { why: Failure::Busy(why.to_owned()), retry_after })
        };
        let place = match tokio::time::timeout(within.statement(), waiting).await {
            Ok(Ok(place)) => place,
            Ok(Err(_closed)) => return refused("this node is stopping", DOWN.1),
            Err(_elapsed) => return refused("all connections of the resource are in use", DOWN.0),
        };
        if let Some(session) = self.take_idle().await {
            return Ok(Lent { session, pool: Arc::clone(self), _place: place });
        }
        if let Some(refused) = self.still_down() {
            return Err(refused);
        }
        match self.connect(within).await {
            Ok(session) => {
                *self.down.lock() = None;
                Ok(Lent { session, pool: Arc::clone(self), _place: place })
            }
            Err(why) => Err(self.went_down(why)),
        }
    }

    /// A session that was kept and still is there.
    async fn take_idle(&self) -> Option<Session> {
        loop {
            let (mut session, since) = self.idle.lock().pop()?;
            let unused = self.surroundings.now().since(since);
            if session.is_open() && (unused < ASK_AFTER || session.ping().await.is_ok()) {
                return Some(session);
            }
        }
    }

    fn still_down(&self) -> Option<NoSession> {
        let now = self.surroundings.now();
        let down = self.down.lock();
        let down = down.as_ref().filter(|down| now < down.until)?;
        Some(NoSession { why: down.why.clone(), retry_after: down.until.since(now) })
    }

    fn went_down(&self, why: Failure) -> NoSession {
        let now = self.surroundings.now();
        let mut down = self.down.lock();
        let (since, wait) = match &*down {
            // Whoever tried at the same time has found the same.
            Some(down) if now < down.until => (down.since, down.wait),
            Some(down) => (down.since, down.wait.saturating_mul(2).min(DOWN.1)),
            None => (now, DOWN.0),
        };
        *down = Some(Down { since, why: why.clone(), wait, until: now.plus(wait) });
        NoSession { why, retry_after: wait }
    }

    async fn connect(&self, within: Within) -> Result<Session, Failure> {
        let password = self.password()?;
        let (address, password) = (&self.settings.address, password.as_deref().map(|text| &**text));
        // Authorities are read for each connection, as the password is.
        match address.kind {
            Kind::Postgres => {
                let tls = tls::postgres(&self.settings.tls).map_err(unusable)?;
                postgresql::Session::connect(address, password, tls, within, &self.tasks)
                    .await
                    .map(Session::Postgres)
            }
            Kind::MariaDb => {
                let tls = tls::mariadb(&self.settings.tls).map_err(unusable)?;
                mariadb::Session::connect(address, password, tls, within)
                    .await
                    .map(|session| Session::MariaDb(Box::new(session)))
            }
        }
    }

    /// Read anew for each connection, so that one that was changed is used at once.
    fn password(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let Some(file) = &self.settings.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
            Failure::Denied(format!("password file `{}` cannot be read: {error}", file.display()))
        })?;
        Ok(text.lines().next().map(|line| Zeroizing::new(line.to_owned())))
    }
}

fn unusable(invalid: TlsInvalid) -> Failure {
    let why = std::error::Error::source(&invalid).map(|source| format!(": {source}"));
    Failure::Denied(format!("{invalid}{}", why.unwrap_or_default()))
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("resource", &self.settings.name)
            .field("down", &*self.down.lock())
            .finish_non_exhaustive()
    }
}

impl Lent {
    pub(super) fn settings(&self) -> &ResourceSettings {
        &self.pool.settings
    }

    /// Ends the loan after `answered`: keeps the session for whoever is next, or, if it broke,
    /// closes it and all that were kept, which most likely are broken too.
    pub(super) fn end<T>(self, answered: &Result<T, Failure>) {
        if matches!(answered, Err(failure) if failure.is_lost()) {
            self.pool.idle.lock().clear();
            return;
        }
        let now = self.pool.surroundings.now();
        let mut idle = self.pool.idle.lock();
        if !self.pool.places.is_closed() {
            idle.push((self.session, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, Tls};
    use super::*;
    use crate::name::ResourceName;

    /// A clock that is set by hand.
    struct Set(Mutex<Moment>);

    impl Surroundings for Set {
        fn now(&self) -> Moment {
            *self.0.lock()
        }

        fn draw(&self) -> u32 {
            0
        }
    }

    #[test]
    fn those_that_fail_together_do_not_make_a_wait_longer() {
        let clock = Arc::new(Set(Mutex::default()));
        let address = Address::parse(Kind::Postgres, "postgresql://u@db/shop").unwrap();
        let mut settings = ResourceSettings::new(ResourceName::new("orders").unwrap(), address);
        settings.tls = Tls::Off;
        let surroundings = Arc::clone(&clock) as Arc<dyn Surroundings>;
        let pool = Pool::new(settings, surroundings, Tasks::default());
        let fails = || {
            let waits = [0, 1, 2].map(|_| pool.went_down(Failure::Lost("reset".to_owned())));
            waits.map(|refused| refused.retry_after.as_millis())
        };
        for wait in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            assert_eq!(fails(), [wait; 3]);
            let until = pool.still_down().unwrap().retry_after;
            let now = *clock.0.lock();
            *clock.0.lock() = now.plus(until);
            assert!(pool.still_down().is_none());
        }
    }
}
