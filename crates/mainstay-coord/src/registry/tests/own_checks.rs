//! Checks of one instance alone, decided without a store.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use super::stage::{instance, registration};
use crate::health::Health;
use crate::health::check::RawCheck;
use crate::registry::local::checks;
use crate::registry::owned::{Duty, Owned};
use crate::registry::{ConsulService, Instance, NewCheck, OwnCheck, Settings, Stands};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// A persistent instance with a check `a` that is good for 100 ms and may be critical for 60 s.
fn record(health: Health) -> Arc<Instance> {
    let run = RawCheck {
        name: "a".to_owned(),
        kind: "ttl".to_owned(),
        ttl_seconds: Some(1),
        ..RawCheck::default()
    };
    let check = OwnCheck {
        id: "a".to_owned(),
        run: Some(run),
        ttl_milliseconds: Some(100),
        remove_after_seconds: Some(60),
        ..OwnCheck::default()
    };
    let new = NewCheck { check, health, output: String::new() };
    let json = r#"{"id": "n/web", "kind": "persistent"}"#;
    let registration = registration(json).of_consul(ConsulService::default(), vec![new], true);
    Arc::new(registration.record("n", "r", 0, &Settings::default(), None))
}

fn follow(owned: &mut Owned, now: u64, record: &Arc<Instance>) {
    let settings = Settings::default();
    let checks = checks(&settings, record);
    owned.follow(at(now), &instance("web", "n/web"), Some((record, &checks)));
}

fn said(health: Health, output: &str) -> Stands {
    Stands { health, output: output.to_owned() }
}

#[test]
fn a_report_stands_at_once_and_until_its_ttl_is_over() {
    let (mut owned, web) = (Owned::default(), instance("web", "n/web"));
    let critical = record(Health::Critical);
    follow(&mut owned, 0, &critical);
    assert_eq!(owned.stands(at(0), &web, "a"), Some(said(Health::Critical, "")));
    owned.report(at(10), &web, ("a", said(Health::Passing, "fine"))).unwrap();
    assert_eq!(owned.stands(at(109), &web, "a"), Some(said(Health::Passing, "fine")));
    // The record follows, and changes nothing about how long the report is good.
    follow(&mut owned, 50, &record(Health::Passing));
    assert_eq!(owned.stands(at(109), &web, "a").unwrap().health, Health::Passing);
    assert_eq!(owned.due(at(109)), []);
    let late = owned.stands(at(110), &web, "a").unwrap();
    assert_eq!(late.health, Health::Critical);
    assert!(late.output.ends_with("fine"), "{late:?}");
    assert_eq!(owned.due(at(110)), [(web.clone(), Duty::MarkCheckLate("a".to_owned()))]);
    assert_eq!(owned.stands(at(0), &web, "b"), None);
}

#[test]
fn an_instance_goes_when_a_check_is_critical_for_as_long_as_it_may_be() {
    let (mut owned, web) = (Owned::default(), instance("web", "n/web"));
    follow(&mut owned, 0, &record(Health::Critical));
    follow(&mut owned, 30_000, &record(Health::Critical));
    assert_eq!(owned.due(at(59_999)), []);
    assert_eq!(owned.due(at(60_000)), [(web.clone(), Duty::Expire)]);
    // One that was well in between begins anew.
    let mut owned = Owned::default();
    follow(&mut owned, 0, &record(Health::Critical));
    follow(&mut owned, 30_000, &record(Health::Warning));
    follow(&mut owned, 40_000, &record(Health::Critical));
    assert_eq!(owned.due(at(99_999)), []);
    assert_eq!(owned.due(at(100_000)), [(web, Duty::Expire)]);
}

#[test]
fn a_check_with_a_host_of_its_own_is_sent_there() {
    let mut record = (*record(Health::Critical)).clone();
    record.own_checks[0].host = Some("127.0.0.9".to_owned());
    let settings = Settings::default();
    let found = checks(&settings, &record);
    assert_eq!(found[0].host.as_deref(), Some("127.0.0.9"));
    let crate::health::check::CheckKind::Ttl { ttl } = found[0].kind else { panic!("{found:?}") };
    assert_eq!(ttl, Duration::from_millis(100));
}
