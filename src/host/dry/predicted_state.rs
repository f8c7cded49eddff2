//! The state that a dry run predicts: the machine as actions would leave it that were only noted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::host::{Action, Host, MountEntry, Subvolume};
use crate::model::hash::fnv;
use crate::model::undo::Identity;

/// What would be there, or be otherwise.
#[derive(Default)]
pub(super) struct PredictedState {
    /// By device and name, the btrfs snapshots that would be made; `None`: that would be deleted.
    snapshots: HashMap<(PathBuf, String), Option<Subvolume>>,
    /// By mount point and device, whether the file system would be read-only.
    remounts: HashMap<(PathBuf, (u32, u32)), bool>,
    /// The control groups that would stand still.
    frozen: HashMap<PathBuf, Identity>,
    /// The files that would be written, and `None` for those that would be removed.
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// The subvolumes that would be deleted, by where they are.
    deleted: HashSet<PathBuf>,
}

impl PredictedState {
    /// Takes an action in, and answers as it would have been answered: with the identity of what would be made or
    /// let go. Nobody looks at the directories that would be made, so nothing is predicted of them.
    pub(super) fn after(&mut self, action: &Action, machine: &dyn Host) -> Option<Identity> {
        match action {
            Action::MakeSnapshot { device, origin, name, .. } => {
                let uuid = uuid_of(name);
                let made = Subvolume {
                    file_system: origin.file_system.clone(),
                    id: None,
                    uuid: Some(uuid.clone()),
                    parent_uuid: origin.uuid.clone(),
                    read_only: true,
                    ..Subvolume::default()
                };
                self.snapshots.insert((device.clone(), name.clone()), Some(made));
                Some(Identity::Subvolume { uuid })
            }
            Action::DeleteSnapshot { device, name, .. } => {
                self.snapshots.insert((device.clone(), name.clone()), None);
                None
            }
            Action::Remount { path, device, read_only } => {
                self.remounts.insert((path.clone(), *device), *read_only);
                None
            }
            Action::Freeze { cgroup } => {
                // Where there is no such group, that is for the real run to say.
                let identity = machine.path_state(cgroup).ok().flatten()?.identity;
                self.frozen.insert(cgroup.clone(), identity.clone());
                Some(identity)
            }
            Action::Thaw { cgroup, .. } => self.frozen.remove(cgroup),
            Action::ReplaceFile { path, content, .. } => {
                self.files.insert(path.clone(), Some(content.clone()));
                None
            }
            Action::RemoveFile { path } => {
                self.files.insert(path.clone(), None);
                None
            }
            Action::DeleteSubvolume { path, .. } => {
                self.deleted.insert(path.clone());
                None
            }
            Action::CreateDirectory { .. }
            | Action::EnsureDirectory { .. }
            | Action::RemoveStaging { .. }
            | Action::CommitDeletions { .. }
            | Action::FlushFileSystem { .. }
            | Action::RenameSubvolume { .. }
            | Action::Unmount { .. }
            | Action::StopProcess { .. } => None,
        }
    }

    /// The mounts as they would be.
    pub(super) fn remount(&self, mounts: &mut [MountEntry]) {
        for ((path, device), read_only) in &self.remounts {
            let found = mounts.iter_mut().filter(|it| it.at == *path && it.device == *device);
            for mount in found {
                let kept =
                    mount.super_options.split(',').filter(|word| !["ro", "rw"].contains(word));
                let word = if *read_only { "ro" } else { "rw" };
                let options: Vec<&str> = [word].into_iter().chain(kept).collect();
                mount.super_options = options.join(",");
            }
        }
    }

    /// What a file would hold, if something is predicted of it; `None` inside: it would be gone.
    pub(super) fn file(&self, path: &Path) -> Option<Option<Vec<u8>>> {
        self.files.get(path).cloned()
    }

    /// The names in a directory as they would be.
    pub(super) fn names_in(&self, directory: &Path, names: &mut Vec<OsString>) {
        let here = self.files.iter().filter(|(path, _)| path.parent() == Some(directory));
        for (path, content) in here {
            let Some(name) = path.file_name() else { continue };
            names.retain(|known| known != name);
            if content.is_some() {
                names.push(name.to_owned());
            }
        }
    }

    /// Whether a subvolume would be gone.
    pub(super) fn is_deleted(&self, path: &Path) -> bool {
        self.deleted.contains(path)
    }

    /// The snapshot of that name, if something is predicted of it: that it would be there, or would not.
    pub(super) fn subvolume_on(&self, device: &Path, name: &str) -> Option<Option<Subvolume>> {
        self.snapshots.get(&(device.to_owned(), name.to_owned())).cloned()
    }
}

/// A UUID for what a name stands for, as good as any other.
fn uuid_of(name: &str) -> String {
    let hash = fnv(name.as_bytes());
    format!("{:08x}-0000-0000-0000-{:012x}", hash >> 32, hash & 0xffff_ffff)
}
