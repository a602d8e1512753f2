//! Backups: taken of a running store, and checked.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, Write as _};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use mainstay_coord::audit::Target;
use mainstay_core::problem::Code;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::io::ReaderStream;

use super::answer::{Answer, Refused};
use super::author::By;
use super::events::Changed;
use crate::backup::taking::{Beside, TakeError, Taken, take};
use crate::backup::verifying::verify as verified;
use crate::backup::whole::nameless;
use crate::cluster::Cluster;
use crate::report::causes;
use crate::role::Shared;

/// Largest backup that is taken in to be checked: twice what a full store of default size is.
const VERIFY_BYTES_MAX: u64 = 4 << 30;

/// What records call it.
const CREATE: &str = "backup:create";

/// Bytes of one part of an answer.
const CHUNK_BYTES: usize = 64 << 10;

/// `GET /backup`: the whole of it, with its size, so that one that is cut short is seen. The
/// passphrase for the keys comes percent-encoded in `Mainstay-Passphrase`.
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    By(author): By,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let cluster = kept(&shared)?;
    let turn = turn(&cluster)?;
    let passphrase = passphrase(&headers)?;
    cluster.outbox.admit(&author)?;
    let (outbox, taking) = (cluster.outbox.clone(), Arc::clone(&shared));
    let taken = apart(move || taken(&taking, &cluster, passphrase.as_deref())).await??;
    let Taken { manifest, file, bytes } = taken;
    let revision = manifest.store.revision;
    let (kind, id) = ("store".to_owned(), "backup".to_owned());
    let target = Target { kind, id, revision_before: None, revision_after: Some(revision) };
    outbox.note(&outbox.record(CREATE, target, &author)).await?;
    let (before, after) = (&Value::Null, &json!({ "revision": revision }));
    let reason = author.reason.as_deref();
    Changed { what: "backup.create", subject: "store", before, after, reason }.emit();
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
    // The next backup waits until the room of this one is free again.
    let body = Body::from_stream(chunks.map(move |chunk| {
        let _turn = &turn;
        chunk
    }));
    let head = [
        (header::CONTENT_TYPE, "application/zstd".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((head, body).into_response())
}

/// `POST /backup/verify`: the body is a backup.
pub(super) async fn verify(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let cluster = kept(&shared)?;
    let _turn = turn(&cluster)?;
    let passphrase = passphrase(&headers)?;
    let folder = shared.ready.data_dir.clone();
    let spool = apart(move || nameless(&folder)).await?.map_err(|error| unwritten(&error))?;
    let spool = received(body, spool).await?;
    let checked = apart(move || verified(BufReader::new(spool), passphrase.as_deref())).await?;
    let checked = checked.map_err(|error| Refused::new(error.code(), causes(&error)))?;
    Ok(Json(checked.document()))
}

fn taken(shared: &Shared, cluster: &Cluster, passphrase: Option<&str>) -> Result<Taken, Refused> {
    let data = &shared.ready.data_dir;
    let sources = shared.live.lock().sources().clone();
    let keyring = passphrase.map(|_| Handle::current().block_on(cluster.ring.keyring()));
    let beside = Beside { sources: Some(&sources), keys: keyring.as_ref().zip(passphrase) };
    let taking = take(Arc::clone(&cluster.store), beside, data);
    Handle::current().block_on(taking).map_err(Refused::from)
}

/// Writes a request's body down, and goes back to its beginning.
async fn received(body: Body, mut spool: File) -> Result<File, Refused> {
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refused::invalid(error.to_string()))?;
        bytes += chunk.len() as u64;
        if VERIFY_BYTES_MAX < bytes {
            let detail = "a backup that is checked here has at most 4 GiB: check it where it lies";
            return Err(Refused::new(Code::BodyTooLarge, detail));
        }
        let wrote = apart(move || spool.write_all(&chunk).map(|()| spool)).await?;
        spool = wrote.map_err(|error| unwritten(&error))?;
    }
    spool.rewind().map_err(|error| unwritten(&error))?;
    Ok(spool)
}

fn kept(shared: &Shared) -> Result<Arc<Cluster>, Refused> {
    let missing = || Refused::new(Code::NotFound, "this process keeps no agreed state");
    shared.cluster.clone().ok_or_else(missing)
}

/// One at a time: each takes room on the disk for a whole backup.
fn turn(cluster: &Cluster) -> Result<tokio::sync::OwnedSemaphorePermit, Refused> {
    let turn = Arc::clone(&cluster.backups).try_acquire_owned();
    turn.map_err(|_taken| {
        let refused = Refused::new(Code::StoreBusy, "another backup is being taken or checked");
        refused.retry_after(std::time::Duration::from_secs(10))
    })
}

pub(super) fn passphrase(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(field) = headers.get("mainstay-passphrase") else { return Ok(None) };
    let text = field
        .to_str()
        .ok()
        .and_then(|text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned()));
    let wrong = "`Mainstay-Passphrase` must be percent-encoded UTF-8";
    text.map(Some).ok_or_else(|| Refused::invalid(wrong))
}

/// Runs what blocks where it keeps nobody waiting.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_panicked| Refused::new(Code::Internal, "it ended without an answer"))
}

fn unwritten(error: &io::Error) -> Refused {
    Refused::new(Code::Internal, format!("the backup cannot be written down: {error}"))
}

impl From<TakeError> for Refused {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Store(error) => error.into(),
            error => Self::new(error.code(), causes(&error)),
        }
    }
}
