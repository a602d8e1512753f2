//! Fetches a key set: of a file, of an address, or where a discovery document says.
//!
//! One request on a connection of its own, without redirects, within five seconds, of at most
//! 256 KiB. HTTP in the clear is for this machine's loopback only, whatever a name stands for.

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mainstay_proxy::config::jwt::{Source, is_fetchable};
use mainstay_proxy::identify::Fetched;
use mainstay_security::jwks::max_age;
use mainstay_security::jws::{KeySet, Origin, SET_BYTES_MAX};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::egress::Egress;
use crate::transaction::targets::Place;
use crate::transaction::trusting_this_machine;

/// How long one answer may take, from the look-up of the name to its last byte.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Fetches key sets.
pub struct Fetcher {
    egress: Egress,
    tls: OnceCell<TlsConnector>,
}

/// What was in the way, for people.
type Failure = String;

/// What a discovery document says (`OpenID` Connect Discovery 1.0, section 3), as far as it matters.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// Connects where `egress` allows.
    pub fn new(egress: Egress) -> Self {
        Self { egress, tls: OnceCell::new() }
    }

    /// Fetches the keys of `issuer` from `source`.
    ///
    /// # Errors
    ///
    /// What was in the way.
    pub(super) async fn fetch(&self, source: &Source, issuer: &str) -> Result<Fetched, Failure> {
        let url = match source {
            Source::File(path) => {
                let bytes =
                    read(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
                return set(&bytes, Origin::Local, None);
            }
            Source::Url(url) => url.clone(),
            Source::Discovery(document) => {
                let (bytes, _) = self.get(document).await?;
                said(&bytes, issuer).map_err(|why| format!("{document}: {why}"))?
            }
        };
        let (bytes, max_age) = self.get(&url).await?;
        set(&bytes, Origin::Remote, max_age).map_err(|why| format!("{url}: {why}"))
    }

    /// The answer at `url`, and how long it says that it holds.
    async fn get(&self, url: &Uri) -> Result<(Vec<u8>, Option<Duration>), Failure> {
        let answered = tokio::time::timeout(ANSWER_MAX, self.ask(url)).await;
        let late = || format!("no whole answer within {} s", ANSWER_MAX.as_secs());
        let answered = answered.map_err(|_elapsed| late()).and_then(|answered| answered);
        answered.map_err(|why| format!("{url}: {why}"))
    }

    async fn ask(&self, url: &Uri) -> Result<(Vec<u8>, Option<Duration>), Failure> {
        let place = Place::of(url).ok_or("it has no host")?;
        let tcp = self.reach(place).await?;
        if place.scheme != "https" {
            return exchange(tcp, url).await;
        }
        let tls = self.tls.get_or_try_init(|| async { trusting_this_machine() }).await;
        let tls = tls.map_err(|error| error.to_string())?;
        let name =
            ServerName::try_from(place.host.to_owned()).map_err(|error| error.to_string())?;
        let stream = tls.connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?;
        exchange(stream, url).await
    }

    /// Connects to the first address of `place` that may be reached and answers.
    async fn reach(&self, place: Place<'_>) -> Result<TcpStream, Failure> {
        let mut why = "the name has no address".to_owned();
        for address in found(place).await? {
            if let Err(refused) = self.judge(place, address.ip()) {
                why = refused;
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    fn judge(&self, place: Place<'_>, ip: IpAddr) -> Result<(), Failure> {
        self.egress.check(place.host, ip).map_err(|refused| refused.to_string())?;
        if place.scheme == "https" || ip.to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!("egress-refused: HTTP in the clear is for loopback only, and not for {ip}"))
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("egress", &self.egress).finish_non_exhaustive()
    }
}

async fn found(place: Place<'_>) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(ip) = place.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, place.port)]);
    }
    let found = lookup_host((place.host, place.port)).await;
    found.map(Iterator::collect).map_err(|error| format!("look-up: {error}"))
}

/// A file, as far as a key set may be long, and a byte more.
async fn read(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn set(bytes: &[u8], origin: Origin, max_age: Option<Duration>) -> Result<Fetched, Failure> {
    let keys = KeySet::parse(bytes, origin).map_err(|invalid| format!("no key set: {invalid}"))?;
    Ok(Fetched { keys, max_age })
}

/// Where a discovery document says that the keys are, if it is the issuer's own.
fn said(bytes: &[u8], issuer: &str) -> Result<Uri, Failure> {
    let document: Discovery =
        serde_json::from_slice(bytes).map_err(|error| format!("no discovery document: {error}"))?;
    if document.issuer != issuer {
        return Err("the discovery document is of another `issuer`".to_owned());
    }
    let uri = document.jwks_uri.parse::<Uri>().ok().filter(is_fetchable);
    uri.ok_or_else(|| "`jwks_uri` must be a URL with `https`".to_owned())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &Uri,
) -> Result<(Vec<u8>, Option<Duration>), Failure> {
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .header(header::USER_AGENT, "mainstay")
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut connection = pin!(connection);
    let mut reply = pin!(async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        whole(answer).await
    });
    // No task drives the connection: it ends with whoever waits for the answer.
    tokio::select! {
        biased;
        reply = &mut reply => return reply,
        _ended = poll_fn(|context| connection.as_mut().poll(context)) => {}
    }
    reply.await
}

/// The body of a plain success that is not too long.
async fn whole(answer: Response<Incoming>) -> Result<(Vec<u8>, Option<Duration>), Failure> {
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!("HTTP {}: redirects are not followed", status.as_u16()));
    }
    if status != StatusCode::OK {
        return Err(format!("HTTP {}", status.as_u16()));
    }
    let says = answer.headers().get(header::CACHE_CONTROL);
    let max_age = says.and_then(|says| says.to_str().ok()).and_then(max_age);
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Some(data) = frame.data_ref() else { continue };
        if SET_BYTES_MAX < bytes.len() + data.len() {
            return Err(format!("more than {} KiB", SET_BYTES_MAX >> 10));
        }
        bytes.extend_from_slice(data);
    }
    Ok((bytes, max_age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_document_is_the_issuers_own_and_leads_somewhere_safe() {
        let document = |issuer: &str, uri: &str| {
            serde_json::json!({ "issuer": issuer, "jwks_uri": uri, "other": 1 }).to_string()
        };
        let check = |document: String| said(document.as_bytes(), "https://id.example");
        let good = check(document("https://id.example", "https://id.example/keys"));
        assert_eq!(good.unwrap(), "https://id.example/keys");
        for (issuer, uri) in [
            ("https://id.example/", "https://id.example/keys"),
            ("https://id.example", "http://id.example/keys"),
            ("https://id.example", "file:///etc/passwd"),
            ("https://id.example", "https://a@id.example/keys"),
            ("https://id.example", "/keys"),
        ] {
            check(document(issuer, uri)).unwrap_err();
        }
        check("<html>".to_owned()).unwrap_err();
    }

    #[test]
    fn plain_http_is_for_loopback_whatever_a_name_stands_for() {
        let fetcher = Fetcher::new(Egress::default().with_loopback(true));
        let judge = |scheme, host, ip: &str| {
            fetcher.judge(Place { scheme, host, port: 1 }, ip.parse().unwrap()).is_ok()
        };
        assert!(judge("http", "localhost", "127.0.0.1") && judge("http", "::1", "::1"));
        assert!(judge("https", "id.example", "1.1.1.1"));
        assert!(!judge("http", "localhost", "1.1.1.1"));
        assert!(!judge("https", "id.example", "10.0.0.1"));
    }
}
