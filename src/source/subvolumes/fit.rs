//! Whether a subvolume can be sent, and what of it would not be.

use std::path::{Path, PathBuf};

use crate::capture::far::FarSubvolume;
use crate::capture::survey::{self, Volume};
use crate::capture::{self, Provider};
use crate::host::{Host, MountEntry, PathKind, Subvolume, mount_of};
use crate::model::job::{Job, SubvolumesSource};
use crate::model::names::HostName;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::error::StepError;

/// The item that a subvolume is.
pub(super) fn item_of(path: &Path) -> String {
    // What people typed in a TOML file is text.
    path.to_string_lossy().into_owned()
}

/// A subvolume that can be sent.
pub(super) struct Fit {
    /// Where it is and which one.
    pub origin: Origin,
    /// What lies in it and is an empty directory in a snapshot: other subvolumes, which the job does not name and does
    /// not leave out.
    pub absent: Vec<PathBuf>,
    /// What the job would leave out, and cannot: no subvolume, so it is in the snapshot. Not looked for on other machines.
    pub kept_in: Vec<PathBuf>,
}

/// A subvolume of which snapshots can be made.
pub(super) enum Origin {
    /// On this machine.
    Here(Volume),
    /// On another one, of this name.
    There(FarSubvolume, HostName),
}

impl Origin {
    /// Where it is seen, on its machine.
    pub fn at(&self) -> &Path {
        match self {
            Origin::Here(volume) => &volume.at,
            Origin::There(far, _) => &far.at,
        }
    }

    /// Its UUID.
    pub fn uuid(&self) -> Option<&String> {
        match self {
            Origin::Here(volume) => volume.subvolume.as_ref().and_then(|found| found.uuid.as_ref()),
            Origin::There(far, _) => Some(&far.uuid),
        }
    }

    /// The volume, where it is one of this machine.
    pub fn here(&self) -> Option<&Volume> {
        match self {
            Origin::Here(volume) => Some(volume),
            Origin::There(..) => None,
        }
    }

    /// A device of its file system, where that is one of this machine.
    pub fn device(&self) -> Option<&Path> {
        match self {
            Origin::Here(volume) => Some(&volume.mount.source),
            Origin::There(..) => None,
        }
    }

    /// What holds it still for a job.
    pub fn provider(&self, job: &Job) -> Box<dyn Provider> {
        match self {
            Origin::Here(volume) => capture::of_subvolume(volume),
            Origin::There(far, host) => capture::far::of_subvolume(far, host, &job.name),
        }
    }
}

/// Examines what is at a path of the job.
///
/// # Errors
/// When it is no subvolume, or none of which copies can be told from others.
pub(super) fn examine(
    cx: capture::Context<'_>,
    job: &SubvolumesSource,
    path: &Path,
) -> Result<Fit, StepError> {
    match &job.from {
        None => examine_here(cx.host, job, path),
        Some(from) => {
            let far = capture::far::examine(cx, &from.server, path)?;
            let is_named = |nested: &PathBuf| {
                job.paths.contains(nested)
                    || job.leave_out.iter().any(|path| nested.starts_with(path))
            };
            let absent = far.nested.iter().filter(|nested| !is_named(nested)).cloned().collect();
            let origin = Origin::There(far, from.host.clone());
            Ok(Fit { origin, absent, kept_in: Vec::new() })
        }
    }
}

fn examine_here(host: &dyn Host, job: &SubvolumesSource, path: &Path) -> Result<Fit, StepError> {
    let unfit =
        |what: &str| StepError::new(Trouble::Environment, format!("{} {what}", path.shown()));
    let at = host.canonical(path);
    let Some(found) = host.subvolume(&at)? else {
        return Err(unfit(
            "is no subvolume of a btrfs — name one (btrfs subvolume list), or protect it as files",
        ));
    };
    if found.received_uuid.is_some() {
        return Err(unfit(
            "was received from elsewhere and made writable, so all snapshots of it would claim to be one — put a writable snapshot of it in its place (btrfs subvolume snapshot)",
        ));
    }
    let mounts = host.mounts()?;
    let mount = mount_of(&mounts, &at).filter(|mount| mount.file_system == "btrfs");
    let Some(mount) = mount.cloned() else {
        return Err(unfit("is not seen by a mount of a btrfs"));
    };
    let named = |nested: &PathBuf| {
        job.paths.iter().any(|path| host.canonical(path) == *nested)
            || job.leave_out.iter().any(|path| nested.starts_with(host.canonical(path)))
    };
    let mut absent = host.nested_subvolumes(&at)?;
    let kept_in = kept_in(host, job, (&at, &found), &absent, &mounts)?;
    absent.retain(|nested| {
        let is_ours = found.is_top_level() && survey::is_snapshot_of_ours(&at, nested)
            || survey::staging_of_ours(host, &at, nested).is_some();
        !(is_ours || named(nested))
    });
    let mut swap_file = None;
    for swap in survey::swap_files(host) {
        if holds(host, &found, &swap)? {
            swap_file = Some(swap);
        }
    }
    let volume = Volume { at, mount, is_subvolume: true, subvolume: Some(found), swap_file };
    Ok(Fit { origin: Origin::Here(volume), absent, kept_in })
}

/// What the job would leave out of a subvolume, and is part of it all the same. A directory in which other subvolumes lie
/// stands for those.
fn kept_in(
    host: &dyn Host,
    job: &SubvolumesSource,
    (at, found): (&Path, &Subvolume),
    nested: &[PathBuf],
    mounts: &[MountEntry],
) -> Result<Vec<PathBuf>, StepError> {
    let mut kept = Vec::new();
    for path in job.leave_out.iter().map(|path| host.canonical(path)) {
        // What is mounted there is no part of it, and a look at it may never come back.
        let is_elsewhere = mounts
            .iter()
            .any(|mount| path.starts_with(&mount.at) && mount.at.starts_with(at) && mount.at != at);
        let stands_for_others = nested.iter().any(|nested| nested.starts_with(&path));
        if !path.starts_with(at) || is_elsewhere || stands_for_others {
            continue;
        }
        let state = host.path_state(&path).ok().flatten();
        let is_something = state.is_some_and(|it| it.kind != PathKind::Directory || !it.empty);
        if is_something && holds(host, found, &path)? {
            kept.push(path);
        }
    }
    Ok(kept)
}

/// Whether a file lies in a subvolume, and in none that lies in it. It may be seen there by another mount.
fn holds(host: &dyn Host, subvolume: &Subvolume, file: &Path) -> Result<bool, StepError> {
    let Some(directory) = file.parent() else { return Ok(false) };
    Ok(host.subvolume_around(directory)?.is_some_and(|around| {
        around.id == subvolume.id && around.file_system == subvolume.file_system
    }))
}

/// Why there can be no snapshot of it now, if so. A hook of the job may see to that.
pub(super) fn hindered(fit: &Fit) -> Option<String> {
    match &fit.origin {
        Origin::Here(volume) => Some(capture::swapped_to(&volume.at, volume.swap_file.as_ref()?)),
        // btrfs itself says so there when the snapshot is to be made.
        Origin::There(..) => None,
    }
}

/// What to say of what a copy will lack, if that is anything.
pub(super) fn said(fit: &Fit) -> Option<String> {
    let names: Vec<String> = fit.absent.iter().map(|path| path.shown().to_string()).collect();
    let is_text =
        |path: &PathBuf| path.to_str().is_some_and(|text| !text.contains(char::is_control));
    let nameless = match fit.absent.iter().all(is_text) {
        true => "",
        false => "; rename those that no configuration can name",
    };
    (!names.is_empty()).then(|| format!(
        "{} holds other subvolumes, which no snapshot of it holds: {} — add them to paths, or to leave-out if they need not be{nameless}",
        fit.origin.at().shown(),
        names.join(", ")
    ))
}

/// What to say of what a copy will hold although it was to be left out, if there is any.
pub(super) fn said_of_kept(fit: &Fit) -> Option<String> {
    let names: Vec<String> = fit.kept_in.iter().map(|path| path.shown().to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{}: no subvolume, so it is in the copy, although leave-out names it — make it a subvolume (btrfs subvolume create), or take it out of leave-out",
            names.join(", ")
        )
    })
}
