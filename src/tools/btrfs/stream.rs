//! The stream that `btrfs send` writes and `btrfs receive` reads, command by command (fs/btrfs/send.h of Linux).
//!
//! A stream is a header and commands, each with its length, its kind and a checksum. What is inside is only looked at
//! as far as it decides what a receiver does and where: which subvolume it claims to be, what it is based on, which
//! paths it touches. Bytes come in any pieces, and no more than one command is held.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::shown::Show;

/// A UUID, as a stream writes it.
pub type Uuid = [u8; 16];

/// What every stream begins with: `BTRFS_SEND_STREAM_MAGIC` and its zero, and the version in four bytes.
const MAGIC: &[u8; 13] = b"btrfs-stream\0";
const HEADER: usize = MAGIC.len() + 4;
/// `struct btrfs_cmd_header`: length of what follows, kind, checksum.
const COMMAND_HEADER: usize = 10;
/// Where the checksum lies in it.
const CHECKSUM: std::ops::Range<usize> = 6..10;
/// The newest version that is understood: 2 has been written since Linux 6.0.
const NEWEST: u32 = 2;
/// The longest command that is taken, in bytes. The kernel's own buffer holds 64 KiB in version 1; in version 2, 16 KiB
/// and a compressed extent of 128 KiB, rounded up to a page of at most 64 KiB.
const LONGEST: usize = 192 * 1024;

/// Kinds of commands (`enum btrfs_send_cmd`), as far as they matter here.
pub mod kind {
    /// A new subvolume follows.
    pub const SUBVOLUME: u16 = 1;
    /// A new subvolume follows that starts as a snapshot of another one.
    pub const SNAPSHOT: u16 = 2;
    /// What gives something that is no directory its first name: a file, a device, a pipe, a socket, a symbolic link.
    pub const MADE: &[u16] = &[FILE, DEVICE, PIPE, SOCKET, SYMLINK];
    /// A new file.
    pub const FILE: u16 = 3;
    /// A new directory.
    pub const DIRECTORY: u16 = 4;
    /// A new device.
    pub const DEVICE: u16 = 5;
    /// A new pipe.
    pub const PIPE: u16 = 6;
    /// A new socket.
    pub const SOCKET: u16 = 7;
    /// A new symbolic link. Its link is a text that may say anything.
    pub const SYMLINK: u16 = 8;
    /// Another name in the place of one.
    pub const RENAME: u16 = 9;
    /// Takes a directory away.
    pub const RMDIR: u16 = 12;
    /// An extended attribute of something.
    pub const SET_XATTR: u16 = 13;
    /// Takes one away.
    pub const REMOVE_XATTR: u16 = 14;
    /// Another length of a file.
    pub const TRUNCATE: u16 = 17;
    /// Another mode of something.
    pub const CHMOD: u16 = 18;
    /// Another owner and group of something.
    pub const CHOWN: u16 = 19;
    /// The times of something.
    pub const UTIMES: u16 = 20;
    /// What changes the content of a file: data, a shared part, another length, holes; and that there is some.
    pub const CONTENT: &[u16] = &[WRITE, CLONE, TRUNCATE, UPDATE_EXTENT, FALLOCATE, ENCODED_WRITE];
    /// Takes a name away, of anything but a directory.
    pub const UNLINK: u16 = 11;
    /// Gives it another name. Its link is a path that exists, not a text as that of a symbolic link.
    pub const LINK: u16 = 10;
    /// Data of a file.
    pub const WRITE: u16 = 15;
    /// A part of a file that is one of another file as well.
    pub const CLONE: u16 = 16;
    /// The command that ends a stream.
    pub const END: u16 = 21;
    /// In place of data, where none is asked for (`--no-data`).
    pub const UPDATE_EXTENT: u16 = 22;
    /// The last one that version 1 has.
    pub const LAST_OF_1: u16 = UPDATE_EXTENT;
    /// Space for data of a file, or a hole in it.
    pub const FALLOCATE: u16 = 23;
    /// Compressed data of a file.
    pub const ENCODED_WRITE: u16 = 25;
}

/// Kinds of attributes (`BTRFS_SEND_A_…`), as far as they matter here.
pub mod attribute {
    /// Which subvolume it is.
    pub const UUID: u16 = 1;
    /// The generation of the subvolume that is sent.
    pub const GENERATION: u16 = 2;
    /// A length in bytes.
    pub const SIZE: u16 = 4;
    /// Permission bits, and of a device its kind.
    pub const MODE: u16 = 5;
    /// An owner, by number.
    pub const UID: u16 = 6;
    /// A group, by number.
    pub const GID: u16 = 7;
    /// The number of a device.
    pub const RDEV: u16 = 8;
    /// When something was last changed in any way.
    pub const CTIME: u16 = 9;
    /// When its content was last changed.
    pub const MTIME: u16 = 10;
    /// The name of an extended attribute.
    pub const XATTR_NAME: u16 = 13;
    /// What it says.
    pub const XATTR_DATA: u16 = 14;
    /// A path below the subvolume.
    pub const PATH: u16 = 15;
    /// Another one, to which something is renamed.
    pub const PATH_TO: u16 = 16;
    /// What a link leads to.
    pub const PATH_LINK: u16 = 17;
    /// Where in a file.
    pub const FILE_OFFSET: u16 = 18;
    /// The bytes that are written.
    pub const DATA: u16 = 19;
    /// From which subvolume a snapshot or a clone is made.
    pub const CLONE_UUID: u16 = 20;
    /// The generation that this had.
    pub const CLONE_GENERATION: u16 = 21;
    /// From which file of that.
    pub const CLONE_PATH: u16 = 22;
    /// How much of it.
    pub const CLONE_LENGTH: u16 = 24;
    /// How space is made, as fallocate(2) has it.
    pub const FALLOCATE_MODE: u16 = 25;
    /// How much of a file compressed data is.
    pub const UNENCODED_FILE_LENGTH: u16 = 27;
}

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It does not begin as one.
    #[error("it is no btrfs send stream")]
    NotAStream,
    /// It is of a version that is not understood.
    #[error("it is a send stream of version {0}, and 1 and 2 are understood")]
    Version(u32),
    /// A command claims to be longer than any that there is.
    #[error("at byte {at}: a command of {length} bytes, longer than any there is")]
    TooLong {
        /// Where in the stream.
        at: u64,
        /// What it claims.
        length: u64,
    },
    /// It was changed on its way.
    #[error("at byte {at}: the checksum does not match, so the stream was damaged on its way")]
    Checksum {
        /// Where in the stream.
        at: u64,
    },
    /// A command is not made as it should be.
    #[error("at byte {at}: {what}")]
    Malformed {
        /// Where in the stream.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A path leads out of the subvolume.
    #[error("at byte {at}: the path {} leads out of the subvolume", path.shown())]
    Path {
        /// Where in the stream.
        at: u64,
        /// The path below the subvolume that the command names.
        path: std::path::PathBuf,
    },
    /// It is not the subvolume that was asked for, or is based on another one.
    #[error("the stream is of another subvolume: {what}")]
    Another {
        /// In which way.
        what: String,
    },
    /// What it is a difference to is not what it was when it was looked at.
    #[error(
        "the stream is a difference to what was changed meanwhile: in generation {now}, and not last in {before}"
    )]
    BaseChanged {
        /// The generation in which it was to be changed last.
        before: u64,
        /// That which it has.
        now: u64,
    },
    /// It is not the one of which a part was received before.
    #[error("at byte {at}: it is not the stream that was sent before")]
    Differs {
        /// Where in the stream.
        at: u64,
    },
    /// It ended too early.
    #[error("it ends after {at} bytes, in the midst of it")]
    Truncated {
        /// How much came.
        at: u64,
    },
    /// It went on after its end.
    #[error("at byte {at}: something follows the end of the stream")]
    Trailing {
        /// Where in the stream.
        at: u64,
    },
}

/// One command of a stream, with its attributes.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// Which, see [`kind`].
    pub kind: u16,
    /// All its bytes, header included.
    pub bytes: &'a [u8],
    /// The stream's version.
    pub version: u32,
    /// Where in the stream it begins.
    pub at: u64,
}

impl<'a> Command<'a> {
    /// Its attributes, in order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: &self.bytes[COMMAND_HEADER..], version: self.version, at: self.at }
    }

    /// The attribute of this kind.
    ///
    /// # Errors
    /// When the command is malformed or has none.
    pub fn attribute(&self, kind: u16) -> Result<&'a [u8], StreamError> {
        for found in self.attributes() {
            let (found, value) = found?;
            if found == kind {
                return Ok(value);
            }
        }
        Err(StreamError::Malformed { at: self.at, what: "a command lacks an attribute" })
    }

    /// An attribute that is a number.
    ///
    /// # Errors
    /// When the command is malformed, has none, or it is no number.
    pub fn number(&self, kind: u16) -> Result<u64, StreamError> {
        let bytes = self.attribute(kind)?.try_into();
        let malformed =
            |_| StreamError::Malformed { at: self.at, what: "a number of another size" };
        bytes.map(u64::from_le_bytes).map_err(malformed)
    }
}

/// The attributes of a command, each with its kind.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    version: u32,
    at: u64,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = split_attribute(self.rest, self.version);
        let Some((kind, value, rest)) = found else {
            self.rest = &[];
            let what = "an attribute reaches over the end of its command";
            return Some(Err(StreamError::Malformed { at: self.at, what }));
        };
        self.rest = rest;
        Some(Ok((kind, value)))
    }
}

/// The first attribute: its kind and value, and what follows it. From version 2 on, data has no length and goes to the
/// end of the command.
fn split_attribute(bytes: &[u8], version: u32) -> Option<(u16, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let kind = u16::from_le_bytes(*kind);
    if version >= 2 && kind == attribute::DATA {
        return Some((kind, rest, &[]));
    }
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((kind, value, rest))
}

/// Takes a stream apart as it comes.
#[derive(Debug, Default)]
pub struct Decoder {
    version: Option<u32>,
    held: Vec<u8>,
    at: u64,
    ended: bool,
}

impl Decoder {
    /// Takes the next bytes, and hands every command that is whole by now to `each`. The header is no command.
    ///
    /// # Errors
    /// What is wrong with the stream, or what `each` makes of it. Nothing more can be taken then.
    pub fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Command<'_>) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        // What was left of earlier bytes is at most one command, so this moves little.
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        while let Some(length) = self.take(rest, each)? {
            rest = &rest[length..];
            self.at += length as u64;
        }
        let taken = held.len() - rest.len();
        held.drain(..taken);
        self.held = held;
        Ok(())
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// When that is too early.
    pub fn finish(&self) -> Result<(), StreamError> {
        if self.ended && self.held.is_empty() {
            return Ok(());
        }
        Err(StreamError::Truncated { at: self.at + self.held.len() as u64 })
    }

    /// Takes the header or one command. Answers with its length; `None` when it is not whole yet.
    fn take(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Command<'_>) -> Result<(), StreamError>,
    ) -> Result<Option<usize>, StreamError> {
        let at = self.at;
        if self.ended && !bytes.is_empty() {
            return Err(StreamError::Trailing { at });
        }
        let Some(version) = self.version else {
            return self.take_header(bytes);
        };
        let Some(length) = bytes.first_chunk().map(|length| u32::from_le_bytes(*length)) else {
            return Ok(None);
        };
        let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(COMMAND_HEADER);
        if whole > LONGEST {
            return Err(StreamError::TooLong { at, length: length.into() });
        }
        let Some(command) = bytes.get(..whole) else { return Ok(None) };
        if checksum(command) != command[CHECKSUM] {
            return Err(StreamError::Checksum { at });
        }
        let kind = u16::from_le_bytes([command[4], command[5]]);
        let last = if version == 1 { kind::LAST_OF_1 } else { kind::ENCODED_WRITE };
        if kind == 0 || kind > last {
            return Err(StreamError::Malformed { at, what: "a command of an unknown kind" });
        }
        self.ended = kind == kind::END;
        let command = Command { kind, bytes: command, version, at };
        refuse_repetition(&command)?;
        each(command)?;
        Ok(Some(whole))
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<Option<usize>, StreamError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(StreamError::NotAStream);
        }
        let Some(version) = bytes.get(MAGIC.len()..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let version = u32::from_le_bytes(*version);
        if !(1..=NEWEST).contains(&version) {
            return Err(StreamError::Version(version));
        }
        self.version = Some(version);
        Ok(Some(HEADER))
    }
}

/// Refuses a command that has an attribute twice: of those, one reader takes the first and another one the last.
fn refuse_repetition(command: &Command<'_>) -> Result<(), StreamError> {
    let mut seen = BTreeSet::new();
    for found in command.attributes() {
        let (kind, _) = found?;
        if !seen.insert(kind) {
            let what = "a command has an attribute twice";
            return Err(StreamError::Malformed { at: command.at, what });
        }
    }
    Ok(())
}

/// The header of a stream of this version.
pub fn header(version: u32) -> Vec<u8> {
    [MAGIC.as_slice(), &version.to_le_bytes()].concat()
}

/// A command of this kind with these attributes. Not for data, which has no length from version 2 on.
///
/// # Errors
/// When an attribute is too long to be told in two bytes.
pub fn command(
    kind: u16,
    attributes: &[(u16, &[u8])],
) -> Result<Vec<u8>, std::num::TryFromIntError> {
    let mut bytes = vec![0; COMMAND_HEADER];
    for (attribute, value) in attributes {
        bytes.extend(attribute.to_le_bytes());
        bytes.extend(u16::try_from(value.len())?.to_le_bytes());
        bytes.extend(*value);
    }
    let length = u32::try_from(bytes.len() - COMMAND_HEADER)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..6].copy_from_slice(&kind.to_le_bytes());
    let sum = checksum(&bytes);
    bytes[CHECKSUM].copy_from_slice(&sum);
    Ok(bytes)
}

/// A whole command of a stream of this version.
pub(super) fn whole_command(bytes: &[u8], version: u32) -> Command<'_> {
    let kind = bytes.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |it| u16::from_le_bytes(*it));
    Command { kind, bytes, version, at: 0 }
}

/// The same command with other values of these attributes.
///
/// # Errors
/// When it is malformed, or an attribute is too long.
pub(super) fn rewritten(
    from: Command<'_>,
    others: &[(u16, &[u8])],
) -> Result<Vec<u8>, StreamError> {
    let other = |attribute| others.iter().find(|(kind, _)| *kind == attribute);
    let mut attributes = Vec::new();
    for found in from.attributes() {
        let (attribute, value) = found?;
        attributes.push((attribute, other(attribute).map_or(value, |(_, value)| value)));
    }
    command(from.kind, &attributes)
        .map_err(|_| StreamError::Malformed { at: from.at, what: "an attribute that is too long" })
}

/// The checksum of a command: CRC32C from zero and without the final inversion, with zeros in its own place.
fn checksum(command: &[u8]) -> [u8; 4] {
    let (before, after) = (&command[..CHECKSUM.start], &command[CHECKSUM.end..]);
    let sum = crc32c::crc32c_append(u32::MAX, before);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    (!crc32c::crc32c_append(sum, after)).to_le_bytes()
}

/// Refuses a path that is not one below the subvolume's root. An empty one is the root.
pub(super) fn check_path(at: u64, path: &[u8]) -> Result<(), StreamError> {
    use std::os::unix::ffi::OsStrExt;
    let leads_out = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
    if !path.is_empty() && (path.contains(&0) || path.split(|byte| *byte == b'/').any(leads_out)) {
        let path = Path::new(std::ffi::OsStr::from_bytes(path)).to_owned();
        return Err(StreamError::Path { at, path });
    }
    Ok(())
}
