use proptest::prelude::*;

use super::*;
use crate::{Congestion, Invalid};

fn read(text: &str) -> Result<FallbackPolicy, Invalid> {
    toml::from_str::<RawFallback>(text).expect("known keys").try_into()
}

/// The example of the configuration reference, without the step this version does not have.
const ORDERS: &str = "steps = [
    { when = ['circuit', 'timeout'], stale = { max_age_seconds = 300 } },
    { when = ['limited', 'slow'], delay = { seconds = 1, queue_max = 1024 } },
    { when = ['switch:orders-later'], value = { body = 'later' } },
    { when = ['circuit'], substitute = { service = 'order-archive' } },
    { when = ['switch'], silent = { status = 204 } },
    { when = ['any'], fail = { status = 503 } },
]";

fn moment(text: &str) -> Moment {
    let before = |slow, switched_off| Moment::Before { slow, switched_off };
    match text {
        "before" => before(false, false),
        "slow" => before(true, false),
        "off" => before(false, true),
        "slow-and-off" => before(true, true),
        "limited" => Moment::Limited,
        "shed" => Moment::Shed,
        "circuit" => Moment::After(Cause::Circuit),
        "timeout" => Moment::After(Cause::Timeout),
        "connect" => Moment::After(Cause::Connect),
        "congestion" => Moment::After(Cause::Congestion),
        "5xx" => Moment::After(Cause::ServerError),
        "no-instance" => Moment::After(Cause::NoInstance),
        "other" => Moment::After(Cause::Other),
        _ => panic!("no such moment: {text}"),
    }
}

/// Asks a list at `at`, with the switch `on` on, and lets every step fail to answer: `want` are the
/// kinds that are asked, in order.
#[track_caller]
fn check(table: &str, at: &str, on: &str, want: &str) {
    let policy = read(table).expect("a legal list");
    let (mut asked, mut from) = (Vec::new(), 0);
    while let Some((index, step)) = policy.choose(moment(at), |name| name.as_str() == on, from) {
        asked.push(step.action.as_str());
        from = index + 1;
    }
    assert_eq!(asked.join(" "), want, "{at}, switch {on:?} on, of {table}");
}

#[test]
fn the_first_step_that_holds_is_asked_and_then_the_next() {
    for (at, on, want) in [
        ("circuit", "", "stale substitute fail"),
        ("timeout", "", "stale fail"),
        ("connect", "", "fail"),
        ("5xx", "", "fail"),
        ("other", "", "fail"),
        ("before", "", ""),
        ("before", "orders-later", "value"),
        ("before", "something-else", ""),
        ("slow", "", "delay"),
        ("slow", "orders-later", "delay value"),
        ("off", "", "silent"),
        ("limited", "", "delay fail"),
        ("limited", "orders-later", "delay fail"),
        ("shed", "", "fail"),
        ("circuit", "orders-later", "stale substitute fail"),
    ] {
        check(ORDERS, at, on, want);
    }
}

#[test]
fn a_condition_holds_for_what_it_names() {
    let every =
        "circuit timeout connect congestion 5xx no-instance other limited shed before slow off";
    for (word, holds) in [
        ("circuit", "circuit"),
        ("timeout", "timeout"),
        ("connect", "connect"),
        ("congestion", "congestion"),
        ("5xx", "5xx"),
        ("no-instance", "no-instance"),
        ("unavailable", "circuit connect no-instance"),
        ("any", "circuit timeout connect congestion 5xx no-instance other limited shed"),
        ("slow", "slow"),
        ("switch", "off"),
        ("limited", "limited"),
        ("shed", "shed"),
        ("switch:x", ""),
    ] {
        let table = format!("steps = [{{ when = [' {word} '], silent = {{}} }}]");
        for at in every.split(' ') {
            let want = if holds.split(' ').any(|held| held == at) { "silent" } else { "" };
            check(&table, at, "y", want);
        }
    }
}

#[test]
fn a_refusal_is_not_answered_by_another_call() {
    let table = "steps = [
        { when = ['any', 'limited'], substitute = { service = 'b' } },
        { when = ['any'], delay = {} },
        { when = ['any'], stale = {} },
    ]";
    check(table, "limited", "", "delay stale");
    check(table, "shed", "", "delay stale");
    check(table, "circuit", "", "substitute stale");
}

#[test]
fn a_route_that_is_off_is_not_merely_late() {
    let table =
        "steps = [{ when = ['switch', 'slow'], delay = {} }, { when = ['switch'], fail = {} }]";
    check(table, "slow", "", "delay");
    check(table, "slow-and-off", "", "fail");
    check(table, "off", "", "fail");
}

#[test]
fn who_is_asked_before_the_call() {
    let looks = |when: &str| read(&format!("steps = [{{ when = ['{when}'], silent = {{}} }}]"));
    for (when, want) in [("slow", true), ("switch:a", true), ("switch", false), ("any", false)] {
        assert_eq!(looks(when).expect("legal").looks_before(), want, "{when}");
    }
}

#[test]
fn every_failure_has_a_cause_or_nobody_to_answer_to() {
    for (failure, want) in [
        (Failure::RequestTimeout, Some("timeout")),
        (Failure::Deadline { sent: false }, Some("timeout")),
        (Failure::ConnectTimeout, Some("connect")),
        (Failure::ConnectFailed { identity: true }, Some("connect")),
        (Failure::Congestion(Congestion::PoolExhausted), Some("congestion")),
        (Failure::Unprocessed, Some("other")),
        (Failure::Malformed, Some("other")),
        (Failure::Truncated, None),
        (Failure::Cancelled, None),
    ] {
        assert_eq!(Cause::of(failure).map(Cause::as_str), want, "{failure:?}");
    }
}

#[test]
fn what_is_not_written_is_as_documented() {
    let step = |action: &str| {
        let table = format!("steps = [{{ when = ['any', 'slow'], {action} }}]");
        read(&table).expect("legal").steps()[0].action.clone()
    };
    let text = |text: &str| Arc::<str>::from(text);
    assert_eq!(step("silent = {}"), Action::Silent { status: 204, body: text("") });
    assert_eq!(
        step("value = { body = '{}', content_type = 'application/json' }"),
        Action::Value { status: 200, content_type: text("application/json"), body: text("{}") }
    );
    let stale = |seconds, key| Action::Stale { max_age: Duration::from_secs(seconds), key };
    assert_eq!(step("stale = {}"), stale(300, StaleKey::Request));
    assert_eq!(
        step("stale = { max_age_seconds = 9, key = 'principal' }"),
        stale(9, StaleKey::Principal)
    );
    assert_eq!(
        step("delay = {}"),
        Action::Delay { span: Duration::from_secs(1), queue_max: 1_024 }
    );
    assert_eq!(step("fail = {}"), Action::Fail { status: 503, code: Code::Degraded });
    assert_eq!(
        step("fail = { code = 'limited' }"),
        Action::Fail { status: 429, code: Code::Limited }
    );
}

#[test]
fn a_wrong_step_is_named() {
    let long = "x".repeat(65_537);
    let value = format!("when = ['any'], value = {{ body = '{long}' }}");
    for (step, path) in [
        ("when = ['any']", "when"),
        ("silent = {}", "when"),
        ("when = [], silent = {}", "when"),
        ("when = ['any'], silent = {}, fail = {}", "when"),
        ("when = ['sometimes'], silent = {}", "when[0]"),
        ("when = ['any', 'switch:'], silent = {}", "when[1]"),
        ("when = ['switch:a b'], silent = {}", "when[0]"),
        ("when = ['any'], silent = { status = 503 }", "silent.status"),
        ("when = ['any'], silent = { body = 'x' }", "silent.body"),
        ("when = ['any'], value = {}", "value.body"),
        ("when = ['any'], value = { body = '', content_type = '' }", "value.content_type"),
        ("when = ['any'], value = { body = '', content_type = \"a\\nb\" }", "value.content_type"),
        ("when = ['any'], value = { body = '', status = 101 }", "value.status"),
        (&value, "value.body"),
        ("when = ['any'], stale = { max_age_seconds = 0 }", "stale.max_age_seconds"),
        ("when = ['any'], stale = { key = 'me' }", "stale.key"),
        ("when = ['any'], substitute = {}", "substitute.service"),
        ("when = ['any'], fail = { status = 399 }", "fail.status"),
        ("when = ['any'], fail = { code = 'internal' }", "fail.code"),
        ("when = ['slow'], delay = { seconds = 0 }", "delay.seconds"),
        ("when = ['slow'], delay = { queue_max = 0 }", "delay.queue_max"),
        ("when = ['timeout', 'switch'], delay = {}", "when"),
        ("when = ['limited', 'shed'], substitute = { service = 'b' }", "when"),
        ("when = ['any'], defer = {}", "defer.queue"),
        ("when = ['any'], defer = { queue = 'a b' }", "defer.queue"),
    ] {
        let table = format!("steps = [{{ when = ['any'], fail = {{}} }}, {{ {step} }}]");
        let error = read(&table).expect_err(step);
        assert_eq!(error.path, format!("steps[1].{path}"), "{step}: {error}");
    }
    assert_eq!(read("").expect_err("no steps").path, "steps");
    assert_eq!(read("steps = []").expect_err("no steps").path, "steps");
    let many = "{ when = ['any'], fail = {} },".repeat(17);
    assert_eq!(read(&format!("steps = [{many}]")).expect_err("too many").path, "steps");
}

proptest! {
    /// Whatever the list and the moment, each step is asked at most once, in order, and nobody is
    /// asked who would call an upstream for a call that was refused.
    #[test]
    fn a_list_ends_and_never_recurses(
        picks in prop::collection::vec((0usize..12, 0usize..7), 1..=16),
        at in 0usize..13,
        on: bool,
    ) {
        let words = ["circuit", "timeout", "connect", "congestion", "5xx", "no-instance",
            "unavailable", "slow", "switch", "switch:a", "limited", "shed"];
        let actions = ["silent = {}", "value = { body = '' }", "stale = {}",
            "substitute = { service = 'b' }", "delay = {}", "fail = {}",
            "defer = { queue = 'q' }"];
        let moments = ["before", "slow", "off", "slow-and-off", "limited", "shed", "circuit",
            "timeout", "connect", "congestion", "5xx", "no-instance", "other"];
        let steps = picks.iter().map(|&(word, action)| {
            format!("{{ when = ['any', '{}'], {} }}", words[word], actions[action])
        });
        let policy = read(&format!("steps = [{}]", steps.collect::<Vec<_>>().join(", "))).unwrap();
        let (at, mut from) = (moment(moments[at]), 0);
        while let Some((index, step)) = policy.choose(at, |_| on, from) {
            prop_assert!(from <= index && index < policy.steps().len());
            let refused = matches!(at, Moment::Limited | Moment::Shed);
            prop_assert!(!(refused && step.action.as_str() == "substitute"));
            prop_assert!(!(matches!(at, Moment::After(_)) && step.action.as_str() == "delay"));
            from = index + 1;
        }
    }
}
