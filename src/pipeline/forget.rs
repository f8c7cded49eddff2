//! `forget-target`: a disk is lost, and nobody should wait for it. What is held for it is let go by the next run.

use crate::history::{CopyRecord, History, KeptCapture};
use crate::model::copy::{CLOCK_SLACK, later};
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::target::Target;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::absent::{self, Presence};

/// What goes with a target.
#[derive(Debug, Default)]
pub struct Loss {
    /// Its recorded copies, newest first: none of them counts any more.
    pub copies: Vec<CopyRecord>,
    /// Copies that are pinned in history alone, by id.
    pub pins: Vec<String>,
    /// Snapshots on this machine that stay for this target alone, for its next difference.
    pub snapshots: Vec<KeptCapture>,
}

/// Looks what would go with a target. Changes nothing.
///
/// # Errors
/// When the target is in the configuration and there, nothing is known of it, or history cannot be read.
pub fn look(pipeline: Pipeline<'_>, name: &TargetName) -> Result<Loss, StepError> {
    let configured = pipeline.config.target(name);
    if let Some(target) = configured {
        refuse_present(pipeline, target)?;
    }
    let Some(history) = pipeline.history else { return Ok(Loss::default()) };
    let known = history.known_targets()?;
    if configured.is_none() && !known.contains(name) {
        let known: Vec<&str> = known.iter().map(TargetName::as_str).collect();
        let known = match known.is_empty() {
            true => "nor of any other".to_owned(),
            false => format!("there is {}", known.join(", ")),
        };
        let text = format!("nothing is recorded of a target {name} — {known}");
        return Err(StepError::new(Trouble::Usage, text));
    }
    Ok(Loss {
        copies: history.copies(name)?,
        pins: history.pins(name)?.into_iter().collect(),
        snapshots: kept_for(pipeline, history, name)?,
    })
}

/// Gives the target up.
///
/// # Errors
/// When history cannot be written; then nothing has changed.
pub fn forget(pipeline: Pipeline<'_>, name: &TargetName) -> Result<(), StepError> {
    let now = pipeline.host.now();
    Ok(pipeline.remember(|history| history.forget_target(name, now))?)
}

/// What is there is not lost.
fn refuse_present(pipeline: Pipeline<'_>, target: &Target) -> Result<(), StepError> {
    let is_here = matches!(absent::look(pipeline, target), Ok(Presence::Here));
    if !is_here || pipeline.engine(target).probe(pipeline.engine_context()).is_err() {
        return Ok(());
    }
    let text = format!(
        "target {0} is there and its repository opens, so nothing was forgotten — take it out of the configuration first; if another repository is at its place on purpose, run `stillpoint prune --accept --target {0}`",
        target.name
    );
    Err(StepError::new(Trouble::Usage, text))
}

/// The snapshots of which this target has its last good copy, and no other target of the job.
fn kept_for(
    pipeline: Pipeline<'_>,
    history: &History,
    name: &TargetName,
) -> Result<Vec<KeptCapture>, StepError> {
    let until = later(pipeline.host.now(), CLOCK_SLACK);
    let needs = |target: &TargetName, kept: &KeptCapture| -> Result<bool, StepError> {
        let last = history.last_good_until(target, &kept.series, until)?;
        Ok(last.is_some_and(|last| last.run == kept.run))
    };
    let mut found = Vec::new();
    for job in pipeline.config.jobs.iter().filter(|job| job.targets.contains(name)) {
        for kept in history.kept(&job.name)? {
            let mut others = job.targets.iter().filter(|other| *other != name);
            let is_shared = others
                .try_fold(false, |is, other| Ok::<_, StepError>(is || needs(other, &kept)?))?;
            if needs(name, &kept)? && !is_shared {
                found.push(kept);
            }
        }
    }
    Ok(found)
}
