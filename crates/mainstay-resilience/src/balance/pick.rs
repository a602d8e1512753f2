//! The picker.

mod among;

use mainstay_core::Instant;

use self::among::{cheapest, mix, rotated, weighted};
use super::snapshot::{Level, Member, levels};
use super::{BalancePolicy, Estimate, Kind, LevelState, SlowStart, Snapshot, below};

/// Everything that does not change from one call to the next, settled in advance.
///
/// Immutable and meant to be swapped: make a new one with [`Picker::renew`] when instances, their
/// health, weights or ejections, or the policy change. Picking is for any number of threads.
#[derive(Clone, Debug)]
pub struct Picker {
    kind: Kind,
    choices: usize,
    slow_start: Option<SlowStart>,
    /// From here on every instance has its full weight.
    warm_from: Instant,
    levels: Vec<Level>,
    /// Running sums of the levels' loads, up to 100.
    bounds: Vec<u64>,
    instances: usize,
}

/// One call that wants an instance.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// When.
    pub now: Instant,
    /// Three independent draws: the first two choose among instances, the third the level.
    pub draws: [u64; 3],
    /// The hash of the call's key, made with the function of the policy's layout; `None` if the
    /// call has no key. Only the kinds that hash look at it.
    pub hash: Option<u64>,
    /// Attempts of this call made before; moves the start in a Maglev table.
    pub attempt: u32,
    /// Instances this call has been sent to before: picked again only when no other admits.
    pub tried: &'a [usize],
}

/// What changes with every call to an instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Calls in flight.
    pub in_flight: u32,
    /// Latency; only `peak_ewma` looks at it.
    pub estimate: Estimate,
    /// Its circuit admits, and waits for a call to find out how it is. Such an instance is picked
    /// whenever it is drawn: an estimate that remembers the failures would keep it from the very
    /// call that could show that they are over. How many calls that are is for its circuit to say,
    /// and how soon for the draw, which is as fair to it as to any other.
    pub curious: bool,
}

/// Why no instance was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpicked {
    /// There is none that can be used. Problem code `no-instance`.
    #[error("no instance is usable")]
    NoInstance,
    /// Too few are usable, and the policy says `panic = "fail"`. Problem code `no-instance`.
    #[error("too few instances are usable")]
    Panic,
    /// No circuit admits the call. Problem code `circuit-open`, scope service.
    #[error("the circuits of all instances are open")]
    CircuitOpen,
}

impl Picker {
    /// A picker for the instances of `snapshot`.
    pub fn new(policy: &BalancePolicy, snapshot: &Snapshot<'_>, now: Instant) -> Self {
        Self::build(&[], policy, snapshot, now)
    }

    /// The next picker. Hash tables are shared when keys and weights are the same as before, and
    /// a level that stays in panic keeps the moment since when.
    #[must_use]
    pub fn renew(&self, policy: &BalancePolicy, snapshot: &Snapshot<'_>, now: Instant) -> Self {
        Self::build(&self.levels, policy, snapshot, now)
    }

    fn build(
        previous: &[Level],
        policy: &BalancePolicy,
        snapshot: &Snapshot<'_>,
        now: Instant,
    ) -> Self {
        let levels = levels(previous, policy, snapshot, now);
        let bounds = levels
            .iter()
            .scan(0, |sum, level| {
                *sum += u64::from(level.state.load);
                Some(*sum)
            })
            .collect();
        let warm_from = policy.slow_start.map_or(Instant::ZERO, |slow_start| {
            let members = levels.iter().flat_map(|level| &level.members);
            members.map(|m| m.since.plus(slow_start.window)).max().unwrap_or(Instant::ZERO)
        });
        Self {
            kind: policy.kind,
            choices: policy.choices,
            slow_start: policy.slow_start,
            warm_from,
            levels,
            bounds,
            instances: snapshot.instances.len(),
        }
    }

    /// How it picks. For [`Kind::RoundRobin`] ask [`super::RoundRobin`], which has the memory that
    /// takes; asked directly, the picker keeps the same shares by chance.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Instances in the snapshot it was made from; picks are below this.
    pub const fn instances(&self) -> usize {
        self.instances
    }

    /// The levels, most preferred first.
    pub fn levels(&self) -> impl Iterator<Item = &LevelState> {
        self.levels.iter().map(|level| &level.state)
    }

    /// The instance that a call should go to: an index into the snapshot.
    ///
    /// `load` and `admits` are asked about as few instances as possible, usually two. `admits` is
    /// the circuit's answer without taking a permit. An instance that admits is found if there is
    /// one: first among those of the level the call fell to, then of the others, and at last among
    /// those already tried.
    ///
    /// # Errors
    ///
    /// [`Unpicked`] when nobody can be asked.
    pub fn pick(
        &self,
        ask: &Ask<'_>,
        load: impl Fn(usize) -> Load,
        admits: impl Fn(usize) -> bool,
    ) -> Result<usize, Unpicked> {
        self.pick_with(ask, admits, Drawn { picker: self, ask, load })
    }

    /// Picks a level, and in it with `rule`.
    pub(super) fn pick_with(
        &self,
        ask: &Ask<'_>,
        admits: impl Fn(usize) -> bool,
        mut rule: impl Rule,
    ) -> Result<usize, Unpicked> {
        let first = self.level(ask);
        let Some(level) = self.levels.get(first) else { return Err(Unpicked::NoInstance) };
        if level.fails {
            return Err(Unpicked::Panic);
        }
        let fresh = |index: usize| !ask.tried.contains(&index) && admits(index);
        match rule.pick(level, &fresh) {
            Some(index) => Ok(index),
            None => self.pick_elsewhere(first, ask, admits, rule),
        }
    }

    /// The level did not have a fresh instance: others do, or one that was tried must do.
    #[cold]
    fn pick_elsewhere(
        &self,
        first: usize,
        ask: &Ask<'_>,
        admits: impl Fn(usize) -> bool,
        mut rule: impl Rule,
    ) -> Result<usize, Unpicked> {
        let fresh = |index: usize| !ask.tried.contains(&index) && admits(index);
        let others = || self.levels.iter().enumerate().filter(|&(i, _)| i != first).map(|(_, l)| l);
        let any = others().find_map(|level| rule.pick(level, &fresh));
        let any = any.or_else(|| {
            let all = std::iter::once(&self.levels[first]).chain(others());
            all.filter(|_| !ask.tried.is_empty()).find_map(|level| rule.pick(level, &admits))
        });
        any.ok_or_else(|| {
            let none = self.levels.iter().all(|level| level.members.is_empty());
            if none { Unpicked::NoInstance } else { Unpicked::CircuitOpen }
        })
    }

    /// The level a call falls to. A key always falls to the same one.
    fn level(&self, ask: &Ask<'_>) -> usize {
        if self.bounds.len() < 2 {
            return 0;
        }
        let draw = match (self.kind, ask.hash) {
            (Kind::RingHash | Kind::Maglev, Some(hash)) => hash,
            _ => ask.draws[2],
        };
        let place = draw % 100;
        self.bounds.partition_point(|&bound| bound <= place)
    }

    /// The part of its weight that `member` has at `now`.
    fn factor(&self, member: &Member, now: Instant) -> f64 {
        match &self.slow_start {
            Some(slow_start) if now < self.warm_from => slow_start.factor(now.since(member.since)),
            _ => 1.0,
        }
    }

    /// The weight of `member` at `now` in 1024ths, at least 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and below 2^42"
    )]
    pub(super) fn parts(&self, member: &Member, now: Instant) -> u64 {
        let parts = f64::from(member.weight) * self.factor(member, now) * 1024.0;
        (parts as u64).max(1)
    }
}

/// How an instance is picked from one level.
pub(super) trait Rule {
    /// One of `level` for which `can` holds; `None` only if there is none.
    fn pick(&mut self, level: &Level, can: &impl Fn(usize) -> bool) -> Option<usize>;
}

/// By draws, hash and load.
struct Drawn<'a, L> {
    picker: &'a Picker,
    ask: &'a Ask<'a>,
    load: L,
}

impl<L: Fn(usize) -> Load> Rule for Drawn<'_, L> {
    fn pick(&mut self, level: &Level, can: &impl Fn(usize) -> bool) -> Option<usize> {
        let this = &*self;
        let Self { picker, ask, load } = this;
        let weight = |member: &Member| f64::from(member.weight) * picker.factor(member, ask.now);
        match picker.kind {
            Kind::LeastRequest => this.by_cost(level, can, |member| {
                let Load { in_flight, curious, .. } = load(member.index);
                if curious { CURIOUS } else { (f64::from(in_flight) + 1.0) / weight(member) }
            }),
            Kind::PeakEwma => this.by_cost(level, can, |member| {
                let Load { in_flight, estimate, curious } = load(member.index);
                if curious { CURIOUS } else { estimate.cost(ask.now, in_flight) / weight(member) }
            }),
            Kind::Random | Kind::RoundRobin => this.by_weight(level, can),
            Kind::RingHash | Kind::Maglev => match ask.hash {
                Some(hash) => this.by_hash(level, can, hash),
                None => this.by_weight(level, can),
            },
        }
    }
}

/// Less than any cost there is.
const CURIOUS: f64 = -1.0;

/// Instances that can be drawn for comparison at most.
const CHOICES_MAX: usize = 16;

impl<L> Drawn<'_, L> {
    /// The cheapest of a few drawn ones; "the power of two choices" (Mitzenmacher, 1996) for two.
    fn by_cost(
        &self,
        level: &Level,
        can: &impl Fn(usize) -> bool,
        cost: impl Fn(&Member) -> f64,
    ) -> Option<usize> {
        let members = level.members.as_slice();
        let [d0, d1, _] = self.ask.draws;
        let n = members.len();
        if n == 0 {
            return None;
        }
        let i = below(d0, n);
        if self.picker.choices != 2 || n == 1 {
            return self.by_cost_of_many(members, can, cost);
        }
        let mut j = below(d1, n - 1);
        j += usize::from(j >= i);
        let (one, other) = (&members[i], &members[j]);
        match (can(one.index), can(other.index)) {
            (true, true) if cost(other) < cost(one) => Some(other.index),
            (true, _) => Some(one.index),
            (false, true) => Some(other.index),
            (false, false) => cheapest(rotated(members, i), can, cost),
        }
    }

    #[inline(never)]
    fn by_cost_of_many(
        &self,
        members: &[Member],
        can: &impl Fn(usize) -> bool,
        cost: impl Fn(&Member) -> f64,
    ) -> Option<usize> {
        let [d0, d1, _] = self.ask.draws;
        let n = members.len();
        let start = below(d0, n);
        // All of them: beginning anywhere, so that an idle service does not load its first.
        if self.picker.choices == 0 || n <= self.picker.choices {
            return cheapest(rotated(members, start), can, cost);
        }
        // Distinct draws: each from those left over, then moved past the ones taken before.
        let mut order = [0; CHOICES_MAX];
        let mut sorted = [0; CHOICES_MAX];
        for (taken, slot) in order.iter_mut().enumerate().take(self.picker.choices) {
            let draw = match taken {
                0 => d0,
                1 => d1,
                more => mix(d1.wrapping_add(more as u64)),
            };
            let mut place = below(draw, n - taken);
            let mut at = 0;
            while at < taken && place >= sorted[at] {
                place += 1;
                at += 1;
            }
            sorted.copy_within(at..taken, at + 1);
            sorted[at] = place;
            *slot = place;
        }
        let drawn = order.iter().take(self.picker.choices).map(|&place| &members[place]);
        cheapest(drawn, can, &cost).or_else(|| cheapest(rotated(members, start), can, cost))
    }

    /// By weight and chance; among those that can be picked when the first draw cannot.
    fn by_weight(&self, level: &Level, can: &impl Fn(usize) -> bool) -> Option<usize> {
        let Ask { now, draws: [d0, d1, _], .. } = *self.ask;
        let parts = |member: &Member| self.picker.parts(member, now);
        let drawn = if now < self.picker.warm_from {
            weighted(level.members.iter(), d0, parts)
        } else {
            let total = *level.sums.last()?;
            let place = d0 % total;
            level.members.get(level.sums.partition_point(|&sum| sum <= place)).map(|m| m.index)
        };
        drawn
            .filter(|&index| can(index))
            .or_else(|| weighted(level.members.iter().filter(|m| can(m.index)), d1, parts))
    }

    /// The first on the key's way round the table.
    fn by_hash(&self, level: &Level, can: &impl Fn(usize) -> bool, hash: u64) -> Option<usize> {
        let ring = level.ring.as_ref()?;
        for (step, place) in ring.built.table.walk(hash, self.ask.attempt).enumerate() {
            if let Some(index) = ring.indices[place]
                && can(index)
            {
                return Some(index);
            }
            // A table has far more entries than instances: before walking through all of it, see
            // whether there is anything to find.
            if step == ring.indices.len() && !level.members.iter().any(|m| can(m.index)) {
                return None;
            }
        }
        // More instances than slots: some have no entry, but can answer.
        level.members.iter().map(|member| member.index).find(|&index| can(index))
    }
}
