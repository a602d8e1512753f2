//! One running process: what it is made of, in the order in which it starts and ends.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant};
use mainstay_proxy::access_log::AccessLog;
use mainstay_proxy::config::{GatewayConfig, Plane};
use mainstay_proxy::gateway::{Gateway, Parts, ResolveAny};
use mainstay_proxy::listener::Listener;
use mainstay_proxy::metrics::Metrics;
use mainstay_proxy::server::Server;
use mainstay_proxy::snapshot::{Keeper, SnapshotFile};
use mainstay_proxy::summary::Summaries;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::data_dir::DataDir;
use super::doors::{
    self, ControlDoors, Doors, Sockets, copies, duplicates, open_all, serve_gateway,
};
use super::keeping::{self, Keeping};
use super::listeners::Inherited;
use super::sampling::Sampling;
use super::shared::{Shared, unreadable};
use super::signals::Told;
use super::takeover::Takeover;
use super::{Ready, Role, Start, control_plane, failed, takeover};
use crate::backup::figures::Figures;
use crate::cli::Session;
use crate::cluster::Cluster;
use crate::control;
use crate::control_client::{ContextFile, default_data_dir, started_ticks};
use crate::deferred::Deferrals;
use crate::dns::Dns;
use crate::exit::Exit;
use crate::jwt::{self, Fetcher};
use crate::output::hex;
use crate::report::Report;
use crate::resolve::Remote;
use crate::resolve::settings::By;
use crate::rules::apply::usable;
use crate::rules::{Copies, Elsewhere, Rules};
use crate::secret;
use crate::settings::reload::{Live, Reloaded};
use crate::settings::root::{Meant, RESTART_ONLY};
use crate::settings::watch::{DEBOUNCE, Watch};
use crate::settings::{Errors, Settings};
use crate::switching::Book;

/// A started process.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    server: Server,
    control: std::thread::JoinHandle<()>,
    log_writer: std::thread::JoinHandle<()>,
    stop: CancellationToken,
    told: tokio::sync::mpsc::UnboundedReceiver<Told>,
    context_file: PathBuf,
    watch: Option<Watch>,
    keeping: Keeping,
    sampling: Option<Sampling>,
    /// Copies of the listening sockets, for a process that takes over.
    kept: Arc<Mutex<Sockets>>,
    data_dir: DataDir,
}

/// Runs a role from its start to its end.
pub(super) fn run(start: Start, session: &mut Session<'_>) -> Result<u8, Errors> {
    let json = session.wants_json();
    let began = MonotonicClock.now();
    let role = start.role;
    let (node, warnings) = Node::start(start, began)?;
    session.warnings(&warnings);
    session.ready(role, &node.shared.ready, json);
    Ok(node.serve_to_the_end())
}

impl Node {
    fn start(start: Start, began: Instant) -> Result<(Self, Vec<Report>), Errors> {
        let (mut live, warnings) =
            Live::<Settings, Meant>::start(start.sources.clone(), Meant::resolve, RESTART_ONLY)?;
        let meant = live.current();
        let mut data_dir = open_data_dir(&start)?;
        let (takeover, mut inherited) = taken_over(&start, &mut data_dir)?;
        let workers = workers(&meant.plane.gateway);
        let mut doors = open_all(&start, &meant, workers, &mut inherited)?;
        let (runtime, cluster) = control_plane::open(&start, &meant, &doors, data_dir.path())?;
        let (remote, elsewhere) =
            control_plane::others(&runtime, &start, &meant, &doors, data_dir.path())?;
        let asked = ruled(&runtime, elsewhere.as_ref());
        let agreed = Agreed::new(cluster.as_deref(), elsewhere.as_ref());
        let rules = rules(&mut live, agreed.copies.as_ref());
        let meant = live.current();
        let knows = who_knows(&meant, remote.as_ref(), cluster.as_deref());
        let (gateway, log_writer) = gateway(&meant, knows, agreed, &rules, data_dir.path())?;
        answered(&runtime, remote.as_deref(), asked);
        let fetcher = fetcher(&meant, start.role);
        runtime.block_on(jwt::first(&gateway, &fetcher));
        let transport = doors::transport(&gateway)?;
        let ready = ready(&start, &doors, &meant.plane, data_dir.path().into(), began);
        let kept = Arc::new(Mutex::new(duplicates(&doors)?));
        let (dns, listeners) = control_doors(&meant, &mut doors, cluster.as_deref(), &gateway)?;
        let server = serve_gateway(&gateway, doors, &transport, workers)?;
        let shared = Arc::new(Shared {
            streams: streams(&meant, &gateway),
            backups: backups(&start, &meant, &gateway),
            gateway,
            fetcher,
            cluster,
            remote,
            elsewhere,
            dns,
            live: Mutex::new(live),
            rules,
            token: token(&meant, start.role, data_dir.path())?,
            since: MonotonicClock.now(),
            draining: AtomicBool::new(false),
            ready,
            transport,
            keeper: Arc::new(Keeper::new(SnapshotFile::new(data_dir.path()))),
        });
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let control = control_plane::serve(runtime, listeners, &shared, &stop, tell.clone())?;
        if let Some(takeover) = takeover {
            take_over(takeover, &mut data_dir)?;
        }
        // Only now: until here the process before this one may have written the file.
        let keeping = Keeping::start(Arc::clone(&shared.keeper), Arc::clone(&shared.gateway))
            .map_err(|error| failed("the snapshot of circuits", &error))?;
        offer(data_dir.path(), &kept, tell)?;
        let sampling = Sampling::start(Arc::clone(&shared.gateway.parts().protection))
            .map_err(|error| failed("the look at the machine", &error))?;
        let context_file = write_context(&shared, data_dir.path())?;
        let watch = watch(&shared, &start);
        let node = Self {
            shared,
            server,
            control,
            log_writer,
            stop,
            told,
            context_file,
            watch,
            keeping,
            sampling,
            kept,
            data_dir,
        };
        Ok((node, warnings))
    }

    /// Waits for a signal to end, drains, and ends. Returns the exit code.
    fn serve_to_the_end(mut self) -> u8 {
        let ended_by = loop {
            match self.told.blocking_recv() {
                Some(Told::Reload) => report_reload(self.shared.reload()),
                Some(Told::Interrupt) => break Told::Interrupt,
                Some(Told::Terminate) | None => break Told::Terminate,
            }
        };
        self.shared.draining.store(true, Ordering::Relaxed);
        drop(std::fs::remove_file(&self.context_file));
        let config = self.shared.live.lock().current();
        tracing::info!(drain_delay = ?config.plane.gateway.drain_delay, "draining");
        // A load balancer needs a moment to notice that this process is no longer ready; an
        // interrupted developer does not.
        let delay = config.plane.gateway.drain_delay;
        let takes_calls = !self.shared.ready.gateway_listeners.is_empty();
        if ended_by == Told::Terminate && takes_calls {
            self.wait_or_be_told_again(delay);
        }
        // The watch holds on to what is shared, and with it to the log.
        drop(self.watch);
        // While a copy is open the kernel goes on taking connections that nobody will accept.
        self.kept.lock().clear();
        self.server.stop();
        let drained = self.server.join();
        self.shared.gateway.parts().metrics.connections_cut(drained.cut);
        self.stop.cancel();
        let _ended = self.control.join();
        self.keeping.end();
        if let Some(sampling) = self.sampling {
            sampling.end();
        }
        drop(self.shared);
        // The writer ends when the last worker's handle to it is gone.
        let _ended = self.log_writer.join();
        tracing::info!(cut = drained.cut, "ended");
        drop(self.data_dir);
        if ended_by == Told::Interrupt { INTERRUPTED } else { Exit::Done.code() }
    }

    /// Waits `span`, or less when told a second time.
    fn wait_or_be_told_again(&mut self, span: Duration) {
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while waited < span && self.told.try_recv().is_err() {
            #[expect(clippy::disallowed_methods, reason = "the main thread has no runtime")]
            std::thread::sleep(step);
            waited += step;
        }
    }
}

/// Exit code of an interrupted process: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// How long the process before may drain, at most, before this one holds the data directory.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(400);

fn open_data_dir(start: &Start) -> Result<DataDir, Errors> {
    let of = |name: &str| std::env::var(name).ok();
    let path = if start.ephemeral {
        let unique =
            format!("mainstay-{}-{:016x}", std::process::id(), mainstay_call::draw::next());
        std::env::temp_dir().join(unique)
    } else {
        let default = || match start.role {
            Role::Dev => default_data_dir(of_variable),
            Role::Server | Role::Gateway => {
                let state = of("STATE_DIRECTORY").map(PathBuf::from);
                let name = start.role.as_str();
                state.or_else(|| Some(default_data_dir(of_variable)?.with_file_name(name)))
            }
        };
        start.data_dir.clone().or_else(default).ok_or_else(|| {
            Report::error(Code::Usage, "no data directory: neither HOME nor XDG_DATA_HOME is set")
                .next("name one with `--data-dir PATH`, or use `--ephemeral`")
        })?
    };
    DataDir::open(path, start.ephemeral)
}

fn of_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What the process before this one hands over, if this one takes over from it; else the data
/// directory is held for this one alone.
fn taken_over(
    start: &Start,
    data_dir: &mut DataDir,
) -> Result<(Option<Takeover>, Inherited), Errors> {
    if start.takeover {
        let (takeover, inherited) = takeover::ask(data_dir.path())?;
        return Ok((Some(takeover), inherited));
    }
    data_dir.hold(Duration::ZERO)?;
    Ok((None, Inherited::new()))
}

/// Says that this process serves, and waits until the one before it has ended.
fn take_over(takeover: Takeover, data_dir: &mut DataDir) -> Result<(), Errors> {
    takeover.serving().map_err(|error| failed("the takeover", &error))?;
    data_dir.hold(TAKEOVER_PATIENCE)
}

/// Hands copies of the sockets to a process that takes over, and then has this one end.
fn offer(
    data: &Path,
    kept: &Arc<Mutex<Sockets>>,
    tell: UnboundedSender<Told>,
) -> Result<(), Errors> {
    let kept = Arc::clone(kept);
    let offered = move || copies(&kept.lock());
    takeover::offer(data, offered, move || {
        let _told_if_still_there = tell.send(Told::Terminate);
    })
    .map_err(|error| failed("control.sock", &error))
}

/// Who fetches the keys of issuers.
fn fetcher(meant: &Meant, role: Role) -> Fetcher {
    Fetcher::new(meant.egress.clone().with_loopback(role == Role::Dev))
}

fn workers(config: &GatewayConfig) -> NonZeroUsize {
    let asked = config.workers.and_then(|workers| NonZeroUsize::new(usize::from(workers)));
    asked.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// Serves by the rules of the store too, as far as they were read and fit.
fn rules(live: &mut Live<Settings, Meant>, copies: Option<&Copies>) -> Rules {
    let rules = Rules::default();
    if let Some(copies) = copies {
        let serve = |meant: &Arc<Meant>| usable(&meant.plane, None);
        rules.settle(live, copies, false, serve);
    }
    rules
}

/// What the data plane serves by beside files: rules and switches of the store, here or elsewhere;
/// and who keeps requests to be made later, here.
struct Agreed {
    copies: Option<Copies>,
    switches: Option<Book>,
    deferrals: Option<Deferrals>,
}

impl Agreed {
    fn new(cluster: Option<&Cluster>, elsewhere: Option<&Elsewhere>) -> Self {
        let copies = cluster.map(|cluster| cluster.copies.clone());
        let switches = cluster.map(Cluster::switch_book);
        Self {
            copies: copies.or_else(|| elsewhere.map(Elsewhere::copies)),
            switches: switches.or_else(|| elsewhere.map(Elsewhere::switch_book)),
            deferrals: cluster.and_then(|cluster| cluster.deferrals.clone()),
        }
    }
}

/// The data plane, with what the process before this one left in the data directory `data`; and
/// the thread that writes its log.
fn gateway(
    meant: &Meant,
    knows: Option<Arc<dyn ResolveAny>>,
    agreed: Agreed,
    rules: &Rules,
    data: &Path,
) -> Result<(Arc<Gateway>, std::thread::JoinHandle<()>), Errors> {
    let (mut parts, log_writer) = parts(&meant.plane.gateway)?;
    parts.resolve = knows;
    parts.switches = agreed.switches.map(|book| Arc::new(book) as _);
    parts.deferred = agreed.deferrals.clone().map(|own| Arc::new(own) as _);
    keeping::restore(data, &parts.machines);
    let gateway =
        Gateway::new(Arc::clone(&meant.plane), parts).map_err(|error| unreadable(&error))?;
    match &agreed.deferrals {
        Some(deferrals) => deferrals.outlets().open(&gateway),
        None if meant.plane.defers() => {
            tracing::warn!("no `defer` step answers: this process coordinates no transactions");
        }
        None => {}
    }
    gateway.parts().metrics.register(|registry| rules.figures().register(registry));
    Ok((gateway, log_writer))
}

/// How long a start waits for those who know rules and instances. Whoever takes longer is away, and
/// what is known serves.
const ANSWERED_MAX: Duration = Duration::from_secs(3);

/// Waits for what those who know rules elsewhere say first; says since when.
fn ruled(runtime: &Runtime, elsewhere: Option<&Elsewhere>) -> Instant {
    let asked = MonotonicClock.now();
    if let Some(elsewhere) = elsewhere {
        runtime.block_on(elsewhere.answered(ANSWERED_MAX));
    }
    asked
}

/// Waits for what those who know instances elsewhere say first, since `asked`.
fn answered(runtime: &Runtime, remote: Option<&Remote>, asked: Instant) {
    if let Some(remote) = remote {
        let left = asked.plus(ANSWERED_MAX).since(MonotonicClock.now());
        runtime.block_on(remote.answered(left));
    }
}

/// Who is asked for the instances of services without a list.
fn who_knows(
    meant: &Meant,
    remote: Option<&Arc<Remote>>,
    cluster: Option<&Cluster>,
) -> Option<Arc<dyn ResolveAny>> {
    if let Some(remote) = remote {
        return Some(Arc::clone(remote) as _);
    }
    let own = cluster.filter(|_own| meant.client.by != By::Static)?;
    Some(Arc::clone(&own.resolver) as _)
}

fn parts(config: &GatewayConfig) -> Result<(Parts, std::thread::JoinHandle<()>), Errors> {
    let metrics = Metrics::new();
    let mut parts = Parts::new(Arc::clone(&metrics));
    let (format, sample) = (config.access_log.format, config.access_log.sample_percent);
    // Also when the log is off: a reload may turn it on.
    let (log, writer) = AccessLog::start(format, sample, io::stdout(), metrics)
        .map_err(|error| failed("access log", &error))?;
    parts.log = Some(log);
    parts.summaries = Some(Arc::new(Summaries::new(workers(config))));
    Ok((parts, writer))
}

/// What answers names, counted beside all else; and the sockets of the control plane.
fn control_doors(
    meant: &Meant,
    doors: &mut Doors,
    cluster: Option<&Cluster>,
    gateway: &Gateway,
) -> Result<(Option<Arc<Dns>>, ControlDoors), Errors> {
    let control = doors.control.try_clone().map_err(|error| failed("control port", &error))?;
    let dns = cluster.and_then(|cluster| doors.answering(&meant.dns, cluster));
    let metrics = &gateway.parts().metrics;
    if let Some(cluster) = cluster {
        metrics.register(|registry| cluster.register(registry));
    }
    if let Some(dns) = &dns {
        metrics.register(|registry| dns.figures().register(registry));
    }
    let (consul, dtm, names) = (doors.consul.take(), doors.dtm.take(), doors.dns.take());
    Ok((dns, ControlDoors { control, consul, dtm, names }))
}

/// The places for streams of the control port.
fn streams(meant: &Meant, gateway: &Gateway) -> control::Kept {
    let kept = control::Kept::new(meant.streams_max);
    gateway.parts().metrics.register(|registry| kept.register(registry));
    kept
}

/// What is told of backups, where this node takes some.
fn backups(start: &Start, meant: &Meant, gateway: &Gateway) -> Figures {
    let figures = Figures::default();
    if start.role.keeps_state() && meant.backup.every.is_some() {
        gateway.parts().metrics.register(|registry| figures.register(registry));
    }
    figures
}

fn ready(start: &Start, doors: &Doors, plane: &Plane, data_dir: PathBuf, began: Instant) -> Ready {
    let control = doors.control.local_addr().map_or_else(|_| String::new(), |a| a.to_string());
    let plain = doors.plain.iter().map(Listener::address);
    let listeners: Vec<SocketAddr> =
        plain.clone().chain(doors.tls.iter().map(Listener::address)).collect();
    let first = plain.clone().next();
    Ready {
        version: env!("CARGO_PKG_VERSION"),
        ready_seconds: MonotonicClock.now().since(began).as_secs_f64(),
        pid: std::process::id(),
        control: format!("http://{control}"),
        gateway: first.map(|address| format!("http://{address}")),
        gateway_listeners: listeners,
        dns: doors.dns.as_ref().map(|door| door.address().to_string()),
        login_url: None,
        data_dir,
        ephemeral: start.ephemeral,
        routes: plane.routes.iter().count(),
    }
}

/// Writes down where the control port is and what opens it; returns where that stands.
fn write_context(shared: &Shared, data: &Path) -> Result<PathBuf, Errors> {
    let path = data.join("control.toml");
    let pid = std::process::id();
    let context = ContextFile {
        url: shared.ready.control.clone(),
        token: shared.token.clone(),
        pid: Some(pid),
        started_ticks: started_ticks(pid),
    };
    context.write(&path).map_err(|error| failed("control.toml", &error))?;
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
        // A convenience for other terminals; the data directory has the file in any case.
        drop(context.write(&PathBuf::from(runtime).join("mainstay/dev.toml")));
    }
    Ok(path)
}

/// Reloads when files change, if there is a file.
fn watch(shared: &Arc<Shared>, start: &Start) -> Option<Watch> {
    start.sources.file.as_ref()?;
    let shared = Arc::clone(shared);
    let reload = move || report_reload(shared.reload());
    Watch::start(start.sources.clone(), DEBOUNCE, reload)
        .inspect_err(|error| tracing::warn!(%error, "the configuration is not watched"))
        .ok()
}

fn report_reload(done: Result<Reloaded, Errors>) {
    match done {
        Ok(Reloaded { applied, needs_restart }) => {
            tracing::info!(?applied, ?needs_restart, "configuration reloaded");
        }
        Err(errors) => {
            for report in &errors.reports {
                tracing::error!("{}", report.render().trim_end());
            }
            tracing::error!("configuration not reloaded; the one before stays in force");
        }
    }
}

/// What callers of the control port bear: the configured token, or 32 random bytes as hexadecimal
/// digits. A role other than `dev` keeps what it drew, so that whoever was given it is let in after
/// a restart too.
fn token(meant: &Meant, role: Role, data: &Path) -> Result<String, Errors> {
    if let Some(file) = &meant.token_file {
        return secret::token(file, "server.token_file");
    }
    let kept = data.join("token");
    let keeps = role != Role::Dev;
    if keeps && kept.exists() {
        return secret::token(&kept, "the token of the data directory");
    }
    let mut bytes = [0_u8; 32];
    let drawn = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    drawn.map_err(|error| failed("random numbers", &error))?;
    let token = hex(&bytes);
    if keeps {
        secret::keep(&kept, &token).map_err(|error| failed("token", &error))?;
    }
    Ok(token)
}
