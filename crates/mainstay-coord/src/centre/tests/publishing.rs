//! Publishing, history, differences, rolling back.

use mainstay_core::problem::Code;
use serde_json::json;

use super::stage::{World, anna, by, gets, payment, publication, publish, texts};
use crate::centre::{Editor, Turn};

#[tokio::test]
async fn a_group_changes_as_a_whole_and_releases_count_from_one() {
    for world in [World::memory(), World::embedded()] {
        let (node, group) = (world.node("n1").await, payment());
        assert_eq!(node.fetch(&group, None, false).await.unwrap_err().code(), Code::ConfigNotFound);
        let first = publish(&node, &group, &["a=1", "b=2"]).await.unwrap();
        assert_eq!((first.release, first.is_new), (1, true));
        assert_eq!(gets(&node, &group).await, "1: a=1 b=2");
        let second = publish(&node, &group, &["a=3", "-b", "c=4"]).await.unwrap();
        assert_eq!(second.release, 2);
        let turns: Vec<(&str, Turn)> =
            second.changed.iter().map(|it| (&*it.item, it.change)).collect();
        assert_eq!(turns, [("a", Turn::Changed), ("b", Turn::Removed), ("c", Turn::Added)]);
        assert_eq!(gets(&node, &group).await, "2: a=3 c=4");
        // What was there before is what `complete` leaves out.
        let mut whole = texts(&["a=3"]);
        whole.complete = true;
        node.publish(&group, &whole, &anna()).await.unwrap();
        assert_eq!(gets(&node, &group).await, "3: a=3");
        // Another node reads the same.
        assert_eq!(gets(&world.node("n2").await, &group).await, "3: a=3");
        assert_eq!(node.shutdown(std::time::Duration::from_secs(5)).await, 0);
    }
}

#[tokio::test]
async fn nothing_changed_gives_no_new_number() {
    let world = World::memory();
    let (node, group) = (world.node("n1").await, payment());
    publish(&node, &group, &["a=1"]).await.unwrap();
    let again = publish(&node, &group, &["a=1", "-missing"]).await.unwrap();
    assert_eq!((again.release, again.is_new), (1, false));
    assert!(again.changed.is_empty());
    let drafted = publication(json!({ "from_drafts": true }));
    let nothing = node.publish(&super::stage::group("none"), &drafted, &anna()).await;
    assert_eq!(nothing.unwrap_err().code(), Code::ConfigNotFound);
    let empty = publish(&node, &group, &[]).await.unwrap_err();
    assert_eq!(empty.to_string(), "items must not be empty without `from_drafts`");
    // The format is part of it.
    let json = publication(json!({ "items": { "a": { "content": "1", "format": "json" } } }));
    assert_eq!(node.publish(&group, &json, &anna()).await.unwrap().release, 2);
    assert_eq!(node.head(&group).unwrap().last, 2);
}

#[tokio::test]
async fn a_base_that_moved_is_refused_and_nobody_s_change_is_lost() {
    let world = World::memory();
    let (node, group) = (world.node("n1").await, payment());
    publish(&node, &group, &["a=1"]).await.unwrap();
    let on_one = Editor { author: by("bo"), base: Some(1), dry_run: false };
    node.publish(&group, &texts(&["a=2"]), &on_one).await.unwrap();
    let late = node.publish(&group, &texts(&["a=3"]), &on_one).await.unwrap_err();
    assert_eq!(late.code(), Code::RevisionMoved);
    assert_eq!(late.to_string(), "group default/payment is at release 2, not 1");
    assert_eq!(gets(&node, &group).await, "2: a=2");
    let preview = node.preview(&group, &texts(&["a=3"]), &on_one).await.unwrap_err();
    assert_eq!(preview.code(), Code::RevisionMoved);
}

#[tokio::test]
async fn many_publish_at_once_and_every_change_is_in() {
    for world in [World::memory(), World::embedded()] {
        let (n1, n2) = (world.node("n1").await, world.node("n2").await);
        let group = payment();
        let publishing = (0..16).map(|n| {
            let (node, group) = (if n % 2 == 0 { n1.clone() } else { n2.clone() }, group.clone());
            async move { publish(&node, &group, &[&format!("i{n}=x")]).await.unwrap().release }
        });
        let mut numbers = futures_util::future::join_all(publishing).await;
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=16).collect::<Vec<u64>>());
        let all = n1.release(&group, 16, false).await.unwrap().1;
        assert_eq!(all.len(), 16);
    }
}

#[tokio::test]
async fn a_preview_shows_lines_and_writes_nothing() {
    let world = World::memory();
    let (node, group) = (world.node("n1").await, payment());
    publish(&node, &group, &["a=one\ntwo\n", "b=same"]).await.unwrap();
    let before = world.stage.store.status().await.unwrap().revision;
    let wanted = texts(&["a=one\n2\n", "c=new\n", "-b"]);
    let diff = node.preview(&group, &wanted, &anna()).await.unwrap();
    assert_eq!((diff.from, diff.to), (1, 2));
    let shown: Vec<(&str, Turn)> = diff.items.iter().map(|it| (&*it.item, it.change)).collect();
    assert_eq!(shown, [("a", Turn::Changed), ("b", Turn::Removed), ("c", Turn::Added)]);
    let lines = diff.items[0].unified.as_deref().unwrap();
    assert_eq!(lines, "@@ -1,2 +1,2 @@\n one\n-two\n+2\n");
    assert_eq!(world.stage.store.status().await.unwrap().revision, before);
    node.publish(&group, &wanted, &anna()).await.unwrap();
    assert_eq!(node.diff(&group, 1, 2).await.unwrap(), diff);
    let nothing = node.diff(&group, 0, 1).await.unwrap();
    assert!(nothing.items.iter().all(|it| it.change == Turn::Added));
    assert_eq!(node.diff(&group, 1, 9).await.unwrap_err().code(), Code::ReleaseNotFound);
}

#[tokio::test]
async fn going_back_appends() {
    let world = World::memory();
    let (node, group) = (world.node("n1").await, payment());
    publish(&node, &group, &["a=1", "b=1"]).await.unwrap();
    publish(&node, &group, &["a=2"]).await.unwrap();
    let back = node.roll_back(&group, 1, "too slow", &anna()).await.unwrap();
    assert_eq!((back.release, back.changed.len()), (3, 1));
    assert_eq!(gets(&node, &group).await, "3: a=1 b=1");
    let again = node.roll_back(&group, 1, "", &anna()).await.unwrap();
    assert_eq!((again.release, again.is_new), (3, false));
    let missing = node.roll_back(&group, 9, "", &anna()).await.unwrap_err();
    assert_eq!(missing.to_string(), "group default/payment has no release 9");
    let history = node.history(&group, None, 10).await.unwrap();
    assert_eq!(history.iter().map(|it| it.release).collect::<Vec<_>>(), [3, 2, 1]);
    let newest = &history[0];
    assert_eq!((newest.rollback_of, newest.base, &*newest.note), (Some(1), 2, "too slow"));
    assert_eq!((&*newest.who, newest.items["a"].since), ("anna", 1));
    let page = node.history(&group, Some(3), 1).await.unwrap();
    assert_eq!(page.iter().map(|it| it.release).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn drafts_are_published_together_and_put_away() {
    let world = World::memory();
    let (node, group) = (world.node("n1").await, payment());
    publish(&node, &group, &["a=1", "b=1"]).await.unwrap();
    let item = |json| Some(serde_json::from_value(json).unwrap());
    node.edit_draft(&group, "a", item(json!({ "content": "2" })), &by("bo")).await.unwrap();
    let hidden = json!({ "content": "hush", "secret": true });
    node.edit_draft(&group, "key", item(hidden), &by("bo")).await.unwrap();
    node.edit_draft(&group, "b", None, &by("cleo")).await.unwrap();
    node.edit_draft(&group, "gone", item(json!({ "content": "x" })), &by("bo")).await.unwrap();
    node.remove_draft(&group, "gone", &by("bo")).await.unwrap();
    let missing = node.remove_draft(&group, "gone", &by("bo")).await.unwrap_err();
    assert_eq!(missing.code(), Code::ConfigNotFound);
    let drafts = node.drafts(&group).await.unwrap();
    let listed: Vec<(&str, bool, &str)> =
        drafts.iter().map(|it| (&*it.item, it.removes, &*it.who)).collect();
    assert_eq!(listed, [("a", false, "bo"), ("b", true, "cleo"), ("key", false, "bo")]);
    assert_eq!(gets(&node, &group).await, "1: a=1 b=1", "nothing is in force before");

    let drafted = publication(json!({ "from_drafts": true, "note": "all" }));
    let done = node.publish(&group, &drafted, &anna()).await.unwrap();
    assert_eq!(done.release, 2);
    let got = node.fetch(&group, None, true).await.unwrap();
    assert_eq!(super::stage::said(&got), "2: a=2 key=hush");
    assert!(node.drafts(&group).await.unwrap().is_empty());
    // A draft that says what is in force is put away without a release.
    node.edit_draft(&group, "a", item(json!({ "content": "2" })), &by("bo")).await.unwrap();
    let same = node.publish(&group, &drafted, &anna()).await.unwrap();
    assert_eq!((same.release, same.is_new), (2, false));
    assert!(node.drafts(&group).await.unwrap().is_empty());
}

#[tokio::test]
async fn sizes_are_limited_where_they_come_in() {
    let world = World::memory();
    let (node, group) = (world.node("n1").await, payment());
    let big = "x".repeat(524_289);
    let error = publish(&node, &group, &[&format!("a={big}")]).await.unwrap_err();
    assert_eq!(error.code(), Code::ValueTooLarge);
    let told = "content of item a has 524289 bytes, and may have 524288";
    assert_eq!(error.to_string(), told);
    // Several of the largest fit: they go in batches of their own.
    let fits = "x".repeat(524_288);
    let (a, b, c) =
        (format!("a={fits}"), format!("b={fits}"), format!("c={}", fits.replace('x', "z")));
    publish(&node, &group, &[&a, &b, &c]).await.unwrap();
    let many: Vec<String> = (0..513).map(|n| format!("i{n}=x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = publish(&node, &payment(), &many).await.unwrap_err();
    assert_eq!(error.to_string(), "group default/payment has 516 items, and may have 512");
    publish(&node, &super::stage::group("full"), &many[..512]).await.unwrap();
    let error = publish(&node, &group, &["a b=1"]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidRequest);
    let note = "n".repeat(1_025);
    let long = publication(json!({ "items": { "a": { "content": "1" } }, "note": note }));
    let error = node.publish(&group, &long, &anna()).await.unwrap_err();
    assert_eq!(error.to_string(), "note must be at most 1024 bytes");
}
