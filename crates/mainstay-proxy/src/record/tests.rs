use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs(seconds))
}

fn record(id: &str) -> Record {
    Record {
        request_id: id.to_owned(),
        trace_id: format!("trace-of-{id}"),
        at: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
        listener: "gateway",
        method: "GET".to_owned(),
        path: "/orders/7".to_owned(),
        status: 503,
        outcome: "circuit-open",
        duration: Duration::from_micros(1_200),
        steps: Vec::new(),
    }
}

/// Plays `script` to records with room for three.
///
/// `+N` lets N seconds go by, `keep:ID` keeps a record and `keep:ID!N` drops N others for it,
/// `there:ID` and `gone:ID` look for it.
#[track_caller]
fn check(script: &str) {
    let records = Records { bytes_max: record("a").bytes() * 3, ring: Mutex::default() };
    let mut now = at(0);
    for word in script.split_whitespace() {
        let (verb, rest) = word.split_once(':').unwrap_or((word, ""));
        match verb {
            "keep" => {
                let (id, drops) = rest.split_once('!').unwrap_or((rest, "0"));
                assert_eq!(records.keep(now, record(id)).to_string(), drops, "{word} of {script}");
            }
            "there" => {
                let of = |id: &str| records.find(now, id).expect(word).request_id.clone();
                assert_eq!((of(rest), of(&format!("trace-of-{rest}"))), (rest.into(), rest.into()));
            }
            "gone" => assert!(records.find(now, rest).is_err(), "{word} of {script}"),
            _ => now = now.plus(Duration::from_secs(verb.trim_start_matches('+').parse().unwrap())),
        }
    }
}

#[test]
fn records_are_kept_for_an_hour_or_until_there_is_no_room() {
    check("gone:a keep:a there:a +3599 there:a +1 gone:a");
    check("keep:a keep:b keep:c there:a keep:d!1 gone:a there:b there:d");
    // What is too old makes room without being missed.
    check("keep:a keep:b +3600 keep:c keep:d keep:e there:c gone:b");
    // The last of several with one id is the one.
    check("keep:a +9 keep:a keep:b there:a keep:c!1 there:a keep:d!1 gone:a");
}

#[test]
fn whoever_finds_nothing_is_told_why() {
    let records = Records { bytes_max: record("a").bytes() * 2, ring: Mutex::default() };
    let missing = |now| records.find(now, "x").expect_err("never kept").to_string();
    assert!(missing(at(0)).contains("1 % of the rest"));
    for id in ["a", "b", "c"] {
        records.keep(at(1), record(id));
    }
    let crowded = "want of room: 1, and the oldest left is 7 s old";
    assert!(missing(at(8)).ends_with(crowded));
    assert!(missing(at(3_601)).contains("in the last hour"), "what was dropped would be gone now");
    let large = Record { method: "x".repeat(9_999), ..record("d") };
    assert_eq!((records.keep(at(9), large), records.size().0), (1, 2), "one that can never fit");
}

#[test]
fn failures_and_slow_requests_are_recorded_and_one_in_a_hundred_of_the_rest() {
    let records = Records::default();
    assert!(records.wants(true, false, 1) && records.wants(false, true, 1));
    let mut state = 7u64;
    let mut draw = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state
    };
    let draws: Vec<u64> = (0..100_000).map(|_| draw()).collect();
    let wanted: Vec<u64> =
        draws.into_iter().filter(|&draw| records.wants(false, false, draw)).collect();
    assert!((850..1_150).contains(&wanted.len()), "{} of 100,000", wanted.len());
    // The upper bits of a draw pick the instance: records must not be all of one.
    let upper = wanted.iter().filter(|&&draw| draw >> 63 == 1).count();
    assert!((400..650).contains(&upper), "{upper} of {}", wanted.len());
}

#[test]
fn a_record_is_the_document_of_explain() {
    let step = Step {
        stage: "circuit",
        outcome: "reject",
        rule: Some("default".to_owned()),
        revision: None,
        observed: Some("62 of 100 calls failed".to_owned()),
        threshold: Some("50 %".to_owned()),
        since: Some(UNIX_EPOCH),
        clears_when: Some("probes in 5.9 s".to_owned()),
    };
    let record = Record { steps: vec![step], ..record("r1") };
    let summary = "GET /orders/7 → 503 circuit-open in 1.2 ms (gateway, 03:04:05.678)";
    let document = serde_json::json!({
        "subject": "r1",
        "kind": "request",
        "summary": summary,
        "request_id": "r1",
        "trace_id": "trace-of-r1",
        "at": "2026-01-02T03:04:05.678Z",
        "listener": "gateway",
        "method": "GET",
        "path": "/orders/7",
        "status": 503,
        "outcome": "circuit-open",
        "duration_seconds": 0.001_2,
        "steps": [{
            "stage": "circuit",
            "outcome": "reject",
            "rule": "default",
            "revision": null,
            "observed": "62 of 100 calls failed",
            "threshold": "50 %",
            "since": "1970-01-01T00:00:00.000Z",
            "clears_when": "probes in 5.9 s",
        }],
    });
    assert_eq!(serde_json::to_value(&record).expect("JSON"), document);
}

#[test]
fn a_long_path_is_cut_between_two_characters() {
    let records = Records::default();
    records.keep(at(0), Record { path: "é".repeat(4_000), ..record("a") });
    assert_eq!(records.find(at(0), "a").expect("kept").path, "é".repeat(512));
    let path = format!("x{}", "é".repeat(4_000));
    records.keep(at(0), Record { path, ..record("b") });
    assert_eq!(records.find(at(0), "b").expect("kept").path.len(), 1_023);
}

#[test]
fn a_scan_of_several_parts_finds_the_first_and_the_last() {
    let records = Records::default();
    for n in 0..SCAN * 2 + 5 {
        records.keep(at(0), record(&n.to_string()));
    }
    for n in [0, 4, 5, SCAN, SCAN * 2, SCAN * 2 + 4] {
        assert_eq!(records.find(at(1), &n.to_string()).expect("kept").request_id, n.to_string());
    }
    assert!(records.find(at(1), "none").is_err());
}

proptest! {
    /// Whatever comes, the bound holds, the sum is right, and the newest are the ones that stay.
    #[test]
    fn the_bound_holds(
        steps in prop::collection::vec((0u64..2_000, 0usize..900), 1..80),
        bytes_max in 1_000usize..6_000,
    ) {
        let records = Records { bytes_max, ring: Mutex::default() };
        let (mut now, mut dropped) = (at(0), 0);
        for (n, (gap, length)) in steps.iter().enumerate() {
            now = now.plus(Duration::from_secs(*gap));
            let record = Record { method: "x".repeat(*length), ..record(&n.to_string()) };
            let fits = record.bytes() <= bytes_max;
            dropped += records.keep(now, record);
            let ring = records.ring.lock();
            prop_assert!(ring.bytes <= bytes_max);
            prop_assert_eq!(ring.bytes, ring.kept.iter().map(|kept| kept.bytes).sum::<usize>());
            prop_assert_eq!(ring.dropped, dropped);
            drop(ring);
            prop_assert_eq!(records.find(now, &n.to_string()).is_ok(), fits);
        }
    }
}
