//! The machine as actions would leave it that were only noted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::host::{Action, Host, MountEntry, Subvolume};
use crate::model::undo::Identity;

/// What would be there, or be otherwise.
#[derive(Default)]
pub(super) struct Foretold {
    /// By device and name, the btrfs snapshots that would be made; `None`: that would be deleted.
    snapshots: HashMap<(PathBuf, String), Option<Subvolume>>,
    /// By mount point and device, whether the file system would be read-only.
    remounts: HashMap<(PathBuf, (u32, u32)), bool>,
    /// The control groups that would stand still.
    frozen: HashMap<PathBuf, Identity>,
}

impl Foretold {
    /// Takes an action in, and answers as it would have been answered: with the identity of what would be made or
    /// let go. Nobody looks at the directories and files that would be made, so nothing is foretold of them.
    pub(super) fn after(&mut self, action: &Action, machine: &dyn Host) -> Option<Identity> {
        match action {
            Action::MakeSnapshot { device, origin, name, .. } => {
                let uuid = format!("uuid-of-{name}");
                let made = Subvolume {
                    file_system: origin.file_system.clone(),
                    id: None,
                    uuid: Some(uuid.clone()),
                    parent_uuid: origin.uuid.clone(),
                    read_only: true,
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
            Action::CreateDirectory { .. }
            | Action::EnsureDirectory { .. }
            | Action::ReplaceFile { .. }
            | Action::RemoveStaging { .. }
            | Action::RemoveFile { .. }
            | Action::CommitDeletions { .. }
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

    /// The snapshot of that name, if something is foretold of it: that it would be there, or would not.
    pub(super) fn subvolume_on(&self, device: &Path, name: &str) -> Option<Option<Subvolume>> {
        self.snapshots.get(&(device.to_owned(), name.to_owned())).cloned()
    }
}
