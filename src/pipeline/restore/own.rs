//! What this program works in: the state, runtime and cache directories, and the repositories on this machine. A
//! copy may hold some of it as it was once. Put back while it is in use, it would have the next command give back
//! what an old ledger holds, and a repository lose the copies that it got since.
//!
//! Each is known by its identity, since mounts and links give it any number of paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::capture::survey::mount_of;
use crate::host::{Host, InUse, MountEntry};
use crate::model::job::Config;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::Identity;
use crate::step::error::StepError;

/// Something of ours, and the path by which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    path: PathBuf,
    held: InUse,
}

/// Everything that is in use now, with the links that lead to it, and what other mounts show of it.
///
/// # Errors
/// When it cannot be told what is mounted.
pub(super) fn own(host: &dyn Host, config: &Config) -> Result<Vec<Own>, StepError> {
    let settings = &config.settings;
    let directories = [
        (settings.state_dir.as_path(), "the state directory".to_owned()),
        (&settings.runtime_dir, "the runtime directory".to_owned()),
        (&settings.cache_dir, "the cache directory".to_owned()),
    ];
    let repositories = config.targets.iter().filter_map(|target| {
        let path = target.local.as_deref()?;
        Some((path, format!("the repository of target {}", target.name)))
    });
    let mounts = host.mounts()?;
    let mut found = Vec::new();
    for (path, what) in directories.into_iter().chain(repositories) {
        // What cannot be looked at cannot be written to by its path either.
        let Ok(way) = host.way(path) else { continue };
        for (path, identity) in way.links {
            let what = format!("a link to {what}");
            found.push(Own { path, held: InUse { identity, what } });
        }
        let Some(identity) = way.end else { continue };
        let path = host.canonical(path);
        let parts = parts(host, &mounts, &path);
        found.push(Own { path, held: InUse { identity, what: what.clone() } });
        found.extend(parts.into_iter().map(|(path, identity)| {
            let what = format!("a part of {what}");
            Own { path, held: InUse { identity, what } }
        }));
    }
    Ok(found)
}

/// What lies below a directory and has another path besides: the root of what is mounted there, and what is
/// mounted elsewhere.
fn parts(host: &dyn Host, mounts: &[MountEntry], directory: &Path) -> Vec<(PathBuf, Identity)> {
    let below = mounts.iter().map(|mount| mount.at.as_path());
    let below = below.filter(|at| *at != directory && at.starts_with(directory));
    let mut paths: BTreeSet<PathBuf> = below.clone().map(Path::to_owned).collect();
    for shown in below.chain([directory]) {
        let Some(around) = mount_of(mounts, shown) else { continue };
        let inside = shown.strip_prefix(&around.at).unwrap_or(Path::new(""));
        let root: PathBuf = around.root.join(inside).components().collect();
        let of_it = mounts.iter().filter(|mount| mount.device == around.device);
        let of_it = of_it.filter_map(|mount| mount.root.strip_prefix(&root).ok());
        paths
            .extend(of_it.filter(|part| !part.as_os_str().is_empty()).map(|part| shown.join(part)));
    }
    let identity = |path: PathBuf| Some((host.way(&path).ok()?.end?, path));
    let found = paths.into_iter().filter_map(identity);
    found.map(|(identity, path)| (path, identity)).collect()
}

/// Refuses a destination that is one of these, or lies in one.
///
/// # Errors
/// With what it lies in.
pub(super) fn refuse_inside(host: &dyn Host, own: &[Own], to: &Path) -> Result<(), StepError> {
    for above in to.ancestors() {
        // What is not there yet, or closed to us, is not what was found.
        let Some(end) = host.way(above).ok().and_then(|way| way.end) else { continue };
        if let Some(own) = own.iter().find(|own| own.held.identity == end) {
            let is = if above == to { "is" } else { "lies in" };
            let found_at = match own.path == to {
                true => String::new(),
                false => format!(" ({})", own.path.shown()),
            };
            let text = format!(
                "{} {is} {}{found_at}, which is in use, so nothing was restored there — name a directory outside of it",
                to.shown(),
                own.held.what
            );
            return Err(StepError::new(Trouble::Configuration, text));
        }
    }
    Ok(())
}

/// What the move is to leave as it is.
pub(super) fn in_use(own: &[Own]) -> Vec<InUse> {
    own.iter().map(|own| own.held.clone()).collect()
}

/// What a restore of these paths of a copy would leave as it is, as far as that is known by its path.
pub(super) fn in_the_way(own: &[Own], to: &Path, roots: &[&Path]) -> Vec<String> {
    let met = own.iter().filter_map(|own| {
        let inside = Path::new("/").join(own.path.strip_prefix(to).ok()?);
        roots
            .iter()
            .any(|root| root.starts_with(&inside) || inside.starts_with(root))
            .then(|| left(&own.path, &own.held.what))
    });
    met.collect()
}

/// Says that something is left as it is.
pub(super) fn left(path: &Path, what: &str) -> String {
    format!(
        "{} is {what}, which is in use, so it stays as it is — to see what the copy holds of it, restore it to another directory with --to",
        path.shown()
    )
}
