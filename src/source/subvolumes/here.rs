//! The snapshots of a job's subvolumes that are on this machine, whoever made them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::host::{ActError, Host, Subvolume, mount_of};
use crate::model::job::SubvolumesSource;
use crate::model::shown::Show;
use crate::step::context::Pipeline;
use crate::step::source::ItemSnapshot;

use super::fit::item_of;

/// The subvolumes of file systems, by their devices, with their paths in the top-level one. Each is asked once.
#[derive(Default)]
pub(super) struct OnDevices(BTreeMap<PathBuf, Vec<(PathBuf, Subvolume)>>);

impl OnDevices {
    /// All that are on a file system.
    pub fn all(&mut self, host: &dyn Host, device: &Path) -> &[(PathBuf, Subvolume)] {
        self.0.entry(device.to_owned()).or_insert_with(|| {
            host.subvolumes_on(device).unwrap_or_else(|error| {
                tracing::warn!(%error, "the snapshots on {} are not known", device.shown());
                Vec::new()
            })
        })
    }

    /// The snapshots of a subvolume that are on its file system. What was received claims to be another one than it is.
    pub fn snapshots_of<'a>(
        &'a mut self,
        host: &dyn Host,
        device: &Path,
        origin: Option<&'a String>,
    ) -> impl Iterator<Item = &'a (PathBuf, Subvolume)> {
        let is_one =
            move |found: &Subvolume| is_snapshot_of(found, origin) && found.received_uuid.is_none();
        self.all(host, device).iter().filter(move |(_, found)| is_one(found))
    }
}

/// Whether a subvolume is a snapshot of this one that nobody could change since. One of another subvolume that was at its
/// path is no base: a difference to it would be a full one. And whoever made it writable may have changed it.
pub(super) fn is_snapshot_of(found: &Subvolume, origin: Option<&String>) -> bool {
    found.read_only && origin.is_some() && found.parent_uuid.as_ref() == origin
}

/// Finds them. Of a subvolume that is not there, none is known.
///
/// # Errors
/// When the mount table cannot be read, or a path of the job cannot be looked at.
pub(super) fn snapshots(
    pipeline: Pipeline<'_>,
    job: &SubvolumesSource,
) -> Result<Vec<ItemSnapshot>, ActError> {
    // What is on another machine is compared with nothing here.
    if job.from.is_some() {
        return Ok(Vec::new());
    }
    let host = pipeline.host;
    let mounts = host.mounts()?;
    let mut on = OnDevices::default();
    let mut snapshots = Vec::new();
    for path in &job.paths {
        let at = host.canonical(path);
        let Some(origin) = host.subvolume(&at)?.and_then(|origin| origin.uuid) else { continue };
        let Some(mount) = mount_of(&mounts, &at) else { continue };
        let (device, item) = (&mount.source, item_of(path));
        let of_it = on.snapshots_of(host, device, Some(&origin));
        snapshots.extend(of_it.map(|(path, found)| ItemSnapshot {
            item: Some(item.clone()),
            device: device.clone(),
            path: path.clone(),
            found: found.clone(),
        }));
    }
    Ok(snapshots)
}
