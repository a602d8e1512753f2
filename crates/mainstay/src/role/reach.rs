//! Who can reach what a process listens on.

use std::net::SocketAddr;

use mainstay_core::problem::Code;

use super::{Role, Start};
use crate::report::Report;
use crate::settings::Errors;
use crate::settings::root::Meant;

/// Whether `dev` keeps to this machine, unless it was told otherwise.
///
/// # Errors
///
/// `dev-not-loopback`: every address that others can reach.
pub(super) fn check(start: &Start, meant: &Meant) -> Result<(), Errors> {
    if start.role != Role::Dev || start.allow_remote {
        return Ok(());
    }
    let gateway = &meant.plane.gateway;
    let listed = |key: &str, addresses: &[SocketAddr]| -> Vec<(String, SocketAddr)> {
        let named = |(n, at): (usize, &SocketAddr)| (format!("{key}[{n}]"), *at);
        addresses.iter().enumerate().map(named).collect()
    };
    let mut all = listed("gateway.listen", &gateway.listen);
    all.extend(listed("gateway.tls_listen", &gateway.tls_listen));
    all.extend(meant.dns.enabled.then(|| ("dns.listen".to_owned(), meant.dns.listen)));
    all.extend(meant.consul.listen.map(|at| ("consul.listen".to_owned(), at)));
    let dtm = meant.transaction.dtm.http_listen;
    all.extend(dtm.map(|at| ("transaction.dtm.http_listen".to_owned(), at)));
    let far = all.into_iter().filter(|(_, at)| !at.ip().is_loopback());
    let reports: Vec<Report> = far.map(|(path, at)| report(path, at)).collect();
    if reports.is_empty() { Ok(()) } else { Err(Errors { reports }) }
}

fn report(path: String, at: SocketAddr) -> Report {
    let message = format!("`{path}`: others can reach {at}, and `dev` is for this machine alone");
    let report = Report::error(Code::DevNotLoopback, message).of(path);
    report.next("name a loopback address, or add --allow-remote")
}
