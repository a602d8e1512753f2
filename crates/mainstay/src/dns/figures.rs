//! What the DNS door counts, in Prometheus' words.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::wire::Reply;

/// Upper bounds in seconds: from one address to a whole service of 10,000.
const QUERY_BUCKETS: [f64; 7] = [0.000_01, 0.000_05, 0.000_2, 0.001, 0.005, 0.025, 0.1];

/// All of them have few values: names that strangers ask for are never labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    zone: &'static str,
    r#type: &'static str,
    rcode: &'static str,
}

/// Counters of the DNS door.
#[derive(Clone, Debug)]
pub struct Figures {
    queries: Family<Asked, Counter>,
    query: Histogram,
    truncated: Counter,
    ignored: Counter,
    refused: Counter,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            queries: Family::default(),
            query: Histogram::new(QUERY_BUCKETS),
            truncated: Counter::default(),
            ignored: Counter::default(),
            refused: Counter::default(),
        }
    }
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("dns");
        own.register("queries", "Questions, by zone, type and outcome", self.queries.clone());
        let seconds = Unit::Seconds;
        own.register_with_unit("query", "Time to find an answer", seconds, self.query.clone());
        own.register("truncated", "Answers that did not fit as a whole", self.truncated.clone());
        own.register("ignored", "Messages that are no questions", self.ignored.clone());
        own.register(
            "connections_refused",
            "Connections closed at once since there were 1,024",
            self.refused.clone(),
        );
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.queries.get_or_create(&Asked::default()));
    }

    pub(super) fn answered(&self, reply: &Reply, took: Duration) {
        let asked = Asked { zone: reply.zone, r#type: reply.kind, rcode: reply.code };
        self.queries.get_or_create(&asked).inc();
        self.query.observe(took.as_secs_f64());
        if reply.truncated {
            self.truncated.inc();
        }
    }

    pub(super) fn ignored(&self) {
        self.ignored.inc();
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metrics_have_the_names_of_the_reference() {
        let figures = Figures::default();
        let mut registry = Registry::with_prefix("mainstay");
        figures.register(&mut registry);
        let (zone, kind, code) = ("mainstay", "A", "NOERROR");
        let reply = Reply { bytes: Vec::new(), zone, kind, code, truncated: true };
        figures.answered(&reply, Duration::from_micros(20));
        figures.ignored();
        figures.refused();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_dns_queries_total{zone=\"mainstay\",type=\"A\",rcode=\"NOERROR\"} 1",
            "mainstay_dns_query_seconds_count 1",
            "mainstay_dns_truncated_total 1",
            "mainstay_dns_ignored_total 1",
            "mainstay_dns_connections_refused_total 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
