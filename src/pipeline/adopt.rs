//! `adopt`: takes listed copies into a series of ours, from where they are listed, restored and kept by policy like
//! those that this machine made. Nothing in the repository is rewritten: it is history that learns of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Engine;
use crate::history::Adopted;
use crate::model::copy::{Copy, Series};
use crate::model::job::Job;
use crate::model::names::{HostName, JobName, MachineId, RunId, TargetName};
use crate::model::outcome::Trouble;

use super::select;
use super::steps::target::lock_for_deleting;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;

/// Which copies a person wants to adopt.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The only job into whose series they go; each job's own otherwise.
    pub job: Option<&'a Job>,
    /// The host that they are marked with; this one when absent.
    pub host: Option<&'a HostName>,
    /// The job that they are marked with, if it is another one than that into which they go.
    pub from_job: Option<&'a JobName>,
    /// Only what this machine made, or what bears no machine's mark.
    pub machine: Option<&'a Maker>,
    /// Exactly these copies, whatever they are marked with.
    pub copies: &'a [String],
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
) -> Result<Vec<Offer>, StepError> {
    let engine = pipeline.engine(select::target(pipeline.config, target)?);
    let mut copies = select::finished_copies(pipeline, engine)?;
    engine.read_machines(pipeline.engine_context(), &mut copies)?;
    let mut offers = if request.copies.is_empty() {
        by_series(pipeline, target, request, copies)
    } else {
        by_name(pipeline, target, request, &copies)?
    };
    if let Some(machine) = request.machine {
        offers.retain(|offer| offer.maker == *machine);
    } else if request.copies.is_empty() {
        one_machine(&offers)?;
    }
    Ok(offers)
}

fn offer(copy: Copy, into: Series) -> Option<Offer> {
    if copy.ours && copy.series.as_ref() == Some(&into) {
        return None;
    }
    let maker = copy.machine.clone().map_or(Maker::Unmarked, Maker::Machine);
    Some(Offer { copy, into, maker })
}

fn by_series(
    pipeline: Pipeline<'_>,
    target: &TargetName,
    request: &Request<'_>,
    copies: Vec<Copy>,
) -> Vec<Offer> {
    let ours = &pipeline.config.settings.host;
    let host = request.host.unwrap_or(ours);
    let jobs: Vec<&Job> = match request.job {
        Some(job) => vec![job],
        None => pipeline.config.jobs.iter().filter(|job| job.targets.contains(target)).collect(),
    };
    let into = |copy: &Copy| -> Option<Series> {
        let marked = copy.series.as_ref().filter(|series| series.host == *host)?;
        let job = jobs.iter().find(|job| *request.from_job.unwrap_or(&job.name) == marked.job)?;
        Some(Series { host: ours.clone(), job: job.name.clone(), item: marked.item.clone() })
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
) -> Result<Vec<Offer>, StepError> {
    let Some(job) = request.job else {
        let text = "name with --job the job whose series the copies go into";
        return Err(StepError::new(Trouble::Configuration, text));
    };
    let mut offers = Vec::new();
    for wanted in request.copies {
        let found: Vec<&Copy> = match copies.iter().find(|copy| copy.id == *wanted) {
            Some(copy) => vec![copy],
            None => copies.iter().filter(|copy| copy.answers_to(wanted)).collect(),
        };
        let [copy] = found.as_slice() else {
            let text = match found.len() {
                0 => {
                    format!("target {target} lists no copy {wanted} — see `stillpoint list --all`")
                }
                many => {
                    format!("{wanted} names {many} copies in target {target} — name more of the id")
                }
            };
            return Err(StepError::new(Trouble::Configuration, text));
        };
        let item = copy.series.as_ref().and_then(|series| series.item.clone());
        let host = pipeline.config.settings.host.clone();
        offers.extend(offer((*copy).clone(), Series { host, job: job.name.clone(), item }));
    }
    Ok(offers)
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
    Err(StepError::new(Trouble::Configuration, text))
}

/// Adopts them. The target is listed again under its lock: what went meanwhile is left out. Answers with how many
/// were adopted.
///
/// # Errors
/// When the target is busy or cannot be listed, or history cannot be written.
pub fn adopt(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    offers: &[Offer],
) -> Result<usize, StepError> {
    let target = engine.target();
    let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
    let there: BTreeSet<String> =
        engine.list(cx.engine())?.into_iter().map(|copy| copy.id).collect();
    let adopted: Vec<Adopted> = offers
        .iter()
        .filter(|offer| there.contains(&offer.copy.id))
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
        })
        .collect();
    let now = cx.host().now();
    cx.pipeline.remember(|history| history.adopt(&adopted, &there, now))?;
    Ok(adopted.len())
}
