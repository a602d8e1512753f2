//! Calls of the process itself and its store.

use mainstay_api::node::{
    At, Dns, Reloaded, Settings, StoreChanged, StoreHash, StoreKeys, StoreStatus, StoreValue,
};
use mainstay_api::stream as names;
use mainstay_api::stream::Resync;
use mainstay_core::problem::Code;
use serde_json::{Value, json};

use super::call::{Call, Schemas, call};
use super::registry::ended;
use crate::control::keyring::Shown;
use crate::control::settings::Reload;
use crate::control::store::{Compact, Followed, Hash, One, Which};

const TAG: &str = "node";
const STORE: &str = "store";
const PASSPHRASE: &str = "mainstay-passphrase";

pub(super) fn calls() -> Vec<Call> {
    let mut calls = vec![
        call("get", TAG, "live", "/live", "Answers while the process does.")
            .open()
            .done(200, "It lives."),
        call("get", TAG, "ready", "/ready", "Says whether to send requests here.")
            .open()
            .done(200, "Do.")
            .refuses(&[Code::GatewayDraining, Code::StoreFailed]),
        call("get", TAG, "showContract", "/openapi.json", "Shows this document.").gives_as(
            200,
            "It.",
            |_schemas| json!({ "type": "object" }),
        ),
        call("get", TAG, "showDns", "/dns", "Says where names are answered.")
            .gives::<Dns>(200, "The door.")
            .refuses(&[Code::NotFound]),
        call(
            "get",
            TAG,
            "showSettings",
            "/settings",
            "Lists every value of the configuration that is set.",
        )
        .gives::<Settings>(200, "The values; secrets as `***`."),
        call(
            "post",
            TAG,
            "reloadSettings",
            "/settings/reload",
            "Reads the configuration again; on any fault nothing changes.",
        )
        .takes::<Reload>()
        .gives::<Reloaded>(200, "What it did.")
        .refuses(&CONFIGURATION)
        .by(),
    ];
    calls.extend(store());
    calls.extend(keyring());
    calls.extend(backups());
    calls
}

/// What may be wrong with a configuration.
const CONFIGURATION: [Code; 9] = [
    Code::ConfigUnknownKey,
    Code::ConfigWrongType,
    Code::ConfigOutOfRange,
    Code::ConfigDuplicateKey,
    Code::ConfigFileMissing,
    Code::ConfigSyntax,
    Code::ConfigUnknownReference,
    Code::ConfigContradiction,
    Code::RouteAmbiguous,
];

fn store() -> Vec<Call> {
    let past = [Code::Compacted, Code::FutureRevision];
    vec![
        call("get", STORE, "showStore", "/store/status", "Says how the store stands.")
            .gives::<StoreStatus>(200, "How.")
            .agreed(),
        call(
            "get",
            STORE,
            "listKeys",
            "/store/range",
            "Lists keys, without values: they hold secrets.",
        )
        .query::<Which>()
        .gives::<StoreKeys>(200, "A page.")
        .refuses(&[Code::KeyInvalid])
        .refuses(&past)
        .agreed(),
        call("get", STORE, "showKey", "/store/get", "Shows one key with its value.")
            .query::<One>()
            .gives::<StoreValue>(200, "The key.")
            .refuses(&[Code::KeyInvalid, Code::NotFound])
            .refuses(&past)
            .agreed(),
        call(
            "get",
            STORE,
            "watchStore",
            "/store/watch",
            "Follows every change of every revision, without values.",
        )
        .query::<Followed>()
        .resumes()
        .streams(vec![
            (names::CHANGE, Schemas::reference::<StoreChanged>),
            (names::BOOKMARK, Schemas::reference::<At>),
            (names::RESYNC, Schemas::reference::<Resync>),
            (names::PROBLEM, ended),
        ])
        .refuses(&past)
        .agreed(),
        call("get", STORE, "hashStore", "/store/hash", "Shows one number for all of the store.")
            .query::<Hash>()
            .gives::<StoreHash>(200, "The number.")
            .refuses(&past)
            .agreed(),
        call("post", STORE, "compactStore", "/store/compact", "Forgets history up to a revision.")
            .takes::<Compact>()
            .gives_as(200, "Up to where history is gone.", compacted)
            .refuses(&past)
            .audited(),
    ]
}

fn keyring() -> [Call; 3] {
    let codes = [Code::KeyringUnreadable, Code::InvalidRequest];
    [
        call("get", STORE, "listKeyring", "/keyring", "Lists the keys that seal secrets.")
            .lists::<Shown>("The keys, the current one last.")
            .agreed(),
        call(
            "post",
            STORE,
            "rotateKeyring",
            "/keyring/rotate",
            "Makes a new key that every node seals with a second later; older ones go on opening.",
        )
        .gives_as(200, "The key that seals now, and the one that did.", rotated)
        .audited(),
        call(
            "get",
            STORE,
            "exportKeyring",
            "/keyring/export",
            "Answers all keys, sealed with a passphrase, for another node of the store.",
        )
        .header(PASSPHRASE, true, "Percent-encoded; seals the keys.")
        .gives_other("application/json", "One line, for `mainstay keyring import`.")
        .refuses(&codes)
        .audited(),
    ]
}

fn rotated(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["current", "before"],
        "properties": {
            "current": { "type": "string" },
            "before": { "type": "string" },
        },
    })
}

fn backups() -> [Call; 2] {
    [
        call("get", STORE, "takeBackup", "/backup", "Takes a backup of everything that is kept.")
            .header(PASSPHRASE, false, "Percent-encoded; with it the keys are in the backup too.")
            .gives_other("application/zstd", "The backup, with its size in `Content-Length`.")
            .refuses(&[Code::NotFound, Code::InvalidRequest])
            .audited(),
        call(
            "post",
            STORE,
            "verifyBackup",
            "/backup/verify",
            "Checks a backup, by restoring it into memory.",
        )
        .header(PASSPHRASE, false, "Percent-encoded; opens the keys in it.")
        .takes_too("application/zstd")
        .gives_as(200, "What is in it.", verified)
        .refuses(&[
            Code::BackupInvalid,
            Code::NotFound,
            Code::InvalidRequest,
            Code::StoreBusy,
        ]),
    ]
}

fn compacted(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["compacted"],
        "properties": { "compacted": { "type": "integer" } },
    })
}

fn verified(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["valid", "manifest", "entries", "entries_left_out", "leases", "keys"],
        "properties": {
            "valid": { "const": true },
            "manifest": { "type": "object", "description": "What the backup says of itself." },
            "entries": { "type": "integer" },
            "entries_left_out": { "type": "integer" },
            "leases": { "type": "integer" },
            "keys": { "type": "string" },
        },
    })
}
