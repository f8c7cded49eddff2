//! What every step of a run can reach, and what a job protects, as a run sees it: a source is found by the one and works
//! in it, so they are declared together.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::capture;
use crate::engine::{BackupReport, Context, Engine, Engines, Input, Seat};
use crate::history::{History, HistoryError};
use crate::host::{Host, LockError, LockGuard, LockMode, Subvolume};
use crate::model::event::Observer;
use crate::model::job::{Config, Job};
use crate::model::names::{JobName, RunId, TargetName};
use crate::model::needs::Needs;
use crate::model::outcome::Trouble;
use crate::model::report::VolumeReport;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::model::undo::Ledger;

use super::error::StepError;
use super::recorder::Recorder;

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
    /// Whether the ledger outlives a reboot, as an engine's lock does.
    pub durable: bool,
    /// Held by the job that just holds its source still, so that what it intends no other one intends as well: a name
    /// that is free, space that is left.
    pub holding: &'a Mutex<()>,
    /// The machines that have given no answer to the job that is at work, if one is.
    pub silent: Option<&'a capture::Silent>,
    /// Where targets that are at work at the same time share what they send, for the one that is at work, if it is one
    /// of several.
    pub seat: Option<&'a Seat<'a>>,
}

impl<'a> Pipeline<'a> {
    /// The engine of a target of the configuration.
    ///
    /// # Panics
    /// When the engines are not those of the configuration: [`crate::engine::engines`] makes one for each of its targets.
    pub fn engine(&self, target: &Target) -> &'a dyn Engine {
        self.engines[&target.name].as_ref()
    }

    /// The engine of a target known by its name alone, as from a ledger; `None` when the configuration names it no more.
    pub fn engine_named(&self, target: &TargetName) -> Option<&'a dyn Engine> {
        self.engines.get(target).map(Box::as_ref)
    }

    /// What a job protects.
    pub fn source<'j>(&self, job: &'j Job) -> Box<dyn Source + 'j> {
        (self.sources)(job)
    }

    /// What captures are made and released with.
    pub fn capture_context(&self) -> capture::Context<'a> {
        capture::Context { host: self.host, settings: &self.config.settings, silent: None }
    }

    /// What engines get outside a run, with the default temporary directory.
    pub fn engine_context(&self) -> Context<'a> {
        Context {
            host: self.host,
            settings: &self.config.settings,
            temporary: None,
            lock_wait: self.config.settings.lock_wait,
            run: None,
            seat: None,
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

    /// Has the other jobs of the run wait with holding their sources still.
    pub fn hold_alone(&self) -> MutexGuard<'a, ()> {
        // Whoever panicked there has what it intended in the ledger.
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on unless we were told to stop.
    ///
    /// # Errors
    /// With the signal.
    pub fn unless_stopped(&self) -> Result<(), StepError> {
        match self.host().stop_signal() {
            Some(signal) => Err(StepError::new(Trouble::Signal(signal), "interrupted")),
            None => Ok(()),
        }
    }

    /// What captures are made and released with.
    pub fn capture(&self) -> capture::Context<'a> {
        capture::Context { silent: self.silent, ..self.pipeline.capture_context() }
    }

    /// What engines get for a look, whose lock is no concern of the ledger: it bears the machine's own name.
    pub fn engine(&self) -> Context<'a> {
        Context {
            temporary: self.staging.map(PathBuf::as_path),
            seat: self.seat,
            ..self.pipeline.engine_context()
        }
    }
}

/// How long a child of a dead run gets to end by itself.
pub const CHILD_GRACE: Duration = Duration::from_secs(20);

/// The name of one thing that has copies of its own: a command, a guest. `None` where a source is one thing as a whole.
pub type Item = Option<String>;

/// Finds the source of a job.
pub type Sources = dyn Fn(&Job) -> Box<dyn Source + '_> + Sync;

/// What was looked at, each with what came of it.
pub type Findings = Vec<(String, Result<String, StepError>)>;

/// What a job protects.
pub trait Source: Sync {
    /// The key that chose it, such as `files`.
    fn kind(&self) -> &'static str;

    /// Its items, where the configuration alone says them; `None` where only the machine knows.
    fn declared(&self) -> Option<Vec<Item>>;

    /// The items that there are now: those that are declared, unless only the machine knows.
    ///
    /// # Errors
    /// When the machine cannot tell.
    fn items(&self, _: &dyn Host) -> Result<Vec<Item>, StepError> {
        Ok(self.declared().unwrap_or_default())
    }

    /// The snapshots of its items that are on this machine, whoever made them: by these it is known what copies are of that
    /// say no more than what was sent.
    ///
    /// # Errors
    /// When the machine cannot tell.
    fn snapshots(&self, _: Pipeline<'_>) -> Result<Vec<ItemSnapshot>, StepError> {
        Ok(Vec::new())
    }

    /// Which of these items are held still together, in the order in which that happens. Each is in one batch.
    fn batches(&self, items: Vec<Item>) -> Vec<Vec<Item>> {
        vec![items]
    }

    /// Holds a batch still, for the engines of these targets. `None` when it cannot be held: the record says why, and
    /// nothing of it is held any more.
    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: &[Item],
        targets: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>>;

    /// The same of what is here already, of the snapshots that it keeps: nothing is made. `None` also where it keeps none.
    fn hold_kept<'s>(
        &'s self,
        _: RunContext<'_>,
        _: &mut Recorder<'_>,
        _: &[Item],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        None
    }

    /// Whether it keeps snapshots for their own sake, by a policy of the job: then each run makes one, even if there is no
    /// target that could take a copy.
    fn keeps_snapshots(&self) -> bool {
        false
    }

    /// Tidies up what it keeps from run to run, when all targets have been served. Which of them took a copy is read from
    /// history, where the run has recorded that by now; neither this nor [`HeldBatch::release`] is told.
    fn settle(&self, _: RunContext<'_>, _: &mut Recorder<'_>) {}

    /// Whether a copy that an engine reports so holds nothing, and should.
    fn holds_nothing(&self, report: &BackupReport) -> bool;

    /// What to say of a path that a new copy was to hold and does not.
    fn not_held(&self, _: &dyn Host, path: &Path) -> String {
        format!("{}, a path of the job, is not in the copy", path.shown())
    }

    /// The programs that it starts beside engines, each with the item that it is for.
    fn programs(&self) -> Vec<(String, &[String])> {
        Vec::new()
    }

    /// What it needs of the machine.
    fn needs(&self) -> Needs;

    /// What a run to these targets would find in its way: what was looked at, and what came of it. Changes nothing.
    fn preflight(&self, pipeline: Pipeline<'_>, targets: &[&Target]) -> Findings;
}

/// A read-only snapshot of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemSnapshot {
    /// The item.
    pub item: Item,
    /// The block device of the file system.
    pub device: PathBuf,
    /// Its path, from the top-level subvolume on.
    pub path: PathBuf,
    /// The snapshot.
    pub found: Subvolume,
}

/// What a target is to get of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// What was held still just now.
    Now,
    /// These snapshots, in this order: the newest comes last, and there is one.
    These {
        /// The snapshots.
        snapshots: Vec<DueSnapshot>,
        /// What somebody should know of it.
        remark: Option<String>,
    },
    /// Nothing: it has all there is.
    Nothing {
        /// The same in words.
        why: String,
        /// What is not in the copy that it has, in words, if that was not a good one.
        lacks: Option<String>,
    },
}

/// A snapshot that was there before the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSnapshot {
    /// Its UUID.
    pub uuid: String,
    /// The run that made it, if one of ours did: the copy is that one's.
    pub run: Option<RunId>,
    /// When it was made.
    pub made: DateTime<Utc>,
}

/// Items that are held still together, until they are released.
pub trait HeldBatch: Sync {
    /// What the engine of a target gets to read of an item. `None` when the item is not in this batch.
    fn input(&self, cx: RunContext<'_>, item: &Item, target: &Target) -> Option<Input>;

    /// The same of an earlier snapshot that is there still, by its UUID; `None` when it is not.
    fn input_of(&self, _: RunContext<'_>, _: &Item, _: &Target, _uuid: &str) -> Option<Input> {
        None
    }

    /// What a target is to get of an item, where that was not held still just now.
    ///
    /// # Errors
    /// When there is nothing to get, or nobody can tell what it has.
    fn due(&self, _: RunContext<'_>, _: &Item, _: &Target) -> Result<Due, StepError> {
        Ok(Due::Now)
    }

    /// Why no copy was made of what was read, which may have gone meanwhile.
    fn judged(&self, _: RunContext<'_>, _: &Input, error: StepError) -> StepError {
        error
    }

    /// What of an item is missing and will be in no copy, in words; copies of the rest of it are incomplete.
    fn gaps(&self, item: &Item) -> &[String];

    /// How each volume of it is read, for the report.
    fn volumes(&self) -> &[VolumeReport];

    /// Whether it is still what it was when it was held, asked after reading.
    ///
    /// # Errors
    /// When it is not: what was read from it is worth nothing.
    fn still_holds(&self, cx: RunContext<'_>) -> Result<(), StepError>;

    /// Calls `read`, in which engines read, while somebody watches over what holding it does to the machine.
    fn watch(&self, cx: RunContext<'_>, read: &mut dyn FnMut());

    /// Lets it go, or keeps it for the next run where the source does that. It is not told which targets took a copy:
    /// that is not known before they are listed, so what nobody needs is released later, by [`Source::settle`]. What cannot
    /// be released is in the record, and stays in the ledger.
    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>);

    /// Lets it go for good, since no copy was made of it.
    fn discard(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        self.release(cx, rec);
    }
}
