//! What the benchmarks share: clients in a closed loop, what a process has used, what the disk
//! does by itself, medians, and the machine.

pub mod closed_loop;
pub mod disk;
pub mod figures;
pub mod http;
pub mod process;

pub use closed_loop::{Round, closed_loop};
pub use figures::{least, machine, median, most};
pub use process::{Used, used};
