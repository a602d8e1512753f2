//! Participants that do nothing: each answers every request at once, or not, as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// What a participant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// 200, at once.
    Well,
    /// 503, at once.
    Away,
    /// Nothing.
    Hanging,
}

/// One of them, on a port of its own, for as long as the process runs.
pub struct Participant {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mood: AtomicU8,
    done: AtomicU64,
}

impl Participant {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let mood = AtomicU8::new(Mood::Well as u8);
        let shared = Arc::new(Shared { mood, done: AtomicU64::new(0) });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                let serve = move || drop(serve(stream, &shared));
                // As many as there are connections; each needs next to nothing.
                let thread = std::thread::Builder::new().stack_size(64 << 10);
                thread.spawn(serve).expect("a thread");
            }
        });
        Self { address, shared }
    }

    pub fn be(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// Requests answered with 200 so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        let mut lines = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            lines += 1;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
        if lines == 0 {
            continue;
        }
        let mood = shared.mood.load(Ordering::Relaxed);
        if mood == Mood::Hanging as u8 {
            while shared.mood.load(Ordering::Relaxed) == Mood::Hanging as u8 {
                std::thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        let is_well = mood == Mood::Well as u8;
        let answer = if is_well { OK } else { UNAVAILABLE };
        stream.get_mut().write_all(answer)?;
        shared.done.fetch_add(u64::from(is_well), Ordering::Relaxed);
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
