//! The lock of a target.

use std::path::{Path, PathBuf};

use crate::host::{Host, LockGuard, LockMode};
use crate::model::hash::fnv;
use crate::model::names::RunId;
use crate::model::target::Target;

use crate::step::context::Pipeline;
use crate::step::error::StepError;

/// Takes the lock of a target for making copies: shared where the engine lets several write at once.
///
/// # Errors
/// When it is busy for longer than the configured wait.
pub fn lock_for_writing(
    pipeline: Pipeline<'_>,
    run: &RunId,
    target: &Target,
) -> Result<Box<dyn LockGuard>, StepError> {
    let mode = match pipeline.engine(target).is_written_alone() {
        true => LockMode::Exclusive,
        false => LockMode::Shared,
    };
    lock(pipeline, run, target, mode)
}

/// Takes the lock of a target for deleting, compacting or checking: nobody else may be at it.
///
/// # Errors
/// When it is busy for longer than the configured wait.
pub fn lock_for_deleting(
    pipeline: Pipeline<'_>,
    run: &RunId,
    target: &Target,
) -> Result<Box<dyn LockGuard>, StepError> {
    lock(pipeline, run, target, LockMode::Exclusive)
}

fn lock(
    pipeline: Pipeline<'_>,
    run: &RunId,
    target: &Target,
    mode: LockMode,
) -> Result<Box<dyn LockGuard>, StepError> {
    let settings = &pipeline.config.settings;
    let path = lock_path(pipeline.host, &settings.runtime_dir, target);
    Ok(pipeline.host.lock(
        &path,
        mode,
        settings.lock_wait,
        &format!("run {run}, target {}", target.name),
    )?)
}

/// The lock file of a target: keyed by the repository, so that two targets (or two configurations) that
/// mean one repository shut each other out. Two repositories with one hash would merely wait for each other.
pub fn lock_path(host: &dyn Host, runtime_dir: &Path, target: &Target) -> PathBuf {
    let canonical = match target.local.as_deref() {
        Some(path) => host.canonical(path),
        None => PathBuf::from(target.repository.trim_end_matches('/')),
    };
    let bytes = canonical.as_os_str().as_encoded_bytes();
    runtime_dir.join("locks").join(format!("target-{:016x}.lock", fnv(bytes)))
}
