//! Asks a server of names one question: over UDP, and over TCP when the answer does not fit.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// For one packet and its answer; asked once more before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes taken by UDP, as most resolvers say (DNS flag day 2020).
const PAYLOAD_BYTES_MAX: u16 = 1_232;

/// A question for the records of `name` of one kind.
pub fn question(mut name: Name, kind: RecordType) -> Message {
    name.set_fqdn(true);
    // From the draw of the process, so that nobody guesses it.
    let id = (mainstay_call::draw::next() & 0xffff) as u16;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_BYTES_MAX).set_version(0);
    message.set_edns(edns);
    message
}

/// Asks `server`; returns what it says, whatever that is.
///
/// # Errors
///
/// What the system said; no answer in time, or none to this question.
///
/// # Cancel safety
///
/// Safe.
pub async fn exchange(server: SocketAddr, message: &Message) -> io::Result<Message> {
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    let answer = match in_time(packet(&socket, &bytes, message)).await {
        Ok(answer) => answer,
        Err(_lost) => in_time(packet(&socket, &bytes, message)).await?,
    };
    if answer.metadata.truncation { in_time(whole(server, &bytes)).await } else { Ok(answer) }
}

async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let waited = tokio::time::timeout(PATIENCE, answer).await;
    waited.unwrap_or_else(|_elapsed| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
    })
}

async fn packet(socket: &UdpSocket, bytes: &[u8], asked: &Message) -> io::Result<Message> {
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(buffer.get(..length).unwrap_or_default());
        let answer = answer.map_err(io::Error::other)?;
        // One to an earlier question, or somebody's guess, is passed over.
        if answer.metadata.id == asked.metadata.id && answer.queries == asked.queries {
            return Ok(answer);
        }
    }
}

async fn whole(server: SocketAddr, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(io::Error::other)
}
