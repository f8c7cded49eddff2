//! Start-up only: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    stillpoint::cli::main()
}
