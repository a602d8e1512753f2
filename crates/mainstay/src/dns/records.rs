//! The records that instances come to, in an order that spreads callers by weight.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record};
use mainstay_coord::ServiceRef;
use mainstay_coord::registry::Listed;

use super::label;
use super::settings::Zone;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
    /// Both.
    Both,
}

impl Family {
    /// Whether `address` is asked for.
    pub const fn has(self, address: IpAddr) -> bool {
        matches!(
            (self, address),
            (Self::Both, _) | (Self::Four, IpAddr::V4(_)) | (Self::Six, IpAddr::V6(_))
        )
    }
}

/// `instances` in a random order in which each stands first as often as its weight says
/// (Efraimidis and Spirakis, 2006: the largest of u^(1/w) first).
pub fn spread(instances: Vec<&Listed>, draw: u64) -> Vec<&Listed> {
    let mut state = draw;
    let mut keyed: Vec<(f64, &Listed)> = instances
        .into_iter()
        .map(|listed| {
            // Above 0, so that its logarithm is finite.
            let u = (f64::from((next(&mut state) >> 32) as u32) + 0.5) / 4_294_967_296.0;
            let weight = f64::from(listed.instance.effective_weight().max(1));
            (u.ln() / weight, listed)
        })
        .collect();
    keyed.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    keyed.into_iter().map(|(_, listed)| listed).collect()
}

/// The next of a sequence of draws (`SplitMix64`, Steele and others, 2014).
const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The addresses of `instances`, each once, or the one name they go by: a name may have one
/// alias and then nothing else (RFC 1034 section 3.6.2), so names count only where no instance has
/// an address.
pub fn addresses(
    owner: &Name,
    ttl: u32,
    instances: &[&Listed],
    family: Family,
    max: usize,
) -> Vec<Record> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut has_addresses = false;
    for listed in instances {
        let Ok(ip) = listed.instance.address.parse::<IpAddr>() else { continue };
        has_addresses = true;
        if found.len() < max && family.has(ip) && seen.insert(ip) {
            found.push(address(owner.clone(), ttl, ip));
        }
    }
    if !has_addresses {
        let mut hosts = instances.iter().filter_map(|listed| host(&listed.instance.address));
        let alias = |host| Record::from_rdata(owner.clone(), ttl, RData::CNAME(CNAME(host)));
        found.extend(hosts.next().map(alias));
    }
    found
}

/// Where instances are connected to, and the addresses of the names that says.
#[derive(Debug, Default)]
pub struct Located {
    /// SRV records.
    pub records: Vec<Record>,
    /// A and AAAA records of their targets.
    pub additional: Vec<Record>,
}

/// How targets are called.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// By instance, under this zone.
    Instances(&'a Zone),
    /// By address, under Consul's zone and this datacenter.
    Addresses(&'a Zone, &'a str),
}

/// The SRV records of `instances`, `port` telling the port of each; those without one are left out.
pub fn located(
    owner: &Name,
    ttl: u32,
    service: &ServiceRef,
    instances: &[(&Listed, u16)],
    targets: Targets<'_>,
) -> Located {
    let mut located = Located::default();
    let mut seen = BTreeSet::new();
    for (listed, port) in instances.iter().filter(|(_, port)| *port != 0) {
        let text = &listed.instance.address;
        let ip = text.parse::<IpAddr>().ok();
        let target = match ip {
            Some(ip) => targets.of(service, listed, ip),
            None => host(text),
        };
        let Some(target) = target else { continue };
        let weight = listed.instance.effective_weight();
        let data = RData::SRV(SRV::new(1, weight, *port, target.clone()));
        located.records.push(Record::from_rdata(owner.clone(), ttl, data));
        if let Some(ip) = ip.filter(|_| seen.insert(target.clone())) {
            located.additional.push(address(target, ttl, ip));
        }
    }
    located
}

impl Targets<'_> {
    fn of(self, service: &ServiceRef, listed: &Listed, ip: IpAddr) -> Option<Name> {
        match self {
            Self::Instances(zone) => instance_name(zone, service, listed.id.as_str()),
            Self::Addresses(zone, datacenter) => {
                let hex = match ip {
                    IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
                    IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
                };
                below(zone, &format!("{hex}.addr.{datacenter}"))
            }
        }
    }
}

/// `<label>.<service>.<namespace>.inst.<zone>`; `None` when the service's name has a part of more
/// than 63 bytes, which no name can hold.
pub fn instance_name(zone: &Zone, service: &ServiceRef, id: &str) -> Option<Name> {
    let label = label::of_instance(id);
    let (name, namespace) = (service.name.as_str(), service.namespace.as_str());
    below(zone, &format!("{label}.{name}.{namespace}.inst"))
}

/// A name inside `zone`.
pub fn below(zone: &Zone, text: &str) -> Option<Name> {
    Name::from_ascii(text).ok()?.append_domain(&zone.apex).ok()
}

/// A host's name; always from the root.
fn host(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// An A or AAAA record.
pub fn address(owner: Name, ttl: u32, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(owner, ttl, data)
}

/// A PTR record.
pub fn pointer(owner: Name, ttl: u32, target: Name) -> Record {
    Record::from_rdata(owner, ttl, RData::PTR(PTR(target)))
}

/// The name server a zone names: this process.
pub fn name_server(owner: Name, zone: &Zone) -> Option<Record> {
    let data = RData::NS(NS(below(zone, "ns")?));
    Some(Record::from_rdata(owner, zone.ttl_seconds, data))
}

/// How the zone is kept. The times are for secondary servers, of which there are none; hours and
/// days are the usual ones (RFC 1912 section 2.2).
pub fn authority(owner: Name, zone: &Zone, ttl: u32, revision: u64) -> Option<Record> {
    let (server, person) = (below(zone, "ns")?, below(zone, "hostmaster")?);
    // The serial wraps around, as its arithmetic wants (RFC 1982).
    let serial = (revision & 0xffff_ffff) as u32;
    let data = SOA::new(server, person, serial, 3_600, 600, 86_400, zone.negative_ttl_seconds);
    Some(Record::from_rdata(owner, ttl, RData::SOA(data)))
}
