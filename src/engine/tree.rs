//! Taking files out of a copy that lies on this machine as a directory: a received subvolume.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sent::{Blame, culprit, failure, run_all};
use super::{Change, ChangeKind, Context, EngineError, Entry, RestoreReport, RestoreRequest};
use crate::host::{Action, CommandSpec, PathKind, Stream};
use crate::model::bytes;
use crate::model::copy::Copy;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::tools::btrfs::changes::{Difference, Differing};
use crate::tools::listing;
use crate::tools::tar;

/// What GNU tar says at the end of a line about a socket, of which it stores nothing.
const SOCKET: &[u8] = b": socket ignored";

/// A copy of a target, and the directory that it is.
pub(super) struct Tree<'a> {
    pub cx: Context<'a>,
    pub target: &'a Target,
    pub path: PathBuf,
}

impl Tree<'_> {
    /// What packs some of it: directories alone, and whatever else with what is in it.
    ///
    /// # Errors
    /// When something of it lies behind a link.
    pub fn archive(&self, alone: &[Inside], whole: &[Inside]) -> Result<CommandSpec, EngineError> {
        let members = |inside: &[Inside]| -> Result<Vec<PathBuf>, EngineError> {
            inside.iter().map(|inside| self.member(inside.as_path())).collect()
        };
        let what = tar::Members { alone: members(alone)?, whole: members(whole)? };
        Ok(tar::pack(&self.path, &what, self.target.stall_timeout))
    }

    /// A path of the copy as tar is told it.
    fn member(&self, inside: &Path) -> Result<PathBuf, EngineError> {
        let Tree { cx, path, .. } = self;
        // The last name may well be one of a link.
        inside.parent().map_or(Ok(()), |above| follows_no_link(*cx, &path.join(above)))?;
        Ok(Path::new(".").join(inside))
    }

    /// What prints a file.
    ///
    /// # Errors
    /// When there is none at the path.
    pub fn file(&self, inside: &Inside) -> Result<CommandSpec, EngineError> {
        let file = self.path.join(inside.as_path());
        follows_no_link(self.cx, &file)?;
        let found = self.cx.host.path_state(&file)?;
        if found.is_none_or(|found| found.kind != PathKind::File) {
            let detail = format!("there is no file {} in the copy", inside.as_path().shown());
            return Err(EngineError::NoSource { detail });
        }
        Ok(tar::print(&file, self.target.stall_timeout))
    }

    /// What lists it.
    pub fn contents(&self) -> CommandSpec {
        listing::command(&self.path, self.target.stall_timeout)
    }

    /// Lays files out; see [`crate::engine::Engine::restore`].
    ///
    /// # Errors
    /// See there.
    pub fn lay_out(&self, request: &RestoreRequest) -> Result<RestoreReport, EngineError> {
        let Tree { cx, target, .. } = self;
        let [alone, whole] = packed(target, request)?;
        let pack = self.archive(&alone, &whole)?;
        if request.dry_run {
            return Ok(RestoreReport::default());
        }
        unpacked(*cx, target, request, &pack, &|spec, ended| failure(target, spec, ended))
    }

    /// Prints one file; see [`crate::engine::Engine::stream`].
    ///
    /// # Errors
    /// See there.
    pub fn print(&self, copy: &Copy, wanted: &Path) -> Result<(), EngineError> {
        let spec = self.file(&inside(&root_of(copy)?, wanted)?)?;
        let blame: Blame<'_> = &|spec, ended| failure(self.target, spec, ended);
        run_all(self.cx, &[spec], blame, &mut |_, _| {})
    }

    /// Hands on what a copy holds; see [`crate::engine::Engine::contents`].
    ///
    /// # Errors
    /// See there.
    pub fn walk(&self, copy: &Copy, each: &mut dyn FnMut(Entry)) -> Result<(), EngineError> {
        let blame: Blame<'_> = &|spec, ended| failure(self.target, spec, ended);
        walked(self.cx, copy, &[self.contents()], blame, each)
    }
}

/// A path in a copy, from its root downwards; empty: the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub(super) struct Inside(PathBuf);

/// A path before it is checked.
#[derive(Serialize, Deserialize)]
struct Unchecked(#[serde(with = "bytes::exact")] PathBuf);

/// The longest path, in bytes (`PATH_MAX` of Linux).
pub(super) const LONGEST_PATH: usize = 4096;

impl Inside {
    /// Takes it, if it is one.
    pub fn new(path: impl Into<PathBuf>) -> Option<Self> {
        let path = path.into();
        let bytes = path.as_os_str().as_encoded_bytes();
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let fits = is_plain && bytes.len() <= LONGEST_PATH && !bytes.contains(&0);
        fits.then_some(Self(path))
    }

    /// As a path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<Unchecked> for Inside {
    type Error = &'static str;
    fn try_from(Unchecked(path): Unchecked) -> Result<Self, Self::Error> {
        Self::new(path).ok_or("no path in a copy")
    }
}

impl From<Inside> for Unchecked {
    fn from(it: Inside) -> Self {
        Unchecked(it.0)
    }
}

/// What of a copy is packed to be restored: directories alone, and whatever else with what is in it.
///
/// # Errors
/// When it cannot be had so.
pub(super) fn packed(
    target: &Target,
    request: &RestoreRequest,
) -> Result<[Vec<Inside>; 2], EngineError> {
    refuse_names(target, request)?;
    let root = root_of(&request.copy)?;
    let all = vec![root.clone()];
    let named = if request.paths.is_empty() { &all } else { &request.paths };
    let within = |paths: &[PathBuf]| -> Result<Vec<Inside>, EngineError> {
        let paths = paths.iter().filter(|path| path.starts_with(&root));
        paths.map(|path| inside(&root, path)).collect()
    };
    Ok([within(&request.above)?, within(named)?])
}

/// Lays out what a process packs.
///
/// # Errors
/// When it was not all laid out.
pub(super) fn unpacked(
    cx: Context<'_>,
    target: &Target,
    request: &RestoreRequest,
    pack: &CommandSpec,
    blame: Blame<'_>,
) -> Result<RestoreReport, EngineError> {
    let root = root_of(&request.copy)?;
    let place = request.place_of(&root);
    cx.host.act(&Action::EnsureDirectory { path: place, mode: 0o755 })?;
    let seen = request.to.join(root.strip_prefix("/").unwrap_or(&root));
    let mut unpack = tar::unpack(&seen, target.stall_timeout);
    unpack.confinement = request.confined_to(&[]);
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    let chained = cx.host.chain(std::slice::from_ref(pack), &unpack, &mut |stream, line| {
        if !matches!(stream, Stream::Err | Stream::ProducerErr) {
            return;
        }
        // Whoever listens on a socket makes it anew; nothing is lost with it.
        let said = if line.ends_with(SOCKET) { &mut notes } else { &mut warnings };
        if said.len() < 100 {
            said.push(String::from_utf8_lossy(line).into_owned());
        }
    })?;
    if let Some((spec, ended)) = culprit(std::slice::from_ref(pack), &unpack, &chained) {
        let is_there = std::ptr::eq(ended, &chained.last);
        return Err(request.judged(cx.host, blame(spec, ended), is_there));
    }
    Ok(RestoreReport { warnings, notes, ..RestoreReport::default() })
}

/// Hands on what processes list of a copy.
///
/// # Errors
/// When the list is not whole.
pub(super) fn walked(
    cx: Context<'_>,
    copy: &Copy,
    list: &[CommandSpec],
    blame: Blame<'_>,
    each: &mut dyn FnMut(Entry),
) -> Result<(), EngineError> {
    let root = root_of(copy)?;
    let mut torn = None;
    run_all(cx, list, blame, &mut |stream, line| {
        if stream != Stream::Out || torn.is_some() {
            return;
        }
        match listing::parse(line).filter(|found| Inside::new(found.path.clone()).is_some()) {
            Some(found) => each(Entry {
                path: root.join(found.path),
                kind: found.kind,
                size: found.size,
                modified: found.modified,
                mode: Some(found.mode),
                uid: Some(found.uid),
                gid: Some(found.gid),
                shared: found.shared,
            }),
            None => torn = Some(String::from_utf8_lossy(line).into_owned()),
        }
    })?;
    match torn {
        Some(line) => Err(EngineError::Output { engine: listing::VERB, what: line }),
        None => Ok(()),
    }
}

/// A difference between two copies, of what is at this path of the machine.
pub(super) fn change(root: &Path, found: Differing) -> Change {
    // A path that ends in a slash would be another one to whoever compares.
    let is_root = found.path.as_os_str().is_empty();
    let path = if is_root { root.to_owned() } else { root.join(&found.path) };
    let kind = match found.how {
        Difference::Added => ChangeKind::Added,
        Difference::Removed => ChangeKind::Removed,
        Difference::Modified => ChangeKind::Modified,
        Difference::Metadata => ChangeKind::Metadata,
    };
    Change { path, kind }
}

/// Refuses to restore owners by name.
///
/// # Errors
/// When that is asked for.
fn refuse_names(target: &Target, request: &RestoreRequest) -> Result<(), EngineError> {
    match request.owners_by_name {
        true => {
            let what = "restore owners by name: a copy knows their numbers alone";
            Err(EngineError::unsupported(target, what))
        }
        false => Ok(()),
    }
}

/// The subvolume's path on the machine that the copy is of.
///
/// # Errors
/// When its record does not say it.
pub(super) fn root_of(copy: &Copy) -> Result<PathBuf, EngineError> {
    let item = copy.series.as_ref().and_then(|series| series.item.as_ref());
    item.map(PathBuf::from).ok_or_else(|| EngineError::Output {
        engine: "btrfs",
        what: format!("the record of {} does not say of which subvolume it is", copy.id),
    })
}

/// Refuses a path in a copy that leads through a link: behind one lies what the machine has now.
fn follows_no_link(cx: Context<'_>, path: &Path) -> Result<(), EngineError> {
    match cx.host.way(path)?.links.first() {
        None => Ok(()),
        Some((link, _)) => Err(EngineError::NoSource {
            detail: format!("{} is a symbolic link, which is not followed", link.shown()),
        }),
    }
}

/// A path of the machine as one in the copy, whose root is at another.
///
/// # Errors
/// When it is none.
pub(super) fn inside(root: &Path, path: &Path) -> Result<Inside, EngineError> {
    let relative = path.strip_prefix(root).map_err(|_| EngineError::NoSource {
        detail: format!("{} is not below {}, of which the copy is", path.shown(), root.shown()),
    })?;
    Inside::new(relative).ok_or_else(|| EngineError::NoSource {
        detail: format!("{} is no plain path", path.shown()),
    })
}
