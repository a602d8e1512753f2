use std::time::SystemTime;

use super::*;

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // 1994-11-06 08:49:37
    for (text, want) in [
        ("0", Some(0)),
        ("120", Some(120)),
        (" 7 ", Some(7)),
        ("999999999999999999", Some(999_999_999_999_999_999)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
        ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
        ("Sun Nov  6 08:49:47 1994", Some(10)),
        ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
        ("9999999999999999999", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Sun, 32 Nov 1994 08:49:47 GMT", None),
    ] {
        let want = want.map(Duration::from_secs);
        assert_eq!(parse_retry_after(text.as_bytes(), now), want, "{text:?}");
    }
    assert_eq!(parse_retry_after(&[0xff, b'1'], now), None);
}

#[test]
fn a_pushback_that_is_no_number_means_no_retry() {
    for (text, want) in [
        ("0", Pushback::After(Duration::ZERO)),
        ("1500", Pushback::After(ms(1_500))),
        ("-1", Pushback::Never),
        ("", Pushback::Never),
        ("later", Pushback::Never),
        ("1.5", Pushback::Never),
        ("99999999999", Pushback::Never),
    ] {
        assert_eq!(parse_pushback(text.as_bytes()), want, "{text:?}");
    }
}

#[test]
fn attempts_are_told_from_hop_to_hop() {
    for (attempt, grpc, want) in [
        (None, None, 1),
        (Some("1"), None, 1),
        (Some("2"), None, 2),
        (None, Some("0"), 1),
        (None, Some("1"), 2),
        (Some("2"), Some("4"), 5),
        (Some("0"), None, 1),
        (Some("x"), None, 1),
        (Some("-2"), Some("999999999"), 1_000_000_000),
        (Some("4294967296"), None, 1),
    ] {
        let got = arriving_attempt(attempt.map(str::as_bytes), grpc.map(str::as_bytes));
        assert_eq!(got, want, "{attempt:?}, {grpc:?}");
    }
    let out = |number, arriving| {
        let text = |digits: crate::deadline::Digits| digits.to_string();
        (
            outgoing_attempt(number, arriving).map(text),
            outgoing_grpc_attempts(number, arriving).map(text),
        )
    };
    let some = |a: &str, b: &str| (Some(a.to_owned()), Some(b.to_owned()));
    assert_eq!(out(1, 1), (None, None));
    assert_eq!(out(2, 1), some("2", "1"));
    assert_eq!(out(3, 1), some("3", "2"));
    assert_eq!(out(1, 2), some("2", "1"));
}

#[test]
fn idempotent_methods_are_those_of_the_standard() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        assert!(method_is_idempotent(method), "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "", "PROPFIND"] {
        assert!(!method_is_idempotent(method), "{method}");
    }
}
