//! Being told of releases.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::select_all;
use serde::Serialize;
use tokio::sync::watch;

use super::Centre;
use super::canary::Client;
use super::copy::Group;
use super::diff::{self, ItemChange, Turn};
use super::error::CentreError;
use super::holders::Verdict;
use super::item::{Format, show};
use super::record::{Release, Row};
use super::shared::Shared;
use crate::events::centre::Rejected;
use crate::keys::GroupRef;

/// Most groups of one subscription.
pub const GROUPS_MAX: usize = 100;

/// Longest contents that come with an update; longer ones are asked for.
pub const CONTENTS_BYTES_MAX: usize = 65_536;

/// An item as a client gets it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// What the content is written in.
    pub format: Format,
    /// Whether it is a secret.
    pub secret: bool,
    /// The content; missing of a secret for whoever may not read secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Arc<str>>,
}

impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "Delivered", self.format, self.content.as_deref().unwrap_or_default(), self.secret)
    }
}

/// A release as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Of which group: `namespace/group`.
    pub group: String,
    /// Which release.
    pub release: u64,
    /// Whether the client is one of those who get it first.
    pub canary: bool,
    /// Its items, by name.
    pub items: BTreeMap<String, Delivered>,
}

/// Another release is in force for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Update {
    /// Of which group: `namespace/group`.
    pub group: String,
    /// The store's revision it was decided at; resumes nothing, but orders.
    pub revision: u64,
    /// Which release.
    pub release: u64,
    /// Whether the client is one of those who get it first.
    pub canary: bool,
    /// The release the changes are counted from; 0 for none, or one that is no longer known.
    pub from: u64,
    /// What changed.
    pub changed: Vec<ItemChange>,
    /// Contents of the items that changed, if they are 64 KiB at most; else they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<BTreeMap<String, Delivered>>,
}

/// A client's wish to be told.
#[derive(Clone, Debug)]
pub struct Interest {
    /// Who it is.
    pub client: Client,
    /// Groups, each with the release the client holds.
    pub groups: Vec<(GroupRef, Option<u64>)>,
    /// Whether it may read secrets.
    pub secrets: bool,
}

/// A client that is being told. Dropping it ends that.
pub struct Subscription {
    shared: Arc<Shared>,
    client: Client,
    secrets: bool,
    followed: Vec<Followed>,
}

struct Followed {
    group: GroupRef,
    states: watch::Receiver<Option<Arc<Group>>>,
    held: Option<u64>,
    last: Option<Arc<Release>>,
}

impl Centre {
    /// What `client` gets of a group. Without a client, what most get.
    ///
    /// # Errors
    ///
    /// [`CentreError::Loading`], [`CentreError::GroupNotFound`], [`CentreError::Secret`], or what
    /// the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn fetch(
        &self,
        group: &GroupRef,
        client: Option<&Client>,
        secrets: bool,
    ) -> Result<Fetched, CentreError> {
        let shared = &*self.shared;
        let missing = || CentreError::GroupNotFound { group: group.clone() };
        let (release, canary) = {
            let local = shared.loaded()?;
            let known = local.copy.group(group).ok_or_else(missing)?;
            let release = known.effective(group, client).ok_or_else(missing)?;
            (Arc::clone(release), release.number != known.head.release)
        };
        let items = shared.delivered(group, &release, release.items.keys(), secrets).await?;
        Ok(Fetched { group: group.to_string(), release: release.number, canary, items })
    }

    /// Tells a client of its groups: at once of those where it should hold another release than it
    /// says, then of each change. Groups nobody has published yet are waited for.
    ///
    /// # Errors
    ///
    /// [`CentreError::Loading`], [`CentreError::TooLarge`] for more than 100 groups,
    /// [`CentreError::Invalid`] for more than 64 labels, or too long ones.
    pub fn subscribe(&self, interest: Interest) -> Result<Subscription, CentreError> {
        let Interest { client, groups, secrets } = interest;
        if GROUPS_MAX < groups.len() {
            let (what, found) = ("subscription".to_owned(), groups.len());
            return Err(CentreError::TooLarge { what, found, unit: "groups", max: GROUPS_MAX });
        }
        client.check()?;
        let unix_ms = self.shared.timer.unix_millis();
        let mut local = self.shared.loaded()?;
        let mut followed = Vec::with_capacity(groups.len());
        for (group, held) in groups {
            let states = local.subscribe(&group);
            let known = local.copy.group(&group).and_then(|it| it.effective(&group, Some(&client)));
            let effective = known.map_or(0, |release| release.number);
            if !local.holders.connected(&group, &client, held, effective, unix_ms) {
                self.shared.figures.untracked();
            }
            followed.push(Followed { group, states, held, last: None });
        }
        drop(local);
        Ok(Subscription { shared: Arc::clone(&self.shared), client, secrets, followed })
    }

    /// Takes a client's word on what became of a release.
    ///
    /// # Errors
    ///
    /// [`CentreError::Loading`], [`CentreError::GroupNotFound`], [`CentreError::Invalid`] as for a
    /// subscription.
    pub fn report(
        &self,
        group: &GroupRef,
        client: &Client,
        release: u64,
        verdict: &Verdict,
    ) -> Result<(), CentreError> {
        client.check()?;
        let mut local = self.shared.loaded()?;
        let missing = || CentreError::GroupNotFound { group: group.clone() };
        let known = local.copy.group(group).ok_or_else(missing)?;
        let effective = known.effective(group, Some(client)).map_or(0, |it| it.number);
        let unix_ms = self.shared.timer.unix_millis();
        if !local.holders.report(group, client, (release, verdict), effective, unix_ms) {
            self.shared.figures.untracked();
        }
        drop(local);
        if let Verdict::Rejected { reason } = verdict {
            Rejected { group, client: &client.id, release, reason }.emit();
        }
        Ok(())
    }
}

impl Subscription {
    /// Waits until a group should be held at another release; releases that follow each other
    /// faster than they are taken are told as one.
    ///
    /// # Cancel safety
    ///
    /// Safe: an update counts as told only when it is returned.
    pub async fn next(&mut self) -> Update {
        loop {
            let Self { shared, client, secrets, followed } = self;
            for one in &mut *followed {
                let Some(state) = one.states.borrow_and_update().clone() else { continue };
                let Some(release) = state.effective(&one.group, Some(client)).cloned() else {
                    continue;
                };
                if one.held == Some(release.number) {
                    one.last = Some(release);
                    continue;
                }
                let update = shared.update(one, &state, &release, *secrets).await;
                (one.held, one.last) = (Some(release.number), Some(release));
                return update;
            }
            if followed.is_empty() {
                return std::future::pending().await;
            }
            let changes = followed.iter_mut().map(|one| Box::pin(one.states.changed()));
            let (changed, ..) = select_all(changes).await;
            if changed.is_err() {
                // The node is going; whoever waits for it is told so by its stream.
                return std::future::pending().await;
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let unix_ms = self.shared.timer.unix_millis();
        let mut local = self.shared.local.lock();
        for Followed { group, states, .. } in self.followed.drain(..) {
            local.holders.disconnected(&group, &self.client.id, unix_ms);
            drop(states);
            local.unsubscribed(&group);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl Shared {
    async fn update(
        &self,
        one: &Followed,
        state: &Group,
        release: &Release,
        secrets: bool,
    ) -> Update {
        let base = self.held(one, state).await;
        let none = BTreeMap::new();
        let old = base.as_deref().map_or(&none, |base| &base.items);
        let changed = diff::changes(old, &release.items, Row::is_same);
        let names = changed.iter().filter(|it| it.change != Turn::Removed).map(|it| &it.item);
        let bytes: usize =
            names.clone().filter_map(|name| release.items.get(name)).map(|row| row.bytes).sum();
        let contents = if bytes <= CONTENTS_BYTES_MAX {
            // What cannot be read now is asked for, and the asking says why.
            self.delivered(&one.group, release, names, secrets).await.ok()
        } else {
            None
        };
        Update {
            group: one.group.to_string(),
            revision: state.revision.get(),
            release: release.number,
            canary: release.number != state.head.release,
            from: base.map_or(0, |base| base.number),
            changed,
            contents,
        }
    }

    /// The release a client holds, if it is still known.
    async fn held(&self, one: &Followed, state: &Group) -> Option<Arc<Release>> {
        let held = one.held?;
        let last = one.last.as_ref().filter(|last| last.number == held);
        if let Some(known) = last.or_else(|| state.release(held)) {
            return Some(Arc::clone(known));
        }
        self.release(&one.group, held, None).await.ok().map(|(release, _)| Arc::new(release))
    }

    /// Items of a release, as a client gets them.
    pub(super) async fn delivered<'a>(
        &self,
        group: &GroupRef,
        release: &Release,
        names: impl Iterator<Item = &'a String>,
        secrets: bool,
    ) -> Result<BTreeMap<String, Delivered>, CentreError> {
        let mut items = BTreeMap::new();
        for name in names {
            let Some(row) = release.items.get(name) else { continue };
            let content = if row.secret && !secrets {
                None
            } else {
                Some(self.content(group, name, row, &release.keys).await?)
            };
            let (format, secret) = (row.format, row.secret);
            items.insert(name.clone(), Delivered { format, secret, content });
        }
        Ok(items)
    }
}
