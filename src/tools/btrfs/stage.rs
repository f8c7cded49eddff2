//! What stands between the sender and the receiver of a stream: it lets through what was asked for, and nothing else.
//!
//! `btrfs receive` believes a stream. It looks for the parent by a UUID alone, takes the lowest of several, follows
//! whatever path it reads, and makes a finished subvolume of whatever ends with an end. So the stream is told here which
//! subvolume of the target it is based on, its name is ours, its paths stay inside, and its end is held back until the
//! sender is known to have ended well.

use std::borrow::Cow;

use super::parts::{Cut, Cutting, Parts};
use super::shares::{Boundary, Shares, Splitting};
use super::stream::{
    Command, Decoder, StreamError, attribute, check_path, header, kind, rewritten,
};

pub use super::stream::Uuid;

/// What a stream must be, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The name that the subvolume gets where it is received.
    pub name: String,
    /// The UUID that it must claim: that of the snapshot, or of what that was received from.
    pub uuid: Uuid,
    /// What it must be based on, and in the place of what; `None`: it must stand alone.
    pub parent: Option<Parent>,
}

/// A subvolume that is there on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// What the sender calls it.
    pub sent: Uuid,
    /// What the receiver finds it by, and no other.
    pub received: Uuid,
    /// What the receiver finds it by when data is shared with it: it looks for what was received as this, and takes the
    /// lowest of several. What finds nothing makes it refuse the stream.
    pub shared: Uuid,
    /// The generation in which the sender's was changed last when it was looked at: whoever changed it since has made it
    /// another one than the receiver has. `None`: that was looked at when the stream was made.
    pub generation: Option<u64>,
}

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes of the stream.
    pub bytes: u64,
    /// The number of commands that passed.
    pub commands: u64,
    /// Names that were given to what is no directory.
    pub named: u64,
    /// Names that were taken away from it.
    pub unnamed: u64,
    /// By how many bytes at most it would be longer if all that is compressed in it were not.
    pub unpacked: u64,
    /// The generation that the subvolume claims to have had (`ctransid`).
    pub generation: u64,
}

impl Passed {
    /// What a [`Cut`] counts.
    fn counted(&self) -> [u64; 3] {
        [self.named, self.unnamed, self.unpacked]
    }
}

/// Looks at a stream as it passes.
#[derive(Debug)]
pub struct Stage {
    expected: Expectation,
    /// The UUID as which it is received, if that is to be another than it claims.
    received_as: Option<Uuid>,
    cutting: Option<Cutting>,
    parts: Option<Parts>,
    shares: Option<Shares>,
    decoder: Decoder,
    end: Vec<u8>,
    passed: Passed,
}

impl Stage {
    /// A stage through which this passes and nothing else.
    pub fn new(expected: Expectation) -> Stage {
        let (decoder, passed) = (Decoder::default(), Passed::default());
        let (received_as, cutting, parts, shares) = (None, None, None, None);
        Stage { expected, received_as, cutting, parts, shares, decoder, end: Vec::new(), passed }
    }

    /// One that has the subvolume be received as another one than it claims to be. A stream that is not taken apart alone.
    pub fn received_as(self, received_as: Option<Uuid>) -> Stage {
        Stage { received_as, ..self }
    }

    /// One that takes it apart as well, or goes on with what was taken apart before.
    pub fn cutting(self, cutting: Option<Cutting>) -> Stage {
        Stage { cutting, ..self }
    }

    /// One that tells where its parts end, and passes all of it.
    pub fn splitting(self, splitting: Option<Splitting>) -> Stage {
        Stage { shares: splitting.map(Shares::begin), ..self }
    }

    /// Takes the next bytes of the sender, and adds to `out` what the receiver may have by now.
    ///
    /// # Errors
    /// When it is not what was expected. What was let through so far cannot become a finished subvolume.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
        let Stage { expected, received_as, cutting, parts, shares, decoder, end, passed } = self;
        passed.bytes += bytes.len() as u64;
        decoder.push(bytes, &mut |command| {
            passed.commands += 1;
            if passed.commands == 1 {
                let first = begin(expected, *received_as, passed, command)?;
                match cutting.take() {
                    Some(cutting) => {
                        let begun = Parts::begin(cutting, &expected.name, &command, first, out)?;
                        *parts = Some(begun);
                    }
                    None => {
                        out.extend(header(command.version));
                        out.extend(first);
                    }
                }
                return Ok(());
            }
            let left_out = parts.as_ref().map_or(0, Parts::left_out);
            let passes = match command.kind {
                kind::SUBVOLUME | kind::SNAPSHOT => {
                    let what = "a second subvolume in it".into();
                    return Err(StreamError::Another { what });
                }
                kind::END => {
                    end.extend_from_slice(command.bytes);
                    shares.as_ref().map_or(Ok(()), |shares| shares.end(command.at))?;
                    return match parts {
                        Some(parts) => parts.end(command.at, passed.counted(), out),
                        None => Ok(()),
                    };
                }
                kind::CLONE => clone(expected, *received_as, command)?,
                _ => {
                    check_paths(command)?;
                    Cow::Borrowed(command.bytes)
                }
            };
            count(passed, &command)?;
            let Some(parts) = parts else {
                shares.as_mut().map_or(Ok(()), |shares| shares.take(&command, out.len()))?;
                out.extend_from_slice(&passes);
                return Ok(());
            };
            parts.take(command, &passes, passed.counted(), out)?;
            if parts.left_out() > left_out {
                // Counted by whoever has it.
                (passed.named, passed.unnamed, passed.unpacked) = (0, 0, 0);
            }
            Ok(())
        })
    }

    /// What went through by now.
    pub fn passed(&self) -> Passed {
        let left_out = self.parts.as_ref().map_or(0, Parts::left_out);
        Passed { bytes: self.passed.bytes.saturating_sub(left_out), ..self.passed }
    }

    /// The parts that have ended since this was asked last.
    pub fn cuts(&mut self) -> Vec<Cut> {
        self.parts.as_mut().map_or_else(Vec::new, Parts::cuts)
    }

    /// The ends of parts in what was handed out since this was asked last.
    pub fn boundaries(&mut self) -> Vec<Boundary> {
        self.shares.as_mut().map_or_else(Vec::new, Shares::boundaries)
    }

    /// Lets the end through. To be called when the sender has ended well, and only then.
    ///
    /// # Errors
    /// When the stream is not whole.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Passed, StreamError> {
        self.decoder.finish()?;
        out.append(&mut self.end);
        Ok(self.passed())
    }
}

/// Counts names that are given and taken away, and what is compressed.
fn count(passed: &mut Passed, command: &Command<'_>) -> Result<(), StreamError> {
    let is_named = kind::MADE.contains(&command.kind) || command.kind == kind::LINK;
    passed.named += u64::from(is_named);
    passed.unnamed += u64::from(command.kind == kind::UNLINK);
    if command.kind == kind::ENCODED_WRITE {
        passed.unpacked = passed.unpacked.saturating_add(unpacked(command)?);
    }
    Ok(())
}

/// How much data one command holds that is not compressed, as the kernel writes it (`BTRFS_SEND_READ_SIZE`).
const PLAIN_DATA: u64 = 48 << 10;

/// How much longer compressed data would be if it was not. A command without compression has fewer attributes.
fn unpacked(command: &Command<'_>) -> Result<u64, StreamError> {
    let length = command.number(attribute::UNENCODED_FILE_LENGTH)?;
    let packed = command.bytes.len() as u64;
    let around = packed - command.attribute(attribute::DATA)?.len() as u64;
    let plain = length.saturating_add(length.div_ceil(PLAIN_DATA).saturating_mul(around));
    Ok(plain.saturating_sub(packed))
}

/// The first command, as the receiver is to read it.
fn begin(
    expected: &Expectation,
    received_as: Option<Uuid>,
    passed: &mut Passed,
    first: Command<'_>,
) -> Result<Vec<u8>, StreamError> {
    let another = |what: &str| Err(StreamError::Another { what: what.into() });
    match (first.kind, &expected.parent) {
        (kind::SUBVOLUME, None) | (kind::SNAPSHOT, Some(_)) => {}
        (kind::SUBVOLUME, Some(_)) => {
            return another("it stands alone, and a difference was asked for");
        }
        (kind::SNAPSHOT, None) => return another("it is based on one that was not asked for"),
        _ => return another("it does not begin with one"),
    }
    if first.attribute(attribute::UUID)? != expected.uuid {
        return another("it does not claim the UUID of the snapshot");
    }
    passed.generation = first.number(attribute::GENERATION)?;
    let name = expected.name.as_bytes();
    let parent = expected.parent.as_ref();
    if let Some(parent) = parent
        && first.attribute(attribute::CLONE_UUID)? != parent.sent
    {
        return another("it is based on one that was not asked for");
    }
    require_unchanged(parent, first)?;
    let mut others = vec![(attribute::PATH, name)];
    others.extend(parent.map(|parent| (attribute::CLONE_UUID, parent.received.as_slice())));
    others.extend(received_as.iter().map(|uuid| (attribute::UUID, uuid.as_slice())));
    rewritten(first, &others)
}

/// A shared extent, of the subvolume itself or of its parent; the receiver must look for no other one.
fn clone<'c>(
    expected: &Expectation,
    received_as: Option<Uuid>,
    command: Command<'c>,
) -> Result<Cow<'c, [u8]>, StreamError> {
    check_paths(command)?;
    let from = command.attribute(attribute::CLONE_UUID)?;
    if from == expected.uuid {
        let Some(uuid) = received_as else { return Ok(Cow::Borrowed(command.bytes)) };
        return rewritten(command, &[(attribute::CLONE_UUID, uuid.as_slice())]).map(Cow::Owned);
    }
    match &expected.parent {
        Some(parent) if from == parent.sent => {
            require_unchanged(Some(parent), command)?;
            let shared = parent.shared.as_slice();
            rewritten(command, &[(attribute::CLONE_UUID, shared)]).map(Cow::Owned)
        }
        _ => Err(StreamError::Another {
            what: "it shares data with one that was not asked for".into(),
        }),
    }
}

/// Requires that what a command takes from the parent is of the generation that this had.
fn require_unchanged(parent: Option<&Parent>, command: Command<'_>) -> Result<(), StreamError> {
    let Some(before) = parent.and_then(|parent| parent.generation) else { return Ok(()) };
    match command.number(attribute::CLONE_GENERATION)? {
        now if now == before => Ok(()),
        now => Err(StreamError::BaseChanged { before, now }),
    }
}

fn check_paths(command: Command<'_>) -> Result<(), StreamError> {
    for found in command.attributes() {
        let (attribute, value) = found?;
        let is_path = match attribute {
            attribute::PATH | attribute::PATH_TO | attribute::CLONE_PATH => true,
            // Of a symbolic link it is a text that may say anything.
            attribute::PATH_LINK => command.kind == kind::LINK,
            _ => false,
        };
        if is_path {
            check_path(command.at, value)?;
        }
    }
    Ok(())
}
