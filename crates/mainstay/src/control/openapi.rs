//! The contract of this API as a document of `OpenAPI` 3.1.
//!
//! What a call takes and answers is described by the types that are read and written ([`utoipa`]);
//! here stands which call has which, one module a part of the API. A test compares the calls with
//! the routes of the router, so neither can be without the other; the document is printed to
//! `docs/reference/openapi.json`, so a change of the contract is a change of that file.

mod call;
mod config;
mod deferred;
mod gateway;
mod locks;
mod node;
mod objects;
mod registry;
mod transactions;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use mainstay_api::problem::{MEDIA_TYPE, Problem};
use mainstay_core::problem::Code;
use serde_json::{Map, Value, json};

use call::{Call, Schemas};

/// `GET /openapi.json`
pub(super) async fn show() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// The document.
pub(crate) fn document() -> Value {
    let mut schemas = Schemas::default();
    schemas.reference::<Problem>();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for call in calls() {
        let (path, method, operation) = call.into_parts(&mut schemas);
        paths.entry(format!("/api/v1{path}")).or_default().insert(method.to_owned(), operation);
    }
    let mut schemas = schemas.into_inner();
    complete(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mainstay",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The control API of every running `mainstay dev`, `server` and `gateway`.",
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:7400", "description": "the control port" }],
        "security": [{ "token": [] }],
        "tags": TAGS.map(|(name, description)| json!({ "name": name, "description": description })),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of `control.toml` in the data directory, or that \
                        of `server.token_file`.",
                },
            },
        },
    })
}

fn calls() -> Vec<Call> {
    let parts = [
        registry::calls(),
        locks::calls(),
        transactions::calls(),
        deferred::calls(),
        config::calls(),
        objects::calls(),
        gateway::calls(),
        node::calls(),
    ];
    parts.into_iter().flatten().collect()
}

/// What derived schemas cannot say.
fn complete(schemas: &mut Map<String, Value>) {
    let codes = Code::ALL.iter().filter(|code| code.http() != 0).map(|code| {
        let explained =
            json!({ "status": code.http(), "grpc": code.grpc(), "title": code.title() });
        (code.as_str().to_owned(), explained)
    });
    let code = json!({
        "type": "string",
        "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$",
        "description": "Which kind of problem; `mainstay explain CODE` has its page. Within v1 \
            codes are only added: treat one you do not know by its status.",
        "examples": ["revision-moved"],
        "x-codes": codes.collect::<Map<String, Value>>(),
    });
    if let Some(problem) = schemas.get_mut("Problem") {
        problem["properties"]["code"] = json!({ "$ref": "#/components/schemas/ProblemCode" });
        problem["properties"]["errors"] = json!({
            "type": "array",
            "description": "Every fault of a content or configuration that was refused.",
            "items": { "type": "object" },
        });
        problem["properties"]["current"] = json!({
            "description": "What stands there instead of what was expected (`revision-moved`).",
        });
    }
    schemas.insert("ProblemCode".to_owned(), code);
    if let Some(publication) = schemas.get_mut("ConfigPublication") {
        let items = &mut publication["properties"]["items"]["additionalProperties"];
        *items = json!({ "oneOf": [items.take(), { "type": "null" }] });
    }
}

/// The media type of problems.
const PROBLEM: &str = MEDIA_TYPE;

const ABOUT: &str = "\
JSON over HTTP/1.1 on the control port. Every call but `live` and `ready` needs the token, and a \
`Host` that is `localhost` or a loopback address.

**Problems** are `application/problem+json` (RFC 9457). **Lists** are `{\"items\": […]}`, with `next` \
where they come by pages. **Changes** of objects take `dry_run=true` and `If-Match: \"<revision>\"`, \
and a reason in the document or percent-encoded in `Mainstay-Reason`. **Streams** are server-sent \
events: `id` is a revision, `Last-Event-ID` resumes there, a comment comes every 15 s, and the \
stream of a process that stops ends with `retry`. Times are RFC 3339; fields that end in `_seconds` \
or `_percent` are numbers. Within v1 fields of answers are only added, and documents of requests \
refuse keys nobody knows.";

const TAGS: [(&str, &str); 11] = [
    ("registry", "Services, their instances, and what happens to them. Where state is kept."),
    ("locks", "Sessions, locks, semaphores, elections. Where state is kept."),
    ("transactions", "Global transactions, and messages. Where state is kept."),
    ("config", "The config centre: groups, drafts, releases, canaries. Where state is kept."),
    ("switches", "Switches of functions. Where state is kept."),
    ("plans", "Plans: many switches at once, there and back. Where state is kept."),
    ("rules", "Routes, upstreams, circuits, limits and fallbacks, of files and of the store."),
    ("audit", "Who changed what, and why. Where state is kept."),
    ("gateway", "What the data plane of this process does at this moment."),
    ("store", "The store itself, and backups of it."),
    ("node", "This process: whether it lives, its configuration, its contract."),
];
