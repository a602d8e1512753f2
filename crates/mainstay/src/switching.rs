//! What switches move in the data plane of this process.
//!
//! Whether a route is on, and whether a step of a fallback is armed, is asked in the middle of a
//! call, of the copy of switches that this process has: [`Book`]. How much of a limit there is, how
//! often a call is tried, and the mode of a circuit are turned where they are kept, whenever a
//! switch has changed, and twice a second for what has begun since: [`follow`].
//!
//! A value of the wrong kind moves nothing: what is written stays, and the log says so once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::circuit::CircuitKey;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::stage::fallback::Switches as Asked;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::{Namespace, NodeName, RuleName};
use mainstay_coord::revisions::Snapshot;
use mainstay_coord::switch::{Asker, Setting, Switch};
use mainstay_core::name::PolicyName;
use mainstay_core::{Clock as _, Instant};
use mainstay_proxy::config::SHARED_NAMESPACE;
use mainstay_proxy::gateway::{Gateway, SwitchBook};
use mainstay_resilience::circuit::Mode;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::role::{Shared, wall_moment};

/// How long a machine that has just begun may go by what is written.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Smallest and largest scale of a limit, in percent.
const SCALE_PERCENT: std::ops::RangeInclusive<f64> = 1.0..=1_000.0;

/// Fewest and most attempts of a call.
const ATTEMPTS: std::ops::RangeInclusive<f64> = 1.0..=5.0;

/// The switches of the copy that this process has: of its own store, or of a control plane
/// elsewhere.
#[derive(Clone, Debug)]
pub struct Book {
    switches: watch::Receiver<Arc<Snapshot<Switch>>>,
    /// Whose overrides count.
    instance: Arc<str>,
}

impl Book {
    /// Reads `switches` as `instance`.
    pub fn new(switches: watch::Receiver<Arc<Snapshot<Switch>>>, instance: &NodeName) -> Self {
        Self { switches, instance: instance.as_str().into() }
    }

    fn snapshot(&self) -> Arc<Snapshot<Switch>> {
        Arc::clone(&self.switches.borrow())
    }

    fn setting(&self, namespace: &str, name: &str) -> Option<Setting> {
        let asker = Asker { instance: Some(&*self.instance), key: None };
        self.snapshot().setting(&switch(namespace, name)?, wall_moment(), asker).cloned()
    }
}

impl SwitchBook for Book {
    fn of(&self, namespace: &str) -> Arc<dyn Asked> {
        Arc::new(OfNamespace { book: self.clone(), namespace: namespace.to_owned() })
    }
}

/// Switches of one namespace.
#[derive(Debug)]
struct OfNamespace {
    book: Book,
    namespace: String,
}

impl Asked for OfNamespace {
    fn is_on(&self, name: &str, key: Option<&str>) -> Option<bool> {
        let asker = Asker { instance: Some(&*self.book.instance), key };
        self.book.snapshot().on(&switch(&self.namespace, name)?, wall_moment(), asker)
    }
}

fn switch(namespace: &str, name: &str) -> Option<RuleRef> {
    let (namespace, name) = (Namespace::new(namespace).ok()?, RuleName::new(name).ok()?);
    Some(RuleRef { kind: RuleKind::SWITCH, namespace, name })
}

/// Turns what switches move, until told to stop.
///
/// # Cancel safety
///
/// Safe: what was turned stays as it is.
pub async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let Some(book) = shared.switch_book() else { return };
    let mut changes = book.switches.clone();
    let mut turner = Turner { book, modes: BTreeMap::new(), unfit: BTreeSet::new() };
    loop {
        changes.mark_unchanged();
        turner.look(&shared.gateway);
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Who turns machines, and what they did last.
struct Turner {
    book: Book,
    /// Circuits whose mode a switch has set.
    modes: BTreeMap<CircuitKey, Mode>,
    /// Switches whose value moves nothing, as was told.
    unfit: BTreeSet<String>,
}

impl Turner {
    fn look(&mut self, gateway: &Gateway) {
        let mut unfit = BTreeSet::new();
        let (running, machines) = (gateway.running(), &gateway.parts().machines);
        for upstream in running.upstreams.values() {
            let config = &upstream.config;
            let named = config.attempts_switch.as_deref();
            let most =
                named.and_then(|name| self.whole(&config.namespace, name, ATTEMPTS, &mut unfit));
            upstream.retries.most.set(most);
        }
        for limit in machines.limits() {
            let policy = limit.policy();
            let Some(name) = policy.scale_switch.as_deref() else {
                limit.set_scale(100);
                continue;
            };
            let percent = self.whole(SHARED_NAMESPACE, name, SCALE_PERCENT, &mut unfit);
            limit.set_scale(percent.map_or(100, NonZeroU32::get));
        }
        let mut modes = BTreeMap::new();
        for circuit in machines.circuits() {
            let key = circuit.key();
            let policy = PolicyName::new(&key.policy).ok();
            let policy = policy.and_then(|name| running.plane.circuits.get(&name));
            let Some(policy) = policy else { continue };
            let named = policy.mode_switch.as_deref();
            let mode = named.and_then(|name| self.mode(name, &mut unfit));
            // What a person has set since stays until the switch says something else.
            if mode != self.modes.get(key).copied() {
                let mode = mode.unwrap_or(Mode::Auto);
                let _transition = circuit.set_mode(MonotonicClock.now(), mode, Instant::MAX);
            }
            modes.extend(mode.map(|mode| (key.clone(), mode)));
        }
        self.modes = modes;
        for switch in unfit.difference(&self.unfit) {
            Unfit { switch }.emit();
        }
        self.unfit = unfit;
    }

    /// The whole number of a switch; `None` where there is none in `range`.
    fn whole(
        &self,
        namespace: &str,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
        unfit: &mut BTreeSet<String>,
    ) -> Option<NonZeroU32> {
        match self.book.setting(namespace, name)? {
            Setting::Number(number) if range.contains(&number) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "1 to 1,000, rounded down"
                )]
                NonZeroU32::new(number as u32)
            }
            _ => {
                unfit.insert(format!("{namespace}/{name}"));
                None
            }
        }
    }

    /// The mode a switch names.
    fn mode(&self, name: &str, unfit: &mut BTreeSet<String>) -> Option<Mode> {
        let setting = self.book.setting(SHARED_NAMESPACE, name)?;
        let mode = match &setting {
            Setting::String(text) => text.parse().ok(),
            _ => None,
        };
        if mode.is_none() {
            unfit.insert(format!("{SHARED_NAMESPACE}/{name}"));
        }
        mode
    }
}

/// A switch that something refers to has a value that moves nothing there.
#[derive(Debug)]
struct Unfit<'a> {
    switch: &'a str,
}

impl Unfit<'_> {
    fn emit(self) {
        let (finding, switch) = ("switch-unfit", self.switch);
        tracing::warn!(
            finding,
            switch,
            "the value is of no use where it is referred to: what is written stays"
        );
    }
}
