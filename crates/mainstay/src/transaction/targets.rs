//! Where branches may be called.
//!
//! Whoever may begin a transaction may make this process send requests, with a body of their
//! choice, on behalf of a machine that others trust. So only registered services and what the
//! operator has listed are called. A target is judged twice: when a transaction names it, so that
//! nothing of a transaction that cannot end is recorded; and when it is called, by the address its
//! name then stands for, which is the one that is connected to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use mainstay_coord::health::targets::Addresses;
use mainstay_core::name::ServiceName;
use mainstay_txn::Target;

/// One entry of `transaction.targets_allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A registered service; `None` is every one.
    Service(Option<ServiceName>),
    /// Hosts.
    Url {
        /// `http` or `https`.
        scheme: String,
        /// Which.
        at: At,
        /// At which port; `None` is every one.
        port: Option<u16>,
    },
}

/// Which hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Of this name.
    Name(String),
    /// With an address of this network.
    Net(IpNet),
}

/// A text that is no [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` must be `service:NAME`, `service:*` or `http://HOST:PORT`, where HOST may be a network \
     such as `10.0.0.0/8` and PORT `*`"
)]
pub struct RuleInvalid(String);

impl FromStr for Rule {
    type Err = RuleInvalid;

    fn from_str(text: &str) -> Result<Self, RuleInvalid> {
        let invalid = || RuleInvalid(text.to_owned());
        if let Some(name) = text.strip_prefix("service:") {
            let name = if name == "*" {
                None
            } else {
                Some(ServiceName::new(name).map_err(|_no_name| invalid())?)
            };
            return Ok(Self::Service(name));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            return Err(invalid());
        }
        let port = match port {
            "*" => None,
            port => Some(port.parse().map_err(|_no_port| invalid())?),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let net = inner.parse::<IpNet>().ok();
        let net = net.or_else(|| inner.parse::<IpAddr>().ok().map(IpNet::from));
        let at = match net {
            Some(net) => At::Net(net),
            None if Addresses { loopback: true, ..Addresses::default() }.check(host).is_ok() => {
                At::Name(host.to_ascii_lowercase())
            }
            None => return Err(invalid()),
        };
        Ok(Self::Url { scheme: scheme.to_owned(), at, port })
    }
}

/// All entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// These.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }
}

/// A branch may not be called there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("branch target {target} is not allowed: {why}")]
pub struct TargetDenied {
    target: String,
    why: String,
}

/// Where a request goes, as its URL says.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Without brackets.
    pub host: &'a str,
    /// Named or usual.
    pub port: u16,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        write!(f, "{scheme}://{host}:{port}")
    }
}

impl<'a> Place<'a> {
    /// Where `uri` leads; `None` without scheme or host.
    pub fn of(uri: &'a http::Uri) -> Option<Self> {
        let (scheme, host) = (uri.scheme_str()?, uri.host()?);
        let usual = if scheme == "https" { 443 } else { 80 };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(usual) })
    }

    fn is_under(&self, scheme: &str, port: Option<u16>) -> bool {
        self.scheme == scheme && port.is_none_or(|port| port == self.port)
    }
}

/// Judges where branches may be called.
#[derive(Clone, Debug)]
pub struct Targets {
    rules: Rules,
    /// Our own control port, which nobody has us call.
    control: SocketAddr,
}

const UNLISTED: &str = "no entry of `transaction.targets_allow` covers it";

impl Targets {
    /// By `rules`, of a process whose control port is `control`.
    pub const fn new(rules: Rules, control: SocketAddr) -> Self {
        Self { rules, control }
    }

    /// Whether a transaction may name `target`. A host that is a name and could lie in a listed
    /// network may be named: where it lies is judged at each call.
    ///
    /// # Errors
    ///
    /// [`TargetDenied`], which says why.
    pub fn check(&self, target: &Target) -> Result<(), TargetDenied> {
        if target.check().is_err() {
            return Ok(()); // The coordinator says what is wrong with it.
        }
        let denied = |why: &str| TargetDenied { target: target.to_string(), why: why.to_owned() };
        let url = match target {
            Target::Service { service, .. } => {
                let covers = |rule: &Rule| match rule {
                    Rule::Service(name) => {
                        name.as_ref().is_none_or(|name| name.as_str() == service)
                    }
                    Rule::Url { .. } => false,
                };
                return if self.rules.0.iter().any(covers) {
                    Ok(())
                } else {
                    Err(denied(UNLISTED))
                };
            }
            Target::Url(url) => url,
        };
        let uri = url.parse::<http::Uri>().map_err(|_no_url| denied("it is no URL"))?;
        let Some(place) = Place::of(&uri) else { return Err(denied("it names no host")) };
        if let Ok(ip) = place.host.parse() {
            return self.check_ip(place, ip);
        }
        if let Err(refused) = self.addresses().check(place.host) {
            return Err(denied(&refused.to_string()));
        }
        let covers = |rule: &Rule| match rule {
            Rule::Service(_) => false,
            Rule::Url { scheme, at: At::Net(_), port } => place.is_under(scheme, *port),
            Rule::Url { scheme, at: At::Name(name), port } => {
                place.is_under(scheme, *port) && name.eq_ignore_ascii_case(place.host)
            }
        };
        let is_local = self.addresses().loopback && is_local(place.host);
        if is_local || self.rules.0.iter().any(covers) { Ok(()) } else { Err(denied(UNLISTED)) }
    }

    /// Whether `ip`, which the host of `place` stands for, may be connected to.
    ///
    /// # Errors
    ///
    /// [`TargetDenied`], which says why.
    pub fn check_ip(&self, place: Place<'_>, ip: IpAddr) -> Result<(), TargetDenied> {
        let ip = ip.to_canonical();
        let denied = |why: &str| {
            let target = format!("{place} ({ip})");
            Err(TargetDenied { target, why: why.to_owned() })
        };
        let of_place = |rule: &&Rule| match rule {
            Rule::Service(_) => false,
            Rule::Url { scheme, port, .. } => place.is_under(scheme, *port),
        };
        let (mut is_exact, mut is_covered) = (false, false);
        for rule in self.rules.0.iter().filter(of_place) {
            let Rule::Url { at, port, .. } = rule else { continue };
            match at {
                At::Net(net) if net.contains(&ip) => {
                    is_covered = true;
                    is_exact |= net.prefix_len() == net.max_prefix_len() && port.is_some();
                }
                At::Name(name) => is_covered |= name.eq_ignore_ascii_case(place.host),
                At::Net(_) => {}
            }
        }
        if is_exact {
            return Ok(());
        }
        let is_own = ip == self.control.ip() || ip.is_loopback() || ip.is_unspecified();
        if is_own && place.port == self.control.port() {
            return denied("it is our own control port");
        }
        if let Err(refused) = self.addresses().check_ip(ip) {
            return denied(&refused.to_string());
        }
        if is_covered || ip.is_loopback() { Ok(()) } else { denied(UNLISTED) }
    }

    /// Callers of a control port on loopback sit on this machine, so its loopback is theirs.
    fn addresses(&self) -> Addresses {
        Addresses { loopback: self.control.ip().is_loopback(), allowed: Vec::new() }
    }
}

fn is_local(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(rules: &[&str]) -> Targets {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Targets::new(Rules::new(rules), "127.0.0.1:7400".parse().unwrap())
    }

    fn url(text: &str) -> Target {
        Target::Url(text.to_owned())
    }

    #[track_caller]
    fn check(rules: &[&str], target: &Target, want: Result<(), &str>) {
        let got = targets(rules).check(target);
        let got = got.map_err(|denied| denied.to_string());
        match (&got, want) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err(word)) if said.contains(word) => {}
            _ => panic!("{target} under {rules:?}: {got:?}"),
        }
    }

    #[test]
    fn services_are_called_as_they_are_listed() {
        let stock = Target::Service {
            service: "stock".to_owned(),
            path: "/deduct".to_owned(),
            method: None,
        };
        check(&["service:*"], &stock, Ok(()));
        check(&["service:stock"], &stock, Ok(()));
        check(&["service:pay"], &stock, Err("targets_allow"));
        check(&["http://10.0.0.0/8:*"], &stock, Err("targets_allow"));
    }

    #[test]
    fn urls_need_a_line_of_their_own_but_for_loopback() {
        check(&["service:*"], &url("http://10.0.0.7:8080/a"), Err("targets_allow"));
        check(&["http://10.0.0.0/8:*"], &url("http://10.0.0.7:8080/a"), Ok(()));
        check(&["http://10.0.0.0/8:80"], &url("http://10.0.0.7:8080/a"), Err("targets_allow"));
        check(&["https://10.0.0.0/8:*"], &url("http://10.0.0.7:8080/a"), Err("targets_allow"));
        check(&["https://pay.example:443"], &url("https://PAY.example/a"), Ok(()));
        check(&["https://pay.example:443"], &url("https://pay.example:8443/a"), Err("covers"));
        check(&["http://[fd00::/8]:*"], &url("http://[fd00::1]:80/a"), Ok(()));
        check(&["http://10.0.0.0/8:*"], &url("http://shop.internal/a"), Ok(()));
        check(&[], &url("http://127.0.0.1:9/a"), Ok(()));
        check(&[], &url("http://localhost:9/a"), Ok(()));
        check(&[], &url("http://[::1]:9/a"), Ok(()));
        check(&[], &url("http://[::ffff:127.0.0.1]:9/a"), Ok(()));
    }

    #[test]
    fn where_credentials_lie_and_our_own_door_are_listed_exactly_or_refused() {
        let metadata = url("http://169.254.169.254/latest");
        check(&["http://0.0.0.0/0:*"], &metadata, Err("link-local"));
        check(&["http://169.254.169.254:*"], &metadata, Err("link-local"));
        check(&["http://169.254.169.254:80"], &metadata, Ok(()));
        check(&["http://0.0.0.0/0:*"], &url("http://224.0.0.1/a"), Err("single machine"));
        check(&["http://0.0.0.0/0:*"], &url("http://0.0.0.0:9/a"), Err("unspecified"));
        check(&[], &url("http://127.0.0.1:7400/api"), Err("control port"));
        check(&["http://0.0.0.0/0:*"], &url("http://127.0.0.2:7400/api"), Err("control port"));
        check(&["http://127.0.0.1:7400"], &url("http://127.0.0.1:7400/api"), Ok(()));
    }

    #[test]
    fn a_name_is_judged_again_by_the_address_it_stands_for() {
        let targets = targets(&["http://10.0.0.0/8:*", "http://pay.example:80"]);
        let at = |host, ip: &str| {
            let place = Place { scheme: "http", host, port: 80 };
            targets.check_ip(place, ip.parse().unwrap()).is_ok()
        };
        assert!(at("shop.internal", "10.1.2.3"));
        assert!(!at("shop.internal", "8.8.8.8"));
        assert!(at("pay.example", "8.8.8.8"));
        assert!(!at("pay.example", "169.254.169.254"));
        assert!(!at("pay.example", "::ffff:169.254.169.254"));
    }

    #[test]
    fn a_text_that_is_no_rule_is_refused() {
        for bad in ["", "stock", "service:", "ftp://a:1", "http://a", "http://a:b", "http://:80"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad:?}");
        }
    }
}
