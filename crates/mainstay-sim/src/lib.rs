//! Seeded simulation, and what every history must be.
//!
//! A *seed* is a whole test. It picks how long messages and commits take, which of them are lost,
//! when the store loses its power, when processes stand still or die, when clocks leap, and what
//! clients do meanwhile. Everything runs in one thread on a clock that moves only when nobody has
//! anything to do, so the same seed is the same run, and a seed that fails is the bug report:
//!
//! ```text
//! cargo run -p mainstay-sim -- --seed 4711 --trace
//! cargo run -p mainstay-sim -- transactions --seed 4711 --trace
//! ```
//!
//! The parts under test are the real ones: the embedded store down to its engine, on a disk that
//! loses, tears and reorders what was not synced; sessions and locks of `mainstay-coord`; what a
//! holder elsewhere believes; the coordinator of transactions, in runs of its own. Simulated are the
//! disk, the network, time, and participants.
//!
//! | what | module |
//! |---|---|
//! | one run: who is there, what goes wrong, what must hold | [`world`], [`faults`] |
//! | the process of the store, its disk and its history | [`server`], [`recorder`] |
//! | a process of clients, its clock, its way to the store | [`node`], [`clock`], [`link`] |
//! | what clients do | [`client`] |
//! | faults of ours that must be found | [`mutant`] |
//! | what histories must be; also for tests with real processes | [`check`] |
//! | runs of transactions: the same questions, and money | [`transactions`] |
//! | draws | [`draw`] |

pub mod check;
pub mod client;
pub mod clock;
pub mod draw;
pub mod faults;
pub mod link;
pub mod mutant;
pub mod node;
pub mod recorder;
pub mod server;
pub mod transactions;
pub mod world;

pub use mutant::Mutant;
pub use world::{Outcome, play};
