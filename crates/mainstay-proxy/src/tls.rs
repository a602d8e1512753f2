//! TLS on both sides: what is offered, whose certificate answers, whom we believe.
//!
//! Server side, everything about certificates sits behind one resolver that a reload swaps; the
//! configuration around it, with its ticket keys and session cache, stays. So a reload neither
//! drops a connection nor costs the next thousand clients a full handshake.
//!
//! A certificate answers for the names it carries, there is nothing to configure: the one that
//! names the host exactly comes first, then one that covers it with a wildcard, then, unless
//! `strict_sni`, the first of the list. Names are compared by the same code that checks peers.
//!
//! Groups, suites and versions are those of the security specification, section 9.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, kx_group};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::upstream::Protocol;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read, or holds no certificate or key.
    #[error("`{path}` is no usable PEM file")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Key and certificate do not match, or are of a kind that cannot be used.
    #[error("`{path}` cannot be used")]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificates by which peers are checked cannot be used.
    #[error("authorities in `{path}` cannot be used")]
    Authorities {
        /// The file.
        path: PathBuf,
    },
    /// There is no certificate to serve with.
    #[error("no certificate")]
    Empty,
    /// The name to ask for is no host name.
    #[error("`{0}` is no host name")]
    Name(String),
    /// rustls refused the settings.
    #[error("settings do not fit together")]
    Settings(#[from] rustls::Error),
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Leaf first.
    pub certificate: PathBuf,
    /// PKCS #8, SEC1 or PKCS #1.
    pub key: PathBuf,
}

impl Pair {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.certificate)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let path = &self.key;
        PrivateKeyDer::from_pem_file(path)
            .map_err(|source| TlsError::File { path: path.clone(), source })
    }
}

/// Whether clients of a listener show a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// They may; one that is shown must be signed by an authority in this file.
    Optional(PathBuf),
    /// They must.
    Required(PathBuf),
}

/// TLS of a listener. Clones share certificates and sessions.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

impl ServerTls {
    /// Reads `pairs`; the first answers clients that name no host, or, unless `strict_sni`, one
    /// that no pair covers.
    ///
    /// # Errors
    ///
    /// [`TlsError`], naming the file.
    pub fn new(
        pairs: &[Pair],
        strict_sni: bool,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let table = Table { pairs: load(pairs)?, strict_sni };
        let certificates = Arc::new(Certificates(ArcSwap::from_pointee(table)));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match clients {
            ClientCertificates::Off => builder.with_no_client_auth(),
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => {
                let roots = Arc::new(authorities(path)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                if matches!(clients, ClientCertificates::Optional(_)) {
                    verifier = verifier.allow_unauthenticated();
                }
                let refused = |_no_use| TlsError::Authorities { path: path.clone() };
                builder.with_client_cert_verifier(verifier.build().map_err(refused)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new()?;
        config.require_ems = true;
        config.send_half_rtt_data = false;
        Ok(Self { config: Arc::new(config), certificates })
    }

    /// Reads `pairs` again and swaps them in for handshakes from now on. Connections, ticket keys
    /// and sessions stay as they are.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; then the old certificates stay.
    pub fn reload(&self, pairs: &[Pair], strict_sni: bool) -> Result<(), TlsError> {
        self.install(NewCertificates::read(pairs, strict_sni)?);
        Ok(())
    }

    /// Swaps in what was read, as [`ServerTls::reload`] does.
    pub fn install(&self, new: NewCertificates) {
        self.certificates.0.store(Arc::new(new.0));
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What a client that asked for `sni` is shown now.
    pub(crate) fn shown(&self, sni: Option<&str>) -> Option<Shown> {
        self.certificates.0.load().resolve(sni).map(Shown)
    }
}

/// The certificate that a client was shown.
#[derive(Clone, Debug)]
pub struct Shown(Arc<CertifiedKey>);

impl Shown {
    /// Whether it names `host`, a name or an address without a port.
    pub fn covers(&self, host: &str) -> bool {
        covers(&self.0, host).is_some()
    }
}

/// Certificates that were read and can be used, to be installed when all else is ready as well.
#[derive(Debug)]
pub struct NewCertificates(Table);

impl NewCertificates {
    /// Reads `pairs`.
    ///
    /// # Errors
    ///
    /// [`TlsError`], naming the file.
    pub fn read(pairs: &[Pair], strict_sni: bool) -> Result<Self, TlsError> {
        Ok(Self(Table { pairs: load(pairs)?, strict_sni }))
    }
}

/// What rustls asks for the certificate of a handshake.
#[derive(Debug)]
struct Certificates(ArcSwap<Table>);

#[derive(Debug)]
struct Table {
    /// In the order given, never empty.
    pairs: Vec<Arc<CertifiedKey>>,
    strict_sni: bool,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().resolve(hello.server_name())
    }
}

impl Table {
    fn resolve(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let first = || if self.strict_sni { None } else { self.pairs.first() };
        let by_name = sni.and_then(|sni| {
            let exact = self.pairs.iter().find(|pair| covers(pair, sni) == Some(Cover::Exact));
            exact.or_else(|| self.pairs.iter().find(|pair| covers(pair, sni).is_some()))
        });
        by_name.or_else(first).cloned()
    }
}

/// How a certificate comes to cover a name.
#[derive(Debug, PartialEq, Eq)]
enum Cover {
    Exact,
    Wildcard,
}

fn covers(pair: &CertifiedKey, sni: &str) -> Option<Cover> {
    let leaf = ParsedCertificate::try_from(pair.cert.first()?).ok()?;
    let holds = |name: &str| {
        ServerName::try_from(name).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
    };
    if !holds(sni) {
        return None;
    }
    // Only a wildcard also covers a sibling nobody would put into a certificate.
    let wildcard = sni.split_once('.').is_some_and(|(_, rest)| holds(&format!("{SIBLING}.{rest}")));
    Some(if wildcard { Cover::Wildcard } else { Cover::Exact })
}

const SIBLING: &str = "mainstay-no-such-host";

/// TLS towards an upstream. Clones share sessions.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// Name asked for and checked; the host of the address when unset.
    name: Option<ServerName<'static>>,
}

/// `tls` of an upstream, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// Authorities in PEM; unset: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Name to ask for and to check; unset: the host of the address.
    pub sni: Option<String>,
    /// Shown when the upstream asks for it.
    pub certificate: Option<Pair>,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], naming the file.
    pub fn new(files: &ClientTlsFiles) -> Result<Self, TlsError> {
        let roots = match &files.ca_file {
            Some(path) => authorities(path)?,
            None => authorities(system_authorities())?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots);
        let config = match &files.certificate {
            Some(pair) => builder.with_client_auth_cert(pair.chain()?, pair.key()?)?,
            None => builder.with_no_client_auth(),
        };
        Self::from_config(config, files.sni.as_deref())
    }

    /// Uses `config` as it is, for peers that are checked in another way than by host name. Its
    /// ALPN is set per connection.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`] when `sni` is no host name.
    pub fn from_config(config: ClientConfig, sni: Option<&str>) -> Result<Self, TlsError> {
        let name = sni.map(|sni| match ServerName::try_from(sni.to_owned()) {
            Ok(name) => Ok(name),
            Err(_invalid) => Err(TlsError::Name(sni.to_owned())),
        });
        Ok(Self { config: Arc::new(config), name: name.transpose()? })
    }

    /// Shakes hands over `tcp`, offering what `protocol` allows.
    pub(crate) async fn connect(
        &self,
        address: &str,
        protocol: Protocol,
        tcp: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host(address).to_owned()).map_err(io::Error::other)?,
        };
        let alpn: &[&[u8]] = match protocol {
            Protocol::Auto => &[b"h2", b"http/1.1"],
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
        };
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::clone(&self.config)).with_alpn(alpn).connect(name, tcp).await
    }
}

/// The host of `host:port`; brackets of an IPv6 address are dropped.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    Arc::new(provider)
}

fn load(pairs: &[Pair]) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    let provider = provider();
    let loaded: Result<Vec<_>, _> = pairs
        .iter()
        .map(|pair| {
            let key = CertifiedKey::from_der(pair.chain()?, pair.key()?, &provider);
            let path = pair.certificate.clone();
            key.map(Arc::new).map_err(|source| TlsError::Pair { path, source })
        })
        .collect();
    loaded.and_then(|pairs| if pairs.is_empty() { Err(TlsError::Empty) } else { Ok(pairs) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn authorities(path: impl AsRef<Path>) -> Result<RootCertStore, TlsError> {
    let path = path.as_ref();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() {
        return Err(TlsError::Authorities { path: path.to_owned() });
    }
    Ok(roots)
}

/// Where distributions keep the authorities of the system; the first that is there.
fn system_authorities() -> &'static Path {
    const KNOWN: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
        "/etc/pki/tls/certs/ca-bundle.crt",   // Red Hat
        "/etc/ssl/ca-bundle.pem",             // SUSE
        "/etc/ssl/cert.pem",                  // macOS, BSD
    ];
    let there = KNOWN.iter().find(|path| Path::new(path).exists());
    Path::new(there.unwrap_or(&KNOWN[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Arc<CertifiedKey> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::from_der(vec![made.cert.into()], key, &provider()).unwrap())
    }

    #[test]
    fn the_most_exact_certificate_answers() {
        let pairs = vec![
            certificate(&["first.example"]),
            certificate(&["*.shop.example"]),
            certificate(&["api.shop.example"]),
        ];
        let cases = [
            (Some("api.shop.example"), Some(2), Some(2)),
            (Some("www.shop.example"), Some(1), Some(1)),
            (Some("a.b.shop.example"), Some(0), None),
            (Some("shop.example"), Some(0), None),
            (Some("first.example"), Some(0), Some(0)),
            (None, Some(0), None),
        ];
        for (sni, lenient, strict) in cases {
            for (strict_sni, want) in [(false, lenient), (true, strict)] {
                let table = Table { pairs: pairs.clone(), strict_sni };
                let got = table.resolve(sni);
                let got = got.map(|got| pairs.iter().position(|p| Arc::ptr_eq(p, &got)).unwrap());
                assert_eq!(got, want, "{sni:?}, strict {strict_sni}");
            }
        }
    }

    #[test]
    fn the_host_of_an_address() {
        for (address, want) in [("a:1", "a"), ("10.0.0.7:80", "10.0.0.7"), ("[::1]:80", "::1")] {
            assert_eq!(host(address), want);
        }
    }
}
