//! The proxies beside a program, in the process that runs it.
//!
//! | what | module |
//! |---|---|
//! | which service a host means | [`target`] |
//! | calls that the program makes | [`outbound`] |
//! | calls that are made to the program | [`inbound`] |
//! | `[sidecar]` | [`settings`] |
//!
//! Both are gateways with routes of their own; what holds for services (`[upstream.NAME]`,
//! circuits, limits, fallbacks) is what the configuration says, as in every other gateway.

pub mod inbound;
pub mod outbound;
pub mod settings;
pub mod target;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use mainstay_core::problem::Code;
use mainstay_proxy::config::{Plane, RawPlane};
use mainstay_proxy::gateway::{Gateway, Parts};
use mainstay_proxy::listener::Caps;
use mainstay_proxy::server::{self, Endpoint, Handler, Plan, Server};
use mainstay_resilience::Invalid;

use crate::report::{Report, causes};
use crate::role;
use crate::settings::Errors;

/// A gateway that serves `raw`; what that names must be whole.
fn gateway(raw: RawPlane, parts: Parts) -> Result<Arc<Gateway>, Errors> {
    let plane = Plane::resolve(raw).map_err(|faults| wrong(&faults))?;
    Gateway::new(Arc::new(plane), parts)
        .map_err(|error| Report::error(Code::ConfigContradiction, causes(&error)).into())
}

fn wrong(faults: &[Invalid]) -> Errors {
    let report = |fault: &Invalid| {
        Report::error(fault.code, format!("`{}`: {}", fault.path, fault.problem)).of(&fault.path)
    };
    Errors { reports: faults.iter().map(report).collect() }
}

/// Serves `gateway` at `address` with what `factory` makes; one thread is enough for one program.
/// Returns where it listens, too.
fn serve<H: Handler>(
    name: &str,
    address: SocketAddr,
    gateway: &Arc<Gateway>,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Result<(Server, SocketAddr), Errors> {
    let listener = role::listen(name, address)?;
    let at = listener.address();
    let running = gateway.running();
    let plan = Plan {
        workers: NonZeroUsize::MIN,
        endpoints: vec![Endpoint { listener, tls: None }],
        limits: role::limits(&running).into(),
        caps: Caps::new(running.plane.gateway.limits.connections_max as usize, 0),
        on_incident: gateway.on_incident(),
    };
    let server = server::serve(plan, factory).map_err(|error| {
        Report::error(Code::Internal, format!("the thread of {name} cannot be started: {error}"))
    })?;
    Ok((server, at))
}
