//! What a resource goes by.

use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use super::tls::Tls;
use crate::name::ResourceName;

/// What a resource goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSettings {
    /// What transactions call it.
    pub name: ResourceName,
    /// Where it is.
    pub address: Address,
    /// A file whose first line is the password. It is read for each connection.
    pub password_file: Option<PathBuf>,
    /// How connections over the network are protected.
    pub tls: Tls,
    /// Connections at the same time, at least 1.
    pub connections: usize,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// Whether a session of `MariaDB` is ended that has prepared a branch and then did nothing for
    /// 10 s: it keeps everybody else from ending the branch. It takes `PROCESS` and `CONNECTION
    /// ADMIN`.
    pub kill_held_sessions: bool,
}

impl ResourceSettings {
    /// The defaults.
    pub fn new(name: ResourceName, address: Address) -> Self {
        Self {
            name,
            address,
            password_file: None,
            tls: Tls::default(),
            connections: 8,
            statement_timeout: Duration::from_secs(5),
            kill_held_sessions: false,
        }
    }
}
