//! The config centre: configuration as releases of whole groups.
//!
//! ```text
//!  drafts ─┐                       store ──watch──▶ copy ──▶ whoever asks or is subscribed
//!          ├─▶ plan ─▶ contents, then release + head ▲                      │
//!  items ──┘          (one batch, compares the head) │                      ▼
//!                                                    └──── hold/… ◀── who holds what
//! ```
//!
//! A *release* is the immutable, numbered content of a whole *group*, so that many items change at
//! once. Contents are put first; then one batch writes the release and the *head*, which says what
//! is in force, and compares the head it was made of. Going back appends a release, too. A
//! *canary* is a release that some clients get before the others ([`canary`], a pure function).
//!
//! Every node answers from a copy of its own, and a write answers when the copy has it. Secrets are
//! sealed with a data key a release, which a key of the [keyring](crate::keyring) wraps.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | an item; whether it is what it claims to be | [`item`], [`check`] | decides |
//! | who gets which release; what differs | [`canary`], [`diff`] | decides |
//! | what goes when | [`sweep`] | decides; acts |
//! | who holds which release | [`holders`], `flush` | decides; acts |
//! | from a wish to a release; the one place where batches are made | [`plan`], [`publish`], [`change`] | acts |
//! | drafts, gradual releases, history | [`draft`], `gradual`, [`history`] | act |
//! | the copy, and those who are told | `copy`, `feed`, [`subscription`] | decides; act |

pub mod canary;
pub mod change;
pub mod check;
mod contents;
mod copy;
pub mod diff;
pub mod draft;
pub mod error;
mod feed;
pub mod figures;
mod flush;
mod gradual;
pub mod history;
pub mod holders;
pub mod item;
pub mod plan;
pub mod publish;
mod read;
pub mod record;
mod shared;
pub mod subscription;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::Store;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::audit::Outbox;
use crate::clock::Timer;
use crate::keyring::Keyring;
use crate::name::NodeName;
use crate::tasks::Tasks;
use figures::Figures;
use shared::Shared;
use sweep::Retention;

pub use canary::{Canary, Client, Percent, RawCanary};
pub use change::Editor;
pub use diff::{Diff, ItemChange, ItemDiff, Turn};
pub use error::{CentreError, Failure};
pub use holders::{Holder, State, Verdict};
pub use item::{Format, Item, RawItem};
pub use plan::Publication;
pub use publish::Published;
pub use record::Head;
pub use subscription::{Delivered, Fetched, Interest, Subscription, Update};

/// How a node takes part in the config centre.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name; one process at a time goes by it.
    pub node: NodeName,
    /// How much history is kept.
    pub retention: Retention,
}

impl Options {
    /// The defaults, for `node`.
    pub fn new(node: NodeName) -> Self {
        Self { node, retention: Retention::default() }
    }
}

/// The config centre as one node takes part in it. Clones share everything.
#[derive(Clone)]
pub struct Centre {
    shared: Arc<Shared>,
}

impl Centre {
    /// Takes part in the config centre that `store` holds: reads it, follows it, tells who holds
    /// what, and sweeps, until [`shutdown`](Centre::shutdown). Must be called within a tokio
    /// runtime. Changes are recorded in `outbox`, of the same store.
    pub fn start(
        store: Arc<dyn Store>,
        timer: Arc<dyn Timer>,
        outbox: Outbox,
        keyring: Keyring,
        options: Options,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            timer,
            outbox,
            options,
            tasks: Tasks::default(),
            figures: Figures::default(),
            keyring: RwLock::new(Arc::new(keyring)),
            local: Mutex::default(),
            contents: Mutex::default(),
            taken: watch::Sender::new(0),
        });
        let (of, tasks) = (|| Arc::clone(&shared), &shared.tasks);
        let (fed, flushed, swept) = (of(), of(), of());
        tasks.spawn("config feed", move |stop| feed::run(fed, stop));
        tasks.spawn("config holders", move |stop| flush::run(flushed, stop));
        tasks.spawn("config sweeper", move |stop| sweep::run(swept, stop));
        Self { shared }
    }

    /// Waits until the copy has been read. Before that what is answered from it is answered with
    /// [`CentreError::Loading`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ready(&self) {
        self.shared.when(|local| local.copy.is_loaded().then_some(())).await;
    }

    /// Leaves. Waits up to `grace` for its tasks; returns how many are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }

    /// Goes on with another keyring: one that was rotated, or imported.
    pub fn use_keyring(&self, keyring: Keyring) {
        *self.shared.keyring.write() = Arc::new(keyring);
    }

    /// What has been counted.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }
}

impl fmt::Debug for Centre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Centre").field("node", &self.shared.options.node).finish_non_exhaustive()
    }
}
