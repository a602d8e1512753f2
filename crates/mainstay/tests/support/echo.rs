//! A service that tells what reached it, and a client that sends bytes as they are written here.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::wait::pause;

/// Starts a service called `name`; it serves as long as the test process lives.
///
/// `/slow/MS` answers after a while, `/status/N` with a status, `/trailers` with trailers,
/// `/big` with 4 MiB more, `/events` with ten events over two seconds, `/socket` by becoming a WebSocket that echoes bytes.
/// Every other path is answered with what was asked: the request line, its fields in lower case,
/// an empty line, the body, and `trailer NAME: VALUE` for each trailer.
pub(crate) fn serve(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || while answer(name, &stream).is_some() {});
        }
    });
    address
}

fn answer(name: &str, mut stream: &TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok().filter(|bytes| *bytes > 0)?;
    }
    let (first, fields) = head.split_once("\r\n")?;
    let fields = fields.to_ascii_lowercase();
    let path = first.split(' ').nth(1)?;
    if path == "/socket" {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
            connection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream.write_all(switch.as_bytes()).ok()?;
        let mut bytes = [0; 1024];
        loop {
            let count = reader.read(&mut bytes).ok().filter(|count| *count > 0)?;
            stream.write_all(&bytes[..count]).ok()?;
        }
    }
    let mut body = body(&mut reader, &fields)?;
    if path == "/trailers" || path == "/events" {
        let kind = if path == "/events" { "text/event-stream" } else { "text/plain" };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\
            trailer: x-sum\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        for n in 0..if path == "/events" { 10 } else { 1 } {
            stream.write_all(format!("9\r\ndata: {n}\n\n\r\n").as_bytes()).ok()?;
            pause(Duration::from_millis(200));
        }
        return stream.write_all(b"0\r\nx-sum: 7\r\n\r\n").ok();
    }
    let mut status = 200;
    if let Some(text) = path.strip_prefix("/slow/") {
        pause(Duration::from_millis(text.parse().ok()?));
    } else if let Some(text) = path.strip_prefix("/status/") {
        status = text.parse().ok()?;
    }
    body = format!("{first}\n{}\n{body}", fields.replace("\r\n", "\n").trim_end());
    if path == "/big" {
        body.push_str(&"x".repeat(4 << 20));
    }
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Said\r\nx-served-by: {name}\r\nserver: echo\r\n\
        content-length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).ok()
}

fn body(reader: &mut BufReader<&TcpStream>, fields: &str) -> Option<String> {
    let mut text = String::from("\n");
    if let Some(length) = fields.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        let mut bytes = vec![0; length.parse().ok()?];
        reader.read_exact(&mut bytes).ok()?;
        text.push_str(&String::from_utf8_lossy(&bytes));
    } else if fields.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            if size == 0 {
                break;
            }
            let mut bytes = vec![0; size + 2];
            reader.read_exact(&mut bytes).ok()?;
            text.push_str(&String::from_utf8_lossy(&bytes[..size]));
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line == "\r\n" {
                break;
            }
            text.push_str("\ntrailer ");
            text.push_str(line.trim_end());
        }
    }
    Some(text)
}

/// Opens a connection to `to` and sends `bytes`.
#[track_caller]
pub(crate) fn connect(to: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// Reads until `end` has come.
#[track_caller]
pub(crate) fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    let mut bytes = [0; 4096];
    while !String::from_utf8_lossy(&got).contains(end) {
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "ended before {end:?}: {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(got).unwrap()
}

/// Sends `bytes` on a connection of their own and reads until it is closed.
#[track_caller]
pub(crate) fn exchange(to: SocketAddr, bytes: &str) -> String {
    let mut answer = Vec::new();
    connect(to, bytes).read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// What curl prints: head, body, and `HTTP VERSION` in the last line; empty when it fails.
#[track_caller]
pub(crate) fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sSi", "--max-time", "15", "--noproxy", "*", "-w", "\nHTTP %{http_version}\n"]);
    let output = curl.args(arguments).output().unwrap();
    if output.status.success() { String::from_utf8(output.stdout).unwrap() } else { String::new() }
}

/// Asserts that `text` holds all of `parts`, whatever the case of letters.
#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        let found = text.to_ascii_lowercase().contains(&part.to_ascii_lowercase());
        assert!(found, "no {part:?} in:\n{text}");
    }
}
