//! `mainstay dns`: asks the names of the running process as any resolver would, by the wire.

use std::io;
use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mainstay_core::problem::Code;
use serde_json::{Value as Json, json};

use super::arguments::{Dns, DnsType};
use super::{Ended, Session, usage};
use crate::control_client::block_on;
use crate::dns::ask::{exchange, question};
use crate::exit::Exit;
use crate::output::{Column, Table};
use crate::report::Report;
use crate::settings::Errors;

const RECORDS: Table<'static> = Table(&[
    Column::new("NAME", "/name"),
    Column::new("TTL", "/ttl"),
    Column::new("TYPE", "/type"),
    Column::new("VALUE", "/value"),
]);

pub(super) fn run(verb: Dns, session: &mut Session<'_>) -> Ended {
    let Dns::Query { name, kind } = verb;
    let asked = Name::from_ascii(&name)
        .map_err(|error| usage(format!("`{name}` is no name of DNS: {error}")))?;
    let document = session.control()?.get("/api/v1/dns")?;
    let address = document.get("address").and_then(Json::as_str).unwrap_or_default();
    let address: SocketAddr = address.parse().map_err(|error| {
        Report::error(Code::Internal, format!("`{address}` is no address: {error}"))
    })?;
    let kind = match kind {
        DnsType::A => RecordType::A,
        DnsType::Aaaa => RecordType::AAAA,
        DnsType::Srv => RecordType::SRV,
    };
    let message = question(asked, kind);
    let answer = block_on(exchange(reachable(address), &message))?
        .map_err(|error| unreachable(address, &error))?;
    show(&name, &answer, session)
}

/// A door on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn unreachable(address: SocketAddr, error: &io::Error) -> Errors {
    let what = format!("nobody answers names at {address}: {error}");
    Report::error(Code::ControlUnreachable, what).next("mainstay check").into()
}

fn show(name: &str, answer: &Message, session: &mut Session<'_>) -> Ended {
    let code = answer.metadata.response_code;
    let said = code.to_string();
    if code == ResponseCode::NXDomain {
        let what = format!("there is no name `{name}`");
        return Err(Report::error(Code::NotFound, what).into());
    }
    if code != ResponseCode::NoError {
        return Err(Report::error(Code::InvalidRequest, format!("`{name}`: {said}")).into());
    }
    let of = |records: &[Record]| records.iter().map(record).collect::<Vec<Json>>();
    let items = of(&answer.answers);
    if items.is_empty() && session.is_for_people() {
        session.note(&format!("`{name}` is there, without a record of this type"));
        return Ok(Exit::Done.code());
    }
    let document = json!({ "items": items, "additional": of(&answer.additionals) });
    session.show(&document, &RECORDS)
}

fn record(record: &Record) -> Json {
    let mut fields = json!({
        "name": record.name.to_string(),
        "ttl": record.ttl,
        "type": record.record_type().to_string(),
        "value": record.data.to_string(),
    });
    if let (RData::SRV(srv), Some(fields)) = (&record.data, fields.as_object_mut()) {
        fields.insert("priority".to_owned(), srv.priority.into());
        fields.insert("weight".to_owned(), srv.weight.into());
        fields.insert("port".to_owned(), srv.port.into());
        fields.insert("target".to_owned(), srv.target.to_string().into());
    }
    fields
}
