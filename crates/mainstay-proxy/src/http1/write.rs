//! Heads and chunks, as they are written.

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri, Version};

use crate::framing::forbidden_trailer;

/// How a body is marked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// There is no body, and nothing says so.
    Nothing,
    /// There is no body; the fields say what there would be of it, as for `HEAD` and 304.
    AsSaid,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked {
        /// Trailers are sent after the last one.
        trailers: bool,
    },
    /// By the end of the connection; for HTTP/1.0.
    ToTheEnd,
}

/// Writes the head of a request over HTTP/1.1, in origin form.
pub(crate) fn request_head(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    fields: &HeaderMap,
    frame: Frame,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    match (uri.path_and_query(), uri.authority()) {
        (Some(target), _) => out.extend_from_slice(target.as_str().as_bytes()),
        (None, Some(authority)) => out.extend_from_slice(authority.as_str().as_bytes()),
        (None, None) => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, fields, false);
    write_frame(out, frame);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an answer, with `date` where it has none of its own.
pub(crate) fn response_head(
    out: &mut Vec<u8>,
    (status, version): (StatusCode, Version),
    fields: &HeaderMap,
    frame: Frame,
    date: Option<&[u8]>,
) {
    let start = match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    };
    out.extend_from_slice(start);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    write_frame(out, frame);
    write_fields(out, fields, frame == Frame::AsSaid);
    if let Some(date) = date {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap, with_length: bool) {
    for (name, value) in fields {
        if name == TRANSFER_ENCODING || (name == CONTENT_LENGTH && !with_length) {
            continue; // Framing is ours to say.
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn write_frame(out: &mut Vec<u8>, frame: Frame) {
    match frame {
        Frame::Nothing | Frame::AsSaid | Frame::ToTheEnd => (),
        Frame::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            write_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Frame::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Writes the line before a chunk of `length` bytes.
pub(crate) fn chunk_line(out: &mut Vec<u8>, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = usize::BITS.div_ceil(4) - (length | 1).leading_zeros() / 4;
    for place in (0..digits).rev() {
        out.push(DIGITS[length >> (place * 4) & 0xF]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk, and `trailers` without those that may only stand in a head.
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if !forbidden_trailer(name.as_str().as_bytes()) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        let digit = (number % 10) as u8;
        digits[at] = b'0' + digit;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The present second as `Date` says it (RFC 9110 section 5.6.7), formatted once a second.
#[derive(Debug)]
pub(crate) struct DateText {
    second: u64,
    text: [u8; 29],
}

impl Default for DateText {
    fn default() -> Self {
        Self { second: u64::MAX, text: [b' '; 29] }
    }
}

impl DateText {
    /// The text for `now`.
    pub(crate) fn at(&mut self, now: SystemTime) -> &[u8; 29] {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            let text =
                httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(self.second));
            if let Ok(text) = text.as_bytes().try_into() {
                self.text = text;
            }
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 4_096, 65_535, 65_536, 10_485_760] {
            assert_eq!(text(|out| write_decimal(out, number)), number.to_string());
            let length = usize::try_from(number).unwrap();
            assert_eq!(text(|out| chunk_line(out, length)), format!("{number:x}\r\n"));
        }
        assert_eq!(text(|out| write_decimal(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(text(|out| chunk_line(out, usize::MAX)), format!("{:x}\r\n", usize::MAX));
    }

    #[test]
    fn framing_is_ours_and_what_came_in_is_dropped() {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_LENGTH, "7".parse().unwrap());
        fields.insert(TRANSFER_ENCODING, "chunked".parse().unwrap());
        fields.insert("x", "y".parse().unwrap());
        let head = |frame| {
            let uri = "http://a/b?c".parse().unwrap();
            text(|out| request_head(out, &Method::POST, &uri, &fields, frame))
        };
        let start = "POST /b?c HTTP/1.1\r\nx: y\r\n";
        assert_eq!(head(Frame::Length(3)), format!("{start}content-length: 3\r\n\r\n"));
        assert_eq!(
            head(Frame::Chunked { trailers: true }),
            format!("{start}transfer-encoding: chunked\r\n\r\n")
        );
        assert_eq!(head(Frame::Nothing), format!("{start}\r\n"));
        let answer = text(|out| {
            let start = (StatusCode::NOT_MODIFIED, Version::HTTP_11);
            response_head(out, start, &fields, Frame::AsSaid, Some(b"now"));
        });
        let want = "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\nx: y\r\ndate: now\r\n\r\n";
        assert_eq!(answer, want);
    }

    #[test]
    fn trailers_that_belong_in_a_head_are_left_out() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("authorization", "x".parse().unwrap());
        let end = text(|out| last_chunk(out, Some(&trailers)));
        assert_eq!(end, "0\r\ngrpc-status: 0\r\n\r\n");
        assert_eq!(text(|out| last_chunk(out, None)), "0\r\n\r\n");
    }

    #[test]
    fn the_date_follows_the_clock() {
        let mut date = DateText::default();
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!(date.at(at(0)), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date.at(at(784_111_777)), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
