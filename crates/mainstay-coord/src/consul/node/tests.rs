use super::*;

fn check(id: &str, health: Health) -> NewCheck {
    let check = OwnCheck { id: id.to_owned(), ..OwnCheck::default() };
    NewCheck { check, health, output: String::new() }
}

#[test]
fn a_client_has_the_last_word_on_an_address_until_the_process_says_something_new() {
    let mut record = NodeRecord::started(None, "127.0.0.1");
    assert_eq!((record.id.len(), record.is_agent), (36, true));
    let id = record.id.clone();
    record.address = "10.0.0.1".to_owned();
    let record = NodeRecord::started(Some(record), "127.0.0.1");
    assert_eq!((&*record.address, &record.id), ("10.0.0.1", &id));
    let record = NodeRecord::started(Some(record), "10.0.0.2");
    assert_eq!(record.address, "10.0.0.2");
}

#[test]
fn a_check_stands_as_it_stood_unless_somebody_says_how() {
    let mut record = NodeRecord::at(String::new());
    assert!(record.put_check(&check("a", Health::Critical), 1, false));
    assert!(record.set_check("a", Health::Passing, "fine", 2));
    assert!(record.put_check(&check("a", Health::Critical), 3, false));
    assert_eq!(record.checks["a"].health, Health::Passing);
    assert!(record.put_check(&check("a", Health::Warning), 4, true));
    assert_eq!(
        (record.checks["a"].health, record.checks["a"].changed_unix_ms),
        (Health::Warning, 4)
    );
    for at in 1..CHECKS_MAX {
        assert!(record.put_check(&check(&at.to_string(), Health::Passing), 5, false));
    }
    assert!(!record.put_check(&check("one more", Health::Passing), 5, false));
    assert!(record.drop_check("a") && !record.drop_check("a"));
    assert!(!record.set_check("a", Health::Passing, "", 6));
}
