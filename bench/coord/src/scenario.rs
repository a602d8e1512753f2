//! What clients do, one thread each, one request after the other.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bench_measure::http::Connection;
use bench_measure::{Round, closed_loop};
use serde_json::{Value, json};

use crate::server::{Kind, Server};
use crate::zookeeper::{Client, Mode};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A durable put of 256 bytes.
    Put,
    /// A linearizable read of one key; from ZooKeeper, which promises less, a read.
    Get,
    /// A lock of one's own, taken and given back.
    Lock,
    /// An instance that is registered and taken out.
    Register,
    /// A heartbeat: what keeps an instance, a lease, a session.
    Beat,
}

impl What {
    pub const fn named(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Lock => "acquire and release",
            Self::Register => "register and deregister",
            Self::Beat => "heartbeat",
        }
    }
}

/// Lets `clients` do `what` for `span`.
pub fn round(server: &Server, what: What, clients: usize, span: Duration) -> Round {
    let player = |number| Player::new(server, what, number);
    closed_loop(clients, span, player, Player::once, || server.used())
}

enum Way {
    Http(Connection),
    ZooKeeper(Client),
}

struct Player {
    kind: Kind,
    what: What,
    way: Way,
    number: usize,
    count: u64,
    /// Of a session or a lease.
    id: String,
}

impl Player {
    fn new(server: &Server, what: What, number: usize) -> Self {
        let way = match server.kind {
            Kind::ZooKeeper => Way::ZooKeeper(Client::open(server.address)),
            Kind::Mainstay | Kind::Etcd => {
                Way::Http(Connection::open(server.address, &server.headers))
            }
        };
        let mut player = Self { kind: server.kind, what, way, number, count: 0, id: String::new() };
        player.prepare(server);
        player
    }

    fn prepare(&mut self, server: &Server) {
        let number = self.number;
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => {
                for path in ["/keys", "/locks", &format!("/locks/{number}"), "/services"] {
                    client.create(path, b"", Mode::Persistent);
                }
                for key in 0..KEYS {
                    client.create(&format!("/keys/{number}-{key}"), &VALUE, Mode::Persistent);
                }
            }
            (Way::Http(_), Kind::Mainstay) if self.what == What::Lock => {
                let owner = json!({ "host": "bench", "pid": 1, "name": number.to_string() });
                let opened = self.json(
                    "POST",
                    "/api/v1/sessions",
                    &json!({ "ttl_seconds": 600, "owner": owner }),
                );
                self.id = text(&opened, "session");
                let secret = text(&opened, "secret");
                let headers = format!("{}mainstay-session-secret: {secret}\r\n", server.headers);
                self.way = Way::Http(Connection::open(server.address, &headers));
            }
            (Way::Http(_), Kind::Mainstay) if self.what == What::Beat => self.register(),
            (Way::Http(_), Kind::Mainstay) => {
                for key in 0..KEYS {
                    self.put(key);
                }
            }
            (Way::Http(_), _) => {
                let granted = self.json("POST", "/v3/lease/grant", &json!({ "TTL": 600 }));
                self.id = text(&granted, "ID");
                for key in 0..KEYS {
                    self.put(key);
                }
            }
        }
    }

    fn once(&mut self) {
        self.count += 1;
        let key = self.count % KEYS;
        match self.what {
            What::Put => self.put(key),
            What::Get => self.get(key),
            What::Lock => self.lock(),
            What::Register => {
                self.register();
                self.deregister();
            }
            What::Beat => self.beat(),
        }
    }

    fn put(&mut self, key: u64) {
        let number = self.number;
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => client.set(&format!("/keys/{number}-{key}"), &VALUE),
            (Way::Http(open), Kind::Mainstay) => {
                let answer = open.ask("PUT", &format!("/v1/kv/{number}-{key}"), &VALUE);
                assert_eq!(answer.0, 200, "a put");
            }
            (Way::Http(_), _) => {
                let name = STANDARD.encode(format!("{number}-{key}"));
                let value = STANDARD.encode(VALUE);
                self.json("POST", "/v3/kv/put", &json!({ "key": name, "value": value }));
            }
        }
    }

    fn get(&mut self, key: u64) {
        let number = self.number;
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => client.get(&format!("/keys/{number}-{key}")),
            (Way::Http(open), Kind::Mainstay) => {
                let answer = open.ask("GET", &format!("/v1/kv/{number}-{key}?raw"), b"");
                assert_eq!(answer.0, 200, "a get");
            }
            (Way::Http(_), _) => {
                let name = STANDARD.encode(format!("{number}-{key}"));
                self.json("POST", "/v3/kv/range", &json!({ "key": name }));
            }
        }
    }

    fn lock(&mut self) {
        let (number, count, id) = (self.number, self.count, self.id.clone());
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => {
                let folder = format!("/locks/{number}");
                let own = client.create(&format!("{folder}/l-"), b"", Mode::EphemeralSequential);
                client.children(&folder);
                client.delete(&own);
            }
            (Way::Http(_), Kind::Mainstay) => {
                let path = format!("/api/v1/locks/default/bench-{number}");
                let ask =
                    json!({ "session": id, "request_id": format!("a{count}"), "wait_seconds": 5 });
                let granted = self.json("POST", &format!("{path}/acquire"), &ask);
                let ask = json!({ "session": id, "token": granted["token"], "request_id": format!("r{count}") });
                self.json("POST", &format!("{path}/release"), &ask);
            }
            (Way::Http(_), _) => {
                let name = STANDARD.encode(format!("bench-{number}"));
                let locked =
                    self.json("POST", "/v3/lock/lock", &json!({ "name": name, "lease": id }));
                self.json("POST", "/v3/lock/unlock", &json!({ "key": locked["key"] }));
            }
        }
    }

    fn register(&mut self) {
        let (number, id) = (self.number, self.id.clone());
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => {
                client.create(&format!("/services/i-{number}"), &VALUE, Mode::Ephemeral);
            }
            (Way::Http(_), Kind::Mainstay) => {
                let instance =
                    json!({ "address": "127.0.0.1", "port": 1 + number, "ttl_seconds": 600 });
                self.json("PUT", &instance_path(number), &instance);
            }
            (Way::Http(_), _) => {
                let name = STANDARD.encode(format!("services/i-{number}"));
                let value = STANDARD.encode(VALUE);
                self.json(
                    "POST",
                    "/v3/kv/put",
                    &json!({ "key": name, "value": value, "lease": id }),
                );
            }
        }
    }

    fn deregister(&mut self) {
        let number = self.number;
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => client.delete(&format!("/services/i-{number}")),
            (Way::Http(open), Kind::Mainstay) => {
                let answer = open.ask("DELETE", &instance_path(number), b"");
                assert!(answer.0 < 300, "{}", String::from_utf8_lossy(&answer.1));
            }
            (Way::Http(_), _) => {
                let name = STANDARD.encode(format!("services/i-{number}"));
                self.json("POST", "/v3/kv/deleterange", &json!({ "key": name }));
            }
        }
    }

    fn beat(&mut self) {
        let (number, id) = (self.number, self.id.clone());
        match (&mut self.way, self.kind) {
            (Way::ZooKeeper(client), _) => client.ping(),
            (Way::Http(open), Kind::Mainstay) => {
                let path = format!("{}/heartbeat", instance_path(number));
                let answer = open.ask("POST", &path, b"");
                assert!(answer.0 < 300, "{}", String::from_utf8_lossy(&answer.1));
            }
            (Way::Http(_), _) => {
                self.json("POST", "/v3/lease/keepalive", &json!({ "ID": id }));
            }
        }
    }

    fn json(&mut self, method: &str, path: &str, ask: &Value) -> Value {
        let Way::Http(open) = &mut self.way else { return Value::Null };
        let (status, body) = open.ask(method, path, ask.to_string().as_bytes());
        assert!(status < 300, "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }
}

fn instance_path(number: usize) -> String {
    format!("/api/v1/registry/default/services/bench/instances/i-{number}")
}

fn text(document: &Value, member: &str) -> String {
    document[member].as_str().unwrap_or_else(|| panic!("no {member} in {document}")).to_owned()
}

/// Keys of one client.
const KEYS: u64 = 16;

const VALUE: [u8; 256] = [b'v'; 256];
