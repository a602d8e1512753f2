//! What the control plane's API says and is told, as types.
//!
//! Server and clients use the same ones, so that neither can send what the other does not know.
//! There is no behaviour here: a document is checked by whoever acts on it.
//!
//! - Names are `snake_case`; lengths of time are whole or broken seconds and end in `_seconds`;
//!   moments are RFC 3339, by the wall clock of the node that answers, and never to be decided by.
//! - Documents of requests refuse keys nobody knows. Those of answers and events do not: within v1
//!   fields are added, and a client passes over what it does not know.
//! - Numbers stay below 2⁵³, since JSON is read into doubles in places. What may be larger, such as
//!   the id of a session, is text.
//!
//! | what | module |
//! |---|---|
//! | following configuration | [`config`] |
//! | sessions, locks, semaphores, elections | [`lock`] |
//! | services and their instances | [`registry`] |
//! | the data plane: circuits, limits, instances, faults, routes | [`gateway`] |
//! | a process and its store | [`node`] |
//! | rules and switches | [`rules`] |
//! | global transactions | [`transaction`] |
//! | requests that are made later | [`deferred`] |
//! | receipts of branches in databases | [`receipt`] |
//! | barriers of participants | [`barrier`] |
//! | why something did not work | [`problem`] |
//! | events of streams | [`stream`] |
//! | the same streams over gRPC, with the feature `grpc` | `grpc` |

pub mod barrier;
pub mod config;
pub mod deferred;
pub mod gateway;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod lock;
pub mod node;
pub mod problem;
pub mod receipt;
pub mod registry;
pub mod rules;
pub mod stream;
pub mod transaction;
