//! `adopt`: takes copies into a series of ours, from where they are listed, restored and kept by policy like those that
//! this machine made. Nothing that was stored is rewritten: it is history that learns of them, and an engine that lists
//! nothing without a record of its own writes one ([`crate::engine::Adoption`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Engine, EngineError, Foreign, TakeOver};
use crate::history::Adopted;
use crate::model::copy::{Copy, Series};
use crate::model::glob::glob;
use crate::model::job::Job;
use crate::model::names::{HostName, JobName, MachineId, RunId, TargetName};
use crate::model::outcome::Trouble;

use super::select;
use super::steps::target::lock_for_deleting;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::source::{Item, series_of};

mod foreign;

pub use foreign::By;
use foreign::{Whose, whose};

/// Which copies a person wants to adopt.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The only job into whose series they go; each job's own otherwise.
    pub job: Option<&'a Job>,
    /// What of that job those are of that are named.
    pub item: Option<&'a str>,
    /// The host that they are marked with; this one when absent.
    pub host: Option<&'a HostName>,
    /// The job that they are marked with, if it is another one than that into which they go.
    pub from_job: Option<&'a JobName>,
    /// Only what this machine made, or what bears no machine's mark.
    pub machine: Option<&'a Maker>,
    /// Exactly these copies, whatever they are marked with; of what other programs made, also patterns of names.
    pub copies: &'a [String],
}

/// On which terms other programs' copies are adopted that bear no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// They stay until they are unpinned, whatever the policy says.
    pub pinned: bool,
    /// A person says that they are whole, so the next difference may be based on one.
    pub proven: bool,
}

/// Who made a copy, as far as it says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    /// A machine.
    Machine(MachineId),
    /// It does not say: copies of versions that had no such mark, and of other programs.
    Unmarked,
}

impl std::fmt::Display for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Maker::Machine(machine) => write!(f, "{machine}"),
            Maker::Unmarked => f.write_str("none"),
        }
    }
}

/// One copy that would be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The copy, as it is listed.
    pub copy: Copy,
    /// The series into which it goes.
    pub into: Series,
    /// Who made it.
    pub maker: Maker,
    /// How it is known what it is of.
    pub by: By,
    /// What another program made, and is no copy yet.
    pub foreign: Option<Foreign>,
}

/// What there is to adopt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// What would be adopted.
    pub copies: Vec<Offer>,
    /// What lies there and would not be, and why, in words.
    pub left: Vec<String>,
}

/// Looks what there is to adopt in a target. Changes nothing.
///
/// # Errors
/// When the target cannot be read, a named copy is not there or ambiguous, or the copies are of several machines and
/// none was chosen: taking those of a machine that is alive would mean to delete them under its hands.
pub fn offers(
    pipeline: Pipeline<'_>,
    target: &TargetName,
    request: &Request<'_>,
) -> Result<Offers, StepError> {
    let engine = pipeline.engine(select::target(pipeline.config, target)?);
    let mut copies = select::finished_copies(pipeline, engine)?;
    engine.read_machines(pipeline.engine_context(), &mut copies)?;
    let (foreign, mut left) = foreign_of(pipeline, engine, request)?;
    let mut offers = if request.copies.is_empty() {
        let known = foreign.iter().filter_map(|(foreign, known)| {
            let ((job, item), by) = known.clone()?;
            Some(foreign_offer(pipeline, foreign, &job, item, by))
        });
        let known: Vec<Offer> = known.collect();
        let unknown = foreign.iter().filter(|(_, known)| known.is_none());
        left.extend(unknown.map(|(foreign, _)| unknown_of(foreign)));
        by_series(pipeline, target, request, copies).into_iter().chain(known).collect()
    } else {
        by_name(pipeline, target, request, &copies, &foreign)?
    };
    if let Some(machine) = request.machine {
        offers.retain(|offer| offer.maker == *machine);
    } else if request.copies.is_empty() {
        one_machine(&offers)?;
    }
    Ok(Offers { copies: offers, left })
}

/// What another program made, with what it is of, where that is known.
type WithOwner = (Foreign, Option<(Whose, By)>);

/// What other programs made, and what of it cannot be adopted. None of it bears marks of ours: who asks for those of a host
/// or a job does not mean it.
fn foreign_of(
    pipeline: Pipeline<'_>,
    engine: &dyn Engine,
    request: &Request<'_>,
) -> Result<(Vec<WithOwner>, Vec<String>), StepError> {
    let Some(adoption) = engine.adoption() else { return Ok((Vec::new(), Vec::new())) };
    if request.host.is_some() || request.from_job.is_some() {
        return Ok((Vec::new(), Vec::new()));
    }
    let found = match adoption.foreign(pipeline.engine_context()) {
        // Copies that bear marks are adopted all the same.
        Err(error @ (EngineError::Denied { .. } | EngineError::Unsupported { .. }))
            if request.copies.is_empty() =>
        {
            return Ok((Vec::new(), vec![error.to_string()]));
        }
        found => found?,
    };
    let jobs = jobs_of(pipeline, &engine.target().name, request);
    let mut fit = found.fit;
    let known = whose(pipeline, &jobs, &mut fit, !request.copies.is_empty())?;
    Ok((fit.into_iter().zip(known).collect(), found.unfit))
}

/// The jobs into whose series copies may go.
fn jobs_of<'a>(pipeline: Pipeline<'a>, target: &TargetName, request: &Request<'a>) -> Vec<&'a Job> {
    match request.job {
        Some(job) => vec![job],
        None => pipeline.config.jobs.iter().filter(|job| job.targets.contains(target)).collect(),
    }
}

fn unknown_of(foreign: &Foreign) -> String {
    format!(
        "{}: neither a snapshot that is here nor its base tells of which one job it is; if you know, name it with --job and --item",
        foreign.id.escape_debug()
    )
}

fn foreign_offer(
    pipeline: Pipeline<'_>,
    foreign: &Foreign,
    job: &JobName,
    item: Item,
    by: By,
) -> Offer {
    let host = pipeline.config.host_of(job).clone();
    Offer {
        copy: Copy { id: foreign.id.clone(), time: foreign.time, ..Copy::default() },
        into: Series { host, job: job.clone(), item },
        maker: Maker::Unmarked,
        by,
        foreign: Some(foreign.clone()),
    }
}

fn offer(copy: Copy, into: Series) -> Option<Offer> {
    if copy.ours && copy.series.as_ref() == Some(&into) {
        return None;
    }
    let maker = copy.machine.clone().map_or(Maker::Unmarked, Maker::Machine);
    Some(Offer { copy, into, maker, by: By::Marks, foreign: None })
}

fn by_series(
    pipeline: Pipeline<'_>,
    target: &TargetName,
    request: &Request<'_>,
    copies: Vec<Copy>,
) -> Vec<Offer> {
    let jobs = jobs_of(pipeline, target, request);
    let into = |copy: &Copy| -> Option<Series> {
        let marked = copy.series.as_ref()?;
        let job = jobs.iter().find(|job| {
            let host = request.host.unwrap_or(pipeline.config.host_of(&job.name));
            *host == marked.host && *request.from_job.unwrap_or(&job.name) == marked.job
        })?;
        Some(series_of(pipeline, job, marked.item.clone()))
    };
    copies
        .into_iter()
        .filter_map(|copy| {
            let into = into(&copy)?;
            offer(copy, into)
        })
        .collect()
}

fn by_name(
    pipeline: Pipeline<'_>,
    target: &TargetName,
    request: &Request<'_>,
    copies: &[Copy],
    foreign: &[WithOwner],
) -> Result<Vec<Offer>, StepError> {
    let Some(job) = request.job else {
        let text = "name with --job the job whose series the copies go into";
        return Err(StepError::new(Trouble::Usage, text));
    };
    let mut offers: Vec<Offer> = Vec::new();
    for wanted in request.copies {
        let others = foreign.iter().filter(|(foreign, _)| {
            (foreign.id == *wanted || wanted.contains('*') && glob(wanted, &foreign.id))
                && !offers.iter().any(|offer| offer.copy.id == foreign.id)
        });
        let others: Vec<Offer> = others
            .map(|of| named_offer(pipeline, job, request.item, of))
            .collect::<Result<_, _>>()?;
        if !others.is_empty() {
            offers.extend(others);
            continue;
        }
        let copy = one_of(target, copies, wanted)?;
        let item = copy.series.as_ref().and_then(|series| series.item.clone());
        let item = request.item.map(str::to_owned).or(item);
        offers.extend(offer(copy.clone(), series_of(pipeline, job, item)));
    }
    Ok(offers)
}

/// The copy that a person means.
fn one_of<'c>(
    target: &TargetName,
    copies: &'c [Copy],
    wanted: &str,
) -> Result<&'c Copy, StepError> {
    let found: Vec<&Copy> = match copies.iter().find(|copy| copy.id == wanted) {
        Some(copy) => vec![copy],
        None => copies.iter().filter(|copy| copy.answers_to(wanted)).collect(),
    };
    let text = match found.as_slice() {
        [copy] => return Ok(copy),
        [] => format!("target {target} lists no copy {wanted} — see `stillpoint list --all`"),
        many => {
            format!("{wanted} names {} copies in target {target} — name more of the id", many.len())
        }
    };
    Err(StepError::new(Trouble::Usage, text))
}

/// What a person names goes where a snapshot says, or a base. Otherwise a person says where, unless the job has one item.
fn named_offer(
    pipeline: Pipeline<'_>,
    job: &Job,
    item: Option<&str>,
    (foreign, known): &WithOwner,
) -> Result<Offer, StepError> {
    let refused = |text: String| Err(StepError::new(Trouble::Usage, text));
    let name = foreign.id.escape_debug();
    let items = pipeline.source(job).declared().unwrap_or_default();
    let said = item.map(|item| Some(item.to_owned()));
    if let Some(said) = said.as_ref().filter(|said| !items.contains(said)) {
        let said = said.as_deref().unwrap_or_default();
        return refused(format!("job {} has no item {said} — name one of its paths", job.name));
    }
    match (known, said, items.as_slice()) {
        (Some(((_, is), By::Snapshot | By::Base)), Some(said), _) if *is != said => {
            let is = is.as_deref().unwrap_or_default();
            refused(format!("{name} is of {is}, as what was sent says, and goes nowhere else"))
        }
        (Some(((of, item), by @ (By::Snapshot | By::Base))), _, _)
        | (Some(((of, item), by @ By::Name)), None, _) => {
            Ok(foreign_offer(pipeline, foreign, of, item.clone(), *by))
        }
        (_, Some(said), _) => Ok(foreign_offer(pipeline, foreign, &job.name, said, By::Word)),
        (_, None, [only]) => {
            Ok(foreign_offer(pipeline, foreign, &job.name, only.clone(), By::Word))
        }
        (_, None, _) => refused(format!("say with --item what {name} is of")),
    }
}

fn one_machine(offers: &[Offer]) -> Result<(), StepError> {
    let mut makers: BTreeMap<&Maker, (usize, &Copy)> = BTreeMap::new();
    for offer in offers {
        let (count, newest) = makers.entry(&offer.maker).or_insert((0, &offer.copy));
        *count += 1;
        if offer.copy.time > newest.time {
            *newest = &offer.copy;
        }
    }
    let marked: BTreeSet<&Maker> =
        makers.keys().copied().filter(|maker| **maker != Maker::Unmarked).collect();
    if marked.len() < 2 {
        return Ok(());
    }
    let told: Vec<String> = makers
        .iter()
        .map(|(maker, (count, newest))| {
            format!("{maker} ({count}, the newest of {})", newest.time.format("%Y-%m-%d %H:%M:%SZ"))
        })
        .collect();
    let text = format!(
        "these copies were made by several machines, some of which may still use them: {} — choose one with --machine",
        told.join(", ")
    );
    Err(StepError::new(Trouble::Usage, text))
}

/// Adopts them. The target is listed again under its lock: what went meanwhile is left out. Answers with how many
/// were adopted.
///
/// # Errors
/// When the target is busy or cannot be listed, or history or a record cannot be written.
pub fn adopt(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    offers: &[Offer],
    terms: Terms,
) -> Result<usize, StepError> {
    let target = engine.target();
    let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
    let taken = take_over(cx, engine, offers, terms)?;
    let there: BTreeSet<String> =
        engine.list(cx.engine())?.into_iter().map(|copy| copy.id).collect();
    let is_there = |offer: &&Offer| {
        there.contains(&offer.copy.id)
            && (offer.foreign.is_none() || taken.contains(&offer.copy.id))
    };
    let offers: Vec<&Offer> = offers.iter().filter(is_there).collect();
    let believed = engine.adoption().filter(|_| terms.proven);
    // A record that another attempt has written may say otherwise.
    for offer in offers.iter().filter(|it| it.foreign.is_none() && it.copy.unproven) {
        believed.map_or(Ok(()), |adoption| adoption.prove(cx.engine(), &offer.copy))?;
    }
    let adopted: Vec<Adopted> = offers
        .iter()
        .map(|offer| Adopted {
            target: target.name.clone(),
            id: offer.copy.id.clone(),
            original: offer.copy.original.clone(),
            // What no run of ours made has none.
            run: offer.copy.run.clone().unwrap_or_else(|| RunId::from_bytes([0; 4])),
            series: offer.into.clone(),
            time: offer.copy.time,
            size: offer.copy.size,
            files: offer.copy.files,
            proven: believed.is_some(),
        })
        .collect();
    let now = cx.host().now();
    cx.pipeline.remember(|history| history.adopt(&adopted, &there, now))?;
    Ok(adopted.len())
}

/// Has what other programs made be copies of the target. Answers with the ids of those that are.
fn take_over(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    offers: &[Offer],
    Terms { pinned, proven }: Terms,
) -> Result<Vec<String>, EngineError> {
    let wanted: Vec<TakeOver<'_>> = offers
        .iter()
        .filter_map(|offer| {
            let foreign = offer.foreign.as_ref()?;
            Some(TakeOver { foreign, series: &offer.into, pinned, proven })
        })
        .collect();
    match engine.adoption() {
        Some(adoption) if !wanted.is_empty() => adoption.take_over(cx.engine(), &wanted),
        Some(_) | None => Ok(Vec::new()),
    }
}
