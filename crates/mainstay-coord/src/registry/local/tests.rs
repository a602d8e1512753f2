use mainstay_core::name::ServiceName;
use mainstay_store::Revision;

use super::*;
use crate::name::Namespace;
use crate::registry::service::Shares;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// A node that has read an empty registry.
fn ready() -> Local {
    let mut local = Local::new(NodeName::new("n1").unwrap(), Copy::new(Shares::default(), 2));
    for area in RegistryArea::ALL {
        list(&mut local, 0, area);
    }
    local
}

fn list(local: &mut Local, seconds: u64, area: RegistryArea) {
    let touched = local.copy.replace(at(seconds), area, Revision::new(1), &[]);
    local.take(at(seconds), touched);
    local.is_back(at(seconds), area);
}

#[test]
fn whoever_lost_the_history_of_removals_removes_nothing_for_a_minute() {
    let mut local = ready();
    assert!(!local.may_expire(at(59)) && local.may_expire(at(60)));
    list(&mut local, 70, RegistryArea::Settings);
    assert!(local.may_expire(at(70)), "that of settings says nothing of removals");
    list(&mut local, 70, RegistryArea::Instances);
    assert!(!local.may_expire(at(129)) && local.may_expire(at(130)));
}

#[test]
fn names_that_nobody_listens_to_any_more_are_forgotten() {
    let (mut local, figures) = (ready(), Figures::default());
    let namespace = Namespace::new("default").unwrap();
    let mut kept = Vec::new();
    for number in 0..10_000 {
        let name = ServiceName::new(&format!("s{number}")).unwrap();
        let service = ServiceRef { namespace: namespace.clone(), name };
        let views = local.subscribe(at(0), 0, &service, &figures);
        if number % 100 == 0 {
            kept.push(views);
        }
    }
    assert!(local.subscribers.len() <= 2 * kept.len() + 2, "{}", local.subscribers.len());
    assert!(
        kept.iter().all(|views| views.has_changed().is_ok()),
        "those who listen are still told"
    );
}
