//! `mainstay store`: what is agreed upon, looked at, checked, moved.

use std::io;
use std::path::Path;
use std::sync::Arc;

use mainstay_call::clock::MonotonicClock;
use mainstay_coord::audit::{self, Target};
use mainstay_coord::transfer::{Filling, LEAP, content, outlives};
use mainstay_coord::{BootClock, Coordination, format};
use mainstay_core::problem::Code;
use mainstay_store::embedded::{self, Existing, OfflineError};
use mainstay_store::snapshot::file::{self as snapshot, About};
use mainstay_store::{Revision, Store};
use mainstay_store_etcd::Etcd;
use serde_json::{Value as Json, json};

use super::arguments::store::{BackendName, Offline, Store as Verb};
use super::backup::runtime;
use super::calls::{confirm, encoded};
use super::offline::record;
use super::settings::{reason, sources};
use super::{Ended, Session, usage};
use crate::backup::whole::nameless;
use crate::cluster::known::Known;
use crate::cluster::opening;
use crate::cluster::settings::{Backend, StoreConfig};
use crate::exit::Exit;
use crate::output::{Column, Format, Table, hex};
use crate::report::{Report, causes};
use crate::role::HeldFolder;
use crate::settings::root::Meant;
use crate::settings::{Errors, Settings};

const KEYS: Table<'static> = Table(&[
    Column::new("KEY", "/key"),
    Column::new("BYTES", "/bytes"),
    Column::new("REVISION", "/mod_revision"),
    Column::new("VERSION", "/version").optional(),
    Column::new("CREATED", "/create_revision").optional(),
    Column::new("LEASE", "/lease").optional(),
]);

pub(super) fn run(verb: Verb, session: &mut Session<'_>) -> Ended {
    let at = |at: Option<u64>| at.map(|at| format!("&at={at}")).unwrap_or_default();
    match verb {
        Verb::Status => {
            let status = session.control()?.get("/api/v1/store/status")?;
            show(&status, session)
        }
        Verb::Range { prefix, at: revision, after } => {
            let after = after.map(|key| format!("&after={}", encoded(&key))).unwrap_or_default();
            let query = format!("prefix={}{}{after}", encoded(&prefix), at(revision));
            let keys = session.control()?.get(&format!("/api/v1/store/range?{query}"))?;
            session.show(&keys, &KEYS)?;
            if let Some(next) = keys.get("next").and_then(Json::as_str) {
                session.note(&format!("more: add --after '{next}'"));
            }
            Ok(Exit::Done.code())
        }
        Verb::Get { key, at: revision } => {
            let query = format!("key={}{}", encoded(&key), at(revision));
            let entry = session.control()?.get(&format!("/api/v1/store/get?{query}"))?;
            show(&entry, session)
        }
        Verb::Watch { prefix, from } => watch(&prefix, from, session),
        Verb::Hash { at: revision, content } => {
            let query = format!("content={content}{}", at(revision));
            let hash = session.control()?.get(&format!("/api/v1/store/hash?{query}"))?;
            show(&hash, session)
        }
        Verb::Compact { revision } => {
            let what = format!("history before revision {revision} is lost");
            confirm(&revision.to_string(), &what, session)?;
            let change = json!({ "revision": revision });
            let control = session.control()?;
            let done = control.change("POST", "/api/v1/store/compact", Some(&change), None)?;
            show(&done, session)
        }
        Verb::Check(offline) => check(&offline, session),
        Verb::Shrink(offline) => shrink(&offline, session),
        Verb::Copy { from, to, offline } => copy(from, to, &offline, session),
        Verb::Accept { offline, reason: why } => accept(&offline, why.as_deref(), session),
    }
}

fn show(document: &Json, session: &mut Session<'_>) -> Ended {
    session.show_one(document, &KEYS)
}

/// Prints changes as they come.
fn watch(prefix: &str, from: Option<u64>, session: &mut Session<'_>) -> Ended {
    let control = session.control()?;
    let at = from.map(|from| format!("&from={from}")).unwrap_or_default();
    let path = format!("/api/v1/store/watch?prefix={}{at}", encoded(prefix));
    control.follow("GET", &path, None, |event| {
        match event.get("event").and_then(Json::as_str) {
            Some("change") => print(event, session).is_ok(),
            Some("resync") => {
                // What lies between is lost, and said to be.
                session.note("compacted: history from there on is gone; what comes is shown");
                true
            }
            Some("bookmark") => true,
            _ => {
                session.note(&event.to_string());
                true
            }
        }
    })?;
    Ok(Exit::Done.code())
}

/// One line a change, also where a reader waits at the other end of a pipe.
fn print(change: &Json, session: &mut Session<'_>) -> io::Result<()> {
    if matches!(session.global.output, Some(Format::Json | Format::Jsonl)) {
        writeln!(session.out, "{change}")?;
        return session.out.flush();
    }
    let revision = change.get("revision").and_then(Json::as_u64).unwrap_or(0);
    for event in change.get("events").and_then(Json::as_array).into_iter().flatten() {
        let text = |name: &str| event.get(name).and_then(Json::as_str).unwrap_or_default();
        writeln!(session.out, "{revision}  {}  {}", text("kind"), text("key"))?;
    }
    session.out.flush()
}

/// The configuration of a store that no process has, held until this is dropped.
fn held(offline: &Offline) -> Result<(StoreConfig, HeldFolder), Errors> {
    let meant = sources(&offline.config).load::<Settings>()?.resolve(Meant::resolve)?.value;
    Ok((meant.store, HeldFolder::existing(&offline.data_dir)?))
}

/// The same, where it has to be embedded.
fn held_folder(offline: &Offline) -> Result<(std::path::PathBuf, HeldFolder), Errors> {
    let (config, held) = held(offline)?;
    if config.backend != Backend::Embedded {
        let wrong = usage("the store of this configuration is etcd");
        return Err(wrong.help("etcd has commands of its own: `etcdctl defrag`").into());
    }
    Ok((config.embedded(&offline.data_dir).path, held))
}

fn check(offline: &Offline, session: &mut Session<'_>) -> Ended {
    let (folder, _held) = held_folder(offline)?;
    let checked = embedded::check(&folder).map_err(|error| opening::unopened(&folder, &error))?;
    let document = json!({
        "sound": true,
        "store": checked.store.to_string(),
        "revision": checked.revision.get(),
        "compacted": checked.compacted.get(),
        "entries": checked.entries,
        "leases": checked.leases,
        "bytes": checked.bytes,
    });
    show(&document, session)
}

fn shrink(offline: &Offline, session: &mut Session<'_>) -> Ended {
    let (folder, _held) = held_folder(offline)?;
    let (before, after) = embedded::shrink(&folder).map_err(|error| unwritten(&folder, &error))?;
    show(&json!({ "bytes_before": before, "bytes_after": after }), session)
}

fn copy(from: BackendName, to: BackendName, offline: &Offline, session: &mut Session<'_>) -> Ended {
    if from == to {
        let wrong = usage("`--from` and `--to` name the same backend");
        return Err(wrong.help("a copy on one backend is a backup and its restore").into());
    }
    let (config, _held) = held(offline)?;
    let data = &offline.data_dir;
    let runtime = runtime()?;
    let document = match from {
        BackendName::Embedded => runtime.block_on(to_etcd(&config, data))?,
        BackendName::Etcd => runtime.block_on(to_embedded(&config, data))?,
    };
    session.note(
        "next: set `store.backend` and start; the store that was read is no longer to be used",
    );
    show(&document, session)
}

async fn to_etcd(config: &StoreConfig, data: &Path) -> Result<Json, Errors> {
    let failed = uncopied;
    let source = config.with_backend(Backend::Embedded);
    let source = opening::offline(&source, data)?;
    let target = Etcd::open(opening::etcd(config)?.never_compact(), MonotonicClock);
    let mut taken = source.snapshot().await.map_err(|error| failed(&error))?;
    let revision = taken.head().revision;
    let mut filling = Filling::begin(&target).await.map_err(|error| failed(&error))?;
    while let Some(item) = taken.next().await {
        let item = item.map_err(|error| failed(&error))?;
        filling.push(item).await.map_err(|error| failed(&error))?;
    }
    let filled = filling.finish(revision).await.map_err(|error| failed(&error))?;
    drop(taken);
    drop(source.close().await);
    drop(target.close().await);
    Ok(json!({
        "entries": filled.entries,
        "entries_left_out": filled.left_out,
        "leases": filled.leases,
        "fence_base": filled.fence_base,
        "sha256": filled.sha256,
    }))
}

async fn to_embedded(config: &StoreConfig, data: &Path) -> Result<Json, Errors> {
    let failed = uncopied;
    let source: Arc<dyn Store> =
        Arc::new(Etcd::open(opening::etcd(config)?.never_compact(), MonotonicClock));
    let ground = Coordination::new(Arc::clone(&source), Arc::new(BootClock));
    let fence_base = ground.fence_base().await.map_err(|error| failed(&error))?;
    let taken = source.snapshot().await.map_err(|error| failed(&error))?;
    let at = taken.head().revision;
    let about =
        About { fence_base, unix_seconds: 0, product: env!("CARGO_PKG_VERSION").to_owned() };
    let mut spool = nameless(data).map_err(|error| failed(&error))?;
    snapshot::write(taken, &about, &mut spool).await.map_err(|error| failed(&error))?;
    let expected = content(&*source, Some(at)).await.map_err(|error| failed(&error))?;
    io::Seek::rewind(&mut spool).map_err(|error| failed(&error))?;
    let target = config.with_backend(Backend::Embedded);
    let folder = target.embedded(data).path;
    let restored = embedded::restore(&folder, spool, Existing::Refuse, outlives)
        .map_err(|error| unwritten(&folder, &error))?;
    let there = opening::offline(&target, data)?;
    let found = content(&*there, None).await.map_err(|error| failed(&error))?;
    drop(there.close().await);
    drop(source.close().await);
    if found.sha256 != expected.sha256 {
        let (expected, found) = (hex(&expected.sha256), hex(&found.sha256));
        let message = format!("the copy has content {found}, and the source {expected}");
        let report = Report::error(Code::StoreIncomplete, message);
        return Err(report.help(format!("remove {} and copy again", folder.display())).into());
    }
    Ok(json!({
        "entries": restored.entries,
        "entries_left_out": restored.left_out,
        "leases": restored.leases,
        "revision": restored.revision.get(),
        "fence_base": fence_base,
        "sha256": hex(&found.sha256),
    }))
}

/// Raises what is added to fencing tokens in the history that answers now, and only then lets this
/// node go on with it.
fn accept(offline: &Offline, why: Option<&str>, session: &mut Session<'_>) -> Ended {
    let why = reason(why, true)?;
    let (config, _held) = held(offline)?;
    if config.backend != Backend::Etcd {
        let wrong =
            usage("the store of this configuration is embedded: there is nothing to accept");
        return Err(wrong
            .help("a store that went back is restored: `mainstay backup restore`")
            .into());
    }
    let data = &offline.data_dir;
    let known = Known::read(data)?;
    confirm(
        &data.display().to_string(),
        "this node goes on with the history etcd has now; what was only in the old one is lost",
        session,
    )?;
    let options = opening::etcd(&config)?.never_compact();
    let target = Target {
        kind: "store".to_owned(),
        id: "history".to_owned(),
        revision_before: known.map(|known| known.revision().get()),
        revision_after: None,
    };
    // Before anything is raised: should that fail, it was tried.
    let record = record("store:accept", target, why.clone(), (Json::Null, Json::Null));
    let (accepted, found) = runtime()?.block_on(async {
        let failed = uncopied;
        let etcd = Arc::new(Etcd::open(options, MonotonicClock));
        let ground = Coordination::new(Arc::clone(&etcd) as Arc<dyn Store>, Arc::new(BootClock));
        // A history that was begun anew gets its format first: else it would be the half of a copy.
        format::look(&*etcd).await.map_err(|error| failed(&error))?;
        audit::note(&*etcd, &BootClock, &record).await.map_err(|error| failed(&error))?;
        let there = ground.fence_base().await.map_err(|error| failed(&error))?;
        let (seen, base) = known.map_or((0, 0), |known| (known.revision().get(), known.fence_base));
        let raised = base.saturating_add(seen).saturating_add(LEAP).max(there);
        let raised = match known {
            Some(_) => ground.raise_fence_base(raised).await.map_err(|error| failed(&error))?,
            None => there,
        };
        let found = etcd.known().unwrap_or((mainstay_store::StoreId::new(0), Revision::NEVER));
        drop(etcd.close().await);
        Ok::<_, Errors>((Known::new(found.0, found.1, raised), found))
    })?;
    accepted.write(data).map_err(|error| uncopied(&error))?;
    let document = json!({
        "revision_before": known.map(|known| known.revision().get()),
        "cluster": format!("{:016x}", found.0.get()),
        "revision": found.1.get(),
        "fence_base": accepted.fence_base,
        "reason": why,
    });
    session.note("next: start this node; do the same on every other one");
    show(&document, session)
}

/// What the store met decides how the process ends; everything else is a failure.
fn uncopied(error: &(dyn std::error::Error + 'static)) -> Report {
    let mut all = std::iter::successors(Some(error), |error| error.source());
    let met = all.find_map(|error| error.downcast_ref::<mainstay_store::Error>());
    Report::error(met.map_or(Code::Internal, mainstay_store::Error::code), causes(error))
}

fn unwritten(folder: &Path, error: &OfflineError) -> Report {
    let report = match error {
        OfflineError::Open(error) => return opening::unopened(folder, error),
        OfflineError::Exists => Report { exit: Exit::Conflict, ..usage(causes(error)) },
        OfflineError::Snapshot(_) => Report::error(Code::BackupInvalid, causes(error)),
        OfflineError::Write(_) => Report::error(Code::Internal, causes(error)),
    };
    report.help(format!("{} is as it was", folder.display()))
}
