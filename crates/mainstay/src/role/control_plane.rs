//! The control plane of a process: the runtime it has to itself, and the state it keeps.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::name::{NodeName, Reporter};
use mainstay_core::problem::Code;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::doors::{ControlDoors, Doors};
use super::shared::Shared;
use super::signals::{Signals, Told};
use super::{Role, Start, failed};
use crate::backup::schedule;
use crate::cluster::formats::{self, Settled};
use crate::cluster::settings::Backend;
use crate::cluster::{Cluster, keys, known, opening};
use crate::control;
use crate::control_client::refusal;
use crate::dns::Dns;
use crate::dns::door::Door;
use crate::jwt;
use crate::observing;
use crate::report::Report;
use crate::resolve::{self, Remote};
use crate::rules::{self, Elsewhere};
use crate::settings::Errors;
use crate::settings::root::Meant;
use crate::switching;

/// What the control plane runs on. One that keeps state has many callers at once and uses every
/// core; beside a gateway alone one thread answers what a person asks.
fn runtime(role: Role) -> std::io::Result<Runtime> {
    let mut builder = if role.keeps_state() {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    builder.enable_all().thread_name("control-worker").build()
}

/// Makes the runtime of the control plane; where the role keeps state, opens the store in the data
/// directory `data` and takes part in what it holds.
pub(super) fn open(
    start: &Start,
    meant: &Meant,
    doors: &Doors,
    data: &Path,
) -> Result<(Runtime, Option<Arc<Cluster>>), Errors> {
    let runtime = runtime(start.role).map_err(|error| failed("control plane", &error))?;
    if !start.role.keeps_state() {
        return Ok((runtime, None));
    }
    let control = doors.control.local_addr().map_err(|error| failed("control port", &error))?;
    let node = node_of(meant, doors, meant.store.backend)?;
    let inside = runtime.enter();
    let opened = opening::open(&meant.store, data)?;
    let backend = meant.store.backend;
    let settled = runtime.block_on(formats::settle(&opened.store(), backend, data))?;
    if settled == Settled::Away {
        tracing::warn!("the store does not answer; its format is looked at when it does");
    }
    let file = meant.keyring.file(data)?;
    let keyring = runtime.block_on(keys::agree(&opened.store(), file))?;
    let recipes = (meant.registry.clone(), meant.recipes);
    let consul = meant.consul.clone();
    // The control port listens on loopback, so whoever can ask is on this machine.
    let is_open = |at: IpAddr| consul.is_open(at, start.role == Role::Dev);
    let alone = consul.listen.is_some_and(|at| is_open(at.ip()));
    let is_open = is_open(control.ip());
    let door = consul.enabled.then_some((consul, [is_open, alone]));
    let audit = (meant.audit.clone(), data);
    let started =
        Cluster::start(opened, keyring, recipes, door, (node, control.to_string()), audit);
    let dtm_is_open = start.role == Role::Dev && control.ip().is_loopback();
    let cluster = async {
        let cluster = started.await.coordinating(meant.transaction.clone(), control).await;
        cluster.open_to_dtm(dtm_is_open)
    };
    let cluster = Arc::new(runtime.block_on(cluster));
    drop(inside);
    Ok((runtime, Some(cluster)))
}

/// Who knows the instances of services elsewhere, and who keeps rules and switches there.
pub(super) type Others = (Option<Arc<Remote>>, Option<Elsewhere>);

/// Asks others, as far as the configuration says so. A role that keeps state asks itself, but for
/// instances if it is told to ask DNS.
pub(super) fn others(
    runtime: &Runtime,
    start: &Start,
    meant: &Meant,
    doors: &Doors,
    data: &Path,
) -> Result<Others, Errors> {
    let _inside = runtime.enter();
    let (config, cache) = (&meant.client, data.join(&meant.client.cache));
    let client = if start.role.keeps_state() { None } else { resolve::client(config)? };
    let remote = Remote::start(config, client.as_ref(), &cache).map(Arc::new);
    let elsewhere = |client| {
        let node = node_of(meant, doors, Backend::Embedded)?;
        let started = Elsewhere::start(client, &cache, node);
        started.map_err(|error| Errors::from(refusal(&error)))
    };
    Ok((remote, client.map(elsewhere).transpose()?))
}

/// What this process is called among others.
fn node_of(meant: &Meant, doors: &Doors, backend: Backend) -> Result<NodeName, Errors> {
    let control = doors.control.local_addr().map_err(|error| failed("control port", &error))?;
    let named = meant.node.clone().or_else(|| meant.consul.node_name.clone());
    named.map_or_else(|| node_name(backend, control), Ok)
}

/// The host's name; with the control port where several nodes of one host may share the store.
fn node_name(backend: Backend, control: SocketAddr) -> Result<NodeName, Errors> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = match backend {
        Backend::Embedded => host,
        Backend::Etcd => format!("{host}-{}", control.port()),
    };
    NodeName::new(name).map_err(|error| {
        let what = format!("the host's name cannot be that of a node: {error}");
        Report::error(Code::ConfigOutOfRange, what).next("set `server.node`").into()
    })
}

/// The control plane, on a thread of its own; signals arrive there too.
pub(super) fn serve(
    runtime: Runtime,
    ControlDoors { control, consul, dtm, names }: ControlDoors,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
    tell: UnboundedSender<Told>,
) -> Result<std::thread::JoinHandle<()>, Errors> {
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(|error| failed("signals", &error))?
    };
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    let work = move || {
        runtime.block_on(async {
            let listen_to_signals = async {
                loop {
                    let told = signals.next().await;
                    if tell.send(told).is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            let here = Arc::clone(&shared);
            let answers_names = answer_names(names, shared.dns.clone(), stop.clone());
            let followed = rules::apply::follow(Arc::clone(&shared), stop.clone());
            let turned = switching::follow(Arc::clone(&shared), stop.clone());
            let looks_after = look_after(Arc::clone(&shared), stop.clone(), tell.clone());
            let taken = take_over(Arc::clone(&shared), stop.clone());
            let observed = observe(Arc::clone(&shared), stop.clone());
            let keys = fetch_keys(Arc::clone(&shared), stop.clone());
            let consul = control::serve_consul(consul, Arc::clone(&shared), stop.clone());
            let dtm = control::serve_dtm(dtm, Arc::clone(&shared), stop.clone());
            let clients = async {
                tokio::join!(consul, dtm);
            };
            let answered = control::serve(control, shared, stop);
            let served = async {
                let told = async { tokio::join!(followed, turned, observed, keys) };
                tokio::join!(answered, clients, answers_names, taken, told, looks_after);
            };
            tokio::select! {
                () = served => (),
                () = listen_to_signals => (),
            }
            leave(&here).await;
        });
        // What still blocks a thread by then, such as a backup half way, leaves nothing behind.
        runtime.shutdown_timeout(BLOCKING_MAX);
    };
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(work)
        .map_err(|error| failed("control plane", &error))
}

/// Asks others nothing any more, and leaves the cluster.
async fn leave(shared: &Shared) {
    let mut left = 0;
    if let Some(remote) = &shared.remote {
        left += remote.shutdown(FOLLOWING_MAX).await;
    }
    if let Some(elsewhere) = &shared.elsewhere {
        left += elsewhere.shutdown(FOLLOWING_MAX).await;
    }
    if 0 < left {
        tracing::warn!(left, "tasks that follow others still ran at the end");
    }
    if let Some(cluster) = &shared.cluster {
        let left = cluster.leave().await;
        if 0 < left {
            tracing::warn!(left, "tasks of the cluster were still running at the end");
        }
    }
}

/// Takes over rules and switches of others until told to stop.
async fn take_over(shared: Arc<Shared>, stop: CancellationToken) {
    if let Some(elsewhere) = &shared.elsewhere {
        elsewhere.run(&stop).await;
    }
}

/// Tells the registry, here or elsewhere, which instances fail the calls of this process, until told
/// to stop.
async fn observe(shared: Arc<Shared>, stop: CancellationToken) {
    let gateway = &shared.gateway;
    if let Some(cluster) = &shared.cluster {
        if let Ok(reporter) = Reporter::new(format!("node {}", cluster.node.as_str())) {
            observing::here(gateway, &cluster.registry, &reporter, &stop).await;
        }
    } else if let (Some(Remote::Registry(_)), Some(elsewhere)) =
        (shared.remote.as_deref(), &shared.elsewhere)
    {
        observing::elsewhere(gateway, elsewhere.client(), |upstream, _| upstream);
    }
}

/// Fetches keys of issuers until told to stop.
async fn fetch_keys(shared: Arc<Shared>, stop: CancellationToken) {
    let _ended = stop.run_until_cancelled(jwt::keep(&shared.gateway, &shared.fetcher)).await;
}

/// Answers names until told to stop.
async fn answer_names(door: Option<Door>, dns: Option<Arc<Dns>>, stop: CancellationToken) {
    if let (Some(door), Some(dns)) = (door, dns)
        && let Err(error) = door.serve(dns, stop).await
    {
        tracing::error!(%error, "names are not answered");
    }
}

/// Looks after what the store of this node is, and takes backups when it is this node's turn; until
/// told to stop.
async fn look_after(shared: Arc<Shared>, stop: CancellationToken, tell: UnboundedSender<Told>) {
    let Some(cluster) = shared.cluster.clone() else { return };
    let data = shared.ready.data_dir.clone();
    let meant = shared.live.lock().current();
    let formats = async {
        let (store, backend) = (&cluster.store, meant.store.backend);
        if !formats::settle_later(store, backend, &data, stop.clone()).await {
            // This version must not use the store: it ends as if it had been told to.
            let _told_if_still_there = tell.send(Told::Terminate);
        }
    };
    let differs = async {
        let why = tokio::select! {
            why = cluster.ring.differs() => why,
            () = stop.cancelled() => return,
        };
        tracing::error!(code = Code::KeyringDiffers.as_str(), why, "this node must not go on");
        let _told_if_still_there = tell.send(Told::Terminate);
    };
    let backups = schedule::run(&cluster, &shared, &meant.backup, stop.clone());
    let nodes = async {
        if let Some(door) = cluster.consul.as_ref().filter(|_| shared.dns.is_some()) {
            door.nodes.follow(&door.recipes, stop.clone()).await;
        }
    };
    let kept = known::keep(&cluster, &data, stop.clone());
    let logged = cluster.audit.run(&cluster.coordination, cluster.owner(), stop.clone());
    tokio::join!(formats, kept, differs, backups, nodes, logged);
}

/// How long those who follow others may take to keep what they know last.
const FOLLOWING_MAX: Duration = Duration::from_secs(5);

/// How long the runtime waits for threads that are blocked.
const BLOCKING_MAX: Duration = Duration::from_millis(500);
