//! The outbox over the store in memory and the embedded one.

use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_store::{Batch, RangeRequest};
use serde_json::{Value, json};

use super::*;
use crate::registry::tests::stage::{Fault, Faulty, Stage, eventually};

/// The newest so many are kept.
fn limits(records_max: u64) -> Limits {
    Limits { records_max, is_required: false, ..Limits::default() }
}

fn outbox(stage: &Stage, store: Arc<dyn Store>, limits: Limits) -> Outbox {
    Outbox::start(store, Arc::new(stage.clock.clone()), Mask::new(b"key"), limits)
}

fn record(actor: &str, action: &str, id: &str) -> Record {
    let actor = Actor { principal: actor.to_owned(), ..Actor::default() };
    let target = Target { kind: "switch".to_owned(), id: id.to_owned(), ..Target::default() };
    Record::done(Moment::from_unix_millis(7), action, target, &Author::new(actor))
}

/// The targets of a whole list, page by page, newest first.
async fn targets(outbox: &Outbox, filter: &Filter, limit: usize) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = outbox.list(filter, cursor.as_deref(), limit).await.unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items.into_iter().map(|listed| listed.record.target.id));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
}

#[test]
fn a_record_is_written_as_the_log_wants_it_and_keeps_what_it_does_not_know() {
    let author = Author {
        actor: Actor { roles: vec!["editor".to_owned()], ..Actor::system("timers") },
        ..Author::default()
    };
    let target = Target {
        kind: "limit".to_owned(),
        id: "shop/order-api".to_owned(),
        revision_before: Some(41),
        revision_after: Some(42),
    };
    let time = Moment::parse("2026-01-02T03:04:05.678Z").unwrap();
    let record = Record::done(time, "limit:write", target, &author.because("flash sale"))
        .changed(json!({"quota": 100}), json!({"quota": 120}));
    let mut written: Value = serde_json::from_slice(&record.write()).unwrap();
    assert_eq!(
        written,
        json!({
            "v": 1, "time": "2026-01-02T03:04:05.678Z", "action": "limit:write", "outcome": "done",
            "code": null, "reason": "flash sale",
            "actor": {
                "principal": "system/timers", "kind": "system", "via": "timer", "address": null,
                "session": null, "token": null, "roles": ["editor"]
            },
            "target": {
                "kind": "limit", "id": "shop/order-api", "revision_before": 41, "revision_after": 42
            },
            "before": {"quota": 100}, "after": {"quota": 120}, "policies": [], "trace_id": null,
            "correlation": null
        })
    );
    written["new"] = json!(1);
    let read = Record::read(written.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&read.write()).unwrap(), written);
}

#[test]
fn a_long_record_says_how_long_its_values_were() {
    let long = json!({"text": "x".repeat(40_000)});
    let record = record("a", "limit:write", "x").changed(long.clone(), long);
    let bytes = record.write();
    assert!(bytes.len() < record::RECORD_BYTES_MAX);
    let read = Record::read(&bytes).unwrap();
    assert_eq!((&read.before, &read.after), (&json!({"left_out_bytes": 40_011}), &read.before));
}

#[test]
fn a_reason_has_three_to_five_hundred_characters() {
    let check = |reason: &str| Author::default().because(reason).check();
    assert_eq!(check("ab"), Err(ReasonInvalid(2)));
    assert_eq!(check("  ab  "), Err(ReasonInvalid(2)));
    assert_eq!(check("限流中"), Ok(()));
    assert_eq!(check(&"字".repeat(501)), Err(ReasonInvalid(501)));
    assert_eq!(Author::default().check(), Ok(()));
}

async fn by_words(outbox: &Outbox) {
    let words = |words: &str| Filter { words: Some(words.to_owned()), ..Filter::default() };
    assert_eq!(targets(outbox, &words("PLAN:ACT"), 2).await.len(), 5);
    assert_eq!(targets(outbox, &words("no such words"), 2).await.len(), 0);
    let refused = Filter { outcome: Some(Outcome::Refused), ..Filter::default() };
    assert_eq!(targets(outbox, &refused, 2).await.len(), 0);
    let newest = outbox.list(&Filter::default(), None, 1).await.unwrap().items.remove(0);
    assert_eq!(outbox.get(&newest.id).await.unwrap(), Some(newest));
    assert_eq!(outbox.get("x").await.unwrap(), None);
}

async fn newest_first(stage: Stage) {
    let outbox = outbox(&stage, stage.store.clone(), Limits::default());
    for number in 0..25 {
        let actor = if number % 2 == 0 { "user/a" } else { "user/b" };
        let action = if number % 5 == 0 { "plan:activate" } else { "switch:write" };
        outbox.note(&record(actor, action, &number.to_string())).await.unwrap();
        if number == 12 {
            // Revisions others use: the list has to look further back.
            for _ in 0..1_100 {
                let key = mainstay_store::Key::try_from("other").unwrap();
                stage.store.apply(Batch::new().then(Put::new(key, "x"))).await.unwrap();
            }
        }
    }
    let all: Vec<String> = (0..25).rev().map(|number| number.to_string()).collect();
    for limit in [1, 7, 25, 1_000] {
        assert_eq!(targets(&outbox, &Filter::default(), limit).await, all, "{limit}");
    }
    let of = |actor: &str, action: &str, target: &str| Filter {
        actor: Some(actor.to_owned()).filter(|text| !text.is_empty()),
        action: Some(action.to_owned()).filter(|text| !text.is_empty()),
        target: Some(target.to_owned()).filter(|text| !text.is_empty()),
        ..Filter::default()
    };
    for (filter, want) in [
        (of("user/a", "plan:activate", ""), vec!["20", "10", "0"]),
        (of("user/b", "plan:*", ""), vec!["15", "5"]),
        (of("", "", "7"), vec!["7"]),
        (of("", "", "switch/7"), vec!["7"]),
        (of("", "", "limit/7"), vec![]),
        (of("user/c", "", ""), vec![]),
    ] {
        assert_eq!(targets(&outbox, &filter, 2).await, want, "{filter:?}");
    }
    by_words(&outbox).await;
    let wrong = outbox.list(&Filter::default(), Some("x"), 1).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidRequest);
    assert_eq!(outbox.shutdown(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn records_are_listed_newest_first_and_by_filter() {
    newest_first(Stage::memory()).await;
    newest_first(Stage::embedded()).await;
}

#[tokio::test]
async fn of_too_many_the_newest_are_kept_and_the_rest_counted_once() {
    let stage = Stage::memory();
    let two = [(); 2].map(|()| outbox(&stage, stage.store.clone(), limits(200)));
    for number in 0..500 {
        two[0].note(&record("user/a", "switch:write", &number.to_string())).await.unwrap();
        stage.settle().await;
    }
    for outbox in &two {
        eventually("it is trimmed", || outbox.tally().records <= 202).await;
        assert!(200 <= outbox.tally().records);
    }
    let left = targets(&two[1], &Filter::default(), 1_000).await;
    let want: Vec<String> =
        (500 - left.len()..500).rev().map(|number| number.to_string()).collect();
    assert_eq!(left, want);
    let page = two[0].list(&Filter::default(), None, 1).await.unwrap();
    assert_eq!(page.trimmed, 500 - left.len() as u64);
    // What is counted is what there is.
    let page = stage.store.range(RangeRequest::from(keys::audit_records())).await.unwrap();
    let bytes: usize = page.entries.iter().map(mainstay_store::Entry::bytes).sum();
    let found = Tally { records: page.count, bytes: bytes as u64 };
    eventually("it is counted", || two[0].tally() == found && two[1].tally() == found).await;
}

#[tokio::test]
async fn at_the_limit_nothing_is_changed_until_the_log_takes_records_over() {
    let stage = Stage::memory();
    let required = Limits { is_required: true, ..limits(10) };
    let outbox = outbox(&stage, stage.store.clone(), required);
    for number in 0..10 {
        outbox.admit(&Author::default()).unwrap();
        outbox.note(&record("user/a", "switch:write", &number.to_string())).await.unwrap();
        stage.settle().await;
        eventually("it is counted", || outbox.tally().records == number + 1).await;
    }
    let refused = outbox.admit(&Author::default()).unwrap_err();
    assert_eq!((refused.code(), refused.is_retryable()), (Code::AuditUnavailable, true));
    let told = refused.to_string();
    assert!(told.contains("10 records") && told.contains("does not take over"), "{told}");

    outbox.filled().await;
    let waiting = outbox.waiting().await.unwrap();
    assert!(waiting.is_sorted_by_key(|waiting| waiting.revision), "{waiting:?}");
    outbox.taken(&waiting[..9], None).await.unwrap();
    outbox.taken(&waiting[..9], None).await.unwrap();
    eventually("it is counted", || outbox.admit(&Author::default()).is_ok()).await;
    assert_eq!(targets(&outbox, &Filter::default(), 100).await, ["9"]);
}

#[tokio::test]
async fn what_a_log_took_over_is_found_by_every_node_while_it_is_new() {
    let stage = Stage::memory();
    let two = [(); 2].map(|()| outbox(&stage, stage.store.clone(), Limits::default()));
    for number in 0..300 {
        two[0].note(&record("user/a", "switch:write", &number.to_string())).await.unwrap();
        if number == 150 {
            let waiting = two[0].waiting().await.unwrap();
            two[0].taken(&waiting, Some(100)).await.unwrap();
            two[0].taken(&waiting, Some(100)).await.unwrap();
        }
    }
    let all: Vec<String> = (0..300).rev().map(|number| number.to_string()).collect();
    for limit in [7, 1_000] {
        assert_eq!(targets(&two[1], &Filter::default(), limit).await, all);
    }
    eventually("only those that wait are counted", || two[1].tally().records == 149).await;
    two[0].sweep(100).await.unwrap();
    let left = targets(&two[1], &Filter::default(), 1_000).await;
    assert_eq!(left, all[..249]);
    let oldest = two[1].kept_from().await.unwrap().unwrap().to_string();
    assert_eq!(two[1].get(&oldest).await.unwrap().unwrap().record.target.id, "51");
    assert_eq!(two[1].waiting().await.unwrap().len(), 149);
}

#[tokio::test]
async fn what_is_agreed_about_logs_is_no_record() {
    let stage = Stage::memory();
    let outbox = outbox(&stage, stage.store.clone(), Limits::default());
    assert_eq!(outbox.holder().await.unwrap(), None);
    let holder = Holder::new("one".to_owned(), "127.0.0.1:7400".to_owned());
    outbox.hold(&holder).await.unwrap();
    outbox.put_head("a/b", "old").await.unwrap();
    outbox.put_head("a/b", "new").await.unwrap();
    assert_eq!(outbox.holder().await.unwrap(), Some(holder));
    assert_eq!(outbox.heads().await.unwrap(), [("a/b".to_owned(), "new".to_owned())]);
    outbox.note(&record("user/a", "switch:write", "x")).await.unwrap();
    eventually("it is counted", || outbox.tally().records == 1).await;
    assert_eq!(targets(&outbox, &Filter::default(), 100).await, ["x"]);
}

#[tokio::test]
async fn a_record_noted_twice_is_one() {
    for fault in [Fault::Applied, Fault::Lost] {
        let stage = Stage::memory();
        let faulty = Faulty::new(stage.store.clone());
        let outbox = outbox(&stage, faulty.clone(), Limits::default());
        faulty.set(fault);
        let record = record("user/a", "login", "x");
        let (noted, ()) = tokio::join!(outbox.note(&record), stage.pass(Duration::from_secs(1)));
        noted.unwrap();
        assert_eq!(targets(&outbox, &Filter::default(), 10).await, ["x"], "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_refused_is_recorded_soon_and_a_flood_as_one() {
    let stage = Stage::embedded();
    let outbox = outbox(&stage, Arc::clone(&stage.store), limits(1_000));
    for _ in 0..130 {
        outbox.tell(
            record("anonymous", "api:write", "/x")
                .instead(Outcome::Refused, Code::CredentialMissing),
        );
    }
    let all = || async { outbox.list(&Filter::default(), None, 1_000).await.unwrap().items };
    let mut kept = Vec::new();
    for _ in 0..200 {
        stage.clock.advance(Duration::from_millis(600));
        tokio::time::sleep(Duration::from_millis(5)).await;
        kept = all().await;
        if kept.len() == 101 {
            break;
        }
    }
    assert_eq!(kept.len(), 101, "a hundred, and one of the others");
    assert_eq!(kept.iter().map(|listed| listed.record.count()).sum::<u64>(), 130);
    assert!(kept.iter().all(|listed| listed.record.outcome == Outcome::Refused));

    // What is on its way is put before the end.
    outbox.tell(record("a", "b", "c").instead(Outcome::Failed, Code::StoreFull));
    assert_eq!(outbox.shutdown(Duration::from_secs(5)).await, 0);
    assert_eq!(all().await.len(), 102);
}
