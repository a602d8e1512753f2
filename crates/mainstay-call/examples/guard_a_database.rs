//! Guards something that is not HTTP: a small key-value server that speaks a line at a time.
//!
//! `cargo run -p mainstay-call --example guard_a_database`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mainstay_call::guard::{Guard, GuardError, Judgement};
use mainstay_call::{CallError, Policy};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const POLICY: &str = r#"
timeout_seconds = 1
retry = { attempts = 3, backoff = { base_seconds = 0.01 } }
[circuit]
consecutive_failures = 3
cooldown_seconds = 0.5
probes = 1
ramp_percent = []
[limit.connections]
kind = "concurrency"
max = 8
queue_max = 32
wait_max_seconds = 0.2
"#;

/// What a query can end with, beside a value.
#[derive(Debug, thiserror::Error)]
enum DbError {
    #[error("no such key")]
    NotFound,
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("connection lost")]
    Lost(#[source] io::Error),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut database = JoinSet::new();
    let address = serve(&mut database).await?;

    let stock = Guard::new("stock-db", Policy::from_toml(POLICY)?).classify(|error: &DbError| {
        match error {
            DbError::NotFound => Judgement::Fine,
            // Nothing was sent, so nothing can be done twice.
            DbError::Connect(_) => Judgement::Transient,
            DbError::Lost(_) => Judgement::Failed,
        }
    });
    let ask = async |key: &str| match stock.run(async |_call| fetch(address, key).await).await {
        Ok(value) => println!("{key}: {value}"),
        Err(GuardError::Failed(error)) => println!("{key}: failed: {error}"),
        Err(GuardError::Stopped(CallError::Refused(refusal))) => {
            let after = refusal.retry_after.unwrap_or_default();
            println!("{key}: not asked, {}; come back in {after:.1?}", refusal.code);
        }
        Err(GuardError::Stopped(stopped)) => println!("{key}: {stopped}"),
    };

    ask("apples").await;
    ask("pears").await;
    println!("-- the database goes away --");
    database.shutdown().await;
    for _ in 0..3 {
        ask("apples").await;
    }
    println!("-- and comes back --");
    let listener = TcpListener::bind(address).await?;
    database.spawn(answer(listener));
    sleep(Duration::from_millis(600)).await;
    ask("apples").await;
    Ok(())
}

/// One query on a connection of its own.
async fn fetch(address: SocketAddr, key: &str) -> Result<String, DbError> {
    let mut stream = TcpStream::connect(address).await.map_err(DbError::Connect)?;
    stream.write_all(format!("{key}\n").as_bytes()).await.map_err(DbError::Lost)?;
    let mut value = String::new();
    stream.read_to_string(&mut value).await.map_err(DbError::Lost)?;
    if value.is_empty() { Err(DbError::NotFound) } else { Ok(value) }
}

/// Starts a database on a port of its own.
async fn serve(tasks: &mut JoinSet<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tasks.spawn(answer(listener));
    Ok(address)
}

/// Knows how many apples there are, and nothing else.
async fn answer(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut key = String::new();
        if stream.read_line(&mut key).await.is_ok() && key.trim() == "apples" {
            let _caller_gone = stream.write_all(b"7").await;
        }
    }
}
