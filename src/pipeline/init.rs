//! The work behind `init`: makes a repository, and believes that it is there when it can be opened.

use std::path::Path;

use crate::engine::{Engine, EngineError, Initialised};
use crate::host::spec::quote;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::absent;
use super::alias::Ids;
use super::closed;
use super::engine_lock::bracketed;
use super::steps::target::lock_for_deleting;

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A new one, and none may be there.
    New,
    /// A new one, unless one is there.
    Existing,
    /// The one that is there, taken at its place of today.
    Moved,
}

/// A repository that can be opened.
#[derive(Debug)]
pub struct Ready {
    /// What was made; `None` when it was there.
    pub created: Option<Initialised>,
    /// The repository's own id.
    pub repository_id: Option<String>,
    /// What a person should know.
    pub warning: Option<String>,
    /// Why history does not know of it.
    pub unrecorded: Option<StepError>,
}

/// Sees to the repository of one target, under its lock.
///
/// # Errors
/// When it is not there afterwards, or cannot be opened with the configured passphrase.
pub fn init(cx: RunContext<'_>, engine: &dyn Engine, wanted: Wanted) -> Result<Ready, StepError> {
    let target = engine.target();
    require_mount(cx, target)?;
    // Before it is taken at the place that it has under this name.
    Ids::of(cx.pipeline).refuse_second(target, &[])?;
    let created = {
        let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
        match wanted {
            Wanted::Moved => bracketed(cx, engine, |engine, context| engine.accept_place(context))
                .map(|()| None)?,
            Wanted::New => create(cx, engine, target, false)?,
            Wanted::Existing => create(cx, engine, target, true)?,
        }
    };
    let probe = engine.probe(cx.engine())?;
    let owner = probe.repository_id.as_deref().map(|id| absent::owner(cx.pipeline, target, id));
    if let Some(owner) = owner.transpose()?.flatten() {
        let text = format!(
            "the repository at {} is that of target {}, which takes turns with {} — put in the other disk",
            target.repository, owner.name, target.name
        );
        return Err(StepError::new(Trouble::Environment, text));
    }
    let noted = closed::after_init(cx, target, probe.repository_id.as_deref(), created.is_some());
    let (warning, unrecorded) = match noted {
        Ok(warning) => (warning, None),
        Err(error) => (None, Some(error)),
    };
    let made = created.as_ref().and_then(|made| made.repository_id.clone());
    Ok(Ready { created, repository_id: made.or(probe.repository_id), warning, unrecorded })
}

/// Refuses to make a repository below a mount point at which nothing is mounted.
fn require_mount(cx: RunContext<'_>, target: &Target) -> Result<(), StepError> {
    match &target.require_mount {
        Some(mount) if !cx.host().is_mount_point(mount)? => Err(absent::unmounted(target, mount)),
        Some(_) | None => Ok(()),
    }
}

/// Creates the repository; `None` when it is there and may be. What a failure leaves behind is told with what to do
/// about it: the next `init` would find a repository there that nothing can open.
fn create(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    target: &Target,
    may_exist: bool,
) -> Result<Option<Initialised>, StepError> {
    let local = target.local.as_deref();
    if let Some(parent) = local.and_then(Path::parent)
        && cx.host().path_state(parent)?.is_none()
    {
        let text = format!(
            "there is no directory {}, in which the repository would be made — create it, or mount its disk",
            parent.shown()
        );
        return Err(StepError::new(Trouble::Environment, text));
    }
    let is_there = |path: &Path| cx.host().path_state(path).is_ok_and(|state| state.is_some());
    let was_there = local.is_some_and(is_there);
    match engine.init(cx.engine()) {
        Ok(made) => Ok(Some(made)),
        Err(EngineError::RepositoryExists { .. }) if may_exist => Ok(None),
        Err(error) => {
            let mut error = StepError::from(error);
            if let Some(path) = local.filter(|path| !was_there && is_there(path)) {
                let path = quote(path);
                let left = format!(
                    "; what this left in {path} is no repository yet and holds no copy: remove it (rm -r {path}) before the next `stillpoint init {}`",
                    target.name
                );
                error.message.push_str(&left);
            }
            Err(error)
        }
    }
}
