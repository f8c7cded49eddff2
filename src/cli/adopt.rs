//! `adopt`: takes listed copies into a series of ours.

use std::io::{self, BufRead, IsTerminal};

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::model::names::{HostName, JobName, MachineId, TargetName};
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::size::counted;
use crate::pipeline::adopt::{Maker, Offer, Request, adopt, offers};
use crate::pipeline::select;
use crate::step::error::StepError;

use super::options::{Global, Verdict, host_name, job_name, target_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The target that holds the copies
    #[arg(value_name = "TARGET", value_parser = target_name)]
    target: TargetName,
    /// Exactly these copies, also of other programs; without any, those under the names of this host and its jobs
    #[arg(value_name = "COPY", requires = "job")]
    copies: Vec<String>,
    /// Take them into the series of this job
    #[arg(long, value_name = "JOB", value_parser = job_name)]
    job: Option<JobName>,
    /// Take those that were made under this host's name
    #[arg(long, value_name = "HOST", value_parser = host_name, conflicts_with = "copies")]
    host: Option<HostName>,
    /// Take those of a job that had this name
    #[arg(long, value_name = "JOB", value_parser = job_name, requires = "job", conflicts_with = "copies")]
    from_job: Option<JobName>,
    /// Take only what this machine made (sixteen digits), or none for copies without a machine's mark
    #[arg(long, value_name = "MACHINE", value_parser = maker)]
    machine: Option<Maker>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show what would be taken, change nothing
    #[arg(long)]
    dry_run: bool,
}

fn maker(text: &str) -> Result<Maker, String> {
    match text {
        "none" => Ok(Maker::Unmarked),
        text => MachineId::parse(text)
            .map(Maker::Machine)
            .ok_or_else(|| format!("expected sixteen hexadecimal digits or none, not {text:?}")),
    }
}

/// One copy in the JSON document.
#[derive(Serialize)]
struct Row<'a> {
    copy: &'a str,
    time: DateTime<Utc>,
    machine: Option<&'a MachineId>,
    /// The names that it is marked with; null for another program's copy.
    host: Option<&'a str>,
    job: Option<&'a str>,
    /// The job into whose series it goes.
    into: &'a JobName,
    item: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    target: &'a TargetName,
    copies: Vec<Row<'a>>,
    adopted: usize,
}

/// Runs the verb.
pub fn run(global: &Global, args: &AdoptArgs) -> Verdict {
    let setup = Setup::new(global, if args.dry_run { Use::Plan } else { Use::Change })?;
    let pipeline = setup.pipeline();
    let target = select::target(&setup.config, &args.target)?;
    let job = args.job.as_ref().map(|name| select::job(&setup.config, name)).transpose()?;
    let request = Request {
        job,
        host: args.host.as_ref(),
        from_job: args.from_job.as_ref(),
        machine: args.machine.as_ref(),
        copies: &args.copies,
    };
    let offers = offers(pipeline, &args.target, &request)?;
    if !global.json {
        render::text(&shown(&offers))?;
    }
    let mut adopted = 0;
    let mut troubles = Vec::new();
    if !offers.is_empty() && !args.dry_run {
        confirm(args.yes, offers.len())?;
        let engine = pipeline.engine(target);
        (adopted, troubles) = setup.session(|cx| adopt(cx, engine, &offers))?;
    }
    if global.json {
        render::json(&document(args, &offers, adopted))?;
    } else if args.dry_run {
        render::text(&format!("{} would be adopted", offers.len()))?;
    } else {
        render::done(global, &format!("{adopted} adopted in target {}", args.target))?;
    }
    Ok(troubles)
}

fn document<'a>(args: &'a AdoptArgs, offers: &'a [Offer], adopted: usize) -> Document<'a> {
    let row = |offer: &'a Offer| {
        let marked = offer.copy.series.as_ref();
        Row {
            copy: &offer.copy.id,
            time: offer.copy.time,
            machine: offer.copy.machine.as_ref(),
            host: marked.map(|series| series.host.as_str()),
            job: marked.map(|series| series.job.as_str()),
            into: &offer.into.job,
            item: offer.into.item.as_deref(),
        }
    };
    Document {
        schema: SCHEMA,
        dry_run: args.dry_run,
        target: &args.target,
        copies: offers.iter().map(row).collect(),
        adopted,
    }
}

fn shown(offers: &[Offer]) -> String {
    if offers.is_empty() {
        return "there is nothing to adopt\n".into();
    }
    let rows: Vec<Vec<String>> = offers
        .iter()
        .map(|offer| {
            vec![
                render::or_dash(offer.copy.series.as_ref()),
                offer.copy.id.clone(),
                offer.copy.time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
                offer.maker.to_string(),
                offer.into.to_string(),
            ]
        })
        .collect();
    render::table(&["MARKED", "COPY", "TIME", "MACHINE", "INTO"], &rows)
}

/// Asks; where nobody can be asked, it must have been said.
fn confirm(yes: bool, count: usize) -> Result<(), StepError> {
    let refused = |text: String| Err(StepError::new(Trouble::Configuration, text));
    if yes {
        return Ok(());
    }
    let copies = counted(count as u64, "copy", "copies");
    if !io::stdin().is_terminal() {
        return refused(format!(
            "nothing was adopted: this machine's policy would keep and delete {copies} from now on — make sure that no other machine uses them, and use --yes"
        ));
    }
    render::say(&format!(
        "This machine's policy will keep and delete what is listed above ({copies}) from now on. Adopt it? [y/N]"
    ));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => refused("nothing was adopted".into()),
    }
}
