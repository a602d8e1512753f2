//! Watches.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream as _;

use super::validators::{self, Record};
use super::{Doing, Exam, after, fail, key, put};
use crate::batch::{Answer, Applied, Batch, Op, Put};
use crate::entry::{Entry, Revision};
use crate::key::{Key, Range};
use crate::watch::{Change, Event, Watch, WatchItem, WatchRequest};

impl Exam {
    fn watch(&self, request: WatchRequest) -> Watch {
        self.store.watch(request).unwrap_or_else(|error| fail("a watch", &error))
    }
}

/// The items of a watch up to, and with, the changes of `last`, or its end.
async fn up_to(watch: &mut Watch, last: Revision) -> Vec<WatchItem> {
    let mut items = Vec::new();
    while let Some(item) = watch.next().await {
        let is_there = matches!(&item, WatchItem::Changes { revision, .. } if last <= *revision);
        items.push(item);
        if is_there {
            break;
        }
    }
    items
}

/// What a watch yields without waiting.
async fn ready(watch: &mut Watch) -> Option<WatchItem> {
    std::future::poll_fn(|context| {
        let item = Pin::new(&mut *watch).poll_next(context);
        Poll::Ready(if let Poll::Ready(item) = item { item } else { None })
    })
    .await
}

fn revisions(items: &[WatchItem]) -> Vec<Revision> {
    let revision = |item: &WatchItem| match item {
        WatchItem::Changes { revision, .. } => Some(*revision),
        _ => None,
    };
    items.iter().filter_map(revision).collect()
}

pub(super) fn beginnings(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let first = exam.put("w", "1").await;
        exam.put("w", "2").await;
        let third = exam.put("w", "3").await;
        let one = || WatchRequest::new(Range::key(&key("w"))).quiet();
        let mut after_now = exam.watch(one());
        let created = after_now.next().await;
        assert_eq!(created, Some(WatchItem::Created { revision: third }));
        let mut from_first = exam.watch(one().from(first));
        let mut from_second = exam.watch(one().from(first.next()));
        let mut from_future = exam.watch(one().from(after(third, 2)));
        assert!(matches!(from_future.next().await, Some(WatchItem::Created { .. })));
        let fourth = exam.put("w", "4").await;
        let fifth = exam.put("w", "5").await;
        assert_eq!(fifth, after(third, 2));
        let all = [first, first.next(), third, fourth, fifth];
        for (watch, want) in [
            (&mut after_now, &all[3..]),
            (&mut from_first, &all[..]),
            (&mut from_second, &all[1..]),
            (&mut from_future, &all[4..]),
        ] {
            assert_eq!(revisions(&up_to(watch, fifth).await), want);
        }
        exam.store.compact(third).await.expect("a past revision can be compacted");
        for from in [Revision::NEVER, first, third] {
            let ended = up_to(&mut exam.watch(one().from(from)), fifth).await;
            let compacted = WatchItem::Compacted { compacted: third };
            assert_eq!(ended.last(), Some(&compacted), "from {from}");
            assert!(revisions(&ended).is_empty(), "from {from}");
        }
        let rest = up_to(&mut exam.watch(one().from(fourth)), fifth).await;
        assert_eq!(revisions(&rest), [fourth, fifth], "history after the compacted revision");
    })
}

pub(super) fn validated(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let base = exam.revision().await.next();
        let requests = [
            WatchRequest::new(Range::all()).previous(),
            WatchRequest::new(Range::prefix("d/1")),
            WatchRequest::new(Range::key(&key("d/3"))).previous(),
            WatchRequest::new(Range::prefix("d/")).deletes_only().previous(),
            WatchRequest::new(Range::prefix("d/")).puts_only(),
        ];
        let mut live: Vec<(WatchRequest, Watch, Vec<WatchItem>)> = Vec::new();
        for request in requests.iter().cloned().map(|request| request.quiet().from(base)) {
            let watch = exam.watch(request.clone());
            live.push((request, watch, Vec::new()));
        }
        let mut history = Vec::new();
        for step in 0..300 {
            let batch = busy(step);
            let ops = batch.then.clone();
            history.extend(happened(&ops, &exam.apply(batch).await));
        }
        let last = exam.put("d/end", "end").await;
        history.push((last, vec![created("d/end", "end", last)]));
        // Everybody is woken once more by the end, whatever they watch.
        for (request, watch, items) in &mut live {
            let end = record_until(watch, request, &history, last).await;
            items.extend(end);
            verify(request, items, &history);
        }
        // From anywhere in history, and with what is left to read elsewhere.
        for request in requests {
            for from in [base, after(base, 17), after(base, 101), last] {
                let request = request.clone().quiet().from(from);
                let mut watch = exam.watch(request.clone());
                let items = record_until(&mut watch, &request, &history, last).await;
                verify(&request, &items, &history);
            }
        }
    })
}

/// Reads on until the last matching revision up to `last`.
async fn record_until(
    watch: &mut Watch,
    request: &WatchRequest,
    history: &[(Revision, Vec<Event>)],
    last: Revision,
) -> Vec<WatchItem> {
    let from = request.from.unwrap_or(Revision::NEVER);
    let matching = history.iter().rev().find(|(revision, events)| {
        from <= *revision && *revision <= last && events.iter().any(|event| request.wants(event))
    });
    match matching {
        Some((revision, _)) => up_to(watch, *revision).await,
        None => Vec::new(),
    }
}

fn verify(request: &WatchRequest, items: &[WatchItem], history: &[(Revision, Vec<Event>)]) {
    let record = Record { request, items, history };
    if let Err(broken) = validators::all(record) {
        fail::<()>(&format!("{request:?}"), &broken);
    }
}

/// Some batch: a few keys, put and deleted in turn.
fn busy(step: u64) -> Batch {
    // A small generator (Knuth, TAOCP 2, 3.3.4): the same batches on every backend.
    let random = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695) >> 33;
    let name = |number: u64| key(&format!("d/{}", number % 13));
    let put = |number: u64| Op::Put(Put::new(name(number), format!("{step}")).previous());
    let delete = |range| Op::Delete { range, previous: true };
    match random % 7 {
        0 => Batch::new().then(delete(Range::key(&name(random / 7)))),
        1 => Batch::new().then(delete(Range::prefix("d/1"))),
        2 => Batch::new().then(put(random / 7)).then(put(random / 7 + 1)).then(put(random / 7 + 2)),
        3 => Batch::new().then(put(random / 7 + 4)).then(delete(Range::key(&name(random / 7)))),
        _ => Batch::new().then(put(random / 7)),
    }
}

/// What a batch changed, told by its answers alone.
fn happened(ops: &[Op], applied: &Applied) -> Option<(Revision, Vec<Event>)> {
    let revision = applied.revision;
    let mut events = Vec::new();
    for (op, answer) in ops.iter().zip(&applied.answers) {
        match (op, answer) {
            (Op::Put(put), Answer::Put { previous }) => {
                let entry = Entry {
                    key: put.key.clone(),
                    value: put.value.clone(),
                    create_revision: previous.as_ref().map_or(revision, |old| old.create_revision),
                    mod_revision: revision,
                    version: previous.as_ref().map_or(0, |old| old.version) + 1,
                    lease: None,
                };
                events.push(Event { change: Change::Put(entry), previous: previous.clone() });
            }
            (Op::Delete { .. }, Answer::Delete { previous, .. }) => {
                events.extend(previous.iter().map(|old| Event {
                    change: Change::Delete(old.key.clone()),
                    previous: Some(old.clone()),
                }));
            }
            other => fail("an answer fits its operation", &other),
        }
    }
    (!events.is_empty()).then_some((revision, events))
}

fn created(name: &str, value: &'static str, revision: Revision) -> Event {
    let entry = Entry {
        key: key(name),
        value: value.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: None,
    };
    Event { change: Change::Put(entry), previous: None }
}

pub(super) fn slow(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        const REVISIONS: u64 = 1_250;
        const EVENTS: u64 = 80;
        let base = exam.revision().await;
        let mut watch = exam.watch(WatchRequest::new(Range::prefix("slow/")).quiet());
        assert!(matches!(watch.next().await, Some(WatchItem::Created { .. })));
        // It has heard something, and waits for more, before it is left alone.
        let heard = exam.put("slow/000", "heard").await;
        assert_eq!(revisions(&up_to(&mut watch, heard).await), [heard]);
        assert_eq!(ready(&mut watch).await, None);
        let base = base.next();
        let keys: Vec<Key> = (0..EVENTS).map(|number| key(&format!("slow/{number:03}"))).collect();
        for step in 0..REVISIONS {
            let puts = keys.iter().map(|key| Op::Put(Put::new(key.clone(), format!("{step}"))));
            exam.apply(Batch { then: puts.collect(), ..Batch::new() }).await;
        }
        let items = up_to(&mut watch, after(base, REVISIONS)).await;
        let want: Vec<Revision> = (1..=REVISIONS).map(|step| after(base, step)).collect();
        assert_eq!(revisions(&items), want, "every revision once and in order");
        let events = items.iter().map(|item| match item {
            WatchItem::Changes { events, .. } => events.len() as u64,
            _ => 0,
        });
        assert_eq!(events.sum::<u64>(), REVISIONS * EVENTS);
    })
}

pub(super) fn compaction(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        const REVISIONS: u64 = 1_500;
        let base = exam.revision().await;
        let mut left = exam.watch(WatchRequest::new(Range::prefix("c/")).quiet());
        assert!(matches!(left.next().await, Some(WatchItem::Created { .. })));
        assert_eq!(ready(&mut left).await, None);
        let mut last = base;
        for _ in 0..REVISIONS {
            last = exam.put("c/k", "v").await;
        }
        exam.store.compact(last).await.expect("a past revision can be compacted");
        let next = exam.put("c/k", "w").await;
        // It may have been kept for the watch, or be gone; it may not be cut short in silence.
        let items = up_to(&mut left, next).await;
        let got = revisions(&items);
        let want: Vec<Revision> = (1..=REVISIONS + 1).map(|step| after(base, step)).collect();
        assert_eq!(got, want[..got.len()], "without a gap");
        if got.len() < want.len() {
            assert_eq!(items.last(), Some(&WatchItem::Compacted { compacted: last }));
        }
    })
}

pub(super) fn bookmarks(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let mut told = exam.watch(WatchRequest::new(Range::prefix("idle/")));
        let mut untold = exam.watch(WatchRequest::new(Range::prefix("idle/")).quiet());
        for watch in [&mut told, &mut untold] {
            assert!(matches!(watch.next().await, Some(WatchItem::Created { .. })));
        }
        let elsewhere = exam.put("busy", "1").await;
        exam.pass(Duration::from_secs(11)).await;
        match told.next().await {
            Some(WatchItem::Bookmark { revision }) => assert!(elsewhere <= revision),
            other => fail("an idle watch gets a bookmark", &other),
        }
        let next = exam.put("idle/a", "1").await;
        for watch in [&mut told, &mut untold] {
            let items = up_to(watch, next).await;
            assert_eq!(revisions(&items), [next]);
        }
    })
}

pub(super) fn two_handles(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let request = WatchRequest::new(Range::prefix("h/")).quiet();
        let mut watch = exam.second.watch(request).expect("a watch");
        assert!(matches!(watch.next().await, Some(WatchItem::Created { .. })));
        for number in 0..20 {
            let applied = exam.apply(Batch::new().then(put("h/a", "1"))).await;
            let got = exam.second.get(crate::read::Get::new(key("h/a"))).await;
            let entry = got.unwrap_or_else(|error| fail("a read", &error)).entry;
            let modified = entry.map(|entry| entry.mod_revision);
            assert_eq!(modified, Some(applied.revision), "write {number} is seen at once");
            assert_eq!(revisions(&up_to(&mut watch, applied.revision).await), [applied.revision]);
        }
    })
}
