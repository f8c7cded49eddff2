//! Keeps the record of a job while it runs: tells observers, times steps, folds outcomes and troubles.

use std::time::Instant;

use crate::model::event::{Event, Observer, Progress, StepPlace};
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::StepReport;

use super::error::StepError;

/// What a step that did not fail says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Usually [`Outcome::Ok`].
    pub outcome: Outcome,
    /// One calm line.
    pub detail: String,
    /// What the run must know besides the outcome: an incomplete copy, damage, a busy lock.
    pub trouble: Option<Trouble>,
}

impl Done {
    /// A step that is fine.
    pub fn ok(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Ok, detail: detail.into(), trouble: None }
    }

    /// A step that is not fine but did not fail outright.
    pub fn with(outcome: Outcome, trouble: Trouble, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), trouble: Some(trouble) }
    }

    /// A step that was left out on purpose.
    pub fn skipped(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { outcome: Outcome::Skipped(reason.clone()), detail: reason, trouble: None }
    }
}

/// The record of one job, or of the maintenance after the jobs.
pub struct Recorder<'a> {
    observer: &'a dyn Observer,
    job: Option<JobName>,
    /// The steps so far.
    pub steps: Vec<StepReport>,
    /// Everything that went wrong so far.
    pub troubles: Vec<Trouble>,
    /// What somebody should read.
    pub warnings: Vec<String>,
    outcome: Outcome,
}

impl<'a> Recorder<'a> {
    /// A record with nothing in it.
    pub fn new(observer: &'a dyn Observer, job: Option<JobName>) -> Self {
        Self {
            observer,
            job,
            steps: Vec::new(),
            troubles: Vec::new(),
            warnings: Vec::new(),
            outcome: Outcome::Ok,
        }
    }

    /// A record of the same job with nothing in it, for what is done beside; see [`Recorder::take_in`].
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::new(self.observer, self.job.clone())
    }

    /// Adds what was recorded beside. Observers have been told.
    pub fn take_in(&mut self, beside: Recorder<'_>) {
        self.steps.extend(beside.steps);
        self.troubles.extend(beside.troubles);
        self.warnings.extend(beside.warnings);
        self.outcome = self.outcome.clone().worst(beside.outcome);
    }

    /// Carries out a step and records how it ended. `None` when it failed.
    pub fn step<T>(
        &mut self,
        step: &'static str,
        target: Option<&TargetName>,
        item: Option<&str>,
        work: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<(T, Done), StepError>,
    ) -> Option<T> {
        let place = StepPlace {
            job: self.job.clone(),
            target: target.cloned(),
            item: item.map(str::to_owned),
            step,
        };
        let (job, at) = (self.job.as_ref().map(JobName::as_str), target.map(TargetName::as_str));
        let span = tracing::debug_span!("step", step, job, target = at, item);
        let _entered = span.enter();
        self.observer.on(&Event::StepStarted { place: place.clone() });
        let started = Instant::now();
        let observer = self.observer;
        let mut on_progress = |progress: Progress| {
            observer.on(&Event::Progress { place: place.clone(), progress });
        };
        let (value, done) = match work(&mut on_progress) {
            Ok((value, done)) => (Some(value), done),
            Err(error) => (None, Done::with(error.outcome(), error.trouble, error.message)),
        };
        self.note(place, started, done);
        value
    }

    fn note(&mut self, place: StepPlace, started: Instant, done: Done) {
        let elapsed = started.elapsed();
        self.troubles.extend(done.trouble);
        // A step left out on purpose does not make its job a skipped one.
        if !matches!(done.outcome, Outcome::Skipped(_)) {
            self.outcome = self.outcome.clone().worst(done.outcome.clone());
        }
        self.steps.push(StepReport {
            step: place.step,
            target: place.target.clone(),
            item: place.item.clone(),
            outcome: done.outcome.clone(),
            detail: done.detail.clone(),
            elapsed,
        });
        self.observer.on(&Event::StepFinished {
            place,
            outcome: done.outcome,
            detail: done.detail,
            elapsed,
        });
    }

    /// Says something that belongs to no step's end and changes no outcome.
    pub fn say(&mut self, warning: bool, text: impl Into<String>) {
        let text = text.into();
        if warning {
            self.warnings.push(text.clone());
        }
        self.observer.on(&Event::Note { job: self.job.clone(), warning, text });
    }

    /// Says what belongs to no step's end and leaves the copies as they are, but must not pass as all well.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.say(true, text);
        self.troubles.push(Trouble::Warning);
        self.outcome = self.outcome.clone().worst(Outcome::Warning);
    }

    /// The worst outcome so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }
}
