use proptest::prelude::*;

use super::*;
use crate::name::{LockName, Namespace, RequestId};

fn place(area: Area, name: &str) -> Place {
    let namespace = Namespace::new("shop").unwrap();
    Place { area, namespace, name: LockName::new(name).unwrap() }
}

#[track_caller]
fn check(key: &Key, want: &str) {
    assert_eq!(key.to_string(), want);
}

#[test]
fn keys_are_written_as_the_table_says() {
    let session = LeaseId::new(0xab).unwrap();
    let lock = place(Area::Lock, "orders/7:a");
    let slot = Slot { session, request: None };
    check(&fence_base(), "meta/fence_base");
    check(&format(), "meta/format");
    check(&self::session(session), "ses/00000000000000ab");
    check(&lock.slot(&slot), "lock/shop/orders%2F7%3Aa/q/00000000000000ab");
    check(&lock.last(), "lock/shop/orders%2F7%3Aa/last");
    check(&lock.delay(), "lock/shop/orders%2F7%3Aa/delay");
    let slot = Slot { session, request: Some(RequestId::new("r~1").unwrap()) };
    check(&place(Area::Semaphore, "s").slot(&slot), "sem/shop/s/q/00000000000000ab~r~1");
}

#[test]
fn a_place_covers_its_own_keys_and_no_others() {
    let (short, long) = (place(Area::Lock, "a"), place(Area::Lock, "a/b"));
    assert!(short.all().contains(&short.last()) && !short.all().contains(&long.last()));
    assert!(short.all().covers(&short.queue()));
    assert!(!short.queue().contains(&short.last()));
}

#[test]
fn the_longest_names_make_a_key() {
    let area = Area::Election;
    let namespace = Namespace::new("n".repeat(63)).unwrap();
    let place = Place { area, namespace, name: LockName::new(":".repeat(255)).unwrap() };
    let request = Some(RequestId::new("é".repeat(32)).unwrap());
    let slot = Slot { session: LeaseId::new(i64::MAX as u64).unwrap(), request };
    assert_eq!(parse_slot(&place.slot(&slot)), Some((place, slot)));
}

#[test]
fn other_keys_are_no_places_in_a_queue() {
    let good = "lock/shop/a/q/00000000000000ab";
    assert!(parse_slot(&Key::try_from(good).unwrap()).is_some());
    for bad in [
        "lock/shop/a/last",
        "lock/shop/a/q/",
        "lock/shop/a/q/ab",
        "lock/shop/a/q/00000000000000AB",
        "lock/shop/a/q/0000000000000000",
        "lock/shop/a/q/00000000000000ab/x",
        "lock/shop/%61/q/00000000000000ab",
        "lock/SHOP/a/q/00000000000000ab",
        "ckv/shop/a/q/00000000000000ab",
    ] {
        assert_eq!(parse_slot(&Key::try_from(bad).unwrap()), None, "{bad}");
    }
}

#[test]
fn notes_of_how_something_was_held_are_told_from_places_in_its_queue() {
    let session = LeaseId::new(7).unwrap();
    for area in Area::ALL {
        // A lock may be called as anything.
        let named = place(area, "q/last");
        let slot = named.slot(&Slot { session, request: None });
        assert_eq!(parse_last(&named.last()), Some(named.clone()));
        assert_eq!([parse_last(&named.delay()), parse_last(&slot)], [None, None]);
        assert_eq!(parse_slot(&named.last()), None);
        assert!(named.slots(session).contains(&slot));
        assert_eq!([Area::of(&slot), Area::of(&named.last())], [Some(area); 2]);
    }
    let other = Key::try_from("locks/shop/a/last").unwrap();
    assert_eq!((parse_last(&other), Area::of(&other)), (None, None));
}

proptest! {
    /// Whatever text: it is one segment, and comes back.
    #[test]
    fn a_segment_gives_back_its_text(text in "\\PC{0,40}") {
        let segment = segment(&text);
        prop_assert!(!segment.contains('/') && segment.is_ascii());
        prop_assert_eq!(unescape(&segment), Some(text));
    }

    /// Whatever bytes a key holds, reading it does not fail.
    #[test]
    fn any_key_can_be_looked_at(bytes in prop::collection::vec(1u8.., 1..60)) {
        let key = Key::new(bytes).unwrap();
        drop((parse_slot(&key), parse_last(&key)));
    }
}
