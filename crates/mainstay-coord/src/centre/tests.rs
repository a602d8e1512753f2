//! The config centre on real backends, with a clock turned by hand.

mod buckets;
mod canaries;
mod checks;
mod faults;
mod listeners;
mod properties;
mod publishing;
mod secrets;
mod stage;
mod subscribers;
mod sweeping;
