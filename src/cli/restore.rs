//! `restore`: a copy, or paths of it, below a directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Serialize, Serializer};

use crate::model::bytes;
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::query;
use crate::pipeline::restore::{self, Restored, Wanted};
use crate::step::error::StepError;

use super::confirm::{Consent, confirm};
use super::options::{CopyOptions, Global, OPENS_SESSION, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

mod subvolume;
mod told;

use told::to_bytes;

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = OPENS_SESSION)]
pub struct RestoreArgs {
    /// The job whose copy to restore
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The copy: an id or a part of it, a run id, or latest; what begins with / is a path
    #[arg(value_name = "COPY|PATH")]
    rest: Vec<OsString>,
    /// The directory below which the original paths are restored; must be absent or empty
    #[arg(long, value_name = "DIR", required_unless_present_any = ["in_place", "stdout"])]
    to: Option<PathBuf>,
    /// Restore to the original places: what has the same path is replaced, nothing else is touched
    #[arg(long, conflicts_with = "to")]
    in_place: bool,
    /// Write one file, or the dump of a commands job, to standard output
    #[arg(long, conflicts_with_all = ["to", "in_place", "dry_run"])]
    stdout: bool,
    /// Restore as a subvolume: --to names what it is to become, and with --in-place it changes places with what is there,
    /// which is kept beside it (copies of subvolumes only)
    #[arg(long, conflicts_with_all = ["stdout", "into_existing", "owners_by_name"])]
    as_subvolume: bool,
    /// Restore even if the directory has something in it; what has the same path is replaced
    #[arg(long, requires = "to")]
    into_existing: bool,
    /// Do not ask before a whole job is restored in place
    #[arg(long, requires = "in_place")]
    yes: bool,
    /// Set owners by their names on this machine, not by their numbers (borg only)
    #[arg(long)]
    owners_by_name: bool,
    /// Try it although there seems to be too little space
    #[arg(long)]
    ignore_space: bool,
    #[command(flatten)]
    of: CopyOptions,
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
    notes: &'a [String],
}

fn paths_bytes<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    bytes::list("paths", "paths_bytes", paths, serializer)
}

/// Runs the verb.
pub fn run(global: &Global, args: &RestoreArgs) -> Verdict {
    let (named, paths) = split(&args.rest)?;
    let setup = Setup::new(global, Use::ReadBack { dry_run: args.dry_run })?;
    let mut query = args.of.query(&args.job);
    let stream = query::stream_of(setup.pipeline(), &args.job, named, &paths);
    query.item = query.item.or(stream.as_deref());
    if args.stdout {
        let path = match paths.as_slice() {
            [] => None,
            [path] => Some(path.as_path()),
            _ => return Err(usage("--stdout writes one file: name one path").into()),
        };
        let ((), troubles) =
            setup.session(|cx| restore::stream(cx, &query, named, path, args.ignore_space))?;
        return Ok(troubles);
    }
    if args.in_place && !args.dry_run {
        permit_in_place(&args.job, &paths, args.yes)?;
    }
    let wanted = wanted(args, paths)?;
    if args.as_subvolume {
        if !wanted.paths.is_empty() {
            return Err(usage("--as-subvolume restores all of a copy: name no path").into());
        }
        return subvolume::restore(
            global,
            &setup,
            &query,
            named,
            (wanted.to.as_deref(), wanted.ignore_space),
        );
    }
    let (restored, mut troubles) =
        setup.session(|cx| restore::restore(cx, &query, named, &wanted))?;
    if !restored.report.warnings.is_empty() {
        troubles.push(Trouble::Warning);
    }
    if global.json {
        render::json(&document(args, &wanted, &restored))?;
    } else {
        tell(global, &setup, &wanted, &restored)?;
    }
    Ok(troubles)
}

fn wanted(args: &RestoreArgs, paths: Vec<PathBuf>) -> Result<Wanted, StepError> {
    let absolute = |to: &PathBuf| {
        std::path::absolute(to)
            .map_err(|error| StepError::from_error(Trouble::Configuration, &error, None))
    };
    Ok(Wanted {
        paths,
        to: args.to.as_ref().map(absolute).transpose()?,
        into_existing: args.into_existing,
        owners_by_name: args.owners_by_name,
        ignore_space: args.ignore_space,
        dry_run: args.dry_run,
    })
}

fn document<'a>(
    args: &'a RestoreArgs,
    wanted: &'a Wanted,
    Restored { target, copy, report }: &'a Restored,
) -> Document<'a> {
    Document {
        schema: SCHEMA,
        dry_run: args.dry_run,
        job: &args.job,
        target,
        copy: &copy.id,
        to: wanted.below(),
        paths: &wanted.paths,
        files: report.files,
        bytes: report.bytes,
        warnings: &report.warnings,
        notes: &report.notes,
    }
}

/// What a person reads.
fn tell(
    global: &Global,
    setup: &Setup,
    wanted: &Wanted,
    Restored { target, copy, report }: &Restored,
) -> anyhow::Result<()> {
    let counted = match (report.files, report.bytes) {
        (Some(files), Some(bytes)) => {
            format!(" ({}, {})", size::counted(files, "file", "files"), size::show(bytes))
        }
        _ => String::new(),
    };
    let whither = format!("to {}{counted}", wanted.below().shown());
    told::tell(global, setup, (&report.warnings, &report.notes), (copy, target), &whither)
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
            return Err(StepError::new(Trouble::Usage, text).into());
        }
        absolute.push(PathBuf::from(path));
    }
    Ok((wanted, absolute))
}

fn usage(text: &str) -> StepError {
    StepError::new(Trouble::Usage, text)
}

/// Asks before everything of a job replaces what lives; where nobody can be asked, it must have been said.
fn permit_in_place(job: &JobName, paths: &[PathBuf], yes: bool) -> Result<(), StepError> {
    let is_whole = paths.is_empty() || paths.iter().any(|path| path == Path::new("/"));
    let question = format!("everything of job {job} is going to replace what is in its place now.");
    let unasked = format!(
        "everything of job {job} would replace what is in its place now, so nothing was restored and no directory made — name the paths that are needed, restore to another directory with --to, or use --yes"
    );
    let declined = "not confirmed, so nothing was restored";
    confirm(yes || !is_whole, Consent::Word, &question, &unasked, declined)
}
