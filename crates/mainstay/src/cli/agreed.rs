//! `mainstay service`, `instance`, `store`: agreed state, looked at and changed.

use mainstay_core::problem::Code;
use serde_json::{Value as Json, json};

use super::arguments::agreed::{Instance, Register, Service, Which};
use super::calls::{confirm, encoded};
use super::settings::reason;
use super::{Ended, Session, usage};
use crate::exit::Exit;
use crate::output::{Column, Format, Table, blocks, items};
use crate::report::Report;
use crate::settings::Errors;

const SERVICES: Table<'static> = Table(&[
    Column::new("NAMESPACE", "/namespace"),
    Column::new("SERVICE", "/name"),
    Column::new("INSTANCES", "/instances"),
    Column::new("HEALTHY", "/healthy"),
    Column::new("PROTECTED", "/protected").optional(),
]);

const INSTANCES: Table<'static> = Table(&[
    Column::new("ID", "/id"),
    Column::new("ADDRESS", "/address"),
    Column::new("PORT", "/port"),
    Column::new("STATE", "/state"),
    Column::new("HEALTH", "/health"),
    Column::new("WEIGHT", "/weight"),
    Column::new("REASON", "/reason").optional(),
    Column::new("ZONE", "/zone").wide(),
    Column::new("VERSION", "/version").wide(),
    Column::new("OWNER", "/owner").wide(),
]);

const ANSWERED: Table<'static> = Table(&[
    Column::new("ID", "/id"),
    Column::new("ANSWERED", "/answered"),
    Column::new("WHY NOT", "/why"),
    Column::new("HEALTH", "/health"),
    Column::new("REASON", "/reason").optional(),
]);

pub(super) fn service(verb: Service, session: &mut Session<'_>) -> Ended {
    match verb {
        Service::List { namespace } => {
            let of = namespace.map(|name| format!("/{}", encoded(&name))).unwrap_or_default();
            let list = session.control()?.get(&format!("/api/v1/registry{of}/services"))?;
            session.show(&list, &SERVICES)
        }
        Service::Show { service, healthy } => {
            let path = format!("{}?healthy={healthy}", path(&service)?);
            let document = session.control()?.get(&path)?;
            if session.is_for_people()
                && let Some(why) = document.pointer("/protected/reason").and_then(Json::as_str)
            {
                session.note(&format!("protected: {why}"));
            }
            list(&document, &INSTANCES, session)
        }
        Service::Watch { service, events } => {
            let (namespace, name) = parts(&service)?;
            let mode = if events { "events" } else { "view" };
            let of = encoded(&format!("{namespace}/{name}"));
            let path = format!("/api/v1/registry/watch?services={of}&mode={mode}");
            session.follow("GET", &path, None)
        }
        Service::Explain { service } => {
            let document = session.control()?.get(&format!("{}/explain", path(&service)?))?;
            list(&document, &ANSWERED, session)
        }
        Service::Drain { service, seconds } => {
            confirm(&service, "no instance gets new calls", session)?;
            let change = json!({ "seconds": seconds });
            each(&service, "drain", &change, session)?;
            session.note(&format!("undo: mainstay service undrain {service}"));
            Ok(Exit::Done.code())
        }
        Service::Undrain { service } => each(&service, "undrain", &json!({}), session),
        Service::Remove { service, reason: why } => {
            let why = reason(why.as_deref(), true)?;
            confirm(&service, "its settings and checks are lost", session)?;
            let control = session.control()?;
            control.change("DELETE", &path(&service)?, None, why.as_deref())?;
            session.note(&format!("removed {service}"));
            Ok(Exit::Done.code())
        }
    }
}

pub(super) fn instance(verb: Instance, session: &mut Session<'_>) -> Ended {
    match verb {
        Instance::List { service } => {
            let document = session.control()?.get(&path(&service)?)?;
            list(&document, &INSTANCES, session)
        }
        Instance::Show(which) => show(&which, session),
        Instance::Register(register) => add(register, session),
        Instance::Deregister(which) => {
            let at = format!("{}/instances/{}", path(&which.service)?, encoded(&which.id));
            session.control()?.change("DELETE", &at, None, None)?;
            session.note(&format!("removed {} of {}", which.id, which.service));
            Ok(Exit::Done.code())
        }
        Instance::Drain { which, seconds } => {
            tell(&which, "drain", &json!({ "seconds": seconds }), None, session)?;
            session.note(&format!("undo: mainstay instance enable {} {}", which.service, which.id));
            Ok(Exit::Done.code())
        }
        Instance::Weight { which, weight } => {
            tell(&which, "weight", &json!({ "weight": weight }), None, session)
        }
        Instance::Enable(which) => tell(&which, "undrain", &json!({}), None, session),
        Instance::Disable { which, reason: why } => {
            let why = reason(why.as_deref(), true)?;
            let change = json!({ "enable": true, "reason": why });
            tell(&which, "maintenance", &change, why.as_deref(), session)?;
            session.note(&format!("undo: mainstay instance enable {} {}", which.service, which.id));
            Ok(Exit::Done.code())
        }
    }
}

/// One instance of those that a service shows.
fn show(Which { service, id }: &Which, session: &mut Session<'_>) -> Ended {
    let document = session.control()?.get(&path(service)?)?;
    let all = document.get("instances").cloned().unwrap_or_default();
    let is_it = |instance: &&Json| instance.get("id").and_then(Json::as_str) == Some(id);
    let Some(instance) = items(&all).into_iter().find(is_it) else {
        let message = format!("`{service}` has no instance `{id}`");
        let missing = Report::error(Code::InstanceNotFound, message);
        return Err(missing.next(format!("mainstay instance list {service}")).into());
    };
    session.show_one(instance, &INSTANCES)
}

fn add(register: Register, session: &mut Session<'_>) -> Ended {
    let parts = register.address.rsplit_once(':');
    let place = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let Some((host, port)) = place else {
        let wrong = usage(format!("`{}` is no address", register.address));
        return Err(wrong.help("write `host:port`").into());
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let id = register.id.unwrap_or_else(|| register.address.clone());
    let mut body = json!({ "address": host, "port": port, "tags": register.tags });
    if let Some(fields) = body.as_object_mut() {
        let mut put = |name: &str, value: Option<Json>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("kind", register.persistent.then(|| json!("persistent")));
        put("weight", register.weight.map(Json::from));
        put("zone", register.zone.map(Json::from));
        put("version", register.version.map(Json::from));
    }
    let at = format!("{}/instances/{}", path(&register.service)?, encoded(&id));
    let done = session.control()?.change("PUT", &at, Some(&body), None)?;
    session.note(&format!("undo: mainstay instance deregister {} {id}", register.service));
    session.print(&blocks(&[&done]))
}

/// One change of one instance.
fn tell(
    which: &Which,
    verb: &str,
    change: &Json,
    why: Option<&str>,
    session: &mut Session<'_>,
) -> Ended {
    let at = format!("{}/instances/{}/{verb}", path(&which.service)?, encoded(&which.id));
    let done = session.control()?.change("POST", &at, Some(change), why)?;
    session.print(&blocks(&[&done]))
}

/// The same change of each instance of a service.
fn each(service: &str, verb: &str, change: &Json, session: &mut Session<'_>) -> Ended {
    let control = session.control()?;
    let document = control.get(&path(service)?)?;
    let all = document.get("instances").cloned().unwrap_or_default();
    for instance in items(&all) {
        let id = instance.get("id").and_then(Json::as_str).unwrap_or_default();
        let at = format!("{}/instances/{}/{verb}", path(service)?, encoded(id));
        control.change("POST", &at, Some(change), None)?;
    }
    session.note(&format!("{verb}: {} instances", items(&all).len()));
    Ok(Exit::Done.code())
}

/// The instances of a document as a table, or the document itself.
fn list(document: &Json, table: &Table<'_>, session: &mut Session<'_>) -> Ended {
    if matches!(session.global.output, Some(Format::Json | Format::Yaml)) {
        return session.show(document, table);
    }
    let instances = document.get("instances").cloned().unwrap_or_default();
    session.show(&json!({ "items": instances }), table)
}

fn path(service: &str) -> Result<String, Errors> {
    let (namespace, name) = parts(service)?;
    Ok(format!("/api/v1/registry/{}/services/{}", encoded(namespace), encoded(name)))
}

/// Namespace and name.
fn parts(service: &str) -> Result<(&str, &str), Errors> {
    let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
    if name.is_empty() || namespace.is_empty() || name.contains('/') {
        let wrong = usage(format!("`{service}` is no service"));
        return Err(wrong.help("write `service` or `namespace/service`").into());
    }
    Ok((namespace, name))
}
