//! TLS of checks: whom a check believes, and under which name.
//!
//! Each check shakes hands anew: one that went on with an old session would not notice that a
//! certificate has run out.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::registry::Invalid;

/// Most bytes of `ca_pem`: some ten certificates. The checks of a service are one record, which
/// holds 1 MiB.
pub const CA_BYTES_MAX: usize = 32_768;

/// TLS of a check as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ServiceCheckTls)]
pub struct RawCheckTls {
    /// Authorities to believe, PEM. Default: those of the system that the check is sent from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The name that is asked for, and that the certificate must be for. Default: the instance's
    /// address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether the certificate is looked at. Default `true`; with `false` whoever answers is
    /// believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
}

/// TLS of a check, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckTls {
    /// Whom it believes.
    pub trust: Trust,
    /// The name it asks for instead of the address.
    pub server_name: Option<ServerName<'static>>,
}

/// Whom a check believes.
#[derive(Clone, Debug, PartialEq)]
pub enum Trust {
    /// The authorities of the system.
    System,
    /// These.
    Own(Arc<[CertificateDer<'static>]>),
    /// Whoever answers.
    Anybody,
}

impl TryFrom<&RawCheckTls> for CheckTls {
    type Error = Invalid;

    fn try_from(raw: &RawCheckTls) -> Result<Self, Invalid> {
        let trust = match (&raw.ca_pem, raw.verify.unwrap_or(true)) {
            (None, true) => Trust::System,
            (None, false) => Trust::Anybody,
            (Some(pem), true) => Trust::Own(authorities(pem)?),
            (Some(_), false) => {
                return Err(Invalid::new("checks.tls.verify", "is off: nobody would ask `ca_pem`"));
            }
        };
        let name = raw.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = name.map_err(|_invalid| {
            Invalid::new("checks.tls.server_name", "is neither a host name nor an IP address")
        })?;
        Ok(Self { trust, server_name })
    }
}

fn authorities(pem: &str) -> Result<Arc<[CertificateDer<'static>]>, Invalid> {
    let wrong = |problem| Invalid::new("checks.tls.ca_pem", problem);
    if CA_BYTES_MAX < pem.len() {
        return Err(wrong("must be at most 32768 bytes"));
    }
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|_broken| wrong("is no PEM"))?;
    let is_usable = |one: &CertificateDer<'static>| RootCertStore::empty().add(one.clone()).is_ok();
    if read.is_empty() || !read.iter().all(is_usable) {
        return Err(wrong("must be certificates of authorities"));
    }
    Ok(read.into())
}

/// The authorities of this system: `SSL_CERT_FILE` and `SSL_CERT_DIR`, or where the system keeps
/// them. Read once, by the first check that asks for them: a few milliseconds.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
});

impl CheckTls {
    /// Shakes hands on `stream` with whoever is to be `host`, or the name this says where
    /// `is_target`; speaks `protocol` (ALPN) from then on.
    ///
    /// # Errors
    ///
    /// What was in the way, for people.
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        (host, is_target): (&str, bool),
        protocol: &str,
    ) -> Result<Box<TlsStream<TcpStream>>, String> {
        let said = self.server_name.clone().filter(|_| is_target);
        let name = match said {
            Some(name) => name,
            None => ServerName::try_from(host.trim_end_matches('.').to_owned())
                .map_err(|_invalid| format!("TLS: `{host}` is no name a certificate is for"))?,
        };
        let failed =
            |error: &dyn std::error::Error| format!("TLS with `{}`: {error}", name.to_str());
        let mut config = self.config().map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let shaken = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await;
        shaken.map(Box::new).map_err(|error| failed(&error))
    }

    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match &self.trust {
            Trust::System => builder.with_root_certificates(Arc::clone(&SYSTEM)),
            Trust::Own(certificates) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates.iter().cloned());
                builder.with_root_certificates(roots)
            }
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
        };
        Ok(builder.with_no_client_auth())
    }
}

/// Takes any certificate, as whoever wrote the check said.
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
