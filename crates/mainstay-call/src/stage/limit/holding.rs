//! What a call holds until the last byte of its answer, and what its end says of the peer.

use http::HeaderMap;
use http_body::Body;
use mainstay_core::Clock;
use mainstay_resilience::Failure;
use mainstay_resilience::classify::Answer as Status;

use super::asking::{Asking, Held};
use crate::answer::{self, Head};
use crate::clock::MonotonicClock;
use crate::context::{Context, Degraded};
use crate::error::CallError;
use crate::limit::Fared;
use crate::watched::{OnEnd, Watched};

/// The end of a call, but for the body of its answer.
pub(super) fn ended<R: Body>(
    result: Result<http::Response<R>, CallError>,
    asking: &mut Asking,
) -> Result<http::Response<Watched<R, Holding>>, CallError> {
    let held = asking.take_permits();
    match result {
        Ok(mut response) => {
            let context = asking.context();
            if let Some(quota) = context.quota() {
                quota.write(response.headers_mut());
            }
            let holding = held.map(|mut held| {
                let now = MonotonicClock.now();
                held.iter_mut().flatten().for_each(|taken| taken.answered(now));
                let says = Says::of(&response, context);
                Holding(Box::new(Holds { held, says }))
            });
            Ok(response.map(|body| Watched::new(body, holding)))
        }
        Err(error) => {
            if let Some(held) = held {
                let says = after_failure(&error);
                held.into_iter().flatten().for_each(|taken| taken.ended(says));
            }
            Err(error)
        }
    }
}

/// What a call that brought no answer says of the peer's load.
fn after_failure(error: &CallError) -> Fared {
    let CallError::Failed { failure, .. } = error else { return Fared::Unknown };
    match failure {
        Failure::RequestTimeout | Failure::ConnectTimeout | Failure::Deadline { sent: true } => {
            Fared::TimedOut
        }
        Failure::Congestion(_) => Fared::Dropped,
        _ => Fared::Unknown,
    }
}

/// What an answer says of the peer's load.
#[derive(Clone, Copy, Debug)]
enum Says {
    Known(Fared),
    /// Its status is still to come.
    InTrailers,
}

impl Says {
    fn of<R>(response: &http::Response<R>, context: &Context) -> Self {
        if let Some(Degraded { kind, cause }) = context.degraded()
            && kind != "delay"
        {
            // Somebody else answered; what called for it is what the peer did.
            return Self::Known(match cause {
                "timeout" => Fared::TimedOut,
                "congestion" => Fared::Dropped,
                _ => Fared::Unknown,
            });
        }
        match answer::head(response) {
            Head::InTrailers => Self::InTrailers,
            Head::Known(status) => {
                let hinted = answer::retry_after(response.headers()).is_some();
                Self::Known(of_status(status, hinted))
            }
        }
    }
}

/// A failed answer may come faster than any good one, and says nothing of load.
fn of_status(status: Status, hinted: bool) -> Fared {
    match status {
        status if status.is_refusal(hinted) => Fared::Dropped,
        Status::Http(..500) | Status::Grpc(0 | 3 | 5..=7 | 9..=12 | 16) => Fared::Well,
        Status::Http(_) | Status::Grpc(_) => Fared::Unknown,
    }
}

/// Permits of a call whose answer's body is still on its way. Boxed, since most limits tell time
/// and have nothing to hold.
#[derive(Debug)]
pub struct Holding(Box<Holds>);

#[derive(Debug)]
struct Holds {
    held: Held,
    says: Says,
}

impl OnEnd for Holding {
    fn ended(self, trailers: Option<&HeaderMap>) {
        let Holds { held, says } = *self.0;
        let says = match says {
            Says::Known(says) => says,
            Says::InTrailers => of_status(answer::trailers(trailers), false),
        };
        held.into_iter().flatten().for_each(|taken| taken.ended(says));
    }
}
