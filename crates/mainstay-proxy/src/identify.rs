//! Who is calling: tokens of trusted issuers (JWT), verified before anything else is decided.
//!
//! What a token must be is decided by [`mainstay_security::jws`], when keys are fetched by
//! [`mainstay_security::jwks`]; here is what acts on it.
//!
//! | question | module |
//! |---|---|
//! | what a request passes through | [`stage`] |
//! | whose tokens a route takes, and what becomes of one | [`policy`] |
//! | the issuers of a configuration | [`issuers`] |
//! | the keys of an issuer, shared by workers and by who fetches them | [`keys`] |
//! | tokens that were verified lately | `verdicts` |
//! | what is counted | `figures` |
//!
//! A token that was verified within the last minute costs a hash and a look: no lock, no key, no
//! allocation. Workers never fetch keys. They read what is published, and leave a word where a
//! newer set is needed; whoever keeps the process ([`keys::Keys::begin`]) fetches.

pub(crate) mod figures;
pub mod issuers;
pub mod keys;
pub mod policy;
pub mod stage;
#[cfg(test)]
mod tests;
mod verdicts;

pub use issuers::{Issuer, Issuers};
pub use keys::{Fetched, Keys};
pub use policy::Policy;
pub use stage::{Identify, IdentifyFuture};
