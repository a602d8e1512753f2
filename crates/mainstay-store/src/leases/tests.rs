use super::*;

const TTL: Duration = Duration::from_secs(10);

fn id(number: u64) -> LeaseId {
    LeaseId::new(number).unwrap()
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs_f64(seconds))
}

/// One lease of ten seconds, and a clock that is looked at every 200 ms.
struct Story {
    leases: Leases,
    now: f64,
}

impl Story {
    fn begun() -> Self {
        let mut leases = Leases::default();
        leases.insert(at(0.0), Granted { id: id(7), ttl: TTL });
        Self { leases, now: 0.0 }
    }

    /// Looks at the clock until `until`; says when the lease ended, if it did.
    fn pass(&mut self, until: f64) -> Option<f64> {
        while self.now + 0.2 <= until + 1e-9 {
            self.now += 0.2;
            if !self.leases.tick(at(self.now), 10).ended.is_empty() {
                return Some(self.now);
            }
        }
        None
    }
}

#[test]
fn the_worked_table_of_leases_holds() {
    let mut story = Story::begun();
    assert_eq!(story.pass(4.0), None);
    assert_eq!(story.leases.keep_alive(at(4.0), id(7)), Ok(TTL));
    assert_eq!(story.leases.status(at(4.0), id(7)).map(|lease| lease.remaining), Ok(TTL));
    assert_eq!(story.pass(9.0), None);
    // Killed at 9, serving again at 12: another machine, with what was on disk.
    let mut story = Story { leases: Leases::default(), now: 12.0 };
    story.leases.insert(at(12.0), Granted { id: id(7), ttl: TTL });
    assert_eq!(story.pass(13.0), None);
    // Stopped from 13 to 43.
    story.now = 43.0;
    let tick = story.leases.tick(at(43.0), 10);
    assert!(tick.ended.is_empty());
    assert!(Duration::from_secs(30) <= tick.paused && tick.paused < Duration::from_millis(30_300));
    let ended = story.pass(60.0).expect("it ends");
    assert!((52.0..=53.0).contains(&ended), "ended at {ended}");
    let gone = Err(Error::LeaseNotFound { lease: id(7) });
    assert_eq!(story.leases.keep_alive(at(53.5), id(7)), gone);
    assert!(story.leases.is_taken(id(7)), "its keys are still there");
}

#[test]
fn a_lease_never_ends_before_its_ttl_and_a_tick_ends_no_more_than_it_may() {
    let mut leases = Leases::default();
    for number in 1..=5 {
        leases.insert(at(0.0), Granted { id: id(number), ttl: TTL });
    }
    let mut ended = Vec::new();
    for tick in 1..=60 {
        let now = f64::from(tick) * 0.2;
        let found = leases.tick(at(now), 2).ended;
        assert!(found.is_empty() || 10.0 <= now + 1e-9, "ended at {now}");
        assert!(found.len() <= 2);
        ended.extend(found);
    }
    assert_eq!(ended, (1..=5).map(id).collect::<Vec<_>>());
}

#[test]
fn a_key_ends_with_one_lease_at_a_time() {
    let mut leases = Leases::default();
    let key: Key = "a".try_into().unwrap();
    for number in [1, 2] {
        leases.insert(at(0.0), Granted { id: id(number), ttl: TTL });
    }
    leases.attach(&key, None, Some(id(1)));
    leases.attach(&key, Some(id(1)), Some(id(2)));
    assert_eq!(leases.keys(id(1)).count(), 0);
    assert_eq!(leases.keys(id(2)).collect::<Vec<_>>(), [&key]);
    leases.attach(&key, Some(id(2)), None);
    assert_eq!(leases.keys(id(2)).count(), 0);
}
