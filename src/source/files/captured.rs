//! What is held still: the captures that exist, what engines see of them, and how they are released.

use std::path::{Path, PathBuf};

use crate::capture::survey::{Survey, Volume};
use crate::capture::view::{self, view};
use crate::capture::{self, Capture, CaptureError};
use crate::engine::Input;
use crate::host::{Halt, LockGuard, MountEntry, PrivateMount, PrivateView};
use crate::model::job::FilesSource;
use crate::model::report::VolumeReport;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::step::captures::{self, Held};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};
use crate::step::source::{HeldBatch, Item};
use crate::step::watch::watched;
use crate::tools::Tree;

use super::roots::Roots;

/// A source that was looked at and, where a provider exists, is held still. Only this can be archived.
pub(super) struct Captured<'a> {
    pub(super) files: &'a FilesSource,
    /// What is missing or empty; a copy of the rest is incomplete.
    pub(super) gaps: Vec<String>,
    /// Which paths the engines get.
    pub(super) roots: Roots,
    /// Patterns beyond the job's own: what a view would let into the copy that is no part of it.
    pub(super) exclude: Vec<String>,
    /// How each volume is read.
    pub(super) volumes: Vec<VolumeReport>,
    pub(super) survey: Survey,
    /// What the engines are, which a view must let be executed.
    pub(super) programs: Vec<PathBuf>,
    pub(super) still: Vec<MountEntry>,
    pub(super) holds: Vec<Hold>,
    /// Captures that came too late: their volumes were gone. The ledger has their intents still.
    pub(super) lapsed: Vec<Held>,
    pub(super) locks: Vec<Box<dyn LockGuard>>,
    pub(super) halt: Halt,
}

/// One capture, of a volume.
pub(super) struct Hold {
    pub(super) volume: Volume,
    pub(super) held: Held,
    /// Whether there is no place for it in the captures around it.
    pub(super) is_misplaced: bool,
}

impl<'a> Captured<'a> {
    /// Nothing is held still yet.
    pub(super) fn nothing(files: &'a FilesSource) -> Self {
        Self {
            files,
            gaps: Vec::new(),
            roots: Roots::default(),
            exclude: Vec::new(),
            volumes: Vec::new(),
            survey: Survey::default(),
            programs: Vec::new(),
            still: Vec::new(),
            holds: Vec::new(),
            lapsed: Vec::new(),
            locks: Vec::new(),
            halt: Halt::default(),
        }
    }

    /// The captures that are shown to engines.
    pub(super) fn mounts(&self) -> Vec<PrivateMount> {
        let seen = self.holds.iter().filter(|hold| !hold.is_misplaced);
        seen.filter_map(|hold| {
            view::mount(&hold.held.made.as_ref()?.still, &hold.volume, &self.programs)
        })
        .collect()
    }

    /// What an engine sees that must reach these places as they are outside.
    pub(super) fn view(&self, cx: RunContext<'_>, live: &[PathBuf]) -> PrivateView {
        PrivateView {
            mounts: view(&self.survey, &self.mounts(), live),
            workplace: capture::workplace(cx.capture()),
            halt: self.halt.clone(),
        }
    }

    /// Notes that a volume is read live after all, and answers what to say about it.
    pub(super) fn pass_over(&mut self, at: &Path, error: CaptureError) -> String {
        let reason = StepError::from(error).message;
        let said = format!("{} is read live: {reason}", at.shown());
        if let Some(volume) = self.volumes.iter_mut().find(|volume| volume.path == at) {
            volume.provider = "none";
            volume.consistency = "live";
            volume.reason = Some(reason);
        }
        said
    }

    /// Drops a volume: as if it had been deleted before the job began. What is there now belongs to what is
    /// around it.
    pub(super) fn forget(&mut self, at: &Path) {
        self.survey.volumes.retain(|volume| volume.at != at);
        self.volumes.retain(|volume| volume.path != at);
    }
}

impl HeldBatch for Captured<'_> {
    fn input(&self, cx: RunContext<'_>, item: &Item, target: &Target) -> Option<Input> {
        item.is_none().then(|| Input::Tree {
            tree: Tree {
                paths: self.roots.handed.clone(),
                exclude: self.files.exclude.iter().chain(&self.exclude).cloned().collect(),
                exclude_caches: self.files.exclude_caches,
                exclude_if_present: self.files.exclude_if_present.clone(),
                one_file_system: self.files.one_file_system,
                block_size: None,
                view: self.view(cx, &live_places(cx, target)),
            },
            expected: self.roots.expected.clone(),
        })
    }

    fn gaps(&self, _: &Item) -> &[String] {
        &self.gaps
    }

    fn volumes(&self) -> &[VolumeReport] {
        &self.volumes
    }

    fn still_holds(&self, cx: RunContext<'_>) -> Result<(), StepError> {
        for hold in &self.holds {
            hold.held.capture.still_holds(cx.capture())?;
        }
        Ok(capture::stayed_read_only(cx.capture(), &self.still)?)
    }

    fn watch(&self, cx: RunContext<'_>, read: &mut dyn FnMut()) {
        let captures = self.holds.iter().map(|hold| hold.held.capture.as_ref());
        let endangered: Vec<&dyn Capture> =
            captures.filter(|capture| capture.is_watched()).collect();
        watched(cx.capture(), &endangered, &self.halt, read);
    }

    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        release(cx, rec, *self);
    }
}

/// Releases every capture, newest first. What cannot be released stays in the ledger.
pub(super) fn release(cx: RunContext<'_>, rec: &mut Recorder<'_>, captured: Captured<'_>) {
    let Captured { holds, lapsed, locks, .. } = captured;
    if holds.is_empty() && lapsed.is_empty() {
        return;
    }
    let count = holds.len();
    // What a signal stopped must still be released.
    let _shield = cx.host().shield();
    rec.step("release", None, None, |_| {
        let held = holds.into_iter().rev().map(|hold| hold.held).chain(lapsed).collect();
        let released = captures::release(cx, held);
        drop(locks);
        released.map(|()| ((), Done::ok(format!("{count} released"))))
    });
}

/// What an engine must reach as it is outside, wherever it lies.
fn live_places(cx: RunContext<'_>, target: &Target) -> Vec<PathBuf> {
    let settings = &cx.config().settings;
    let mut places = vec![settings.cache_dir.clone(), settings.runtime_dir.clone()];
    places.extend(cx.pipeline.engine(target).live_places(settings));
    places.iter().map(|path| cx.host().canonical(path)).collect()
}
