//! Where the directory of a target is: what its catalog asks of it and does there, and its processes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file_name::draft_of;
use crate::engine::sent::failure;
use crate::engine::tree::{Inside, Tree};
use crate::engine::{Context, EngineError};
use crate::host::{
    ActError, Action, CommandSpec, Completed, PathKind, Subvolume, SubvolumeAction, Tool,
    TrustKind, WriteWatch, mount_of,
};
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::tools::btrfs::stage::Uuid;
use crate::tools::btrfs::{PROGRAM, command};

/// A directory, on whichever machine it is. Paths are absolute ones there; what can fail does so when it cannot be told or
/// done, or was not done.
pub(super) trait Place {
    /// The directory, without links.
    fn directory(&self) -> &Path;

    /// What messages call it.
    fn name(&self) -> String;

    /// Is told the paths of the file and of the directory of ours that are asked for next.
    fn look_ahead(&self, file: &Path, directory: &Path) -> Result<(), EngineError> {
        let _ = (file, directory);
        Ok(())
    }

    /// Whether something is at a path: the directory's, or one in our own directory there.
    fn is_there(&self, path: &Path) -> Result<bool, EngineError>;

    /// Refuses a directory that is on no btrfs.
    fn require_btrfs(&self) -> Result<(), EngineError>;

    /// Refuses a directory into which others can come.
    fn require_closed(&self) -> Result<(), EngineError>;

    /// Refuses a directory in which somebody else than root may put something, or on the way to which.
    fn require_trusted(&self, directory: &Path) -> Result<(), EngineError>;

    /// The names in a directory of ours; none if it is not there.
    fn names(&self, directory: &Path) -> Result<BTreeSet<OsString>, EngineError>;

    /// Files in directories of ours that were to be renamed when they were whole (see [`draft_of`]), by whoever died before
    /// that; where another machine may be just about to, those that have lain there for a day.
    fn drafts(&self, directories: &[PathBuf]) -> Result<Vec<PathBuf>, EngineError>;

    /// What is in files of ours, each by itself.
    fn read(&self, files: &[PathBuf]) -> Result<Vec<Result<Vec<u8>, EngineError>>, EngineError>;

    /// Refuses another machine whose programs or kernel are too old to be relied on.
    fn require_new(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// The subvolumes at paths in the directory; `None` where there is none. When one was changed last may be untold.
    fn subvolumes(&self, at: &[PathBuf]) -> Result<Vec<Option<Subvolume>>, EngineError>;

    /// Where in the directory there are subvolumes.
    fn nested(&self) -> Result<Vec<PathBuf>, EngineError>;

    /// Whether only one subvolume of the whole file system was received as this, as far as can be told.
    fn is_only_one(&self, sent: Uuid) -> bool {
        let _ = sent;
        false
    }

    /// Makes a directory of ours, if it is missing.
    fn make_directory(&self, path: &Path) -> Result<(), EngineError>;

    /// Replaces a file of ours by another one that is whole and on the disk.
    fn write(&self, path: &Path, content: Vec<u8>) -> Result<(), EngineError>;

    /// Removes a file of ours, if it is there.
    fn remove(&self, path: &Path) -> Result<(), EngineError>;

    /// Has the flush tell of whatever is lost from now on, as long as the answer lives. Who asks another machine asks it anew
    /// each time, and is told what nobody was told before.
    fn watch(&self) -> Result<Box<dyn WriteWatch + '_>, EngineError> {
        Ok(Box::new(()))
    }

    /// Waits until all that was written is on the disk, and asks whether something was lost.
    fn flush(&self) -> Result<(), EngineError>;

    /// Renames a subvolume, if it is still what was found and nothing has that name.
    fn rename(&self, path: &Path, found: Subvolume, name: &str) -> Result<(), EngineError>;

    /// Deletes a subvolume, if it is still what was found.
    fn delete(&self, path: &Path, found: Subvolume) -> Result<(), EngineError>;

    /// btrfs-progs there.
    fn btrfs(&self) -> Tool;

    /// Whether compressed data can be received there, as far as that is another machine than this one.
    fn takes_compressed(&self) -> bool {
        true
    }

    /// A process as it is run there.
    fn there(&self, spec: CommandSpec) -> CommandSpec;

    /// What receives a stream there.
    fn receiver(&self, stall_limit: Duration) -> Result<CommandSpec, EngineError>;

    /// What packs some of a copy: directories alone, and whatever else with what is in it.
    fn pack(
        &self,
        copy: &Path,
        alone: &[Inside],
        whole: &[Inside],
    ) -> Result<CommandSpec, EngineError>;

    /// What prints a file of a copy.
    fn file(&self, copy: &Path, inside: &Inside) -> Result<CommandSpec, EngineError>;

    /// The processes that list a copy, as [`crate::tools::listing`] does.
    fn contents(&self, copy: &Path) -> Vec<CommandSpec>;

    /// Why a process failed, be it one there or here.
    fn why(&self, spec: &CommandSpec, completed: &Completed) -> EngineError;
}

/// A directory of this machine.
pub(super) struct Here<'a> {
    cx: Context<'a>,
    target: &'a Target,
    directory: PathBuf,
}

impl<'a> Here<'a> {
    /// That of a target.
    pub fn of(cx: Context<'a>, target: &'a Target) -> Self {
        let directory = target.local.as_deref().unwrap_or(Path::new(&target.repository));
        Self { cx, target, directory: cx.host.canonical(directory) }
    }

    fn tree(&self, copy: &Path) -> Tree<'_> {
        Tree { cx: self.cx, target: self.target, path: copy.to_owned() }
    }

    fn read_one(&self, file: &Path) -> Result<Vec<u8>, EngineError> {
        // To read a pipe would be to wait for ever.
        if self.cx.host.path_state(file)?.is_some_and(|found| found.kind == PathKind::Other) {
            return Err(damaged(file, "it is no file".into()));
        }
        self.cx.host.read(file).map_err(|error| match error {
            ActError::Io { path, source, .. } if says_of_the_file(&source) => {
                damaged(&path, source.to_string())
            }
            error => error.into(),
        })
    }

    fn act(&self, action: &Action) -> Result<(), EngineError> {
        self.cx.host.act(action)?;
        Ok(())
    }
}

impl Place for Here<'_> {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn name(&self) -> String {
        self.directory.shown().to_string()
    }

    fn is_there(&self, path: &Path) -> Result<bool, EngineError> {
        Ok(self.cx.host.path_state(path)?.is_some())
    }

    fn require_btrfs(&self) -> Result<(), EngineError> {
        let mounts = self.cx.host.mounts()?;
        match mount_of(&mounts, &self.directory) {
            Some(mount) if mount.file_system == "btrfs" => Ok(()),
            Some(_) | None => Err(on_no_btrfs(&self.directory)),
        }
    }

    fn require_closed(&self) -> Result<(), EngineError> {
        match self.cx.host.path_state(&self.directory)? {
            Some(found) => refuse_open(&self.directory, found.mode),
            None => Ok(()),
        }
    }

    fn require_trusted(&self, directory: &Path) -> Result<(), EngineError> {
        let checked = self.cx.host.check_trusted(directory, TrustKind::Directory);
        checked.map_err(EngineError::Untrusted)
    }

    fn names(&self, directory: &Path) -> Result<BTreeSet<OsString>, EngineError> {
        Ok(self.cx.host.names_in(directory)?.unwrap_or_default().into_iter().collect())
    }

    fn drafts(&self, directories: &[PathBuf]) -> Result<Vec<PathBuf>, EngineError> {
        let mut drafts = Vec::new();
        for directory in directories {
            let mut names = self.names(directory)?;
            names.retain(|name| name.to_str().and_then(draft_of).is_some());
            drafts.extend(names.into_iter().map(|name| directory.join(name)));
        }
        Ok(drafts)
    }

    fn read(&self, files: &[PathBuf]) -> Result<Vec<Result<Vec<u8>, EngineError>>, EngineError> {
        Ok(files.iter().map(|file| self.read_one(file)).collect())
    }

    fn subvolumes(&self, at: &[PathBuf]) -> Result<Vec<Option<Subvolume>>, EngineError> {
        at.iter().map(|path| Ok(self.cx.host.subvolume(path)?)).collect()
    }

    fn nested(&self) -> Result<Vec<PathBuf>, EngineError> {
        let mut there = self.cx.host.nested_subvolumes(&self.directory)?;
        there.retain(|path| path.parent() == Some(&self.directory));
        Ok(there)
    }

    fn is_only_one(&self, sent: Uuid) -> bool {
        self.cx.host.received_as(&self.directory, sent).is_ok_and(|there| there == 1)
    }

    fn make_directory(&self, path: &Path) -> Result<(), EngineError> {
        self.act(&Action::EnsureDirectory { path: path.to_owned(), mode: 0o700 })
    }

    fn write(&self, path: &Path, content: Vec<u8>) -> Result<(), EngineError> {
        self.act(&Action::ReplaceFile { path: path.to_owned(), mode: 0o600, content })
    }

    fn remove(&self, path: &Path) -> Result<(), EngineError> {
        self.act(&Action::RemoveFile { path: path.to_owned() })
    }

    fn watch(&self) -> Result<Box<dyn WriteWatch + '_>, EngineError> {
        Ok(self.cx.host.watch_writes(&self.directory)?)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.act(&Action::FlushFileSystem { path: self.directory.clone() })
    }

    fn rename(&self, path: &Path, found: Subvolume, name: &str) -> Result<(), EngineError> {
        let (path, name) = (path.to_owned(), name.to_owned());
        self.act(&Action::Subvolume(SubvolumeAction::RenameSubvolume { path, name, found }))
    }

    fn delete(&self, path: &Path, found: Subvolume) -> Result<(), EngineError> {
        let path = path.to_owned();
        self.act(&Action::Subvolume(SubvolumeAction::DeleteSubvolume { path, found }))
    }

    fn btrfs(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    fn there(&self, spec: CommandSpec) -> CommandSpec {
        spec
    }

    fn receiver(&self, stall_limit: Duration) -> Result<CommandSpec, EngineError> {
        let mounts = self.cx.host.mounts()?;
        let mount = mount_of(&mounts, &self.directory).map_or(Path::new("/"), |mount| &mount.at);
        Ok(command::receive_here(&self.btrfs(), (mount, &self.directory), stall_limit))
    }

    fn pack(
        &self,
        copy: &Path,
        alone: &[Inside],
        whole: &[Inside],
    ) -> Result<CommandSpec, EngineError> {
        self.tree(copy).archive(alone, whole)
    }

    fn file(&self, copy: &Path, inside: &Inside) -> Result<CommandSpec, EngineError> {
        self.tree(copy).file(inside)
    }

    fn contents(&self, copy: &Path) -> Vec<CommandSpec> {
        vec![self.tree(copy).contents()]
    }

    fn why(&self, spec: &CommandSpec, completed: &Completed) -> EngineError {
        failure(self.target, spec, completed)
    }
}

/// The generation of the last change of a subvolume of which that cannot be told now. None is ever changed in that.
pub(super) const UNTOLD: u64 = 0;

/// Why that is, in words.
pub(super) const WORKED_ON: &str = "something else works on it (a balance or a deduplication), so whether it was changed is not known now";

/// Whether it is not known whether a subvolume was changed. Of one that can be, nobody asks.
pub(super) fn is_untold(found: &Subvolume) -> bool {
    found.read_only && found.changed == UNTOLD
}

/// Whether a read failed because of what is at the path, and would again.
fn says_of_the_file(error: &std::io::Error) -> bool {
    use nix::errno::Errno;
    const OF_THE_FILE: [Errno; 4] = [Errno::EIO, Errno::EUCLEAN, Errno::EISDIR, Errno::ELOOP];
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(|errno| OF_THE_FILE.contains(&errno))
}

/// That a file of ours is not what it was.
pub(super) fn damaged(file: &Path, detail: String) -> EngineError {
    EngineError::Damaged { repository: file.shown().to_string(), detail }
}

/// That btrfs cannot do something, whatever for.
pub(super) fn unfit(what: String) -> EngineError {
    EngineError::Unsupported { engine: "btrfs".into(), what }
}

/// That a directory cannot take copies.
pub(super) fn on_no_btrfs(directory: &Path) -> EngineError {
    unfit(format!("{} is on no btrfs, and only one can receive", directory.shown()))
}

/// Refuses a directory of these permission bits if others can come into it. Whoever owns the root of a subvolume owns that
/// of its copies as well, and as soon as he reaches one, the kernel lets him make it writable.
///
/// # Errors
/// When others can.
pub(super) fn refuse_open(directory: &Path, mode: u32) -> Result<(), EngineError> {
    // The permission to go through a directory, of its group and of others.
    const OPEN: u32 = 0o011;
    match mode & OPEN {
        0 => Ok(()),
        _ => Err(unfit(format!(
            "others can go into {0} (mode {mode:04o}), and who owns a subvolume could make the copies of it writable — chmod go-rwx {0}",
            directory.shown()
        ))),
    }
}
