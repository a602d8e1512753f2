//! Makes deferred requests.
//!
//! A deferred request is a message whose branch is reached as the gateway reaches the service: at
//! the instances that its `[upstream.NAME]` lists, or whoever answers the gateway's question for
//! them. At most as many of a queue are under way at once as its `[deferred.NAME]` says; the others
//! wait in line here, and only as many as the coordinator calls of one service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_call::resolve::{Instance, Resolve, StaticList, Watch};
use mainstay_coord::health::targets::Addresses;
use mainstay_core::Clock as _;
use mainstay_core::name::ServiceName;
use mainstay_proxy::config::UpstreamConfig;
use mainstay_proxy::config::upstream::InstanceConfig;
use mainstay_proxy::gateway::Gateway;
use mainstay_txn::port::{Answering, Outgoing, Participants, To};
use mainstay_txn::{Gid, Outcome, Payload, Target};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::caller::{Caller, Services, came_of};
use super::figures::Figures;
use super::request::request;
use super::settings::BodyMarkers;

/// Names the queue of a deferred request, and so marks it as one. Said by us alone, and not sent.
pub(crate) const QUEUE_KEPT: &str = "mainstay-queue";

/// Services of which is known how they were reached last.
const REACHED_MAX: usize = 1_024;

/// Before a request is tried again that waited in vain for its turn.
const TURN_EVERY: Duration = Duration::from_secs(1);

/// Before what nobody can send yet is tried again.
const START_EVERY: Duration = Duration::from_millis(200);

/// The data plane of this process, once it serves; and who is under way to it. Clones stand for
/// the same.
#[derive(Clone, Default)]
pub struct Outlets(Arc<Shared>);

#[derive(Default)]
struct Shared {
    gateway: OnceLock<Weak<Gateway>>,
    lines: Mutex<BTreeMap<Arc<str>, Line>>,
}

/// Where requests of one queue wait for their turn.
struct Line {
    turns: Arc<Semaphore>,
    most: u32,
}

impl Outlets {
    /// From now on requests are sent as `gateway` would send them.
    pub fn open(&self, gateway: &Arc<Gateway>) {
        // It is opened once, when the process starts.
        drop(self.0.gateway.set(Arc::downgrade(gateway)));
    }

    /// The data plane, if it serves.
    pub fn gateway(&self) -> Option<Arc<Gateway>> {
        self.0.gateway.get()?.upgrade()
    }

    /// How many requests of `queue` are under way.
    pub fn under_way(&self, queue: &str) -> u32 {
        let lines = self.0.lines.lock();
        lines.get(queue).map_or(0, |line| {
            let free = u32::try_from(line.turns.available_permits()).unwrap_or(u32::MAX);
            line.most.saturating_sub(free)
        })
    }

    /// Turns of `queue`, of which there are `most`. Changed, they are counted anew: those under way
    /// go on beside them.
    fn line(&self, queue: &str, most: u32) -> Arc<Semaphore> {
        let mut lines = self.0.lines.lock();
        if let Some(line) = lines.get(queue).filter(|line| line.most == most) {
            return Arc::clone(&line.turns);
        }
        let turns = Arc::new(Semaphore::new(most as usize));
        lines.insert(queue.into(), Line { turns: Arc::clone(&turns), most });
        turns
    }

    fn upstream(&self, service: &str) -> Option<Arc<UpstreamConfig>> {
        let plane = Arc::clone(&self.gateway()?.running().plane);
        plane.upstreams.get(service).cloned()
    }
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlets").field("opened", &self.0.gateway.get().is_some()).finish()
    }
}

impl Resolve for Outlets {
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        let unknown = || StaticList::new().watch(namespace, service);
        let Some(upstream) = self.upstream(service.as_str()) else { return unknown() };
        if upstream.instances.is_empty() {
            let gateway = self.gateway();
            let resolve = gateway.as_ref().and_then(|gateway| gateway.parts().resolve.as_ref());
            return resolve
                .map_or_else(unknown, |resolve| resolve.watch(&upstream.namespace, service));
        }
        let mut list = StaticList::new();
        list.set(service.clone(), upstream.instances.iter().map(instance).collect());
        list.watch(namespace, service)
    }
}

fn instance(config: &InstanceConfig) -> Instance {
    Instance {
        name: Arc::from(&*config.name),
        address: Arc::from(&*config.address),
        weight: config.weight,
        zone: config.zone.as_deref().map_or_else(|| Arc::from(""), Arc::from),
        priority: config.priority.into(),
        usable: true,
    }
}

/// The status that an error begins with, if it is of an answer.
pub(crate) fn status_of(error: &str) -> Option<u16> {
    let (status, _) = error.split_once(' ')?;
    status.parse().ok().filter(|status| (100..600).contains(status))
}

/// The queue that a payload was deferred to.
pub(crate) fn queue_of(payload: &Payload) -> Option<&str> {
    let mut headers = payload.headers.iter();
    headers.find(|(name, _)| name == QUEUE_KEPT).map(|(_, queue)| queue.as_str())
}

/// Makes deferred requests, and leaves everything else to the caller of branches.
pub(super) struct Deliveries {
    branches: Caller,
    outlets: Outlets,
    services: Services,
    /// By service, how it was reached last.
    reached: Mutex<BTreeMap<Box<str>, Arc<UpstreamConfig>>>,
    last: Mutex<Last>,
    figures: Figures,
}

impl Deliveries {
    /// Makes deferred requests by `outlets`; services that go by a name lie at `addresses`.
    pub(super) fn new(
        branches: Caller,
        outlets: Outlets,
        addresses: Addresses,
        figures: Figures,
    ) -> Self {
        let services = Services::new(Arc::new(outlets.clone()), addresses);
        let (reached, last) = (Mutex::default(), Mutex::default());
        Self { branches, outlets, services, reached, last, figures }
    }

    async fn deliver(&self, queue: &str, call: &Outgoing) -> Outcome {
        let To::Endpoint(target @ Target::Service { service, .. }) = &call.to else {
            return Outcome::Denied("a deferred request is for a service".to_owned());
        };
        let Some(gateway) = self.outlets.gateway() else {
            return unsent("the gateway has not started", START_EVERY);
        };
        let Some(upstream) = self.outlets.upstream(service) else {
            let why = format!("there is no `[upstream.{service}]`");
            return Outcome::Unsent { why, retry_after: None };
        };
        // It may have become so since the request was taken on. What is sealed is not sent in the
        // clear, whoever listens there.
        if !upstream.is_plain_http1() {
            let why = format!("`[upstream.{service}]` speaks TLS or HTTP/2");
            return Outcome::Unsent { why, retry_after: None };
        }
        let policy = gateway.running().plane.queue(queue);
        drop(gateway);
        let turns = self.outlets.line(queue, policy.concurrency);
        // Whoever calls gives the whole so much time: half of it at most is spent in the line.
        let began = MonotonicClock.now();
        let turn = tokio::time::timeout(call.timeout / 2, turns.acquire_owned()).await;
        let Ok(Ok(_turn)) = turn else {
            return unsent("as many of its queue are under way as may be", TURN_EVERY);
        };
        let timeout = call.timeout.saturating_sub(MonotonicClock.now().since(began));
        let call = &Outgoing { timeout, ..call.clone() };
        let request = match request(call, target) {
            Ok(request) => request,
            Err(unmade) => return Outcome::Denied(unmade.to_string()),
        };
        self.follow(service, upstream);
        let sent = self.services.call(service, request, call.timeout);
        answered(came_of(call, sent, BodyMarkers::Off).await)
    }

    /// Has a service looked for anew that is reached otherwise than before, or was never followed.
    fn follow(&self, service: &str, upstream: Arc<UpstreamConfig>) {
        let mut reached = self.reached.lock();
        if reached.get(service).is_none_or(|last| **last != *upstream) {
            self.services.forget(service);
            if REACHED_MAX <= reached.len() {
                reached.clear();
            }
            reached.insert(service.into(), upstream);
        }
    }
}

/// With which status the service answered each request last, where that was no success. It goes with
/// what is noted of later tries that no answer came of: the last of them may be the end.
#[derive(Debug, Default)]
struct Last(BTreeMap<Gid, u16>);

/// Requests whose last status is known: what a node whose queues are full tries in turn. Beyond that
/// all are forgotten, and learnt again by the next try.
const LAST_MAX: usize = 16_384;

impl Last {
    /// `outcome` of `gid`, as it is noted.
    fn noted(&mut self, gid: &Gid, outcome: Outcome) -> Outcome {
        let known = |why: String, last: &Self| match last.0.get(gid) {
            Some(status) => format!("{status} was answered last; {why}"),
            None => why,
        };
        match outcome {
            Outcome::Unknown(why) => match status_of(&why) {
                Some(status) => {
                    if LAST_MAX <= self.0.len() {
                        self.0.clear();
                    }
                    self.0.insert(gid.clone(), status);
                    Outcome::Unknown(why)
                }
                None => Outcome::Unknown(known(why, self)),
            },
            Outcome::Unsent { why, retry_after } => {
                Outcome::Unsent { why: known(why, self), retry_after }
            }
            Outcome::Denied(why) => Outcome::Denied(known(why, self)),
            outcome => {
                self.0.remove(gid);
                outcome
            }
        }
    }
}

/// What `outcome` means of a service that knows nothing of transactions: whatever it answers but 2xx
/// is a try that failed.
fn answered(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Refused(detail) => Outcome::Unknown(format!("409 {detail}")),
        Outcome::Ongoing => Outcome::Unknown("425 ".to_owned()),
        outcome => outcome,
    }
}

fn unsent(why: &str, retry_after: Duration) -> Outcome {
    Outcome::Unsent { why: why.to_owned(), retry_after: Some(retry_after) }
}

impl Participants for Deliveries {
    fn call(&self, call: Outgoing) -> Answering<'_, Outcome> {
        if !self.branches.may_call() {
            let why = "databases have not been asked yet how far the log was";
            return Box::pin(async { unsent(why, START_EVERY) });
        }
        let Some(queue) = queue_of(&call.payload).map(str::to_owned) else {
            return self.branches.call(call);
        };
        Box::pin(async move {
            let began = MonotonicClock.now();
            let outcome = self.deliver(&queue, &call).await;
            let outcome = self.last.lock().noted(&call.gid, outcome);
            self.figures.ended(call.op, &outcome, MonotonicClock.now().since(began));
            outcome
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_where_there_was_an_answer() {
        assert_eq!(status_of("503 busy"), Some(503));
        assert_eq!(status_of("404 "), Some(404));
        for none in ["", "no answer within 5 s", "99 x", "503", "600 x"] {
            assert_eq!(status_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_last_answer_is_told_with_tries_that_none_came_of() {
        let (gid, other) = (Gid::new("deferred-1").unwrap(), Gid::new("deferred-2").unwrap());
        let mut last = Last::default();
        let unknown = |why: &str| Outcome::Unknown(why.to_owned());
        let open = || unsent("circuit is open", TURN_EVERY);
        assert_eq!(last.noted(&gid, open()), open(), "nothing is known yet");
        assert_eq!(last.noted(&gid, unknown("503 busy")), unknown("503 busy"));
        let noted = unsent("503 was answered last; circuit is open", TURN_EVERY);
        for _ in 0..2 {
            assert_eq!(last.noted(&gid, open()), noted);
        }
        assert_eq!(last.noted(&gid, unknown("reset")), unknown("503 was answered last; reset"));
        assert_eq!(last.noted(&other, open()), open(), "it is of another");
        assert_eq!(last.noted(&gid, unknown("409 no")), unknown("409 no"));
        assert_eq!(last.noted(&gid, unknown("reset")), unknown("409 was answered last; reset"));
        assert_eq!(last.noted(&gid, Outcome::Done), Outcome::Done);
        assert_eq!(last.noted(&gid, open()), open(), "it is over");
    }
}
