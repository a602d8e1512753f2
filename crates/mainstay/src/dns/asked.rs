//! What a name stands for.
//!
//! A name is read from the right, and where it can be read in two ways both are returned, the more
//! likely first: `_http._tcp.web.svc` is the port `http` of the service `web`, or else the service
//! `http` of the namespace `web`. Whoever knows the services takes the first that exists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// Services of a name without a namespace are those of this one.
const DEFAULT_NAMESPACE: &str = "default";

/// What a name inside a zone stands for. All texts are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The zone itself.
    Apex,
    /// The name server the zone names, `ns`.
    NameServer,
    /// Nothing by itself, though names lie below it.
    Branch,
    /// The first of these that exists; else nothing by itself, if `parent` has names below it.
    Service {
        /// In the order in which they are tried.
        readings: Vec<Reading>,
        /// What the name is the end of, without the part common to all.
        parent: Option<String>,
    },
    /// An address that is its own name.
    Address(IpAddr),
    /// A process of Mainstay.
    Node(String),
    /// Nothing that could be.
    Unknown,
}

/// One way to read a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Namespace.
    pub namespace: String,
    /// Service.
    pub service: String,
    /// What of it.
    pub pick: Pick,
}

/// What of a service is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Its instances.
    All,
    /// Those with this tag.
    Tag(String),
    /// Where to connect to, of all or those with this tag; such a name has no addresses itself.
    Transport(Option<String>),
    /// The same for the port of this name.
    Port(String),
    /// The instance with this label, whatever its health.
    Instance(String),
    /// Nothing: a name with others below it.
    Nothing,
}

/// Reads what stands before the zone with our own names.
pub fn in_main_zone(labels: &[String]) -> Asked {
    match labels {
        [] => Asked::Apex,
        [ns] if ns == "ns" => Asked::NameServer,
        [before @ .., kind] if kind == "svc" => in_services(before),
        [before @ .., kind] if kind == "inst" => in_instances(before),
        _ => Asked::Unknown,
    }
}

/// Reads what stands before the zone with Consul's names.
pub fn in_consul_zone(labels: &[String], datacenter: &str) -> Asked {
    let is_ours = |label: &String| label.eq_ignore_ascii_case(datacenter);
    match labels {
        [] => Asked::Apex,
        [ns] if ns == "ns" => Asked::NameServer,
        [dc] if is_ours(dc) => Asked::Branch,
        [before @ .., kind] if is_kind(kind) => of_kind(kind, before),
        [before @ .., kind, dc] if is_kind(kind) && is_ours(dc) => of_kind(kind, before),
        _ => Asked::Unknown,
    }
}

/// The labels of `name` before `zone`, in lower case; `None` when one is none of ours.
pub fn labels_before(name: &Name, zone: &Name) -> Option<Vec<String>> {
    let count = name.iter().len().checked_sub(zone.iter().len())?;
    let label = |bytes: &[u8]| {
        let is_legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let text = std::str::from_utf8(bytes).ok()?;
        bytes.iter().all(is_legal).then(|| text.to_ascii_lowercase())
    };
    name.iter().take(count).map(label).collect()
}

fn in_services(labels: &[String]) -> Asked {
    let Some(first) = labels.first() else { return Asked::Branch };
    let Some(at) = labels.iter().position(|label| label == "_tcp") else {
        let reading = if first.starts_with('_') { None } else { reading(labels, Pick::All) };
        return services(reading, Some(labels.join(".")));
    };
    let (before, after) = (labels.get(..at).unwrap_or(&[]), labels.get(at + 1..).unwrap_or(&[]));
    if before.is_empty() {
        // `_tcp.web.svc`: what `_http._tcp.web.svc` lies below.
        return match after {
            [] => Asked::Branch,
            _ => services(reading(after, Pick::Nothing), Some(after.join("."))),
        };
    }
    let joined = before.join(".");
    let Some(name) = joined.strip_prefix('_') else { return Asked::Unknown };
    let of_service = |namespace: &str| Reading {
        namespace: namespace.to_owned(),
        service: name.to_owned(),
        pick: Pick::Transport(None),
    };
    match after {
        [] => services(Some(of_service(DEFAULT_NAMESPACE)), None),
        [one] => {
            let port = reading(after, Pick::Port(name.to_owned()));
            services(port.into_iter().chain([of_service(one)]), None)
        }
        _ => services(reading(after, Pick::Port(name.to_owned())), None),
    }
}

fn in_instances(labels: &[String]) -> Asked {
    let Some((label, of)) = labels.split_first() else { return Asked::Branch };
    let full =
        |labels: &[String], pick| if 2 <= labels.len() { reading(labels, pick) } else { None };
    let instance = full(of, Pick::Instance(label.clone()));
    let service = full(labels, Pick::Nothing);
    services(instance.into_iter().chain(service), Some(labels.join(".")))
}

fn is_kind(label: &str) -> bool {
    matches!(label, "service" | "node" | "addr" | "query")
}

fn of_kind(kind: &str, before: &[String]) -> Asked {
    match (kind, before) {
        (_, []) => Asked::Branch,
        ("service", _) => in_consul_services(before),
        ("node", _) => Asked::Node(before.join(".")),
        ("addr", [hex]) => address(hex).map_or(Asked::Unknown, Asked::Address),
        _ => Asked::Unknown,
    }
}

fn in_consul_services(labels: &[String]) -> Asked {
    let of = |service: String, pick| {
        Some(Reading { namespace: DEFAULT_NAMESPACE.to_owned(), service, pick })
    };
    let Some((last, before)) = labels.split_last() else { return Asked::Branch };
    if let Some(protocol) = last.strip_prefix('_') {
        let joined = before.join(".");
        let Some(service) = joined.strip_prefix('_') else { return Asked::Unknown };
        let tag = Some(protocol).filter(|word| *word != "tcp").map(str::to_owned);
        return services(of(service.to_owned(), Pick::Transport(tag)), None);
    }
    if before.is_empty() {
        return services(of(last.clone(), Pick::All), None);
    }
    let tagged = of(last.clone(), Pick::Tag(before.join(".")));
    services(tagged.into_iter().chain(of(labels.join("."), Pick::All)), None)
}

/// `<service>` of the default namespace, or `<service>.<namespace>`.
fn reading(labels: &[String], pick: Pick) -> Option<Reading> {
    let (last, before) = labels.split_last()?;
    let (service, namespace) = if before.is_empty() {
        (last.clone(), DEFAULT_NAMESPACE.to_owned())
    } else {
        (before.join("."), last.clone())
    };
    Some(Reading { namespace, service, pick })
}

fn services(readings: impl IntoIterator<Item = Reading>, parent: Option<String>) -> Asked {
    Asked::Service { readings: readings.into_iter().collect(), parent }
}

/// The address that 8 or 32 hexadecimal digits say.
fn address(hex: &str) -> Option<IpAddr> {
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        8 => Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?).into()),
        32 => Some(Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<String> {
        text.split('.').filter(|label| !label.is_empty()).map(str::to_owned).collect()
    }

    /// The readings of a name as `namespace/service pick`.
    fn readings(asked: Asked) -> Vec<String> {
        let Asked::Service { readings, .. } = asked else { return vec![format!("{asked:?}")] };
        readings.iter().map(|r| format!("{}/{} {:?}", r.namespace, r.service, r.pick)).collect()
    }

    #[track_caller]
    fn check(name: &str, want: &[&str]) {
        assert_eq!(readings(in_main_zone(&labels(name))), want, "{name}");
    }

    #[test]
    fn names_of_the_main_zone() {
        check("", &["Apex"]);
        check("ns", &["NameServer"]);
        check("svc", &["Branch"]);
        check("web.svc", &["default/web All"]);
        check("web.shop.svc", &["shop/web All"]);
        check("a.b.shop.svc", &["shop/a.b All"]);
        check("_web._tcp.svc", &["default/web Transport(None)"]);
        check("_http._tcp.web.svc", &["default/web Port(\"http\")", "web/http Transport(None)"]);
        check("_http._tcp.a.b.shop.svc", &["shop/a.b Port(\"http\")"]);
        check("_tcp.svc", &["Branch"]);
        check("_tcp.web.svc", &["default/web Nothing"]);
        check("_web.svc", &[]);
        check("a._tcp.web.svc", &["Unknown"]);
        check("i.web.shop.inst", &["shop/web Instance(\"i\")", "shop/i.web Nothing"]);
        check("web.shop.inst", &["shop/web Nothing"]);
        check("web", &["Unknown"]);
    }

    #[track_caller]
    fn consul(name: &str, want: &[&str]) {
        assert_eq!(readings(in_consul_zone(&labels(name), "dc1")), want, "{name}");
    }

    #[test]
    fn names_of_consuls_zone() {
        consul("", &["Apex"]);
        consul("dc1", &["Branch"]);
        consul("service", &["Branch"]);
        consul("web.service", &["default/web All"]);
        consul("web.service.dc1", &["default/web All"]);
        consul("web.service.dc2", &["Unknown"]);
        consul("v1.web.service", &["default/web Tag(\"v1\")", "default/v1.web All"]);
        consul("_web._tcp.service", &["default/web Transport(None)"]);
        consul("_web._v1.service.dc1", &["default/web Transport(Some(\"v1\"))"]);
        consul("web._tcp.service", &["Unknown"]);
        consul("host.node.dc1", &["Node(\"host\")"]);
        consul("0a000007.addr.dc1", &["Address(10.0.0.7)"]);
        consul("0a00000g.addr", &["Unknown"]);
        consul("near.query", &["Unknown"]);
    }
}
