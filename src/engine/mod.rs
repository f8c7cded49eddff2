//! What writes and reads copies: borg, restic and btrfs behind one trait.
//!
//! An engine turns a request into commands for the host, classifies what the program said by its message
//! ids (never by an exit status alone, see `facts` in each engine's own file), and reports. It decides no
//! policy: what to keep, when to check and whether a run was good belong to the layers above. That a copy
//! exists is not believed because [`Engine::backup`] returned, but because [`Engine::list`] shows it.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::{ActError, CommandSpec, Host, Tool};
use crate::model::copy::Copy;
use crate::model::event::Progress;
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::needs::Needs;
use crate::model::target::{ReadData, Target};
use crate::model::undo::ChildProcess;
use crate::tools::fuse;

pub mod borg;
pub mod btrfs;
mod error;
mod kinds;
mod needs;
mod report;
mod request;
pub mod restic;
#[cfg(test)]
pub(crate) mod scripted;
pub mod secret;

pub use error::EngineError;
pub use kinds::{Engines, engine, engines};
pub use report::{
    BackupReport, Change, ChangeKind, CheckReport, Compacted, ContentsCheck, Entry, Initialised,
    Probe, RestoreReport,
};
pub use request::{BackupRequest, Expected, Input, RestoreRequest, Snapshot, StillSubvolume};

/// What every engine call gets from the run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The machine that everything is done on.
    pub host: &'a dyn Host,
    /// The settings; engines use the directories and the host name.
    pub settings: &'a Settings,
    /// Where children put temporary files (`TMPDIR`); the engine's own default when absent.
    pub temporary: Option<&'a std::path::Path>,
    /// How long the engine waits for its own lock.
    pub lock_wait: Duration,
    /// The run whose ledger knows of the locks that the engine takes, which bear its name; `None` where no ledger does.
    pub run: Option<&'a RunId>,
}

impl Context<'_> {
    /// Whether the repository of a target lies on a file system here that is mounted read-only.
    fn is_read_only(&self, target: &Target) -> bool {
        let path = target.local.as_deref();
        path.is_some_and(|path| self.host.is_read_only(path).unwrap_or(false))
    }
}

/// Tells a person that a repository, shown as this, can only be read.
fn tell_read_only(target: &Target, repository: &str) {
    tracing::warn!(
        "target {}: the file system of {repository} is mounted read-only; its copies are read without a lock, and nothing can be stored there",
        target.name
    );
}

/// What a ledger knows of the lock that an engine of its run may have left in a repository.
///
/// A lock is ours only by the name it bears, which holds the run's id: another container or machine may have our
/// host name, and its process our process's number. It is released only when the process that the lock names is
/// proven dead: no process of that number runs, or one that is another by start time or boot than any that the
/// run has started.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The name that locks of the run bear; `None` when nothing tells them from others'.
    pub owner: Option<&'a str>,
    /// Every process that the run has started.
    pub children: &'a [ChildProcess],
}

impl Claim<'_> {
    /// Whether the process of this number that a lock of the run names is proven dead.
    ///
    /// # Errors
    /// When the table of processes cannot be read.
    pub fn is_dead(&self, host: &dyn Host, pid: i32) -> Result<bool, ActError> {
        let Some(found) = host.process(pid)? else { return Ok(true) };
        let earlier_boot = self.children.iter().all(|child| child.boot_id != found.boot_id);
        if earlier_boot {
            return Ok(!self.children.is_empty());
        }
        // Of a process that the ledger does not name (an engine's own child) nothing is known.
        let mut same_number = self.children.iter().filter(|child| child.pid == pid).peekable();
        Ok(same_number.peek().is_some() && !same_number.any(|child| child.is_same(&found)))
    }
}

/// Takes progress as it comes.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress);

/// One repository, spoken to through the program that made it.
///
/// What has no body here is what each must differ in. What has one is what not every engine has: the body says so, as
/// [`EngineError::Unsupported`] or as what it means to have nothing of the kind.
pub trait Engine: Send + Sync {
    /// The target it serves.
    fn target(&self) -> &Target;

    /// Its program on this machine.
    fn program(&self) -> Tool;

    /// Directories that it makes for itself on this machine, also when it only looks: a dry run, which leaves nothing
    /// behind, has it make them elsewhere as long as they are not there.
    fn own_directories(&self, settings: &Settings) -> Vec<PathBuf> {
        let _ = settings;
        Vec::new()
    }

    /// Whether nobody else may be at the repository while a copy is made.
    fn is_written_alone(&self) -> bool {
        false
    }

    /// Directories that it writes to while it reads a source, besides the cache: where a capture covers one, it must
    /// see the live one.
    fn live_places(&self, settings: &Settings) -> Vec<PathBuf> {
        let _ = settings;
        self.target().local.iter().cloned().collect()
    }

    /// Whether a check can read a share of the data.
    fn reads_shares(&self) -> bool {
        true
    }

    /// Whether it takes locks in a repository, which it leaves there when it is killed; see
    /// [`Engine::release_dead_lock`].
    fn takes_locks(&self) -> bool {
        false
    }

    /// What [`Engine::mount`] calls the source of its mounts; `None` where it serves none.
    fn mount_source(&self) -> Option<&'static str> {
        None
    }

    /// What this machine lacks for [`Engine::mount`], with its remedy, if what the engine printed says so.
    fn missing_for_mount(&self, said: &str) -> Option<&'static str> {
        fuse::missing(said)
    }

    /// What it needs of the machine: to reach the repository, to open it, and for its own program.
    fn needs(&self) -> Needs {
        needs::of_target(self.target())
    }

    /// Creates the repository. Refuses one that exists.
    ///
    /// # Errors
    /// [`EngineError::RepositoryExists`] and the general ones.
    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError>;

    /// Looks whether the repository is there and the passphrase opens it. Changes nothing.
    ///
    /// # Errors
    /// What stands in the way.
    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError>;

    /// The id of the repository that was listed last, where a listing tells it; [`Engine::probe`] asks for it
    /// otherwise.
    fn listed_repository(&self) -> Option<String> {
        None
    }

    /// Has the engine take the repository for the one it knows, although it is at another place now. What an engine
    /// that remembers no places does: nothing.
    ///
    /// # Errors
    /// When the repository cannot be opened.
    fn accept_place(&self, cx: Context<'_>) -> Result<(), EngineError> {
        let _ = cx;
        Ok(())
    }

    /// Lists every copy in the repository, other people's and unfinished ones included
    /// (see [`Engine::unfinished`]).
    ///
    /// # Errors
    /// When the listing is not complete: a line that cannot be read is an error, never left out.
    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError>;

    /// Fills in which machines the copies say made them, where [`Engine::list`] does not tell. It costs another
    /// look into every copy, so it is for who asks.
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn read_machines(&self, cx: Context<'_>, copies: &mut [Copy]) -> Result<(), EngineError> {
        let _ = (cx, copies);
        Ok(())
    }

    /// Makes a copy.
    ///
    /// # Errors
    /// When no copy was made, or none that may be trusted.
    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError>;

    /// The name or id under which [`Engine::backup`] will store this request, where the engine lets us
    /// choose it (borg).
    fn name_for(&self, request: &BackupRequest) -> Option<String> {
        let _ = request;
        None
    }

    /// Whether a listed copy is a half-made one of a run that was cut off (a borg checkpoint), and the name
    /// that the finished one would have had.
    fn unfinished(&self, copy: &Copy) -> Option<String> {
        let _ = copy;
        None
    }

    /// Deletes copies by exact id. That they are gone is for the caller to see in a listing.
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError>;

    /// Frees the space that deletions left.
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn compact(&self, cx: Context<'_>, progress: OnProgress<'_>) -> Result<Compacted, EngineError> {
        let _ = (cx, progress);
        Ok(Compacted::NotNeeded)
    }

    /// Checks the whole repository. The configuration refuses `[targets.NAME.check]` for an engine whose row there says
    /// that it cannot.
    ///
    /// # Errors
    /// When the check could not be carried out: not the same as damage, which is in the report.
    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let _ = (cx, read_data, progress);
        Err(EngineError::unsupported(self.target(), "check a repository"))
    }

    /// Reads one whole copy back, as a restore would, and throws it away.
    ///
    /// # Errors
    /// When it could not be tried: not the same as damage, which is in the report.
    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        let _ = (cx, copy);
        Err(EngineError::unsupported(self.target(), "read a copy back without restoring it"))
    }

    /// Restores what is asked for of a copy.
    ///
    /// # Errors
    /// When something was not restored.
    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        progress: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError>;

    /// The paths of which a copy was made, where the repository says it. `None`: the copy lists them and what is
    /// below them, and nothing above them.
    ///
    /// # Errors
    /// When the repository cannot be asked.
    fn sources(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError> {
        let _ = (cx, copy);
        Ok(None)
    }

    /// Writes the content of one file of a copy to our own standard output.
    ///
    /// # Errors
    /// When it was not written whole.
    fn stream(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        path: &std::path::Path,
    ) -> Result<(), EngineError> {
        let _ = (cx, copy, path);
        Err(EngineError::unsupported(self.target(), "write a file of a copy to standard output"))
    }

    /// The command that serves a copy as a file system at a directory, in the foreground until stopped.
    ///
    /// # Errors
    /// When the passphrase cannot be had.
    fn mount(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        at: &std::path::Path,
    ) -> Result<CommandSpec, EngineError> {
        let _ = (cx, copy, at);
        Err(EngineError::unsupported(self.target(), "serve a copy as a file system"))
    }

    /// Hands every entry of a copy to `each`, in the engine's order; nothing is collected.
    ///
    /// # Errors
    /// When the listing is not complete.
    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError>;

    /// Looks for expected paths in a copy, named by its id or, where the engine says no more of a new one, the
    /// beginning of it. `None`: this engine says what is missing while it stores.
    ///
    /// # Errors
    /// When the contents of the copy cannot be read.
    fn find_absent(
        &self,
        cx: Context<'_>,
        id: &str,
        expected: &[Expected],
    ) -> Result<Option<ContentsCheck>, EngineError> {
        let _ = (cx, id, expected);
        Ok(None)
    }

    /// Hands every difference between two copies to `each`.
    ///
    /// # Errors
    /// When the comparison is not complete.
    fn diff(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        let _ = (cx, older, newer, each);
        Err(EngineError::unsupported(self.target(), "compare copies"))
    }

    /// Marks a copy, as [`Engine::list`] gave it, in the repository as never to be pruned, or takes the mark
    /// away. Answers with the copy's id after that, which is another one with borg (the mark is in the name)
    /// and with restic (it is a tag, and tags are part of a snapshot's identity).
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn set_pin(&self, cx: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError> {
        let _ = (cx, copy, pinned);
        Err(EngineError::unsupported(self.target(), "mark a copy as one to keep"))
    }

    /// Copies these copies, as the other one lists them, from a repository of the same engine into this one.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where the engine cannot, and the general ones.
    fn copy_from(
        &self,
        cx: Context<'_>,
        source: &dyn Engine,
        copies: &[&Copy],
        progress: OnProgress<'_>,
    ) -> Result<(), EngineError> {
        let _ = (cx, source, copies, progress);
        Err(EngineError::unsupported(self.target(), "copy from one repository to another"))
    }

    /// The name that the locks of the context's run bear, and no others; `None` when nothing tells them from
    /// others'. It is known before the lock is taken, for the ledger.
    fn lock_owner(&self, cx: Context<'_>) -> Option<String> {
        let _ = cx;
        None
    }

    /// Releases the locks that a run left and whose processes are proven dead, and nobody else's. They are gone
    /// when this succeeds: it has looked. An engine without locks is never asked; see [`Engine::takes_locks`].
    ///
    /// # Errors
    /// When the engine could not carry it out, or not without taking somebody else's lock with it.
    fn release_dead_lock(&self, cx: Context<'_>, claim: Claim<'_>) -> Result<(), EngineError> {
        let _ = (cx, claim);
        Ok(())
    }
}
