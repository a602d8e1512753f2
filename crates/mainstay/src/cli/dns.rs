//! `mainstay dns`: asks the names of the running process as any resolver would, by the wire.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mainstay_core::problem::Code;
use serde_json::{Value as Json, json};

use super::arguments::{Dns, DnsType};
use super::{Ended, Session, usage};
use crate::exit::Exit;
use crate::output::{Column, Format, Table};
use crate::report::Report;
use crate::settings::Errors;

const RECORDS: Table<'static> = Table(&[
    Column::new("NAME", "/name"),
    Column::new("TTL", "/ttl"),
    Column::new("TYPE", "/type"),
    Column::new("VALUE", "/value"),
]);

/// For one packet and its answer; asked once more before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes taken by UDP, as most resolvers say (DNS flag day 2020).
const PAYLOAD_BYTES_MAX: u16 = 1_232;

pub(super) fn run(verb: Dns, session: &mut Session<'_>) -> Ended {
    let Dns::Query { name, kind } = verb;
    let asked = Name::from_ascii(&name)
        .map_err(|error| usage(format!("`{name}` is no name of DNS: {error}")))?;
    let document = session.control()?.get("/api/v1/dns")?;
    let address = document.get("address").and_then(Json::as_str).unwrap_or_default();
    let address: SocketAddr = address.parse().map_err(|error| {
        Report::error(Code::Internal, format!("`{address}` is no address: {error}"))
    })?;
    let message = question(asked, kind);
    let answer =
        exchange(reachable(address), &message).map_err(|error| unreachable(address, &error))?;
    show(&name, &answer, session)
}

fn question(mut name: Name, kind: DnsType) -> Message {
    name.set_fqdn(true);
    // From the draw of the process, so that nobody guesses it.
    let id = (mainstay_call::draw::next() & 0xffff) as u16;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    let kind = match kind {
        DnsType::A => RecordType::A,
        DnsType::Aaaa => RecordType::AAAA,
        DnsType::Srv => RecordType::SRV,
    };
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_BYTES_MAX).set_version(0);
    message.set_edns(edns);
    message
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

/// By UDP; by TCP too when the answer did not fit.
fn exchange(address: SocketAddr, message: &Message) -> io::Result<Message> {
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let answer =
        packet(&socket, &bytes, message).or_else(|_lost| packet(&socket, &bytes, message))?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Message::from_vec(&answer).map_err(io::Error::other)
}

fn packet(socket: &UdpSocket, bytes: &[u8], asked: &Message) -> io::Result<Message> {
    socket.send(bytes)?;
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer)?;
    let answer = Message::from_vec(buffer.get(..length).unwrap_or_default());
    let answer = answer.map_err(io::Error::other)?;
    if answer.metadata.id == asked.metadata.id {
        return Ok(answer);
    }
    Err(io::Error::other("the answer is to another question"))
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
    if items.is_empty()
        && matches!(session.global.output, None | Some(Format::Table | Format::Wide))
    {
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
