//! `mainstay backup`: create, verify, restore.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::audit;
use mainstay_core::problem::Code;
use mainstay_store::embedded::Existing;
use mainstay_store::snapshot::file as snapshot;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::arguments::ConfigFile;
use super::arguments::backup::{Backup, Create, PassphraseFile, Restore};
use super::calls::{confirm, span};
use super::offline::noted;
use super::settings::{reason, sources};
use super::{Ended, Session, usage};
use crate::backup::archive::{self, Invalid};
use crate::backup::manifest::Manifest;
use crate::backup::restoring::{Became, CONFIG_FOLDER, How, RestoreError, Target, restore};
use crate::backup::taking::{Beside, TakeError, take};
use crate::backup::verifying::{Keys, verify};
use crate::backup::{STORE, schedule, whole::Whole};
use crate::cluster::keys::refused;
use crate::cluster::opening;
use crate::cluster::settings::Backend;
use crate::exit::Exit;
use crate::output::{Column, Table, blocks};
use crate::report::{Report, causes};
use crate::role::HeldFolder;
use crate::settings::root::Meant;
use crate::settings::{Errors, Settings};

const PARTS: Table<'static> =
    Table(&[Column::new("PART", "/name"), Column::new("BYTES", "/bytes")]);

pub(super) fn run(verb: Backup, session: &mut Session<'_>) -> Ended {
    match verb {
        Backup::Create(create) => self::create(&create, session),
        Backup::Verify { file, passphrase } => {
            let passphrase = read_passphrase(&passphrase, session)?;
            let open = File::open(&file).map_err(|error| unusable(&file, &error))?;
            let verified =
                verify(BufReader::new(open), passphrase.as_ref().map(|text| text.as_str()));
            let verified = verified.map_err(|error| invalid(&file, &error))?;
            if matches!(verified.keys, Keys::Sealed) {
                session.note("the keys were not opened: add --passphrase-file PATH to try them");
            }
            show(&verified.document(), session)
        }
        Backup::Restore(restore) => into_place(&restore, session),
    }
}

fn create(create: &Create, session: &mut Session<'_>) -> Ended {
    if let Some(every) = &create.every {
        let seconds = span(every)?;
        if !(60.0..=31_536_000.0).contains(&seconds) {
            let wrong = usage(format!("`--every {every}`: must be a minute to a year"));
            return Err(wrong.help("for example `24h`").into());
        }
        return again_and_again(create, Duration::from_secs_f64(seconds), session);
    }
    let path = &create.file;
    if path.exists() && !create.force {
        let there = usage(format!("`{}` is there already", path.display()));
        return Err(there.help("name another file, or add --force to write over it").into());
    }
    let passphrase = read_passphrase(&create.passphrase, session)?;
    let passphrase = passphrase.as_ref().map(|text| text.as_str());
    let mut whole = Whole::begin(path).map_err(|error| unusable(path, &error))?;
    match &create.data_dir {
        Some(data) => offline(data, &create.config, passphrase, &mut whole.file)?,
        None => online(passphrase, &mut whole.file, session)?,
    }
    // What is kept is what was read back.
    whole.file.rewind().map_err(|error| unusable(path, &error))?;
    let manifest = checked(&whole.file).map_err(|error| invalid(path, &error))?;
    whole.finish().map_err(|error| unusable(path, &error))?;
    for left_out in &manifest.left_out {
        session.note(&format!("left out: {left_out}"));
    }
    let next = format!("next: mainstay backup verify {}", path.display());
    let document = json!({ "file": path.display().to_string(), "manifest": manifest });
    let shown = show(&document, session);
    session.note(&next);
    shown
}

/// Takes one after the other, as the duty of a node does, into a folder; until it is ended.
#[expect(clippy::disallowed_methods, reason = "a command has nothing else to do meanwhile")]
fn again_and_again(create: &Create, every: Duration, session: &mut Session<'_>) -> Ended {
    let folder = &create.file;
    let passphrase = read_passphrase(&create.passphrase, session)?;
    let passphrase = passphrase.as_ref().map(|text| text.as_str());
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let wait = schedule::due_in(schedule::newest(folder), now, every);
        if !wait.is_zero() {
            std::thread::sleep(wait.min(schedule::LOOK_EVERY));
            continue;
        }
        if let Err(errors) = once(folder, create.keep, passphrase, session) {
            // The next one may do better: whoever asked for it once a day wants it tomorrow.
            session.warn(&errors.reports);
            std::thread::sleep(schedule::RETRY_AFTER.min(every));
        }
    }
}

fn once(
    folder: &Path,
    keep: u32,
    passphrase: Option<&str>,
    session: &mut Session<'_>,
) -> Result<(), Errors> {
    // Its name tells its moment and revision, which only the backup itself knows.
    let mut taken = nameless(folder).map_err(|error| unusable(folder, &error))?;
    online(passphrase, &mut taken, session)?;
    taken.rewind().map_err(|error| unusable(folder, &error))?;
    let manifest = checked(&taken).map_err(|error| invalid(folder, &error))?;
    taken.rewind().map_err(|error| unusable(folder, &error))?;
    let at = (manifest.created_unix_seconds, manifest.store.revision);
    let path = schedule::file(folder, at);
    let mut whole = Whole::begin(&path).map_err(|error| unusable(&path, &error))?;
    let copied = io::copy(&mut taken, &mut whole.file);
    copied.and_then(|_bytes| whole.finish()).map_err(|error| unusable(&path, &error))?;
    schedule::prune(folder, keep as usize).map_err(|error| unusable(folder, &error))?;
    let document = json!({ "file": path.display().to_string(), "manifest": manifest });
    show(&document, session).map(drop)
}

/// A file that is gone with its last reader.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("mainstay-taking.{}.partial", std::process::id()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Asks the running process.
fn online(
    passphrase: Option<&str>,
    file: &mut File,
    session: &mut Session<'_>,
) -> Result<(), Errors> {
    let control = session.control()?;
    let encoded = passphrase.map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
    let headers: Vec<_> = encoded.iter().map(|text| ("mainstay-passphrase", &**text)).collect();
    let mut progress = Progress::new(session);
    let mut out = io::BufWriter::new(file);
    let done = control.download("/api/v1/backup", &headers, &mut |chunk, total| {
        out.write_all(chunk)?;
        progress.went_on(chunk.len() as u64, total);
        Ok(())
    });
    progress.end();
    done?;
    out.flush().map_err(|error| Report::error(Code::Internal, error.to_string()).into())
}

/// Reads a data directory that no process has.
fn offline(
    data: &Path,
    config: &ConfigFile,
    passphrase: Option<&str>,
    file: &mut File,
) -> Result<(), Errors> {
    let sources = sources(config);
    let meant = sources.load::<Settings>()?.resolve(Meant::resolve)?.value;
    let _held = HeldFolder::existing(data)?;
    let keyring = match passphrase {
        Some(_) => meant.keyring.file(data)?.open().map_err(|error| refused(&error))?,
        None => None,
    };
    let runtime = runtime()?;
    let taken = runtime.block_on(async {
        let store = opening::offline(&meant.store, data)?;
        let beside = Beside { sources: Some(&sources), keys: keyring.as_ref().zip(passphrase) };
        let taken = take(Arc::clone(&store), beside, data).await.map_err(|error| untaken(&error));
        // What was read is what counts.
        drop(store.close().await);
        Ok::<_, Errors>(taken?)
    })?;
    let mut whole = taken.file;
    let copied = io::copy(&mut whole, file);
    copied.map(drop).map_err(|error| Report::error(Code::Internal, error.to_string()).into())
}

/// Reads a whole backup, without restoring anything.
fn checked(file: &File) -> Result<Manifest, Invalid> {
    archive::read(BufReader::new(file), |_manifest, part, bytes| {
        if part.name == STORE {
            snapshot::verify(bytes).map_err(Invalid::Snapshot)?;
        }
        Ok(())
    })
}

fn into_place(asked: &Restore, session: &mut Session<'_>) -> Ended {
    let meant = sources(&asked.config).load::<Settings>()?.resolve(Meant::resolve)?.value;
    let why = reason(asked.reason.as_deref(), false)?;
    let passphrase = read_passphrase(&asked.passphrase, session)?;
    // Before anything is asked, set aside or made.
    File::open(&asked.file).map_err(|error| unusable(&asked.file, &error))?;
    let data = &asked.data_dir;
    if asked.force {
        let name = data.display().to_string();
        confirm(&name, "the store there is set aside, and this one takes its place", session)?;
    }
    let _held = HeldFolder::new(data)?;
    let keyring = meant.keyring.file(data)?;
    let how = How {
        data,
        keyring: &keyring,
        passphrase: passphrase.as_ref().map(|text| text.as_str()),
        without_keys: asked.without_keys,
    };
    let restored = match meant.store.backend {
        Backend::Embedded => {
            let folder = meant.store.embedded(data).path;
            let existing = if asked.force { Existing::SetAside } else { Existing::Refuse };
            restore(&asked.file, &Target::Folder(&folder, existing), how)
        }
        Backend::Etcd => {
            let runtime = runtime()?;
            let store = runtime.block_on(async { opening::offline(&meant.store, data) })?;
            let restored = restore(&asked.file, &Target::Store(&*store, &runtime), how);
            drop(runtime.block_on(store.close()));
            restored
        }
    };
    let done = restored.map_err(|error| unrestored(&asked.file, &error))?;
    let target = audit::Target {
        kind: "store".to_owned(),
        id: "backup".to_owned(),
        revision_before: None,
        revision_after: match &done.store {
            Became::Restored(restored) => Some(restored.revision.get()),
            Became::Filled(_) => None,
        },
    };
    let file = json!({ "file": asked.file.display().to_string(), "forced": asked.force });
    noted(&meant.store, data, ("backup:restore", target, why, (Json::Null, file)), session);
    if !done.config.is_empty() {
        let folder = data.join(CONFIG_FOLDER);
        session.note(&format!(
            "the configuration lies in {}: compare it with the one in force",
            folder.display()
        ));
    }
    if matches!(done.verified.keys, Keys::LeftOut | Keys::Sealed) {
        let keyring = data.join("keyring");
        session.note(&format!("keys were not restored: secrets need {}", keyring.display()));
    }
    let mut document = done.verified.document();
    if let Some(fields) = document.as_object_mut() {
        match done.store {
            Became::Restored(restored) => {
                fields.insert("revision".to_owned(), restored.revision.get().into());
            }
            Became::Filled(filled) => {
                fields.insert("fence_base".to_owned(), filled.fence_base.into());
                fields.insert("sha256".to_owned(), filled.sha256.into());
            }
        }
    }
    show(&document, session)
}

/// A document for programs, or its main lines for people.
fn show(document: &Json, session: &mut Session<'_>) -> Ended {
    if !session.is_for_people() {
        return session.show(document, &PARTS);
    }
    let mut lines = document.clone();
    let Some(fields) = lines.as_object_mut() else { return session.print("") };
    if let Some(manifest) = fields.remove("manifest") {
        for (name, pointer) in [
            ("store", "/store/id"),
            ("backend", "/store/backend"),
            ("of_revision", "/store/revision"),
            ("version", "/product"),
        ] {
            let value = manifest.pointer(pointer).cloned().unwrap_or_default();
            fields.insert(name.to_owned(), value);
        }
        let parts = manifest.get("parts").cloned().unwrap_or_default();
        session.print(&blocks(&[&lines]))?;
        return session.show(&json!({ "items": parts }), &PARTS);
    }
    session.print(&blocks(&[&lines]))
}

/// The passphrase that was named, if one was.
pub(super) fn read_passphrase(
    named: &PassphraseFile,
    session: &mut Session<'_>,
) -> Result<Option<Zeroizing<String>>, Errors> {
    let Some(path) = &named.passphrase_file else { return Ok(None) };
    let mut text = Zeroizing::new(String::new());
    if path.as_os_str() == "-" {
        let input = io::stdin();
        let quiet = input.is_terminal().then(|| {
            drop(write!(session.err, "passphrase for the keys: "));
            drop(session.err.flush());
            Unseen::begin()
        });
        let read = input.lock().read_line(&mut text);
        drop(quiet);
        read.map_err(|error| unusable(path, &error))?;
    } else {
        text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| unusable(path, &e))?);
    }
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(usage("the passphrase is empty").help("12 bytes or more, on one line").into());
    }
    Ok(Some(Zeroizing::new(line.to_owned())))
}

/// What is typed is not shown, as long as this lives.
struct Unseen(Option<rustix::termios::Termios>);

impl Unseen {
    fn begin() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            let _set = tcsetattr(io::stdin(), OptionalActions::Flush, &modes);
        }
        Self(before)
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _set = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// How far something long is, on one line of a terminal.
struct Progress<'a, 'b> {
    session: &'a mut Session<'b>,
    done: u64,
    shown: u64,
}

/// From one line to the next.
const PROGRESS_BYTES: u64 = 1 << 20;

impl<'a, 'b> Progress<'a, 'b> {
    fn new(session: &'a mut Session<'b>) -> Self {
        Self { session, done: 0, shown: 0 }
    }

    fn went_on(&mut self, bytes: u64, total: Option<u64>) {
        self.done += bytes;
        if !self.session.terminal
            || self.session.global.quiet
            || self.done < self.shown + PROGRESS_BYTES
        {
            return;
        }
        self.shown = self.done;
        let of = total.map_or_else(String::new, |total| format!(" of {}", total >> 20));
        drop(write!(self.session.err, "\r{}{of} MiB ", self.done >> 20));
        drop(self.session.err.flush());
    }

    fn end(self) {
        if 0 < self.shown {
            drop(write!(self.session.err, "\r\x1b[K"));
        }
    }
}

/// What verbs without a server run on.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Errors> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(
        |error| {
            Report::error(Code::Internal, format!("the runtime does not start: {error}")).into()
        },
    )
}

fn unusable(path: &Path, error: &io::Error) -> Report {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Report { exit, ..usage(format!("`{}`: {error}", path.display())) }
}

fn invalid(path: &Path, error: &Invalid) -> Report {
    let message = format!("`{}`: {}", path.display(), causes(error));
    Report::error(error.code(), message).help("copy it again, or take an older one")
}

fn untaken(error: &TakeError) -> Report {
    Report::error(error.code(), causes(error))
}

fn unrestored(path: &Path, error: &RestoreError) -> Report {
    let report = Report::error(error.code(), format!("`{}`: {}", path.display(), causes(error)));
    match error {
        RestoreError::Occupied { .. } => {
            let report = Report { exit: Exit::Conflict, ..report };
            report.help("name an empty directory, or add --force: what is there is set aside")
        }
        RestoreError::Sealed => {
            report.help("add --passphrase-file PATH, or --without-keys to restore without them")
        }
        RestoreError::Transfer(_) => report.help("name a fresh `store.etcd.prefix`"),
        RestoreError::Invalid(_) => report.help("copy it again, or take an older one"),
        _ => report,
    }
}
