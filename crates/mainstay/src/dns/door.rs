//! The sockets of the DNS door: packets and connections, and nothing of what is said on them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Dns;
use super::wire::Transport;

/// Connections at once. Each holds one question and one answer, at most 128 KiB together.
pub const CONNECTIONS_MAX: usize = 1_024;

/// How long a connection may take from one whole question to the next, and for taking an answer.
pub const IDLE: Duration = Duration::from_secs(10);

/// Bytes read of a packet: the most we say that we take is 4,096, and what is longer does not parse.
const PACKET_BYTES_MAX: usize = 4_097;

/// Pause after an error of a socket, so that one that does not go away does not take a core.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// How long connections have to end once told to.
const ENDING_MAX: Duration = Duration::from_secs(1);

/// How often a free port is looked for that is free over both transports.
const ATTEMPTS: usize = 16;

/// Sockets of one address that have not begun to answer.
#[derive(Debug)]
pub struct Door {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Listens on `address` over UDP and TCP; port 0 is one that is free for both.
    ///
    /// # Errors
    ///
    /// The system's; `AddrInUse` when either is taken.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let opened = Self::open_once(address);
            match opened {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && 0 < attempts => {}
                _ => return opened,
            }
        }
    }

    fn open_once(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address)?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(Self { udp, tcp, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until told to stop; questions that have been read are answered still.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be given to the runtime.
    ///
    /// # Cancel safety
    ///
    /// Connections go on until `stop`; otherwise safe.
    pub async fn serve(self, dns: Arc<Dns>, stop: CancellationToken) -> io::Result<()> {
        let udp = tokio::net::UdpSocket::from_std(self.udp)?;
        let tcp = tokio::net::TcpListener::from_std(self.tcp)?;
        tokio::join!(packets(&udp, &dns, &stop), connections(tcp, &dns, &stop));
        Ok(())
    }
}

async fn packets(socket: &tokio::net::UdpSocket, dns: &Dns, stop: &CancellationToken) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "packets of DNS are not received");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let message = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = dns.respond(message, Transport::Udp)
            && let Err(error) = socket.send_to(&answer, from).await
        {
            // Nobody is there, or said to be: whoever asks for others costs those no pause.
            tracing::debug!(%error, "a question of DNS was not answered");
        }
    }
}

async fn connections(listener: tokio::net::TcpListener, dns: &Arc<Dns>, stop: &CancellationToken) {
    let open = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _from)) => {
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    dns.figures().refused();
                    continue;
                };
                let (dns, stop) = (Arc::clone(dns), stop.clone());
                open.spawn(async move {
                    // A client that leaves in the middle is no event.
                    drop(connection(stream, &dns, &stop).await);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of DNS was not accepted");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
    open.close();
    if timeout(ENDING_MAX, open.wait()).await.is_err() {
        tracing::warn!(left = open.len(), "connections of DNS were cut");
    }
}

/// One question after the other; a client need not wait for one answer to ask the next (RFC 7766).
async fn connection(
    mut stream: tokio::net::TcpStream,
    dns: &Dns,
    stop: &CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let question = tokio::select! {
            biased;
            question = timeout(IDLE, question(&mut stream)) => question??,
            () = stop.cancelled() => return Ok(()),
        };
        // What is no question has no place in a stream: whoever sends it has lost its way.
        let Some(answer) = dns.respond(&question, Transport::Tcp) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend(length.to_be_bytes());
        framed.extend(answer);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

async fn question(stream: &mut tokio::net::TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
