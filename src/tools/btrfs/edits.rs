//! What a stream does to the names of a subvolume and to what they lead to, without any data: as it is told by who reads
//! the stream, an edit a line, to who keeps the [`names`](super::names).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::stream::{Command, StreamError, attribute, kind};
use crate::model::bytes;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// An edit, of what is at a path when its turn has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// Where in the stream, in bytes.
    pub at: u64,
    /// The path below the root of the subvolume; empty: the root.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// What is done.
    pub edit: Edit,
}

impl Edited {
    /// Reads a line; `None` when it is none.
    pub fn read(line: &[u8]) -> Option<Edited> {
        serde_json::from_slice(line).ok()
    }
}

/// What is done to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// It is made: `-` file, `d` directory, `p` pipe, `s` socket, `b` and `c` devices.
    Make {
        /// What it is.
        kind: char,
        /// The number of a device, else 0.
        device: u64,
    },
    /// It is made as a symbolic link.
    Symlink(#[serde(with = "bytes::exact")] PathBuf),
    /// It becomes another name of what is at this path.
    Link(#[serde(with = "bytes::exact")] PathBuf),
    /// It gets this path.
    Rename(#[serde(with = "bytes::exact")] PathBuf),
    /// The name of anything but a directory goes.
    Unlink,
    /// A directory goes.
    Rmdir,
    /// A file gets this length.
    Resize(u64),
    /// A file is written, up to here at most.
    Write(u64),
    /// It gets these permission bits.
    Mode(u32),
    /// It gets this owner and group.
    Owner(u32, u32),
    /// It gets these times.
    Times {
        /// When its content was last changed.
        modified: Time,
        /// When anything of it was.
        changed: Time,
    },
    /// An extended attribute, known by the hash of its name, gets a value, known by its hash, or goes.
    Attribute(u64, Option<u64>),
}

/// Takes commands, and hands on the edits. What is written to a file piece by piece is one edit.
#[derive(Debug, Default)]
pub struct Edits {
    writing: Option<Edited>,
}

impl Edits {
    /// Takes a command.
    ///
    /// # Errors
    /// When it lacks what it should have.
    pub fn take(
        &mut self,
        command: Command<'_>,
        each: &mut dyn FnMut(&Edited),
    ) -> Result<(), StreamError> {
        let Some(edit) = edit(command)? else {
            if command.kind == kind::END {
                self.writing.take().iter().for_each(each);
            }
            return Ok(());
        };
        let path = path(command.attribute(attribute::PATH)?);
        if let (Some(Edited { path: written, edit: Edit::Write(end), .. }), Edit::Write(to)) =
            (&mut self.writing, &edit)
            && *written == path
        {
            *end = (*end).max(*to);
            return Ok(());
        }
        self.writing.take().iter().for_each(&mut *each);
        let edited = Edited { at: command.at, path, edit };
        if matches!(edited.edit, Edit::Write(_)) {
            self.writing = Some(edited);
        } else {
            each(&edited);
        }
        Ok(())
    }
}

/// What a command does; `None` where it changes nothing that is listed.
fn edit(command: Command<'_>) -> Result<Option<Edit>, StreamError> {
    let number = |attribute| command.number(attribute);
    let made = |kind| Ok(Some(Edit::Make { kind, device: 0 }));
    let end = |length: u64| {
        let end = number(attribute::FILE_OFFSET)?.checked_add(length);
        end.map(Edit::Write).map(Some).ok_or(malformed(command, "a place beyond any file"))
    };
    match command.kind {
        kind::FILE => made('-'),
        kind::DIRECTORY => made('d'),
        kind::PIPE => made('p'),
        kind::SOCKET => made('s'),
        kind::DEVICE => device(command).map(Some),
        kind::SYMLINK => path_of(command, attribute::PATH_LINK, Edit::Symlink),
        kind::LINK => path_of(command, attribute::PATH_LINK, Edit::Link),
        kind::RENAME => path_of(command, attribute::PATH_TO, Edit::Rename),
        kind::UNLINK => Ok(Some(Edit::Unlink)),
        kind::RMDIR => Ok(Some(Edit::Rmdir)),
        kind::TRUNCATE => Ok(Some(Edit::Resize(number(attribute::SIZE)?))),
        kind::WRITE => end(command.attribute(attribute::DATA)?.len() as u64),
        kind::CLONE => end(number(attribute::CLONE_LENGTH)?),
        kind::UPDATE_EXTENT => end(number(attribute::SIZE)?),
        kind::ENCODED_WRITE => end(number(attribute::UNENCODED_FILE_LENGTH)?),
        kind::FALLOCATE => match fallocate_keeps_size(command)? {
            true => Ok(Some(Edit::Write(0))),
            false => end(number(attribute::SIZE)?),
        },
        kind::CHMOD => Ok(Some(Edit::Mode(small(command, attribute::MODE)? & 0o7777))),
        kind::CHOWN => {
            let owner = small(command, attribute::UID)?;
            Ok(Some(Edit::Owner(owner, small(command, attribute::GID)?)))
        }
        kind::UTIMES => {
            let modified = time(command, attribute::MTIME)?;
            Ok(Some(Edit::Times { modified, changed: time(command, attribute::CTIME)? }))
        }
        kind::SET_XATTR | kind::REMOVE_XATTR => {
            let name = hash(command.attribute(attribute::XATTR_NAME)?);
            let value = match command.kind {
                kind::SET_XATTR => Some(hash(command.attribute(attribute::XATTR_DATA)?)),
                _ => None,
            };
            Ok(Some(Edit::Attribute(name, value)))
        }
        // They name the subvolume, end the stream, or set flags that no listing tells.
        _ => Ok(None),
    }
}

fn malformed(command: Command<'_>, what: &'static str) -> StreamError {
    StreamError::Malformed { at: command.at, what }
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

fn path_of(
    command: Command<'_>,
    attribute: u16,
    edit: impl Fn(PathBuf) -> Edit,
) -> Result<Option<Edit>, StreamError> {
    Ok(Some(edit(path(command.attribute(attribute)?))))
}

fn small(command: Command<'_>, attribute: u16) -> Result<u32, StreamError> {
    u32::try_from(command.number(attribute)?).map_err(|_| malformed(command, "too large a number"))
}

/// The kind stands in the mode, as mknod(2) has it.
fn device(command: Command<'_>) -> Result<Edit, StreamError> {
    let kind = match small(command, attribute::MODE)? & 0o170_000 {
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        0o100_000 => '-',
        _ => return Err(malformed(command, "a device of no kind")),
    };
    Ok(Edit::Make { kind, device: command.number(attribute::RDEV)? })
}

/// `FALLOC_FL_KEEP_SIZE`, without which no hole is made.
fn fallocate_keeps_size(command: Command<'_>) -> Result<bool, StreamError> {
    let mode = command.attribute(attribute::FALLOCATE_MODE)?;
    Ok(mode.first().is_some_and(|flags| flags & 1 == 1))
}

/// `struct btrfs_timespec`: seconds and nanoseconds.
fn time(command: Command<'_>, attribute: u16) -> Result<Time, StreamError> {
    let bytes = command.attribute(attribute)?;
    let found = bytes.split_first_chunk().and_then(|(seconds, rest)| {
        Some((i64::from_le_bytes(*seconds), u32::from_le_bytes(rest.try_into().ok()?)))
    });
    found.ok_or(malformed(command, "a time of another size"))
}

fn hash(bytes: &[u8]) -> u64 {
    let hash = Sha256::digest(bytes);
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}
