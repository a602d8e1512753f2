//! Everything a call passes through, as tower layers: one layer a stage.

mod answer;
pub mod budget;
pub mod calls;
pub mod circuit;
pub mod clock;
pub mod context;
pub mod deferred;
pub mod draw;
pub mod endpoint;
pub mod error;
pub mod failing;
pub mod guard;
pub mod instances;
pub mod limit;
pub mod machines;
pub mod observe;
pub mod pause;
pub mod policy;
pub mod replay;
pub mod resolve;
pub mod stage;
pub mod stale;
mod sync;
mod timer;
pub mod transport;
pub mod watched;

pub use calls::Calls;
pub use deferred::Deferred;
pub use error::{BoxError, CallError, Refusal};
pub use guard::Guard;
pub use policy::Policy;
