//! TLS to databases.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a connection to a database is protected. One by a socket of this machine is not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Tls {
    /// Not at all.
    Off,
    /// It is encrypted; whose certificate it is is not looked at.
    #[default]
    Require,
    /// It is encrypted, and the certificate is for the host and by an authority of this file, PEM.
    Verify(PathBuf),
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsInvalid {
    /// The file of authorities cannot be read.
    #[error("authorities in `{}` cannot be read", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// There is no usable one in it.
    #[error("`{}` holds no certificate of an authority", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The library refuses.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// Certificates of authorities that are usable.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsInvalid> {
    let failed = |source| TlsInvalid::File { path: path.to_owned(), source };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(failed)?;
    let is_usable = |certificate: &CertificateDer<'static>| {
        RootCertStore::empty().add(certificate.clone()).is_ok()
    };
    let usable: Vec<_> = read.into_iter().filter(is_usable).collect();
    if usable.is_empty() {
        return Err(TlsInvalid::Empty { path: path.to_owned() });
    }
    Ok(usable)
}

/// What `MariaDB`'s driver goes by; `None` is no TLS.
pub(super) fn mariadb(tls: &Tls) -> Result<Option<mysql_async::SslOpts>, TlsInvalid> {
    let options = mysql_async::SslOpts::default();
    match tls {
        Tls::Off => Ok(None),
        Tls::Require => Ok(Some(
            options.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true),
        )),
        Tls::Verify(path) => {
            let roots = authorities(path)?.iter().map(|root| root.to_vec().into()).collect();
            Ok(Some(options.with_root_certs(roots).with_disable_built_in_roots(true)))
        }
    }
}

/// What `PostgreSQL`'s driver goes by; `None` is no TLS.
pub(super) fn postgres(tls: &Tls) -> Result<Option<Connector>, TlsInvalid> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let config = match tls {
        Tls::Off => return Ok(None),
        Tls::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
        Tls::Verify(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(authorities(path)?);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(Some(Connector(Arc::new(config))))
}

/// Takes any certificate: `require` is about whoever listens, not about who answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes TLS connections for `PostgreSQL`'s driver.
#[derive(Clone, Debug)]
pub(super) struct Connector(Arc<ClientConfig>);

/// The same for one server.
#[derive(Debug)]
pub(super) struct Connect {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Encrypted<S>;
    type TlsConnect = Connect;
    type Error = rustls_pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Connect, Self::Error> {
        let name = ServerName::try_from(domain.to_owned())?;
        Ok(Connect { config: Arc::clone(&self.0), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let Self { config, name } = self;
        Box::pin(
            async move { TlsConnector::from(config).connect(name, stream).await.map(Encrypted) },
        )
    }
}

/// A connection under TLS. Passwords are not bound to its channel: with `verify` the server is
/// known, and without it there is nobody to bind to.
#[derive(Debug)]
pub(super) struct Encrypted<S>(TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
