//! Where a subvolume is to be, as a person and as the top-level subvolume know it.

use std::path::{Path, PathBuf};

use crate::host::{Host, Located, MountEntry, PathKind, mount_of};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::restore::own;
use crate::step::context::RunContext;
use crate::step::error::StepError;

/// Where it is to be.
pub(super) struct Place {
    /// As a person knows it.
    pub at: PathBuf,
    /// The directory in which it is made: above it, or itself where it is what is mounted.
    pub beside: PathBuf,
    /// A device of the file system.
    pub device: PathBuf,
    /// The UUID of the file system.
    pub file_system: String,
    /// `beside`, from the top-level subvolume on.
    pub beside_from_top: PathBuf,
    /// The place itself, from there on.
    pub path: PathBuf,
    /// What lies there now.
    pub live: Option<Located>,
    /// The mounts that show it, or a part of it.
    pub showing: Vec<PathBuf>,
    /// What is mounted in it.
    pub mounted: Vec<PathBuf>,
    /// What lies in that and is another subvolume, below it.
    pub nested: Vec<PathBuf>,
}

/// A place at which nothing is yet.
///
/// # Errors
/// When something is there, or it is on no btrfs.
pub(super) fn new(cx: RunContext<'_>, to: &Path) -> Result<Place, StepError> {
    let host = cx.host();
    let at = host.canonical(to);
    if host.path_state(&at)?.is_some() || !host.way(&at)?.links.is_empty() {
        return refused(format!(
            "{} is there already — with --as-subvolume, name what the subvolume is to become",
            at.shown()
        ));
    }
    own::refuse_inside(host, cx.config(), &at)?;
    absent(host, at)
}

/// The place where a subvolume was.
///
/// # Errors
/// When something else is there, or it cannot change places with what is.
pub(super) fn original(cx: RunContext<'_>, origin: &Path) -> Result<Place, StepError> {
    let host = cx.host();
    let at = host.canonical(origin);
    let Some(found) = host.subvolume(&at)? else {
        return match host.path_state(&at)? {
            None => absent(host, at),
            Some(_) => refused(format!(
                "{} is there, and is no subvolume that could change places with the copy — move it away, or restore to another place with --to",
                at.shown()
            )),
        };
    };
    if found.is_top_level() {
        return refused(format!(
            "{} is the top-level subvolume, which cannot be replaced — restore to another place with --to",
            at.shown()
        ));
    }
    refuse_own(cx, &at)?;
    let mounts = host.mounts()?;
    let is_mounted = mount_of(&mounts, &at).is_some_and(|mount| mount.at == at);
    let beside = match at.parent() {
        Some(above) if !is_mounted => above.to_owned(),
        Some(_) | None => at.clone(),
    };
    let mut place = on(host, &mounts, at, beside)?;
    let there = host.subvolume_on(&place.device, &place.path)?;
    if there.is_none_or(|there| (there.id, &there.uuid) != (found.id, &found.uuid)) {
        return refused(format!(
            "{} is not where the table of mounts has it, {} from the top-level subvolume on — restore to another place with --to",
            place.at.shown(),
            place.path.shown()
        ));
    }
    let shows = |mount: &&MountEntry| {
        let root = mount.root.strip_prefix("/").unwrap_or(&mount.root);
        let on_it = || host.btrfs_on(&mount.source).ok().flatten();
        mount.file_system == "btrfs"
            && root.starts_with(&place.path)
            && on_it().as_ref() == Some(&place.file_system)
    };
    place.showing = mounts.iter().filter(shows).map(|mount| mount.at.clone()).collect();
    let inside = mounts.iter().map(|mount| &mount.at);
    place.mounted =
        inside.filter(|at| **at != place.at && at.starts_with(&place.at)).cloned().collect();
    let nested = host.nested_subvolumes(&place.at)?.into_iter();
    place.nested =
        nested.filter_map(|path| Some(path.strip_prefix(&place.at).ok()?.to_owned())).collect();
    place.live = Some(Located { path: place.path.clone(), found });
    Ok(place)
}

/// A place in a directory that is there.
fn absent(host: &dyn Host, at: PathBuf) -> Result<Place, StepError> {
    let above = at.parent().map(Path::to_owned).unwrap_or_default();
    match host.path_state(&above)? {
        Some(found) if found.kind == PathKind::Directory => {}
        Some(_) | None => {
            return refused(format!("there is no directory {} — make it", above.shown()));
        }
    }
    let mounts = host.mounts()?;
    on(host, &mounts, at, above)
}

fn on(
    host: &dyn Host,
    mounts: &[MountEntry],
    at: PathBuf,
    beside: PathBuf,
) -> Result<Place, StepError> {
    let Some(mount) = mount_of(mounts, &beside).filter(|mount| mount.file_system == "btrfs") else {
        return refused(format!(
            "{} is on no btrfs, where there are no subvolumes — restore it as files",
            beside.shown()
        ));
    };
    let device = mount.source.clone();
    let Some(file_system) = host.btrfs_on(&device)? else {
        return refused(format!("there is no btrfs on {}", device.shown()));
    };
    let below = beside.strip_prefix(&mount.at).unwrap_or(Path::new(""));
    let root = mount.root.strip_prefix("/").unwrap_or(&mount.root);
    let beside_from_top: PathBuf = root.join(below).components().collect();
    let path = match at.strip_prefix(&beside) {
        Ok(name) => beside_from_top.join(name).components().collect(),
        Err(_) => beside_from_top.clone(),
    };
    Ok(Place {
        at,
        beside,
        device,
        file_system,
        beside_from_top,
        path,
        live: None,
        showing: Vec::new(),
        mounted: Vec::new(),
        nested: Vec::new(),
    })
}

/// Refuses to replace what this program itself works in: what it has open would be elsewhere from then on.
fn refuse_own(cx: RunContext<'_>, at: &Path) -> Result<(), StepError> {
    let host = cx.host();
    let mounts = host.mounts()?;
    for (own, _) in own::paths(cx.config()) {
        let own = host.canonical(own);
        let is_mounted_in_it =
            mount_of(&mounts, &own).is_some_and(|mount| mount.at != at && mount.at.starts_with(at));
        if own.starts_with(at) && !is_mounted_in_it {
            return refused(format!(
                "{} holds {}, which this program works in — restore to another place with --to, and have them change places from a rescue system",
                at.shown(),
                own.shown()
            ));
        }
    }
    Ok(())
}

fn refused<T>(text: String) -> Result<T, StepError> {
    Err(StepError::new(Trouble::Usage, text))
}
