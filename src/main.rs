//! Tautline keeps AI agents on a taut line while they work on cloud production.
//!
//! This package is the shell: every input and output. What is judged and learned is in `tautline-detectors`, what bytes
//! mean in `tautline-ingest`.

mod check;
#[cfg_attr(not(test), expect(dead_code, reason = "the engine's stage does not save and load yet"))]
mod checkpoint;
mod cli;
mod config;
mod demo;
mod explain;
mod feed;
mod http;
mod kafka;
mod metrics;
mod output;
mod replay;
mod rules;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
