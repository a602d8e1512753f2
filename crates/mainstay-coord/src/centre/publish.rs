//! Publishing, and rolling back: both append a release.
//!
//! Contents are put first, then one batch writes the release and the head, and compares the head
//! it was made of. A release carries an id of its publication; when an outcome is unknown, reading
//! the release of that number says whether it is ours.

use mainstay_store::{Compare, Error, Op, Put, Revision};
use serde::Serialize;
use serde_json::{Value, json};

use super::Centre;
use super::canary::{Canary, RawCanary};
use super::change::{Action, Change, Editor};
use super::contents::Blob;
use super::diff::{self, Diff, ItemChange};
use super::error::CentreError;
use super::plan::{Publication, Wanted, check_note};
use super::read::Ground;
use super::record::{self, Head, Release, Row};
use super::shared::Shared;
use crate::keys::GroupRef;
use crate::patience::Patience;
use crate::random;

/// What a publication, or a rollback, came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigPublished)]
pub struct Published {
    /// The release; the one in force when nothing changed.
    pub release: u64,
    /// The store's revision that has it.
    pub revision: u64,
    /// Whether it is new.
    pub is_new: bool,
    /// Whether only the clients of a canary get it for now.
    pub canary: bool,
    /// What differs from the release before.
    pub changed: Vec<ItemChange>,
}

impl Published {
    const fn unchanged(release: u64, at: Revision) -> Self {
        let revision = at.get();
        Self { release, revision, is_new: false, canary: false, changed: Vec::new() }
    }
}

/// What a release is made from.
enum Source<'a> {
    Items(&'a Wanted, Option<&'a RawCanary>),
    Rollback(u64),
}

/// A release about to be appended.
struct Step {
    /// The revision of the store it was decided at.
    decided: Revision,
    record: Release,
    head: Head,
    blobs: Vec<Blob>,
    compares: Vec<Compare>,
    ops: Vec<Op>,
    changed: Vec<ItemChange>,
}

impl Step {
    /// The publication it comes to, in no revision yet.
    fn planned(&self) -> Published {
        let release = self.record.number;
        Published {
            release,
            revision: Revision::NEVER.get(),
            is_new: true,
            canary: self.head.release != release,
            changed: self.changed.clone(),
        }
    }
}

/// What is always the same, however often it is tried.
struct Errand<'a> {
    group: &'a GroupRef,
    editor: &'a Editor,
    note: &'a str,
    source: Source<'a>,
    id: String,
}

impl Errand<'_> {
    /// The change that made `done` of release `base`.
    fn change(&self, base: u64, done: &Published) -> Change<'_> {
        let action = match self.source {
            Source::Rollback(_) => Action::Rollback,
            Source::Items(..) => Action::Publish,
        };
        let (author, note) = (&self.editor.author, self.note);
        let is = match self.source {
            Source::Rollback(to) => json!({ "changed": done.changed, "rollback_of": to }),
            Source::Items(..) => json!({ "changed": done.changed, "canary": done.canary }),
        };
        let (before, after, shown) = (base, done.release, (Value::Null, is));
        Change { action, group: self.group, author, note, before, after, shown }
    }
}

impl Centre {
    /// Publishes items, drafts, or both as the next release of the whole group. When nothing
    /// changed the release in force is answered and nothing is written.
    ///
    /// # Errors
    ///
    /// [`CentreError::FormatInvalid`] and [`CentreError::SchemaViolation`] list every fault;
    /// [`CentreError::Moved`] when another release is in force than [`Editor::base`] says;
    /// [`CentreError::CanaryRunning`]; sizes and names; what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; the history tells.
    pub async fn publish(
        &self,
        group: &GroupRef,
        publication: &Publication,
        editor: &Editor,
    ) -> Result<Published, CentreError> {
        let wanted = Wanted::new(publication)?;
        let canary = publication.canary.as_ref();
        canary.map_or(Ok(()), RawCanary::check)?;
        let source = Source::Items(&wanted, canary);
        let id = random::hex::<16>();
        let errand = Errand { group, editor, note: &publication.note, source, id };
        self.shared.append(errand).await
    }

    /// What [`publish`](Centre::publish) would change, with all its checks; writes nothing.
    ///
    /// # Errors
    ///
    /// As [`publish`](Centre::publish).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn preview(
        &self,
        group: &GroupRef,
        publication: &Publication,
        editor: &Editor,
    ) -> Result<Diff, CentreError> {
        let wanted = Wanted::new(publication)?;
        publication.canary.as_ref().map_or(Ok(()), RawCanary::check)?;
        let ground = self.shared.ground(group).await?;
        may_append(group, &ground, editor)?;
        not_running(group, &ground)?;
        let plan = self.shared.plan(group, &ground, &wanted).await?;
        self.shared.preview(group, &ground, plan).await
    }

    /// What [`roll_back`](Centre::roll_back) would change; writes nothing.
    ///
    /// # Errors
    ///
    /// As [`roll_back`](Centre::roll_back).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn preview_rollback(
        &self,
        group: &GroupRef,
        to: u64,
        editor: &Editor,
    ) -> Result<Diff, CentreError> {
        let ground = self.shared.published(group).await?;
        may_append(group, &ground, editor)?;
        self.shared.release(group, to, Some(ground.at)).await?;
        self.diff(group, ground.head.release, to).await
    }

    /// Appends a release with the content of release `to`. A canary under way is aborted.
    ///
    /// # Errors
    ///
    /// [`CentreError::ReleaseNotFound`], [`CentreError::Moved`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Centre::publish).
    pub async fn roll_back(
        &self,
        group: &GroupRef,
        to: u64,
        note: &str,
        editor: &Editor,
    ) -> Result<Published, CentreError> {
        check_note(note)?;
        let (source, id) = (Source::Rollback(to), random::hex::<16>());
        self.shared.append(Errand { group, editor, note, source, id }).await
    }
}

impl Shared {
    async fn append(&self, errand: Errand<'_>) -> Result<Published, CentreError> {
        let done = self.try_append(&errand).await;
        if errand.editor.dry_run {
            return done;
        }
        let outcome = match &done {
            Ok(Published { is_new: true, .. }) => "published",
            Ok(_) => "unchanged",
            Err(CentreError::Store(_)) => "failed",
            Err(_) => "refused",
        };
        self.figures.published(outcome);
        done
    }

    async fn try_append(&self, errand: &Errand<'_>) -> Result<Published, CentreError> {
        self.outbox.admit(&errand.editor.author)?;
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        // Tried on top of a release, with an outcome that is not known.
        let mut tried: Option<(u64, Published)> = None;
        loop {
            let step = match self.step(errand, tried.as_ref().map(|(_, done)| done.release)).await {
                Ok(Next::Append(step)) if errand.editor.dry_run => return Ok(step.planned()),
                Ok(Next::Append(step)) => step,
                Ok(Next::Same(published)) => return Ok(published),
                Ok(Next::Done(revision)) => {
                    self.reached(revision).await;
                    let (base, done) = tried.expect("only what was tried can be found");
                    errand.change(base, &done).made();
                    return Ok(Published { revision: revision.get(), ..done });
                }
                Err(CentreError::Store(error)) => {
                    patience.bear(&*self.timer, error).await?;
                    continue;
                }
                Err(error) => {
                    // It may be so because the try before came through, or will.
                    return Err(match &tried {
                        Some((_, done)) if !self.is_beaten(errand, done.release).await => {
                            Error::OutcomeUnknown.into()
                        }
                        _ => error,
                    });
                }
            };
            let planned = step.planned();
            let Step { decided, record, head, blobs, compares, ops, .. } = *step;
            self.put_blobs(blobs).await?;
            let puts: [Op; 2] = [
                Put::new(errand.group.release(record.number), record::write(&record)).into(),
                Put::new(errand.group.head(), record::write(&head)).into(),
            ];
            let ops = puts.into_iter().chain(ops).collect();
            let change = errand.change(record.base, &planned);
            match self.store.apply(change.batch(self, decided, compares, ops)).await {
                Ok(applied) if applied.succeeded => {
                    change.made();
                    self.reached(applied.revision).await;
                    return Ok(Published { revision: applied.revision.get(), ..planned });
                }
                Ok(_beaten) => {}
                Err(error) => {
                    patience.bear(&*self.timer, error).await?;
                    if patience.is_uncertain() {
                        tried = Some((record.base, planned));
                    }
                }
            }
        }
    }

    /// What to do next, as the group is now.
    async fn step(&self, errand: &Errand<'_>, tried: Option<u64>) -> Result<Next, CentreError> {
        let Errand { group, editor, note, source, id } = errand;
        let ground = self.ground(group).await?;
        // Read as of the ground: what came through between the two would be taken for a change by
        // somebody else.
        if let Some(tried) = tried
            && let Some(written) = self.came_through(group, tried, id, ground.at).await?
        {
            return Ok(Next::Done(written));
        }
        may_append(group, &ground, editor)?;
        let (number, decided) = (ground.head.last + 1, ground.at);
        let base = &ground.base;
        let mut record = Release {
            v: 1,
            number,
            id: id.clone(),
            who: editor.author.actor.principal.clone(),
            unix_ms: self.timer.unix_millis(),
            note: (*note).to_owned(),
            base: base.number,
            ..Release::default()
        };
        let mut head = ground.head.next(id);
        head.last = number;
        let mut compares = vec![Compare::unchanged_since(&group.head(), ground.written)];
        let same = Published::unchanged(base.number, ground.at);
        match source {
            Source::Rollback(to) => {
                let (old, written) = self.release(group, *to, Some(ground.at)).await?;
                let changed = diff::changes(&base.items, &old.items, Row::is_same);
                if changed.is_empty() && head.canary.is_none() {
                    return Ok(Next::Same(same));
                }
                record.rollback_of = Some(*to);
                (record.items, record.keys) = (old.items, old.keys);
                (head.release, head.canary) = (number, None);
                // The contents it names must not be swept meanwhile.
                compares.push(Compare::unchanged_since(&group.release(*to), written));
                let (blobs, ops) = (Vec::new(), Vec::new());
                Ok(Next::append(Step { decided, record, head, blobs, compares, ops, changed }))
            }
            Source::Items(wanted, canary) => {
                not_running(group, &ground)?;
                let mut plan = self.plan(group, &ground, wanted).await?;
                compares.append(&mut plan.compares);
                let (ops, changed) = (std::mem::take(&mut plan.ops), plan.changed.clone());
                if changed.is_empty() && base.number == 0 {
                    return Err(CentreError::GroupNotFound { group: (*group).clone() });
                }
                if changed.is_empty() {
                    self.put_away(errand, &ground, compares, ops).await?;
                    return Ok(Next::Same(same));
                }
                match canary {
                    None => head.release = number,
                    Some(_) if ground.head.release == 0 => {
                        let problem = "needs a release that everybody else gets: publish one first";
                        return Err(CentreError::invalid("canary", problem));
                    }
                    Some(raw) => head.canary = Some(running(raw, number, record.unix_ms)),
                }
                let (rows, keys, blobs) = plan.write(self, group, number, base);
                (record.items, record.keys) = (rows, keys);
                Ok(Next::append(Step { decided, record, head, blobs, compares, ops, changed }))
            }
        }
    }

    /// When release `tried` was written, if the publication `id` had written it by `at`.
    async fn came_through(
        &self,
        group: &GroupRef,
        tried: u64,
        id: &str,
        at: Revision,
    ) -> Result<Option<Revision>, CentreError> {
        match self.release(group, tried, Some(at)).await {
            Ok((found, written)) => Ok(Some(written).filter(|_| *found.id == *id)),
            Err(CentreError::ReleaseNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a publication that was tried as release `tried` can no longer come through.
    async fn is_beaten(&self, errand: &Errand<'_>, tried: u64) -> bool {
        let Ok(ground) = self.ground(errand.group).await else { return false };
        let ours = self.came_through(errand.group, tried, &errand.id, ground.at).await;
        tried <= ground.head.last && matches!(ours, Ok(None))
    }

    /// Drafts that say what is published already are put away without a release.
    async fn put_away(
        &self,
        errand: &Errand<'_>,
        ground: &Ground,
        compares: Vec<Compare>,
        ops: Vec<Op>,
    ) -> Result<(), CentreError> {
        if ops.is_empty() || errand.editor.dry_run {
            return Ok(());
        }
        let Errand { group, editor, note, .. } = errand;
        let release = ground.head.release;
        let (action, author) = (Action::RemoveDraft, &editor.author);
        let (before, after, shown) = (release, release, (json!({ "item": "*" }), Value::Null));
        let change = Change { action, group, author, note, before, after, shown };
        // Should it not come through, the drafts stay, and nothing is lost.
        if self.store.apply(change.batch(self, ground.at, compares, ops)).await?.succeeded {
            change.made();
        }
        Ok(())
    }
}

/// What a try finds.
enum Next {
    Append(Box<Step>),
    /// Nothing would change.
    Same(Published),
    /// The try before came through, at this revision.
    Done(Revision),
}

impl Next {
    fn append(step: Step) -> Self {
        Self::Append(Box::new(step))
    }
}

/// A canary that begins now.
pub(super) fn running(raw: &RawCanary, release: u64, unix_ms: u64) -> Canary {
    Canary {
        release,
        clients: raw.clients.clone(),
        labels: raw.labels.clone(),
        percent: raw.percent,
        since_unix_ms: unix_ms,
    }
}

pub(super) fn may_append(
    group: &GroupRef,
    ground: &Ground,
    editor: &Editor,
) -> Result<(), CentreError> {
    let found = ground.head.release;
    match editor.base {
        Some(expected) if expected != found => {
            Err(CentreError::Moved { group: group.clone(), expected, found })
        }
        _ => Ok(()),
    }
}

fn not_running(group: &GroupRef, ground: &Ground) -> Result<(), CentreError> {
    match &ground.head.canary {
        None => Ok(()),
        Some(Canary { release, since_unix_ms, .. }) => Err(CentreError::CanaryRunning {
            group: group.clone(),
            release: *release,
            since_unix_ms: *since_unix_ms,
        }),
    }
}
