//! Whether a database is set up to take part, and what is to be done if not.
//!
//! Rights are tried, with statements that change nothing; catalogs do not tell all of them. What is
//! found is judged by [`faults`], which is pure.

use std::collections::BTreeSet;

use mainstay_api::receipt as sql;

use super::failure::Failure;
use super::{Kind, Session};
use crate::database::Cluster;

/// Something that keeps a database from taking part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// What to do: a line of its settings, or a statement.
    pub fix: String,
}

/// A table as it has to be.
struct Table {
    name: &'static str,
    /// Name, type, collation.
    columns: &'static [(&'static str, &'static str, &'static str)],
    key: &'static [&'static str],
}

const TABLES_POSTGRES: [Table; 2] = [
    Table {
        name: "mainstay_receipt",
        columns: &[
            ("gid", "character varying(128)", "C"),
            ("branch", "character varying(64)", "C"),
            ("kind", "character(4)", "default"),
            ("written_by", "character varying(64)", "default"),
            ("written_at", "timestamp with time zone", ""),
        ],
        key: &["branch", "gid"],
    },
    Table {
        name: "mainstay_coordinator",
        columns: &[
            ("cluster", "character(8)", "default"),
            ("log_id", "character(36)", "default"),
            ("sequence", "bigint", ""),
            ("written_at", "timestamp with time zone", ""),
        ],
        key: &["cluster"],
    },
];

const TABLES_MARIADB: [Table; 2] = [
    Table {
        name: "mainstay_receipt",
        columns: &[
            ("gid", "varchar(128)", "utf8mb4_bin"),
            ("branch", "varchar(64)", "ascii_bin"),
            ("kind", "enum('done','tomb')", "*"),
            ("written_by", "varchar(64)", "*"),
            ("written_at", "timestamp(6)", ""),
        ],
        key: &["branch", "gid"],
    },
    Table {
        name: "mainstay_coordinator",
        columns: &[
            ("cluster", "char(8)", "*"),
            ("log_id", "char(36)", "*"),
            ("sequence", "bigint(20)", ""),
            ("written_at", "timestamp(6)", ""),
        ],
        key: &["cluster"],
    },
];

/// A right, and a statement that takes it and changes nothing.
const PROBES: [(&str, &str, &str); 6] = [
    ("mainstay_receipt", "SELECT", "SELECT 1 FROM mainstay_receipt WHERE 1 = 0"),
    (
        "mainstay_receipt",
        "INSERT",
        "INSERT INTO mainstay_receipt SELECT * FROM mainstay_receipt WHERE 1 = 0",
    ),
    ("mainstay_receipt", "DELETE", "DELETE FROM mainstay_receipt WHERE 1 = 0"),
    ("mainstay_coordinator", "SELECT", "SELECT 1 FROM mainstay_coordinator WHERE 1 = 0"),
    (
        "mainstay_coordinator",
        "INSERT",
        "INSERT INTO mainstay_coordinator SELECT * FROM mainstay_coordinator WHERE 1 = 0",
    ),
    (
        "mainstay_coordinator",
        "UPDATE",
        "UPDATE mainstay_coordinator SET sequence = sequence WHERE 1 = 0",
    ),
];

/// What a database says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) only_reads: bool,
    /// `PostgreSQL`: how many transactions can be prepared.
    pub(super) prepared_max: Option<i32>,
    /// Table, column, type, collation.
    pub(super) columns: BTreeSet<[String; 4]>,
    /// Table, column of its primary key.
    pub(super) keys: BTreeSet<[String; 2]>,
    /// `MariaDB`: table and engine, of those that have another one than `InnoDB`.
    pub(super) engines: Vec<[String; 2]>,
    /// `PostgreSQL`: schemas that have a table of receipts.
    pub(super) schemas: Vec<String>,
    /// `PostgreSQL`: who has prepared branches that we may not end.
    pub(super) strangers: Vec<String>,
    /// Table and right.
    pub(super) denied: Vec<(&'static str, &'static str)>,
    /// Whether it could end a held session, if it is to.
    pub(super) cannot_end_sessions: bool,
}

/// Asks a database about itself.
pub(super) async fn facts(
    session: &mut Session,
    cluster: &Cluster,
    ends_sessions: bool,
) -> Result<Facts, Failure> {
    let mut facts = match session {
        Session::Postgres(session) => session.facts(cluster).await?,
        Session::MariaDb(session) => session.facts(ends_sessions).await?,
    };
    for (table, right, statement) in PROBES {
        match session.run(statement).await {
            // What is not there, or only read, is told by the rest.
            Ok(()) | Err(Failure::NoTable(_) | Failure::Busy(_) | Failure::Said(_)) => {}
            Err(Failure::Denied(_)) => facts.denied.push((table, right)),
            Err(error) => return Err(error),
        }
    }
    Ok(facts)
}

/// What is wrong with a database that says this about itself; `user` is as whom we come.
pub(super) fn faults(kind: Kind, facts: &Facts, user: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |what: String, fix: String| {
        faults.push(Fault { what, fix });
    };
    let grantee = quoted(kind, user);
    if facts.only_reads {
        fault(
            "server only reads".to_owned(),
            "put the address of the primary into `url`".to_owned(),
        );
    }
    let tables = match kind {
        Kind::Postgres => &TABLES_POSTGRES,
        Kind::MariaDb => &TABLES_MARIADB,
    };
    for table in tables {
        let name = table.name;
        let denied: Vec<&str> = facts
            .denied
            .iter()
            .filter(|(table, _)| *table == name)
            .map(|(_, right)| *right)
            .collect();
        if !denied.is_empty() {
            let rights = denied.join(", ");
            let fix = format!("GRANT {rights} ON {name} TO {grantee}");
            fault(format!("`{user}` may not {rights} on {name}"), fix);
        } else if !facts.columns.iter().any(|[table, ..]| table == name) {
            fault(format!("table {name} is not there, or not ours to see"), made(kind, name));
        } else if let Some(what) = wrong(table, facts) {
            let fix = format!("rename {name} away, then {}", made(kind, name));
            fault(format!("table {name}: {what}"), fix);
        }
    }
    if facts.schemas.len() > 1 {
        let schemas = facts.schemas.join(", ");
        fault(
            format!("mainstay_receipt is there in several schemas: {schemas}"),
            "keep the one that applications write, and put it into the `search_path` of both"
                .to_owned(),
        );
    }
    for owner in &facts.strangers {
        let fix = format!("GRANT {} TO {grantee}", quoted(kind, owner));
        fault(format!("branches are prepared by `{owner}`, and `{user}` may not end them"), fix);
    }
    if facts.cannot_end_sessions {
        let fix = format!("GRANT PROCESS, CONNECTION ADMIN ON *.* TO {grantee}");
        fault(format!("`{user}` may not end sessions, and `kill_held_sessions` is set"), fix);
    }
    if facts.prepared_max == Some(0) {
        fault(
            "max_prepared_transactions is 0: nothing can be prepared".to_owned(),
            "max_prepared_transactions = 200 in postgresql.conf, then restart the server"
                .to_owned(),
        );
    }
    faults
}

/// What is wrong with a table that is there.
fn wrong(table: &Table, facts: &Facts) -> Option<String> {
    for (column, kind, collation) in table.columns {
        let is_it = |found: &&[String; 4]| found[0] == table.name && found[1] == *column;
        let Some([_, _, found, collated]) = facts.columns.iter().find(is_it) else {
            return Some(format!("column {column} is missing"));
        };
        // Widths of whole numbers are only how they are shown, and newer servers leave them out.
        if found != kind && !(kind.starts_with("bigint") && found.starts_with("bigint")) {
            return Some(format!("column {column} is {found}, not {kind}"));
        }
        if *collation != "*" && collated != collation {
            return Some(format!("column {column} is compared by {collated:?}, not {collation:?}"));
        }
    }
    let mut keys = facts.keys.iter().filter(|[name, _]| name == table.name).map(|[_, key]| key);
    if !table.key.iter().all(|column| keys.next().is_some_and(|key| key == column))
        || keys.next().is_some()
    {
        return Some(format!("its primary key is not {}", table.key.join(", ")));
    }
    let engine = facts.engines.iter().find(|[name, _]| name == table.name);
    engine.map(|[_, engine]| format!("its engine is {engine}, not InnoDB"))
}

/// The statements that make the tables; each does nothing where its table is there.
pub const fn tables(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Postgres => &[sql::RECEIPT_POSTGRES, sql::INDEX_POSTGRES, sql::COORDINATOR_POSTGRES],
        Kind::MariaDb => &[sql::RECEIPT_MARIADB, sql::COORDINATOR_MARIADB],
    }
}

/// The statements that give `user`, as whom the coordinator comes, what it needs, for an
/// administrator to run. In `PostgreSQL` it also takes membership of each role that prepares.
pub fn grants(kind: Kind, user: &str) -> Vec<String> {
    let grantee = quoted(kind, user);
    vec![
        format!("GRANT SELECT, INSERT, DELETE ON mainstay_receipt TO {grantee}"),
        format!("GRANT SELECT, INSERT, UPDATE ON mainstay_coordinator TO {grantee}"),
    ]
}

/// The statement that lets `user` purge the barrier of participants, which takes no other right.
pub fn barrier_grant(kind: Kind, user: &str) -> String {
    format!("GRANT SELECT, DELETE ON mainstay_barrier TO {}", quoted(kind, user))
}

/// The statements that make the table `name`, and what belongs to it.
fn made(kind: Kind, name: &str) -> String {
    let own: Vec<_> = tables(kind).iter().filter(|made| made.contains(name)).copied().collect();
    own.join("; ")
}

/// The statements that make the tables a database lacks, if it says this about itself.
pub(super) fn missing(kind: Kind, facts: &Facts) -> Vec<&'static str> {
    let is_there = |name: &str| facts.columns.iter().any(|[table, ..]| table == name);
    let all = TABLES_POSTGRES.iter().map(|table| table.name).filter(|name| !is_there(name));
    all.flat_map(|name| tables(kind).iter().copied().filter(move |made| made.contains(name)))
        .collect()
}

/// `name` as a part of a statement.
pub(super) fn quoted(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
        Kind::MariaDb => format!("`{}`", name.replace('`', "``")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with nothing to say against it.
    fn sound(kind: Kind) -> Facts {
        let tables = match kind {
            Kind::Postgres => &TABLES_POSTGRES,
            Kind::MariaDb => &TABLES_MARIADB,
        };
        let mut facts = Facts::default();
        for table in tables {
            for (column, kind, collation) in table.columns {
                facts.columns.insert([table.name, column, kind, collation].map(ToOwned::to_owned));
            }
            for key in table.key {
                facts.keys.insert([table.name, key].map(ToOwned::to_owned));
            }
        }
        facts
    }

    #[track_caller]
    fn check(kind: Kind, change: impl FnOnce(&mut Facts), want: &[&str]) {
        let mut facts = sound(kind);
        change(&mut facts);
        let faults = faults(kind, &facts, "coordinator");
        let shown: Vec<String> =
            faults.iter().map(|fault| format!("{} -> {}", fault.what, fault.fix)).collect();
        assert_eq!(shown.len(), want.len(), "{shown:?}");
        for (shown, want) in shown.iter().zip(want) {
            assert!(shown.contains(want), "{shown:?}, not {want:?}");
        }
    }

    #[test]
    fn each_fault_says_what_to_do() {
        for kind in Kind::ALL {
            check(*kind, |_| {}, &[]);
            check(*kind, |facts| facts.only_reads = true, &["address of the primary"]);
            let gone = |facts: &mut Facts| facts.columns.clear();
            let made = ["mainstay_receipt", "mainstay_coordinator"]
                .map(|name| format!("CREATE TABLE IF NOT EXISTS {name} ("));
            check(*kind, gone, &made.each_ref().map(String::as_str));
            let loose = |facts: &mut Facts| {
                facts.keys.remove(&["mainstay_receipt", "branch"].map(ToOwned::to_owned));
            };
            check(*kind, loose, &["primary key is not branch, gid"]);
        }
        let none = |facts: &mut Facts| facts.prepared_max = Some(0);
        check(Kind::Postgres, none, &["max_prepared_transactions = 200 in postgresql.conf"]);
        let denied = |facts: &mut Facts| facts.denied = vec![("mainstay_receipt", "DELETE")];
        check(Kind::MariaDb, denied, &["GRANT DELETE ON mainstay_receipt TO `coordinator`"]);
        let strangers = |facts: &mut Facts| facts.strangers = vec!["shop".to_owned()];
        check(Kind::Postgres, strangers, &["GRANT \"shop\" TO \"coordinator\""]);
        let twice = |facts: &mut Facts| facts.schemas = vec!["a".to_owned(), "b".to_owned()];
        check(Kind::Postgres, twice, &["search_path"]);
        let engine = |facts: &mut Facts| {
            facts.engines = vec![["mainstay_receipt", "MyISAM"].map(ToOwned::to_owned)];
        };
        check(Kind::MariaDb, engine, &["MyISAM"]);
        let careless = |facts: &mut Facts| {
            facts.columns.retain(|column| column[1] != "gid");
            let column = ["mainstay_receipt", "gid", "varchar(128)", "utf8mb4_general_ci"];
            facts.columns.insert(column.map(ToOwned::to_owned));
        };
        check(Kind::MariaDb, careless, &["compared by \"utf8mb4_general_ci\""]);
    }
}
