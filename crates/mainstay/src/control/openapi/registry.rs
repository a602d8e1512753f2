//! The registry's calls.

use mainstay_api::registry::{
    CheckReport, Drain, Heartbeats, Instance, Maintenance, Missing, Observed, Register, Registered,
    STORE_HEADER, ServiceAt, ServiceView, Weight, Written,
};
use mainstay_api::stream as names;
use mainstay_api::stream::Resync;
use mainstay_coord::registry::RawSettings;
use mainstay_core::problem::Code;
use serde_json::{Value, json};

use super::call::{Call, Schemas, call};
use crate::control::registry::Which;
use crate::control::registry::watch::Followed;
use crate::control::registry::write::{How, Whose};

const TAG: &str = "registry";
const INSTANCE: &str = "the instance's `revision`, as a list shows it or a change answered it,";
const SERVICE: &str = "/registry/{namespace}/services/{service}";

pub(super) fn calls() -> Vec<Call> {
    let mut calls = vec![
        call(
            "get",
            TAG,
            "listAllServices",
            "/registry/services",
            "Lists the services of every namespace.",
        )
        .lists_as("The services.", listed)
        .refuses(&[Code::RegistryLoading]),
        call("get", TAG, "listServices", "/registry/{namespace}/services", "Lists services.")
            .lists_as("The services.", listed)
            .refuses(&[Code::RegistryLoading]),
        call("get", TAG, "showService", SERVICE, "Shows a service and its instances.")
            .query::<Which>()
            .gives_as(200, "The service.", shown)
            .refuses(&[Code::RegistryLoading, Code::ServiceNotFound])
            .agreed(),
        call("put", TAG, "setService", SERVICE, "Says what holds for a service.")
            .query::<How>()
            .compares("`settings_revision`")
            .takes::<RawSettings>()
            .gives_as(200, "Its new revision; of a dry run, the settings.", settings_written)
            .refuses(&[Code::KindConflict, Code::EgressRefused])
            .audited(),
        call("delete", TAG, "deleteService", SERVICE, "Forgets a service without instances.")
            .query::<How>()
            .compares("`settings_revision`")
            .gives_as(200, "It is forgotten; of a dry run, what would be.", changed_one)
            .refuses(&[Code::ServiceNotFound, Code::ServiceInUse])
            .audited(),
        call(
            "get",
            TAG,
            "explainService",
            format!("{SERVICE}/explain"),
            "Says why each instance is or is not answered.",
        )
        .query::<Which>()
        .gives_as(200, "Each instance, and why.", explained)
        .refuses(&[Code::RegistryLoading, Code::ServiceNotFound])
        .agreed(),
        watch(),
        call(
            "post",
            TAG,
            "beatMany",
            "/registry/heartbeats",
            "Beats for up to 1,000 instances at once.",
        )
        .takes::<Heartbeats>()
        .gives::<Missing>(200, "Those nobody knows: to be registered again.")
        .agreed(),
        call(
            "post",
            TAG,
            "observeInstance",
            "/registry/observations",
            "Tells what a caller met at an instance.",
        )
        .takes::<Observed>()
        .done(204, "It is taken.")
        .refuses(&[Code::InstanceNotFound])
        .agreed(),
    ];
    calls.extend(of_instance());
    calls
}

fn watch() -> Call {
    call(
        "get",
        TAG,
        "watchServices",
        "/registry/watch",
        "Follows services: one stream for many, or with `index` a long poll of one.",
    )
    .query::<Followed>()
    .resumes()
    .streams(vec![
        (names::SNAPSHOT, Schemas::reference::<ServiceView>),
        (names::CHANGE, changed),
        (names::BOOKMARK, Schemas::reference::<ServiceAt>),
        (names::RESYNC, Schemas::reference::<Resync>),
        (names::PROBLEM, ended),
    ])
    .tells(STORE_HEADER, "Which history the revisions are of; sent back as `store`.")
    .refuses(&[Code::RegistryLoading])
    .agreed()
}

fn of_instance() -> Vec<Call> {
    let path = |verb: &str| format!("{SERVICE}/instances/{{id}}{verb}");
    let of = |method, id: &str, verb: &str, summary: &str| {
        call(method, TAG, id, path(verb), summary).refuses(&[Code::InstanceNotFound])
    };
    let written = "The revision that holds it; of a dry run, what it would change.";
    vec![
        call(
            "put",
            TAG,
            "registerInstance",
            path(""),
            "Registers an instance, or changes what is known of it.",
        )
        .query::<How>()
        .compares(INSTANCE)
        .takes::<Register>()
        .gives::<Registered>(201, "It is registered.")
        .gives_as(200, "It was registered already; of a dry run, what would hold.", registered)
        .refuses(&[Code::AddressRefused, Code::KindConflict, Code::RegistryFull])
        .agreed(),
        of("delete", "deregisterInstance", "", "Deregisters an instance.")
            .query::<Whose>()
            .compares(INSTANCE)
            .gives_as(200, written, changed_one)
            .audited(),
        of("post", "beat", "/heartbeat", "Says that an instance is alive.")
            .done(204, "It is heard.")
            .agreed(),
        of("post", "drainInstance", "/drain", "Takes an instance out of use, then removes it.")
            .query::<How>()
            .compares(INSTANCE)
            .takes::<Drain>()
            .gives_as(200, written, changed_one)
            .audited(),
        of("post", "undrainInstance", "/undrain", "Takes an instance into use again.")
            .query::<How>()
            .compares(INSTANCE)
            .gives_as(200, written, changed_one)
            .audited(),
        of("post", "maintainInstance", "/maintenance", "Begins or ends an instance's maintenance.")
            .query::<How>()
            .compares(INSTANCE)
            .takes::<Maintenance>()
            .gives_as(200, written, changed_one)
            .audited(),
        of("post", "weighInstance", "/weight", "Sets an instance's share of the calls.")
            .query::<How>()
            .compares(INSTANCE)
            .takes::<Weight>()
            .gives_as(200, written, changed_one)
            .audited(),
        of("post", "reportCheck", "/check", "Reports how a ttl check stands.")
            .takes::<CheckReport>()
            .done(204, "It is taken.")
            .agreed(),
    ]
}

fn listed(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["namespace", "name", "instances", "healthy", "protected", "revision"],
        "properties": {
            "namespace": { "type": "string" },
            "name": { "type": "string" },
            "instances": { "type": "integer", "description": "How many it has." },
            "healthy": { "type": "integer", "description": "How many of them pass their checks." },
            "protected": { "type": "boolean", "description": "Set while too many went at once." },
            "revision": { "type": "integer", "description": "When it last changed." },
        },
    })
}

fn shown(schemas: &mut Schemas) -> Value {
    let more = json!({
        "type": "object",
        "required": ["settings", "settings_revision"],
        "properties": {
            "settings": schemas.reference::<RawSettings>(),
            "settings_revision": { "type": "integer", "description": "What `If-Match` compares." },
        },
    });
    json!({ "allOf": [schemas.reference::<ServiceView>(), more] })
}

fn settings_written(schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "properties": {
            "revision": { "type": "integer", "description": "The revision that holds them." },
            "settings": schemas.reference::<RawSettings>(),
            "dry_run": { "type": "boolean" },
        },
    })
}

fn registered(schemas: &mut Schemas) -> Value {
    let dry = json!({
        "type": "object",
        "required": ["ttl_seconds", "dry_run"],
        "properties": { "ttl_seconds": { "type": "integer" }, "dry_run": { "const": true } },
    });
    json!({ "anyOf": [schemas.reference::<Registered>(), dry] })
}

/// A change of a service or an instance, made or only tried.
fn changed_one(schemas: &mut Schemas) -> Value {
    let dry = json!({
        "type": "object",
        "required": ["revision", "dry_run", "before", "after"],
        "properties": {
            "revision": { "type": "integer", "description": "The one it was tried on." },
            "dry_run": { "const": true },
            "before": { "type": ["object", "null"] },
            "after": { "type": ["object", "null"], "description": "Null is gone." },
        },
    });
    json!({ "anyOf": [schemas.reference::<Written>(), dry] })
}

fn explained(_schemas: &mut Schemas) -> Value {
    let instance = json!({
        "type": "object",
        "required": ["id", "answered", "why", "health", "state", "weight"],
        "properties": {
            "id": { "type": "string" },
            "answered": { "type": "boolean" },
            "why": { "type": ["string", "null"], "description": "Why it is not answered." },
            "health": { "type": "string" },
            "reason": { "type": ["string", "null"] },
            "state": { "type": "string" },
            "weight": { "type": "integer" },
            "removal_held": { "type": "boolean" },
        },
    });
    json!({
        "type": "object",
        "required": ["namespace", "service", "revision", "instances"],
        "properties": {
            "namespace": { "type": "string" },
            "service": { "type": "string" },
            "revision": { "type": "integer" },
            "protected": { "type": ["object", "null"] },
            "empty_because": { "type": ["string", "null"] },
            "instances": { "type": "array", "items": instance },
        },
    })
}

/// `mode=view` sends the whole list, `mode=events` one change.
fn changed(schemas: &mut Schemas) -> Value {
    let one = json!({
        "type": "object",
        "required": ["namespace", "service", "revision"],
        "properties": {
            "namespace": { "type": "string" },
            "service": { "type": "string" },
            "revision": { "type": "integer" },
            "put": schemas.reference::<Instance>(),
            "removed": { "type": "string" },
        },
    });
    json!({ "anyOf": [schemas.reference::<ServiceView>(), one] })
}

/// Why a stream ends.
pub(super) fn ended(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["code", "detail"],
        "properties": {
            "code": { "$ref": "#/components/schemas/ProblemCode" },
            "detail": { "type": "string" },
        },
    })
}
