//! Who the client is, and who is told.
//!
//! Each proxy appends the address it was called from, so the list is true from the right end as
//! far as one trusts the proxies: the client is the right-most hop that is not one of ours. All to
//! the left of it is what the client says of itself.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::header::Scribe;

mod element;

#[cfg(test)]
mod tests;

pub use element::{Element, elements};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Which fields are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`.
    #[default]
    X,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// Both; the address is read from `X-Forwarded-For` where there is one.
    Both,
    /// None: the client is whoever connected.
    Off,
}

impl Mode {
    fn x(self) -> bool {
        matches!(self, Self::X | Self::Both)
    }

    fn rfc7239(self) -> bool {
        matches!(self, Self::Rfc7239 | Self::Both)
    }
}

/// The proxies in front of us whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the addresses in `networks`.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is one of them. An IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address of the client: the right-most hop that is not a trusted proxy, seen from `peer`,
/// who connected. An entry that is no address ends the walk at the hop before it.
pub fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
    mode: Mode,
) -> IpAddr {
    let peer = peer.to_canonical();
    if mode == Mode::Off || !trusted.contains(peer) {
        return peer;
    }
    if mode.x() && headers.contains_key(FOR) {
        let fields = headers.get_all(FOR).iter().rev();
        let hops = fields.flat_map(|field| {
            // A field that is not text is one malformed entry.
            field.to_str().unwrap_or_default().rsplit(',').map(address)
        });
        return walk(peer, hops, trusted);
    }
    if mode.rfc7239() {
        let fields = headers.get_all(FORWARDED).iter().rev();
        let hops = fields.flat_map(|field| {
            let elements = field.to_str().ok().and_then(elements);
            let elements = elements.unwrap_or_else(|| vec![Element::default()]);
            elements.into_iter().rev().map(|element| element.node.as_deref().and_then(address))
        });
        return walk(peer, hops, trusted);
    }
    peer
}

fn walk(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &TrustedProxies,
) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        client = hop;
        if !trusted.contains(hop) {
            break;
        }
    }
    client
}

/// Reads one hop: an address, with or without a port, IPv6 with or without brackets.
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let plain = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    plain.or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

/// How a request reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// Who connected.
    pub peer: IpAddr,
    /// `http` or `https`.
    pub proto: &'static str,
    /// The authority that was asked for, as the client wrote it; empty if it named none.
    pub host: &'a str,
    /// Port of the listener.
    pub port: u16,
}

/// Writes the fields for the upstream.
///
/// What a peer outside the trusted proxies says is dropped first; what one inside says is
/// appended to, and its `-Proto`, `-Host` and `-Port` stand, because they tell of the hop where
/// the client came in. A family of fields that is not written is dropped even then, except when
/// `mode` is `off`: a proxy that writes one family often passes the other through from the client.
pub fn write(
    headers: &mut HeaderMap,
    arrival: Arrival<'_>,
    trusted: &TrustedProxies,
    mode: Mode,
    scribe: &mut Scribe,
) {
    let said = headers.keys().any(|name| name == FORWARDED || is_x_forwarded(name.as_str()));
    if said {
        write_beside(headers, arrival, trusted, mode, scribe);
        return;
    }
    // Nobody has said anything, so nothing is to be dropped, kept or appended to.
    if mode.x() {
        let peer = scribe.address(arrival.peer.to_canonical()).cut();
        put(headers, FOR, peer);
        headers.insert(PROTO, HeaderValue::from_static(arrival.proto));
        put(headers, HOST, scribe.text(arrival.host).cut());
        put(headers, PORT, scribe.number(arrival.port.into()).cut());
    }
    if mode.rfc7239() {
        put(headers, FORWARDED, scribe.text(&element::write(arrival)).cut());
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        headers.insert(name, value);
    }
}

/// The same for a request that brings such fields already.
fn write_beside(
    headers: &mut HeaderMap,
    arrival: Arrival<'_>,
    trusted: &TrustedProxies,
    mode: Mode,
    scribe: &mut Scribe,
) {
    let inside = trusted.contains(arrival.peer);
    let passes_on = inside && mode == Mode::Off;
    if !passes_on {
        drop_family(headers, inside && mode.x(), inside && mode.rfc7239());
    }
    if mode.x() {
        append(headers, FOR, arrival.peer.to_canonical().to_string());
        set_if_absent(headers, PROTO, || Some(HeaderValue::from_static(arrival.proto)));
        set_if_absent(headers, HOST, || scribe.text(arrival.host).cut());
        set_if_absent(headers, PORT, || scribe.number(arrival.port.into()).cut());
    }
    if mode.rfc7239() {
        append(headers, FORWARDED, element::write(arrival));
    }
}

/// Drops `X-Forwarded-*` unless `keep_x` and `Forwarded` unless `keep_rfc7239`; spellings with an
/// underscore, which some servers take for the same, always.
fn drop_family(headers: &mut HeaderMap, keep_x: bool, keep_rfc7239: bool) {
    if !keep_rfc7239 {
        headers.remove(FORWARDED);
    }
    let goes = |name: &HeaderName| {
        let name = name.as_str();
        is_x_forwarded(name) && (!keep_x || name.contains('_'))
    };
    // One at a time, since a map cannot be changed while it is read; there are rarely any.
    while let Some(name) = headers.keys().find(|name| goes(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether `name`, in lower case, is `x-forwarded-…`, with `_` for `-` too.
pub(crate) fn is_x_forwarded(name: &str) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    let begin = name.as_bytes().get(..PREFIX.len());
    begin.is_some_and(|begin| {
        begin.iter().zip(PREFIX).all(|(&b, &p)| b == p || (b == b'_' && p == b'-'))
    })
}

/// Joins all values of `name` and `last` into one field.
fn append(headers: &mut HeaderMap, name: HeaderName, last: String) {
    let mut joined = String::new();
    for value in headers.get_all(&name) {
        // Kept from trusted proxies only; text that is not ASCII is no list of addresses.
        if let Ok(text) = value.to_str() {
            joined.push_str(text);
            joined.push_str(", ");
        }
    }
    let text = if joined.is_empty() { last } else { joined + &last };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

fn set_if_absent(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: impl FnOnce() -> Option<HeaderValue>,
) {
    if !headers.contains_key(&name) {
        put(headers, name, value());
    }
}

fn push_pair(out: &mut String, name: &str, value: &str, quoted: bool) {
    let separator = if out.is_empty() { "" } else { ";" };
    let quote = if quoted { "\"" } else { "" };
    for part in [separator, name, "=", quote, value, quote] {
        out.push_str(part);
    }
}
