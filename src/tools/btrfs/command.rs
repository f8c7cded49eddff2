//! Argument lists of btrfs-progs, and of our own stage in between.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parts::{Behind, Cutting};
use super::shares::Splitting;
use super::stage::{Expectation, Passed, Uuid};
use crate::host::{CommandSpec, Effect, PrivateMount, PrivateView, Tool, uuid_text};
use crate::tools::told;

/// The verb of ours that a [`stage`] is.
pub const STAGE: &str = "pass-stream";

/// The option of a stage that has it tell the [`Digest`](crate::tools::object::Digest) of what it passes on.
pub const DIGEST: &str = "--digest";

/// The option of a stage that has it tell what it would pass on, if that were to somebody: an
/// [`Edited`](super::edits::Edited) a line.
pub const EDITS: &str = "--edits";

/// The verb of ours that tells what a stream changes.
pub const CHANGES: &str = "list-changes";

/// What is sent, and how it is seen.
#[derive(Debug, Clone)]
pub struct Sending {
    /// The snapshot, read-only.
    pub snapshot: PathBuf,
    /// What the receiver has already: a read-only snapshot of the same file system, seen by the same mount.
    pub parent: Option<PathBuf>,
    /// How both are seen.
    pub view: PrivateView,
}

/// Sends a snapshot to standard output.
pub fn send(program: &Tool, sending: &Sending, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::lines(program.clone(), stall_limit).args(["send", "-q"]);
    if let Some(parent) = &sending.parent {
        spec = spec.arg("-p").arg(parent);
    }
    spec = spec.arg("--").arg(&sending.snapshot);
    spec.view = sending.view.clone();
    spec
}

/// A [`send`] of the second version of the stream, in which what is compressed is sent as it is.
pub fn with_compressed_data(mut send: CommandSpec) -> CommandSpec {
    let words = ["--proto", "2", "--compressed-data"].map(OsString::from);
    send.args.splice(1..1, words);
    send
}

/// The same without any data.
pub fn send_without_data(program: &Tool, sending: &Sending, stall_limit: Duration) -> CommandSpec {
    let mut spec = send(program, sending, stall_limit);
    spec.args.insert(1, "--no-data".into());
    spec
}

/// Tells how long such a stream would be with data: [`Lengths`](super::estimate::Lengths), on a line.
pub fn tell_lengths(stall_limit: Duration) -> CommandSpec {
    list_changes(stall_limit).arg("--lengths")
}

/// Tells what such a stream changes, a [`Differing`](super::changes::Differing) a line.
pub fn list_changes(stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(Tool::Own, stall_limit).arg(CHANGES)
}

/// Passes a stream on that is what is expected, see [`super::stage`]; to nobody, if it is only to be read.
pub fn stage(expected: &Expectation, reader: Reader, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::lines(Tool::Own, stall_limit)
        .args([STAGE, "--uuid", &uuid_text(expected.uuid)])
        .args(["--name", &expected.name]);
    if let Some(parent) = &expected.parent {
        spec = spec.args([
            "--based-on",
            &uuid_text(parent.sent),
            "--known-as",
            &uuid_text(parent.received),
        ]);
        if parent.shared != parent.received {
            spec = spec.args(["--shared-as", &uuid_text(parent.shared)]);
        }
        if let Some(generation) = parent.generation {
            spec = spec.args(["--based-on-generation", &generation.to_string()]);
        }
    }
    if reader == Reader::Nobody {
        spec = spec.arg("--to-nobody");
    }
    // It tells again and again how far it is.
    spec.repeats_itself = true;
    spec
}

/// A stage that has the subvolume be received under this UUID.
pub fn received_as(stage: CommandSpec, uuid: Option<Uuid>) -> CommandSpec {
    match uuid {
        Some(uuid) => stage.args(["--received-as", &uuid_text(uuid)]),
        None => stage,
    }
}

/// A stage that takes its stream apart, or goes on with one that was taken apart.
pub fn parted(stage: CommandSpec, cutting: Option<&Cutting>) -> CommandSpec {
    let Some(Cutting { every, seed, behind }) = cutting else { return stage };
    let mut spec = stage.args(["--part-size", &every.to_string()]);
    if let Some(seed) = seed {
        spec = spec.args(["--part-seed", &uuid_text(*seed)]);
    }
    let Some(Behind { mark, received, leave_out }) = behind else { return spec };
    spec = spec.args(["--behind", &mark.word()]);
    if let Some(received) = received {
        spec = spec.args(["--behind-known-as", &uuid_text(*received)]);
    }
    if *leave_out { spec.arg("--leave-out") } else { spec }
}

/// A stage that passes its stream on in shares, each of which is a part of it; see [`From::Share`](crate::tools::object::From).
pub fn split(stage: CommandSpec, Splitting { every, behind }: &Splitting) -> CommandSpec {
    let spec = stage.args(["--share-size", &every.to_string()]);
    match behind {
        Some(mark) => spec.args(["--share-behind", &mark.word()]),
        None => spec,
    }
}

/// A stage that passes on no more than so much, KiB per second.
pub fn paced(stage: CommandSpec, kib_per_second: Option<u32>) -> CommandSpec {
    match kib_per_second {
        Some(limit) => stage.args(["--limit", &limit.to_string()]),
        None => stage,
    }
}

/// Who reads what a stage passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The next process of the chain.
    Next,
    /// Nobody: the stream is read for its own sake.
    Nobody,
}

/// Receives a stream into a directory, and can write nowhere else.
pub fn receive(program: &Tool, directory: &Path, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::new(program.clone(), Effect::Mutate)
        .args(["receive", "-q", "-C", "--"])
        .arg(directory);
    spec.stall_limit = Some(stall_limit);
    spec
}

/// The same into a directory of this machine, without links in its path, of the file system that is mounted at `mount`. No
/// link in it is followed: a stream may make one, and go on through it into what lies beside it.
pub fn receive_here(
    program: &Tool,
    (mount, directory): (&Path, &Path),
    stall_limit: Duration,
) -> CommandSpec {
    // All of the mount, for a difference is based on what is told by its path from there.
    let shown = PrivateMount::Unlinked { from: mount.to_owned(), at: directory.to_owned() };
    let below = directory.strip_prefix(mount).unwrap_or(Path::new(""));
    // Joined with nothing, it would end in a slash.
    let seen = match below.as_os_str().is_empty() {
        true => directory.to_owned(),
        false => directory.join(below),
    };
    let mut spec = receive(program, &seen, stall_limit);
    spec.view.mounts.push(shown);
    spec
}

/// How long the space of what was deleted may take to become free.
pub const FREED_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Writes what there is to write on the file system of a path, and has it begin to free what was deleted: by itself it
/// would do that within half a minute.
pub fn commit(program: &Tool, path: &Path) -> CommandSpec {
    let mut spec =
        CommandSpec::new(program.clone(), Effect::Mutate).args(["filesystem", "sync"]).arg(path);
    spec.time_limit = Some(FREED_WITHIN);
    spec
}

/// Waits until the space of all subvolumes is free that were deleted so far on the file system of a path.
pub fn wait_until_freed(program: &Tool, path: &Path) -> CommandSpec {
    let mut spec = CommandSpec::new(program.clone(), Effect::Inspect)
        .args(["subvolume", "sync", "-s", "1"])
        .arg(path);
    spec.time_limit = Some(FREED_WITHIN);
    spec
}

/// Asks for the version of btrfs-progs.
pub fn version(program: &Tool) -> CommandSpec {
    CommandSpec::helper(program.clone()).arg("--version")
}

/// Reads what [`version`] prints, such as `btrfs-progs v6.2`; `None` when it says nothing of the kind.
pub fn parse_version(printed: &str) -> Option<(u32, u32)> {
    let number = printed.lines().next()?.strip_prefix("btrfs-progs v")?;
    let mut parts = number.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next().map_or(Some(0), Result::ok)?))
}

/// What a [`stage`] tells on its standard error, a line each time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Bytes so far.
    pub bytes: u64,
    /// Commands so far.
    pub commands: u64,
    /// Names that were given so far to what is no directory.
    pub named: u64,
    /// Names that were taken away from it.
    pub unnamed: u64,
    /// As [`Passed::unpacked`].
    #[serde(default)]
    pub unpacked: u64,
    /// The generation that the subvolume claims.
    pub generation: u64,
    /// Whether the stream is whole.
    pub whole: bool,
}

impl Told {
    /// What is told of what went through.
    pub fn of(passed: Passed, whole: bool) -> Told {
        let Passed { bytes, commands, named, unnamed, unpacked, generation } = passed;
        Told { bytes, commands, named, unnamed, unpacked, generation, whole }
    }

    /// Reads a line; `None` when it is another one's.
    pub fn read(line: &[u8]) -> Option<Told> {
        serde_json::from_slice(line).ok()
    }

    /// The last that was told.
    pub fn last(stderr: &[u8]) -> Option<Told> {
        told::last(stderr)
    }
}

/// Reads a UUID; `None` when it is none.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let digits = text.replace('-', "");
    let is_one =
        text.len() == 36 && digits.len() == 32 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    is_one.then(|| u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::stage::Parent;
    use super::*;

    #[test]
    fn a_uuid_is_written_and_read_back() {
        let uuid: Uuid = std::array::from_fn(|n| u8::try_from(n).unwrap() * 17);
        assert_eq!(uuid_text(uuid), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(parse_uuid(&uuid_text(uuid)), Some(uuid));
        for wrong in
            ["", "x", "00112233-4455-6677-8899-aabbccddeef", "+0112233-4455-6677-8899-aabbccddeeff"]
        {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn command_lines() {
        let btrfs = Tool::Named("btrfs".into());
        let limit = Duration::from_secs(1800);
        let sending = Sending {
            snapshot: "/home/-new".into(),
            parent: Some("/home/old".into()),
            view: PrivateView::default(),
        };
        let sent = send(&btrfs, &sending, limit);
        assert_eq!(sent.display(), "btrfs send -q -p /home/old -- /home/-new");
        assert_eq!(
            with_compressed_data(sent.clone()).display(),
            "btrfs send --proto 2 --compressed-data -q -p /home/old -- /home/-new"
        );
        assert_eq!((sent.effect, sent.stall_limit), (Effect::Inspect, Some(limit)));
        let received = receive(&btrfs, Path::new("/srv/copies"), limit);
        assert_eq!(received.display(), "btrfs receive -q -C -- /srv/copies");
        assert_eq!(received.effect, Effect::Mutate);
        let parent =
            Some(Parent { sent: [2; 16], received: [3; 16], shared: [2; 16], generation: Some(7) });
        let expected = Expectation { name: ".incoming.x".into(), uuid: [1; 16], parent };
        assert_eq!(
            stage(&expected, Reader::Next, limit).display(),
            "stillpoint pass-stream --uuid 01010101-0101-0101-0101-010101010101 --name .incoming.x \
             --based-on 02020202-0202-0202-0202-020202020202 --known-as 03030303-0303-0303-0303-030303030303 --shared-as 02020202-0202-0202-0202-020202020202 --based-on-generation 7"
        );
        let alone = Expectation { parent: None, ..expected };
        assert_eq!(
            stage(&alone, Reader::Nobody, limit).display(),
            "stillpoint pass-stream --uuid 01010101-0101-0101-0101-010101010101 --name .incoming.x --to-nobody"
        );
        let plain = stage(&alone, Reader::Next, limit);
        assert_eq!(paced(plain.clone(), None).display(), plain.display());
        assert_eq!(received_as(plain.clone(), None).display(), plain.display());
        assert_eq!(
            received_as(plain.clone(), Some([4; 16])).display(),
            format!("{} --received-as 04040404-0404-0404-0404-040404040404", plain.display())
        );
        assert_eq!(
            paced(plain.clone(), Some(7)).display(),
            format!("{} --limit 7", plain.display())
        );
    }

    #[test]
    fn versions_are_read() {
        for (printed, expected) in [
            ("btrfs-progs v6.2\n", Some((6, 2))),
            ("btrfs-progs v6.17.1 \n+EXPERIMENTAL -ZONED\n", Some((6, 17))),
            ("btrfs-progs v5\n", Some((5, 0))),
            ("btrfs-progs v6.16-rc1\n", Some((6, 16))),
            ("btrfs-progs vx.2\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(printed), expected, "{printed}");
        }
    }

    #[test]
    fn what_a_stage_tells_is_read_among_other_lines() {
        let told = Told {
            bytes: 5,
            commands: 2,
            named: 1,
            unnamed: 3,
            unpacked: 4,
            generation: 77,
            whole: true,
        };
        let line = serde_json::to_string(&told).unwrap();
        let first = serde_json::to_string(&Told::default()).unwrap();
        let all = format!("{first}\nERROR: {{}}\n{line}\nsomething else\n");
        assert_eq!(Told::last(all.as_bytes()), Some(told));
        assert_eq!(Told::last(b"ERROR: no"), None);
    }
}
