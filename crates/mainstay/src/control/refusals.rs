//! Audit records of what was refused.
//!
//! A change that is made has its record in the batch that makes it. Here is what has none of that:
//! administrative changes that were refused or did not work, and whoever was not let in at all.
//! These records are told to the outbox after the answer is known, and nobody waits for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use mainstay_coord::audit::{Author, Outcome, Target};

use super::answer::Refused;
use super::author::{Principal, author};
use super::events::reason;
use super::transactions::forward::PassedOn;
use super::{consul, dtm, grpc};
use crate::audit::taking::OWN;
use crate::cluster::{self, Cluster};
use crate::role::Shared;

/// An administrative change: its action, and the kind of thing it changes.
struct Change(Method, &'static str, &'static str, &'static str);

/// Those that are no changes of objects with a history.
const CHANGES: [Change; 42] = [
    Change(Method::PUT, "/registry/{namespace}/services/{service}", "service:settings", "service"),
    Change(Method::DELETE, "/registry/{namespace}/services/{service}", "service:remove", "service"),
    Change(Method::DELETE, INSTANCE, "instance:deregister", "instance"),
    Change(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/drain",
        "instance:drain",
        "instance",
    ),
    Change(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/undrain",
        "instance:enable",
        "instance",
    ),
    Change(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/maintenance",
        "instance:maintenance",
        "instance",
    ),
    Change(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/weight",
        "instance:weight",
        "instance",
    ),
    Change(Method::PUT, "/config/{namespace}/{group}/drafts/{item}", "config:draft", "config"),
    Change(
        Method::DELETE,
        "/config/{namespace}/{group}/drafts/{item}",
        "config:remove-draft",
        "config",
    ),
    Change(Method::POST, "/config/{namespace}/{group}/releases", "config:publish", "config"),
    Change(Method::POST, "/config/{namespace}/{group}/rollback", "config:rollback", "config"),
    Change(Method::PUT, "/config/{namespace}/{group}/canary", "config:canary", "config"),
    Change(Method::POST, "/config/{namespace}/{group}/canary/promote", "config:promote", "config"),
    Change(Method::POST, "/config/{namespace}/{group}/canary/abort", "config:abort", "config"),
    Change(Method::POST, "/config/rewrap", "config:rewrap", "config"),
    Change(Method::PUT, "/switches/{namespace}/{name}/value", "switch:write", "switch"),
    Change(Method::POST, "/plans/{namespace}/{name}/activate", "plan:activate", "plan"),
    Change(Method::POST, "/plans/{namespace}/{name}/deactivate", "plan:deactivate", "plan"),
    Change(Method::POST, "/locks/{namespace}/{name}/force-release", "lock:force-release", "lock"),
    Change(
        Method::POST,
        "/semaphores/{namespace}/{name}/force-release",
        "lock:force-release",
        "sem",
    ),
    Change(
        Method::POST,
        "/elections/{namespace}/{name}/force-release",
        "lock:force-release",
        "elect",
    ),
    // An abort may be its initiator's, which is no administrative change.
    Change(Method::POST, "/transactions/{gid}/retry", "transaction:retry", "transaction"),
    Change(Method::POST, "/transactions/{gid}/pause", "transaction:pause", "transaction"),
    Change(Method::POST, "/transactions/{gid}/resume", "transaction:resume", "transaction"),
    Change(Method::POST, "/transactions/{gid}/resolve", "transaction:resolve", "transaction"),
    Change(Method::POST, "/transactions/{gid}/redeliver", "transaction:redeliver", "transaction"),
    Change(Method::POST, "/transaction-log/accept", "transaction:accept-log", "transaction-log"),
    Change(
        Method::POST,
        "/transaction-resources/{name}/sweep",
        "transaction:sweep",
        "transaction-resource",
    ),
    Change(
        Method::POST,
        "/transaction-resources/{name}/init",
        "transaction:resource-init",
        "transaction-resource",
    ),
    Change(
        Method::POST,
        "/transaction-resources/{name}/purge-barrier",
        "transaction:purge-barrier",
        "transaction-resource",
    ),
    Change(Method::POST, "/deferred/{queue}/{receipt}/replay", "deferred:replay", "deferred"),
    Change(Method::POST, "/deferred/{queue}/{receipt}/discard", "deferred:discard", "deferred"),
    Change(Method::POST, "/store/compact", "store:compact", "store"),
    Change(Method::GET, "/backup", "backup:create", "store"),
    Change(Method::POST, "/keyring/rotate", "keyring:rotate", "keyring"),
    Change(Method::GET, "/keyring/export", "keyring:export", "keyring"),
    Change(Method::PUT, "/circuit-states/{id}/mode", "circuit:mode", "circuit"),
    Change(Method::POST, "/circuit-states/{id}/reset", "circuit:reset", "circuit"),
    Change(Method::POST, "/jwks/{issuer}/refresh", "jwks:refresh", "jwks"),
    Change(Method::POST, "/faults", "fault:set", "fault"),
    Change(Method::DELETE, "/faults/{id}", "fault:clear", "fault"),
    Change(Method::POST, "/settings/reload", "settings:reload", "settings"),
];

const INSTANCE: &str = "/registry/{namespace}/services/{service}/instances/{id}";

/// The doors of the control port, which may be closed to whoever comes.
const DOORS: [&str; 4] = ["api", "consul", "dtm", "grpc"];

/// Marks that no call above leaves, and what does.
const BESIDE: [(&str, &str); 8] = [
    ("audit:export", "`GET /api/v1/audit/tile/entries/…`"),
    ("audit:search", "`GET /api/v1/audit`, `GET /api/v1/audit/{id}`"),
    ("backup:restore", "`mainstay backup restore`"),
    ("config:reveal", "whoever is shown contents of secrets of a group"),
    ("keyring:accept", "`mainstay keyring accept`"),
    ("keyring:import", "`mainstay keyring import`"),
    ("store:accept", "`mainstay store accept`"),
    ("transaction:abort", "`POST /api/v1/transactions/{gid}/abort` with a reason"),
];

/// Every mark of the audit log, and what leaves it.
pub(crate) fn marks() -> BTreeMap<String, Vec<String>> {
    let mut marks = BTreeMap::<String, Vec<String>>::new();
    let mut mark = |action: String, by: String| marks.entry(action).or_default().push(by);
    for Change(method, path, action, _) in &CHANGES {
        mark((*action).to_owned(), format!("`{method} /api/v1{path}`"));
    }
    for kind in cluster::KINDS {
        let at = format!("/api/v1{}/{{namespace}}/{{name}}", kind.path);
        let by = format!("`PUT {at}`; `DELETE {at}`; `POST {at}/rollback`; what time brings about");
        mark(format!("{}:write", kind.key), by);
        mark(format!("{}:sweep", kind.key), "removal of revisions that are too old".to_owned());
    }
    for (door, verb) in DOORS.into_iter().flat_map(|door| [(door, "read"), (door, "write")]) {
        mark(format!("{door}:{verb}"), "a call that was not let in, by its door".to_owned());
    }
    for (action, by) in BESIDE.into_iter().chain(OWN) {
        mark(action.to_owned(), by.to_owned());
    }
    marks
}

/// Lets a request pass, and records it if it was refused.
pub(super) async fn recorded(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(cluster) = shared.cluster.clone() else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    let what = What::of(&mut parts).await;
    let response = next.run(Request::from_parts(parts, body)).await;
    let status = response.status();
    // What another node answered is recorded there.
    let is_ours = response.extensions().get::<PassedOn>().is_none();
    if is_ours && (status.is_client_error() || status.is_server_error()) {
        let refused = response.extensions().get::<Refused>();
        let code = refused.map(Refused::code);
        let no_record = refused.is_some_and(Refused::is_without_record);
        // Those who were not let in are not who they say they are.
        let is_out = matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST
        );
        let who = response.extensions().get::<Principal>().copied().unwrap_or_default();
        if let Some((action, target)) = what.refused(no_record, is_out) {
            let outcome = if status.is_server_error() { Outcome::Failed } else { Outcome::Refused };
            let author = Author { actor: who.acting(what.author.actor), ..what.author };
            let record = cluster.outbox.record(&action, target, &author);
            cluster.outbox.tell(record.instead_of(outcome, code.unwrap_or(status.as_str())));
        }
    }
    response
}

/// Records that `author`, who was let in, was refused a change over gRPC, where only the message
/// says what it is about.
pub(super) fn told(
    cluster: &Cluster,
    action: &str,
    target: Target,
    author: &Author,
    refused: &Refused,
) {
    let (status, ..) = refused.said();
    let outcome = if status.is_server_error() { Outcome::Failed } else { Outcome::Refused };
    let record = cluster.outbox.record(action, target, author);
    cluster.outbox.tell(record.instead_of(outcome, refused.code()));
}

/// What a request asks for.
struct What {
    author: Author,
    method: Method,
    path: String,
    change: Option<(String, Target)>,
    /// It only asks what would be.
    is_dry: bool,
}

impl What {
    async fn of(parts: &mut Parts) -> Self {
        let matched = parts.extensions.get::<MatchedPath>();
        let path = matched.map_or("", MatchedPath::as_str).to_owned();
        let method = parts.method.clone();
        let parameters = RawPathParams::from_request_parts(parts, &()).await.ok();
        // The item of a group is no part of its name.
        let names = parameters.iter().flat_map(|names| names.iter());
        let names = names.filter(|(name, _)| *name != "item").map(|(_, value)| value);
        let id = names.collect::<Vec<_>>().join("/");
        let change = action(&method, &path)
            .map(|(action, kind)| (action, Target { kind, id, ..Target::default() }));
        let query = parts.uri.query().unwrap_or_default();
        let is_dry = query.split('&').any(|pair| pair.starts_with("dry_run="));
        // A reason that is none may be what it is refused for.
        let mut author = author(&parts.headers, &parts.extensions);
        author.reason = reason(None, &parts.headers).ok().flatten();
        Self { author, method, path, change, is_dry }
    }

    /// The action, and upon what; `None` when it is nothing to be recorded, as `no_record`
    /// says of what was recorded where it was tried.
    fn refused(&self, no_record: bool, is_out: bool) -> Option<(String, Target)> {
        if let Some((action, target)) = &self.change {
            let is_told = self.is_dry || no_record;
            return (is_out || !is_told).then(|| (action.clone(), target.clone()));
        }
        let door = match &*self.path {
            path if consul::is_its(path) => "consul",
            path if dtm::is_its(path) => "dtm",
            path if grpc::is_its(path) => "grpc",
            _ => "api",
        };
        let verb = if self.method.is_safe() { "read" } else { "write" };
        let target = Target { kind: "path".to_owned(), id: self.path.clone(), ..Target::default() };
        is_out.then(|| (format!("{door}:{verb}"), target))
    }
}

/// The action and the kind of what `path` changes.
fn action(method: &Method, path: &str) -> Option<(String, String)> {
    let path = path.strip_prefix("/api/v1")?;
    let is_it = |Change(with, at, ..): &&Change| with == method && *at == path;
    if let Some(Change(_, _, action, kind)) = CHANGES.iter().find(is_it) {
        return Some(((*action).to_owned(), (*kind).to_owned()));
    }
    let of_kind = |kind: &mainstay_coord::revisions::Kind| {
        let rest = path.strip_prefix(kind.path)?.strip_prefix("/{namespace}/{name}")?;
        let is_change = match rest {
            "" => matches!(*method, Method::PUT | Method::DELETE),
            "/rollback" => *method == Method::POST,
            _ => false,
        };
        is_change.then(|| (format!("{}:write", kind.key), kind.key.to_string()))
    };
    cluster::KINDS.iter().find_map(of_kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_known_by_method_and_path() {
        for (method, path, want) in [
            (Method::PUT, "/api/v1/limits/{namespace}/{name}", Some("limit:write")),
            (Method::POST, "/api/v1/plans/{namespace}/{name}/rollback", Some("plan:write")),
            (Method::POST, "/api/v1/plans/{namespace}/{name}/rehearse", None),
            (Method::GET, "/api/v1/limits/{namespace}/{name}", None),
            (Method::POST, "/api/v1/store/compact", Some("store:compact")),
            (Method::PUT, "/v1/kv/{*key}", None),
        ] {
            let found = action(&method, path).map(|(action, _)| action);
            assert_eq!(found.as_deref(), want, "{method} {path}");
        }
    }
}
