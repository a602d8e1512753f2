//! Checks over TLS, against real servers with certificates of an authority made for the test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::checks::{grpc_on, http, sent, sent_to, talk};
use super::stage::near;
use crate::health::Health;
use crate::health::targets::Addresses;

/// A server whose certificate is for `shop.example`, and whoever issued it.
struct Secured {
    listener: TcpListener,
    port: u16,
    acceptor: TlsAcceptor,
    ca_pem: String,
}

impl Secured {
    async fn start(protocol: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["shop.example".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![leaf.der().clone()], key).unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port, acceptor: TlsAcceptor::from(Arc::new(config)), ca_pem: issuer.pem() }
    }

    /// Answers one connection with `answer`, if it comes to an understanding with its caller.
    async fn answer(&self, answer: &str) {
        let (stream, _) = self.listener.accept().await.unwrap();
        if let Ok(mut stream) = self.acceptor.accept(stream).await {
            drop(talk(&mut stream, answer.as_bytes()).await);
        }
    }
}

/// An HTTP check with these members of `tls`.
fn over(tls: &Value) -> String {
    json!({ "name": "up", "kind": "http", "path": "/up", "timeout_seconds": 5, "tls": tls })
        .to_string()
}

#[tokio::test]
async fn a_check_believes_whom_it_was_told_to() {
    let server = Secured::start("http/1.1").await;
    let (ca, name) = (server.ca_pem.clone(), "shop.example");
    let stranger = Secured::start("http/1.1").await.ca_pem;
    for (tls, want) in [
        (json!({ "ca_pem": ca, "server_name": name }), Health::Passing),
        (json!({ "verify": false }), Health::Passing),
        (json!({ "ca_pem": ca }), Health::Critical),
        (json!({ "ca_pem": ca, "server_name": "other.example" }), Health::Critical),
        (json!({ "ca_pem": stranger, "server_name": name }), Health::Critical),
        (json!({ "server_name": name }), Health::Critical),
    ] {
        let (check, addresses) = (over(&tls), near());
        let (asked, fine) = (sent(&check, server.port, &addresses), http(200, "", "fine"));
        let (outcome, ()) = tokio::join!(asked, server.answer(&fine));
        assert_eq!(outcome.0, want, "{tls}: {outcome:?}");
        let is_said = match want {
            Health::Passing => outcome.1 == "HTTP 200: fine",
            _ => outcome.1.starts_with("TLS with `") && outcome.1.contains("certificate"),
        };
        assert!(is_said, "{tls}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_check_over_tls_finds_who_speaks_in_the_clear_critical() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (check, addresses) = (over(&json!({ "verify": false })), near());
    let clear = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // No client of TLS sends the end of a head; what it sent is answered all the same.
        tokio::io::AsyncWriteExt::write_all(&mut stream, http(200, "", "").as_bytes())
            .await
            .unwrap();
    };
    let (outcome, ()) = tokio::join!(sent(&check, port, &addresses), clear);
    assert_eq!(outcome.0, Health::Critical, "{outcome:?}");
    assert!(outcome.1.starts_with("TLS with `127.0.0.1`"), "{outcome:?}");
}

#[tokio::test]
async fn redirects_stay_over_tls_and_names_are_judged_there_too() {
    let server = Secured::start("http/1.1").await;
    let tls = json!({ "ca_pem": server.ca_pem, "server_name": "shop.example" });
    let (check, addresses) = (over(&tls), near());
    let answers = async {
        server.answer(&http(302, "Location: /there\r\n", "")).await;
        server.answer(&http(200, "", "there")).await;
    };
    let (outcome, ()) = tokio::join!(sent(&check, server.port, &addresses), answers);
    assert_eq!(outcome, (Health::Passing, "HTTP 200: there".to_owned()));
    let to_clear = http(302, "Location: http://127.0.0.1/\r\n", "");
    let asked = sent(&check, server.port, &addresses);
    let (outcome, ()) = tokio::join!(asked, server.answer(&to_clear));
    assert!(outcome.1.contains("not followed"), "{outcome:?}");
    let (health, output) = sent_to(&check, "localhost", server.port, &Addresses::default()).await;
    assert_eq!(health, Health::Critical);
    assert!(output.starts_with("egress-refused"), "{output}");
    // What a redirect leads to has to show a certificate for its own name, not for the check's.
    let away = http(302, &format!("Location: https://localhost:{}/\r\n", server.port), "");
    let answers = async {
        server.answer(&away).await;
        server.answer(&http(200, "", "")).await;
    };
    let asked = sent_to(&check, "127.0.0.1", server.port, &addresses);
    let (outcome, ()) = tokio::join!(asked, answers);
    assert!(outcome.1.starts_with("TLS with `localhost`"), "{outcome:?}");
}

#[tokio::test]
async fn grpc_is_asked_over_tls() {
    let server = Secured::start("h2").await;
    let tls = json!({ "ca_pem": server.ca_pem, "server_name": "shop.example" });
    let check = json!({ "name": "up", "kind": "grpc", "tls": tls }).to_string();
    let addresses = near();
    for (message, want) in [
        ([0, 0, 0, 0, 2, 8, 1].as_slice(), Health::Passing),
        ([0, 0, 0, 0, 2, 8, 2].as_slice(), Health::Critical),
    ] {
        let answer = async {
            let (stream, _) = server.listener.accept().await.unwrap();
            grpc_on(server.acceptor.accept(stream).await.unwrap(), "0", message).await;
        };
        let (outcome, ()) = tokio::join!(sent(&check, server.port, &addresses), answer);
        assert_eq!(outcome.0, want, "{outcome:?}");
    }
}
