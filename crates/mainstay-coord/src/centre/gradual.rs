//! Starting, widening, promoting and aborting a gradual release.

use mainstay_store::{Compare, Error, Get, Op, Put};
use serde_json::json;

use super::Centre;
use super::canary::{Canary, RawCanary};
use super::change::{Action, Change, Editor};
use super::error::CentreError;
use super::publish::{may_append, running};
use super::read::Ground;
use super::record::{self, Head};
use super::shared::Shared;
use crate::keys::GroupRef;
use crate::patience::Patience;
use crate::random;

/// What a step makes of the head, and of which release the record is written again.
struct Turn {
    head: Head,
    renewed: Option<u64>,
}

impl Centre {
    /// Says anew who gets the canary. Without one under way, gives the release that `raw` names to
    /// those first: one that is newer than the one in force, such as an aborted canary.
    ///
    /// # Errors
    ///
    /// [`CentreError::CanaryRunning`] when another release is under way,
    /// [`CentreError::CanaryNotFound`] when none is and `raw` names none,
    /// [`CentreError::ReleaseNotFound`], [`CentreError::Moved`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; calling again does no harm.
    pub async fn set_canary(
        &self,
        group: &GroupRef,
        raw: &RawCanary,
        editor: &Editor,
    ) -> Result<Head, CentreError> {
        raw.check()?;
        let unix_ms = self.shared.timer.unix_millis();
        let decide = |ground: &Ground, change: &str| {
            let mut head = ground.head.next(change);
            let (canary, renewed) = match (&ground.head.canary, raw.release) {
                (Some(now), Some(other)) if now.release != other => {
                    return Err(CentreError::CanaryRunning {
                        group: group.clone(),
                        release: now.release,
                        since_unix_ms: now.since_unix_ms,
                    });
                }
                (Some(now), _) => (running(raw, now.release, now.since_unix_ms), None),
                (None, None) => return Err(CentreError::CanaryNotFound { group: group.clone() }),
                (None, Some(release)) if release <= ground.head.release => {
                    let problem = "must be newer than the one in force; to go back, roll back";
                    return Err(CentreError::invalid("release", problem));
                }
                (None, Some(release)) => (running(raw, release, unix_ms), Some(release)),
            };
            head.canary = Some(canary);
            Ok(Turn { head, renewed })
        };
        let is_done = |head: &Head| head.canary.as_ref().is_some_and(|now| is_like(now, raw));
        self.shared.turn(Action::StartCanary, group, editor, decide, is_done).await
    }

    /// Gives the canary to everybody.
    ///
    /// # Errors
    ///
    /// [`CentreError::CanaryNotFound`], [`CentreError::Moved`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; the head tells.
    pub async fn promote(&self, group: &GroupRef, editor: &Editor) -> Result<Head, CentreError> {
        let decide = |ground: &Ground, change: &str| {
            let mut head = ground.head.next(change);
            let canary = head.canary.take();
            let canary =
                canary.ok_or_else(|| CentreError::CanaryNotFound { group: group.clone() })?;
            head.release = canary.release;
            Ok(Turn { head, renewed: None })
        };
        self.shared.turn(Action::Promote, group, editor, decide, |_head| false).await
    }

    /// Takes the canary back: everybody gets the release in force. Its number is not given again.
    ///
    /// # Errors
    ///
    /// As [`promote`](Centre::promote).
    ///
    /// # Cancel safety
    ///
    /// As [`promote`](Centre::promote).
    pub async fn abort(&self, group: &GroupRef, editor: &Editor) -> Result<Head, CentreError> {
        let decide = |ground: &Ground, change: &str| {
            let mut head = ground.head.next(change);
            let canary = head.canary.take();
            canary.ok_or_else(|| CentreError::CanaryNotFound { group: group.clone() })?;
            Ok(Turn { head, renewed: None })
        };
        self.shared.turn(Action::Abort, group, editor, decide, |_head| false).await
    }
}

impl Shared {
    /// Changes a head as `decide` says.
    ///
    /// After an unknown outcome the head is read: its change id, which is ours, says that it came
    /// through. If somebody else has changed it since, only `is_done` can tell; where it cannot,
    /// the outcome stays unknown.
    async fn turn(
        &self,
        action: Action,
        group: &GroupRef,
        editor: &Editor,
        mut decide: impl FnMut(&Ground, &str) -> Result<Turn, CentreError>,
        is_done: impl Fn(&Head) -> bool,
    ) -> Result<Head, CentreError> {
        self.outbox.admit(&editor.author)?;
        let id = random::hex::<16>();
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        loop {
            let ground = match self.published(group).await {
                Ok(ground) => ground,
                Err(CentreError::Store(error)) => {
                    patience.bear(&*self.timer, error).await?;
                    continue;
                }
                Err(_) if patience.is_uncertain() => return Err(Error::OutcomeUnknown.into()),
                Err(error) => return Err(error),
            };
            let is_ours = ground.head.change == id;
            if is_ours || patience.is_uncertain() && is_done(&ground.head) {
                self.reached(ground.at).await;
                return Ok(ground.head);
            }
            let decided = may_append(group, &ground, editor).and_then(|()| decide(&ground, &id));
            let Turn { head, renewed } = match decided {
                Ok(turn) => turn,
                // It may be so because it came through, and somebody went on from there.
                Err(_) if patience.is_uncertain() => {
                    return Err(Error::OutcomeUnknown.into());
                }
                Err(error) => return Err(error),
            };
            let mut when = vec![Compare::unchanged_since(&group.head(), ground.written)];
            let mut then: Vec<Op> = Vec::new();
            if let Some(release) = renewed {
                let (compare, put) = self.renewed(group, release).await?;
                when.push(compare);
                then.push(put);
            }
            if editor.dry_run {
                return Ok(head);
            }
            then.push(Put::new(group.head(), record::write(&head)).into());
            let change = change(action, group, editor, (&ground.head, &head));
            match self.store.apply(change.batch(self, ground.at, when, then)).await {
                Ok(applied) if applied.succeeded => {
                    change.made();
                    self.reached(applied.revision).await;
                    return Ok(head);
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*self.timer, error).await?,
            }
        }
    }

    /// Writes a release again as it is: a copy keeps only releases that a head names, and so sees
    /// this one in the revision that names it.
    async fn renewed(&self, group: &GroupRef, release: u64) -> Result<(Compare, Op), CentreError> {
        let key = group.release(release);
        let missing = || CentreError::ReleaseNotFound { group: group.clone(), release };
        let entry = self.store.get(Get::new(key.clone())).await?.entry.ok_or_else(missing)?;
        let compare = Compare::unchanged_since(&key, entry.mod_revision);
        Ok((compare, Put::new(key, entry.value).into()))
    }
}

fn change<'a>(
    action: Action,
    group: &'a GroupRef,
    editor: &'a Editor,
    (was, is): (&Head, &Head),
) -> Change<'a> {
    let (before, after) = (was.release, is.release);
    let shown = (json!({ "canary": was.canary }), json!({ "canary": is.canary }));
    Change { action, group, author: &editor.author, note: "", before, after, shown }
}

fn is_like(now: &Canary, raw: &RawCanary) -> bool {
    raw.release.is_none_or(|release| release == now.release)
        && (&now.clients, &now.labels, now.percent) == (&raw.clients, &raw.labels, raw.percent)
}
