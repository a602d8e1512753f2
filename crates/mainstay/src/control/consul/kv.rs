//! `kv/…`: key-value pairs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use mainstay_coord::consul::{Failed, Pair, PairOp, Written};
use mainstay_coord::keys::{PairName, consul_pair_name, consul_pairs};
use mainstay_store::{Range, Revision};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::answer::{Text, empty, indexed, json};
use super::query::Asked;
use super::{Said, base64};
use crate::cluster::{Cluster, ConsulDoor};

/// What a path names: everything behind `kv/`, decoded once.
fn named(uri: &Uri) -> Result<String, Text> {
    let path = uri.path().strip_prefix("/kv").unwrap_or_default();
    let name = path.strip_prefix('/').unwrap_or(path);
    let decoded = percent_decode_str(name).decode_utf8();
    decoded.map(Into::into).map_err(|error| Text::bad(format!("Invalid key name: {error}")))
}

fn name(text: &str) -> Result<PairName, Text> {
    if text.is_empty() {
        return Err(Text::bad("Missing key name"));
    }
    let line = "Invalid key name: must be at most 2000 bytes without NUL";
    PairName::new(text).ok_or_else(|| Text::bad(line))
}

/// `GET kv/K`
pub(super) async fn get(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    uri: Uri,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let text = named(&uri)?;
    let is_list = asked.has("recurse") || asked.has("keys");
    let range = if is_list { consul_pairs(&text) } else { Range::key(&name(&text)?.pair()) };
    let (after, wait) = asked.blocking()?;
    if asked.has("keys") {
        let (index, found) = door.recipes.keys_after(range, after, wait).await?;
        let names: Vec<PairName> = found.iter().filter_map(|key| consul_pair_name(key)).collect();
        let response = match keys(&asked, &text, &names) {
            keys if keys.is_empty() && !text.is_empty() => empty(StatusCode::NOT_FOUND),
            keys => json(&asked, &keys),
        };
        return Ok(indexed(door, index.get(), response));
    }
    let found = door.recipes.find_after(&[range], after, wait).await?;
    let pairs: Result<Vec<Pair>, _> = found.entries.iter().flatten().map(Pair::read).collect();
    let response = listed(&asked, &pairs?);
    Ok(indexed(door, found.index.get(), response))
}

fn listed(asked: &Asked, pairs: &[Pair]) -> Response {
    match pairs {
        [] => empty(StatusCode::NOT_FOUND),
        [pair] if asked.has("raw") && !asked.has("recurse") => raw(pair),
        pairs => json(asked, &pairs.iter().map(|pair| document(pair, true)).collect::<Vec<_>>()),
    }
}

/// Whoever stored it chose what it holds, so no browser may take it for a page of ours.
fn raw(pair: &Pair) -> Response {
    let mut response = pair.value.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    response
}

/// Names, cut behind the first separator after the prefix.
fn keys(asked: &Asked, prefix: &str, names: &[PairName]) -> Vec<String> {
    // The second is how old clients spell it.
    let separator = asked.get("separator").or_else(|| asked.get("seperator")).unwrap_or("");
    let cut = |name: &PairName| {
        let name = name.as_str();
        let rest = name.get(prefix.len()..).unwrap_or_default();
        match rest.find(separator) {
            Some(at) if !separator.is_empty() => {
                name.get(..prefix.len() + at + separator.len()).unwrap_or(name).to_owned()
            }
            _ => name.to_owned(),
        }
    };
    let mut keys: Vec<String> = names.iter().map(cut).collect();
    keys.dedup();
    keys
}

/// A pair as a document, in the order of its members.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Document {
    lock_index: u64,
    key: String,
    flags: u64,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
}

/// A pair as a document; an empty value is none.
pub(super) fn document(pair: &Pair, with_value: bool) -> Document {
    let has_value = with_value && !pair.value.is_empty();
    Document {
        lock_index: pair.lock_index,
        key: pair.name.as_str().to_owned(),
        flags: pair.flags,
        value: has_value.then(|| base64(&pair.value)),
        session: pair.session.clone(),
        create_index: pair.created.get(),
        modify_index: pair.modified.get(),
    }
}

/// `PUT kv/K`
pub(super) async fn put(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    uri: Uri,
    body: Said,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let name = name(&named(&uri)?)?;
    let value: Bytes = body.at_most(mainstay_coord::consul::pair::PAIR_VALUE_BYTES_MAX)?;
    let flags = asked.number("flags")?.unwrap_or(0);
    let written = Written { name, flags, value };
    let session = |name: &str| asked.get(name).map(str::to_owned);
    let op = match (asked.number("cas")?, session("acquire"), session("release")) {
        (None, None, None) => PairOp::Set(written),
        (Some(index), None, None) => PairOp::Cas(written, Revision::new(index)),
        (None, Some(session), None) => PairOp::Lock(written, session),
        (None, None, Some(session)) => PairOp::Unlock(written, session),
        _ => return Err(conflicting()),
    };
    done(door, &asked, op).await
}

/// `DELETE kv/K`
pub(super) async fn delete(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    uri: Uri,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let text = named(&uri)?;
    let op = match (asked.has("recurse"), asked.number("cas")?) {
        (true, Some(_)) => return Err(conflicting()),
        (true, None) => PairOp::DeleteTree(text),
        (false, None) => PairOp::Delete(name(&text)?),
        (false, Some(index)) => PairOp::DeleteCas(name(&text)?, Revision::new(index)),
    };
    done(door, &asked, op).await
}

fn conflicting() -> Text {
    Text::bad("Conflicting flags: only one of cas, acquire, release, recurse may be given")
}

async fn done(door: &ConsulDoor, asked: &Asked, op: PairOp) -> Result<Response, Text> {
    match door.recipes.apply(&[op]).await? {
        Ok(_done) => Ok(json(asked, &true)),
        Err(failed) => match failed.into_iter().next() {
            Some((_, error @ Failed::SessionInvalid(_))) => Err(Text::failed(error.to_string())),
            _ => Ok(json(asked, &false)),
        },
    }
}
