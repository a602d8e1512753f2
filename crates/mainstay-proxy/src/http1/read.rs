//! Heads and trailers, from bytes that the guard has judged.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};

use super::spare;
use crate::framing::{Line, RequestHead, Rule, Span, line};

/// The fields at `spans` of `head`, but for `Connection: keep-alive`: it says what goes without
/// saying in HTTP/1.1, and of this hop alone.
///
/// # Errors
///
/// When `http` does not take for a field what the guard took for one.
pub(crate) fn fields(head: &Bytes, spans: &[Span]) -> Result<HeaderMap, Rule> {
    let mut fields = spare::fields(spans.len());
    for span in spans {
        let (from, to) = (span.name.0 as usize, span.name.1 as usize);
        let name = head.get(from..to).unwrap_or_default();
        let (from, to) = (span.value.0 as usize, span.value.1 as usize);
        if name.eq_ignore_ascii_case(b"connection")
            && head.get(from..to).is_some_and(|value| value.eq_ignore_ascii_case(b"keep-alive"))
        {
            continue;
        }
        let name = HeaderName::from_bytes(name);
        let value = head.slice(from..to);
        let value = HeaderValue::from_maybe_shared(value);
        match (name, value) {
            (Ok(name), Ok(value)) => drop(fields.append(name, value)),
            (Err(_), _) => return Err(Rule::NameToken),
            (_, Err(_)) => return Err(Rule::ValueControl),
        }
    }
    Ok(fields)
}

/// The request that `bytes` begin with, of which the guard says `head`.
///
/// # Errors
///
/// When `http` does not take for a method, a target or a field what the guard took for one.
pub(crate) fn request_head(bytes: &Bytes, head: &RequestHead<'_>) -> Result<Request<()>, Rule> {
    let method = bytes.get(head.method.0..head.method.1).unwrap_or_default();
    let method = Method::from_bytes(method).map_err(|_refused| Rule::Method)?;
    let target = bytes.slice(head.target.0..head.target.1);
    let target = Uri::from_maybe_shared(target).map_err(|_refused| Rule::Target)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = if head.is_1_1 { Version::HTTP_11 } else { Version::HTTP_10 };
    *request.headers_mut() = fields(bytes, head.fields)?;
    Ok(request)
}

/// The fields of a trailer section that the guard has passed.
pub(crate) fn trailers(section: &Bytes) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut at = 0;
    while let Ok(Line::Field { name, value, next }) = line(section, at) {
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            fields.append(name, value);
        }
        at = next;
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Element, Guard, Limits};

    /// Names of the fields of a head that has `Connection: connection`.
    fn names(connection: &str) -> String {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nCONNECTION: {connection}\r\nx: y\r\n\r\n");
        let bytes = Bytes::from(text);
        let mut guard = Guard::new(Limits::default());
        assert!(matches!(guard.next(&bytes), Ok(Element::Head(_))));
        let request = request_head(&bytes, &guard.last_head().unwrap()).unwrap();
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.join(" ")
    }

    #[test]
    fn what_goes_without_saying_is_left_out() {
        assert_eq!(names("Keep-Alive"), "host x");
        assert_eq!(names("close"), "host connection x");
        assert_eq!(names("keep-alive, x"), "host connection x");
    }
}
