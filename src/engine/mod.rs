//! What writes and reads copies: borg, restic, btrfs and stored streams behind one trait.
//!
//! An engine turns a request into commands for the host, classifies what the program said by its message
//! ids (never by an exit status alone, see `facts` in each engine's own file), and reports. It decides no
//! policy: what to keep, when to check and whether a run was good belong to the layers above. That a copy
//! exists is not believed because [`Engine::backup`] returned, but because [`Engine::list`] shows it.

use std::path::PathBuf;

use crate::host::{CommandSpec, Subvolume, Tool};
use crate::model::copy::Copy;
use crate::model::event::Progress;
use crate::model::job::Settings;
use crate::model::needs::Needs;
use crate::model::target::{ReadData, Target};
use crate::tools::fuse;

mod adoption;
mod blame;
pub mod borg;
pub mod btrfs;
mod changed;
mod claim;
mod comparison;
mod context;
mod error;
mod estimate;
mod helped;
mod kinds;
mod made;
mod needs;
mod received;
mod report;
mod request;
pub mod restic;
#[cfg(test)]
pub(crate) mod scripted;
pub mod secret;
mod sent;
mod sharing;
pub mod streams;
mod tree;
mod unsent;

pub use adoption::{Adoption, Foreign, Found, TakeOver};
pub use changed::Changed;
pub use claim::Claim;
pub use comparison::{Comparison, SentAs};
pub use context::Context;
pub use error::EngineError;
pub use kinds::{Engines, engine, engines};
pub use report::{
    BackupReport, Change, ChangeKind, CheckReport, Compacted, ContentsCheck, Entry, Estimate,
    Fetch, Initialised, LocalCopy, Probe, RestoreReport, SentCopy,
};
pub use request::{
    AsSubvolume, BackupRequest, Expected, Input, RestoreRequest, SentFrom, Snapshot, StillSubvolume,
};
pub use sharing::{Closing, Seat, Sharing};

/// Tells a person that a repository, shown as this, can only be read.
fn tell_read_only(target: &Target, repository: &str) {
    tracing::warn!(
        "target {}: the file system of {repository} is mounted read-only; its copies are read without a lock, and nothing can be stored there",
        target.name
    );
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

    /// How what other programs made becomes a copy, where that takes more than that history knows of it.
    fn adoption(&self) -> Option<&dyn Adoption> {
        None
    }

    /// How its copies are compared with what they are of, where they are trees that can be told entry by entry.
    fn comparison(&self) -> Option<&dyn Comparison> {
        None
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

    /// Whether a copy that was not made to its end may be gone on with in a later run, with the snapshot that it is of.
    fn resumes(&self) -> bool {
        false
    }

    /// Whether the target has a part of the copy that [`Engine::backup`] would make of this, and it would go on behind that.
    ///
    /// # Errors
    /// When the target cannot be asked.
    fn has_begun(&self, cx: Context<'_>, request: &BackupRequest) -> Result<bool, EngineError> {
        let _ = (cx, request);
        Ok(false)
    }

    /// Of which snapshots of subvolumes it has copies, as far as it says itself; those of no others are named.
    ///
    /// # Errors
    /// When the target cannot be asked.
    fn sent(&self, cx: Context<'_>) -> Result<Vec<SentCopy>, EngineError> {
        let _ = cx;
        Ok(Vec::new())
    }

    /// Whether it can tell beforehand how much a copy would take.
    fn can_estimate(&self) -> bool {
        false
    }

    /// Tells how much a copy of this would take. Stores nothing.
    ///
    /// # Errors
    /// When it cannot tell.
    fn estimate(&self, cx: Context<'_>, input: &Input) -> Result<Estimate, EngineError> {
        let _ = (cx, input);
        Err(EngineError::unsupported(self.target(), "tell beforehand how much a copy would take"))
    }

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

    /// How a person gets rid of copies that somebody has changed, where those are still known.
    fn changed(&self) -> Option<&dyn Changed> {
        None
    }

    /// Waits until what was deleted has left free space behind, where that takes its time.
    ///
    /// # Errors
    /// When that has not come about within a long time, or cannot be asked.
    fn await_freed(&self, cx: Context<'_>) -> Result<(), EngineError> {
        let _ = cx;
        Ok(())
    }

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

    /// Whether a copy can be looked into only after [`Engine::unpack`].
    fn is_packed(&self) -> bool {
        false
    }

    /// A directory of this machine below which copies are to be unpacked, if the configuration names one.
    fn scratch(&self) -> Option<&std::path::Path> {
        None
    }

    /// Unpacks a copy into an empty directory of ours. As long as it lies there, calls that look into that copy do so
    /// there; the caller removes it.
    ///
    /// # Errors
    /// When it is not all there, or takes what is to stay free.
    fn unpack(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<(), EngineError> {
        let _ = (cx, wanted, progress);
        Err(EngineError::unsupported(self.target(), "unpack a copy"))
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

    /// Restores a copy whole, as a read-only subvolume of a btrfs of this machine. It is on the disk when this answers with
    /// it; an empty one in a dry run.
    ///
    /// # Errors
    /// When it was not restored whole: something of it may lie there then.
    fn restore_as_subvolume(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        let _ = (cx, wanted, progress);
        Err(EngineError::unsupported(self.target(), "restore a copy as a subvolume"))
    }

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

    /// Where a copy lies on this machine as a tree of its own; `None` where it must be served to be looked at
    /// ([`Engine::mount`]).
    ///
    /// # Errors
    /// When the repository cannot be asked.
    fn local_copy(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<LocalCopy>, EngineError> {
        let _ = (cx, copy);
        Ok(None)
    }

    /// What it takes to receive a copy here ([`Engine::restore_as_subvolume`]) to look at it, where it lies on no file system
    /// of this machine and nothing serves it; `None` where that is not what is to be done.
    ///
    /// # Errors
    /// When the repository cannot be asked.
    fn fetch(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Fetch>, EngineError> {
        let _ = (cx, copy);
        Ok(None)
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
