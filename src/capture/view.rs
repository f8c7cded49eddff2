//! What an engine sees: the captures over their original paths, and live what must stay live.

use std::path::PathBuf;

use crate::host::{MountEntry, PrivateMount};

use super::survey::Survey;

/// The mounts of an engine's view, parents before what lies below them.
///
/// A capture hides what is mounted below its place, so whatever is mounted there and not captured itself is
/// shown again as it is: `/proc` below a captured root, a file system that is read live, the disk with the
/// engine's program. `live` are directories that the engine must reach as they are outside: its cache, its
/// temporary files, a repository on this machine. They exist in the snapshot, since they existed before it.
pub fn view(survey: &Survey, captures: &[PrivateMount], live: &[PathBuf]) -> Vec<PrivateMount> {
    if captures.is_empty() {
        return Vec::new();
    }
    let mut mounts = captures.to_vec();
    // Which places are decided, and whether a capture is shown there.
    let mut places: Vec<(PathBuf, bool)> =
        captures.iter().map(|mount| (mount.at().to_owned(), true)).collect();
    let mut show = |path: &PathBuf, recursive_below: &mut Vec<PrivateMount>| {
        let nearest = places
            .iter()
            .filter(|(at, _)| path.starts_with(at))
            .max_by_key(|(at, _)| at.components().count());
        // Outside any capture it is visible anyway; below something live it comes along.
        if !nearest.is_some_and(|(at, captured)| *captured && at != path) {
            return;
        }
        recursive_below.push(PrivateMount::Bind {
            from: path.clone(),
            at: path.clone(),
            read_only: false,
        });
        places.push((path.clone(), false));
    };
    let has_place = |mount: &&MountEntry| {
        // In a snapshot, a subvolume that is not captured is an empty directory.
        !survey.holes.iter().any(|hole| mount.at.starts_with(hole) && mount.at != *hole)
    };
    let mut shown = Vec::new();
    for mount in survey.mounts.iter().filter(has_place) {
        show(&mount.at, &mut shown);
    }
    for path in live {
        show(path, &mut shown);
    }
    mounts.extend(shown);
    mounts.sort_by(|one, other| one.at().cmp(other.at()));
    mounts
}
