//! What people change, and the record of it.

use mainstay_store::{Put, Revision};
use serde_json::{Value, json};

use crate::audit::Target;
use crate::registry::instance::Instance;
use crate::registry::shared::Shared;
use crate::terms::Terms;

/// A change that somebody makes who is not the instance itself: it is recorded.
#[derive(Clone, Copy, Debug)]
pub(in crate::registry) struct Deed<'a> {
    /// What: `instance:drain`.
    pub(in crate::registry) action: &'static str,
    /// Who asks, and on what terms.
    pub(in crate::registry) terms: Terms<'a>,
}

/// How something was before it was changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// When it was written.
    pub(super) written: Revision,
    /// When it was read.
    pub(super) read_at: Revision,
}

impl Deed<'_> {
    /// The operation that records it, for the batch that does it to the `kind` called `id`.
    pub(super) fn told(
        self,
        shared: &Shared,
        (kind, id): (&str, String),
        before: Before,
        (was, is): (Value, Value),
    ) -> Put {
        let target = Target {
            kind: kind.to_owned(),
            id,
            revision_before: Some(before.written)
                .filter(|at| *at != Revision::NEVER)
                .map(Revision::get),
            revision_after: None,
        };
        let record = shared.outbox.record(self.action, target, self.terms.author).changed(was, is);
        shared.outbox.put(before.read_at, &record)
    }
}

/// What a record tells of an instance.
pub(super) fn shown(instance: &Instance) -> Value {
    json!({
        "address": instance.address,
        "port": instance.port,
        "state": instance.state.as_str(),
        "weight": instance.weight,
        "drain_seconds": instance.drain_seconds,
        "maintenance": instance.maintenance,
    })
}
