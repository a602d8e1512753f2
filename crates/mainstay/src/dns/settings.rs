//! `[dns]`: where names are answered, and under which zones.

use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::rr::Name;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::label::DOMAIN_BYTES_MAX;

/// The `[dns]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDns {
    /// Whether names are answered, in the roles `dev` and `server`. Restart only. Default true.
    pub enabled: Option<bool>,
    /// Where, `host:port`, over UDP and TCP alike. Nobody who asks there shows a credential.
    /// Restart only. Default `127.0.0.1:7453`.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Zone of services, 1 to 18 bytes. Restart only. Default `mainstay`.
    pub domain: Option<String>,
    /// Zone in which the same services go by the names Consul gives them, 1 to 18 bytes; empty for
    /// none. Restart only. Default `consul`.
    pub consul_domain: Option<String>,
    /// How long answers of the first zone may be kept, in seconds, 0 to 86,400; those of the second
    /// may never be. Restart only. Default 5.
    pub ttl_seconds: Option<u32>,
    /// The same for "there is none", 0 to 86,400. Restart only. Default 5.
    pub negative_ttl_seconds: Option<u32>,
    /// Largest answer over UDP to those who say that they take it, in bytes, 512 to 4,096; beyond
    /// 1232 packets may be broken up on their way and lost. Restart only. Default 1232.
    pub udp_payload_bytes_max: Option<u16>,
}

/// `[dns]`, resolved.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Whether names are answered.
    pub enabled: bool,
    /// Where.
    pub listen: SocketAddr,
    /// Zone of services.
    pub main: Zone,
    /// Zone with Consul's names.
    pub consul: Option<Zone>,
    /// The one datacenter there is in Consul's names.
    pub datacenter: String,
    /// Largest answer over UDP to those who take more than 512 bytes.
    pub udp_payload_bytes_max: u16,
}

/// A zone this process answers for.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its name, in lower case.
    pub apex: Name,
    /// How long its answers may be kept.
    pub ttl_seconds: u32,
    /// How long "there is none" may be kept.
    pub negative_ttl_seconds: u32,
}

impl RawDns {
    /// Where names are answered when nothing is said: loopback, since nobody is asked for a
    /// credential.
    pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7453);
}

impl DnsConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawDns, datacenter: &str, faults: &mut Vec<Invalid>) -> Self {
        let mut seconds = |key: &str, written: Option<u32>| {
            let value = written.unwrap_or(5);
            if TTL_SECONDS_MAX < value {
                let problem = format!("must be 0 to {TTL_SECONDS_MAX}, found {value}");
                faults.push(Invalid::range(format!("dns.{key}"), problem));
            }
            value
        };
        let ttl_seconds = seconds("ttl_seconds", raw.ttl_seconds);
        let negative_ttl_seconds = seconds("negative_ttl_seconds", raw.negative_ttl_seconds);
        let payload = raw.udp_payload_bytes_max.unwrap_or(1_232);
        if !(512..=4_096).contains(&payload) {
            let problem = format!("must be 512 to 4096, found {payload}");
            faults.push(Invalid::range("dns.udp_payload_bytes_max", problem));
        }
        let mut zone = |key: &str, text: &str| {
            let named = zone_name(text);
            named.unwrap_or_else(|problem| {
                faults.push(Invalid::range(format!("dns.{key}"), problem));
                Name::root()
            })
        };
        let apex = zone("domain", raw.domain.as_deref().unwrap_or("mainstay"));
        let consul = Some(raw.consul_domain.as_deref().unwrap_or("consul"));
        let consul = consul.filter(|text| !text.is_empty()).map(|text| zone("consul_domain", text));
        // The root stands for a name that is wrong and has been told.
        let overlap = |consul: &Name| apex.zone_of(consul) || consul.zone_of(&apex);
        if consul.as_ref().is_some_and(|consul| !consul.is_root() && overlap(consul))
            && !apex.is_root()
        {
            let problem = "must lie apart from `dns.domain`: neither inside the other";
            faults.push(Invalid::range("dns.consul_domain", problem));
        }
        Self {
            enabled: raw.enabled.unwrap_or(true),
            listen: raw.listen.unwrap_or(RawDns::LISTEN),
            main: Zone { apex, ttl_seconds, negative_ttl_seconds },
            // Consul's clients expect that nothing of it is kept.
            consul: consul.map(|apex| Zone { apex, ttl_seconds: 0, negative_ttl_seconds: 0 }),
            datacenter: datacenter.to_owned(),
            udp_payload_bytes_max: payload,
        }
    }
}

/// Longest time an answer may be kept: a day.
const TTL_SECONDS_MAX: u32 = 86_400;

fn zone_name(text: &str) -> Result<Name, String> {
    let bare = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if DOMAIN_BYTES_MAX < bare.len() || !bare.split('.').all(is_label) {
        return Err(format!(
            "must be a domain of at most {DOMAIN_BYTES_MAX} bytes, of a-z, 0-9 and `-`, found `{text}`"
        ));
    }
    if bare.rsplit('.').next() == Some("arpa") {
        return Err("must not lie under `arpa`, where addresses are looked up".to_owned());
    }
    Name::from_ascii(format!("{bare}.")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(raw: RawDns) -> Vec<String> {
        let mut faults = Vec::new();
        DnsConfig::resolve(raw, "dc1", &mut faults);
        faults.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn what_cannot_be_is_named() {
        let text = |text: &str| Some(text.to_owned());
        assert!(faults(RawDns::default()).is_empty());
        assert!(faults(RawDns { consul_domain: text(""), ..RawDns::default() }).is_empty());
        for domain in ["", "a..b", "a_b", "eighteen-is-the-max", "ip6.arpa"] {
            let raw = RawDns { domain: text(domain), ..RawDns::default() };
            assert_eq!(faults(raw), ["dns.domain"], "{domain}");
        }
        for consul in ["mainstay", "a.Mainstay", "ä"] {
            let raw = RawDns { consul_domain: text(consul), ..RawDns::default() };
            assert_eq!(faults(raw), ["dns.consul_domain"], "{consul}");
        }
        let raw = RawDns { ttl_seconds: Some(86_401), ..RawDns::default() };
        assert_eq!(faults(raw), ["dns.ttl_seconds"]);
        let raw = RawDns { udp_payload_bytes_max: Some(511), ..RawDns::default() };
        assert_eq!(faults(raw), ["dns.udp_payload_bytes_max"]);
    }
}
