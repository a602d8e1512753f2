//! TLS, and user and password.

use std::fs;
use std::process::Command;

use mainstay_store::Error;
use mainstay_store_etcd::Options;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::cluster::{Cluster, Setup, apply, changes, eventually, open, put, value, watch_all};

/// A certificate for 127.0.0.1 by `issuer`, and its key; both PEM.
fn certificate(issuer: &CertifiedIssuer<'_, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_shows_who_etcd_is_and_who_asks() {
    let home = TempDir::new().unwrap();
    let ours = authority();
    let (server, server_key) = certificate(&ours);
    let (client, client_key) = certificate(&ours);
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let tls = vec![
        format!("--cert-file={}", file("server.pem", &server)),
        format!("--key-file={}", file("server.key", &server_key)),
        format!("--trusted-ca-file={}", file("ca.pem", &ours.pem())),
        "--client-cert-auth=true".to_owned(),
    ];
    let cluster = Cluster::start(Setup { tls: Some(tls), ..Setup::default() }).await;
    let identity = (client.as_bytes(), client_key.as_bytes());
    let options = || cluster.options("/tls/");
    let store = open(options().tls(ours.pem().as_bytes(), Some(identity)).unwrap());
    eventually("it serves", async || apply(&store, "a", "1").await.is_ok()).await;
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    let mut watch = watch_all(&store).await;
    let at = put(&store, "a", "2").await;
    assert_eq!(changes(&mut watch, at).await, [(at, "2".to_owned())]);
    let short = std::time::Duration::from_secs(2);
    let refused = async |options: Options| {
        let answer = apply(&open(options.request_timeout(short).unwrap()), "a", "3").await;
        assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    };
    let other = authority();
    refused(options().tls(other.pem().as_bytes(), Some(identity)).unwrap()).await;
    refused(options().tls(ours.pem().as_bytes(), None).unwrap()).await;
    refused(options()).await;
    assert_eq!(value(&store, "a").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_signs_in_and_again_when_the_token_is_gone() {
    let mut cluster = Cluster::one().await;
    let etcdctl = |arguments: &[&str]| {
        let done = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &cluster.members[0].endpoint])
            .args(arguments)
            .output()
            .expect("etcdctl is installed (Debian: etcd-client)");
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    };
    // Signed in before there is anything to sign in to, it is served as it is.
    let early = open(cluster.options("/auth/").user("node", "secret"));
    put(&early, "a", "0").await;
    etcdctl(&["user", "add", "root:root"]);
    etcdctl(&["user", "add", "node:secret"]);
    etcdctl(&["role", "add", "mainstay"]);
    etcdctl(&["role", "grant-permission", "mainstay", "--prefix=true", "readwrite", "/auth/"]);
    etcdctl(&["user", "grant-role", "node", "mainstay"]);
    etcdctl(&["user", "grant-role", "root", "root"]);
    etcdctl(&["auth", "enable"]);
    eventually("it signs in now", async || apply(&early, "a", "1").await.is_ok()).await;
    let store = open(cluster.options("/auth/").user("node", "secret"));
    let mut watch = watch_all(&store).await;
    put(&store, "a", "2").await;
    let stranger = open(cluster.options("/auth/"));
    let answer = apply(&stranger, "a", "3").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    let wrong = open(cluster.options("/auth/").user("node", "guess"));
    let answer = apply(&wrong, "a", "3").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    let elsewhere = open(cluster.options("/other/").user("node", "secret"));
    let answer = apply(&elsewhere, "a", "3").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    // etcd keeps its tokens in memory: after a restart none is good.
    cluster.members[0].kill();
    cluster.members[0].run();
    eventually("it signs in again", async || apply(&store, "a", "4").await.is_ok()).await;
    let last = put(&store, "a", "5").await;
    let seen = changes(&mut watch, last).await;
    assert_eq!(seen.first().map(|(_, value)| value.as_str()), Some("2"), "{seen:?}");
    assert!(!seen.iter().any(|(_, value)| value == "3"), "{seen:?}");
}
