//! `adopt`: takes listed copies into a series of ours.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::host::spec::quote;
use crate::model::names::{HostName, JobName, MachineId, TargetName};
use crate::model::report::SCHEMA;
use crate::model::size::counted;
use crate::pipeline::adopt::{By, Maker, Offer, Offers, Request, Terms, adopt, offers};
use crate::pipeline::select;
use crate::step::error::StepError;

use super::confirm::{Consent, confirm};
use super::options::{Global, Verdict, host_name, job_name, target_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The target that holds the copies
    #[arg(value_name = "TARGET", value_parser = target_name)]
    target: TargetName,
    /// Exactly these copies, also of other programs; without any, those under the names of this host and its jobs, and
    /// what btrbk, btrfs-backup-ng and the like received in a btrfs target of snapshots that are here. Of the latter, a
    /// pattern with * names several
    #[arg(value_name = "COPY", requires = "job")]
    copies: Vec<String>,
    /// Take them into the series of this job
    #[arg(long, value_name = "JOB", value_parser = job_name)]
    job: Option<JobName>,
    /// The path of the job that they are copies of, where their snapshots do not tell it
    #[arg(long, value_name = "PATH", requires = "copies")]
    item: Option<String>,
    /// Take those that were made under this host's name
    #[arg(long, value_name = "HOST", value_parser = host_name, conflicts_with = "copies")]
    host: Option<HostName>,
    /// Take those of a job that had this name
    #[arg(long, value_name = "JOB", value_parser = job_name, requires = "job", conflicts_with = "copies")]
    from_job: Option<JobName>,
    /// Take only what this machine made (sixteen digits), or none for copies without a machine's mark
    #[arg(long, value_name = "MACHINE", value_parser = maker)]
    machine: Option<Maker>,
    /// Believe that what other programs received is whole, so that the next run sends the difference to it at once.
    /// Without this, it does so to what verify has compared with its snapshot: after a power cut, what looks whole may be
    /// empty
    #[arg(long)]
    trust: bool,
    /// Do not pin what other programs received: the policy deletes it like any copy
    #[arg(long)]
    unpinned: bool,
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
    /// How it is known what it is of.
    known_by: &'a str,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    target: &'a TargetName,
    copies: Vec<Row<'a>>,
    /// What lies there besides and is not offered, and why.
    left: &'a [String],
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
        item: args.item.as_deref(),
        host: args.host.as_ref(),
        from_job: args.from_job.as_ref(),
        machine: args.machine.as_ref(),
        copies: &args.copies,
    };
    let offered = offers(pipeline, &args.target, &request)?;
    let offers = &offered.copies;
    if !global.json {
        render::text(&shown(offers))?;
    }
    for left in offered.left.iter().filter(|_| args.copies.is_empty()) {
        render::say(&format!("left alone: {left}"));
    }
    let mut adopted = 0;
    let mut troubles = Vec::new();
    if !offers.is_empty() && !args.dry_run {
        ask(args, offers)?;
        let engine = pipeline.engine(target);
        let terms = Terms { pinned: !args.unpinned, proven: args.trust };
        (adopted, troubles) = setup.session(|cx| adopt(cx, engine, offers, terms))?;
    }
    if global.json {
        render::json(&document(args, &offered, adopted))?;
    } else if args.dry_run {
        render::text(&format!("{} would be adopted", offers.len()))?;
    } else {
        render::done(global, &format!("{adopted} adopted in target {}", args.target))?;
        if !args.trust && adopted > 0 {
            advise(offers);
        }
    }
    Ok(troubles)
}

/// Asks whether to adopt them.
fn ask(args: &AdoptArgs, offers: &[Offer]) -> Result<(), StepError> {
    let copies = counted(offers.len() as u64, "copy", "copies");
    let (question, unasked) = match !args.unpinned && offers.iter().all(|it| it.foreign.is_some()) {
        true => (
            format!(
                "What is listed above ({copies}) becomes this machine's, pinned until you unpin it. Adopt it?"
            ),
            format!(
                "nothing was adopted: {copies} would become this machine's, pinned until you unpin them — make sure that nothing else deletes them, and use --yes"
            ),
        ),
        false => (
            format!(
                "This machine's policy will keep and delete what is listed above ({copies}) from now on. Adopt it?"
            ),
            format!(
                "nothing was adopted: this machine's policy would keep and delete {copies} from now on — make sure that no other machine uses them, and use --yes"
            ),
        ),
    };
    confirm(args.yes, Consent::Letter, &question, &unasked, "nothing was adopted")
}

/// Says what is to be compared lest the next run send everything: of each series, the newest whose snapshot is here.
fn advise(offers: &[Offer]) {
    let mut newest: BTreeMap<String, &Offer> = BTreeMap::new();
    for offer in offers.iter().filter(|offer| offer.foreign.is_some() && offer.by == By::Snapshot) {
        let last = newest.entry(offer.into.to_string()).or_insert(offer);
        if offer.copy.time >= last.copy.time {
            *last = offer;
        }
    }
    for offer in newest.values() {
        render::say(&format!(
            "before the next run: stillpoint verify {} -- {} — compares it with its snapshot, so that what it holds is not sent again",
            offer.into.job,
            quote(&offer.copy.id)
        ));
    }
}

fn document<'a>(args: &'a AdoptArgs, offered: &'a Offers, adopted: usize) -> Document<'a> {
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
            known_by: offer.by.name(),
        }
    };
    Document {
        schema: SCHEMA,
        dry_run: args.dry_run,
        target: &args.target,
        copies: offered.copies.iter().map(row).collect(),
        left: &offered.left,
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
                offer.by.to_string(),
            ]
        })
        .collect();
    render::table(&["MARKED", "COPY", "TIME", "MACHINE", "INTO", "KNOWN BY"], &rows)
}
