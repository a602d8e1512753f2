//! `mainstay lock run` and `leader run`: a command that runs while something is held.

use std::ffi::OsString;
use std::time::Duration;

use mainstay_client::lock::LockRequest;
use mainstay_client::{Client, ClientError, Held};
use mainstay_core::belief::Loss;
use mainstay_core::problem::Code;
use rustix::process::Signal;

use super::super::arguments::lock::{Holding, LeaderRun, LockRun, OnLost};
use super::super::calls::span;
use super::super::{Ended, Session};
use crate::child::{Group, Parting, PassedOn};
use crate::control_client::{block_on, refusal};
use crate::exit::Exit;
use crate::report::Report;
use crate::settings::Errors;

/// Exit code: the control plane is away (`EX_UNAVAILABLE` of sysexits.h).
const AWAY: u8 = 69;

/// Exit code: it was not acquired; another time it may be (`EX_TEMPFAIL`).
const NOT_ACQUIRED: u8 = 75;

/// Exit code: it was lost while the command ran.
const LOST: u8 = 76;

/// How long giving back may take at the end; what is left ends with its session.
const GIVING_BACK_MAX: Duration = Duration::from_secs(5);

/// How a command runs, and what becomes of it.
struct Plan {
    on_lost: OnLost,
    grace: Duration,
    command: Vec<OsString>,
}

pub(super) fn lock(arguments: LockRun, session: &mut Session<'_>) -> Ended {
    let LockRun { lock, wait, at_once, shared, permits, limit, hold } = arguments;
    let client = client(&lock.namespace, session)?;
    let request = match (permits, limit) {
        (Some(permits), Some(limit)) => client.semaphore(&lock.name, permits, limit),
        _ => client.lock(&lock.name),
    };
    let request = if shared { request.shared() } else { request };
    let wait = if at_once { Duration::ZERO } else { seconds(&wait)? };
    let (request, plan) = planned(request.wait(wait), hold)?;
    run(client, request, plan, session)
}

pub(super) fn leader(arguments: LeaderRun, session: &mut Session<'_>) -> Ended {
    let LeaderRun { election, wait, at_once, value, hold } = arguments;
    let client = client(&election.namespace, session)?;
    let value = value.unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}/{}", std::process::id())
    });
    let request = client.election(&election.name, value);
    let request = match wait {
        _ if at_once => request.wait(Duration::ZERO),
        Some(wait) => request.wait(seconds(&wait)?),
        None => request,
    };
    let (request, plan) = planned(request, hold)?;
    run(client, request, plan, session)
}

/// The client that holds, named after the command that is run for.
fn client(namespace: &str, session: &Session<'_>) -> Result<Client, Errors> {
    let builder = session.control()?.client().namespace(namespace);
    builder.build().map_err(|error| refusal(&error).into())
}

fn planned(request: LockRequest, hold: Holding) -> Result<(LockRequest, Plan), Errors> {
    let Holding { ttl, on_lost, grace, command } = hold;
    let request = request.ttl(seconds(&ttl)?);
    // Nothing is a span too, here.
    let grace = if grace == "0" { Duration::ZERO } else { seconds(&grace)? };
    Ok((request, Plan { on_lost, grace, command }))
}

fn seconds(text: &str) -> Result<Duration, Errors> {
    Duration::try_from_secs_f64(span(text)?).map_err(|error| {
        Report::error(Code::Usage, format!("`{text}` is no span of time: {error}")).into()
    })
}

fn run(client: Client, request: LockRequest, plan: Plan, session: &mut Session<'_>) -> Ended {
    block_on(async {
        let code = hold(request, plan, session).await;
        // Also what was asked for and given up.
        let _left_to_its_session = client.shutdown(GIVING_BACK_MAX).await;
        code
    })?
}

/// Acquires, runs, gives back.
async fn hold(request: LockRequest, plan: Plan, session: &mut Session<'_>) -> Ended {
    let mut signals = PassedOn::listen().map_err(|error| unusual("signals", &error))?;
    let held = tokio::select! {
        held = request.acquire() => held,
        signal = signals.next() => return Ok(ended_by(signal)),
    };
    let held = match held {
        Ok(held) => held,
        Err(error) => return Ok(not_acquired(&error, session)),
    };
    let variables = [
        ("MAINSTAY_LOCK_NAME", held.name().to_owned()),
        ("MAINSTAY_LOCK_TOKEN", held.token().to_string()),
    ];
    let parting = match plan.on_lost {
        OnLost::Term => Parting::Term,
        OnLost::Kill => Parting::Kill,
        OnLost::Ignore => Parting::Ignore,
    };
    let mut group = Group::start(&plan.command, &variables, parting)
        .map_err(|error| unusual("the command", &error))?;
    let (code, loss) = follow(&held, &mut group, &plan, &mut signals, session).await?;
    if loss.is_some() {
        return Ok(if plan.on_lost == OnLost::Ignore { code } else { LOST });
    }
    match held.release().await {
        // The next one could begin before the command had ended.
        Err(ClientError::Lost(loss)) if plan.on_lost != OnLost::Ignore => {
            tell_loss(loss, session);
            Ok(LOST)
        }
        Ok(()) | Err(_) => Ok(code),
    }
}

/// Follows the command to its end. Returns its exit code, and how what was held was lost if it
/// was.
async fn follow(
    held: &Held,
    group: &mut Group,
    plan: &Plan,
    signals: &mut PassedOn,
    session: &mut Session<'_>,
) -> Result<(u8, Option<Loss>), Errors> {
    let mut lost = None;
    loop {
        tokio::select! {
            code = group.wait() => {
                let code = code.map_err(|error| unusual("the command", &error))?;
                return Ok((code, lost));
            }
            loss = held.on_lost(), if lost.is_none() => {
                lost = Some(loss);
                tell_loss(loss, session);
                let grace = match plan.on_lost {
                    OnLost::Term => plan.grace,
                    OnLost::Kill => Duration::ZERO,
                    OnLost::Ignore => continue,
                };
                let ended = group.end(grace, signals).await;
                let code = ended.map_err(|error| unusual("the command", &error))?;
                return Ok((code, lost));
            }
            signal = signals.next() => group.signal(signal),
        }
    }
}

/// Says why nothing was acquired; returns the exit code for that.
fn not_acquired(error: &ClientError, session: &mut Session<'_>) -> u8 {
    let report = refusal(error);
    let exit = report.exit;
    session.fail(&report.into());
    match error {
        // Nobody answered for as long as the place in the queue was believed in.
        ClientError::Lost(Loss::Expired) | ClientError::Unreachable { .. } => AWAY,
        ClientError::Lost(_) => NOT_ACQUIRED,
        ClientError::Refused(problem)
            if [Code::LockBusy, Code::LockWaitTimeout]
                .map(Code::as_str)
                .contains(&&*problem.code) =>
        {
            NOT_ACQUIRED
        }
        _ if exit == Exit::Unavailable || exit == Exit::Unknown => AWAY,
        ClientError::Refused(_) | ClientError::Invalid { .. } | ClientError::Stopped => exit.code(),
    }
}

fn tell_loss(loss: Loss, session: &mut Session<'_>) {
    let why = match loss {
        Loss::Expired => "the control plane did not answer in time",
        Loss::SessionGone => "its session has ended",
        Loss::Revoked => "it was taken away",
        Loss::StoreRegressed => "the store went back in time",
    };
    session.fail(&Report::error(Code::LockLost, format!("the lock is lost: {why}")).into());
}

/// As a shell tells of a signal.
fn ended_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

fn unusual(what: &str, error: &std::io::Error) -> Errors {
    Report::error(Code::Internal, format!("{what}: {error}")).into()
}
