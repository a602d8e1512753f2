//! The worked numbers of the bucket and of canaries.

use serde_json::json;

use super::stage::{canary, client, group, payment};
use crate::centre::canary::{bucket, effective};
use crate::centre::publish::running;
use crate::centre::record::Head;
use crate::name::ClientId;

/// The seven clients of the example, with their buckets.
const SEVEN: [(&str, u64); 7] = [
    ("pay-5", 1_551),
    ("10.0.0.7:8080", 1_592),
    ("pay-6", 2_202),
    ("pay-4", 3_935),
    ("pay-2", 5_225),
    ("pay-1", 8_662),
    ("pay-3", 9_263),
];

fn head(raw: serde_json::Value) -> Head {
    let mut head = Head { release: 1, last: 2, ..Head::default() };
    head.canary = Some(running(&canary(raw), 2, 0));
    head
}

/// Which of the seven get the canary.
#[track_caller]
fn check(raw: serde_json::Value, want: &[&str]) {
    let head = head(raw);
    let of_seven = SEVEN.into_iter().map(|(id, _)| id);
    let got: Vec<&str> =
        of_seven.filter(|id| effective(&payment(), &head, Some(&client(id))) == 2).collect();
    assert_eq!(got, want);
}

#[test]
fn buckets_are_those_of_the_example() {
    for (id, want) in SEVEN {
        assert_eq!(bucket(&payment(), &ClientId::new(id).unwrap()), want, "{id}");
    }
}

#[test]
fn canaries_reach_the_clients_of_the_example() {
    check(json!({ "percent": 10 }), &[]);
    check(json!({ "percent": 20 }), &["pay-5", "10.0.0.7:8080"]);
    let listed = json!({ "percent": 25, "clients": ["pay-3"] });
    check(listed, &["pay-5", "10.0.0.7:8080", "pay-6", "pay-3"]);
    check(json!({ "percent": 50 }), &["pay-5", "10.0.0.7:8080", "pay-6", "pay-4"]);
    check(json!({ "percent": 100 }), &SEVEN.map(|(id, _)| id));
    let ten = head(json!({ "percent": 10 }));
    let gets = |n: &u32| effective(&payment(), &ten, Some(&client(&format!("c{n}")))) == 2;
    assert_eq!((0..10_000).filter(gets).count(), 1_011);
}

#[test]
fn labels_must_all_match_and_none_match_nobody() {
    let beta = head(json!({ "labels": { "zone": "a", "tier": "beta" } }));
    let with = |labels: &[(&str, &str)]| {
        let mut one = client("x");
        one.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        effective(&payment(), &beta, Some(&one))
    };
    assert_eq!(with(&[("zone", "a"), ("tier", "beta"), ("more", "x")]), 2);
    assert_eq!(with(&[("zone", "a")]), 1);
    assert_eq!(with(&[("zone", "b"), ("tier", "beta")]), 1);
    let nobody = head(json!({}));
    assert_eq!(effective(&payment(), &nobody, Some(&client("x"))), 1);
    let everybody = head(json!({ "percent": 100 }));
    assert_eq!(effective(&payment(), &everybody, None), 1, "who says no name gets what most get");
    assert_eq!(effective(&group("other"), &nobody, None), 1);
}

#[test]
fn a_percentage_has_two_decimals_and_ends_at_a_hundred() {
    let read = |text: &str| serde_json::from_str::<crate::centre::Percent>(text).ok();
    assert_eq!(read("0.07").unwrap().hundredths(), 7);
    assert_eq!(read("99.99").unwrap().hundredths(), 9_999);
    for bad in ["-1", "100.01", "0.001", "\"5\"", "1e300"] {
        assert_eq!(read(bad), None, "{bad}");
    }
    assert_eq!(serde_json::to_string(&read("12.5").unwrap()).unwrap(), "12.5");
}
