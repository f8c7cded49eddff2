//! Tells a target whose disk is away from one that is broken.
//!
//! Where the configuration says `when-absent = "skip"`, a disk that is carried away is no failure. A target is absent
//! only while nothing is mounted where it needs a mount, or while the disk there is known to be that of another target,
//! which takes turns with it. A repository that is not there although a disk is was deleted, or the disk is a stranger's:
//! that is never passed over.

use std::path::Path;

use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::target::{Target, WhenAbsent};
use crate::step::context::Pipeline;
use crate::step::error::StepError;

/// Whether a target is there, as far as its place tells. What its repository holds is another question.
#[derive(Debug)]
pub enum Presence {
    /// Its disk is there, or it needs none.
    Here,
    /// Its disk is away, as it may be; why that is known.
    Absent(String),
    /// It takes turns with others, and a disk is there that is known to be no one's of them.
    Unknown(StepError),
}

/// Looks whether a target is there. Changes nothing.
///
/// # Errors
/// When its disk is away and must not be, or that cannot be told.
pub fn look(pipeline: Pipeline<'_>, target: &Target) -> Result<Presence, StepError> {
    let Some(mount) = &target.require_mount else { return Ok(Presence::Here) };
    if pipeline.host.is_mount_point(mount)? {
        return match others(pipeline, target).is_empty() {
            true => Ok(Presence::Here),
            false => whose_turn(pipeline, target),
        };
    }
    match target.when_absent {
        WhenAbsent::Skip => {
            Ok(Presence::Absent(format!("nothing is mounted at {}", mount.shown())))
        }
        WhenAbsent::Fail => Err(unmounted(target, mount)),
    }
}

/// What is said of a target at whose mount point nothing is mounted.
pub fn unmounted(target: &Target, mount: &Path) -> StepError {
    let text = format!(
        "nothing is mounted at {}, which target {} requires, so nothing was written there — mount its disk",
        mount.shown(),
        target.name
    );
    StepError::new(Trouble::Environment, text)
}

/// The same for work that cannot do without the target.
///
/// # Errors
/// When it is not there.
pub fn require(pipeline: Pipeline<'_>, target: &Target) -> Result<(), StepError> {
    match look(pipeline, target)? {
        Presence::Here => Ok(()),
        Presence::Absent(why) => Err(told(target, &why)),
        Presence::Unknown(error) => Err(error),
    }
}

/// The same for reading what is there, which goes on where nothing is known of whose disk it is: history may be lost.
///
/// # Errors
/// When the target is known to be absent.
pub fn refuse(pipeline: Pipeline<'_>, target: &Target) -> Result<(), StepError> {
    match absence(pipeline, target) {
        Some(why) => Err(told(target, &why)),
        None => Ok(()),
    }
}

/// Why a target is absent, where it may be; `None` as well where that cannot be told.
pub fn absence(pipeline: Pipeline<'_>, target: &Target) -> Option<String> {
    match target.when_absent {
        WhenAbsent::Fail => None,
        WhenAbsent::Skip => match look(pipeline, target) {
            Ok(Presence::Absent(why)) => Some(why),
            Ok(Presence::Here | Presence::Unknown(_)) | Err(_) => None,
        },
    }
}

/// Of the targets that take turns with this one, that whose repository has this id, as history knows it.
///
/// # Errors
/// When history cannot be read.
pub fn owner<'a>(
    pipeline: Pipeline<'a>,
    target: &Target,
    id: &str,
) -> Result<Option<&'a Target>, StepError> {
    let Some(history) = pipeline.history else { return Ok(None) };
    for other in others(pipeline, target) {
        if history.repository(&other.name)?.as_deref() == Some(id) {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

fn others<'a>(pipeline: Pipeline<'a>, target: &Target) -> Vec<&'a Target> {
    pipeline.config.targets.iter().filter(|other| other.takes_turns_with(target)).collect()
}

/// Whose disk is there, of those that take turns: told by the ids of their repositories, which are no text that somebody
/// typed.
fn whose_turn(pipeline: Pipeline<'_>, target: &Target) -> Result<Presence, StepError> {
    let Some(history) = pipeline.history else { return Ok(Presence::Here) };
    let known = history.repository(&target.name)?;
    let asked = |target: &Target| pipeline.engine(target).probe(pipeline.engine_context());
    let unopened = match asked(target) {
        Ok(probe) => match probe.repository_id {
            id if id.is_some() && id == known => return Ok(Presence::Here),
            Some(id) => match owner(pipeline, target, &id)? {
                Some(other) => return Ok(in_the_place_of(other)),
                None => None,
            },
            None => None,
        },
        Err(error) => Some(StepError::from(error)),
    };
    // Another engine or passphrase may be what it takes to open it.
    if unopened.is_some() {
        for other in others(pipeline, target) {
            let id = asked(other).ok().and_then(|probe| probe.repository_id);
            if id.is_some() && id == history.repository(&other.name)? {
                return Ok(in_the_place_of(other));
            }
        }
    }
    Ok(Presence::Unknown(unopened.unwrap_or_else(|| strange(target, known.is_some()))))
}

fn in_the_place_of(other: &Target) -> Presence {
    Presence::Absent(format!("the disk of target {} is in its place", other.name))
}

fn strange(target: &Target, is_known: bool) -> StepError {
    let (name, place) = (&target.name, &target.repository);
    let remedy = match is_known {
        true => format!("`stillpoint prune --accept --target {name}`"),
        false => format!("`stillpoint init --existing {name}`"),
    };
    let text = format!(
        "the repository at {place} is not known to be that of target {name}, nor of one that takes turns with it — if it is {name}'s, run {remedy} while it is there"
    );
    StepError::new(Trouble::Environment, text)
}

/// What is said of work that cannot do without an absent target.
pub fn told(target: &Target, why: &str) -> StepError {
    let text = format!("target {} is absent: {why} — mount its disk", target.name);
    StepError::new(Trouble::Environment, text)
}
