//! A session surrounds everything that changes something: what crashed runs left behind is released first, the ledger
//! is open while it lasts, and whatever it acquired is released at the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::capture::workplaces;
use crate::engine::Engines;
use crate::host::Action;
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::ChildProcess;

use super::ledger::{FileLedger, NoLedger};
use super::recover::{Recovery, durable_ledgers, recover, recover_here, volatile_ledgers};
use super::staging::stage;
use super::undo::unwind;
use crate::capture::Silent;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;

/// What a session released, and what it could not release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// What was released for crashed runs, in sentences.
    pub recovered: Vec<String>,
    /// What could not be released, of crashed runs or of this one.
    pub leftovers: Vec<StepError>,
    /// Why the ledger was a volatile one, which a reboot empties, and what that means.
    pub volatile: Option<String>,
}

/// Where the ledger of a session may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerDirectory {
    /// In the state directory, where it outlives a reboot.
    State,
    /// There or, if nothing can be written there, in the runtime directory, the run's own directory with it.
    /// For what holds nothing over a reboot that an engine does not release by itself: its own directory goes
    /// with the ledger then, children end with the machine, and an engine's lock bears the machine's own name, by
    /// which the engine itself knows one of an earlier boot to be stale. What a restore has laid out is the exception: cut off by a reboot in such an hour, it stays in
    /// a directory `.stillpoint-restore-RUN` of root's, which the warning about the ledger lets a person expect.
    /// What `mount` would receive it does not receive then ([`RunContext::durable`]): nobody would expect that.
    StateElseRuntime,
}

/// Where a session keeps its ledger and the run's own directory.
struct Directories {
    ledgers: PathBuf,
    temporary: PathBuf,
    /// What must be there besides.
    needed: Vec<PathBuf>,
}

/// What the engines of all targets make for themselves on this machine, each once.
pub fn own_directories(engines: &Engines, settings: &Settings) -> BTreeSet<PathBuf> {
    engines.values().flat_map(|engine| engine.own_directories(settings)).collect()
}

impl Directories {
    fn in_state_dir(pipeline: Pipeline<'_>) -> Self {
        let settings = &pipeline.config.settings;
        let mut needed = vec![settings.state_dir.clone(), settings.cache_dir.clone()];
        // What engines make for themselves must have a place in a snapshot, where the live one is shown; the cache
        // directory is shown as a whole.
        let own = own_directories(pipeline.engines, settings).into_iter();
        needed.extend(own.filter(|path| !path.starts_with(&settings.cache_dir)));
        Self {
            ledgers: durable_ledgers(settings),
            temporary: match &settings.fallback_cache {
                // Nothing can be written there, and engines need their temporary files to read.
                Some(_) => settings.runtime_dir.join("tmp"),
                None => settings.cache_dir.join("tmp"),
            },
            needed,
        }
    }

    fn in_runtime_dir(settings: &Settings) -> Self {
        Self {
            ledgers: volatile_ledgers(settings),
            temporary: settings.runtime_dir.join("tmp"),
            needed: Vec::new(),
        }
    }
}

/// Hands children to the ledger as they come and go. A type of its own, since the host keeps it shared.
struct Children(Arc<FileLedger>);

impl crate::host::ChildRecorder for Children {
    fn started(&self, child: &ChildProcess) {
        self.0.started(child);
    }

    fn ended(&self, child: &ChildProcess) {
        self.0.ended(child);
    }
}

/// Runs `work` in a session. A dry host gets neither ledger nor recovery nor a directory. `ledger_in` says
/// whether it may do with a volatile ledger.
///
/// # Errors
/// When the ledger cannot be begun: then nothing was done.
pub fn session<T>(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger_in: LedgerDirectory,
    work: impl FnOnce(RunContext<'_>) -> T,
) -> Result<(T, Cleanup), StepError> {
    // Ledger, locks and recovery are there for effects, and a dry run has none.
    if pipeline.host.is_dry() {
        // What only reads is carried out, and may take an engine's lock.
        let cx = RunContext {
            pipeline,
            run,
            ledger: &NoLedger,
            staging: None,
            durable: false,
            holding: &Mutex::default(),
            silent: None,
            seat: None,
        };
        return Ok((work(cx), Cleanup::default()));
    }
    let settings = &pipeline.config.settings;
    let [root, part] = workplaces(settings);
    let locks = settings.runtime_dir.join("locks");
    for path in [root, part, settings.runtime_dir.clone(), locks] {
        ensure(pipeline, path)?;
    }
    let recovery = recover_before(pipeline, ledger_in)?;
    let mut cleanup =
        Cleanup { recovered: recovery.done, leftovers: recovery.failures, volatile: None };
    cleanup.recovered.extend(recovery.waiting.into_iter().map(|waiting| waiting.message));

    let (ledger, staging) = match begin(pipeline, run, &Directories::in_state_dir(pipeline)) {
        Err(error) if ledger_in == LedgerDirectory::StateElseRuntime => {
            let fallback = Directories::in_runtime_dir(settings);
            cleanup.volatile = Some(format!(
                "{error}; until then the ledger of a command that only reads copies lies in {}, which a reboot empties",
                fallback.ledgers.shown()
            ));
            begin(pipeline, run, &fallback)?
        }
        begun => begun?,
    };
    pipeline.host.record_children(Some(Arc::new(Children(Arc::clone(&ledger)))));
    let result = work(RunContext {
        pipeline,
        run,
        ledger: ledger.as_ref(),
        staging: Some(&staging),
        durable: cleanup.volatile.is_none(),
        holding: &Mutex::default(),
        silent: None,
        seat: None,
    });
    pipeline.host.record_children(None);

    cleanup.leftovers.extend(end(pipeline, run, ledger));
    Ok((result, cleanup))
}

/// Releases what crashed runs left. Who only reads copies is not kept from it by what cannot be released.
fn recover_before(
    pipeline: Pipeline<'_>,
    ledger_in: LedgerDirectory,
) -> Result<Recovery, StepError> {
    let recovered = match ledger_in {
        LedgerDirectory::StateElseRuntime => recover_here(pipeline),
        LedgerDirectory::State => recover(pipeline),
    };
    match recovered {
        Err(error) if ledger_in == LedgerDirectory::StateElseRuntime => {
            let failure = StepError { trouble: Trouble::Cleanup, ..error };
            Ok(Recovery { failures: vec![failure], ..Recovery::default() })
        }
        recovery => recovery,
    }
}

fn ensure(pipeline: Pipeline<'_>, path: PathBuf) -> Result<(), StepError> {
    match pipeline.host.act(&Action::EnsureDirectory { path, mode: 0o700 }) {
        Ok(_) => Ok(()),
        Err(error) => Err(StepError::from_error(Trouble::Environment, &error, error.hint())),
    }
}

/// Begins the ledger and makes the run's own directory, or nothing of both.
fn begin(
    pipeline: Pipeline<'_>,
    run: &RunId,
    directories: &Directories,
) -> Result<(Arc<FileLedger>, PathBuf), StepError> {
    for path in directories.needed.iter().chain([&directories.temporary]) {
        ensure(pipeline, path.clone())?;
    }
    let ledger = Arc::new(FileLedger::begin(&directories.ledgers, run)?);
    match stage(pipeline, run, ledger.as_ref(), &directories.temporary) {
        Ok(staging) => Ok((ledger, staging)),
        Err(error) => {
            for left in end(pipeline, run, ledger) {
                tracing::warn!("{left}");
            }
            Err(error)
        }
    }
}

/// Releases what the session holds, and ends its ledger. Answers with what could not be released.
fn end(pipeline: Pipeline<'_>, run: &RunId, ledger: Arc<FileLedger>) -> Vec<StepError> {
    let cleanup = |error| StepError { trouble: Trouble::Cleanup, ..StepError::from(error) };
    let mut leftovers = match ledger.replay() {
        Ok(replay) => unwind(pipeline, run, &ledger, &replay.outstanding, &Silent::default()),
        Err(error) => vec![cleanup(error)],
    };
    // The host has let go of its share, so this is the last one.
    if let Some(ledger) = Arc::into_inner(ledger)
        && let Err(error) = ledger.close()
    {
        leftovers.push(cleanup(error));
    }
    leftovers
}
