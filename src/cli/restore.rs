//! `restore`: a copy, or paths of it, below a directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Serialize, Serializer};

use crate::engine::{RestoreReport, RestoreRequest};
use crate::host::{Action, PathKind};
use crate::model::bytes;
use crate::model::names::{HostName, JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::error::StepError;
use crate::pipeline::select;

use super::setup::{Setup, Use};
use super::{Global, Verdict, host_name, job_name, render, target_name};

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The job whose copy to restore
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The copy: an id or a part of it, a run id, or latest; what begins with / is a path
    #[arg(value_name = "COPY|PATH")]
    rest: Vec<OsString>,
    /// The directory below which the original paths are laid out; must be absent or empty
    #[arg(long, value_name = "DIR", required_unless_present = "in_place")]
    to: Option<PathBuf>,
    /// Restore to the original places, over what is there
    #[arg(long, conflicts_with = "to")]
    in_place: bool,
    /// Lay the files out even if the directory has something in it; what has the same path is replaced
    #[arg(long, requires = "to")]
    into_existing: bool,
    /// Restore from this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    target: Option<TargetName>,
    /// The stream of a commands job; files for copies of files
    #[arg(long, value_name = "ITEM")]
    item: Option<String>,
    /// A copy that was made in this host's name
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    host: Option<HostName>,
    /// Show what would be restored, write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    job: &'a JobName,
    target: &'a TargetName,
    copy: &'a str,
    #[serde(flatten, serialize_with = "to_bytes")]
    to: &'a Path,
    #[serde(flatten, serialize_with = "paths_bytes")]
    paths: &'a [PathBuf],
    files: Option<u64>,
    bytes: Option<u64>,
    warnings: &'a [String],
}

fn to_bytes<S: Serializer>(to: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("to", "to_bytes", Some(to), serializer)
}

fn paths_bytes<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    bytes::list("paths", "paths_bytes", paths, serializer)
}

/// Runs the verb.
pub fn run(global: &Global, args: &RestoreArgs) -> Verdict {
    let (wanted, paths) = split(&args.rest)?;
    let setup = Setup::new(global, Use::ReadBack { dry_run: args.dry_run })?;
    let to = match &args.to {
        Some(to) => std::path::absolute(to)
            .map_err(|error| StepError::from_error(Trouble::Configuration, &error, None))?,
        None => PathBuf::from("/"),
    };
    let pipeline = setup.pipeline();
    let query = select::Query {
        job: &args.job,
        host: args.host.as_ref(),
        target: args.target.as_ref(),
        item: args.item.as_deref(),
    };
    let (engine, copy) = select::copy(pipeline, &query, wanted)?;
    if args.to.is_some() {
        prepare(&setup, &to, args.into_existing)?;
    }
    let request = RestoreRequest { copy, paths, to, dry_run: args.dry_run };
    let mut report = RestoreReport::default();
    let mut troubles = setup.session(|cx| {
        report = engine.restore(cx.engine(), &request, &mut |_| {}).map_err(StepError::from)?;
        Ok(Vec::new())
    })?;
    if !args.dry_run {
        look_again(&setup, &request)?;
    }
    if !report.warnings.is_empty() {
        troubles.push(Trouble::Warning);
    }
    let target = &engine.target().name;
    if global.json {
        render::json(&Document {
            schema: SCHEMA,
            dry_run: args.dry_run,
            job: &args.job,
            target,
            copy: &request.copy.id,
            to: &request.to,
            paths: &request.paths,
            files: report.files,
            bytes: report.bytes,
            warnings: &report.warnings,
        })?;
        return Ok(troubles);
    }
    for warning in &report.warnings {
        render::say(&format!("warning: {warning}"));
    }
    if let Some(dry) = &setup.dry {
        for effect in dry.planned() {
            render::text(&effect.to_string())?;
        }
    }
    let counted = match (report.files, report.bytes) {
        (Some(files), Some(bytes)) => format!(" ({files} files, {})", size::show(bytes)),
        _ => String::new(),
    };
    let verb = if args.dry_run { "would restore" } else { "restored" };
    let line = format!(
        "{verb} {} of {} from target {target} to {}{counted}",
        request.copy.id,
        request.copy.time.format("%Y-%m-%d %H:%M:%SZ"),
        request.to.shown()
    );
    render::done(global, &line)?;
    Ok(troubles)
}

/// The copy, `latest` when none is named, and the paths.
fn split(rest: &[OsString]) -> anyhow::Result<(&str, Vec<PathBuf>)> {
    let (wanted, paths) = match rest.split_first() {
        Some((first, paths)) if !first.as_bytes().starts_with(b"/") => {
            let wanted = first.to_str().ok_or_else(|| {
                let text = format!("there is no copy {}", first.shown());
                StepError::new(Trouble::JobFailed, text)
            })?;
            (wanted, paths)
        }
        _ => ("latest", rest),
    };
    let mut absolute = Vec::new();
    for path in paths {
        if !path.as_bytes().starts_with(b"/") {
            let text = format!(
                "{} is not an absolute path — name paths as they were on the machine, such as /etc/hosts",
                path.shown()
            );
            return Err(StepError::new(Trouble::Configuration, text).into());
        }
        absolute.push(PathBuf::from(path));
    }
    Ok((wanted, absolute))
}

/// A directory to restore into: made if it is absent, refused if it has something in it.
fn prepare(setup: &Setup, to: &Path, into_existing: bool) -> anyhow::Result<()> {
    match setup.host.look(to).map_err(StepError::from)? {
        None => {
            let action = Action::EnsureDirectory { path: to.to_owned(), mode: 0o700 };
            setup.host.act(&action).map_err(StepError::from)?;
            Ok(())
        }
        Some(state) if state.kind != PathKind::Directory => {
            let text = format!("{} is not a directory", to.shown());
            Err(StepError::new(Trouble::Configuration, text).into())
        }
        Some(state) if !state.empty && !into_existing => {
            let text = format!(
                "{} has something in it, so nothing was restored there — name an empty directory, or say --into-existing",
                to.shown()
            );
            Err(StepError::new(Trouble::Configuration, text).into())
        }
        Some(_) => Ok(()),
    }
}

/// The second look: what was asked for is there.
fn look_again(setup: &Setup, request: &RestoreRequest) -> anyhow::Result<()> {
    for path in &request.paths {
        let place = request.to.join(path.strip_prefix("/").unwrap_or(path));
        // A dangling link is restored too, and `look` follows links.
        let there = setup.host.look(&place).map_err(StepError::from)?.is_some()
            || std::fs::symlink_metadata(&place).is_ok();
        if !there {
            let text = format!(
                "the engine reported success, but {} is not there — is {} in that copy? (`stillpoint find`)",
                place.shown(),
                path.shown()
            );
            return Err(StepError::new(Trouble::JobFailed, text).into());
        }
    }
    if request.paths.is_empty()
        && setup.host.look(&request.to).map_err(StepError::from)?.is_none_or(|state| state.empty)
    {
        let text = format!("the engine reported success, but {} is empty", request.to.shown());
        return Err(StepError::new(Trouble::JobFailed, text).into());
    }
    Ok(())
}
