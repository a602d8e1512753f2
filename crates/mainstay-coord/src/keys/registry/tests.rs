use proptest::prelude::*;

use super::*;
use crate::name::{InstanceId, Namespace, NodeName, Reporter};
use mainstay_core::name::ServiceName;

fn service(name: &str) -> ServiceRef {
    let namespace = Namespace::new("shop").unwrap();
    ServiceRef { namespace, name: ServiceName::new(name).unwrap() }
}

fn instance(name: &str, id: &str) -> InstanceRef {
    service(name).instance(&InstanceId::new(id).unwrap())
}

#[track_caller]
fn check(key: &Key, want: &str, means: &RegistryKey) {
    assert_eq!(key.to_string(), want);
    assert_eq!(parse_registry(key).as_ref(), Some(means));
}

#[test]
fn keys_of_the_registry_are_written_as_the_table_says() {
    let order = service("order");
    check(&order.settings(), "svc/shop/order", &RegistryKey::Settings(order.clone()));
    check(&order.gone(), "ins/shop/order", &RegistryKey::Gone(order));
    let one = instance("order", "10.0.0.7:80");
    check(&one.key(), "ins/shop/order/10.0.0.7%3A80", &RegistryKey::Instance(one.clone()));
    let reporter = Reporter::new("gw/1").unwrap();
    let means = RegistryKey::Observation(one.clone(), reporter.clone());
    check(&one.observation(&reporter), "obs/shop/order/10.0.0.7%3A80/gw%2F1", &means);
    let name = NodeName::new("n 1").unwrap();
    check(&node(&name), "node/n%201", &RegistryKey::Node(name));
}

#[test]
fn a_service_covers_its_own_instances_and_no_others() {
    let (short, long) = (service("a"), service("a.b"));
    assert!(short.instances().contains(&instance("a", "1").key()));
    assert!(!short.instances().contains(&instance("a.b", "1").key()));
    assert!(!short.instances().contains(&short.gone()) && !long.instances().contains(&long.gone()));
}

#[test]
fn the_longest_names_make_a_key() {
    let service = ServiceRef {
        namespace: Namespace::new("n".repeat(63)).unwrap(),
        name: ServiceName::new(&"s".repeat(128)).unwrap(),
    };
    let wide = "%".repeat(255);
    let instance = service.instance(&InstanceId::new(wide.clone()).unwrap());
    let key = instance.observation(&Reporter::new(wide).unwrap());
    assert!(key.len() < 2_048);
}

#[test]
fn what_is_not_written_like_a_key_of_ours_is_none() {
    for foreign in [
        "ins",
        "ins/",
        "ins/shop",
        "ins/shop/order/",
        "ins/shop/order/%3a",
        "ins/Shop/order/1",
        "ins/shop/order/1/2",
        "svc/shop/order/1",
        "lock/shop/order",
        "node/",
    ] {
        assert_eq!(parse_registry(foreign.as_bytes()), None, "{foreign}");
    }
    assert_eq!(parse_registry(b"ins/shop/order/\xff"), None);
}

proptest! {
    #[test]
    fn a_key_reads_back_as_what_it_was_made_of(id in "[^\\p{Cc}]{1,60}") {
        let one = instance("order", &id);
        prop_assert_eq!(parse_registry(&one.key()), Some(RegistryKey::Instance(one)));
    }

    #[test]
    fn no_bytes_confuse_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Some(RegistryKey::Instance(one)) = parse_registry(&bytes) {
            prop_assert_eq!(&*one.key(), &*bytes);
        }
    }
}
