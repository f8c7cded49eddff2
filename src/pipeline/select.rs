//! What a person means by names: jobs and targets of the configuration, and what the targets list.

use std::collections::BTreeSet;

use crate::engine::Engine;
use crate::model::copy::Copy;
use crate::model::job::{Config, Job, Part, Scope};
use crate::model::names::{JobName, TargetName};
use crate::model::near::nearest;
use crate::model::outcome::Trouble;
use crate::model::target::Target;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::absent;

/// The jobs of these names, each once, or all of them.
///
/// # Errors
/// When one is not in the configuration.
pub fn jobs<'a>(config: &'a Config, names: &[JobName]) -> Result<Vec<&'a Job>, StepError> {
    if names.is_empty() {
        return Ok(config.jobs.iter().collect());
    }
    let mut met = BTreeSet::new();
    names.iter().filter(|name| met.insert(*name)).map(|name| job(config, name)).collect()
}

/// The job of this name.
///
/// # Errors
/// When it is not in the configuration.
pub fn job<'a>(config: &'a Config, name: &JobName) -> Result<&'a Job, StepError> {
    config.job(name).ok_or_else(|| {
        let known: Vec<&str> = config.jobs.iter().map(|job| job.name.as_str()).collect();
        unknown("job", name.as_str(), &known)
    })
}

/// The target of this name.
///
/// # Errors
/// When it is not in the configuration.
pub fn target<'a>(config: &'a Config, name: &TargetName) -> Result<&'a Target, StepError> {
    config.target(name).ok_or_else(|| {
        let known: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
        unknown("target", name.as_str(), &known)
    })
}

/// The jobs that a run is to serve: those of these names, or all, as far as they use the target and do what is asked for.
///
/// # Errors
/// When a name is unknown, a named job does not use the target or cannot do what is asked for, or nothing is left: a run
/// that does nothing must not look like one that did its work.
pub fn jobs_to_run<'a>(
    config: &'a Config,
    names: &[JobName],
    scope: Scope<'_>,
) -> Result<Vec<&'a Job>, StepError> {
    let mut jobs = jobs(config, names)?;
    let only = scope.target;
    if let Some(only) = only {
        target(config, only)?;
        if !names.is_empty() {
            for job in &jobs {
                targets(config, Some(job), Some(only))?;
            }
        }
        jobs.retain(|job| job.targets.contains(only));
    }
    let unfit = jobs.iter().find_map(|job| hindrance(job, scope.part));
    if let Some(why) = unfit {
        jobs.retain(|job| hindrance(job, scope.part).is_none());
        if !names.is_empty() || jobs.is_empty() {
            return Err(StepError::new(Trouble::Configuration, why));
        }
    }
    if jobs.is_empty() {
        let text = match only {
            Some(only) => format!("no job uses target {only} — name it in the targets of a job"),
            None => "the configuration names no job, so nothing is protected — see `stillpoint generate config`".into(),
        };
        return Err(StepError::new(Trouble::Configuration, text));
    }
    Ok(jobs)
}

/// Why a job cannot do a part of its work alone, if so.
fn hindrance(job: &Job, part: Part) -> Option<String> {
    let (name, source) = (&job.name, &job.source);
    if part != Part::Whole && !source.can_be_had_apart() {
        return Some(format!(
            "job {name} is of {}, of which nothing stays here from run to run — only a job of subvolumes makes snapshots and sends them apart from each other",
            source.kind()
        ));
    }
    match part {
        Part::Whole | Part::Transfer => None,
        Part::Snapshots if !source.keeps_snapshots() => {
            Some(format!("job {name} makes no snapshots: it sends existing ones"))
        }
        Part::Snapshots => job.keep_snapshots.is_none().then(|| {
            format!(
                "nothing would keep the snapshots of job {name} — say how long: [jobs.{name}.keep-snapshots]"
            )
        }),
    }
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> StepError {
    let hint = match nearest(name, known.iter().copied()) {
        Some(candidate) => format!("did you mean {candidate}?"),
        None if known.is_empty() => format!("the configuration names no {kind}"),
        None => format!("there is {}", known.join(", ")),
    };
    StepError::new(
        Trouble::Configuration,
        format!("there is no {kind} {name} in the configuration — {hint}"),
    )
}

/// The targets to read: the one named, or all that the job (or any job) uses, in the file's order.
///
/// # Errors
/// When the named one is not in the configuration, the job does not use it, or there is none at all.
pub fn targets<'a>(
    config: &'a Config,
    of: Option<&Job>,
    only: Option<&TargetName>,
) -> Result<Vec<&'a Target>, StepError> {
    if let Some(only) = only {
        let target = target(config, only)?;
        if let Some(job) = of
            && !job.targets.contains(only)
        {
            let text = format!("job {} does not use target {only}", job.name);
            return Err(StepError::new(Trouble::Configuration, text));
        }
        return Ok(vec![target]);
    }
    let targets: Vec<&Target> = match of {
        Some(job) => job.targets.iter().filter_map(|name| config.target(name)).collect(),
        None => config.targets.iter().collect(),
    };
    if targets.is_empty() {
        // Nothing to read must not look like nothing found.
        let text = "the configuration names no target — see `stillpoint generate config`";
        return Err(StepError::new(Trouble::Configuration, text));
    }
    Ok(targets)
}

/// Everything a target lists, with what history knows, oldest first.
///
/// # Errors
/// When the target cannot be listed.
pub fn all_copies(pipeline: Pipeline<'_>, engine: &dyn Engine) -> Result<Vec<Copy>, StepError> {
    absent::refuse(pipeline, engine.target())?;
    let mut copies = engine.list(pipeline.engine_context()).map_err(StepError::from)?;
    if let Some(history) = pipeline.history {
        history.enrich(&engine.target().name, &mut copies)?;
    }
    copies.sort_by(|a, b| a.moment().cmp(&b.moment()));
    Ok(copies)
}

/// The same without the copies that the engine did not finish.
///
/// # Errors
/// As [`all_copies`].
pub fn finished_copies(
    pipeline: Pipeline<'_>,
    engine: &dyn Engine,
) -> Result<Vec<Copy>, StepError> {
    let mut copies = all_copies(pipeline, engine)?;
    copies.retain(|copy| engine.unfinished(copy).is_none());
    Ok(copies)
}

/// Whether a copy is of this job, or of any where none is asked for.
pub fn is_of(copy: &Copy, job: Option<&JobName>) -> bool {
    copy.series.as_ref().is_some_and(|series| job.is_none_or(|job| series.job == *job))
}

/// The targets in which the copies of a job are looked for: the one named, whether the job uses it now or not;
/// else those that the job uses.
///
/// # Errors
/// When the target is unknown; or the job is, and no target is named.
pub fn targets_of<'a>(
    config: &'a Config,
    name: &JobName,
    only: Option<&TargetName>,
) -> Result<Vec<&'a Target>, StepError> {
    if let Some(only) = only {
        return Ok(vec![target(config, only)?]);
    }
    match job(config, name) {
        Ok(job) => targets(config, Some(job), None),
        Err(error) => Err(StepError::new(
            error.trouble,
            format!(
                "{}; copies of a job of an earlier configuration are found with --target",
                error.message
            ),
        )),
    }
}

/// The targets that a verb over several of them goes through: those of a job, also of one of an earlier configuration
/// where a target is named, or all.
///
/// # Errors
/// As [`targets_of`] and [`targets`].
pub fn targets_to_read<'a>(
    config: &'a Config,
    job: Option<&JobName>,
    only: Option<&TargetName>,
) -> Result<Vec<&'a Target>, StepError> {
    match job {
        Some(job) => targets_of(config, job, only),
        None => targets(config, None, only),
    }
}

/// A target, or one copy in it, that could not be read by a verb that goes on with the others.
#[derive(Debug)]
pub struct Unread {
    /// The target that holds the copy.
    pub target: TargetName,
    /// The copy's id; absent when the target as a whole could not be listed.
    pub copy: Option<String>,
    /// What the engine or the machine said.
    pub error: StepError,
    /// It is a target that is absent as it may be, and nobody has named it: no trouble.
    pub is_excused: bool,
}

impl Unread {
    /// A target that could not be listed; `only` is that which a person has named, if one.
    pub fn target(
        pipeline: Pipeline<'_>,
        target: &Target,
        only: Option<&TargetName>,
        error: StepError,
    ) -> Self {
        let is_excused = only.is_none() && absent::absence(pipeline, target).is_some();
        Self { target: target.name.clone(), copy: None, error, is_excused }
    }

    /// What it means for whoever asked.
    pub fn trouble(&self) -> Option<Trouble> {
        (!self.is_excused).then_some(self.error.trouble)
    }
}
