//! A mount before it is made: where it is to be, and what a person may do who does not get it.

use std::path::Path;

use crate::engine::Engine;
use crate::host::spec::quote;
use crate::host::{Host, PathKind};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::ServedMount;
use crate::step::error::StepError;

/// How a copy is to be mounted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The empty directory at which it is to be seen.
    pub at: &'a Path,
    /// The directory of a btrfs below which it is received, where it lies elsewhere; chosen by ourselves when absent.
    pub scratch: Option<&'a Path>,
    /// Try it although it does not seem to fit there.
    pub ignore_space: bool,
}

/// A mount that is about to be made at an empty directory, of what nobody has named so far.
///
/// # Errors
/// When something else is there.
pub(super) fn intended(host: &dyn Host, at: &Path) -> Result<ServedMount, StepError> {
    let at = host.canonical(at);
    match host.path_state(&at)? {
        Some(state) if state.kind == PathKind::Directory && state.empty => {}
        _ => {
            let text = format!("{} is not an empty directory", at.shown());
            return Err(StepError::new(Trouble::Usage, text));
        }
    }
    let before = host.mounts()?.into_iter().filter(|entry| entry.at == at);
    Ok(ServedMount {
        source: String::new(),
        subvolume: None,
        before: before.map(|entry| entry.id).collect(),
        boot_id: host.boot_id()?,
        path: at,
    })
}

/// What may be done with a copy that is not mounted.
pub(super) fn instead(engine: &dyn Engine, copy: &Copy) -> String {
    let job = copy.series.as_ref().map_or("JOB", |series| series.job.as_str());
    let (target, id) = (&engine.target().name, quote(&copy.id));
    let restore = format!("stillpoint restore {job} {id} --target {target}");
    format!(
        "restore what you look for ({restore} PATH --to DIR), or all of it where there is room on a btrfs ({restore} --as-subvolume --to PATH)"
    )
}
