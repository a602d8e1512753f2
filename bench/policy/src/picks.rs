//! Which instance: draws, estimates, hash tables.

use std::hint::black_box;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::balance::{
    Ask, BalancePolicy, Candidate, Estimate, Kind, Load, Order, Picker, RawBalance, RingKind,
    Snapshot,
};
use mainstay_resilience::budget::{Budget, BudgetPolicy, Ended};
use mainstay_resilience::hash::{Layout, Member, Table};

use crate::rounds::{Case, now};

pub const INSTANCES: usize = 100;

pub fn cases() -> Vec<Case> {
    const GROUP: &str = "pick one of 100 instances";
    let (p2c, ewma) = (picker(Kind::LeastRequest), picker(Kind::PeakEwma));
    let ring = RawBalance {
        kind: Some(Kind::RingHash),
        ring: Some(RingKind::Xxh64),
        hash: Some(vec!["path".into()]),
        ..RawBalance::default()
    };
    let ring = picker_of(ring);
    let maglev = RawBalance {
        kind: Some(Kind::Maglev),
        hash: Some(vec!["path".into()]),
        ..RawBalance::default()
    };
    let maglev = picker_of(maglev);
    let (ring_table, maglev_table) = (
        table(Layout::Ring { min: 1_024, max: 8_388_608 }),
        table(Layout::Maglev { size: 65_537 }),
    );
    let busy: Vec<Load> = (0..INSTANCES).map(|n| load(n, false)).collect();
    let known: Vec<Load> = (0..INSTANCES).map(|n| load(n, true)).collect();
    let mut draws = [1, 2, 3, 4, 5, 6].map(Draws);
    let [mut a, mut b, mut c, mut d, mut e, mut f] =
        draws.each_mut().map(|draws| Draws(draws.next()));
    let mut budget = Budget::new(default_budget(), now());
    vec![
        Case::ours(GROUP, "least request of two (P2C)", Some(30.0)).op(move |now| {
            black_box(p2c.pick(&ask(now, &mut a, None), |n| busy[n], |_| true)).expect("usable");
        }),
        Case::ours(GROUP, "peak EWMA of two", Some(60.0)).op(move |now| {
            black_box(ewma.pick(&ask(now, &mut b, None), |n| known[n], |_| true)).expect("usable");
        }),
        Case::ours(GROUP, "ring look-up", Some(40.0)).op(move |_| {
            black_box(ring_table.first(c.next())).expect("not empty");
        }),
        Case::ours(GROUP, "Maglev look-up", Some(40.0)).op(move |_| {
            black_box(maglev_table.first(d.next())).expect("not empty");
        }),
        Case::ours(GROUP, "pick by ring, hash given", None).op(move |now| {
            let hash = Some(e.next());
            black_box(ring.pick(&ask(now, &mut e, hash), |_| Load::default(), |_| true))
                .expect("usable");
        }),
        Case::ours(GROUP, "pick by Maglev, hash given", None).op(move |now| {
            let hash = Some(f.next());
            black_box(maglev.pick(&ask(now, &mut f, hash), |_| Load::default(), |_| true))
                .expect("usable");
        }),
        Case::ours("retry budget", "first attempt, its end, one retry in sixteen", None).op({
            let mut n = 0_u32;
            move |now| {
                budget.first_attempt(now);
                n = n.wrapping_add(1);
                if n % 16 == 0
                    && let Some(credit) = budget.try_take(now)
                {
                    budget.done(Ended::Well, Some(credit));
                }
                budget.done(Ended::Well, None);
                budget.call_ended();
            }
        }),
    ]
}

pub fn default_budget() -> BudgetPolicy {
    BudgetPolicy::Window {
        ratio_millionths: 200_000,
        min_per_second: 10,
        ttl: Duration::from_secs(10),
    }
}

/// xorshift64 (Marsaglia, 2003): draws that cost two nanoseconds.
pub struct Draws(pub u64);

impl Draws {
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[inline]
pub fn ask(now: Instant, draws: &mut Draws, hash: Option<u64>) -> Ask<'static> {
    let (a, b) = (draws.next(), draws.next());
    Ask { now, draws: [a, b, a ^ b], hash, attempt: 0, tried: &[] }
}

pub fn picker(kind: Kind) -> Picker {
    picker_of(RawBalance { kind: Some(kind), ..RawBalance::default() })
}

fn picker_of(raw: RawBalance) -> Picker {
    let policy = BalancePolicy::try_from(raw).expect("in range");
    let addresses: Vec<String> = (0..INSTANCES).map(|n| format!("10.0.0.{n}:80")).collect();
    let candidate = |address| Candidate {
        address,
        name: address,
        weight: 1,
        priority: 0,
        same_zone: true,
        usable: true,
        since: Instant::ZERO,
    };
    let instances: Vec<_> = addresses.iter().map(|address| candidate(address)).collect();
    let snapshot = Snapshot { instances: &instances, order: Order::Listed, protected: false };
    Picker::new(&policy, &snapshot, now())
}

fn table(layout: Layout) -> Table {
    let keys: Vec<String> = (0..INSTANCES).map(|n| format!("10.0.0.{n}:80")).collect();
    let members: Vec<_> = keys.iter().map(|key| Member { key, weight: 1 }).collect();
    Table::build(layout, &members)
}

fn load(n: usize, known: bool) -> Load {
    let sample = Duration::from_micros(200 + 17 * n as u64);
    let estimate =
        if known { Estimate::default().observe(now(), sample) } else { Estimate::default() };
    Load { in_flight: (n % 7) as u32, estimate, curious: false }
}
