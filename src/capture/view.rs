//! What an engine sees: the captures over their original paths, and live what must stay live.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::host::{Access, PrivateMount, PrivateView};

use super::survey::{Survey, Volume};
use super::{Context, Still, bare_workplace, workplace};

/// How an engine sees what holds a volume still, over its original path; `None` when it is read where it is. `programs`
/// are what engines are started from: what holds one of them must let it be executed.
pub fn mount(still: &Still, volume: &Volume, programs: &[PathBuf]) -> Option<PrivateMount> {
    let (device, options, directory) = match still {
        // And nothing of another machine can be mounted here.
        Still::Path(_) | Still::Far { .. } => return None,
        Still::Device(device) => {
            // A second XFS of the same UUID is refused otherwise.
            let options = if volume.mount.file_system == "xfs" { "nouuid" } else { "" };
            let root = &volume.mount.root;
            (device, options.to_owned(), (root.as_os_str() != "/").then(|| root.clone()))
        }
        // Not by its name, behind which another one may be by then; in a plan there is nothing else.
        Still::Subvolume { device, name, found } => {
            let by_name = || format!("subvol=/{name}");
            (device, found.id.map_or_else(by_name, |id| format!("subvolid={id}")), None)
        }
    };
    Some(PrivateMount::Device {
        device: device.clone(),
        at: volume.at.clone(),
        file_system: volume.mount.file_system.clone(),
        options,
        directory,
        access: access(volume, programs),
    })
}

/// What a process sees that reads snapshots: the top-level subvolume of the btrfs on a device, at the
/// [bare workplace](super::bare_workplace), and besides what is there anyway.
pub fn of_top_level(cx: Context<'_>, device: &Path) -> PrivateView {
    let top = PrivateMount::Device {
        device: device.to_owned(),
        at: bare_workplace(cx),
        file_system: "btrfs".into(),
        options: "subvolid=5".into(),
        directory: None,
        access: Access::Read,
    };
    PrivateView { mounts: vec![top], workplace: workplace(cx), ..PrivateView::default() }
}

/// What an engine may do with the view of a volume: where its own program, an interpreter or a library may
/// lie, it has to execute.
fn access(volume: &Volume, programs: &[PathBuf]) -> Access {
    const SYSTEM: &[&str] =
        &["/bin", "/lib", "/lib32", "/lib64", "/nix", "/opt", "/sbin", "/usr", "/usr/local"];
    let at = &volume.at;
    let holds = |path: &Path| path.starts_with(at);
    if SYSTEM.iter().any(|path| holds(path.as_ref()) || at.starts_with(path))
        || programs.iter().any(|path| holds(path))
    {
        Access::ReadAndExecute
    } else {
        Access::Read
    }
}

/// The mounts of an engine's view, parents before what lies below them.
///
/// A capture hides what is mounted below its place, so whatever is mounted there and not captured itself is
/// shown again as it is: `/proc` below a captured root, a file system or a nested subvolume that is read live,
/// the disk with the engine's program. What nobody reads is shown only as long as it is mounted: containers
/// end and disks are taken out while engines read. `live` are directories that the engine must reach as they
/// are outside: its cache, its temporary files, a repository on this machine. They exist in the snapshot, since
/// they existed before it, or in a subvolume that it does not hold.
pub fn view(survey: &Survey, captures: &[PrivateMount], live: &[PathBuf]) -> Vec<PrivateMount> {
    if captures.is_empty() {
        return Vec::new();
    }
    let is_captured = |path: &Path| captures.iter().any(|mount| mount.at() == path);
    // In a snapshot, a subvolume that is not captured is an empty directory: nothing can be mounted below it.
    let hole_above = |path: &Path| {
        let above =
            survey.holes.iter().filter(|hole| path.starts_with(hole) && path != hole.as_path());
        above.min_by_key(|hole| hole.components().count())
    };
    // What must be there has the whole of such a subvolume shown around it.
    let placed = |path: &Path| hole_above(path).cloned().unwrap_or_else(|| path.to_owned());
    let has_a_place = |path: &&PathBuf| !is_captured(path) && hole_above(path).is_none();
    let read_live = survey.volumes.iter().map(|volume| &volume.at).filter(has_a_place).cloned();
    let around_captures = captures.iter().filter_map(|mount| hole_above(mount.at()).cloned());
    let wanted: BTreeSet<PathBuf> =
        live.iter().map(|path| placed(path)).chain(read_live).chain(around_captures).collect();
    let mounted = survey.mounts.iter().map(|mount| &mount.at).filter(has_a_place).cloned();
    let all: BTreeSet<PathBuf> = mounted.chain(wanted.iter().cloned()).collect();

    let mut shown: Vec<PathBuf> = Vec::new();
    for path in all {
        let depth_of = |places: &mut dyn Iterator<Item = &Path>| {
            let around = places.filter(|at| path.starts_with(at));
            around.map(|at| at.components().count()).max()
        };
        // Outside any capture it is visible anyway; below something live it comes along.
        let captured = depth_of(&mut captures.iter().map(PrivateMount::at));
        if captured > depth_of(&mut shown.iter().map(PathBuf::as_path)) {
            shown.push(path);
        }
    }
    // A mount brings along what lies in it, so it is wanted for that as well.
    let is_wanted = |at: &Path| {
        let mut needed = wanted.iter().map(PathBuf::as_path);
        needed.any(|path| path.starts_with(at))
            || captures.iter().any(|mount| mount.at().starts_with(at))
    };
    let bind = |at: PathBuf| match is_wanted(&at) {
        true => PrivateMount::Bind { from: at.clone(), at, read_only: false },
        false => PrivateMount::Mounted { at },
    };
    let mut mounts = captures.to_vec();
    mounts.extend(shown.into_iter().map(bind));
    // Of two at one place, the live one comes last and is seen.
    mounts.sort_by(|one, other| one.at().cmp(other.at()));
    mounts
}
