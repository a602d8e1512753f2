//! Reads: one key, pages, snapshots.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_store::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use mainstay_store::{
    Consistency, Entry, Error, Get, Got, LeaseId, Page, Range, RangeRequest, Revision, Select,
    Snapshot, SnapshotHead, SnapshotItem, StoreId,
};

use crate::identity::{Identity, revision};
use crate::refusal::Refusal;
use crate::session::{Fault, How, Session};
use crate::stub;
use crate::wire::signed;

impl Session {
    pub(crate) async fn get(&self, get: Get) -> Result<Got, Error> {
        let one = Select::new(Range::key(&get.key));
        let request = RangeRequest { select: one, at: get.at, read: get.read };
        let page = self.range(request).await?;
        Ok(Got { entry: page.entries.into_iter().next(), revision: page.revision })
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<Page, Error> {
        let RangeRequest { select, at, read } = request;
        if at == Some(Revision::NEVER) {
            // Before all history, and to etcd it would mean the newest.
            let status = self.readable(Revision::FIRST).await.map_err(Fault::into_error)?;
            let compacted = match status {
                crate::upstream::Readable::Compacted(compacted) => compacted,
                _ => self.compacted(),
            };
            return Err(Error::Compacted { compacted });
        }
        match self.pages(&select, at, read).await {
            Ok(page) => Ok(page),
            Err(fault) => Err(self.read_error(fault, at).await),
        }
    }

    /// A page, asked for in as many parts as its bytes make necessary.
    async fn pages(
        &self,
        select: &Select,
        at: Option<Revision>,
        read: Consistency,
    ) -> Result<Page, Fault> {
        let wanted = select.entries_max();
        let mut asked = self.space.select(select);
        asked.revision = at.map_or(0, |at| signed(at.get()));
        let mut part = wanted;
        let mut page: Option<Page> = None;
        loop {
            asked.limit = i64::try_from(part).unwrap_or(i64::MAX);
            let answer = match self.ask(asked.clone(), read).await {
                Err(Fault::Refused(Refusal::AnswerTooLarge)) if 1 < part => {
                    part = (part / PARTS).max(1);
                    continue;
                }
                answer => answer?,
            };
            let now = answer.header.map(|header| revision(header.revision)).unwrap_or_default();
            let last = answer.kvs.last().map(|found| found.key.clone());
            let page = page.get_or_insert_with(|| Page {
                entries: Vec::new(),
                more: false,
                count: u64::try_from(answer.count).unwrap_or(0),
                revision: now,
            });
            let fits = self.fill(page, answer.kvs, wanted);
            page.more = !select.count_only && (answer.more || !fits);
            let is_full = wanted <= page.entries.len() || !fits || !answer.more;
            let Some(last) = last.filter(|_| !is_full) else { return Ok(page.clone()) };
            // The rest, as of the same revision.
            asked.key = after(&last);
            asked.revision = signed(at.unwrap_or(page.revision).get());
            part = part.min(wanted - page.entries.len());
        }
    }

    /// Puts entries into a page as long as they fit; whether all did.
    fn fill(&self, page: &mut Page, found: Vec<stub::KeyValue>, wanted: usize) -> bool {
        let mut bytes: usize = page.entries.iter().map(Entry::bytes).sum();
        for entry in self.space.entries(found) {
            bytes += entry.bytes();
            let is_too_much = PAGE_BYTES_MAX < bytes && !page.entries.is_empty();
            if is_too_much || wanted <= page.entries.len() {
                return false;
            }
            page.entries.push(entry);
        }
        true
    }

    /// One read of etcd. A local one never goes back behind what this handle has seen.
    async fn ask(
        &self,
        mut asked: stub::RangeRequest,
        read: Consistency,
    ) -> Result<stub::RangeResponse, Fault> {
        if read == Consistency::Linearizable {
            return self.call(asked, How::READ).await;
        }
        asked.serializable = true;
        let seen = self.mark()?.seen();
        let answer = match self.call(asked.clone(), How::LOCAL).await {
            // That member may not be so far yet.
            Err(Fault::Refused(Refusal::Future)) => None,
            answer => Some(answer?),
        };
        if let Some(answer) = answer {
            let now = answer.header.map(|header| revision(header.revision)).unwrap_or_default();
            if seen <= now {
                self.saw(now);
                return Ok(answer);
            }
        }
        asked.serializable = false;
        self.call(asked, How::READ).await
    }

    /// Everything at one revision: first the leases its keys have, then the entries.
    pub(crate) async fn snapshot(self: Arc<Self>) -> Result<Snapshot, Error> {
        let now = self.revision().await.map_err(Fault::into_error)?;
        let compacted = self.refresh_compacted().await.map_err(Fault::into_error)?;
        let store = self.with_identity(Identity::cluster).unwrap_or(StoreId::new(0));
        let head = SnapshotHead { store, revision: now, compacted };
        let parts = Parts {
            leases: self.leases_at(now).await?.into_iter().collect(),
            session: self,
            at: now,
            entries: VecDeque::new(),
            rest: Some(Range::all()),
        };
        let items = futures_util::stream::unfold(Some(parts), |parts| async move {
            let mut parts = parts?;
            match parts.next().await {
                Ok(item) => item.map(|item| (Ok(item), Some(parts))),
                // It is of no use any more.
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Snapshot::new(head, items))
    }

    /// The leases that keys had at `at`.
    async fn leases_at(&self, at: Revision) -> Result<BTreeSet<LeaseId>, Error> {
        let (mut leases, mut rest) = (BTreeSet::new(), Range::all());
        loop {
            let page = self.range(keys_only(rest.clone(), at)).await?;
            leases.extend(page.entries.iter().filter_map(|entry| entry.lease));
            match page.entries.last() {
                Some(last) if page.more => rest = rest.after(&last.key),
                _ => return Ok(leases),
            }
        }
    }
}

/// What of a snapshot is still to come.
struct Parts {
    session: Arc<Session>,
    at: Revision,
    leases: VecDeque<LeaseId>,
    entries: VecDeque<Entry>,
    /// Not yet read.
    rest: Option<Range>,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<SnapshotItem>, Error> {
        if let Some(id) = self.leases.pop_front() {
            let ttl = match self.session.time_to_live(id).await {
                Ok(status) => status.granted,
                // It has ended since, and how long it was granted for is known no more. The keys
                // it had must not stay for ever where this is restored, so they get the shortest.
                Err(Error::LeaseNotFound { .. }) => ENDED_TTL,
                Err(other) => return Err(other),
            };
            return Ok(Some(SnapshotItem::Lease { id, ttl }));
        }
        while self.entries.is_empty()
            && let Some(range) = self.rest.take()
        {
            let page = self.session.range(largest(range.clone()).at(self.at)).await?;
            if let Some(last) = page.entries.last().filter(|_| page.more) {
                self.rest = Some(range.after(&last.key));
            }
            self.entries = page.entries.into();
        }
        Ok(self.entries.pop_front().map(SnapshotItem::Entry))
    }
}

/// The largest page of `range` there can be.
fn largest(range: Range) -> RangeRequest {
    let select = Select::new(range);
    RangeRequest::new(match NonZeroU32::new(PAGE_ENTRIES_MAX) {
        Some(limit) => select.limit(limit),
        None => select,
    })
}

/// The same, without values, as of `at`.
fn keys_only(range: Range, at: Revision) -> RangeRequest {
    let request = largest(range).at(at);
    RangeRequest { select: request.select.keys_only(), ..request }
}

/// `key` with a NUL: the next key there can be.
fn after(key: &Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

/// An answer that is too large is asked for again in parts of an eighth.
const PARTS: usize = 8;

const ENDED_TTL: Duration = Duration::from_secs(2);
