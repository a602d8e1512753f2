//! Connections to branches: a name is looked up once, the addresses found are judged, and the first
//! that may be reached and answers is connected to. Redirects are nobody's business here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use mainstay_call::BoxError;
use mainstay_coord::health::targets::Addresses;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::targets::{Place, TargetDenied, Targets};

/// Who says where may be connected to.
#[derive(Clone, Debug)]
pub(super) enum Judge {
    /// Instances of services: where they lie was judged when they were registered; a name is judged
    /// anew by what it stands for now.
    Services(Addresses),
    /// What transactions name.
    Urls(Arc<Targets>),
    /// What somebody has named on their own command line.
    Anywhere,
}

/// Connects to branches. Clones share what is believed of certificates.
#[derive(Clone)]
pub(super) struct Connector {
    judge: Judge,
    tls: Arc<OnceCell<TlsConnector>>,
}

impl Connector {
    pub(super) fn new(judge: Judge) -> Self {
        Self { judge, tls: Arc::default() }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, BoxError> {
        let place = Place::of(&uri).ok_or("the target has no host")?;
        let tcp = self.judge.reach(place, found(place).await?).await?;
        tcp.set_nodelay(true)?;
        if place.scheme != "https" {
            return Ok(TokioIo::new(Stream::Plain(tcp)));
        }
        let tls = self.tls.get_or_try_init(|| async { believed() }).await?;
        let name = ServerName::try_from(place.host.to_owned())?;
        let stream = tls.connect(name, tcp).await?;
        Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
    }
}

impl Judge {
    /// Connects to the first of `addresses`, which `place` stands for, that may be reached and
    /// answers. Only if none may be is that what is wrong: it does not pass with time.
    async fn reach(
        &self,
        place: Place<'_>,
        addresses: Vec<SocketAddr>,
    ) -> Result<TcpStream, BoxError> {
        let (mut denied, mut silent) = (None, None);
        for address in addresses {
            if let Err(why) = self.check(place, address.ip()) {
                denied = Some(why);
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => silent = Some(error.into()),
            }
        }
        Err(silent.or(denied).unwrap_or_else(|| "the name has no address".into()))
    }

    fn check(&self, place: Place<'_>, ip: IpAddr) -> Result<(), BoxError> {
        match self {
            Self::Services(_) if place.host.parse::<IpAddr>().is_ok() => Ok(()),
            Self::Services(addresses) => Ok(addresses.check_ip(ip)?),
            Self::Urls(targets) => Ok(targets.check_ip(place, ip)?),
            Self::Anywhere => Ok(()),
        }
    }
}

/// The addresses of a place.
async fn found(place: Place<'_>) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = place.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, place.port)]);
    }
    Ok(lookup_host((place.host, place.port)).await?.collect())
}

/// Whether an error says that a target is not allowed.
pub(super) fn denied<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TargetDenied> {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref::<TargetDenied>())
}

/// TLS by the authorities that this machine believes; `SSL_CERT_FILE` names others.
pub(crate) fn believed() -> Result<TlsConnector, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no certificate authority is known on this machine".into());
    }
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::targets::Rules;
    use super::*;

    /// What comes of a connection to a name that stands for `addresses`, where the loopback of
    /// this machine alone may be reached.
    async fn reached(addresses: &[SocketAddr]) -> Result<SocketAddr, BoxError> {
        let control = "127.0.0.1:7400".parse().unwrap();
        let judge = Judge::Urls(Arc::new(Targets::new(Rules::default(), control)));
        let port = addresses.first().unwrap().port();
        let place = Place { scheme: "http", host: "shop.internal", port };
        let stream = judge.reach(place, addresses.to_vec()).await?;
        Ok(stream.peer_addr()?)
    }

    #[tokio::test]
    async fn only_addresses_that_are_allowed_are_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let shut = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        // Listens as well, and must not be asked: a name may stand for it from one call to the next.
        let elsewhere = SocketAddr::new("0.0.0.0".parse().unwrap(), open.port());
        assert_eq!(reached(&[elsewhere, open]).await.unwrap(), open);
        assert_eq!(reached(&[shut, open]).await.unwrap(), open);
        let refused = reached(&[elsewhere]).await.unwrap_err();
        assert!(denied(&*refused).is_some(), "{refused}");
        // One that may be reached and is away may be back the next time.
        let away = reached(&[shut, elsewhere]).await.unwrap_err();
        assert!(denied(&*away).is_none(), "{away}");
    }
}
