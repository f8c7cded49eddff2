//! What happens during a run, told to whoever watches: terminal, journal, metrics.

use std::time::Duration;

use super::names::{JobName, RunId, TargetName};
use super::outcome::Outcome;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A run began.
    RunStarted {
        /// The id of the run.
        run: RunId,
        /// Its jobs, in order.
        jobs: Vec<JobName>,
    },
    /// A job began.
    JobStarted {
        /// The job's name in the configuration.
        job: JobName,
    },
    /// A step began.
    StepStarted {
        /// In which step, of which job and target.
        place: StepPlace,
    },
    /// An engine says how far it is. Comes often; an observer may drop it.
    Progress {
        /// In which step, of which job and target.
        place: StepPlace,
        /// What the engine says of it.
        progress: Progress,
    },
    /// A step ended.
    StepFinished {
        /// In which step, of which job and target.
        place: StepPlace,
        /// The worst outcome in it.
        outcome: Outcome,
        /// One calm line: what was done, or what went wrong.
        detail: String,
        /// How long it took.
        elapsed: Duration,
    },
    /// Something that somebody should read, which belongs to no step's end.
    Note {
        /// The job it concerns, if one.
        job: Option<JobName>,
        /// Whether it should stand out.
        warning: bool,
        /// What is to be read, in one or more sentences.
        text: String,
    },
    /// A job ended.
    JobFinished {
        /// The job's name in the configuration.
        job: JobName,
        /// The worst outcome in it.
        outcome: Outcome,
        /// How long it took.
        elapsed: Duration,
    },
    /// The run ended.
    RunFinished {
        /// The id of the run.
        run: RunId,
        /// The worst outcome in it.
        outcome: Outcome,
        /// How long it took.
        elapsed: Duration,
    },
}

/// Where in a run something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlace {
    /// The job, or `None` for maintenance of a target.
    pub job: Option<JobName>,
    /// The target, if the step has one.
    pub target: Option<TargetName>,
    /// The stream, guest or volume, if the step has one.
    pub item: Option<String>,
    /// The step: `backup`, `observe`, `retain` and so on.
    pub step: &'static str,
}

/// How far an engine is. What it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Bytes of the source that were handled.
    pub bytes_done: Option<u64>,
    /// Bytes of the source in all.
    pub bytes_total: Option<u64>,
    /// Files that were handled.
    pub files_done: Option<u64>,
    /// What it is doing, or the path it is at.
    pub current: Option<String>,
}

/// Watches a run. Must not fail and must not block for long.
pub trait Observer: Send + Sync {
    /// Takes notice of one event.
    fn on(&self, event: &Event);

    /// Whether somebody sees how far things are: only then it is worth a look how far there is to go.
    fn shows_progress(&self) -> bool {
        false
    }
}

/// Tells several observers, in order.
pub struct Observers(pub Vec<Box<dyn Observer>>);

impl Observer for Observers {
    fn on(&self, event: &Event) {
        for observer in &self.0 {
            observer.on(event);
        }
    }

    fn shows_progress(&self) -> bool {
        self.0.iter().any(|observer| observer.shows_progress())
    }
}
