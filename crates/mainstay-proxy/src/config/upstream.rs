//! How this process reaches a service: `[upstream.NAME]`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::name::PolicyName;
use mainstay_resilience::Invalid;
use mainstay_resilience::balance::{BalancePolicy, RawBalance};
use mainstay_resilience::classify::Classifier;
use mainstay_resilience::outlier::{OutlierPolicy, RawOutlier};
use mainstay_resilience::retry::{RawRetry, RetryPolicy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::{number, seconds};
use super::{namespace, switch};

/// One `[upstream.NAME]` table as written: every field optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawUpstream {
    /// Namespace of the service, 1 to 63 of `a-z`, `0-9`, `-`. Default `default`.
    pub namespace: Option<String>,
    /// Instances, each `host:port` or a table. Default none: those in the registry.
    pub instances: Option<Vec<RawInstance>>,
    /// Protocol spoken: `auto` (HTTP/2 where TLS agrees on it, and for gRPC), `http1`, `http2`.
    /// Default `auto`.
    pub protocol: Option<Protocol>,
    /// TLS towards the instances.
    pub tls: Option<RawUpstreamTls>,
    /// Time for TCP and TLS to be up, in seconds, 0.001 to 300. Default 1.
    pub connect_seconds: Option<f64>,
    /// Longest time without a byte or window while writing, in seconds, 0.001 to 3,600. Default
    /// 10.
    pub stall_seconds: Option<f64>,
    /// What is taken off the deadline told to the service, for the way there and back, in
    /// seconds, 0 to 60. Default 0.005.
    pub hop_seconds: Option<f64>,
    /// Connections to one instance for each worker, 1 to 65,536. Default 128.
    pub connections_max: Option<u32>,
    /// Calls waiting for a connection, 0 to 1,000,000; beyond it `pool-exhausted`. Default 1,024.
    pub pending_max: Option<u32>,
    /// Circuits that must all admit. Default `["default"]`.
    pub circuits: Option<Vec<PolicyName>>,
    /// Limits that must all grant. Default none.
    pub limits: Option<Vec<PolicyName>>,
    /// Switch whose number, 1 to 5, replaces the attempts of a call; 1 to 128 of `a-z`, `0-9`,
    /// `-`. Default none.
    pub attempts_switch: Option<String>,
    /// Results that count as failures: `5xx`, `timeout`, `connect`, `congestion`, `refused`,
    /// `refused-stream`, statuses, gRPC codes. Default `["5xx", "timeout", "connect",
    /// "congestion"]`.
    pub failure: Option<Vec<String>>,
    /// Results that count neither as success nor as failure, in the same words. Default none.
    pub ignore: Option<Vec<String>>,
    /// When a call is sent again.
    pub retry: Option<RawRetry>,
    /// How an instance is picked.
    pub balance: Option<RawBalance>,
    /// Who is taken out for answering worse than the others.
    pub outlier: Option<RawOutlier>,
}

/// An instance as written: where it is, or a table with more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawInstance {
    /// `host:port`.
    Address(String),
    /// A table.
    Table(RawInstanceTable),
}

/// An instance with more than its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawInstanceTable {
    /// `host:port`; an IPv6 address stands in brackets.
    pub address: Option<String>,
    /// Name, 1 to 255 bytes. Default: the address.
    pub name: Option<String>,
    /// Weight, 0 (gets nothing) to 1,000. Default 1.
    pub weight: Option<u32>,
    /// Zone, at most 128 bytes. Default none.
    pub zone: Option<String>,
    /// Level, 0 to 127; the next one is asked when this one is not healthy enough. Default 0.
    pub priority: Option<u8>,
}

/// `upstream.NAME.tls` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawUpstreamTls {
    /// `on` or `off`. Default `off`.
    pub mode: Option<TlsMode>,
    /// Name the instance must prove to have. Default: its host.
    pub sni: Option<String>,
    /// PEM file with the authorities that are believed. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate we show; needs `client_key`. Default none.
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its private key; needs `client_certificate`. Default none.
    pub client_key: Option<PathBuf>,
}

/// How this process reaches a service, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Namespace of the service.
    pub namespace: Box<str>,
    /// Instances in the order written; empty for those in the registry.
    pub instances: Box<[InstanceConfig]>,
    /// Protocol spoken.
    pub protocol: Protocol,
    /// TLS, or `None` in the clear.
    pub tls: Option<UpstreamTls>,
    /// Time for TCP and TLS to be up.
    pub connect: Duration,
    /// Longest time without a byte or window while writing.
    pub stall: Duration,
    /// What is taken off the deadline told to the service.
    pub hop: Duration,
    /// Connections to one instance for each worker.
    pub connections_max: u32,
    /// Calls waiting for a connection.
    pub pending_max: u32,
    /// Circuits that must all admit.
    pub circuits: Box<[PolicyName]>,
    /// Limits that must all grant.
    pub limits: Box<[PolicyName]>,
    /// Switch whose number replaces the attempts of a call.
    pub attempts_switch: Option<Box<str>>,
    /// What counts as a failure of an instance.
    pub classifier: Arc<Classifier>,
    /// When a call is sent again.
    pub retry: RetryPolicy,
    /// How an instance is picked.
    pub balance: BalancePolicy,
    /// Who is ejected.
    pub outlier: OutlierPolicy,
}

impl UpstreamConfig {
    /// Whether calls are sent over HTTP/1.1 in the clear, those of gRPC aside.
    pub const fn is_plain_http1(&self) -> bool {
        self.tls.is_none() && !matches!(self.protocol, Protocol::Http2)
    }
}

/// One instance of a static list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceConfig {
    /// Its name; unique within the list.
    pub name: Box<str>,
    /// `host:port` as written; unique within the list.
    pub address: Box<str>,
    /// Name or address, without brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Weight; 0 gets nothing.
    pub weight: u32,
    /// Zone.
    pub zone: Option<Box<str>>,
    /// Level, 0 first.
    pub priority: u8,
}

/// TLS towards the instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Name the instance must prove to have, where it is not its host.
    pub sni: Option<Box<str>>,
    /// PEM file with the authorities that are believed, where they are not the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files with the certificate we show and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Protocol spoken with a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/2 where TLS agrees on it, and for gRPC; else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, in the clear by prior knowledge.
    Http2,
}

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// In the clear.
    #[default]
    Off,
    /// TLS.
    On,
}

impl TryFrom<RawUpstream> for UpstreamConfig {
    type Error = Invalid;

    fn try_from(raw: RawUpstream) -> Result<Self, Invalid> {
        let default_circuit = || PolicyName::new("default").into_iter().collect();
        let connect = raw.connect_seconds;
        let tls = resolve_tls(raw.tls.unwrap_or_default()).map_err(|error| error.within("tls"))?;
        Ok(Self {
            namespace: namespace(raw.namespace)?,
            instances: instances(raw.instances.unwrap_or_default())?,
            protocol: raw.protocol.unwrap_or_default(),
            tls,
            connect: seconds("connect_seconds", connect, 1.0, (0.001, 300.0))?,
            stall: seconds("stall_seconds", raw.stall_seconds, 10.0, (0.001, 3_600.0))?,
            hop: seconds("hop_seconds", raw.hop_seconds, 0.005, (0.0, 60.0))?,
            connections_max: number("connections_max", raw.connections_max, 128, (1, 65_536))?,
            pending_max: number("pending_max", raw.pending_max, 1_024, (0, 1_000_000))?,
            circuits: raw.circuits.unwrap_or_else(default_circuit).into(),
            limits: raw.limits.unwrap_or_default().into(),
            attempts_switch: raw
                .attempts_switch
                .map(|name| switch("attempts_switch", name))
                .transpose()?,
            classifier: Classifier::new(raw.failure.as_deref(), raw.ignore.as_deref())?.into(),
            retry: part("retry", raw.retry)?,
            balance: part("balance", raw.balance)?,
            outlier: part("outlier", raw.outlier)?,
        })
    }
}

/// Resolves a sub-table, written or not.
fn part<R, P>(table: &str, written: Option<R>) -> Result<P, Invalid>
where
    R: Default,
    P: TryFrom<R, Error = Invalid>,
{
    P::try_from(written.unwrap_or_default()).map_err(|error| error.within(table))
}

fn instances(written: Vec<RawInstance>) -> Result<Box<[InstanceConfig]>, Invalid> {
    let mut seen = BTreeSet::new();
    let mut resolved = Vec::with_capacity(written.len());
    for (at, raw) in written.into_iter().enumerate() {
        let place = format!("instances[{at}]");
        let table = match raw {
            RawInstance::Table(table) => table,
            RawInstance::Address(address) => {
                RawInstanceTable { address: Some(address), ..RawInstanceTable::default() }
            }
        };
        let instance = instance(table).map_err(|error| error.within(&place))?;
        for (kind, text) in [("address", &instance.address), ("name", &instance.name)] {
            if !seen.insert((kind, text.clone())) {
                let problem = format!("{kind} `{text}` stands here twice");
                return Err(Invalid::contradiction(format!("{place}.{kind}"), problem));
            }
        }
        resolved.push(instance);
    }
    Ok(resolved.into())
}

fn instance(raw: RawInstanceTable) -> Result<InstanceConfig, Invalid> {
    let address = raw.address.unwrap_or_default().into_boxed_str();
    let (host, port) = host_and_port(&address).ok_or_else(|| {
        Invalid::range("address", format!("must be `host:port`, found `{address}`"))
    })?;
    let text = |key: &str, text: String, bytes_max: usize| {
        let legal = (1..=bytes_max).contains(&text.len()) && !text.contains(char::is_control);
        let problem = || format!("must be 1 to {bytes_max} bytes without control characters");
        legal.then_some(text.into_boxed_str()).ok_or_else(|| Invalid::range(key, problem()))
    };
    Ok(InstanceConfig {
        host: host.into(),
        port,
        name: raw.name.map_or_else(|| Ok(address.clone()), |name| text("name", name, 255))?,
        weight: number("weight", raw.weight, 1, (0, 1_000))?,
        zone: raw.zone.map(|zone| text("zone", zone, 128)).transpose()?,
        priority: number("priority", raw.priority, 0, (0, 127))?,
        address,
    })
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0 && !address.contains('+'))?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner.parse::<std::net::Ipv6Addr>().ok().map(|_address| (inner, port));
    }
    is_name(host).then_some((host, port))
}

/// Whether `text` could be a DNS name or an IPv4 address.
fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with('.')
}

fn resolve_tls(raw: RawUpstreamTls) -> Result<Option<UpstreamTls>, Invalid> {
    if raw.mode.unwrap_or_default() == TlsMode::Off {
        let written = [
            ("sni", raw.sni.is_some()),
            ("ca_file", raw.ca_file.is_some()),
            ("client_certificate", raw.client_certificate.is_some()),
            ("client_key", raw.client_key.is_some()),
        ];
        return match written.iter().find(|(_, written)| *written) {
            Some((key, _)) => Err(Invalid::contradiction(*key, "needs `mode = \"on\"`")),
            None => Ok(None),
        };
    }
    let client = match (raw.client_certificate, raw.client_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            return Err(Invalid::contradiction("client_certificate", "needs `client_key`"));
        }
        (None, Some(_)) => {
            return Err(Invalid::contradiction("client_key", "needs `client_certificate`"));
        }
    };
    let sni = raw.sni.map(|sni| {
        let problem = || format!("must be a name, found `{sni}`");
        is_name(&sni).then(|| sni.as_str().into()).ok_or_else(|| Invalid::range("sni", problem()))
    });
    Ok(Some(UpstreamTls { sni: sni.transpose()?, ca_file: raw.ca_file, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(text: &str) -> Result<UpstreamConfig, Invalid> {
        toml::from_str::<RawUpstream>(text).expect("an upstream").try_into()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = upstream("").expect("defaults are legal");
        assert!(config.instances.is_empty() && config.tls.is_none());
        assert_eq!(config.protocol, Protocol::Auto);
        assert_eq!(config.connect, Duration::from_secs(1));
        assert_eq!(config.stall, Duration::from_secs(10));
        assert_eq!(config.hop, Duration::from_millis(5));
        assert_eq!((config.connections_max, config.pending_max), (128, 1_024));
        assert_eq!(config.circuits.iter().map(PolicyName::as_str).collect::<Vec<_>>(), ["default"]);
        assert!(config.limits.is_empty());
    }

    #[test]
    fn an_instance_is_an_address_or_a_table() {
        let text = "instances = ['a.example:80', { address = '[::1]:81', name = 'b', weight = 3, \
                    zone = 'z', priority = 1 }]";
        let [a, b] = &*upstream(text).expect("legal").instances else { panic!("two instances") };
        assert_eq!((&*a.name, &*a.host, a.port, a.weight), ("a.example:80", "a.example", 80, 1));
        assert_eq!((&*b.name, &*b.address, &*b.host, b.port), ("b", "[::1]:81", "::1", 81));
        assert_eq!((b.weight, b.zone.as_deref(), b.priority), (3, Some("z"), 1));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, path) in [
            ("instances = ['a']", "instances[0].address"),
            ("instances = ['a:0']", "instances[0].address"),
            ("instances = ['a:+1']", "instances[0].address"),
            ("instances = ['::1:80']", "instances[0].address"),
            ("instances = ['http://a:80']", "instances[0].address"),
            ("instances = [{ name = 'a' }]", "instances[0].address"),
            ("instances = ['a:1', 'a:1']", "instances[1].address"),
            ("instances = ['a:1', { address = 'b:1', name = 'a:1' }]", "instances[1].name"),
            ("instances = [{ address = 'a:1', weight = 1001 }]", "instances[0].weight"),
            ("connect_seconds = 0", "connect_seconds"),
            ("connections_max = 0", "connections_max"),
            ("tls = { sni = 'a' }", "tls.sni"),
            ("tls = { mode = 'on', client_key = 'k' }", "tls.client_key"),
            ("tls = { mode = 'on', sni = 'a b' }", "tls.sni"),
            ("attempts_switch = 'A'", "attempts_switch"),
            ("namespace = ''", "namespace"),
        ] {
            assert_eq!(upstream(text).expect_err(text).path, path);
        }
    }
}
