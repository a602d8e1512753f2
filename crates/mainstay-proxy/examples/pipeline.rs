//! The gateway's whole pipeline without the product around it: `pipeline LISTEN CONFIG`, where
//! CONFIG is a TOML file with routes, upstreams and policies. For measuring and profiling.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use mainstay_proxy::config::{Plane, RawPlane};
use mainstay_proxy::gateway::{Gateway, Parts};
use mainstay_proxy::listener::{Caps, Listener};
use mainstay_proxy::metrics::Metrics;
use mainstay_proxy::server::{self, Endpoint, Limits, Plan};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen: SocketAddr = arguments.next().ok_or("no address to listen on")?.parse()?;
    let config = std::fs::read_to_string(arguments.next().ok_or("no configuration")?)?;
    let plane = Plane::resolve(toml::from_str::<RawPlane>(&config)?)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let gateway = Gateway::new(Arc::new(plane), Parts::new(Metrics::new()))?;
    let plan = Plan {
        workers: NonZeroUsize::MIN,
        endpoints: vec![Endpoint {
            listener: Listener::bind(listen, NonZeroUsize::MIN)?,
            tls: None,
        }],
        limits: Limits { requests_per_connection_max: u64::MAX, ..Limits::default() }.into(),
        caps: Caps::new(20_000, 0),
        on_incident: gateway.on_incident(),
    };
    let server = server::serve(plan, move |_worker| gateway.handler())?;
    server.join();
    Ok(())
}
