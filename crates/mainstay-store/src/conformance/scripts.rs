//! Parts of random scripts, for tests that play them to a backend and to the reference.
//!
//! Keys, revisions and leases are few and small, so that the steps of a script meet.

use std::num::NonZeroU32;

use proptest::prelude::*;

use crate::batch::{Attach, Batch, Compare, Op, Operator, Put, Target};
use crate::entry::{LeaseId, Revision};
use crate::key::{Key, Range};
use crate::read::Select;

/// A batch of up to two compares, and up to three operations a branch.
pub fn a_batch() -> impl Strategy<Value = Batch> {
    let ops = || prop::collection::vec(an_op(), 0..4);
    (prop::collection::vec(a_compare(), 0..3), ops(), ops())
        .prop_map(|(compares, then, otherwise)| Batch { compares, then, otherwise })
}

/// A read of a range.
pub fn a_select() -> impl Strategy<Value = Select> {
    (a_range(), prop::option::of(1u32..4), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(range, limit, keys_only, count_only)| Select {
            range,
            limit: limit.and_then(NonZeroU32::new),
            keys_only,
            count_only,
        },
    )
}

/// A single key, a prefix, everything, from a key to the end, or nothing.
pub fn a_range() -> impl Strategy<Value = Range> {
    prop_oneof![
        4 => a_key().prop_map(|key| Range::key(&key)),
        2 => Just(Range::prefix("a")),
        1 => Just(Range::all()),
        1 => Just(Range::between("b", None)),
        1 => Just(Range::between("b", Some("a".into()))),
    ]
}

/// One of five keys, three of them under `a`.
pub fn a_key() -> impl Strategy<Value = Key> {
    prop::sample::select(vec!["a", "a/b", "a/c", "b", "c"]).prop_map(super::key)
}

/// An operation.
fn an_op() -> impl Strategy<Value = Op> {
    let lease = prop_oneof![
        3 => Just(Attach::Detach),
        2 => a_lease().prop_map(Attach::To),
        1 => Just(Attach::Keep),
    ];
    prop_oneof![
        5 => (a_key(), "[xyz]{0,3}", lease, any::<bool>()).prop_map(
            |(key, value, lease, previous)| Op::Put(Put { key, value: value.into(), lease, previous })
        ),
        2 => (a_range(), any::<bool>()).prop_map(|(range, previous)| Op::Delete { range, previous }),
        1 => a_select().prop_map(Op::Range),
    ]
}

/// A compare; its revisions are those of a store that has just begun.
fn a_compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        "[xyz]{0,2}".prop_map(|value| Target::Value(value.into())),
        (0u64..4).prop_map(Target::Version),
        (0u64..12).prop_map(|number| Target::CreateRevision(Revision::new(number))),
        (0u64..12).prop_map(|number| Target::ModRevision(Revision::new(number))),
        prop::option::of(a_lease()).prop_map(Target::Lease),
    ];
    let operator = prop::sample::select(vec![
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::Greater,
    ]);
    (a_range(), target, operator).prop_map(|(range, target, operator)| Compare {
        range,
        target,
        operator,
    })
}

/// A lease numbered 1 to 4.
fn a_lease() -> impl Strategy<Value = LeaseId> {
    (1u64..5).prop_map(|number| LeaseId::new(number).expect("a lease id"))
}
