//! `[[transaction.resource]]`: databases that take part in transactions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_resilience::Invalid;
use mainstay_txn::ResourceName;
use mainstay_txn::resource::{Address, Kind, ResourceSettings, Tls};
use schemars::JsonSchema;
use serde::Deserialize;

/// Databases of one node. Each has a loop that sweeps it, one that looks whether it can take part,
/// and up to 64 sessions.
const RESOURCES_MAX: usize = 64;

/// One `[[transaction.resource]]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawResource {
    /// What transactions call it: 1 to 64 of `a-z`, `0-9`, `-` and `_`. The same on every node.
    pub name: Option<String>,
    /// `postgresql` or `mariadb`.
    pub kind: Option<String>,
    /// Where it is: `postgresql://USER@HOST:PORT/DATABASE` or `mariadb://USER@HOST:PORT/DATABASE`;
    /// a host that is a path, `%2Frun%2Fpostgresql`, is a socket. There is no password in it.
    pub url: Option<String>,
    /// File whose first line is the password; read for each connection. Default none.
    pub password_file: Option<PathBuf>,
    /// How connections over the network are protected: `off`, `require` (encrypted; whose
    /// certificate it is is not looked at) or `verify` (it is for the host and by an authority of
    /// `ca_file`). Default `require`.
    pub tls: Option<RawTls>,
    /// Certificates of the authorities that `verify` trusts, PEM; read for each connection.
    pub ca_file: Option<PathBuf>,
    /// Connections at the same time, 1 to 64. Default 8.
    pub connections: Option<u32>,
    /// How long a statement may take, in seconds, 0.1 to 300. Default 5.
    pub statement_timeout_seconds: Option<f64>,
    /// Whether a session of `MariaDB` is ended that has prepared a branch and does nothing for 10 s:
    /// while it lives nobody else can end the branch. It takes `PROCESS` and `CONNECTION ADMIN`.
    /// Default false.
    pub kill_held_sessions: Option<bool>,
}

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawTls {
    /// Not at all.
    Off,
    /// They are encrypted.
    #[default]
    Require,
    /// They are encrypted, and the server is who it should be.
    Verify,
}

/// Resolves what was written; adds what is wrong to `faults`.
pub(super) fn resolve(raw: &[RawResource], faults: &mut Vec<Invalid>) -> Vec<ResourceSettings> {
    if RESOURCES_MAX < raw.len() {
        let problem = format!("must be at most {RESOURCES_MAX} tables, found {}", raw.len());
        faults.push(Invalid::range("transaction.resource", problem));
    }
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for (at, raw) in raw.iter().enumerate() {
        let mut wrong = Vec::new();
        let read = one(raw, &mut wrong);
        if let Some(read) = read {
            if !names.insert(read.name.clone()) {
                let problem = format!("two databases are called `{}`", read.name);
                wrong.push(Invalid::contradiction("name", problem));
            }
            all.push(read);
        }
        let table = format!("transaction.resource[{at}]");
        faults.extend(wrong.into_iter().map(|fault| fault.within(&table)));
    }
    all
}

fn one(raw: &RawResource, wrong: &mut Vec<Invalid>) -> Option<ResourceSettings> {
    let name = ResourceName::new(raw.name.as_deref().unwrap_or_default());
    let name = name.map_err(|error| wrong.push(Invalid::range("name", error.to_string()))).ok();
    let kind = raw.kind.as_deref().unwrap_or_default();
    let Some(kind) = Kind::parse(kind) else {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let problem = format!("must be one of {}, found {kind:?}", known.join(", "));
        wrong.push(Invalid::range("kind", problem));
        return None;
    };
    let address = Address::parse(kind, raw.url.as_deref().unwrap_or_default());
    let address =
        address.map_err(|error| wrong.push(Invalid::range("url", error.to_string()))).ok();
    let tls = match (raw.tls.unwrap_or_default(), &raw.ca_file) {
        (RawTls::Off, None) => Tls::Off,
        (RawTls::Require, None) => Tls::Require,
        (RawTls::Verify, Some(file)) => Tls::Verify(file.clone()),
        (RawTls::Verify, None) => {
            let problem = "must name the authorities that `tls = \"verify\"` trusts";
            wrong.push(Invalid::contradiction("ca_file", problem));
            Tls::Require
        }
        (_, Some(_)) => {
            let problem = "is of no use unless `tls` is `verify`";
            wrong.push(Invalid::contradiction("ca_file", problem));
            Tls::Require
        }
    };
    let connections = raw.connections.unwrap_or(8);
    if !(1..=64).contains(&connections) {
        let problem = format!("must be 1 to 64, found {connections}");
        wrong.push(Invalid::range("connections", problem));
    }
    let timeout = raw.statement_timeout_seconds.unwrap_or(5.0);
    if !(0.1..=300.0).contains(&timeout) {
        let problem = format!("must be 0.1 to 300, found {timeout}");
        wrong.push(Invalid::range("statement_timeout_seconds", problem));
    }
    let kill_held_sessions = raw.kill_held_sessions.unwrap_or(false);
    if kill_held_sessions && kind != Kind::MariaDb {
        let problem = "is for MariaDB: elsewhere a session holds no prepared branch";
        wrong.push(Invalid::contradiction("kill_held_sessions", problem));
    }
    Some(ResourceSettings {
        password_file: raw.password_file.clone(),
        tls,
        connections: usize::try_from(connections).unwrap_or(1).max(1),
        statement_timeout: Duration::try_from_secs_f64(timeout).unwrap_or(Duration::from_secs(5)),
        kill_held_sessions,
        ..ResourceSettings::new(name?, address?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: &str = "name = 'orders'\nkind = 'postgresql'\nurl = 'postgresql://c@db/shop'";

    fn read(tables: &[&str]) -> (Vec<ResourceSettings>, Vec<String>) {
        let mut faults = Vec::new();
        let raw: Vec<RawResource> =
            tables.iter().map(|table| toml::from_str(table).unwrap()).collect();
        let read = resolve(&raw, &mut faults);
        (read, faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn without_more_it_is_as_the_reference_says() {
        let (read, faults) = read(&[ORDERS]);
        assert!(faults.is_empty(), "{faults:?}");
        let [orders] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(*orders, ResourceSettings::new(orders.name.clone(), orders.address.clone()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_table() {
        let check = |more: &str, want: &str| {
            let table = format!("{ORDERS}\n{more}");
            let want = format!("transaction.resource[1].{want}");
            let other = ORDERS.replace("'orders'", "'stock'");
            assert_eq!(read(&[&other, &table]).1, [want], "{more}");
        };
        check("connections = 0", "connections");
        check("statement_timeout_seconds = 0", "statement_timeout_seconds");
        check("tls = 'verify'", "ca_file");
        check("ca_file = '/ca.pem'", "ca_file");
        check("kill_held_sessions = true", "kill_held_sessions");
        assert_eq!(read(&[ORDERS, ORDERS]).1, ["transaction.resource[1].name"]);
        let with = |from: &str, to: &str| read(&[&ORDERS.replace(from, to)]).1;
        assert_eq!(with("//c@", "//c:secret@"), ["transaction.resource[0].url"]);
        assert_eq!(with("'postgresql'", "'oracle'"), ["transaction.resource[0].kind"]);
        assert_eq!(with("'orders'", "''"), ["transaction.resource[0].name"]);
    }
}
