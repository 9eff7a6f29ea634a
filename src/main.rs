//! The `tautline` command.

use std::process::ExitCode;

/// An event has dozens of small texts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tautline::main()
}
