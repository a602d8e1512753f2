//! The process: arguments in, exit code out.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Measured in `bench/gateway`: a request allocates a dozen small blocks, and this is the
/// allocator that makes them cheapest.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(mainstay::cli::main())
}
