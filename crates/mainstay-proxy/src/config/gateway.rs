//! Listeners and manners of the gateway: `[gateway]`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::jwt::{self, JwtConfig, RawJwt};
use super::limits::{GatewayLimits, RawGatewayLimits, number, seconds};
use crate::access_log::Format;
use crate::forwarded::Mode;
use crate::route::HostPattern;

/// The `[gateway]` table as written: every field optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawGateway {
    /// Addresses for HTTP/1.1 and HTTP/2 in the clear, `address:port`. Restart only. Default
    /// `["127.0.0.1:7480"]`.
    #[schemars(with = "Option<Vec<String>>")]
    pub listen: Option<Vec<SocketAddr>>,
    /// Addresses for TLS, `address:port`; needs `certificates`. Restart only. Default none.
    #[schemars(with = "Option<Vec<String>>")]
    pub tls_listen: Option<Vec<SocketAddr>>,
    /// Certificates for TLS, chosen by the name the client asks for. Default none.
    pub certificates: Option<Vec<RawCertificate>>,
    /// Whether a client that asks for a name no certificate has is refused; else it gets the
    /// first certificate. Default `false`.
    pub strict_sni: Option<bool>,
    /// Threads that serve, each with its own listener and upstream connections, 0 (one a core)
    /// to 1,024. Restart only. Default 0.
    pub workers: Option<u16>,
    /// Networks of the proxies in front of us, such as `10.0.0.0/8`: what they say of the client
    /// is believed. Default none.
    #[schemars(with = "Option<Vec<String>>")]
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// Whether `trusted_proxies` say whose connections they pass on by the PROXY protocol: `off`, or
    /// `v2`, and then each of their connections must begin with its header. Default `off`.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How services are told of the client: `x` (`X-Forwarded-…`), `rfc7239` (`Forwarded`),
    /// `both`, `off`. Default `x`.
    pub forwarded: Option<Mode>,
    /// How much a refusal says: `brief` (the rule's name) or `full` (figures too). Default
    /// `brief`.
    pub explain: Option<Explain>,
    /// What becomes of `%2F` in a path: `reject` (400), or `keep` it as part of a segment.
    /// Default `reject`.
    pub encoded_slash: Option<EncodedSlash>,
    /// What becomes of `;…` in a path when it is judged: `strip`, `refuse` (400), or `keep`.
    /// Default `strip`.
    pub path_parameters: Option<PathParameters>,
    /// When answers carry `Mainstay-Outcome`: `degraded` (anything but a plain success), `all`,
    /// `off`. Default `degraded`.
    pub outcome_header: Option<OutcomeHeader>,
    /// How long connections are still accepted after the order to stop, in seconds, 0 to 3,600.
    /// Default 5.
    pub drain_delay_seconds: Option<f64>,
    /// How long requests in flight are waited for then, in seconds, 0 to 3,600. Default 30.
    pub drain_seconds: Option<f64>,
    /// How long a tunnel (WebSocket) may be silent, in seconds, 1 to 86,400. Default 300.
    pub tunnel_idle_seconds: Option<f64>,
    /// The access log.
    pub access_log: Option<RawAccessLog>,
    /// Issuers whose tokens (JWT) tell who is calling. Default none.
    pub jwt: Option<Vec<RawJwt>>,
    /// What a client may ask for.
    pub limits: Option<RawGatewayLimits>,
}

/// One of `[[gateway.certificates]]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCertificate {
    /// Names it is for: exact, or `*.` and a name for one label. Default: those in the
    /// certificate.
    pub hosts: Option<Vec<String>>,
    /// PEM file with the certificate and those between it and its authority.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}

/// `gateway.access_log` as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAccessLog {
    /// Form of a line: `json`, `combined`, or `off` for none. Default `json`.
    pub format: Option<Format>,
    /// Share of the successes that are logged, 0 to 100 percent; failures always are. Default
    /// 100.
    pub sample_percent: Option<f64>,
}

/// The gateway, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Addresses for HTTP/1.1 and HTTP/2 in the clear.
    pub listen: Box<[SocketAddr]>,
    /// Addresses for TLS.
    pub tls_listen: Box<[SocketAddr]>,
    /// Certificates; at least one when there is an address for TLS. The first is the default.
    pub certificates: Box<[CertificateConfig]>,
    /// Whether an unknown name is refused.
    pub strict_sni: bool,
    /// Threads that serve, or `None` for one a core.
    pub workers: Option<u16>,
    /// Networks of the proxies in front of us.
    pub trusted_proxies: Box<[IpNet]>,
    /// Whether they say by the PROXY protocol whose connections they pass on.
    pub proxy_protocol: ProxyProtocol,
    /// How services are told of the client.
    pub forwarded: Mode,
    /// How much a refusal says.
    pub explain: Explain,
    /// What becomes of `%2F` in a path.
    pub encoded_slash: EncodedSlash,
    /// What becomes of `;…` in a path.
    pub path_parameters: PathParameters,
    /// When answers carry `Mainstay-Outcome`.
    pub outcome_header: OutcomeHeader,
    /// How long connections are still accepted after the order to stop.
    pub drain_delay: Duration,
    /// How long requests in flight are waited for then.
    pub drain: Duration,
    /// How long a tunnel may be silent.
    pub tunnel_idle: Duration,
    /// The access log.
    pub access_log: AccessLogConfig,
    /// Issuers whose tokens tell who is calling.
    pub jwt: Box<[Arc<JwtConfig>]>,
    /// What a client may ask for.
    pub limits: GatewayLimits,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// Names it is for; empty for those it holds. A suffix covers one label only.
    pub hosts: Box<[HostPattern]>,
    /// PEM file with the chain.
    pub certificate_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
}

/// The access log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccessLogConfig {
    /// Form of a line.
    pub format: Format,
    /// Share of the successes that are logged, in percent.
    pub sample_percent: f64,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }
    };
}

choice! {
    /// Whether proxies in front say by the PROXY protocol whose connections they pass on.
    ProxyProtocol {
        /// They do not.
        #[default]
        Off,
        /// They do, by version 2, on each connection.
        V2,
    }
}
choice! {
    /// How much a refusal says.
    Explain {
        /// The name of the rule.
        #[default]
        Brief,
        /// Figures too.
        Full,
    }
}
choice! {
    /// What becomes of `%2F` in a path.
    EncodedSlash {
        /// 400 `path-ambiguous`.
        #[default]
        Reject,
        /// Part of a segment.
        Keep,
    }
}
choice! {
    /// What becomes of `;…` in a path when it is judged.
    PathParameters {
        /// Not looked at.
        #[default]
        Strip,
        /// 400 `path-ambiguous`.
        Refuse,
        /// Part of a segment.
        Keep,
    }
}
choice! {
    /// When answers carry `Mainstay-Outcome`.
    OutcomeHeader {
        /// For anything but a plain success.
        #[default]
        Degraded,
        /// Always.
        All,
        /// Never.
        Off,
    }
}
impl GatewayConfig {
    /// Whether `peer` is one of our own proxies.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        // A dual-stack listener shows IPv4 peers in IPv6 clothes.
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

impl TryFrom<RawGateway> for GatewayConfig {
    type Error = Invalid;

    fn try_from(raw: RawGateway) -> Result<Self, Invalid> {
        let listen = raw.listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 7480))]);
        let tls_listen = raw.tls_listen.unwrap_or_default();
        check_addresses(&listen, &tls_listen)?;
        let certificates = raw.certificates.unwrap_or_default();
        if certificates.is_empty() && !tls_listen.is_empty() {
            let problem = "needs at least one of `[[gateway.certificates]]`";
            return Err(Invalid::contradiction("tls_listen", problem));
        }
        let certificate = |(at, raw): (usize, RawCertificate)| {
            CertificateConfig::try_from(raw)
                .map_err(|error| error.within(&format!("certificates[{at}]")))
        };
        let trusted_proxies = raw.trusted_proxies.unwrap_or_default();
        let proxy_protocol = raw.proxy_protocol.unwrap_or_default();
        if proxy_protocol == ProxyProtocol::V2 && trusted_proxies.is_empty() {
            let problem = "needs `trusted_proxies`: nobody else is listened to";
            return Err(Invalid::contradiction("proxy_protocol", problem));
        }
        let drain = (0.0, 3_600.0);
        let tunnel = raw.tunnel_idle_seconds;
        let workers = number("workers", raw.workers, 0, (0, 1_024))?;
        let log = raw.access_log.unwrap_or_default();
        let hundred = (0.0, 100.0);
        let limits = GatewayLimits::try_from(raw.limits.unwrap_or_default());
        Ok(Self {
            listen: listen.into(),
            tls_listen: tls_listen.into(),
            certificates: certificates
                .into_iter()
                .enumerate()
                .map(certificate)
                .collect::<Result<_, _>>()?,
            strict_sni: raw.strict_sni.unwrap_or(false),
            workers: (workers != 0).then_some(workers),
            trusted_proxies: trusted_proxies.into(),
            proxy_protocol,
            forwarded: raw.forwarded.unwrap_or_default(),
            explain: raw.explain.unwrap_or_default(),
            encoded_slash: raw.encoded_slash.unwrap_or_default(),
            path_parameters: raw.path_parameters.unwrap_or_default(),
            outcome_header: raw.outcome_header.unwrap_or_default(),
            drain_delay: seconds("drain_delay_seconds", raw.drain_delay_seconds, 5.0, drain)?,
            drain: seconds("drain_seconds", raw.drain_seconds, 30.0, drain)?,
            tunnel_idle: seconds("tunnel_idle_seconds", tunnel, 300.0, (1.0, 86_400.0))?,
            access_log: AccessLogConfig {
                format: log.format.unwrap_or_default(),
                sample_percent: number("sample_percent", log.sample_percent, 100.0, hundred)
                    .map_err(|error| error.within("access_log"))?,
            },
            jwt: jwt::resolve(raw.jwt.unwrap_or_default())?,
            limits: limits.map_err(|error| error.within("limits"))?,
        })
    }
}

impl TryFrom<RawCertificate> for CertificateConfig {
    type Error = Invalid;

    fn try_from(raw: RawCertificate) -> Result<Self, Invalid> {
        let host = |(at, text): (usize, String)| match HostPattern::parse(&text) {
            Ok(HostPattern::Any) => {
                let problem = "leave `hosts` out; the first certificate is the default";
                Err(Invalid::range(format!("hosts[{at}]"), problem))
            }
            Ok(host) => Ok(host),
            Err(error) => Err(Invalid { path: format!("hosts[{at}]"), ..error }),
        };
        let hosts = raw.hosts.unwrap_or_default().into_iter().enumerate().map(host);
        let file = |key: &str, file: Option<PathBuf>| {
            file.filter(|file| !file.as_os_str().is_empty())
                .ok_or_else(|| Invalid::range(key, "must name a PEM file"))
        };
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            certificate_file: file("certificate_file", raw.certificate_file)?,
            key_file: file("key_file", raw.key_file)?,
        })
    }
}

fn check_addresses(listen: &[SocketAddr], tls_listen: &[SocketAddr]) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    let lists = [("listen", listen), ("tls_listen", tls_listen)];
    for (key, list) in lists {
        for (at, address) in list.iter().enumerate() {
            // Port 0 asks for any free one, and may do so twice.
            if address.port() != 0 && !seen.insert(address) {
                let problem = format!("address {address} stands here twice");
                return Err(Invalid::contradiction(format!("{key}[{at}]"), problem));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(text: &str) -> Result<GatewayConfig, Invalid> {
        toml::from_str::<RawGateway>(text).expect("a gateway").try_into()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = gateway("").expect("defaults are legal");
        assert_eq!(*config.listen, ["127.0.0.1:7480".parse().expect("an address")]);
        assert_eq!(config.workers, None);
        assert_eq!(config.forwarded, Mode::X);
        assert_eq!(config.explain, Explain::Brief);
        assert_eq!(config.drain_delay + config.drain, Duration::from_secs(35));
        assert_eq!(config.access_log.format, Format::Json);
        let limits = config.limits;
        assert_eq!((limits.head_bytes_max, limits.headers_max), (32 << 10, 100));
        assert_eq!((limits.uri_bytes_max, limits.body_bytes_max), (8 << 10, 10 << 20));
        assert_eq!((limits.connections_max, limits.connections_per_address_max), (20_000, None));
        assert_eq!((limits.requests_per_connection_max, limits.h2.streams_max), (10_000, 128));
        assert_eq!((limits.h2.pending_reset_max, limits.h2.local_reset_max), (20, 20));
        assert_eq!(limits.connection_age, Duration::from_hours(1));
        assert_eq!(limits.parse.decompress_bytes_max, 33_554_432);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, path) in [
            ("tls_listen = ['0.0.0.0:7443']", "tls_listen"),
            ("listen = ['0.0.0.0:1', '0.0.0.0:1']", "listen[1]"),
            ("workers = 1025", "workers"),
            ("drain_seconds = -1", "drain_seconds"),
            ("drain_seconds = nan", "drain_seconds"),
            ("access_log = { sample_percent = 101 }", "access_log.sample_percent"),
            ("limits = { headers_max = 0 }", "limits.headers_max"),
            ("limits = { head_bytes_max = 4096, uri_bytes_max = 8192 }", "limits.uri_bytes_max"),
            ("limits = { h2_reset_ratio = { percent = 101 } }", "limits.h2_reset_ratio.percent"),
            ("certificates = [{ key_file = 'k' }]", "certificates[0].certificate_file"),
            (
                "certificates = [{ certificate_file = 'c', key_file = 'k', hosts = ['a:1'] }]",
                "certificates[0].hosts[0]",
            ),
        ] {
            assert_eq!(gateway(text).expect_err(text).path, path);
        }
    }

    #[test]
    fn a_smaller_head_brings_a_smaller_target() {
        let config = gateway("limits = { head_bytes_max = 4096 }").expect("legal");
        assert_eq!(config.limits.uri_bytes_max, 4_096);
    }

    #[test]
    fn a_proxy_is_known_in_both_clothes() {
        let config = gateway("trusted_proxies = ['10.0.0.0/8', 'fd00::/8']").expect("legal");
        for (peer, want) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("fd00::1", true), ("11.0.0.1", false)]
        {
            assert_eq!(config.trusts(peer.parse().expect("an address")), want, "{peer}");
        }
    }

    #[test]
    fn an_unknown_key_or_choice_is_refused() {
        for bad in ["lissten = []", "forwarded = 'y'", "limits = { head = 1 }"] {
            assert!(toml::from_str::<RawGateway>(bad).is_err(), "{bad}");
        }
    }
}
