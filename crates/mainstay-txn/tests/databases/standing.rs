//! Connections: how they are protected, what they list.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use mainstay_txn::database::Listed;
use mainstay_txn::resource::{Address, Kind, Tls};
use mainstay_txn::{Op, Outcome};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::servers::{MariaDb, Postgres};
use crate::shop::{Shop, resources, until_done};

/// An authority, and a certificate of it for `localhost` that a server run by anybody can read.
struct Papers(TempDir);

impl Papers {
    fn new(user: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_params(&params, &key);
        let own = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&own, &issuer).unwrap();
        let home = crate::servers::home(user);
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("cert.pem", certificate.pem()),
            ("key.pem", own.serialize_pem()),
        ] {
            let path = home.path().join(name);
            std::fs::write(&path, text).unwrap();
            crate::servers::hand_over(&path, user);
        }
        Self(home)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn authority(&self) -> &Path {
        self.0.path()
    }
}

/// A port that was free just now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_postgresql_are_protected_as_configured() {
    let (papers, port) = (Papers::new("postgres"), port());
    let set = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
    let arguments = [
        set("max_prepared_transactions", "50"),
        set("listen_addresses", "127.0.0.1"),
        set("port", &port.to_string()),
        set("ssl", "on"),
        set("ssl_cert_file", &papers.path("cert.pem").display().to_string()),
        set("ssl_key_file", &papers.path("key.pem").display().to_string()),
    ];
    let arguments: Vec<&str> = arguments.iter().flatten().map(String::as_str).collect();
    let server = Postgres::start_on(port, &arguments).await;
    let mut shop = Shop::of_postgres(server).await;
    let url = format!("postgresql://coordinator@localhost:{port}/shop");
    shop.settings.address = Address::parse(Kind::Postgres, &url).unwrap();
    protects(
        shop,
        &papers,
        "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE ssl AND usename = 'coordinator'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_mariadb_are_protected_as_configured() {
    let (papers, port) = (Papers::new("mysql"), port());
    let set = |name: &str, value: &str| format!("--{name}={value}");
    let arguments = [
        set("bind-address", "127.0.0.1"),
        set("port", &port.to_string()),
        set("ssl-cert", &papers.path("cert.pem").display().to_string()),
        set("ssl-key", &papers.path("key.pem").display().to_string()),
        set("ssl-ca", &papers.path("ca.pem").display().to_string()),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut shop = Shop::of_mariadb(MariaDb::start_with(&arguments).await).await;
    let url = format!("mariadb://coordinator@localhost:{port}/shop");
    shop.settings.address = Address::parse(Kind::MariaDb, &url).unwrap();
    protects(
        shop,
        &papers,
        "SELECT variable_value FROM information_schema.global_status
        WHERE variable_name = 'Ssl_finished_accepts'",
    )
    .await;
}

/// `encrypted` counts encrypted connections of the coordinator.
async fn protects(mut shop: Shop, papers: &Papers, encrypted: &str) {
    let other = Papers::new("root");
    let ca = |papers: &Papers| Tls::Verify(papers.authority().join("ca.pem"));
    for (gid, tls) in [("off", Tls::Off), ("require", Tls::Require), ("verify", ca(papers))] {
        shop.settings.tls = tls.clone();
        let before = shop.number(encrypted).await;
        let resources = shop.resources();
        shop.prepare(gid).await;
        assert_eq!(until_done(&shop, &resources, gid, Op::Commit).await, Outcome::Done, "{tls:?}");
        let is_more = before < shop.number(encrypted).await;
        assert_eq!(is_more, tls != Tls::Off, "{tls:?}");
        assert_eq!(resources.shutdown(Duration::from_secs(5)).await, 0);
    }
    // Somebody else's authority, and a name that the certificate is not for.
    let mut elsewhere = shop.settings.clone();
    let kind = elsewhere.address.kind;
    let url = format!("{}://coordinator@{}/shop", kind.as_str(), elsewhere.address.host);
    let address = url.replace("localhost", "127.0.0.1");
    elsewhere.address = Address::parse(kind, &address).unwrap();
    let mut stranger = shop.settings.clone();
    stranger.tls = ca(&other);
    for settings in [elsewhere, stranger] {
        let outcome = shop.ends(&resources(settings), "x", Op::Commit).await;
        assert!(matches!(outcome, Outcome::Unsent { .. }), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_open_after_a_shutdown() {
    for (kind, sessions) in [
        (Kind::Postgres, "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = 'coordinator'"),
        (
            Kind::MariaDb,
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'coordinator'",
        ),
    ] {
        let shop = Shop::open(kind).await;
        let resources = shop.resources();
        assert_eq!(shop.ends(&resources, "x", Op::Rollback).await, Outcome::Done);
        assert_eq!(shop.number(sessions).await, 1, "it is kept for the next one");
        assert_eq!(resources.shutdown(Duration::from_secs(5)).await, 0);
        let mut left = shop.number(sessions).await;
        for _ in 0..100 {
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            left = shop.number(sessions).await;
        }
        assert_eq!(left, 0, "{kind:?}");
        let outcome = shop.ends(&resources, "x", Op::Rollback).await;
        assert!(matches!(outcome, Outcome::Unsent { .. }), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_is_listed_with_whose_it_is() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let shop = Shop::open(kind).await;
        shop.prepare("mine").await;
        shop.prepare_foreign().await;
        let listed = shop.resources().prepared(&shop.settings.name).await.unwrap();
        let ours = |one: &&mainstay_txn::resource::Prepared| matches!(&one.listed, Listed::Ours(xid) if xid.gid.as_str() == "mine");
        assert_eq!((listed.len(), listed.iter().filter(ours).count()), (2, 1), "{listed:?}");
        assert_eq!(listed.iter().all(|one| one.age.is_some()), kind == Kind::Postgres);
        let foreign = listed.iter().find(|one| one.listed == Listed::Foreign).unwrap();
        assert!(foreign.name.contains("somebody"), "{foreign:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_says_what_keeps_it_from_taking_part() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let shop = Shop::open(kind).await;
        let resources = shop.resources();
        let name = &shop.settings.name;
        assert_eq!(resources.check(name).await.unwrap(), [], "{kind:?}");
        shop.administrate("ALTER TABLE mainstay_receipt DROP COLUMN written_by").await;
        let inserts = "REVOKE UPDATE ON mainstay_coordinator FROM coordinator";
        shop.administrate(inserts).await;
        let faults = resources.check(name).await.unwrap();
        let shown = format!("{faults:?}");
        assert!(shown.contains("written_by is missing"), "{shown}");
        assert!(shown.contains("GRANT UPDATE ON mainstay_coordinator"), "{shown}");
        assert_eq!(faults.len(), 2, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_as_it_is_installed_cannot_prepare_and_says_which_line_to_change() {
    let mut shop = Shop::of_postgres(Postgres::start().await).await;
    let faults = shop.resources().check(&shop.settings.name).await.unwrap();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].fix.contains("max_prepared_transactions = 200"), "{faults:?}");
    // The tables are made by whoever may, where they are not there.
    shop.administrate("DROP TABLE mainstay_receipt, mainstay_coordinator").await;
    let faults = shop.resources().check(&shop.settings.name).await.unwrap();
    assert_eq!(faults.len(), 3, "{faults:?}");
    "mainstay".clone_into(&mut shop.settings.address.user);
    for _ in 0..2 {
        shop.resources().init(&shop.settings.name).await.unwrap();
    }
    assert_eq!(shop.resources().check(&shop.settings.name).await.unwrap().len(), 1);
}
