//! `estimate`: how much the next run of a job would store.

use clap::Args;
use serde::Serialize;

use crate::model::names::{JobName, TargetName};
use crate::model::report::SCHEMA;
use crate::model::size;
use crate::pipeline::estimate::{Estimated, estimate};
use crate::pipeline::select;

use super::options::{Global, Verdict, job_name, target_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `estimate`.
#[derive(Debug, Args)]
#[command(
    after_help = "It makes a snapshot, as a run does, and releases it when the targets have told. Hooks are not run."
)]
pub struct EstimateArgs {
    /// The job
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// Only for this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    target: Option<TargetName>,
}

#[derive(Serialize)]
struct Row<'a> {
    target: &'a TargetName,
    item: Option<&'a str>,
    bytes: u64,
    /// The copy that only the difference to would be sent; null: everything.
    based_on: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    job: &'a JobName,
    estimates: Vec<Row<'a>>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &EstimateArgs) -> Verdict {
    let setup = Setup::new(global, Use::Change)?;
    let job = select::job(&setup.config, &args.job)?;
    if let Some(target) = &args.target {
        select::target(&setup.config, target)?;
    }
    let (estimates, mut troubles) = setup.session(|cx| estimate(cx, job, args.target.as_ref()))?;
    troubles.extend(&estimates.troubles);
    let rows: Vec<Row<'_>> = estimates.known.iter().map(row).collect();
    if global.json {
        render::json(&Document { schema: SCHEMA, job: &args.job, estimates: rows })?;
    } else {
        render::text(&shown(&rows))?;
    }
    Ok(troubles)
}

fn row(estimated: &Estimated) -> Row<'_> {
    Row {
        target: &estimated.target,
        item: estimated.item.as_deref(),
        bytes: estimated.estimate.bytes,
        based_on: estimated.estimate.based_on.as_deref(),
    }
}

fn shown(rows: &[Row<'_>]) -> String {
    let cells = |row: &Row<'_>| {
        vec![
            row.target.to_string(),
            render::or_dash(row.item),
            size::show(row.bytes),
            row.based_on.map_or_else(|| "nothing: all is sent".into(), str::to_owned),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    render::table(&["TARGET", "ITEM", "SIZE", "DIFFERENCE TO"], &rows)
}
