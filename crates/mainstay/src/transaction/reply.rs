//! What a branch's answer means.
//!
//! In our own dialect the status alone says it. Clients of DTM look at the text as well: a word in
//! it stands before the status.

use mainstay_txn::classify::{Ending, classify};
use mainstay_txn::{Dialect, Outcome};
use serde::Deserialize;

use super::settings::BodyMarkers;

/// What `ending` of a call means.
pub(super) fn outcome(dialect: Dialect, ending: Ending, markers: BodyMarkers) -> Outcome {
    match (dialect, ending) {
        (Dialect::Dtm, Ending::Answered { status, detail }) => dtm(status, detail, markers),
        (Dialect::Native, Ending::Answered { status, detail }) => {
            classify(Ending::Answered { status, detail: told(detail) })
        }
        (Dialect::Native | Dialect::Dtm, ending) => classify(ending),
    }
}

/// What a person reads of an answer: of a problem document (RFC 9457) what it says of this case.
fn told(body: String) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    match serde_json::from_str::<Problem>(&body) {
        Ok(Problem { title, detail }) => detail.or(title).unwrap_or(body),
        Err(_not_one) => body,
    }
}

fn dtm(status: u16, body: String, markers: BodyMarkers) -> Outcome {
    let says = |word: &str| match markers {
        BodyMarkers::Text => body.contains(word),
        BodyMarkers::Field => field(&body).is_some_and(|result| result == word),
        BodyMarkers::Off => false,
    };
    if status == 425 || says("ONGOING") {
        Outcome::Ongoing
    } else if status == 409 || says("FAILURE") {
        Outcome::Refused(body)
    } else if (200..300).contains(&status) {
        Outcome::Done
    } else {
        Outcome::Unknown(format!("{status} {body}"))
    }
}

/// `dtm_result` of a JSON document.
fn field(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Reply {
        dtm_result: String,
    }
    serde_json::from_str::<Reply>(body).ok().map(|reply| reply.dtm_result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, markers: BodyMarkers, status: u16, body: &str, want: &str) {
        let ending = Ending::Answered { status, detail: body.to_owned() };
        let got = match outcome(dialect, ending, markers) {
            Outcome::Done => "done",
            Outcome::Ongoing => "ongoing",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        };
        assert_eq!(got, want, "{dialect} {markers:?} {status} {body}");
    }

    #[test]
    fn in_the_dialect_of_dtm_a_word_stands_before_the_status() {
        let (text, field, off) = (BodyMarkers::Text, BodyMarkers::Field, BodyMarkers::Off);
        let dtm = Dialect::Dtm;
        check(dtm, text, 200, "", "done");
        check(dtm, text, 200, r#"{"dtm_result":"SUCCESS"}"#, "done");
        check(dtm, text, 200, r#"{"dtm_result":"FAILURE"}"#, "refused");
        check(dtm, text, 500, "it is ONGOING, no FAILURE", "ongoing");
        check(dtm, text, 409, "ONGOING", "ongoing");
        check(dtm, text, 409, "", "refused");
        check(dtm, text, 425, "FAILURE", "ongoing");
        check(dtm, text, 404, "", "unknown");
        check(dtm, field, 200, "a note on FAILURE", "done");
        check(dtm, field, 200, r#"{"dtm_result":"FAILURE","message":"m"}"#, "refused");
        check(dtm, off, 200, r#"{"dtm_result":"FAILURE"}"#, "done");
        check(dtm, off, 409, "", "refused");
    }

    #[test]
    fn of_a_problem_document_its_detail_is_told() {
        let of = |body: &str| told(body.to_owned());
        assert_eq!(of(r#"{"status":409,"title":"Sold out","detail":"0 left"}"#), "0 left");
        assert_eq!(of(r#"{"title":"Sold out"}"#), "Sold out");
        for other in ["sold out", "", r#"{"left":0}"#, r#"{"detail":7}"#, r#"["detail"]"#] {
            assert_eq!(of(other), other);
        }
    }

    #[test]
    fn in_ours_the_status_alone_counts() {
        for markers in [BodyMarkers::Text, BodyMarkers::Field, BodyMarkers::Off] {
            check(Dialect::Native, markers, 200, r#"{"dtm_result":"FAILURE"}"#, "done");
            check(Dialect::Native, markers, 409, "ONGOING", "refused");
        }
    }
}
