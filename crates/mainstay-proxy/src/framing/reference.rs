//! A second opinion on what passed: another parser and plain loops. Shared by the properties of
//! this crate and the fuzz targets.

use super::{Refusal, Verdict};

/// Everything a machine let pass, and why it stopped if it did.
pub(crate) fn run(
    bytes: &[u8],
    cuts: &[usize],
    mut feed: impl FnMut(&[u8]) -> Verdict,
) -> (Vec<u8>, Option<Refusal>) {
    let mut passed = Vec::new();
    let (mut from, mut shown) = (0, 0);
    let mut cuts = cuts.iter().cycle();
    while shown < bytes.len() {
        shown = (shown + cuts.next().copied().unwrap_or(usize::MAX)).min(bytes.len());
        let verdict = feed(&bytes[from..shown]);
        passed.extend_from_slice(&bytes[from..from + verdict.passed()]);
        from += verdict.passed();
        if let Verdict::Refuse { refusal, .. } = verdict {
            return (passed, Some(refusal));
        }
    }
    (passed, None)
}

/// Reads `bytes` as HTTP with httparse and plain loops; panics where they are not. Returns the
/// number of heads. The input ends anywhere.
pub(crate) fn read_again(mut bytes: &[u8]) -> u64 {
    let mut heads = 0;
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut fields);
        let len = match request.parse(bytes).expect("what passed is a request") {
            httparse::Status::Complete(len) => len,
            httparse::Status::Partial => panic!("an incomplete head passed"),
        };
        heads += 1;
        let target = request.path.expect("a complete request has a target");
        assert!(target.parse::<http::Uri>().is_ok(), "{target}");
        let field = |name: &str| {
            let mut all = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
            let first = all.next().map(|h| std::str::from_utf8(h.value).expect("is ASCII"));
            assert!(all.next().is_none(), "two of {name}");
            first
        };
        let (length, coding) = (field("content-length"), field("transfer-encoding"));
        bytes = &bytes[len..];
        if coding.is_some() {
            assert!(length.is_none(), "two lengths");
            bytes = skip_chunks(bytes);
        } else if let Some(length) = length {
            let length: usize = length.parse().expect("a plain number");
            bytes = bytes.get(length..).unwrap_or_default();
        }
    }
    heads
}

fn skip_chunks(mut bytes: &[u8]) -> &[u8] {
    while !bytes.is_empty() {
        let httparse::Status::Complete((len, size)) =
            httparse::parse_chunk_size(bytes).expect("what passed is a chunk size")
        else {
            panic!("half a chunk size passed");
        };
        bytes = &bytes[len..];
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            if bytes.is_empty() {
                return bytes;
            }
            let parsed = httparse::parse_headers(bytes, &mut fields).expect("trailers");
            let httparse::Status::Complete((len, _)) = parsed else { panic!("half a trailer") };
            return &bytes[len..];
        }
        let size = usize::try_from(size).expect("below the limit");
        bytes = bytes.get(size..).unwrap_or_default();
        bytes = match bytes {
            [] => bytes,
            [b'\r', b'\n', rest @ ..] => rest,
            other => panic!("no CRLF after a chunk: {other:?}"),
        };
    }
    bytes
}
