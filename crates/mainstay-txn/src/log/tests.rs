//! Keys and records of the log.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::machine::{Event, Submit, VoteOf};
use crate::moment::Moment;
use crate::name::ResourceName;
use crate::policy::Policy;
use crate::target::Target;
use crate::transaction::{Begin, NewBranch, Part, Payload};
use crate::word::{Mode, Op, Prepare, Vote};

fn key(text: &str) -> Key {
    text.try_into().unwrap()
}

#[test]
fn keys_are_those_of_the_specification() {
    let order = Gid::new("order-1").unwrap();
    let keys = Keys::new(&order, Shards::DEFAULT);
    assert_eq!(keys.body(), key("txn/t/2d/order-1"));
    assert_eq!(keys.register(), key("txn/s/2d/order-1"));
    assert_eq!(keys.branch(&BranchId::number(1)), key("txn/b/2d/order-1/01"));
    assert_eq!(keys.history(), key("txn/h/2d/order-1"));
    assert!(keys.branches().contains(b"txn/b/2d/order-1/01"));
    assert!(!keys.branches().contains(b"txn/b/2d/order-10/01"));
    assert_eq!(shard(Shard::new(255)), key("txn/shard/ff"));
    assert_eq!(lane("a/b", 3), key("txn/lane/a%2Fb/3"));
    assert_eq!(node_name(&node("a/b")), Some("a/b".to_owned()));
}

#[test]
fn a_gid_is_read_from_its_keys() {
    for text in ["order-1", "转账-7", "a/b c%"] {
        let name = Gid::new(text).unwrap();
        let keys = Keys::new(&name, Shards::DEFAULT);
        for key in [keys.body(), keys.register(), keys.history()] {
            assert_eq!(gid(&key).as_ref(), Some(&name), "{key}");
        }
        assert_eq!(gid(&keys.branch(&BranchId::number(1))), None);
    }
    assert_eq!(gid(&key("txn/shard/2d")), None);
}

/// The transaction as the log would give it back, from all that its changes wrote.
fn reread(changes: &[Change], transaction: &Transaction) -> Transaction {
    let mut all = Change::default();
    for change in changes {
        all.merge(change.clone());
    }
    let keys = Keys::new(transaction.gid(), Shards::DEFAULT);
    let value = |key: Key| all.puts.get(&key).cloned().flatten();
    let (body, register) = (value(keys.body()).unwrap(), value(keys.register()).unwrap());
    let branches = all.puts.iter().filter(|(key, _)| key.starts_with(b"txn/b/"));
    let branches = branches.filter_map(|(_, value)| value.as_deref());
    read(&body, &register, branches).unwrap()
}

fn everything() -> Begin {
    let target = Target::Service {
        service: "stock".to_owned(),
        path: "/deduct".to_owned(),
        method: Some("PUT".to_owned()),
    };
    let url = Target::Url("http://stock/restore".to_owned());
    let targets = BTreeMap::from([(Op::Action, target), (Op::Compensate, url)]);
    let payload = Payload {
        bytes: "{}".into(),
        content_type: Some("application/json".to_owned()),
        headers: vec![("x-shop".to_owned(), "7".to_owned())],
    };
    let part = Part::Endpoint { targets: targets.into(), prepare: Prepare::Own };
    let step = NewBranch { branch: None, part, after: Vec::new(), payload };
    Begin {
        name: Some("order".to_owned()),
        labels: BTreeMap::from([("shop".to_owned(), "7".to_owned())]),
        deadline: Some(Duration::from_secs(30)),
        retry_limit: Some(3),
        call_timeout: Some(Duration::from_millis(1_500)),
        headers: vec![("x-tenant".to_owned(), "blue".to_owned())],
        words: Some("{}".into()),
        steps: vec![step.clone(), step],
        submit: true,
        ..Begin::new(Gid::new("转账-7").unwrap(), Mode::Saga)
    }
}

#[test]
fn what_was_begun_is_read_as_it_was_written() {
    let now = Moment::from_unix_millis(5_000);
    let (transaction, step) = Transaction::begin(everything(), now, &Policy::default()).unwrap();
    let change = Change::of(&transaction, &step.write, Shards::DEFAULT, 7);
    assert_eq!(change.operations(), 2, "created and decided by one record each, in one batch");
    let again = reread(std::slice::from_ref(&change), &transaction);
    assert_eq!(again.begin, transaction.begin);
    assert_eq!(again.register, transaction.register);
    assert_eq!(again.deadline_at, transaction.deadline_at);
    let bare = |transaction: &Transaction| {
        let mut branches = transaction.branches.clone();
        for branch in &mut branches {
            branch.ops.clear();
        }
        branches
    };
    assert_eq!(bare(&again), bare(&transaction));
}

#[test]
fn a_vote_list_brings_back_branches_that_never_joined() {
    let begin = Begin::new(Gid::new("order-1").unwrap(), Mode::Xa);
    let policy = Policy::default();
    let (mut transaction, first) = Transaction::begin(begin, Moment::default(), &policy).unwrap();
    let mut changes = vec![Change::of(&transaction, &first.write, Shards::DEFAULT, 1)];
    let votes = (1..=3).map(|number| VoteOf {
        branch: BranchId::number(number),
        resource: Some(ResourceName::new("orders").unwrap()),
        vote: Vote::Yes,
        listed: true,
        session_id: Some(format!("{number}")),
    });
    let submit = Event::Submit(Submit { votes: votes.collect() });
    let step = transaction.step(submit, Moment::default(), &policy).unwrap();
    assert!(step.write.branches.is_empty(), "the register alone decides");
    changes.push(Change::of(&transaction, &step.write, Shards::DEFAULT, 1));
    let again = reread(&changes, &transaction);
    assert_eq!(again.branches.len(), 3);
    assert!(again.branches.iter().all(|branch| branch.vote == Some(Vote::Yes)));
    assert_eq!(again.branches[2].session_id.as_deref(), Some("3"));
}

#[test]
fn a_branch_that_a_vote_list_does_not_name_stands_beside_it() {
    let begin = Begin::new(Gid::new("order-1").unwrap(), Mode::Xa);
    let policy = Policy::default();
    let (mut transaction, first) = Transaction::begin(begin, Moment::default(), &policy).unwrap();
    let mut changes = vec![Change::of(&transaction, &first.write, Shards::DEFAULT, 1)];
    let said = [(1, Vote::No, true), (2, Vote::Yes, false)];
    let votes = said.map(|(number, vote, listed)| VoteOf {
        branch: BranchId::number(number),
        resource: Some(ResourceName::new("orders").unwrap()),
        vote,
        listed,
        session_id: None,
    });
    let submit = Event::Submit(Submit { votes: votes.to_vec() });
    let step = transaction.step(submit, Moment::default(), &policy).unwrap();
    assert_eq!(step.write.branches, [1].into(), "its word was not enough for a vote");
    changes.push(Change::of(&transaction, &step.write, Shards::DEFAULT, 1));
    let again = reread(&changes, &transaction);
    let votes: Vec<_> = again.branches.iter().map(|branch| branch.vote).collect();
    assert_eq!(votes, [Some(Vote::No), None], "both are rolled back, whoever reads it");
}

#[test]
fn the_end_folds_everything_into_one_record() {
    let policy = Policy::default();
    let (mut transaction, step) =
        Transaction::begin(everything(), Moment::default(), &policy).unwrap();
    let body = Change::of(&transaction, &step.write, Shards::DEFAULT, 1);
    for number in 1..=2 {
        let branch = BranchId::number(number);
        let outcome = crate::machine::Outcome::Done;
        let event = Event::Answered { branch, op: Op::Action, outcome, draw: 0 };
        transaction.step(event, Moment::default(), &policy).unwrap();
    }
    let end = Change::end(&transaction, Shards::DEFAULT, 1);
    assert_eq!(end.operations(), 3);
    let keys = Keys::new(transaction.gid(), Shards::DEFAULT);
    let value = |change: &Change, key: &Key| change.puts.get(key).cloned().flatten().unwrap();
    let again = read_history(&value(&body, &keys.body()), &value(&end, &keys.history())).unwrap();
    assert_eq!(again.register, transaction.register);
    assert_eq!(again.timeline, transaction.timeline);
    assert_eq!(again.branches, transaction.branches);
}

#[test]
fn two_branches_that_name_one_place_are_two() {
    let begin = Begin::new(Gid::new("order-1").unwrap(), Mode::Xa);
    let policy = Policy::default();
    let (mut transaction, first) = Transaction::begin(begin, Moment::default(), &policy).unwrap();
    let orders = ResourceName::new("orders").unwrap();
    for _branch in 0..2 {
        let part = Part::Resource(orders.clone());
        let (after, payload) = (Vec::new(), Payload::default());
        let new = NewBranch { branch: None, part, after, payload };
        transaction.step(Event::Register(new), Moment::default(), &policy).unwrap();
    }
    let mut change = Change::of(&transaction, &first.write, Shards::DEFAULT, 1);
    let keys = Keys::new(transaction.gid(), Shards::DEFAULT);
    for branch in &transaction.branches {
        // The one before the second was lost, so both have come to stand first.
        change.put(keys.branch(&branch.id), record::branch(&transaction, 0, branch));
    }
    let again = reread(&[change], &transaction);
    assert_eq!(again.branches, transaction.branches);
}

#[test]
fn the_end_of_a_thousand_branches_with_errors_fits_a_value() {
    let begin = Begin::new(Gid::new("order-1").unwrap(), Mode::Xa);
    let policy = Policy::default();
    let (mut transaction, _) = Transaction::begin(begin, Moment::default(), &policy).unwrap();
    let (end, id) = (Moment::from_unix_millis(7), |n: usize| format!("{n:064}"));
    for n in 1..=1_000 {
        let part = Part::Resource(ResourceName::new(&"o".repeat(64)).unwrap());
        let (after, payload) = (Vec::new(), Payload::default());
        let new = NewBranch { branch: None, part, after, payload };
        let mut branch = crate::transaction::Branch::new(BranchId::new(&id(n)).unwrap(), new);
        (branch.vote, branch.session_id) = (Some(Vote::Yes), Some("7".repeat(64)));
        for op in [Op::Prepare, Op::Commit, Op::Rollback] {
            branch.op_mut(op).last_error = Some("e".repeat(200));
        }
        transaction.branches.push(branch);
    }
    transaction.register.finished_at = Some(end);
    let history = record::history(&transaction, 1);
    assert!(history.len() <= mainstay_store::limits::VALUE_BYTES_MAX, "{}", history.len());
    assert_eq!(read_span(&history), Ok((end, transaction.deadline_at.unwrap())));
}

#[test]
fn changes_of_one_transaction_join() {
    let put = |key_text: &str, value: &'static str| {
        let mut change = Change::default();
        change.put(key(key_text), Bytes::from(value));
        change
    };
    let mut change = put("txn/b/00/a/01", "old");
    change.merge(put("txn/b/00/a/01", "new"));
    change.merge(put("txn/b/00/a/02", "two"));
    change.merge(put("txn/s/00/a", "register"));
    assert_eq!(change.operations(), 3);
    let mut whole = change.clone();
    let rest = whole.split_branches(2);
    assert_eq!((whole.operations(), rest.operations()), (2, 1));
    assert!(rest.puts.contains_key(&key("txn/b/00/a/02")));
    let mut end = Change::default();
    end.puts.insert(key("txn/s/00/a"), None);
    end.deletes = Some(Range::prefix("txn/b/00/a/"));
    change.merge(end);
    assert_eq!(change.operations(), 2, "no key is changed twice in one batch");
    change.merge(put("txn/b/00/a/01", "late"));
    assert_eq!(change.operations(), 2, "also not by what comes after the end");
}

#[test]
fn a_newer_record_is_told_from_a_damaged_one() {
    let meta = Meta { cluster: "k3v9q2mt".to_owned(), log_id: "x".to_owned(), shards: 64 };
    let bytes = meta.write();
    assert_eq!(Meta::read(&bytes), Ok(meta));
    let mut newer = bytes.to_vec();
    newer[0] = 2;
    assert_eq!(Meta::read(&newer), Err(Unreadable::Newer { found: 2 }));
    assert_eq!(Meta::read(&newer).unwrap_err().code(), "log-format-newer");
    assert!(matches!(Meta::read(&[]), Err(Unreadable::Damaged { .. })));
    assert!(matches!(read(&bytes, &bytes, []), Err(Unreadable::Damaged { .. })));
}

proptest! {
    /// Bytes of any kind are a record or an error.
    #[test]
    fn no_bytes_make_a_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), framed: bool) {
        if framed && !bytes.is_empty() {
            bytes[0] = 1;
        }
        let _one = read(&bytes, &bytes, [&bytes[..]]);
        let _two = read_history(&bytes, &bytes);
        let _three = Lane::read(&bytes);
    }
}
