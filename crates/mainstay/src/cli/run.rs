//! `mainstay run`: starts a program, registers it once it is well, and deregisters it before it
//! ends.
//!
//! The control plane need not be there: the program runs without it, and is registered when it
//! comes.

use std::time::Duration;

use mainstay_client::registry::{Registered, Registration};
use mainstay_client::{Client, ClientError};
use mainstay_coord::ServiceRef;
use mainstay_coord::health::check::{Check, RawCheck};
use mainstay_coord::health::rounds::Probe;
use mainstay_coord::health::send::send;
use mainstay_coord::health::targets::Addresses;
use mainstay_coord::name::{InstanceId, Namespace};
use mainstay_core::name::ServiceName;
use mainstay_core::problem::Code;
use rustix::process::Signal;

use super::arguments::run::RunProgram;
use super::calls::span;
use super::{Ended, Session, usage};
use crate::child::{Group, Parting, PassedOn};
use crate::control_client::{Control, block_on, refusal};
use crate::report::Report;
use crate::secret;
use crate::settings::Errors;

/// From one look whether the program is well to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often the control plane is looked for anew while it does not know the program: another one
/// may have been started, with a token of its own.
const FIND_EVERY: Duration = Duration::from_secs(5);

/// How long deregistering may take when the program has ended by itself.
const LEAVING_MAX: Duration = Duration::from_secs(3);

/// What is run, and how.
struct Plan {
    namespace: String,
    registration: Registration,
    probe: Probe,
    start: Duration,
    drain: Duration,
    grace: Duration,
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
    /// It did not become well in time.
    Late,
    /// Time to look for the control plane.
    Find,
}

pub(super) fn run(arguments: RunProgram, session: &mut Session<'_>) -> Ended {
    super::role::logs();
    let plan = Plan::new(arguments)?;
    block_on(async { supervise(&plan, session).await })?
}

impl Plan {
    fn new(arguments: RunProgram) -> Result<Self, Errors> {
        let (namespace, service) = match arguments.service.split_once('/') {
            Some((namespace, service)) => (namespace.to_owned(), service.to_owned()),
            None => (arguments.namespace.clone(), arguments.service.clone()),
        };
        let (address, port) = (arguments.address.clone(), arguments.port);
        let mut registration = Registration::new(&service, &address, port);
        if let Some(id) = &arguments.id {
            registration = registration.id(id);
        }
        if let Some(weight) = arguments.weight {
            registration = registration.weight(weight);
        }
        if let Some(zone) = &arguments.zone {
            registration = registration.zone(zone);
        }
        if let Some(build) = &arguments.build {
            registration = registration.version(build);
        }
        for tag in &arguments.tags {
            registration = registration.tag(tag);
        }
        let raw = RawCheck {
            name: "start".to_owned(),
            kind: if arguments.health.is_some() { "http" } else { "tcp" }.to_owned(),
            path: arguments.health.clone(),
            ..RawCheck::default()
        };
        let wrong = |error: &dyn std::error::Error| usage(error.to_string());
        let check = Check::try_from(&raw).map_err(|error| wrong(&error))?;
        let id = arguments.id.clone().unwrap_or_else(|| format!("{address}:{port}"));
        let of = ServiceRef {
            namespace: Namespace::new(&*namespace).map_err(|error| wrong(&error))?,
            name: ServiceName::new(&service).map_err(|error| wrong(&error))?,
        };
        let of = of.instance(&InstanceId::new(id).map_err(|error| wrong(&error))?);
        Ok(Self {
            namespace,
            registration,
            probe: Probe::alone(of, check, &address, port),
            start: seconds(&arguments.start)?,
            drain: seconds(&arguments.drain)?,
            grace: seconds(&arguments.grace)?,
            arguments,
        })
    }

    /// What the program finds in its environment.
    fn variables(&self, control: Option<&Control>) -> Vec<(&'static str, String)> {
        let service = self.arguments.service.rsplit('/').next().unwrap_or_default();
        let address = control.map(|control| ("MAINSTAY_ADDR", control.url().to_owned()));
        let name = ("OTEL_SERVICE_NAME", service.to_owned());
        address.into_iter().chain([name]).collect()
    }

    /// The control plane of this moment.
    fn find(&self, session: &Session<'_>) -> Result<Control, Errors> {
        let control = session.control()?;
        match &self.arguments.token_file {
            Some(file) => Ok(control.with_token(secret::token(file, "--token-file")?)),
            None => Ok(control),
        }
    }

    /// Registers with `control`, from now on.
    fn enter(&self, control: Control) -> Result<Entry, Errors> {
        let enter = || {
            let client = control.client().namespace(&self.namespace).name("run").build()?;
            let own = client.register(self.registration.clone())?;
            Ok::<_, ClientError>((client, own))
        };
        let (client, own) = enter().map_err(|error| refusal(&error))?;
        Ok(Entry { control, client, own })
    }
}

async fn supervise(plan: &Plan, session: &mut Session<'_>) -> Ended {
    let mut signals = PassedOn::listen().map_err(|error| unusual("signals", &error))?;
    // Names are judged before anything is started; nothing is sent yet.
    let found = plan.find(session)?;
    let variables = plan.variables(Some(&found));
    let mut group = Group::start(&plan.arguments.command, &variables, Parting::Term)
        .map_err(|error| unusual("the program", &error))?;
    match becomes_well(plan, &mut group, &mut signals).await? {
        Next::Over(code) => return Ok(code),
        Next::Leave => return end(&mut group, plan, &mut signals).await,
        Next::Late => {
            session.fail(&late(plan).into());
            end(&mut group, plan, &mut signals).await?;
            return Ok(crate::exit::Exit::Unavailable.code());
        }
        Next::Well | Next::Find => {}
    }
    let mut entry = match plan.enter(found) {
        Ok(entry) => entry,
        Err(errors) => {
            end(&mut group, plan, &mut signals).await?;
            return Err(errors);
        }
    };
    loop {
        match serves(&mut group, &mut signals).await? {
            Next::Over(code) => {
                let left = tokio::time::timeout(LEAVING_MAX, entry.own.deregister()).await;
                // Whom nobody could tell finds out by itself.
                drop(left);
                return Ok(code);
            }
            Next::Leave => return leave(entry, &mut group, plan, &mut signals).await,
            Next::Find | Next::Well | Next::Late => {
                if !entry.own.is_known()
                    && let Ok(control) = plan.find(session)
                    && control != entry.control
                {
                    entry.client.shutdown(Duration::ZERO).await;
                    entry = plan.enter(control)?;
                }
            }
        }
    }
}

/// Waits until the program is well, or it comes to something else.
async fn becomes_well(
    plan: &Plan,
    group: &mut Group,
    signals: &mut PassedOn,
) -> Result<Next, Errors> {
    let well = async {
        let addresses = Addresses { loopback: true, allowed: Vec::new() };
        while !send(&plan.probe, &addresses).await.health.is_healthy() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let mut well = std::pin::pin!(tokio::time::timeout(plan.start, well));
    loop {
        tokio::select! {
            code = group.wait() => {
                return Ok(Next::Over(code.map_err(|error| unusual("the program", &error))?));
            }
            came = &mut well => return Ok(if came.is_ok() { Next::Well } else { Next::Late }),
            signal = signals.next() => match signal {
                Signal::TERM => return Ok(Next::Leave),
                other => group.signal(other),
            },
        }
    }
}

/// Waits for what happens to a program that is well.
async fn serves(group: &mut Group, signals: &mut PassedOn) -> Result<Next, Errors> {
    let mut find = std::pin::pin!(tokio::time::sleep(FIND_EVERY));
    loop {
        tokio::select! {
            code = group.wait() => {
                return Ok(Next::Over(code.map_err(|error| unusual("the program", &error))?));
            }
            () = &mut find => return Ok(Next::Find),
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
    let code = end(group, plan, signals).await;
    client.shutdown(Duration::ZERO).await;
    code
}

async fn end(group: &mut Group, plan: &Plan, signals: &mut PassedOn) -> Ended {
    group.end(plan.grace, signals).await.map_err(|error| unusual("the program", &error).into())
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
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(span(text)?)
        .map_err(|error| usage(format!("`{text}` is no span of time: {error}")).into())
}

fn unusual(what: &str, error: &std::io::Error) -> Report {
    Report::error(Code::Internal, format!("{what}: {error}"))
}
