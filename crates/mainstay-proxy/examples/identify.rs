//! What it costs to know a caller by a token, without the product around it: `identify MODE COUNT`
//! passes COUNT requests through the stage and prints the time of one. For measuring and profiling.
//!
//! MODE is `none` (the stage asks nobody: what the loop itself costs), `cached` (one token, verified
//! lately), `cold-es256` or `cold-eddsa` (each token for the first time).

use std::error::Error;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Facts};
use mainstay_core::Clock as _;
use mainstay_proxy::config::{Plane, RawPlane};
use mainstay_proxy::gateway::{Gateway, Parts};
use mainstay_proxy::identify::{Fetched, Identify, Policy};
use mainstay_proxy::metrics::Metrics;
use mainstay_security::jws::{KeySet, Origin};
use serde_json::{Value, json};
use tower_service::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "
    [[gateway.jwt]]
    issuer = 'https://id.example'
    audiences = ['orders']
    algorithms = ['ES256', 'EdDSA']
    claims_to_headers = { sub = 'x-user' }
    [route.r]
    to = 's'
    [upstream.s]
    instances = ['127.0.0.1:1']";

#[derive(Clone)]
struct Service200;

impl Service<Request<()>> for Service200 {
    type Response = Response<Request<()>>;
    type Error = CallError;
    type Future = Ready<Result<Self::Response, CallError>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}

enum Signer {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Signer {
    fn new(mode: &str) -> Result<Self, Box<dyn Error>> {
        Ok(if mode.ends_with("eddsa") {
            Self::EdDsa(Ed25519KeyPair::generate()?)
        } else {
            Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?)
        })
    }

    fn jwk(&self) -> Value {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Es256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": "a", "x": part(x), "y": part(y) })
            }
            Self::EdDsa(key) => {
                let x = part(key.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": x })
            }
        }
    }

    fn token(&self, sub: &str) -> Result<HeaderValue, Box<dyn Error>> {
        #[expect(clippy::disallowed_methods, reason = "tokens bear the time of day")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": "https://id.example", "aud": "orders", "sub": sub, "iat": now, "exp": now + 3_000,
            "groups": ["dev", "ops"], "scope": "orders:read orders:write", "jti": "0123456789abcdef",
        });
        let alg = if matches!(self, Self::Es256(_)) { "ES256" } else { "EdDSA" };
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({ "alg": alg, "kid": "a" })), part(claims));
        let signature = match self {
            Self::Es256(key) => key.sign(&SystemRandom::new(), signed.as_bytes())?,
            Self::EdDsa(key) => key.sign(signed.as_bytes()),
        };
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Ok(HeaderValue::try_from(format!("Bearer {signed}.{signature}"))?)
    }
}

#[expect(clippy::print_stdout, reason = "what was measured is what it is run for")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().ok_or("none, cached, cold-es256 or cold-eddsa")?;
    let count: usize = arguments.next().ok_or("how many?")?.parse()?;
    let plane = Plane::resolve(toml::from_str::<RawPlane>(CONFIG)?).map_err(|_faults| "config")?;
    let gateway = Gateway::new(Arc::new(plane), Parts::new(Metrics::new()))?;
    let running = gateway.running();
    let signer = Signer::new(&mode)?;
    for issuer in running.issuers.iter() {
        let set = json!({ "keys": [signer.jwk()] }).to_string();
        let keys = KeySet::parse(set.as_bytes(), Origin::Remote)?;
        let _begun = issuer.keys.begin(MonotonicClock.now());
        issuer.keys.ended(MonotonicClock.now(), 0, Ok(Fetched { keys, max_age: None }));
    }
    let different = if mode.starts_with("cold") { count } else { 1 };
    let tokens = (0..different).map(|n| signer.token(&format!("user {n}")));
    let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
    let route = running.plane.routes.iter().next().ok_or("no route")?;
    let policy = Policy::of(route, &running.issuers).filter(|_| mode != "none");
    let mut stage = Identify::new(policy, Service200);
    let context = Context::new(MonotonicClock.now(), Facts::default());
    let began = MonotonicClock.now();
    for n in 0..count {
        let mut request = Request::new(());
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(AUTHORIZATION, tokens[n % different].clone());
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Arc::clone(&context));
        let answer = pin!(stage.call(request)).poll(&mut Task::from_waker(Waker::noop()));
        if !matches!(black_box(answer), Poll::Ready(Ok(_))) {
            return Err("a good token was refused".into());
        }
    }
    let nanos = MonotonicClock.now().since(began).as_nanos() / count as u128;
    println!("{mode}: {nanos} ns a request, token of {} bytes", tokens[0].len() - 7);
    Ok(())
}
