//! Taking records over, signing heads, removing what is old.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::audit::{Holder, Waiting};
use mainstay_coord::duty::{self, Duty};
use mainstay_coord::session::Owner;
use mainstay_coord::{Coordination, Moment};
use mainstay_security::audit::Note;
use tokio_util::sync::CancellationToken;

use super::events::{CopyFailed, Removed, Stuck, Tampered};
use super::log::{Log, REMOVE, UNREADABLE};
use super::opening::{self, open};
use super::{AuditLog, LogError, Shared, name_of, now, signers};
use crate::report::causes;

/// How long the first of some records waits for the others: they share a sync and a commit.
const GATHER: Duration = Duration::from_millis(5);

/// Records taken over at once, so that readers wait for less than a tenth of a second.
const AT_ONCE_MAX: usize = 1_000;

/// Bytes taken over at once: sixty of the longest records.
const AT_ONCE_BYTES_MAX: usize = 4 << 20;

/// After so many records a head is signed, however soon that is.
const SIGN_AFTER: u64 = 1_000;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Records that stay in a store of several nodes when a log has them, some 8 MiB, so that every node
/// finds what is new.
const KEEP: u64 = 10_000;

/// How often it is looked for what is old.
const LOOK_EVERY: Duration = Duration::from_mins(5);

impl AuditLog {
    /// Opens the log of a node that starts, if it is there or the node is alone. What fails is told,
    /// and tried again when records are taken over.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was begun goes on.
    pub async fn begin(&self) {
        if !self.shared.is_alone && !self.shared.folder.exists() {
            return;
        }
        if let Err(error) = self.open().await {
            Stuck { error: &error }.emit();
        }
    }

    /// Takes records over whenever that is this node's to do, until told to stop.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not deleted from the outbox is found in the log when it comes again.
    pub async fn run(&self, coordination: &Coordination, owner: Owner, stop: CancellationToken) {
        if self.shared.is_alone {
            // Nobody else can have the duty: there is nothing to wait for after a crash.
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.take_for_ever() => {}
            }
        } else {
            duty::run(coordination, Duty::Audit, owner, stop, || self.take_for_ever()).await;
        }
    }

    /// Takes over what came last, as far as that is this node's to do, and signs it.
    ///
    /// # Cancel safety
    ///
    /// Safe, as [`AuditLog::run`].
    pub async fn finish(&self) {
        let last = async {
            if self.shared.is_alone {
                self.take_over().await?;
            }
            self.sign().await
        };
        match last.await {
            Ok(()) | Err(LogError::Closed) => {}
            Err(error) => Stuck { error: &error }.emit(),
        }
    }

    async fn take_for_ever(&self) {
        let mut told = None;
        loop {
            let Err(error) = self.take().await;
            self.shared.figures.failed();
            let why = causes(&error);
            if told.as_ref() != Some(&why) {
                // Once, not each second of an outage.
                Stuck { error: &error }.emit();
                told = Some(why);
            }
            if matches!(error, LogError::Io(_)) {
                // What is in memory may be ahead of the files.
                *self.shared.log.lock() = None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn take(&self) -> Result<Infallible, LogError> {
        let Shared { outbox, config, node, is_alone, .. } = &*self.shared;
        self.open().await?;
        if !is_alone {
            let (name, address) = node.clone();
            outbox.hold(&Holder::new(name, address)).await?;
        }
        let mut heads = tokio::time::interval(config.head_every);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = outbox.filled() => {
                    tokio::time::sleep(GATHER).await;
                    self.take_over().await?;
                }
                _ = heads.tick() => self.sign().await?,
                _ = looks.tick() => self.remove().await?,
            }
        }
    }

    /// Opens the log unless it is open, and says so where it is not what it was.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    ///
    /// # Cancel safety
    ///
    /// Safe: calling again goes on where it was.
    pub async fn open(&self) -> Result<(), LogError> {
        let Shared { store, outbox, ring, node, .. } = &*self.shared;
        if self.shared.log.lock().is_some() {
            return Ok(());
        }
        let status = store.status().await.map_err(mainstay_coord::audit::AuditError::Store)?;
        let heads = outbox.heads().await?;
        let own = heads.into_iter().find(|(name, _)| *name == node.0);
        let agreed = own.and_then(|(_, text)| Note::parse(&text).ok());
        let (name, keyring) = (name_of(status.store), ring.keyring().await);
        let shared = Arc::clone(&self.shared);
        let opened = tokio::task::spawn_blocking(move || {
            let mut log = shared.log.lock();
            if log.is_some() {
                return Ok(());
            }
            let (folder, seeds) = (&shared.folder, keyring.log_seeds());
            let opened = open(opening::Around { folder, name, seeds, agreed, now: now() })?;
            if let Some(broken) = &opened.broken {
                shared.figures.tampered();
                Tampered(broken).emit();
            }
            shared.figures.has(opened.log.size(), opened.log.unsigned());
            *log = Some(opened.log);
            Ok(())
        });
        opened.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))?;
        Ok(())
    }

    /// Moves what is in the outbox into the log.
    async fn take_over(&self) -> Result<(), LogError> {
        let Shared { outbox, figures, moving, is_alone, .. } = &*self.shared;
        let waiting = outbox.waiting().await?;
        if waiting.is_empty() {
            // It is not counted yet that they are gone.
            tokio::time::sleep(GATHER).await;
        }
        let mut rest = waiting.as_slice();
        while !rest.is_empty() {
            let (some, more) = rest.split_at(at_once(rest));
            let records = some.to_vec();
            let held = moving.write().await;
            let append = move |log: &mut Log| {
                let added = log.append(&records)?;
                Ok((added, log.size(), log.unsigned()))
            };
            let (added, size, unsigned) = self.blocking(append).await?;
            figures.added(&added);
            figures.has(size, unsigned);
            // They are durable: not before, or a crash could lose them.
            let keep = (!is_alone).then_some(KEEP);
            outbox.taken(some, keep).await?;
            drop(held);
            if SIGN_AFTER <= unsigned {
                self.sign().await?;
            }
            rest = more;
        }
        Ok(())
    }

    /// Signs what there is, if it has grown, and copies the head.
    async fn sign(&self) -> Result<(), LogError> {
        let Shared { ring, outbox, node, figures, config, data, .. } = &*self.shared;
        let keyring = ring.keyring().await;
        let (copies, data) = (config.head_copies.clone(), data.clone());
        let sign = move |log: &mut Log| {
            let name = log.origin.rsplit_once('/').map_or("", |(name, _)| name).to_owned();
            if let Some(current) = signers(&keyring.log_seeds(), &name).pop() {
                log.use_signer(now(), current)?;
            }
            let note = log.sign()?;
            Ok((note, log.size()))
        };
        let (Some(note), size) = self.blocking(sign).await? else { return Ok(()) };
        figures.signed();
        figures.has(size, 0);
        let text = note.to_string();
        let copied = text.clone();
        let failed = tokio::task::spawn_blocking(move || {
            let add = |path: &Path| {
                let mut options = OpenOptions::new();
                let mut file = options.create(true).append(true).mode(0o600).open(path)?;
                file.write_all(format!("{copied}\n").as_bytes())?;
                file.sync_data()
            };
            let all = copies.iter().map(|copy| data.join(copy));
            all.filter_map(|path| Some((add(&path).err()?, path))).collect::<Vec<_>>()
        });
        for (error, path) in failed.await.unwrap_or_default() {
            figures.not_copied();
            CopyFailed { place: &path.to_string_lossy(), error: &error }.emit();
        }
        if let Err(error) = outbox.put_head(&node.0, &text).await {
            figures.not_copied();
            CopyFailed { place: "the store", error: &error }.emit();
        }
        Ok(())
    }

    /// Removes the text of what is old enough.
    async fn remove(&self) -> Result<(), LogError> {
        if !self.shared.is_alone {
            self.shared.outbox.sweep(KEEP).await?;
        }
        let Some(retention) = self.shared.config.retention else { return Ok(()) };
        let span = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let before = Moment::from_unix_millis(now().unix_millis().saturating_sub(span));
        let _held = self.shared.moving.write().await;
        let remove = move |log: &mut Log| {
            let records = log.remove(now(), before)?;
            Ok((records, log.size(), log.unsigned()))
        };
        let (records, size, unsigned) = self.blocking(remove).await?;
        if 0 < records {
            self.shared.figures.has(size, unsigned);
            Removed { records }.emit();
        }
        Ok(())
    }
}

/// How many of `waiting` are taken over at once.
fn at_once(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let some = waiting.iter().take(AT_ONCE_MAX).take_while(|waiting| {
        bytes += waiting.value.len();
        bytes <= AT_ONCE_BYTES_MAX
    });
    some.count().max(1)
}

/// What the log records by itself.
pub(crate) const OWN: [(&str, &str); 4] = [
    (super::BROKEN, "a log that was not what it was, and the one that goes on for it"),
    (super::KEY, "another key that signs the log, after the keyring was rotated"),
    (REMOVE, "removal of records that are older than `audit.retention_days`"),
    (UNREADABLE, "what was put as a record and cannot be read, as it was put"),
];
