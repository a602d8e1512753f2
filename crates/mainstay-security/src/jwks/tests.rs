use proptest::prelude::*;

use super::*;
use crate::jws::Origin;

/// An issuer with a clock, and a server that may be down.
struct Issuer {
    machine: Jwks,
    now: Instant,
    server: Option<&'static [&'static str]>,
    fetches: usize,
}

/// P-256's base point, which is a key as good as any where nothing is verified.
const POINT: &str = r#""kty":"EC","crv":"P-256",
    "x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU""#;

fn set(kids: &[&str]) -> KeySet {
    let keys: Vec<String> =
        kids.iter().map(|kid| format!(r#"{{"kid":"{kid}",{POINT}}}"#)).collect();
    KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), Origin::Remote)
        .expect("a key set")
}

fn second(second: u64) -> Instant {
    Instant::from_nanos(second * 1_000_000_000)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Verified,
    Refused,
    Unavailable,
}

impl Issuer {
    fn new(server: &'static [&'static str]) -> Self {
        let machine = Jwks::new(Instant::ZERO, STALE_MAX);
        let mut issuer = Self { machine, now: Instant::ZERO, server: Some(server), fetches: 0 };
        issuer.until(0);
        issuer
    }

    /// Lets time pass, with the fetches that fall due.
    fn until(&mut self, at: u64) {
        while self.machine.due() <= second(at) {
            self.now = self.now.max(self.machine.due());
            if self.machine.poll(self.now).is_some() {
                self.fetch();
            }
        }
        self.now = second(at);
    }

    fn fetch(&mut self) {
        self.fetches += 1;
        let answer = self.server.map(|kids| Answer { keys: set(kids), max_age: None });
        let _effect = self.machine.answered(self.now, 0, answer);
    }

    /// A request with a token that `kid` has signed.
    fn request(&mut self, kid: &str) -> Verdict {
        for _look in 0..2 {
            let Some(keys) = self.machine.keys(self.now) else { return Verdict::Unavailable };
            if keys.names(kid) {
                return Verdict::Verified;
            }
            match self.machine.ask(self.now, kid) {
                Asked::Wait(Some(Fetch)) => self.fetch(),
                Asked::Wait(None) => panic!("nothing is under way"),
                Asked::Known => panic!("it was looked for"),
                Asked::Unknown => return Verdict::Refused,
            }
        }
        Verdict::Refused
    }

    /// Asks once with `kid` at `at`; `fetches` follow from it, and this many tenths of a fetch are
    /// left in the bucket.
    #[track_caller]
    fn check(&mut self, at: u64, kid: &str, want: (Verdict, usize, u128)) {
        self.until(at);
        let before = self.fetches;
        let verdict = self.request(kid);
        let saved = self.machine.bucket.saved + self.now.since(self.machine.bucket.at);
        let saved = saved.min(BUCKET.0 * BUCKET.1).as_secs();
        assert_eq!((verdict, self.fetches - before, u128::from(saved)), want, "t = {at}, {kid}");
    }
}

/// The table of the specification: keys on the server, a request, what becomes of it.
#[test]
fn the_worked_table_holds() {
    let mut issuer = Issuer::new(&["A"]);
    issuer.check(0, "A", (Verdict::Verified, 0, 30));
    issuer.server = Some(&["A", "B"]);
    issuer.check(100, "B", (Verdict::Verified, 1, 20));
    issuer.check(101, "Z", (Verdict::Refused, 1, 11));
    for _another in 1..500 {
        issuer.check(101, "Z", (Verdict::Refused, 0, 11));
    }
    issuer.check(105, "Y", (Verdict::Refused, 1, 5));
    issuer.check(106, "X", (Verdict::Refused, 0, 6));
    issuer.check(160, "Z", (Verdict::Refused, 0, 30));
    issuer.check(161, "Z", (Verdict::Refused, 1, 20));
    issuer.server = None;
    // Fetched at 161; due after 270 s, with the least jitter there is.
    issuer.check(500, "A", (Verdict::Verified, 0, 30));
    assert_eq!(issuer.machine.state(issuer.now), State::Stale);
    issuer.check(400 + 86_401, "A", (Verdict::Unavailable, 0, 30));
    assert_eq!(issuer.machine.state(issuer.now), State::Expired);
    issuer.server = Some(&["B"]);
    issuer.until(400 + 86_401 + 61);
    assert_eq!(issuer.request("B"), Verdict::Verified);
    assert_eq!(issuer.machine.state(issuer.now), State::Fresh);
}

/// As the table has it to the end: nobody asks for Z again, and the server is down from 106 on.
#[test]
fn keys_hold_for_a_day_after_the_last_fetch() {
    let mut issuer = Issuer::new(&["A"]);
    issuer.check(105, "Y", (Verdict::Refused, 1, 20));
    issuer.server = None;
    issuer.check(400, "A", (Verdict::Verified, 0, 30));
    assert_eq!(issuer.machine.state(issuer.now), State::Stale);
    issuer.check(105 + 86_399, "A", (Verdict::Verified, 0, 30));
    issuer.check(105 + 86_400, "A", (Verdict::Unavailable, 0, 30));
}

#[test]
fn failed_fetches_are_repeated_ever_less_often() {
    let mut machine = Jwks::new(Instant::ZERO, STALE_MAX);
    let mut now = Instant::ZERO;
    let waits: Vec<u64> = (0..9)
        .map(|_| {
            assert_eq!(machine.poll(now), Some(Fetch));
            assert_eq!(machine.poll(now), None, "one is under way");
            assert!(machine.answered(now, 0, None).is_none());
            let wait = machine.due().since(now).as_secs();
            now = machine.due();
            wait
        })
        .collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(machine.state(now), State::Empty);
}

#[test]
fn an_answer_without_a_usable_key_changes_nothing() {
    let mut issuer = Issuer::new(&["A"]);
    issuer.until(200);
    assert_eq!(issuer.machine.refresh(issuer.now), Some(Fetch));
    let answer = Some(Answer { keys: KeySet::default(), max_age: None });
    let effect = issuer.machine.answered(issuer.now, 0, answer);
    assert!(matches!(effect, Some(Effect::Useless)), "{effect:?}");
    assert_eq!(issuer.request("A"), Verdict::Verified);
    assert_eq!(issuer.machine.age(issuer.now), Some(Duration::from_secs(200)));
}

/// A fetch that began before the key was published must not make it unknown for a minute.
#[test]
fn who_comes_while_a_fetch_is_under_way_may_ask_for_another() {
    let mut issuer = Issuer::new(&["A"]);
    issuer.now = second(50);
    assert_eq!(issuer.machine.refresh(issuer.now), Some(Fetch));
    assert_eq!(issuer.machine.ask(issuer.now, "B"), Asked::Wait(None));
    issuer.fetch();
    issuer.server = Some(&["A", "B"]);
    assert_eq!(issuer.request("B"), Verdict::Verified);
}

#[test]
fn a_key_that_came_since_somebody_looked_is_not_asked_for() {
    let mut issuer = Issuer::new(&["A"]);
    assert_eq!(issuer.machine.ask(issuer.now, "A"), Asked::Known);
    assert_eq!(issuer.machine.bucket.saved, BUCKET.0 * BUCKET.1);
}

#[test]
fn a_failed_fetch_makes_no_name_unknown() {
    let mut issuer = Issuer::new(&["A"]);
    issuer.server = None;
    issuer.now = second(50);
    assert_eq!(issuer.request("B"), Verdict::Refused);
    issuer.server = Some(&["B"]);
    issuer.until(51);
    assert_eq!(issuer.request("B"), Verdict::Verified);
}

#[test]
fn names_that_are_remembered_are_bounded() {
    let mut machine = Jwks::new(Instant::ZERO, STALE_MAX);
    for at in 0..5_000_u64 {
        machine.fetching = Some(vec![Fingerprint::of(&at.to_le_bytes())]);
        let answer = Answer { keys: set(&["A"]), max_age: None };
        let _effect = machine.answered(Instant::ZERO, 0, Some(answer));
    }
    assert_eq!(machine.unknown.len(), UNKNOWN_MAX);
}

#[test]
fn what_an_answer_says_of_its_age_is_kept_within_bounds() {
    for (text, want) in [
        ("max-age=120", Some(120)),
        ("public, Max-Age=\"7\", must-revalidate", Some(7)),
        ("no-store, max-age=9", Some(0)),
        ("max-age=x", None),
        ("", None),
    ] {
        assert_eq!(max_age(text), want.map(Duration::from_secs), "{text}");
    }
    for (says, draw, want) in
        [(Some(1), 0, 54), (Some(1), 200, 66), (Some(9_999), 100, 3_600), (None, 100, 300)]
    {
        let mut machine = Jwks::new(Instant::ZERO, STALE_MAX);
        let max_age = says.map(Duration::from_secs);
        let _effect =
            machine.answered(Instant::ZERO, draw, Some(Answer { keys: set(&["A"]), max_age }));
        assert_eq!(machine.due(), second(want), "{says:?} {draw}");
    }
}

proptest! {
    /// Whoever sends whatever names at whatever times: fetches are no more than the bucket and the
    /// schedule allow, one at a time, and a key that is served is found.
    #[test]
    fn nobody_makes_us_ask_without_end(
        steps in prop::collection::vec((0_u64..2_000, 0_usize..6, any::<bool>()), 1..200),
    ) {
        const KIDS: [&str; 6] = ["A", "B", "C", "D", "E", "F"];
        let mut issuer = Issuer::new(&["A"]);
        let mut millis = 0;
        for (gap, kid, up) in steps {
            millis += gap;
            issuer.server = up.then_some(&["A"]);
            issuer.until(millis / 1_000);
            issuer.now = issuer.now.max(Instant::from_nanos(millis * 1_000_000));
            let verdict = issuer.request(KIDS[kid]);
            prop_assert_eq!(verdict == Verdict::Verified, kid == 0);
        }
        let asked = 3 + millis / 10_000;
        // A failure is repeated after a second at the earliest, and each needs a cause: a fetch
        // that fell due, or was asked for.
        let retried = millis / 1_000 + 1;
        prop_assert!(issuer.fetches as u64 <= 1 + asked + retried);
        prop_assert!(issuer.machine.unknown.len() <= UNKNOWN_MAX);
    }
}
