//! The state that a dry run predicts: the machine as actions would leave it that were only noted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::host::{Action, Host, MountEntry, Subvolume, SubvolumeAction};
use crate::model::hash::fnv;
use crate::model::undo::Identity;

/// What would be there, or be otherwise.
#[derive(Default)]
pub(super) struct PredictedState {
    /// By device and path from the top-level subvolume on, the subvolumes that would be there; `None`: that would not.
    snapshots: HashMap<(PathBuf, PathBuf), Option<Subvolume>>,
    /// By mount point and device, whether the file system would be read-only.
    remounts: HashMap<(PathBuf, (u32, u32)), bool>,
    /// The control groups that would stand still.
    frozen: HashMap<PathBuf, Identity>,
    /// The files that would be written, and `None` for those that would be removed.
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// The writable snapshots that would be made, by where they are.
    made: HashMap<PathBuf, Subvolume>,
    /// The subvolumes that would be deleted, by where they are.
    deleted: HashSet<PathBuf>,
}

impl PredictedState {
    /// Takes an action in, and answers as it would have been answered: with the identity of what would be made or
    /// let go. Nobody looks at the directories that would be made, so nothing is predicted of them.
    pub(super) fn after(&mut self, action: &Action, machine: &dyn Host) -> Option<Identity> {
        match action {
            Action::Remount { path, device, read_only } => {
                self.remounts.insert((path.clone(), *device), *read_only);
                None
            }
            Action::Subvolume(action) => self.after_on_subvolume(action),
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
            Action::CreateDirectory { .. }
            | Action::EnsureDirectory { .. }
            | Action::RemoveStaging { .. }
            | Action::FlushFileSystem { .. }
            | Action::Show { .. }
            | Action::Unmount { .. }
            | Action::StopProcess { .. } => None,
        }
    }

    fn after_on_subvolume(&mut self, action: &SubvolumeAction) -> Option<Identity> {
        match action {
            SubvolumeAction::MakeSnapshot { device, origin, name, .. } => {
                let uuid = uuid_of(name);
                let made = Subvolume {
                    file_system: origin.file_system.clone(),
                    id: None,
                    uuid: Some(uuid.clone()),
                    parent_uuid: origin.uuid.clone(),
                    read_only: true,
                    ..Subvolume::default()
                };
                self.snapshots.insert((device.clone(), name.into()), Some(made));
                Some(Identity::Subvolume { uuid })
            }
            SubvolumeAction::DeleteSnapshot { device, name, .. }
            | SubvolumeAction::DeleteWhole { device, path: name, .. } => {
                self.snapshots.insert((device.clone(), name.clone()), None);
                None
            }
            SubvolumeAction::DeleteSubvolume { path, .. } => {
                self.deleted.insert(path.clone());
                None
            }
            SubvolumeAction::MakeWritable { found, at, .. } => {
                let uuid = uuid_of(&at.to_string_lossy());
                let made = Subvolume {
                    file_system: found.file_system.clone(),
                    uuid: Some(uuid.clone()),
                    parent_uuid: found.uuid.clone(),
                    ..Subvolume::default()
                };
                self.made.insert(at.clone(), made);
                Some(Identity::Subvolume { uuid })
            }
            SubvolumeAction::MoveSubvolume { device, from, found, to } => {
                self.snapshots.insert((device.clone(), from.clone()), None);
                self.snapshots.insert((device.clone(), to.clone()), Some(found.clone()));
                None
            }
            SubvolumeAction::ExchangeSubvolumes { device, one, other } => {
                let [one, other] = [one, other].map(|it| (it.path.clone(), it.found.clone()));
                self.snapshots.insert((device.clone(), one.0), Some(other.1));
                self.snapshots.insert((device.clone(), other.0), Some(one.1));
                None
            }
            SubvolumeAction::CommitDeletions { .. } | SubvolumeAction::RenameSubvolume { .. } => {
                None
            }
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

    /// The subvolume at a path of the machine, if something is predicted of it: that it would be there, or would not.
    pub(super) fn subvolume(&self, path: &Path) -> Option<Option<Subvolume>> {
        let made = self.made.get(path).cloned().map(Some);
        made.or_else(|| self.deleted.contains(path).then_some(None))
    }

    /// The subvolume at that path, if something is predicted of it: that it would be there, or would not.
    pub(super) fn subvolume_on(&self, device: &Path, path: &Path) -> Option<Option<Subvolume>> {
        self.snapshots.get(&(device.to_owned(), path.to_owned())).cloned()
    }
}

/// A UUID for what a name stands for, as good as any other.
fn uuid_of(name: &str) -> String {
    let hash = fnv(name.as_bytes());
    format!("{:08x}-0000-0000-0000-{:012x}", hash >> 32, hash & 0xffff_ffff)
}
