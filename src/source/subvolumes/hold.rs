//! A snapshot of every subvolume, all made before anything is sent.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::capture::{self, Still};
use crate::engine::{Input, SentFrom, Snapshot, StillSubvolume};
use crate::model::job::{Job, SubvolumesSource};
use crate::model::outcome::Trouble;
use crate::model::report::VolumeReport;
use crate::model::target::Target;
use crate::model::undo::CaptureUndo;
use crate::step::captures::{self, Held};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::hook;
use crate::step::recorder::{Done, Recorder};
use crate::step::source::{HeldBatch, Item};

use super::fit::{self, Fit, item_of};
use super::kept;

/// Snapshots that exist.
pub(super) struct Snapshots<'a> {
    job: &'a Job,
    holds: Vec<Hold>,
    volumes: Vec<VolumeReport>,
    /// Where the top-level subvolume is seen by whoever sends.
    seen_at: PathBuf,
    /// Whether a later run may go on with what is begun with them.
    resumes: bool,
    /// Whether they stay already.
    stay: AtomicBool,
}

struct Hold {
    item: String,
    held: Held,
    /// Earlier ones of the same subvolume, the newest first.
    earlier: Vec<Snapshot>,
    /// What no snapshot of it holds, in words.
    lacks: Option<String>,
}

/// Looks at the subvolumes and makes snapshots of them. One that is not fit keeps no other from its turn.
pub(super) fn hold<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &'a Job,
    source: &SubvolumesSource,
    items: &[Item],
    resumes: bool,
) -> Option<Snapshots<'a>> {
    let mut found = Vec::new();
    for path in &source.paths {
        let item = item_of(path);
        if !items.contains(&Some(item.clone())) {
            continue;
        }
        let fit = rec.step("source", None, Some(&item), |_| {
            let fit = fit::examine(cx.capture(), source, path)?;
            if let Some(what) = fit::hindered(&fit) {
                return Err(StepError::new(Trouble::Environment, what));
            }
            Ok((fit, Done::ok("a subvolume that can be sent")))
        });
        if let Some(kept) = fit.as_ref().and_then(fit::said_of_kept) {
            rec.warn(kept);
        }
        found.extend(fit.map(|fit| (item, fit)));
    }
    if found.is_empty() {
        return None;
    }
    let mut snapshots = Snapshots {
        job,
        volumes: found.iter().map(|(_, fit)| volume(fit)).collect(),
        holds: Vec::new(),
        seen_at: capture::bare_workplace(cx.capture()),
        resumes,
        stay: AtomicBool::new(false),
    };
    let is_far = source.from.is_some();
    let is_held = rec.step("intend", None, None, |_| snapshots.intend(cx, found)).is_some()
        && match is_far {
            true => snapshots.make_each(cx, rec),
            false => {
                rec.step("capture", None, None, |_| snapshots.make(cx)).is_some()
                    && rec.step("verify", None, None, |_| snapshots.verify(cx)).is_some()
            }
        };
    if is_held {
        return Some(snapshots);
    }
    kept::release(cx, rec, snapshots.holds.into_iter().map(|hold| hold.held).collect());
    None
}

/// How a subvolume is read.
pub(super) fn volume(fit: &Fit) -> VolumeReport {
    VolumeReport {
        path: fit.origin.at().to_owned(),
        provider: "btrfs",
        consistency: "crash-consistent",
        reason: None,
    }
}

impl Snapshots<'_> {
    fn of(&self, item: &Item) -> Option<&Hold> {
        self.holds.iter().find(|hold| Some(&hold.item) == item.as_ref())
    }

    fn intend(
        &mut self,
        cx: RunContext<'_>,
        found: Vec<(String, Fit)>,
    ) -> Result<((), Done), StepError> {
        let mut undos: Vec<CaptureUndo> = Vec::new();
        let (mut intended, mut beside) = (Vec::new(), Vec::new());
        let mut there = kept::Earlier::look(cx)?;
        for (item, fit) in found {
            let provider = fit.origin.provider(self.job);
            let capture = provider.intend(cx.capture(), cx.run, &undos)?;
            undos.push(capture.undo());
            intended.push((provider, capture));
            let earlier = match &mut there {
                Some(there) => {
                    let earlier = there.of_item(self.job, &item, &fit, &self.seen_at)?;
                    earlier.into_iter().map(|there| there.snapshot).collect()
                }
                None => Vec::new(),
            };
            beside.push((item, earlier, fit::said(&fit)));
        }
        let held = captures::intend(cx, intended)?;
        self.holds = beside
            .into_iter()
            .zip(held)
            .map(|((item, earlier, lacks), held)| Hold { item, held, earlier, lacks })
            .collect();
        Ok(((), Done::ok(hook::in_ledger(cx, &self.holds.len().to_string()))))
    }

    fn make(&self, cx: RunContext<'_>) -> Result<((), Done), StepError> {
        for hold in &self.holds {
            cx.unless_stopped()?;
            hold.held.capture.make(cx.capture())?;
        }
        Ok(((), Done::ok("btrfs")))
    }

    /// The same on another machine, which says only now whether a snapshot can be made: one that cannot keeps no other from
    /// its turn. Answers whether there is one.
    fn make_each(&mut self, cx: RunContext<'_>, rec: &mut Recorder<'_>) -> bool {
        let mut each = |hold: &mut Hold, step: &'static str| {
            let (item, held) = (&hold.item, &mut hold.held);
            let done = rec.step(step, None, Some(item), |_| match step {
                "capture" => {
                    cx.unless_stopped()?;
                    held.capture.make(cx.capture())?;
                    Ok(((), Done::ok("btrfs")))
                }
                _ => {
                    captures::verify(cx, std::iter::once(&mut *held))?;
                    let about = held.made.as_ref().map(|made| made.about.clone());
                    Ok(((), Done::ok(about.unwrap_or_default())))
                }
            });
            done.is_some()
        };
        let mut left = Vec::new();
        for step in ["capture", "verify"] {
            for mut hold in std::mem::take(&mut self.holds) {
                let into = if each(&mut hold, step) { &mut self.holds } else { &mut left };
                into.push(hold);
            }
        }
        kept::release(cx, rec, left.into_iter().map(|hold| hold.held).collect());
        !self.holds.is_empty() && cx.unless_stopped().is_ok()
    }

    fn verify(&mut self, cx: RunContext<'_>) -> Result<((), Done), StepError> {
        captures::verify(cx, self.holds.iter_mut().map(|hold| &mut hold.held))?;
        let made = self.holds.iter().filter_map(|hold| hold.held.made.as_ref());
        let about: Vec<&str> = made.map(|made| made.about.as_str()).collect();
        Ok(((), Done::ok(about.join(", "))))
    }
}

impl HeldBatch for Snapshots<'_> {
    fn input(&self, cx: RunContext<'_>, item: &Item, target: &Target) -> Option<Input> {
        let hold = self.of(item)?;
        let still = &hold.held.made.as_ref()?.still;
        let from = match still {
            Still::Subvolume { device, .. } => {
                SentFrom::Here(capture::view::of_top_level(cx.capture(), device))
            }
            Still::Far { server, .. } => SentFrom::There(server.clone()),
            Still::Path(_) | Still::Device(_) => return None,
        };
        Some(Input::Subvolume(Box::new(StillSubvolume {
            snapshot: kept::seen(still, &self.seen_at)?,
            earlier: hold.earlier.clone(),
            ours: kept::made_here(cx, self.job, &hold.item, target),
            from,
        })))
    }

    fn input_of(
        &self,
        cx: RunContext<'_>,
        item: &Item,
        target: &Target,
        uuid: &str,
    ) -> Option<Input> {
        let Some(Input::Subvolume(mut still)) = self.input(cx, item, target) else { return None };
        let at = still.earlier.iter().position(|snapshot| snapshot.uuid == uuid)?;
        // The newest come first.
        let earlier = still.earlier.split_off(at + 1);
        let snapshot = still.earlier.pop()?;
        Some(Input::Subvolume(Box::new(StillSubvolume { snapshot, earlier, ..*still })))
    }

    fn gaps(&self, item: &Item) -> &[String] {
        self.of(item).map_or(&[], |hold| hold.lacks.as_slice())
    }

    fn volumes(&self) -> &[VolumeReport] {
        &self.volumes
    }

    fn still_holds(&self, cx: RunContext<'_>) -> Result<(), StepError> {
        for hold in &self.holds {
            hold.held.capture.still_holds(cx.capture())?;
        }
        Ok(())
    }

    /// What is begun with a snapshot can be gone on with only as long as that is there, so it stays even if we are killed.
    fn watch(&self, cx: RunContext<'_>, read: &mut dyn FnMut()) {
        if self.resumes && cx.pipeline.kept_history().is_some() {
            let items = self.holds.iter().map(|hold| (&*hold.item, &hold.held));
            match kept::try_to_keep(cx, self.job, items) {
                Ok(()) => self.stay.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!("{}: it is tried again later", error.message),
            }
        }
        read();
    }

    /// The snapshots stay: the next ones are sent as differences to them.
    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        let Snapshots { job, holds, stay, .. } = *self;
        if stay.into_inner() {
            return;
        }
        let items = holds.into_iter().map(|hold| (hold.item, hold.held)).collect();
        kept::keep(cx, rec, job, items);
    }

    fn discard(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        kept::release(cx, rec, self.holds.into_iter().map(|hold| hold.held).collect());
    }
}
