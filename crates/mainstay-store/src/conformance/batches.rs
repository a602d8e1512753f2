//! Batches: revisions, compares, branches, limits.

use super::{Doing, Exam, after, fail, key, put};
use crate::batch::{Answer, Batch, Compare, Op, Operator, Put, Target};
use crate::entry::{Entry, LeaseId, Revision};
use crate::error::Error;
use crate::key::Range;
use crate::limits::{BATCH_BYTES_MAX, COMPARES_MAX, OPERATIONS_MAX, VALUE_BYTES_MAX};
use crate::read::{Get, Select};

pub(super) fn worked_table(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let base = exam.revision().await.before();
        let lease = exam.store.grant(std::time::Duration::from_mins(1), None).await;
        let lease = lease.expect("a lease is granted").id;
        let a = key("a");
        let version_is_2 = compare("a", Target::Version(2), Operator::Equal);
        let live = |create, modified, version, lease: Option<LeaseId>| {
            Some((after(base, create), after(base, modified), version, lease))
        };
        let steps = [
            (Batch::new().then(put("a", "1")), true, 2, live(2, 2, 1, None)),
            (Batch::new().then(put("a", "1")).then(put("b", "1")), true, 3, live(2, 3, 2, None)),
            (Batch::new().when(version_is_2).then(Op::delete(&a)), true, 4, None),
            (Batch::new().when(Compare::value(&a, "1")).then(put("a", "9")), false, 4, None),
            (Batch::new().then(Op::delete(&a)), true, 4, None),
            (
                Batch::new().when(Compare::missing(&a)).then(put("a", "5").lease(lease)),
                true,
                5,
                live(5, 5, 1, Some(lease)),
            ),
            (Batch::new().then(put("a", "5")), true, 6, live(5, 6, 2, None)),
        ];
        for (step, (batch, succeeded, revision, want)) in (1..).zip(steps) {
            let applied = exam.apply(batch).await;
            let got = (applied.succeeded, applied.revision);
            assert_eq!(got, (succeeded, after(base, revision)), "step {step}");
            assert_eq!(exam.entry("a").await.as_ref().map(numbers), want, "step {step}");
        }
        assert_eq!(exam.entry("b").await.as_ref().map(numbers), live(3, 3, 1, None));
        exam.store.compact(after(base, 5)).await.expect("a past revision can be compacted");
        let gone = exam.store.get(Get::new(a.clone()).at(after(base, 4))).await;
        assert_eq!(gone, Err(Error::Compacted { compacted: after(base, 5) }));
        let at_5 = exam.store.get(Get::new(a).at(after(base, 5))).await;
        let at_5 = at_5.expect("the compacted revision itself can be read").entry;
        assert_eq!(at_5.map(|entry| entry.value), Some("5".into()));
    })
}

pub(super) fn compares(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        exam.put("there", "m").await;
        let modified = exam.put("there", "m").await;
        let create = modified.before();
        let other = LeaseId::new(77).expect("77 is a lease id");
        // Target, then whether =, !=, <, > hold for the key that is there and the one that is not.
        let cases = [
            (Target::Value("m".into()), "=", ""),
            (Target::Value("a".into()), "!>", ""),
            (Target::Value("z".into()), "!<", ""),
            (Target::Version(2), "=", "!<"),
            (Target::Version(0), "!>", "="),
            (Target::Version(9), "!<", "!<"),
            (Target::CreateRevision(create), "=", "!<"),
            (Target::CreateRevision(Revision::NEVER), "!>", "="),
            (Target::ModRevision(modified), "=", "!<"),
            (Target::ModRevision(create), "!>", "!<"),
            (Target::ModRevision(modified.next()), "!<", "!<"),
            (Target::Lease(None), "=", "="),
            (Target::Lease(Some(other)), "!<", "!<"),
        ];
        let operators = [
            ('=', Operator::Equal),
            ('!', Operator::NotEqual),
            ('<', Operator::Less),
            ('>', Operator::Greater),
        ];
        for (target, there, missing) in cases {
            for (sign, operator) in operators {
                for (name, holds) in [("there", there), ("missing", missing)] {
                    let batch = Batch::new().when(compare(name, target.clone(), operator));
                    let applied = exam.apply(batch).await;
                    let want = holds.contains(sign);
                    assert_eq!(applied.succeeded, want, "{name} {sign} {target:?}");
                }
            }
        }
    })
}

pub(super) fn range_compares(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        exam.apply(Batch::new().then(put("r/a", "1")).then(put("r/b", "1"))).await;
        exam.put("r/b", "1").await;
        let versions = |version, operator| Compare {
            range: Range::prefix("r/"),
            target: Target::Version(version),
            operator,
        };
        let empty =
            |target| Compare { range: Range::prefix("none/"), target, operator: Operator::Equal };
        let cases = [
            (versions(3, Operator::Less), true),
            (versions(2, Operator::Less), false),
            (versions(1, Operator::NotEqual), false),
            (empty(Target::Version(0)), true),
            (empty(Target::CreateRevision(Revision::NEVER)), true),
            (empty(Target::Value("".into())), false),
        ];
        for (compare, want) in cases {
            let told = format!("{compare:?}");
            assert_eq!(exam.apply(Batch::new().when(compare)).await.succeeded, want, "{told}");
        }
        let both = Batch::new().when(versions(3, Operator::Less)).when(versions(2, Operator::Less));
        assert!(!exam.apply(both).await.succeeded, "all compares have to hold");
    })
}

pub(super) fn branches(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        exam.put("x/old", "o").await;
        let all = || Op::Range(Select::new(Range::prefix("x/")));
        let delete = Op::Delete { range: Range::key(&key("x/old")), previous: true };
        let batch = Batch::new()
            .then(all())
            .then(put("x/new", "n"))
            .then(all())
            .then(delete)
            .then(all())
            .otherwise(put("x/wrong", "w"));
        let applied = exam.apply(batch).await;
        let seen: Vec<Vec<String>> = applied.answers.iter().filter_map(page_keys).collect();
        assert_eq!(seen, [vec!["x/old"], vec!["x/new", "x/old"], vec!["x/new"]]);
        for answer in &applied.answers {
            match answer {
                Answer::Delete { deleted, previous } => {
                    let values: Vec<_> = previous.iter().map(|entry| &*entry.value).collect();
                    assert_eq!((*deleted, values), (1, vec![b"o".as_slice()]));
                }
                Answer::Range(page) => assert_eq!(page.revision, applied.revision),
                Answer::Put { previous } => assert_eq!(*previous, None),
            }
        }
        let before = exam.revision().await;
        let twice = Batch::new().then(put("x/a", "1")).then(put("x/b", "1")).then(put("x/a", "2"));
        assert_eq!(exam.refused(twice).await, Error::DuplicateKey { key: key("x/a") });
        let within = Batch::new().then(Op::delete_range(Range::prefix("x/"))).then(put("x/c", "1"));
        assert_eq!(exam.refused(within).await, Error::DuplicateKey { key: key("x/c") });
        assert_eq!(exam.entry("x/b").await, None, "a refused batch does nothing");
        assert_eq!(exam.revision().await, before);
        let with_previous = Batch::new().then(put("x/new", "m").previous());
        match exam.apply(with_previous).await.answers.first() {
            Some(Answer::Put { previous: Some(entry) }) => assert_eq!(&*entry.value, b"n"),
            other => fail("a put that asks gets what was there", &other),
        }
    })
}

pub(super) fn limits(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let many = |count: usize| Batch {
            then: (0..count).map(|number| put(&format!("l/{number}"), "v").into()).collect(),
            ..Batch::new()
        };
        assert!(exam.apply(many(OPERATIONS_MAX)).await.succeeded);
        let error = exam.refused(many(OPERATIONS_MAX + 1)).await;
        assert!(matches!(error, Error::BatchTooLarge { .. }), "{error:?}");
        let compares =
            |count| Batch { compares: vec![Compare::missing(&key("no")); count], ..Batch::new() };
        assert!(exam.apply(compares(COMPARES_MAX)).await.succeeded);
        let error = exam.refused(compares(COMPARES_MAX + 1)).await;
        assert!(matches!(error, Error::BatchTooLarge { .. }), "{error:?}");
        let big = |bytes: usize| Batch::new().then(Put::new(key("big"), vec![b'x'; bytes]));
        assert!(exam.apply(big(VALUE_BYTES_MAX)).await.succeeded);
        let read = exam.entry("big").await.expect("the largest value is there");
        assert_eq!(read.value.len(), VALUE_BYTES_MAX);
        let error = exam.refused(big(VALUE_BYTES_MAX + 1)).await;
        assert!(matches!(error, Error::ValueTooLarge { .. }), "{error:?}");
        let total = |bytes: usize| {
            let rest = bytes - VALUE_BYTES_MAX - "big".len() - "more".len();
            big(VALUE_BYTES_MAX).then(Put::new(key("more"), vec![b'x'; rest]))
        };
        assert!(exam.apply(total(BATCH_BYTES_MAX)).await.succeeded);
        let error = exam.refused(total(BATCH_BYTES_MAX + 1)).await;
        assert!(matches!(error, Error::BatchTooLarge { .. }), "{error:?}");
    })
}

pub(super) fn no_change(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let before = exam.put("here", "1").await;
        let nothing = [
            Batch::new(),
            Batch::new().then(Op::get(&key("here"))),
            Batch::new().then(Op::delete(&key("gone"))),
            Batch::new().when(Compare::missing(&key("here"))).then(put("here", "2")),
        ];
        for batch in nothing {
            let told = format!("{batch:?}");
            assert_eq!(exam.apply(batch).await.revision, before, "{told}");
            assert_eq!(exam.revision().await, before, "{told}");
        }
        assert_eq!(exam.put("here", "1").await, before.next(), "the same value is a change");
    })
}

fn compare(name: &str, target: Target, operator: Operator) -> Compare {
    Compare { range: Range::key(&key(name)), target, operator }
}

fn numbers(entry: &Entry) -> (Revision, Revision, u64, Option<LeaseId>) {
    (entry.create_revision, entry.mod_revision, entry.version, entry.lease)
}

fn page_keys(answer: &Answer) -> Option<Vec<String>> {
    match answer {
        Answer::Range(page) => {
            Some(page.entries.iter().map(|entry| entry.key.to_string()).collect())
        }
        Answer::Put { .. } | Answer::Delete { .. } => None,
    }
}
