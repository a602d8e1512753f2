use std::collections::BTreeSet;

use super::*;
use crate::control::{agreed, kept, own, switches};

/// `get /path`, of every route of `router`, read from how it prints itself.
fn routes<S>(router: &axum::Router<S>) -> BTreeSet<String> {
    let text = format!("{router:?}");
    let own = text.split("fallback_router").next().unwrap_or_default();
    let (endpoints, paths) = own.split_once("Node {").expect("a router prints its paths");
    let mut all = BTreeSet::new();
    for entry in paths.split("RouteId(").skip(1) {
        let (number, rest) = entry.split_once("): ").expect("a path follows its number");
        let path = rest.split('"').nth(1).expect("a path is quoted");
        let start = format!("RouteId({number}): ");
        let endpoint = endpoints.split_once(&start).expect("every path has an endpoint").1;
        let endpoint = endpoint.split("RouteId(").next().unwrap_or_default();
        let methods = ["get", "delete", "patch", "post", "put"];
        let taken = methods.iter().filter(|method| !endpoint.contains(&format!("{method}: None")));
        // What takes the rest of the path is described as what takes a part of it.
        let path = path.replace("{*", "{");
        all.extend(taken.map(|method| format!("{method} {path}")));
    }
    all
}

/// Whether a route only keeps a verb of a path from being taken for a name: the call that is
/// described of all names answers there, or says that the name cannot be.
fn is_beside_a_verb(route: &str) -> bool {
    let verb = |end: &str| route.starts_with("get ") && route.ends_with(end);
    route == "put /switches/{namespace}/watch"
        || (["/validate", "/simulate", "/test"].into_iter().any(verb)
            && route.matches('/').count() == 2)
}

fn described() -> BTreeSet<String> {
    let document = document();
    let paths = document["paths"].as_object().expect("there are paths");
    let of = |(path, item): (&String, &Value)| {
        let path = path.strip_prefix("/api/v1").expect("all lie there").to_owned();
        let methods: Vec<String> =
            item.as_object().into_iter().flatten().map(|(m, _)| m.clone()).collect();
        methods.into_iter().map(move |method| format!("{method} {path}")).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let mut there = routes(&agreed());
    there.extend(routes(&switches::removal()));
    there.extend(routes(&own()));
    there.retain(|route| !is_beside_a_verb(route));
    assert!(100 < there.len(), "a router prints itself in another way: {there:?}");
    let described = described();
    let missing: Vec<_> = there.difference(&described).collect();
    let invented: Vec<_> = described.difference(&there).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "describe in control/openapi, then run `cargo xtask docs`: {missing:#?}\nno routes: {invented:#?}"
    );
}

#[test]
fn every_call_that_streams_takes_a_place() {
    let document = document();
    let mut streams = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("there are paths") {
        let path = path.strip_prefix("/api/v1").expect("all lie there");
        for (method, operation) in item.as_object().into_iter().flatten() {
            if operation["responses"]["200"]["content"].get("text/event-stream").is_some() {
                streams.insert(format!("{method} {path}"));
            }
        }
    }
    let kept =
        kept::CALLS.map(|(method, path)| format!("{} {path}", method.as_str().to_lowercase()));
    assert_eq!(streams, BTreeSet::from(kept), "list it in control/kept");
}
