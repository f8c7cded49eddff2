//! A snapshot of every subvolume, all made before anything is sent.

use std::path::PathBuf;

use crate::capture::{self, Still};
use crate::engine::{Input, Snapshot, StillSubvolume};
use crate::host::{Access, PrivateMount, PrivateView};
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
    gaps: Vec<String>,
    volumes: Vec<VolumeReport>,
    /// Where the top-level subvolume is seen by whoever sends.
    seen_at: PathBuf,
}

struct Hold {
    item: String,
    held: Held,
    /// Earlier ones of the same subvolume, the newest first.
    earlier: Vec<Snapshot>,
}

/// Looks at the subvolumes and makes snapshots of them. One that is not fit keeps no other from its turn.
pub(super) fn hold<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &'a Job,
    source: &SubvolumesSource,
    items: &[Item],
) -> Option<Snapshots<'a>> {
    let mut found = Vec::new();
    for path in &source.paths {
        let item = item_of(path);
        if !items.contains(&Some(item.clone())) {
            continue;
        }
        let fit = rec.step("source", None, Some(&item), |_| {
            let fit = fit::examine(cx.host(), source, path)?;
            if let Some(what) = fit::hindered(&fit) {
                return Err(StepError::new(Trouble::Environment, what));
            }
            Ok((fit, Done::ok("a subvolume that can be sent")))
        });
        found.extend(fit.map(|fit| (item, fit)));
    }
    if found.is_empty() {
        return None;
    }
    let lacking = found.iter().filter(|(_, fit)| !fit.absent.is_empty());
    let mut snapshots = Snapshots {
        job,
        gaps: lacking.map(|(_, fit)| fit::said(fit)).collect(),
        volumes: found.iter().map(|(_, fit)| volume(fit)).collect(),
        holds: Vec::new(),
        seen_at: capture::bare_workplace(cx.capture()),
    };
    let is_held = rec.step("intend", None, None, |_| snapshots.intend(cx, found)).is_some()
        && rec.step("capture", None, None, |_| snapshots.make(cx)).is_some()
        && rec.step("verify", None, None, |_| snapshots.verify(cx)).is_some();
    if is_held {
        return Some(snapshots);
    }
    kept::release(cx, rec, snapshots.holds.into_iter().map(|hold| hold.held).collect());
    None
}

fn volume(fit: &Fit) -> VolumeReport {
    VolumeReport {
        path: fit.volume.at.clone(),
        provider: "btrfs",
        consistency: "crash-consistent",
        reason: None,
    }
}

impl Snapshots<'_> {
    fn intend(
        &mut self,
        cx: RunContext<'_>,
        found: Vec<(String, Fit)>,
    ) -> Result<((), Done), StepError> {
        let mut undos: Vec<CaptureUndo> = Vec::new();
        let (mut intended, mut beside) = (Vec::new(), Vec::new());
        for (item, fit) in found {
            let provider = capture::of_subvolume(&fit.volume);
            let capture = provider.intend(cx.capture(), cx.run, &undos)?;
            undos.push(capture.undo());
            intended.push((provider, capture));
            let earlier = kept::of_item(cx, self.job, &item, &fit, &self.seen_at)?;
            beside.push((item, earlier));
        }
        let held = captures::intend(cx, intended)?;
        self.holds = beside
            .into_iter()
            .zip(held)
            .map(|((item, earlier), held)| Hold { item, held, earlier })
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

    fn verify(&mut self, cx: RunContext<'_>) -> Result<((), Done), StepError> {
        captures::verify(cx, self.holds.iter_mut().map(|hold| &mut hold.held))?;
        let made = self.holds.iter().filter_map(|hold| hold.held.made.as_ref());
        let about: Vec<&str> = made.map(|made| made.about.as_str()).collect();
        Ok(((), Done::ok(about.join(", "))))
    }
}

impl HeldBatch for Snapshots<'_> {
    fn input(&self, cx: RunContext<'_>, item: &Item, _: &Target) -> Option<Input> {
        let hold = self.holds.iter().find(|hold| Some(&hold.item) == item.as_ref())?;
        let still = &hold.held.made.as_ref()?.still;
        let Still::Subvolume { device, .. } = still else { return None };
        let top = PrivateMount::Device {
            device: device.clone(),
            at: self.seen_at.clone(),
            file_system: "btrfs".into(),
            options: "subvolid=5".into(),
            directory: None,
            access: Access::Read,
        };
        Some(Input::Subvolume(Box::new(StillSubvolume {
            snapshot: kept::seen(still, &self.seen_at)?,
            earlier: hold.earlier.clone(),
            view: PrivateView {
                mounts: vec![top],
                workplace: capture::workplace(cx.capture()),
                ..PrivateView::default()
            },
        })))
    }

    fn gaps(&self) -> &[String] {
        &self.gaps
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

    fn watch(&self, _: RunContext<'_>, read: &mut dyn FnMut()) {
        read();
    }

    /// The snapshots stay: the next ones are sent as differences to them.
    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        let Snapshots { job, holds, .. } = *self;
        let items = holds.into_iter().map(|hold| (hold.item, hold.held)).collect();
        kept::keep(cx, rec, job, items);
    }
}
