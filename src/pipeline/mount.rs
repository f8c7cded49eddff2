//! One copy as a file system, in the host's namespace, until it is unmounted.
//!
//! The engine serves it, or it lies on this machine and is shown at another place; or it lies elsewhere, and is received
//! here first, to be shown. Each mount stays when we are killed, and one whose server was killed fails whoever looks at
//! it. So it is in the ledger, like everything that outlives a process.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError};
use crate::host::{CommandSpec, Halt, Host};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::undo::{EngineUndo, EntryId, Identity, Ledger, ServedMount};

use super::engine_lock::bracketed;
use crate::step::context::RunContext;
use crate::step::error::{StepError, ledger_error};

mod fetched;
mod intended;
mod place;
mod shown;
mod unmount;

pub use intended::Wanted;
use intended::{instead, intended};
use unmount::is_new;
pub(super) use unmount::unmount;

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
    wanted: Wanted<'_>,
    ready: &(dyn Fn() + Sync),
) -> Result<(), StepError> {
    let host = cx.host();
    let mut intended = intended(host, wanted.at)?;
    if let Some(local) = engine.local_copy(cx.engine(), copy)? {
        intended.subvolume = local.found.uuid.clone();
        return shown::show(cx, local, intended, ready);
    }
    let Some(source) = engine.mount_source() else {
        let fetch = bracketed(cx, engine, |engine, context| engine.fetch(context, copy))?;
        let Some(fetch) = fetch else {
            return Err(StepError::new(Trouble::Environment, not_mounted(engine, copy)));
        };
        return fetched::show(cx, (engine, copy, fetch), wanted, ready);
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
    let target = &engine.target().name;
    format!(
        "{} in target {target} cannot be mounted: it is on no file system of this machine, and nothing serves it — {}",
        copy.id,
        instead(engine, copy)
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
