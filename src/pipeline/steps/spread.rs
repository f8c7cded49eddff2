//! Brings the items of a batch to the targets that engines write to directly: one target after another, or several at the
//! same time where `parallel-targets` says so.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};

use crate::engine::{Seat, Sharing};
use crate::model::copy::Series;
use crate::model::names::TargetName;
use crate::model::outcome::Outcome;
use crate::model::target::Target;
use crate::source::series_of;
use crate::step::context::RunContext;
use crate::step::recorder::Recorder;

use super::archive::{Archived, Batch};
use super::bring::{Brought, bring};

/// What the targets got.
#[derive(Default)]
pub struct Spread<'t> {
    /// What engines say they made, by target.
    pub archived: BTreeMap<&'t TargetName, Vec<Archived>>,
    /// What targets have already, and how good that is.
    pub up_to_date: BTreeMap<(&'t TargetName, Series), Outcome>,
}

impl<'t> Spread<'t> {
    /// Copies the items of a batch to each of the targets, whose locks are held. What one has already is noted as such.
    ///
    /// # Panics
    /// When that of a target did, after those that were at work with it have ended.
    pub fn add(
        &mut self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: Batch<'_>,
        targets: &[&'t Target],
    ) {
        let limit = (cx.config().settings.parallel_targets as usize).min(targets.len());
        // A plan is to be read from top to bottom.
        if limit > 1 && !cx.host().is_dry() {
            return self.add_at_the_same_time(cx, rec, batch, (targets, limit));
        }
        for target in targets {
            self.add_to_one(cx, rec, batch, target);
        }
    }

    /// Each target in one of so many threads, with a record of its own: the job's has them in the order of the targets.
    fn add_at_the_same_time(
        &mut self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: Batch<'_>,
        (targets, limit): (&[&'t Target], usize),
    ) {
        let sharing = Sharing::default();
        let mut got = Team::of(cx, rec, batch, targets, (&sharing, limit)).serve_all();
        got.sort_by_key(|(at, ..)| *at);
        for (_, record, Spread { archived, up_to_date }) in got {
            rec.take_in(record);
            for (target, made) in archived {
                self.archived.entry(target).or_default().extend(made);
            }
            self.up_to_date.extend(up_to_date);
        }
    }

    /// Copies the items of a batch to one target.
    fn add_to_one(
        &mut self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: Batch<'_>,
        target: &'t Target,
    ) {
        for (number, item) in batch.items.iter().enumerate() {
            cx.seat.into_iter().for_each(|seat| seat.at(number));
            if cx.host().stop_signal().is_some() {
                break;
            }
            match bring(cx, rec, batch, target, item) {
                Brought::Copy(made) => {
                    self.archived.entry(&target.name).or_default().push(*made);
                }
                Brought::UpToDate(outcome) => {
                    let series = series_of(cx.pipeline, batch.job, item.clone());
                    self.up_to_date.insert((&target.name, series), outcome);
                }
                Brought::Nothing => {}
            }
        }
    }
}

/// What one of the targets got, and the record of it, with its place among them.
type Got<'r, 't> = (usize, Recorder<'r>, Spread<'t>);

/// Threads that serve one target after another, each for itself.
struct Team<'a, 'r, 't> {
    cx: RunContext<'a>,
    of_job: &'a Recorder<'r>,
    batch: Batch<'a>,
    targets: &'a [&'t Target],
    limit: usize,
    seats: Seats<'a>,
    next: AtomicUsize,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Where each of the targets is that share what they send.
struct Seats<'a> {
    sharing: &'a Sharing,
    /// Of those that come first, in their order, so that each waits for the others.
    first: Mutex<Vec<Option<Seat<'a>>>>,
}

impl<'a> Seats<'a> {
    fn of(sharing: &'a Sharing, limit: usize) -> Self {
        Self { sharing, first: Mutex::new((0..limit).map(|_| Some(sharing.join())).collect()) }
    }

    fn first(&self) -> MutexGuard<'_, Vec<Option<Seat<'a>>>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one of the target of this number, which is served now.
    fn take(&self, at: usize) -> Seat<'a> {
        let seat = self.first().get_mut(at).and_then(Option::take);
        seat.unwrap_or_else(|| self.sharing.join())
    }

    /// One thread less than targets that come first serves them. Whichever it was to be, it is the last target that waits
    /// until another one is through, and for which nobody is to wait.
    fn give_up_one(&self) {
        let seat = self.first().iter_mut().rev().find_map(Option::take);
        drop(seat);
    }
}

impl<'a, 'r, 't> Team<'a, 'r, 't> {
    fn of(
        cx: RunContext<'a>,
        of_job: &'a Recorder<'r>,
        batch: Batch<'a>,
        targets: &'a [&'t Target],
        (sharing, limit): (&'a Sharing, usize),
    ) -> Self {
        let seats = Seats::of(sharing, limit);
        let (next, panicked) = (AtomicUsize::new(0), Mutex::new(None));
        Self { cx, of_job, batch, targets, limit, seats, next, panicked }
    }

    fn panicked(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panicked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves targets until there is none left. Each is served by one.
    fn work(&self) -> Vec<Got<'r, 't>> {
        let mut got = Vec::new();
        while self.panicked().is_none() {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(target) = self.targets.get(at) else { break };
            let (mut record, mut spread) = (self.of_job.beside(), Spread::default());
            let seat = self.cx.host().passes_pipes().then(|| self.seats.take(at));
            let cx = RunContext { seat: seat.as_ref(), ..self.cx };
            // The others end their work, and release what they hold.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                spread.add_to_one(cx, &mut record, self.batch, target);
            }));
            match ended {
                Ok(()) => got.push((at, record, spread)),
                Err(payload) => {
                    self.panicked().get_or_insert(payload);
                    // Nobody waits for who does not come any more.
                    drop(self.seats.sharing.closing());
                }
            }
        }
        got
    }

    /// Serves all of them. Answers in no order that matters.
    fn serve_all(self) -> Vec<Got<'r, 't>> {
        let (got, shared) = thread::scope(|threads| {
            let sharing = self.seats.sharing;
            let closing = sharing.closing();
            let begin = |name: &str| Builder::new().name(name.into());
            let warn = |error: &io::Error| {
                tracing::warn!(%error, "no thread can be had, so targets wait for others");
            };
            let share = || sharing.serve(self.cx.host());
            let shared = begin("shared").spawn_scoped(threads, share).inspect_err(|error| {
                warn(error);
                drop(sharing.closing());
            });
            let another = |_| begin("target").spawn_scoped(threads, || self.work());
            let refused = |error: &io::Error| {
                warn(error);
                self.seats.give_up_one();
            };
            let others: Vec<_> =
                (1..self.limit).filter_map(|at| another(at).inspect_err(refused).ok()).collect();
            // This one works as well, so there is always somebody who does.
            let mut got = self.work();
            for other in others {
                got.extend(other.join().unwrap_or_else(|payload| resume_unwind(payload)));
            }
            drop(closing);
            (got, shared.map_or(Ok(()), |shared| shared.join()))
        });
        let panicked = self.panicked().take();
        match panicked.or(shared.err()) {
            Some(payload) => resume_unwind(payload),
            None => got,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_threads_are_refused_the_targets_that_are_served_later_are_not_waited_for() {
        let sharing = Sharing::default();
        let seats = Seats::of(&sharing, 4);
        let left = |seats: &Seats<'_>| -> Vec<bool> {
            seats.first().iter().map(Option::is_some).collect()
        };
        // Any thread may be refused, before others have begun, and after.
        seats.give_up_one();
        assert_eq!(left(&seats), [true, true, true, false]);
        let _first = seats.take(0);
        seats.give_up_one();
        assert_eq!(left(&seats), [false, true, false, false]);
        let _second = seats.take(1);
        seats.give_up_one();
        assert_eq!(left(&seats), [false; 4]);
        // They come after all.
        let _later = [seats.take(3), seats.take(2), seats.take(7)];
    }
}
