//! Opens a session, and asks until it is granted, refused or lost.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use mainstay_api::lock::{AcquireLock, AcquirePermits, Granted, HeldPlace, StandForElection};
use mainstay_call::draw;
use mainstay_core::problem::Code;

use super::{Held, LockRequest, Want, place_path};
use crate::clock;
use crate::control::Call;
use crate::error::ClientError;
use crate::pause::pause;
use crate::session::{Hold, Session};

/// Longest wait that one request asks for; the server allows no more. Who waits longer asks again,
/// and is then behind whoever came meanwhile.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// For an answer to come after the wait is over: a grant or a refusal takes two commits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a session for `request` and asks for what it wants.
pub(super) async fn acquire(request: &LockRequest, ttl: Duration) -> Result<Held, ClientError> {
    let LockRequest { client, name, want, .. } = request;
    let namespace = &client.shared.namespace;
    let path = place_path(want.area(), namespace, name);
    // Dropped with this future, it ends the session and with it the place in the queue.
    let session = Session::open(Arc::clone(&client.shared), ttl).await?;
    let granted = tokio::select! {
        granted = ask(request, &session, &path) => granted?,
        loss = session.lost() => return Err(ClientError::Lost(loss)),
    };
    let Granted { token, revision, .. } = granted;
    let place =
        HeldPlace { area: want.area(), namespace: namespace.clone(), name: name.clone(), token };
    session.granted(Hold { path: path.clone(), place, revision });
    let held = Held::new(session, path, format!("{namespace}/{name}"), token, revision);
    held.check()?;
    Ok(held)
}

/// Asks until there is an answer that means something.
async fn ask(request: &LockRequest, session: &Session, path: &str) -> Result<Granted, ClientError> {
    let began = clock::now();
    let request_id = format!("{:016x}{:016x}", draw::next(), draw::next());
    let mut tries = 0;
    loop {
        let left = request.wait.map(|wait| wait.saturating_sub(clock::now().since(began)));
        let wait = left.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let call = Call::new(Method::POST, format!("{path}/acquire"), wait + ANSWER_TIMEOUT);
        let call = document(request, session, &request_id, wait, call).secret(session.secret());
        let error = match session.control().ask(&call).await {
            Ok(granted) => return Ok(granted),
            Err(error) => error,
        };
        let is_time_left = left.is_none_or(|left| !left.is_zero());
        // What was not answered, or by a server on its way out, is repeated: it counts once. The
        // session ends this if nobody answers for as long as it is believed in.
        if error.is_passing() && is_time_left {
            tries += 1;
            pause(tries, error.retry_after()).await;
        // Else the wait of one request may be over, and not the caller's.
        } else if !(error.is(Code::LockWaitTimeout) && left.is_none_or(|left| WAIT_MAX < left)) {
            return Err(error);
        }
    }
}

fn document(
    request: &LockRequest,
    session: &Session,
    request_id: &str,
    wait: Duration,
    call: Call,
) -> Call {
    let (wait_seconds, request_id) = (wait.as_secs_f64(), request_id.to_owned());
    let own = session.id().to_owned();
    match &request.want {
        Want::Exclusive | Want::Shared => call.document(&AcquireLock {
            session: own,
            mode: request.want.mode(),
            wait_seconds,
            request_id,
            reentrant: true,
            lock_delay_seconds: request.lock_delay.as_secs_f64(),
        }),
        Want::Permits { permits, limit } => call.document(&AcquirePermits {
            session: own,
            permits: *permits,
            limit: *limit,
            wait_seconds,
            request_id,
        }),
        Want::Leadership { value } => call.document(&StandForElection {
            session: own,
            value: value.clone(),
            wait_seconds,
            request_id,
        }),
    }
}
