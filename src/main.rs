//! The `tautline` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tautline::main()
}
