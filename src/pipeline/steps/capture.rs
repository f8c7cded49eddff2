//! How the source is held still: a look at it, a look at what lies below it, and a capture of every volume
//! before anything is read.
//!
//! Every promise is in the ledger before the first capture is made, so that between the first and the last
//! nothing happens but the captures themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::capture::survey::{Absent, Survey, survey};
use crate::capture::view::view;
use crate::capture::{self, CaptureError, Choice, Made, Provider, Room};
use crate::host::{Halt, Host, LockGuard, MountEntry, PrivateView, Tool};
use crate::model::job::{CaptureMode, FilesSource, Job, Settings, Source};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::VolumeReport;
use crate::model::target::{EngineConfig, Target};
use crate::model::undo::{EntryId, Undo};
use crate::tools;

use crate::pipeline::context::RunContext;
use crate::pipeline::error::{StepError, ledger_error};
use crate::pipeline::recorder::{Done, Recorder};
use crate::pipeline::undo::give_back;

use super::quiet::quietly;
use super::source::look;

type AnyProvider = Box<dyn Provider + Send + Sync>;

/// A source that was looked at and, where a provider exists, is held still. Only this can be archived.
pub struct Captured<'a> {
    pub(super) source: &'a Source,
    /// What is missing or empty; a copy of the rest is incomplete.
    pub(super) gaps: Vec<String>,
    /// Patterns beyond the job's own: what a view would let into the copy that is no part of it.
    pub(super) exclude: Vec<String>,
    /// How each volume is read.
    pub volumes: Vec<VolumeReport>,
    survey: Survey,
    still: Vec<MountEntry>,
    holds: Vec<Hold>,
    locks: Vec<Box<dyn LockGuard>>,
    halt: Halt,
}

/// One capture that exists, with what gives it back.
struct Hold {
    provider: AnyProvider,
    promise: Undo,
    entry: EntryId,
    made: Option<Made>,
}

/// What is to be held still, before it is.
struct Intended {
    survey: Survey,
    held: Vec<(PathBuf, AnyProvider)>,
    /// Read-only already, by whatever made it so.
    still: Vec<MountEntry>,
    volumes: Vec<VolumeReport>,
}

impl Captured<'_> {
    /// What the engine of a target sees.
    pub(super) fn view(&self, cx: RunContext<'_>, target: &Target) -> PrivateView {
        let captures: Vec<_> =
            self.holds.iter().filter_map(|hold| hold.made.as_ref()?.mount.clone()).collect();
        PrivateView {
            mounts: view(&self.survey, &captures, &live_places(cx, target)),
            workplace: capture::workplace(&cx.config().settings),
            halt: self.halt.clone(),
        }
    }

    /// Whether every capture still holds what it held when it was made.
    ///
    /// # Errors
    /// When one does not: what was read from it is worth nothing.
    pub(super) fn examine(&self, cx: RunContext<'_>) -> Result<(), StepError> {
        for hold in &self.holds {
            hold.provider.examine(room(cx), &hold.promise)?;
        }
        Ok(capture::stayed_read_only(room(cx), &self.still)?)
    }

    /// Runs `work` while somebody watches over the machine, and stops its engines when the captures would
    /// harm it.
    pub fn watched<T>(&self, cx: RunContext<'_>, work: impl FnOnce() -> T) -> T {
        let watched: Vec<_> = self
            .holds
            .iter()
            .filter(|hold| hold.provider.is_watched())
            .map(|hold| (hold.provider.as_ref(), &hold.promise))
            .collect();
        let room = room(cx);
        super::watch::watched(room, &watched, &self.halt, work)
    }
}

/// Looks at the source and holds it still.
pub fn capture<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &'a Job,
    targets: &[&Target],
) -> Option<Captured<'a>> {
    let mut captured = Captured {
        source: &job.source,
        gaps: Vec::new(),
        exclude: Vec::new(),
        volumes: Vec::new(),
        survey: Survey::default(),
        still: Vec::new(),
        holds: Vec::new(),
        locks: Vec::new(),
        halt: Halt::default(),
    };
    let Source::Files(files) = &job.source else { return Some(captured) };
    captured.gaps = rec.step("source", None, None, |_| look(cx.host(), files))?;
    if files.capture.mode == CaptureMode::None {
        return Some(captured);
    }
    let programs = programs(cx.host(), targets);
    let intended = rec.step("survey", None, None, |_| intend(room(cx), files, &programs))?;
    if let Some(warning) = read_live(&intended.volumes) {
        rec.say(true, warning);
    }
    captured.still = intended.still;
    if intended.held.is_empty() && !is_strict(files) {
        // Whoever crosses file systems finds what is left out.
        captured.exclude = intended.survey.exclude;
        captured.volumes = intended.volumes;
        return Some(captured);
    }
    captured.gaps.extend(intended.survey.missing.iter().map(not_named));
    captured.exclude.clone_from(&intended.survey.exclude);
    captured.survey = intended.survey;
    captured.volumes = intended.volumes;

    let mut until_made = Vec::new();
    let promised = rec.step("intend", None, None, |_| {
        until_made = lock(cx, &intended.held, &mut captured)?;
        promise(cx, files, intended.held, &mut captured)
    });
    let made = promised.and_then(|()| {
        let holds = &captured.holds;
        // This waits until everything is written out, which writers need not stand still for.
        if holds.iter().any(|hold| hold.provider.is_exclusive()) {
            rec.step("read-only", None, None, |_| make(cx, holds, true))?;
        }
        quietly(cx, rec, job, |rec| rec.step("capture", None, None, |_| make(cx, holds, false)))
    });
    let seen = made.and_then(|()| rec.step("look", None, None, |_| see(cx, &mut captured)));
    drop(until_made);
    if seen.is_none() {
        release(cx, rec, captured);
        return None;
    }
    Some(captured)
}

/// Gives every capture back, newest first. What cannot be given back stays in the ledger.
pub fn release(cx: RunContext<'_>, rec: &mut Recorder<'_>, captured: Captured<'_>) {
    let Captured { holds, locks, .. } = captured;
    if holds.is_empty() {
        return;
    }
    // What a signal stopped must still be given back.
    let _shield = cx.host().shield();
    rec.step("release", None, None, |_| {
        let mut failures = Vec::new();
        let count = holds.len();
        for hold in holds.into_iter().rev() {
            let identity = hold.made.as_ref().and_then(|made| made.identity.as_ref());
            // Who waits for an exclusive capture must not get it before it is given back.
            let given = match hold.provider.is_exclusive() {
                true => capture::give_back_held(room(cx), &hold.promise, identity)
                    .map_err(StepError::from),
                false => give_back(cx.pipeline, cx.run, &hold.promise, identity),
            };
            match given.and_then(|()| cx.ledger.settled(hold.entry).map_err(ledger_error)) {
                Ok(()) => {}
                Err(error) => failures.push(error.message),
            }
        }
        drop(locks);
        if failures.is_empty() {
            return Ok(((), Done::ok(format!("{count} given back"))));
        }
        Err(StepError::new(Trouble::Cleanup, failures.join("; ")))
    });
}

/// Looks at what would be captured, and how. Changes nothing: for `check-config --online`.
///
/// # Errors
/// When it cannot be known, or a capture that is required cannot be made.
pub fn foresee(
    host: &dyn Host,
    settings: &Settings,
    files: &FilesSource,
    targets: &[&Target],
) -> Result<String, StepError> {
    let room = Room { host, settings };
    let (intended, done) = intend(room, files, &programs(host, targets))?;
    let run = crate::model::names::RunId::from_bytes([0; 4]);
    let mut promises = Vec::new();
    for (_, provider) in &intended.held {
        promises.push(provider.promise(room, &run, &promises)?);
    }
    let missing: Vec<String> = intended.survey.missing.iter().map(not_named).collect();
    if missing.is_empty() || intended.held.is_empty() {
        return Ok(done.detail);
    }
    Err(StepError::new(Trouble::Incomplete, missing.join("; ")))
}

/// Finds out what has to be held still, and by what.
fn intend(
    room: Room<'_>,
    files: &FilesSource,
    programs: &[PathBuf],
) -> Result<(Intended, Done), StepError> {
    let survey = survey(room.host, files)?;
    for path in &files.capture.remount_readonly {
        if survey.mounts.iter().all(|mount| mount.at != *path) {
            return Err(StepError::new(
                Trouble::Environment,
                format!(
                    "{} is not a mount point, so it cannot be made read-only by itself — mount it, or take it out of remount-readonly",
                    path.display()
                ),
            ));
        }
    }
    if is_strict(files) && survey.volumes.is_empty() {
        return Err(StepError::new(
            Trouble::Environment,
            "a capture is required, but no mount is seen that holds the paths — inside a chroot, make its root a mount point",
        ));
    }
    let choices = capture::choose(room, &files.capture, &survey.volumes, programs)?;
    let consistency = if files.capture.consistent { "consistent" } else { "crash-consistent" };
    let mut intended =
        Intended { survey, held: Vec::new(), still: Vec::new(), volumes: Vec::new() };
    let mut unheld = Vec::new();
    for (volume, choice) in intended.survey.volumes.iter().zip(choices) {
        let report = |provider: &'static str, consistency: &'static str, reason: Option<String>| {
            VolumeReport { path: volume.at.clone(), provider, consistency, reason }
        };
        intended.volumes.push(match choice {
            Choice::Held(provider) => {
                let name = provider.name();
                intended.held.push((volume.at.clone(), provider));
                report(name, consistency, None)
            }
            Choice::Still => {
                intended.still.push(volume.mount.clone());
                report("none", consistency, None)
            }
            Choice::LiveByWish => report("none", "live", None),
            Choice::Live(reason) => {
                unheld.push(reason.clone());
                report("none", "live", Some(reason))
            }
        });
    }
    if is_strict(files) && !unheld.is_empty() {
        return Err(StepError::new(
            Trouble::Environment,
            format!(
                "a capture is required, but {} — name what may be read live under live, or make it read-only under remount-readonly",
                unheld.join("; ")
            ),
        ));
    }
    let done = Done::ok(describe(&intended));
    Ok((intended, done))
}

/// Takes the locks that keep promises true until they are kept, in one order for all runs. Answers with
/// those that are needed no longer than that.
fn lock(
    cx: RunContext<'_>,
    held: &[(PathBuf, AnyProvider)],
    captured: &mut Captured<'_>,
) -> Result<Vec<Box<dyn LockGuard>>, StepError> {
    let keys: BTreeMap<String, bool> = held
        .iter()
        .filter_map(|(_, provider)| Some((provider.lock_key()?, provider.is_exclusive())))
        .collect();
    let room = room(cx);
    let mut until_made = Vec::new();
    for (key, is_exclusive) in keys {
        let guard = capture::lock(room, &key, room.settings.lock_wait)?;
        if is_exclusive {
            captured.locks.push(guard);
        } else {
            until_made.push(guard);
        }
    }
    Ok(until_made)
}

/// Whether a volume that nothing can hold still makes the job fail. One moment of all volumes cannot be
/// had where one of them has none.
fn is_strict(files: &FilesSource) -> bool {
    files.capture.mode == CaptureMode::Required || files.capture.consistent
}

/// Writes every promise to the ledger.
fn promise(
    cx: RunContext<'_>,
    files: &FilesSource,
    held: Vec<(PathBuf, AnyProvider)>,
    captured: &mut Captured<'_>,
) -> Result<((), Done), StepError> {
    let room = room(cx);
    let mut promises: Vec<Undo> = Vec::new();
    let mut passed_over = Vec::new();
    let mut taken = Vec::new();
    for (at, provider) in held {
        match provider.promise(room, cx.run, &promises) {
            Ok(promise) => {
                promises.push(promise);
                taken.push(provider);
            }
            // Production goes before backup, but an old copy is worse than one that was read live.
            Err(error @ CaptureError::Unfit { .. }) if !is_strict(files) => {
                let reason = StepError::from(error).message;
                if let Some(volume) = captured.volumes.iter_mut().find(|volume| volume.path == at) {
                    volume.provider = "none";
                    volume.consistency = "live";
                    volume.reason = Some(reason.clone());
                }
                passed_over.push(format!("{} is read live: {reason}", at.display()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (promise, provider) in promises.into_iter().zip(taken) {
        let entry = cx.ledger.intend(promise.clone()).map_err(ledger_error)?;
        captured.holds.push(Hold { provider, promise, entry, made: None });
    }
    let done = if passed_over.is_empty() {
        Done::ok(format!("{} written to the ledger", captured.holds.len()))
    } else {
        Done::with(Outcome::Warning, Trouble::Warning, passed_over.join("; "))
    };
    Ok(((), done))
}

/// Makes every capture that is exclusive, or every one that is not, and does nothing else.
fn make(cx: RunContext<'_>, holds: &[Hold], exclusive: bool) -> Result<((), Done), StepError> {
    let holds = holds.iter().filter(|hold| hold.provider.is_exclusive() == exclusive);
    let mut names = Vec::new();
    for hold in holds {
        if let Some(signal) = cx.host().stop_signal() {
            return Err(StepError::new(Trouble::Signal(signal), "interrupted".to_owned()));
        }
        hold.provider.make(room(cx), &hold.promise)?;
        names.push(hold.provider.name());
    }
    Ok(((), Done::ok(names.join(", "))))
}

/// Looks at every capture, and writes down what proves it ours.
fn see(cx: RunContext<'_>, captured: &mut Captured<'_>) -> Result<((), Done), StepError> {
    let mut about = Vec::new();
    for hold in &mut captured.holds {
        let made = hold.provider.look(room(cx), &hold.promise)?;
        if let Some(identity) = &made.identity {
            cx.ledger.made(hold.entry, identity.clone()).map_err(ledger_error)?;
        }
        about.push(made.about.clone());
        hold.made = Some(made);
    }
    Ok(((), Done::ok(about.join(", "))))
}

/// The programs that the engines of these targets are.
fn programs(host: &dyn Host, targets: &[&Target]) -> Vec<PathBuf> {
    let tool = |target: &&Target| match &target.engine {
        EngineConfig::Borg(borg) => Tool::Borg.or(borg.program.as_ref()),
        EngineConfig::Restic(restic) => Tool::Restic.or(restic.program.as_ref()),
    };
    let found = targets.iter().filter_map(|target| host.find_program(&tool(target)).ok());
    found.map(|path| host.canonical(&path)).collect()
}

/// What an engine must reach as it is outside, wherever it lies.
fn live_places(cx: RunContext<'_>, target: &Target) -> Vec<PathBuf> {
    let settings = &cx.config().settings;
    let mut places = vec![settings.cache_dir.clone(), settings.runtime_dir.clone()];
    if matches!(target.engine, EngineConfig::Borg(_)) {
        // Only what borg writes there: history and the ledger belong into the copy as they were.
        places.push(tools::borg::state_directory(settings));
    }
    places.extend(target.local_repository().map(Path::to_owned));
    places.iter().map(|path| cx.host().canonical(path)).collect()
}

fn describe(intended: &Intended) -> String {
    let mut parts = Vec::new();
    for VolumeReport { path, provider, consistency, .. } in &intended.volumes {
        let how = if *provider == "none" { consistency } else { provider };
        parts.push(format!("{} ({how})", path.display()));
    }
    let mut text = parts.join(", ");
    let list = |absent: &[Absent]| {
        let each =
            absent.iter().map(|absent| format!("{} ({})", absent.path.display(), absent.what));
        each.collect::<Vec<_>>().join(", ")
    };
    if !intended.survey.left_out.is_empty() {
        text = format!("{text}; left out: {}", list(&intended.survey.left_out));
    }
    if !intended.survey.missing.is_empty() {
        text = format!("{text}; not in it: {}", list(&intended.survey.missing));
    }
    if !intended.survey.kernel.is_empty() {
        text = format!("{text}; the kernel's own: {}", shown(&intended.survey.kernel));
    }
    text
}

fn not_named(absent: &Absent) -> String {
    format!(
        "{} ({}) is not in the copy — add it to paths, or to leave-out if it need not be",
        absent.path.display(),
        absent.what
    )
}

/// One warning about everything that is read live without being asked for.
fn read_live(volumes: &[VolumeReport]) -> Option<String> {
    const NAMED: usize = 5;
    let reasons: Vec<&str> = volumes.iter().filter_map(|volume| volume.reason.as_deref()).collect();
    if reasons.is_empty() {
        return None;
    }
    let more = match reasons.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let reasons = reasons.iter().take(NAMED).copied().collect::<Vec<_>>().join("; ");
    Some(format!(
        "files are read live, and what changes meanwhile is counted: {reasons}{more} (capture = \"none\" accepts this silently, live = [\"PATH\"] for one mount)"
    ))
}

fn room(cx: RunContext<'_>) -> Room<'_> {
    Room { host: cx.pipeline.host, settings: &cx.pipeline.config.settings }
}

/// Paths in one line.
pub(super) fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| Path::display(path).to_string()).collect::<Vec<_>>().join(", ")
}
