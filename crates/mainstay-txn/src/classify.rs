//! What an answer of a branch over HTTP means, in our own dialect.
//!
//! Only a complete answer says anything: a success is 2xx, a refusal is 409 and nothing else, 425
//! is "still at it". Whatever else comes back, or does not, leaves open what the branch did.

use std::time::Duration;

use crate::machine::Outcome;

/// How a call over HTTP ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a complete head.
    Answered {
        /// Its status.
        status: u16,
        /// What the body said, for people.
        detail: String,
    },
    /// Without one: timeout, reset. The request may have arrived.
    Broken(String),
    /// Provably not sent: no connection, no permit.
    Unsent(String),
    /// Provably not sent: the circuit is open, or a quota is used up.
    Closed {
        /// Why.
        why: String,
        /// When it makes sense again.
        retry_after: Duration,
    },
}

/// What `ending` means.
pub fn classify(ending: Ending) -> Outcome {
    match ending {
        Ending::Answered { status: 200..=299, .. } => Outcome::Done,
        Ending::Answered { status: 409, detail } => Outcome::Refused(detail),
        Ending::Answered { status: 425, .. } => Outcome::Ongoing,
        Ending::Answered { status, detail } => Outcome::Unknown(format!("{status} {detail}")),
        Ending::Broken(why) => Outcome::Unknown(why),
        Ending::Unsent(why) => Outcome::Unsent { why, retry_after: None },
        Ending::Closed { why, retry_after } => {
            Outcome::Unsent { why, retry_after: Some(retry_after) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_409_is_a_refusal_and_only_2xx_a_success() {
        for status in 100..600 {
            let outcome = classify(Ending::Answered { status, detail: String::new() });
            let want = match status {
                200..=299 => Outcome::Done,
                409 => Outcome::Refused(String::new()),
                425 => Outcome::Ongoing,
                _ => Outcome::Unknown(format!("{status} ")),
            };
            assert_eq!(outcome, want);
        }
        let reset = classify(Ending::Broken("reset".to_owned()));
        assert_eq!(reset, Outcome::Unknown("reset".to_owned()));
        let (why, retry_after) = ("open".to_owned(), Duration::from_secs(3));
        let closed = classify(Ending::Closed { why: why.clone(), retry_after });
        assert_eq!(closed, Outcome::Unsent { why, retry_after: Some(retry_after) });
    }
}
