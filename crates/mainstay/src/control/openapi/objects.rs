//! Calls of objects with a history: switches, plans, rules; and of their audit records.

use mainstay_api::node::At;
use mainstay_api::rules::Update;
use mainstay_api::stream as names;
use mainstay_api::stream::Resync;
use mainstay_coord::audit::{Listed, Page as AuditPage};
use mainstay_coord::plan::Turned;
use mainstay_coord::plan::content::RawPlan;
use mainstay_coord::plan::state::{Activation, Ended};
use mainstay_coord::revisions::{Diff, Fault, HistoryPage, Object, ObjectPage, Written};
use mainstay_core::problem::Code;
use mainstay_core::switch::RawSwitch;
use serde_json::{Value, json};

use super::call::{Call, Reference, Schemas, call};
use crate::control::audit::{Consistency, Grown, Included, Inclusion, Which as AuditWhich};
use crate::control::objects::{Content, Part, Put};
use crate::control::revisions::{Back, Between, Page, Rehearsed};
use crate::control::rules::Wrapped;
use crate::control::rules::read::Which;
use crate::control::rules::simulate::Proposal;
use crate::control::rules::watch::Which as Followed;
use crate::control::{plans, switches};
use crate::rules::KINDS;
use crate::rules::replay::replays;

/// A kind of object, in the words of paths and operations.
#[derive(Clone, Copy, Debug)]
struct Kind {
    tag: &'static str,
    /// `/switches`
    path: &'static str,
    /// `Switch`
    one: &'static str,
    /// `Switches`
    many: &'static str,
}

pub(super) fn calls() -> Vec<Call> {
    let mut calls = switches();
    calls.extend(plans());
    for kind in KINDS {
        let word = kind.key.as_str();
        let (one, many) = match word {
            "route" => ("Route", "Routes"),
            "upstream" => ("Upstream", "Upstreams"),
            "circuit" => ("Circuit", "Circuits"),
            "limit" => ("Limit", "Limits"),
            _ => ("Fallback", "Fallbacks"),
        };
        calls.extend(rules(Kind { tag: "rules", path: kind.path, one, many }, replays(kind.key)));
    }
    calls.push(
        call(
            "get",
            "rules",
            "watchRules",
            "/rules/watch",
            "Follows rules and switches. Tells secrets of rules as they are.",
        )
        .query::<Followed>()
        .resumes()
        .streams(vec![
            (names::SNAPSHOT, Schemas::reference::<Update>),
            (names::CHANGE, Schemas::reference::<Update>),
            (names::BOOKMARK, Schemas::reference::<At>),
            (names::RESYNC, Schemas::reference::<Resync>),
        ])
        .agreed(),
    );
    calls.push(
        call("get", "rules", "listKinds", "/kinds", "Lists every kind of object with a history.")
            .lists_as("The kinds.", a_kind),
    );
    calls.push(
        call("get", "audit", "searchAudit", "/audit", "Searches audit records, newest first.")
            .query::<AuditWhich>()
            .gives::<AuditPage>(200, "A page; it may be short although more follows.")
            .agreed(),
    );
    calls.extend(audit_log());
    calls.push(
        call("get", "audit", "showAudit", "/audit/{id}", "Shows an audit record.")
            .gives::<Listed>(200, "The record.")
            .refuses(&[Code::NotFound])
            .agreed(),
    );
    calls
}

/// What proves that no record changed.
fn audit_log() -> Vec<Call> {
    let get = |name, path, summary| call("get", "audit", name, path, summary).agreed();
    let refusals = &[Code::AuditUnavailable];
    vec![
        get("auditHead", "/audit/checkpoint", "Shows the newest signed head of the log.")
            .gives_other("text/plain", "A checkpoint, as C2SP's tlog-checkpoint has it.")
            .refuses(refusals),
        get("auditHeads", "/audit/heads", "Lists signed heads of the log, oldest first.")
            .gives_other("text/plain", "Checkpoints, one after the other.")
            .refuses(refusals),
        get("auditKeys", "/audit/keys", "Lists the keys that sign the log, oldest first.")
            .gives_other("text/plain", "Verifier keys, one a line.")
            .refuses(refusals),
        get("proveInclusion", "/audit/proof/inclusion", "Proves that a record is in the log.")
            .query::<Included>()
            .gives::<Inclusion>(200, "The proof.")
            .refuses(&[Code::AuditUnavailable, Code::AuditProofRange]),
        get("proveConsistency", "/audit/proof/consistency", "Proves that the log only grew.")
            .query::<Grown>()
            .gives::<Consistency>(200, "The proof.")
            .refuses(&[Code::AuditUnavailable, Code::AuditProofRange]),
        get("auditTile", "/audit/tile/{tile}", "Gives a tile of the tree, or a bundle of records.")
            .gives_other("application/octet-stream", "256 hashes, or records, one a line.")
            .refuses(&[Code::AuditUnavailable, Code::NotFound]),
    ]
}

fn switches() -> Vec<Call> {
    let kind = Kind { tag: "switches", path: "/switches", one: "Switch", many: "Switches" };
    let mut calls = reads(kind);
    calls.extend([
        kind.of("get", "show", "", "Shows a switch.").gives::<Object>(200, "The switch.").tagged(),
        kind.change("put", "put", "", "Sets the content of a switch.")
            .takes_as(switch_put)
            .gives::<Written>(200, CHANGED)
            .refuses(&[Code::InvalidRule, Code::RulesFull]),
        kind.change("put", "turn", "/value", "Sets the value of a switch; all else stays.")
            .takes::<switches::Turn>()
            .gives::<Written>(200, CHANGED)
            .refuses(&[Code::SwitchType, Code::InvalidRule]),
        kind.change("post", "rollBack", "/rollback", "Brings an earlier content back.")
            .takes::<Back>()
            .gives::<Written>(200, CHANGED),
        kind.change("delete", "remove", "", "Removes a switch.")
            .gives::<Written>(200, CHANGED)
            .refuses(&[Code::SwitchInUse]),
        call(
            "get",
            kind.tag,
            "watchSwitches",
            "/switches/{namespace}/watch",
            "Follows the switches of a namespace.",
        )
        .resumes()
        .streams(vec![
            (names::SNAPSHOT, switches_all),
            (names::CHANGE, switch_changed),
            (names::BOOKMARK, Schemas::reference::<At>),
            (names::RESYNC, Schemas::reference::<Resync>),
        ]),
    ]);
    calls
}

fn plans() -> Vec<Call> {
    let kind = Kind { tag: "plans", path: "/plans", one: "Plan", many: "Plans" };
    let mut calls = reads(kind);
    calls.extend([
        kind.of("get", "show", "", "Shows a plan, and whether it is active.")
            .gives_as(200, "The plan.", plan_shown)
            .tagged(),
        kind.change("put", "put", "", "Sets the content of a plan.")
            .takes_as(plan_put)
            .gives::<Written>(200, CHANGED)
            .refuses(&[Code::InvalidRule, Code::RulesFull, Code::PlanActive, Code::SwitchType]),
        kind.change("delete", "remove", "", "Removes a plan.")
            .gives::<Written>(200, CHANGED)
            .refuses(&[Code::PlanActive]),
        kind.change("post", "rollBack", "/rollback", "Brings an earlier content back.")
            .takes::<Back>()
            .gives::<Written>(200, CHANGED)
            .refuses(&[Code::PlanActive]),
        kind.change("post", "activate", "/activate", "Sets all switches of a plan.")
            .takes::<plans::Turn>()
            .gives::<Turned>(200, "What became of each switch.")
            .refuses(&[Code::PlanActive, Code::PlanConflict, Code::SwitchType]),
        kind.change("post", "deactivate", "/deactivate", "Gives back the switches of a plan.")
            .takes::<plans::Turn>()
            .gives::<Turned>(200, "What became of each switch.")
            .refuses(&[Code::PlanInactive]),
        kind.of("post", "rehearse", "/rehearse", "Shows what activating would do.")
            .compares("its revision")
            .by()
            .gives::<Turned>(200, "What would become of each switch.")
            .refuses(&[Code::PlanActive, Code::PlanConflict, Code::SwitchType]),
    ]);
    calls
}

/// What switches and plans have in common.
fn reads(kind: Kind) -> Vec<Call> {
    let Kind { tag, path, one, many } = kind;
    let mut calls = vec![
        call(
            "post",
            tag,
            format!("validate{one}"),
            format!("{path}/validate"),
            "Says what is wrong with a content; nothing changes.",
        )
        .takes::<Content>()
        .gives_as(200, "What is wrong.", verdict),
        call("get", tag, format!("listAll{many}"), path, "Lists those of every namespace.")
            .query::<Part>()
            .gives::<ObjectPage>(200, "A page.")
            .agreed(),
        call(
            "get",
            tag,
            format!("list{many}"),
            format!("{path}/{{namespace}}"),
            "Lists them by name.",
        )
        .query::<Part>()
        .gives::<ObjectPage>(200, "A page.")
        .agreed(),
    ];
    calls.extend(kind.past());
    calls
}

fn rules(kind: Kind, replays: bool) -> Vec<Call> {
    let Kind { tag, path, one, many } = kind;
    let mut calls = vec![
        call(
            "get",
            tag,
            format!("listAll{many}"),
            path,
            "Lists those of every namespace, of files and of the store.",
        )
        .query::<Which>()
        .gives_as(200, "A page.", rule_page)
        .refuses(&[Code::StoreUnavailable]),
        call(
            "get",
            tag,
            format!("list{many}"),
            format!("{path}/{{namespace}}"),
            "Lists those of a namespace.",
        )
        .query::<Which>()
        .gives_as(200, "A page.", rule_page)
        .refuses(&[Code::StoreUnavailable]),
        call(
            "post",
            tag,
            format!("validate{one}"),
            format!("{path}/validate"),
            "Says what would be wrong with a content, beside all else there is.",
        )
        .takes::<Wrapped>()
        .takes_too("application/toml")
        .gives_as(200, "What is wrong, and what is probably not meant.", verdict),
        kind.of("get", "show", "", "Shows it with its content; secrets are marks.")
            .gives_as(200, "The rule.", rule_shown)
            .tells("ETag", "Its revision in quotes, if the store keeps it."),
        kind.change("put", "put", "", "Sets its content. Answered once this process serves by it.")
            .takes::<Wrapped>()
            .takes_too("application/toml")
            .gives_as(200, CHANGED, rule_changed)
            .tagged()
            .refuses(&[Code::InvalidRule, Code::RulesFull]),
        kind.change("delete", "remove", "", "Removes it.")
            .gives_as(200, CHANGED, rule_changed)
            .refuses(&[Code::RuleInUse]),
        kind.change("post", "rollBack", "/rollback", "Brings an earlier content back.")
            .takes::<Back>()
            .gives_as(200, CHANGED, rule_changed)
            .refuses(&[Code::InvalidRule]),
    ];
    if replays {
        calls.push(
            call(
                "post",
                tag,
                format!("simulate{one}"),
                format!("{path}/simulate"),
                "Plays a content through with the calls of the last minutes.",
            )
            .takes::<Proposal>()
            .gives_as(200, "What it would have done.", replayed)
            .refuses(&[Code::InvalidRule]),
        );
    }
    calls.extend(kind.past());
    calls
}

const CHANGED: &str = "What changed; of a dry run, what would.";

impl Kind {
    fn of(self, method: &'static str, verb: &str, rest: &str, summary: &str) -> Call {
        let Self { tag, path, one, .. } = self;
        call(
            method,
            tag,
            format!("{verb}{one}"),
            format!("{path}/{{namespace}}/{{name}}{rest}"),
            summary,
        )
        .refuses(&[Code::NotFound])
        .agreed()
    }

    fn change(self, method: &'static str, verb: &str, rest: &str, summary: &str) -> Call {
        self.of(method, verb, rest, summary)
            .query::<Rehearsed>()
            .compares("its revision")
            .refuses(&[Code::ManagedElsewhere])
            .audited()
    }

    fn past(self) -> [Call; 2] {
        [
            self.of("get", "history", "/history", "Lists its revisions, newest first.")
                .query::<Page>()
                .gives::<HistoryPage>(200, "A page."),
            self.of("get", "diff", "/diff", "Compares two of its revisions; 0 is nothing.")
                .query::<Between>()
                .gives::<Diff>(200, "What differs."),
        ]
    }
}

fn put_of(schemas: &mut Schemas, content: Reference) -> Value {
    let content = json!({ "type": "object", "properties": { "content": content(schemas) } });
    json!({ "allOf": [schemas.reference::<Put>(), content] })
}

fn switch_put(schemas: &mut Schemas) -> Value {
    put_of(schemas, Schemas::reference::<RawSwitch>)
}

fn plan_put(schemas: &mut Schemas) -> Value {
    put_of(schemas, Schemas::reference::<RawPlan>)
}

fn plan_shown(schemas: &mut Schemas) -> Value {
    let or_not = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let more = json!({
        "type": "object",
        "properties": {
            "active": or_not(schemas.reference::<Activation>()),
            "last": or_not(schemas.reference::<Ended>()),
        },
    });
    json!({ "allOf": [schemas.reference::<Object>(), more] })
}

fn verdict(schemas: &mut Schemas) -> Value {
    let faults = json!({ "type": "array", "items": schemas.reference::<Fault>() });
    json!({
        "type": "object",
        "required": ["errors", "warnings"],
        "properties": { "errors": faults, "warnings": faults },
    })
}

fn switch_told(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["revision", "content", "at", "who", "why"],
        "properties": {
            "revision": { "type": "integer" },
            "content": { "type": "object" },
            "at": { "type": "string", "format": "date-time" },
            "who": { "type": "string" },
            "why": { "type": ["string", "null"] },
        },
    })
}

fn switches_all(schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["revision", "switches"],
        "properties": {
            "revision": { "type": "integer" },
            "switches": { "type": "object", "additionalProperties": switch_told(schemas) },
        },
    })
}

fn switch_changed(schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["revision", "name"],
        "properties": {
            "revision": { "type": "integer" },
            "name": { "type": "string" },
            "put": switch_told(schemas),
            "removed": { "const": true },
        },
    })
}

fn rule_listed(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["namespace", "name", "managed_by", "place", "revision", "state", "problem"],
        "properties": {
            "namespace": { "type": "string" },
            "name": { "type": "string" },
            "managed_by": { "type": "string", "enum": ["file", "api"] },
            "place": { "type": ["string", "null"], "description": "Where it stands in a file." },
            "revision": { "type": ["integer", "null"] },
            "at": { "type": "string", "format": "date-time" },
            "who": { "type": "string" },
            "why": { "type": ["string", "null"] },
            "state": { "type": "string", "description": "`in_force`, `unfit` or `shadowed`." },
            "revision_in_force": { "type": ["integer", "null"] },
            "problem": { "type": ["string", "null"], "description": "Why it is not in force." },
        },
    })
}

fn rule_page(schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "items": rule_listed(schemas) },
            "next": { "type": ["string", "null"], "description": "The `after` of the next page." },
            "stale_since": { "description": "Since when the store is away; null while it is not." },
        },
    })
}

fn rule_shown(schemas: &mut Schemas) -> Value {
    let content = json!({
        "type": "object",
        "required": ["content", "table"],
        "properties": {
            "content": { "type": "string", "description": "The text of its table, TOML." },
            "table": { "description": "The same as JSON." },
        },
    });
    json!({ "allOf": [rule_listed(schemas), content] })
}

fn rule_changed(schemas: &mut Schemas) -> Value {
    let more = json!({
        "type": "object",
        "required": ["namespace", "name", "dry_run", "warnings"],
        "properties": {
            "namespace": { "type": "string" },
            "name": { "type": "string" },
            "dry_run": { "type": "boolean" },
            "state": { "type": "string", "description": "`pending` until this process has it." },
            "problem": { "type": ["string", "null"] },
            "warnings": { "type": "array", "items": schemas.reference::<Fault>() },
        },
    });
    json!({ "allOf": [schemas.reference::<Written>(), more] })
}

fn replayed(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["records", "covers_seconds", "guards", "actual", "proposed"],
        "properties": {
            "records": { "type": "integer", "description": "Calls replayed." },
            "sampled_1_in": { "type": "integer" },
            "covers_seconds": { "type": "number" },
            "guards": { "type": "array", "items": { "type": "string" } },
            "actual": { "type": "object", "additionalProperties": { "type": "integer" } },
            "proposed": { "type": ["object", "null"] },
            "assumes": { "type": "string" },
            "note": { "type": "string" },
        },
    })
}

fn a_kind(_schemas: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "required": ["kind", "path", "schema", "simulates"],
        "properties": {
            "kind": { "type": "string" },
            "path": { "type": "string", "description": "Below `/api/v1`." },
            "schema": { "description": "JSON Schema of its content, where there is one." },
            "simulates": { "type": "boolean", "description": "Whether it has `simulate`." },
        },
    })
}
