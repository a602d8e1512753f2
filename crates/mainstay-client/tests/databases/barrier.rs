//! Operations that arrive twice, too early, too late and at once, at two sessions of a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mainstay_client::barrier::{self, BarrierError, Check, Checked, Passed};
use mainstay_client::optimistic::Conflicts;
use mainstay_client::{Barrier, Branch};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::sync::Notify;
use tokio_postgres::Client;

use crate::servers::{MariaDb, Postgres};

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Ran,
    Duplicate,
    EmptyRollback,
    Hanging,
    Ongoing,
    Failed,
}

/// What the business does after it has written its row.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// Waits to be told.
    gate: Option<Arc<Notify>>,
    /// Says that it cannot be.
    fails: bool,
}

/// What business statements return.
#[derive(Debug)]
enum Error<D> {
    Refused,
    Busy,
    Database(D),
}

impl<D> From<D> for Error<D> {
    fn from(error: D) -> Self {
        Self::Database(error)
    }
}

impl<D: Conflicts> Conflicts for Error<D> {
    fn is_conflict(&self) -> bool {
        match self {
            Self::Refused => false,
            Self::Busy => true,
            Self::Database(error) => error.is_conflict(),
        }
    }
}

impl How {
    async fn go_on<D>(&self) -> Result<(), Error<D>> {
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        if self.fails { Err(Error::Refused) } else { Ok(()) }
    }
}

/// A session of a participant.
trait Party {
    async fn call(&mut self, barrier: &mut Barrier, how: How) -> Came;
    async fn check(&mut self, check: Check) -> Checked;
    async fn effects(&mut self) -> i64;
}

#[track_caller]
fn came<D: std::fmt::Debug>(passed: Result<Passed<()>, BarrierError<Error<D>, D>>) -> Came {
    match passed {
        Ok(Passed::Ran(())) => Came::Ran,
        Ok(Passed::Duplicate) => Came::Duplicate,
        Ok(Passed::EmptyRollback) => Came::EmptyRollback,
        Ok(Passed::Hanging) => Came::Hanging,
        Err(BarrierError::Ongoing) => Came::Ongoing,
        Err(BarrierError::Business(Error::Refused)) => Came::Failed,
        Err(error) => panic!("{error:?}"),
    }
}

impl Party for Client {
    async fn call(&mut self, barrier: &mut Barrier, how: How) -> Came {
        let passed = barrier.postgres(self, async |sql| {
            sql.execute("INSERT INTO effect VALUES (1)", &[]).await?;
            how.go_on().await
        });
        came(passed.await)
    }

    async fn check(&mut self, check: Check) -> Checked {
        check.postgres(self).await.unwrap()
    }

    async fn effects(&mut self) -> i64 {
        self.query_one("SELECT count(*) FROM effect", &[]).await.unwrap().get(0)
    }
}

impl Party for Conn {
    async fn call(&mut self, barrier: &mut Barrier, how: How) -> Came {
        let passed = barrier.mysql(self, async |sql| {
            sql.query_drop("INSERT INTO effect VALUES (1)").await?;
            how.go_on().await
        });
        came(passed.await)
    }

    async fn check(&mut self, check: Check) -> Checked {
        check.mysql(self).await.unwrap()
    }

    async fn effects(&mut self) -> i64 {
        self.query_first("SELECT count(*) FROM effect").await.unwrap().unwrap()
    }
}

/// Two sessions, and whose table they keep rows in.
struct Two<P> {
    first: P,
    second: P,
    of_dtm: bool,
}

impl<P: Party> Two<P> {
    fn barrier(&self, gid: &str, op: &str) -> Barrier {
        let mode = match op {
            "msg" => "message",
            "action" | "prepare" | "rollback" => "xa",
            _ => "tcc",
        };
        let branch = Branch::new(mode, gid, if op == "msg" { "00" } else { "01" }, op).unwrap();
        let barrier = Barrier::of(&branch);
        if self.of_dtm { barrier.table_of_dtm() } else { barrier }
    }

    fn question(&self, gid: &str) -> Check {
        let check = Check::of(&Branch::new("message", gid, "00", "msg").unwrap());
        if self.of_dtm { check.table_of_dtm() } else { check }
    }

    /// Plays operations of `gid` one after the other, at either session in turn.
    async fn play(&mut self, gid: &str, ops: &[(&str, Came)]) {
        for (turn, (op, want)) in ops.iter().enumerate() {
            let barrier = &mut self.barrier(gid, op);
            let party = if turn % 2 == 0 { &mut self.first } else { &mut self.second };
            let got = party.call(barrier, How::default()).await;
            assert_eq!(got, *want, "{op}, number {turn} of {gid}");
        }
    }

    /// Plays `undo` while `op` is still being done, which ends `after` so long.
    async fn overlap(&mut self, gid: &str, fails: bool, after: Duration, want: [Came; 2]) {
        let gate = Arc::new(Notify::new());
        let how = How { gate: Some(Arc::clone(&gate)), fails };
        let (mut action, mut undo) = (self.barrier(gid, "try"), self.barrier(gid, "cancel"));
        let began = Instant::now();
        let acting = self.first.call(&mut action, how);
        let undoing = async {
            // The first has the key by then.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let undone = self.second.call(&mut undo, How::default()).await;
            (undone, began.elapsed())
        };
        let opening = async {
            tokio::time::sleep(after).await;
            gate.notify_one();
        };
        let (acted, (undone, took), ()) = tokio::join!(acting, undoing, opening);
        assert_eq!([acted, undone], want, "{gid}");
        if undone == Came::Ongoing {
            assert!(took >= Duration::from_secs(2) && took < after, "{took:?}");
        }
    }
}

/// Every row of the table of barriers, and what it must come to.
async fn rows<P: Party>(first: P, second: P, of_dtm: bool) {
    use Came::{Duplicate, EmptyRollback, Failed, Hanging, Ongoing, Ran};
    let mut two = Two { first, second, of_dtm };
    two.play(
        "in-order",
        &[("try", Ran), ("try", Duplicate), ("confirm", Ran), ("confirm", Duplicate)],
    )
    .await;
    two.play("undone", &[("try", Ran), ("cancel", Ran), ("cancel", Duplicate), ("try", Duplicate)])
        .await;
    let overtaken = [("cancel", EmptyRollback), ("try", Hanging), ("cancel", Duplicate)];
    two.play("overtaken", &overtaken).await;
    assert_eq!(two.first.effects().await, 4);
    // The other waits for what is not committed: too long, or until it is known.
    let (soon, late) = (Duration::from_millis(700), Duration::from_secs(5));
    two.overlap("slow", false, late, [Ran, Ongoing]).await;
    two.play("slow", &[("cancel", Ran)]).await;
    two.overlap("in-time", false, soon, [Ran, Ran]).await;
    two.overlap("failed", true, soon, [Failed, EmptyRollback]).await;
    two.play("failed", &[("try", Hanging)]).await;
    assert_eq!(two.first.effects().await, 8);
    errors(&mut two).await;
    messages(&mut two).await;
    rollbacks(&mut two).await;
}

/// A branch of a two-phase commit that is rolled back neither acts nor prepares any more.
async fn rollbacks<P: Party>(two: &mut Two<P>) {
    use Came::{Duplicate, EmptyRollback, Hanging, Ran};
    let overtaken = [("rollback", EmptyRollback), ("prepare", Hanging), ("action", Hanging)];
    two.play("all-overtaken", &overtaken).await;
    two.play("acted", &[("action", Ran), ("rollback", Ran), ("prepare", Hanging)]).await;
    two.play("prepared", &[("prepare", Ran), ("rollback", Ran), ("rollback", Duplicate)]).await;
}

/// An error, and a second local transaction.
async fn errors<P: Party>(two: &mut Two<P>) {
    use Came::{Duplicate, Failed, Ran};
    // An error leaves nothing behind, no row of its own either.
    let mut refused = two.barrier("refused", "try");
    assert_eq!(two.first.call(&mut refused, How { fails: true, ..How::default() }).await, Failed);
    assert_eq!(two.second.effects().await, 8);
    two.play("refused", &[("try", Ran)]).await;
    // Two local transactions of one handler do not take each other for a repetition.
    for want in [Ran, Duplicate] {
        let mut barrier = two.barrier("twice", "try");
        for _ in 0..2 {
            assert_eq!(two.first.call(&mut barrier, How::default()).await, want);
        }
    }
}

/// Local parts of messages, and questions about them.
async fn messages<P: Party>(two: &mut Two<P>) {
    for want in [Came::Ran, Came::Duplicate] {
        let mut sent = two.barrier("sent", "msg");
        assert_eq!(two.first.call(&mut sent, How::default()).await, want);
        assert_eq!(two.second.check(two.question("sent")).await, Checked::Committed);
    }
    // Who is asked first says no, and keeps to it.
    for _ in 0..2 {
        assert_eq!(two.second.check(two.question("never")).await, Checked::RolledBack);
    }
    let mut never = two.barrier("never", "msg");
    assert_eq!(two.first.call(&mut never, How::default()).await, Came::Hanging);
    let gate = Arc::new(Notify::new());
    let how = How { gate: Some(Arc::clone(&gate)), fails: false };
    let (mut slow, question) = (two.barrier("slowly", "msg"), two.question("slowly"));
    let asking = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let checked = two.second.check(question).await;
        gate.notify_one();
        checked
    };
    let (sent, checked) = tokio::join!(two.first.call(&mut slow, how), asking);
    assert_eq!((sent, checked), (Came::Ran, Checked::Ongoing));
    assert_eq!(two.second.check(two.question("slowly")).await, Checked::Committed);
}

#[tokio::test]
async fn on_postgresql_each_operation_takes_effect_once() {
    let server = Postgres::start().await;
    let (first, second) = (server.connect().await, server.connect().await);
    for _ in 0..2 {
        barrier::postgres::install_tables(&first).await.unwrap();
    }
    first.batch_execute("CREATE TABLE effect (n int)").await.unwrap();
    rows(first, second, false).await;
    // The same in the table of clients of DTM, and where transactions are stricter than usual.
    let (first, second) = (server.connect().await, server.connect().await);
    let tables = "CREATE SCHEMA dtm_barrier; CREATE TABLE dtm_barrier.barrier (id serial, \
        trans_type varchar(45), gid varchar(128), branch_id varchar(128), op varchar(45), \
        barrier_id varchar(45), reason varchar(45), \
        CONSTRAINT uniq_barrier UNIQUE (gid, branch_id, op, barrier_id)); TRUNCATE effect";
    first.batch_execute(tables).await.unwrap();
    for client in [&first, &second] {
        let strict = "SET default_transaction_isolation = 'serializable'";
        client.batch_execute(strict).await.unwrap();
    }
    rows(first, second, true).await;
    let modes = "SELECT string_agg(DISTINCT trans_type, ' ') FROM dtm_barrier.barrier";
    let modes = server.connect().await.query_one(modes, &[]).await.unwrap();
    assert_eq!(modes.get::<_, &str>(0), "msg tcc xa");
}

#[tokio::test]
async fn on_mariadb_each_operation_takes_effect_once() {
    let server = MariaDb::start().await;
    let (mut first, second) = (server.connect().await, server.connect().await);
    for _ in 0..2 {
        barrier::mysql::install_tables(&mut first).await.unwrap();
    }
    first.query_drop("CREATE TABLE effect (n int)").await.unwrap();
    rows(first, second, false).await;
    let (mut first, second) = (server.connect().await, server.connect().await);
    for statement in [
        "CREATE DATABASE dtm_barrier",
        "CREATE TABLE dtm_barrier.barrier (id bigint AUTO_INCREMENT PRIMARY KEY, \
         trans_type varchar(45), gid varchar(128), branch_id varchar(128), op varchar(45), \
         barrier_id varchar(45), reason varchar(45), \
         UNIQUE KEY uniq_barrier (gid, branch_id, op, barrier_id))",
        "TRUNCATE effect",
    ] {
        first.query_drop(statement).await.unwrap();
    }
    rows(first, second, true).await;
}

/// Locks two rows crosswise in two sessions; whoever is broken off is run again.
#[tokio::test]
async fn on_postgresql_a_deadlock_and_other_conflicts_are_repeated() {
    let server = Postgres::start().await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    barrier::postgres::install_tables(&first).await.unwrap();
    let rows = "CREATE TABLE stock (sku text PRIMARY KEY, n int); \
        INSERT INTO stock VALUES ('a', 0), ('b', 0)";
    first.batch_execute(rows).await.unwrap();
    let meeting = tokio::sync::Barrier::new(2);
    let cross = async |client: &mut Client, gid: &str, skus: [&str; 2]| {
        let runs = AtomicU32::new(0);
        let branch = Branch::new("saga", gid, "01", "action").unwrap();
        let passed = Barrier::of(&branch)
            .postgres(client, async |sql| {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                for (at, sku) in skus.into_iter().enumerate() {
                    if at == 1 && run == 0 {
                        meeting.wait().await;
                    }
                    sql.execute("UPDATE stock SET n = n + 1 WHERE sku = $1", &[&sku]).await?;
                }
                Ok::<_, tokio_postgres::Error>(())
            })
            .await;
        assert_eq!(passed.unwrap(), Passed::Ran(()));
        runs.into_inner()
    };
    let (a, b) =
        tokio::join!(cross(&mut first, "a", ["a", "b"]), cross(&mut second, "b", ["b", "a"]));
    assert!(a + b > 2, "{a}, {b}: they never met");
    let sum = first.query_one("SELECT sum(n) FROM stock", &[]).await.unwrap();
    assert_eq!(sum.get::<_, i64>(0), 4);
    // It ends some time.
    let branch = Branch::new("saga", "busy", "01", "action").unwrap();
    let runs = AtomicU32::new(0);
    let passed = Barrier::of(&branch)
        .postgres(&mut first, async |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            Err::<(), Error<tokio_postgres::Error>>(Error::Busy)
        })
        .await;
    assert!(matches!(passed, Err(BarrierError::Business(Error::Busy))));
    assert_eq!(runs.into_inner(), 1 + barrier::REPEATS);
    // An error that is kept secret would be a commit of nothing.
    let passed = Barrier::of(&branch)
        .postgres(&mut first, async |sql| {
            drop(sql.execute("SELECT 1 / 0", &[]).await);
            Ok::<_, tokio_postgres::Error>(())
        })
        .await;
    assert!(matches!(passed, Err(BarrierError::NothingCommitted)));
}

#[tokio::test]
async fn on_mariadb_a_deadlock_and_other_conflicts_are_repeated() {
    let server = MariaDb::start().await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    barrier::mysql::install_tables(&mut first).await.unwrap();
    let table = "CREATE TABLE stock (sku varchar(9) PRIMARY KEY, n int)";
    first.query_drop(table).await.unwrap();
    first.query_drop("INSERT INTO stock VALUES ('a', 0), ('b', 0)").await.unwrap();
    let meeting = tokio::sync::Barrier::new(2);
    let cross = async |connection: &mut Conn, gid: &str, skus: [&str; 2]| {
        let runs = AtomicU32::new(0);
        let branch = Branch::new("saga", gid, "01", "action").unwrap();
        let passed = Barrier::of(&branch)
            .mysql(connection, async |sql| {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                for (at, sku) in skus.into_iter().enumerate() {
                    if at == 1 && run == 0 {
                        meeting.wait().await;
                    }
                    sql.exec_drop("UPDATE stock SET n = n + 1 WHERE sku = ?", (sku,)).await?;
                }
                Ok::<_, mysql_async::Error>(())
            })
            .await;
        assert_eq!(passed.unwrap(), Passed::Ran(()));
        runs.into_inner()
    };
    let (a, b) =
        tokio::join!(cross(&mut first, "a", ["a", "b"]), cross(&mut second, "b", ["b", "a"]));
    assert!(a + b > 2, "{a}, {b}: they never met");
    let sum: Option<i64> =
        first.query_first("SELECT CAST(sum(n) AS int) FROM stock").await.unwrap();
    assert_eq!(sum, Some(4));
    // What ended the transaction by itself must not be taken for a commit.
    let branch = Branch::new("saga", "gone", "01", "action").unwrap();
    let passed = Barrier::of(&branch)
        .mysql(&mut first, async |sql| {
            sql.query_drop("ROLLBACK").await?;
            Ok::<_, mysql_async::Error>(())
        })
        .await;
    assert!(matches!(passed, Err(BarrierError::NothingCommitted)));
}

#[test]
fn on_sqlite_each_operation_takes_effect_once() {
    use Came::{Duplicate, EmptyRollback, Failed, Hanging, Ran};
    let folder = tempfile::TempDir::new().unwrap();
    let open = || rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    let (mut first, mut second) = (open(), open());
    for _ in 0..2 {
        barrier::sqlite::install_tables(&first).unwrap();
    }
    first.execute_batch("CREATE TABLE effect (n int)").unwrap();
    let call = |connection: &mut rusqlite::Connection, gid: &str, op: &str, fails: bool| {
        let branch = Branch::new("saga", gid, "01", op).unwrap();
        let passed = Barrier::of(&branch).sqlite(connection, |sql| {
            sql.execute("INSERT INTO effect VALUES (1)", [])?;
            if fails { Err(Error::Refused) } else { Ok(()) }
        });
        came::<rusqlite::Error>(passed)
    };
    let mut play = |gid: &str, ops: &[(&str, Came)]| {
        for (turn, (op, want)) in ops.iter().enumerate() {
            let connection = if turn % 2 == 0 { &mut first } else { &mut second };
            assert_eq!(call(connection, gid, op, *want == Failed), *want, "{op} of {gid}");
        }
    };
    play(
        "in-order",
        &[("action", Ran), ("action", Duplicate), ("compensate", Ran), ("compensate", Duplicate)],
    );
    play(
        "overtaken",
        &[("compensate", EmptyRollback), ("action", Hanging), ("compensate", Duplicate)],
    );
    play("refused", &[("action", Failed), ("action", Ran)]);
    play("rolled-back", &[("rollback", EmptyRollback), ("prepare", Hanging), ("action", Hanging)]);
    let effects: i64 =
        first.query_row("SELECT count(*) FROM effect", [], |row| row.get(0)).unwrap();
    assert_eq!(effects, 3);
    // Whoever writes holds up all others.
    let writing =
        first.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let began = Instant::now();
    assert_eq!(call(&mut second, "late", "action", false), Came::Ongoing);
    assert!(began.elapsed() >= Duration::from_secs(2));
    drop(writing);
    let question = Check::of(&Branch::new("message", "never", "00", "msg").unwrap());
    assert_eq!(question.sqlite(&mut second).unwrap(), Checked::RolledBack);
    let late = Barrier::local_part("never").unwrap().sqlite(&mut first, |_| Ok::<_, Error<_>>(()));
    assert_eq!(came::<rusqlite::Error>(late), Hanging);
}
