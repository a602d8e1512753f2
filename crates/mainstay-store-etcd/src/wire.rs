//! The port's words in etcd's, and back.
//!
//! Every key stands under the prefix. The port's range of all keys begins one past `prefix NUL`,
//! where the backend keeps keys of its own: the port's keys hold no NUL, so the two never meet.

use bytes::Bytes;
use mainstay_store::{
    Answer, Attach, Batch, Change, Compare, Entry, Event, Key, LeaseId, Op, Operator, Page, Put,
    Range, Revision, Select, Target,
};

use crate::identity::revision;
use crate::stub::{
    self, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, ResponseOp,
    TxnRequest, compare, request_op, response_op,
};

/// Where in etcd the store lives.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    prefix: Bytes,
}

/// A range in etcd's words: a key, and the key past the last, empty for the one key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) key: Bytes,
    pub(crate) range_end: Bytes,
}

impl Space {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: Bytes::copy_from_slice(prefix.as_bytes()) }
    }

    fn join(&self, parts: &[&[u8]]) -> Bytes {
        let mut joined = self.prefix.to_vec();
        for part in parts {
            joined.extend_from_slice(part);
        }
        joined.into()
    }

    /// A key of the backend's own, which the port cannot name.
    pub(crate) fn own(&self, name: &str) -> Bytes {
        self.join(&[b"\0", name.as_bytes()])
    }

    pub(crate) fn key(&self, key: &[u8]) -> Bytes {
        self.join(&[key])
    }

    pub(crate) fn span(&self, range: &Range) -> Span {
        if range.is_empty() {
            // A key nobody writes.
            return Span { key: self.own(""), range_end: Bytes::new() };
        }
        if let Some(key) = range.as_key() {
            return Span { key: self.key(&key), range_end: Bytes::new() };
        }
        let from = range.from();
        let key = if from.is_empty() { self.join(&[b"\x01"]) } else { self.key(from) };
        let range_end = match range.to() {
            Some(to) => self.key(to),
            None => past(&self.prefix),
        };
        Span { key, range_end }
    }

    /// The port's key, if it is one.
    fn strip(&self, key: &Bytes) -> Option<Key> {
        key.starts_with(&self.prefix).then(|| Key::new(key.slice(self.prefix.len()..)).ok())?
    }

    /// An entry, if its key is one of the port's.
    pub(crate) fn entry(&self, found: KeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.strip(&found.key)?,
            value: found.value,
            create_revision: revision(found.create_revision),
            mod_revision: revision(found.mod_revision),
            version: u64::try_from(found.version).unwrap_or(0),
            lease: lease(found.lease),
        })
    }

    pub(crate) fn keys(&self, keys: &[Bytes]) -> Vec<Key> {
        let mut keys: Vec<Key> = keys.iter().filter_map(|key| self.strip(key)).collect();
        keys.sort_unstable();
        keys
    }

    /// An event with its revision; without one if its key is not one of the port's.
    pub(crate) fn event(&self, event: stub::Event) -> (Revision, Option<Event>) {
        let is_delete = event.r#type() == stub::event::EventType::Delete;
        let Some(found) = event.kv else { return (Revision::NEVER, None) };
        let at = revision(found.mod_revision);
        let change = if is_delete {
            self.strip(&found.key).map(Change::Delete)
        } else {
            self.entry(found).map(Change::Put)
        };
        let previous = event.prev_kv.and_then(|previous| self.entry(previous));
        (at, change.map(|change| Event { change, previous }))
    }

    pub(crate) fn select(&self, select: &Select) -> RangeRequest {
        let Span { key, range_end } = self.span(&select.range);
        RangeRequest {
            key,
            range_end,
            limit: if select.count_only { 0 } else { number(select.entries_max()) },
            keys_only: select.keys_only,
            count_only: select.count_only,
            ..RangeRequest::default()
        }
    }

    /// A batch as etcd has it.
    ///
    /// With `missing`, a put that keeps its key's lease also serves where there is no such key: it
    /// is put inside a small batch of its own, which counts as one more operation. Without, etcd
    /// refuses the whole batch when such a key is missing.
    pub(crate) fn batch(&self, batch: &Batch, missing: bool) -> TxnRequest {
        let branch = |ops: &[Op]| ops.iter().map(|op| self.op(op, missing)).collect();
        let (mut success, mut failure): (Vec<RequestOp>, Vec<RequestOp>) =
            (branch(&batch.then), branch(&batch.otherwise));
        if success.is_empty() && failure.is_empty() {
            // Without any operation etcd takes a batch for one that need not be linearizable, and
            // compares with what the member happens to know (`isTxnSerializable`).
            let nothing =
                self.select(&Select::new(Range::between("z", Some("a".into()))).count_only());
            success.push(op(request_op::Request::RequestRange(nothing)));
            failure.clone_from(&success);
        }
        TxnRequest {
            compare: batch.compares.iter().map(|compare| self.compare(compare)).collect(),
            success,
            failure,
        }
    }

    fn compare(&self, compared: &Compare) -> stub::Compare {
        use compare::{CompareResult, CompareTarget, TargetUnion};
        let Span { key, range_end } = self.span(&compared.range);
        let result = match compared.operator {
            Operator::Equal => CompareResult::Equal,
            Operator::NotEqual => CompareResult::NotEqual,
            Operator::Less => CompareResult::Less,
            Operator::Greater => CompareResult::Greater,
        };
        let (target, operand) = match &compared.target {
            Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
            Target::Version(version) => {
                (CompareTarget::Version, TargetUnion::Version(signed(*version)))
            }
            Target::CreateRevision(at) => {
                (CompareTarget::Create, TargetUnion::CreateRevision(signed(at.get())))
            }
            Target::ModRevision(at) => {
                (CompareTarget::Mod, TargetUnion::ModRevision(signed(at.get())))
            }
            Target::Lease(lease) => {
                let lease = lease.map_or(0, LeaseId::get);
                (CompareTarget::Lease, TargetUnion::Lease(signed(lease)))
            }
        };
        stub::Compare {
            result: result.into(),
            target: target.into(),
            key,
            range_end,
            target_union: Some(operand),
        }
    }

    fn op(&self, asked: &Op, missing: bool) -> RequestOp {
        match asked {
            Op::Put(put) if missing && put.lease == Attach::Keep => {
                let keep = op(request_op::Request::RequestPut(self.put(put, true)));
                let fresh = op(request_op::Request::RequestPut(self.put(put, false)));
                op(request_op::Request::RequestTxn(TxnRequest {
                    compare: vec![self.compare(&Compare::present(&put.key))],
                    success: vec![keep],
                    failure: vec![fresh],
                }))
            }
            Op::Put(put) => {
                let keep = put.lease == Attach::Keep;
                op(request_op::Request::RequestPut(self.put(put, keep)))
            }
            Op::Delete { range, previous } => {
                let Span { key, range_end } = self.span(range);
                let delete = DeleteRangeRequest { key, range_end, prev_kv: *previous };
                op(request_op::Request::RequestDeleteRange(delete))
            }
            Op::Range(select) => op(request_op::Request::RequestRange(self.select(select))),
        }
    }

    fn put(&self, put: &Put, ignore_lease: bool) -> PutRequest {
        PutRequest {
            key: self.key(&put.key),
            value: put.value.clone(),
            lease: match put.lease {
                Attach::To(lease) => signed(lease.get()),
                Attach::Detach | Attach::Keep => 0,
            },
            prev_kv: put.previous,
            ignore_value: false,
            ignore_lease,
        }
    }

    /// What an operation of a batch did; `None` when the answer is of no known kind.
    pub(crate) fn answer(&self, answer: ResponseOp, at: Revision) -> Option<Answer> {
        Some(match answer.response? {
            response_op::Response::ResponsePut(put) => {
                Answer::Put { previous: put.prev_kv.and_then(|found| self.entry(found)) }
            }
            response_op::Response::ResponseDeleteRange(delete) => Answer::Delete {
                deleted: u64::try_from(delete.deleted).unwrap_or(0),
                previous: self.entries(delete.prev_kvs).collect(),
            },
            response_op::Response::ResponseRange(page) => Answer::Range(Page {
                more: page.more,
                count: u64::try_from(page.count).unwrap_or(0),
                entries: self.entries(page.kvs).collect(),
                revision: at,
            }),
            // The small batch of a put that keeps a lease: it has one operation.
            response_op::Response::ResponseTxn(mut inner) => {
                self.answer(inner.responses.pop()?, at)?
            }
        })
    }

    pub(crate) fn entries(&self, found: Vec<KeyValue>) -> impl Iterator<Item = Entry> + use<'_> {
        found.into_iter().filter_map(|found| self.entry(found))
    }
}

const fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// The first key past all that begin with `prefix`, which is text and so has no byte of ones.
fn past(prefix: &[u8]) -> Bytes {
    let range = Range::prefix(prefix.to_vec());
    range.to().cloned().unwrap_or_else(|| Bytes::from_static(b"\0"))
}

pub(crate) fn lease(number: i64) -> Option<LeaseId> {
    u64::try_from(number).ok().and_then(LeaseId::new)
}

/// A number as etcd has it; what is above 2⁶³ is above every one it will ever know.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.try_into().unwrap()
    }

    #[test]
    fn every_range_stays_under_the_prefix() {
        let space = Space::new("/m/");
        let cases: [(Range, &[u8], &[u8]); 7] = [
            (Range::all(), b"/m/\x01", b"/m0"),
            (Range::key(&key("a")), b"/m/a", b""),
            (Range::prefix("svc/"), b"/m/svc/", b"/m/svc0"),
            (Range::prefix(""), b"/m/\x01", b"/m0"),
            (Range::between("b", None), b"/m/b", b"/m0"),
            (Range::between("", Some("b".into())), b"/m/\x01", b"/m/b"),
            (Range::between("z", Some("b".into())), b"/m/\0", b""),
        ];
        for (range, from, to) in cases {
            let want =
                Span { key: Bytes::copy_from_slice(from), range_end: Bytes::copy_from_slice(to) };
            assert_eq!(space.span(&range), want, "{range:?}");
        }
    }

    #[test]
    fn what_is_not_the_ports_is_not_shown() {
        let space = Space::new("/m/");
        let found = |key: &'static [u8]| KeyValue { key: key.into(), ..KeyValue::default() };
        assert!(space.entry(found(b"/m/a")).is_some());
        for other in [&b"/m/"[..], b"/m/\0duty", b"/other/a"] {
            assert_eq!(space.entry(found(other)), None, "{other:?}");
        }
    }

    #[test]
    fn a_batch_that_only_compares_still_asks_the_leader() {
        let space = Space::new("/m/");
        let txn = space.batch(&Batch::new().when(Compare::missing(&key("a"))), false);
        for branch in [&txn.success, &txn.failure] {
            let [RequestOp { request: Some(request_op::Request::RequestRange(read)) }] =
                &branch[..]
            else {
                panic!("no read in {branch:?}")
            };
            assert!(!read.serializable && read.count_only);
        }
    }

    #[test]
    fn a_put_that_keeps_a_lease_can_serve_a_missing_key() {
        let space = Space::new("/m/");
        let batch = Batch::new().then(Put::new(key("a"), "1").keep_lease());
        let plain = space.batch(&batch, false).success;
        assert!(
            matches!(&plain[0].request, Some(request_op::Request::RequestPut(put)) if put.ignore_lease)
        );
        let both = space.batch(&batch, true).success;
        let Some(request_op::Request::RequestTxn(inner)) = &both[0].request else {
            panic!("no inner batch in {both:?}")
        };
        let keeps = |branch: &[RequestOp]| matches!(&branch[0].request, Some(request_op::Request::RequestPut(put)) if put.ignore_lease);
        assert!(keeps(&inner.success) && !keeps(&inner.failure));
    }
}
