//! What a route says about its fallback, worked out once for all its calls.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;
use mainstay_core::name::PolicyName;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::classify::Classifier;
use mainstay_resilience::fallback::{Action, FallbackPolicy, Moment};

use super::body::FallbackBody;
use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::deferred::Deferred;
use crate::observe::{Observer, Silent};
use crate::stale::{StaleStore, Wanted, place};

/// The state of switches.
pub trait Switches: Debug + Send + Sync {
    /// Whether the switch called `name` is on for the caller that goes by `key`; `None` when there
    /// is no such switch, or it is not one that is on or off. Such a switch neither closes a route
    /// nor arms a step. Asked in the middle of a call: it waits for nothing.
    fn is_on(&self, name: &str, key: Option<&str>) -> Option<bool>;
}

/// There are no switches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSwitches;

impl Switches for NoSwitches {
    fn is_on(&self, _name: &str, _key: Option<&str>) -> Option<bool> {
        None
    }
}

/// How fast a route is.
pub trait Pace: Debug + Send + Sync {
    /// Whether the slow rate is at or above the threshold of the route's circuit. Asked before
    /// every call of a route that has a step for `slow` or for a switch.
    fn is_slow(&self, now: Instant) -> bool;
}

/// Where requests go that are made later.
#[derive(Clone, Debug)]
pub struct Defers {
    /// Who keeps them.
    pub port: Arc<dyn Deferred>,
    /// The service they are for.
    pub service: Arc<str>,
}

/// The fallback of one route, and what it works with.
#[derive(Debug)]
pub struct Fallbacks {
    /// Route, as refusals and stored answers name it.
    pub name: Arc<str>,
    /// Which answers have failed. By default the classifier's own defaults.
    pub classifier: Arc<Classifier>,
    /// Where good answers are kept; without it no `stale` step can answer. None by default.
    pub stale: Option<Arc<StaleStore>>,
    /// Who keeps requests to be made later; without it no `defer` step can answer. None by default.
    pub deferred: Option<Defers>,
    /// The route's own switch. None by default.
    pub switch: Option<PolicyName>,
    /// The state of switches, of the namespace the route is in. By default there are none.
    pub switches: Arc<dyn Switches>,
    /// Whether the route is slow; without it, it never is. None by default.
    pub pace: Option<Arc<dyn Pace>>,
    /// Is told of what is done. By default nobody is.
    pub observer: Arc<dyn Observer>,
    pub(super) steps: Option<Steps>,
}

impl Fallbacks {
    /// The fallback called `name` with the steps of `policy`, and the defaults for the rest.
    pub fn new(name: Arc<str>, policy: Option<FallbackPolicy>) -> Self {
        Self {
            name,
            classifier: Arc::default(),
            stale: None,
            deferred: None,
            switch: None,
            switches: Arc::new(NoSwitches),
            pace: None,
            observer: Arc::new(Silent),
            steps: policy.map(Steps::new),
        }
    }

    /// The steps, if there are any.
    pub fn policy(&self) -> Option<&FallbackPolicy> {
        self.steps.as_ref().map(|steps| &steps.policy)
    }

    /// Calls that are held by `delay` steps at this moment.
    pub fn delayed(&self) -> u32 {
        let steps = self.steps.iter().flat_map(|steps| &steps.delayed);
        steps.map(|held| held.load(Ordering::Relaxed)).sum()
    }

    /// Whether the switch of the route is off.
    pub(super) fn is_off(&self, call: &Context) -> bool {
        let switch = self.switch.as_ref();
        switch.is_some_and(|name| self.is_on(name, call) == Some(false))
    }

    fn is_on(&self, name: &PolicyName, call: &Context) -> Option<bool> {
        self.switches.is_on(name.as_str(), call.facts.switch_key.as_deref())
    }

    /// The first step from `from` on that is to answer at `moment`.
    pub(super) fn choose(
        &self,
        moment: Moment,
        from: usize,
        call: &Context,
    ) -> Option<(usize, &Action)> {
        let policy = self.policy()?;
        let is_on = |name: &PolicyName| self.is_on(name, call) == Some(true);
        policy.choose(moment, is_on, from).map(|(index, step)| (index, &step.action))
    }

    /// What stands before a call, if any step looks at it.
    pub(super) fn before(&self, call: &Context) -> Option<Moment> {
        let looks = self.steps.as_ref().is_some_and(|steps| steps.looks_before);
        let switched_off = self.is_off(call);
        if !looks && !switched_off {
            return None;
        }
        let pace = self.pace.as_ref().filter(|_| looks);
        let slow = pace.is_some_and(|pace| pace.is_slow(MonotonicClock.now()));
        Some(Moment::Before { slow, switched_off })
    }

    /// The word for what called for the step at `index`, at `moment`.
    pub(super) fn cause(&self, moment: Moment, index: usize) -> &'static str {
        match moment {
            Moment::After(cause) => cause.as_str(),
            Moment::Limited => "limited",
            Moment::Shed => "shed",
            Moment::Before { switched_off, slow } => {
                let by_pace = || {
                    let policy = self.policy();
                    let moment = Moment::Before { slow, switched_off: false };
                    let step = policy.and_then(|policy| policy.choose(moment, |_| false, index));
                    step.is_some_and(|(found, _)| found == index)
                };
                if !switched_off && slow && by_pace() { "slow" } else { "switch" }
            }
        }
    }
}

/// Steps, with everything about them that does not change from call to call.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) policy: FallbackPolicy,
    /// For `silent` and `value` the answer; one for each step.
    answers: Box<[Option<Ready>]>,
    /// Calls held by `delay`; one for each step.
    delayed: Box<[AtomicU32]>,
    pub(super) looks_before: bool,
    /// Some step asks another service, and so needs the request again.
    pub(super) substitutes: bool,
    /// Some step has the request made later, and so needs it too.
    pub(super) defers: bool,
    /// The keys by which `stale` steps look.
    pub(super) wanted: Wanted,
}

impl Steps {
    fn new(policy: FallbackPolicy) -> Self {
        let actions = || policy.steps().iter().map(|step| &step.action);
        let mut wanted = Wanted::default();
        for action in actions() {
            if let Action::Stale { key, .. } = action {
                wanted[place(*key)] = true;
            }
        }
        Self {
            answers: actions().map(Ready::of).collect(),
            delayed: actions().map(|_| AtomicU32::new(0)).collect(),
            looks_before: policy.looks_before(),
            substitutes: actions().any(|action| matches!(action, Action::Substitute { .. })),
            defers: actions().any(|action| matches!(action, Action::Defer { .. })),
            wanted,
            policy,
        }
    }

    /// The answer of the step at `index`, if it is one that has it ready.
    pub(super) fn answer(&self, index: usize) -> Option<&Ready> {
        self.answers.get(index)?.as_ref()
    }
}

/// An answer that can be given at once.
#[derive(Debug)]
pub(super) struct Ready {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
    /// The body as a message of gRPC, with the five bytes that stand before it.
    message: Bytes,
}

impl Ready {
    fn of(action: &Action) -> Option<Self> {
        let (status, content_type, body) = match action {
            Action::Silent { status, body } => (*status, "text/plain; charset=utf-8", body),
            Action::Value { status, content_type, body } => (*status, &**content_type, body),
            _ => return None,
        };
        let mut message = BytesMut::with_capacity(5 + body.len());
        message.put_u8(0);
        message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        message.put_slice(body.as_bytes());
        let content_type = Some(content_type).filter(|_| !body.is_empty());
        Some(Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
            content_type: content_type.and_then(|text| HeaderValue::from_str(text).ok()),
            body: Bytes::copy_from_slice(body.as_bytes()),
            message: message.freeze(),
        })
    }

    /// The answer, for a caller who speaks `dialect`.
    pub(super) fn response<R: Body>(&self, dialect: Dialect) -> Response<FallbackBody<R>> {
        let (status, content_type, data, grpc) = match dialect {
            Dialect::Grpc => {
                let grpc = HeaderValue::from_static("application/grpc");
                (StatusCode::OK, Some(grpc), self.message.clone(), true)
            }
            Dialect::Head => (self.status, self.content_type.clone(), Bytes::new(), false),
            Dialect::Http => (self.status, self.content_type.clone(), self.body.clone(), false),
        };
        let mut response = Response::new(FallbackBody::at_hand(data, grpc));
        *response.status_mut() = status;
        if let Some(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// How an answer has to look for the caller to understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// As any HTTP answer.
    Http,
    /// Without a body, to `HEAD`.
    Head,
    /// As gRPC's, with the status after the message.
    Grpc,
}

/// A call held by a `delay` step; counted until this is dropped.
#[derive(Debug)]
pub(super) struct Waits {
    fallbacks: Arc<Fallbacks>,
    step: usize,
}

impl Waits {
    /// Counts a call at the step at `step`, unless `queue_max` are held there already.
    pub(super) fn enter(fallbacks: &Arc<Fallbacks>, step: usize, queue_max: u32) -> Option<Self> {
        let held = fallbacks.steps.as_ref()?.delayed.get(step)?;
        let more = |n| (n < queue_max).then_some(n + 1);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { fallbacks: Arc::clone(fallbacks), step })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let steps = self.fallbacks.steps.as_ref();
        if let Some(held) = steps.and_then(|steps| steps.delayed.get(self.step)) {
            held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
