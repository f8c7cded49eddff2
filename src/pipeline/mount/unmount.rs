//! Mounts that somebody left are taken away, and nobody else's.

use std::path::Path;

use crate::host::{ActError, Action, CommandSpec, Effect, HELPER_LIMIT, Host, MountEntry};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::{Identity, ServedMount};
use crate::step::error::StepError;
use crate::tools::fuse;

/// Whether a mount is one of the intended kind at the intended place, and was not there before.
pub(super) fn is_new(intended: &ServedMount, entry: &MountEntry) -> bool {
    let is_of_the_kind = entry.is_fuse() == intended.subvolume.is_none();
    entry.at == intended.path && is_of_the_kind && !intended.before.contains(&entry.id)
}

/// Unmounts what is left mounted: the recorded mount or, where the crash came before the record, one of the intended
/// kind that was not there before. The engine itself must have ended, and nobody else's is touched: a mount that is
/// served is somebody else's, and so is one that shows another subvolume.
pub(in crate::pipeline) fn unmount(
    host: &dyn Host,
    intended: &ServedMount,
    identity: Option<&Identity>,
) -> Result<(), StepError> {
    // A boot starts with none.
    if intended.boot_id != host.boot_id()? {
        return Ok(());
    }
    let is_ours = |entry: &&MountEntry| match identity {
        Some(identity) => {
            is_new(intended, entry)
                && *identity == Identity::Mount { id: entry.id, device: entry.device }
        }
        // What is shown is looked at by who takes it away.
        None if intended.subvolume.is_some() => {
            is_new(intended, entry) && entry.file_system == "btrfs"
        }
        None => is_new(intended, entry) && entry.source == Path::new(&intended.source),
    };
    let mounts = host.mounts()?;
    let Some(ours) = mounts.iter().rfind(is_ours) else { return Ok(()) };
    let path = &intended.path;
    if mounts.iter().rfind(|entry| entry.at == *path).is_some_and(|top| top.id != ours.id) {
        let text = format!(
            "something else is mounted over the copy at {} — unmount that first",
            path.shown()
        );
        return Err(StepError::new(Trouble::Cleanup, text));
    }
    let subvolume = intended.subvolume.clone();
    let action =
        Action::Unmount { path: path.clone(), id: ours.id, device: ours.device, subvolume };
    match host.act(&action) {
        Ok(None) => return Ok(()),
        Ok(Some(_)) => {}
        Err(ActError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied
                && intended.subvolume.is_none() =>
        {
            // Whoever is not root has mounted it with its help.
            let mut spec = CommandSpec::new(fuse::FUSERMOUNT, Effect::Mutate);
            spec.time_limit = Some(HELPER_LIMIT);
            host.run(&spec.args(["-u", "-z", "--"]).arg(path), &mut |_, _| {})?;
        }
        Err(error) => return Err(error.into()),
    }
    match host.mounts()?.iter().rfind(is_ours) {
        None => Ok(()),
        Some(_) => {
            let text = format!("{} is still mounted — umount it", path.shown());
            Err(StepError::new(Trouble::Cleanup, text))
        }
    }
}
