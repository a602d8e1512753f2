//! What the server tells of a session without being asked: that something was taken from it.
//!
//! Renewals alone would find out within a third of the ttl that a session has ended, and never
//! that one lock was taken while the session goes on.

use http::Method;
use mainstay_api::lock::{HeldPlace, LossReason, SessionChange, SessionSnapshot};
use mainstay_api::stream::{CHANGE, SNAPSHOT};
use mainstay_core::belief::Loss;

use super::State;
use super::keep::loss_of;
use crate::pause::pause;
use crate::sse::Event;
use crate::stream::{HEAD_TIMEOUT, Stream};

/// Waits until the server says that the session, or what hangs on it, is lost. A stream that ends
/// or goes silent is opened anew, and its first event tells what was missed.
pub(super) async fn loss(state: &State) -> Loss {
    let mut tries = 0;
    loop {
        let call = state.call(Method::GET, "/stream", HEAD_TIMEOUT);
        match Stream::open(&state.client.control, &call).await {
            Ok(mut stream) => {
                while let Some(event) = stream.next().await {
                    tries = 0;
                    if let Some(loss) = told(state, &event) {
                        return loss;
                    }
                }
            }
            Err(error) => {
                if let Some(loss) = loss_of(&error) {
                    return loss;
                }
            }
        }
        tries += 1;
        pause(tries, None).await;
    }
}

/// What an event says of what is held here.
fn told(state: &State, event: &Event) -> Option<Loss> {
    let hold = state.hold.lock().clone();
    match event.name.as_str() {
        SNAPSHOT => {
            let snapshot: SessionSnapshot = serde_json::from_str(&event.data).ok()?;
            let hold = hold?;
            let is_missing =
                hold.revision <= snapshot.revision && !snapshot.held.contains(&hold.place);
            is_missing.then_some(Loss::Revoked)
        }
        CHANGE => match serde_json::from_str(&event.data).ok()? {
            SessionChange::Ended { reason } => Some(loss_for(reason)),
            SessionChange::Lost { place, reason } => {
                is_ours(hold.as_ref().map(|hold| &hold.place), &place).then(|| loss_for(reason))
            }
        },
        _ => None,
    }
}

/// Whether what was lost is what is held, or about to be: a session here has one place.
fn is_ours(held: Option<&HeldPlace>, lost: &HeldPlace) -> bool {
    held.is_none_or(|held| held == lost)
}

const fn loss_for(reason: LossReason) -> Loss {
    match reason {
        LossReason::Expired => Loss::Expired,
        LossReason::SessionGone => Loss::SessionGone,
        LossReason::Revoked => Loss::Revoked,
        LossReason::StoreRegressed => Loss::StoreRegressed,
    }
}
