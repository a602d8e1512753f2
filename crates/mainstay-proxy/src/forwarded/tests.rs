use proptest::prelude::*;

use super::*;

fn trusted() -> TrustedProxies {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("a network"));
    TrustedProxies::new(networks.to_vec())
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

#[track_caller]
fn check(mode: Mode, peer: &str, fields: &[(&str, &str)], client: &str) {
    let peer = peer.parse().expect("an address");
    let got = client_address(peer, &map(fields), &trusted(), mode);
    assert_eq!(got.to_string(), client, "{mode:?} {peer} {fields:?}");
}

#[test]
fn the_client_is_the_right_most_hop_that_is_not_ours() {
    let x = |peer, value, client| check(Mode::X, peer, &[("x-forwarded-for", value)], client);
    x("1.1.1.1", "2.2.2.2", "1.1.1.1");
    x("10.0.0.1", "2.2.2.2", "2.2.2.2");
    x("10.0.0.1", "3.3.3.3, 2.2.2.2", "2.2.2.2");
    x("10.0.0.1", "3.3.3.3, 2.2.2.2, 10.0.0.2", "2.2.2.2");
    x("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3");
    x("::ffff:10.0.0.1", "::ffff:2.2.2.2", "2.2.2.2");
    x("fd00::1", "[2001:db8::1]:443, fd00::2", "2001:db8::1");
    x("10.0.0.1", "2.2.2.2:80", "2.2.2.2");
    x("10.0.0.1", "[2001:db8::1]", "2001:db8::1");
    check(Mode::X, "10.0.0.1", &[], "10.0.0.1");
    check(Mode::X, "10.0.0.1", &[("forwarded", "for=2.2.2.2")], "10.0.0.1");
    check(Mode::Off, "10.0.0.1", &[("x-forwarded-for", "2.2.2.2")], "10.0.0.1");
    let two = [("x-forwarded-for", "3.3.3.3"), ("x-forwarded-for", "2.2.2.2, 10.0.0.2")];
    check(Mode::X, "10.0.0.1", &two, "2.2.2.2");
}

#[test]
fn an_entry_that_is_no_address_ends_the_walk() {
    for bad in
        ["", "unknown", "2.2.2", "2.2.2.2:", "2.2.2.2:99999", "[::1", "localhost", "1 1.1.1.1"]
    {
        let field = format!("3.3.3.3, {bad}, 10.0.0.2");
        check(Mode::X, "10.0.0.1", &[("x-forwarded-for", &field)], "10.0.0.2");
        check(Mode::X, "10.0.0.1", &[("x-forwarded-for", bad)], "10.0.0.1");
    }
}

#[test]
fn forwarded_is_read_alike() {
    let f = |value, client| check(Mode::Rfc7239, "10.0.0.1", &[("forwarded", value)], client);
    f("for=2.2.2.2", "2.2.2.2");
    f("For=\"[2001:db8::1]:47011\";proto=https, for=10.0.0.2;by=10.0.0.3", "2001:db8::1");
    f("for=3.3.3.3, for=_hidden, for=10.0.0.2", "10.0.0.2");
    f("for=3.3.3.3, proto=http, for=10.0.0.2", "10.0.0.2");
    f("for=\"2.2.2.2, for=10.0.0.2", "10.0.0.1");
    f("for=3.3.3.3;for=2.2.2.2", "10.0.0.1");
    f("for=3.3.3.3 ; proto=http", "10.0.0.1");
    f("for=[::1]", "10.0.0.1");
    f("for=\"2.2.2.\\2\"", "2.2.2.2");
    let both = [("forwarded", "for=3.3.3.3"), ("x-forwarded-for", "2.2.2.2")];
    check(Mode::Both, "10.0.0.1", &both, "2.2.2.2");
    check(Mode::Both, "10.0.0.1", &both[..1], "3.3.3.3");
}

/// Writes the fields for a request from `peer` and compares them, sorted by name.
#[track_caller]
fn check_written(mode: Mode, peer: &str, before: &[(&str, &str)], after: &[(&str, &str)]) {
    let mut headers = map(before);
    let peer = peer.parse().expect("an address");
    let arrival = Arrival { peer, proto: "https", host: "a.example:8443", port: 7443 };
    write(&mut headers, arrival, &trusted(), mode, &mut Scribe::new());
    let mut got: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    got.sort_unstable();
    assert_eq!(got, after, "{mode:?} {peer} {before:?}");
}

#[test]
fn what_an_outsider_says_is_dropped_and_what_an_insider_says_is_appended_to() {
    let said = [
        ("forwarded", "for=9.9.9.9"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-for", "8.8.8.8"),
        ("x-forwarded-proto", "http"),
        ("x_forwarded-for", "7.7.7.7"),
        ("x-forwarded-prefix", "/x"),
    ];
    let fresh = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-host", "a.example:8443"),
        ("x-forwarded-port", "7443"),
        ("x-forwarded-proto", "https"),
    ];
    check_written(Mode::X, "1.1.1.1", &said, &fresh);
    check_written(Mode::X, "1.1.1.1", &[], &fresh);
    let appended = [
        ("x-forwarded-for", "9.9.9.9, 8.8.8.8, 10.0.0.1"),
        ("x-forwarded-host", "a.example:8443"),
        ("x-forwarded-port", "7443"),
        ("x-forwarded-prefix", "/x"),
        ("x-forwarded-proto", "http"),
    ];
    check_written(Mode::X, "10.0.0.1", &said, &appended);
    check_written(
        Mode::Rfc7239,
        "10.0.0.1",
        &said,
        &[("forwarded", "for=9.9.9.9, for=10.0.0.1;host=\"a.example:8443\";proto=https")],
    );
    check_written(
        Mode::Rfc7239,
        "2001:db8::1",
        &said,
        &[("forwarded", "for=\"[2001:db8::1]\";host=\"a.example:8443\";proto=https")],
    );
    check_written(Mode::Off, "1.1.1.1", &said, &[]);
    check_written(Mode::Off, "10.0.0.1", &said[..1], &said[..1]);
}

proptest! {
    /// What is written is read back as the same hop by the next one of ours.
    #[test]
    fn what_is_written_is_read(peer in any::<IpAddr>(), said in "[ -~]{0,40}", x in any::<bool>()) {
        let mode = if x { Mode::X } else { Mode::Rfc7239 };
        let mut headers = map(&[("x-forwarded-for", &said), ("forwarded", &said)]);
        let arrival = Arrival { peer, proto: "http", host: "a:80", port: 80 };
        // Only outsiders: an insider's broken field stays broken.
        prop_assume!(!trusted().contains(peer));
        write(&mut headers, arrival, &trusted(), mode, &mut Scribe::new());
        let ours = "10.0.0.1".parse().expect("an address");
        prop_assert_eq!(client_address(ours, &headers, &trusted(), mode), peer.to_canonical());
    }

    #[test]
    fn any_text_will_do(text in any::<String>()) {
        drop(elements(&text));
        let _ = address(&text);
    }
}
