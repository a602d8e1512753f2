//! The words every part of Mainstay shares.
//!
//! A word stands here when more than one crate has to mean the same thing by it: a moment, a name,
//! a refusal, a problem. There is no behaviour here beyond what a word needs to keep its promise.
//!
//! | word | module |
//! |---|---|
//! | moments, and where waiting code gets them | [`time`] |
//! | what the holder of a lease believes, and how it loses | [`belief`] |
//! | moments of the wall clock, as people write them | [`moment`] |
//! | what a switch is, and for whom | [`switch`] |
//! | names of services, instances, routes | [`name`] |
//! | what a failed call may have done | [`effect`] |
//! | why a stage refused | [`rejection`] |
//! | what a caller is told | [`problem`] |
//! | names nobody has used | [`uuid`] |

pub mod belief;
pub mod effect;
pub mod moment;
pub mod name;
pub mod problem;
pub mod rejection;
pub mod switch;
pub mod time;
pub mod uuid;

pub use effect::Effect;
pub use moment::Moment;
pub use problem::Problem;
pub use rejection::Rejection;
pub use time::{Clock, Instant, ManualClock};
