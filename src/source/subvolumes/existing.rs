//! Which snapshots of a subvolume another program makes for a job to send: those that are called as the job says.

use std::path::{Path, PathBuf};

use crate::capture::survey::{Volume, is_snapshot_of_ours};
use crate::host::{Host, MountEntry, Subvolume};
use crate::model::glob::glob;
use crate::model::job::ExistingSnapshots;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::size::counted;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::fit::Fit;
use super::here::OnDevices;

/// What is needed to tell how snapshots are called.
pub(super) struct Looked<'a> {
    existing: &'a ExistingSnapshots,
    /// What they are of.
    volume: &'a Volume,
    /// The mounts by which the machine sees the file system.
    mounts: Vec<MountEntry>,
}

impl<'a> Looked<'a> {
    /// Looks where the file system of a subvolume is mounted.
    ///
    /// # Errors
    /// When the mount table cannot be read.
    pub fn at(
        host: &dyn Host,
        volume: &'a Volume,
        existing: &'a ExistingSnapshots,
    ) -> Result<Self, StepError> {
        let mut mounts = host.mounts()?;
        let source = &volume.mount.source;
        mounts.retain(|mount| mount.file_system == "btrfs" && mount.source == *source);
        Ok(Self { existing, volume, mounts })
    }

    /// The block device of their file system.
    pub fn device(&self) -> &'a Path {
        &self.volume.mount.source
    }

    /// The UUID of what they are of.
    fn origin(&self) -> Option<&String> {
        self.volume.subvolume.as_ref()?.uuid.as_ref()
    }

    /// Whether a snapshot at this path from the top-level subvolume on is one to send. Whoever has changed it since it was
    /// made has made it writable meanwhile.
    pub fn is_wanted(&self, path: &Path, found: &Subvolume) -> bool {
        let is_ours = is_snapshot_of_ours(Path::new(""), path);
        !is_ours && found.read_only && found.changed <= found.made_in && self.is_called_so(path)
    }

    fn is_called_so(&self, path: &Path) -> bool {
        let names: Vec<PathBuf> =
            std::iter::once(path.to_owned()).chain(self.seen_at(path)).collect();
        self.existing.called.iter().any(|pattern| names.iter().any(|name| matches(pattern, name)))
    }

    /// Where the machine sees what lies at this path.
    fn seen_at(&self, path: &Path) -> impl Iterator<Item = PathBuf> {
        let path = Path::new("/").join(path);
        self.mounts
            .iter()
            .filter_map(move |mount| Some(mount.at.join(path.strip_prefix(&mount.root).ok()?)))
    }

    /// What to say of those that are newer than the one to send and are none: that one would look up to date for ever. They
    /// are among all subvolumes of the file system.
    pub fn newer(&self, all: &[(PathBuf, Subvolume)], newest: &Subvolume) -> String {
        let is_newer = |path: &Path, found: &Subvolume| {
            found.parent_uuid.as_ref() == self.origin()
                && found.made_in > newest.made_in
                && self.is_called_so(path)
                && !self.is_wanted(path, found)
        };
        let newer: Vec<String> = all
            .iter()
            .filter(|(path, found)| is_newer(path, found))
            .map(|(path, _)| path.shown().to_string())
            .collect();
        match newer.is_empty() {
            true => String::new(),
            false => format!(
                "; newer, and not sent, since it can be or was written to since it was made: {}",
                newer.join(", ")
            ),
        }
    }

    /// What to say where none is to be sent; of the subvolume, these snapshots are there that cannot be changed now.
    pub fn none<'t>(
        &self,
        host: &dyn Host,
        there: impl Iterator<Item = (&'t Path, &'t Subvolume)> + Clone,
    ) -> String {
        let at = self.volume.at.shown();
        let changed = there.clone().filter(|(path, _)| self.is_called_so(path)).count();
        let all = host.subvolumes_on(self.device()).unwrap_or_default();
        let writable = all.iter().filter(|(path, found)| {
            !found.read_only
                && found.parent_uuid.as_ref() == self.origin()
                && self.is_called_so(path)
        });
        let count = changed + writable.count();
        if count > 0 {
            return format!(
                "of {at}, {} that can be or was written to since it was made, and none that is as it was — have whatever makes them make them read-only (timeshift's cannot be sent)",
                counted(count as u64, "snapshot is there", "snapshots are there"),
            );
        }
        match there.clone().next() {
            Some((path, _)) => format!(
                "none of the {} of {at} is called as `existing` says; the newest lies at {}, from the top-level subvolume on",
                counted(there.count() as u64, "read-only snapshot", "read-only snapshots"),
                path.shown()
            ),
            None => format!(
                "there is no read-only snapshot of {at}: see whether the program still makes them that is to, and of this subvolume"
            ),
        }
    }
}

/// How many there are to send, in words.
///
/// # Errors
/// When there is none.
pub(super) fn preflight(
    pipeline: Pipeline<'_>,
    fit: &Fit,
    existing: &ExistingSnapshots,
) -> Result<String, StepError> {
    let host = pipeline.host;
    let volume = fit.origin.here().ok_or_else(elsewhere)?;
    let looked = Looked::at(host, volume, existing)?;
    let mut on = OnDevices::default();
    let origin = fit.origin.uuid();
    let there: Vec<_> = on.snapshots_of(host, looked.device(), origin).collect();
    let count = there.iter().filter(|(path, found)| looked.is_wanted(path, found)).count();
    if count == 0 {
        let there = there.iter().map(|(path, found)| (&**path, found));
        return Err(StepError::new(Trouble::Environment, looked.none(host, there)));
    }
    Ok(format!("{} to send", counted(count as u64, "snapshot is there", "snapshots are there")))
}

/// Another machine's are not looked for.
pub(super) fn elsewhere() -> StepError {
    let text = "the snapshots that another program makes are sent only from this machine";
    StepError::new(Trouble::Configuration, text)
}

/// Whether a path is called as a pattern says, name by name.
fn matches(pattern: &str, path: &Path) -> bool {
    let path = path.to_string_lossy();
    let (mut patterns, mut names) = (pattern.trim_end_matches('/').split('/'), path.split('/'));
    loop {
        match (patterns.next(), names.next()) {
            (Some(pattern), Some(name)) if glob(pattern, name) => {}
            (None, None) => return true,
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_what_is_in_one_name() {
        let is = |pattern, path: &str| matches(pattern, Path::new(path));
        assert!(is("/home/.snapshots/*/snapshot", "/home/.snapshots/12/snapshot"));
        assert!(!is("/home/.snapshots/*/snapshot", "/home/.snapshots/12/x/snapshot"));
        assert!(!is("/home/.snapshots/*/snapshot", "home/.snapshots/12/snapshot"));
        assert!(is("snapshots/home.*/", "snapshots/home.20261127T0100"));
        assert!(!is("snapshots/home.*", "snapshots/home.20261127T0100/inner"));
        assert!(!is("snapshots/home.*", "snapshots"));
    }
}
