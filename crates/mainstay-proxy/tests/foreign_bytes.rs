//! What strangers write in header fields, and people in configurations: whatever it is, it is read
//! as what it says or refused, and nothing is thrown off its feet.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method};
use mainstay_proxy::config::{Plane, RawPlane};
use mainstay_proxy::route::pattern::Pattern;
use mainstay_proxy::route::{PathPattern, View};
use mainstay_resilience::deadline::parse_grpc_timeout;
use mainstay_resilience::retry::parse_retry_after;
use proptest::prelude::*;

/// Bytes of any kind, and such as come near to what is asked for.
fn near(pattern: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..64), pattern.prop_map(String::into_bytes),]
}

proptest! {
    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit_or_refused(value in near("[0-9]{0,10}[HMSmunx ]?")) {
        let legal = value.split_last().is_some_and(|(unit, digits)| {
            b"HMSmun".contains(unit)
                && (1..=8).contains(&digits.len())
                && digits.iter().all(u8::is_ascii_digit)
        });
        let read = parse_grpc_timeout(&value);
        prop_assert_eq!(read.is_ok(), legal, "{:?}", value.escape_ascii().to_string());
        prop_assert!(read.unwrap_or_default() <= Duration::from_hours(99_999_999));
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_or_nothing(
        value in near("( ?[0-9]{1,20} ?|(Sun|Mon), [0-9]{2} (Nov|Feb) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT)"),
    ) {
        let read = parse_retry_after(&value, SystemTime::UNIX_EPOCH);
        let text = value.trim_ascii();
        if text.is_empty() {
            prop_assert_eq!(read, None);
        }
        if let (Some(read), true) = (read, text.iter().all(u8::is_ascii_digit)) {
            let said: u64 = std::str::from_utf8(text).unwrap().parse().unwrap();
            prop_assert_eq!(read, Duration::from_secs(said));
        }
    }

    #[test]
    fn a_cookie_is_found_as_it_was_sent(
        before in "[!-:<-~]{0,20}",
        value in "[!#-+--:<-\\[\\]-~]{0,20}",
        noise in near("(; ?|=|sid=[a-z]*)*"),
    ) {
        prop_assume!(!before.starts_with("sid="));
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, format!("{before}; sid={value}").parse().unwrap());
        if let Ok(noise) = HeaderValue::from_bytes(&noise) {
            headers.append(COOKIE, noise);
        }
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (method, headers) = (&Method::GET, &headers);
        let view = View { host: "a", method, path: "/", headers, query: None, client };
        let first = view.cookie_values("sid").next();
        prop_assert_eq!(first.as_deref(), Some(value.as_str()));
    }

    #[test]
    fn a_route_pattern_is_read_or_refused_and_matches_in_peace(
        text in prop_oneof![".{0,40}", "(/|\\{[a-z*]{0,3}\\}|[a-z.*+()|%]){0,12}"],
        path in near("/[a-z/]{0,12}"),
        ignore_case: bool,
    ) {
        drop(PathPattern::path(&text, ignore_case));
        drop(PathPattern::prefix(&text, ignore_case));
        if let Ok(pattern) = Pattern::new("regex", &text, ignore_case) {
            pattern.is_match(&path);
        }
    }

    #[test]
    fn a_configuration_is_read_or_every_fault_has_a_place(
        text in prop_oneof![
            ".{0,200}",
            "(\\[(route|upstream|limit|circuit)\\.[a-z\"]{0,3}\\]\n|(path|prefix|host|to|max|kind|window_seconds) = (-?[0-9.]{1,6}|'[a-z/{}*]{0,6}'|\\[\\]|true)\n){0,8}",
        ],
    ) {
        if let Ok(raw) = toml::from_str::<RawPlane>(&text)
            && let Err(faults) = Plane::resolve(raw)
        {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(!fault.path.is_empty(), "{:?}", fault);
            }
        }
    }
}
