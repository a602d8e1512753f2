//! One running process: what it is made of, in the order in which it starts and ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant};
use mainstay_proxy::access_log::AccessLog;
use mainstay_proxy::config::{GatewayConfig, Plane};
use mainstay_proxy::gateway::{Gateway, Parts, Running};
use mainstay_proxy::listener::{Caps, Listener};
use mainstay_proxy::metrics::Metrics;
use mainstay_proxy::server::{self, Endpoint, Limits, OnMalformed, Plan, Server};
use mainstay_proxy::tls::{ClientCertificates, Pair, ServerTls, TlsError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::data_dir::DataDir;
use super::keeping::{self, Keeping};
use super::listeners::{self, Inherited};
use super::sampling::Sampling;
use super::signals::{Signals, Told};
use super::{Ready, Role, Start, system, takeover};
use crate::cli::Session;
use crate::control;
use crate::control_client::{ContextFile, default_data_dir, started_ticks};
use crate::exit::Exit;
use crate::report::Report;
use crate::settings::reload::{Live, Reloaded};
use crate::settings::root::{Meant, RESTART_ONLY};
use crate::settings::watch::{DEBOUNCE, Watch};
use crate::settings::{Errors, Settings};

/// What the control plane may see and do.
#[derive(Debug)]
pub struct Shared {
    /// The data plane.
    pub gateway: Arc<Gateway>,
    /// The configuration in force.
    pub live: Mutex<Live<Settings, Meant>>,
    /// What every request to the control plane must bear.
    pub token: String,
    /// When the process became ready.
    pub since: Instant,
    /// Set once the process drains: it is then no longer ready.
    pub draining: AtomicBool,
    /// What was said when it became ready.
    pub ready: Ready,
    tls: Option<ServerTls>,
}

impl Shared {
    /// Reads the configuration again and serves by it. On an error nothing has changed.
    ///
    /// # Errors
    ///
    /// [`Errors`] with every fault.
    pub fn reload(&self) -> Result<Reloaded, Errors> {
        // Held to the end: a signal and a changed file reload at the same moment, and the one that
        // read the older files must not be the last to take effect.
        let mut live = self.live.lock();
        let done = live.reload()?;
        let plane = Arc::clone(&live.current().plane);
        let served = self.gateway.replace(Arc::clone(&plane)).and_then(|()| {
            self.tls.as_ref().map_or(Ok(()), |tls| tls.reload(&pairs(&plane.gateway)))
        });
        served.map_err(|error| unreadable(&error))?;
        self.gateway.parts().machines.retain_used();
        Ok(done)
    }
}

/// A started process.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    server: Server,
    control: std::thread::JoinHandle<()>,
    log_writer: Option<std::thread::JoinHandle<()>>,
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
        let (live, warnings) =
            Live::<Settings, Meant>::start(start.sources.clone(), Meant::resolve, RESTART_ONLY)?;
        let meant = live.current();
        let mut data_dir = open_data_dir(&start)?;
        let (takeover, mut inherited) = if start.takeover {
            let (takeover, inherited) = takeover::ask(data_dir.path())?;
            (Some(takeover), inherited)
        } else {
            data_dir.hold(Duration::ZERO)?;
            (None, Inherited::new())
        };
        let workers = workers(&meant.plane.gateway);
        let doors = open_all(&start, &meant, workers, &mut inherited)?;
        let metrics = Metrics::new();
        let (parts, log_writer) = parts(&meant.plane.gateway, metrics)?;
        keeping::restore(data_dir.path(), &parts.machines);
        let gateway =
            Gateway::new(Arc::clone(&meant.plane), parts).map_err(|error| unreadable(&error))?;
        let tls = server_tls(&meant.plane.gateway).map_err(|error| unreadable(&error))?;
        let ready = ready(&start, &doors, &meant.plane, data_dir.path().into(), began);
        let kept = Arc::new(Mutex::new(duplicates(&doors)?));
        let offered = {
            let kept = Arc::clone(&kept);
            move || copies(&kept.lock())
        };
        let control_listener = doors.control.try_clone().map_err(|e| failed("control port", &e))?;
        let server = serve_gateway(&gateway, doors, tls.clone(), workers)?;
        let shared = Arc::new(Shared {
            gateway,
            live: Mutex::new(live),
            token: token().map_err(|error| failed("random numbers", &error))?,
            since: MonotonicClock.now(),
            draining: AtomicBool::new(false),
            ready,
            tls,
        });
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let control = start_control(control_listener, &shared, &stop, tell.clone())?;
        if let Some(takeover) = takeover {
            takeover.serving().map_err(|error| failed("the takeover", &error))?;
            data_dir.hold(TAKEOVER_PATIENCE)?;
        }
        // Only now: until here the process before this one may have written the file.
        let keeping = Keeping::start(data_dir.path(), Arc::clone(&shared.gateway.parts().machines))
            .map_err(|error| failed("the snapshot of circuits", &error))?;
        takeover::offer(data_dir.path(), offered, move || {
            let _told_if_still_there = tell.send(Told::Terminate);
        })
        .map_err(|error| failed("control.sock", &error))?;
        let sampling = Sampling::start(Arc::clone(&shared.gateway.parts().protection))
            .map_err(|error| failed("the look at the machine", &error))?;
        let context_file = data_dir.path().join("control.toml");
        write_context(&shared, &context_file)?;
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
        if ended_by == Told::Terminate {
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
        if let Some(writer) = self.log_writer {
            let _ended = writer.join();
        }
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

/// Everything that is listened on.
struct Doors {
    control: TcpListener,
    plain: Vec<Listener>,
    tls: Vec<Listener>,
}

fn open_data_dir(start: &Start) -> Result<DataDir, Errors> {
    let of = |name: &str| std::env::var(name).ok();
    let path = if start.ephemeral {
        let unique =
            format!("mainstay-{}-{:016x}", std::process::id(), mainstay_call::draw::next());
        std::env::temp_dir().join(unique)
    } else {
        let default = || match start.role {
            Role::Dev => default_data_dir(of_variable),
            Role::Gateway => {
                let state = of("STATE_DIRECTORY").map(PathBuf::from);
                state.or_else(|| Some(default_data_dir(of_variable)?.with_file_name("gateway")))
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

fn workers(config: &GatewayConfig) -> NonZeroUsize {
    let asked = config.workers.and_then(|workers| NonZeroUsize::new(usize::from(workers)));
    asked.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

fn open_all(
    start: &Start,
    meant: &Meant,
    workers: NonZeroUsize,
    inherited: &mut Inherited,
) -> Result<Doors, Errors> {
    let random = start.random_ports;
    let one = NonZeroUsize::MIN;
    let control = listeners::open("control", meant.control, random, one, inherited)?;
    let mut open = |kind: &str, addresses: &[SocketAddr]| -> Result<Vec<Listener>, Errors> {
        let each = addresses.iter().enumerate().map(|(n, address)| {
            listeners::open(&format!("{kind}-{n}"), *address, random, workers, inherited)
        });
        each.collect()
    };
    let plain = open("gateway", &meant.plane.gateway.listen)?;
    let tls = open("gateway-tls", &meant.plane.gateway.tls_listen)?;
    let sockets = control.duplicate().map_err(|error| failed("control port", &error))?;
    let control = sockets.into_iter().next().map(TcpListener::from);
    let control = control.ok_or_else(|| Report::error(Code::Internal, "no control socket"))?;
    Ok(Doors { control, plain, tls })
}

/// Listening sockets by name.
type Sockets = BTreeMap<String, Vec<OwnedFd>>;

/// Copies of everything that is listened on, kept for a process that takes over.
fn duplicates(doors: &Doors) -> Result<Sockets, Errors> {
    let mut kept = Sockets::new();
    let failed = |error: io::Error| failed("listening sockets", &error);
    let control = doors.control.try_clone().map_err(failed)?;
    kept.insert("control".to_owned(), vec![control.into()]);
    for (kind, listeners) in [("gateway", &doors.plain), ("gateway-tls", &doors.tls)] {
        for (n, listener) in listeners.iter().enumerate() {
            kept.insert(format!("{kind}-{n}"), listener.duplicate().map_err(failed)?);
        }
    }
    Ok(kept)
}

/// What is handed over; there is nothing left to hand over once the process drains.
fn copies(kept: &Sockets) -> io::Result<Vec<(String, Vec<OwnedFd>)>> {
    if kept.is_empty() {
        return Err(io::Error::other("the process drains"));
    }
    let copy = |(name, sockets): (&String, &Vec<OwnedFd>)| {
        let sockets: io::Result<Vec<OwnedFd>> = sockets.iter().map(OwnedFd::try_clone).collect();
        Ok((name.clone(), sockets?))
    };
    kept.iter().map(copy).collect()
}

fn parts(
    config: &GatewayConfig,
    metrics: Arc<Metrics>,
) -> Result<(Parts, Option<std::thread::JoinHandle<()>>), Errors> {
    let mut parts = Parts::new(Arc::clone(&metrics));
    let format = config.access_log.format;
    if format == mainstay_proxy::access_log::Format::Off {
        return Ok((parts, None));
    }
    let sample = config.access_log.sample_percent;
    let (log, writer) = AccessLog::start(format, sample, io::stdout(), metrics)
        .map_err(|error| failed("access log", &error))?;
    parts.log = Some(log);
    Ok((parts, Some(writer)))
}

fn pairs(config: &GatewayConfig) -> Vec<Pair> {
    let pair = |certificate: &mainstay_proxy::config::gateway::CertificateConfig| Pair {
        certificate: certificate.certificate_file.clone(),
        key: certificate.key_file.clone(),
    };
    config.certificates.iter().map(pair).collect()
}

fn server_tls(config: &GatewayConfig) -> Result<Option<ServerTls>, TlsError> {
    if config.tls_listen.is_empty() {
        return Ok(None);
    }
    ServerTls::new(&pairs(config), config.strict_sni, &ClientCertificates::Off).map(Some)
}

fn serve_gateway(
    gateway: &Arc<Gateway>,
    doors: Doors,
    tls: Option<ServerTls>,
    workers: NonZeroUsize,
) -> Result<Server, Errors> {
    let running = gateway.running();
    let config = &running.plane.gateway;
    let plain = doors.plain.into_iter().map(|listener| Endpoint { listener, tls: None });
    let secure = doors.tls.into_iter().map(|listener| Endpoint { listener, tls: tls.clone() });
    let per_address = config.limits.connections_per_address_max.unwrap_or(0) as usize;
    let plan = Plan {
        workers,
        endpoints: plain.chain(secure).collect(),
        limits: limits(&running),
        on_malformed: {
            let metrics = Arc::clone(&gateway.parts().metrics);
            OnMalformed::new(move |rule| metrics.malformed(rule.as_str()))
        },
        caps: Caps::new(config.limits.connections_max as usize, per_address),
        drain: config.drain,
    };
    let gateway = Arc::clone(gateway);
    server::serve(plan, move |_worker| gateway.handler()).map_err(|error| failed("workers", &error))
}

fn limits(running: &Running) -> Limits {
    let config = &running.plane.gateway;
    let limits = &config.limits;
    Limits {
        framing: *running.framing(),
        head: limits.head,
        body_gap: limits.body_gap,
        body_rate_min_bytes: u64::from(limits.body_rate_min_bytes),
        write_stall: limits.write_stall,
        keepalive: limits.keepalive,
        connection_age: limits.connection_age,
        tunnel_idle: config.tunnel_idle,
        requests_per_connection_max: u64::from(limits.requests_per_connection_max),
        h2_streams_max: limits.h2.streams_max,
        h2_header_list_bytes_max: limits.h2.header_list_bytes_max,
        h2_pending_reset_max: limits.h2.pending_reset_max as usize,
        h2_local_reset_max: limits.h2.local_reset_max as usize,
        ..Limits::default()
    }
}

/// The control plane, on a thread of its own; signals arrive there too.
fn start_control(
    listener: TcpListener,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
    tell: tokio::sync::mpsc::UnboundedSender<Told>,
) -> Result<std::thread::JoinHandle<()>, Errors> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("control plane", &error))?;
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
            tokio::select! {
                () = control::serve(listener, shared, stop) => (),
                () = listen_to_signals => (),
            }
        });
    };
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(work)
        .map_err(|error| failed("control plane", &error))
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
        dns: None,
        login_url: None,
        data_dir,
        ephemeral: start.ephemeral,
        routes: plane.routes.iter().count(),
    }
}

fn write_context(shared: &Shared, path: &std::path::Path) -> Result<(), Errors> {
    let pid = std::process::id();
    let context = ContextFile {
        url: shared.ready.control.clone(),
        token: shared.token.clone(),
        pid: Some(pid),
        started_ticks: started_ticks(pid),
    };
    context.write(path).map_err(|error| failed("control.toml", &error))?;
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
        // A convenience for other terminals; the data directory has the file in any case.
        drop(context.write(&PathBuf::from(runtime).join("mainstay/dev.toml")));
    }
    Ok(())
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

/// 32 random bytes as hexadecimal digits.
fn token() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    Ok(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

fn unreadable(error: &TlsError) -> Errors {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let text: Vec<String> = causes.map(ToString::to_string).collect();
    Report::error(Code::ConfigContradiction, text.join(": ")).into()
}

fn failed(what: &str, error: &io::Error) -> Errors {
    system(Code::Internal, format!("{what} cannot be set up"), error).into()
}
