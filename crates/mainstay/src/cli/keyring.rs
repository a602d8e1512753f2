//! `mainstay keyring`: list, export, import, rotate, accept.

use std::io::Write as _;
use std::path::Path;

use mainstay_coord::audit::Target;
use mainstay_coord::keyring::{self, Keyring};
use mainstay_coord::{BootClock, KeyringError, KeyringFile, Timer as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::arguments::backup::PassphraseFile;
use super::arguments::keyring::Keyring as Verb;
use super::arguments::store::Offline;
use super::backup::{read_passphrase, runtime};
use super::calls::{confirm, encoded};
use super::offline::{author, noted};
use super::settings::{reason, sources};
use super::{Ended, Session, usage};
use crate::backup::whole::Whole;
use crate::cluster::keys::refused;
use crate::cluster::opening;
use crate::cluster::settings::StoreConfig;
use crate::output::{Column, Table};
use crate::report::{Report, causes};
use crate::role::HeldFolder;
use crate::settings::root::Meant;
use crate::settings::{Errors, Settings};

const KEYS: Table<'static> = Table(&[
    Column::new("KEY", "/id"),
    Column::new("STATE", "/state"),
    Column::new("CREATED", "/created"),
    Column::new("WRAPS", "/wraps"),
]);

/// Largest exported keyring: what a keyring file may have, in hexadecimal.
const BYTES_MAX: u64 = 4 << 20;

pub(super) fn run(verb: Verb, session: &mut Session<'_>) -> Ended {
    match verb {
        Verb::List => {
            let keys = session.control()?.get("/api/v1/keyring")?;
            session.show(&keys, &KEYS)
        }
        Verb::Rotate { reason: why } => {
            let why = reason(why.as_deref(), false)?;
            let control = session.control()?;
            let rotated = control.change("POST", "/api/v1/keyring/rotate", None, why.as_deref())?;
            session.note("data keys are wrapped anew by and by: mainstay keyring list");
            session.note("next: take a backup; older ones do not have the new key");
            show(&rotated, session)
        }
        Verb::Export { file, passphrase, force, reason: why } => {
            export(&file, &passphrase, force, why.as_deref(), session)
        }
        Verb::Import { file, offline, passphrase, reason: why } => {
            import(&file, &offline, &passphrase, why.as_deref(), session)
        }
        Verb::Accept { offline, reason: why } => accept(&offline, why.as_deref(), session),
    }
}

fn show(document: &Json, session: &mut Session<'_>) -> Ended {
    session.show_one(document, &KEYS)
}

fn needed(named: &PassphraseFile, session: &mut Session<'_>) -> Result<Zeroizing<String>, Errors> {
    let missing = || {
        let report = usage("a keyring leaves a node sealed alone, and no passphrase is named");
        report.help("add --passphrase-file PATH, or `-` to be asked for it")
    };
    Ok(read_passphrase(named, session)?.ok_or_else(missing)?)
}

fn export(
    file: &Path,
    passphrase: &PassphraseFile,
    force: bool,
    why: Option<&str>,
    session: &mut Session<'_>,
) -> Ended {
    if file.exists() && !force {
        let there = usage(format!("`{}` is there already", file.display()));
        return Err(there.help("name another file, or add --force to write over it").into());
    }
    let why = reason(why, false)?;
    let passphrase = needed(passphrase, session)?;
    let unwritten =
        |error: std::io::Error| usage(format!("`{}` cannot be written: {error}", file.display()));
    let mut whole = Whole::begin(file).map_err(unwritten)?;
    let sealed = utf8_percent_encode(&passphrase, NON_ALPHANUMERIC).to_string();
    let mut headers = vec![("mainstay-passphrase", sealed)];
    headers.extend(why.map(|why| ("mainstay-reason", encoded(&why))));
    let headers: Vec<(&'static str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    session.control()?.download("/api/v1/keyring/export", &headers, &mut |chunk, _total| {
        whole.file.write_all(chunk)
    })?;
    whole.finish().map_err(unwritten)?;
    let next = format!("mainstay keyring import {} --data-dir PATH", file.display());
    session.note(&format!("next, on the other node: {next} --passphrase-file PATH"));
    show(&json!({ "file": file.display().to_string() }), session)
}

/// The configuration of a node that is stopped, held until this is dropped.
fn held(offline: &Offline) -> Result<(StoreConfig, KeyringFile, HeldFolder), Errors> {
    let meant = sources(&offline.config).load::<Settings>()?.resolve(Meant::resolve)?.value;
    let held = HeldFolder::new(&offline.data_dir)?;
    let file = meant.keyring.file(&offline.data_dir)?;
    Ok((meant.store, file, held))
}

fn import(
    path: &Path,
    offline: &Offline,
    passphrase: &PassphraseFile,
    why: Option<&str>,
    session: &mut Session<'_>,
) -> Ended {
    let why = reason(why, false)?;
    let passphrase = needed(passphrase, session)?;
    let (config, file, _held) = held(offline)?;
    let size = std::fs::metadata(path).map(|found| found.len());
    let text = size.and_then(|size| match size {
        0..=BYTES_MAX => std::fs::read_to_string(path),
        _ => Err(std::io::Error::other("it is larger than 4 MiB")),
    });
    let unread = |error| usage(format!("`{}` cannot be read: {error}", path.display()));
    let text = Zeroizing::new(text.map_err(unread)?);
    let unusable = |error: KeyringError| {
        let message = format!("`{}`: {}", path.display(), causes(&error));
        Report::error(error.code(), message)
    };
    let keyring = match file.open().map_err(|error| refused(&error))? {
        None => Keyring::unpack(&text, &passphrase).map_err(unusable)?,
        Some(mut own) => {
            own.import(&text, &passphrase).map_err(unusable)?;
            own
        }
    };
    file.save(&keyring).map_err(|error| refused(&error))?;
    let keys: Vec<&str> = keyring.keys().map(|(id, _)| id).collect();
    let (kind, id) = ("keyring".to_owned(), "keyring".to_owned());
    let target = Target { kind, id, ..Target::default() };
    let shown = (Json::Null, json!({ "keys": keys }));
    noted(&config, &offline.data_dir, ("keyring:import", target, why, shown), session);
    session.note("next: start this node");
    show(&json!({ "current": keyring.current(), "keys": keys.len() }), session)
}

fn accept(offline: &Offline, why: Option<&str>, session: &mut Session<'_>) -> Ended {
    let why = reason(why, true)?;
    let (config, file, _held) = held(offline)?;
    let data = &offline.data_dir;
    confirm(
        &data.display().to_string(),
        "the store goes on with this node's keyring; what other keys sealed stays closed",
        session,
    )?;
    let opened = file.open_or_create(BootClock.unix_millis());
    let keyring = opened.map_err(|error| refused(&error))?;
    let author = author(why);
    runtime()?.block_on(async {
        let store = opening::offline(&config, data)?;
        let accepted = keyring::accept(&*store, &BootClock, &keyring, &author).await;
        drop(store.close().await);
        accepted.map_err(|error| Report::error(error.code(), causes(&error)))?;
        Ok::<(), Errors>(())
    })?;
    session.note("next: start this node; export its keyring to the others");
    let keys = keyring.keys().count();
    let accepted = json!({ "current": keyring.current(), "keys": keys, "reason": author.reason });
    show(&accepted, session)
}
