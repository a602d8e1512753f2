//! Opening the store of a configuration.

use std::path::Path;
use std::sync::Arc;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::problem::Code;
use mainstay_store::embedded::{OpenError, Options, Ticks};
use mainstay_store::{Embedded, Store};
use mainstay_store_etcd::{Etcd, Options as EtcdOptions};

use super::known::Known;
use super::settings::{Backend, StoreConfig};
use crate::report::{Report, causes};
use crate::settings::Errors;

/// A store that was opened.
#[derive(Clone, Debug)]
pub enum Opened {
    /// In this process.
    Embedded(Arc<Embedded>),
    /// In etcd.
    Etcd(Arc<Etcd>),
}

impl Opened {
    /// The port.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::clone(store) as _,
            Self::Etcd(etcd) => Arc::clone(etcd) as _,
        }
    }
}

/// Opens the store that `config` describes; `data` is the data directory. Must be called within a
/// tokio runtime. An embedded store is read once; etcd need not answer yet, but has to be the one
/// that this node knew last.
///
/// # Errors
///
/// [`Errors`] naming the store, what is wrong with it, and what to do.
pub fn open(config: &StoreConfig, data: &Path) -> Result<Opened, Errors> {
    match config.backend {
        Backend::Embedded => {
            let options = config.embedded(data);
            let path = options.path.clone();
            let store = Embedded::open(options, MonotonicClock);
            let store = store.map_err(|error| unopened(&path, &error))?;
            Ok(Opened::Embedded(Arc::new(store)))
        }
        Backend::Etcd => {
            let mut options = etcd(config)?;
            if let Some(known) = Known::read(data)? {
                options = options.known(known.cluster(), known.revision());
            }
            Ok(Opened::Etcd(Arc::new(Etcd::open(options, MonotonicClock))))
        }
    }
}

/// Opens the store that `config` describes for a verb of the command line, in the data directory
/// `data` that no node has: no lease ends meanwhile, and nothing is compacted. Must be called
/// within a tokio runtime.
///
/// # Errors
///
/// As [`open`]; also when there is no embedded store, since none is made here.
pub fn offline(config: &StoreConfig, data: &Path) -> Result<Arc<dyn Store>, Errors> {
    match config.backend {
        Backend::Embedded => {
            let options = Options { ticks: Ticks::ByHand, ..config.embedded(data) };
            let path = options.path.clone();
            if !path.join("mainstay.redb").exists() {
                let missing = Report::error(
                    Code::StoreUnavailable,
                    format!("{}: there is no store", path.display()),
                );
                return Err(missing.help("name the data directory of a node").into());
            }
            let store = Embedded::open(options, MonotonicClock);
            Ok(Arc::new(store.map_err(|error| unopened(&path, &error))?))
        }
        Backend::Etcd => Ok(Arc::new(Etcd::open(etcd(config)?.never_compact(), MonotonicClock))),
    }
}

/// How etcd is reached by `config`.
///
/// # Errors
///
/// When it does not say.
pub fn etcd(config: &StoreConfig) -> Result<EtcdOptions, Errors> {
    config.etcd.clone().ok_or_else(|| {
        let missing = "`store.etcd.endpoints`: is needed to reach etcd";
        Report::error(Code::ConfigOutOfRange, missing)
            .next("mainstay settings show --origin")
            .into()
    })
}

pub(crate) fn unopened(path: &Path, error: &OpenError) -> Report {
    let what = format!("{}: {}", path.display(), causes(error));
    let report = Report::error(error.code(), what);
    match error {
        OpenError::Regressed { .. } | OpenError::Corrupt { .. } => report
            .help("put a newer copy of the folder back, or restore a backup")
            .next("mainstay backup restore FILE --data-dir PATH --force"),
        OpenError::Locked { .. } => report.next("stop that process, or name another `--data-dir`"),
        OpenError::FormatNewer { .. } => report.next("start the newer version that wrote it"),
        OpenError::Io(_) => report.next("mainstay check --pre"),
    }
}
