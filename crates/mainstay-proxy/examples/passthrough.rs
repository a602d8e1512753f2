//! The smallest proxy these parts make: `passthrough LISTEN UPSTREAM [WORKERS]`. For measuring.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use mainstay_proxy::body::{InBody, OutBody};
use mainstay_proxy::listener::{Caps, Listener};
use mainstay_proxy::server::{self, ConnInfo, Endpoint, Limits, OnIncident, Plan};
use mainstay_proxy::upstream::{Upstream, UpstreamSettings};
use tower_service::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen: SocketAddr = arguments.next().ok_or("no address to listen on")?.parse()?;
    let upstream: Arc<str> = arguments.next().ok_or("no upstream")?.into();
    let workers = arguments.next().map_or(Ok(NonZeroUsize::MIN), |workers| workers.parse())?;
    let listener = Listener::bind(listen, workers)?;
    let upstream = Upstream::new(upstream, Arc::new(UpstreamSettings::default()));
    let plan = Plan {
        workers,
        endpoints: vec![Endpoint { listener, tls: None }],
        limits: Limits { requests_per_connection_max: u64::MAX, ..Limits::default() }.into(),
        caps: Caps::new(20_000, 0),
        on_incident: OnIncident::default(),
    };
    let server = server::serve(plan, move |_worker| {
        let upstream = upstream.clone();
        move |request: Request<InBody>, _from: Rc<ConnInfo>| {
            let sent = upstream.clone().call(request);
            async move {
                match sent.await {
                    Ok(response) => response.map(OutBody::Upstream),
                    Err(error) => {
                        let status = StatusCode::from_u16(error.code().http());
                        let mut response = Response::new(OutBody::Empty);
                        *response.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
                        response
                    }
                }
            }
        }
    })?;
    server.join();
    Ok(())
}
