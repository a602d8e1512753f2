//! A relay in front of a member, which can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a member until it is cut.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) endpoint: String,
    is_cut: watch::Sender<bool>,
}

impl Relay {
    /// In front of `endpoint`, `http://host:port`.
    pub(crate) async fn to(endpoint: &str) -> Self {
        let member: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (is_cut, cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*cut.borrow() {
                    tokio::spawn(pass(client, member, cut.clone()));
                }
            }
        });
        Self { endpoint, is_cut }
    }

    /// Ends all connections, and takes no new ones.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(crate) fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn pass(mut client: TcpStream, member: SocketAddr, mut cut: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(member).await else { return };
    tokio::select! {
        _over = tokio::io::copy_bidirectional(&mut client, &mut server) => (),
        _cut = cut.wait_for(|is_cut| *is_cut) => (),
    }
}
