//! Restoring: the engine lays a copy out in directories of ours, and we move it into place.
//!
//! What lives is never in an engine's hands. It fills staging directories, on the file systems that the result
//! goes to, and can write nowhere else ([`crate::host::Confinement`]); then [`crate::host::Placement`] moves one
//! entry after the other. The directories are in the ledger before they are made, so whatever ends a restore
//! leaves nothing but old and new files. What this program itself works in is passed over, whatever a copy holds of
//! it, and told.
//!
//! Before that, the copy is read as far as it must be: whether it holds what is asked for, on which file
//! systems below the destination that will lie, and whether it fits there.

use std::path::{Component, Path, PathBuf};

use crate::capture::survey::staging_name;
use crate::capture::workplaces;
use crate::engine::{Engine, EngineError, RestoreReport, RestoreRequest};
use crate::host::{Action, Confinement, Host, PathKind, PathState, Placement, Staged};
use crate::model::copy::Copy;
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;

use super::engine_lock::bracketed;
use super::query::{self, Query};
use super::staging::{elsewhere, try_own_directory};
use super::unpacked::with_unpacked;
use crate::step::context::RunContext;
use crate::step::error::StepError;

pub mod as_subvolume;
mod closed;
mod judge;
pub(super) mod own;
mod survey;

use judge::judge;
use own::Own;
use own::refuse_inside;
pub use survey::places;
use survey::{Survey, below, relative, survey};

/// What the staging directories are for, in their names.
const STAGING: &str = "restore";

/// What to restore of a copy, and how.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Absolute paths in it; empty, or with `/` among them: all of it.
    pub paths: Vec<PathBuf>,
    /// The directory below which the paths are laid out; in place when absent.
    pub to: Option<PathBuf>,
    /// That directory may have something in it.
    pub into_existing: bool,
    /// Owners by name, not by number.
    pub owners_by_name: bool,
    /// Try it although it does not seem to fit.
    pub ignore_space: bool,
    /// Whether only what would be restored is told.
    pub dry_run: bool,
}

impl Wanted {
    /// The directory below which the paths are laid out: the root, where they go to their original places.
    pub fn below(&self) -> &Path {
        self.to.as_deref().unwrap_or(Path::new("/"))
    }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The target that served it.
    pub target: TargetName,
    /// The copy that is restored from.
    pub copy: Copy,
    /// What the engine and the placement said.
    pub report: RestoreReport,
}

/// Restores the copy of a job that is named: an id, a run id or `latest`. What is there of the same paths is replaced,
/// entry by entry; nothing else is touched.
///
/// # Errors
/// When it could not begin, and then nothing was changed; or when some of it was not restored: the message names
/// it, and what was there before is still there.
pub fn restore(
    cx: RunContext<'_>,
    query: &Query<'_>,
    named: &str,
    wanted: &Wanted,
) -> Result<Restored, StepError> {
    let (engine, copy) = query::copy(cx.pipeline, query, named)?;
    // What commands print has a name for an item, and not a path.
    let item = copy.series.as_ref().and_then(|series| series.item.as_ref());
    if wanted.to.is_none() && item.is_some_and(|item| !Path::new(item).is_absolute()) {
        let text = format!(
            "job {} stores what commands print, which has no place on this machine — write it out with --stdout, or name a directory with --to",
            query.job
        );
        return Err(StepError::new(Trouble::Usage, text));
    }
    if wanted.to.is_none() {
        query::refuse_elsewhere(cx.config(), query, &copy, RESTORE_HERE)?;
    }
    let becomes = as_directory(cx.host(), &copy, wanted)?;
    let mut report = restore_copy(cx, engine, &copy, wanted)?;
    report.warnings.extend(becomes);
    Ok(Restored { target: engine.target().name.clone(), copy, report })
}

/// That a subvolume which is gone comes back as a directory, if it does: no run could send that.
fn as_directory(
    host: &dyn Host,
    copy: &Copy,
    wanted: &Wanted,
) -> Result<Option<String>, StepError> {
    // Of all things that a job has several of, only subvolumes have a path.
    let item = copy.series.as_ref().and_then(|series| series.item.as_deref()).map(Path::new);
    let Some(item) = item.filter(|item| wanted.to.is_none() && item.is_absolute()) else {
        return Ok(None);
    };
    let is_there = host.path_state(item)?.is_some();
    Ok((!is_there).then(|| {
        format!(
            "{} was a subvolume and is gone, so what is restored lies in a directory, of which no run makes a copy — to have the subvolume again, move that away and use --as-subvolume --in-place",
            item.shown()
        )
    }))
}

/// What is said of a copy whose place is on another machine.
const RESTORE_HERE: &str = "restore it to a directory of this machine with --to";

/// How a copy is to be restored: what was found out before anything is written.
struct Plan {
    /// The directory below which the paths are laid out.
    to: PathBuf,
    /// Whether that directory has to be made.
    to_is_missing: bool,
    survey: Survey,
    /// What this program itself works in.
    own: Vec<Own>,
    request: RestoreRequest,
}

fn restore_copy(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    wanted: &Wanted,
) -> Result<RestoreReport, StepError> {
    if wanted.dry_run && engine.is_packed() {
        let note = "what would be restored is known only when the copy is unpacked, which is not done here";
        return Ok(RestoreReport { notes: vec![note.into()], ..RestoreReport::default() });
    }
    let to = wanted.to.as_deref().map(|to| cx.host().canonical(to));
    with_unpacked(cx, engine, copy, (to.as_deref(), wanted.ignore_space), || {
        let plan = plan(cx, engine, copy, wanted)?;
        if wanted.dry_run {
            return predict(cx, engine, &plan);
        }
        carry_out(cx, engine, wanted, plan)
    })
}

/// Finds out whether the copy holds what is asked for, where it will lie, and whether it fits there.
fn plan(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    wanted: &Wanted,
) -> Result<Plan, StepError> {
    let host = cx.host();
    let to = match &wanted.to {
        None => PathBuf::from("/"),
        Some(to) => host.canonical(to),
    };
    if wanted.to.is_some() {
        refuse_inside(host, cx.config(), &to)?;
    }
    let found = destination(host, &to, wanted)?;
    let paths = plain(&wanted.paths)?;
    let is_fresh = found.as_ref().is_none_or(|found| found.empty);
    let places = if is_fresh { Vec::new() } else { places(host, &to)? };
    let mut survey = match copy.size.filter(|_| is_fresh && paths.is_empty()) {
        Some(size) if fits(host, &to, size)? => Survey::of_everything(),
        _ => survey(cx, engine, copy, &paths, &to, &places)?,
    };
    let own = own::own(host, cx.config(), &survey.goes(&to))?;
    survey.find_closed(host, &to)?;
    if !wanted.ignore_space {
        survey.check_space(host, &to, cx.staging.map(PathBuf::as_path))?;
    }
    let request = RestoreRequest {
        paths: outermost(&paths),
        above: survey.above.clone(),
        owners_by_name: wanted.owners_by_name,
        dry_run: wanted.dry_run,
        ..RestoreRequest::new(copy.clone(), to.clone())
    };
    Ok(Plan { to, to_is_missing: found.is_none(), survey, own, request })
}

/// What a restore would do, by the engine's own dry run.
fn predict(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    Plan { to, survey, own, request, .. }: &Plan,
) -> Result<RestoreReport, StepError> {
    let mut report =
        bracketed(cx, engine, |engine, context| engine.restore(context, request, &mut |_| {}))?;
    let roots: Vec<&Path> = survey.roots().collect();
    report.notes.extend(own::in_the_way(own, to, &roots));
    let left_out = survey.closed().into_iter();
    report.notes.extend(left_out.map(|left| format!("not all would be restored: {}", left.reason)));
    Ok(report)
}

/// Lays the copy out and moves it into place.
fn carry_out(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    wanted: &Wanted,
    Plan { to, to_is_missing, mut survey, own, request }: Plan,
) -> Result<RestoreReport, StepError> {
    let host = cx.host();
    let made_up = match wanted.to {
        None => survey.made_up(host)?,
        // Where it is laid out anew, the directories above are only the way to it.
        Some(_) => Vec::new(),
    };
    if to_is_missing {
        let made = host.act(&Action::EnsureDirectory { path: to.clone(), mode: 0o700 });
        made.map_err(|error| StepError::new(Trouble::Environment, closed::by(&to, error)))?;
    }
    let staged = stage(cx, &to, &mut survey)?;
    if !wanted.ignore_space {
        // Where a place turned out to take nothing in, another one gets it.
        survey.check_space(host, &to, cx.staging.map(PathBuf::as_path))?;
    }
    let mut report = lay_out_and_place(cx, engine, request, &to, (&survey, staged), &own)?;
    report.warnings.extend(made_up.iter().map(|path| {
        format!(
            "the copy does not hold the directory {}, so it was made with owner root and mode 0755",
            path.shown()
        )
    }));
    Ok(report)
}

/// Looks at the directory to restore to; `None` when it has to be made.
fn destination(
    host: &dyn Host,
    to: &Path,
    wanted: &Wanted,
) -> Result<Option<PathState>, StepError> {
    let refused = |text: String| Err(StepError::new(Trouble::Usage, text));
    let found = host.path_state(to)?;
    match &found {
        Some(state) if state.kind != PathKind::Directory => {
            refused(format!("{} is not a directory", to.shown()))
        }
        Some(state) if wanted.to.is_some() && !state.empty && !wanted.into_existing => {
            refused(format!(
                "{} has something in it, so nothing was restored there — name an empty directory, or use --into-existing",
                to.shown()
            ))
        }
        Some(_) => Ok(found),
        None => match host.way(to)?.links.first() {
            Some((link, _)) => refused(format!(
                "{} is a symbolic link that leads to nothing — make the directory that it is to lead to, or name another one",
                link.shown()
            )),
            None => Ok(None),
        },
    }
}

/// The paths without `.` and doubled slashes; none when all is asked for.
fn plain(paths: &[PathBuf]) -> Result<Vec<PathBuf>, StepError> {
    if let Some(path) =
        paths.iter().find(|path| path.components().any(|c| c == Component::ParentDir))
    {
        let text = format!("{} holds \"..\" — name the path as it is in the copy", path.shown());
        return Err(StepError::new(Trouble::Usage, text));
    }
    let plain: Vec<PathBuf> = paths.iter().map(|path| path.components().collect()).collect();
    let everything = plain.iter().any(|path| path == Path::new("/"));
    Ok(if everything { Vec::new() } else { plain })
}

/// The paths that lie in no other one of them, each once: borg takes each entry for the first pattern that it
/// matches, and holds the others to be absent from the copy.
fn outermost(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut outermost: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !outermost.iter().any(|above| path.starts_with(above)) {
            outermost.retain(|kept| !kept.starts_with(path));
            outermost.push(path.clone());
        }
    }
    outermost
}

fn fits(host: &dyn Host, to: &Path, size: u64) -> Result<bool, StepError> {
    Ok(size <= host.free_space(to)?)
}

fn lay_out_and_place(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    mut request: RestoreRequest,
    to: &Path,
    (survey, staged): (&Survey, Vec<Staged>),
    own: &[Own],
) -> Result<RestoreReport, StepError> {
    let host = cx.host();
    let Some(state) = host.path_state(to)? else {
        let text = format!("{} went away again", to.shown());
        return Err(StepError::new(Trouble::JobFailed, text));
    };
    let [_, seen_at] = workplaces(&cx.config().settings);
    let confined = host.may_confine();
    if confined {
        request.to = seen_at.clone();
        let see = |staged: &Staged| Staged { at: below(&seen_at, &staged.at), ..staged.clone() };
        request.confinement =
            Some(Confinement { staged: staged.iter().map(see).collect(), writable: Vec::new() });
    } else if let [base] = staged.as_slice() {
        request.to = base.path.clone();
    } else {
        let text = "what is to be restored lies on several file systems, which needs a mount namespace, and the kernel does not allow one here — name paths on one of them, or use --to";
        return Err(StepError::new(Trouble::Environment, text));
    }
    // The engine knows the directory by another path than the person.
    let place = request.to.clone();
    let named_as_asked = |text: &str| shown_at(text, &place, to);
    let mut report = bracketed(cx, engine, |engine, context| {
        let laid_out = engine.restore(context, &request, &mut |_| {});
        laid_out.map_err(|error| as_asked(error, to, named_as_asked))
    })
    .map_err(|error| failure(error, to))?;
    for text in &mut report.warnings {
        *text = named_as_asked(text);
    }
    if !confined {
        report.notes.push(format!(
            "{} could not be kept from writing elsewhere (no mount namespace here), so it was assumed that this copy names no path outside",
            engine.target().name
        ));
    }
    let placement = Placement {
        destination: to.to_owned(),
        identity: state.identity,
        staged,
        named: survey.roots().map(relative).collect(),
        mounted: survey.places().map(Path::to_owned).collect(),
        closed: survey.closed(),
        in_use: own::in_use(own),
    };
    let placed = host.place(&placement)?;
    judge(&placed, &placement, &survey.asked)?;
    let passed_over = placed.passed_over.iter();
    report.warnings.extend(passed_over.map(|it| own::left(&to.join(&it.path), &it.reason)));
    Ok(report)
}

/// The engine's failure with the places as they were asked for. The command is shown as it was run: it had no other
/// place to write to.
fn as_asked(error: EngineError, to: &Path, named_as_asked: impl Fn(&str) -> String) -> EngineError {
    match error {
        EngineError::Failed { command, exit, detail } => {
            EngineError::Failed { command, exit, detail: named_as_asked(&detail) }
        }
        EngineError::DestinationFull { detail, .. } => {
            EngineError::DestinationFull { to: to.to_owned(), detail: named_as_asked(&detail) }
        }
        EngineError::Damaged { repository, detail } => {
            EngineError::Damaged { repository, detail: named_as_asked(&detail) }
        }
        error => error,
    }
}

/// Why not everything was laid out.
fn failure(error: StepError, to: &Path) -> StepError {
    let Trouble::Signal(signal) = error.trouble else { return error };
    StepError::new(
        error.trouble,
        format!(
            "stopped by signal {signal} before anything was put in its place, so nothing in {} was changed",
            to.shown()
        ),
    )
}

/// Makes a staging directory on each file system that gets something, the destination's own first. One below it
/// that does not take the directory is noted, and what should lie there comes to be refused.
fn stage(cx: RunContext<'_>, to: &Path, survey: &mut Survey) -> Result<Vec<Staged>, StepError> {
    let name = staging_name(STAGING, cx.run);
    let mut staged = Vec::new();
    let filled: Vec<_> = survey.filled().map(|at| at.map(Path::to_owned)).collect();
    for at in filled {
        // Where the destination's own file system gets nothing, it may be one that cannot be written.
        let path = match (&at, cx.staging) {
            (None, Some(own)) => own.join(&name),
            (None, None) => continue,
            (Some(at), _) => below(to, at).join(&name),
        };
        let at = at.unwrap_or_default();
        let own = elsewhere(cx.host(), &path)?;
        match try_own_directory(cx.pipeline, cx.ledger, own)? {
            Ok(Some(identity)) => staged.push(Staged { path, identity, at }),
            Ok(None) => {}
            Err(error) => {
                let place = below(to, &at);
                let is_inner = !at.as_os_str().is_empty();
                let why = closed::by(&place, error);
                match is_inner {
                    true => survey.close(&at, why)?,
                    false => return Err(StepError::new(Trouble::Environment, why)),
                }
            }
        }
    }
    Ok(staged)
}

/// A text with another name of a directory in it.
fn shown_at(text: &str, place: &Path, to: &Path) -> String {
    let (place, to) = (place.shown().to_string(), to.shown().to_string());
    let with_slash = format!("{}/", to.trim_end_matches('/'));
    text.replace(&format!("{place}/"), &with_slash).replace(&place, &to)
}

/// Writes one file of a copy of a job to standard output: the one at `path`, or the only one that there is.
///
/// # Errors
/// When there is no such copy, the copy has no such file, or it was not written whole.
pub fn stream(
    cx: RunContext<'_>,
    query: &Query<'_>,
    named: &str,
    path: Option<&Path>,
    ignore_space: bool,
) -> Result<(), StepError> {
    let (engine, copy) = query::copy(cx.pipeline, query, named)?;
    with_unpacked(cx, engine, &copy, (None, ignore_space), || stream_of(cx, engine, &copy, path))
}

fn stream_of(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    path: Option<&Path>,
) -> Result<(), StepError> {
    let mut files = Vec::new();
    // Listings spell a path that is not UTF-8 in their own way; then the engine says whether there is one.
    let mut kind = path.filter(|path| path.to_str().is_none()).map(|_| '-');
    bracketed(cx, engine, |engine, context| {
        engine.contents(context, copy, &mut |entry| match path {
            Some(path) if entry.path == path => kind = Some(entry.kind),
            Some(_) => {}
            None if entry.kind == '-' && files.len() < 2 => files.push(entry.path),
            None => {}
        })
    })?;
    let failed = |text: String| Err(StepError::new(Trouble::JobFailed, text));
    let path = match (path, files.as_slice()) {
        (Some(path), _) => match kind {
            Some('-') => path,
            Some(kind) => return failed(no_file(path, kind, copy)),
            None => {
                return failed(format!("there is no file {} in {}", path.shown(), copy.id));
            }
        },
        (None, [only]) => only,
        (None, []) => return failed(format!("there is no file in {}", copy.id)),
        (None, _) => {
            let text = format!("{} holds several files — name one", copy.id);
            return Err(StepError::new(Trouble::Usage, text));
        }
    };
    bracketed(cx, engine, |engine, context| engine.stream(context, copy, path))
}

/// What is there instead of a file, and what to do.
fn no_file(path: &Path, kind: char, copy: &Copy) -> String {
    let (what, remedy) = match kind {
        'd' => ("a directory", "name a file in it, or restore it with --to"),
        'l' => ("a symbolic link", "name the file that it leads to, or restore the link with --to"),
        'p' => ("a pipe", "restore it with --to"),
        's' => ("a socket", "restore it with --to"),
        'b' | 'c' => ("a device", "restore it with --to"),
        _ => ("no regular file", "restore it with --to"),
    };
    format!("{} is {what} in {}, and --stdout writes out files — {remedy}", path.shown(), copy.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::RunError;

    #[test]
    fn the_root_means_everything_and_dots_are_refused() {
        assert_eq!(plain(&["/a".into(), "/".into()]).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(plain(&["/a//./b/".into()]).unwrap(), [PathBuf::from("/a/b")]);
        assert!(plain(&["/a/../b".into()]).is_err());
    }

    #[test]
    fn a_path_in_another_one_is_not_asked_for_twice() {
        let of = |paths: &[&str]| outermost(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["/a/b", "/c", "/a", "/a/b/d", "/a"]), [Path::new("/c"), Path::new("/a")]);
        assert_eq!(of(&["/a", "/ab"]), [Path::new("/a"), Path::new("/ab")]);
    }

    #[test]
    fn a_stopped_restore_names_no_place_of_its_own() {
        let command = "restic restore --target /run/stillpoint/part".to_owned();
        let asked = |text: &str| shown_at(text, Path::new("/run/stillpoint/part"), Path::new("/"));
        let stopped = RunError::Interrupted { command: command.clone(), signal: 15 };
        let told = failure(stopped.into(), Path::new("/"));
        assert_eq!(told.trouble, Trouble::Signal(15));
        assert!(told.message.contains("nothing in / was changed"), "{told}");
        assert!(!told.message.contains("target"), "{told}");
        // Nor does a command that failed seem to have written to the place itself.
        let detail = "open /run/stillpoint/part/etc/x: broken".to_owned();
        let failed = EngineError::Failed { command, exit: "exit status 1".into(), detail };
        let told = StepError::from(as_asked(failed, Path::new("/"), asked)).message;
        assert!(told.contains("open /etc/x: broken"), "{told}");
        assert!(told.contains("--target /run/stillpoint/part failed"), "{told}");
    }

    #[test]
    fn a_person_reads_the_path_that_was_asked_for() {
        let place = Path::new("/run/stillpoint/part");
        assert_eq!(
            shown_at("lchown /run/stillpoint/part/etc/x", place, Path::new("/")),
            "lchown /etc/x"
        );
        assert_eq!(shown_at("in /run/stillpoint/part: x", place, Path::new("/to")), "in /to: x");
    }
}
