//! Who answers for services without a list of instances, in a process that keeps no registry.
//!
//! | what | module |
//! |---|---|
//! | `[client]` | [`settings`] |
//! | the registry of another process, by the client library | this one |
//! | names of DNS | [`dns`] |
//!
//! The data plane asks the same port whoever is behind it, and each keeps the last good list while
//! its source is away.

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
    Registry(Client, Discovery),
    /// Names of DNS.
    Dns(DnsResolver),
}

impl Remote {
    /// Finds instances as `config` says; lists are kept in the data directory `data` unless it
    /// says otherwise. Must be called within a tokio runtime. `None` when nothing is configured to
    /// be asked.
    ///
    /// # Errors
    ///
    /// A token that cannot be read, or that others can read.
    pub fn start(config: &ClientConfig, data: &Path) -> Result<Option<Self>, Errors> {
        match config.by {
            By::Registry if !config.servers.is_empty() => {
                let mut builder = Client::builder(&config.servers).name("gateway");
                if let Some(file) = &config.token_file {
                    builder = builder.token(secret::token(file, "client.token_file")?);
                }
                let client = builder.build().map_err(|error| refusal(&error))?;
                let discovery = client
                    .discovery()
                    .cache(data.join(&config.cache))
                    .empty_grace(config.empty_grace)
                    .start();
                Ok(Some(Self::Registry(client, discovery)))
            }
            By::Dns => Ok(Some(Self::Dns(DnsResolver::start(config)))),
            By::Registry | By::Static => Ok(None),
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
                Self::Registry(_, discovery) => discovery.answered().await,
                Self::Dns(resolver) => resolver.answered().await,
            }
        };
        if tokio::time::timeout(patience, answered).await.is_err() {
            tracing::warn!("not every service could be looked up yet; that goes on");
        }
    }

    /// Asks nobody any more. Waits up to `grace`; returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        match self {
            Self::Registry(client, _) => client.shutdown(grace).await,
            Self::Dns(resolver) => resolver.shutdown(grace).await,
        }
    }
}

impl Resolve for Remote {
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        match self {
            Self::Registry(_, discovery) => discovery.watch(namespace, service),
            Self::Dns(resolver) => resolver.watch(namespace, service),
        }
    }
}
