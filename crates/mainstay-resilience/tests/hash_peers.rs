//! The same instance for the same key as nginx and Envoy.
//!
//! `tests/fixtures/generate.py` asked the two programs and wrote down what they answered.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use mainstay_core::Instant;
use mainstay_resilience::balance::{
    Ask, BalancePolicy, Candidate, Load, Order, Picker, RawBalance, RoundRobin, Snapshot,
};

const ASK: Ask<'static> =
    Ask { now: Instant::ZERO, draws: [0; 3], hash: None, attempt: 0, tried: &[] };

/// The servers and weights of a fixture, and what was answered: number of the server, and key.
struct Fixture {
    servers: Vec<(String, u32)>,
    answers: Vec<(usize, String)>,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let (mut servers, mut answers) = (Vec::new(), Vec::new());
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            match line.split_once(' ').unwrap() {
                ("server", server) => {
                    let (address, weight) = server.split_once(' ').unwrap();
                    servers.push((address.to_owned(), weight.parse().unwrap()));
                }
                (number, key) => answers.push((number.parse().unwrap(), key.to_owned())),
            }
        }
        Self { servers, answers }
    }

    fn policy(settings: &str) -> BalancePolicy {
        toml::from_str::<RawBalance>(settings).unwrap().try_into().unwrap()
    }

    fn picker(&self, policy: &BalancePolicy) -> Picker {
        let instance = |(address, weight): &(String, u32)| Candidate {
            address: address.clone().leak(),
            name: "",
            weight: *weight,
            priority: 0,
            same_zone: true,
            usable: true,
            since: Instant::ZERO,
        };
        let instances: Vec<_> = self.servers.iter().map(instance).collect();
        let snapshot = Snapshot { instances: &instances, order: Order::Listed, protected: false };
        Picker::new(policy, &snapshot, Instant::ZERO)
    }
}

#[track_caller]
fn check_keys(name: &str, settings: &str) {
    let fixture = Fixture::read(name);
    let policy = Fixture::policy(settings);
    let picker = fixture.picker(&policy);
    let function = policy.layout.unwrap().function();
    assert_eq!(fixture.answers.len(), 2_000);
    for (want, key) in &fixture.answers {
        let hash = function.hash_parts(&policy.hash, |_| Some(key)).expect("there is a key");
        let ask = Ask { hash: Some(hash), ..ASK };
        let got = picker.pick(&ask, |_| Load::default(), |_| true);
        assert_eq!(got, Ok(*want), "{key} in {name}");
    }
}

#[test]
fn ketama_is_the_one_of_nginx() {
    check_keys("nginx_ketama.txt", "kind = 'ring_hash'\nhash = ['header:x-key']");
}

#[test]
fn the_xxh64_ring_is_the_one_of_envoy() {
    let settings = "kind = 'ring_hash'\nring = 'xxh64'\nhash = ['header:x-key']";
    check_keys("envoy_ring.txt", settings);
}

#[test]
fn maglev_is_the_one_of_envoy() {
    check_keys("envoy_maglev.txt", "kind = 'maglev'\nhash = ['header:x-key']");
}

#[test]
fn round_robin_goes_in_the_order_of_nginx() {
    for name in ["nginx_round_robin_3.txt", "nginx_round_robin_5.txt"] {
        let fixture = Fixture::read(name);
        let picker = fixture.picker(&Fixture::policy("kind = 'round_robin'"));
        let mut turns = RoundRobin::default();
        // The first call found out whether nginx was ready.
        turns.pick(&picker, &ASK, |_| true).unwrap();
        for (want, call) in &fixture.answers {
            assert_eq!(turns.pick(&picker, &ASK, |_| true), Ok(*want), "call {call} of {name}");
        }
    }
}
