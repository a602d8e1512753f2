//! The life of one connection: handshake, protocol, requests, perhaps a tunnel.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::entry::{Entry, Streams};
use super::farewell::Farewell;
use super::http1::{self, End, Outer};
use super::pace::{Order, Pace};
use super::socket::{Link, Socket};
use super::{Abuse, ConnInfo, Handler, Incident, Limits, LiveLimits, OnIncident, TlsInfo};
use crate::framing::Rule;
use crate::listener::Counted;
use crate::proxy_protocol::{self, Announced};
use crate::tls::ServerTls;

/// What connections of a worker have in common, made anew when the limits are replaced.
#[derive(Debug)]
pub(super) struct Settings<H> {
    handler: Rc<H>,
    limits: LiveLimits,
    on_incident: OnIncident,
    made: RefCell<Option<(Arc<Limits>, Rc<Setting<H>>)>>,
}

impl<H> Settings<H> {
    pub(super) fn new(handler: H, limits: LiveLimits, on_incident: OnIncident) -> Self {
        Self { handler: Rc::new(handler), limits, on_incident, made: RefCell::default() }
    }

    /// What a connection that comes now has in common with others.
    pub(super) fn current(&self) -> Rc<Setting<H>> {
        let limits = self.limits.load();
        let mut made = self.made.borrow_mut();
        match &*made {
            Some((of, setting)) if Arc::ptr_eq(of, &limits) => Rc::clone(setting),
            _ => {
                let (handler, tell) = (Rc::clone(&self.handler), self.on_incident.clone());
                let setting =
                    Rc::new(Setting { handler, limits: (*limits).clone(), on_incident: tell });
                *made = Some((limits, Rc::clone(&setting)));
                setting
            }
        }
    }
}

/// What all connections of a worker have in common that came under the same limits.
#[derive(Debug)]
pub(super) struct Setting<H> {
    pub(super) handler: Rc<H>,
    pub(super) limits: Limits,
    pub(super) on_incident: OnIncident,
}

impl<H: Handler> Setting<H> {
    /// Serves one connection to its end, however it ends. Where `passed_on`, `peer` says first
    /// whose it is, and as whose it is counted.
    pub(super) async fn serve(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        passed_on: Option<&mut Counted>,
        tls: Option<ServerTls>,
        pace: Rc<Pace>,
    ) {
        // What goes wrong on a client's connection is the client's affair: there is nobody left
        // to tell, and what matters of it the pace has counted.
        drop(self.run(tcp, peer, passed_on, tls, pace).await);
    }

    async fn run(
        &self,
        mut tcp: TcpStream,
        peer: SocketAddr,
        passed_on: Option<&mut Counted>,
        tls: Option<ServerTls>,
        pace: Rc<Pace>,
    ) -> io::Result<()> {
        let mut info = ConnInfo { peer, local: tcp.local_addr()?, tls: None };
        if let Some(counted) = passed_on {
            match self.announced(&mut tcp, &pace).await? {
                None => return Ok(()),
                Some(Announced::Own) => {}
                Some(Announced::Client { from, .. }) if !counted.count(from.ip()) => return Ok(()),
                Some(Announced::Client { from, to }) => (info.peer, info.local) = (from, to),
            }
        }
        let (link, agreed) = match tls {
            None => (Link::Plain(tcp), None),
            Some(tls) => {
                let shaking = TlsAcceptor::from(tls.config()).accept(tcp);
                let stream = tokio::time::timeout(self.limits.handshake, shaking).await??;
                info.tls = Some(facts(&stream, &tls));
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Link::Tls(Box::new(stream)), Some(http2))
            }
        };
        let mut socket = Socket::new(link, Rc::clone(&pace));
        let http2 = match agreed {
            Some(http2) => http2,
            None => match obey(&pace, std::future::poll_fn(|cx| socket.poll_sniff(cx))).await {
                Some(sniffed) => sniffed?,
                None => return Ok(()),
            },
        };
        pace.http2.set(http2);
        let (handler, info) = (Rc::clone(&self.handler), Rc::new(info));
        if http2 {
            let entry = Entry { handler, info, pace: Rc::clone(&pace) };
            let peer = entry.info.peer;
            self.http2(TokioIo::new(socket), entry, &pace, peer).await;
            return Ok(());
        }
        let outer = Outer {
            handler,
            info,
            pace: Rc::clone(&pace),
            on_incident: self.on_incident.clone(),
            requests_max: self.limits.requests_per_connection_max,
        };
        self.http1(socket, outer, &pace).await
    }

    /// Whose connection it is, as the proxy at its other end says; `None` when that says nothing, or
    /// all is over.
    async fn announced(&self, tcp: &mut TcpStream, pace: &Pace) -> io::Result<Option<Announced>> {
        let reading = tokio::time::timeout(self.limits.head, proxy_protocol::read(tcp));
        let Some(announced) = obey(pace, reading).await else { return Ok(None) };
        let announced = announced??;
        if announced.is_none() {
            self.on_incident.tell(Incident::Malformed(Rule::ProxyHeader));
        }
        Ok(announced)
    }

    async fn http1(&self, socket: Socket, outer: Outer<H>, pace: &Rc<Pace>) -> io::Result<()> {
        let mut connection = http1::Connection::new(socket, &self.limits, outer);
        let end = std::future::poll_fn(|cx| connection.poll(cx)).await?;
        let mut socket = connection.into_socket();
        match end {
            End::Over => {
                drop(tokio::time::timeout(LINGER, obey(pace, socket.close())).await);
                Ok(())
            }
            End::Unread => {
                linger(&mut socket, pace).await;
                Ok(())
            }
            End::Cut => Ok(()),
            End::Tunnel(mut tunnel, early) => {
                pace.tunnelling.set(true);
                tunnel.write_all(&early).await?;
                let mut tunnel = Farewell::new(*tunnel, Rc::clone(pace));
                let copied = obey(pace, copy_bidirectional(&mut socket, &mut tunnel)).await;
                copied.map_or(Ok(()), |copied| copied.map(drop))
            }
        }
    }

    async fn http2(&self, io: TokioIo<Socket>, entry: Entry<H>, pace: &Rc<Pace>, peer: SocketAddr) {
        let limits = &self.limits;
        let serving = http2::Builder::new(Streams(Rc::clone(pace)))
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams_max)
            .max_header_list_size(limits.h2_header_list_bytes_max)
            .max_pending_accept_reset_streams(limits.h2_pending_reset_max)
            .max_local_error_reset_streams(limits.h2_local_reset_max)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.head)
            .serve_connection(io, entry);
        let mut connection = pin!(serving);
        let ended = std::future::poll_fn(|cx| {
            while let Poll::Ready(order) = pace.poll_order(cx) {
                if order != Order::Finish {
                    return Poll::Ready(Ok(()));
                }
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        })
        .await;
        let abuse = match ended {
            _ if pace.abusive.get() => Some(Abuse::RapidReset),
            Ok(()) => None,
            Err(error) => Abuse::of(&error),
        };
        if let Some(abuse) = abuse {
            self.on_incident.tell(Incident::Http2Abuse { peer, abuse });
        }
    }
}

/// Runs `work` until the pace says to stop; then `None`. An order to finish stops what has no end
/// of its own only once it is cut.
async fn obey<T>(pace: &Pace, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        while let Poll::Ready(order) = pace.poll_order(cx) {
            if order != Order::Finish || !pace.tunnelling.get() {
                return Poll::Ready(None);
            }
        }
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

fn facts(stream: &TlsStream<TcpStream>, tls: &ServerTls) -> TlsInfo {
    let session = stream.get_ref().1;
    let shown = session.peer_certificates().unwrap_or_default();
    TlsInfo {
        sni: session.server_name().map(str::to_owned),
        shown: tls.shown(session.server_name()),
        client_certificates: shown.iter().map(|shown| shown.clone().into_owned()).collect(),
    }
}

/// Takes for a while what the client goes on sending and nobody will read. A socket closed with
/// bytes unread is reset, and a client that is still sending then loses the answer it was given.
async fn linger(socket: &mut Socket, pace: &Pace) {
    let mut scratch = vec![0; 16_384];
    let discard = async {
        if socket.shutdown().await.is_err() {
            return; // Nobody is there.
        }
        while socket.read(&mut scratch).await.is_ok_and(|read| read != 0) {}
    };
    drop(tokio::time::timeout(LINGER, obey(pace, discard)).await);
}

/// Long enough for the answer to cross the sea, too short to be worth an attack.
const LINGER: Duration = Duration::from_secs(2);
