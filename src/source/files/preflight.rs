//! What is to be held still, and by what, before anything is: for a run, and for `check-config --online`.

use std::path::PathBuf;

use crate::capture::survey::{Absent, Survey, Volume, resolved, survey};
use crate::capture::{Choice, Context, Provider, choose};
use crate::host::MountEntry;
use crate::model::job::{CaptureMode, FilesSource};
use crate::model::outcome::Trouble;
use crate::model::report::VolumeReport;
use crate::model::shown::Show;
use crate::model::target::Target;

use crate::step::context::Pipeline;
use crate::step::error::StepError;
use crate::step::recorder::Done;

/// What is to be held still, before it is.
pub(super) struct Intended {
    pub(super) survey: Survey,
    pub(super) held: Vec<(Volume, Box<dyn Provider>)>,
    /// Read-only already, by whatever made it so.
    pub(super) still: Vec<MountEntry>,
    pub(super) volumes: Vec<VolumeReport>,
}

/// Looks at what would be captured, and how. Changes nothing: for
/// `check-config --online`.
///
/// # Errors
/// When it cannot be known, or a capture that is required cannot be made.
pub(super) fn capture(pipeline: Pipeline<'_>, files: &FilesSource) -> Result<String, StepError> {
    let cx = pipeline.capture_context();
    let (intended, done) = intend(cx, files, &disks(&pipeline.config.targets))?;
    let run = crate::model::names::RunId::from_bytes([0; 4]);
    let mut undos = Vec::new();
    for (_, provider) in &intended.held {
        undos.push(provider.intend(cx, &run, &undos)?.undo());
    }
    let missing: Vec<String> = intended.survey.missing.iter().map(not_named).collect();
    if missing.is_empty() {
        return Ok(done.detail);
    }
    Err(StepError::new(Trouble::Incomplete, missing.join("; ")))
}

/// Finds out what has to be held still, and by what.
pub(super) fn intend(
    cx: Context<'_>,
    files: &FilesSource,
    disks: &[PathBuf],
) -> Result<(Intended, Done), StepError> {
    let files = &resolved(cx.host, files)?;
    let survey = survey(cx.host, files, disks)?;
    for path in &files.capture.remount_readonly {
        if survey.mounts.iter().all(|mount| mount.at != *path) {
            return Err(StepError::new(
                Trouble::Environment,
                format!(
                    "{} is not a mount point, so it cannot be made read-only by itself — mount it, or take it out of remount-readonly",
                    path.shown()
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
    let choices = choose(cx, &files.capture, &survey.volumes)?;
    let consistency = if files.capture.consistent { "consistent" } else { "crash-consistent" };
    let intended = sort_out(survey, choices, consistency);
    if is_strict(files)
        && let Some(message) = unheld(&intended)
    {
        return Err(StepError::new(Trouble::Environment, message));
    }
    let done = Done::ok(describe(&intended));
    Ok((intended, done))
}

/// What follows from how each volume is read.
fn sort_out(survey: Survey, choices: Vec<Choice>, consistency: &'static str) -> Intended {
    let (mut held, mut still, mut volumes) = (Vec::new(), Vec::new(), Vec::new());
    for (volume, choice) in survey.volumes.iter().zip(choices) {
        let report = |provider: &'static str, consistency: &'static str, reason: Option<String>| {
            VolumeReport { path: volume.at.clone(), provider, consistency, reason }
        };
        volumes.push(match choice {
            Choice::Held(provider) => {
                let name = provider.name();
                held.push((volume.clone(), provider));
                report(name, consistency, None)
            }
            Choice::Still => {
                still.push(volume.mount.clone());
                report("none", consistency, None)
            }
            Choice::LiveByWish => report("none", "live", None),
            Choice::Live(reason) => report("none", "live", Some(reason)),
        });
    }
    Intended { survey, held, still, volumes }
}

/// Which volumes nothing can hold still, and what to do about them, where a capture is required.
fn unheld(intended: &Intended) -> Option<String> {
    let mut reasons = Vec::new();
    let mut remountable = Vec::new();
    for (volume, report) in intended.survey.volumes.iter().zip(&intended.volumes) {
        let Some(reason) = &report.reason else { continue };
        reasons.push(reason.as_str());
        // A file system of btrfs, or of others, is never remounted; see `choose`.
        if volume.mount.file_system != "btrfs" && !volume.mount.is_changed_elsewhere() {
            remountable.push(volume.mount.at.clone());
        }
    }
    if reasons.is_empty() {
        return None;
    }
    let mut message = format!(
        "a capture is required, but {} — name what may be read live under live",
        reasons.join("; ")
    );
    if !remountable.is_empty() {
        let paths = shown(&remountable);
        message += &format!(", or make {paths} read-only under remount-readonly");
    }
    Some(message)
}

/// Whether a volume that nothing can hold still makes the job fail. One moment of all volumes cannot be
/// had where one of them has none.
pub(super) fn is_strict(files: &FilesSource) -> bool {
    files.capture.mode == CaptureMode::Required || files.capture.consistent
}

/// Where targets say that their disk is mounted.
pub(super) fn disks(targets: &[Target]) -> Vec<PathBuf> {
    targets.iter().filter_map(|target| target.require_mount.clone()).collect()
}

/// The programs that the engines of these targets are.
pub(super) fn programs(pipeline: Pipeline<'_>, targets: &[&Target]) -> Vec<PathBuf> {
    let host = pipeline.host;
    let programs = targets.iter().map(|target| pipeline.engine(target).program());
    let found = programs.filter_map(|program| host.find_program(&program).ok());
    found.map(|path| host.canonical(&path)).collect()
}

fn describe(intended: &Intended) -> String {
    let mut parts = Vec::new();
    for VolumeReport { path, provider, consistency, .. } in &intended.volumes {
        let how = if *provider == "none" { consistency } else { provider };
        parts.push(format!("{} ({how})", path.shown()));
    }
    let mut text = parts.join(", ");
    let list = |absent: &[Absent]| {
        let each = absent.iter().map(|absent| format!("{} ({})", absent.path.shown(), absent.what));
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

pub(super) fn not_named(absent: &Absent) -> String {
    format!("{} ({}) is not in the copy — {}", absent.path.shown(), absent.what, absent.remedy)
}

/// One warning about everything that is read live without being asked for.
pub(super) fn read_live(volumes: &[VolumeReport]) -> Option<String> {
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

/// Paths in one line.
pub(super) fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.shown().to_string()).collect::<Vec<_>>().join(", ")
}
