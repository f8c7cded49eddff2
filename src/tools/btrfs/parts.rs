//! A stream taken apart, so that a transfer that was interrupted goes on where it stopped.
//!
//! `btrfs receive` makes a subvolume of a whole stream or of nothing. But it takes several streams one after the other, and
//! what it received of the first can be what the second is based on. So a long stream becomes several: each part is a
//! subvolume of its own, a snapshot of the one before it to which more was written, and is there to stay when its stream
//! has ended. The last one, to which nothing is written, is what was sent. Streams are the same whenever they are made of
//! the same snapshots, so whoever has a part needs only what comes behind it.
//!
//! Parts end between commands, where enough bytes of them have come; a hash of all bytes up to there says of which stream
//! a part is. The command that begins a stream is not among them: it says what the subvolume is called, which is another
//! name on each way.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::hash::{hex, is_sha256};
use crate::tools::told;

use super::stream::{
    Command, StreamError, Uuid, attribute, command, header, kind, rewritten, whole_command,
};

/// Shorter streams are not taken apart, in bytes: what can be sent again within a moment need not be kept.
const LEAST: usize = 4 << 20;

/// The end of a part that a target has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The number of the part, from 0 on.
    pub part: u32,
    /// Where in the stream: bytes of commands, without the first.
    pub offset: u64,
    /// The hash of these bytes, see [`Measure`], in lower-case hexadecimal.
    pub digest: String,
}

impl Mark {
    /// As one word; read back by [`Mark::parse`].
    pub fn word(&self) -> String {
        format!("{}:{}:{}", self.part, self.offset, self.digest)
    }

    /// Reads a word; `None` when it is no mark.
    pub fn parse(word: &str) -> Option<Mark> {
        let mut fields = word.splitn(3, ':');
        let (part, offset) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let mark = Mark { part, offset, digest: fields.next()?.to_owned() };
        mark.is_one().then_some(mark)
    }

    /// Whether its hash can be one.
    pub fn is_one(&self) -> bool {
        is_sha256(&self.digest)
    }
}

/// How a stream is taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutting {
    /// So many bytes make a part.
    pub every: u64,
    /// What the UUIDs of the parts are made of, which nobody else knows beforehand; `None`: the stream is not taken apart,
    /// but passed on from [`Cutting::behind`] on.
    pub seed: Option<Uuid>,
    /// Where to go on; `None`: from the beginning.
    pub behind: Option<Behind>,
}

/// Where a stream goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The end of the part that is there.
    pub mark: Mark,
    /// What the receiver finds that part by; `None` where the next part is not made here.
    pub received: Option<Uuid>,
    /// Whether the stream comes from its beginning, and what is there is to be left out.
    pub leave_out: bool,
}

/// That a part has ended, as a stage tells it on its standard error, in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Where.
    pub mark: Mark,
    /// What the part was received as.
    pub uuid: String,
    /// Names that were given by then to what is no directory, since the beginning of what passed.
    pub named: u64,
    /// Names that were taken away from it.
    pub unnamed: u64,
    /// As [`Passed::unpacked`](super::stage::Passed::unpacked).
    pub unpacked: u64,
    /// Whether the stream has ended there as well.
    pub last: bool,
}

impl Cut {
    /// Reads a line; `None` when it is another one's.
    pub fn read(line: &[u8]) -> Option<Cut> {
        serde_json::from_slice(line).ok()
    }
}

/// The line by which a stage tells that its stream is not the one of which there is a part.
const DIFFERS: &str = r#"{"differs":true}"#;

/// The line by which it tells that its stream is none that may pass, whenever it comes.
const UNFIT: &str = r#"{"unfit":true}"#;

/// The line by which it tells that somebody changed what its stream is a difference to.
pub const BASE_CHANGED: &str = r#"{"base-changed":true}"#;

/// What a stage tells of a failure, in a line. One that was cut off or damaged on its way may pass the next time.
pub fn told_of(error: &StreamError) -> Option<&'static str> {
    match error {
        StreamError::Differs { .. } => Some(DIFFERS),
        StreamError::BaseChanged { .. } => Some(BASE_CHANGED),
        StreamError::Truncated { .. } | StreamError::Checksum { .. } => None,
        StreamError::NotAStream
        | StreamError::Version(_)
        | StreamError::TooLong { .. }
        | StreamError::Malformed { .. }
        | StreamError::Path { .. }
        | StreamError::Another { .. }
        | StreamError::Trailing { .. } => Some(UNFIT),
    }
}

/// Whether a stage has told [`DIFFERS`] among other lines.
pub fn has_differed(stderr: &[u8]) -> bool {
    told::has(stderr, DIFFERS)
}

/// Whether a stage has told [`BASE_CHANGED`] among other lines.
pub fn has_base_changed(stderr: &[u8]) -> bool {
    told::has(stderr, BASE_CHANGED)
}

/// Whether a stage has told [`UNFIT`] among other lines.
pub fn is_unfit(stderr: &[u8]) -> bool {
    told::has(stderr, UNFIT)
}

/// What a part of the subvolume that is received under this name is called.
pub fn part_name(name: &str, part: u32) -> String {
    format!("{name}{PART}{part}")
}

/// The name and the number that make this the name of a part; `None` when it is none.
pub fn of_part(name: &str) -> Option<(&str, u32)> {
    let (of, part) = name.rsplit_once(PART)?;
    let number: u32 = part.parse().ok()?;
    (number.to_string() == part).then_some((of, number))
}

const PART: &str = ".part";

/// The UUID that a part is received as.
pub fn part_uuid(seed: Uuid, part: u32) -> Uuid {
    let hash = Sha256::new().chain_update(seed).chain_update(part.to_le_bytes()).finalize();
    std::array::from_fn(|at| hash[at])
}

/// Finds the ends of parts. The hash of a part is that of the hash before it and of its own bytes, so whoever goes on behind
/// a part need not have seen what came before.
#[derive(Debug, Clone)]
pub(super) struct Measure {
    every: u64,
    part: u32,
    offset: u64,
    since: u64,
    hash: Sha256,
    /// `btrfs receive` remembers the capabilities of a file within one stream, and sets them again when that gets its
    /// owner.
    is_remembering: bool,
    /// Whether parts become longer behind many of them.
    is_growing: bool,
}

/// Behind so many parts, those of a growing measure are twice as long: however long a stream is, what is known of its parts
/// stays short.
const BEFORE_GROWTH: u32 = 1024;

impl Measure {
    pub fn new(every: u64) -> Measure {
        let (hash, is_remembering, is_growing) = (Sha256::new(), false, false);
        Measure { every, part: 0, offset: 0, since: 0, hash, is_remembering, is_growing }
    }

    /// One whose parts become longer behind many of them.
    pub fn growing(every: u64) -> Measure {
        Measure { is_growing: true, ..Measure::new(every) }
    }

    /// How long the present part is to be.
    fn length(&self) -> u64 {
        let doublings = if self.is_growing { self.part / BEFORE_GROWTH } else { 0 };
        self.every.saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX))
    }

    fn behind(every: u64, mark: &Mark) -> Measure {
        let part = mark.part.saturating_add(1);
        let hash = Sha256::new().chain_update(mark.digest.as_bytes());
        Measure { part, offset: mark.offset, hash, ..Measure::new(every) }
    }

    /// Takes a command, and answers where the part has ended if it has by that.
    pub fn take(&mut self, command: &Command<'_>) -> Result<Option<Mark>, StreamError> {
        self.hash.update(command.bytes);
        self.offset += command.bytes.len() as u64;
        self.since += command.bytes.len() as u64;
        match command.kind {
            kind::SET_XATTR => {
                let name = command.attribute(attribute::XATTR_NAME)?;
                self.is_remembering |= name == b"security.capability";
            }
            // The last of what is said of a file.
            kind::UTIMES => self.is_remembering = false,
            _ => {}
        }
        let is_end = self.since >= self.length() && !self.is_remembering;
        Ok(is_end.then(|| self.end()))
    }

    /// Takes a command of a stream whose beginning somebody has, up to this mark, and answers whether it has come there.
    ///
    /// # Errors
    /// When it is another stream.
    pub fn follow(&mut self, command: &Command<'_>, mark: &Mark) -> Result<bool, StreamError> {
        match self.take(command)? {
            Some(found) if found == *mark => Ok(true),
            Some(found) if found.part < mark.part => Ok(false),
            None if self.offset < mark.offset => Ok(false),
            Some(_) | None => Err(StreamError::Differs { at: command.at }),
        }
    }

    /// Ends the part here.
    fn end(&mut self) -> Mark {
        let digest = hex(&self.hash.clone().finalize());
        let mark = Mark { part: self.part, offset: self.offset, digest };
        let is_growing = self.is_growing;
        *self = Measure { is_growing, ..Measure::behind(self.every, &mark) };
        mark
    }
}

/// Where we are.
#[derive(Debug)]
enum At {
    /// In what is left out, since the receiver has it.
    LeftOut,
    /// In so little of a stream that it may not be worth it: its commands, and how long they are together.
    Held(Vec<Vec<u8>>, usize),
    /// In a part.
    Part,
    /// Behind one.
    Between,
    /// In what is passed on as it is.
    Passing,
}

/// Takes a stream apart.
#[derive(Debug)]
pub(super) struct Parts {
    cutting: Cutting,
    measure: Measure,
    at: At,
    version: u32,
    generation: u64,
    name: String,
    uuid: Uuid,
    /// The first command.
    first: Vec<u8>,
    /// What the receiver finds the last part by.
    before: Option<Uuid>,
    /// The number of the part that we are in, or that comes next.
    part: u32,
    left_out: u64,
    cuts: Vec<Cut>,
}

impl Parts {
    /// Begins with the first command, as the receiver is to read it, of a subvolume of this name.
    pub fn begin(
        cutting: Cutting,
        name: &str,
        first: &Command<'_>,
        rewritten: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Parts, StreamError> {
        let uuid = first.attribute(attribute::UUID)?.try_into();
        let malformed = |_| StreamError::Malformed { at: first.at, what: "a UUID of another size" };
        let mut parts = Parts {
            measure: Measure::new(cutting.every),
            at: At::Passing,
            version: first.version,
            generation: first.number(attribute::GENERATION)?,
            name: name.to_owned(),
            uuid: uuid.map_err(malformed)?,
            first: rewritten,
            before: None,
            part: 0,
            left_out: 0,
            cuts: Vec::new(),
            cutting,
        };
        parts.at = match (&parts.cutting.behind, parts.cutting.seed) {
            (Some(behind), _) if behind.leave_out => At::LeftOut,
            (Some(behind), Some(_)) => {
                parts.measure = Measure::behind(parts.cutting.every, &behind.mark);
                (parts.before, parts.part) = (behind.received, parts.measure.part);
                At::Between
            }
            (None, Some(_)) => At::Held(Vec::new(), 0),
            (_, None) => At::Passing,
        };
        if parts.cutting.seed.is_none() {
            parts.pass_first(out);
        }
        Ok(parts)
    }

    fn pass_first(&self, out: &mut Vec<u8>) {
        out.extend(header(self.version));
        out.extend(&self.first);
    }

    /// Takes a command, which the receiver is to read as `bytes`. `counted` is what [`Cut`] counts.
    pub fn take(
        &mut self,
        command: Command<'_>,
        bytes: &[u8],
        counted: [u64; 3],
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        match &mut self.at {
            At::Passing => out.extend(bytes),
            At::LeftOut => self.leave_out(&command)?,
            At::Held(held, length) => {
                *length += bytes.len();
                held.push(bytes.to_vec());
                let is_long = *length >= LEAST;
                let end = self.measure.take(&command)?;
                if is_long || end.is_some() {
                    self.release(out)?;
                }
                self.end_part(end, counted, false, out);
            }
            At::Between | At::Part => {
                if matches!(self.at, At::Between) {
                    self.begin_part(out)?;
                }
                out.extend_from_slice(&self.of_this_part(bytes)?);
                let end = self.measure.take(&command)?;
                self.end_part(end, counted, false, out);
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, command: &Command<'_>) -> Result<(), StreamError> {
        self.left_out += command.bytes.len() as u64;
        let Some(behind) = &self.cutting.behind else {
            return Err(StreamError::Differs { at: command.at });
        };
        if self.measure.follow(command, &behind.mark)? {
            (self.before, self.part) = (behind.received, self.measure.part);
            self.at = match self.cutting.seed {
                Some(_) => At::Between,
                None => At::Passing,
            };
        }
        Ok(())
    }

    /// Begins the first part with what was held.
    fn release(&mut self, out: &mut Vec<u8>) -> Result<(), StreamError> {
        let At::Held(held, _) = std::mem::replace(&mut self.at, At::Part) else { return Ok(()) };
        self.begin_part(out)?;
        for bytes in held {
            out.extend_from_slice(&self.of_this_part(&bytes)?);
        }
        Ok(())
    }

    /// What the present part is received as.
    fn own(&self) -> Uuid {
        self.cutting.seed.map_or(self.uuid, |seed| part_uuid(seed, self.part))
    }

    fn begin_part(&mut self, out: &mut Vec<u8>) -> Result<(), StreamError> {
        let name = part_name(&self.name, self.part);
        let begin = self.beginning(&name, self.own())?;
        out.extend(begin);
        self.at = At::Part;
        Ok(())
    }

    /// What begins the stream of a subvolume that is a snapshot of the last part, or what the first command begins.
    fn beginning(&self, name: &str, uuid: Uuid) -> Result<Vec<u8>, StreamError> {
        let generation = self.generation.to_le_bytes();
        let begin = match self.before {
            Some(before) => command(
                kind::SNAPSHOT,
                &[
                    (attribute::PATH, name.as_bytes()),
                    (attribute::UUID, &uuid),
                    (attribute::GENERATION, &generation),
                    (attribute::CLONE_UUID, &before),
                    (attribute::CLONE_GENERATION, &generation),
                ],
            )
            .map_err(|_| StreamError::Malformed { at: 0, what: "a name that is too long" })?,
            None => {
                let others = [(attribute::PATH, name.as_bytes()), (attribute::UUID, &uuid[..])];
                rewritten(whole_command(&self.first, self.version), &others)?
            }
        };
        Ok([header(self.version), begin].concat())
    }

    /// A command as the receiver of this part is to read it: what is shared with the subvolume itself is shared with the
    /// part.
    fn of_this_part<'b>(&self, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, StreamError> {
        let found = whole_command(bytes, self.version);
        let is_of_itself = found.kind == kind::CLONE
            && found.attribute(attribute::CLONE_UUID)? == self.uuid.as_slice();
        match is_of_itself {
            true => {
                let own = self.own();
                rewritten(found, &[(attribute::CLONE_UUID, own.as_slice())]).map(Cow::Owned)
            }
            false => Ok(Cow::Borrowed(bytes)),
        }
    }

    fn end_part(
        &mut self,
        end: Option<Mark>,
        [named, unnamed, unpacked]: [u64; 3],
        last: bool,
        out: &mut Vec<u8>,
    ) {
        let (Some(mark), Some(seed)) = (end, self.cutting.seed) else { return };
        let uuid = part_uuid(seed, mark.part);
        out.extend(end_command());
        (self.before, self.part) = (Some(uuid), mark.part.saturating_add(1));
        self.at = At::Between;
        let uuid = crate::host::uuid_text(uuid);
        self.cuts.push(Cut { mark, uuid, named, unnamed, unpacked, last });
    }

    /// Takes the end of the stream. What is then left to be passed on is an end.
    pub fn end(
        &mut self,
        at: u64,
        counted: [u64; 3],
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        match &mut self.at {
            At::Passing => return Ok(()),
            At::LeftOut => return Err(StreamError::Differs { at }),
            At::Held(held, _) => {
                let held = std::mem::take(held).concat();
                self.pass_first(out);
                out.extend(held);
                return Ok(());
            }
            At::Part => {
                let end = self.measure.end();
                self.end_part(Some(end), counted, true, out);
            }
            At::Between => {}
        }
        let begin = self.beginning(&self.name, self.uuid)?;
        out.extend(begin);
        Ok(())
    }

    /// How much was left out, in bytes.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The parts that have ended since this was asked last.
    pub fn cuts(&mut self) -> Vec<Cut> {
        std::mem::take(&mut self.cuts)
    }
}

fn end_command() -> Vec<u8> {
    // Without attributes, none can be too long.
    command(kind::END, &[]).unwrap_or_default()
}
