//! Brings the items of a batch to the targets that engines write to directly: one target after another, or several at the
//! same time where `parallel-targets` says so.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

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
        let of_job = &*rec;
        let (next, panicked) = (AtomicUsize::new(0), Mutex::new(None::<Box<dyn Any + Send>>));
        let lock = || panicked.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            let mut got = Vec::new();
            while lock().is_none() {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(target) = targets.get(at) else { break };
                let (mut record, mut spread) = (of_job.beside(), Spread::default());
                // The others end their work, and release what they hold.
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    spread.add_to_one(cx, &mut record, batch, target);
                }));
                match ended {
                    Ok(()) => got.push((at, record, spread)),
                    Err(payload) => drop(lock().get_or_insert(payload)),
                }
            }
            got
        };
        let mut got = thread::scope(|threads| {
            // This one works as well, so there is always somebody who does.
            let others: Vec<_> = (1..limit)
                .filter_map(|_| {
                    let spawned = Builder::new().name("target".into()).spawn_scoped(threads, work);
                    spawned
                        .inspect_err(|error| {
                            tracing::warn!(%error, "no thread can be had, so targets wait for others");
                        })
                        .ok()
                })
                .collect();
            let mut got = work();
            for other in others {
                got.extend(other.join().unwrap_or_else(|payload| resume_unwind(payload)));
            }
            got
        });
        if let Some(payload) = panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
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
        for item in batch.items {
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
