//! Changes that are only tried, or only made if nothing has moved.

use mainstay_store::{Error, Revision};
use serde_json::Value;

use crate::keys::InstanceRef;
use crate::registry::RegistryError;
use crate::registry::shared::Shared;

/// What a change that was only tried would have come to, in the words of its audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How it is.
    pub before: Value,
    /// How it would be; null when it would be gone.
    pub after: Value,
}

impl Shared {
    /// Whether `at`, written at `found`, is as somebody read it who `expected` that revision: that
    /// of its record, or the one that lists of this node show, which no news of its checks' output
    /// moves. The caller compares the record when it writes.
    pub(super) async fn is_as_read(
        &self,
        at: &InstanceRef,
        expected: Option<Revision>,
        found: Revision,
        is_uncertain: bool,
    ) -> Result<(), RegistryError> {
        let Some(expected) = expected.filter(|expected| *expected != found) else { return Ok(()) };
        let shown = self.shown_at(at, found).await?;
        if shown == Some(expected) {
            return Ok(());
        }
        // What moved it may be what was tried before.
        if is_uncertain {
            return Err(Error::OutcomeUnknown.into());
        }
        let found = shown.unwrap_or(found);
        Err(RegistryError::InstanceChanged { instance: at.clone(), expected, found })
    }

    /// The revision of `at` in lists, once they show what was written at `written`; `None` when it
    /// is in no list, or in one of what was written since.
    async fn shown_at(
        &self,
        at: &InstanceRef,
        written: Revision,
    ) -> Result<Option<Revision>, RegistryError> {
        self.applied(crate::keys::RegistryArea::Instances, written).await;
        let mut local = self.loaded()?;
        let is_this = local.copy.instance(at).is_some_and(|(_, copied)| copied == written);
        if !is_this {
            return Ok(None);
        }
        let view = local.view(self.now(), self.timer.unix_millis(), &at.service, &self.figures);
        let listed = view.instances.iter().find(|listed| listed.id == at.id);
        Ok(listed.map(|listed| listed.revision))
    }
}
