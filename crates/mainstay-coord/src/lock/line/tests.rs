use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::keys::Area;
use crate::lock::request::Request;
use crate::name::{LockName, Namespace};

fn place(area: Area) -> Place {
    let namespace = Namespace::new("t").unwrap();
    Place { area, namespace, name: LockName::new("n").unwrap() }
}

fn names() -> (Namespace, LockName) {
    (Namespace::new("t").unwrap(), LockName::new("n").unwrap())
}

/// `r`, `w` or `p2/3` at a revision, by session number.
fn entry(session: u64, wanted: &str, created: u64) -> Entry {
    let (namespace, name) = names();
    let request = match wanted {
        "r" => Request::shared(namespace, name),
        "w" => Request::exclusive(namespace, name),
        permits => {
            let (permits, limit) = permits.trim_start_matches('p').split_once('/').unwrap();
            let (permits, limit) = (permits.parse().unwrap(), limit.parse().unwrap());
            Request::permits(namespace, name, permits, limit).unwrap()
        }
    };
    let session = LeaseId::new(session).unwrap();
    let owner = Owner { host: "h".into(), pid: 1, name: "o".into() };
    let revision = Revision::new(created);
    Entry {
        key: place(request.place.area).slot(&Slot { session, request: None }),
        value: Record::new(&request, owner, 0, 0).write().into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: Some(session),
    }
}

/// Who of `queue` (words like `10w`, in any order) holds, by create revision.
fn holders(queue: &str) -> Vec<u64> {
    let words = queue.split_whitespace().enumerate();
    let entries: Vec<Entry> = words
        .map(|(at, word)| {
            let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap();
            let (created, wanted) = word.split_at(digits);
            entry(at as u64 + 1, wanted, created.parse().unwrap())
        })
        .collect();
    let area = if queue.contains('p') { Area::Semaphore } else { Area::Lock };
    let line = Line::new(&place(area), &entries, Revision::new(99));
    line.holders().iter().map(|waiter| waiter.token().get()).collect()
}

#[track_caller]
fn check(queue: &str, want: &[u64]) {
    assert_eq!(holders(queue), want, "{queue}");
}

#[test]
fn a_writer_waits_for_readers_and_readers_for_a_writer() {
    check("10r 11r 12w 13r", &[10, 11]);
    check("11r 12w 13r", &[11]);
    check("12w 13r", &[12]);
    check("13r", &[13]);
}

#[test]
fn permits_go_in_order_even_where_a_later_one_would_fit() {
    check("20p1/3 21p2/3 22p1/3", &[20, 21]);
    check("21p2/3 22p1/3", &[21, 22]);
    check("20p2/3 21p2/3 22p1/3", &[20]);
}

#[test]
fn places_that_came_into_being_together_are_told_apart_by_their_keys() {
    let entries = [entry(1, "r", 10), entry(2, "r", 10), entry(3, "w", 11)];
    let place = place(Area::Lock);
    let line = Line::new(&place, &entries, Revision::new(20));
    let turn = |at: usize| line.turn(&place, &entries[at].key, entries[at].create_revision);
    assert_eq!([turn(0), turn(1)], [Turn::Held, Turn::Held]);
    assert_eq!(turn(2), Turn::Behind(Hurdle::Key(entries[1].key.clone())));
}

#[test]
fn one_exclusive_holder_at_a_time_in_the_order_of_create_revisions() {
    check("", &[]);
    check("12w 10w 11w", &[10]);
}

#[test]
fn what_cannot_be_read_is_exclusive() {
    let mut strange = entry(1, "r", 10);
    strange.value = b"{\"v\":2}".to_vec().into();
    let line = Line::new(&place(Area::Lock), &[strange, entry(2, "r", 11)], Revision::new(20));
    let held: Vec<u64> = line.holders().iter().map(|waiter| waiter.token().get()).collect();
    assert_eq!(held, [10]);
}

/// What keeps the place of `entry` from holding.
fn hurdle(line: &Line, place: &Place, entry: &Entry) -> Hurdle {
    match line.turn(place, &entry.key, entry.create_revision) {
        Turn::Behind(hurdle) => hurdle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waiter_watches_what_is_in_its_way_and_no_more() {
    let entries = [entry(1, "w", 10), entry(2, "r", 11), entry(3, "r", 12), entry(4, "w", 13)];
    let place = place(Area::Lock);
    let line = Line::new(&place, &entries, Revision::new(20));
    let behind = |at: usize| hurdle(&line, &place, &entries[at]);
    let key = |at: usize| Hurdle::Key(entries[at].key.clone());
    assert_eq!([behind(1), behind(2), behind(3)], [key(0), key(0), key(2)]);
    let waits_for = |at: usize| line.waits_for(&line.waiters()[at]).map(Waiter::session);
    let session = |number| LeaseId::new(number);
    let want = [None, session(1), session(1), session(3)];
    assert_eq!([0, 1, 2, 3].map(waits_for), want);
    let gone = line.turn(&place, &entries[1].key, Revision::new(9));
    assert_eq!(gone, Turn::Gone, "another life of the same key");
}

#[test]
fn who_waits_for_permits_is_woken_when_enough_of_those_before_it_are_given_back() {
    let queue = ["p2/4", "p1/4", "p3/4", "p2/4", "p1/4"];
    let entries: Vec<Entry> =
        (1..).zip(queue).map(|(at, wanted)| entry(at, wanted, at + 9)).collect();
    let place = place(Area::Semaphore);
    let line = Line::new(&place, &entries, Revision::new(20));
    let gone = |at: usize| {
        let previous = Some(entries[at].clone());
        Event { change: Change::Delete(entries[at].key.clone()), previous }
    };
    let put = Event { change: Change::Put(entries[0].clone()), ..gone(0) };
    // With the six before it the fourth makes eight of four.
    let mut fourth = hurdle(&line, &place, &entries[3]);
    assert_eq!(fourth.range(), place.queue());
    assert!(!fourth.falls(&put), "nobody's permits change");
    assert!(!fourth.falls(&gone(4)), "it came later");
    assert!(!fourth.falls(&gone(1)) && fourth.falls(&gone(2)));
    let mut third = hurdle(&line, &place, &entries[2]);
    assert!(third.falls(&gone(0)), "two of the two that are missing");
    let unknown = Event { previous: None, ..gone(4) };
    assert!(hurdle(&line, &place, &entries[4]).falls(&unknown), "whose it was is not known");
}

#[test]
fn a_holder_has_vanished_when_its_noted_grant_has_no_place_any_more() {
    let place = place(Area::Lock);
    let mut last = entry(9, "w", 30);
    last.key = place.last();
    let line = |reason, token, holder: u64| {
        let mut past = Past::granted(Token::new(token), 0, 5);
        past.reason = reason;
        let last = Entry { value: past.write().into(), ..last.clone() };
        let line = Line::new(&place, &[entry(1, "w", holder), last], Revision::new(40));
        line.vanished().map(|past| past.token.get())
    };
    assert_eq!(line(Reason::Granted, 10, 10), None);
    assert_eq!(line(Reason::Granted, 10, 20), Some(10));
    assert_eq!(line(Reason::Released, 10, 20), None);
    assert_eq!(line(Reason::Lost, 10, 20), None);
}

#[test]
fn what_a_newer_version_wrote_into_a_record_is_kept() {
    let mut plain = entry(1, "w", 10);
    let mut value: serde_json::Value = serde_json::from_slice(&plain.value).unwrap();
    value["colour"] = "blue".into();
    plain.value = serde_json::to_vec(&value).unwrap().into();
    let mut record = Record::read(&plain).unwrap();
    record.count = 2;
    let again: serde_json::Value = serde_json::from_slice(&record.write()).unwrap();
    assert_eq!((&again["colour"], &again["count"]), (&"blue".into(), &2.into()));
}

#[test]
fn a_place_remembers_its_last_requests_and_forgets_what_was_undone() {
    use crate::lock::RECENT_MAX;
    use crate::name::RequestId;
    let mut record = Record::read(&entry(1, "w", 10)).unwrap();
    let id = |number: usize| RequestId::new(format!("r{number}")).unwrap();
    for number in 0..=RECENT_MAX {
        record.take(&id(number));
    }
    assert!(!record.knows(&id(0)) && record.knows(&id(1)) && record.knows(&id(RECENT_MAX)));
    record.undo(&id(RECENT_MAX));
    assert!(!record.knows(&id(RECENT_MAX)));
    record.give_back(&id(1));
    assert!(record.knows(&id(1)) && record.was_given_back_by(&id(1)));
    assert!(!record.was_given_back_by(&id(2)));
}

#[test]
fn a_request_outside_its_limits_is_refused() {
    let ask = |permits, limit| {
        let (namespace, name) = names();
        Request::permits(namespace, name, permits, limit).is_ok()
    };
    let table = [(0, 1), (1, 0), (2, 1), (1, 10_001)];
    assert!(table.into_iter().all(|(permits, limit)| !ask(permits, limit)));
    assert!(ask(1, 1) && ask(10_000, 10_000));
    let (namespace, name) = names();
    let exclusive = || Request::exclusive(namespace.clone(), name.clone());
    assert!(exclusive().lock_delay(Duration::from_mins(1)).is_ok());
    assert!(exclusive().lock_delay(Duration::from_secs(61)).is_err());
    let candidate =
        |bytes| Request::candidate(namespace.clone(), name.clone(), "x".repeat(bytes)).is_ok();
    assert!(candidate(4_096) && !candidate(4_097));
}

proptest! {
    /// Whatever the queue: holders are its first ones, a writer holds alone, permits in use are
    /// within the limit, and the first of a queue always holds.
    #[test]
    fn a_queue_never_lets_too_many_in(
        is_lock in any::<bool>(),
        wanted in prop::collection::vec((any::<bool>(), 1u32..5), 0..12),
    ) {
        const LIMIT: u32 = 4;
        let queue: Vec<String> = wanted.iter().enumerate().map(|(at, (alone, permits))| {
            match (is_lock, alone) {
                (true, true) => format!("{}w", at + 10),
                (true, false) => format!("{}r", at + 10),
                (false, _) => format!("{}p{permits}/{LIMIT}", at + 10),
            }
        }).collect();
        let held = holders(&queue.join(" "));
        prop_assert_eq!(&held, &(10..10 + held.len() as u64).collect::<Vec<_>>());
        prop_assert!(held.is_empty() == wanted.is_empty());
        let held = &wanted[..held.len()];
        if is_lock {
            prop_assert!(held.len() <= 1 || held.iter().all(|(alone, _)| !alone));
        } else {
            let used: u32 = held.iter().map(|(_, permits)| permits).sum();
            prop_assert!(used <= LIMIT);
            let next = wanted.get(held.len());
            prop_assert!(next.is_none_or(|(_, permits)| LIMIT < used + permits));
        }
    }
}

#[test]
fn limits_are_agreed_on_by_whoever_came_first() {
    let entries = [entry(1, "p1/3", 10), entry(2, "p1/4", 11)];
    let line = Line::new(&place(Area::Semaphore), &entries, Revision::new(20));
    let want =
        |limit| Want::Permits { permits: NonZeroU32::MIN, limit: NonZeroU32::new(limit).unwrap() };
    assert_eq!(line.other_limit(want(4), Revision::new(11)), Some(3));
    assert_eq!(line.other_limit(want(3), Revision::new(10)), None);
}
