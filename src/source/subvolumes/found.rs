//! Snapshots that were there before the run: those that the job keeps, or those that another program makes.
//!
//! What another program made is its own: it is sent, and neither deleted nor written down anywhere. It may go at any
//! moment, so nothing can promise that there will be one of which a target has a copy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::capture;
use crate::engine::{Input, SentCopy, SentFrom, StillSubvolume};
use crate::model::copy::Series;
use crate::model::job::{ExistingSnapshots, Job, SubvolumesSource};
use crate::model::outcome::Trouble;
use crate::model::report::VolumeReport;
use crate::model::shown::Show;
use crate::model::size::counted;
use crate::model::target::Target;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};
use crate::step::source::{Due, DueSnapshot, HeldBatch, Item, series_of};

use super::existing::{Looked, elsewhere};
use super::fit::{self, Fit, Origin, item_of};
use super::hold;
use super::kept::{self, Earlier, There};

/// Which of the snapshots that are there are sent.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// The newest one that the job keeps.
    Kept,
    /// Those that another program makes.
    Existing(&'a ExistingSnapshots),
}

/// Snapshots that were found.
pub(super) struct Found<'a> {
    job: &'a Job,
    which: Which<'a>,
    items: Vec<OfItem>,
    volumes: Vec<VolumeReport>,
    /// Where the top-level subvolume is seen by whoever sends.
    seen_at: PathBuf,
}

struct OfItem {
    item: String,
    /// Where they are sent from.
    from: SentFrom,
    /// The block device of the file system, where that is one of this machine.
    device: Option<PathBuf>,
    /// All that differences can be made to, the newest first.
    there: Vec<There>,
    /// The UUIDs of those that are sent.
    wanted: BTreeSet<String>,
    /// What no snapshot of it holds now, in words.
    lacks: Option<String>,
}

/// Finds the snapshots of subvolumes. One of which there is none keeps no other from its turn.
pub(super) fn find<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &'a Job,
    source: &SubvolumesSource,
    items: &[Item],
    which: Which<'a>,
) -> Option<Found<'a>> {
    let seen_at = capture::bare_workplace(cx.capture());
    let mut found = Found { job, which, items: Vec::new(), volumes: Vec::new(), seen_at };
    let mut earlier = None;
    for path in &source.paths {
        let item = item_of(path);
        if !items.contains(&Some(item.clone())) {
            continue;
        }
        let of_item = rec.step("find", None, Some(&item), |_| {
            let fit = fit::examine(cx.capture(), source, path)?;
            let earlier = match &mut earlier {
                Some(earlier) => earlier,
                None => earlier.insert(Earlier::look_at_all(cx)?),
            };
            let (of_item, said) = found.of_item(cx, &item, &fit, earlier)?;
            Ok(((of_item, fit), Done::ok(said)))
        });
        let Some((of_item, fit)) = of_item else { continue };
        found.items.push(of_item);
        found.volumes.push(hold::volume(&fit));
    }
    (!found.items.is_empty()).then_some(found)
}

impl Found<'_> {
    fn of_item(
        &self,
        cx: RunContext<'_>,
        item: &str,
        fit: &Fit,
        earlier: &mut Earlier<'_>,
    ) -> Result<(OfItem, String), StepError> {
        let there = earlier.of_item(self.job, item, fit, &self.seen_at)?;
        let looked = match self.which {
            Which::Kept => None,
            Which::Existing(existing) => {
                let volume = fit.origin.here().ok_or_else(elsewhere)?;
                Some(Looked::at(cx.host(), volume, existing)?)
            }
        };
        let is_wanted = |it: &&There| match &looked {
            // What was changed since is no snapshot of that moment any more.
            None => it.run.is_some() && it.found.changed <= it.found.made_in,
            Some(looked) => looked.is_wanted(&it.path, &it.found),
        };
        let wanted: Vec<&There> = there.iter().filter(is_wanted).collect();
        let Some(newest) = wanted.first() else {
            let text = none(cx, fit, looked.as_ref(), &there);
            return Err(StepError::new(Trouble::JobFailed, text));
        };
        let newer =
            looked.map(|looked| looked.newer(earlier.all_on(looked.device()), &newest.found));
        let said = format!(
            "{}, the newest {}{}",
            counted(wanted.len() as u64, "snapshot", "snapshots"),
            told(newest),
            newer.unwrap_or_default()
        );
        let wanted = wanted.iter().map(|it| it.snapshot.uuid.clone()).collect();
        let from = match &fit.origin {
            Origin::Here(volume) => {
                SentFrom::Here(capture::view::of_top_level(cx.capture(), &volume.mount.source))
            }
            Origin::There(far, _) => SentFrom::There(far.server.clone()),
        };
        let device = fit.origin.device().map(Path::to_owned);
        let (item, lacks) = (item.to_owned(), fit::said(fit));
        Ok((OfItem { item, from, device, there, wanted, lacks }, said))
    }

    fn of(&self, item: &Item) -> Option<&OfItem> {
        self.items.iter().find(|of| Some(&of.item) == item.as_ref())
    }

    fn series(&self, cx: RunContext<'_>, of: &OfItem) -> Series {
        series_of(cx.pipeline, self.job, Some(of.item.clone()))
    }

    /// The copies of the item that the target has and this machine knows.
    fn copies(
        &self,
        cx: RunContext<'_>,
        of: &OfItem,
        target: &Target,
    ) -> Result<Vec<SentCopy>, StepError> {
        let Some(history) = cx.pipeline.history else { return Ok(Vec::new()) };
        // What a target says beyond that may have been put there by somebody else.
        let known = history.held(&target.name, &self.series(cx, of))?;
        let mut copies = cx.pipeline.engine(target).sent(cx.engine())?;
        copies.retain(|copy| known.contains(&copy.id));
        Ok(copies)
    }

    /// What a copy lacks that the target has: what no snapshot holds now, or what was found when it was made.
    fn lacking(
        &self,
        cx: RunContext<'_>,
        of: &OfItem,
        target: &Target,
        copy: &SentCopy,
    ) -> Result<Option<String>, StepError> {
        if let Some(lacks) = &of.lacks {
            return Ok(Some(format!("not in it: {lacks}")));
        }
        let Some(history) = cx.pipeline.history else { return Ok(None) };
        let lacking = history.lacking(&target.name, &copy.id)?;
        Ok(lacking.map(|what| format!("that copy is no good one: {what}")))
    }
}

/// What to say where there is none.
fn none(cx: RunContext<'_>, fit: &Fit, looked: Option<&Looked<'_>>, there: &[There]) -> String {
    match looked {
        None => format!(
            "no snapshot of {} is kept here that could be sent — run the job without --no-snapshot",
            fit.origin.at().shown()
        ),
        Some(looked) => looked.none(cx.host(), there.iter().map(|it| (&*it.path, &it.found))),
    }
}

/// A snapshot, for people.
fn told(it: &There) -> String {
    format!("{} of {}", it.path.shown(), it.found.made.format("%Y-%m-%d %H:%M:%SZ"))
}

fn copy_of<'c>(copies: &'c [SentCopy], it: &There) -> Option<&'c SentCopy> {
    copies.iter().find(|copy| it.snapshot.was_sent_as(&copy.uuid, copy.generation))
}

impl OfItem {
    /// Those that are sent, the newest first.
    fn wanted(&self) -> impl Iterator<Item = &There> {
        self.there.iter().filter(|it| self.wanted.contains(&it.snapshot.uuid))
    }

    /// Of the snapshots that are sent, those that came after the last one of which there is a copy: the newest first. What
    /// retention has deleted in the target was older, and is not sent again.
    fn missing<'s>(&'s self, copies: &[SentCopy]) -> Vec<&'s There> {
        // Its snapshot may be gone. Each of the two may lie by itself: a clock that was set back, another file system.
        let is_overtaken = |it: &There| {
            let is_newer = |copy: &SentCopy| {
                copy.time >= it.found.made && copy.generation > it.snapshot.generation
            };
            copies.iter().any(is_newer)
        };
        let newer = self.wanted().take_while(|it| copy_of(copies, it).is_none());
        newer.filter(|it| !is_overtaken(it)).collect()
    }

    /// What to say where nothing is left that a difference could be made to.
    fn remark(&self, copies: &[SentCopy], which: Which<'_>, first: &There) -> Option<String> {
        let mut older = self.there.iter().skip_while(|it| it.snapshot != first.snapshot).skip(1);
        if copies.is_empty() || older.any(|it| copy_of(copies, it).is_some()) {
            return None;
        }
        let what = "no snapshot is left here of which the target has a copy, so all of it is sent";
        Some(match which {
            Which::Kept => what.to_owned(),
            Which::Existing(_) => format!(
                "{what} — whatever makes the snapshots should keep them until the next one was sent"
            ),
        })
    }
}

impl HeldBatch for Found<'_> {
    /// The newest one.
    fn input(&self, cx: RunContext<'_>, item: &Item, target: &Target) -> Option<Input> {
        let newest = self.of(item)?.wanted().next()?;
        self.input_of(cx, item, target, &newest.snapshot.uuid)
    }

    fn input_of(
        &self,
        cx: RunContext<'_>,
        item: &Item,
        target: &Target,
        uuid: &str,
    ) -> Option<Input> {
        let of = self.of(item)?;
        let at = of.wanted().find(|it| it.snapshot.uuid == uuid)?;
        let older = of.there.iter().skip_while(|it| it.snapshot != at.snapshot).skip(1);
        Some(Input::Subvolume(Box::new(StillSubvolume {
            snapshot: at.snapshot.clone(),
            earlier: older.map(|it| it.snapshot.clone()).collect(),
            ours: kept::made_here(cx, self.job, &of.item, target),
            from: of.from.clone(),
        })))
    }

    fn due(&self, cx: RunContext<'_>, item: &Item, target: &Target) -> Result<Due, StepError> {
        let Some(of) = self.of(item) else {
            // Why there is none was told when they were looked for.
            let text = "there is no snapshot of it to send";
            return Err(StepError::new(Trouble::JobFailed, text));
        };
        let copies = self.copies(cx, of, target)?;
        let mut missing = of.missing(&copies);
        match self.which {
            Which::Existing(ExistingSnapshots { all: true, .. }) => {}
            Which::Existing(_) | Which::Kept => missing.truncate(1),
        }
        let Some(first) = missing.last() else {
            let newest = of.wanted().next();
            let copy = newest.and_then(|it| copy_of(&copies, it));
            let why = match (newest, copy) {
                (Some(newest), Some(copy)) => {
                    format!(
                        "up to date: it has the newest snapshot, {}, as {}",
                        told(newest),
                        copy.id
                    )
                }
                _ => "up to date: it has a newer one than all snapshots that are here".to_owned(),
            };
            let copy = copy.or_else(|| copies.iter().max_by_key(|copy| copy.time));
            let lacks = match copy {
                Some(copy) => self.lacking(cx, of, target, copy)?,
                None => None,
            };
            return Ok(Due::Nothing { why, lacks });
        };
        let remark = of.remark(&copies, self.which, first);
        let snapshots = missing.iter().rev().map(|it| DueSnapshot {
            uuid: it.snapshot.uuid.clone(),
            run: it.run.clone(),
            made: it.found.made,
        });
        Ok(Due::These { snapshots: snapshots.collect(), remark })
    }

    fn judged(&self, cx: RunContext<'_>, input: &Input, error: StepError) -> StepError {
        let Input::Subvolume(still) = input else { return error };
        let is_of = |of: &&OfItem| of.there.iter().any(|it| it.snapshot == still.snapshot);
        let Some(of) = self.items.iter().find(is_of) else { return error };
        let Some(device) = &of.device else { return error };
        // What it is a difference to is read as well.
        let read =
            |it: &&There| it.snapshot == still.snapshot || still.earlier.contains(&it.snapshot);
        let is_gone = |it: &&There| match cx.host().subvolume_on(device, &it.path) {
            Ok(found) => !found.is_some_and(|found| found == it.found),
            Err(_) => false,
        };
        let Some(gone) = of.there.iter().filter(read).find(is_gone) else { return error };
        let message = format!(
            "the snapshot {} was deleted or made writable by somebody else while it was needed: {}",
            gone.path.shown(),
            error.message
        );
        StepError { message, ..error }
    }

    fn gaps(&self, item: &Item) -> &[String] {
        self.of(item).map_or(&[], |of| of.lacks.as_slice())
    }

    fn volumes(&self) -> &[VolumeReport] {
        &self.volumes
    }

    /// What passed on the way says by itself whether it was that.
    fn still_holds(&self, _: RunContext<'_>) -> Result<(), StepError> {
        Ok(())
    }

    fn watch(&self, _: RunContext<'_>, read: &mut dyn FnMut()) {
        read();
    }

    /// They are another program's, or stay as long as the job's rules say.
    fn release(self: Box<Self>, _: RunContext<'_>, _: &mut Recorder<'_>) {}
}
