//! Protects a hyper client in five lines, then kills one of its two servers.
//!
//! `cargo run -p mainstay-call --example protect_a_client`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::{Calls, Policy};
use mainstay_core::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut first, mut second) = (JoinSet::new(), JoinSet::new());
    let addresses = [serve(&mut first, "first").await?, serve(&mut second, "second").await?];
    let addresses = addresses.map(|address| address.to_string());

    // The five lines.
    let payment = Calls::to("payment")?
        .instances(addresses.iter().map(String::as_str))
        .upstream(Client::builder(TokioExecutor::new()).build_http())
        .policy(Policy::from_toml("timeout_seconds = 2\nbalance = { kind = \"round_robin\" }")?)
        .build();

    for round in 1..=20 {
        if round == 5 {
            first.shutdown().await;
            println!("-- the first server is killed --");
        }
        let request = Request::get("/pay").body(Full::<Bytes>::default())?;
        let answer = payment.call(request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        println!("call {round:2}: answered by the {}", String::from_utf8_lossy(&body));
    }

    println!();
    for endpoint in payment.instances().endpoints() {
        for circuit in endpoint.circuits() {
            let view = circuit.view(MonotonicClock.now());
            println!(
                "circuit of {}: {} after {} calls, {} failed",
                endpoint.address(),
                view.state.as_str(),
                view.total.calls,
                view.total.failures,
            );
        }
    }
    Ok(())
}

/// Starts a server that answers with `name`; it and its connections live in `tasks`.
async fn serve(tasks: &mut JoinSet<()>, name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let answer = service_fn(async |_: Request<Incoming>| {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
                        name.as_bytes(),
                    ))))
                });
                let http = hyper::server::conn::http1::Builder::new();
                if let Err(gone) = http.serve_connection(TokioIo::new(stream), answer).await {
                    println!("the {name} server lost a connection: {gone}");
                }
            });
        }
    });
    Ok(address)
}
