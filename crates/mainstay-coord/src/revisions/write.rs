//! Changing one object.

use mainstay_store::{Batch, Compare, Error, Get, Key, Put, RangeRequest, Revision, Select};
use serde::Serialize;
use serde_json::Value;

use super::diff::Diff;
use super::edition::{Edition, Object, Wanted, decide};
use super::error::{OBJECTS_MAX, RuleError, What};
use super::terms::{CONTENT_BYTES_MAX, Fault, Kind, Terms};
use super::{Head, Revisions};
use crate::audit::{Record, Target};
use crate::keys::RuleRef;
use crate::patience::Patience;
use crate::random;
use crate::registry::listing::list_all;

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ObjectWritten)]
pub struct Written {
    /// The number of the newest revision; of a dry run, the number it would get.
    pub revision: u64,
    /// The revision of the store that holds it; of a dry run, the one it was decided at.
    pub store_revision: u64,
    /// Whether anything changed: putting what is there changes nothing.
    pub changed: bool,
    /// What differs.
    pub diff: Diff,
}

impl Revisions {
    /// Gives an object this content.
    ///
    /// # Errors
    ///
    /// [`RuleError`]; after [`Error::OutcomeUnknown`] in it, read the object.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; putting the same content again does no harm.
    pub async fn put(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        content: Value,
        terms: &Terms,
    ) -> Result<Written, RuleError> {
        check(kind, &content)?;
        self.change(kind, rule, Wanted::Content(content), terms).await
    }

    /// Removes an object. Its history stays, and it can be rolled back.
    ///
    /// # Errors
    ///
    /// As [`put`](Revisions::put); [`RuleError::NotFound`].
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open.
    pub async fn remove(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        terms: &Terms,
    ) -> Result<Written, RuleError> {
        self.change(kind, rule, Wanted::Removed, terms).await
    }

    /// Appends an edition with the content of revision `to`. An object that was removed comes back;
    /// going back to its first revision keeps it.
    ///
    /// # Errors
    ///
    /// As [`put`](Revisions::put); [`RuleError::NotFound`] when that revision was swept, or removed
    /// the object.
    ///
    /// # Cancel safety
    ///
    /// As [`put`](Revisions::put).
    pub async fn rollback(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        to: u64,
        terms: &Terms,
    ) -> Result<Written, RuleError> {
        let content = self.at(rule, to).await?.content;
        // What was valid then may not be now.
        check(kind, &content)?;
        self.change(kind, rule, Wanted::Back(to, content), terms).await
    }

    /// Removes an object while a key beside it is as it was written at a revision, never for "not
    /// there"; `None` when that has changed.
    pub(crate) async fn remove_while(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        terms: &Terms,
        beside: (Key, Revision),
    ) -> Result<Option<Written>, RuleError> {
        self.change_while(kind, rule, Wanted::Removed, terms, Some(beside)).await
    }

    pub(crate) async fn change(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        wanted: Wanted,
        terms: &Terms,
    ) -> Result<Written, RuleError> {
        let changed = self.change_while(kind, rule, wanted, terms, None).await?;
        Ok(changed.expect("nothing beside it can have changed"))
    }

    async fn change_while(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        wanted: Wanted,
        terms: &Terms,
        beside: Option<(Key, Revision)>,
    ) -> Result<Option<Written>, RuleError> {
        self.outbox().admit(&terms.author)?;
        let change = random::hex::<16>();
        let mut patience = Patience::new(self.timer().now(), Patience::FOR_CALLERS);
        // What a batch of unknown outcome would have written, and on top of what.
        let mut open: Option<(Edition, Option<Edition>)> = None;
        loop {
            let attempt = async {
                let head = self.head(rule).await?;
                let before = head.edition.as_ref();
                let newest = before.map_or(0, |before| before.revision);
                // Below the number it would have, the batch has not arrived, and the compare of the
                // next one sees to it that one of both is beaten. From there on the number tells.
                if let Some((next, before)) =
                    open.as_ref().filter(|(next, _)| next.revision <= newest)
                {
                    let written = self.resolved(kind, rule, before.as_ref(), next).await?;
                    if let Some(written) = written {
                        return Ok(Next::Done(written));
                    }
                    open = None;
                }
                if let Some((key, written)) = &beside {
                    let found = self.store().get(Get::new(key.clone())).await?.entry;
                    if found.map_or(Revision::NEVER, |found| found.mod_revision) != *written {
                        return Ok(Next::Moved);
                    }
                }
                let at = (self.moment(), &*change);
                let decided = decide(rule, before, &wanted, terms, at);
                let Some(next) = decided.map_err(|error| self.without_secrets(kind, error))? else {
                    return Ok(Next::Done(unchanged(&head)));
                };
                if head.there().is_none() {
                    self.has_room(kind, rule).await?;
                }
                if terms.dry_run {
                    let written = self.written(kind, before, &next, head.read_at.get());
                    return Ok(Next::Done(written));
                }
                let mut batch = self.batch(kind, rule, &head, &next, terms);
                if let Some((key, written)) = &beside {
                    batch = batch.when(Compare::unchanged_since(key, *written));
                }
                let applied = self.store().apply(batch).await;
                if matches!(applied, Err(Error::OutcomeUnknown)) {
                    open = Some((next.clone(), head.edition.clone()));
                }
                let applied = applied?;
                let revision = applied.revision.get();
                if !applied.succeeded {
                    return Ok(Next::Again);
                }
                Ok(Next::Done(self.written(kind, before, &next, revision)))
            };
            match attempt.await {
                Ok(Next::Done(written)) => return Ok(Some(written)),
                Ok(Next::Again) => {}
                Err(RuleError::Store(error)) => patience.bear(self.timer(), error).await?,
                // It may be so because the try before came through, or will.
                Ok(Next::Moved) | Err(_) if open.is_some() => {
                    return Err(Error::OutcomeUnknown.into());
                }
                Ok(Next::Moved) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// What a batch of unknown outcome came to, now that its number is taken; `None` when it was
    /// beaten.
    async fn resolved(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        before: Option<&Edition>,
        next: &Edition,
    ) -> Result<Option<Written>, RuleError> {
        let got = self.store().get(Get::new(rule.revision(next.revision))).await?;
        let Some(entry) = got.entry else { return Ok(None) };
        let there = Edition::read(&entry.value);
        let is_ours = there.is_some_and(|there| there.change == next.change);
        let revision = entry.mod_revision.get();
        Ok(is_ours.then(|| self.written(kind, before, next, revision)))
    }

    /// The batch that appends `next` to `head`, with its audit record.
    fn batch(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        head: &Head,
        next: &Edition,
        terms: &Terms,
    ) -> Batch {
        let before = head.there();
        let target = Target {
            kind: kind.key.to_string(),
            id: rule.to_string(),
            revision_before: before.map(|before| before.revision),
            revision_after: Some(next.revision),
        };
        let (old, new) = self.shown(kind, before, next);
        let action = format!("{}:write", kind.key);
        let record = Record::done(next.at, &action, target, &terms.author).changed(old, new);
        let mut batch = Batch::new().when(Compare::unchanged_since(&rule.head(), head.written));
        for put in puts(rule, next) {
            batch = batch.then(put);
        }
        batch.then(self.outbox().put(head.read_at, &record))
    }

    /// Both contents, secrets masked.
    fn shown(&self, kind: &Kind, before: Option<&Edition>, next: &Edition) -> (Value, Value) {
        let mask = self.outbox().mask();
        let shown = |content: &Value| (kind.shown)(&mask, content.clone());
        (before.map_or(Value::Null, |before| shown(&before.content)), shown(&next.content))
    }

    /// What a refusal shows of an object.
    fn without_secrets(&self, kind: &Kind, mut error: RuleError) -> RuleError {
        if let RuleError::Moved { current: Some(object), .. } = &mut error {
            object.content = (kind.shown)(&self.outbox().mask(), object.content.take());
        }
        error
    }

    fn written(
        &self,
        kind: &Kind,
        before: Option<&Edition>,
        next: &Edition,
        store_revision: u64,
    ) -> Written {
        let before = before.filter(|before| !before.removed);
        let (old, new) = self.shown(kind, before, next);
        let from = before.map_or(0, |before| before.revision);
        let diff = Diff::between((from, &old), (next.revision, &new));
        Written { revision: next.revision, store_revision, changed: true, diff }
    }

    /// Whether another object may come. Counted at the store, so several at once may exceed the
    /// limit by what is under way.
    async fn has_room(&self, kind: &Kind, rule: &RuleRef) -> Result<(), RuleError> {
        let heads = rule.kind.heads(None);
        let count = Select::new(heads.clone()).count_only();
        if self.store().range(RangeRequest::new(count)).await?.count < OBJECTS_MAX {
            return Ok(());
        }
        // Among them are heads of what was removed, and what plans keep beside theirs.
        let (_, entries) = list_all(self.store(), heads).await?;
        let there = entries.iter().filter(|entry| kind.key.parse(&entry.key).is_some());
        let there = there.filter_map(|entry| Edition::read(&entry.value));
        let there = there.filter(|edition| !edition.removed).count() as u64;
        if there < OBJECTS_MAX { Ok(()) } else { Err(RuleError::Full { kind: kind.key }) }
    }

    /// An object as it is now.
    ///
    /// # Errors
    ///
    /// [`RuleError::NotFound`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn get(&self, rule: &RuleRef) -> Result<Object, RuleError> {
        let head = self.head(rule).await?;
        let there = head.there().ok_or_else(|| RuleError::not_found(rule, What::Object))?;
        Ok(Object::new(rule, there))
    }
}

/// What a try came to.
enum Next {
    Done(Written),
    /// Somebody else was faster.
    Again,
    /// What had to stay as it was did not.
    Moved,
}

/// The two keys an edition is written to.
pub(crate) fn puts(rule: &RuleRef, edition: &Edition) -> [Put; 2] {
    let value = bytes::Bytes::from(edition.write());
    [Put::new(rule.head(), value.clone()), Put::new(rule.revision(edition.revision), value)]
}

/// Finds what is wrong with a content of `kind`.
///
/// # Errors
///
/// [`RuleError::Invalid`].
pub(crate) fn check(kind: &Kind, content: &Value) -> Result<(), RuleError> {
    let bytes = content.to_string().len();
    let faults = if bytes <= CONTENT_BYTES_MAX {
        (kind.check)(content)
    } else {
        let detail = format!("content has {bytes} bytes, more than {CONTENT_BYTES_MAX}");
        vec![Fault::new("", "too-large", detail)]
    };
    if faults.is_empty() { Ok(()) } else { Err(RuleError::Invalid { kind: kind.key, faults }) }
}

fn unchanged(head: &Head) -> Written {
    let revision = head.there().map_or(0, |there| there.revision);
    let diff = Diff { from: revision, to: revision, ..Diff::default() };
    Written { revision, store_revision: head.written.get(), changed: false, diff }
}
