//! The registry on real backends, with a clock turned by hand.

mod checks;
mod faults;
mod lifecycle;
mod own_checks;
mod owners;
mod properties;
pub(crate) mod stage;
mod views;
