//! Limits: how much may pass, and when to come back.
//!
//! | machine | for | bound |
//! |---|---|---|
//! | [`counter`] | plain quotas per window, reported to customers | ≤ max per window, up to 2·max across an edge |
//! | [`sliding`] | quotas that must hold at every moment | weighted ≤ max + one sub-window, full ≤ max |
//! | [`bucket`] | the default: an even rate with room for a burst | ≤ burst + rate·t for every t |
//! | [`pacing`] | evenly spaced calls, for peers that cannot take bursts | spacing exact to 1 µs |
//! | [`warm_up`] | peers that are slow when cold | from a third of the rate to all of it in a set time |
//! | [`concurrency`] | calls in flight, for peers whose answer time varies | never above max |
//!
//! The first five tell time and are asked through [`Limiter`]; [`Keyed`] keeps one of them for each
//! principal, address or header value. The sixth is [`Semaphore`], which is also the gate of an
//! adaptive limit: its maximum can be moved while calls are in flight.
//!
//! Each time-based machine is split in two: a rule, made once from the [`LimitPolicy`], and a state
//! of a few words. So one rule serves a million keys, and a live change of policy is a function
//! from one state to another. Everything is exact under one owner; sharing is done by the caller,
//! with a short lock or, for the bucket, by compare-and-swap on the one word [`gcra`] works on.

mod decision;
mod machine;
mod policy;
mod snapshot;

pub mod bucket;
pub mod concurrency;
pub mod counter;
pub mod keyed;
pub mod limiter;
pub mod pacing;
pub mod sliding;
pub mod top;
pub mod warm_up;

pub use bucket::{Rate, gcra};
pub use concurrency::{Admission, Claim, Permit, Semaphore, Ticket, TicketId};
pub use decision::{Cost, Decision, Denied, Receipt, Tally, Usage};
pub use keyed::{Keyed, KeyedUsage};
pub use limiter::Limiter;
pub use policy::{
    Algorithm, Edge, Kind, LimitPolicy, Mode, OnDeny, Order, Override, Quota, RawKind, RawLimit,
    RawOverride, Waiting,
};
pub use snapshot::QuotaLeft;
pub use top::{KeyText, TopKey};
