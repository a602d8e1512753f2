//! What an answer means.

use http::StatusCode;

use super::Health;

/// Most bytes of an answer that are kept as output.
pub const OUTPUT_BYTES_MAX: usize = 4_096;

/// Redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it says of the instance.
    pub health: Health,
    /// What came back, or what was in the way; at most 4 KiB.
    pub output: String,
}

impl Outcome {
    /// `health`, with as much of `output` as is kept.
    pub fn new(health: Health, output: impl Into<String>) -> Self {
        let mut output = output.into();
        let end = output.floor_char_boundary(OUTPUT_BYTES_MAX);
        output.truncate(end);
        Self { health, output }
    }

    /// It did not work.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::new(Health::Critical, why)
    }
}

/// What a status of HTTP means: Consul's rule.
pub fn http_health(status: StatusCode) -> Health {
    match status.as_u16() {
        200..=299 => Health::Passing,
        429 => Health::Warning,
        _ => Health::Critical,
    }
}

/// What an HTTP answer means.
pub fn http_outcome(status: StatusCode, body: &[u8]) -> Outcome {
    let body = String::from_utf8_lossy(body);
    let text = format!("HTTP {}: {body}", status.as_u16());
    Outcome::new(http_health(status), text.trim_end_matches([' ', ':']))
}

/// Where a redirect from `from` (host, port, path) to `location` leads, `over_tls` or in the clear;
/// `None` when it is not followed: another scheme, or no URI.
pub fn redirect(
    from: (&str, u16, &str),
    location: &str,
    over_tls: bool,
) -> Option<(String, u16, String)> {
    let (scheme, default_port) = if over_tls { ("https", 443) } else { ("http", 80) };
    let (host, port, path) = from;
    if location.starts_with('/') && !location.starts_with("//") {
        return Some((host.to_owned(), port, location.to_owned()));
    }
    let uri: http::Uri = location.parse().ok()?;
    if uri.scheme_str() == Some(scheme) {
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        return Some((host.to_owned(), uri.port_u16().unwrap_or(default_port), path.to_owned()));
    }
    if uri.scheme().is_some() || location.contains(':') || location.starts_with("//") {
        return None;
    }
    // Relative to the directory of the path (RFC 3986, 5.2.3).
    let directory = path.split('?').next()?.rsplit_once('/').map_or("", |(before, _)| before);
    Some((host.to_owned(), port, format!("{directory}/{location}")))
}

/// A `HealthCheckRequest` of `grpc.health.v1` about `service`, as one gRPC message.
pub fn grpc_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // Field 1, length-delimited.
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0]; // Not compressed.
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// What a gRPC answer means: its status, and the message, if one came.
pub fn grpc_outcome(status: Option<u32>, frame: &[u8]) -> Outcome {
    match status {
        Some(0) => {}
        Some(5) => return Outcome::failed("gRPC 5: the server does not know the service"),
        Some(12) => return Outcome::failed("gRPC 12: the server has no grpc.health.v1.Health"),
        Some(status) => return Outcome::failed(format!("gRPC {status}")),
        None => return Outcome::failed("no gRPC status came"),
    }
    match serving_status(frame) {
        Some(1) => Outcome::new(Health::Passing, "SERVING"),
        Some(0) => Outcome::failed("UNKNOWN"),
        Some(2) => Outcome::failed("NOT_SERVING"),
        Some(3) => Outcome::failed("SERVICE_UNKNOWN"),
        Some(other) => Outcome::failed(format!("serving status {other}")),
        None => Outcome::failed("the answer is no HealthCheckResponse"),
    }
}

/// Field 1 of a `HealthCheckResponse` in one gRPC message; 0 when absent.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (head, mut message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head.get(1..)?.try_into().ok()?);
    if head.first() != Some(&0) || message.len() != length as usize {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    to.push(u8::try_from(number).unwrap_or_default());
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_hundreds_pass_429_warns_and_all_else_is_critical() {
        for (status, want) in [
            (200, Health::Passing),
            (204, Health::Passing),
            (299, Health::Passing),
            (429, Health::Warning),
            (302, Health::Critical),
            (404, Health::Critical),
            (500, Health::Critical),
        ] {
            assert_eq!(http_health(StatusCode::from_u16(status).unwrap()), want, "{status}");
        }
    }

    #[test]
    fn output_is_cut_at_a_character() {
        let outcome = Outcome::failed("中".repeat(2_000));
        assert_eq!(outcome.output.len(), 4_095);
        assert_eq!(http_outcome(StatusCode::OK, b"fine").output, "HTTP 200: fine");
        assert_eq!(http_outcome(StatusCode::OK, b"").output, "HTTP 200");
    }

    #[test]
    fn redirects_lead_where_rfc_3986_says_and_never_to_another_scheme() {
        let from = ("10.0.0.7", 80, "/a/b?x=1");
        for (location, want) in [
            ("/up", Some(("10.0.0.7", 80, "/up"))),
            ("c", Some(("10.0.0.7", 80, "/a/c"))),
            ("http://h:81/x?y", Some(("h", 81, "/x?y"))),
            ("http://h", Some(("h", 80, "/"))),
            ("http://[::1]:9/", Some(("::1", 9, "/"))),
            ("https://h/", None),
            ("//h/x", None),
            ("file:///etc/passwd", None),
        ] {
            let got = redirect(from, location, false);
            let got = got.as_ref().map(|(host, port, path)| (&**host, *port, &**path));
            assert_eq!(got, want, "{location}");
        }
        let at_default = Some(("h".to_owned(), 443, "/".to_owned()));
        assert_eq!(redirect(from, "https://h", true), at_default);
        assert_eq!(redirect(from, "http://h/", true), None, "never to where it is in the clear");
    }

    #[test]
    fn a_grpc_answer_passes_only_when_it_says_serving() {
        let frame = |message: &[u8]| {
            let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            frame.extend_from_slice(message);
            frame
        };
        assert_eq!(grpc_outcome(Some(0), &frame(&[8, 1])).health, Health::Passing);
        for (status, message) in [
            (Some(0), frame(&[8, 2])),
            (Some(0), frame(&[])),
            (Some(0), vec![]),
            (Some(0), vec![1, 0, 0, 0, 2, 8, 1]),
            (Some(12), frame(&[8, 1])),
            (None, frame(&[8, 1])),
        ] {
            assert_eq!(grpc_outcome(status, &message).health, Health::Critical, "{message:?}");
        }
        assert_eq!(grpc_request("a"), [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(grpc_request(""), [0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_answer_confuses_the_reader(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            let passes = grpc_outcome(Some(0), &frame).health == Health::Passing;
            prop_assert_eq!(passes, serving_status(&frame) == Some(1));
        }

        #[test]
        fn fields_of_later_versions_are_skipped(number in any::<u64>(), text in ".{0,20}") {
            let mut message = vec![0x10];
            put_varint(&mut message, number);
            message.push(0x1a);
            put_varint(&mut message, text.len() as u64);
            message.extend_from_slice(text.as_bytes());
            message.extend_from_slice(&[8, 1]);
            let mut frame = vec![0];
            frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(&message);
            prop_assert_eq!(grpc_outcome(Some(0), &frame).health, Health::Passing);
        }
    }
}
