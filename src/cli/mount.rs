//! `mount`: one copy as a file system, in the host's namespace, until it is unmounted.

use std::path::PathBuf;

use clap::Args;

use crate::model::names::JobName;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::mount::{Wanted, mount};
use crate::pipeline::query;
use crate::step::error::StepError;

use super::options::{CopyOptions, Global, OPENS_SESSION, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `mount`.
#[derive(Debug, Args)]
#[command(after_help = OPENS_SESSION)]
pub struct MountArgs {
    /// The job whose copy to browse
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The copy (default: latest), then the empty directory to mount it at
    #[arg(value_name = "[COPY] DIR", num_args = 1..=2, required = true)]
    rest: Vec<String>,
    /// Where a copy that lies elsewhere is received: a directory of a btrfs of this machine (default: the target's scratch,
    /// or beside the subvolume that the copy is of)
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Receive it although there seems to be too little space
    #[arg(long)]
    ignore_space: bool,
    #[command(flatten)]
    of: CopyOptions,
}

/// Runs the verb.
pub fn run(global: &Global, args: &MountArgs) -> Verdict {
    let (wanted, directory) = match args.rest.as_slice() {
        [directory] => ("latest", directory),
        [copy, directory, ..] => (copy.as_str(), directory),
        [] => return Err(StepError::new(Trouble::Usage, "name a directory").into()),
    };
    let directory: PathBuf = std::path::absolute(directory)?;
    let scratch = args.scratch.as_ref().map(std::path::absolute).transpose()?;
    let setup = Setup::new(global, Use::ReadBack { dry_run: false })?;
    let query = args.of.query(&args.job);
    let (stopped, mut troubles) = setup.session(|cx| {
        let (engine, copy) = query::copy(cx.pipeline, &query, wanted)?;
        let ready = || {
            let at = directory.shown();
            render::say(&format!("{} is at {at} until `umount {at}` or Ctrl-C", copy.id));
        };
        let (scratch, ignore_space) = (scratch.as_deref(), args.ignore_space);
        let wanted = Wanted { at: &directory, scratch, ignore_space };
        match mount(cx, engine, &copy, wanted, &ready) {
            Ok(()) => Ok(None),
            // Ctrl-C is how it is meant to be ended.
            Err(StepError { trouble: trouble @ Trouble::Signal(_), .. }) => Ok(Some(trouble)),
            Err(error) => Err(error),
        }
    })?;
    troubles.extend(stopped);
    Ok(troubles)
}
