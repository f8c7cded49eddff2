//! How the source is held still: its paths are resolved, the volumes below them are found, and each is captured before
//! anything is read.
//!
//! Every intent is in the ledger before the first capture is made, so that between the first and the last
//! nothing happens but the captures themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::capture::survey::{Volume, closed};
use crate::capture::{self, CaptureError, Provider};
use crate::host::LockGuard;
use crate::model::job::{CaptureMode, FilesSource, Job};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::model::undo::CaptureUndo;
use crate::step::context::RunContext;
use crate::step::error::{StepError, ledger_error};
use crate::step::hook;
use crate::step::recorder::{Done, Recorder};

use super::captured::{Captured, Hold, release};
use super::gaps::find_gaps;
use super::preflight::{self, disks, is_strict, not_named, programs, read_live};
use super::quiesce::while_quiesced;
use super::roots;

/// Finds what the source holds, and holds it still.
pub(super) fn hold<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    files: &'a FilesSource,
    targets: &[&Target],
) -> Option<Captured<'a>> {
    let mut captured = Captured::nothing(files);
    rec.step("source", None, None, |_| resolve_paths(cx, targets, &mut captured))?;
    if files.capture.mode == CaptureMode::None {
        return Some(captured);
    }
    captured.programs = programs(cx.pipeline, targets);
    let disks = disks(&cx.config().targets);
    let intended =
        rec.step("survey", None, None, |_| preflight::intend(cx.capture(), files, &disks))?;
    if let Some(warning) = read_live(&intended.volumes) {
        rec.say(true, warning);
    }
    captured.still = intended.still;
    // Whether a snapshot or the engine leaves it out, it is not in the copy.
    captured.gaps.extend(intended.survey.missing.iter().map(not_named));
    captured.exclude.extend(intended.survey.exclude.iter().cloned());
    captured.volumes = intended.volumes;
    if intended.held.is_empty() && !is_strict(files) {
        return Some(captured);
    }
    captured.survey = intended.survey;

    if capture(cx, rec, job, intended.held, &mut captured).is_none() {
        release(cx, rec, captured);
        return None;
    }
    Some(captured)
}

/// Resolves the paths of the job, and finds out which of them engines get.
fn resolve_paths(
    cx: RunContext<'_>,
    targets: &[&Target],
    captured: &mut Captured<'_>,
) -> Result<((), Done), StepError> {
    let files = captured.files;
    captured.exclude = closed(cx.host(), files)?;
    let compared = roots::resolve(cx.host(), files).map_err(StepError::from);
    let (gaps, mut done) = find_gaps(cx.host(), files, &compared)?;
    captured.gaps = gaps;
    captured.roots = compared?;
    let own = own_places(cx, targets);
    for (place, pattern) in roots::kept_out(cx.host(), files, &own)? {
        done.detail = format!("{}; left out: {} (Stillpoint's own)", done.detail, place.shown());
        captured.exclude.push(pattern);
    }
    Ok(((), done))
}

/// Captures the volumes. Whatever comes of it, what there is to give back is in `captured`.
fn capture(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    held: Vec<(Volume, Box<dyn Provider>)>,
    captured: &mut Captured<'_>,
) -> Option<()> {
    let files = captured.files;
    let _until_made = rec.step("intend", None, None, |_| {
        let until_made = lock(cx, &held, captured)?;
        let ((), done) = intend(cx, files, held, captured)?;
        Ok((until_made, done))
    })?;
    // This waits until everything is written out, which writers need not stand still for.
    if captured.holds.iter().any(|hold| hold.provider.is_exclusive()) {
        rec.step("read-only", None, None, |_| make_exclusive(cx, files, captured))?;
    }
    while_quiesced(cx, rec, job, &files.capture, |rec| {
        rec.step("capture", None, None, |_| make(cx, files, captured))
    })?;
    rec.step("verify", None, None, |_| verify(cx, files, captured))
}

/// Takes the locks that keep what is intended possible until it is made. Answers with those that are needed no longer than
/// that.
///
/// All runs take them in one order, and those first that are held until everything is given back: whoever gives
/// back a volume takes its group's lock while it still holds them, and whoever waits for one of them keeps
/// nobody from a group meanwhile.
fn lock(
    cx: RunContext<'_>,
    held: &[(Volume, Box<dyn Provider>)],
    captured: &mut Captured<'_>,
) -> Result<Vec<Box<dyn LockGuard>>, StepError> {
    // `false` comes before `true`.
    let keys: BTreeSet<(bool, String)> = held
        .iter()
        .filter_map(|(_, provider)| Some((!provider.is_exclusive(), provider.lock_key()?)))
        .collect();
    let mut until_made = Vec::new();
    for (is_until_made, key) in keys {
        let guard = capture::lock(cx.capture(), &key, cx.config().settings.lock_wait)?;
        if is_until_made {
            until_made.push(guard);
        } else {
            captured.locks.push(guard);
        }
    }
    Ok(until_made)
}

/// Writes every intent to the ledger.
fn intend(
    cx: RunContext<'_>,
    files: &FilesSource,
    held: Vec<(Volume, Box<dyn Provider>)>,
    captured: &mut Captured<'_>,
) -> Result<((), Done), StepError> {
    let mut undos: Vec<CaptureUndo> = Vec::new();
    let mut passed_over = Vec::new();
    let mut intended = Vec::new();
    for (volume, provider) in held {
        match provider.intend(cx.capture(), cx.run, &undos) {
            Ok(capture) => {
                undos.push(capture.undo());
                intended.push((volume, provider, capture));
            }
            // Production goes before backup, but an old copy is worse than one that was read live.
            Err(error @ CaptureError::Unfit { .. }) if !is_strict(files) => {
                passed_over.push(captured.pass_over(&volume.at, error));
            }
            Err(error @ CaptureError::Gone { .. }) if !is_strict(files) => {
                captured.forget(&volume.at);
                passed_over.push(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    let undos: Vec<_> = undos.into_iter().map(Into::into).collect();
    let entries = cx.ledger.intend_all(&undos).map_err(ledger_error)?;
    captured.holds.extend(entries.into_iter().zip(intended).map(
        |(entry, (volume, provider, capture))| Hold {
            volume,
            provider,
            capture,
            entry,
            made: None,
            is_misplaced: false,
        },
    ));
    let done = or_warning(hook::in_ledger(cx, &captured.holds.len().to_string()), &passed_over);
    Ok(((), done))
}

/// Makes the captures that are exclusive. What is in use is read live, unless that will not do.
fn make_exclusive(
    cx: RunContext<'_>,
    files: &FilesSource,
    captured: &mut Captured<'_>,
) -> Result<((), Done), StepError> {
    let mut names = Vec::new();
    let mut passed_over = Vec::new();
    let mut next = 0;
    while let Some(hold) = captured.holds.get(next) {
        if !hold.provider.is_exclusive() {
            next += 1;
            continue;
        }
        unless_stopped(cx)?;
        match hold.capture.make(cx.capture()) {
            Ok(()) => {
                names.push(hold.provider.name());
                next += 1;
            }
            Err(error @ CaptureError::Unfit { .. }) if !is_strict(files) => {
                let at = hold.volume.at.clone();
                // It says that nothing was done; this makes sure.
                capture::give_back_held(cx.capture(), &hold.capture.undo(), None)?;
                cx.ledger.settled(hold.entry).map_err(ledger_error)?;
                captured.holds.remove(next);
                passed_over.push(captured.pass_over(&at, error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(((), or_warning(names.join(", "), &passed_over)))
}

/// Makes the captures that are not exclusive, and does nothing else.
fn make(
    cx: RunContext<'_>,
    files: &FilesSource,
    captured: &mut Captured<'_>,
) -> Result<((), Done), StepError> {
    let mut names = Vec::new();
    let mut gone = Vec::new();
    for (number, hold) in captured.holds.iter().enumerate() {
        if hold.provider.is_exclusive() {
            continue;
        }
        unless_stopped(cx)?;
        match hold.capture.make(cx.capture()) {
            Ok(()) => names.push(hold.provider.name()),
            Err(error @ CaptureError::Gone { .. }) if !is_strict(files) => {
                gone.push((number, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut passed_over = Vec::new();
    for (number, said) in gone.into_iter().rev() {
        let hold = captured.holds.remove(number);
        captured.forget(&hold.volume.at);
        // It says that nothing was made. Making sure of it, which waits for the disk, is for when the writers run on.
        captured.lapsed.push(hold.outstanding());
        passed_over.insert(0, said);
    }
    Ok(((), or_warning(names.join(", "), &passed_over)))
}

fn unless_stopped(cx: RunContext<'_>) -> Result<(), StepError> {
    match cx.host().stop_signal() {
        Some(signal) => Err(StepError::new(Trouble::Signal(signal), "interrupted".to_owned())),
        None => Ok(()),
    }
}

/// A step that went well, but for what is read live instead.
fn or_warning(well: String, passed_over: &[String]) -> Done {
    if passed_over.is_empty() {
        return Done::ok(well);
    }
    Done::with(Outcome::Warning, Trouble::Warning, passed_over.join("; "))
}

/// Looks whether every capture is what was intended, and writes down what proves it ours.
fn verify(
    cx: RunContext<'_>,
    files: &FilesSource,
    captured: &mut Captured<'_>,
) -> Result<((), Done), StepError> {
    let mut about = Vec::new();
    let mut identities = Vec::new();
    let verified = captured.holds.iter_mut().try_for_each(|hold| {
        let made = hold.capture.verify(cx.capture())?;
        identities.extend(made.identity.clone().map(|identity| (hold.entry, identity)));
        about.push(made.about.clone());
        hold.made = Some(made);
        Ok::<(), CaptureError>(())
    });
    // Also of those before one that is not as it should be.
    cx.ledger.made_all(&identities).map_err(ledger_error)?;
    verified?;
    let moved = place(cx, captured)?;
    if moved.is_empty() {
        return Ok(((), Done::ok(about.join(", "))));
    }
    if is_strict(files) {
        return Err(StepError::new(Trouble::Environment, moved.join("; ")));
    }
    let done = Done::with(Outcome::Incomplete, Trouble::Incomplete, moved.join("; "));
    captured.gaps.extend(moved);
    Ok(((), done))
}

/// Drops what has no place in the captures around it, and answers what to say about each: somebody moved it, or put
/// a link in its place, after it was found and before those were made. To show it where that leads would be worse.
fn place(cx: RunContext<'_>, captured: &mut Captured<'_>) -> Result<Vec<String>, StepError> {
    // One alone lies on its mount point, or on a path of the job.
    if captured.mounts().len() < 2 {
        return Ok(Vec::new());
    }
    let view = captured.view(cx, &[]);
    let mut said = Vec::new();
    for at in cx.host().without_a_place(&view)? {
        captured.forget(&at);
        for hold in captured.holds.iter_mut().filter(|hold| hold.volume.at == at) {
            hold.is_misplaced = true;
        }
        said.push(format!(
            "{} is not in the copy — it was moved or replaced while it was captured; the next run takes what is there then",
            at.shown()
        ));
    }
    Ok(said)
}

/// What changes while it would be read, and is of no use in a copy: the engines' cache, and the copies themselves.
fn own_places(cx: RunContext<'_>, targets: &[&Target]) -> Vec<PathBuf> {
    let repositories = targets.iter().filter_map(|target| target.local.as_deref());
    let cache = cx.config().settings.cache_dir.as_path();
    repositories.chain([cache]).map(Path::to_owned).collect()
}
