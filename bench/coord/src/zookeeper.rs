//! As much of ZooKeeper's protocol as the scenarios need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Client {
    stream: TcpStream,
    xid: i32,
}

#[derive(Clone, Copy)]
pub enum Mode {
    Persistent = 0,
    Ephemeral = 1,
    EphemeralSequential = 3,
}

impl Client {
    pub fn open(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        let mut ask = Vec::new();
        ask.extend(0_i32.to_be_bytes());
        ask.extend(0_i64.to_be_bytes());
        ask.extend(30_000_i32.to_be_bytes());
        ask.extend(0_i64.to_be_bytes());
        buffer(&mut ask, &[0; 16]);
        ask.push(0);
        send(&mut stream, &ask);
        receive(&mut stream);
        Self { stream, xid: 0 }
    }

    /// The path it got.
    pub fn create(&mut self, path: &str, value: &[u8], mode: Mode) -> String {
        let mut ask = Vec::new();
        buffer(&mut ask, path.as_bytes());
        buffer(&mut ask, value);
        ask.extend(1_i32.to_be_bytes());
        ask.extend(31_i32.to_be_bytes());
        buffer(&mut ask, b"world");
        buffer(&mut ask, b"anyone");
        ask.extend((mode as i32).to_be_bytes());
        let (error, answer) = self.call(1, &ask);
        assert!(error == 0 || error == NODE_EXISTS, "create {path}: {error}");
        answer.get(4..).map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default()
    }

    pub fn delete(&mut self, path: &str) {
        let mut ask = Vec::new();
        buffer(&mut ask, path.as_bytes());
        ask.extend((-1_i32).to_be_bytes());
        self.fine(2, &ask);
    }

    pub fn set(&mut self, path: &str, value: &[u8]) {
        let mut ask = Vec::new();
        buffer(&mut ask, path.as_bytes());
        buffer(&mut ask, value);
        ask.extend((-1_i32).to_be_bytes());
        self.fine(5, &ask);
    }

    pub fn get(&mut self, path: &str) {
        let mut ask = Vec::new();
        buffer(&mut ask, path.as_bytes());
        ask.push(0);
        self.fine(4, &ask);
    }

    pub fn children(&mut self, path: &str) {
        let mut ask = Vec::new();
        buffer(&mut ask, path.as_bytes());
        ask.push(0);
        self.fine(8, &ask);
    }

    /// Keeps the session.
    pub fn ping(&mut self) {
        let ask = [(-2_i32).to_be_bytes(), 11_i32.to_be_bytes()].concat();
        send(&mut self.stream, &ask);
        receive(&mut self.stream);
    }

    fn fine(&mut self, kind: i32, ask: &[u8]) {
        let (error, _) = self.call(kind, ask);
        assert_eq!(error, 0, "request of kind {kind}");
    }

    fn call(&mut self, kind: i32, ask: &[u8]) -> (i32, Vec<u8>) {
        self.xid += 1;
        let head = [self.xid.to_be_bytes(), kind.to_be_bytes()].concat();
        send(&mut self.stream, &[&head, ask].concat());
        let answer = receive(&mut self.stream);
        let error = answer.get(12..16).and_then(|bytes| bytes.try_into().ok());
        (i32::from_be_bytes(error.expect("a head")), answer.get(16..).unwrap_or_default().to_vec())
    }
}

fn buffer(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend(i32::try_from(bytes.len()).expect("short").to_be_bytes());
    into.extend(bytes);
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    stream.write_all(&[&length, bytes].concat()).expect("it takes it");
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("it answers");
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).expect("it answers whole");
    bytes
}

const NODE_EXISTS: i32 = -110;
