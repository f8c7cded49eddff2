//! What of a copy is asked for, and where below the destination it will lie.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::engine::{Engine, Entry};
use crate::host::{Host, MountEntry};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::{below, relative, too_large};

/// A place below the destination that is a file system of its own.
#[derive(Debug, Default)]
struct Place {
    /// Below the destination; empty for itself.
    at: PathBuf,
    /// Bytes that it gets, where they are known.
    bytes: u64,
    /// Whether it gets anything.
    is_filled: bool,
}

/// What a copy holds of what was asked for.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The topmost entries that were asked for.
    roots: BTreeSet<PathBuf>,
    /// Directories above them that the copy holds.
    pub(super) above: Vec<PathBuf>,
    /// The destination itself, and what else gets something; parents first.
    places: Vec<Place>,
}

impl Survey {
    /// All of a copy, to a place where nothing is.
    pub(super) fn of_everything() -> Self {
        let itself = Place { is_filled: true, ..Place::default() };
        Self { places: vec![itself], ..Self::default() }
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(PathBuf::as_path)
    }

    /// The places below the destination that are file systems of their own.
    pub(super) fn places(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().skip(1).map(|place| place.at.as_path())
    }

    /// The places that get something; the first is the destination itself, `None` if that gets nothing.
    pub(super) fn filled(&self) -> impl Iterator<Item = Option<&Path>> {
        let itself = self.places.first();
        let filled = self.places.iter().skip(1).filter(|place| place.is_filled);
        let itself = itself.map(|place| place.is_filled.then_some(place.at.as_path()));
        itself.into_iter().chain(filled.map(|place| Some(place.at.as_path())))
    }

    /// Refuses what does not fit, as far as that is known.
    ///
    /// # Errors
    /// With the figures.
    pub(super) fn check_space(&self, host: &dyn Host, to: &Path) -> Result<(), StepError> {
        for place in self.places.iter().filter(|place| place.bytes > 0) {
            let at = below(to, &place.at);
            let free = host.free_space(&at)?;
            if place.bytes > free {
                return Err(too_large(place.bytes, free, &at));
            }
        }
        Ok(())
    }

    /// Directories above what is restored in place that are not there now, and of which the copy says nothing.
    pub(super) fn made_up(&self, host: &dyn Host) -> Result<Vec<PathBuf>, StepError> {
        let mut missing = BTreeSet::new();
        for root in &self.roots {
            for above in root.ancestors().skip(1).filter(|above| above.parent().is_some()) {
                if self.above.iter().any(|held| held == above) {
                    continue;
                }
                if host.look(above)?.is_some() {
                    break;
                }
                missing.insert(above.to_owned());
            }
        }
        Ok(missing.into_iter().collect())
    }

    fn take(&mut self, entry: &Entry, asked: bool, is_above: bool) {
        if !asked {
            if is_above && entry.kind == 'd' {
                self.above.push(entry.path.clone());
            }
            return;
        }
        if !entry.path.ancestors().any(|above| self.roots.contains(above)) {
            // Paths of a job that lie in each other come in the order of the job.
            self.roots.retain(|root| !root.starts_with(&entry.path));
            self.roots.insert(entry.path.clone());
        }
        let path = relative(&entry.path);
        // The directory at which something is mounted is there already.
        if self.places.iter().any(|place| place.at == path) {
            return;
        }
        let around = |place: &&mut Place| path.starts_with(&place.at);
        if let Some(place) = self.places.iter_mut().rev().find(around) {
            place.is_filled = true;
            if entry.kind == '-' {
                place.bytes = place.bytes.saturating_add(entry.size.unwrap_or(0));
            }
        }
    }
}

/// Goes through a copy once; memory does not grow with it.
///
/// # Errors
/// When it cannot be listed, or does not hold what is asked for.
pub(super) fn survey(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    paths: &[PathBuf],
    to: &Path,
    places: &[PathBuf],
) -> Result<Survey, StepError> {
    let sources = engine.sources(cx.engine(), copy)?;
    let mut survey = Survey::default();
    survey.places.push(Place::default());
    let inner = places.iter().filter_map(|at| at.strip_prefix(to).ok());
    survey.places.extend(inner.map(|at| Place { at: at.to_owned(), ..Place::default() }));
    survey.places.sort_by_key(|place| place.at.components().count());
    let mut found = vec![false; paths.len()];
    engine.contents(cx.engine(), copy, &mut |entry| {
        let path = entry.path.as_path();
        for (found, wanted) in found.iter_mut().zip(paths) {
            *found |= path.starts_with(wanted);
        }
        let is_source = sources
            .as_ref()
            .is_none_or(|sources| sources.iter().any(|source| path.starts_with(source)));
        let is_wanted = paths.is_empty() || paths.iter().any(|wanted| path.starts_with(wanted));
        let mut ends = paths.iter().chain(sources.iter().flatten());
        let is_above = ends.any(|end| end.starts_with(path));
        survey.take(&entry, is_source && is_wanted, is_above);
    })?;
    for (found, path) in found.iter().zip(paths) {
        match path.to_str() {
            Some(_) if *found => {}
            Some(_) => {
                let text = format!(
                    "{} is not in the copy {} — see `stillpoint find`",
                    path.shown(),
                    copy.id
                );
                return Err(StepError::new(Trouble::JobFailed, text));
            }
            // Listings spell other bytes in their own way; the engine and the last look say whether it is there.
            None => {
                let entry = Entry {
                    path: path.clone(),
                    kind: '?',
                    size: None,
                    modified: None,
                    mode: None,
                    uid: None,
                    gid: None,
                };
                survey.take(&entry, true, false);
            }
        }
    }
    Ok(survey)
}

/// Everything below a directory that is a file system of its own: what is mounted there, and the btrfs
/// subvolumes, across which nothing can be moved either.
///
/// # Errors
/// When it cannot be told what is mounted.
pub fn places(host: &dyn Host, below: &Path) -> Result<Vec<PathBuf>, StepError> {
    let mounts = host.mounts()?;
    let is_inside = |at: &Path| at != below && at.starts_with(below);
    let mut places: BTreeSet<PathBuf> =
        mounts.iter().map(|mount| mount.at.clone()).filter(|at| is_inside(at)).collect();
    let mut open: Vec<PathBuf> = places.iter().cloned().collect();
    open.push(below.to_owned());
    while let Some(at) = open.pop() {
        let around = mounts.iter().filter(|mount| at.starts_with(&mount.at));
        let around = around.max_by_key(|mount| mount.at.components().count());
        if !around.is_some_and(is_btrfs) {
            continue;
        }
        // Whoever may not ask learns at the move that there was one.
        for nested in host.nested_subvolumes(&at).unwrap_or_default() {
            if is_inside(&nested) && places.insert(nested.clone()) {
                open.push(nested);
            }
        }
    }
    Ok(places.into_iter().collect())
}

fn is_btrfs(mount: &MountEntry) -> bool {
    mount.file_system == "btrfs"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: char, size: u64) -> Entry {
        Entry {
            path: path.into(),
            kind,
            size: Some(size),
            modified: None,
            mode: None,
            uid: None,
            gid: None,
        }
    }

    fn with_places(places: &[&str]) -> Survey {
        let place = |at: &&str| Place { at: at.into(), ..Place::default() };
        Survey { places: places.iter().map(place).collect(), ..Survey::default() }
    }

    #[test]
    fn each_file_system_gets_what_lies_in_it() {
        let mut survey = with_places(&["", "srv", "home", "srv/big"]);
        for (path, kind, size) in [
            ("/srv", 'd', 0),
            ("/srv/big", 'd', 0),
            ("/srv/big/a", '-', 5),
            ("/srv/big/b", '-', 6),
            ("/srv/bigger", '-', 7),
            ("/home", 'd', 0),
        ] {
            survey.take(&entry(path, kind, size), true, false);
        }
        let filled: Vec<_> = survey.filled().collect();
        assert_eq!(filled, [None, Some(Path::new("srv")), Some(Path::new("srv/big"))]);
        let bytes: Vec<_> = survey.places.iter().map(|place| place.bytes).collect();
        assert_eq!(bytes, [0, 7, 0, 11]);
        let roots: Vec<_> = survey.roots().collect();
        assert_eq!(roots, [Path::new("/home"), Path::new("/srv")]);
    }

    #[test]
    fn the_destination_itself_may_get_nothing() {
        let mut survey = with_places(&["", "srv"]);
        survey.take(&entry("/srv", 'd', 0), false, true);
        survey.take(&entry("/srv/x", '-', 1), true, false);
        assert_eq!(survey.filled().collect::<Vec<_>>(), [None, Some(Path::new("srv"))]);
        assert_eq!(survey.above, [PathBuf::from("/srv")]);
    }

    #[test]
    fn what_comes_later_may_lie_above() {
        let mut survey = with_places(&[""]);
        for path in ["/srv/x", "/srv/x/y", "/srv", "/srv/z"] {
            survey.take(&entry(path, 'd', 0), true, false);
        }
        assert_eq!(survey.roots().collect::<Vec<_>>(), [Path::new("/srv")]);
    }
}
