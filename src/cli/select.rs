//! Finding what a person means: jobs by name, a target of a job, a copy by id, run or `latest`.

use serde::Serialize;

use crate::engine::Engine;
use crate::model::copy::Copy;
use crate::model::job::{Config, Job};
use crate::model::names::{JobName, TargetName};
use crate::model::near::nearest;
use crate::model::outcome::Trouble;
use crate::model::target::Target;
use crate::pipeline::context::Pipeline;
use crate::pipeline::error::StepError;

use super::render;

/// What a verb that goes through several targets could not look through, and went on without.
#[derive(Serialize)]
pub struct Unreadable {
    target: TargetName,
    /// The copy; absent when the target as a whole could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
    error: String,
}

impl Unreadable {
    /// Tells a person at once, and keeps it for the document.
    pub fn tell(target: &TargetName, copy: Option<String>, error: StepError) -> Self {
        let place = copy.as_ref().map_or_else(String::new, |copy| format!(", copy {copy}"));
        render::say(&format!("stillpoint: target {target}{place}: {error}"));
        Self { target: target.clone(), copy, error: error.message }
    }
}

/// The jobs of these names, or all of them.
///
/// # Errors
/// When one is not in the configuration.
pub fn jobs<'a>(config: &'a Config, names: &[JobName]) -> Result<Vec<&'a Job>, StepError> {
    if names.is_empty() {
        return Ok(config.jobs.iter().collect());
    }
    names.iter().map(|name| job(config, name)).collect()
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

/// The jobs that a run is to serve: those of these names, or all, as far as they use the target.
///
/// # Errors
/// When a name is unknown, a named job does not use the target, or nothing is left: a run that does nothing
/// must not look like one that did its work.
pub fn jobs_to_run<'a>(
    config: &'a Config,
    names: &[JobName],
    only: Option<&TargetName>,
) -> Result<Vec<&'a Job>, StepError> {
    let mut jobs = jobs(config, names)?;
    if let Some(only) = only {
        target(config, only)?;
        if !names.is_empty() {
            for job in &jobs {
                targets(config, Some(job), Some(only))?;
            }
        }
        jobs.retain(|job| job.targets.contains(only));
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

/// The targets to look at: the one named, or all that the job (or any job) uses, in the file's order.
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
        // Nothing to look at must not look like nothing found.
        let text = "the configuration names no target — see `stillpoint generate config`";
        return Err(StepError::new(Trouble::Configuration, text));
    }
    Ok(targets)
}

/// A target's copies of one job, with what history knows, oldest first; unfinished ones left out.
///
/// # Errors
/// When the target cannot be listed.
pub fn copies_of(
    pipeline: Pipeline<'_>,
    engine: &dyn Engine,
    job: &JobName,
) -> anyhow::Result<Vec<Copy>> {
    let mut copies = all_copies(pipeline, engine)?;
    copies.retain(|copy| {
        copy.series.as_ref().is_some_and(|series| {
            series.job == *job && series.host == pipeline.config.settings.host
        }) && engine.unfinished(copy).is_none()
    });
    Ok(copies)
}

/// Everything a target lists, with what history knows, oldest first.
///
/// # Errors
/// When the target cannot be listed.
pub fn all_copies(pipeline: Pipeline<'_>, engine: &dyn Engine) -> Result<Vec<Copy>, StepError> {
    let mut copies = engine.list(pipeline.engine_context()).map_err(StepError::from)?;
    if let Some(history) = pipeline.history {
        history.enrich(&engine.target().name, &mut copies)?;
    }
    copies.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    Ok(copies)
}

/// The engine of a target; configured targets always have one.
///
/// # Errors
/// When the configuration was changed under us.
pub fn engine<'a>(
    pipeline: Pipeline<'a>,
    target: &TargetName,
) -> Result<&'a dyn Engine, StepError> {
    pipeline.engine(target).ok_or_else(|| {
        StepError::new(Trouble::Unexpected, format!("target {target} has no engine"))
    })
}

/// One copy of a job: `latest`, an id (six characters or more of it), or a run id. The first target in
/// which it is found serves it; a target that cannot be read is passed over as long as another one can.
/// `latest` is the newest good copy in any of them: a target that missed the last nights does not serve it.
///
/// # Errors
/// When no target has it, or several copies answer to the text.
pub fn copy<'a>(
    pipeline: Pipeline<'a>,
    job: &Job,
    only: Option<&TargetName>,
    item: Option<&str>,
    wanted: &str,
) -> anyhow::Result<(&'a dyn Engine, Copy)> {
    let mut unreadable: Option<anyhow::Error> = None;
    let mut looked = Vec::new();
    let mut newest: Vec<(&dyn Engine, Copy)> = Vec::new();
    for target in targets(pipeline.config, Some(job), only)? {
        let engine = engine(pipeline, &target.name)?;
        let mut copies = match copies_of(pipeline, engine, &job.name) {
            Ok(copies) => copies,
            Err(error) => {
                super::render::say(&format!(
                    "stillpoint: target {} is passed over: {error}",
                    target.name
                ));
                unreadable.get_or_insert(error);
                continue;
            }
        };
        looked.push(target.name.as_str());
        if let Some(item) = item {
            copies.retain(|copy| {
                copy.series.as_ref().is_some_and(|s| s.item.as_deref() == Some(item))
            });
        }
        if wanted == "latest" {
            let items: std::collections::BTreeSet<_> = copies
                .iter()
                .filter_map(|copy| copy.series.as_ref().map(|s| s.item.clone()))
                .collect();
            if items.len() > 1 {
                let items: Vec<String> = items.into_iter().flatten().collect();
                let text = format!(
                    "job {} has several streams — choose one with --item: {}",
                    job.name,
                    items.join(", ")
                );
                return Err(StepError::new(Trouble::Configuration, text).into());
            }
            // The newest copy that is known to be good; else the newest there is.
            let good = copies.iter().rev().find(|copy| copy.healthy != Some(false));
            newest.extend(good.or(copies.last()).map(|copy| (engine, copy.clone())));
            continue;
        }
        let mut found: Vec<Copy> =
            copies.into_iter().filter(|copy| copy.answers_to(wanted)).collect();
        if found.len() > 1 {
            let ids: Vec<&str> = found.iter().map(|copy| copy.id.as_str()).collect();
            let text =
                format!("{wanted} is ambiguous in target {}: {}", target.name, ids.join(", "));
            return Err(StepError::new(Trouble::Configuration, text).into());
        }
        if let Some(copy) = found.pop() {
            return Ok((engine, copy));
        }
    }
    // Copies of one run are the same data, so the first target of them serves it.
    let best = newest.iter().max_by_key(|(_, copy)| (copy.healthy != Some(false), copy.time));
    let run = best.map(|(_, copy)| copy.run.clone());
    if let Some(first) = newest.into_iter().find(|(_, copy)| Some(&copy.run) == run.as_ref()) {
        return Ok(first);
    }
    if looked.is_empty()
        && let Some(error) = unreadable
    {
        return Err(error);
    }
    let what = if wanted == "latest" { "no copy".to_owned() } else { format!("no copy {wanted}") };
    let text = format!("there is {what} of job {} in {}", job.name, looked.join(", "));
    let hint = "see `stillpoint list`";
    Err(StepError::new(Trouble::JobFailed, format!("{text} — {hint}")).into())
}
