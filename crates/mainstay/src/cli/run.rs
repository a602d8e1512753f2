//! `mainstay run`: starts a program, registers it once it is well, and deregisters it before it
//! ends. While it is not well the registry hears nothing of it, so nobody is sent to it.
//!
//! A sidecar takes the calls that the program makes by the names of services, and those that are made
//! to it if it is asked to. It listens before the program starts, and ends after it.
//!
//! The control plane need not be there: the program runs without it, and is registered when it
//! comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mainstay_client::Client;
use mainstay_client::registry::{Registered, Registration};
use mainstay_coord::ServiceRef;
use mainstay_coord::health::check::{Check, RawCheck};
use mainstay_coord::health::rounds::Probe;
use mainstay_coord::health::send::send;
use mainstay_coord::health::targets::Addresses;
use mainstay_coord::name::{InstanceId, Namespace};
use mainstay_core::name::ServiceName;
use mainstay_core::problem::Code;
use mainstay_proxy::config::RawPlane;
use rustix::process::Signal;

use super::arguments::run::RunProgram;
use super::calls::span;
use super::settings::sources;
use super::{Ended, Session, usage};
use crate::child::{Group, Parting, PassedOn};
use crate::control_client::{Control, block_on, default_data_dir, refusal};
use crate::report::Report;
use crate::secret;
use crate::settings::{Errors, Settings};
use crate::sidecar::inbound::Inbound;
use crate::sidecar::outbound::{Config, Outbound};
use crate::sidecar::settings::RawSidecar;

/// From one look whether the program has become well to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// From one look whether it still is to the next: several fit into the 15 s in which the registry
/// waits to hear of it. So often the control plane is looked for anew, too, while it does not know
/// the program: another one may have been started, with a token of its own.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// How long deregistering may take when the program has ended by itself.
const LEAVING_MAX: Duration = Duration::from_secs(3);

/// How long after SIGTERM what is left of the program is killed.
const GRACE: Duration = Duration::from_secs(25);

/// What is run, and how.
struct Plan {
    service: ServiceName,
    tables: RawPlane,
    sidecar: RawSidecar,
    /// What the control plane is asked with, where the configuration says so.
    token_file: Option<PathBuf>,
    namespace: String,
    probe: Probe,
    start: Duration,
    drain: Duration,
    arguments: RunProgram,
}

/// A registration, and the control plane it is made with.
struct Entry {
    control: Control,
    client: Client,
    own: Registered,
}

/// What the program does, or somebody wants of it.
enum Next {
    /// It ended, with this code.
    Over(u8),
    /// It is to end.
    Leave,
    /// It is well.
    Well,
    /// It is not well, or did not become so in time.
    Unwell,
}

/// The proxies beside the program.
struct Sidecar {
    outbound: Outbound,
    inbound: Option<Inbound>,
}

pub(super) fn run(arguments: RunProgram, session: &mut Session<'_>) -> Ended {
    super::role::logs();
    let plan = Plan::new(arguments, session)?;
    let (code, sidecar) = block_on(async { supervise(&plan, session).await })??;
    sidecar.stop();
    Ok(code)
}

impl Sidecar {
    /// Must be called within a tokio runtime.
    fn start(plan: &Plan, client: &Client) -> Result<Self, Errors> {
        let Plan { namespace, service, tables, sidecar, arguments, .. } = plan;
        let config = Config {
            listen: sidecar.outbound(),
            namespace: namespace.clone(),
            any: sidecar.outbound_any.unwrap_or(false),
            cache: plan.cache()?,
            tables: tables.clone(),
        };
        let outbound = Outbound::start(config, client)?;
        let program = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
        let inbound = sidecar.inbound.map(|at| Inbound::start(at, service, program, tables));
        Ok(Self { outbound, inbound: inbound.transpose()? })
    }

    /// Lets calls under way end.
    fn stop(self) {
        if let Some(inbound) = self.inbound {
            inbound.stop();
        }
        self.outbound.stop();
    }
}

impl Plan {
    fn new(arguments: RunProgram, session: &mut Session<'_>) -> Result<Self, Errors> {
        let (namespace, service) = match arguments.service.split_once('/') {
            Some((namespace, service)) => (namespace.to_owned(), service.to_owned()),
            None => (arguments.namespace.clone(), arguments.service.clone()),
        };
        let wrong = |error: &dyn std::error::Error| usage(error.to_string());
        let service = ServiceName::new(&service).map_err(|error| wrong(&error))?;
        let raw = RawCheck {
            name: "start".to_owned(),
            kind: if arguments.health.is_some() { "http" } else { "tcp" }.to_owned(),
            path: arguments.health.clone(),
            ..RawCheck::default()
        };
        let check = Check::try_from(&raw).map_err(|error| wrong(&error))?;
        let (address, port) = (&arguments.address, arguments.port);
        let id = arguments.id.clone().unwrap_or_else(|| format!("{address}:{port}"));
        let of = ServiceRef {
            namespace: Namespace::new(&*namespace).map_err(|error| wrong(&error))?,
            name: service.clone(),
        };
        let of = of.instance(&InstanceId::new(id).map_err(|error| wrong(&error))?);
        let probe = Probe::alone(of, check, address, port);
        let mut loaded = sources(&arguments.file).load::<Settings>()?;
        session.warnings(&loaded.warnings);
        Ok(Self {
            namespace,
            service,
            tables: loaded.raw.take_plane(),
            sidecar: loaded.raw.sidecar,
            token_file: loaded.raw.client.token_file,
            probe,
            start: seconds(&arguments.start)?,
            drain: seconds(&arguments.drain)?,
            arguments,
        })
    }

    /// What others are told of the program, who call it at `port`.
    fn registration(&self, port: u16) -> Registration {
        let arguments = &self.arguments;
        let mut registration = Registration::new(self.service.as_str(), &arguments.address, port);
        if let Some(id) = &arguments.id {
            registration = registration.id(id);
        }
        if let Some(weight) = arguments.weight {
            registration = registration.weight(weight);
        }
        if let Some(zone) = &self.sidecar.zone {
            registration = registration.zone(zone);
        }
        if let Some(build) = &arguments.build {
            registration = registration.version(build);
        }
        arguments.tags.iter().fold(registration, Registration::tag)
    }

    /// What the program finds in its environment.
    fn variables(&self, control: &Control, outbound: SocketAddr) -> [(&'static str, String); 6] {
        let proxy = format!("http://{outbound}");
        let near = "127.0.0.1,localhost".to_owned();
        // Some read one of them, some the other; curl reads only the small one.
        [
            ("MAINSTAY_ADDR", control.url().to_owned()),
            ("OTEL_SERVICE_NAME", self.service.to_string()),
            ("HTTP_PROXY", proxy.clone()),
            ("http_proxy", proxy),
            ("NO_PROXY", near.clone()),
            ("no_proxy", near),
        ]
    }

    /// The control plane of this moment, and a client of it.
    fn find(&self, session: &Session<'_>) -> Result<(Control, Client), Errors> {
        let mut control = session.control()?;
        if let Some(file) = &self.token_file {
            control = control.with_token(secret::token(file, "client.token_file")?);
        }
        let client = control.client().namespace(&self.namespace).name("run").build();
        let client = client.map_err(|error| refusal(&error))?;
        Ok((control, client))
    }

    /// Where the last known instances of other services are kept.
    fn cache(&self) -> Result<PathBuf, Errors> {
        let of = |name: &str| std::env::var(name).ok();
        let state = of("STATE_DIRECTORY").map(PathBuf::from);
        let home =
            || Some(default_data_dir(|name| std::env::var(name).ok())?.with_file_name("run"));
        let folder = state.or_else(home).ok_or_else(|| {
            usage("neither HOME nor XDG_DATA_HOME says where the sidecar may keep what it knows")
        })?;
        // One for each program, as two do not write one file.
        let name = format!("{}.{}.{}", self.namespace, self.service, self.arguments.port);
        Ok(folder.join("sidecar").join(name))
    }
}

impl Entry {
    /// Registers the program, whom others call at `port`, from now on.
    fn new(plan: &Plan, port: u16, (control, client): (Control, Client)) -> Result<Self, Errors> {
        let own = client.register(plan.registration(port)).map_err(|error| refusal(&error))?;
        Ok(Self { control, client, own })
    }
}

async fn supervise(plan: &Plan, session: &mut Session<'_>) -> Result<(u8, Sidecar), Errors> {
    let mut signals = PassedOn::listen().map_err(|error| unusual("signals", &error))?;
    // Names are judged before anything is started; nothing is sent yet.
    let found = plan.find(session)?;
    let sidecar = Sidecar::start(plan, &found.1)?;
    let variables = plan.variables(&found.0, sidecar.outbound.address());
    let mut group = Group::start(&plan.arguments.command, &variables, Parting::Term)
        .map_err(|error| unusual("the program", &error))?;
    let code = accompany(plan, &sidecar, found, (&mut group, &mut signals), session).await?;
    Ok((code, sidecar))
}

/// Registers the program of `group` once it is well, and deregisters it before it ends.
async fn accompany(
    plan: &Plan,
    sidecar: &Sidecar,
    found: (Control, Client),
    (group, signals): (&mut Group, &mut PassedOn),
    session: &mut Session<'_>,
) -> Ended {
    match becomes_well(plan, group, signals).await? {
        Next::Over(code) => return Ok(code),
        Next::Leave => return end(group, signals).await,
        Next::Unwell => {
            session.fail(&late(plan).into());
            end(group, signals).await?;
            return Ok(crate::exit::Exit::Unavailable.code());
        }
        Next::Well => {}
    }
    let port = sidecar.inbound.as_ref().map_or(plan.arguments.port, |own| own.address().port());
    let mut entry = match Entry::new(plan, port, found) {
        Ok(entry) => entry,
        Err(errors) => {
            end(group, signals).await?;
            return Err(errors);
        }
    };
    loop {
        let is_well = match serves(plan, group, signals).await? {
            Next::Over(code) => {
                let left = tokio::time::timeout(LEAVING_MAX, entry.own.deregister()).await;
                // Whom nobody could tell finds out by itself.
                drop(left);
                return Ok(code);
            }
            Next::Leave => return leave(entry, group, plan, signals).await,
            Next::Well => true,
            Next::Unwell => false,
        };
        if !entry.own.is_known()
            && let Ok(found) = plan.find(session)
            && found.0 != entry.control
        {
            entry.client.shutdown(Duration::ZERO).await;
            sidecar.outbound.ask(&found.1);
            entry = Entry::new(plan, port, found)?;
        }
        entry.own.set_well(is_well);
    }
}

/// Waits until the program is well, or it comes to something else.
async fn becomes_well(
    plan: &Plan,
    group: &mut Group,
    signals: &mut PassedOn,
) -> Result<Next, Errors> {
    let well = async {
        while !is_well(plan).await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let in_time = async { tokio::time::timeout(plan.start, well).await.is_ok() };
    meanwhile(group, signals, in_time).await
}

/// Looks once more, in a while, whether a program that was well still is.
async fn serves(plan: &Plan, group: &mut Group, signals: &mut PassedOn) -> Result<Next, Errors> {
    let look = async {
        tokio::time::sleep(CHECK_EVERY).await;
        is_well(plan).await
    };
    meanwhile(group, signals, look).await
}

async fn is_well(plan: &Plan) -> bool {
    let addresses = Addresses { loopback: true, allowed: Vec::new() };
    // What sends a check is large, and this waits for many things at a time.
    Box::pin(send(&plan.probe, &addresses)).await.health.is_healthy()
}

/// Waits until `look` says whether the program is well, or it comes to something else.
async fn meanwhile(
    group: &mut Group,
    signals: &mut PassedOn,
    look: impl Future<Output = bool>,
) -> Result<Next, Errors> {
    let mut look = std::pin::pin!(look);
    loop {
        tokio::select! {
            code = group.wait() => {
                return Ok(Next::Over(code.map_err(|error| unusual("the program", &error))?));
            }
            is_well = &mut look => return Ok(if is_well { Next::Well } else { Next::Unwell }),
            signal = signals.next() => match signal {
                Signal::TERM => return Ok(Next::Leave),
                other => group.signal(other),
            },
        }
    }
}

/// Deregisters, gives those who still call it time, and then tells it to end.
async fn leave(entry: Entry, group: &mut Group, plan: &Plan, signals: &mut PassedOn) -> Ended {
    let Entry { client, own, .. } = entry;
    let away = async {
        // Whom nobody could tell finds out by itself.
        drop(own.deregister().await);
        tokio::time::sleep(plan.drain).await;
    };
    let mut away = std::pin::pin!(tokio::time::timeout(plan.drain + LEAVING_MAX, away));
    loop {
        tokio::select! {
            code = group.wait() => {
                return code.map_err(|error| unusual("the program", &error).into());
            }
            _left_or_not = &mut away => break,
            signal = signals.next() => match signal {
                // Told twice: at once.
                Signal::TERM => break,
                other => group.signal(other),
            },
        }
    }
    let code = end(group, signals).await;
    client.shutdown(Duration::ZERO).await;
    code
}

async fn end(group: &mut Group, signals: &mut PassedOn) -> Ended {
    group.end(GRACE, signals).await.map_err(|error| unusual("the program", &error).into())
}

fn late(plan: &Plan) -> Report {
    let what = match &plan.arguments.health {
        Some(path) => format!("`{path}` of port {} does not answer 2xx", plan.arguments.port),
        None => format!("nobody listens on port {}", plan.arguments.port),
    };
    let span = plan.start.as_secs_f64();
    Report::error(Code::AppNotHealthy, format!("{what} after {span} s; the program is ended"))
        .help("give it longer with --start, or another --port or --health")
}

fn seconds(text: &str) -> Result<Duration, Errors> {
    // Nothing is a span too, here.
    if text.strip_suffix(['s', 'm', 'h']).unwrap_or(text) == "0" {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(span(text)?)
        .map_err(|error| usage(format!("`{text}` is no span of time: {error}")).into())
}

fn unusual(what: &str, error: &std::io::Error) -> Report {
    Report::error(Code::Internal, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_span_in_every_unit() {
        for text in ["0", "0s", "0m", "0h"] {
            assert_eq!(seconds(text).ok(), Some(Duration::ZERO), "{text}");
        }
        assert_eq!(seconds("1.5s").ok(), Some(Duration::from_millis(1_500)));
        for text in ["", "s", "-1s", "0x", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
