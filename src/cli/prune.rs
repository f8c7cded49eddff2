//! `prune`: deletes what the policy does not keep, or the copies named, by exact id.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::engine::Engine;
use crate::model::copy::{Copy, Series};
use crate::model::job::Job;
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::SCHEMA;
use crate::model::target::Target;
use crate::pipeline::context::RunContext;
use crate::pipeline::error::StepError;
use crate::pipeline::steps::retain::{self, Question};
use crate::pipeline::steps::target::{lock_for_deleting, require_mount};
use crate::report::history::{Maintenance, MaintenanceKind};

use super::setup::{Setup, Use};
use super::{Global, Selection, Verdict, render, select};

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    selection: Selection,
    /// Delete exactly these copies of one target instead of asking the policy; the id of a run means all that
    /// it made
    #[arg(value_name = "COPY", conflicts_with_all = ["before", "between"])]
    copies: Vec<String>,
    /// Delete the copies before this time (2026-11-21 or 2026-11-21T02:03:04Z)
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "job")]
    before: Option<DateTime<Utc>>,
    /// Delete the copies between two times
    #[arg(long, value_names = ["TIME", "TIME"], num_args = 2, value_parser = moment, conflicts_with = "before", requires = "job")]
    between: Option<Vec<DateTime<Utc>>>,
    /// A person has looked: delete although a copy has no record, shrank, or the clock went back or leapt
    #[arg(long)]
    accept: bool,
    /// Show the identical set, delete nothing
    #[arg(long)]
    dry_run: bool,
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S")
        .ok()
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    naive.map(|time| time.and_utc()).ok_or_else(|| {
        format!("expected a time in UTC such as 2026-11-21 or 2026-11-21T02:03:04Z, not {text:?}")
    })
}

/// What happens to one copy.
#[derive(Debug, Clone, Serialize)]
struct Row {
    target: TargetName,
    job: JobName,
    item: Option<String>,
    copy: String,
    time: DateTime<Utc>,
    delete: bool,
    reason: String,
}

#[derive(Debug, Default, Serialize)]
struct Document {
    schema: u32,
    dry_run: bool,
    decisions: Vec<Row>,
    deleted: Vec<String>,
    refusals: Vec<String>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &PruneArgs) -> Verdict {
    let setup = Setup::new(global, if args.dry_run { Use::Plan } else { Use::Change })?;
    let jobs = match &args.selection.job {
        Some(name) => vec![select::job(&setup.config, name)?],
        None => setup.config.jobs.iter().collect(),
    };
    let mut document = Document { schema: SCHEMA, dry_run: args.dry_run, ..Document::default() };
    let troubles = setup.session(|cx| {
        let mut troubles = Vec::new();
        let mut answered = BTreeSet::new();
        let only = args.selection.target.as_ref();
        let of = args.selection.job.as_ref().and(jobs.first().copied());
        let mut targets: Vec<(&Target, Vec<&Job>)> = select::targets(&setup.config, of, only)?
            .into_iter()
            .map(|target| {
                let uses = |job: &&Job| job.targets.contains(&target.name);
                (target, jobs.iter().copied().filter(uses).collect())
            })
            .filter(|(_, jobs): &(_, Vec<&Job>)| !jobs.is_empty())
            .collect();
        if targets.len() > 1 && !args.copies.is_empty() {
            one_target(cx, &args.copies, &mut targets, &mut troubles)?;
        }
        for (target, jobs) in targets {
            if let Some(signal) = cx.host().stop_signal() {
                troubles.push(Trouble::Signal(signal));
                break;
            }
            if let Err(error) = prune_target(cx, args, target, &jobs, &mut answered, &mut document)
            {
                failed(target, &error, &mut troubles);
            }
        }
        for wanted in args.copies.iter().filter(|wanted| !answered.contains(*wanted)) {
            let text = format!(
                "stillpoint: no target that could be read lists a copy {wanted} of these jobs — see `stillpoint list`"
            );
            render::say(&text);
            troubles.push(Trouble::JobFailed);
        }
        if !document.refusals.is_empty() {
            troubles.push(Trouble::Warning);
        }
        Ok(troubles)
    })?;
    if global.json {
        render::json(&document)?;
        return Ok(troubles);
    }
    let rows: Vec<Vec<String>> = document
        .decisions
        .iter()
        .map(|row| {
            let item = row.item.as_ref().map(|item| format!("/{item}")).unwrap_or_default();
            vec![
                if row.delete { "delete" } else { "keep" }.into(),
                row.target.to_string(),
                format!("{}{item}", row.job),
                row.copy.chars().take(60).collect(),
                row.reason.clone(),
            ]
        })
        .collect();
    let told = args.dry_run || !global.quiet;
    if !rows.is_empty() && told {
        render::text(&render::table(&["", "TARGET", "JOB", "COPY", "REASON"], &rows))?;
    }
    for refusal in &document.refusals {
        render::say(&format!("warning: {refusal}"));
    }
    if !told {
        return Ok(troubles);
    }
    let count = document.decisions.iter().filter(|row| row.delete).count();
    render::text(&match args.dry_run {
        true => format!("{count} would be deleted"),
        false => format!("{} deleted", document.deleted.len()),
    })?;
    Ok(troubles)
}

fn prune_target(
    cx: RunContext<'_>,
    args: &PruneArgs,
    target: &Target,
    jobs: &[&Job],
    answered: &mut BTreeSet<String>,
    document: &mut Document,
) -> Result<(), StepError> {
    if target.append_only {
        document
            .refusals
            .push(format!("target {} is append-only: nothing is deleted there", target.name));
        return Ok(());
    }
    require_mount(cx.host(), target)?;
    let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
    let engine = select::engine(cx.pipeline, &target.name)?;
    let copies = crate::pipeline::steps::observe::listing(cx, engine)?;
    for wanted in &args.copies {
        let mut found = ours_of(cx, engine, jobs, &copies);
        if one_meaning(wanted, &mut found, target)? {
            answered.insert(wanted.clone());
        }
    }
    let chosen = !args.copies.is_empty() || args.before.is_some() || args.between.is_some();
    let mut ids = Vec::new();
    for job in jobs {
        if chosen {
            by_choice(cx, args, engine, job, &copies, &mut ids, document);
        } else {
            by_policy(cx, args, engine, job, &copies, &mut ids, document)?;
            if args.accept {
                record(cx, target, MaintenanceKind::Accept, job.name.to_string())?;
            }
        }
    }
    // What a refusal spares stays in the table as what it is: kept.
    if ids.is_empty() {
        return Ok(());
    }
    retain::delete(cx, engine, &ids)?;
    record(cx, target, MaintenanceKind::Prune, format!("{} deleted", ids.len()))?;
    document.deleted.extend(ids);
    Ok(())
}

/// Tells what went wrong with one target; the others are served all the same.
fn failed(target: &Target, error: &StepError, troubles: &mut Vec<Trouble>) {
    render::say(&format!("stillpoint: target {}: {error}", target.name));
    troubles.push(error.trouble);
}

fn record(
    cx: RunContext<'_>,
    target: &Target,
    kind: MaintenanceKind,
    detail: String,
) -> Result<(), StepError> {
    let done = Maintenance {
        target: target.name.clone(),
        kind,
        outcome: Outcome::Ok,
        detail,
        time: cx.host().now(),
    };
    cx.pipeline
        .remember(|history| history.record_maintenance(&done))
        .map_err(|error| StepError { trouble: Trouble::Warning, ..error.into() })
}

/// Makes sure that each text a person typed names copies in one target only, unless it is a run's id, which means
/// all that the run made. A copy of a copy answers to the id of the first one too, and it is often the second
/// that must outlive it.
///
/// A target that cannot be read now is told and taken from the list: what would go there was not seen.
///
/// # Errors
/// When a text names copies in several targets. Nothing was deleted then.
fn one_target(
    cx: RunContext<'_>,
    copies: &[String],
    targets: &mut Vec<(&Target, Vec<&Job>)>,
    troubles: &mut Vec<Trouble>,
) -> Result<(), StepError> {
    let mut found: BTreeMap<&str, (Vec<&str>, bool)> = BTreeMap::new();
    targets.retain(|(target, jobs)| {
        if target.append_only {
            return true;
        }
        let listed = require_mount(cx.host(), target)
            .and_then(|()| select::engine(cx.pipeline, &target.name))
            .and_then(|engine| Ok((engine, select::all_copies(cx.pipeline, engine)?)));
        let (engine, listed) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                failed(target, &error, troubles);
                return false;
            }
        };
        for wanted in copies {
            let mut named = ours_of(cx, engine, jobs, &listed)
                .filter(|copy| copy.answers_to(wanted))
                .peekable();
            if named.peek().is_none() {
                continue;
            }
            let (names, by_run) = found.entry(wanted).or_insert((Vec::new(), true));
            names.push(target.name.as_str());
            *by_run &=
                named.all(|copy| copy.run.as_ref().is_some_and(|run| run.as_str() == wanted));
        }
        true
    });
    match found.iter().find(|(_, (names, by_run))| names.len() > 1 && !by_run) {
        Some((wanted, (names, _))) => {
            let text = format!(
                "{wanted} names copies in several targets, so nothing was deleted: {} — choose one with --target",
                names.join(", ")
            );
            Err(StepError::new(Trouble::Configuration, text))
        }
        None => Ok(()),
    }
}

/// Whether a text that a person typed names copies here. The beginning of an id must name a single one: what
/// is deleted was meant. A run id means all that the run made, one for each stream.
fn one_meaning(
    wanted: &str,
    copies: &mut dyn Iterator<Item = &Copy>,
    target: &Target,
) -> Result<bool, StepError> {
    let exactly = |copy: &Copy| {
        copy.id == wanted
            || copy.original.as_deref() == Some(wanted)
            || copy.run.as_ref().is_some_and(|run| run.as_str() == wanted)
    };
    let found: Vec<&Copy> = copies.filter(|copy| copy.answers_to(wanted)).collect();
    if found.len() > 1 && !found.iter().all(|copy| exactly(copy)) {
        let ids: Vec<&str> = found.iter().map(|copy| copy.id.as_str()).collect();
        let text = format!(
            "{wanted} is ambiguous in target {}, so nothing was deleted there: {} — name more of the id",
            target.name,
            ids.join(", ")
        );
        return Err(StepError::new(Trouble::Configuration, text));
    }
    Ok(!found.is_empty())
}

fn ours<'a>(
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    job: &'a Job,
    copies: &'a [Copy],
) -> impl Iterator<Item = (&'a Copy, &'a Series)> {
    let host = &cx.config().settings.host;
    copies
        .iter()
        .filter(|copy| engine.unfinished(copy).is_none())
        .filter_map(|copy| Some((copy, copy.series.as_ref()?)))
        .filter(move |(_, series)| series.job == job.name && series.host == *host)
}

/// The same of several jobs.
fn ours_of<'a>(
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    jobs: &'a [&'a Job],
    copies: &'a [Copy],
) -> impl Iterator<Item = &'a Copy> {
    jobs.iter().flat_map(move |job| ours(cx, engine, job, copies)).map(|(copy, _)| copy)
}

fn by_policy(
    cx: RunContext<'_>,
    args: &PruneArgs,
    engine: &dyn Engine,
    job: &Job,
    copies: &[Copy],
    ids: &mut Vec<String>,
    document: &mut Document,
) -> Result<(), StepError> {
    let policy = cx.config().keep(job, engine.target());
    let mut newest: BTreeMap<&Series, &Copy> = BTreeMap::new();
    for (copy, series) in ours(cx, engine, job, copies) {
        let slot = newest.entry(series).or_insert(copy);
        if (copy.time, &copy.id) > (slot.time, &slot.id) {
            *slot = copy;
        }
    }
    let questions: Vec<Question<'_>> = newest
        .iter()
        .map(|(series, copy)| Question {
            series,
            policy,
            newest: Some(copy),
            max_shrink_percent: job.max_shrink_percent,
            accepted: args.accept,
        })
        .collect();
    let decided = retain::decide(cx, copies, engine, &questions)?;
    for (series, plan) in &decided.plans {
        for decision in &plan.decisions {
            let delete = decided.ids.contains(&decision.id);
            document.decisions.push(Row {
                target: engine.target().name.clone(),
                job: series.job.clone(),
                item: series.item.clone(),
                copy: decision.id.clone(),
                time: decision.time,
                delete,
                reason: decision.verdict.to_string(),
            });
        }
    }
    document.refusals.extend(decided.refusals);
    ids.extend(decided.ids);
    Ok(())
}

/// Copies that a person named, by id or by time. Pinned ones and the last good one of a series stay even so.
fn by_choice(
    cx: RunContext<'_>,
    args: &PruneArgs,
    engine: &dyn Engine,
    job: &Job,
    copies: &[Copy],
    ids: &mut Vec<String>,
    document: &mut Document,
) {
    let mut last_good: BTreeMap<&Series, &Copy> = BTreeMap::new();
    for (copy, series) in
        ours(cx, engine, job, copies).filter(|(copy, _)| copy.healthy != Some(false))
    {
        let slot = last_good.entry(series).or_insert(copy);
        if copy.time > slot.time {
            *slot = copy;
        }
    }
    for (copy, series) in ours(cx, engine, job, copies) {
        let by_name = args.copies.iter().find(|wanted| copy.answers_to(wanted));
        let by_time = args.before.is_some_and(|before| copy.time < before)
            || args
                .between
                .as_ref()
                .is_some_and(|span| span[0] <= copy.time && copy.time <= span[1]);
        let reason = match by_name {
            Some(wanted) => format!("named: {wanted}"),
            None if by_time => "chosen by time".to_owned(),
            None => continue,
        };
        let spared = if copy.pinned {
            Some("pinned")
        } else if last_good.get(series).is_some_and(|last| last.id == copy.id) {
            Some("the last good copy")
        } else {
            None
        };
        if let Some(spared) = spared {
            document.refusals.push(format!("{} is {spared}, so it is not deleted", copy.id));
        } else {
            ids.push(copy.id.clone());
        }
        document.decisions.push(Row {
            target: engine.target().name.clone(),
            job: series.job.clone(),
            item: series.item.clone(),
            copy: copy.id.clone(),
            time: copy.time,
            delete: spared.is_none(),
            reason: spared.map_or(reason, str::to_owned),
        });
    }
}
