//! The registry on real backends, with a clock turned by hand.

mod behind;
mod checks;
mod faults;
mod fresh;
mod lifecycle;
mod over_tls;
mod own_checks;
mod owners;
mod properties;
mod races;
mod redirects;
mod shared;
pub(crate) mod stage;
mod views;
