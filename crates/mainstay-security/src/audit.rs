//! What makes an audit log tamper-evident.
//!
//! Records are the leaves of a Merkle tree (RFC 6962). A **head** says how many there are and what
//! the root is, signed; whoever keeps a head can tell for good whether a record below it was
//! changed, taken away, put in or moved. The tree lies in **tiles** of 256 hashes, so that a proof
//! is read from a few small files and never computed from the records.
//!
//! | what | module |
//! |---|---|
//! | hashes, roots, proofs | [`tree`] |
//! | where hashes lie | [`tile`] |
//! | one text for one record (RFC 8785) | [`canonical`] |
//! | heads, keys, signatures | [`note`] |
//! | the first record that is not as it was | [`verify`] |

pub mod canonical;
pub mod note;
pub mod tile;
pub mod tree;
pub mod verify;

pub use note::{Head, Note, NoteError, PublicKey, Signer};
pub use tile::Tile;
pub use tree::{Frontier, Hash};
pub use verify::{Bad, Verified, Verifier, What};
