//! An instance whose circuit wants to know how it is gets the call that tells, however badly its
//! estimate remembers it; and no more than that.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::balance::{
    Ask, BalancePolicy, Candidate, Estimate, Load, Order, Picker, RawBalance, Snapshot,
};
use mainstay_resilience::circuit::{Circuit, CircuitPolicy, State};

const MS: Duration = Duration::from_millis(1);

fn ms(millis: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_millis(millis))
}

/// Instances that answer in a millisecond, each with circuit and estimate; one call every ten
/// milliseconds, each back before the next. The first one fails until `heals_at`.
struct World {
    picker: Picker,
    circuits: Vec<Circuit>,
    estimates: Vec<Estimate>,
    heals_at: Instant,
    draw: u64,
}

impl World {
    fn new(kind: &str, instances: usize, heals_at: Instant) -> Self {
        let raw: RawBalance = toml::from_str(&format!("kind = '{kind}'")).unwrap();
        let instance = Candidate {
            address: "a:1",
            name: "a",
            weight: 1,
            priority: 0,
            same_zone: true,
            usable: true,
            since: Instant::ZERO,
        };
        let all = vec![instance; instances];
        let snapshot = Snapshot { instances: &all, order: Order::Listed, protected: false };
        let policy = BalancePolicy::try_from(raw).unwrap();
        let circuit = |seed| Circuit::new(CircuitPolicy::default(), seed, Instant::ZERO);
        Self {
            picker: Picker::new(&policy, &snapshot, Instant::ZERO),
            circuits: (0..instances as u64).map(circuit).collect(),
            estimates: vec![Estimate::default(); instances],
            heals_at,
            draw: 7,
        }
    }

    fn draw(&mut self) -> u64 {
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.draw >> 20
    }

    /// One call at `now`: where it went.
    fn call(&mut self, now: Instant) -> usize {
        let draws = [self.draw(), self.draw(), self.draw()];
        let Self { picker, circuits, estimates, .. } = self;
        let load = |index: usize| Load {
            in_flight: 0,
            estimate: estimates[index],
            curious: circuits[index].is_curious(now),
        };
        let ask = Ask { now, draws, hash: None, attempt: 0, tried: &[] };
        let index = picker.pick(&ask, load, |index| circuits[index].admits(now)).unwrap();
        let curious = circuits[index].is_curious(now);
        let permit = circuits[index].admit(now).unwrap();
        let ended = now.plus(MS);
        let fails = index == 0 && now < self.heals_at;
        let outcome = if fails { Outcome::Failure } else { Outcome::Success };
        circuits[index].record(ended, permit, outcome, MS);
        let estimate = &mut estimates[index];
        *estimate = match (fails, curious) {
            (true, _) => {
                let penalty = BalancePolicy::default().failure_penalty;
                estimate.observe(ended, Estimate::failed_sample(MS, penalty))
            }
            (false, true) => estimate.relearn(ended, MS),
            (false, false) => estimate.observe(ended, MS),
        };
        index
    }

    /// Share of the first instance in the calls between two moments, as part of a fair share.
    fn share(&mut self, from_ms: u64, to_ms: u64) -> f64 {
        let all: Vec<usize> = (from_ms..to_ms).step_by(10).map(|at| self.call(ms(at))).collect();
        let mine = all.iter().filter(|&&index| index == 0).count();
        let [mine, all] = [mine, all.len()].map(|n| f64::from(u32::try_from(n).unwrap()));
        mine / all * f64::from(u32::try_from(self.circuits.len()).unwrap())
    }

    fn state(&mut self, at_ms: u64) -> State {
        self.circuits[0].poll(ms(at_ms));
        self.circuits[0].state()
    }
}

/// An instance that was down for a moment is found well by the first calls after its cooldown, and
/// has its share again when its ramp is over.
#[test]
fn an_idle_instance_is_probed_as_soon_as_its_circuit_allows() {
    for kind in ["peak_ewma", "least_request"] {
        for instances in [2, 3, 5] {
            let mut world = World::new(kind, instances, ms(3_000));
            // Five failures open it; peak EWMA leaves it alone after the first, so they are dealt.
            for n in 0..5 {
                let permit = world.circuits[0].admit(ms(n)).unwrap();
                world.circuits[0].record(ms(n), permit, Outcome::Failure, MS);
                world.estimates[0] = world.estimates[0].observe(ms(n), Duration::from_secs(5));
            }
            assert_eq!(world.state(10), State::Open);
            let open = world.share(10, 5_000);
            assert!(open < 1e-9, "{kind} of {instances}: {open}");
            let probed = world.share(5_010, 6_500);
            assert!(0.0 < probed, "{kind} of {instances}: no probe");
            assert_eq!(world.state(6_500), State::Ramp, "{kind} of {instances}");
            let ramp = world.share(6_500, 8_500);
            assert!(ramp < 0.6, "{kind} of {instances}: the ramp is no stampede: {ramp}");
            world.share(8_500, 15_000);
            assert_eq!(world.state(15_000), State::Closed, "{kind} of {instances}");
            let after = world.share(15_000, 30_000);
            assert!((0.5..1.6).contains(&after), "{kind} of {instances}: {after} of its share");
        }
    }
}

/// An instance that stays down costs its probes and no more.
#[test]
fn a_dead_instance_gets_probes_only() {
    let mut world = World::new("peak_ewma", 3, Instant::MAX);
    for n in 0..5 {
        let permit = world.circuits[0].admit(ms(n)).unwrap();
        world.circuits[0].record(ms(n), permit, Outcome::Failure, MS);
        world.estimates[0] = world.estimates[0].observe(ms(n), Duration::from_secs(5));
    }
    // Openings of 5, 7.5, 11.25, 16.9 and 25.3 s within the minute, five probes after each.
    let share = world.share(10, 60_000);
    let calls = share / 3.0 * 6_000.0;
    assert!((10.0..=25.5).contains(&calls), "{calls} calls of 6000");
}
