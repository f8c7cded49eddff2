//! `mount`: one copy as a file system, in the host's namespace, until it is unmounted.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::host::{CommandSpec, Effect, Exit, PathKind, RunError, Tool};
use crate::model::names::{HostName, JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::error::StepError;
use crate::pipeline::select;

use super::setup::{Setup, Use};
use super::{Global, Verdict, host_name, job_name, render, target_name};

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The job whose copy to browse
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The copy (default: latest), then the empty directory to mount it at
    #[arg(value_name = "[COPY] DIR", num_args = 1..=2, required = true)]
    rest: Vec<String>,
    /// Browse the copy of this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    target: Option<TargetName>,
    /// The stream of a commands job; files for copies of files
    #[arg(long, value_name = "ITEM")]
    item: Option<String>,
    /// A copy that was made in this host's name
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    host: Option<HostName>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &MountArgs) -> Verdict {
    let (wanted, directory) = match args.rest.as_slice() {
        [directory] => ("latest", directory),
        [copy, directory, ..] => (copy.as_str(), directory),
        [] => return Err(StepError::new(Trouble::Configuration, "name a directory").into()),
    };
    let directory: PathBuf = std::path::absolute(directory)?;
    let setup = Setup::new(global, Use::Look)?;
    match setup.host.look(&directory).map_err(StepError::from)? {
        Some(state) if state.kind == PathKind::Directory && state.empty => {}
        _ => {
            let text = format!("{} is not an empty directory", directory.shown());
            return Err(StepError::new(Trouble::Configuration, text).into());
        }
    }
    let pipeline = setup.pipeline();
    let query = select::Query {
        job: &args.job,
        host: args.host.as_ref(),
        target: args.target.as_ref(),
        item: args.item.as_deref(),
    };
    let (engine, copy) = select::copy(pipeline, &query, wanted)?;
    let spec =
        engine.mount(pipeline.engine_context(), &copy, &directory).map_err(StepError::from)?;
    render::say(&format!(
        "{} is at {} until `umount {}` or Ctrl-C",
        copy.id,
        directory.shown(),
        directory.shown()
    ));
    let mut lines = Vec::new();
    let ended = setup.host.run(&spec, &mut |_, line| {
        if lines.len() < 20 {
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
    });
    match ended {
        Ok(completed) if completed.success() => Ok(Vec::new()),
        Ok(completed) => {
            let exit = match completed.exit {
                Exit::Code(code) => format!("exit status {code}"),
                Exit::Signal(signal) => format!("killed by signal {signal}"),
            };
            let text = format!("{} ended ({exit}): {}", spec.display(), lines.join("; "));
            Err(StepError::new(Trouble::JobFailed, text).into())
        }
        // Ctrl-C is how it is meant to be ended; the engine has unmounted when its process is gone.
        Err(RunError::Interrupted { signal, .. }) => {
            let mut troubles = vec![Trouble::Signal(signal)];
            if !unmounted(&setup, &directory)? {
                render::say(&format!(
                    "stillpoint: {} is still mounted — umount it",
                    directory.shown()
                ));
                troubles.push(Trouble::Cleanup);
            }
            Ok(troubles)
        }
        Err(error) => Err(StepError::from(error).into()),
    }
}

/// Unmounts what an engine that was stopped left mounted. Answers whether nothing is mounted there now.
fn unmounted(setup: &Setup, directory: &Path) -> anyhow::Result<bool> {
    if !setup.host.is_mount_point(directory).map_err(StepError::from)? {
        return Ok(true);
    }
    let _shield = setup.host.shield();
    let spec =
        CommandSpec::new(Tool::Fusermount, Effect::Mutate).arg("-u").arg("--").arg(directory);
    if let Err(error) = setup.host.run(&spec, &mut |_, _| {}) {
        tracing::warn!("{}", StepError::from(error).message);
    }
    Ok(!setup.host.is_mount_point(directory).map_err(StepError::from)?)
}
