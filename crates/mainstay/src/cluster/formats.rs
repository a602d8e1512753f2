//! Whether the store has the format of this version, before anything reads it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::format::{self, FormatError, Found};
use mainstay_coord::{BootClock, Coordination, Timer as _};
use mainstay_core::problem::Code;
use mainstay_store::Store;
use mainstay_store::snapshot::file::{self as snapshot, About};
use tokio_util::sync::CancellationToken;

use super::settings::Backend;
use crate::backup::whole::Whole;
use crate::report::{Report, causes};
use crate::settings::Errors;

/// How long a start waits for a store to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// From one look at a store that is away to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is known of the format of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is that of this version.
    Current,
    /// The store does not answer yet.
    Away,
}

/// Sees to it that `store` has the format of this version. An older one is brought forward, after a
/// snapshot of it was put into the data directory `data`.
///
/// # Errors
///
/// `store-format-newer`, `store-incomplete`, and what kept an older one from being brought forward.
///
/// # Cancel safety
///
/// Safe: it can be called again.
pub async fn settle(
    store: &Arc<dyn Store>,
    backend: Backend,
    data: &Path,
) -> Result<Settled, Errors> {
    let found = match tokio::time::timeout(ANSWER_MAX, format::look(&**store)).await {
        Err(_elapsed) => return Ok(Settled::Away),
        Ok(Err(FormatError::Store(_))) => return Ok(Settled::Away),
        Ok(found) => found.map_err(|error| refused(&error))?,
    };
    let from = match (found, backend) {
        (Found::Current, _) => return Ok(Settled::Current),
        (Found::Older(from), _) => from,
        // Its file got its name when it was whole; it is only older than the key.
        (Found::Unmarked, Backend::Embedded) => 0,
        (Found::Unmarked, Backend::Etcd) => {
            let message =
                "there are keys, but `meta/format` is not: a copy has not come to its end";
            let report = Report::error(Code::StoreIncomplete, message);
            return Err(report.help("copy again, to another `store.etcd.prefix`").into());
        }
    };
    let kept = keep(store, from, data).await?;
    format::upgrade(&**store, from).await.map_err(|error| refused(&error))?;
    tracing::info!(from, to = format::FORMAT, kept = %kept.display(), "store upgraded");
    Ok(Settled::Current)
}

/// Looks again at a store that was away, until it is settled, or told to stop. `false` when this
/// version must not use it.
///
/// # Cancel safety
///
/// Safe.
pub async fn settle_later(
    store: &Arc<dyn Store>,
    backend: Backend,
    data: &Path,
    stop: CancellationToken,
) -> bool {
    loop {
        tokio::select! {
            () = stop.cancelled() => return true,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        match settle(store, backend, data).await {
            Ok(Settled::Current) => return true,
            Ok(Settled::Away) => {}
            Err(errors) => {
                for report in &errors.reports {
                    tracing::error!("{}", report.render().trim_end());
                }
                return false;
            }
        }
    }
}

/// A snapshot of the store as it is, for whoever wants to go back; where it lies.
async fn keep(
    store: &Arc<dyn Store>,
    from: u64,
    data: &Path,
) -> Result<std::path::PathBuf, Errors> {
    let failed = |why: &dyn std::error::Error| {
        let message =
            format!("the store is not upgraded, since no snapshot could be kept: {}", causes(why));
        Report::error(Code::StoreUnavailable, message).next("mainstay check --pre")
    };
    let ground = Coordination::new(Arc::clone(store), Arc::new(BootClock));
    let fence_base = ground.fence_base().await.map_err(|error| failed(&error))?;
    let taken = store.snapshot().await.map_err(|error| failed(&error))?;
    let path = data.join(format!("pre-upgrade-{from}-{}.msnap", taken.head().revision));
    let about = About {
        fence_base,
        unix_seconds: BootClock.unix_millis() / 1_000,
        product: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut whole = Whole::begin(&path).map_err(|error| failed(&error))?;
    snapshot::write(taken, &about, &mut whole.file).await.map_err(|error| failed(&error))?;
    whole.finish().map_err(|error| failed(&error))?;
    Ok(path)
}

fn refused(error: &FormatError) -> Report {
    let report = Report::error(error.code(), causes(error));
    match error {
        FormatError::Newer { .. } => report.next("start the newer version that wrote it"),
        FormatError::Unreadable | FormatError::Store(_) => report,
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::ManualClock;
    use mainstay_store::{Batch, Memory, Put};

    use super::*;

    fn store() -> Arc<dyn Store> {
        Arc::new(Memory::new(ManualClock::default()))
    }

    async fn put(store: &Arc<dyn Store>, key: &str, value: &str) {
        let put = Put::new(key.try_into().unwrap(), value.to_owned());
        store.apply(Batch::new().then(put)).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_of_before_is_kept_as_it_was_and_then_brought_forward() {
        let (data, store) = (tempfile::tempdir().unwrap(), store());
        put(&store, "svc/default/web", "{}").await;
        assert_eq!(settle(&store, Backend::Embedded, data.path()).await.unwrap(), Settled::Current);
        let kept = data.path().join("pre-upgrade-0-2.msnap");
        let (header, contents) = snapshot::verify(std::fs::File::open(kept).unwrap()).unwrap();
        assert_eq!((header.revision.get(), contents.entries), (2, 1));
        assert_eq!(settle(&store, Backend::Embedded, data.path()).await.unwrap(), Settled::Current);
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 1, "once");
    }

    #[tokio::test]
    async fn the_half_of_a_copy_and_a_newer_store_are_refused() {
        let (data, half) = (tempfile::tempdir().unwrap(), store());
        put(&half, "svc/default/web", "{}").await;
        let errors = settle(&half, Backend::Etcd, data.path()).await.unwrap_err();
        assert_eq!(errors.reports[0].code, "store-incomplete");
        let newer = store();
        put(&newer, "meta/format", "2").await;
        let errors = settle(&newer, Backend::Embedded, data.path()).await.unwrap_err();
        assert_eq!(errors.reports[0].code, "store-format-newer");
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "nothing was written");
        let closed = store();
        closed.close().await.unwrap();
        assert_eq!(settle(&closed, Backend::Etcd, data.path()).await.unwrap(), Settled::Away);
    }
}
