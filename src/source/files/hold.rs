//! How the source is held still: its paths are resolved, the volumes below them are found, and each is captured before
//! anything is read.
//!
//! Every intent is in the ledger before the first capture is made, so that between the first and the last
//! nothing happens but the captures themselves.

use std::path::{Path, PathBuf};

use crate::capture::survey::{Volume, closed};
use crate::capture::{CaptureError, Provider};
use crate::model::job::{CaptureMode, FilesSource, Job};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::model::undo::CaptureUndo;

use crate::step::captures;
use crate::step::context::RunContext;
use crate::step::error::StepError;
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

/// Captures the volumes. Whatever comes of it, what there is to release is in `captured`.
fn capture(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    held: Vec<(Volume, Box<dyn Provider>)>,
    captured: &mut Captured<'_>,
) -> Option<()> {
    let files = captured.files;
    let _until_made = rec.step("intend", None, None, |_| {
        let locks = captures::lock(cx, held.iter().map(|(_, provider)| provider.as_ref()))?;
        captured.locks = locks.until_released;
        let ((), done) = intend(cx, files, held, captured)?;
        Ok((locks.until_made, done))
    })?;
    // This waits until everything is written out, which writers need not stand still for.
    if captured.holds.iter().any(|hold| hold.held.provider.is_exclusive()) {
        rec.step("read-only", None, None, |_| make_exclusive(cx, files, captured))?;
    }
    while_quiesced(cx, rec, job, &files.capture, |rec| {
        rec.step("capture", None, None, |_| make(cx, files, captured))
    })?;
    rec.step("verify", None, None, |_| verify(cx, files, captured))
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
    let (mut volumes, mut intended) = (Vec::new(), Vec::new());
    for (volume, provider) in held {
        match provider.intend(cx.capture(), cx.run, &undos) {
            Ok(capture) => {
                undos.push(capture.undo());
                volumes.push(volume);
                intended.push((provider, capture));
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
    let held = volumes.into_iter().zip(captures::intend(cx, intended)?);
    captured.holds =
        held.map(|(volume, held)| Hold { volume, held, is_misplaced: false }).collect();
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
        if !hold.held.provider.is_exclusive() {
            next += 1;
            continue;
        }
        cx.unless_stopped()?;
        match hold.held.capture.make(cx.capture()) {
            Ok(()) => {
                names.push(hold.held.provider.name());
                next += 1;
            }
            Err(error @ CaptureError::Unfit { .. }) if !is_strict(files) => {
                // It says that nothing was done; this makes sure.
                hold.held.forget(cx)?;
                let Hold { volume, .. } = captured.holds.remove(next);
                passed_over.push(captured.pass_over(&volume.at, error));
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
        if hold.held.provider.is_exclusive() {
            continue;
        }
        cx.unless_stopped()?;
        match hold.held.capture.make(cx.capture()) {
            Ok(()) => names.push(hold.held.provider.name()),
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
        captured.lapsed.push(hold.held);
        passed_over.insert(0, said);
    }
    Ok(((), or_warning(names.join(", "), &passed_over)))
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
    captures::verify(cx, captured.holds.iter_mut().map(|hold| &mut hold.held))?;
    let moved = place(cx, captured)?;
    if moved.is_empty() {
        let made = captured.holds.iter().filter_map(|hold| hold.held.made.as_ref());
        let about: Vec<&str> = made.map(|made| made.about.as_str()).collect();
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
