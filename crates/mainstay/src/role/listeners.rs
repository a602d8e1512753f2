//! Opens what a role listens on, or takes it over from the process before.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;

use mainstay_core::problem::Code;
use mainstay_proxy::listener::Listener;

use super::system;
use crate::dns::door::Door;
use crate::report::Report;
use crate::settings::Errors;

/// Listening sockets by name, as handed over between processes.
pub(super) type Inherited = BTreeMap<String, Vec<OwnedFd>>;

/// Opens `address` with a socket for each of `workers`, or takes the inherited sockets of `name`.
///
/// # Errors
///
/// `port-in-use`, with the process that listens there if it can be found.
pub(super) fn open(
    name: &str,
    address: SocketAddr,
    random: bool,
    workers: NonZeroUsize,
    inherited: &mut Inherited,
) -> Result<Listener, Errors> {
    if let Some(sockets) = inherited.remove(name) {
        return Listener::inherit(sockets).map_err(|error| {
            system(Code::PortInUse, format!("the sockets of {name} cannot be taken over"), &error)
                .into()
        });
    }
    let address = if random { SocketAddr::new(address.ip(), 0) } else { address };
    // Sockets that share a port would hide that somebody else of this user listens there.
    if address.port() != 0 && std::net::TcpStream::connect_timeout(&address, PROBE).is_ok() {
        return Err(in_use(name, address));
    }
    Listener::bind(address, workers).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_use(name, address),
        _ => system(Code::PortInUse, format!("{name} cannot listen on {address}"), &error).into(),
    })
}

/// Opens `address` with one socket.
///
/// # Errors
///
/// `port-in-use`, with the process that listens there if it can be found.
pub(crate) fn listen(name: &str, address: SocketAddr) -> Result<Listener, Errors> {
    open(name, address, false, NonZeroUsize::MIN, &mut Inherited::new())
}

/// Opens `address` for questions of DNS, over UDP and TCP.
///
/// # Errors
///
/// `port-in-use`, with the process that listens there over TCP if it can be found.
pub(super) fn open_dns(address: SocketAddr, random: bool) -> Result<Door, Errors> {
    let address = if random { SocketAddr::new(address.ip(), 0) } else { address };
    Door::open(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_use("dns", address),
        _ => system(Code::PortInUse, format!("dns cannot listen on {address}"), &error).into(),
    })
}

/// A listener on this machine answers a connection at once.
const PROBE: std::time::Duration = std::time::Duration::from_millis(200);

fn in_use(name: &str, address: SocketAddr) -> Errors {
    let holder =
        holder(address.port()).map_or_else(String::new, |pid| format!(", by process {pid}"));
    Report::error(Code::PortInUse, format!("{name}: {address} is in use{holder}"))
        .next("end that process, choose another address, or use `--random-ports`")
        .into()
}

/// The process that listens on `port`, as far as this user may see it.
fn holder(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| {
        let table = std::fs::read_to_string(path).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, hex) = fields.get(1)?.rsplit_once(':')?;
            let listens = *fields.get(3)? == "0A" && u16::from_str_radix(hex, 16).ok()? == port;
            listens.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
        })
    })?;
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == inode.as_str())
        });
        holds.then_some(pid)
    })
}
