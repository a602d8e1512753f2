//! Instances of services by their names in DNS.
//!
//! Each service is asked for again when its records are too old, not sooner than after 5 s and not
//! later than after 300 s. The last good answer stays while nobody answers; an answer without a
//! record is not believed for as long as a list of the registry that is suddenly empty.

mod records;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::resolve::{Instance, Resolve, Snapshot, Watch};
use mainstay_core::name::ServiceName;
use mainstay_core::{Clock as _, Instant};
use tokio::sync::watch;

use super::board::{Board, Tell, unknown};
use super::settings::{ClientConfig, nameservers};
use records::{Found, look_up};

/// Shortest and longest time from one question to the next.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// What services are called: a text with `{service}` and `{namespace}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// What is asked for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Where the service is, port included.
    Srv(Name),
    /// Addresses; the port is known.
    Addresses(Name, u16),
}

impl Pattern {
    /// As the DNS door of Mainstay names services.
    pub const DEFAULT: &str = "_{service}._tcp.{namespace}.svc.mainstay";

    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let pattern = Self(text.to_owned());
        if !text.contains("{service}") {
            return Err("must have `{service}` in it");
        }
        let sample = pattern.asked("default", "order");
        let why = "must be a name that begins with `_`, or a name and `:PORT`";
        sample.map(|_| pattern).ok_or(why)
    }

    /// What is asked for a service; `None` for names that DNS cannot have.
    fn asked(&self, namespace: &str, service: &str) -> Option<Asked> {
        let text = self.0.replace("{service}", service).replace("{namespace}", namespace);
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (text.as_str(), None),
        };
        let parsed = Name::from_ascii(name).ok()?;
        match port {
            Some(port) => Some(Asked::Addresses(parsed, port)),
            None => name.starts_with('_').then_some(Asked::Srv(parsed)),
        }
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

/// Instances by their names in DNS.
pub struct DnsResolver {
    pattern: Pattern,
    servers: Arc<[SocketAddr]>,
    empty_grace: Duration,
    board: Board,
}

impl DnsResolver {
    /// Asks as `config` says. Must be called within a tokio runtime.
    pub(super) fn start(config: &ClientConfig) -> Self {
        let servers = if config.nameservers.is_empty() {
            let text = std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default();
            nameservers(&text)
        } else {
            config.nameservers.clone()
        };
        Self {
            pattern: config.dns_name.clone(),
            servers: servers.into(),
            empty_grace: config.empty_grace,
            board: Board::new(),
        }
    }

    /// Waits until there was an answer for every service that was asked for.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn answered(&self) {
        for mut watch in self.board.watches() {
            // Its sender lives as long as this.
            drop(watch.wait_for(|known| 0 < known.revision).await);
        }
    }

    pub(super) async fn shutdown(&self, grace: Duration) -> usize {
        self.board.shutdown(grace).await
    }

    /// Asks again and again.
    fn follow(&self, asked: Asked, tell: Tell) -> impl Future<Output = ()> + Send + use<> {
        let servers = Arc::clone(&self.servers);
        let mut known = Known::new(self.empty_grace);
        async move {
            loop {
                let answer = look_up(&servers, &asked).await;
                let now = MonotonicClock.now();
                let again = match answer {
                    Ok(found) => known.take(now, found),
                    Err(error) => {
                        known.miss(&error, &asked);
                        AGAIN.0
                    }
                };
                known.tell(&tell);
                tokio::time::sleep(again).await;
            }
        }
    }
}

impl Resolve for DnsResolver {
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        let Some(asked) = self.pattern.asked(namespace, service.as_str()) else {
            return unknown("the service has a name that DNS cannot have");
        };
        let why = "no server of names has answered yet";
        self.board.watch((namespace, service), why, |tell| self.follow(asked, tell))
    }
}

impl fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsResolver")
            .field("pattern", &self.pattern)
            .field("board", &self.board)
            .finish_non_exhaustive()
    }
}

/// What is known of one service.
#[derive(Debug)]
struct Known {
    empty_grace: Duration,
    instances: Vec<Instance>,
    /// Since when answers are empty that are not believed.
    empty_since: Option<Instant>,
    is_answered: bool,
    is_old: bool,
}

impl Known {
    const fn new(empty_grace: Duration) -> Self {
        Self {
            empty_grace,
            instances: Vec::new(),
            empty_since: None,
            is_answered: false,
            is_old: false,
        }
    }

    /// Takes an answer that came at `now`; returns when to ask again.
    fn take(&mut self, now: Instant, found: Found) -> Duration {
        let Found { instances, ttl } = found;
        (self.is_answered, self.is_old) = (true, false);
        let is_strange = instances.is_empty() && !self.instances.is_empty();
        let since = *self.empty_since.get_or_insert(now);
        if is_strange && now.since(since) < self.empty_grace {
            return AGAIN.0;
        }
        (self.instances, self.empty_since) = (instances, None);
        ttl.clamp(AGAIN.0, AGAIN.1)
    }

    /// Nobody answered; the first time, that is told.
    fn miss(&mut self, error: &std::io::Error, asked: &Asked) {
        if !self.is_old {
            let (Asked::Srv(name) | Asked::Addresses(name, _)) = asked;
            tracing::warn!(%name, %error, "a name is not answered; the last answer stays");
        }
        self.is_old = true;
    }

    fn tell(&self, tell: &watch::Sender<Arc<Snapshot>>) {
        tell.send_if_modified(|known| {
            let next = Snapshot {
                revision: known.revision,
                instances: self.instances.clone(),
                protected: false,
                stale: self.is_old,
                empty_because: self.instances.is_empty().then_some(if self.is_answered {
                    "the name has no records"
                } else {
                    "no server of names has answered yet"
                }),
            };
            let is_first = known.revision == 0 && self.is_answered;
            if **known == next && !is_first {
                return false;
            }
            *known = Arc::new(Snapshot { revision: known.revision + 1, ..next });
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::board::nobody;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_secs(seconds))
    }

    fn found(addresses: &[&str], ttl: u64) -> Found {
        let instances = addresses.iter().map(|address| Instance::at(address)).collect();
        Found { instances, ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn patterns_say_what_is_asked() {
        let srv = Pattern::default().asked("shop", "order").unwrap();
        assert_eq!(srv, Asked::Srv(Name::from_ascii("_order._tcp.shop.svc.mainstay").unwrap()));
        let host = Pattern::new("{service}.{namespace}.svc.cluster.local:8080").unwrap();
        let name = Name::from_ascii("order.shop.svc.cluster.local").unwrap();
        assert_eq!(host.asked("shop", "order"), Some(Asked::Addresses(name, 8080)));
        for bad in ["order.example:80", "{service}.example", "{service}.example:0", "{service}:x"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        let long = "x".repeat(64);
        assert_eq!(Pattern::default().asked("shop", &long), None, "a label has 63 bytes");
    }

    #[test]
    fn the_last_good_answer_stays_and_an_empty_one_has_to_last() {
        let (tell, watch) = watch::channel(Arc::new(nobody("nothing yet")));
        let mut known = Known::new(Duration::from_secs(30));
        let asked = Pattern::default().asked("shop", "order").unwrap();
        let seen = |known: &Known| {
            known.tell(&tell);
            let now = watch.borrow();
            (now.instances.len(), now.stale, now.revision)
        };
        assert_eq!(known.take(at(0), found(&["10.0.0.7:80", "10.0.0.8:80"], 60)).as_secs(), 60);
        assert_eq!(seen(&known), (2, false, 1));
        assert_eq!(known.take(at(60), found(&["10.0.0.7:80", "10.0.0.8:80"], 1)).as_secs(), 5);
        assert_eq!(seen(&known), (2, false, 1), "nothing new");
        known.miss(&std::io::Error::other("cut"), &asked);
        assert_eq!(seen(&known), (2, true, 2));
        assert_eq!(known.take(at(70), found(&[], 900)).as_secs(), 5);
        assert_eq!(seen(&known), (2, false, 3), "not believed yet");
        assert_eq!(known.take(at(99), found(&[], 900)).as_secs(), 5);
        assert_eq!(known.take(at(100), found(&[], 900)).as_secs(), 300);
        assert_eq!(seen(&known), (0, false, 4));
        known.take(at(130), found(&["10.0.0.9:80"], 5));
        assert_eq!(seen(&known), (1, false, 5));
    }
}
