//! The task that keeps a session: does what the belief says.

use std::time::Duration;

use http::Method;
use mainstay_api::lock::{Release, SessionRenewed};
use mainstay_call::draw;
use mainstay_core::belief::{Loss, Standing, Step};
use mainstay_core::problem::Code;
use mainstay_core::{Effect, Instant};
use tokio_util::sync::CancellationToken;

use super::{State, seconds, stream};
use crate::control::Call;
use crate::error::ClientError;
use crate::pause::pause;
use crate::{clock, events};

/// Renews until the session is lost, or nobody wants it, or the client stops; then ends it.
pub(super) async fn run(state: &State, shutdown: &CancellationToken) {
    let mut told = std::pin::pin!(stream::loss(state));
    let mut stopped = std::pin::pin!(async {
        tokio::select! { () = state.unwanted.cancelled() => {}, () = shutdown.cancelled() => {} }
    });
    let mut was_in_jeopardy = false;
    loop {
        let now = clock::now();
        let step = state.belief.lock().poll(now);
        let standing = state.belief.lock().standing();
        if standing == Standing::Jeopardy && !was_in_jeopardy {
            events::Jeopardy { session: &state.id }.emit();
        }
        was_in_jeopardy = standing == Standing::Jeopardy;
        let until = match step {
            Step::End(loss) => {
                state.lose(loss);
                events::SessionLost { session: &state.id, reason: loss.as_str() }.emit();
                state.ended.send_replace(Some(Err(ClientError::Lost(loss))));
                return;
            }
            Step::Wait(until) => until,
            Step::Renew => {
                let timeout = state.belief.lock().terms().try_timeout();
                tokio::select! {
                    biased;
                    () = &mut stopped => return end(state).await,
                    loss = &mut told => state.lose(loss),
                    answer = renew(state, timeout) => take(state, now, answer),
                    // The belief counts it as failed when it is asked next.
                    () = clock::sleep_until(now.plus(timeout)) => {}
                }
                continue;
            }
        };
        tokio::select! {
            biased;
            () = &mut stopped => return end(state).await,
            loss = &mut told => state.lose(loss),
            () = clock::sleep_until(until) => {}
        }
    }
}

async fn renew(state: &State, timeout: Duration) -> Result<Duration, ClientError> {
    // A little less than the belief gives it, so that a server that hangs is left for the next.
    let call = state.call(Method::PUT, "/renew", timeout.mul_f64(0.9));
    let renewed: SessionRenewed = state.client.control.ask(&call).await?;
    seconds(renewed.ttl_seconds).ok_or_else(super::odd_answer)
}

/// Takes the answer to the try that was sent at `sent`.
fn take(state: &State, sent: Instant, answer: Result<Duration, ClientError>) {
    let now = clock::now();
    match answer {
        Ok(ttl) => state.belief.lock().renewed(sent, now, ttl),
        Err(error) => match loss_of(&error) {
            Some(loss) => state.lose(loss),
            None => state.belief.lock().failed(now),
        },
    }
}

/// Whether an answer means that the session is gone.
pub(super) fn loss_of(error: &ClientError) -> Option<Loss> {
    if error.is(Code::SessionNotFound) {
        return Some(Loss::SessionGone);
    }
    error.is(Code::StoreRegressed).then_some(Loss::StoreRegressed)
}

/// Gives back what is held, then ends the session; whoever still has it is told before. What cannot
/// be given back while it would be held ends by itself, since nobody renews it.
async fn end(state: &State) {
    let Ok(until) = state.belief.lock().check(clock::now()) else {
        state.ended.send_replace(Some(Err(ClientError::Lost(Loss::Expired))));
        return;
    };
    state.lose(Loss::SessionGone);
    let hold = state.hold.lock().clone();
    let mut came = Ok(());
    if let Some(hold) = hold {
        let release = Release {
            session: state.id.clone(),
            token: hold.place.token,
            request_id: format!("{:016x}{:016x}", draw::next(), draw::next()),
        };
        let call = Call::new(Method::POST, format!("{}/release", hold.path), TRY_TIMEOUT);
        came = insist(state, &call.secret(&state.secret).document(&release), until).await;
    }
    let ended = insist(state, &state.call(Method::DELETE, "", TRY_TIMEOUT), until).await;
    // Either of the two gives it back.
    if ended.is_ok() && came.as_ref().is_err_and(ClientError::is_passing) {
        came = ended;
    }
    state.ended.send_replace(Some(came));
}

/// Makes `call` until it is answered, or what it is about is over. A session that is gone already
/// is as good, and so is a lock once a try without an answer may have given it back.
async fn insist(state: &State, call: &Call, until: Instant) -> Result<(), ClientError> {
    let mut tries = 0;
    let mut may_be_done = false;
    loop {
        let error = match state.client.control.send(call).await {
            Ok(_done) => return Ok(()),
            Err(error) if error.is(Code::SessionNotFound) => return Ok(()),
            Err(error) if may_be_done && error.is(Code::LockNotHeld) => return Ok(()),
            Err(error) => error,
        };
        may_be_done |= error.effect() != Effect::None;
        tries += 1;
        if !error.is_passing() || until <= clock::now() {
            return Err(error);
        }
        pause(tries, error.retry_after()).await;
    }
}

/// For one try of giving back.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
