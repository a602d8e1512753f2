//! Where a request would go, without sending it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_core::problem::Code;
use mainstay_proxy::config::{Plane, UpstreamConfig};
use mainstay_proxy::gateway::Running;
use mainstay_proxy::key::Facts;
use mainstay_proxy::route::{Action, Captures, Demand, Match, Route, View};
use mainstay_resilience::circuit::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Document, Refused};
use crate::role::Shared;
use crate::settings::tree::Node;

/// A request to be thought through.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RouteTest)]
pub(super) struct Asked {
    /// Default `GET`.
    #[serde(default = "get")]
    method: String,
    /// Its path, or all of it: `https://shop.example/orders/7?x=1`.
    url: String,
    /// Its headers, as pairs.
    #[serde(default)]
    #[schema(value_type = Vec<[String; 2]>)]
    headers: Vec<(String, String)>,
    /// Where it comes from. Default 127.0.0.1.
    #[schema(value_type = Option<String>)]
    client: Option<IpAddr>,
}

fn get() -> String {
    "GET".to_owned()
}

/// `POST /routes/test`
pub(super) async fn test(
    State(shared): State<Arc<Shared>>,
    Document(asked): Document<Asked>,
) -> Answer {
    let wrong = |what: &str| Refused::invalid(format!("`{what}` cannot be read"));
    let method: Method = asked.method.parse().map_err(|_illegal| wrong("method"))?;
    let uri: Uri = asked.url.parse().map_err(|_illegal| wrong("url"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let field = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()));
        let (Ok(name), Ok(value)) = field else {
            return Err(wrong("headers"));
        };
        headers.append(name, value);
    }
    let field = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(Authority::as_str).or(field);
    let host = host.unwrap_or("localhost").to_owned();
    let running = shared.gateway.running();
    let judged = running.judge(uri.path()).map_err(refused)?;
    let view = View {
        host: &host,
        method: &method,
        path: judged.judged(),
        headers: &headers,
        query: uri.query(),
        client: asked.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    let tree = shared.live.lock().tree().clone();
    let mut document = match running.plane.routes.find(&view) {
        Match::Found { route, captures, .. } => found(&running, &tree, route, &captures, &view),
        Match::NoRoute => json!({ "route": null, "problem": Code::RouteNotFound.as_str() }),
        Match::MethodNotAllowed { allow } => json!({
            "route": null,
            "problem": Code::MethodNotAllowed.as_str(),
            "allow": allow.to_str().unwrap_or_default(),
        }),
    };
    if let Some(fields) = document.as_object_mut() {
        fields.insert("host".to_owned(), json!(view.hostname()));
        fields.insert("path".to_owned(), json!(view.path));
    }
    Ok(Json(document))
}

fn refused(problem: mainstay_core::Problem) -> Refused {
    Refused::new(problem.code, problem.detail)
}

fn found(
    running: &Running,
    tree: &Node,
    route: &Route,
    captures: &Captures,
    view: &View<'_>,
) -> Value {
    let captured = route.captured(captures, view.path).into_iter();
    let captured: serde_json::Map<String, Value> =
        captured.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let written = Written { tree };
    let (action, services, service, stages) = match &route.action {
        Action::Redirect(redirect) => {
            let status = redirect.status.as_u16();
            (json!({ "redirect": status }), Vec::new(), None, written.own_stages(route))
        }
        Action::Respond(respond) => {
            let status = respond.status.as_u16();
            (json!({ "respond": status }), Vec::new(), None, written.own_stages(route))
        }
        Action::To(split) => {
            let facts =
                Facts { view, route, captures, service: None, principal: None, tenant: None };
            let key = route.split_key.as_ref().and_then(|part| facts.read(part));
            let all: Vec<(&ServiceName, u16)> = split.shares().collect();
            let certain = match (&key, all.as_slice()) {
                (Some(key), _) => Some(split.pick_for(key)),
                (None, [(only, _)]) => Some(*only),
                (None, _) => None,
            };
            let shares = all.iter().map(|(service, share)| {
                let percent = f64::from(*share) / 100.0;
                json!({ "service": service.as_str(), "share_percent": percent })
            });
            let ways = all.iter().map(|(service, _)| *service);
            let ways = ways.filter(|service| certain.is_none_or(|certain| certain == *service));
            let stages = ways.flat_map(|service| written.stages(&running.plane, route, service));
            let (shares, stages) = (shares.collect(), stages.collect());
            (json!("to"), shares, certain.map(ServiceName::as_str), stages)
        }
    };
    json!({
        "route": route.name.as_str(),
        "origin": written.origin("route", route.name.as_str()),
        "captures": captured,
        "action": action,
        "service": service,
        "services": services,
        "stages": stages,
    })
}

/// The configuration as it was written.
struct Written<'a> {
    tree: &'a Node,
}

impl Written<'_> {
    /// Where the object `name` of `table` begins; `default` when nobody wrote it.
    fn origin(&self, table: &str, name: &str) -> String {
        let (all, node) = (self.tree.nearest(table), self.tree.nearest(&format!("{table}.{name}")));
        let nobody = std::ptr::eq(all, node) || std::ptr::eq(self.tree, node);
        if nobody { "default".to_owned() } else { node.key.brief() }
    }

    /// What a call passes that `route` answers itself, outermost first.
    fn own_stages(&self, route: &Route) -> Vec<Value> {
        let stage = |stage: &str, rule: &str, origin: String| json!({ "stage": stage, "rule": rule, "service": "", "origin": origin });
        if !route.has_own_stages() {
            return Vec::new();
        }
        let seconds = format!("{} s", route.timeout.as_secs_f64());
        let mut all = vec![stage("deadline", &seconds, self.origin("route", route.name.as_str()))];
        if route.jwt == Demand::Required {
            let origin = self.origin("route", route.name.as_str());
            all.push(stage("identify", "jwt required", origin));
        }
        let policies = route.limits.iter().map(|name| ("limit", name));
        for (kind, name) in policies.chain(route.fallback.iter().map(|name| ("fallback", name))) {
            all.push(stage(kind, name.as_str(), self.origin(kind, name.as_str())));
        }
        all
    }

    /// What a call by `route` to `service` passes, outermost first.
    fn stages(&self, plane: &Plane, route: &Route, service: &ServiceName) -> Vec<Value> {
        let stage = |stage: &str, rule: &str, origin: String| {
            json!({
                "stage": stage,
                "rule": rule,
                "service": service.as_str(),
                "origin": origin,
            })
        };
        let by_route = || self.origin("route", route.name.as_str());
        let by_service = || self.origin("upstream", service.as_str());
        let seconds = |span: std::time::Duration| format!("{} s", span.as_secs_f64());
        let mut all = vec![stage("deadline", &seconds(route.timeout), by_route())];
        match route.jwt {
            Demand::Required => all.push(stage("identify", "jwt required", by_route())),
            Demand::Optional if !plane.gateway.jwt.is_empty() => {
                all.push(stage("identify", "jwt optional", by_route()));
            }
            Demand::Optional | Demand::Off => {}
        }
        let Some(upstream) = plane.upstreams.get(service) else { return all };
        for name in both(&route.limits, &upstream.limits) {
            all.push(stage("limit", name.as_str(), self.origin("limit", name.as_str())));
        }
        if let Some(name) = &route.fallback {
            all.push(stage("fallback", name.as_str(), self.origin("fallback", name.as_str())));
        }
        let attempts = format!("{} attempts", upstream.retry.attempts);
        all.push(stage("retry", &attempts, by_service()));
        all.push(stage("balance", super::balance::kind(upstream.balance.kind), by_service()));
        for name in circuits(plane, route, upstream) {
            all.push(stage("circuit", name.as_str(), self.origin("circuit", name.as_str())));
        }
        let attempt = upstream.retry.try_timeout.map(seconds);
        let attempt = attempt.unwrap_or_else(|| "what remains of the deadline".to_owned());
        all.push(stage("timeout", &attempt, by_service()));
        all.push(stage("upstream", service.as_str(), by_service()));
        all
    }
}

/// The names of the route and then those of the service, each once.
fn both<'a>(
    route: &'a [PolicyName],
    upstream: &'a [PolicyName],
) -> impl Iterator<Item = &'a PolicyName> {
    route.iter().chain(upstream.iter().filter(|name| !route.contains(name)))
}

/// Circuits that are asked: of those for instances only the service's own count.
fn circuits<'a>(
    plane: &'a Plane,
    route: &'a Route,
    upstream: &'a UpstreamConfig,
) -> impl Iterator<Item = &'a PolicyName> {
    both(&route.circuits, &upstream.circuits).filter(|name| {
        let scope = plane.circuits.get(*name).map(|policy| policy.scope);
        scope.is_some_and(|scope| scope != Scope::Instance || upstream.circuits.contains(name))
    })
}
