//! A request as a message of the coordinator.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};
use mainstay_call::deferred::{Deferral, NotDeferred, Receipt, ReceiptState};
use mainstay_call::draw;
use mainstay_call::stage::timeout::is_grpc;
use mainstay_resilience::fallback::DeferredPolicy;
use mainstay_txn::run::Seen;
use mainstay_txn::{Begin, Coordinator, Gid, Mode, NewBranch, Op, Part, Payload, Prepare, Target};
use sha2::{Digest as _, Sha256};

use super::receipt;
use crate::output::hex;
use crate::transaction::deliveries::QUEUE_KEPT;
use crate::transaction::request::{HOST_KEPT, is_reserved};

/// What deferred requests are called as transactions.
pub(crate) const NAME: &str = "deferred";

/// By which label their queue can be asked for.
pub(crate) const LABEL: &str = "queue";

const PREFIX: &str = "deferred-";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The gid of the request with the receipt `id`; `None` for what is no receipt.
pub(crate) fn gid(id: &str) -> Option<Gid> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let legal = id.len() == 32 && id.bytes().all(is_digit);
    Gid::new(&format!("{PREFIX}{id}")).ok().filter(|_| legal)
}

/// The receipt's id in the gid of a request, or of what it was replayed as.
pub(super) fn id(gid: &Gid) -> Option<&str> {
    gid.as_str().strip_prefix(PREFIX)?.get(..32)
}

/// The generation after the request `gid`, or after what it was replayed as: the one that a replay
/// of it begins. `None` where there can be none.
pub(crate) fn next(own: &Gid) -> Option<Gid> {
    let base = gid(id(own)?)?;
    let number = match own.as_str().strip_prefix(base.as_str())? {
        "" => 1,
        rest => rest.strip_prefix(".r")?.parse::<u32>().ok()?.checked_add(1)?,
    };
    base.again(number).ok()
}

/// Draws ids of receipts. Whoever knows one may ask what became of a request, so they cannot be
/// guessed from each other.
#[derive(Debug, Default)]
pub(super) struct Mint([RandomState; 2]);

/// Ids drawn until one lies where this node owns the log.
const DRAWS_MAX: usize = 1_024;

impl Mint {
    /// An id whose request this node may keep.
    pub(super) fn id(&self, coordinator: &Coordinator) -> String {
        let draw = || {
            let seed = (draw::next(), draw::next());
            let [a, b] = &self.0;
            format!("{:016x}{:016x}", a.hash_one(seed), b.hash_one(seed))
        };
        let mut draws = std::iter::repeat_with(draw);
        let owned = |id: &String| gid(id).is_some_and(|gid| coordinator.owns(&gid));
        // A node that owns nothing refuses whatever it is given.
        draws.by_ref().take(DRAWS_MAX).find(owned).unwrap_or_else(draw)
    }
}

/// A request as a message.
#[derive(Debug)]
pub(super) struct Message {
    id: Arc<str>,
    gid: Gid,
    keyed: bool,
    begin: Begin,
}

impl Message {
    /// `deferral` as it is kept under `policy`; `id` draws a receipt's for one without a key.
    ///
    /// # Errors
    ///
    /// [`NotDeferred::Unfit`] when it cannot be sent later as it is.
    pub(super) fn of(
        deferral: &Deferral,
        policy: &DeferredPolicy,
        id: impl FnOnce() -> String,
    ) -> Result<Self, NotDeferred> {
        let Deferral { queue, service, request } = deferral;
        if is_grpc(request.headers()) {
            return Err(unfit("calls of gRPC are not made later"));
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let key = text(request.headers(), &IDEMPOTENCY_KEY)?;
        let id: Arc<str> = match &key {
            Some(key) => id_of(deferral, path, key).into(),
            None => id().into(),
        };
        let gid = gid(&id).ok_or_else(|| unfit("its receipt has no name"))?;
        let mut headers = kept(request.headers(), policy.keep_authorization)?;
        let keyed = key.is_some();
        let key = key.unwrap_or_else(|| id.to_string());
        headers.push((IDEMPOTENCY_KEY.to_string(), key));
        headers.push((QUEUE_KEPT.to_owned(), queue.to_string()));
        if let Some(host) = text(request.headers(), &HOST)? {
            headers.push((HOST_KEPT.to_owned(), host));
        }
        let target = Target::Service {
            service: service.to_string(),
            path: path.to_owned(),
            method: Some(request.method().to_string()),
        };
        let payload = Payload {
            bytes: request.body().clone(),
            content_type: text(request.headers(), &CONTENT_TYPE)?,
            headers,
        };
        let targets = BTreeMap::from([(Op::Action, target)]);
        let part = Part::Endpoint { targets: targets.into(), prepare: Prepare::Own };
        let begin = Begin {
            name: Some(NAME.to_owned()),
            labels: BTreeMap::from([(LABEL.to_owned(), queue.to_string())]),
            give_up_after: Some(policy.expire),
            steps: vec![NewBranch { branch: None, part, after: Vec::new(), payload }],
            submit: true,
            ..Begin::new(gid.clone(), Mode::Message)
        };
        Ok(Self { id, gid, keyed, begin })
    }

    /// What it is called.
    pub(super) const fn gid(&self) -> &Gid {
        &self.gid
    }

    /// Whether its caller gave it a key, so that it can be known again.
    pub(super) const fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// How much room it takes, about.
    pub(super) fn bytes(&self) -> u64 {
        bytes(&self.begin)
    }

    /// What it is begun with.
    pub(super) fn begin(&self) -> Begin {
        self.begin.clone()
    }

    /// The receipt of it, as it stands.
    pub(super) fn receipt(&self, seen: &Seen) -> Receipt {
        receipt::receipt(&self.id, &seen.transaction)
    }

    /// The receipt of one that was kept before, if it asks for the same. What differs from one
    /// attempt to the next, as traces and times do, counts for nothing.
    ///
    /// # Errors
    ///
    /// [`NotDeferred::KeyTaken`]; [`NotDeferred::GivenUp`] of one that nobody makes any more: who is
    /// told that it was taken on would rely on it.
    pub(super) fn repeated(&self, seen: &Seen) -> Result<Receipt, NotDeferred> {
        let is_same = |kept: &NewBranch, own: &NewBranch| {
            kept.part == own.part
                && kept.payload.bytes == own.payload.bytes
                && kept.payload.content_type == own.payload.content_type
        };
        match (&seen.transaction.begin.steps[..], &self.begin.steps[..]) {
            ([kept], [own]) if is_same(kept, own) => match self.receipt(seen) {
                Receipt { state: ReceiptState::Dead, .. } => Err(NotDeferred::GivenUp),
                receipt => Ok(receipt),
            },
            _ => Err(NotDeferred::KeyTaken),
        }
    }
}

/// How much room a message takes, about.
pub(super) fn bytes(begin: &Begin) -> u64 {
    let one = |step: &NewBranch| {
        let Payload { bytes, headers, .. } = &step.payload;
        let headers = headers.iter().map(|(name, value)| name.len() + value.len());
        bytes.len() + headers.sum::<usize>()
    };
    begin.steps.iter().map(one).sum::<usize>().try_into().unwrap_or(u64::MAX)
}

/// The id that the same caller's same request with the same key always has. Callers are told apart
/// by host, credential and cookies, so that nobody is given another's receipt, and has no request
/// made, for a key that both chose.
fn id_of(deferral: &Deferral, path: &str, key: &str) -> String {
    let Deferral { queue, service, request } = deferral;
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    let method = request.method().as_str();
    for part in [queue.as_str(), service, method, path, key] {
        add(part.as_bytes());
    }
    for name in [HOST, AUTHORIZATION, COOKIE] {
        let values = request.headers().get_all(name);
        add(&(values.iter().count() as u64).to_be_bytes());
        values.iter().for_each(|value| add(value.as_bytes()));
    }
    hex(hash.finalize().get(..16).unwrap_or_default())
}

/// The headers that go with a request: all but those of a connection, ours, and those that have a
/// place of their own.
fn kept(headers: &HeaderMap, authorization: bool) -> Result<Vec<(String, String)>, NotDeferred> {
    let elsewhere = |name: &HeaderName| {
        is_reserved(name)
            || [CONTENT_TYPE, PROXY_AUTHORIZATION, IDEMPOTENCY_KEY].contains(name)
            || (*name == AUTHORIZATION && !authorization)
    };
    let mut kept = Vec::with_capacity(headers.keys_len() + 3);
    for name in headers.keys().filter(|name| !elsewhere(name)) {
        if let Some(value) = text(headers, name)? {
            kept.push((name.to_string(), value));
        }
    }
    Ok(kept)
}

/// The values of a header as one.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, NotDeferred> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        let value = value.to_str();
        all.push(value.map_err(|_opaque| unfit(&format!("its header `{name}` is no text")))?);
    }
    let between = if *name == COOKIE { "; " } else { ", " };
    Ok((!all.is_empty()).then(|| all.join(between)))
}

fn unfit(why: &str) -> NotDeferred {
    NotDeferred::Unfit(why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use http::Request;
    use mainstay_core::name::PolicyName;

    use super::*;

    fn deferral(headers: &[(&str, &str)]) -> Deferral {
        let mut request = Request::builder().method("PUT").uri("/orders/7?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Deferral {
            queue: PolicyName::new("orders").unwrap(),
            service: "order".into(),
            request: request.body(Bytes::from_static(b"{}")).unwrap(),
        }
    }

    fn message(headers: &[(&str, &str)], keep: bool) -> Result<Message, NotDeferred> {
        let policy = DeferredPolicy { keep_authorization: keep, ..DeferredPolicy::default() };
        Message::of(&deferral(headers), &policy, || "0".repeat(32))
    }

    fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
        let mut headers = message.begin.steps[0].payload.headers.iter();
        headers.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_request_is_kept_but_for_what_its_connection_needed() {
        let headers = [
            ("host", "shop.example"),
            ("content-type", "application/json"),
            ("content-length", "2"),
            ("connection", "close"),
            ("mainstay-timeout-ms", "500"),
            ("authorization", "Bearer x"),
            ("x-user", "7"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("accept", "a"),
            ("accept", "b"),
        ];
        let made = message(&headers, false).unwrap();
        for (name, want) in [
            ("x-user", Some("7")),
            ("cookie", Some("a=1; b=2")),
            ("accept", Some("a, b")),
            ("idempotency-key", Some(&*"0".repeat(32))),
            (HOST_KEPT, Some("shop.example")),
            (QUEUE_KEPT, Some("orders")),
            ("host", None),
            ("authorization", None),
            ("connection", None),
            ("content-length", None),
            ("mainstay-timeout-ms", None),
        ] {
            assert_eq!(header(&made, name), want, "{name}");
        }
        assert!(!made.is_keyed());
        let payload = &made.begin.steps[0].payload;
        assert_eq!(payload.content_type.as_deref(), Some("application/json"));
        assert_eq!(payload.bytes, "{}");
        let made = message(&headers, true).unwrap();
        assert_eq!(header(&made, "authorization"), Some("Bearer x"));
    }

    #[test]
    fn the_same_key_of_the_same_caller_is_the_same_receipt() {
        let id = |headers: &[(&str, &str)]| message(headers, false).unwrap().id;
        let key = ("idempotency-key", "k-1");
        let first = id(&[key, ("x-trace", "1")]);
        assert_eq!(first, id(&[key, ("x-trace", "2")]));
        assert_ne!(first, id(&[("idempotency-key", "k-2")]));
        let others = [
            ("authorization", "Bearer x"),
            ("authorization", "a=1"),
            ("cookie", "a=1"),
            ("host", "a=1"),
        ];
        let others: BTreeSet<_> = others.iter().map(|other| id(&[key, *other])).collect();
        assert!(others.len() == 4 && !others.contains(&first), "other callers: {others:?}");
        let made = message(&[key], false).unwrap();
        assert_eq!(header(&made, "idempotency-key"), Some("k-1"));
        assert_eq!(gid(&made.id).as_ref(), Some(made.gid()));
    }

    #[test]
    fn a_generation_follows_its_own_name_alone() {
        let base = format!("deferred-{}", "0".repeat(32));
        for (own, want) in [
            (base.clone(), Some(format!("{base}.r1"))),
            (format!("{base}.r1"), Some(format!("{base}.r2"))),
            (format!("{base}.r9"), Some(format!("{base}.r10"))),
            (format!("{base}.r{}", u32::MAX), None),
            (format!("{base}.r"), None),
            (format!("{base}.r1.r1"), None),
            (format!("{base}0"), None),
            ("order-1".to_owned(), None),
            ("order-1.r1".to_owned(), None),
        ] {
            let next = next(&Gid::new(&own).unwrap()).map(|gid| gid.to_string());
            assert_eq!(next, want, "{own}");
        }
    }

    #[test]
    fn what_could_not_be_sent_as_it_came_is_not_kept() {
        assert!(message(&[("content-type", "application/grpc")], false).is_err());
        assert!(message(&[("x-name", "\u{80}")], false).is_err());
        for bad in ["", "..", "x", &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(gid(bad), None, "{bad}");
        }
    }
}
