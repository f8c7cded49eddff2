//! Taking files out of a copy, which lies there as it was.

use std::path::{Component, Path, PathBuf};

use super::{BtrfsEngine, culprit};
use crate::engine::{Context, EngineError, Entry, RestoreReport, RestoreRequest};
use crate::host::{Action, PathKind, Stream};
use crate::model::copy::Copy;
use crate::model::shown::Show;
use crate::tools::listing;
use crate::tools::tar;

/// What GNU tar says at the end of a line about a socket, of which it stores nothing.
const SOCKET: &[u8] = b": socket ignored";

impl BtrfsEngine {
    /// Lays files out; see [`crate::engine::Engine::restore`].
    pub(super) fn lay_out(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
    ) -> Result<RestoreReport, EngineError> {
        if request.owners_by_name {
            let what = "restore owners by name: a copy knows their numbers alone";
            return Err(EngineError::unsupported(&self.target, what));
        }
        let catalog = self.open(cx)?;
        let (_, path) = self.held(&catalog, &request.copy.id)?;
        if request.dry_run {
            return Ok(RestoreReport::default());
        }
        let root = root_of(&request.copy)?;
        let named =
            if request.paths.is_empty() { vec![root.clone()] } else { request.paths.clone() };
        let within = |paths: &[PathBuf]| -> Result<Vec<PathBuf>, EngineError> {
            paths
                .iter()
                .filter(|path| path.starts_with(&root))
                .map(|path| below(&root, path))
                .collect()
        };
        let what = tar::Members { alone: within(&request.above)?, whole: within(&named)? };
        for member in what.alone.iter().chain(&what.whole) {
            // The last name may well be one of a link.
            path.join(member).parent().map_or(Ok(()), |above| follows_no_link(cx, above))?;
        }
        let pack = tar::pack(&path, &what, self.target.stall_timeout);
        let place = request.place_of(&root);
        cx.host.act(&Action::EnsureDirectory { path: place, mode: 0o755 })?;
        let seen = request.to.join(root.strip_prefix("/").unwrap_or(&root));
        let mut unpack = tar::unpack(&seen, self.target.stall_timeout);
        unpack.confinement = request.confined_to(&[]);
        let (mut warnings, mut notes) = (Vec::new(), Vec::new());
        let chained =
            cx.host.chain(std::slice::from_ref(&pack), &unpack, &mut |stream, line| {
                if !matches!(stream, Stream::Err | Stream::ProducerErr) {
                    return;
                }
                // Whoever listens on a socket makes it anew; nothing is lost with it.
                let said = if line.ends_with(SOCKET) { &mut notes } else { &mut warnings };
                if said.len() < 100 {
                    said.push(String::from_utf8_lossy(line).into_owned());
                }
            })?;
        if let Some((spec, ended)) = culprit(std::slice::from_ref(&pack), &unpack, &chained) {
            let is_there = std::ptr::eq(ended, &chained.last);
            return Err(request.judged(cx.host, self.failure(spec, ended), is_there));
        }
        Ok(RestoreReport { warnings, notes, ..RestoreReport::default() })
    }

    /// Prints one file; see [`crate::engine::Engine::stream`].
    pub(super) fn print(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        wanted: &Path,
    ) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let (_, path) = self.held(&catalog, &copy.id)?;
        let file = path.join(below(&root_of(copy)?, wanted)?);
        follows_no_link(cx, &file)?;
        let found = cx.host.path_state(&file)?;
        if found.is_none_or(|found| found.kind != PathKind::File) {
            let detail = format!("there is no file {} in {}", wanted.shown(), copy.id);
            return Err(EngineError::NoSource { detail });
        }
        let spec = tar::print(&file, self.target.stall_timeout);
        let completed = cx.host.run(&spec, &mut |_, _| {})?;
        if completed.success() || completed.is_predicted {
            return Ok(());
        }
        Err(self.failure(&spec, &completed))
    }

    /// Hands on what a copy holds; see [`crate::engine::Engine::contents`].
    pub(super) fn walk(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let (_, path) = self.held(&catalog, &copy.id)?;
        let root = root_of(copy)?;
        let spec = listing::command(&path, self.target.stall_timeout);
        let mut torn = None;
        let completed = cx.host.run(&spec, &mut |stream, line| {
            if stream != Stream::Out || torn.is_some() {
                return;
            }
            match listing::parse(line) {
                Some(found) => each(Entry {
                    path: root.join(found.path),
                    kind: found.kind,
                    size: found.size,
                    modified: found.modified,
                    mode: Some(found.mode),
                    uid: Some(found.uid),
                    gid: Some(found.gid),
                }),
                None => torn = Some(String::from_utf8_lossy(line).into_owned()),
            }
        })?;
        match torn {
            Some(line) => Err(EngineError::Output { engine: "btrfs", what: line }),
            None if completed.success() => Ok(()),
            None => Err(self.failure(&spec, &completed)),
        }
    }
}

/// The subvolume's path on the machine that the copy is of.
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

/// A path of the machine as one below the root of the copy.
fn below(root: &Path, path: &Path) -> Result<PathBuf, EngineError> {
    let relative = path.strip_prefix(root).map_err(|_| EngineError::NoSource {
        detail: format!("{} is not below {}, of which the copy is", path.shown(), root.shown()),
    })?;
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    match is_plain {
        true => Ok(Path::new(".").join(relative)),
        false => {
            Err(EngineError::NoSource { detail: format!("{} is no plain path", path.shown()) })
        }
    }
}
