//! What `docs/reference/telemetry.md` says of metrics and of marks in the audit log.
//!
//! Metrics are printed from an exposition: every part of the process registers what it counts as it
//! does when it runs, with one of each family, and what an exposition says of a metric is what a
//! scrape will see. `cargo xtask docs` puts the log events below, which it reads off the sources
//! since a program does not know its own log lines before it has written them; it also fails when a
//! source registers metrics and is not named here, or the other way round.

use std::collections::BTreeSet;

use mainstay_proxy::metrics::Metrics;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::{audit, backup, cluster, control, deferred, dns, rules, transaction};

/// Metrics that are registered together.
struct Part {
    title: &'static str,
    /// Which processes tell them.
    told_by: &'static str,
    /// The sources that register them.
    sources: &'static [&'static str],
    register: fn(&mut Registry),
}

const PARTS: [Part; 16] = [
    Part {
        title: "Calls, policies and connections",
        told_by: "Every process; the role `server` carries no calls and tells of none.",
        sources: &[
            "crates/mainstay-proxy/src/metrics.rs",
            "crates/mainstay-proxy/src/metrics/looked.rs",
            "crates/mainstay-proxy/src/identify/figures.rs",
        ],
        register: |registry| {
            let metrics = Metrics::new();
            metrics.show_all();
            metrics.register(|own| std::mem::swap(registry, own));
        },
    },
    Part {
        title: "Rules of the store",
        told_by: "Every process.",
        sources: &["crates/mainstay/src/rules/figures.rs"],
        register: |registry| {
            let figures = rules::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Streams of the control port",
        told_by: "Every process.",
        sources: &["crates/mainstay/src/control/kept.rs"],
        register: |registry| control::Kept::new(0).register(registry),
    },
    Part {
        title: "Deferred requests",
        told_by: "Roles `dev` and `server`, where `transaction.enabled`.",
        sources: &["crates/mainstay/src/deferred/tally.rs"],
        register: |registry| {
            let figures = deferred::tally::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Store: embedded",
        told_by: "Roles `dev` and `server` with `store.backend = \"embedded\"`.",
        sources: &["crates/mainstay/src/cluster/figures.rs"],
        register: cluster::figures::register_embedded_at_nothing,
    },
    Part {
        title: "Store: etcd",
        told_by: "Roles `dev` and `server` with `store.backend = \"etcd\"`.",
        sources: &["crates/mainstay/src/cluster/figures.rs"],
        register: cluster::figures::register_etcd_at_nothing,
    },
    Part {
        title: "Registry and health checks",
        told_by: "Roles `dev` and `server`.",
        sources: &["crates/mainstay-coord/src/registry/figures.rs"],
        register: |registry| {
            let figures = mainstay_coord::registry::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Config centre",
        told_by: "Roles `dev` and `server`.",
        sources: &["crates/mainstay-coord/src/centre/figures.rs"],
        register: |registry| {
            let figures = mainstay_coord::centre::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Locks, semaphores and elections",
        told_by: "Roles `dev` and `server`.",
        sources: &["crates/mainstay-coord/src/figures.rs"],
        register: |registry| {
            let figures = mainstay_coord::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Switches, plans and the audit outbox",
        told_by: "Roles `dev` and `server`.",
        sources: &[
            "crates/mainstay-coord/src/switch/figures.rs",
            "crates/mainstay-coord/src/audit/figures.rs",
        ],
        register: |registry| {
            mainstay_coord::switch::figures::Figures::default().register(registry);
            mainstay_coord::audit::figures::Figures::default().register(registry);
        },
    },
    Part {
        title: "The audit log",
        told_by: "Roles `dev` and `server`.",
        sources: &["crates/mainstay/src/audit/figures.rs"],
        register: |registry| {
            let figures = audit::figures::Figures::default();
            figures.register(registry);
            figures.exercise();
        },
    },
    Part {
        title: "Backups",
        told_by: "Roles `dev` and `server` where `backup.every` is set.",
        sources: &["crates/mainstay/src/backup/figures.rs"],
        register: |registry| backup::figures::Figures::default().register(registry),
    },
    Part {
        title: "DNS",
        told_by: "Roles `dev` and `server` where names are answered.",
        sources: &["crates/mainstay/src/dns/figures.rs"],
        register: |registry| {
            let figures = dns::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Transactions",
        told_by: "Roles `dev` and `server`, where `transaction.enabled`.",
        sources: &["crates/mainstay-txn/src/figures.rs"],
        register: |registry| {
            let figures = mainstay_txn::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Databases of transactions",
        told_by: "Roles `dev` and `server` with `[[transaction.resource]]`.",
        sources: &["crates/mainstay-txn/src/resource/figures.rs"],
        register: |registry| {
            let figures = mainstay_txn::resource::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
    Part {
        title: "Calls of branches",
        told_by: "Roles `dev` and `server`, where `transaction.enabled`.",
        sources: &["crates/mainstay/src/transaction/figures.rs"],
        register: |registry| {
            let figures = transaction::figures::Figures::default();
            figures.register(registry);
            figures.show_all();
        },
    },
];

/// One metric, as a scrape sees it.
#[derive(Debug, Default)]
struct Shown {
    name: String,
    kind: String,
    unit: String,
    labels: BTreeSet<String>,
    help: String,
}

/// The page but for the log events.
pub(super) fn render() -> String {
    let mut text =
        "# Telemetry\n\nPrinted from the program and its sources by `cargo xtask docs`; \
        do not edit.\n\n## Metrics\n\n`GET /metrics` of the control port tells them in the \
        OpenMetrics text format. A metric with labels shows once it has something to tell. \
        A histogram named `NAME` has the samples `NAME_bucket` with the label `le`, `NAME_sum` and \
        `NAME_count`.\n"
            .to_owned();
    for part in &PARTS {
        let sources = part.sources.iter().map(|source| format!("[`{source}`](../../{source})"));
        let sources = sources.collect::<Vec<_>>().join(", ");
        text.extend(["\n### ", part.title, "\n\n", part.told_by, " Source: ", &sources, ".\n"]);
        text.push_str("\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
        for Shown { name, kind, unit, labels, help } in shown(&exposition(part)) {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let cells = [format!("`{name}`"), kind, unit, labels.join(", "), help];
            text.extend(cells.iter().flat_map(|cell| ["| ", cell.as_str(), " "]));
            text.push_str("|\n");
        }
    }
    text.push_str(
        "\n## Marks in the audit log\n\nThe `action` of a record. What is refused or fails has the \
        same mark with another `outcome`.\n\n| action | left by |\n|---|---|\n",
    );
    for (mark, by) in control::marks() {
        text.extend(["| `", &mark, "` | ", &by.join("; "), " |\n"]);
    }
    text
}

fn exposition(part: &Part) -> String {
    let mut registry = Registry::with_prefix("mainstay");
    (part.register)(&mut registry);
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

/// The metrics of an exposition, in its order.
fn shown(exposition: &str) -> Vec<Shown> {
    let mut all = Vec::<Shown>::new();
    for line in exposition.lines() {
        if let Some((name, help)) = after(line, "# HELP ") {
            // The encoder ends the sentence; a cell of a table is none.
            let help = help.trim_end_matches('.').replace('|', "\\|");
            all.push(Shown { name: name.to_owned(), help, ..Shown::default() });
            continue;
        }
        let Some(last) = all.last_mut() else { continue };
        if let Some((_, kind)) = after(line, "# TYPE ") {
            kind.clone_into(&mut last.kind);
            if kind == "counter" {
                last.name.push_str("_total");
            }
        } else if let Some((_, unit)) = after(line, "# UNIT ") {
            unit.clone_into(&mut last.unit);
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|label| label.split('=').next());
            let names = names.filter(|name| !name.is_empty() && *name != "le");
            last.labels.extend(names.map(str::to_owned));
        }
    }
    all
}

fn after<'l>(line: &'l str, start: &str) -> Option<(&'l str, &'l str)> {
    line.strip_prefix(start)?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a registry holds can be seen in how it is debugged, also of families that are empty and
    /// so in no exposition.
    #[test]
    fn every_metric_that_is_registered_shows() {
        for part in &PARTS {
            let mut registry = Registry::with_prefix("mainstay");
            (part.register)(&mut registry);
            let registered = format!("{registry:?}").matches("Descriptor {").count();
            let shown = shown(&exposition(part));
            // Collectors are asked, not registered one by one.
            let collected = part.sources[0].contains("cluster/figures");
            assert!(
                if collected { !shown.is_empty() } else { registered == shown.len() },
                "{}: {registered} are registered, and these show: {shown:#?}",
                part.title
            );
        }
    }

    #[test]
    fn no_metric_is_registered_twice_and_names_end_in_their_unit() {
        let mut known = BTreeSet::new();
        for part in &PARTS {
            for Shown { name, unit, help, .. } in shown(&exposition(part)) {
                let base = name.strip_suffix("_total").unwrap_or(&name);
                assert!(base.starts_with("mainstay_") && base.ends_with(&unit), "{name} in {unit}");
                assert!(!help.is_empty(), "{name} has no help");
                // Both backends of the store count some things alike; a node has one.
                let backend = part.title.starts_with("Store: ").then_some(part.title);
                assert!(known.insert((name.clone(), backend)), "{name} is there twice");
            }
        }
    }
}
