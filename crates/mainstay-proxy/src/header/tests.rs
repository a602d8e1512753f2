use proptest::prelude::*;

use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

/// Applies `change` to the fields `before`, one `name: value` a line part, and compares what stays.
#[track_caller]
fn check(before: &[(&str, &str)], change: impl FnOnce(&mut HeaderMap), after: &[&str]) {
    let mut headers = map(before);
    change(&mut headers);
    let mut got: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    got.sort_unstable();
    assert_eq!(got, after, "{before:?}");
}

#[test]
fn fields_of_one_hop_stay_behind() {
    let fields = [
        ("accept", "*/*"),
        ("connection", "keep-alive, X-One"),
        ("connection", "x-two, close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip, Trailers"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-t"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAA"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-two", "2"),
    ];
    check(&fields, remove_hop_by_hop, &["accept: */*", "te: trailers", "trailer: x-t"]);
    check(&[("te", "gzip")], remove_hop_by_hop, &[]);
    check(&[("connection", "TE"), ("te", "trailers")], remove_hop_by_hop, &["te: trailers"]);
    check(&[("a", "b")], remove_hop_by_hop, &["a: b"]);
}

#[test]
fn connection_cannot_remove_who_and_what() {
    let named = [
        "host",
        "content-length",
        "authorization",
        "cookie",
        "forwarded",
        "x-forwarded-for",
        "traceparent",
        "mainstay-timeout-ms",
        "x-mainstay-user",
    ];
    let mut fields: Vec<(&str, &str)> = named.iter().map(|&name| (name, "1")).collect();
    let all = named.join(" ,\t").to_uppercase();
    fields.push(("connection", &all));
    let mut stays: Vec<String> = named.iter().map(|name| format!("{name}: 1")).collect();
    stays.sort_unstable();
    let stays: Vec<&str> = stays.iter().map(String::as_str).collect();
    check(&fields, remove_hop_by_hop, &stays);
    check(&[("connection", "(, ,x"), ("x", "1")], remove_hop_by_hop, &[]);
}

#[test]
fn nobody_else_speaks_in_our_name() {
    let fields = [
        ("mainstay-attempt", "2"),
        ("mainstay-fencing-token", "7"),
        ("mainstay-gid", "g"),
        ("mainstay-outcome", "ok"),
        ("mainstay-timeout-ms", "5"),
        ("mainstay_attempt", "2"),
        ("mainstay_timeout-ms", "5"),
        ("x-forwarded-client-cert", "c"),
        ("x-forwarded-for", "f"),
        ("x-forwarded_client-cert", "c"),
        ("x-mainstay-user", "u"),
        ("x-user", "u"),
        ("x_mainstay_user", "u"),
        ("x_user", "u"),
    ];
    let claims = [HeaderName::from_static("x-user")];
    let remove = |trusted, inbound| {
        let claims = &claims;
        move |headers: &mut HeaderMap| remove_foreign_identity(headers, trusted, inbound, claims)
    };
    let kept = ["mainstay-attempt: 2", "mainstay-fencing-token: 7", "mainstay-timeout-ms: 5"];
    let x = "x-forwarded-for: f";
    check(&fields, remove(false, Inbound::Gateway), &[kept[0], kept[1], kept[2], x]);
    let gid = "mainstay-gid: g";
    check(&fields, remove(false, Inbound::Sidecar), &[kept[0], kept[1], gid, kept[2], x]);
    let outcome = "mainstay-outcome: ok";
    check(&fields, remove(true, Inbound::Gateway), &[kept[0], kept[1], gid, outcome, kept[2], x]);
}

#[test]
fn there_is_one_request_id() {
    let ensure = |headers: &mut HeaderMap| {
        let seen = Seen::of(headers);
        let id = ensure_request_id(headers, seen, [1, 0xab], &mut Scribe::new());
        assert_eq!(id.as_ref(), headers.get("x-request-id"));
    };
    let made = "x-request-id: 000000000000000100000000000000ab";
    let (longest, long) = ("x".repeat(128), "x".repeat(129));
    check(&[("x-request-id", "A-z_0.9")], ensure, &["x-request-id: A-z_0.9"]);
    check(&[("x-request-id", &longest)], ensure, &[&format!("x-request-id: {longest}")]);
    for bad in ["", &long, "a b", "a\"b", "a/b"] {
        check(&[("x-request-id", bad)], ensure, &[made]);
    }
    check(&[("x-request-id", "a"), ("x-request-id", "a")], ensure, &[made]);
    check(&[], ensure, &[made]);
}

#[test]
fn expect_is_answered_here() {
    let take = |fields: &[(&str, &str)], version| {
        let mut headers = map(fields);
        let outcome = take_expect(&mut headers, version);
        assert!(!headers.contains_key(EXPECT), "{fields:?}");
        outcome
    };
    assert_eq!(take(&[], Version::HTTP_11), Ok(false));
    assert_eq!(take(&[("expect", "100-Continue")], Version::HTTP_11), Ok(true));
    assert_eq!(take(&[("expect", "100-continue")], Version::HTTP_2), Ok(true));
    assert_eq!(take(&[("expect", "100-continue")], Version::HTTP_10), Ok(false));
    assert_eq!(take(&[("expect", "x")], Version::HTTP_11), Err(Code::ExpectationFailed));
    let two = [("expect", "100-continue"), ("expect", "x")];
    assert_eq!(take(&two, Version::HTTP_11), Err(Code::ExpectationFailed));
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn traceparent_is_read_as_the_specification_says() {
    let parsed = TraceParent::parse(PARENT).expect("the example of the specification");
    assert_eq!(parsed.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    assert_eq!((parsed.span, parsed.is_sampled()), (0xb7ad_6b71_6920_3331, true));
    for good in [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else",
    ] {
        assert_eq!(TraceParent::parse(good), Some(parsed), "{good}");
    }
    for bad in [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
        "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(TraceParent::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_trace_is_continued_or_begun() {
    let follow = |headers: &mut HeaderMap| {
        let seen = Seen::of(headers);
        let (ours, _) = continue_trace(headers, seen, [1, 2, 3], false, &mut Scribe::new());
        assert_eq!(ours.span, 3);
    };
    let ours = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000003-01";
    let state = ("tracestate", "a=b");
    check(&[("traceparent", PARENT), state], follow, &[ours, "tracestate: a=b"]);
    let begun = "traceparent: 00-00000000000000010000000000000002-0000000000000003-00";
    check(&[], follow, &[begun]);
    check(&[("traceparent", "nonsense"), state], follow, &[begun]);
    check(&[("traceparent", PARENT), ("traceparent", PARENT), state], follow, &[begun]);
    let zero = TraceParent::begin([0, 0, 0], true);
    assert_eq!((zero.trace, zero.span, zero.is_sampled()), (1, 1, true));
}

proptest! {
    #[test]
    fn a_traceparent_survives_the_trip(draws in any::<[u64; 3]>(), sampled in any::<bool>()) {
        let trace = TraceParent::begin(draws, sampled);
        let value = trace.to_value(&mut Scribe::new()).expect("hexadecimal digits are legal");
        prop_assert_eq!(TraceParent::parse(value.to_str().expect("ASCII")), Some(trace));
    }

    #[test]
    fn any_text_will_do(text in any::<String>()) {
        prop_assert!(TraceParent::parse(&text).is_none_or(|parent| parent.trace != 0));
    }
}
