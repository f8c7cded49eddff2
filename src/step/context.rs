//! What every step of a run can reach.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::{Context, Engine, Engines};
use crate::history::{History, HistoryError};
use crate::host::{Host, LockError, LockGuard, LockMode};
use crate::model::event::Observer;
use crate::model::job::{Config, Job};
use crate::model::names::{JobName, RunId, TargetName};
use crate::model::undo::Ledger;

use super::source::{Source, Sources};

/// What a verb hands to the pipeline.
#[derive(Clone, Copy)]
pub struct Pipeline<'a> {
    /// The machine, or what stands for it.
    pub host: &'a dyn Host,
    /// The configuration.
    pub config: &'a Config,
    /// The engines, see [`crate::engine::engines`].
    pub engines: &'a Engines,
    /// What jobs protect: `source::of`, or what stands for it.
    pub sources: &'a Sources,
    /// What is known of earlier runs; `None` when there has been none, or the verb goes on
    /// without it.
    pub history: Option<&'a History>,
    /// Who watches.
    pub observer: &'a dyn Observer,
}

/// A pipeline in a run.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// What the verb handed in.
    pub pipeline: Pipeline<'a>,
    /// The run.
    pub run: &'a RunId,
    /// Where acquired things are written down.
    pub ledger: &'a dyn Ledger,
    /// The run's own directory for engines' temporary files.
    pub staging: Option<&'a PathBuf>,
    /// The ledger is a makeshift one, which a reboot empties.
    pub makeshift: bool,
}

impl<'a> Pipeline<'a> {
    /// The engine of a target.
    pub fn engine(&self, target: &TargetName) -> Option<&'a dyn Engine> {
        self.engines.get(target).map(Box::as_ref)
    }

    /// What a job protects.
    pub fn source<'j>(&self, job: &'j Job) -> Box<dyn Source + 'j> {
        (self.sources)(job)
    }

    /// What engines get outside a run, with the default temporary directory.
    pub fn engine_context(&self) -> Context<'a> {
        Context {
            host: self.host,
            settings: &self.config.settings,
            temporary: None,
            lock_wait: self.config.settings.lock_wait,
            run: None,
        }
    }

    /// Takes the lock that keeps runs of one job apart: whoever holds it may run the job's hooks.
    ///
    /// # Errors
    /// When somebody else holds it longer than `wait`, or it cannot be taken.
    pub fn lock_job(
        &self,
        run: &RunId,
        job: &JobName,
        wait: Duration,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        let path = self.config.settings.runtime_dir.join("locks").join(format!("job-{job}.lock"));
        let holder = format!("run {run}, job {job}");
        self.host.lock(&path, LockMode::Exclusive, wait, &holder)
    }

    /// History, where what is noted in it is kept: not in a verb that can only read it and has said so, nor in a dry
    /// run. That one asks for itself, since history is no effect on the machine that the host could refuse: a plan must
    /// not make it, lock it or grow it.
    pub fn kept_history(&self) -> Option<&'a History> {
        self.history.filter(|history| history.is_writable() && !self.host.is_dry())
    }

    /// Notes something in history, where that is kept.
    ///
    /// # Errors
    /// When it cannot be written: the copies are not affected, so callers make it a warning.
    pub fn remember(
        &self,
        note: impl FnOnce(&History) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        self.kept_history().map_or(Ok(()), note)
    }
}

impl<'a> RunContext<'a> {
    /// The machine.
    pub fn host(&self) -> &'a dyn Host {
        self.pipeline.host
    }

    /// What to say of something: that it was done, or, in a dry run, that it would be. The one place that chooses.
    pub fn tense(&self, done: &'static str, would: &'static str) -> &'static str {
        if self.host().is_dry() { would } else { done }
    }

    /// The configuration.
    pub fn config(&self) -> &'a Config {
        self.pipeline.config
    }

    /// What engines get for a look, whose lock is no concern of the ledger: it bears the machine's own name.
    pub fn engine(&self) -> Context<'a> {
        Context { temporary: self.staging.map(PathBuf::as_path), ..self.pipeline.engine_context() }
    }
}

/// How long a child of a dead run gets to end by itself.
pub const CHILD_GRACE: Duration = Duration::from_secs(20);
