//! What the data plane of a process does: circuits, limits, instances, faults, routes.
//!
//! | call | document | answer |
//! |---|---|---|
//! | `GET /circuit-states` | – | items of [`Circuit`] |
//! | `GET /limits/NS/NAME/usage` | – | [`LimitUsage`] |
//! | `GET /balance/NS/SERVICE` | – | [`Balance`] |
//! | `POST /faults` | [`SetFault`] | 201 [`Fault`] |
//! | `POST /routes/test` | – | [`RouteFound`] |
//! | `GET /explain/SUBJECT` | – | [`Explanation`] |
//! | `GET /jwks` | – | items of [`IssuerKeys`] |
//! | `GET /checks` | – | items of [`Check`] |

mod balance;
mod circuit;
mod explain;
mod fault;
mod jwks;
mod limit;
mod route;

pub use balance::{Balance, BalanceCircuit, BalanceInstance, BalanceLevel, BalancePanic};
pub use circuit::{Circuit, CircuitPart, CircuitProbes};
pub use explain::{Check, Explanation, Step};
pub use fault::{Fault, FaultHeader, FaultKind, FaultMatch, SetFault};
pub use jwks::{DroppedKey, IssuerKey, IssuerKeys};
pub use limit::{LimitKey, LimitUsage};
pub use route::{RouteAction, RouteFound, RouteShare, RouteStage};
