//! The registry: services, their instances, and what happens to them.
//!
//! Paths are `/api/v1/registry/{namespace}/services/{service}`, and below that
//! `/instances/{id}`.
//!
//! | call | document | answer |
//! |---|---|---|
//! | `GET …` | – | [`ServiceView`] |
//! | `PUT …/instances/{id}` | [`Register`] | [`Registered`] |
//! | `DELETE …/instances/{id}` | – | [`Written`] |
//! | `POST …/instances/{id}/heartbeat` | – | – |
//! | `POST …/instances/{id}/drain` | [`Drain`] | [`Written`] |
//! | `POST …/instances/{id}/undrain` | – | [`Written`] |
//! | `POST …/instances/{id}/maintenance` | [`Maintenance`] | [`Written`] |
//! | `POST …/instances/{id}/weight` | [`Weight`] | [`Written`] |
//! | `POST …/instances/{id}/check` | [`CheckReport`] | – |
//! | `POST /registry/heartbeats` | [`Heartbeats`] | [`Missing`] |
//! | `POST /registry/observations` | [`Observed`] | – |
//! | `GET /registry/watch` | – | a stream of [`ServiceView`] |
//!
//! Words in answers (`state`, `health`, `kind`) are texts: a newer version may know more of them.

mod ask;
mod view;

pub use ask::{
    CheckReport, Drain, Health, Heartbeats, InstanceName, Kind, Maintenance, Missing, Observed,
    Register, Registered, State, Weight, Written,
};
pub use view::{CheckState, Instance, Protected, ServiceAt, ServiceView};

/// The header of a watch that says which history its revisions are of. A client that resumes says
/// it in the parameter `store`, so that revisions of a store that was replaced are not taken for
/// those of the one before.
pub const STORE_HEADER: &str = "mainstay-store";
