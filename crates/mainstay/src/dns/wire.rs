//! Bytes in, bytes out: what is refused unread, what a client can take, what has to be cut.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType;

use super::answer::{Answer, answer};
use super::directory::Directory;
use super::settings::DnsConfig;

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As one packet.
    Udp,
    /// In a stream, with its length in front.
    Tcp,
}

/// An answer as it is sent, and what is counted of it.
#[derive(Debug)]
pub struct Reply {
    /// The message.
    pub bytes: Vec<u8>,
    /// Which zone: `mainstay`, `consul`, `reverse`, `other`.
    pub zone: &'static str,
    /// Type that was asked for, `other` beyond those answered.
    pub kind: &'static str,
    /// How it went, in the words of RFC 1035 and 2136.
    pub code: &'static str,
    /// Whether answers had to be cut.
    pub truncated: bool,
}

/// Bytes of a message's head.
const HEAD_BYTES: usize = 12;

/// Most bytes of an answer to somebody who does not say what they take (RFC 1035 section 4.2.1).
const PLAIN_BYTES_MAX: u16 = 512;

/// Fewest bytes of a record with a compressed name: an A record, 2 + 2 + 2 + 4 + 2 + 4. More than
/// fit are not made.
const RECORD_BYTES_MIN: usize = 16;

/// The answer to `message`, which came by `transport`. `None` when it is not to be answered: too
/// short to bear an id, or itself an answer, and answering those is how two servers talk for ever.
pub fn respond(
    message: &[u8],
    transport: Transport,
    config: &DnsConfig,
    directory: &dyn Directory,
    draw: u64,
) -> Option<Reply> {
    let &[id_high, id_low, flags, _, questions_high, questions_low, ..] =
        message.get(..HEAD_BYTES)?
    else {
        return None;
    };
    if flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    let code = OpCode::from_u8((flags >> 3) & 0x0f);
    let mut meta = Metadata::new(id, MessageType::Response, code);
    meta.recursion_desired = flags & 0x01 != 0;
    if code != OpCode::Query {
        return refused(meta, ResponseCode::NotImp);
    }
    if [questions_high, questions_low] != [0, 1] {
        return refused(meta, ResponseCode::FormErr);
    }
    let Ok(asked) = Message::from_vec(message) else {
        return refused(meta, ResponseCode::FormErr);
    };
    let [query] = &asked.queries[..] else { return refused(meta, ResponseCode::FormErr) };
    let limit = limit(transport, asked.edns.as_ref(), config);
    let edns = asked.edns.as_ref().map(|_| edns(config));
    let version = asked.edns.as_ref().map_or(0, Edns::version);
    if 0 < version {
        meta.response_code = ResponseCode::BADVERS;
        let draft = Draft { meta, query, edns, limit };
        return draft.fit(Vec::new(), Vec::new(), Vec::new(), "other");
    }
    let found = answer(query, config, directory, draw, limit / RECORD_BYTES_MIN);
    let Answer { code, authoritative, answers, authorities, additionals, zone } = found;
    meta.response_code = code;
    meta.authoritative = authoritative;
    Draft { meta, query, edns, limit }.fit(answers, authorities, additionals, zone)
}

/// The head alone: the rest could not be read, or is not for us.
fn refused(mut meta: Metadata, code: ResponseCode) -> Option<Reply> {
    meta.response_code = code;
    let mut message = Message::response(meta.id, meta.op_code);
    message.metadata = meta;
    let bytes = message.to_vec().ok()?;
    Some(Reply { bytes, zone: "other", kind: "other", code: code_name(code), truncated: false })
}

/// Most bytes of the answer.
fn limit(transport: Transport, edns: Option<&Edns>, config: &DnsConfig) -> usize {
    let bytes = match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_BYTES_MAX,
        (Transport::Udp, Some(edns)) => {
            let theirs = edns.max_payload().max(PLAIN_BYTES_MAX);
            theirs.min(config.udp_payload_bytes_max)
        }
    };
    usize::from(bytes)
}

/// What we say of ourselves to those who do (RFC 6891): how much we take, and nothing more.
fn edns(config: &DnsConfig) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(config.udp_payload_bytes_max).set_version(0).set_dnssec_ok(false);
    edns
}

/// An answer before its records.
struct Draft<'a> {
    meta: Metadata,
    query: &'a Query,
    edns: Option<Edns>,
    limit: usize,
}

type Records = Vec<hickory_proto::rr::Record>;

impl Draft<'_> {
    /// Keeps as many records as fit: first additional ones go, which nobody misses, then whole
    /// answers, which the client is told of.
    fn fit(
        mut self,
        answers: Records,
        authorities: Records,
        additionals: Records,
        zone: &'static str,
    ) -> Option<Reply> {
        let mut message = Message::response(self.meta.id, self.meta.op_code);
        message.queries.push(self.query.clone());
        message.authorities = authorities;
        message.edns = self.edns.take();
        message.metadata = self.meta;
        let (kind, code) = (type_name(self.query.query_type), code_name(self.meta.response_code));
        let mut truncated = false;
        let mut bytes = written(&message, &answers, &additionals, self.limit);
        if bytes.is_none() && !additionals.is_empty() {
            bytes = most(additionals.len(), |count| {
                written(&message, &answers, additionals.get(..count)?, self.limit)
            });
        }
        if bytes.is_none() {
            truncated = true;
            message.metadata.truncation = true;
            bytes = most(answers.len(), |count| {
                written(&message, answers.get(..count)?, &[], self.limit)
            });
        }
        Some(Reply { bytes: bytes?, zone, kind, code, truncated })
    }
}

/// What `make` makes of the largest number below `count` for which it makes anything; the more, the
/// larger.
fn most(count: usize, make: impl Fn(usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (mut best, mut low, mut high) = (None, 0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match make(middle) {
            Some(bytes) => (best, low) = (Some(bytes), middle + 1),
            None => high = middle,
        }
    }
    best
}

/// The message with these records; `None` when it has more than `limit` bytes.
fn written(
    message: &Message,
    answers: &[hickory_proto::rr::Record],
    additionals: &[hickory_proto::rr::Record],
    limit: usize,
) -> Option<Vec<u8>> {
    let mut whole = message.clone();
    whole.answers = answers.to_vec();
    whole.additionals = additionals.to_vec();
    let bytes = whole.to_vec().ok()?;
    // The encoder cuts at 65,535 bytes by itself and says so in the head.
    let was_cut = bytes.get(2).is_some_and(|flags| flags & 0x02 != 0);
    let as_meant = was_cut == message.metadata.truncation;
    (as_meant && bytes.len() <= limit).then_some(bytes)
}

const fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        _ => "other",
    }
}

const fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
