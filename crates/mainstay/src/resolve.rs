//! Who answers for services without a list of instances, in a process that keeps no registry.
//!
//! | what | module |
//! |---|---|
//! | `[client]` | [`settings`] |
//! | the registry of another process, by the client library | this one |
//! | names of DNS | [`dns`] |
//! | what is followed, whoever knows | [`board`] |
//!
//! The data plane asks the same port whoever is behind it, and each keeps the last good list while
//! its source is away.

pub(crate) mod board;
pub mod dns;
pub mod settings;

use std::path::Path;
use std::time::Duration;

use mainstay_call::resolve::{Resolve, Watch};
use mainstay_client::{Client, registry::Discovery};
use mainstay_core::name::ServiceName;

use crate::control_client::refusal;
use crate::secret;
use crate::settings::Errors;
use dns::DnsResolver;
use settings::{By, ClientConfig};

/// What finds instances elsewhere.
#[derive(Debug)]
pub enum Remote {
    /// The registry of another process.
    Registry(Discovery),
    /// Names of DNS.
    Dns(DnsResolver),
}

/// A client of the servers of `config`; `None` when it names none.
///
/// # Errors
///
/// A token that cannot be read, or that others can read.
pub fn client(config: &ClientConfig) -> Result<Option<Client>, Errors> {
    if config.servers.is_empty() {
        return Ok(None);
    }
    let mut builder = Client::builder(&config.servers).name("gateway");
    if let Some(file) = &config.token_file {
        builder = builder.token(secret::token(file, "client.token_file")?);
    }
    Ok(Some(builder.build().map_err(|error| refusal(&error))?))
}

impl Remote {
    /// Finds instances as `config` says, by `client` if it is the registry that knows them; lists
    /// are kept below `cache`. Must be called within a tokio runtime. `None` when nobody is to be
    /// asked.
    pub fn start(config: &ClientConfig, client: Option<&Client>, cache: &Path) -> Option<Self> {
        match config.by {
            By::Registry => {
                let discovery = client?.discovery().cache(cache).empty_grace(config.empty_grace);
                Some(Self::Registry(discovery.start()))
            }
            By::Dns => Some(Self::Dns(DnsResolver::start(config))),
            By::Static => None,
        }
    }

    /// Waits until there is something to say of every service that was asked for; not longer than
    /// `patience`, since whoever knows may be away.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn answered(&self, patience: Duration) {
        let answered = async {
            match self {
                Self::Registry(discovery) => discovery.answered().await,
                Self::Dns(resolver) => resolver.answered().await,
            }
        };
        if tokio::time::timeout(patience, answered).await.is_err() {
            tracing::warn!("not every service could be looked up yet; that goes on");
        }
    }

    /// Asks nobody any more; the registry is asked until its client shuts down. Waits up to `grace`;
    /// returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        match self {
            Self::Registry(_) => 0,
            Self::Dns(resolver) => resolver.shutdown(grace).await,
        }
    }
}

impl Resolve for Remote {
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        match self {
            Self::Registry(discovery) => discovery.watch(namespace, service),
            Self::Dns(resolver) => resolver.watch(namespace, service),
        }
    }
}
