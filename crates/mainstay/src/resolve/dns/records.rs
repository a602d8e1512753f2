//! What the records of a name say about instances.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mainstay_call::resolve::Instance;

use super::Asked;
use crate::dns::ask::{exchange, question};

/// How long an answer without records is taken to hold.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// Targets of SRV records whose addresses have to be asked for, each by itself. An answer that has
/// more of them than this is one of a server that keeps addresses to itself, for a service too large
/// for it.
const TARGETS_MAX: usize = 64;

/// What a name stands for now.
#[derive(Debug)]
pub(super) struct Found {
    /// In the order of their addresses.
    pub(super) instances: Vec<Instance>,
    /// How long that may be believed.
    pub(super) ttl: Duration,
}

/// Asks `servers`, one after the other, until one answers.
pub(super) async fn look_up(servers: &[SocketAddr], asked: &Asked) -> io::Result<Found> {
    match asked {
        Asked::Addresses(name, port) => {
            let (addresses, ttl) = addresses(servers, name).await?;
            let each = addresses.into_iter().map(|ip| instance(ip, *port, 1, 0));
            Ok(found(each.collect(), ttl))
        }
        Asked::Srv(name) => {
            let answer = ask(servers, name, RecordType::SRV).await?;
            srv(servers, &answer).await
        }
    }
}

/// Instances by SRV records; addresses that did not come along are asked for.
async fn srv(servers: &[SocketAddr], answer: &Message) -> io::Result<Found> {
    let mut known = BTreeMap::<Name, Vec<IpAddr>>::new();
    for record in answer.answers.iter().chain(&answer.additionals) {
        if let Some(ip) = address(record) {
            known.entry(record.name.clone()).or_default().push(ip);
        }
    }
    let mut ttl = shortest(&answer.answers);
    let mut asked = 0;
    let mut instances = Vec::new();
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else { continue };
        if !known.contains_key(&srv.target) && asked < TARGETS_MAX {
            asked += 1;
            let (found, of) = addresses(servers, &srv.target).await?;
            known.insert(srv.target.clone(), found);
            ttl = ttl.min(of);
        }
        // A weight of 0 means a small chance (RFC 2782), not none.
        let weight = u32::from(srv.weight.max(1));
        let each = known.get(&srv.target).into_iter().flatten();
        instances.extend(each.map(|ip| instance(*ip, srv.port, weight, u32::from(srv.priority))));
    }
    Ok(found(instances, ttl))
}

/// The addresses of a name, of both kinds.
async fn addresses(servers: &[SocketAddr], name: &Name) -> io::Result<(Vec<IpAddr>, Duration)> {
    let mut found = Vec::new();
    let mut ttl = Duration::MAX;
    for kind in [RecordType::A, RecordType::AAAA] {
        let answer = ask(servers, name, kind).await?;
        found.extend(answer.answers.iter().filter_map(address));
        if !answer.answers.is_empty() {
            ttl = ttl.min(shortest(&answer.answers));
        }
    }
    Ok((found, if found_none(ttl) { NEGATIVE_TTL } else { ttl }))
}

const fn found_none(ttl: Duration) -> bool {
    ttl.as_secs() == Duration::MAX.as_secs()
}

/// The answer of the first server that has one. That there is no such name is an answer too.
async fn ask(servers: &[SocketAddr], name: &Name, kind: RecordType) -> io::Result<Message> {
    let message = question(name.clone(), kind);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no server of names is known");
    for server in servers {
        last = match exchange(*server, &message).await {
            Ok(answer) => match answer.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => return Ok(answer),
                code => io::Error::other(format!("{server} says: {code}")),
            },
            Err(error) => io::Error::new(error.kind(), format!("{server}: {error}")),
        };
    }
    Err(last)
}

const fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

/// The shortest time that one of `records` may be believed.
fn shortest(records: &[Record]) -> Duration {
    let ttl = records.iter().map(|record| record.ttl).min();
    ttl.map_or(NEGATIVE_TTL, |ttl| Duration::from_secs(u64::from(ttl)))
}

fn found(mut instances: Vec<Instance>, ttl: Duration) -> Found {
    // Servers turn their answers, which is no change.
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    instances.dedup_by(|a, b| a.name == b.name);
    Found { instances, ttl }
}

fn instance(ip: IpAddr, port: u16, weight: u32, priority: u32) -> Instance {
    let address: Arc<str> = Arc::from(SocketAddr::new(ip, port).to_string());
    Instance {
        name: Arc::clone(&address),
        address,
        weight,
        zone: Arc::from(""),
        priority,
        usable: true,
    }
}
