//! Objects with a history, switches and plans, over the store in memory and the embedded one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed, and looks after its own tasks"
)]

mod equal;
mod revisions;
mod stage;
mod told;
mod turning;
#[path = "../locks/world.rs"]
#[expect(dead_code, reason = "the world of locks has more in it")]
mod world;
