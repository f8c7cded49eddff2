//! `thaw-guard`: not for people. A run starts it before it freezes anything; see [`crate::host::guard`].

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::host::guard;

use super::options::Verdict;

/// Arguments of `thaw-guard`.
#[derive(Debug, Args)]
pub struct ThawGuardArgs {
    /// Thaw after so many seconds, whatever happens
    #[arg(long, value_name = "SECONDS")]
    limit: u64,
    /// Directories of the control groups to thaw
    #[arg(value_name = "CGROUP", required = true)]
    groups: Vec<PathBuf>,
}

/// Runs the verb: until standard input ends, or the limit comes.
pub fn run(args: &ThawGuardArgs) -> Verdict {
    guard::stand(&args.groups, Duration::from_secs(args.limit))?;
    Ok(Vec::new())
}
