//! The keyring of a node, in step with those of the other nodes of its store.
//!
//! ```text
//!  rotate ─▶ file ─▶ meta/keyring: handed over ──(a second)──▶ meta/keyring: current, and recorded
//!                          │                                          │
//!                  other nodes: take it, write their file      all seal with it; wrap anew
//! ```
//!
//! A key is in the file of the node that made it before anybody hears of it, and with everybody
//! before it seals. What a crash leaves half way is a key that nobody seals with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::{
    Batch, Compare, Error, Get, Put, Range, Revision, Store, WatchItem, WatchRequest,
};
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use super::{Keyring, KeyringError, KeyringFile};
use crate::audit::{self, AuditError, Author, Outbox, Record, Target};
use crate::centre::Centre;
use crate::clock::Timer;
use crate::events::keyring::{Behind, Followed, Rewrapped, Rotated as RotatedEvent};
use crate::keys;
use crate::moment::Moment;
use crate::tasks::Tasks;

/// How long a key lies handed over before it seals: the nodes hear of it within milliseconds.
const STAGED_FOR: Duration = Duration::from_secs(1);

/// Pause after the store could not be asked.
const PAUSE: Duration = Duration::from_secs(2);

/// How often a change is tried that others were faster with.
const TRIES: u32 = 8;

/// The keyring of a node among those of its store. Clones share everything.
#[derive(Clone)]
pub struct Ring {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    file: KeyringFile,
    centre: Centre,
    outbox: Outbox,
    /// One at a time changes it.
    keyring: Mutex<Keyring>,
    /// Why this node may not go on.
    differs: watch::Sender<Option<String>>,
    tasks: Tasks,
}

/// A rotation that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The key that seals now.
    pub current: String,
    /// The one that did before.
    pub before: String,
}

/// Why a keyring was not rotated or exported.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// What is done cannot be recorded.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The keyring, its file, or the list in the store.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl RingError {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Audit(error) => error.code(),
            Self::Keyring(error) => error.code(),
        }
    }

    /// What may have happened all the same.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Audit(error) => error.effect(),
            Self::Keyring(KeyringError::Store(error)) => error.effect(),
            Self::Keyring(_) => Effect::None,
        }
    }
}

/// Opens the keyring in `file`, or makes one where neither the file nor `store` has any, and settles
/// with `store` which keys there are.
///
/// # Errors
///
/// [`KeyringError::Differs`] when the other nodes of the store have keys this one lacks: import
/// their keyring. [`KeyringError::Store`] when the store could not be asked; otherwise what is
/// wrong with the file.
///
/// # Cancel safety
///
/// A keyring that was made stays.
pub async fn agree(
    store: &dyn Store,
    file: &KeyringFile,
    unix_ms: u64,
) -> Result<Keyring, KeyringError> {
    let mut keyring = match file.open()? {
        Some(keyring) => keyring,
        None => match store.get(Get::new(keys::keyring())).await?.entry {
            Some(entry) => {
                let id = Agreed::read(&entry.value)?.current;
                return Err(KeyringError::Differs { id, why: "is not there" });
            }
            None => file.open_or_create(unix_ms)?,
        },
    };
    settle(store, file, &mut keyring).await?;
    Ok(keyring)
}

/// Lets `store` list what `keyring` has, and nothing else, in the name of `author`: what other keys
/// sealed opens again only where they are imported.
///
/// # Errors
///
/// [`KeyringError::Store`].
///
/// # Cancel safety
///
/// Whether it is listed is open; calling again does no harm.
pub async fn accept(
    store: &dyn Store,
    timer: &dyn Timer,
    keyring: &Keyring,
    author: &Author,
) -> Result<(), KeyringError> {
    let got = store.get(Get::new(keys::keyring())).await?;
    let before = got.entry.as_ref().and_then(|entry| Agreed::read(&entry.value).ok());
    let target =
        Target { revision_before: got.entry.map(|entry| entry.mod_revision.get()), ..target() };
    let now = Moment::from_unix_millis(timer.unix_millis());
    let shown = json!({ "current": keyring.current() });
    let before = json!({ "current": before.map(|agreed| agreed.current) });
    let record = Record::done(now, "keyring:accept", target, author).changed(before, shown);
    let put = Put::new(keys::keyring(), Agreed::first(keyring).write());
    store.apply(Batch::new().then(put).then(audit::put(got.revision, &record))).await?;
    Ok(())
}

/// What records call the keyring.
fn target() -> Target {
    Target { kind: "keyring".to_owned(), id: "keyring".to_owned(), ..Target::default() }
}

/// Brings `keyring` and its file in step with the list in `store`, and the list with what only
/// `keyring` has. Returns the revision that was read. What the keyring took before an error it
/// keeps.
async fn settle(
    store: &dyn Store,
    file: &KeyringFile,
    keyring: &mut Keyring,
) -> Result<Revision, KeyringError> {
    let key = keys::keyring();
    for _ in 0..TRIES {
        let got = store.get(Get::new(key.clone())).await?;
        let (when, listed) = match &got.entry {
            None => (Compare::missing(&key), Agreed::first(keyring)),
            Some(entry) => {
                let agreed = Agreed::read(&entry.value)?;
                let mut met = keyring.clone();
                if met.meet(&agreed)? {
                    // The file first: what is sealed with a key has to open after a restart.
                    file.save(&met)?;
                    *keyring = met;
                }
                let Some(more) = agreed.with(keyring) else { return Ok(got.revision) };
                (Compare::unchanged_since(&key, entry.mod_revision), more)
            }
        };
        let batch = Batch::new().when(when).then(Put::new(key.clone(), listed.write()));
        match store.apply(batch).await {
            // What became of it is read.
            Ok(_) | Err(Error::OutcomeUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::OutcomeUnknown.into())
}

impl Ring {
    /// Keeps `keyring`, which lies in `file`, in step with the list in `store`, and hands what
    /// changes to `centre` and `outbox`, until [`shutdown`](Ring::shutdown). Must be called within a
    /// tokio runtime.
    pub fn start(
        store: Arc<dyn Store>,
        timer: Arc<dyn Timer>,
        (keyring, file): (Keyring, KeyringFile),
        centre: Centre,
        outbox: Outbox,
    ) -> Self {
        let (keyring, differs) = (Mutex::new(keyring), watch::Sender::new(None));
        let tasks = Tasks::default();
        let shared =
            Arc::new(Shared { store, timer, file, centre, outbox, keyring, differs, tasks });
        let followed = Arc::clone(&shared);
        shared.tasks.spawn("keyring", move |stop| follow(followed, stop));
        Self { shared }
    }

    /// Waits until other nodes have keys that this one lacks, so that it may not go on; says which.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn differs(&self) -> String {
        let mut why = self.shared.differs.subscribe();
        match why.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_closed) => std::future::pending().await,
        }
    }

    /// The keyring as it is now.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn keyring(&self) -> Keyring {
        self.shared.keyring.lock().await.clone()
    }

    /// Makes a new key, hands it over to the other nodes, and lets all seal with it a second later.
    /// Then the data keys of configuration are wrapped anew by and by; older keys go on opening.
    ///
    /// # Errors
    ///
    /// [`RingError`]. A key that nobody seals with may have been made.
    ///
    /// # Cancel safety
    ///
    /// As on an error; or all of it was done but for wrapping anew, which
    /// [`Centre::rewrap`](crate::Centre::rewrap) does as well.
    pub async fn rotate(&self, author: &Author) -> Result<Rotated, RingError> {
        let Shared { timer, file, outbox, .. } = &*self.shared;
        outbox.admit(author)?;
        let key = {
            let mut keyring = self.shared.keyring.lock().await;
            let mut staged = keyring.clone();
            let key = staged.stage(timer.unix_millis());
            file.save(&staged).map_err(RingError::Keyring)?;
            *keyring = staged;
            // Another node may hear first that it seals, and this one be asked to open that.
            self.shared.centre.use_keyring(keyring.clone());
            self.shared.settle(&mut keyring).await?;
            key
        };
        timer.sleep_until(timer.now().plus(STAGED_FOR)).await;
        let mut keyring = self.shared.keyring.lock().await;
        let before = self.lead(&key, author).await?;
        // It seals from here on. A node that cannot go on with it at once does so later, this one
        // like the others.
        let (Ok(_) | Err(_)) = self.shared.settle(&mut keyring).await;
        drop(keyring);
        RotatedEvent { key: &key, before: &before, who: &author.actor.principal }.emit();
        let (shared, author) = (Arc::clone(&self.shared), author.clone());
        self.shared.tasks.spawn("keyring rewrap", move |stop| async move {
            let wrapped = async {
                shared.caught_up().await;
                shared.centre.rewrap(&author).await
            };
            if let Some(done) = stop.run_until_cancelled(wrapped).await {
                Rewrapped { done: done.map_err(|error| error.to_string()) }.emit();
            }
        });
        Ok(Rotated { current: key, before })
    }

    /// Lets the key `id` of the list seal from now on, with a record of it; returns the one that did
    /// before.
    async fn lead(&self, id: &str, author: &Author) -> Result<String, RingError> {
        let Shared { store, outbox, .. } = &*self.shared;
        let key = keys::keyring();
        let mut before: Option<String> = None;
        for _ in 0..TRIES {
            let got = store.get(Get::new(key.clone())).await.map_err(KeyringError::Store)?;
            let removed = || KeyringError::KeyMissing { id: id.to_owned() };
            let entry = got.entry.ok_or_else(removed)?;
            let agreed = Agreed::read(&entry.value)?;
            if !agreed.has(id) {
                return Err(removed().into());
            }
            if agreed.current == id {
                return Ok(before.unwrap_or_else(|| id.to_owned()));
            }
            let was = before.insert(agreed.current.clone());
            let revision_before = Some(entry.mod_revision.get());
            let target = Target { revision_before, ..target() };
            let record = outbox.record("keyring:rotate", target, author);
            let record = record.changed(json!({ "current": was }), json!({ "current": id }));
            let batch = Batch::new()
                .when(Compare::unchanged_since(&key, entry.mod_revision))
                .then(Put::new(key.clone(), agreed.led_by(id).write()))
                .then(outbox.put(got.revision, &record));
            match store.apply(batch).await {
                // What became of it is read.
                Ok(_) | Err(Error::OutcomeUnknown) => {}
                Err(error) => return Err(KeyringError::Store(error).into()),
            }
        }
        Err(KeyringError::Store(Error::OutcomeUnknown).into())
    }

    /// All keys as one line of text that only `passphrase` opens; recorded before it is given out.
    ///
    /// # Errors
    ///
    /// [`RingError`].
    ///
    /// # Cancel safety
    ///
    /// Whether it is recorded is open.
    pub async fn export(&self, passphrase: String, author: &Author) -> Result<String, RingError> {
        let Shared { outbox, .. } = &*self.shared;
        outbox.admit(author)?;
        let keyring = self.keyring().await;
        let (current, keys) = (keyring.current().to_owned(), keyring.keys().count());
        let sealed = tokio::task::spawn_blocking(move || keyring.export(&passphrase)).await;
        let panicked = KeyringError::Damaged { why: "it could not be sealed" };
        let text = sealed.unwrap_or(Err(panicked))?;
        let record = outbox.record("keyring:export", target(), author);
        let shown = json!({ "current": current, "keys": keys });
        outbox.note(&record.changed(serde_json::Value::Null, shown)).await?;
        Ok(text)
    }

    /// Follows the list no longer. Waits up to `grace`; returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }
}

impl Shared {
    /// Settles with the store, and hands on what has changed.
    async fn settle(&self, keyring: &mut Keyring) -> Result<Revision, KeyringError> {
        let known = |keyring: &Keyring| (keyring.current().to_owned(), keyring.keys.len());
        let before = known(keyring);
        let settled = settle(&*self.store, &self.file, keyring).await;
        // Also if the store went away before all was done.
        if known(keyring) != before {
            Followed { current: keyring.current(), keys: keyring.keys().count() }.emit();
            self.centre.use_keyring(keyring.clone());
            self.outbox.use_mask(keyring.mask());
        }
        settled
    }

    /// Waits until this node has settled with the store.
    async fn caught_up(&self) {
        while self.settle(&mut *self.keyring.lock().await).await.is_err() {
            self.timer.sleep_until(self.timer.now().plus(PAUSE)).await;
        }
    }

    /// Follows the list until that fails.
    async fn follow(&self) -> KeyringError {
        loop {
            let settled = self.settle(&mut *self.keyring.lock().await).await;
            let request = |from: Revision| {
                WatchRequest::new(Range::key(&keys::keyring())).from(from.next()).quiet()
            };
            let watch = settled.and_then(|at| Ok(self.store.watch(request(at))?));
            let mut watch = match watch {
                Ok(watch) => watch,
                Err(error) => return error,
            };
            loop {
                match watch.next().await {
                    Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
                    // Read anew, with all that was written meanwhile.
                    Some(WatchItem::Changes { .. } | WatchItem::Compacted { .. }) => break,
                    Some(WatchItem::Denied | WatchItem::Closed) | None => {
                        return Error::Closed.into();
                    }
                }
            }
        }
    }
}

async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let Some(error) = stop.run_until_cancelled(shared.follow()).await else { return };
        if matches!(error, KeyringError::Differs { .. }) {
            shared.differs.send_replace(Some(error.to_string()));
            return;
        }
        if !matches!(error, KeyringError::Store(_)) {
            Behind { why: &error.to_string() }.emit();
        }
        let until = shared.timer.now().plus(PAUSE);
        if stop.run_until_cancelled(shared.timer.sleep_until(until)).await.is_none() {
            return;
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::ManualClock;
    use mainstay_store::{Memory, RangeRequest, Select};

    use super::*;
    use crate::centre::Options;
    use crate::clock::HandClock;
    use crate::name::NodeName;
    use crate::registry::tests::stage::{Fault, Faulty, Stage, eventually};

    /// A node that keeps `keyring` in `file`, whose ring alone goes by `store`.
    fn node(
        stage: &Stage,
        store: Arc<dyn Store>,
        (keyring, file): (Keyring, KeyringFile),
    ) -> (Ring, Outbox) {
        let (of, timer) = (|| Arc::clone(&stage.store), Arc::new(stage.clock.clone()));
        let outbox = stage.outbox(of());
        let options = Options::new(NodeName::new("n1").unwrap());
        let centre = Centre::start(of(), timer.clone(), outbox.clone(), keyring.clone(), options);
        let ring = Ring::start(store, timer, (keyring, file), centre, outbox.clone());
        (ring, outbox)
    }

    #[tokio::test]
    async fn a_key_that_seals_is_not_taken_back_by_what_its_maker_meets_then() {
        let (stage, folder) = (Stage::memory(), tempfile::tempdir().unwrap());
        let (place, aside) = (folder.path().join("keys"), folder.path().join("aside"));
        let file = KeyringFile::new(place.join("a"));
        let keyring = agree(&*stage.store, &file, 1).await.unwrap();
        let (ring, _outbox) = node(&stage, Arc::clone(&stage.store), (keyring, file.clone()));
        let author = Author::default();
        let meanwhile = async {
            while ring.keyring().await.keys().count() < 2 {
                tokio::task::yield_now().await;
            }
            // It is handed over. From here on nothing can be written where the file lies.
            std::fs::rename(&place, &aside).unwrap();
            std::fs::write(&place, "").unwrap();
            stage.pass_seconds(60).await;
        };
        let rotated = tokio::select! {
            rotated = ring.rotate(&author) => rotated.unwrap(),
            () = meanwhile => panic!("it never ends"),
        };
        let listed = stage.store.get(Get::new(keys::keyring())).await.unwrap().entry.unwrap();
        assert_eq!(Agreed::read(&listed.value).unwrap().current, rotated.current);
        assert_eq!(ring.keyring().await.current(), rotated.before);
        std::fs::remove_file(&place).unwrap();
        std::fs::rename(&aside, &place).unwrap();
        let is_here = || file.open().unwrap().unwrap().current() == rotated.current;
        stage.within(30, "this node goes on with it, too", is_here).await;
    }

    #[tokio::test]
    async fn what_is_taken_is_handed_on_also_if_the_store_takes_nothing_then() {
        let (stage, folder) = (Stage::memory(), tempfile::tempdir().unwrap());
        let own = file(&folder, "a");
        let mut keyring = agree(&*stage.store, &own, 1).await.unwrap();
        let mut other = keyring.clone();
        let new = other.stage(2);
        let list = Agreed::first(&keyring).with(&other).unwrap().led_by(&new);
        let put = Put::new(keys::keyring(), list.write());
        stage.store.apply(Batch::new().then(put)).await.unwrap();
        // It has a key of its own to hand over, and cannot.
        keyring.stage(3);
        let store = Faulty::new(Arc::clone(&stage.store));
        store.set(Fault::Refuses);
        let (_ring, outbox) = node(&stage, store, (keyring, own));
        let mark = || outbox.mask().mark(&json!("a secret"));
        let before = mark();
        eventually("records have the marks of the new key", || mark() != before).await;
    }

    fn file(folder: &tempfile::TempDir, name: &str) -> KeyringFile {
        KeyringFile::new(folder.path().join(name))
    }

    #[tokio::test]
    async fn a_node_without_the_keys_of_the_others_is_refused_until_it_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Memory::new(ManualClock::default());
        let first = agree(&store, &file(&folder, "a"), 1).await.unwrap();
        let second = file(&folder, "b");
        let refused = agree(&store, &second, 2).await.unwrap_err();
        assert_eq!(refused.code(), Code::KeyringDiffers, "{refused}");
        assert!(!folder.path().join("b").exists(), "no other keyring is made");
        // One that has a keyring of its own, of a time before the store said anything.
        let mut own = second.open_or_create(2).unwrap();
        let refused = agree(&store, &second, 2).await.unwrap_err();
        assert!(refused.to_string().contains(first.current()), "{refused}");
        own.import(&first.export("correct horse battery").unwrap(), "correct horse battery")
            .unwrap();
        second.save(&own).unwrap();
        let joined = agree(&store, &second, 2).await.unwrap();
        assert_eq!((joined.current(), joined.keys().count()), (first.current(), 2));
        // The first takes the key the other had before.
        let first = agree(&store, &file(&folder, "a"), 3).await.unwrap();
        assert_eq!(first.keys().count(), 2);
    }

    #[tokio::test]
    async fn a_lost_keyring_is_given_up_on_purpose_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Memory::new(ManualClock::default());
        agree(&store, &file(&folder, "a"), 1).await.unwrap();
        let fresh = file(&folder, "b").open_or_create(2).unwrap();
        assert!(agree(&store, &file(&folder, "b"), 2).await.is_err());
        let author = Author::default().because("the keyring is lost");
        accept(&store, &HandClock::default(), &fresh, &author).await.unwrap();
        let audited = store.range(RangeRequest::new(Select::new(keys::audit_records()))).await;
        assert_eq!(audited.unwrap().entries.len(), 1);
        let went_on = agree(&store, &file(&folder, "b"), 2).await.unwrap();
        assert_eq!(went_on.current(), fresh.current());
        assert!(agree(&store, &file(&folder, "a"), 3).await.is_err());
    }
}
