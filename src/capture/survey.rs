//! What lies below the paths of a job: which volumes must be held still, and what would be missing.
//!
//! A snapshot holds one file system or one subvolume; whatever is mounted or nested in it is an empty
//! directory there. So every such place is found here, before anything is captured: it is captured as well,
//! shown live, left out because the configuration says so, or reported as missing. Never silently empty.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::excluded;
use crate::host::{ActError, Host, MountEntry, Subvolume, mount_of};
use crate::model::job::{CapturePolicy, FilesSource};
use crate::model::names::RunId;

use super::is_at_or_below;

/// The first part of the name of every btrfs snapshot that Stillpoint makes.
pub const SNAPSHOT_PREFIX: &str = ".stillpoint.";

/// How directories are called in which runs have copies for a while: this, what for, `-`, and the run's id.
const STAGING_PREFIX: &str = ".stillpoint-";

/// File systems in memory: lost at every boot, but not made up.
const IN_MEMORY: &[&str] = &["ramfs", "tmpfs"];

/// Where a file system in memory holds nothing that outlives a boot by intention (file-hierarchy(7)).
const VOLATILE: &[&str] = &["/dev", "/run", "/sys", "/tmp", "/var/lock", "/var/run"];

/// One file system or subvolume of which the job reads something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its root directory as the machine sees it; a snapshot is shown there.
    pub at: PathBuf,
    /// The mount by which it is seen.
    pub mount: MountEntry,
    /// For btrfs: whether `at` is the root of a subvolume, so that a snapshot can be made of it.
    pub is_subvolume: bool,
    /// Which one it is: from now on that is what counts, and not what lies at its path. `None` when it was deleted,
    /// moved or replaced since it was listed.
    pub subvolume: Option<Subvolume>,
    /// A swap file in it that is in use: btrfs refuses to make a snapshot of it.
    pub swap_file: Option<PathBuf>,
}

/// Something below the paths that the copy will not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The path of it on this machine.
    pub path: PathBuf,
    /// What it is: `ext4 file system`, `subvolume`, `swap file`.
    pub what: String,
    /// What to do about it, where it is missing.
    pub remedy: &'static str,
}

/// What to do about something that the job does not name.
const NAME_IT: &str = "add it to paths, or to leave-out if it need not be";

/// What to do about something that the job wants read live, and the engine will not enter.
const NAME_IT_TOO: &str =
    "it is named in live, but one-file-system keeps the engine out of it: add it to paths as well";

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What is read, parents before what lies below them.
    pub volumes: Vec<Volume>,
    /// What the configuration leaves out by name or by an exclude pattern.
    pub left_out: Vec<Absent>,
    /// What nobody spoke of.
    pub missing: Vec<Absent>,
    /// Where file systems of the kernel's own are mounted.
    pub kernel: Vec<PathBuf>,
    /// Subvolumes that are not captured: in a snapshot, nothing can be mounted below them.
    pub holes: Vec<PathBuf>,
    /// Patterns, in restic's dialect, that keep out of the copy what a live view would let in.
    pub exclude: Vec<String>,
    /// Everything that is mounted and not hidden by a later mount, in order of its path.
    pub mounts: Vec<MountEntry>,
}

/// The job with the real names of what it says of mounts, subvolumes and swap files. Its own paths stay as they are
/// written: engines store them so, and patterns are about them.
///
/// Only links that lead to a path of the job are followed. Those below it belong to whoever owns the files there:
/// one that is put in the place of something left out must not leave out what it leads to.
///
/// # Errors
/// When the mounts cannot be listed.
pub fn resolved(host: &dyn Host, files: &FilesSource) -> Result<FilesSource, ActError> {
    let mounts = host.mounts()?;
    let paths: Vec<(&PathBuf, PathBuf)> =
        files.paths.iter().map(|path| (path, host.canonical(path))).collect();
    let real = |said: &Path| {
        let around = paths.iter().filter(|(written, _)| said.starts_with(written));
        let (written, path) = around.max_by_key(|(written, _)| written.components().count())?;
        written_below(written, path, said)
    };
    let mut capture = files.capture.clone();
    let CapturePolicy { live, leave_out, remount_readonly, .. } = &mut capture;
    for said in live.iter_mut().chain(leave_out).chain(remount_readonly) {
        // The place of a mount has no link in it.
        if mounts.iter().all(|mount| mount.at != *said)
            && let Some(real) = real(said)
        {
            *said = real;
        }
    }
    Ok(FilesSource { capture, ..files.clone() })
}

/// Looks at everything below the paths of a job that is [`resolved`]. `disks` are where targets are mounted:
/// nobody misses the copies in the copy.
///
/// # Errors
/// When the mounts, or the subvolumes of a btrfs, cannot be listed: then it is not known what is missing.
pub fn survey(host: &dyn Host, files: &FilesSource, disks: &[PathBuf]) -> Result<Survey, ActError> {
    let mut found = Survey { mounts: visible(host.mounts()?), ..Survey::default() };
    let paths: Vec<PathBuf> = files.paths.iter().map(|path| host.canonical(path)).collect();
    let swaps = swap_files(host);
    for (path, written) in paths.iter().zip(&files.paths) {
        let below = PathSurvey { host, files, disks, paths: &paths, path, written, swaps: &swaps };
        below.around(&mut found)?;
        below.for_swap_files(&mut found);
    }
    found.volumes.sort_by(|one, other| one.at.cmp(&other.at));
    found.volumes.dedup_by(|one, other| one.at == other.at);
    // What is nested in the volume of one path may be the volume of another one.
    let Survey { holes, volumes, .. } = &mut found;
    holes.retain(|hole| volumes.iter().all(|volume| volume.at != *hole));
    for list in [&mut found.left_out, &mut found.missing] {
        list.sort_by(|one, other| one.path.cmp(&other.path));
        list.dedup();
    }
    for list in [&mut found.kernel, &mut found.holes] {
        list.sort();
        list.dedup();
    }
    found.exclude.sort();
    found.exclude.dedup();
    Ok(found)
}

/// Patterns that keep an engine from what root may not even look at, where it would not enter it anyway: all that it
/// could say of it is that it failed. They come from the table of mounts, since to look at one of them is what fails.
///
/// # Errors
/// When the mounts cannot be listed.
pub fn closed(host: &dyn Host, files: &FilesSource) -> Result<Vec<String>, ActError> {
    if !files.one_file_system {
        return Ok(Vec::new());
    }
    let mounts = visible(host.mounts()?);
    let closed = mounts.iter().filter(|mount| mount.is_closed_to_root());
    let mut patterns = BTreeSet::new();
    for mount in closed {
        let names = files
            .paths
            .iter()
            .filter_map(|written| written_below(&host.canonical(written), written, &mount.at));
        patterns.extend(names.map(|name| literal(&name)));
    }
    Ok(patterns.into_iter().collect())
}

/// What the survey below one path needs.
struct PathSurvey<'a> {
    host: &'a dyn Host,
    files: &'a FilesSource,
    disks: &'a [PathBuf],
    paths: &'a [PathBuf],
    path: &'a Path,
    /// The same as the configuration has it, which may lead through links.
    written: &'a Path,
    swaps: &'a [PathBuf],
}

impl PathSurvey<'_> {
    fn around(&self, found: &mut Survey) -> Result<(), ActError> {
        let mounts = found.mounts.clone();
        let Some(home) = mount_of(&mounts, self.path) else { return Ok(()) };
        self.add_volume(found, home, self.subvolume_above(home)?)?;
        for mount in mounts.iter().filter(|m| m.at != self.path && m.at.starts_with(self.path)) {
            // What is mounted in a file system that is made up goes away with it: a user's portals below
            // /run, a disk that the desktop mounted there.
            let below =
                |kernel: &PathBuf| kernel.starts_with(self.path) && mount.at.starts_with(kernel);
            if found.kernel.iter().any(below) {
                continue;
            }
            let kind = mount.file_system.as_str();
            let is_volatile =
                IN_MEMORY.contains(&kind) && VOLATILE.iter().any(|path| mount.at.starts_with(path));
            if mount.is_made_up() || is_volatile {
                found.kernel.push(mount.at.clone());
                // Unless the job names something in it.
                let read = self.paths.iter().any(|path| path.starts_with(&mount.at));
                if !self.files.one_file_system && !read {
                    self.exclude(found, &mount.at, content_of);
                }
                continue;
            }
            let what = match kind {
                "autofs" => "automount that is not mounted now".to_owned(),
                kind => format!("{kind} file system"),
            };
            if self.files.one_file_system && mount.is_closed_to_root() {
                self.exclude(found, &mount.at, literal);
                let path = self.as_written(&mount.at);
                let what = format!("{what} that root may not look at");
                found.left_out.push(Absent { path, what, remedy: NAME_IT });
                continue;
            }
            if kind == "autofs" && !self.is_spoken_of(&mount.at) {
                // Whether it is in the copy must not depend on who touched it last.
                let path = self.as_written(&mount.at);
                found.missing.push(Absent { path, what, remedy: NAME_IT });
                continue;
            }
            if self.is_wanted(found, &mount.at, &what) {
                self.add_volume(found, mount, self.subvolume_at(mount)?)?;
            }
        }
        Ok(())
    }

    /// Notes a volume, and what is nested in it.
    fn add_volume(
        &self,
        found: &mut Survey,
        mount: &MountEntry,
        subvolume: Option<PathBuf>,
    ) -> Result<(), ActError> {
        let is_subvolume = subvolume.is_some();
        let at = subvolume.unwrap_or_else(|| mount.at.clone());
        let swap_file = self.swaps.iter().find(|swap| {
            let is_here = mount_of(&found.mounts, swap).is_some_and(|holds| holds.at == mount.at);
            // A swap file in a subvolume of its own does no harm.
            is_here
                && swap.parent().and_then(|parent| self.subvolume_of(mount, parent).ok().flatten())
                    == Some(at.clone())
        });
        let subvolume = if is_subvolume { self.host.subvolume(&at)? } else { None };
        let is_top_level = subvolume.as_ref().is_some_and(Subvolume::is_top_level);
        found.volumes.push(Volume {
            at: at.clone(),
            mount: mount.clone(),
            is_subvolume,
            subvolume,
            swap_file: swap_file.cloned(),
        });
        // A directory of a btrfs that is mounted elsewhere may hold subvolumes as well.
        if mount.file_system != "btrfs" {
            return Ok(());
        }
        // Not only what lies below the path: a mount below any of them would have no place in the snapshot.
        for nested in self.host.nested_subvolumes(&at)? {
            if let Some(staging) = staging_of_ours(self.host, &at, &nested) {
                self.exclude(found, &staging, literal);
                continue;
            }
            if is_top_level && is_snapshot_of_ours(&at, &nested) {
                // An empty directory of that name would be in the copy, of another run's snapshot.
                self.exclude(found, &nested, literal);
                continue;
            }
            // Whatever is mounted over it was found among the mounts.
            if mount_of(&found.mounts, &nested).is_none_or(|over| over.at != mount.at) {
                continue;
            }
            let below = nested != self.path && nested.starts_with(self.path);
            if below && self.is_wanted(found, &nested, "subvolume") {
                self.add_volume(found, mount, Some(nested))?;
            } else if is_subvolume {
                found.holes.push(nested);
            }
        }
        Ok(())
    }

    /// Whether something nested is part of the copy; otherwise it is noted why not.
    fn is_wanted(&self, found: &mut Survey, at: &Path, what: &str) -> bool {
        let is_live = is_at_or_below(at, &self.files.capture.live);
        let remedy = if is_live { NAME_IT_TOO } else { NAME_IT };
        let absent = || Absent { path: self.as_written(at), what: what.to_owned(), remedy };
        if self.is_left_out(at) {
            found.left_out.push(absent());
            self.exclude(found, at, content_of);
            return false;
        }
        if excluded(&self.as_written(at), &self.files.exclude) {
            found.left_out.push(absent());
            return false;
        }
        // Another path of the job reads it, and looks at it by itself.
        if self
            .paths
            .iter()
            .any(|path| path != self.path && at.starts_with(path) && path.starts_with(self.path))
        {
            return false;
        }
        if self.files.one_file_system {
            match self.disks.iter().any(|disk| disk == at) {
                true => found.left_out.push(absent()),
                false => found.missing.push(absent()),
            }
            return false;
        }
        true
    }

    fn is_left_out(&self, at: &Path) -> bool {
        is_at_or_below(at, &self.files.capture.leave_out)
    }

    /// What lies below the path, under the name by which engines come to it and the configuration speaks of it.
    fn as_written(&self, at: &Path) -> PathBuf {
        written_below(self.path, self.written, at).unwrap_or_else(|| at.to_owned())
    }

    /// Keeps something out of the copy, under every name by which a path of the job leads to it.
    fn exclude(&self, found: &mut Survey, at: &Path, pattern: fn(&Path) -> String) {
        let names = self.paths.iter().zip(&self.files.paths);
        let names = names.filter_map(|(path, written)| written_below(path, written, at));
        found.exclude.extend(names.map(|name| pattern(&name)));
    }

    /// Whether the configuration says what becomes of this place.
    fn is_spoken_of(&self, at: &Path) -> bool {
        self.is_left_out(at)
            || (self.files.one_file_system && self.disks.iter().any(|disk| disk == at))
            || excluded(&self.as_written(at), &self.files.exclude)
            || self.paths.iter().any(|path| path == at)
    }

    fn for_swap_files(&self, found: &mut Survey) {
        for swap in self.swaps.iter().filter(|swap| swap.starts_with(self.path)) {
            let absent = Absent {
                path: self.as_written(swap),
                what: "swap file".into(),
                remedy: "it is never copied: add it to leave-out",
            };
            // What is in it is of no use to anybody, so it never goes into the copy.
            self.exclude(found, swap, literal);
            if self.is_left_out(swap) || excluded(&absent.path, &self.files.exclude) {
                found.left_out.push(absent);
            } else {
                found.missing.push(absent);
            }
        }
    }

    /// The root of the subvolume that holds the path, when the mount is a btrfs.
    fn subvolume_above(&self, mount: &MountEntry) -> Result<Option<PathBuf>, ActError> {
        self.subvolume_of(mount, self.path)
    }

    /// The mount point, when it is the root of a subvolume.
    fn subvolume_at(&self, mount: &MountEntry) -> Result<Option<PathBuf>, ActError> {
        self.subvolume_of(mount, &mount.at)
    }

    fn subvolume_of(&self, mount: &MountEntry, path: &Path) -> Result<Option<PathBuf>, ActError> {
        if mount.file_system != "btrfs" {
            return Ok(None);
        }
        for part in path.ancestors().take_while(|part| part.starts_with(&mount.at)) {
            if self.host.subvolume(part)?.is_some() {
                return Ok(Some(part.to_owned()));
            }
        }
        Ok(None)
    }
}

/// The mounts that are not hidden by a later one and show what would not be seen without them, in order of
/// their paths.
fn visible(mounts: Vec<MountEntry>) -> Vec<MountEntry> {
    let mut seen: Vec<MountEntry> = Vec::new();
    for mount in mounts {
        seen.retain(|earlier| !earlier.at.starts_with(&mount.at));
        seen.push(mount);
    }
    seen.sort_by(|one, other| one.at.cmp(&other.at));
    let mut visible: Vec<MountEntry> = Vec::new();
    for mount in seen {
        let shows_itself = mount_of(&visible, &mount.at).is_some_and(|around| {
            let below = mount.at.strip_prefix(&around.at);
            around.device == mount.device
                && below.is_ok_and(|below| around.root.join(below) == mount.root)
        });
        // systemd confines a unit by mounting directories over themselves (ProtectSystem=, ReadWritePaths=):
        // /etc is then a mount, and still a directory of the root file system.
        if !shows_itself {
            visible.push(mount);
        }
    }
    visible
}

/// Whether a subvolume in the top-level one that is seen at `top` is a snapshot of ours, of whichever run. Elsewhere a user
/// may have called something of his own so.
pub fn is_snapshot_of_ours(top: &Path, nested: &Path) -> bool {
    let name = nested.file_name().unwrap_or_default().as_bytes();
    name.starts_with(SNAPSHOT_PREFIX.as_bytes()) && nested.parent() == Some(top)
}

/// The name of a directory in which a run has copies for a while.
pub fn staging_name(what_for: &str, run: &RunId) -> String {
    format!("{STAGING_PREFIX}{what_for}-{run}")
}

/// The directory of ours above a subvolume that lies below `at`, if a run has made it to have copies there for a while:
/// what it is called, and that nobody but root looks into it, tells it from what others call so.
pub fn staging_of_ours(host: &dyn Host, at: &Path, nested: &Path) -> Option<PathBuf> {
    let above =
        nested.ancestors().skip(1).take_while(|above| *above != at && above.starts_with(at));
    let is_ours = |directory: &&Path| {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let run = name.strip_prefix(STAGING_PREFIX).and_then(|name| name.rsplit('-').next());
        run.is_some_and(|run| RunId::parse(run).is_some())
            && matches!(host.path_state(directory), Ok(Some(it)) if it.uid == 0 && it.mode & 0o077 == 0)
    };
    let found = above.filter(is_ours).last();
    found.map(Path::to_owned)
}

/// The files that the kernel swaps to, from `/proc/swaps` (proc(5)). Without that file there are none.
pub fn swap_files(host: &dyn Host) -> Vec<PathBuf> {
    let Ok(table) = host.read(Path::new("/proc/swaps")) else { return Vec::new() };
    let table = String::from_utf8_lossy(&table).into_owned();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (path, kind) = (words.next()?, words.next()?);
            (kind == "file").then(|| PathBuf::from(path.replace("\\040", " ")))
        })
        .collect()
}

/// The name of what lies at or below `path` for somebody who calls that `written`.
fn written_below(path: &Path, written: &Path, at: &Path) -> Option<PathBuf> {
    // To join nothing would leave a slash.
    let below = at.strip_prefix(path).ok()?;
    Some(if below.as_os_str().is_empty() { written.to_owned() } else { written.join(below) })
}

/// A pattern that matches this path. A byte that is not UTF-8 cannot be written in one; there, any will do.
fn literal(path: &Path) -> String {
    let mut pattern = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if "*?[\\".contains(character) {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.extend(chunk.invalid().iter().map(|_| '?'));
    }
    pattern
}

/// A pattern that matches what is in this directory, and not the directory itself.
pub fn content_of(path: &Path) -> String {
    format!("{}/*", literal(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(minor: u32, root: &str, at: &str) -> MountEntry {
        MountEntry {
            id: 1,
            device: (0, minor),
            root: root.into(),
            at: at.into(),
            options: "ro,relatime".into(),
            file_system: "btrfs".into(),
            source: "/dev/sda1".into(),
            super_options: "rw".into(),
        }
    }

    fn places(mounts: Vec<MountEntry>) -> Vec<String> {
        visible(mounts).iter().map(|mount| mount.at.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_mounts_by_which_a_unit_is_confined_are_not_volumes() {
        let confined = vec![
            mount(1, "/@", "/"),
            mount(1, "/@/usr", "/usr"),
            mount(1, "/@/etc", "/etc"),
            mount(1, "/@/etc/lvm", "/etc/lvm"),
            mount(2, "/", "/boot"),
            mount(2, "/efi", "/boot/efi"),
        ];
        assert_eq!(places(confined), ["/", "/boot"]);
    }

    #[test]
    fn what_shows_something_else_is_a_volume() {
        let mounts = vec![
            mount(1, "/@", "/"),
            mount(1, "/@home", "/home"),
            mount(1, "/@/srv/www", "/var/www"),
            mount(2, "/", "/mnt"),
            // Back again, where another file system is in between.
            mount(1, "/@/mnt/here", "/mnt/here"),
            mount(3, "/opt", "/opt"),
        ];
        assert_eq!(places(mounts), ["/", "/home", "/mnt", "/mnt/here", "/opt", "/var/www"]);
    }

    #[test]
    fn what_an_initramfs_mounted_before_the_root_is_visible() {
        let table = "\
22 28 0:20 / /proc rw - proc proc rw
23 28 0:21 / /run rw - tmpfs tmpfs rw
28 1 254:1 / / rw - ext4 /dev/vda1 rw
29 23 0:22 / /run/lock rw - tmpfs tmpfs rw
";
        let table = crate::host::sys::mounts::parse_mount_table(table.as_bytes()).unwrap();
        assert_eq!(places(table), ["/", "/proc", "/run", "/run/lock"]);
    }

    #[test]
    fn a_later_mount_hides_what_is_below_it() {
        let mounts = vec![
            mount(1, "/", "/"),
            mount(2, "/", "/srv"),
            mount(3, "/", "/srv/data"),
            mount(4, "/", "/srv"),
        ];
        let seen = visible(mounts);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].device, (0, 4));
    }
}
