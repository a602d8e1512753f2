//! Certificates of an authority made for one test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// An authority whose certificates lie in one directory.
pub(crate) struct Authority {
    home: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub(crate) certificate: PathBuf,
}

impl Authority {
    /// Makes one; its certificate is `NAME.pem` at `home`.
    pub(crate) fn new(home: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let certificate = home.join(name).with_extension("pem");
        fs::write(&certificate, issuer.pem()).unwrap();
        Self { home: home.to_owned(), issuer, certificate }
    }

    /// Issues a certificate for `host`, or replaces it: `FILE.pem` and `FILE.key`.
    ///
    /// Two files cannot be replaced in one step: whoever reads them does so when told to.
    pub(crate) fn issue(&self, file: &str, host: &str) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (kind, text) in [("key", key.serialize_pem()), ("pem", certificate.pem())] {
            let next = self.home.join(format!("{file}.{kind}.next"));
            fs::write(&next, text).unwrap();
            fs::rename(next, self.home.join(format!("{file}.{kind}"))).unwrap();
        }
    }
}
