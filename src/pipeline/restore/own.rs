//! What this program works in: the state, runtime and cache directories, and the repositories on this machine. A
//! copy may hold some of it as it was once. Put back while it is in use, it would have the next command release
//! what an old ledger holds, and a repository lose the copies that it got since.
//!
//! Each is known by its identity, since mounts and links give it any number of paths.
//!
//! To know it, it must be looked at, and a repository may lie where a look never comes back: on NFS whose server is
//! gone. A restore that has nothing to do with it must not wait for it. So the table of mounts is read first, which
//! asks nobody. What lies on a file system for whose answer somebody else is needed
//! ([`MountEntry::waits_for_others`]; not what is mounted at `/`, which everything passes) is looked at only where
//! this restore puts something into the same file system by any mount of it, or above or below the path itself. This
//! holds for each name on the way, so also where a link leads there. What is passed by in this way cannot be met
//! by the move, which resolves no link.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::host::{Host, InUse, MountEntry, mount_of};
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

/// Where looks go: what is mounted, and where the restore puts something.
struct Sight<'a> {
    mounts: &'a [MountEntry],
    goes: &'a [PathBuf],
}

impl Sight<'_> {
    /// Whether a name may be looked at that is reached through no link.
    fn may_look(&self, at: &Path) -> bool {
        let is_hidden = |number: usize, mount: &MountEntry| {
            self.mounts.iter().skip(number + 1).any(|later| mount.at.starts_with(&later.at))
        };
        let mut waiting = self.mounts.iter().enumerate().filter(|(number, mount)| {
            at.starts_with(&mount.at)
                && mount.at != Path::new("/")
                && mount.waits_for_others()
                && !is_hidden(*number, mount)
        });
        waiting.all(|(_, mount)| self.goes.iter().any(|goes| self.is_met(at, mount, goes)))
    }

    /// Whether what is put somewhere meets a name on a file system, as far as paths and mounts tell.
    fn is_met(&self, at: &Path, on: &MountEntry, goes: &Path) -> bool {
        let below = self.mounts.iter().filter(|mount| mount.at.starts_with(goes));
        let mut reached = below.chain(mount_of(self.mounts, goes));
        goes.starts_with(at)
            || at.starts_with(goes)
            || reached.any(|mount| mount.device == on.device)
    }
}

/// Everything that is in use now, with the links that lead to it, and what other mounts show of it; of what lies
/// where a look may never come back, only what a restore to these paths may meet.
///
/// # Errors
/// When it cannot be told what is mounted.
pub(super) fn own(
    host: &dyn Host,
    config: &Config,
    goes: &[PathBuf],
) -> Result<Vec<Own>, StepError> {
    let mounts = host.mounts()?;
    let sight = Sight { mounts: &mounts, goes };
    let may_look = |at: &Path| sight.may_look(at);
    let mut found = Vec::new();
    for (path, what) in paths(config) {
        // What cannot be looked at cannot be written to by its path either.
        let Ok(way) = host.way_as_far(path, &may_look) else { continue };
        for (path, identity) in way.links {
            let what = format!("a link to {what}");
            found.push(Own { path, held: InUse { identity, what } });
        }
        let Some(identity) = way.end else { continue };
        let path = host.canonical(path);
        let parts = parts(host, &sight, &path);
        found.push(Own { path, held: InUse { identity, what: what.clone() } });
        found.extend(parts.into_iter().map(|(path, identity)| {
            let what = format!("a part of {what}");
            Own { path, held: InUse { identity, what } }
        }));
    }
    Ok(found)
}

/// The paths of all of it, as the configuration has them, and what each is.
pub(super) fn paths(config: &Config) -> impl Iterator<Item = (&Path, String)> {
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
    directories.into_iter().chain(repositories)
}

/// What lies below a directory and has another path besides: the root of what is mounted there, and what is
/// mounted elsewhere.
fn parts(host: &dyn Host, sight: &Sight<'_>, directory: &Path) -> Vec<(PathBuf, Identity)> {
    let mounts = sight.mounts;
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
    let may_look = |at: &Path| sight.may_look(at);
    let identity = |path: PathBuf| Some((host.way_as_far(&path, &may_look).ok()?.end?, path));
    let found = paths.into_iter().filter_map(identity);
    found.map(|(identity, path)| (path, identity)).collect()
}

/// Refuses a destination that is in use, or lies in what is.
///
/// # Errors
/// With what it lies in, or when it cannot be told what is mounted.
pub(super) fn refuse_inside(host: &dyn Host, config: &Config, to: &Path) -> Result<(), StepError> {
    let Some(why) = used(host, config, to)? else { return Ok(()) };
    let text = format!("{why}, so nothing was restored there — name a directory outside of it");
    Err(StepError::new(Trouble::Usage, text))
}

/// What is in use of a directory, or of what it lies in, in words.
///
/// # Errors
/// When it cannot be told what is mounted.
pub(in crate::pipeline) fn used(
    host: &dyn Host,
    config: &Config,
    to: &Path,
) -> Result<Option<String>, StepError> {
    let own = own(host, config, &[to.to_owned()])?;
    for above in to.ancestors() {
        // What is not there yet, or closed to us, is not what was found.
        let Some(end) = host.way(above).ok().and_then(|way| way.end) else { continue };
        if let Some(own) = own.iter().find(|own| own.held.identity == end) {
            let is = if above == to { "is" } else { "lies in" };
            let found_at = match own.path == to {
                true => String::new(),
                false => format!(" ({})", own.path.shown()),
            };
            let what = &own.held.what;
            return Ok(Some(format!("{} {is} {what}{found_at}, which is in use", to.shown())));
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: u32, kind: &str, at: &str) -> MountEntry {
        MountEntry {
            id: device,
            device: (0, device),
            root: "/".into(),
            at: at.into(),
            options: "rw".into(),
            file_system: kind.into(),
            source: "source".into(),
            super_options: "rw".into(),
        }
    }

    #[test]
    fn what_may_never_answer_is_looked_at_only_where_the_restore_comes_near_it() {
        let mounts = [
            mount(1, "nfs4", "/"),
            mount(2, "nfs4", "/srv/hidden"),
            mount(3, "btrfs", "/srv"),
            mount(4, "nfs4", "/mnt/nas"),
            mount(5, "btrfs", "/mnt/nas/disk"),
            mount(6, "autofs", "/net"),
            mount(7, "autofs", "/disk"),
            mount(8, "btrfs", "/disk"),
            mount(4, "nfs4", "/bound/here"),
        ];
        let may_look = |at: &str, goes: &str| {
            let goes = [goes.into()];
            Sight { mounts: &mounts, goes: &goes }.may_look(Path::new(at))
        };
        for at in ["/", "/var/repo", "/srv/hidden/repo", "/mnt"] {
            assert!(may_look(at, "/etc"), "{at}");
        }
        for at in ["/mnt/nas", "/mnt/nas/repo", "/mnt/nas/disk/repo", "/net/x/repo"] {
            assert!(!may_look(at, "/etc"), "{at}");
            assert!(may_look(at, "/"), "{at}");
            assert!(may_look(at, at), "{at}");
        }
        for goes in ["/mnt", "/mnt/nas/repo/data", "/mnt/nas/x", "/bound", "/bound/here/x"] {
            assert!(may_look("/mnt/nas/repo", goes), "{goes}");
        }
        assert!(!may_look("/mnt/nas/repo", "/mnt/other"));
        assert!(!may_look("/mnt/nas/repo", "/net"));
        assert!(Sight { mounts: &mounts, goes: &["/etc".into()] }.may_look(Path::new("/srv/x")));
        // What an automount point has mounted hides it.
        assert!(may_look("/disk/repo", "/etc"));
    }
}
