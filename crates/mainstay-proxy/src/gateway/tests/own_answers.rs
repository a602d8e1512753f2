//! Redirects and fixed answers pass through what their route says of limits and switches.

use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_call::stage::fallback::Switches;

use super::*;
use crate::gateway::SwitchBook;

/// A book of one switch, `open`.
#[derive(Clone, Debug)]
struct Open(Arc<AtomicBool>);

impl SwitchBook for Open {
    fn of(&self, _namespace: &str) -> Arc<dyn Switches> {
        Arc::new(self.clone())
    }
}

impl Switches for Open {
    fn is_on(&self, name: &str, _key: Option<&str>) -> Option<bool> {
        (name == "open").then(|| self.0.load(Ordering::Relaxed))
    }
}

/// A gateway with one route, whose switch `open` is on until told otherwise.
struct Door {
    gateway: Arc<Gateway>,
    log: mpsc::Receiver<String>,
    open: Arc<AtomicBool>,
}

impl Door {
    fn new(config: &str) -> Self {
        let raw: RawPlane = toml::from_str(config).expect("well-formed");
        let (made, log) = logging(Plane::resolve(raw).expect("legal"));
        let open = Arc::new(AtomicBool::new(true));
        let switches: Arc<dyn SwitchBook> = Arc::new(Open(Arc::clone(&open)));
        let parts = Parts { switches: Some(switches), ..made.parts.clone() };
        let gateway = Gateway::new(Arc::clone(&made.running().plane), parts).expect("no files");
        Self { gateway, log, open }
    }

    /// Asks with `headers` and shows status, outcome, `Location` or body, as one line.
    fn ask(&self, headers: &[(&'static str, &'static str)]) -> String {
        let (running, from) = (self.gateway.running(), caller());
        let gateway = Arc::clone(&self.gateway);
        let (head, body) = local(async {
            let answer = serve::serve(&running, gateway, http2(headers), &from).await;
            let (head, mut body) = answer.into_parts();
            let mut whole = Vec::new();
            while let Some(frame) =
                std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
            {
                whole.extend(frame.expect("a body").into_data().expect("no trailers"));
            }
            (head, String::from_utf8(whole).expect("text"))
        });
        let field = |name| head.headers.get(name).map_or("", |value| value.to_str().expect("text"));
        let (outcome, location) = (field("mainstay-outcome"), field("location"));
        let line = self.log.recv_timeout(Duration::from_secs(20)).expect("a line");
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["http.response.status_code"], head.status.as_u16(), "{line}");
        assert_eq!(line["mainstay.route"], "r", "{line}");
        assert_eq!(field("x-by"), "rules", "{:?}", head.headers);
        // A problem is told by its code alone.
        let body = if body.starts_with('{') { String::new() } else { body };
        format!("{} {outcome} {location}{body}", head.status.as_u16()).trim_end().to_owned()
    }
}

const RULES: &str = "header_rules.response.set = { x-by = 'rules' }\n";

/// Asks a route with `route` in it, beside `tables`, as often as there are answers in `want`.
#[track_caller]
fn check(route: &str, tables: &str, want: &[&str]) -> Door {
    let door = Door::new(&format!("[route.r]\n{RULES}{route}\n{tables}"));
    let got: Vec<String> = want.iter().map(|_| door.ask(&[])).collect();
    assert_eq!(got, want);
    door
}

const ONE: &str = "[limit.one]\nkind = 'counter'\nmax = 1\nwindow_seconds = 3600\n";

#[test]
fn a_limit_holds_for_a_fixed_answer_and_for_a_redirect() {
    let limited = "429 limited;rule=\"one\"";
    check("respond = { body = 'hi' }\nlimits = ['one']", ONE, &["200  hi", limited, limited]);
    let redirect = "redirect = { host = 'new.example' }\nlimits = ['one']";
    check(redirect, ONE, &["307  //new.example/cart", limited]);
    check("respond = { body = 'hi' }", ONE, &["200  hi", "200  hi"]);
}

#[test]
fn a_limit_by_key_counts_each_caller_of_a_fixed_answer() {
    let by_user = ONE.replace("window", "key = ['header:x-user']\nwindow");
    let door = Door::new(&format!("[route.r]\n{RULES}respond = {{}}\nlimits = ['one']\n{by_user}"));
    let as_user = |user| door.ask(&[("x-user", user)]);
    assert_eq!(as_user("ada"), "204");
    assert_eq!(as_user("bob"), "204");
    assert!(as_user("ada").starts_with("429 limited"));
}

#[test]
fn a_switch_turns_a_fixed_answer_off() {
    let door = check("respond = { body = 'hi' }\nswitch = 'open'", "", &["200  hi"]);
    door.open.store(false, Ordering::Relaxed);
    assert_eq!(door.ask(&[]), "503 switched-off;rule=\"open\"");
    door.open.store(true, Ordering::Relaxed);
    assert_eq!(door.ask(&[]), "200  hi");
}

#[test]
fn a_fallback_answers_where_a_limit_or_the_switch_says_no() {
    let one = ONE.replace("max", "on_deny = 'fallback'\nmax");
    let fallback = "[fallback.f]\nsteps = [{ when = ['limited', 'switch'], \
         value = { body = 'later' } }]\n";
    let route = "respond = { body = 'hi' }\nlimits = ['one']\nswitch = 'open'\nfallback = 'f'";
    let later = "200 value;cause=limited later";
    let door = check(route, &format!("{one}{fallback}"), &["200  hi", later, later]);
    door.open.store(false, Ordering::Relaxed);
    let route = "respond = { body = 'hi' }\nswitch = 'open'\nfallback = 'f'";
    let door = check(route, fallback, &["200  hi"]);
    door.open.store(false, Ordering::Relaxed);
    assert_eq!(door.ask(&[]), "200 value;cause=switch later");
}

#[test]
fn an_error_that_a_route_says_is_no_reason_to_fall_back() {
    let fallback = "[fallback.f]\nsteps = [{ when = ['any'], value = { body = 'later' } }]\n";
    let route = "respond = { status = 503, body = 'closed' }\nlimits = ['one']\nfallback = 'f'";
    check(route, &format!("{ONE}{fallback}"), &["503  closed"]);
}

#[test]
fn a_refusal_of_a_fixed_answer_is_counted_and_can_be_explained() {
    let door = check("respond = {}\nlimits = ['one']", ONE, &["204", "429 limited;rule=\"one\""]);
    let parts = &door.gateway.parts;
    let text = parts.metrics.encode().expect("text");
    for line in [
        r#"mainstay_requests_total{route="r",service="",code="204",outcome="ok"} 1"#,
        r#"mainstay_requests_total{route="r",service="",code="429",outcome="limited"} 1"#,
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let all = parts.summaries.as_ref().expect("kept").since(Instant::ZERO, |_| true);
    let fates: Vec<_> = all.iter().map(|call| (call.fate, call.outcome)).collect();
    assert_eq!(fates, [(Fate::Permitted, None), (Fate::Denied, None)]);
}
