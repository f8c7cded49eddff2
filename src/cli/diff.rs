//! `diff`: what changed between two copies, or between a copy and the machine as it is now.

use clap::Args;
use serde::Serialize;

use crate::engine::{Change, ChangeKind};
use crate::model::names::{JobName, TargetName};
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::diff::{Comparison, LIVE, Pair, diff};

use super::options::{CopyOptions, Global, OPENS_SESSION, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = OPENS_SESSION)]
pub struct DiffArgs {
    /// The job whose copies to compare
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The older copy; the one before the newer when it is not named
    #[arg(value_name = "A")]
    older: Option<String>,
    /// The newer copy (default: latest), or live for the machine as it is: then kind, size, time, permissions
    /// and owners are compared, and files that are new since A are not looked for
    #[arg(value_name = "B|live")]
    newer: Option<String>,
    #[command(flatten)]
    of: CopyOptions,
}

impl DiffArgs {
    fn pair(&self) -> Pair<'_> {
        let older = self.older.as_deref();
        match self.newer.as_deref().unwrap_or("latest") {
            LIVE => Pair::Live { copy: older.unwrap_or("latest") },
            newer => Pair::Copies { older, newer },
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    target: &'a TargetName,
    older: &'a str,
    newer: &'a str,
    changes: &'a [Change],
}

/// Runs the verb.
pub fn run(global: &Global, args: &DiffArgs) -> Verdict {
    let setup = Setup::new(global, Use::ReadBack { dry_run: false })?;
    let (comparison, troubles) =
        setup.session(|cx| diff(cx, &args.of.query(&args.job), args.pair()))?;
    let Comparison { target, older, newer, changes } = &comparison;
    if global.json {
        render::json(&Document { schema: SCHEMA, target, older, newer, changes })?;
    } else {
        show(&comparison)?;
    }
    Ok(troubles)
}

fn show(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { target, older, newer, changes } = comparison;
    let count = size::counted(changes.len() as u64, "change", "changes");
    render::text(&format!("{older} → {newer} in target {target}: {count}"))?;
    for change in changes {
        let sign = match change.kind {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Modified => 'M',
            ChangeKind::Metadata => 'm',
            ChangeKind::Type => 'T',
        };
        render::text(&format!("{sign} {}", change.path.shown()))?;
    }
    Ok(())
}
