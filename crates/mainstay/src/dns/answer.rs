//! Which records a question comes to.

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use mainstay_coord::registry::{Filter, Listed, View};

use super::asked::{self, Asked, Pick, Reading};
use super::directory::{Directory, Loading};
use super::label;
use super::records::{self, Family, Targets};
use super::settings::{DnsConfig, Zone};

/// What is said to a question.
#[derive(Debug)]
pub struct Answer {
    /// How it went.
    pub code: ResponseCode,
    /// Whether it is about a zone of ours.
    pub authoritative: bool,
    /// What was asked for, in the order in which it may be cut from the end.
    pub answers: Vec<Record>,
    /// The zone, when there is none of it.
    pub authorities: Vec<Record>,
    /// What spares further questions.
    pub additionals: Vec<Record>,
    /// Which zone it is about, for counting.
    pub zone: &'static str,
}

impl Answer {
    /// Nothing but a code.
    fn only(code: ResponseCode, zone: &'static str) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            zone,
        }
    }
}

/// Answers `query` by what `directory` knows, with at most `max` records of a kind. `draw` decides
/// the order.
pub fn answer(
    query: &Query,
    config: &DnsConfig,
    directory: &dyn Directory,
    draw: u64,
    max: usize,
) -> Answer {
    let (name, kind) = (&query.name, query.query_type);
    let asking = |zone, label| Asking { name, kind, config, directory, zone, label, draw, max };
    let in_zone = |zone: &Zone| zone.apex.zone_of(name);
    let is_plain =
        query.query_class == DNSClass::IN && !matches!(kind, RecordType::AXFR | RecordType::IXFR);
    let (answered, label) = if !is_plain {
        return Answer::only(ResponseCode::Refused, "other");
    } else if in_zone(&config.main) {
        (asking(&config.main, "mainstay").answer(), "mainstay")
    } else if let Some(zone) = config.consul.as_ref().filter(|zone| in_zone(zone)) {
        (asking(zone, "consul").answer(), "consul")
    } else if let (Ok(net), RecordType::PTR | RecordType::ANY) = (name.parse_arpa_name(), kind) {
        let is_whole = net.prefix_len() == net.max_prefix_len();
        let address = is_whole.then(|| net.addr());
        (asking(&config.main, "reverse").who_has(address), "reverse")
    } else {
        return Answer::only(ResponseCode::Refused, "other");
    };
    answered.unwrap_or_else(|Loading| Answer::only(ResponseCode::ServFail, label))
}

/// A question, and all that its answer is made from.
struct Asking<'a> {
    name: &'a Name,
    kind: RecordType,
    config: &'a DnsConfig,
    directory: &'a dyn Directory,
    zone: &'a Zone,
    label: &'static str,
    draw: u64,
    max: usize,
}

/// What there is under a name.
enum Found {
    /// No such name.
    Missing,
    /// The name, with these records of the type asked for: maybe none.
    Records(Vec<Record>, Vec<Record>),
}

const NOTHING: Found = Found::Records(Vec::new(), Vec::new());

impl Asking<'_> {
    fn answer(&self) -> Result<Answer, Loading> {
        // The serial too is known only once everything has been read.
        let revision = self.directory.revision()?;
        let is_consul = self.label == "consul";
        let asked = match asked::labels_before(self.name, &self.zone.apex) {
            None => Asked::Unknown,
            Some(labels) if is_consul => asked::in_consul_zone(&labels, &self.config.datacenter),
            Some(labels) => asked::in_main_zone(&labels),
        };
        let found = match asked {
            Asked::Apex => self.apex(revision),
            Asked::NameServer => self.name_server(),
            Asked::Branch => NOTHING,
            Asked::Service { readings, parent } => self.service(&readings, parent.as_deref())?,
            Asked::Address(ip) => self.addresses_of(&[ip]),
            Asked::Node(name) => match self.directory.node(&name)? {
                None => Found::Missing,
                Some(addresses) => self.addresses_of(&addresses),
            },
            Asked::Unknown => Found::Missing,
        };
        let code = match found {
            Found::Missing => ResponseCode::NXDomain,
            Found::Records(..) => ResponseCode::NoError,
        };
        let mut answer = Answer { authoritative: true, ..Answer::only(code, self.label) };
        if let Found::Records(answers, additionals) = found {
            (answer.answers, answer.additionals) = (answers, additionals);
        }
        if answer.answers.is_empty() {
            let (apex, ttl) = (self.zone.apex.clone(), self.zone.negative_ttl_seconds);
            answer.authorities.extend(records::authority(apex, self.zone, ttl, revision));
        }
        Ok(answer)
    }

    fn apex(&self, revision: u64) -> Found {
        let owner = || self.name.clone();
        let found = match self.kind {
            RecordType::SOA => {
                records::authority(owner(), self.zone, self.zone.ttl_seconds, revision)
            }
            RecordType::NS => records::name_server(owner(), self.zone),
            _ => None,
        };
        Found::Records(found.into_iter().collect(), Vec::new())
    }

    /// This process, where it listens on an address that others can be told.
    fn name_server(&self) -> Found {
        let ip = self.config.listen.ip();
        if ip.is_unspecified() { NOTHING } else { self.addresses_of(&[ip]) }
    }

    fn addresses_of(&self, ips: &[IpAddr]) -> Found {
        let Some(family) = self.family() else { return NOTHING };
        let record = |ip: &IpAddr| records::address(self.name.clone(), self.zone.ttl_seconds, *ip);
        Found::Records(ips.iter().filter(|ip| family.has(**ip)).map(record).collect(), Vec::new())
    }

    fn service(&self, readings: &[Reading], parent: Option<&str>) -> Result<Found, Loading> {
        for reading in readings {
            let Some(view) = self.directory.service(&reading.namespace, &reading.service)? else {
                continue;
            };
            if let Some(found) = self.of_service(&view, &reading.pick) {
                return Ok(found);
            }
        }
        let is_parent = parent.map_or(Ok(false), |suffix| self.directory.is_parent(suffix))?;
        Ok(if is_parent { NOTHING } else { Found::Missing })
    }

    /// What `pick` of a service comes to; `None` when it has no such thing.
    fn of_service(&self, view: &View, pick: &Pick) -> Option<Found> {
        match pick {
            Pick::Nothing => return Some(NOTHING),
            Pick::Instance(label) => return self.instance(view, label),
            Pick::Port(name) => {
                let has = |listed: &&Listed| port(listed, name).is_some();
                view.instances.iter().find(has)?;
            }
            Pick::All | Pick::Tag(_) | Pick::Transport(_) => {}
        }
        let tag = match pick {
            Pick::Tag(tag) | Pick::Transport(Some(tag)) => Some(tag),
            _ => None,
        };
        let has_tag = |listed: &&Listed| {
            let tags = &listed.instance.tags;
            tag.is_none_or(|tag| tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
        };
        let healthy = Filter { healthy: true, ..Filter::default() };
        let offered: Vec<&Listed> = view.answer(&healthy).filter(has_tag).collect();
        if offered.is_empty() && self.label == "consul" {
            return Some(Found::Missing);
        }
        let offered = records::spread(offered, self.draw);
        let is_located = self.kind == RecordType::SRV;
        match (pick, self.family()) {
            (Pick::All | Pick::Tag(_), Some(family)) => {
                let ttl = self.zone.ttl_seconds;
                let found = records::addresses(self.name, ttl, &offered, family, self.max);
                Some(Found::Records(found, Vec::new()))
            }
            _ if is_located => Some(self.located(view, &offered, pick)),
            _ => Some(NOTHING),
        }
    }

    fn located(&self, view: &View, offered: &[&Listed], pick: &Pick) -> Found {
        let with_port = |listed: &&'_ Listed| match pick {
            Pick::Port(name) => port(listed, name).unwrap_or(0),
            _ => listed.instance.port,
        };
        let ported: Vec<(&Listed, u16)> = offered
            .iter()
            .map(|listed| (*listed, with_port(listed)))
            .filter(|(_, port)| *port != 0)
            .take(self.max)
            .collect();
        let targets = match self.label {
            "consul" => Targets::Addresses(self.zone, &self.config.datacenter),
            _ => Targets::Instances(self.zone),
        };
        let ttl = self.zone.ttl_seconds;
        let located = records::located(self.name, ttl, &view.service, &ported, targets);
        Found::Records(located.records, located.additional)
    }

    fn instance(&self, view: &View, label: &str) -> Option<Found> {
        let is = |listed: &&Listed| label::of_instance(listed.id.as_str()) == label;
        let listed = view.instances.iter().find(is)?;
        let Some(family) = self.family() else { return Some(NOTHING) };
        let ttl = self.zone.ttl_seconds;
        let found = records::addresses(self.name, ttl, &[listed], family, self.max);
        Some(Found::Records(found, Vec::new()))
    }

    /// The name of whoever has `address`. Other addresses are somebody else's to answer for.
    fn who_has(&self, address: Option<IpAddr>) -> Result<Answer, Loading> {
        let named = match address {
            Some(ip) => self.name_of(ip)?,
            None => None,
        };
        let Some(target) = named else {
            return Ok(Answer::only(ResponseCode::Refused, self.label));
        };
        let record = records::pointer(self.name.clone(), self.zone.ttl_seconds, target);
        Ok(Answer {
            authoritative: true,
            answers: vec![record],
            ..Answer::only(ResponseCode::NoError, self.label)
        })
    }

    fn name_of(&self, ip: IpAddr) -> Result<Option<Name>, Loading> {
        if let Some(at) = self.directory.instance_at(ip)? {
            return Ok(records::instance_name(&self.config.main, &at.service, at.id.as_str()));
        }
        let Some(zone) = &self.config.consul else { return Ok(None) };
        let node = self.directory.node_at(ip);
        let name = |node: String| format!("{node}.node.{}", self.config.datacenter);
        Ok(node.and_then(|node| records::below(zone, &name(node))))
    }

    const fn family(&self) -> Option<Family> {
        match self.kind {
            RecordType::A => Some(Family::Four),
            RecordType::AAAA => Some(Family::Six),
            RecordType::ANY => Some(Family::Both),
            _ => None,
        }
    }
}

/// The port of `listed` that is called `name`, in whatever case.
fn port(listed: &Listed, name: &str) -> Option<u16> {
    let ports = &listed.instance.ports;
    ports.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, port)| *port)
}
