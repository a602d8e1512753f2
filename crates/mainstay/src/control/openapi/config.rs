//! Calls of the config centre.

use mainstay_api::config::{Fetched, Report, Update, Watch};
use mainstay_api::stream as names;
use mainstay_coord::centre::draft::Drafted;
use mainstay_coord::centre::history::{GroupShown, ReleaseShown};
use mainstay_coord::centre::{Diff, Head, Holder, Publication, Published, RawCanary, RawItem};
use mainstay_core::problem::Code;
use serde_json::{Value, json};

use super::call::{Call, Schemas, call};
use crate::control::centre::{Before, Between, For, How, Rollback};

const TAG: &str = "config";
const GROUP: &str = "/config/{namespace}/{group}";
const CANARY: &str = "The release in force after it.";
const BASE: &str = "the release in force";

pub(super) fn calls() -> Vec<Call> {
    let mut calls = vec![
        call(
            "post",
            TAG,
            "watchConfig",
            "/config/watch",
            "Follows groups: a `snapshot` where the client has nothing, then each `change`.",
        )
        .takes::<Watch>()
        .streams(vec![
            (names::SNAPSHOT, Schemas::reference::<Update>),
            (names::CHANGE, Schemas::reference::<Update>),
        ])
        .refuses(&[Code::ConfigLoading]),
        call(
            "post",
            TAG,
            "reportConfig",
            "/config/reports",
            "Tells what became of a release at a client.",
        )
        .takes::<Report>()
        .done(204, "It is taken.")
        .refuses(&[Code::ConfigLoading]),
        call(
            "post",
            TAG,
            "rewrapConfig",
            "/config/rewrap",
            "Wraps the data keys of all groups by the newest key of the keyring.",
        )
        .gives_as(200, "How many records were written.", rewrapped)
        .audited(),
        call("get", TAG, "listGroups", "/config/{namespace}/groups", "Lists groups.")
            .lists::<GroupShown>("The groups.")
            .refuses(&[Code::ConfigLoading]),
        of("get", "fetchGroup", "", "Fetches the release that a client gets.")
            .query::<For>()
            .gives::<Fetched>(200, "The release with its contents.")
            .tells("ETag", "The release in quotes: what `If-Match` compares.")
            .refuses(&[Code::SecretUnreadable]),
        of("get", "listDrafts", "/drafts", "Lists drafts.").lists::<Drafted>("The drafts."),
        of(
            "put",
            "editDraft",
            "/drafts/{item}",
            "Edits a draft; `null` is one that removes the item.",
        )
        .query::<How>()
        .compares("the draft's `revision`")
        .takes_as(draft)
        .gives_as(200, "The store's revision that has it.", revision)
        .refuses(&[Code::FormatInvalid, Code::SchemaViolation, Code::ValueTooLarge])
        .audited(),
        of("delete", "removeDraft", "/drafts/{item}", "Puts a draft away.")
            .query::<How>()
            .compares("the draft's `revision`")
            .gives_as(200, "The store's revision without it.", revision)
            .audited(),
    ];
    calls.extend(releases());
    calls
}

fn releases() -> Vec<Call> {
    let content = [Code::FormatInvalid, Code::SchemaViolation, Code::CanaryRunning];
    vec![
        of("get", "listReleases", "/releases", "Lists releases, newest first.")
            .query::<Before>()
            .gives_as(200, "A page of 100.", history),
        of("post", "publish", "/releases", "Publishes a release.")
            .query::<How>()
            .compares(BASE)
            .takes::<Publication>()
            .gives::<Published>(201, "It is published.")
            .gives_as(200, "Nothing changed; of a dry run, what would.", published)
            .refuses(&content)
            .audited(),
        of("get", "showRelease", "/releases/{release}", "Shows a release.")
            .query::<For>()
            .gives_as(200, "The release.", release)
            .refuses(&[Code::ReleaseNotFound, Code::SecretUnreadable]),
        of("get", "diffReleases", "/diff", "Compares two releases.")
            .query::<Between>()
            .gives::<Diff>(200, "What differs.")
            .refuses(&[Code::ReleaseNotFound]),
        of(
            "post",
            "rollBackConfig",
            "/rollback",
            "Publishes the contents of an earlier release again.",
        )
        .query::<How>()
        .compares(BASE)
        .takes::<Rollback>()
        .gives_as(200, "The release that has them; of a dry run, what would differ.", published)
        .refuses(&[Code::ReleaseNotFound, Code::CanaryRunning])
        .audited(),
        of("put", "setCanary", "/canary", "Says who gets a release first.")
            .query::<How>()
            .compares(BASE)
            .takes::<RawCanary>()
            .gives_as(200, CANARY, turned)
            .refuses(&[Code::CanaryNotFound, Code::ReleaseNotFound, Code::CanaryRunning])
            .audited(),
        of(
            "post",
            "promoteCanary",
            "/canary/promote",
            "Gives everybody the release of the canary.",
        )
        .query::<How>()
        .compares(BASE)
        .gives_as(200, CANARY, turned)
        .refuses(&[Code::CanaryNotFound])
        .audited(),
        of("post", "abortCanary", "/canary/abort", "Ends a canary; its clients go back.")
            .query::<How>()
            .compares(BASE)
            .gives_as(200, CANARY, turned)
            .refuses(&[Code::CanaryNotFound])
            .audited(),
        of("get", "listHolders", "/listeners", "Lists which client holds which release.")
            .lists_as("The clients.", holders),
    ]
}

fn of(method: &'static str, id: &str, rest: &str, summary: &str) -> Call {
    call(method, TAG, id, format!("{GROUP}{rest}"), summary)
        .refuses(&[Code::ConfigNotFound, Code::ConfigLoading])
        .agreed()
}

fn rewrapped(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["records"],
        "properties": { "records": { "type": "integer" } },
    })
}

fn revision(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["revision"],
        "properties": {
            "revision": { "type": "integer" },
            "dry_run": { "const": true, "description": "It was only tried, on that revision." },
        },
    })
}

fn draft(schemas: &mut Schemas) -> Value {
    json!({ "oneOf": [schemas.reference::<RawItem>(), { "type": "null" }] })
}

fn history(schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": { "type": "array", "items": schemas.reference::<ReleaseShown>() },
            "next": { "type": ["integer", "null"], "description": "The `before` of the next page." },
        },
    })
}

fn published(schemas: &mut Schemas) -> Value {
    let dry = json!({
        "type": "object",
        "required": ["dry_run", "diff"],
        "properties": { "dry_run": { "const": true }, "diff": schemas.reference::<Diff>() },
    });
    json!({ "anyOf": [schemas.reference::<Published>(), dry] })
}

/// The head of a group, made or only tried.
fn turned(schemas: &mut Schemas) -> Value {
    let dry = json!({ "type": "object", "properties": { "dry_run": { "const": true } } });
    json!({ "allOf": [schemas.reference::<Head>(), dry] })
}

fn release(schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["release", "contents"],
        "properties": {
            "release": schemas.reference::<ReleaseShown>(),
            "contents": {
                "type": "object",
                "description": "The contents by item; of secrets only where they are asked for.",
            },
        },
    })
}

fn holders(schemas: &mut Schemas) -> Value {
    let node = json!({
        "type": "object",
        "required": ["node"],
        "properties": { "node": { "type": "string", "description": "The node that told it." } },
    });
    json!({ "allOf": [schemas.reference::<Holder>(), node] })
}
