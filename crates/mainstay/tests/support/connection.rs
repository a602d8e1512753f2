//! A connection that is kept open over many requests, for those that send thousands.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    to: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Opens one; `None` when nobody listens.
    pub(crate) fn open(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { to, stream: BufReader::new(stream) })
    }

    /// Sends a request with `headers`, whole lines; the status and the body of its answer, or
    /// `None` when the connection ended first.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Option<(u16, String)> {
        let (to, length) = (self.to, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {to}\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).ok()?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok()?;
                }
                Some(_) => {}
                None => status = line.split(' ').nth(1)?.parse().ok()?,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
