//! `[security.egress]`: where this process may connect to because its configuration names an address.
//!
//! An address in a document of somebody else, or a name whose meaning somebody else decides, could
//! lead to what only this machine can reach. So what a name stands for is judged, and that address
//! is connected to, without a second look-up. Refused are, unless listed: loopback, private and
//! shared networks, link-local and what else [`Addresses`] knows, and forms of these in IPv6.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use mainstay_coord::health::targets::Addresses;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

/// The `[security.egress]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawEgress {
    /// Networks such as `10.0.0.0/8` and host names that keys of issuers may be fetched from though
    /// they are private, of this machine, or otherwise not for everybody. Restart only. Default
    /// none; `mainstay dev` allows loopback.
    pub allow: Option<Vec<String>>,
}

/// Where connections may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    nets: Vec<IpNet>,
    /// In lower case.
    hosts: Vec<String>,
    loopback: bool,
}

/// A connection may not go there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("egress-refused: {ip}: {why}; list it in `security.egress.allow` if it is meant")]
pub struct EgressRefused {
    ip: IpAddr,
    why: String,
}

impl Egress {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawEgress, faults: &mut Vec<Invalid>) -> Self {
        let mut egress = Self::default();
        for (at, text) in raw.allow.unwrap_or_default().into_iter().enumerate() {
            let net = text.parse::<IpNet>().ok();
            let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            let any = Addresses { loopback: true, ..Addresses::default() };
            match net {
                Some(net) => egress.nets.push(net),
                None if any.check(&text).is_ok() => egress.hosts.push(text.to_ascii_lowercase()),
                None => {
                    let problem = format!("must be a network or a host name, found `{text}`");
                    faults.push(Invalid::range(format!("security.egress.allow[{at}]"), problem));
                }
            }
        }
        egress
    }

    /// The same, and this machine's loopback.
    #[must_use]
    pub fn with_loopback(self, loopback: bool) -> Self {
        Self { loopback: self.loopback || loopback, ..self }
    }

    /// Whether `ip`, which `host` stands for, may be connected to.
    ///
    /// # Errors
    ///
    /// [`EgressRefused`], which says why.
    pub fn check(&self, host: &str, ip: IpAddr) -> Result<(), EgressRefused> {
        let is_listed = self.hosts.iter().any(|listed| host.eq_ignore_ascii_case(listed));
        if is_listed {
            return Ok(());
        }
        let addresses = Addresses { loopback: self.loopback, allowed: self.nets.clone() };
        let refused = |why: &str| EgressRefused { ip, why: why.to_owned() };
        addresses.check_ip(ip).map_err(|error| refused(error.why()))?;
        let meant = meant(ip);
        let listed = self.nets.iter().any(|net| net.contains(&meant) || net.contains(&ip));
        match of_somebody(meant) {
            Some(why) if !listed => Err(refused(why)),
            _ => Ok(()),
        }
    }
}

/// The IPv4 address that an IPv6 one stands for (mapped, NAT64), or the address itself.
fn meant(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::from([a, b, c, d])
        }
        _ => v6.to_canonical(),
    }
}

/// What addresses are not for everybody, beside those that [`Addresses`] refuses.
fn of_somebody(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) if v4.is_private() => Some("it is private"),
        IpAddr::V4(v4) => match v4.octets() {
            [100, 64..=127, ..] => Some("it is shared by the customers of a provider (CGNAT)"),
            [0, ..] => Some("it is of this network"),
            [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => Some("it is reserved"),
            _ => None,
        },
        IpAddr::V6(v6) if is_unique_local(v6) => Some("it is private"),
        IpAddr::V6(_) => None,
    }
}

/// `fc00::/7`, and the site-local `fec0::/10` that came before it.
fn is_unique_local(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(allow: &[&str]) -> Egress {
        let allow = Some(allow.iter().map(|&text| text.to_owned()).collect());
        let mut faults = Vec::new();
        let egress = Egress::resolve(RawEgress { allow }, &mut faults);
        assert_eq!(faults, []);
        egress
    }

    #[test]
    fn only_addresses_for_everybody_are_reached() {
        let egress = egress(&[]);
        for good in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert_eq!(egress.check("id.example", good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
        ] {
            assert!(egress.check("id.example", bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_listed_is_reached() {
        let egress = egress(&["10.0.0.0/8", "id.internal", "127.0.0.1"]);
        let check = |host: &str, ip: &str| egress.check(host, ip.parse().unwrap()).is_ok();
        assert!(check("a", "10.1.2.3") && check("a", "127.0.0.1") && check("a", "::ffff:10.0.0.1"));
        assert!(check("ID.internal", "192.168.0.1"));
        assert!(!check("a", "192.168.0.1") && !check("a", "127.0.0.2"));
        assert!(
            egress.clone().with_loopback(true).check("a", "127.0.0.2".parse().unwrap()).is_ok()
        );
        let mut faults = Vec::new();
        let raw = RawEgress { allow: Some(vec!["a b".to_owned()]) };
        Egress::resolve(raw, &mut faults);
        assert_eq!(faults[0].path, "security.egress.allow[0]");
    }
}
