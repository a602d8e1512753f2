//! Changing, looking back, going back.

use std::time::Duration;

use mainstay_coord::audit::Mask;
use mainstay_coord::keys::RuleRef;
use mainstay_coord::name::Namespace;
use mainstay_coord::revisions::sweep::Retention;
use mainstay_coord::revisions::{RuleError, Terms};
use mainstay_coord::{Moment, Timer};
use mainstay_core::problem::Code;
use mainstay_store::Store;
use serde_json::{Value, json};

use crate::stage::{Desk, LIMIT, OnDisk, by, limit};
use crate::world::{Fate, World, settle};

fn quota(quota: u64) -> Value {
    json!({"quota": quota, "token": format!("secret {quota}")})
}

#[track_caller]
fn refused(outcome: Result<impl std::fmt::Debug, RuleError>, code: Code) -> RuleError {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    error
}

/// Numbers, authors and what each came from, newest first.
async fn past(desk: &Desk, name: &str) -> Vec<(u64, String, Option<u64>, bool)> {
    let page = desk.rules.history(&limit(name), None, 100).await.unwrap();
    let line = page.items.into_iter();
    line.map(|item| (item.revision, item.who, item.rollback_of, item.removed)).collect()
}

async fn life_of_an_object(desk: Desk) {
    is_made(&desk).await;
    is_changed(&desk).await;
    is_brought_back(&desk).await;
    has_a_past(&desk).await;
    has_records(&desk).await;
}

async fn is_made(desk: &Desk) {
    let (rules, a) = (&desk.rules, limit("a"));
    refused(rules.get(&a).await, Code::NotFound);
    refused(rules.put(&LIMIT, &a, quota(1), &by("ann").expecting(7)).await, Code::RevisionMoved);
    let first = rules.put(&LIMIT, &a, quota(1), &by("ann").expecting(0)).await.unwrap();
    assert_eq!((first.revision, first.changed, first.diff.from), (1, true, 0));
    refused(rules.put(&LIMIT, &a, quota(2), &by("bob").expecting(0)).await, Code::RevisionMoved);
}

async fn is_changed(desk: &Desk) {
    let (rules, a) = (&desk.rules, limit("a"));
    // A dry run shows what would be, and changes nothing.
    let shown = rules.put(&LIMIT, &a, quota(2), &by("bob").rehearsed()).await.unwrap();
    assert_eq!((shown.revision, shown.changed), (2, true));
    assert_eq!(shown.diff.fields.len(), 2);
    assert_eq!(rules.get(&a).await.unwrap().revision, 1);

    rules.put(&LIMIT, &a, quota(2), &by("bob").expecting(1)).await.unwrap();
    let same = rules.put(&LIMIT, &a, quota(2), &by("cy")).await.unwrap();
    assert_eq!((same.revision, same.changed), (2, false), "what is there already is no change");
    let moved = rules.put(&LIMIT, &a, quota(3), &by("cy").expecting(1)).await;
    let RuleError::Moved { found, current, .. } = refused(moved, Code::RevisionMoved) else {
        unreachable!()
    };
    let shown = json!({"quota": 2, "token": marks().1});
    assert_eq!((found, current.unwrap().content), (2, shown), "it says what is there");
}

async fn is_brought_back(desk: &Desk) {
    let (rules, a) = (&desk.rules, limit("a"));
    rules.remove(&LIMIT, &a, &by("ann")).await.unwrap();
    refused(rules.get(&a).await, Code::NotFound);
    refused(rules.remove(&LIMIT, &a, &by("ann")).await, Code::NotFound);
    refused(rules.rollback(&LIMIT, &a, 3, &by("ann")).await, Code::NotFound);
    let back = rules.rollback(&LIMIT, &a, 1, &by("dee")).await.unwrap();
    assert_eq!(back.revision, 4);
    assert_eq!(rules.get(&a).await.unwrap().content, quota(1));
    rules.rollback(&LIMIT, &a, 2, &by("dee")).await.unwrap();
    // Going back to the first keeps it.
    rules.rollback(&LIMIT, &a, 1, &by("dee")).await.unwrap();
}

async fn has_a_past(desk: &Desk) {
    let (rules, a) = (&desk.rules, limit("a"));
    let line = |number, who: &str, of, removed| (number, who.to_owned(), of, removed);
    assert_eq!(
        past(desk, "a").await,
        [
            line(6, "dee", Some(1), false),
            line(5, "dee", Some(2), false),
            line(4, "dee", Some(1), false),
            line(3, "ann", None, true),
            line(2, "bob", None, false),
            line(1, "ann", None, false),
        ]
    );
    let page = rules.history(&limit("a"), Some(4), 2).await.unwrap();
    assert_eq!(page.items.iter().map(|item| item.revision).collect::<Vec<_>>(), [4, 3]);
    assert_eq!(page.next, Some(2));
    assert_eq!(rules.history(&limit("a"), page.next, 2).await.unwrap().next, None);

    let diff = rules.diff(&LIMIT, &a, 1, 2).await.unwrap();
    let marks = marks();
    assert_eq!((&diff.fields[1].before, &diff.fields[1].after), (&marks.0, &marks.1));
    assert!(!diff.unified.contains("secret"), "{}", diff.unified);
    refused(rules.diff(&LIMIT, &a, 1, 99).await, Code::NotFound);
}

/// What is shown of both secrets.
fn marks() -> (Value, Value) {
    let mask = Mask::new(b"audit key");
    (json!(mask.mark(&json!("secret 1"))), json!(mask.mark(&json!("secret 2"))))
}

/// One record a change, none of them with a secret in it.
async fn has_records(desk: &Desk) {
    let records = desk.records().await;
    let told: Vec<_> = records
        .iter()
        .map(|listed| (listed.record.target.revision_before, listed.record.target.revision_after))
        .collect();
    let some = |before, after| (before, Some(after));
    assert_eq!(
        told,
        [
            some(None, 1),
            some(Some(1), 2),
            some(Some(2), 3),
            some(None, 4),
            some(Some(4), 5),
            some(Some(5), 6)
        ]
    );
    assert!(records.iter().all(|listed| listed.record.action == "limit:write"));
    assert!(!serde_json::to_string(&records).unwrap().contains("secret"));
    assert_eq!(records[1].record.after["token"], marks().1);
}

#[tokio::test]
async fn an_object_is_changed_removed_and_brought_back() {
    life_of_an_object(Desk::in_world(&World::new())).await;
    let disk = OnDisk::new();
    life_of_an_object(disk.desk()).await;
}

#[tokio::test]
async fn what_is_kept_elsewhere_is_changed_there_only() {
    let world = World::new();
    let desk = Desk::in_world(&world);
    let (rules, a) = (&desk.rules, limit("a"));
    let file = Terms { managed_by: Some("file:/etc/a.toml".to_owned()), ..by("system/files") };
    rules.put(&LIMIT, &a, quota(1), &file).await.unwrap();
    assert_eq!(rules.get(&a).await.unwrap().managed_by, file.managed_by);
    let told = refused(rules.put(&LIMIT, &a, quota(2), &by("ann")).await, Code::ManagedElsewhere);
    assert!(told.to_string().contains("file:/etc/a.toml"), "{told}");
    refused(rules.remove(&LIMIT, &a, &by("ann")).await, Code::ManagedElsewhere);
    refused(rules.rollback(&LIMIT, &a, 1, &by("ann")).await, Code::ManagedElsewhere);
    rules.put(&LIMIT, &a, quota(2), &file).await.unwrap();
    let b = limit("b");
    rules.put(&LIMIT, &b, quota(1), &by("ann")).await.unwrap();
    refused(rules.put(&LIMIT, &b, quota(1), &file).await, Code::ManagedElsewhere);
    rules.remove(&LIMIT, &b, &by("ann")).await.unwrap();
    rules.put(&LIMIT, &b, quota(1), &file).await.unwrap();
}

#[tokio::test]
async fn what_its_kind_does_not_allow_is_refused_with_all_that_is_wrong() {
    let world = World::new();
    let desk = Desk::in_world(&world);
    let (rules, a) = (&desk.rules, limit("a"));
    let error = refused(rules.put(&LIMIT, &a, json!({}), &by("ann")).await, Code::InvalidRule);
    let RuleError::Invalid { faults, .. } = error else { unreachable!() };
    assert_eq!(
        serde_json::to_value(&faults).unwrap(),
        json!([{
            "path": "quota", "line": null, "column": null, "code": "config-out-of-range",
            "detail": "quota must be a number", "suggestion": null
        }])
    );
    let long = json!({"quota": 1, "note": "x".repeat(524_288)});
    refused(rules.put(&LIMIT, &a, long, &by("ann")).await, Code::InvalidRule);
    let mut terms = by("ann");
    terms.author.reason = Some("ab".to_owned());
    refused(rules.put(&LIMIT, &a, quota(1), &terms).await, Code::ReasonRequired);
    // The largest content there may be still fits into a batch.
    let most = json!({"quota": 1, "note": "x".repeat(524_288 - 22)});
    rules.put(&LIMIT, &a, most, &by("ann")).await.unwrap();
}

#[tokio::test]
async fn objects_are_listed_by_name() {
    let world = World::new();
    let desk = Desk::in_world(&world);
    for name in ["c", "a", "b", "gone"] {
        desk.rules.put(&LIMIT, &limit(name), quota(1), &by("ann")).await.unwrap();
    }
    desk.rules.remove(&LIMIT, &limit("gone"), &by("ann")).await.unwrap();
    let namespace = Namespace::new("shop").unwrap();
    let list = async |after: Option<&str>, limit| {
        let after = after.map(self::limit);
        let page = desk.rules.list(&LIMIT, Some(&namespace), after.as_ref(), limit).await.unwrap();
        let names: Vec<String> = page.items.into_iter().map(|object| object.name).collect();
        (names.join(" "), page.next)
    };
    assert_eq!(list(None, 10).await, ("a b c".to_owned(), None));
    assert_eq!(list(None, 2).await, ("a b".to_owned(), Some("b".to_owned())));
    assert_eq!(list(Some("b"), 2).await, ("c".to_owned(), None));
    let other = Namespace::new("other").unwrap();
    assert_eq!(desk.rules.list(&LIMIT, Some(&other), None, 2).await.unwrap().items, []);
    // Of all namespaces, the next one is told with its own.
    let (other, after) = (RuleRef { namespace: other, ..limit("z") }, limit("c"));
    desk.rules.put(&LIMIT, &other, quota(1), &by("ann")).await.unwrap();
    let page = desk.rules.list(&LIMIT, None, None, 1).await.unwrap();
    assert_eq!((&*page.items[0].name, page.next.as_deref()), ("z", Some("other/z")));
    let page = desk.rules.list(&LIMIT, None, Some(&after), 5).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, None));
}

#[tokio::test]
async fn an_unknown_outcome_becomes_known() {
    for fate in [Fate::AnswerLost, Fate::Lost, Fate::Late] {
        let world = World::new();
        let desk = Desk::in_world(&world);
        let a = limit("a");
        desk.rules.put(&LIMIT, &a, quota(1), &by("ann")).await.unwrap();
        desk.link.script([fate]);
        let rules = desk.rules.clone();
        let putting = tokio::spawn(async move {
            rules.put(&LIMIT, &limit("a"), quota(2), &by("bob").expecting(1)).await
        });
        world.pass(1_000).await;
        let written = putting.await.unwrap().unwrap();
        assert_eq!((written.revision, written.changed), (2, true), "{fate:?}");
        desk.link.deliver().await;
        assert_eq!(past(&desk, "a").await.len(), 2, "{fate:?}");
        assert_eq!(desk.records().await.len(), 2, "{fate:?}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_not_taken_for_somebody_elses_change() {
    for fate in [Fate::AnswerLost, Fate::Lost] {
        let world = World::new();
        let (desk, other) = (Desk::in_world(&world), Desk::in_world(&world));
        desk.rules.put(&LIMIT, &limit("a"), quota(1), &by("ann")).await.unwrap();
        desk.link.script([fate]);
        let rules = desk.rules.clone();
        let putting = tokio::spawn(async move {
            rules.put(&LIMIT, &limit("a"), quota(2), &by("bob").expecting(1)).await
        });
        settle().await;
        // Before it looks, somebody else puts the same content, or another on top of its own.
        let content = if fate == Fate::Lost { quota(2) } else { quota(3) };
        other.rules.put(&LIMIT, &limit("a"), content, &by("cy")).await.unwrap();
        world.pass(1_000).await;
        let outcome = putting.await.unwrap();
        if fate == Fate::Lost {
            refused(outcome, Code::RevisionMoved);
        } else {
            assert_eq!(outcome.unwrap().revision, 2);
        }
    }
}

#[tokio::test]
async fn what_stays_unknown_says_so() {
    let world = World::new();
    let desk = Desk::in_world(&world);
    desk.link.script([Fate::AnswerLost]);
    let (rules, link) = (desk.rules.clone(), desk.link.clone());
    let putting =
        tokio::spawn(async move { rules.put(&LIMIT, &limit("a"), quota(1), &by("ann")).await });
    settle().await;
    link.cut(true);
    world.pass(7_000).await;
    refused(putting.await.unwrap(), Code::OutcomeUnknown);
}

#[tokio::test]
async fn what_is_old_is_swept_and_told() {
    let world = World::new();
    let desk = Desk::in_world(&world);
    let (rules, a) = (&desk.rules, limit("a"));
    for number in 1..=130 {
        rules.put(&LIMIT, &a, quota(number), &by("ann")).await.unwrap();
    }
    rules.put(&LIMIT, &limit("b"), quota(1), &by("ann")).await.unwrap();
    let now = Moment::from_unix_millis(Timer::unix_millis(&desk.clock));
    let year = Duration::from_hours(365 * 24);
    let keep = Retention::default();
    assert_eq!(rules.sweep(&LIMIT, keep, now.plus(year / 2)).await.unwrap(), 0);
    assert_eq!(rules.sweep(&LIMIT, keep, now.plus(year * 2)).await.unwrap(), 30);
    assert_eq!(rules.sweep(&LIMIT, keep, now.plus(year * 2)).await.unwrap(), 0);
    let page = rules.history(&a, None, 1_000).await.unwrap();
    assert_eq!((page.items.len(), page.items[99].revision, page.next), (100, 31, None));
    refused(rules.rollback(&LIMIT, &a, 30, &by("ann")).await, Code::NotFound);
    assert_eq!(rules.rollback(&LIMIT, &a, 31, &by("ann")).await.unwrap().revision, 131);
    let swept = desk.records().await.into_iter().filter(|at| at.record.action == "limit:sweep");
    let reasons: Vec<_> = swept.map(|listed| listed.record.reason.unwrap()).collect();
    assert_eq!(reasons, ["revisions 1 to 30 are too old"]);
}

#[tokio::test]
async fn what_was_removed_long_ago_is_forgotten() {
    let world = World::new();
    let desk = Desk::in_world(&world);
    let rules = &desk.rules;
    for name in ["gone", "back"] {
        rules.put(&LIMIT, &limit(name), quota(1), &by("ann")).await.unwrap();
        rules.remove(&LIMIT, &limit(name), &by("ann")).await.unwrap();
    }
    rules.rollback(&LIMIT, &limit("back"), 1, &by("ann")).await.unwrap();
    let now = Moment::from_unix_millis(Timer::unix_millis(&desk.clock));
    let year = Duration::from_hours(365 * 24);
    let keep = Retention::default();
    assert_eq!(rules.sweep(&LIMIT, keep, now.plus(year / 2)).await.unwrap(), 0);
    assert_eq!(rules.sweep(&LIMIT, keep, now.plus(year * 2)).await.unwrap(), 2);
    refused(rules.history(&limit("gone"), None, 10).await, Code::NotFound);
    assert_eq!(past(&desk, "back").await.len(), 3);
    let made = rules.put(&LIMIT, &limit("gone"), quota(2), &by("ann")).await.unwrap();
    assert_eq!(made.revision, 1);
}

#[tokio::test]
async fn a_node_follows_and_lists_anew_where_history_was_lost() {
    let world = World::new();
    let (desk, other) = (Desk::in_world(&world), Desk::in_world(&world));
    let followed = other.rules.follow(LIMIT.key, |content| Some(content["quota"].clone()));
    let mut told = followed.subscribe();
    let quota_of =
        |name: &str| followed.snapshot().get(&limit(name)).map(|kept| kept.content.clone());
    world.pass(100).await;
    assert!(followed.snapshot().is_loaded());
    desk.rules.put(&LIMIT, &limit("a"), quota(1), &by("ann")).await.unwrap();
    let written = desk.rules.put(&LIMIT, &limit("b"), quota(1), &by("ann")).await.unwrap();
    assert!(followed.reached(mainstay_store::Revision::new(written.store_revision)).await);
    assert!(told.has_changed().unwrap());
    assert_eq!((quota_of("a"), quota_of("b")), (Some(json!(1)), Some(json!(1))));

    // Cut off, it goes on with what it has, and says so.
    other.link.cut(true);
    world.pass(30_000).await;
    assert!(followed.snapshot().stale_since.is_some());
    assert_eq!(quota_of("a"), Some(json!(1)));
    desk.rules.remove(&LIMIT, &limit("a"), &by("ann")).await.unwrap();
    for number in 2..20 {
        desk.rules.put(&LIMIT, &limit("b"), quota(number), &by("ann")).await.unwrap();
    }
    world.memory.compact(world.revision().await).await.unwrap();
    other.link.cut(false);
    world.pass(15_000).await;
    assert_eq!((quota_of("a"), quota_of("b")), (None, Some(json!(19))));
    assert_eq!(followed.snapshot().stale_since, None);
    told.mark_unchanged();
    desk.rules.rollback(&LIMIT, &limit("a"), 1, &by("ann")).await.unwrap();
    settle().await;
    assert!(told.has_changed().unwrap());
    assert_eq!(quota_of("a"), Some(json!(1)));
    assert_eq!(other.rules.shutdown(Duration::from_secs(5)).await, 0);
}
