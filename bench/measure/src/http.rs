//! HTTP/1.1 on one connection that stays open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Connection {
    /// `headers` go with each request; whole lines.
    pub fn open(to: SocketAddr, headers: &str) -> Self {
        let stream = TcpStream::connect(to).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream), head: format!("host: {to}\r\n{headers}") }
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (head, length) = (&self.head, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\n{head}content-length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).expect("it takes it");
        let (mut status, mut length, mut chunked) = (0, 0, false);
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().expect("a length");
                }
                Some((name, _)) if name.eq_ignore_ascii_case("transfer-encoding") => chunked = true,
                Some(_) => {}
                None if line.is_empty() => break,
                None => {
                    status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status")
                }
            }
        }
        if !chunked {
            return (status, self.bytes(length));
        }
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line(), 16).expect("a chunk");
            body.extend(self.bytes(length));
            self.line();
            if length == 0 {
                return (status, body);
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(0 < self.stream.read_line(&mut line).expect("it answers"), "it hung up");
        line.trim_end().to_owned()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).expect("it answers whole");
        bytes
    }
}
