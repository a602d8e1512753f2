//! Bodies of requests that programs of others write, read as the doors for them read them.
//!
//! The doors read and act in one; here they only read, so that whoever tries bytes at them, by
//! properties or with a fuzzer (`fuzz`), needs no store.

use axum::http::HeaderMap;

use super::{consul, dtm};
use crate::transaction::settings::DtmConfig;

/// How many of the documents that clients of Consul send `body` is taken for: a service with its
/// checks, a check, a node, a session, a batch of pairs.
pub fn consul(body: &[u8]) -> usize {
    consul::takes(body)
}

/// Whether `body` is what a client of DTM begins a transaction or joins one with.
pub fn dtm(body: &[u8]) -> bool {
    dtm::takes(body, &HeaderMap::new(), &DtmConfig::default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Names that mean something to a door, and one that means nothing.
    const NAMES: [&str; 34] = [
        "ID",
        "Name",
        "check",
        "Checks",
        "CheckID",
        "TTL",
        "HTTP",
        "TCP",
        "GRPC",
        "Args",
        "Header",
        "Interval",
        "Timeout",
        "Status",
        "DeregisterCriticalServiceAfter",
        "ServiceChecks",
        "TaggedAddresses",
        "NodeMeta",
        "KV",
        "Verb",
        "Key",
        "Value",
        "Index",
        "Session",
        "gid",
        "trans_type",
        "steps",
        "payloads",
        "custom_data",
        "query_prepared",
        "branch_headers",
        "timeout_to_fail",
        "passthrough_headers",
        "nothing",
    ];

    const WORDS: [&str; 14] = [
        "",
        "10s",
        "-1s",
        "1h1m",
        "99999999999999999999s",
        "set",
        "cas",
        "get-tree",
        "saga",
        "tcc",
        "http://127.0.0.1:1/x",
        "127.0.0.1:65536",
        "passing",
        "e30=",
    ];

    /// A document such as a client could write, and such as none does.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            prop::sample::select(&WORDS[..]).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            let name = prop::sample::select(&NAMES[..]);
            let members = prop::collection::vec((name, inner.clone()), 0..8);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                members.prop_map(|members| {
                    let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
                    Value::Object(members.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            consul(&body);
            dtm(&body);
        }

        #[test]
        fn whatever_document_comes_is_read_or_refused_as_it_is_written(document in document()) {
            let (short, long) = (document.to_string(), format!("{document:#}"));
            prop_assert_eq!(consul(short.as_bytes()), consul(long.as_bytes()));
            prop_assert_eq!(dtm(short.as_bytes()), dtm(long.as_bytes()));
        }
    }

    #[test]
    fn what_clients_send_is_taken() {
        assert_eq!(consul(br#"{"name": "web", "check": {"TTL": "10s"}}"#), 3);
        assert_eq!(consul(br#"[{"KV": {"Verb": "set", "Key": "a", "Value": "e30="}}]"#), 1);
        assert_eq!(consul(b"[{}]"), 0);
        let saga = br#"{"gid": "g", "trans_type": "saga", "steps": [{"action": "http://a/x"}],
            "payloads": ["{}"]}"#;
        assert!(dtm(saga));
        assert!(!dtm(br#"{"gid": "g", "trans_type": "workflow"}"#));
    }
}
