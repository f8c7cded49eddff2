//! Copies that are received as subvolumes into directories of a run's own.

use std::path::{Path, PathBuf};

use crate::capture::survey::staging_name;
use crate::capture::workplaces;
use crate::engine::AsSubvolume;
use crate::host::spec::quote;
use crate::host::{
    ActError, Action, Confinement, Host, PathKind, Staged, SubvolumeAction, TrustKind, mount_of,
};
use crate::model::copy::Copy;
use crate::model::keep::MinFree;
use crate::model::shown::Show;
use crate::model::undo::{Identity, StagingDirectory};
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::restore::own::used;
use super::staging::{elsewhere, refuse_seen, try_own_directory};

/// How much stays free of where a copy is received: others write to that file system, perhaps what the copy is of. A look at
/// it misses what came within a second.
const RESERVE: MinFree = MinFree::Percent(5);

/// More than that need not be.
const RESERVE_AT_MOST: u64 = 10 << 30;

/// So many bytes stay free of the file system that holds a place, unless a person wants all of it.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn reserve(
    host: &dyn Host,
    place: &Path,
    ignore_space: bool,
) -> Result<Option<u64>, ActError> {
    if ignore_space {
        return Ok(None);
    }
    Ok(Some(RESERVE.of(host.total_space(place)?).min(RESERVE_AT_MOST)))
}

/// Why a directory is none of a btrfs in which nobody but root may put anything, where a copy may be received; `None`: it is.
///
/// # Errors
/// When the mounts cannot be read.
pub(super) fn unfit(cx: RunContext<'_>, place: &Path) -> Result<Option<String>, StepError> {
    let (host, shown) = (cx.host(), place.shown());
    match host.path_state(place)? {
        Some(found) if found.kind == PathKind::Directory => {}
        Some(_) | None => return Ok(Some(format!("there is no directory {shown}"))),
    }
    if mount_of(&host.mounts()?, place).is_none_or(|mount| mount.file_system != "btrfs") {
        return Ok(Some(format!("{shown} is on none")));
    }
    if host.is_read_only(place)? {
        return Ok(Some(format!("{shown} is mounted read-only")));
    }
    if host.subvolume_around(place)?.is_some_and(|it| it.read_only) {
        return Ok(Some(format!("{shown} lies in a read-only subvolume")));
    }
    if let Err(error) = host.check_trusted(place, TrustKind::Directory) {
        let quoted = quote(place);
        return Ok(Some(format!("{shown} lets others in ({error}; chmod go-w {quoted})")));
    }
    used(host, cx.config(), place)
}

/// A directory of ours into which copies are received; a dry run only says where it would be.
pub(super) struct Staging {
    pub path: PathBuf,
    pub identity: Option<Identity>,
}

impl Staging {
    /// Makes one in a place, which goes with the run; `what_for` is in its name. That it cannot be made is the inner error, for
    /// who knows what to do then.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn make(
        cx: RunContext<'_>,
        place: &Path,
        what_for: &str,
    ) -> Result<Result<Self, ActError>, StepError> {
        let path = place.join(staging_name(what_for, cx.run));
        let own = StagingDirectory { subvolumes: true, ..elsewhere(cx.host(), &path)? };
        let made = try_own_directory(cx.pipeline, cx.ledger, own)?;
        Ok(made.map(|identity| Self { path, identity }))
    }

    /// What an engine is asked for that is to receive a copy under a name into it, and to write nowhere else.
    pub fn wanted<'a>(
        &'a self,
        cx: RunContext<'_>,
        copy: &'a Copy,
        name: &'a str,
        leave_free: Option<u64>,
    ) -> AsSubvolume<'a> {
        let into = self.path.as_path();
        let [_, at] = workplaces(&cx.config().settings);
        let identity = self.identity.clone().filter(|_| cx.host().may_confine());
        let confinement = identity.map(|identity| Confinement {
            staged: vec![Staged { path: into.to_owned(), identity, at }],
            writable: Vec::new(),
        });
        AsSubvolume { copy, into, name, confinement, nameless: false, leave_free }
    }

    /// Deletes what was received into it, and all of it that does not lie in what stays, if that is still the one that was made
    /// and nobody sees it elsewhere.
    ///
    /// # Errors
    /// When some of it cannot be deleted, or is seen.
    pub fn empty(&self, host: &dyn Host, stays: Option<&Path>) -> Result<(), StepError> {
        let found = host.path_state(&self.path)?;
        let both = self.identity.as_ref().zip(found);
        if !both.is_some_and(|(made, found)| made.is(&found.identity)) {
            return Ok(());
        }
        refuse_seen(host, &self.path)?;
        let mut nested = host.nested_subvolumes(&self.path)?;
        nested.retain(|path| stays.is_none_or(|stays| !path.starts_with(stays)));
        for path in nested {
            if let Some(found) = host.subvolume(&path)? {
                host.act(&Action::Subvolume(SubvolumeAction::DeleteSubvolume { path, found }))?;
            }
        }
        Ok(())
    }
}
