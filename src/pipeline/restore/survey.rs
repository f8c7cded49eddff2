//! What of a copy is asked for, and where below the destination it will lie.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::engine::{Engine, Entry};
use crate::host::{Host, MountEntry, Refused, mount_of};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::engine_lock::bracketed;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::closed;

/// A place below the destination that is a file system of its own.
#[derive(Debug, Default)]
struct Place {
    /// Below the destination; empty for itself.
    at: PathBuf,
    /// Bytes that it gets, where they are known.
    bytes: u64,
    /// Whether it gets anything.
    is_filled: bool,
    /// Why nothing can be stored there, and what to do about it.
    closed: Option<String>,
}

impl Place {
    fn takes_in(&self) -> bool {
        self.is_filled && self.closed.is_none()
    }
}

/// What a copy holds of what was asked for.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The paths of the copy that a person named; none when all was asked for.
    pub(super) asked: Vec<PathBuf>,
    /// The topmost entries that were asked for.
    roots: BTreeSet<PathBuf>,
    /// Directories above them that the copy holds.
    pub(super) above: Vec<PathBuf>,
    /// The destination itself, and what else gets something; parents first.
    places: Vec<Place>,
    /// Files with several names of which one was counted: they are laid out once in each place.
    counted: HashSet<(PathBuf, u64)>,
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

    /// Where something is put.
    pub(super) fn goes(&self, to: &Path) -> Vec<PathBuf> {
        match self.roots.is_empty() {
            true => vec![to.to_owned()],
            false => self.roots().map(|root| below(to, &relative(root))).collect(),
        }
    }

    /// The places below the destination that are file systems of their own.
    pub(super) fn places(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().skip(1).map(|place| place.at.as_path())
    }

    /// The places that get something and take it; the first is the destination itself, `None` if it does not.
    pub(super) fn filled(&self) -> impl Iterator<Item = Option<&Path>> {
        let itself = self.places.first();
        let filled = self.places.iter().skip(1).filter(|place| place.takes_in());
        let itself = itself.map(|place| place.takes_in().then_some(place.at.as_path()));
        itself.into_iter().chain(filled.map(|place| Some(place.at.as_path())))
    }

    /// Finds out which places that get something do not take it.
    ///
    /// # Errors
    /// When none of them does, and when it cannot be told what is mounted.
    pub(super) fn find_closed(&mut self, host: &dyn Host, to: &Path) -> Result<(), StepError> {
        let mounts = host.mounts()?;
        for place in self.places.iter_mut().filter(|place| place.is_filled) {
            place.closed = closed::why(host, &mounts, &below(to, &place.at));
        }
        self.refuse_all_closed()
    }

    /// Notes that nothing can be stored at a place below the destination.
    ///
    /// # Errors
    /// When no other one is left.
    pub(super) fn close(&mut self, at: &Path, why: String) -> Result<(), StepError> {
        for place in self.places.iter_mut().filter(|place| place.at == at) {
            place.closed = Some(why.clone());
        }
        self.refuse_all_closed()
    }

    fn refuse_all_closed(&self) -> Result<(), StepError> {
        let first = self.places.iter().find_map(|place| place.closed.as_ref());
        match first {
            Some(why) if !self.places.iter().any(Place::takes_in) => {
                let text = format!("nothing was restored: {why}");
                Err(StepError::new(Trouble::Environment, text))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The places that do not take what they should get, below the destination, and why.
    pub(super) fn closed(&self) -> Vec<Refused> {
        let closed = self.places.iter().filter_map(|place| {
            Some(Refused { path: place.at.clone(), reason: place.closed.clone()? })
        });
        closed.collect()
    }

    /// Refuses what does not fit, as far as that is known. What a place does not take in is laid out in the one
    /// around it, or in the run's own directory.
    ///
    /// # Errors
    /// With the figures.
    pub(super) fn check_space(
        &self,
        host: &dyn Host,
        to: &Path,
        own: Option<&Path>,
    ) -> Result<(), StepError> {
        for (at, need) in self.needed(to, own) {
            let free = host.free_space(&at)?;
            if need > free {
                return Err(too_large(need, free, &at));
            }
        }
        Ok(())
    }

    /// How many bytes are laid out where.
    fn needed(&self, to: &Path, own: Option<&Path>) -> BTreeMap<PathBuf, u64> {
        let mut needed: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for place in self.places.iter().filter(|place| place.bytes > 0) {
            let around = |other: &&Place| other.takes_in() && place.at.starts_with(&other.at);
            let at = match (self.places.iter().rfind(around), own) {
                (Some(around), _) => below(to, &around.at),
                (None, Some(own)) => own.to_owned(),
                (None, None) => continue,
            };
            let sum = needed.entry(at).or_default();
            *sum = sum.saturating_add(place.bytes);
        }
        needed
    }

    /// Directories above what is restored in place that are not there now, and of which the copy says nothing.
    pub(super) fn made_up(&self, host: &dyn Host) -> Result<Vec<PathBuf>, StepError> {
        let mut missing = BTreeSet::new();
        for root in &self.roots {
            for above in root.ancestors().skip(1).filter(|above| above.parent().is_some()) {
                if self.above.iter().any(|held| held == above) {
                    continue;
                }
                if host.path_state(above)?.is_some() {
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
            let is_first = |it| self.counted.insert((place.at.clone(), it));
            if entry.kind == '-' && entry.shared.is_none_or(is_first) {
                place.bytes = place.bytes.saturating_add(entry.size.unwrap_or(0));
            }
        }
    }
}

/// Goes through a copy once; memory does not grow with it, but for files with several names.
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
    let mut survey = Survey { asked: paths.to_vec(), ..Survey::default() };
    survey.places.push(Place::default());
    let inner = places.iter().filter_map(|at| at.strip_prefix(to).ok());
    survey.places.extend(inner.map(|at| Place { at: at.to_owned(), ..Place::default() }));
    survey.places.sort_by_key(|place| place.at.components().count());
    let mut found = vec![false; paths.len()];
    bracketed(cx, engine, |engine, context| {
        let sources = engine.sources(context, copy)?;
        engine.contents(context, copy, &mut |entry| {
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
        })
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
                    shared: None,
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
        if !mount_of(&mounts, &at).is_some_and(is_btrfs) {
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

/// A place below the destination.
pub(super) fn below(to: &Path, at: &Path) -> PathBuf {
    if at.as_os_str().is_empty() { to.to_owned() } else { to.join(at) }
}

/// A path of the copy as one below the destination.
pub(super) fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The refusal of a copy that does not fit, with the figures.
fn too_large(need: u64, free: u64, at: &Path) -> StepError {
    let text = format!(
        "what is to be restored takes up to {}, and {} is free at {}, so nothing was changed — restore to another disk with --to, or name fewer paths; if holes in files or compression make it fit, use --ignore-space",
        size::show(need),
        size::show(free),
        at.shown()
    );
    StepError::new(Trouble::Environment, text)
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
            shared: None,
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
    fn a_file_of_several_names_takes_its_space_once_in_each_place() {
        let mut survey = with_places(&["", "srv"]);
        let named = |path: &str, shared| Entry { shared, ..entry(path, '-', 5) };
        // The first name of one was not asked for.
        survey.take(&named("/a", Some(7)), false, false);
        for (path, shared) in [
            ("/b", Some(7)),
            ("/c", Some(7)),
            ("/d", Some(8)),
            ("/e", None),
            ("/f", None),
            ("/srv/g", Some(7)),
            ("/srv/h", Some(7)),
        ] {
            survey.take(&named(path, shared), true, false);
        }
        let bytes: Vec<_> = survey.places.iter().map(|place| place.bytes).collect();
        assert_eq!(bytes, [20, 5]);
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
    fn what_a_place_does_not_take_in_is_laid_out_around_it_and_counted_there() {
        let mut survey = with_places(&["", "srv", "srv/big"]);
        for (path, size) in [("/srv/big/a", 5), ("/srv/x", 6)] {
            survey.take(&entry(path, '-', size), true, false);
        }
        let (to, own) = (Path::new("/to"), Some(Path::new("/cache/tmp/run")));
        let needed = |survey: &Survey, own| {
            let needed = survey.needed(to, own).into_iter();
            needed.map(|(at, bytes)| format!("{} {bytes}", at.shown())).collect::<Vec<_>>()
        };
        assert_eq!(needed(&survey, own), ["/to/srv 6", "/to/srv/big 5"]);
        survey.close(Path::new("srv/big"), "read-only".into()).unwrap();
        assert_eq!(needed(&survey, own), ["/to/srv 11"]);
        assert_eq!(survey.filled().collect::<Vec<_>>(), [None, Some(Path::new("srv"))]);
        let closed = Refused { path: "srv/big".into(), reason: "read-only".into() };
        assert_eq!(survey.closed(), [closed]);

        let error = survey.close(Path::new("srv"), "full of errors".into()).unwrap_err();
        assert_eq!(error.trouble, Trouble::Environment);
        assert_eq!(error.message, "nothing was restored: full of errors");
        assert_eq!(needed(&survey, own), ["/cache/tmp/run 11"]);
        assert_eq!(needed(&survey, None), Vec::<String>::new());

        // The destination itself, and what lies in it goes where it can.
        survey.take(&entry("/etc/f", '-', 7), true, false);
        survey.take(&entry("/home/f", '-', 7), true, false);
        survey.places[0].closed = Some("read-only".into());
        survey.places[1].closed = None;
        survey.refuse_all_closed().unwrap();
        assert_eq!(needed(&survey, own), ["/cache/tmp/run 14", "/to/srv 11"]);
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
