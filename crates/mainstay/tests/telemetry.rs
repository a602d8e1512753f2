//! What a process tells of itself is what `docs/reference/telemetry.md` says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use support::gateway::Gateway;

const REFERENCE: &str = include_str!("../../../docs/reference/telemetry.md");

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
access_log = { format = "off" }
[route.away]
prefix = "/away"
to = "away"
[upstream.away]
instances = ["127.0.0.1:1"]
[route.limited]
prefix = "/limited"
respond = { status = 204 }
limits = ["few"]
[limit.few]
max = 1
window_seconds = 60
"#;

/// Type, labels and help of one metric.
type Told = (String, BTreeSet<String>, String);

/// The rows of the reference, by name. What both backends of the store tell is there once for each.
fn reference() -> BTreeMap<String, Vec<Told>> {
    let mut rows = BTreeMap::<_, Vec<_>>::new();
    for line in REFERENCE.lines().filter(|line| line.starts_with("| `mainstay_")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, kind, _, labels, help, _] = cells[..] else { unreachable!("no row: {line}") };
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let told = (kind.to_owned(), labels.filter(|l| !l.is_empty()).collect(), help.to_owned());
        rows.entry(name.trim_matches('`').to_owned()).or_default().push(told);
    }
    rows
}

/// What an exposition says of each metric.
fn told(exposition: &str) -> Vec<(String, Told)> {
    let mut all = Vec::<(String, Told)>::new();
    for line in exposition.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                let help = help.trim_end_matches('.').to_owned();
                all.push((name.to_owned(), (String::new(), BTreeSet::new(), help)));
            }
            ["#", "TYPE", _, kind] => {
                let (name, (own, ..)) = all.last_mut().unwrap();
                kind.clone_into(own);
                if kind == "counter" {
                    name.push_str("_total");
                }
            }
            ["#", ..] => {}
            _ => {
                let Some((_, labels)) = line.split_once('{') else { continue };
                let (_, (_, own, _)) = all.last_mut().unwrap();
                let labels = labels.split_once('}').unwrap().0.split("\",");
                let names = labels.map(|label| label.split('=').next().unwrap().to_owned());
                own.extend(names.filter(|name| !name.is_empty() && name != "le"));
            }
        }
    }
    all
}

#[test]
fn what_a_process_tells_is_in_the_reference() {
    let node = Gateway::start_dev("telemetry", CONFIG);
    for path in ["/away", "/limited", "/limited", "/nowhere"] {
        let mut stream = TcpStream::connect(node.address(0)).unwrap();
        let ask = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
    }
    let (status, exposition) = node.control("/metrics");
    assert_eq!(status, 200);
    let (reference, told) = (reference(), told(&exposition));
    for (name, as_told) in &told {
        let rows = reference.get(name).unwrap_or_else(|| panic!("{name} is not in the reference"));
        assert!(rows.contains(as_told), "{name} is {as_told:?}, and {rows:?} in the reference");
    }
    let families: BTreeSet<_> = told.iter().map(|(name, _)| name).collect();
    assert!(families.len() == told.len() && 60 < told.len(), "{} families", told.len());
}
