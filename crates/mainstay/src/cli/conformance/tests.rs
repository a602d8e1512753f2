//! What each case makes of what was seen.

use super::judge::{Answer, Case, Figure, Known, Ops, Row, Seen, Verdict, judge};
use super::subject;
use crate::cli::arguments::Cli;
use crate::cli::arguments::Command;
use crate::cli::arguments::transaction::Transaction;
use clap::Parser as _;
use mainstay_txn::Dialect;

/// What a participant is seen to do: answers as `2` (2xx), `4` (409), `.` (425) and `5` (500), the
/// change of the probe, and rows as `operation` or `operation<writer`. `-` is not looked at.
fn seen(text: &str) -> Seen {
    let mut words = text.split(' ');
    let answers = words.next().unwrap().chars().map(|answer| match answer {
        '2' => Answer::Done,
        '4' => Answer::Refused,
        '.' => Answer::Ongoing,
        _ => Answer::Other("500 oops".to_owned()),
    });
    let answers = answers.collect();
    let change = words.next().filter(|text| *text != "-");
    let change = change.map(|text| Figure::parse(text.trim_start_matches('+')).unwrap());
    let rows = words.next().map(|text| {
        let rows = text.split(',').filter(|row| !row.is_empty()).map(|row| {
            let (op, reason) = row.split_once('<').unwrap_or((row, row));
            Row { op: op.to_owned(), reason: reason.to_owned() }
        });
        rows.collect()
    });
    Seen { answers, change, rows }
}

#[track_caller]
fn check_known(known: &Known, case: Case, text: &str, want: &str) {
    let verdict = judge(case, known, &seen(text));
    let (word, why) = match &verdict {
        Verdict::Pass => ("pass", String::new()),
        Verdict::Fail(faults) => ("fail", faults.join("; ")),
        Verdict::NotJudged(why) => ("not judged", why.clone()),
    };
    let (want, part) = want.split_once(": ").unwrap_or((want, ""));
    assert!(word == want && why.contains(part), "{case:?} {text:?}: {word}: {why}");
}

/// Judges a saga's participant whose work changes the probe by -1.
#[track_caller]
fn check(case: Case, text: &str, want: &str) {
    let once = Figure::parse("-1");
    let known = Known { ops: Ops::Saga, dialect: Dialect::Native, once, confirmed: None };
    check_known(&known, case, text, want);
}

/// The same of try, confirm and cancel, where the confirm changes it by one more.
#[track_caller]
fn check_tcc(case: Case, text: &str, want: &str) {
    let (once, confirmed) = (Figure::parse("-1"), Figure::parse("-2"));
    let known = Known { ops: Ops::Tcc, dialect: Dialect::Native, once, confirmed };
    check_known(&known, case, text, want);
}

#[test]
fn work_is_done_and_answered() {
    check(Case::Plain, "2", "pass");
    check(Case::Plain, "2 -7", "pass");
    check(Case::Plain, "2 -7 action", "pass");
    check(Case::Plain, "2 0", "fail: changed nothing that the probe sees");
    check(Case::Plain, "2 -7 ", "fail: the barrier has no row and not rows action");
    check(Case::Plain, "4", "fail: is --body one that the business takes?");
    check(Case::Plain, "5", "fail: `action` was answered 500 oops");
    check(Case::Plain, ".", "fail: 425 is for a short while");
}

#[test]
fn work_is_undone_once() {
    check(Case::Undone, "22", "pass");
    check(Case::Undone, "22 0 action,compensate", "pass");
    check(Case::Undone, "22 -1", "fail: `compensate` must put back what `action` did");
    check(Case::Undone, "24 0", "fail: it may not be refused");
    check(Case::UndoneTwice, "222 0", "pass");
    check(Case::UndoneTwice, "222", "not judged: --probe");
    check(Case::UndoneTwice, "222 1", "fail: `compensate` was done again");
    check(Case::UndoneTwice, "225 0", "fail: `compensate` was answered 500");
}

#[test]
fn a_repetition_does_nothing() {
    check(Case::Duplicate, "22 -1 action", "pass");
    check(Case::Duplicate, "22", "not judged: --probe");
    check(Case::Duplicate, "22 - action", "not judged: --probe");
    check(Case::Duplicate, "22 -2", "fail: changed by -2 and not by -1: `action` was done again");
    check(Case::Duplicate, "24 -1", "fail: also to what was done before");
    let known = Known { ops: Ops::Saga, dialect: Dialect::Native, once: None, confirmed: None };
    check_known(&known, Case::Duplicate, "22 -1", "not judged: case `plain`");
    check_tcc(Case::Confirmed, "22", "pass");
    check_tcc(Case::Confirmed, "22 0 try,confirm", "pass");
    check_tcc(Case::ConfirmedTwice, "222 -2", "pass");
    check_tcc(Case::ConfirmedTwice, "222 -3", "fail: `confirm` was done again");
    check_tcc(Case::ConfirmedTwice, "224 -2", "fail: `confirm` was answered 409");
    check_tcc(Case::ConfirmedTwice, "222", "not judged: --probe");
}

#[test]
fn an_undo_without_work_undoes_nothing() {
    let empty = "action<compensate,compensate";
    check(Case::EmptyRollback, "2 0", "pass");
    check(Case::EmptyRollback, &format!("2 0 {empty}"), "pass");
    check(Case::EmptyRollback, "2", "not judged: --probe");
    check(Case::EmptyRollback, "2 1", "fail: undid what was never done");
    check(Case::EmptyRollback, "4 0", "fail: it may not be refused");
    check(Case::EmptyRollback, "2 0 compensate", "fail: not rows action by compensate");
}

#[test]
fn what_comes_after_its_undo_is_refused() {
    check(Case::Hanging, "24", "pass");
    check(Case::Hanging, "24 0 action<compensate,compensate", "pass");
    check(Case::Hanging, "22 0", "fail: it was taken although its undo was here before");
    check(Case::Hanging, "24 -1", "fail: although `compensate` came first");
    check(Case::Hanging, "25 0", "fail: answer 409");
    check(Case::Hanging, "24 0 action,compensate", "fail: the barrier has");
}

#[test]
fn barriers_of_dtm_may_skip_without_a_refusal() {
    let once = Figure::parse("-1");
    let known = Known { ops: Ops::Saga, dialect: Dialect::Dtm, once, confirmed: None };
    check_known(&known, Case::Hanging, "24", "pass");
    check_known(&known, Case::Hanging, "22 0", "pass");
    check_known(&known, Case::Hanging, "22", "not judged: --probe");
    check_known(&known, Case::Hanging, "22 -1", "fail: although `compensate` came first");
}

#[test]
fn work_and_undo_may_meet() {
    check(Case::AtOnce, "222 0 action,compensate", "pass");
    check(Case::AtOnce, "424 0 action<compensate,compensate", "pass");
    check(Case::AtOnce, "524 0", "pass");
    check(Case::AtOnce, ".22 0", "pass");
    check(Case::AtOnce, "224", "not judged: --probe");
    check(Case::AtOnce, "2.2 0", "fail: `compensate` was answered 425");
    check(Case::AtOnce, "222 -1", "fail: at the same time");
    check(Case::AtOnce, "225 0", "fail: `action` was answered 500");
}

#[test]
fn what_the_business_refuses_leaves_nothing() {
    check(Case::Refused, "4 0", "pass");
    check(Case::Refused, "4 0 ", "pass");
    check(Case::Refused, "4", "not judged: --probe");
    check(Case::Refused, "2 0", "fail: an error of the business was told as a success");
    check(Case::Refused, "5 0", "fail: answer 409");
    check(Case::Refused, "4 -1", "fail: roll back");
    check(Case::Refused, "4 0 action", "fail: roll the row back");
    check(Case::RefusedUndone, "42 0", "pass");
    check(Case::RefusedUndone, "42 1", "fail: undid what was refused");
    check(Case::RefusedUndone, "42 0 action,compensate", "fail: the barrier has");
}

#[test]
fn figures_are_exact() {
    for (text, want) in [
        ("0", "0"),
        ("-0.00", "0"),
        ("12", "+12"),
        ("-7.250", "-7.25"),
        ("0.10", "+0.1"),
        ("3.0000000000000000", "+3"),
    ] {
        assert_eq!(Figure::parse(text).unwrap().to_string(), want, "{text}");
    }
    for text in ["", "-", "one", "1e9", "1.-2", "NaN"] {
        assert_eq!(Figure::parse(text), None, "{text}");
    }
    let [tenth, third] = ["0.1", "0.3"].map(|text| Figure::parse(text).unwrap());
    assert_eq!(Figure::parse("0.2"), Some(third.minus(tenth)));
}

/// Where a participant's operations are called, `--url` being `http://stock:80/deduct?x=1`.
fn called(flags: &[&str]) -> Option<[String; 3]> {
    let line = ["mainstay", "tx", "conformance", "--url", "http://stock:80/deduct?x=1"];
    let cli = Cli::parse_from(line.iter().chain(flags));
    let Command::Transaction { verb: Transaction::Conformance(asked) } = cli.command else {
        panic!("another verb")
    };
    subject(*asked).ok().map(|subject| subject.urls)
}

#[test]
fn operations_are_called_where_they_are_named() {
    let url = "http://stock:80/deduct?x=1";
    assert_eq!(called(&[]).unwrap(), [url; 3]);
    let [work, undo, _] = called(&["--at", "compensate=/restore?y=2"]).unwrap();
    assert_eq!([work.as_str(), undo.as_str()], [url, "http://stock:80/restore?y=2"]);
    let flags = ["--mode", "tcc", "--at", "try=https://a/t", "--at", "confirm=/c"];
    assert_eq!(called(&flags).unwrap(), ["https://a/t", url, "http://stock:80/c"]);
}

#[test]
fn what_cannot_be_called_is_said_at_once() {
    for flags in [
        ["--at", "try=/t"],
        ["--at", "confirm=/c"],
        ["--at", "compensate=restore"],
        ["--at", "compensate"],
        ["--at", "compensate=ftp://stock/"],
        ["--timeout", "soon"],
        ["--timeout", "1e300"],
        ["--header", "nonsense"],
        ["--body", "@/nowhere/at/all"],
    ] {
        assert_eq!(called(&flags), None, "{flags:?}");
    }
    assert_eq!(called(&["--mode", "tcc", "--at", "action=/a"]), None);
}
