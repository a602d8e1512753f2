//! Calls that are made to the program.
//!
//! One route leads to one instance, the program itself. Nothing is sent again and no circuit opens:
//! that is for whoever calls, who knows other instances. What holds is the caller's deadline, the
//! gateway's limits on messages, and the limits that `[upstream.NAME]` of the program's own service
//! names.

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_core::name::ServiceName;
use mainstay_proxy::config::upstream::RawInstance;
use mainstay_proxy::config::{RawPlane, RawUpstream};
use mainstay_proxy::gateway::{Gateway, Parts};
use mainstay_proxy::metrics::Metrics;
use mainstay_proxy::route::RawRoute;
use mainstay_proxy::server::Server;
use mainstay_proxy::split::RawTo;
use mainstay_resilience::retry::RawRetry;

use super::serve;
use crate::settings::Errors;

/// What stands in front of the program.
#[derive(Debug)]
pub struct Inbound {
    server: Server,
    address: SocketAddr,
}

impl Inbound {
    /// Listens at `listen` for a program that is an instance of `service` and listens at `program`.
    /// `tables` are those of the configuration.
    ///
    /// # Errors
    ///
    /// [`Errors`] when the tables are wrong or the address is taken.
    pub fn start(
        listen: SocketAddr,
        service: &ServiceName,
        program: SocketAddr,
        tables: &RawPlane,
    ) -> Result<Self, Errors> {
        let gateway = gateway(service, program, tables)?;
        let handled = Arc::clone(&gateway);
        let (server, address) =
            serve("the inbound proxy", listen, &gateway, move |_worker| handled.handler())?;
        Ok(Self { server, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets calls under way end, up to the time the configuration gives them. Blocks the thread.
    pub fn stop(self) {
        self.server.stop();
        let drained = self.server.join();
        tracing::debug!(cut = drained.cut, "the inbound proxy has ended");
    }
}

fn gateway(
    service: &ServiceName,
    program: SocketAddr,
    tables: &RawPlane,
) -> Result<Arc<Gateway>, Errors> {
    let own = tables.upstream.get(service.as_str());
    let upstream = RawUpstream {
        instances: Some(vec![RawInstance::Address(program.to_string())]),
        circuits: Some(Vec::new()),
        retry: Some(RawRetry { attempts: Some(1), ..RawRetry::default() }),
        limits: own.and_then(|own| own.limits.clone()),
        protocol: own.and_then(|own| own.protocol),
        ..RawUpstream::default()
    };
    let route = RawRoute { to: Some(RawTo::One(service.clone())), ..RawRoute::default() };
    let raw = RawPlane {
        gateway: tables.gateway.clone(),
        system: tables.system.clone(),
        limit: tables.limit.clone(),
        route: [("program".to_owned(), route)].into(),
        upstream: [(service.to_string(), upstream)].into(),
        ..RawPlane::default()
    };
    super::gateway(raw, Parts::new(Metrics::new()))
}
