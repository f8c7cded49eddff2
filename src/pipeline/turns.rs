//! The jobs of a run take turns: one after another in the file's order, or several at the same time where `parallel`
//! says so.
//!
//! A job begins when fewer than so many are at work and nobody is at one of its targets, or waits for it and comes
//! first in the file. So no two are ever at work on one target, each target is served in the file's order, and a job
//! that shares no target with one that has to wait does not wait with it. One that makes a file system read-only is at
//! work alone: others would find it so, and take that for its nature.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread::{self, Builder};

use crate::model::job::{Job, Scope};
use crate::model::target::Target;

use super::job::{JobResult, run_job, targets_of};
use super::steps::target::lock_path;
use crate::step::context::RunContext;

/// Runs the jobs. Answers in the file's order; `None` for each that was not begun, since we were told to stop.
///
/// # Panics
/// When a job did, after those that were at work with it have ended. What it holds stays in the ledger, as it does when
/// it is alone.
pub(super) fn run_jobs(
    cx: RunContext<'_>,
    jobs: &[&Job],
    scope: Scope<'_>,
) -> Vec<Option<JobResult>> {
    let limit = cx.config().settings.parallel as usize;
    // A plan is to be read from top to bottom.
    if limit == 1 || cx.host().is_dry() {
        let one = |job: &&Job| match cx.host().stop_signal() {
            None => Some(run_job(cx, job, scope)),
            Some(_) => None,
        };
        return jobs.iter().map(one).collect();
    }
    let needs = jobs.iter().map(|job| Needs {
        is_alone: job.source.makes_read_only(),
        places: places(cx, job, scope),
    });
    at_the_same_time(cx, jobs, scope, Turns::new(limit, needs))
}

/// Each job in a thread of its own, as it has its turn.
fn at_the_same_time(
    cx: RunContext<'_>,
    jobs: &[&Job],
    scope: Scope<'_>,
    mut turns: Turns,
) -> Vec<Option<JobResult>> {
    let mut results: Vec<Option<JobResult>> = jobs.iter().map(|_| None).collect();
    let mut panicked = None;
    let (say, ended) = channel();
    thread::scope(|threads| {
        loop {
            while panicked.is_none() && cx.host().stop_signal().is_none() {
                let Some(next) = turns.begin() else { break };
                let (say, job) = (say.clone(), jobs[next]);
                let work = move || {
                    // The others end their work, and release what they hold.
                    let result = catch_unwind(AssertUnwindSafe(|| run_job(cx, job, scope)));
                    // It is waited for as long as a job is at work.
                    let _ = say.send((next, result));
                };
                let thread = Builder::new().name(format!("job {}", job.name));
                if let Err(error) = thread.spawn_scoped(threads, work.clone()) {
                    tracing::warn!(job = %job.name, %error, "no thread can be had, so the others wait for it");
                    work();
                }
            }
            if turns.at_work() == 0 {
                break;
            }
            let Ok((job, result)) = ended.recv() else { break };
            turns.end(job);
            match result {
                Ok(result) => results[job] = Some(result),
                Err(payload) => panicked = panicked.take().or(Some(payload)),
            }
        }
    });
    match panicked {
        Some(payload) => resume_unwind(payload),
        None => results,
    }
}

/// Where the copies are that a job makes, or reads to fill a target from another one: the locks of its targets, so that one
/// repository under two names is one place.
fn places(cx: RunContext<'_>, job: &Job, scope: Scope<'_>) -> BTreeSet<PathBuf> {
    let config = cx.config();
    let targets = targets_of(config, job, scope);
    let sources = targets.iter().filter_map(|target| config.target(target.copy_from.as_ref()?));
    let place = |target: &Target| lock_path(cx.host(), &config.settings.runtime_dir, target);
    sources.chain(targets.iter().copied()).map(place).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    AtWork,
    Over,
}

/// What a job has to itself.
struct Needs {
    /// Everything.
    is_alone: bool,
    /// Where nobody else may be.
    places: BTreeSet<PathBuf>,
}

/// Whose turn it is.
struct Turns {
    limit: usize,
    jobs: Vec<(Needs, State)>,
}

impl Turns {
    /// Nobody has begun.
    fn new(limit: usize, jobs: impl Iterator<Item = Needs>) -> Self {
        Self { limit, jobs: jobs.map(|needs| (needs, State::Waits)).collect() }
    }

    fn at_work(&self) -> usize {
        self.jobs.iter().filter(|(_, state)| *state == State::AtWork).count()
    }

    /// The next job that may begin, which has begun with that.
    fn begin(&mut self) -> Option<usize> {
        let next = self.next()?;
        self.jobs[next].1 = State::AtWork;
        Some(next)
    }

    fn next(&self) -> Option<usize> {
        if self.at_work() >= self.limit {
            return None;
        }
        let in_state = |wanted: State| {
            let all = self.jobs.iter().enumerate();
            all.filter(move |(_, (_, state))| *state == wanted)
                .map(|(job, (needs, _))| (job, needs))
        };
        if in_state(State::AtWork).any(|(_, needs)| needs.is_alone) {
            return None;
        }
        let mut taken: BTreeSet<&PathBuf> =
            in_state(State::AtWork).flat_map(|(_, needs)| &needs.places).collect();
        for (job, needs) in in_state(State::Waits) {
            if needs.is_alone {
                // It has its turn when those at work are through; nobody overtakes it meanwhile.
                return (self.at_work() == 0).then_some(job);
            }
            if needs.places.iter().all(|place| !taken.contains(place)) {
                return Some(job);
            }
            // Nobody overtakes it there.
            taken.extend(&needs.places);
        }
        None
    }

    /// A job is over.
    fn end(&mut self, job: usize) {
        self.jobs[job].1 = State::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(limit: usize, jobs: &[&str]) -> Turns {
        let needs = |names: &&str| Needs {
            is_alone: names.contains('!'),
            places: names.split_whitespace().map(PathBuf::from).collect(),
        };
        Turns::new(limit, jobs.iter().map(needs))
    }

    fn all(turns: &mut Turns) -> Vec<usize> {
        std::iter::from_fn(|| turns.begin()).collect()
    }

    #[test]
    fn no_more_begin_than_may_be_at_work() {
        let mut turns = turns(2, &["a", "b", "c", "", ""]);
        assert_eq!(all(&mut turns), [0, 1]);
        turns.end(1);
        assert_eq!(all(&mut turns), [2]);
        assert_eq!(turns.at_work(), 2);
        turns.end(0);
        turns.end(2);
        assert_eq!(all(&mut turns), [3, 4], "what has no target waits for nobody else");
    }

    #[test]
    fn nobody_is_at_a_target_where_another_one_is() {
        let mut turns = turns(9, &["nas", "nas", "nas usb", "usb", "far"]);
        assert_eq!(all(&mut turns), [0, 4], "usb is kept for whoever comes first there");
        turns.end(4);
        assert_eq!(all(&mut turns), [0; 0]);
        turns.end(0);
        assert_eq!(all(&mut turns), [1]);
        turns.end(1);
        assert_eq!(all(&mut turns), [2]);
        turns.end(2);
        assert_eq!(all(&mut turns), [3]);
        turns.end(3);
        assert_eq!((all(&mut turns), turns.at_work()), (vec![], 0));
    }

    #[test]
    fn who_must_be_alone_is_and_is_not_overtaken() {
        let mut turns = turns(9, &["a", "b", "!", "c", "d"]);
        assert_eq!(all(&mut turns), [0, 1]);
        turns.end(0);
        assert_eq!(all(&mut turns), [0; 0]);
        turns.end(1);
        assert_eq!(all(&mut turns), [2]);
        turns.end(2);
        assert_eq!(all(&mut turns), [3, 4]);
    }

    #[test]
    fn one_at_a_time_is_the_order_of_the_file() {
        let mut turns = turns(1, &["a", "b", "a"]);
        let mut order = Vec::new();
        while let Some(job) = turns.begin() {
            assert_eq!(turns.begin(), None);
            order.push(job);
            turns.end(job);
        }
        assert_eq!(order, [0, 1, 2]);
    }
}
