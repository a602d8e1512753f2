//! Taking out instances that answer worse than their peers.
//!
//! A health check asks an instance how it is; this asks those who called it. An instance that
//! passes its checks and fails every third call is found here and nowhere else. What is compared
//! is the instance with the others, so a fault that all share (a bad request, a broken database
//! behind them) ejects nobody by success rate or latency.
//!
//! The hot part and the deciding part are separate values. A [`Tally`] per instance (and, if the
//! caller likes, per thread) counts results; [`Outliers`] takes the tallies at the end of each
//! interval, decides, and returns [`Change`]s. An instance is known by a number that stays the
//! same for as long as the instance does, so that a change of the set forgets nothing about those
//! who stay.
//!
//! Ejecting is the one thing here that can make matters worse: taking out the last instance turns
//! a bad service into none. So the floor is judged *after* the ejection, and restored at once when
//! instances leave or turn unhealthy; what it kept from being ejected is reported.
//!
//! Rules and default numbers are Envoy's (`outlier_detection`) but for the latency rule, which
//! Envoy lacks (envoy#288), and the floor, which Envoy judges before the ejection (envoy#26877).

mod judge;
mod machine;
mod policy;
mod tally;
#[cfg(test)]
mod tests;

pub use judge::{Evidence, Rule};
pub use machine::{Change, Ejection, Outliers, Peer};
pub use policy::{OutlierPolicy, RawOutlier};
pub use tally::Tally;
