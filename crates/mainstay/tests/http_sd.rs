//! Instances as targets of Prometheus, by the real binary of both.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::gateway::{Gateway, free_port, log_of};
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[dns]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[system]
cpu_percent_max = 0
"#;

/// Prometheus starts, asks once a second, and the machine is busy.
const SOON: Duration = Duration::from_secs(30);

#[track_caller]
fn register(node: &Gateway, path: &str, document: &Value) {
    let path = format!("/api/v1/registry/{path}");
    let (status, body) = node.call("PUT", &path, &document.to_string());
    assert!(matches!(status, 200 | 201), "{status} {body}");
}

fn fill(node: &Gateway) {
    let at = |address: &str| json!({ "address": address, "port": 8080, "ttl_seconds": 600 });
    let with = |address: &str, more: Value| {
        let mut document = at(address);
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    };
    let full = json!({
        "zone": "z1", "version": "1.2", "weight": 3, "tags": ["a", "b"], "ports": { "admin": 9100 },
        "metadata": { "team.name": "shop", "metrics_path": "/m", "metrics_port": "9000" },
    });
    register(node, "shop/services/web/instances/w2", &with("127.0.0.2", full));
    register(node, "shop/services/web/instances/w1", &with("127.0.0.1", json!({ "tags": ["a"] })));
    register(node, "default/services/zoo/instances/z", &at("127.0.0.3"));
    let (status, _) = node.call(
        "POST",
        "/api/v1/registry/shop/services/web/instances/w1/maintenance",
        r#"{"enable":true,"reason":"a new disk"}"#,
    );
    assert_eq!(status, 200);
}

fn targets(node: &Gateway, query: &str) -> Vec<String> {
    let (status, body) = node.control(&format!("/sd/prometheus{query}"));
    assert_eq!(status, 200, "{body}");
    let groups: Vec<Value> = serde_json::from_str(&body).unwrap();
    groups.iter().map(|group| group["targets"][0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_instance_is_a_target_and_a_query_narrows_them() {
    let node = Gateway::start_dev("http-sd", CONFIG);
    assert_eq!(node.control("/sd/prometheus"), (200, "[]".to_owned()));
    fill(&node);
    let (zoo, one, two) = ("127.0.0.3:8080", "127.0.0.1:8080", "127.0.0.2:9000");
    assert_eq!(targets(&node, ""), [zoo, one, two]);
    assert_eq!(targets(&node, "?namespace=shop"), [one, two]);
    assert_eq!(targets(&node, "?service=zoo"), [zoo]);
    assert_eq!(targets(&node, "?tag=a"), [one, two]);
    assert_eq!(targets(&node, "?tag=a&tag=b"), [two]);
    assert_eq!(targets(&node, "?healthy=true"), [zoo, two]);
    assert_eq!(targets(&node, "?port=admin"), ["127.0.0.2:9100"]);
    let (status, problem) = node.control("/sd/prometheus?zone=z1");
    assert!(status == 422 && problem.contains("there is no parameter `zone`"), "{problem}");
}

#[test]
fn nobody_learns_of_targets_without_the_token() {
    let node = Gateway::start_dev("http-sd-token", CONFIG);
    let control: SocketAddr = control(&node);
    let mut stream = TcpStream::connect(control).unwrap();
    let ask =
        format!("GET /sd/prometheus HTTP/1.1\r\nhost: {control}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

fn control(node: &Gateway) -> SocketAddr {
    context(node, "url").trim_start_matches("http://").parse().unwrap()
}

fn context(node: &Gateway, key: &str) -> String {
    let text = fs::read_to_string(node.home().join("data/control.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    table[key].as_str().unwrap().to_owned()
}

/// A running Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _home: TempDir,
}

impl Prometheus {
    #[track_caller]
    fn start(node: &Gateway) -> Self {
        let home = TempDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (url, token) = (context(node, "url"), context(node, "token"));
        let config = format!(
            r#"
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: mainstay
    http_sd_configs:
      - url: {url}/sd/prometheus
        refresh_interval: 1s
        # Before 2.43 the type is not filled in for discovery.
        authorization: {{ type: Bearer, credentials: "{token}" }}
    relabel_configs:
      - {{ source_labels: [__meta_mainstay_service], target_label: service }}
"#
        );
        let file = home.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let log = log_of("prometheus");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(File::create(log.with_extension("out")).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("scripts/test installs prometheus");
        let mut this = Self { child, address, _home: home };
        until("Prometheus listens", SOON, || {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended; see {}", log.display());
            TcpStream::connect(address).is_ok()
        });
        this
    }

    /// Its targets: where they are scraped, their labels, what was discovered of them.
    fn targets(&self) -> Vec<(String, Value, Value)> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let ask = "GET /api/v1/targets?state=active HTTP/1.0\r\nhost: localhost\r\n\r\n";
        stream.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let document: Value = serde_json::from_str(body).unwrap_or_default();
        let active = document["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<(String, Value, Value)> = active
            .into_iter()
            .map(|target| {
                let url = target["scrapeUrl"].as_str().unwrap().to_owned();
                (url, target["labels"].clone(), target["discoveredLabels"].clone())
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn prometheus_follows_the_registry() {
    let mut node = Gateway::start_dev("http-sd-prometheus", CONFIG);
    fill(&node);
    let prometheus = Prometheus::start(&node);
    until("it has all three", SOON, || prometheus.targets().len() == 3);
    let targets = prometheus.targets();
    let urls: Vec<&str> = targets.iter().map(|(url, ..)| &**url).collect();
    let (one, two) = ("http://127.0.0.1:8080/metrics", "http://127.0.0.2:9000/m");
    assert_eq!(urls, [one, two, "http://127.0.0.3:8080/metrics"]);
    let (_, labels, found) = &targets[1];
    assert_eq!(labels["service"], "web");
    for (label, value) in [
        ("namespace", "shop"),
        ("instance", "w2"),
        ("zone", "z1"),
        ("version", "1.2"),
        ("weight", "3"),
        ("health", "passing"),
        ("state", "up"),
        ("tags", ",a,b,"),
        ("metadata_team_name", "shop"),
    ] {
        assert_eq!(found[format!("__meta_mainstay_{label}")], value, "{label}: {found}");
    }
    assert_eq!(targets[0].2["__meta_mainstay_state"], "down");

    let (status, _) =
        node.call("DELETE", "/api/v1/registry/default/services/zoo/instances/z", "{}");
    assert_eq!(status, 200);
    until("it has heard that one left", SOON, || prometheus.targets().len() == 2);
    // Nobody answers any more: what it knows it keeps.
    node.signal(rustix::process::Signal::KILL);
    node.ended();
    support::wait::pause(Duration::from_secs(3));
    assert_eq!(prometheus.targets().len(), 2);
}
