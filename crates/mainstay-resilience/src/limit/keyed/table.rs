//! The table of keys: slots that stay where they are, and an index of half-empty cells over them.

use std::time::Duration;

use mainstay_core::Instant;

use crate::limit::decision::Decision;
use crate::limit::limiter::spend_all_but;
use crate::limit::machine::{Clerk, Level, Refusing, Request, Rule, Spent};
use crate::limit::snapshot::QuotaLeft;
use crate::limit::top::{KeyText, Top};

/// Slots drawn at a time when one has to be given up.
const DRAWS: usize = 8;

/// Most slots drawn for one new key; bounds what a flood of new keys can cost when every key is at
/// its limit.
pub const DRAWS_MAX: usize = 256;

/// The rule of most keys first, then those of the overrides.
#[derive(Clone, Debug)]
pub(super) struct Rules<R> {
    rules: Vec<R>,
    /// Overridden keys in ascending order; the rule of the n-th is n + 1.
    keys: Vec<u128>,
}

impl<R: Rule> Rules<R> {
    /// `others` in ascending order of keys.
    pub(super) fn new(usual: R, others: Vec<(u128, R)>) -> Self {
        let (keys, others): (Vec<u128>, Vec<R>) = others.into_iter().unzip();
        Self { rules: std::iter::once(usual).chain(others).collect(), keys }
    }

    /// Number of the rule for `key`. The policy allows 4,096 overrides.
    fn number(&self, key: u128) -> u16 {
        match self.keys.binary_search(&key) {
            Ok(n) => u16::try_from(n + 1).unwrap_or(0),
            Err(_) => 0,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Table<R: Rule> {
    rules: Rules<R>,
    slots: Vec<Slot<R::State>>,
    /// Number of a slot and one, or 0; linear probing from the key's home.
    index: Vec<u32>,
    keys_max: usize,
    evictions: u64,
    lives: u32,
    draws: u64,
    pub(super) top: Top,
}

/// What is remembered of a key.
#[derive(Clone, Copy, Debug)]
struct Slot<S> {
    /// Upper and lower half; a `u128` would pad the slot to a multiple of 16 bytes.
    key: [u64; 2],
    state: S,
    /// Told apart from other lives of this slot by receipts; never 0.
    life: u32,
    /// How often the key asked.
    asked: u32,
    refusing: Refusing,
    rule: u16,
    /// Its place among those that asked most and one, or 0.
    top: u8,
}

/// A slot and its two cells of the index.
const fn bytes<R: Rule>() -> usize {
    size_of::<Slot<R::State>>() + 2 * size_of::<u32>()
}

const _: () = assert!(
    bytes::<crate::limit::counter::Counter>() <= 96
        && bytes::<crate::limit::sliding::Sliding>() <= 96
        && bytes::<crate::limit::bucket::Rate>() <= 96
        && bytes::<crate::limit::pacing::Pacing>() <= 96
        && bytes::<crate::limit::warm_up::WarmUp>() <= 96,
    "a key must not take more than 96 bytes"
);

impl<R: Rule> Table<R> {
    /// All memory is asked for here and touched as keys come.
    pub(super) fn new(rules: Rules<R>, keys_max: usize) -> Self {
        let keys_max = keys_max.max(1);
        Self {
            rules,
            slots: Vec::with_capacity(keys_max),
            index: vec![0; 2 * keys_max],
            keys_max,
            evictions: 0,
            lives: 0,
            draws: 0,
            top: Top::default(),
        }
    }

    pub(super) fn ask(
        &mut self,
        key: u128,
        request: Request,
        clerk: &mut Clerk,
        text: impl FnOnce(&mut KeyText),
    ) -> Decision {
        let at = match self.find(halves(key)) {
            Some(at) => at,
            None => self.insert(halves(key), request.now),
        };
        self.count(at, text);
        let slot = &mut self.slots[at];
        let rule = &self.rules.rules[usize::from(slot.rule)];
        if rule.capacity() < request.cost {
            return clerk.exceeds(request, rule.capacity());
        }
        let verdict = rule.ask(&mut slot.state, request);
        clerk.decide(request, verdict, slot.life, &mut slot.refusing)
    }

    pub(super) fn refund(&mut self, key: u128, now: Instant, life: u32, spent: Spent) {
        let Some(at) = self.find(halves(key)) else { return };
        let slot = &mut self.slots[at];
        if slot.life == life {
            self.rules.rules[usize::from(slot.rule)].refund(&mut slot.state, now, spent);
        }
    }

    pub(super) fn level(&self, key: u128, now: Instant) -> Option<Level> {
        let at = self.find(halves(key))?;
        Some(self.level_at(at, now))
    }

    pub(super) fn snapshot(
        &self,
        now: Instant,
        from: usize,
        most: usize,
    ) -> (Vec<(u128, QuotaLeft)>, Option<usize>) {
        let end = from.saturating_add(most).min(self.slots.len());
        let some = self.slots.get(from..end).unwrap_or_default();
        let kept = some.iter().filter_map(|slot| {
            let rule = &self.rules.rules[usize::from(slot.rule)];
            Some((whole(slot.key), QuotaLeft::of(rule, &slot.state, now)?))
        });
        (kept.collect(), (end < self.slots.len()).then_some(end))
    }

    pub(super) fn restore(&mut self, now: Instant, kept: &[(u128, QuotaLeft)], elapsed: Duration) {
        for (key, left) in kept.iter().take(self.keys_max) {
            let at = match self.find(halves(*key)) {
                Some(at) => at,
                None => self.insert(halves(*key), now),
            };
            let slot = &mut self.slots[at];
            slot.state = left.state(&self.rules.rules[usize::from(slot.rule)], now, elapsed);
        }
    }

    /// Keys, most keys, evictions.
    pub(super) fn size(&self) -> (usize, usize, u64) {
        (self.slots.len(), self.keys_max, self.evictions)
    }

    /// Takes over rules and size of `new`, an empty table.
    pub(super) fn adopt(&mut self, new: Self, now: Instant) {
        let old = std::mem::replace(self, new);
        self.take_over(&old, now, |rule, state, slot| {
            *state = slot.state;
            rule.adopt(&old.rules.rules[usize::from(slot.rule)], state, now);
        });
    }

    /// Fills this empty table with the keys of one of another kind, none with more left than it
    /// had.
    pub(super) fn convert<O: Rule>(&mut self, old: &Table<O>, now: Instant) {
        self.take_over(old, now, |rule, state, slot| {
            let before = old.rules.rules[usize::from(slot.rule)].level(&slot.state, now);
            spend_all_but(rule, state, now, before);
        });
    }

    fn take_over<O: Rule>(
        &mut self,
        old: &Table<O>,
        now: Instant,
        carry: impl Fn(&R, &mut R::State, &Slot<O::State>),
    ) {
        self.top = old.top.clone();
        self.evictions = old.evictions;
        self.lives = old.lives;
        self.draws = old.draws;
        let mut order: Vec<usize> = (0..old.slots.len()).collect();
        if self.keys_max < order.len() {
            order.sort_by_cached_key(|&at| std::cmp::Reverse(old.worth(at, now)));
            self.evictions += (order.len() - self.keys_max) as u64;
            order.truncate(self.keys_max);
        }
        for at in order {
            let slot = &old.slots[at];
            let at = self.insert(slot.key, now);
            let kept = &mut self.slots[at];
            kept.asked = slot.asked;
            kept.refusing = slot.refusing;
            carry(&self.rules.rules[usize::from(kept.rule)], &mut kept.state, slot);
        }
    }

    /// Counts one question by the key at `at`, and lists it when it asked often enough.
    fn count(&mut self, at: usize, text: impl FnOnce(&mut KeyText)) {
        let slot = &mut self.slots[at];
        slot.asked = slot.asked.saturating_add(1);
        if let Some(place) = slot.top.checked_sub(1) {
            return self.top.count(usize::from(place));
        }
        let (key, asked) = (slot.key, u64::from(slot.asked));
        if !self.top.admits(asked) {
            return;
        }
        let mut written = KeyText::default();
        text(&mut written);
        let (place, gone) = self.top.put(whole(key), asked, written);
        self.slots[at].top = place_and_one(place);
        if let Some(gone) = gone.and_then(|gone| self.find(halves(gone))) {
            self.slots[gone].top = 0;
        }
    }

    /// The slot of `key`, which has none yet: a new one, or another key's.
    fn insert(&mut self, key: [u64; 2], now: Instant) -> usize {
        let rule = self.rules.number(whole(key));
        let (top, asked) = match self.top.find(whole(key)) {
            Some((place, count)) => {
                (place_and_one(place), u32::try_from(count).unwrap_or(u32::MAX))
            }
            None => (0, 0),
        };
        self.lives = self.lives.wrapping_add(1).max(1);
        let slot = Slot {
            key,
            state: self.rules.rules[usize::from(rule)].fresh(now),
            life: self.lives,
            asked,
            refusing: Refusing::default(),
            rule,
            top,
        };
        let at = if self.slots.len() < self.keys_max {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let at = self.least_worth(key, now);
            self.unlink(at);
            self.evictions += 1;
            self.slots[at] = slot;
            at
        };
        let mut cell = self.home(key);
        while self.index[cell] != 0 {
            cell = self.after(cell);
        }
        self.index[cell] = u32::try_from(at + 1).expect("at most 2^20 keys");
        at
    }

    /// The slot that is missed least among those drawn.
    fn least_worth(&mut self, key: [u64; 2], now: Instant) -> usize {
        let mut best = None;
        for draw in 1..=DRAWS_MAX {
            self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let at = scale(mix(self.draws ^ key[0]), self.slots.len());
            let worth = self.worth(at, now);
            if best.is_none_or(|(least, _)| worth < least) {
                best = Some((worth, at));
            }
            if draw % DRAWS == 0 && best.is_some_and(|((at_limit, ..), _)| !at_limit) {
                break;
            }
        }
        best.map_or(0, |(_, at)| at)
    }

    /// How much would be lost with the slot at `at`: whether it is at its limit, how much it has
    /// used, how lately.
    fn worth(&self, at: usize, now: Instant) -> (bool, u64, u64) {
        let Level { used, capacity, .. } = self.level_at(at, now);
        let share = used.min(capacity).saturating_mul(1 << 31) / capacity.max(1);
        let slot = &self.slots[at];
        let age = self.rules.rules[usize::from(slot.rule)].age(&slot.state);
        (capacity <= used, share, age)
    }

    fn level_at(&self, at: usize, now: Instant) -> Level {
        let slot = &self.slots[at];
        self.rules.rules[usize::from(slot.rule)].level(&slot.state, now)
    }

    fn find(&self, key: [u64; 2]) -> Option<usize> {
        let mut cell = self.home(key);
        loop {
            let at = self.slot_in(cell)?;
            if self.slots[at].key == key {
                return Some(at);
            }
            cell = self.after(cell);
        }
    }

    /// Takes the slot at `at` out of the index, and closes the gap: each cell behind it moves up
    /// if it may stand there (Knuth, "The Art of Computer Programming" vol. 3, 6.4, algorithm R).
    fn unlink(&mut self, at: usize) {
        let mut gap = self.home(self.slots[at].key);
        while self.slot_in(gap) != Some(at) {
            gap = self.after(gap);
        }
        let mut cell = self.after(gap);
        while let Some(other) = self.slot_in(cell) {
            let home = self.home(self.slots[other].key);
            if self.distance(gap, cell) <= self.distance(home, cell) {
                self.index[gap] = self.index[cell];
                gap = cell;
            }
            cell = self.after(cell);
        }
        self.index[gap] = 0;
    }

    fn slot_in(&self, cell: usize) -> Option<usize> {
        (self.index[cell] as usize).checked_sub(1)
    }

    fn home(&self, key: [u64; 2]) -> usize {
        scale(key[1], self.index.len())
    }

    fn after(&self, cell: usize) -> usize {
        if cell + 1 == self.index.len() { 0 } else { cell + 1 }
    }

    /// Steps from `from` to `to`, around the end.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.index.len() - from }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each half of a u128 is a u64")]
const fn halves(key: u128) -> [u64; 2] {
    [(key >> 64) as u64, key as u64]
}

fn whole([upper, lower]: [u64; 2]) -> u128 {
    u128::from(upper) << 64 | u128::from(lower)
}

/// A number below `len`, in proportion to `draw` (Lemire, "Fast Random Integer Generation in an
/// Interval", 2019).
#[expect(clippy::cast_possible_truncation, reason = "below `len`, which is a usize")]
const fn scale(draw: u64, len: usize) -> usize {
    ((draw as u128 * len as u128) >> 64) as usize
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood, 2014).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn place_and_one(place: usize) -> u8 {
    u8::try_from(place + 1).expect("below 100")
}
