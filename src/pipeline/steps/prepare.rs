//! The targets of a job before anything is begun: which are there, and their locks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::host::LockGuard;
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::target::Target;

use crate::pipeline::absent::{self, Presence};
use crate::pipeline::alias::Ids;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

use super::target::{lock_for_writing, lock_path};

/// The locks that are held, by target; one that was let go early is `None`.
pub type Locks<'a> = BTreeMap<&'a TargetName, Option<Box<dyn LockGuard>>>;

/// Targets that are absent as they may be, with the reason.
pub type Absences = BTreeMap<TargetName, String>;

/// The targets of a job, by whether they are there.
#[derive(Default)]
pub struct Looked<'a> {
    /// Those to go on with, or what stands in the way.
    pub wanted: Vec<(&'a Target, Result<(), StepError>)>,
    /// Those to go on without.
    pub absent: Absences,
}

/// Looks which targets are there, and says which are absent, one line for each. What is filled from one of them is left
/// out with it.
pub fn look_for<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    targets: &[&'a Target],
) -> Looked<'a> {
    let mut looked = Looked::default();
    for target in targets {
        let found = match absent::look(cx.pipeline, target) {
            Ok(Presence::Absent(why)) => {
                looked.absent.insert(target.name.clone(), why);
                continue;
            }
            Ok(Presence::Here) => Ok(()),
            Ok(Presence::Unknown(error)) | Err(error) => Err(error),
        };
        looked.wanted.push((target, found));
    }
    let Looked { wanted, absent } = &mut looked;
    wanted.retain(|(target, _)| {
        let Some(from) = target.copy_from.as_ref().filter(|from| absent.contains_key(*from)) else {
            return true;
        };
        let why = format!("target {from}, from which it is filled, is absent");
        absent.insert(target.name.clone(), why);
        false
    });
    let beside: Vec<&Target> = looked.wanted.iter().map(|(target, _)| *target).collect();
    let mut ids = Ids::of(cx.pipeline);
    for (target, found) in &mut looked.wanted {
        if found.is_ok() {
            *found = ids.refuse_second(target, &beside);
        }
    }
    for (target, why) in &looked.absent {
        rec.step("prepare", Some(target), None, |_| Ok(((), Done::skipped(why))));
    }
    looked
}

/// Locks every target that can be had. One that is busy or not mounted does not stop the others.
pub fn lock_targets<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    targets: Vec<(&'a Target, Result<(), StepError>)>,
) -> Locks<'a> {
    let runtime = &cx.config().settings.runtime_dir;
    let with_path = |(target, found)| (lock_path(cx.host(), runtime, target), target, found);
    let mut sorted: Vec<(PathBuf, &Target, _)> = targets.into_iter().map(with_path).collect();
    sorted.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let mut locks = Locks::new();
    let mut paths: BTreeMap<PathBuf, &Target> = BTreeMap::new();
    for (path, target, found) in sorted {
        let first = *paths.entry(path).or_insert(target);
        let lock = rec.step("prepare", Some(&target.name), None, |_| {
            // Of those that take turns, only one is there.
            if first.name != target.name && !first.takes_turns_with(target) {
                // Waiting for its lock would be waiting for ourselves.
                let text = format!(
                    "targets {} and {} mean the same repository, so this job would go there twice — take one of them from its targets",
                    first.name, target.name
                );
                return Err(StepError::new(Trouble::Configuration, text));
            }
            found?;
            Ok((lock_for_writing(cx.pipeline, cx.run, target)?, Done::ok("ready")))
        });
        if let Some(lock) = lock {
            locks.insert(&target.name, Some(lock));
        }
        if cx.host().stop_signal().is_some() {
            return Locks::new();
        }
    }
    locks
}
