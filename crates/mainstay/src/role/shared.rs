//! What a running process is to its control plane, and how it takes another configuration.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::problem::Code;
use mainstay_core::{Clock as _, Instant};
use mainstay_proxy::config::{GatewayConfig, Plane};
use mainstay_proxy::gateway::Gateway;
use mainstay_proxy::listener::Caps;
use mainstay_proxy::server::LiveLimits;
use mainstay_proxy::snapshot::Keeper;
use mainstay_proxy::tls::{NewCertificates, Pair, ServerTls, TlsError};
use parking_lot::Mutex;

use super::Ready;
use super::doors::limits;
use super::keeping::wall_clock;
use crate::cluster::Cluster;
use crate::dns::Dns;
use crate::jwt::Fetcher;
use crate::report::{Report, causes};
use crate::resolve::Remote;
use crate::rules::apply::usable;
use crate::rules::{Copies, Elsewhere, Rules};
use crate::settings::graft::Graft;
use crate::settings::reload::{Live, Reloaded};
use crate::settings::root::Meant;
use crate::settings::spans::Place;
use crate::settings::{Errors, Settings};
use crate::switching::Book;
use crate::transaction::Transactions;
use crate::transaction::databases::InUse;

/// What the control plane may see and do.
#[derive(Debug)]
pub struct Shared {
    /// The data plane.
    pub gateway: Arc<Gateway>,
    /// Agreed state; `None` where none is kept.
    pub cluster: Option<Arc<Cluster>>,
    /// Who knows instances elsewhere; `None` when nobody is asked.
    pub remote: Option<Arc<Remote>>,
    /// Rules and switches that another process keeps; `None` when nobody is asked.
    pub elsewhere: Option<Elsewhere>,
    /// Fetches keys of issuers.
    pub fetcher: Fetcher,
    /// What answers names; `None` where nobody does.
    pub dns: Option<Arc<Dns>>,
    /// The configuration in force.
    pub live: Mutex<Live<Settings, Meant>>,
    /// Rules of the store, which are part of it.
    pub rules: Rules,
    /// The places for streams of the control port, and for questions there that wait.
    pub streams: crate::control::Kept,
    /// What is told of backups that this node takes.
    pub backups: crate::backup::figures::Figures,
    /// What every request to the control plane must bear.
    pub token: String,
    /// When the process became ready.
    pub since: Instant,
    /// Set once the process drains: it is then no longer ready.
    pub draining: AtomicBool,
    /// What was said when it became ready.
    pub ready: Ready,
    pub(super) transport: Transport,
    /// Writes down what calls teach.
    pub(super) keeper: Arc<Keeper>,
}

/// What of the transport a reload reaches.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    pub(super) tls: Option<ServerTls>,
    pub(super) limits: LiveLimits,
    pub(super) caps: Arc<Caps>,
}

impl Shared {
    /// Rules as they are agreed upon, here or elsewhere; `None` where files alone count.
    pub fn copies(&self) -> Option<Copies> {
        let own = self.cluster.as_ref().map(|cluster| cluster.copies.clone());
        own.or_else(|| self.elsewhere.as_ref().map(Elsewhere::copies))
    }

    /// Switches as they are agreed upon, here or elsewhere.
    pub fn switch_book(&self) -> Option<Book> {
        let own = self.cluster.as_ref().map(|cluster| cluster.switch_book());
        own.or_else(|| self.elsewhere.as_ref().map(Elsewhere::switch_book))
    }

    /// Reads the configuration again and serves by it. On an error nothing has changed: what can
    /// fail is done before anything is replaced.
    ///
    /// # Errors
    ///
    /// [`Errors`] with every fault.
    pub fn reload(&self) -> Result<Reloaded, Errors> {
        // Held to the end, so that two reloads do not cross.
        let mut live = self.live.lock();
        let done = live.reload(|meant| {
            let transactions = self.transactions();
            if let Some(transactions) = transactions {
                let wanted = &meant.transaction.resources;
                transactions.rehearse_databases(wanted).map_err(|error| in_use(&error))?;
            }
            self.serve(&meant.plane).map_err(|error| unreadable(&error))?;
            if let Some(transactions) = transactions {
                transactions.replace_databases(&meant.transaction.resources);
            }
            Ok(())
        })?;
        self.settle_rules(&mut live, true);
        drop(live);
        self.gateway.parts().machines.retain_used();
        Ok(done)
    }

    /// Global transactions, where this node coordinates them.
    fn transactions(&self) -> Option<&Transactions> {
        self.cluster.as_ref()?.transactions.as_ref()
    }

    /// Serves by the rules of the store as this node knows them now, as far as they fit. Does
    /// nothing when none has changed; `anew`, it looks again at what did not fit.
    pub fn apply_rules(&self, anew: bool) {
        let mut live = self.live.lock();
        self.settle_rules(&mut live, anew);
        drop(live);
        self.gateway.parts().machines.retain_used();
    }

    fn settle_rules(&self, live: &mut Live<Settings, Meant>, anew: bool) {
        let Some(copies) = self.copies() else { return };
        self.rules.settle(live, &copies, anew, |meant| {
            usable(&meant.plane, Some(&self.gateway.running()))?;
            // Rules change nothing of listeners, certificates and logs.
            self.gateway.replace(Arc::clone(&meant.plane)).map_err(|error| unreadable(&error))
        });
    }

    /// What the configuration would come to with `grafts` beside the files.
    ///
    /// # Errors
    ///
    /// [`Errors`]: every fault there would be.
    pub fn rehearse(&self, grafts: &[Graft]) -> Result<Arc<Meant>, Errors> {
        let meant = self.live.lock().rehearse(grafts)?;
        usable(&meant.plane, Some(&self.gateway.running()))?;
        Ok(meant)
    }

    fn serve(&self, plane: &Arc<Plane>) -> Result<(), TlsError> {
        let Transport { tls, limits: live, caps } = &self.transport;
        let config = &plane.gateway;
        let read = || NewCertificates::read(&pairs(config), config.strict_sni);
        let certificates = tls.as_ref().map(|tls| read().map(|read| (tls, read))).transpose()?;
        self.gateway.replace(Arc::clone(plane))?;
        // From here on nothing fails.
        if let Some((tls, certificates)) = certificates {
            tls.install(certificates);
        }
        live.set(limits(&self.gateway.running()));
        caps.set(connections_max(config), per_address_max(config));
        if let Some(log) = &self.gateway.parts().log {
            log.set(config.access_log.format, config.access_log.sample_percent);
        }
        Ok(())
    }

    /// How long ago what calls taught was written down, `None` before the first time; and whether
    /// that is too long ago.
    pub fn state_age(&self) -> (Option<Duration>, bool) {
        let now = wall_clock();
        (self.keeper.age(now), self.keeper.is_overdue(now))
    }

    /// The exposition of the metrics, of this moment.
    ///
    /// # Errors
    ///
    /// When a value cannot be written as text, which formatting into a `String` does not do.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let parts = self.gateway.parts();
        parts.metrics.look(&parts.machines, &self.transport.caps);
        self.gateway.running().issuers.look(MonotonicClock.now());
        parts.metrics.snapshot_age(self.state_age().0);
        parts.metrics.failing(&parts.failing);
        if let Some(transactions) = self.transactions() {
            transactions.look();
        }
        if let Some(deferrals) = self.cluster.as_ref().and_then(|own| own.deferrals.as_ref()) {
            deferrals.look_around();
        }
        let live = self.live.lock();
        let (last, meant) = (live.last().clone(), live.current());
        drop(live);
        self.backups.look(&meant.backup.folder(&self.ready.data_dir));
        let reports = last.err().map(|errors| errors.reports).unwrap_or_default();
        let named =
            |report: &Report| report.place.as_ref().and_then(Place::file_name).map(str::to_owned);
        let files: BTreeSet<String> =
            reports.iter().map(|report| named(report).unwrap_or_default()).collect();
        parts.metrics.reload_failed(files.iter().map(String::as_str));
        parts.metrics.encode()
    }
}

/// Certificates and keys, as configured.
pub(super) fn pairs(config: &GatewayConfig) -> Vec<Pair> {
    let pair = |certificate: &mainstay_proxy::config::gateway::CertificateConfig| Pair {
        certificate: certificate.certificate_file.clone(),
        key: certificate.key_file.clone(),
    };
    config.certificates.iter().map(pair).collect()
}

pub(super) fn connections_max(config: &GatewayConfig) -> usize {
    config.limits.connections_max as usize
}

/// 0: no limit.
pub(super) fn per_address_max(config: &GatewayConfig) -> usize {
    config.limits.connections_per_address_max.unwrap_or(0) as usize
}

pub(super) fn unreadable(error: &TlsError) -> Errors {
    Report::error(Code::ConfigContradiction, causes(error)).into()
}

fn in_use(error: &InUse) -> Errors {
    let report = Report::error(Code::ConfigContradiction, error.to_string());
    report
        .help("`mainstay transaction list` shows them; remove the table when they have ended")
        .into()
}
