//! An origin that reads requests by the letter of RFC 9112 and writes down each one it counts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

/// A running origin; it serves as long as the test process lives.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    counted: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// Starts one. Every request is answered with the last segment of its target.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counted = Arc::<Mutex<Vec<String>>>::default();
        let origin = Self { address, counted: Arc::clone(&counted) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    while let Some(more) = serve(&mut reader, &stream, &counted) {
                        if !more {
                            break;
                        }
                    }
                });
            }
        });
        origin
    }

    /// Targets counted so far; `malformed: …` for what could not be read.
    pub(crate) fn counted(&self) -> Vec<String> {
        self.counted.lock().clone()
    }
}

/// Serves one request; `None` at the end of the connection, `false` when it must end.
fn serve(
    reader: &mut BufReader<&TcpStream>,
    mut stream: &TcpStream,
    counted: &Mutex<Vec<String>>,
) -> Option<bool> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // A connection that ends between requests is nobody's request.
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            if !head.is_empty() {
                counted.lock().push(malformed(&head));
            }
            return None;
        }
    }
    let Some((target, body)) = read(&head) else {
        counted.lock().push(malformed(&head));
        drop(
            stream.write_all(b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        );
        return Some(false);
    };
    counted.lock().push(target.clone());
    match body {
        Body::Length(length) => {
            let copied = std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
            (copied == length).then_some(())?;
        }
        Body::Chunked => chunks(reader)?,
    }
    let last = target.rsplit('/').next().unwrap_or_default();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{last}", last.len());
    stream.write_all(answer.as_bytes()).ok()?;
    Some(true)
}

fn malformed(head: &[u8]) -> String {
    format!("malformed: {:?}", String::from_utf8_lossy(head))
}

enum Body {
    Length(u64),
    Chunked,
}

/// The target and how the body is framed, or `None` if the head breaks a rule.
fn read(head: &[u8]) -> Option<(String, Body)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (_method, target, version) = (first.next()?, first.next()?, first.next()?);
    if first.next().is_some() || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return None;
    }
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let control = |b: u8| (b < 32 && b != b'\t') || b == 127;
        if name.is_empty() || !name.bytes().all(token) || value.bytes().any(control) {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => lengths.push(value.trim()),
            "transfer-encoding" => codings.push(value.trim()),
            _ => (),
        }
    }
    if hosts != 1 && version == "HTTP/1.1" {
        return None;
    }
    let body = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Body::Length(0),
        ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
            Body::Length(length.parse().ok()?)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Body::Chunked,
        _ => return None,
    };
    Some((target.to_owned(), body))
}

fn chunks(reader: &mut BufReader<&TcpStream>) -> Option<()> {
    loop {
        let line = line(reader)?;
        let size = line.split(';').next()?.trim_end();
        let size = u64::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        std::io::copy(&mut reader.take(size), &mut std::io::sink()).ok()?;
        line_is_empty(reader)?;
    }
    while !line(reader)?.is_empty() {}
    Some(())
}

fn line_is_empty(reader: &mut BufReader<&TcpStream>) -> Option<()> {
    line(reader)?.is_empty().then_some(())
}

fn line(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    line.strip_suffix("\r\n").map(str::to_owned)
}
