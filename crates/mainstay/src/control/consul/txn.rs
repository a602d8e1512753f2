//! `txn`: several operations on pairs, all or none.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use mainstay_coord::consul::{Done, Failed, PairOp, Written};
use mainstay_coord::keys::PairName;
use mainstay_store::Revision;
use serde::Serialize;
use serde_json::Value;

use super::answer::{Text, with_status};
use super::body::{Fields, undecodable};
use super::query::Asked;
use super::{Said, kv, unbase64};
use crate::cluster::Cluster;

/// Operations of one request.
const OPERATIONS_MAX: usize = 128;

/// `PUT txn`
pub(super) async fn put(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let items: Vec<Value> = serde_json::from_slice(&body.0).map_err(|e| undecodable(&e))?;
    if OPERATIONS_MAX < items.len() {
        let line = format!(
            "Transaction contains too many operations ({} > {OPERATIONS_MAX})",
            items.len()
        );
        return Err(Text(StatusCode::PAYLOAD_TOO_LARGE, line));
    }
    let ops: Vec<PairOp> = items.into_iter().map(op).collect::<Result<_, _>>()?;
    let (status, results) = match door.recipes.apply(&ops).await? {
        Ok(done) => {
            let each = done.iter().zip(&ops).flat_map(|(done, op)| result(done, op));
            (StatusCode::OK, Results { results: Some(each.collect()), errors: None })
        }
        Err(failed) => {
            let error =
                |(at, why): &(usize, Failed)| Refused { op_index: *at, what: why.to_string() };
            let errors = failed.iter().map(error).collect();
            (StatusCode::CONFLICT, Results { results: None, errors: Some(errors) })
        }
    };
    Ok(with_status(&asked, status, &results))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Results {
    results: Option<Vec<One>>,
    errors: Option<Vec<Refused>>,
}

#[derive(Serialize)]
struct One {
    #[serde(rename = "KV")]
    kv: kv::Document,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    op_index: usize,
    what: String,
}

fn result(done: &Done, op: &PairOp) -> Vec<One> {
    let with_value = !matches!(op, PairOp::CheckSession(..));
    let one = |pair, with_value| One { kv: kv::document(pair, with_value) };
    match done {
        Done::Read(pairs) => pairs.iter().map(|pair| one(pair, with_value)).collect(),
        Done::Written(pair) => vec![one(pair, false)],
        Done::Nothing => Vec::new(),
    }
}

pub(super) fn op(item: Value) -> Result<PairOp, Text> {
    let Some(inner) = Fields::of(item)?.take("KV") else {
        let line = "only KV operations are part of this door's txn; see docs/consul.md";
        return Err(Text(StatusCode::NOT_IMPLEMENTED, line.to_owned()));
    };
    let mut fields = Fields::of(inner)?;
    let verb = fields.text("Verb")?.unwrap_or_default();
    let key = fields.text("Key")?.unwrap_or_default();
    match &*verb {
        "get-tree" => return Ok(PairOp::GetTree(key)),
        "delete-tree" => return Ok(PairOp::DeleteTree(key)),
        _ => {}
    }
    let name = PairName::new(key.clone())
        .ok_or_else(|| Text::bad(format!("Invalid key name {key:?} for verb {verb:?}")))?;
    let index = Revision::new(fields.number("Index")?.unwrap_or(0));
    let session = fields.text("Session")?.unwrap_or_default();
    let value = fields.text("Value")?.unwrap_or_default();
    let value = unbase64(&value).ok_or_else(|| {
        Text::bad(format!("Request decode failed: Value of {key:?} is no base64"))
    })?;
    let written =
        Written { name: name.clone(), flags: fields.number("Flags")?.unwrap_or(0), value };
    Ok(match &*verb {
        "set" => PairOp::Set(written),
        "cas" => PairOp::Cas(written, index),
        "lock" => PairOp::Lock(written, session),
        "unlock" => PairOp::Unlock(written, session),
        "get" => PairOp::Get(name),
        "get-or-empty" => PairOp::GetOrEmpty(name),
        "check-index" => PairOp::CheckIndex(name, index),
        "check-session" => PairOp::CheckSession(name, session),
        "check-not-exists" => PairOp::CheckNotExists(name),
        "delete" => PairOp::Delete(name),
        "delete-cas" => PairOp::DeleteCas(name, index),
        _ => return Err(Text::bad(format!("unknown KV verb {verb:?}"))),
    })
}
