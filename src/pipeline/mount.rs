//! One copy as a file system, in the host's namespace, until it is unmounted.
//!
//! The engine serves it, or it lies on this machine and is shown at another place. Either mount stays when we are
//! killed, and one whose server was killed fails whoever looks at it. So it is in the ledger, like everything that
//! outlives a process.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError};
use crate::host::spec::quote;
use crate::host::{
    ActError, Action, CommandSpec, Effect, HELPER_LIMIT, Halt, Host, MountEntry, PathKind,
};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::{EngineUndo, EntryId, Identity, Ledger, ServedMount};
use crate::tools::fuse;

use super::engine_lock::bracketed;
use crate::step::context::RunContext;
use crate::step::error::{StepError, ledger_error};

mod shown;

/// How long an engine may take until the copy is there: it loads the repository's index first, perhaps over a slow
/// line.
const LIMIT: Duration = Duration::from_secs(600);

/// How often the mount table is read until then.
const INTERVAL: Duration = Duration::from_millis(100);

/// How many lines are kept of what the engine says, for a message.
const LINES: usize = 20;

/// Mounts a copy at an empty directory and serves it until somebody unmounts it, or a signal comes. `ready` is
/// called, from another thread, when it is there. What an engine that was killed leaves mounted is in the ledger.
///
/// # Errors
/// When it cannot be mounted, or the engine ends in another way than by being unmounted; [`Trouble::Signal`] is
/// the usual end.
pub fn mount(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    at: &Path,
    ready: &(dyn Fn() + Sync),
) -> Result<(), StepError> {
    let host = cx.host();
    let at = host.canonical(at);
    match host.path_state(&at)? {
        Some(state) if state.kind == PathKind::Directory && state.empty => {}
        _ => {
            let text = format!("{} is not an empty directory", at.shown());
            return Err(StepError::new(Trouble::Configuration, text));
        }
    }
    let before = host.mounts()?.into_iter().filter(|entry| entry.at == at);
    let mut intended = ServedMount {
        source: String::new(),
        subvolume: None,
        before: before.map(|entry| entry.id).collect(),
        boot_id: host.boot_id()?,
        path: at,
    };
    if let Some(local) = engine.local_copy(cx.engine(), copy)? {
        intended.subvolume = local.found.uuid.clone();
        return shown::show(cx, local, intended, ready);
    }
    let Some(source) = engine.mount_source() else {
        return Err(StepError::new(Trouble::Environment, not_mounted(engine, copy)));
    };
    intended.source = source.into();
    let undo = EngineUndo::from(intended.clone());
    let entry = cx.ledger.intend(undo.into()).map_err(ledger_error)?;
    let waiting = Waiting { host, ledger: cx.ledger, entry, intended: &intended, ready };
    bracketed(cx, engine, |engine, context| {
        waiting.serve(engine, &engine.mount(context, copy, &intended.path)?)
    })
}

/// Why a copy cannot be mounted, and what may be done instead.
fn not_mounted(engine: &dyn Engine, copy: &Copy) -> String {
    let job = copy.series.as_ref().map_or("JOB", |series| series.job.as_str());
    let (target, id) = (&engine.target().name, quote(&copy.id));
    format!(
        "copies in target {target} cannot be mounted: they are on no file system of this machine, and nothing serves them — restore what you look for (stillpoint restore {job} {id} PATH --to DIR), or all of it (stillpoint restore {job} {id} --as-subvolume --to PATH, where the copy is of a subvolume)"
    )
}

/// Somebody who waits for the mount, beside the engine that makes it.
struct Waiting<'a> {
    host: &'a dyn Host,
    ledger: &'a dyn Ledger,
    entry: EntryId,
    intended: &'a ServedMount,
    ready: &'a (dyn Fn() + Sync),
}

/// Tells whoever waits that the engine has ended, also when the stack unwinds.
struct Ended<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

impl Waiting<'_> {
    /// Lets the engine serve the copy until it ends.
    fn serve(&self, engine: &dyn Engine, spec: &CommandSpec) -> Result<(), EngineError> {
        let mut said = Vec::new();
        let ended = (Mutex::new(false), Condvar::new());
        let completed = std::thread::scope(|scope| {
            let spawned = std::thread::Builder::new()
                .name("mount".into())
                .spawn_scoped(scope, || self.wait(&ended, &spec.view.halt));
            if let Err(error) = spawned {
                spec.view.halt.raise(format!("cannot wait for the mount: {error}"));
            }
            let _ended = Ended(&ended);
            self.host.run(spec, &mut |_, line| {
                if said.len() < LINES {
                    said.push(String::from_utf8_lossy(line).into_owned());
                }
            })
        })?;
        if completed.success() {
            return Ok(());
        }
        if let Some(what) = engine.missing_for_mount(&said.join("\n")) {
            return Err(EngineError::Unsupported { engine: spec.tool.name(), what: what.into() });
        }
        Err(EngineError::Failed {
            command: spec.display(),
            exit: completed.exit.to_string(),
            detail: said.join("; "),
        })
    }

    /// Waits until the copy is mounted, writes down which mount it is and says so. Stops the engine at the limit.
    fn wait(&self, ended: &(Mutex<bool>, Condvar), halt: &Halt) {
        let began = Instant::now();
        let mut over = ended.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            drop(over);
            match self.host.mounts() {
                Ok(mounts) => {
                    if let Some(ours) = mounts.iter().rfind(|entry| is_new(self.intended, entry)) {
                        let identity = Identity::Mount { id: ours.id, device: ours.device };
                        if let Err(error) = self.ledger.made(self.entry, identity) {
                            // The intent stands.
                            tracing::warn!("{}", ledger_error(error));
                        }
                        return (self.ready)();
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot look for the mount"),
            }
            if began.elapsed() > LIMIT {
                return halt.raise(format!("it mounted nothing within {}s", LIMIT.as_secs()));
            }
            over = ended.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !*over {
                let waited = ended.1.wait_timeout(over, INTERVAL);
                over = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Whether a mount is one of the intended kind at the intended place, and was not there before.
fn is_new(intended: &ServedMount, entry: &MountEntry) -> bool {
    let is_of_the_kind = entry.is_fuse() == intended.subvolume.is_none();
    entry.at == intended.path && is_of_the_kind && !intended.before.contains(&entry.id)
}

/// Unmounts what is left mounted: the recorded mount or, where the crash came before the record, one of the intended
/// kind that was not there before. The engine itself must have ended, and nobody else's is touched: a mount that is
/// served is somebody else's, and so is one that shows another subvolume.
pub(super) fn unmount(
    host: &dyn Host,
    intended: &ServedMount,
    identity: Option<&Identity>,
) -> Result<(), StepError> {
    // A boot starts with none.
    if intended.boot_id != host.boot_id()? {
        return Ok(());
    }
    let is_ours = |entry: &&MountEntry| match identity {
        Some(identity) => {
            is_new(intended, entry)
                && *identity == Identity::Mount { id: entry.id, device: entry.device }
        }
        // What is shown is looked at by who takes it away.
        None if intended.subvolume.is_some() => {
            is_new(intended, entry) && entry.file_system == "btrfs"
        }
        None => is_new(intended, entry) && entry.source == Path::new(&intended.source),
    };
    let mounts = host.mounts()?;
    let Some(ours) = mounts.iter().rfind(is_ours) else { return Ok(()) };
    let path = &intended.path;
    if mounts.iter().rfind(|entry| entry.at == *path).is_some_and(|top| top.id != ours.id) {
        let text = format!(
            "something else is mounted over the copy at {} — unmount that first",
            path.shown()
        );
        return Err(StepError::new(Trouble::Cleanup, text));
    }
    let subvolume = intended.subvolume.clone();
    let action =
        Action::Unmount { path: path.clone(), id: ours.id, device: ours.device, subvolume };
    match host.act(&action) {
        Ok(None) => return Ok(()),
        Ok(Some(_)) => {}
        Err(ActError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied
                && intended.subvolume.is_none() =>
        {
            // Whoever is not root has mounted it with its help.
            let mut spec = CommandSpec::new(fuse::FUSERMOUNT, Effect::Mutate);
            spec.time_limit = Some(HELPER_LIMIT);
            host.run(&spec.args(["-u", "-z", "--"]).arg(path), &mut |_, _| {})?;
        }
        Err(error) => return Err(error.into()),
    }
    match host.mounts()?.iter().rfind(is_ours) {
        None => Ok(()),
        Some(_) => {
            let text = format!("{} is still mounted — umount it", path.shown());
            Err(StepError::new(Trouble::Cleanup, text))
        }
    }
}
