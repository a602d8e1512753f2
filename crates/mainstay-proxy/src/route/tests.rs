//! Which of several routes a request takes.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mainstay_core::name::RouteName;
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use proptest::prelude::*;

use super::{Captures, Match, RawRoute, Route, Routes, View};

/// Reads a route from the text of its table.
pub(crate) fn parse(name: &str, text: &str) -> Result<Route, Invalid> {
    let raw: RawRoute = toml::from_str(text).expect("a table of a route");
    Route::new(RouteName::new(name).expect("a legal name"), raw)
}

/// The same, when it must be legal.
#[track_caller]
pub(crate) fn route(name: &str, text: &str) -> Route {
    parse(name, text).expect("a legal route")
}

/// Routes named by letters, one a line, keys separated by `;`.
fn routes(table: &str) -> Result<Routes, Vec<Invalid>> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty()).zip('a'..='z');
    let parse = |(line, name): (&str, char)| {
        route(&name.to_string(), &format!("to = 's'\n{}", line.replace("; ", "\n")))
    };
    Routes::new(lines.map(parse).collect())
}

/// Asks for `METHOD host path [?query] [name:value …]` from 10.0.0.1.
fn ask(routes: &Routes, request: &str) -> String {
    let mut words = request.split(' ');
    let mut word = || words.next().expect("method, host and path");
    let (method, host, target) = (word(), word(), word());
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let mut headers = HeaderMap::new();
    for field in words {
        let (name, value) = field.split_once(':').expect("a field");
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let method: Method = method.parse().expect("a method");
    let client = IpAddr::from([10, 0, 0, 1]);
    match routes.find(&View { host, method: &method, path, headers: &headers, query, client }) {
        Match::Found { route, .. } => route.name.to_string(),
        Match::NoRoute => "404".to_owned(),
        Match::MethodNotAllowed { allow } => format!("405 {}", allow.to_str().expect("text")),
    }
}

/// Asks each request of a table of routes.
#[track_caller]
fn check(table: &str, requests: &[(&str, &str)]) {
    let routes = routes(table).expect("no two routes compete");
    for (request, want) in requests {
        assert_eq!(ask(&routes, request), *want, "{request}");
    }
}

#[test]
fn an_exact_host_goes_before_a_suffix_before_any() {
    check(
        "host = 'a.shop.example'; prefix = '/x'
         host = '*.shop.example'
         host = '*.example'
         path = '/x/y'",
        &[
            ("GET a.shop.example /x/y", "a"),
            ("GET a.shop.example /z", "b"),
            ("GET b.shop.example /x/y", "b"),
            ("GET shop.example /x/y", "c"),
            ("GET example /x/y", "d"),
            ("GET other /x", "404"),
            ("GET a.shop.example:7480 /x/y", "a"),
            ("GET A.Shop.EXAMPLE /x/y", "a"),
            ("GET a.shop.example. /x/y", "a"),
            ("GET B.SHOP.example.:443 /x/y", "b"),
        ],
    );
}

#[test]
fn a_path_goes_before_a_template_before_a_prefix_before_an_expression() {
    check(
        "regex = '/orders/.*'
         prefix = '/orders'
         prefix = '/orders/old'
         path = '/orders/{id}'
         path = '/orders/{id}/items'
         path = '/{kind}/{id}/items'
         path = '/orders/7'",
        &[
            ("GET h /orders/7", "g"),
            ("GET h /orders/8", "d"),
            ("GET h /orders/8/items", "e"),
            ("GET h /carts/8/items", "f"),
            ("GET h /orders/old", "d"),
            ("GET h /orders/old/x", "c"),
            ("GET h /orders/new/x", "b"),
            ("GET h /orders/", "b"),
            ("GET h /ordersx", "404"),
            ("GET h *", "404"),
        ],
    );
}

#[test]
fn more_literals_go_before_earlier_ones() {
    check(
        "path = '/a/{x}/{y}'
         path = '/{x}/b/c'",
        &[("GET h /a/b/c", "b"), ("GET h /a/b/d", "a"), ("GET h /a/b", "404")],
    );
}

#[test]
fn more_conditions_go_before_fewer() {
    check(
        "prefix = '/'
         prefix = '/'; methods = ['GET']
         prefix = '/'; methods = ['GET']; headers = { x-env = 'dev' }
         prefix = '/'; headers = { x-env = 'dev' }; query = { v = { regex = '[0-9]+' } }; from = ['10.0.0.0/8']",
        &[
            ("POST h /", "a"),
            ("GET h /", "b"),
            ("GET h / x-env:dev", "c"),
            ("GET h /?v=12 x-env:dev", "d"),
            ("GET h /?v=1x x-env:dev", "c"),
            ("GET h /?v=1&v=x x-env:dev", "c"),
            ("GET h / x-env:prod", "b"),
            ("GET h / x-env:dev x-env:prod", "b"),
        ],
    );
}

#[test]
fn a_condition_is_exact_an_expression_present_or_absent() {
    check(
        "path = '/1'; headers = { x = { exact = 'a' } }
         path = '/2'; headers = { x = { regex = 'a+' } }
         path = '/3'; headers = { x = { present = true } }
         path = '/4'; headers = { x = { absent = true } }
         path = '/5'; query = { q = '' }
         path = '/6'; from = ['10.0.0.0/8', '::1/128']
         path = '/7'; from = ['11.0.0.0/8']",
        &[
            ("GET h /1 x:a", "a"),
            ("GET h /1 x:A", "404"),
            ("GET h /1", "404"),
            ("GET h /2 x:aaa", "b"),
            ("GET h /2 x:ab", "404"),
            ("GET h /3 x:", "c"),
            ("GET h /3", "404"),
            ("GET h /4", "d"),
            ("GET h /4 x:a", "404"),
            ("GET h /5?q", "e"),
            ("GET h /5", "404"),
            ("GET h /6", "f"),
            ("GET h /7", "404"),
        ],
    );
}

#[test]
fn only_the_method_to_blame_is_405() {
    check(
        "path = '/a'; methods = ['POST', 'GET']
         path = '/{x}'; methods = ['PUT', 'GET']
         path = '/b'; methods = ['PUT']; headers = { x = 'y' }
         path = '/c'; methods = ['GET']
         host = 'any'; path = '/a'; methods = ['TRACE']
         prefix = '/c'; methods = ['DELETE']",
        &[
            ("DELETE h /a", "405 GET, POST, PUT"),
            ("PUT h /a", "b"),
            ("DELETE any /a", "405 GET, POST, PUT, TRACE"),
            ("POST h /b", "405 GET, PUT"),
            ("DELETE h /c", "f"),
            ("POST h /a/b", "404"),
        ],
    );
}

#[test]
fn letter_case_of_a_path_counts_unless_the_route_says_so() {
    check(
        "prefix = '/Admin'
         prefix = '/open'; ignore_case = true
         path = '/Files/{Name}'; ignore_case = true
         regex = '/re/[a-z]+'; ignore_case = true",
        &[
            ("GET h /Admin/x", "a"),
            ("GET h /admin", "404"),
            ("GET h /OPEN/X", "b"),
            ("GET h /fILES/X", "c"),
            ("GET h /RE/X", "d"),
        ],
    );
}

/// Names both of the routes that compete, in each pair.
#[track_caller]
fn compete(table: &str, want: &[&str]) {
    let errors = routes(table).err().unwrap_or_default();
    let got: Vec<_> = errors
        .iter()
        .map(|error| {
            assert_eq!(error.code, Code::RouteAmbiguous);
            let names: Vec<_> = error.problem.split('`').skip(1).step_by(2).take(2).collect();
            names.join("")
        })
        .collect();
    assert_eq!(got, want, "{table}");
}

#[test]
fn routes_of_one_rank_that_overlap_are_refused() {
    compete("path = '/a'\npath = '/a'", &["ab"]);
    compete("path = '/a'\npath = '/A'; ignore_case = true", &["ab"]);
    compete("path = '/{x}/b'\npath = '/a/{y}'", &["ab"]);
    compete("path = '/{x}'\npath = '/{y}'\npath = '/{z}'", &["ab", "ac"]);
    compete("prefix = '/a'\nprefix = '/a/'", &["ab"]);
    compete("\nprefix = '/'\nhost = '*'", &["ab"]);
    compete("host = 'A.b'\nhost = 'a.b.'", &["ab"]);
    compete("regex = '/a.*'\nregex = '.*b'", &["ab"]);
    compete("path = '/a'; methods = ['GET']\npath = '/a'; methods = ['PUT', 'GET']", &["ab"]);
    compete("path = '/a'; methods = ['GET']\npath = '/a'; headers = { x = 'y' }", &["ab"]);
    compete("path = '/a'; from = ['10.0.0.0/8']\npath = '/a'; from = ['10.1.0.0/16']", &["ab"]);
}

#[test]
fn routes_that_no_request_can_confuse_are_not() {
    compete("path = '/a'\npath = '/b'", &[]);
    compete("path = '/a'\npath = '/A'", &[]);
    compete("path = '/{x}/b'\npath = '/{y}/c'", &[]);
    compete("path = '/{x}'\npath = '/{x}/'", &[]);
    compete("host = 'a'\nhost = '*.a'", &[]);
    compete("regex = '/a/[0-9]+'\nregex = '/a/[a-z]+'", &[]);
    compete("path = '/a'; methods = ['GET']\npath = '/a'; methods = ['PUT']", &[]);
    compete("path = '/a'; headers = { x = 'y' }\npath = '/a'; headers = { x = 'z' }", &[]);
    compete("path = '/a'; headers = { x = 'y' }\npath = '/a'; headers = { x.absent = true }", &[]);
    compete("path = '/a'; headers = { x.regex = 'b+' }\npath = '/a'; headers = { x = 'a' }", &[]);
    compete("path = '/a'; from = ['10.0.0.0/8']\npath = '/a'; from = ['11.0.0.0/8']", &[]);
}

#[test]
fn a_route_without_sense_is_refused() {
    for (text, path) in [
        ("", "to"),
        ("to = 'a'\nrespond = {}", "to"),
        ("to = 'a'\npath = '/a'\nprefix = '/b'", "path"),
        ("to = 'a'\nhost = 'a:80'", "host"),
        ("to = 'a'\nmethods = ['get']", "methods[0]"),
        ("to = 'a'\nheaders = { 'a b' = 'x' }", "headers.a b"),
        ("to = 'a'\nheaders = { X = 'x', x = 'y' }", "headers.x"),
        ("to = 'a'\nheaders = { x = {} }", "headers.x"),
        ("to = 'a'\nquery = { x = { regex = '(' } }", "query.x"),
        ("to = 'a'\nsplit_key = 'path:id'", "split_key"),
        ("to = 'a'\nsplit_key = 'body'", "split_key"),
        ("to = 'a'\nsplit_key = 'header:a b'", "split_key"),
        ("to = 'a'\nsplit_key = 'service'", "split_key"),
        ("to = 'a'\ntimeout_seconds = 0", "timeout_seconds"),
        ("to = 'a'\ntimeout_seconds = 10\ndeadline_max_seconds = 5", "deadline_max_seconds"),
        ("to = 'a'\nforward_path = 'original'\nrewrite = { path = '/x' }", "forward_path"),
        ("to = 'a'\nmirror = { service = 'b', percent = 200 }", "mirror.percent"),
        ("to = 'a'\nswitch = 'A B'", "switch"),
        ("respond = {}\nmirror = { service = 'b' }", "mirror"),
        ("redirect = { path = '/' }\nrewrite = { path = '/x' }", "rewrite"),
    ] {
        assert_eq!(parse("r", text).expect_err(text).path, path, "{text}");
    }
}

#[test]
fn the_example_of_the_reference_is_read() {
    let orders = route(
        "orders",
        r#"
        host = "api.shop.example"
        prefix = "/orders"
        to = [{ service = "order", weight = 90 }, { service = "order-v2", weight = 10 }]
        split_key = "header:x-user"
        rewrite = { prefix = "/v1/orders" }
        header_rules = { request = { set = { x-gateway = "mainstay" } }, response = { remove = ["server"] } }
        mirror = { service = "order-next", percent = 5 }
        limits = ["order-api", "per-user"]
        fallback = "orders"
        switch = "orders"
        "#,
    );
    assert_eq!(orders.timeout.as_secs(), 15);
    assert_eq!(orders.deadline_max.as_secs(), 300);
    assert_eq!(orders.limits.len(), 2);
    assert_eq!(orders.mirror.expect("a mirror").basis_points, 500);
}

#[test]
fn ten_thousand_routes_are_told_apart() {
    let shapes =
        ["path = '/s{n}'", "path = '/s{n}/{id}'", "prefix = '/s{n}/p'", "regex = '/s{n}/r/.*'"];
    let many = (0..10_000).map(|n| {
        let text = shapes[n % 4].replace("{n}", &n.to_string());
        route(&format!("r{n}"), &format!("to = 's'\n{text}"))
    });
    let routes = Routes::new(many.collect()).expect("no two compete");
    for (request, want) in [
        ("GET h /s4000", "r4000"),
        ("GET h /s4001/x", "r4001"),
        ("GET h /s4002/p/x", "r4002"),
        ("GET h /s4003/r/x", "r4003"),
        ("GET h /s4000/x", "404"),
    ] {
        assert_eq!(ask(&routes, request), want, "{request}");
    }
}

const HOSTS: [&str; 5] = ["*", "a.b", "*.b", "*.a.b", "c"];
const PATHS: [&str; 16] = [
    "path = '/'",
    "path = '/a'",
    "path = '/a/b'",
    "path = '/{x}'",
    "path = '/a/{x}'",
    "path = '/{x}/b'",
    "path = '/{x}/{y}'",
    "path = '/a/'",
    "prefix = '/'",
    "prefix = '/a'",
    "prefix = '/a/b'",
    "prefix = '/A'",
    "regex = '/a.*'",
    "regex = '/a/b(/.*)?'",
    "regex = '.*b'",
    "regex = '/[bc]+'",
];
const OTHERS: [&str; 6] = [
    "",
    "methods = ['GET']",
    "methods = ['PUT', 'POST']",
    "headers = { x = '1' }",
    "headers = { x.absent = true }",
    "from = ['10.0.0.0/8']",
];

/// A table of a route, and whether it ignores letter case.
fn any_route() -> impl Strategy<Value = String> {
    let choice = (0..HOSTS.len(), 0..PATHS.len(), 0..OTHERS.len(), 0..OTHERS.len(), 0..4u8);
    choice.prop_map(|(host, path, other, more, fold)| {
        // A key may stand in a table only once.
        let key = |at: usize| OTHERS[at].split(' ').next();
        let more = if key(other) == key(more) { "" } else { OTHERS[more] };
        let fold = fold == 0;
        let (host, path, other) = (HOSTS[host], PATHS[path], OTHERS[other]);
        format!("to = 's'\nhost = '{host}'\n{path}\n{other}\n{more}\nignore_case = {fold}")
    })
}

/// Routes of which no two compete: of those that do, the first stays.
fn any_table() -> impl Strategy<Value = Vec<Route>> {
    prop::collection::vec(any_route(), 0..24).prop_map(|texts| {
        let mut kept: Vec<Route> = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let new = route(&format!("r{at}"), text);
            if !kept.iter().any(|old| old.competes(&new)) {
                kept.push(new);
            }
        }
        kept
    })
}

fn any_request() -> impl Strategy<Value = (String, String, bool)> {
    let host = prop::sample::select(vec!["a.b", "A.B:80", "x.b", "x.a.b.", "c", "d", ""]);
    let path = "/[abA]{0,2}(/[abc]{0,2}){0,2}";
    let method = prop::sample::select(vec!["GET", "PUT", "DELETE"]);
    (method, host, path, any::<bool>())
        .prop_map(|(method, host, path, x)| (format!("{method} {host}"), path, x))
}

/// The answer, found by asking every route.
fn naive(routes: &[Route], request: &str) -> String {
    let mut words = request.split(' ');
    let method: Method = words.next().and_then(|m| m.parse().ok()).expect("a method");
    let (host, path) = (words.next().expect("a host"), words.next().expect("a path"));
    let mut headers = HeaderMap::new();
    if words.next().is_some() {
        headers.insert("x", HeaderValue::from_static("1"));
    }
    let client = IpAddr::from([10, 0, 0, 1]);
    let view = View { host, method: &method, path, headers: &headers, query: None, client };
    let fits: Vec<_> = routes
        .iter()
        .filter(|route| {
            route.host.matches(view.hostname()) && route.accepts(&view, &mut Captures::default())
        })
        .collect();
    let allowed = fits.iter().filter(|route| route.allows(&method));
    match allowed.max_by_key(|route| route.rank()) {
        Some(best) => best.name.to_string(),
        None if fits.is_empty() => "404".to_owned(),
        None => {
            let mut allow: Vec<_> =
                fits.iter().flat_map(|route| &route.methods).map(Method::as_str).collect();
            allow.sort_unstable();
            allow.dedup();
            format!("405 {}", allow.join(", "))
        }
    }
}

fn line((start, path, x): &(String, String, bool)) -> String {
    format!("{start} {path}{}", if *x { " x:1" } else { "" })
}

proptest! {
    #[test]
    fn the_table_agrees_with_asking_every_route(
        table in any_table(), requests in prop::collection::vec(any_request(), 1..24)
    ) {
        let routes = Routes::new(table.clone()).expect("no two compete");
        for request in &requests {
            let request = line(request);
            prop_assert_eq!(ask(&routes, &request), naive(&table, &request), "{}", request);
        }
    }

    #[test]
    fn competing_routes_are_found_however_they_are_hidden(
        texts in prop::collection::vec(any_route(), 0..16)
    ) {
        let named = texts.iter().enumerate();
        let table: Vec<_> = named.map(|(at, text)| route(&format!("r{at}"), text)).collect();
        let pairs = |route: &Route| table.iter().any(|o| o.name != route.name && o.competes(route));
        prop_assert_eq!(Routes::new(table.clone()).is_err(), table.iter().any(pairs));
    }

    #[test]
    fn routes_that_share_a_request_compete(
        a in any_route(), b in any_route(), request in any_request()
    ) {
        let (a, b) = (route("a", &a), route("b", &b));
        let request = line(&request);
        let takes = |route: &Route| naive(std::slice::from_ref(route), &request) == route.name.as_str();
        if takes(&a) && takes(&b) && a.rank() == b.rank() {
            prop_assert!(a.competes(&b), "{}", request);
        }
    }

    #[test]
    fn a_new_route_changes_nothing_for_requests_it_does_not_match(
        mut table in any_table(), request in any_request()
    ) {
        let Some(new) = table.pop() else { return Ok(()) };
        let request = line(&request);
        if naive(std::slice::from_ref(&new), &request) == "404" {
            let before = ask(&Routes::new(table.clone()).expect("no two compete"), &request);
            table.push(new);
            let after = ask(&Routes::new(table).expect("no two compete"), &request);
            prop_assert_eq!(before, after, "{}", request);
        }
    }
}
