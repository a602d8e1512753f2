use super::*;

fn read(json: &str) -> Result<NewCheck, String> {
    let mut said = Fields::read(json.as_bytes()).unwrap();
    check(&mut said, "service:web", "Service 'web' check").map_err(|Text(_, line)| line)
}

#[test]
fn a_check_is_what_consul_makes_of_it() {
    let one = read(r#"{"TTL": "100ms"}"#).unwrap();
    assert_eq!((&*one.check.id, one.health), ("service:web", Health::Critical));
    assert_eq!((one.check.kind(), one.check.ttl_milliseconds), ("ttl", Some(100)));
    let url = r#"{"http": "http://[::1]:8080/up?x", "interval": "10s", "timeout": "1s",
        "header": {"a": ["b", "c"]}, "success_before_passing": 3, "Status": "passing",
        "DeregisterCriticalServiceAfter": "1s"}"#;
    let one = read(url).unwrap();
    let run = one.check.run.clone().unwrap();
    assert_eq!((one.check.host.as_deref(), run.port), (Some("::1"), Some(8_080)));
    assert_eq!((run.path.as_deref(), &*run.headers["a"]), (Some("/up?x"), "b, c"));
    assert_eq!((run.passing_after, run.critical_after), (Some(3), Some(0)));
    assert_eq!((one.health, one.check.remove_after_seconds), (Health::Passing, Some(60)));
    let one = read(r#"{"GRPC": "10.0.0.1:50051/shop", "Interval": "1s"}"#).unwrap();
    let run = one.check.run.unwrap();
    assert_eq!((run.service.as_deref(), run.tls), (Some("shop"), None));
}

#[test]
fn a_check_over_tls_believes_the_system_unless_it_says_otherwise() {
    let url = r#"{"HTTP": "https://shop/up", "Interval": "10s", "TLSServerName": "shop.example"}"#;
    let run = read(url).unwrap().check.run.unwrap();
    assert_eq!(run.port, Some(443));
    let tls = run.tls.unwrap();
    assert_eq!((tls.server_name.as_deref(), tls.verify), (Some("shop.example"), None));
    let grpc = r#"{"GRPC": "shop:1", "GRPCUseTLS": true, "TLSSkipVerify": true, "Interval": "1s"}"#;
    let tls = read(grpc).unwrap().check.run.unwrap().tls.unwrap();
    assert_eq!((tls.ca_pem, tls.server_name, tls.verify), (None, None, Some(false)));
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (json, want) in [
        ("{}", "TTL must be > 0 for TTL checks"),
        (r#"{"HTTP": "http://x/"}"#, "Interval must be > 0"),
        (r#"{"HTTP": "ftp://x/", "Interval": "1s"}"#, "Invalid check URL"),
        (r#"{"HTTP": "https://x/", "TLSServerName": "a b", "Interval": "1s"}"#, "TLSServerName"),
        (r#"{"HTTP": "x", "Interval": "1s"}"#, "Invalid check URL"),
        (r#"{"TCP": "x", "Interval": "1s"}"#, "host:port"),
        (r#"{"TCP": "x:1", "TTL": "1s"}"#, "cannot both"),
        (r#"{"Args": ["true"], "Interval": "1s"}"#, "'Args' checks"),
        (r#"{"TTL": "1s", "Status": "fine"}"#, "Invalid check status"),
    ] {
        let line = read(json).unwrap_err();
        assert!(line.contains(want), "{json}: {line}");
    }
}
