//! Truths about the guard for any bytes, cut in any way. The fuzz targets check the same.

use bytes::Bytes;
use proptest::prelude::*;

use super::reference::{read_again, run};
use super::*;

/// Messages that are nearly right: pieces of good ones with a few bytes changed.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nabcdefg",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "a;x=y\r\n0123456789\r\n",
        "0\r\n\r\n",
        "0\r\nx: y\r\n\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "GET / HTTP/1.0\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: a\r\n",
        "x : y\r\n",
        "HEAD http://a/ HTTP/1.1\r\n",
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 204 x\r\n\r\n",
    ]);
    let edit = (any::<prop::sample::Index>(), any::<u8>());
    (prop::collection::vec(piece, 1..8), prop::collection::vec(edit, 0..2)).prop_map(
        |(pieces, edits)| {
            let mut bytes = pieces.concat().into_bytes();
            for (index, byte) in edits {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    (40_usize..200, 1_usize..6, 5_usize..40, 1_u64..20).prop_map(|(head, fields, uri, body)| {
        Limits {
            head_bytes_max: head,
            headers_max: fields,
            uri_bytes_max: uri,
            body_bytes_max: body,
            connect: false,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// How the bytes are cut into reads changes nothing.
    #[test]
    fn cuts_do_not_matter(
        bytes in nearly_http(),
        cuts in prop::collection::vec(1_usize..30, 1..6),
        limits in limits(),
    ) {
        let feed = |cuts: &[usize]| {
            let mut guard = Guard::new(limits);
            let (passed, refusal) = run(&bytes, cuts, |bytes| guard.feed(bytes));
            (passed, refusal, guard.heads())
        };
        let whole = feed(&[]);
        prop_assert_eq!(&feed(&[1]), &whole);
        prop_assert_eq!(&feed(&cuts), &whole);
        // Everything but the limits again, where more passes.
        let answers = |cuts: &[usize], asked: Asked| {
            let mut guard = ResponseGuard::new(65_536);
            guard.ask(asked);
            run(&bytes, cuts, |bytes| guard.feed(bytes))
        };
        for asked in [Asked::Plain, Asked::Head, Asked::Upgrade] {
            prop_assert_eq!(answers(&[1], asked), answers(&[], asked));
        }
    }

    /// What passes is read alike by another parser, with the same number of requests.
    #[test]
    fn another_parser_agrees(bytes in nearly_http()) {
        let mut guard = Guard::new(Limits::default());
        let (passed, _) = run(&bytes, &[], |bytes| guard.feed(bytes));
        prop_assert_eq!(read_again(&passed), guard.heads());
    }

    /// A head that passes is a request whose method, target and fields are those that another parser
    /// finds in it.
    #[test]
    fn what_passes_is_what_is_passed_on(bytes in nearly_http()) {
        let mut guard = Guard::new(Limits::default());
        let mut at = 0;
        while let Ok(element) = guard.next(&bytes[at..]) {
            match element {
                Element::Head(len) => {
                    let head = Bytes::copy_from_slice(&bytes[at..at + len]);
                    let found = guard.last_head().expect("a head has passed");
                    let request = crate::http1::request_head(&head, &found).expect("a request");
                    let mut fields = [httparse::EMPTY_HEADER; 128];
                    let mut other = httparse::Request::new(&mut fields);
                    let parsed = other.parse(&head).expect("what passed is a request");
                    prop_assert!(parsed.is_complete());
                    prop_assert_eq!(Some(request.method().as_str()), other.method);
                    prop_assert_eq!(Some(request.uri().to_string()), other.path.map(str::to_owned));
                    prop_assert_eq!(request.version() == http::Version::HTTP_11, other.version == Some(1));
                    prop_assert_eq!(request.headers().len(), other.headers.len());
                    for field in other.headers.iter() {
                        let values = request.headers().get_all(field.name);
                        prop_assert!(values.iter().any(|v| v.as_bytes() == field.value.trim_ascii()));
                    }
                    at += len;
                }
                Element::Content(len) | Element::Framing(len) | Element::Trailers(len) => at += len,
                Element::Held => guard.resume(),
                Element::Partial => break,
            }
        }
    }

    /// Nothing makes a machine panic, and a refusal is final.
    #[test]
    fn any_bytes_will_do(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut guard = Guard::new(Limits::default());
        if let Verdict::Refuse { refusal, .. } = guard.feed(&bytes) {
            prop_assert_eq!(guard.feed(b"GET /"), Verdict::Refuse { passed: 0, refusal });
        }
    }
}

/// Every byte that may stand in a target is one that `http::Uri` keeps as it is.
#[test]
fn a_target_survives_the_uri_type() {
    for byte in 0..=255_u8 {
        for place in ["/a", "/a?b"] {
            let target = [place.as_bytes(), &[byte], b"c"].concat();
            let head = [b"GET ", target.as_slice(), b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            if matches!(Guard::new(Limits::default()).feed(&head), Verdict::Pass { .. }) {
                let uri = http::Uri::try_from(target.as_slice()).map(|uri| uri.to_string());
                let text = String::from_utf8(target).expect("it passed as ASCII");
                assert_eq!(uri.ok(), Some(text), "byte {byte:#x}");
            }
        }
    }
}
