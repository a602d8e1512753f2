//! Open-loop load: requests leave by the clock, whether or not those before were answered.
//!
//! The client does what honest HTTP clients do and no more: connections are kept, one in ten
//! requests brings its own, and a request whose *kept* connection ends before a byte of the answer
//! is sent once more on a fresh one (RFC 9112, section 9.3.1). Those are counted.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::wait::now;

/// Load that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: JoinHandle<()>,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Requests sent and done with.
    pub(crate) done: u64,
    /// Connections that were refused: the request never began.
    pub(crate) refused: u64,
    /// Requests sent again because a kept connection had ended.
    pub(crate) resent: u64,
    /// Everything but an answer of 200: when after the start, and what.
    pub(crate) failed: Vec<(Duration, String)>,
}

type Pool = Arc<Mutex<VecDeque<TcpStream>>>;

impl Load {
    /// Sends `per_second` requests to `to`.
    pub(crate) fn start(to: SocketAddr, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let thread = {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(send(to, per_second, &stop, &tally));
            })
        };
        Self { stop, tally, thread }
    }

    /// What became of the requests so far.
    pub(crate) fn so_far(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Stops, waits for the answers that are under way, and tells.
    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.tally.lock().clone()
    }
}

async fn send(to: SocketAddr, per_second: u32, stop: &AtomicBool, tally: &Arc<Mutex<Tally>>) {
    let began = now();
    let pool = Pool::default();
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        number += 1;
        let (pool, tally) = (Arc::clone(&pool), Arc::clone(tally));
        under_way.spawn(async move {
            let limit = Duration::from_secs(10);
            let mut resent = false;
            let request = one(to, number, &pool, &mut resent);
            let result = tokio::time::timeout(limit, request).await;
            let mut tally = tally.lock();
            tally.done += 1;
            tally.resent += u64::from(resent);
            let failed = match result {
                Ok(Ok(answer)) if answer.contains(" 200 ") => return,
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tally.refused += 1;
                    return;
                }
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => format!("{error:?}"),
                Err(_elapsed) => "no answer".to_owned(),
            };
            tally.failed.push((began.elapsed(), format!("{number}: {failed}")));
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn one(to: SocketAddr, number: u64, pool: &Pool, resent: &mut bool) -> io::Result<String> {
    let alone = number.is_multiple_of(10);
    let mut kept = if alone { None } else { idle(pool) };
    let connection = if alone { "connection: close\r\n" } else { "" };
    let ask = format!("GET /item/{number} HTTP/1.1\r\nhost: shop.example\r\n{connection}\r\n");
    loop {
        let was_kept = kept.is_some();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect(to).await?,
        };
        stream.set_nodelay(true)?;
        let mut answer = Vec::new();
        match exchange(&mut stream, ask.as_bytes(), &mut answer).await {
            Ok(()) => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                if !alone && !text.to_ascii_lowercase().contains("connection: close") {
                    pool.lock().push_back(stream);
                }
                return Ok(text);
            }
            Err(_ended) if was_kept && answer.is_empty() => *resent = true,
            Err(error) => {
                let text = String::from_utf8_lossy(&answer);
                return Err(io::Error::other(format!("kept {was_kept}, {error}, after {text:?}")));
            }
        }
    }
}

/// A kept connection that has not ended.
fn idle(pool: &Pool) -> Option<TcpStream> {
    loop {
        let stream = pool.lock().pop_front()?;
        let end = stream.try_read(&mut [0]);
        if end.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Some(stream);
        }
    }
}

/// Sends `ask` and reads the whole answer into `answer`; its length must be declared.
async fn exchange(stream: &mut TcpStream, ask: &[u8], answer: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(ask).await?;
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let ours = name.eq_ignore_ascii_case("content-length");
            ours.then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.ok_or(io::ErrorKind::InvalidData)? {
            return Ok(());
        }
    }
}

/// Leave to load the machine. Two tests have it at a time: more on two cores would measure each
/// other.
pub(crate) fn turn() -> parking_lot::MutexGuard<'static, ()> {
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    loop {
        if let Some(turn) = TURNS.iter().find_map(Mutex::try_lock) {
            return turn;
        }
        crate::support::wait::pause(Duration::from_millis(20));
    }
}
