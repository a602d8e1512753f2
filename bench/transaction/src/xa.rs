//! Two-phase commits of two branches in one PostgreSQL, waited for until both are committed.

use std::time::Duration;

use bench_measure::http::Connection;
use bench_measure::{Round, closed_loop};
use mainstay_api::receipt;
use serde_json::{Value, json};

use crate::coordinator::Coordinator;
use crate::postgresql::Postgresql;

/// The database, as the coordinator is told of it; its session limit is that of the clients.
pub fn settings(database: &Postgresql) -> String {
    format!(
        "[[transaction.resource]]\nname = \"bank\"\nkind = \"postgresql\"\ntls = \"off\"\n\
         url = \"postgresql://bench@127.0.0.1:{}/postgres\"\n",
        database.port
    )
}

/// Makes the tables of receipts.
pub fn prepare(database: &Postgresql) {
    let tables =
        [receipt::RECEIPT_POSTGRES, receipt::INDEX_POSTGRES, receipt::COORDINATOR_POSTGRES];
    database.client().batch_execute(&tables.join(";")).expect("tables");
}

pub fn round(
    coordinator: &Coordinator,
    database: &Postgresql,
    clients: usize,
    span: Duration,
) -> Round {
    let client = |number| Client {
        open: coordinator.connection(),
        session: database.client(),
        clients,
        number,
        count: 0,
    };
    let round = closed_loop(clients, span, client, Client::once, || coordinator.used());
    let left: i64 = database
        .client()
        .query_one("SELECT count(*) FROM pg_prepared_xacts", &[])
        .expect("a row")
        .get(0);
    assert_eq!(left, 0, "branches that nobody has ended");
    round
}

struct Client {
    open: Connection,
    session: postgres::Client,
    clients: usize,
    number: usize,
    count: u64,
}

impl Client {
    fn once(&mut self) {
        self.count += 1;
        let gid = format!("bench-{}-{}-{}", self.clients, self.number, self.count);
        self.post("", &json!({ "gid": gid, "mode": "xa" }));
        let votes: Vec<Value> = (0..2).map(|which| self.branch(&gid, which)).collect();
        let submitted = json!({ "votes": votes, "wait": "done", "wait_seconds": 30 });
        let ended = self.post(&format!("/{gid}/submit"), &submitted);
        assert_eq!(ended["state"], "committed", "{ended}");
    }

    /// Takes one row and prepares that; the vote.
    fn branch(&mut self, gid: &str, which: u64) -> Value {
        let joined = self.post(
            &format!("/{gid}/branches"),
            &json!({ "kind": "resource", "resource": "bank" }),
        );
        let text = |member: &str| joined[member].as_str().expect("a name").to_owned();
        let (branch, xid) = (text("branch"), text("xid"));
        // Clients take rows of their own: here the coordinator is measured, not waiting for locks.
        let id = 1 + self.number as u64 * 20 + (self.count % 10) * 2 + which;
        let work = format!(
            "BEGIN; INSERT INTO mainstay_receipt (gid, branch, kind, written_by) \
             VALUES ('{gid}', '{branch}', 'done', 'bench'); \
             UPDATE account SET balance = balance + 1 WHERE id = {id}"
        );
        self.session.batch_execute(&work).expect("the work of a branch");
        let prepare = format!(
            "PREPARE TRANSACTION '{xid}'; SELECT 1 FROM pg_prepared_xacts WHERE gid = '{xid}'"
        );
        let listed = self.session.simple_query(&prepare).expect("it is prepared");
        let is_row = |message: &postgres::SimpleQueryMessage| {
            matches!(message, postgres::SimpleQueryMessage::Row(_))
        };
        assert!(listed.iter().any(is_row), "{xid} is not prepared");
        json!({ "branch": branch, "resource": "bank", "vote": "yes", "evidence": "listed" })
    }

    fn post(&mut self, path: &str, document: &Value) -> Value {
        let path = format!("/api/v1/transactions{path}");
        let (status, body) = self.open.ask("POST", &path, document.to_string().as_bytes());
        assert!(status < 300, "{path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("a document")
    }
}
