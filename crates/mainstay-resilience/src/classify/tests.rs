use super::*;
use crate::Congestion;

fn list(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Judges `result` under the lists given; `-` is a list that was not written.
///
/// Results: a status, `grpc:N`, or a failure by its problem code.
#[track_caller]
fn check(failure: &str, ignore: &str, result: &str, want: Verdict) {
    let read = |text: &str| (text != "-").then(|| list(text));
    let (failure, ignore) = (read(failure), read(ignore));
    let classifier = Classifier::new(failure.as_deref(), ignore.as_deref()).expect("legal lists");
    let failed = |failure| classifier.judge_failure(failure);
    let got = match result {
        "upstream-timeout" => failed(Failure::RequestTimeout),
        "connect-timeout" => failed(Failure::ConnectTimeout),
        "connect-failed" => failed(Failure::ConnectFailed { identity: false }),
        "lost" => failed(Failure::Congestion(Congestion::Lost { sent: true })),
        "refused-stream" => failed(Failure::Unprocessed),
        "truncated" => failed(Failure::Truncated),
        "malformed" => failed(Failure::Malformed),
        "deadline-unsent" => failed(Failure::Deadline { sent: false }),
        "deadline" => failed(Failure::Deadline { sent: true }),
        "cancelled" => failed(Failure::Cancelled),
        other => match other.strip_prefix("grpc:") {
            Some(code) => classifier.judge(Answer::Grpc(code.parse().unwrap())),
            None => classifier.judge(Answer::Http(other.parse().unwrap())),
        },
    };
    assert_eq!(got, want, "{result} under failure {failure:?}, ignore {ignore:?}");
}

const SUCCESS: Verdict = Verdict::Record(Outcome::Success);
const FAILURE: Verdict = Verdict::Record(Outcome::Failure);
const REFUSED: Verdict = Verdict::Record(Outcome::Refused);

#[test]
fn the_default_lists_judge_as_the_taxonomy_says() {
    for (result, want) in [
        ("200", SUCCESS),
        ("404", SUCCESS),
        ("499", SUCCESS),
        ("500", FAILURE),
        ("503", FAILURE),
        ("599", FAILURE),
        ("600", SUCCESS),
        ("101", SUCCESS),
        ("429", REFUSED),
        ("upstream-timeout", Verdict::Record(Outcome::RequestTimeout)),
        ("deadline", Verdict::Ignore),
        ("connect-timeout", Verdict::Record(Outcome::ConnectTimeout)),
        ("connect-failed", FAILURE),
        ("lost", FAILURE),
        ("truncated", FAILURE),
        ("malformed", FAILURE),
        ("refused-stream", Verdict::Ignore),
        ("deadline-unsent", Verdict::Ignore),
        ("cancelled", Verdict::Ignore),
    ] {
        check("-", "-", result, want);
    }
    assert_eq!(Classifier::new(None, None), Ok(Classifier::default()));
}

#[test]
fn grpc_is_judged_by_its_own_status() {
    for code in 0..=16 {
        let want = match code {
            8 => REFUSED,
            2 | 4 | 13 | 14 | 15 => FAILURE,
            _ => SUCCESS,
        };
        check("-", "-", &format!("grpc:{code}"), want);
        check("5xx timeout", "-", &format!("grpc:{code}"), want);
    }
    check("-", "-", "grpc:77", FAILURE); // Beyond the list: read as `unknown`.
    check("5xx ABORTED", "-", "grpc:10", FAILURE);
    check("5xx ABORTED", "-", "grpc:14", SUCCESS);
    check("deadline-exceeded", "-", "grpc:4", FAILURE);
}

#[test]
fn what_is_not_listed_counts_nowhere_or_as_success() {
    check("5xx", "-", "upstream-timeout", Verdict::Ignore);
    check("timeout", "-", "503", SUCCESS);
    check("404 5xx", "-", "404", FAILURE);
    check("-", "501", "501", Verdict::Ignore);
    check("-", "connect", "connect-timeout", Verdict::Ignore);
    check("-", "refused", "429", Verdict::Ignore);
    check("-", "grpc:8", "grpc:8", Verdict::Ignore);
    check("429", "-", "429", REFUSED);
    check("refused-stream", "-", "refused-stream", FAILURE);
}

#[test]
fn a_wrong_entry_is_named() {
    for (words, path) in [
        (vec!["5xx", "6xx"], "failure[1]"),
        (vec!["14"], "failure[0]"),
        (vec!["grpc:17"], "failure[0]"),
        (vec!["grpc:0"], "failure[0]"),
        (vec!["timeout", "502", ""], "failure[2]"),
        (vec!["ok"], "failure[0]"),
    ] {
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        let error = Classifier::new(Some(&words), None).expect_err("no such word");
        assert_eq!(error.path, path, "{error}");
    }
    let spaced = [" 5xx ".to_owned(), "\tTimeout".to_owned()];
    assert!(ResultSet::parse("retry_on", &spaced).is_ok(), "spaces and case are of no account");
}

#[test]
fn the_default_to_retry_is_the_list_it_says_it_is() {
    let words = list("connect refused-stream refused congestion timeout 502 503 504");
    assert_eq!(ResultSet::parse("retry_on", &words), Ok(ResultSet::RETRY_ON));
    assert!(!ResultSet::RETRY_ON.is_empty() && ResultSet::EMPTY.is_empty());
    assert!(!ResultSet::parse("retry_on", &list("599")).expect("legal").is_empty());
}
