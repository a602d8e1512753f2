//! The grammar of `Forwarded` (RFC 7239 section 4).

use std::net::IpAddr;

use super::{Arrival, push_pair};

/// One hop of a `Forwarded` field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// `for`: who called, an address with or without a port, `unknown`, or `_name`.
    pub node: Option<String>,
    /// `by`: who was called.
    pub by: Option<String>,
    /// `host`: the authority that was asked for.
    pub host: Option<String>,
    /// `proto`: the scheme.
    pub proto: Option<String>,
}

/// Reads a field value, left-most hop first; `None` when it is not well formed.
///
/// The whole value is refused for one fault: after an open quote nobody can say where the next
/// hop begins.
pub fn elements(text: &str) -> Option<Vec<Element>> {
    let mut all = Vec::new();
    let mut rest = text.trim_matches(OWS);
    loop {
        let (element, end) = element(rest)?;
        all.push(element);
        rest = end.trim_start_matches(OWS);
        if rest.is_empty() {
            return Some(all);
        }
        rest = rest.strip_prefix(',')?.trim_start_matches(OWS);
    }
}

const OWS: [char; 2] = [' ', '\t'];

fn element(text: &str) -> Option<(Element, &str)> {
    let mut element = Element::default();
    let mut rest = text;
    loop {
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix('=')?)?;
        let slot = match () {
            () if name.eq_ignore_ascii_case("for") => Some(&mut element.node),
            () if name.eq_ignore_ascii_case("by") => Some(&mut element.by),
            () if name.eq_ignore_ascii_case("host") => Some(&mut element.host),
            () if name.eq_ignore_ascii_case("proto") => Some(&mut element.proto),
            () => None,
        };
        // A parameter may stand once; which of two counts would differ from reader to reader.
        if let Some(slot) = slot
            && slot.replace(value).is_some()
        {
            return None;
        }
        match after.strip_prefix(';') {
            Some(next) => rest = next,
            None => return Some((element, after)),
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| !is_token(b)).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A token or a quoted string, less its quotes and escapes.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(token, rest)| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(char),
        }
    }
    None
}

/// One element that tells of `arrival`.
pub(super) fn write(arrival: Arrival<'_>) -> String {
    let mut out = String::new();
    match arrival.peer.to_canonical() {
        IpAddr::V4(address) => push_pair(&mut out, "for", &address.to_string(), false),
        IpAddr::V6(address) => push_pair(&mut out, "for", &format!("[{address}]"), true),
    }
    // A host has passed the guard: nothing in it needs an escape.
    let plain = |host: &str| !host.contains(['"', '\\']);
    if !arrival.host.is_empty() && plain(arrival.host) {
        let quoted = !arrival.host.bytes().all(is_token);
        push_pair(&mut out, "host", arrival.host, quoted);
    }
    push_pair(&mut out, "proto", arrival.proto, false);
    out
}
