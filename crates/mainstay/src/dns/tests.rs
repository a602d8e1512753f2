//! Whole messages, as they come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use mainstay_coord::name::{InstanceId, Namespace};
use mainstay_coord::registry::{Instance, Listed, Protected, View};
use mainstay_coord::{InstanceRef, ServiceRef};
use mainstay_core::name::ServiceName;
use mainstay_store::Revision;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::directory::{Directory, Loading};
use super::settings::{DnsConfig, RawDns};
use super::wire::{Reply, Transport, respond};

/// A registry written down.
#[derive(Default)]
struct Table {
    services: BTreeMap<(String, String), View>,
    loading: bool,
}

impl Table {
    fn with(mut self, namespace: &str, name: &str, instances: Vec<Listed>) -> Self {
        let service = ServiceRef {
            namespace: Namespace::new(namespace).unwrap(),
            name: ServiceName::new(name).unwrap(),
        };
        let view = View {
            service,
            revision: Revision::new(7),
            instances,
            protected: None,
            stale_since_unix_ms: None,
            resync: false,
            empty_because: None,
        };
        self.services.insert((namespace.to_owned(), name.to_owned()), view);
        self
    }

    /// `web` with `count` instances at 10.0.0.1 and on.
    fn web(count: usize) -> Self {
        let each =
            (1..=count).map(|n| instance(&format!("i{n}"), &format!("10.0.0.{n}"), json!({})));
        Self::default().with("default", "web", each.collect())
    }
}

impl Directory for Table {
    fn revision(&self) -> Result<u64, Loading> {
        if self.loading { Err(Loading) } else { Ok((1 << 32) + 7) }
    }

    fn service(&self, namespace: &str, name: &str) -> Result<Option<Arc<View>>, Loading> {
        let known = self.services.get(&(namespace.to_owned(), name.to_owned()));
        Ok(known.cloned().map(Arc::new))
    }

    fn is_parent(&self, suffix: &str) -> Result<bool, Loading> {
        let below = format!(".{suffix}");
        Ok(self.services.keys().any(|(space, name)| format!("{name}.{space}").ends_with(&below)))
    }

    fn instance_at(&self, address: IpAddr) -> Result<Option<InstanceRef>, Loading> {
        let views = self.services.values();
        let mut all = views.flat_map(|v| v.instances.iter().map(|i| (&v.service, i)));
        let found = all.find(|(_, i)| i.instance.address == address.to_string());
        Ok(found.map(|(service, listed)| service.instance(&listed.id)))
    }

    fn node(&self, name: &str) -> Result<Option<Vec<IpAddr>>, Loading> {
        Ok((name == "host").then(|| vec![[192, 0, 2, 1].into()]))
    }

    fn node_at(&self, address: IpAddr) -> Option<String> {
        (address == IpAddr::from([192, 0, 2, 1])).then(|| "host".to_owned())
    }
}

fn instance(id: &str, address: &str, more: Value) -> Listed {
    let mut record = json!({
        "v": 1, "address": address, "port": 8080, "kind": "ephemeral", "weight": 1, "state": "up",
        "health": "passing", "own": "passing", "was_passing": true, "ttl_seconds": 15,
        "owner": "n", "registration": "r", "registered_unix_ms": 0, "changed_unix_ms": 0,
    });
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let instance = Instance::read(record.to_string().as_bytes()).unwrap();
    Listed {
        id: InstanceId::new(id).unwrap(),
        health: instance.health,
        instance: instance.into(),
        revision: Revision::new(7),
    }
}

fn config() -> DnsConfig {
    DnsConfig::resolve(RawDns::default(), "dc1", &mut Vec::new())
}

/// A question as bytes.
fn question(name: &str, kind: RecordType, edns: Option<u16>) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(bytes) = edns {
        let mut own = Edns::new();
        own.set_max_payload(bytes).set_version(0);
        message.set_edns(own);
    }
    message
}

#[track_caller]
fn sent(table: &Table, message: &Message, transport: Transport) -> (Message, Reply) {
    let reply = respond(&message.to_vec().unwrap(), transport, &config(), table, 42).unwrap();
    (Message::from_vec(&reply.bytes).unwrap(), reply)
}

#[track_caller]
fn ask(table: &Table, name: &str, kind: RecordType) -> Message {
    sent(table, &question(name, kind, None), Transport::Tcp).0
}

/// The data of the answers, in order of text.
fn told(message: &Message) -> Vec<String> {
    let mut all: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    all.sort();
    all
}

/// Code, whether it is the last word, and whether the zone is named because there is nothing.
fn standing(message: &Message) -> (ResponseCode, bool, bool) {
    let zone = matches!(message.authorities.first().map(|r| &r.data), Some(RData::SOA(_)));
    (message.metadata.response_code, message.metadata.authoritative, zone)
}

const GOT: (ResponseCode, bool, bool) = (ResponseCode::NoError, true, false);
const EMPTY: (ResponseCode, bool, bool) = (ResponseCode::NoError, true, true);
const MISSING: (ResponseCode, bool, bool) = (ResponseCode::NXDomain, true, true);
const REFUSED: (ResponseCode, bool, bool) = (ResponseCode::Refused, false, false);

#[test]
fn as_many_records_as_fit() {
    let name = "web.default.svc.mainstay.";
    let (udp, tcp) = (Transport::Udp, Transport::Tcp);
    for (instances, transport, edns, records, truncated, bytes) in [
        (40, udp, None, 29, true, 506),
        (40, udp, Some(4_096), 40, false, 12 + 30 + 11 + 40 * 16),
        (80, udp, Some(1_232), 73, true, 1_221),
        (80, udp, Some(4_096), 73, true, 1_221),
        (40, udp, Some(100), 28, true, 12 + 30 + 11 + 28 * 16),
        (80, tcp, None, 80, false, 12 + 30 + 80 * 16),
        (80, tcp, Some(512), 80, false, 12 + 30 + 11 + 80 * 16),
    ] {
        let table = Table::web(instances);
        let (message, reply) = sent(&table, &question(name, RecordType::A, edns), transport);
        let got = (message.answers.len(), message.metadata.truncation, reply.bytes.len());
        assert_eq!(got, (records, truncated, bytes), "{instances} {transport:?} {edns:?}");
        assert_eq!((reply.truncated, message.edns.is_some()), (truncated, edns.is_some()));
        assert_eq!((reply.zone, reply.kind, reply.code), ("mainstay", "A", "NOERROR"));
    }
}

#[test]
fn additional_records_are_cut_first_and_without_a_word() {
    let table = Table::web(10);
    let name = "_web._tcp.svc.mainstay.";
    let (whole, _) = sent(&table, &question(name, RecordType::SRV, None), Transport::Tcp);
    assert_eq!((whole.answers.len(), whole.additionals.len()), (10, 10));
    let (message, reply) =
        sent(&table, &question(name, RecordType::SRV, Some(600)), Transport::Udp);
    assert_eq!((message.answers.len(), message.metadata.truncation), (10, false));
    assert!(message.additionals.len() < 10 && reply.bytes.len() <= 600);
    let (message, reply) = sent(&table, &question(name, RecordType::SRV, None), Transport::Udp);
    assert!(message.answers.len() < 10 && message.metadata.truncation && reply.truncated);
    assert!(message.additionals.is_empty() && reply.bytes.len() <= 512);
}

/// Services of every kind.
fn shop() -> Table {
    Table::default()
        .with(
            "default",
            "web",
            vec![
                instance("a", "10.0.0.1", json!({ "ports": { "Metrics": 9100 }, "tags": ["V1"] })),
                instance("b", "fd00::1", json!({ "health": "warning", "weight": 3 })),
                instance("c", "10.0.0.3", json!({ "health": "critical" })),
                instance("d", "10.0.0.4", json!({ "state": "draining" })),
                instance("e", "10.0.0.5", json!({ "weight": 0 })),
                instance("f", "10.0.0.1", json!({ "port": 0 })),
            ],
        )
        .with("shop", "a.b", vec![instance("10.1.0.1:80", "10.1.0.1", json!({}))])
        .with("default", "cdn", vec![instance("x", "cdn.example.com", json!({ "port": 443 }))])
        .with("default", "idle", Vec::new())
}

#[track_caller]
fn check(
    table: &Table,
    name: &str,
    kind: RecordType,
    want: (ResponseCode, bool, bool),
    data: &[&str],
) {
    let message = ask(table, name, kind);
    assert_eq!(standing(&message), want, "{name} {kind}");
    assert_eq!(told(&message), data, "{name} {kind}");
}

#[test]
fn names_of_services_and_what_they_come_to() {
    use RecordType::{A, AAAA, ANY, NS, SRV, TXT};
    let table = shop();
    check(&table, "web.svc.mainstay.", A, GOT, &["10.0.0.1"]);
    check(&table, "web.default.svc.mainstay.", AAAA, GOT, &["fd00::1"]);
    check(&table, "web.svc.mainstay.", ANY, GOT, &["10.0.0.1", "fd00::1"]);
    check(&table, "web.svc.mainstay.", TXT, EMPTY, &[]);
    check(&table, "idle.svc.mainstay.", A, EMPTY, &[]);
    check(&table, "none.svc.mainstay.", A, MISSING, &[]);
    let both = ["1 1 8080 a.web.default.inst.mainstay.", "1 3 8080 b.web.default.inst.mainstay."];
    check(&table, "_web._tcp.svc.mainstay.", SRV, GOT, &both);
    check(&table, "web.svc.mainstay.", SRV, GOT, &both);
    let metrics = ["1 1 9100 a.web.default.inst.mainstay."];
    check(&table, "_metrics._tcp.web.svc.mainstay.", SRV, GOT, &metrics);
    check(&table, "_metrics._tcp.web.default.svc.mainstay.", SRV, GOT, &metrics);
    check(&table, "_metrics._tcp.web.svc.mainstay.", A, EMPTY, &[]);
    check(&table, "_none._tcp.web.svc.mainstay.", SRV, MISSING, &[]);
    check(&table, "_tcp.web.svc.mainstay.", SRV, EMPTY, &[]);
    check(&table, "c.web.default.inst.mainstay.", A, GOT, &["10.0.0.3"]);
    check(&table, "c.web.default.inst.mainstay.", AAAA, EMPTY, &[]);
    check(&table, "z.web.default.inst.mainstay.", A, MISSING, &[]);
    check(&table, "a.b.shop.svc.mainstay.", A, GOT, &["10.1.0.1"]);
    for name in ["mainstay.", "svc.mainstay.", "inst.mainstay.", "shop.svc.mainstay."] {
        check(&table, name, A, EMPTY, &[]);
    }
    check(&table, "b.shop.inst.mainstay.", A, EMPTY, &[]);
    check(&table, "x.mainstay.", A, MISSING, &[]);
    check(&table, "cdn.svc.mainstay.", A, GOT, &["cdn.example.com."]);
    check(&table, "_cdn._tcp.svc.mainstay.", SRV, GOT, &["1 1 443 cdn.example.com."]);
    check(&table, "x.cdn.default.inst.mainstay.", A, GOT, &["cdn.example.com."]);
    check(&table, "example.com.", A, REFUSED, &[]);
    check(&table, "ns.mainstay.", A, GOT, &["127.0.0.1"]);
    check(&table, "mainstay.", NS, GOT, &["ns.mainstay."]);
}

#[test]
fn consuls_names_and_what_they_come_to() {
    use RecordType::{A, SRV};
    let table = shop();
    check(&table, "web.service.consul.", A, GOT, &["10.0.0.1"]);
    check(&table, "v1.web.service.dc1.consul.", A, GOT, &["10.0.0.1"]);
    check(&table, "v2.web.service.consul.", A, MISSING, &[]);
    check(&table, "idle.service.consul.", A, MISSING, &[]);
    check(&table, "web.service.dc2.consul.", A, MISSING, &[]);
    let targets = [
        "1 1 8080 0a000001.addr.dc1.consul.",
        "1 3 8080 fd000000000000000000000000000001.addr.dc1.consul.",
    ];
    check(&table, "_web._tcp.service.consul.", SRV, GOT, &targets);
    check(&table, "_web._v1.service.dc1.consul.", SRV, GOT, &targets[..1]);
    check(&table, "0a000001.addr.dc1.consul.", A, GOT, &["10.0.0.1"]);
    check(&table, "host.node.dc1.consul.", A, GOT, &["192.0.2.1"]);
    check(&table, "other.node.consul.", A, MISSING, &[]);
}

#[test]
fn addresses_have_the_names_of_those_at_them() {
    use RecordType::PTR;
    let table = shop();
    let pointed = "10-1-0-1-80-";
    let message = ask(&table, "1.0.1.10.in-addr.arpa.", PTR);
    assert!(told(&message)[0].starts_with(pointed), "{message:?}");
    assert_eq!(standing(&message), GOT);
    check(&table, "1.2.0.192.in-addr.arpa.", PTR, GOT, &["host.node.dc1.consul."]);
    check(&table, "9.9.0.10.in-addr.arpa.", PTR, REFUSED, &[]);
    check(&table, "10.in-addr.arpa.", PTR, REFUSED, &[]);
}

#[test]
fn the_zone_is_named_with_its_times() {
    let message = ask(&Table::web(1), "none.svc.mainstay.", RecordType::A);
    let record = &message.authorities[0];
    let RData::SOA(soa) = &record.data else { panic!("{record:?}") };
    assert_eq!((record.name.to_string().as_str(), record.ttl), ("mainstay.", 5));
    assert_eq!((soa.serial, soa.minimum, soa.mname.to_string().as_str()), (7, 5, "ns.mainstay."));
    let message = ask(&Table::web(1), "mainstay.", RecordType::SOA);
    assert!(matches!(message.answers[0].data, RData::SOA(_)));
    let message = ask(&Table::web(1), "none.service.consul.", RecordType::A);
    assert_eq!(message.authorities[0].ttl, 0);
    let ttl = |name: &str| ask(&Table::web(1), name, RecordType::A).answers[0].ttl;
    assert_eq!((ttl("web.svc.mainstay."), ttl("web.service.consul.")), (5, 0));
}

#[test]
fn protected_services_answer_with_all_that_count() {
    let critical = |id: &str, address: &str| instance(id, address, json!({ "health": "critical" }));
    let never = instance("c", "10.0.0.3", json!({ "health": "critical", "was_passing": false }));
    let all = vec![critical("a", "10.0.0.1"), critical("b", "10.0.0.2"), never];
    let mut table = Table::default().with("default", "web", all);
    assert_eq!(standing(&ask(&table, "web.svc.mainstay.", RecordType::A)), EMPTY);
    for view in table.services.values_mut() {
        let reason = String::new();
        view.protected = Some(Protected { since_unix_ms: 0, reason, healthy: 0, total: 2 });
    }
    let message = ask(&table, "web.svc.mainstay.", RecordType::A);
    assert_eq!(told(&message), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn case_is_echoed_and_matters_to_nobody() {
    let (message, reply) =
        sent(&Table::web(1), &question("wEb.SVC.MainStay.", RecordType::A, None), Transport::Udp);
    assert_eq!(message.queries[0].name.to_string(), "wEb.SVC.MainStay.");
    assert_eq!(message.answers[0].name.to_string(), "wEb.SVC.MainStay.");
    assert_eq!(message.metadata.id, 4711);
    let flags = (message.metadata.recursion_desired, message.metadata.recursion_available);
    assert_eq!(flags, (true, false));
    assert!(reply.bytes.windows(4).any(|bytes| bytes == b"\x03wEb"));
}

#[test]
fn weights_decide_who_stands_first() {
    let light = instance("a", "10.0.0.1", json!({}));
    let heavy = instance("b", "10.0.0.2", json!({ "weight": 9 }));
    let table = Table::default().with("default", "web", vec![light, heavy]);
    let bytes = question("web.svc.mainstay.", RecordType::A, None).to_vec().unwrap();
    let first = |draw: u64| {
        let reply = respond(&bytes, Transport::Udp, &config(), &table, draw).unwrap();
        Message::from_vec(&reply.bytes).unwrap().answers[0].data.to_string()
    };
    let heavy_first = (0..1_000).filter(|draw| first(*draw) == "10.0.0.2").count();
    assert!((850..950).contains(&heavy_first), "{heavy_first} of 1000");
}

#[test]
fn while_the_registry_is_read_nothing_is_said() {
    let table = Table { loading: true, ..Table::web(1) };
    for name in ["web.svc.mainstay.", "web.service.consul.", "mainstay."] {
        let message = ask(&table, name, RecordType::A);
        assert_eq!(standing(&message), (ResponseCode::ServFail, false, false), "{name}");
    }
    assert_eq!(standing(&ask(&table, "example.com.", RecordType::A)), REFUSED);
}

#[test]
fn what_is_no_question_for_us_is_refused_by_its_code() {
    let table = Table::web(1);
    let code = |change: fn(&mut Message)| {
        let mut message = question("web.svc.mainstay.", RecordType::A, Some(1_232));
        change(&mut message);
        let (answer, reply) = sent(&table, &message, Transport::Udp);
        assert!(answer.answers.is_empty());
        (answer.metadata.response_code, reply.code)
    };
    let refused = (ResponseCode::Refused, "REFUSED");
    assert_eq!(code(|m| m.queries.clear()), (ResponseCode::FormErr, "FORMERR"));
    assert_eq!(code(|m| m.queries.push(m.queries[0].clone())), (ResponseCode::FormErr, "FORMERR"));
    assert_eq!(code(|m| m.metadata.op_code = OpCode::Notify), (ResponseCode::NotImp, "NOTIMP"));
    assert_eq!(code(|m| m.queries[0].query_class = DNSClass::CH), refused);
    assert_eq!(code(|m| m.queries[0].query_type = RecordType::AXFR), refused);
    let version = |m: &mut Message| {
        m.edns.as_mut().unwrap().set_version(1);
    };
    // 16 stands for two things; the one about signatures cannot be meant.
    assert_eq!(code(version), (ResponseCode::BADSIG, "BADVERS"));
}

#[test]
fn what_cannot_be_answered_is_not() {
    let table = Table::web(1);
    let bytes = question("web.svc.mainstay.", RecordType::A, None).to_vec().unwrap();
    let answer = |bytes: &[u8]| respond(bytes, Transport::Udp, &config(), &table, 1);
    assert!(answer(&bytes[..11]).is_none());
    assert!(answer(&answer(&bytes).unwrap().bytes).is_none(), "answers are not answered");
    let cut = answer(&bytes[..20]).unwrap();
    assert_eq!((cut.code, cut.bytes.len()), ("FORMERR", 12));
}

proptest! {
    /// Whatever comes, what goes out is a message with the same id, within the limit.
    #[test]
    fn any_bytes_get_a_message_or_nothing(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        is_question in any::<bool>(),
    ) {
        if is_question && 12 <= bytes.len() {
            bytes[2..6].copy_from_slice(&[0, 0, 0, 1]);
        }
        if let Some(reply) = respond(&bytes, Transport::Udp, &config(), &Table::web(80), 1) {
            prop_assert_eq!(&reply.bytes[..2], &bytes[..2]);
            prop_assert!(reply.bytes.len() <= 1_232);
            let message = Message::from_vec(&reply.bytes);
            prop_assert!(message.is_ok(), "{:?}", message);
        }
    }
}
