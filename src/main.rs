//! Start-up only: parse, run, exit code.

fn main() {}
