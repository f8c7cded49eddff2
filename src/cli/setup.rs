//! Everything a verb needs before it starts: the configuration, the machine, the engines, the history.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, SourceFile};
use crate::engine::{Engines, engines};
use crate::history::{FILE_NAME, History, HistoryError};
use crate::host::dry::DryHost;
use crate::host::sys::trusted::read_trusted;
use crate::host::system::SystemHost;
use crate::host::{Action, Host};
use crate::machine;
use crate::model::event::{Observer, Observers};
use crate::model::job::{Config, Settings};
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::identity;
use crate::pipeline::recover::wake;
use crate::pipeline::session::{LedgerDirectory, own_directories, session};
use crate::pipeline::trust::refuse_unfit_directories;
use crate::report::terminal::Terminal;
use crate::source;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;

use crate::tools::exclude::pattern_fault;

use super::options::Global;
use super::render;

/// What a verb works with.
pub struct Setup {
    /// The machine, or a dry one in front of it.
    pub host: Arc<dyn Host>,
    /// The dry one, when it is.
    pub dry: Option<Arc<DryHost>>,
    /// The configuration.
    pub config: Config,
    engines: Engines,
    history: Option<History>,
    unrecorded: Option<StepError>,
    ledger_in: LedgerDirectory,
    observer: Observers,
}

/// How a verb uses the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It only reads, and goes on where history cannot be read.
    Inspect,
    /// It only reads, and what it says would not be true without history.
    Report,
    /// It reads copies back, or shows how it would. Whatever has befallen the state directory, that must go: it
    /// goes on without history and with a volatile ledger.
    ReadBack {
        /// It only shows.
        dry_run: bool,
    },
    /// It changes something.
    Change,
    /// It only releases what crashed runs left behind. History is not opened: what they left may be what has filled
    /// the disk that it lies on.
    Recover,
    /// It shows what it would change.
    Plan,
}

impl Setup {
    /// Reads the configuration and opens the rest.
    ///
    /// # Errors
    /// When the configuration is invalid (every problem has been printed), or the state cannot be opened.
    pub fn new(global: &Global, how: Use) -> anyhow::Result<Self> {
        let mut config = load_config(global)?;
        refuse_unfit_directories(&config)?;
        let engines = engines(&config);
        let system = SystemHost::new().map_err(|error| {
            let hint = "every verb needs /proc: mount -t proc proc /proc";
            StepError::from_error(Trouble::Environment, &error, Some(hint))
        })?;
        let hypervisor = machine::hypervisor(machine::CONNECTION);
        let system: Arc<dyn Host> = Arc::new(system.with_hypervisor(hypervisor));
        if matches!(how, Use::Inspect | Use::Report | Use::ReadBack { .. })
            && let Err(error) = system.try_room(&config.settings.cache_dir)
        {
            tracing::info!("engines work below runtime-dir: {error}");
            config.settings.fallback_cache = Some(config.settings.runtime_dir.clone());
        }
        let is_dry = matches!(how, Use::Plan | Use::ReadBack { dry_run: true });
        let dry = is_dry.then(|| Arc::new(dry_host(&system, &engines, &config.settings)));
        let host = dry.clone().map_or(system, |dry| dry as Arc<dyn Host>);
        let (history, unrecorded) = open_history(host.as_ref(), &config, how)?;
        if let Some(history) = &history {
            whose(host.as_ref(), history, how)?;
        }
        let terminal = Terminal::new(render::terminal_options(global), Box::new(io::stderr()));
        let observer = Observers(vec![Box::new(terminal)]);
        let ledger_in = match how {
            Use::ReadBack { .. } => LedgerDirectory::StateElseRuntime,
            Use::Inspect | Use::Report | Use::Change | Use::Recover | Use::Plan => {
                LedgerDirectory::State
            }
        };
        Ok(Self { host, dry, config, engines, history, unrecorded, ledger_in, observer })
    }

    /// Adds somebody who watches.
    pub fn watch(&mut self, observer: Box<dyn Observer>) {
        self.observer.0.push(observer);
    }

    /// Without the terminal's progress: the verb says by itself what there is to say.
    pub fn without_progress(mut self) -> Self {
        self.observer.0.clear();
        self
    }

    /// What the pipeline needs.
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            host: self.host.as_ref(),
            config: &self.config,
            engines: &self.engines,
            sources: &source::of,
            history: self.history.as_ref(),
            observer: &self.observer,
        }
    }

    /// Why nothing can be recorded, where history can only be read.
    pub fn unrecorded(&self) -> Option<&StepError> {
        self.unrecorded.as_ref()
    }

    /// Runs `work` in a session of its own. Answers with its result, and with the troubles of what could not be
    /// released.
    ///
    /// # Errors
    /// When the session cannot begin, or `work` fails.
    pub fn session<T>(
        &self,
        work: impl FnOnce(RunContext<'_>) -> Result<T, StepError>,
    ) -> Result<(T, Vec<Trouble>), StepError> {
        let run = RunId::from_bytes(self.host.random());
        let (result, cleanup) = session(self.pipeline(), &run, self.ledger_in, work)?;
        if let Some(warning) = &cleanup.volatile {
            render::say(&format!("warning: {warning}"));
        }
        for line in &cleanup.recovered {
            render::say(line);
        }
        for left in &cleanup.leftovers {
            render::say(&format!("stillpoint: {}", left.message));
        }
        let result = result?;
        let mut troubles: Vec<Trouble> =
            cleanup.leftovers.iter().map(|left| left.trouble).collect();
        // What was finished before anybody looked at the flag is still not a success.
        troubles.extend(self.host.stop_signal().map(Trouble::Signal));
        Ok((result, troubles))
    }
}

/// The files of the configuration: the main one, then its drop-ins by name.
///
/// # Errors
/// When one of them cannot be read or may be changed by others than root.
pub fn read_files(main: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let mut paths = vec![main.to_owned()];
    let drop_ins = main.with_extension("d");
    match std::fs::read_dir(&drop_ins) {
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                let path = entry.map_err(|error| unfit(&error))?.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    found.push(path);
                }
            }
            found.sort();
            paths.extend(found);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unfit(&error).into()),
    }
    paths.into_iter().map(|path| read_file(&path)).collect()
}

fn unfit(error: &io::Error) -> StepError {
    StepError::from_error(Trouble::Configuration, error, None)
}

fn read_file(path: &Path) -> anyhow::Result<SourceFile> {
    let path = std::path::absolute(path).map_err(|error| unfit(&error))?;
    let bytes = read_trusted(&path, false).map_err(|error| {
        let hint = match error.is_missing() {
            true => Some(
                "write one with `stillpoint generate config`, or name one with --config".to_owned(),
            ),
            false => error.hint(),
        };
        StepError::from_error(Trouble::Configuration, &error, hint.as_deref())
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        StepError::new(
            Trouble::Configuration,
            format!("{}:{}: the file is not UTF-8 text", path.shown(), line + 1),
        )
    })?;
    Ok(SourceFile { path, text })
}

/// Reads and resolves the configuration; prints its warnings.
///
/// # Errors
/// With every problem at its place.
pub fn load_config(global: &Global) -> anyhow::Result<Config> {
    let files = read_files(&global.config)?;
    let host = host_name()?;
    match config::load(&files, &host, pattern_fault) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                super::render::say(&format!("warning: {warning}"));
            }
            Ok(loaded.config)
        }
        Err(problems) => Err(StepError::new(
            Trouble::Configuration,
            format!("the configuration is invalid\n{problems}"),
        )
        .into()),
    }
}

/// The machine's name, which is the default for `settings.host`.
///
/// # Errors
/// When the kernel does not tell.
pub fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname()
        .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
    Ok(name.to_string_lossy().into_owned())
}

/// A machine that only looks, and leaves nothing of the engines' own where they have not been yet.
fn dry_host(system: &Arc<dyn Host>, engines: &Engines, settings: &Settings) -> DryHost {
    let own = own_directories(engines, settings).into_iter();
    let absent = own.filter(|path| !path.exists()).collect();
    DryHost::new(Arc::clone(system)).with_aside(absent, settings.runtime_dir.clone())
}

/// The history, as far as the verb needs it, and why nothing can be added to one that can only be read.
fn open_history(
    host: &dyn Host,
    config: &Config,
    how: Use,
) -> Result<(Option<History>, Option<StepError>), StepError> {
    let path = config.settings.state_dir.join(FILE_NAME);
    match how {
        Use::Report | Use::Plan => Ok((History::open_existing(&path)?, None)),
        Use::Inspect | Use::ReadBack { dry_run: true } => {
            Ok((readable(config, History::open_existing(&path)), None))
        }
        Use::ReadBack { dry_run: false } => {
            wake(host, &config.settings);
            Ok(match open_to_write(host, config, &path) {
                Ok(history) => (readable(config, Ok(Some(history))), None),
                Err(error) => {
                    let history = readable(config, History::open_existing(&path));
                    // Whoever was told that it cannot be read has been told enough.
                    let unrecorded = history.is_some().then_some(error);
                    (history, unrecorded)
                }
            })
        }
        Use::Change => {
            wake(host, &config.settings);
            Ok((Some(open_to_write(host, config, &path)?), None))
        }
        Use::Recover => {
            wake(host, &config.settings);
            ensure_state(host, config)?;
            Ok((None, None))
        }
    }
}

/// Settles whose state directory this is, and tells what a person must know. What only reads copies goes on where
/// that cannot be done.
fn whose(host: &dyn Host, history: &History, how: Use) -> Result<(), StepError> {
    let warning = match identity::settle(host, history) {
        Ok(warning) => warning,
        Err(error) if matches!(how, Use::Inspect | Use::ReadBack { .. }) => {
            Some(StepError::from(error).message)
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(warning) = warning {
        render::say(&format!("warning: {warning}"));
    }
    Ok(())
}

/// How long to wait for another program that has history locked, however short lock-wait is: a writer of ours takes
/// milliseconds.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

fn open_to_write(host: &dyn Host, config: &Config, path: &Path) -> Result<History, StepError> {
    ensure_state(host, config)?;
    let patience = config.settings.lock_wait.max(LEAST_PATIENCE);
    Ok(History::open_within(path, patience)?)
}

fn ensure_state(host: &dyn Host, config: &Config) -> Result<(), StepError> {
    let action = Action::EnsureDirectory { path: config.settings.state_dir.clone(), mode: 0o700 };
    match host.act(&action) {
        Ok(_) => Ok(()),
        Err(error) => {
            let hint = "run it as root, or set state-dir";
            Err(StepError::from_error(Trouble::Environment, &error, Some(hint)))
        }
    }
}

/// History if all of it that listings need can be read; a person is told when it cannot. Damage may lie
/// anywhere in the file, and it must not show in the midst of what goes on without.
fn readable(config: &Config, opened: Result<Option<History>, HistoryError>) -> Option<History> {
    let read = opened.and_then(|history| {
        if let Some(history) = &history {
            for target in &config.targets {
                history.enrich(&target.name, &mut [])?;
            }
        }
        Ok(history)
    });
    read.unwrap_or_else(|error| {
        render::say(&format!(
            "warning: {}; until then sizes and pins that only history knows are missing, incomplete copies look like good ones, and nothing is recorded",
            StepError::from(error)
        ));
        None
    })
}
