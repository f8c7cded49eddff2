//! Which paths of a job go to an engine, by what they really are.
//!
//! A path within another one would be stored twice, and borg then makes hard links in it that nobody can restore. Of
//! two names of one directory borg leaves the second out without a word, wherever it meets it. So paths are compared by
//! the identity of what is there, and by the mount table for what is mounted twice: an engine gets no path that it comes
//! to from another one, and both engines get the same.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::capture::survey::content_of;
use crate::config::excluded;
use crate::engine::Expected;
use crate::host::{ActError, Host, MountEntry, PathKind, mount_of};
use crate::model::job::FilesSource;
use crate::model::shown::Show;
use crate::model::undo::Identity;

/// The file by which a directory says that it is a cache (bford.info/cachedir), and how it begins.
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The longest tag that is read to look for its signature; a longer one is taken for a tag.
const LONGEST_TAG: u64 = 64 * 1024;

/// The paths of a job, as an engine gets them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// None of these lies in another one.
    pub(super) handed: Vec<PathBuf>,
    /// What the copy must hold.
    pub(super) expected: Vec<Expected>,
    /// Second names, each with the name that the copy holds instead.
    pub(super) aliases: Vec<(PathBuf, PathBuf)>,
}

/// One path of the job.
struct Root<'a> {
    written: &'a Path,
    /// Without links in it, except for the last part.
    real: PathBuf,
    identity: Option<Identity>,
    /// A link is no directory here: only the link itself is stored.
    is_directory: bool,
}

/// How the copy holds a path by another one.
enum Within {
    /// Under its own name.
    ByName,
    /// Only under this one.
    As(PathBuf),
}

/// Compares the paths of a job.
///
/// # Errors
/// When one of them, or the table of mounts, cannot be looked at.
pub(super) fn resolve(host: &dyn Host, files: &FilesSource) -> Result<Roots, ActError> {
    let mounts = if files.paths.len() > 1 { host.mounts()? } else { Vec::new() };
    let there = resolve_all(host, files)?;
    let nesting = Nesting { host, files, mounts: &mounts };
    let mut within: Vec<Vec<(usize, Within)>> = Vec::new();
    for (at, root) in there.iter().enumerate() {
        let mut holders = Vec::new();
        for (other, holder) in there.iter().enumerate().filter(|(other, _)| *other != at) {
            let is_same =
                root.is_directory && holder.is_directory && root.identity == holder.identity;
            if is_same && other < at {
                holders.push((other, Within::As(holder.written.to_owned())));
            } else if !is_same && let Some(found) = nesting.within(root, holder)? {
                holders.push((other, found));
            }
        }
        within.push(holders);
    }
    let handed: Vec<bool> = within.iter().map(Vec::is_empty).collect();
    let mut roots = Roots::default();
    for (root, holders) in there.iter().zip(within) {
        let holders: Vec<Within> =
            holders.into_iter().filter(|(other, _)| handed[*other]).map(|(_, how)| how).collect();
        let by_name = holders.iter().any(|how| matches!(how, Within::ByName));
        let alias = holders.into_iter().find_map(|how| match how {
            Within::As(name) => Some(name),
            Within::ByName => None,
        });
        match alias {
            Some(name) if !by_name => roots.aliases.push((root.written.to_owned(), name)),
            _ => {
                if !by_name {
                    roots.handed.push(root.written.to_owned());
                }
                if !excluded(root.written, &files.exclude) {
                    let (path, is_directory) = (root.written.to_owned(), root.is_directory);
                    roots.expected.push(Expected { path, is_directory });
                }
            }
        }
    }
    Ok(roots)
}

/// Patterns that keep what is in these directories out of the copy, under every name by which the job's paths lead to
/// them, and those names. A directory that is not there is not in the copy either.
///
/// # Errors
/// When one of them, or the table of mounts, cannot be looked at.
pub(super) fn kept_out(
    host: &dyn Host,
    files: &FilesSource,
    directories: &[PathBuf],
) -> Result<Vec<(PathBuf, String)>, ActError> {
    let mut found = Vec::new();
    if directories.is_empty() {
        return Ok(found);
    }
    let mounts = host.mounts()?;
    let roots = resolve_all(host, files)?;
    let nesting = Nesting { host, files, mounts: &mounts };
    for directory in directories {
        let Some(inner) = resolve_one(host, directory)?.filter(|inner| inner.is_directory) else {
            continue;
        };
        for root in &roots {
            if root.is_directory && root.identity == inner.identity {
                found.push((root.written.to_owned(), content_of(root.written)));
                continue;
            }
            let name = match nesting.within(&inner, root)? {
                Some(Within::ByName) => directory.clone(),
                Some(Within::As(name)) => name,
                None => continue,
            };
            found.push((name.clone(), content_of(&name)));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Resolves every path of a job that is there.
fn resolve_all<'a>(host: &dyn Host, files: &'a FilesSource) -> Result<Vec<Root<'a>>, ActError> {
    let mut there = Vec::new();
    for written in &files.paths {
        there.extend(resolve_one(host, written)?);
    }
    Ok(there)
}

/// Resolves a path. What is not there is told elsewhere.
fn resolve_one<'a>(host: &dyn Host, written: &'a Path) -> Result<Option<Root<'a>>, ActError> {
    let Some(state) = host.path_state(written)? else { return Ok(None) };
    let real = host.canonical(written);
    let at = match (written.parent(), written.file_name()) {
        (Some(parent), Some(name)) => host.canonical(parent).join(name),
        _ => real.clone(),
    };
    let is_link = at != real;
    Ok(Some(Root {
        written,
        real: at,
        identity: (!is_link).then_some(state.identity),
        is_directory: !is_link && state.kind == PathKind::Directory,
    }))
}

struct Nesting<'a> {
    host: &'a dyn Host,
    files: &'a FilesSource,
    mounts: &'a [MountEntry],
}

impl Nesting<'_> {
    /// Whether an engine that is given `holder` comes to `root` from there.
    fn within(&self, root: &Root<'_>, holder: &Root<'_>) -> Result<Option<Within>, ActError> {
        if !holder.is_directory {
            return Ok(None);
        }
        if let Ok(below) = root.real.strip_prefix(&holder.real)
            && below.components().next().is_some()
        {
            return Ok(self.is_entered(holder, below)?.then(|| named(root, holder, below)));
        }
        let Some(below) = self.below_by_mount(root, holder) else { return Ok(None) };
        // What is at that place must be the same thing: something else may be mounted over it.
        let same = match self.host.path_state(&holder.real.join(&below))? {
            Some(state) => root.is_directory && root.identity == Some(state.identity),
            None => false,
        };
        Ok((same && self.is_entered(holder, &below)?).then(|| named(root, holder, &below)))
    }

    /// Where a path lies below another one in the same file system, whatever the mounts by which they are seen.
    fn below_by_mount(&self, root: &Root<'_>, holder: &Root<'_>) -> Option<PathBuf> {
        let inside = |path: &Path| {
            let mount = mount_of(self.mounts, path)?;
            Some((mount.device, mount.root.join(path.strip_prefix(&mount.at).ok()?)))
        };
        let ((device, path), (other, above)) = (inside(&root.real)?, inside(&holder.real)?);
        let below = path.strip_prefix(above).ok()?;
        (device == other && below.components().next().is_some()).then(|| below.to_owned())
    }

    /// Whether nothing keeps an engine from going from one path down to another one.
    fn is_entered(&self, from: &Root<'_>, below: &Path) -> Result<bool, ActError> {
        let (mut real, mut written) = (from.real.clone(), from.written.to_owned());
        for part in below.components() {
            if tag_in(self.host, self.files, &real)?.is_some() {
                return Ok(false);
            }
            real.push(part);
            written.push(part);
            if excluded(&written, &self.files.exclude) {
                return Ok(false);
            }
            if self.files.one_file_system && !self.is_same_device(from, &real)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_same_device(&self, from: &Root<'_>, path: &Path) -> Result<bool, ActError> {
        let Some(state) = self.host.path_state(path)? else { return Ok(true) };
        Ok(match (&from.identity, &state.identity) {
            (Some(Identity::Inode { device: one, .. }), Identity::Inode { device: other, .. }) => {
                one == other
            }
            _ => true,
        })
    }
}

/// The name under which the copy holds a path that lies below another one.
fn named(root: &Root<'_>, holder: &Root<'_>, below: &Path) -> Within {
    let name = holder.written.join(below);
    if name == root.written { Within::ByName } else { Within::As(name) }
}

/// The tag in a directory that keeps its content out of the copy, where the job asks for that.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn tag_in(
    host: &dyn Host,
    files: &FilesSource,
    directory: &Path,
) -> Result<Option<String>, ActError> {
    for tag in &files.exclude_if_present {
        if host.path_state(&directory.join(tag))?.is_some() {
            return Ok(Some(tag.clone()));
        }
    }
    if !files.exclude_caches {
        return Ok(None);
    }
    let tag = directory.join(CACHE_TAG);
    let is_tag = match host.path_state(&tag)? {
        Some(state) if state.kind != PathKind::File => false,
        Some(state) if state.size > LONGEST_TAG => true,
        Some(_) => host.read(&tag)?.starts_with(CACHE_SIGNATURE),
        None => false,
    };
    Ok(is_tag.then(|| CACHE_TAG.to_owned()))
}

/// Why a copy probably lacks a path that was there.
pub(super) fn probable_cause(host: &dyn Host, files: &FilesSource, path: &Path) -> String {
    if excluded(path, &files.exclude) {
        return "the job's own exclude takes it away".into();
    }
    for directory in path.ancestors() {
        if let Ok(Some(tag)) = tag_in(host, files, directory) {
            return format!("{tag} in {} keeps it out", directory.shown());
        }
    }
    let is_text = std::str::from_utf8(path.as_os_str().as_bytes()).is_ok();
    let cleverer = files.exclude.iter().any(|pattern| pattern.contains(['[', '\\', '$', '!']));
    match (is_text, cleverer) {
        (_, true) => "one of the exclude patterns may take it away".into(),
        _ => "was it there all the time, and is it another name of a path of this job?".into(),
    }
}
