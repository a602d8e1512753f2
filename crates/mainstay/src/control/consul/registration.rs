//! Services and checks as clients of Consul register them, and as the registry keeps them.
//!
//! A service is a persistent instance of the registry under the id `<node>/<service id>`: native
//! lists, names and the gateway see it, and it is as well as the worst of its checks.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use mainstay_coord::audit::Author;
use mainstay_coord::consul::ConsulError;
use mainstay_coord::health::Health;
use mainstay_coord::health::check::{CHECKS_MAX, RawCheck};
use mainstay_coord::health::tls::RawCheckTls;
use mainstay_coord::registry::{
    ConsulService, Kind, NewCheck, OwnCheck, RawRegistration, Registration, RegistryError,
    TaggedAddress,
};
use mainstay_coord::{InstanceRef, ServiceRef};
use serde_json::Value;

use super::answer::Text;
use super::body::Fields;
use super::scope::Scope;
use crate::cluster::consul::Known;

/// What the door says when the registry does not do as asked.
pub(super) fn refused(error: &RegistryError) -> Text {
    match error {
        // The words that clients look for before they try another server.
        RegistryError::Store(_) | RegistryError::Loading => Text::failed("No cluster leader"),
        RegistryError::Unreadable { .. } => Text::failed(error.to_string()),
        RegistryError::KindConflict { service, kind } => Text::bad(format!(
            "service {service} has {} instances of the native registry; those of this door are persistent",
            kind.as_str()
        )),
        error => Text::bad(error.to_string()),
    }
}

/// Where the registry has the service `id` of `node`; `None` when nobody registered it here.
pub(super) fn find(scope: &Scope<'_>, node: &str, id: &str) -> Result<Option<InstanceRef>, Text> {
    let known = known(scope)?;
    let key = (scope.namespace.clone(), node.to_owned(), id.to_owned());
    Ok(known.get(&key).map(|(at, _)| at.clone()))
}

/// Every service that clients of Consul registered. Made anew when the registry has changed: a
/// report of a check that says nothing new changes nothing.
pub(super) fn known(scope: &Scope<'_>) -> Result<Arc<Known>, Text> {
    let registry = &scope.cluster.registry;
    let revision = registry.revision();
    let mut kept = scope.door.known.lock();
    if let Some((at, known)) = &*kept
        && *at == revision
    {
        return Ok(Arc::clone(known));
    }
    let mut known = Known::new();
    for (at, instance) in registry.instances().map_err(|error| refused(&error))? {
        let part = instance.consul.as_ref();
        let name = part.map(|consul| (consul.node.clone(), consul.id.clone()));
        if let Some((node, id)) = name {
            let key = (at.service.namespace.clone(), node, id);
            known.insert(key, (at, instance));
        }
    }
    let known = Arc::new(known);
    *kept = Some((revision, Arc::clone(&known)));
    Ok(known)
}

/// Removes a service, which somebody asked for or its successor brings about; one that is not there
/// is gone already.
pub(super) async fn gone(
    scope: &Scope<'_>,
    at: &InstanceRef,
    by: Option<&Author>,
) -> Result<(), Text> {
    match scope.cluster.registry.deregister(at, by).await {
        Ok(_) | Err(RegistryError::InstanceNotFound { .. }) => Ok(()),
        Err(error) => Err(refused(&error)),
    }
}

/// The id of a service of `catalog/register`: its name where it has none.
pub(super) fn id(service: &Value) -> Result<String, Text> {
    let mut said = Fields::of(service.clone())?;
    let id = said.text("ID")?.filter(|id| !id.is_empty());
    Ok(id.unwrap_or(said.text("Service")?.unwrap_or_default()))
}

/// Registers a service `name` on `node`, as `said` says; returns its id.
pub(super) async fn put(
    scope: &Scope<'_>,
    node: &str,
    name: String,
    said: Fields,
    (checks, replaces): (Vec<NewCheck>, bool),
) -> Result<(), Text> {
    let reached = address_of(scope, node).await?;
    let Meant { at, registration, before } =
        meant(scope, (node, &reached), name, said, (checks, replaces))?;
    if let Some(before) = before {
        gone(scope, &before, None).await?;
    }
    let done = scope.cluster.registry.register(&at, &registration).await;
    done.map(drop).map_err(|error| refused(&error))
}

/// A service as the registry takes it.
pub(super) struct Meant {
    /// Where.
    pub(super) at: ServiceRef,
    pub(super) registration: Registration,
    /// What goes: an id names one service of a node, under another name it is another service.
    pub(super) before: Option<InstanceRef>,
}

/// Reads a service `name` on `node`, which is reached at an address.
pub(super) fn meant(
    scope: &Scope<'_>,
    (node, reached): (&str, &str),
    name: String,
    mut said: Fields,
    (checks, replaces): (Vec<NewCheck>, bool),
) -> Result<Meant, Text> {
    if CHECKS_MAX < checks.len() {
        return Err(Text::bad(ConsulError::ChecksTooMany.to_string()));
    }
    let id = said.text("ID")?.filter(|id| !id.is_empty()).unwrap_or_else(|| name.clone());
    let at = scope.service(&name)?;
    let port = said.number("Port")?.unwrap_or(0);
    let port = u16::try_from(port).map_err(|_large| Text::bad(format!("Invalid port {port}")))?;
    let address = said.text("Address")?.unwrap_or_default();
    let (passing, warning) = weights(&mut said)?;
    let service = ConsulService {
        node: node.to_owned(),
        id: id.clone(),
        address: address.clone(),
        tagged_addresses: tagged(&mut said)?,
        weight_warning: warning,
        enable_tag_override: said.flag("EnableTagOverride")?.unwrap_or(false),
        kind: said.text("Kind")?.unwrap_or_default(),
        proxy: said.take("Proxy"),
        connect: said.take("Connect"),
    };
    let reached = if address.is_empty() { reached.to_owned() } else { address };
    let raw = RawRegistration {
        id: Some(format!("{node}/{id}")),
        address: Some(reached),
        port: Some(port),
        kind: Some(Kind::Persistent),
        weight: Some(passing),
        tags: said.texts("Tags")?.unwrap_or_default(),
        metadata: said.pairs("Meta")?,
        ..RawRegistration::default()
    };
    let config = &scope.cluster.registry_config;
    let registration = Registration::new(raw, config.ttl_seconds, &config.addresses());
    let registration = registration.map_err(|error| Text::bad(error.to_string()))?;
    let registration = registration.of_consul(service, checks, replaces);
    let before = find(scope, node, &id)?.filter(|before| before.service != at);
    Ok(Meant { at, registration, before })
}

/// Where a node is.
pub(super) async fn address_of(scope: &Scope<'_>, node: &str) -> Result<String, Text> {
    let known = scope.door.recipes.node(node).await?.map(|record| record.address);
    let own = || scope.door.address.clone();
    Ok(known.filter(|address| !address.is_empty()).unwrap_or_else(own))
}

fn weights(said: &mut Fields) -> Result<(u16, u16), Text> {
    let Some(value) = said.take("Weights") else { return Ok((1, 1)) };
    let mut fields = Fields::of(value)?;
    let mut weight = |name| -> Result<u16, Text> {
        let number = fields.number(name)?.unwrap_or(1);
        let wrong =
            |_large| Text::bad(format!("Invalid {name} weight {number}: must be 0 to 65535"));
        u16::try_from(number).map_err(wrong)
    };
    let passing = weight("Passing")?;
    match (passing, weight("Warning")?) {
        // What clients send that say nothing of weights.
        (0, 0) => Ok((1, 1)),
        (0, _) => Err(Text::bad("Passing must be greater than 0")),
        weights => Ok(weights),
    }
}

fn tagged(said: &mut Fields) -> Result<BTreeMap<String, TaggedAddress>, Text> {
    let Some(value) = said.take("TaggedAddresses") else { return Ok(BTreeMap::new()) };
    let Value::Object(members) = value else {
        return Err(Text::bad(format!("TaggedAddresses must be an object, found {value}")));
    };
    let read = |(name, value): (String, Value)| {
        let mut fields = Fields::of(value)?;
        let address = fields.text("Address")?.unwrap_or_default();
        let port = fields.number("Port")?.unwrap_or(0);
        let port =
            u16::try_from(port).map_err(|_large| Text::bad(format!("Invalid port {port}")))?;
        Ok((name, TaggedAddress { address, port }))
    };
    members.into_iter().map(read).collect()
}

/// A status as clients write it.
pub(super) fn status(text: &str) -> Result<Health, Text> {
    match text {
        "passing" => Ok(Health::Passing),
        "warning" => Ok(Health::Warning),
        "critical" => Ok(Health::Critical),
        _ => Err(Text::bad(format!(
            "Invalid check status '{text}': must be passing, warning or critical"
        ))),
    }
}

/// What Consul does that this door does not.
const MISSING: [&str; 11] = [
    "Script",
    "Args",
    "DockerContainerID",
    "Shell",
    "UDP",
    "H2PING",
    "OSService",
    "AliasNode",
    "AliasService",
    "ProxyHTTP",
    "ProxyGRPC",
];

/// Shortest time a check may be critical before its service goes: Consul raises smaller ones too.
const REMOVE_AFTER_MIN: Duration = Duration::from_mins(1);

/// How long a check may take that does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a check; `id` and `title` are those of one that has none.
pub(super) fn check(said: &mut Fields, id: &str, title: &str) -> Result<NewCheck, Text> {
    for part in MISSING {
        let is_nothing = |value: &Value| {
            value.as_str() == Some("")
                || value.as_array().is_some_and(Vec::is_empty)
                || *value == Value::Bool(false)
        };
        if said.take(part).is_some_and(|value| !is_nothing(&value)) {
            let line = format!("'{part}' checks are not part of this door; see docs/consul.md");
            return Err(Text(StatusCode::BAD_REQUEST, line));
        }
    }
    let title =
        said.text("Name")?.filter(|name| !name.is_empty()).unwrap_or_else(|| title.to_owned());
    let named = said.text("CheckID")?.filter(|id| !id.is_empty());
    let named = named.or(said.text("ID")?.filter(|id| !id.is_empty()));
    let id = named.unwrap_or_else(|| if id.is_empty() { title.clone() } else { id.to_owned() });
    if id.is_empty() || 255 < id.len() {
        return Err(Text::bad("Missing check name, or one above 255 bytes"));
    }
    let health = match said.text("Status")?.as_deref() {
        None | Some("") => Health::Critical,
        Some(text) => status(text)?,
    };
    let after = said.span("DeregisterCriticalServiceAfter", 0)?.filter(|after| !after.is_zero());
    let after = after.map(|after| after.max(REMOVE_AFTER_MIN).as_secs());
    let (run, host, ttl) = run(said, &id)?;
    let check = OwnCheck {
        id,
        title,
        notes: said.text("Notes")?.unwrap_or_default(),
        run: Some(run),
        host,
        ttl_milliseconds: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        remove_after_seconds: after.map(|after| u32::try_from(after).unwrap_or(u32::MAX)),
        definition: serde_json::Map::new(),
    };
    if check.check().is_none() {
        return Err(Text::bad(
            "Invalid check: its method, path, headers, times or TLSServerName are none",
        ));
    }
    Ok(NewCheck { check, health, output: String::new() })
}

type Run = (RawCheck, Option<String>, Option<Duration>);

fn run(said: &mut Fields, id: &str) -> Result<Run, Text> {
    let mut given = |name: &str| Ok::<_, Text>(said.text(name)?.filter(|text| !text.is_empty()));
    let (http, tcp, grpc) = (given("HTTP")?, given("TCP")?, given("GRPC")?);
    let ttl = said.span("TTL", 0)?.filter(|ttl| !ttl.is_zero());
    let interval = said.span("Interval", 0)?.filter(|interval| !interval.is_zero());
    let timeout = said.span("Timeout", 0)?.filter(|timeout| !timeout.is_zero());
    if let Some(ttl) = ttl {
        if http.is_some() || tcp.is_some() || grpc.is_some() {
            return Err(Text::bad("Interval and TTL cannot both be specified"));
        }
        let seconds = ttl.as_secs().clamp(1, 86_400);
        let seconds = u32::try_from(seconds).unwrap_or(86_400);
        let (name, kind) = (id.to_owned(), "ttl".to_owned());
        let raw = RawCheck { name, kind, ttl_seconds: Some(seconds), ..RawCheck::default() };
        return Ok((raw, None, Some(ttl)));
    }
    let times = |said: &mut Fields, name: &str| -> Result<Option<u32>, Text> {
        let count = said.number(name)?.unwrap_or(0);
        Ok(Some(u32::try_from(count).unwrap_or(u32::MAX)))
    };
    let mut raw = RawCheck {
        name: id.to_owned(),
        interval_seconds: interval.map(|interval| interval.as_secs_f64()),
        timeout_seconds: Some(timeout.unwrap_or(TIMEOUT).as_secs_f64()),
        passing_after: times(said, "SuccessBeforePassing")?,
        critical_after: times(said, "FailuresBeforeCritical")?,
        ..RawCheck::default()
    };
    let (kind, address) = match (http, tcp, grpc) {
        (Some(url), None, None) => ("http", http_check(said, &url, &mut raw)?),
        (None, Some(address), None) => ("tcp", address),
        (None, None, Some(address)) => {
            if said.flag("GRPCUseTLS")?.unwrap_or(false) {
                raw.tls = Some(tls(said)?);
            }
            let (address, service) = address.split_once('/').unwrap_or((&address, ""));
            raw.service = (!service.is_empty()).then(|| service.to_owned());
            ("grpc", address.to_owned())
        }
        (None, None, None) if interval.is_some() => {
            return Err(Text::bad("Invalid check: HTTP, TCP or GRPC must be given with Interval"));
        }
        (None, None, None) => return Err(Text::bad("TTL must be > 0 for TTL checks")),
        _ => return Err(Text::bad("Invalid check: only one of HTTP, TCP, GRPC may be given")),
    };
    if interval.is_none() {
        return Err(Text::bad("Interval must be > 0 for Script, HTTP, or TCP checks"));
    }
    kind.clone_into(&mut raw.kind);
    let (host, port) = host_and_port(&address).ok_or_else(|| {
        Text::bad(format!("Invalid check address {address:?}: host:port is needed"))
    })?;
    raw.port = Some(port);
    Ok((raw, Some(host), None))
}

/// Fills in the request of an HTTP check; returns `host:port`.
fn http_check(said: &mut Fields, url: &str, raw: &mut RawCheck) -> Result<String, Text> {
    let wrong = || Text::bad(format!("Invalid check URL {url:?}"));
    let uri: Uri = url.parse().map_err(|_wrong| wrong())?;
    let default_port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => {
            raw.tls = Some(tls(said)?);
            443
        }
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    raw.path = Some(if path.is_empty() { "/".to_owned() } else { path.to_owned() });
    raw.method = said.text("Method")?.filter(|method| !method.is_empty());
    raw.body = said.text("Body")?.filter(|body| !body.is_empty());
    if let Some(Value::Object(headers)) = said.take("Header") {
        for (name, values) in headers {
            let values: Vec<&str> =
                values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            raw.headers.insert(name, values.join(", "));
        }
    }
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default_port)))
}

/// Whom a check over TLS believes: the authorities of this system, unless it says nobody is to be
/// asked.
fn tls(said: &mut Fields) -> Result<RawCheckTls, Text> {
    let server_name = said.text("TLSServerName")?.filter(|name| !name.is_empty());
    let verify = said.flag("TLSSkipVerify")?.unwrap_or(false).then_some(false);
    Ok(RawCheckTls { ca_pem: None, server_name, verify })
}

/// `host:port`, where an IPv6 address stands in brackets.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}
