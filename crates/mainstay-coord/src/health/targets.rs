//! Where an instance may be registered, and where a check may be sent.
//!
//! Whoever may register may make this process connect somewhere. A registration may therefore not
//! name an address that means something else here than at the caller's: loopback, unless the
//! caller sits on this machine too; link-local and the other addresses where clouds keep
//! credentials; unspecified, multicast and broadcast. Forms of these addresses inside IPv6 count as
//! what they stand for. A name is looked up when the check is sent, and the address found is judged
//! then and connected to, without a second look-up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Who may register where, and where checks may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The caller sits on this machine, so its loopback is ours.
    pub loopback: bool,
    /// Allowed whatever else is said.
    pub allowed: Vec<IpNet>,
}

/// Nobody may be called there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address:?} is not allowed: {why}")]
pub struct AddressRefused {
    address: String,
    why: &'static str,
}

impl AddressRefused {
    /// Why: `it is link-local`.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

impl Addresses {
    /// Checks an IP address or host name.
    ///
    /// # Errors
    ///
    /// [`AddressRefused`], which says why.
    pub fn check(&self, address: &str) -> Result<(), AddressRefused> {
        let refused = |why| AddressRefused { address: address.to_owned(), why };
        if let Ok(ip) = address.parse::<IpAddr>() {
            return self.check_ip(ip).map_err(|found| refused(found.why));
        }
        if !is_host_name(address) {
            return Err(refused("it is neither an IP address nor a host name"));
        }
        let is_local = address.eq_ignore_ascii_case("localhost")
            || address.to_ascii_lowercase().ends_with(".localhost");
        if is_local && !self.loopback {
            return Err(refused("it is the loopback of another machine"));
        }
        Ok(())
    }

    /// Checks an address that was looked up.
    ///
    /// # Errors
    ///
    /// [`AddressRefused`], which says why.
    pub fn check_ip(&self, ip: IpAddr) -> Result<(), AddressRefused> {
        let meant = unwrap(ip);
        if self.allowed.iter().any(|net| net.contains(&meant) || net.contains(&ip)) {
            return Ok(());
        }
        match forbidden(meant, self.loopback) {
            None => Ok(()),
            Some(why) => Err(AddressRefused { address: ip.to_string(), why }),
        }
    }
}

/// The IPv4 address an IPv6 one stands for (mapped, NAT64), or the address itself.
fn unwrap(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => ip,
    }
}

fn forbidden(ip: IpAddr, loopback: bool) -> Option<&'static str> {
    if ip.is_loopback() {
        return (!loopback).then_some("it is the loopback of another machine");
    }
    if ip.is_unspecified() || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return Some("it is unspecified");
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some("it is no single machine");
    }
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if is_link_local {
        return Some("it is link-local");
    }
    METADATA.contains(&ip).then_some("a cloud keeps credentials there")
}

/// Where clouds answer every machine with its credentials, beside 169.254.169.254: Amazon and
/// Google over IPv6, and Alibaba.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// RFC 1123, with the underscores that containers put into names.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_something_else_here_are_refused() {
        let far = Addresses::default();
        for good in ["10.0.0.7", "192.168.1.1", "2001:db8::1", "fd00::1", "order.shop.svc", "db_1"]
        {
            assert_eq!(far.check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "localhost",
            "a.LOCALHOST",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "a b",
            "-a",
            "a..b",
            "http://x",
            "10.0.0.7:80",
        ] {
            assert!(far.check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn loopback_is_for_those_on_this_machine_and_the_list_for_everybody() {
        let near = Addresses { loopback: true, allowed: Vec::new() };
        assert_eq!(near.check("127.0.0.1"), Ok(()));
        assert_eq!(near.check("localhost"), Ok(()));
        assert!(near.check("169.254.169.254").is_err());
        let listed =
            Addresses { loopback: false, allowed: vec!["169.254.1.0/24".parse().unwrap()] };
        assert_eq!(listed.check("169.254.1.9"), Ok(()));
        assert!(listed.check("169.254.2.9").is_err());
    }
}
