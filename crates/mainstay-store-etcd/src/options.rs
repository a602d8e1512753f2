//! Where etcd is, and how it is used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Revision, StoreId};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Where etcd is, and how it is used. Every value is checked when it is set.
#[derive(Clone)]
pub struct Options {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) prefix: String,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) request_timeout: Duration,
    pub(crate) compact: Option<Compaction>,
    pub(crate) audit_every: Duration,
    pub(crate) fan_out: FanOut,
    pub(crate) known: Option<(StoreId, Revision)>,
}

/// One member's address.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `host:port`, for a socket.
    pub(crate) address: String,
    /// Scheme and authority, for requests.
    pub(crate) origin: http::Uri,
    /// The name its certificate must bear; none without TLS.
    pub(crate) server: Option<ServerName<'static>>,
}

#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What history is kept by the node that compacts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compaction {
    pub(crate) after: Duration,
    pub(crate) revisions_max: u64,
}

/// How many watches this node has open in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanOut {
    /// One for each top-level area that is watched, where etcd tells the progress of each (3.4.25,
    /// 3.5.8 and newer); else one for all.
    #[default]
    Auto,
    /// One for each top-level area. Where etcd does not tell progress, an idle watch is told only
    /// how far its own area is.
    Areas,
    /// One for all areas together.
    Whole,
}

/// A setting that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("store.etcd.{field}: {problem}")]
pub struct OptionsInvalid {
    /// Which setting, as it is written in a configuration.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl OptionsInvalid {
    fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl Options {
    /// The members at `endpoints`, each `http://host:port` or `https://host:port`; all else as
    /// in the reference of the configuration.
    ///
    /// # Errors
    ///
    /// [`OptionsInvalid`] when there are none, more than 32, or one is no such address.
    pub fn new<S: AsRef<str>>(endpoints: &[S]) -> Result<Self, OptionsInvalid> {
        if endpoints.is_empty() || ENDPOINTS_MAX < endpoints.len() {
            return Err(OptionsInvalid::new("endpoints", "there must be 1 to 32 of them"));
        }
        let endpoints: Result<Vec<Endpoint>, OptionsInvalid> =
            endpoints.iter().map(|text| Endpoint::parse(text.as_ref())).collect();
        Ok(Self {
            endpoints: endpoints?,
            prefix: PREFIX.to_owned(),
            credentials: None,
            tls: None,
            request_timeout: Duration::from_secs(5),
            compact: Some(Compaction { after: Duration::from_mins(30), revisions_max: 500_000 }),
            audit_every: Duration::from_mins(1),
            fan_out: FanOut::Auto,
            known: None,
        })
    }

    /// Keeps everything under `prefix`, which ends with `/`; `/mainstay/v1/` unless set.
    ///
    /// # Errors
    ///
    /// [`OptionsInvalid`] when it does not end so, has more than 256 bytes or a NUL: 384 keys of
    /// a batch have to fit etcd's 1.5 MiB with it.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, OptionsInvalid> {
        if !prefix.ends_with('/') || PREFIX_BYTES_MAX < prefix.len() || prefix.contains('\0') {
            let problem = "must end with `/`, have at most 256 bytes and no NUL";
            return Err(OptionsInvalid::new("prefix", problem));
        }
        prefix.clone_into(&mut self.prefix);
        Ok(self)
    }

    /// Signs in as `user`. The password is sent to etcd only, and never shown.
    #[must_use]
    pub fn user(mut self, user: &str, password: &str) -> Self {
        self.credentials =
            Some(Credentials { user: user.to_owned(), password: password.to_owned() });
        self
    }

    /// Trusts the authorities of `ca`, and shows `identity`, a certificate chain and its key, if
    /// etcd asks for one. All are PEM.
    ///
    /// # Errors
    ///
    /// [`OptionsInvalid`] when one of them cannot be read, or the key does not fit.
    pub fn tls(
        mut self,
        ca: &[u8],
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Self, OptionsInvalid> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            let certificate = certificate.map_err(|why| OptionsInvalid::new("ca_file", why))?;
            roots.add(certificate).map_err(|why| OptionsInvalid::new("ca_file", why))?;
        }
        if roots.is_empty() {
            return Err(OptionsInvalid::new("ca_file", "holds no certificate"));
        }
        let config =
            rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .map_err(|why| OptionsInvalid::new("ca_file", why))?
                .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain = chain.map_err(|why| OptionsInvalid::new("cert_file", why))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|why| OptionsInvalid::new("key_file", why))?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|why| OptionsInvalid::new("cert_file", why))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        self.tls = Some(Arc::new(config));
        Ok(self)
    }

    /// How long a call may take, 0.1 to 60 s; 5 s unless set. A caller who gives up earlier drops
    /// its future.
    ///
    /// # Errors
    ///
    /// [`OptionsInvalid`] outside of that.
    pub fn request_timeout(mut self, timeout: Duration) -> Result<Self, OptionsInvalid> {
        if !(Duration::from_millis(100)..=Duration::from_mins(1)).contains(&timeout) {
            return Err(OptionsInvalid::new("request_timeout_seconds", "must be 0.1 to 60"));
        }
        self.request_timeout = timeout;
        Ok(self)
    }

    /// Never compacts: somebody else does, or other users of that etcd need its history.
    #[must_use]
    pub const fn never_compact(mut self) -> Self {
        self.compact = None;
        self
    }

    /// Compacts what is older than `after` and what is more than `revisions_max` revisions, if
    /// this node is the elected one; half an hour and 500,000 unless set. The newest 1,000 stay.
    #[must_use]
    pub const fn compact(mut self, after: Duration, revisions_max: u64) -> Self {
        self.compact = Some(Compaction { after, revisions_max });
        self
    }

    /// How often watched areas are compared with what etcd holds, at least 100 ms; 60 s unless
    /// set. etcd reads the whole area for it.
    #[must_use]
    pub fn audit_every(mut self, span: Duration) -> Self {
        self.audit_every = span.max(Duration::from_millis(100));
        self
    }

    /// How many watches this node has open in etcd.
    #[must_use]
    pub const fn fan_out(mut self, fan_out: FanOut) -> Self {
        self.fan_out = fan_out;
        self
    }

    /// The history this node knew before it was started, and the highest revision seen of it. What
    /// answers instead of it is refused until [`Etcd::accept`](crate::Etcd::accept).
    #[must_use]
    pub const fn known(mut self, store: StoreId, seen: Revision) -> Self {
        self.known = Some((store, seen));
        self
    }
}

impl fmt::Debug for Options {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &self.credentials.as_ref().map(|known| &known.user))
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, OptionsInvalid> {
        let wrong = |problem: &str| OptionsInvalid::new("endpoints", format!("`{text}` {problem}"));
        let shape = "must be `http://host:port` or `https://host:port`";
        let origin: http::Uri = text.parse().map_err(|_unparsed| wrong(shape))?;
        let (Some(scheme), Some(authority)) = (origin.scheme_str(), origin.authority()) else {
            return Err(wrong(shape));
        };
        let is_bare = matches!(origin.path(), "" | "/") && origin.query().is_none();
        if !is_bare || authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(wrong(shape));
        }
        let host = authority.host();
        let bare_host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let server = match scheme {
            "http" => None,
            "https" => {
                let name = ServerName::try_from(bare_host.unwrap_or(host).to_owned());
                Some(name.map_err(|_unnamed| wrong("has no name a certificate can bear"))?)
            }
            _ => return Err(wrong(shape)),
        };
        Ok(Self { address: authority.as_str().to_owned(), origin, server })
    }
}

const PREFIX: &str = "/mainstay/v1/";

const PREFIX_BYTES_MAX: usize = 256;

/// More members than any etcd has; the rest would be mistakes.
const ENDPOINTS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_bare_addresses_with_a_port() {
        for right in ["http://127.0.0.1:2379", "https://etcd-1.example:2379", "http://[::1]:2379/"]
        {
            assert!(Options::new(&[right]).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "127.0.0.1:2379",
            "http://host",
            "ftp://host:1",
            "http://host:1/path",
            "http://u:p@host:1",
        ] {
            let error = Options::new(&[wrong]).unwrap_err();
            assert_eq!(error.field, "endpoints", "{wrong}");
        }
        assert!(Options::new::<&str>(&[]).is_err());
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let options = || Options::new(&["http://127.0.0.1:2379"]).unwrap();
        assert_eq!(options().prefix("no-slash").unwrap_err().field, "prefix");
        let long = Duration::from_secs(61);
        assert_eq!(options().request_timeout(long).unwrap_err().field, "request_timeout_seconds");
        assert_eq!(options().tls(b"", None).unwrap_err().field, "ca_file");
        let shown = format!("{:?}", options().user("root", "hunter2"));
        assert!(shown.contains("root") && !shown.contains("hunter2"), "{shown}");
    }
}
