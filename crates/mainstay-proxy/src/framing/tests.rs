//! The rules one by one, on requests and on answers.

use super::*;

/// Shows `text` to a fresh guard; says what it refused, or `""`.
///
/// A `¶` stands for CRLF, so that a head fits a line.
fn refused(text: &str, limits: Limits) -> String {
    let bytes = text.replace('¶', "\r\n").into_bytes();
    let mut guard = Guard::new(limits);
    match guard.feed(&bytes) {
        Verdict::Refuse { refusal, .. } => refusal.rule.as_str().to_owned(),
        Verdict::Pass { passed } | Verdict::Hold { passed } => {
            assert_eq!(passed, bytes.len(), "{text:?} is not complete");
            String::new()
        }
    }
}

/// Small enough to be reached by a line of test.
const SMALL: Limits = Limits {
    head_bytes_max: 2_000,
    headers_max: 5,
    uri_bytes_max: 60,
    body_bytes_max: 5_000,
    connect: false,
};

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, want) in cases {
        assert_eq!(refused(text, SMALL), *want, "{text:?}");
    }
}

#[test]
fn what_is_well_formed_passes() {
    check(&[
        ("GET / HTTP/1.1¶Host: a¶¶", ""),
        ("¶GET / HTTP/1.1¶Host: a¶¶", ""),
        ("GET /a\"{|}/%2e?x={|}\\^`~ HTTP/1.1¶host:a:80¶¶", ""),
        ("GET / HTTP/1.0¶¶", ""),
        ("OPTIONS * HTTP/1.1¶Host: [::1]:8080¶¶", ""),
        ("GET http://A.b:80/x?y HTTP/1.1¶Host: a.B:80¶¶", ""),
        ("GET HTTPS://a HTTP/1.1¶Host: a¶¶", ""),
        ("GET http://a/ HTTP/1.0¶¶", ""),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 3¶¶abc", ""),
        ("POST / HTTP/1.1¶Host: a¶Content-Length:0003¶¶abc", ""),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: CHUNKED¶¶3¶abc¶0¶¶", ""),
        (
            "POST / HTTP/1.1¶Host: a¶Transfer-Encoding:chunked¶¶00A;x=\"y z\"¶0123456789¶0¶X-T: 1¶¶",
            "",
        ),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 0¶¶GET / HTTP/1.1¶Host: a¶¶", ""),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 1¶¶xGET / HTTP/1.1¶Host: a¶¶", ""),
        ("POST / HTTP/1.1¶Host: a¶Expect: 100-Continue¶Content-Length: 1¶¶x", ""),
        ("GET / HTTP/1.1¶Host: a¶x:¶y: \t ¶z: a\tb\u{e9}¶¶", ""),
        ("GET / HTTP/1.1¶Host: a¶Upgrade: websocket¶Connection: Upgrade¶¶", ""),
    ]);
}

#[test]
fn lines_end_in_crlf() {
    check(&[
        ("GET / HTTP/1.1\nHost: a¶¶", "bare-lf"),
        ("GET / HTTP/1.1¶Host: a\n¶", "bare-lf"),
        ("GET / HTTP/1.1¶Host: a¶\n", "bare-lf"),
        ("\nGET / HTTP/1.1¶Host: a¶¶", "bare-lf"),
        ("GET / HTTP/1.1¶Host\n: a¶¶", "bare-lf"),
        ("GET /\rx HTTP/1.1¶Host: a¶¶", "bare-cr"),
        ("GET\r/ HTTP/1.1¶Host: a¶¶", "bare-cr"),
        ("GET / HTTP/1.1\r¶Host: a¶¶", "bare-cr"),
        ("GET / HTTP/1.1¶Host: a\rb¶¶", "bare-cr"),
        ("GET / HTTP/1.1¶Host: a¶\rx: y¶¶", "bare-cr"),
        ("¶¶GET / HTTP/1.1¶Host: a¶¶", "empty-lines"),
        ("GET / HTTP/1.1¶Host: a¶¶¶¶GET / HTTP/1.1¶Host: a¶¶", "empty-lines"),
    ]);
}

#[test]
fn the_start_line_has_three_parts_one_space_apart() {
    check(&[
        ("GET  / HTTP/1.1¶Host: a¶¶", "start-line"),
        ("GET /  HTTP/1.1¶Host: a¶¶", "start-line"),
        ("GET\t/ HTTP/1.1¶Host: a¶¶", "start-line"),
        ("GET /\tHTTP/1.1¶Host: a¶¶", "start-line"),
        (" GET / HTTP/1.1¶Host: a¶¶", "start-line"),
        ("GET / HTTP/1.1 ¶Host: a¶¶", "start-line"),
        ("GET / x HTTP/1.1¶Host: a¶¶", "start-line"),
        ("GET /¶Host: a¶¶", "start-line"),
        ("GET¶¶", "start-line"),
        ("GET / http/1.1¶Host: a¶¶", "start-line"),
        ("GET / HTTP/1.2¶Host: a¶¶", "version"),
        ("GET / HTTP/2.0¶Host: a¶¶", "version"),
        ("GET / HTTP/1.10¶Host: a¶¶", "version"),
        ("GET / HTTP/01.1¶Host: a¶¶", "version"),
        ("G(T / HTTP/1.1¶Host: a¶¶", "method"),
        ("G\u{e9}T / HTTP/1.1¶Host: a¶¶", "method"),
        ("GET /\u{e9} HTTP/1.1¶Host: a¶¶", "target"),
        ("GET /\0 HTTP/1.1¶Host: a¶¶", "target"),
        ("GET /\u{7f} HTTP/1.1¶Host: a¶¶", "target"),
        ("GET a HTTP/1.1¶Host: a¶¶", "target"),
        ("GET * HTTP/1.1¶Host: a¶¶", "target"),
        ("GET ftp://a/ HTTP/1.1¶Host: a¶¶", "target"),
        ("GET http://u@a/ HTTP/1.1¶Host: u@a¶¶", "host-form"),
        ("GET http://u@a/ HTTP/1.1¶Host: a¶¶", "target"),
        ("GET http:///x HTTP/1.1¶Host: a¶¶", "target"),
        ("GET /a#b HTTP/1.1¶Host: a¶¶", "fragment"),
        ("CONNECT a:443 HTTP/1.1¶Host: a:443¶¶", "method-connect"),
        ("TRACE / HTTP/1.1¶Host: a¶¶", "method-trace"),
    ]);
}

#[test]
fn fields_are_name_colon_value() {
    check(&[
        ("GET / HTTP/1.1¶Host: a¶x: y¶ z¶¶", "obs-fold"),
        ("GET / HTTP/1.1¶Host: a¶x: y¶\tz¶¶", "obs-fold"),
        ("GET / HTTP/1.1¶ Host: a¶¶", "obs-fold"),
        ("GET / HTTP/1.1¶Host: a¶: y¶¶", "name-empty"),
        ("GET / HTTP/1.1¶Host: a¶x¶¶", "name-empty"),
        ("GET / HTTP/1.1¶Host : a¶¶", "name-space"),
        ("GET / HTTP/1.1¶Host\t: a¶¶", "name-space"),
        ("GET / HTTP/1.1¶Host: a¶x y: z¶¶", "name-space"),
        ("GET / HTTP/1.1¶Host: a¶x\0: y¶¶", "name-token"),
        ("GET / HTTP/1.1¶Host: a¶x\u{b}: y¶¶", "name-token"),
        ("GET / HTTP/1.1¶Host: a¶\u{e9}: y¶¶", "name-token"),
        ("GET / HTTP/1.1¶Host: a¶(x): y¶¶", "name-token"),
        ("GET / HTTP/1.1¶Host: a¶x: \0¶¶", "value-control"),
        ("GET / HTTP/1.1¶Host: a¶x: y\u{7f}z¶¶", "value-control"),
        ("GET / HTTP/1.1¶Host: a¶x: 01234567\u{1b}[2J¶¶", "value-control"),
    ]);
}

#[test]
fn a_body_has_one_length_told_in_one_way() {
    let post = |fields: &str| refused(&format!("POST / HTTP/1.1¶Host: a¶{fields}¶¶"), SMALL);
    for (fields, want) in [
        ("Content-Length: 4¶Transfer-Encoding: chunked", "length-and-coding"),
        ("Transfer-Encoding: chunked¶Content-Length: 4", "length-and-coding"),
        ("Content-Length: 0¶Content-Length: 0", "length-repeated"),
        ("Content-Length: 0¶CONTENT-LENGTH: 1", "length-repeated"),
        ("Content-Length: 0, 0", "length-list"),
        ("Content-Length: 1,2", "length-list"),
        ("Content-Length: +1", "length-form"),
        ("Content-Length: -1", "length-form"),
        ("Content-Length: 1 ", "length-form"),
        ("Content-Length:  1", "length-form"),
        ("Content-Length:\t1", "length-form"),
        ("Content-Length: 1 1", "length-form"),
        ("Content-Length: 0x1", "length-form"),
        ("Content-Length: 1_0", "length-form"),
        ("Content-Length:", "length-form"),
        ("Content-Length: ", "length-form"),
        ("Content-Length: 00000000000000000001", "length-form"),
        ("Content-Length: 9999999999999999999", "body-bytes"),
        ("Content-Length: 5001", "body-bytes"),
        ("Transfer-Encoding: chunked¶Transfer-Encoding: chunked", "coding-repeated"),
        ("Transfer-Encoding: identity", "coding"),
        ("Transfer-Encoding: gzip, chunked", "coding"),
        ("Transfer-Encoding: chunked, chunked", "coding"),
        ("Transfer-Encoding: chunked, identity", "coding"),
        ("Transfer-Encoding: chunked;q=1", "coding"),
        ("Transfer-Encoding: \u{b}chunked", "value-control"),
        ("Transfer-Encoding:\tchunked", "coding"),
        ("Transfer-Encoding: chunked\t", "coding"),
        ("Transfer-Encoding: chunked ", "coding"),
        ("Transfer-Encoding:  chunked", "coding"),
        ("Transfer-Encoding: xchunked", "coding"),
        ("Transfer-Encoding: \"chunked\"", "coding"),
        ("Transfer-Encoding: ", "coding"),
        ("Transfer-Encoding : chunked", "name-space"),
        ("Transfer-Encoding¶ : chunked", "name-empty"),
        ("X: y¶ Transfer-Encoding: chunked", "obs-fold"),
    ] {
        assert_eq!(post(fields), want, "{fields:?}");
    }
    check(&[("POST / HTTP/1.0¶Transfer-Encoding: chunked¶¶0¶¶", "coding-version")]);
}

#[test]
fn there_is_one_host_and_it_is_a_host() {
    check(&[
        ("GET / HTTP/1.1¶¶", "host-missing"),
        ("GET http://a/ HTTP/1.1¶¶", "host-missing"),
        ("GET / HTTP/1.1¶Host: a¶Host: a¶¶", "host-repeated"),
        ("GET / HTTP/1.0¶Host: a¶host: b¶¶", "host-repeated"),
        ("GET / HTTP/1.1¶Host:¶¶", "host-form"),
        ("GET / HTTP/1.1¶Host: u@a¶¶", "host-form"),
        ("GET / HTTP/1.1¶Host: a/b¶¶", "host-form"),
        ("GET / HTTP/1.1¶Host: a:b¶¶", "host-form"),
        ("GET / HTTP/1.1¶Host: a:¶¶", "host-form"),
        ("GET / HTTP/1.1¶Host: a, b¶¶", "host-form"),
        ("GET / HTTP/1.1¶Host: http://a¶¶", "host-form"),
        ("GET http://a/ HTTP/1.1¶Host: b¶¶", "host-target"),
        ("GET http://a:80/ HTTP/1.1¶Host: a¶¶", "host-target"),
        ("GET http://a/ HTTP/1.0¶Host: b¶¶", "host-target"),
        ("GET / HTTP/1.1¶Host: a¶Expect: 200-ok¶¶", "expect"),
        ("GET / HTTP/1.1¶Host: a¶Expect: 100-continue, x¶¶", "expect"),
    ]);
}

#[test]
fn chunks_are_plain() {
    let long = |n: usize| "x".repeat(n);
    let body = |body: &str| {
        refused(&format!("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶{body}"), SMALL)
    };
    for (text, want) in [
        ("0x1¶a¶0¶¶", "chunk-size"),
        ("+1¶a¶0¶¶", "chunk-size"),
        ("-1¶a¶0¶¶", "chunk-size"),
        ("1_0¶a¶0¶¶", "chunk-size"),
        (" 1¶a¶0¶¶", "chunk-size"),
        ("1 ¶a¶0¶¶", "chunk-size"),
        ("1 ;x¶a¶0¶¶", "chunk-size"),
        ("1\t¶a¶0¶¶", "chunk-size"),
        ("¶a¶0¶¶", "chunk-size"),
        (";x¶a¶0¶¶", "chunk-size"),
        ("g¶a¶0¶¶", "chunk-size"),
        ("00000000000000001¶a¶0¶¶", "chunk-size"),
        ("ffffffffffffffff¶a", "body-bytes"),
        ("1389¶", "body-bytes"),
        ("1388¶", ""),
        ("1\na¶0¶¶", "bare-lf"),
        ("1;x\na¶0¶¶", "bare-lf"),
        ("1\r\r\na¶0¶¶", "bare-cr"),
        ("1;\rx¶a¶0¶¶", "bare-cr"),
        ("1;\0¶a¶0¶¶", "chunk-extension"),
        ("1¶ab¶0¶¶", "chunk-end"),
        ("1¶a\n0¶¶", "chunk-end"),
        ("1¶a\rx", "chunk-end"),
        ("1¶a0¶¶", "chunk-end"),
        ("0¶\n", "bare-lf"),
        ("0¶x: y\n¶", "bare-lf"),
        ("0¶x: y¶ z¶¶", "obs-fold"),
        ("0¶x : y¶¶", "name-space"),
        ("0¶Content-Length: 4¶¶", "trailer-name"),
        ("0¶x: y¶host: b¶¶", "trailer-name"),
        ("0¶AUTHORIZATION: b¶¶", "trailer-name"),
        ("0¶X-Forwarded-For: b¶¶", "trailer-name"),
        ("0¶transfer-encoding: chunked¶¶", "trailer-name"),
    ] {
        assert_eq!(body(text), want, "{text:?}");
    }
    let extensions = |count: usize, len: usize| {
        body(&format!("{}0¶¶", format!("1;{}¶a¶", long(len - 1)).repeat(count)))
    };
    assert_eq!(extensions(1, 256), "");
    assert_eq!(extensions(1, 257), "chunk-extension");
    assert_eq!(extensions(4, 256), "");
    assert_eq!(extensions(5, 256), "chunk-extension");
    assert_eq!(body(&format!("1;{}", long(500))), "chunk-extension", "without an end");
    assert_eq!(body(&format!("1{}", long(500))), "chunk-size", "without an end");
    assert_eq!(body(&format!("0¶x: {}¶¶", long(4096 - 7))), "");
    assert_eq!(body(&format!("0¶x: {}¶¶", long(4096 - 6))), "trailer-bytes");
    assert_eq!(body(&format!("0¶x: {}", long(5000))), "trailer-bytes", "without an end");
}

#[test]
fn nothing_follows_the_last_message() {
    check(&[
        ("GET / HTTP/1.1¶Host: a¶Connection: close¶¶GET", "bytes-after-close"),
        ("GET / HTTP/1.1¶Host: a¶Connection: x, CLOSE¶¶¶", "bytes-after-close"),
        ("POST / HTTP/1.1¶Host: a¶Connection: close¶Content-Length: 1¶¶ab", "bytes-after-close"),
        ("GET / HTTP/1.0¶¶G", "bytes-after-close"),
        ("GET / HTTP/1.0¶Connection: keep-alive¶¶G", "bytes-after-close"),
    ]);
}

#[test]
fn limits_are_kept_to_the_byte() {
    let long = |n: usize| "x".repeat(n);
    let target = |n: usize| refused(&format!("GET /{} HTTP/1.1¶Host: a¶¶", long(n - 1)), SMALL);
    assert_eq!(target(60), "");
    assert_eq!(target(61), "uri-bytes");
    assert_eq!(refused(&format!("GET /{}", long(500)), SMALL), "uri-bytes", "without an end");
    let head = |n: usize| refused(&format!("GET / HTTP/1.1¶Host: a¶x: {}¶¶", long(n - 32)), SMALL);
    assert_eq!(head(2_000), "");
    assert_eq!(head(2_001), "head-bytes");
    let fields =
        |n: usize| refused(&format!("GET / HTTP/1.1¶Host: a¶{}¶", "x: y¶".repeat(n)), SMALL);
    assert_eq!(fields(4), "");
    assert_eq!(fields(5), "head-fields");
    check(&[("POST / HTTP/1.1¶Host: a¶Content-Length: 5001¶¶", "body-bytes")]);
}

#[test]
fn every_rule_has_a_page_of_its_own_name() {
    for (index, rule) in Rule::ALL.iter().enumerate() {
        let name = rule.as_str();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        assert!(Rule::ALL[..index].iter().all(|other| other.as_str() != name), "{name} twice");
        let answer = Refusal::of_request(*rule, false).response_bytes();
        let text = String::from_utf8(answer).expect("the answer is ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("the answer has a head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        let document: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(document["code"], rule.problem().as_str());
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", document["status"])), "{text}");
    }
}

#[test]
fn a_switch_of_protocols_holds_what_follows() {
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let mut guard = Guard::new(SMALL);
    let both = [ask.as_slice(), b"\x81\x00"].concat();
    assert_eq!(guard.feed(&both), Verdict::Hold { passed: ask.len() });
    assert_eq!(guard.phase(), Phase::Held);

    guard.resume();
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(guard.feed(get), Verdict::Pass { passed: get.len() });
    assert_eq!(guard.heads(), 2);
}

#[test]
fn the_phase_follows_the_bytes() {
    let mut guard = Guard::new(SMALL);
    let post = b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde";
    let mut phases = Vec::new();
    let (mut shown, mut from) = (0, 0);
    while shown < post.len() {
        shown += 1;
        from += guard.feed(&post[from..shown]).passed();
        if phases.last() != Some(&guard.phase()) {
            phases.push(guard.phase());
        }
    }
    let mut want = vec![Phase::Head, Phase::Idle, Phase::Head];
    want.extend((0..5).map(|received| Phase::Body { received }));
    want.push(Phase::Idle);
    assert_eq!(phases, want);
}

/// Shows `text` to a guard that asked `asked`; says what it refused, `tunnel`, `open` when the
/// answer is not complete, or `""`.
fn answered(asked: Asked, text: &str) -> String {
    let bytes = text.replace('¶', "\r\n").into_bytes();
    let mut guard = ResponseGuard::new(65_536);
    guard.ask(asked);
    match guard.feed(&bytes) {
        Verdict::Refuse { refusal, .. } => refusal.rule.as_str().to_owned(),
        _ if guard.phase() == Phase::Tunnel => "tunnel".to_owned(),
        _ if guard.is_free() => String::new(),
        _ => "open".to_owned(),
    }
}

#[test]
fn answers_end_where_they_say() {
    use Asked::{Connect, Head, Nothing, Plain, Upgrade};
    for (asked, text, want) in [
        (Plain, "HTTP/1.1 200 OK¶Content-Length: 2¶¶ab", ""),
        (Plain, "HTTP/1.1 200¶Content-Length: 0¶¶", ""),
        (Plain, "HTTP/1.0 200 OK¶¶abc", "open"),
        (Plain, "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶1¶a¶0¶X: y¶¶", ""),
        (Plain, "HTTP/1.1 204 No Content¶¶", ""),
        (Plain, "HTTP/1.1 204 No Content¶Content-Length: 0¶¶", ""),
        (Plain, "HTTP/1.1 304 Not Modified¶Content-Length: 9¶¶", ""),
        (Head, "HTTP/1.1 200 OK¶Content-Length: 9¶¶", ""),
        (Head, "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶", ""),
        (Plain, "HTTP/1.1 103 Early Hints¶¶HTTP/1.1 100 Continue¶¶HTTP/1.1 204 x¶¶", ""),
        (Plain, "HTTP/1.1 100 Continue¶¶", "open"),
        (Upgrade, "HTTP/1.1 101 Switching Protocols¶¶\0\n", "tunnel"),
        (Upgrade, "HTTP/1.1 400 Bad Request¶Content-Length: 0¶¶", ""),
        (Connect, "HTTP/1.1 200 OK¶Content-Length: 5¶¶\0", "tunnel"),
        (Plain, "HTTP/1.1 101 Switching Protocols¶¶", "switch-unasked"),
        (Connect, "HTTP/1.1 101 Switching Protocols¶¶", "switch-unasked"),
        (Nothing, "HTTP/1.1 408 x¶¶", "bytes-unasked"),
        (Plain, "HTTP/1.1 200 OK¶Content-Length: 2¶¶abc", "bytes-unasked"),
        (Plain, "HTTP/1.1 204 x¶¶a", "bytes-unasked"),
        (Head, "HTTP/1.1 200 OK¶Content-Length: 1¶¶a", "bytes-unasked"),
        (
            Plain,
            "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶0¶¶HTTP/1.1 200 OK¶¶",
            "bytes-unasked",
        ),
        (
            Plain,
            "HTTP/1.1 200 OK¶Content-Length: 1¶Transfer-Encoding: chunked¶¶",
            "length-and-coding",
        ),
        (Plain, "HTTP/1.1 200 OK¶Content-Length: 1¶Content-Length: 1¶¶a", "length-repeated"),
        (Plain, "HTTP/1.1 200 OK¶Content-Length: 1, 1¶¶a", "length-list"),
        (Plain, "HTTP/1.1 200 OK¶Content-Length: -1¶¶a", "length-form"),
        (Plain, "HTTP/1.1 204 x¶Content-Length: 1¶¶a", "length-unasked"),
        (Plain, "HTTP/1.1 204 x¶Transfer-Encoding: chunked¶¶", "length-unasked"),
        (Plain, "HTTP/1.1 200 OK¶Transfer-Encoding: gzip, chunked¶¶", "coding"),
        (Plain, "HTTP/1.0 200 OK¶Transfer-Encoding: chunked¶¶", "coding-version"),
        (Plain, "HTTP/1.1 200 OK\nContent-Length: 0¶¶", "bare-lf"),
        (Plain, "HTTP/1.1 200 OK¶x: y\n¶", "bare-lf"),
        (Plain, "HTTP/1.1 200 OK\rx¶¶", "bare-cr"),
        (Plain, "HTTP/1.1 200 OK¶x: y¶ z¶¶", "obs-fold"),
        (Plain, "HTTP/1.1 200 OK¶x : y¶¶", "name-space"),
        (Plain, "HTTP/1.1 200 OK¶x: \0¶¶", "value-control"),
        (Plain, "HTTP/1.1 20 OK¶¶", "start-line"),
        (Plain, "HTTP/1.1 2000 OK¶¶", "start-line"),
        (Plain, "HTTP/1.1 099 OK¶¶", "start-line"),
        (Plain, "HTTP/1.1  200 OK¶¶", "start-line"),
        (Plain, "¶HTTP/1.1 200 OK¶¶", "start-line"),
        (Plain, "ICY 200 OK¶¶", "start-line"),
        (Plain, "HTTP/2 200 OK¶¶", "version"),
        (Plain, "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶0x1¶", "chunk-size"),
        (Plain, "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶1¶ab¶", "chunk-end"),
        (
            Plain,
            "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶0¶content-length: 1¶¶",
            "trailer-name",
        ),
    ] {
        assert_eq!(answered(asked, text), want, "{asked:?} {text:?}");
    }
    let fields = |n: usize| answered(Plain, &format!("HTTP/1.1 204 x¶{}¶", "x: y¶".repeat(n)));
    assert_eq!((fields(100).as_str(), fields(101).as_str()), ("", "head-fields"));
    let head = |n: usize| answered(Plain, &format!("HTTP/1.1 204 x¶x: {}¶¶", "y".repeat(n - 23)));
    assert_eq!((head(64 << 10).as_str(), head((64 << 10) + 1).as_str()), ("", "head-bytes"));
}
