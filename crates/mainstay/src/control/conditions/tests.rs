use std::collections::BTreeMap;

use super::*;
use crate::control::openapi::document;

/// Changes that are neither tried nor compared, and why.
const BARE: [(&str, &str); 14] = [
    ("/registry/heartbeats", "what is, is told"),
    ("/registry/observations", "what is, is told"),
    ("/heartbeat", "what is, is told"),
    ("/check", "what is, is told"),
    ("/validate", "it only reads"),
    ("/config/watch", "it only reads"),
    ("/config/reports", "what is, is told"),
    ("/config/rewrap", "contents stay as they are, and again does nothing"),
    ("/keyring/rotate", "there is one key more, and none less"),
    ("/sessions", "a session is nobody else's"),
    ("/locks/", "sessions and tokens say whose turn it is"),
    ("/semaphores/", "sessions and tokens say whose turn it is"),
    ("/elections/", "sessions and tokens say whose turn it is"),
    ("/store/compact", "the revision is in the document"),
];

/// Changes of other planes, which have their own conditions.
const ELSEWHERE: [&str; 5] = ["/transactions", "/transaction-", "/messages", "/deferred", "/audit"];

/// Of every change that is described: whether it takes `dry_run` and `If-Match`.
fn described() -> BTreeMap<String, (bool, bool)> {
    let document = document();
    let mut all = BTreeMap::new();
    for (path, item) in document["paths"].as_object().expect("there are paths") {
        let path = path.strip_prefix("/api/v1").expect("all lie there");
        for (method, call) in item.as_object().into_iter().flatten() {
            let parameters = call["parameters"].as_array().into_iter().flatten();
            let names: Vec<&str> = parameters.filter_map(|one| one["name"].as_str()).collect();
            let takes = |name| names.contains(&name);
            if method != "get" {
                all.insert(format!("{method} {path}"), (takes("dry_run"), takes("If-Match")));
            }
        }
    }
    all
}

fn knowing() -> BTreeMap<String, (bool, bool)> {
    let of = |Knows(method, path, dry, compared): &Knows| {
        (format!("{} {path}", method.as_str().to_lowercase()), (*dry, *compared))
    };
    KNOWING.iter().map(of).collect()
}

#[test]
fn every_change_that_knows_conditions_is_described_with_them() {
    let described = described();
    for (call, known) in knowing() {
        let said = described.get(&call).unwrap_or_else(|| panic!("{call} is no call"));
        assert_eq!(*said, known, "{call}: (dry_run, If-Match) as described, and as known");
    }
}

#[test]
fn every_change_of_what_is_agreed_can_be_tried_and_compared_or_says_why_not() {
    let knowing = knowing();
    let router = format!("{:?}", crate::control::agreed());
    for call in described().keys() {
        let (_, path) = call.split_once(' ').expect("a method and a path");
        let is_agreed = router.contains(&format!("\"{path}\""));
        let is_elsewhere = ELSEWHERE.iter().any(|start| path.starts_with(start));
        let is_bare = |(part, _): &(&str, &str)| path.starts_with(part) || path.ends_with(part);
        if !is_agreed || is_elsewhere || BARE.iter().any(is_bare) {
            continue;
        }
        assert!(knowing.contains_key(call), "{call} can be neither tried nor compared");
    }
}
