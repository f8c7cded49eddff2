//! `restore`: a copy, or paths of it, below a directory.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
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
use crate::pipeline::restore::{self, Restored, Wanted};
use crate::step::error::StepError;

use super::options::{CopyOptions, Global, OPENS_SESSION, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

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

fn to_bytes<S: Serializer>(to: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("to", "to_bytes", Some(to), serializer)
}

fn paths_bytes<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    bytes::list("paths", "paths_bytes", paths, serializer)
}

/// Runs the verb.
pub fn run(global: &Global, args: &RestoreArgs) -> Verdict {
    let (named, paths) = split(&args.rest)?;
    let setup = Setup::new(global, Use::ReadBack { dry_run: args.dry_run })?;
    let query = args.of.query(&args.job);
    if args.stdout {
        let path = match paths.as_slice() {
            [] => None,
            [path] => Some(path.as_path()),
            _ => return Err(usage("--stdout writes one file: name one path").into()),
        };
        let ((), troubles) = setup.session(|cx| restore::stream(cx, &query, named, path))?;
        return Ok(troubles);
    }
    if args.in_place && !args.dry_run {
        permit_in_place(&args.job, &paths, args.yes)?;
    }
    let wanted = wanted(args, paths)?;
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

/// What a person reads: warnings, notes, what a dry run would do, and the sum.
fn tell(
    global: &Global,
    setup: &Setup,
    wanted: &Wanted,
    Restored { target, copy, report }: &Restored,
) -> anyhow::Result<()> {
    for warning in &report.warnings {
        render::say(&format!("warning: {warning}"));
    }
    for note in report.notes.iter().filter(|_| !global.quiet) {
        render::say(&format!("note: {note}"));
    }
    for effect in setup.dry.iter().flat_map(|dry| dry.planned()) {
        render::text(&effect.to_string())?;
    }
    let counted = match (report.files, report.bytes) {
        (Some(files), Some(bytes)) => {
            format!(" ({}, {})", size::counted(files, "file", "files"), size::show(bytes))
        }
        _ => String::new(),
    };
    let verb = if wanted.dry_run { "would restore" } else { "restored" };
    let line = format!(
        "{verb} {} of {} from target {target} to {}{counted}",
        copy.id,
        copy.time.format("%Y-%m-%d %H:%M:%SZ"),
        wanted.below().shown()
    );
    render::done(global, &line)
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

fn usage(text: &str) -> StepError {
    StepError::new(Trouble::Configuration, text)
}

/// Asks before everything of a job replaces what lives; where nobody can be asked, it must have been said.
fn permit_in_place(job: &JobName, paths: &[PathBuf], yes: bool) -> Result<(), StepError> {
    let is_whole = paths.is_empty() || paths.iter().any(|path| path == Path::new("/"));
    if yes || !is_whole {
        return Ok(());
    }
    let what = format!("everything of job {job}");
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(usage(&format!(
            "{what} would replace what is in its place now, so nothing was restored and no directory made — name the paths that are needed, restore to another directory with --to, or use --yes"
        )));
    }
    render::say(&format!(
        "{what} is going to replace what is in its place now. Type yes to continue:"
    ));
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        Ok(_) => Err(usage("not confirmed, so nothing was restored")),
        Err(error) => Err(StepError::from_error(Trouble::Environment, &error, None)),
    }
}
