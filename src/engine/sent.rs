//! What engines have in common whose copies are what `btrfs send` sends: the processes that send, and why one failed.

use std::path::Path;
use std::time::Duration;

pub(super) use super::blame::{culprit, culprit_of};
use super::{Context, Engine, EngineError, Input, OnProgress, SentFrom, Snapshot, StillSubvolume};
use crate::host::{Chained, CommandSpec, Completed, Host, PrivateView, RunError, Tool, Watch};
use crate::model::event::Progress;
use crate::model::target::Target;
use crate::tools::btrfs::command::{self, Reader, Sending, Told, parse_uuid, parse_version};
use crate::tools::btrfs::parts::{has_base_changed, is_unfit};
use crate::tools::btrfs::stage::{Expectation, Uuid};
use crate::tools::far;
use crate::tools::ssh;

/// The subvolume that is to be stored.
///
/// # Errors
/// When it is anything else.
pub(super) fn still_of<'r>(
    engine: &dyn Engine,
    input: &'r Input,
) -> Result<&'r StillSubvolume, EngineError> {
    match input {
        Input::Subvolume(still) => Ok(still),
        Input::Tree { .. } | Input::Stream { .. } => {
            Err(EngineError::unsupported(engine.target(), "store anything but subvolumes"))
        }
    }
}

/// What a stream may be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// What every receiver understands.
    Plain,
    /// What is compressed, as it is.
    Compressed,
}

impl Data {
    /// A sender of such a stream.
    pub fn sent_by(self, send: CommandSpec) -> CommandSpec {
        match self {
            Data::Plain => send,
            Data::Compressed => command::with_compressed_data(send),
        }
    }
}

/// The oldest btrfs-progs that take compressed data: 6.0.2 and 6.2 mended ways in which it was lost.
const TAKES_COMPRESSED: (u32, u32) = (6, 2);

/// Where a kernel says which streams it can make and take.
pub(super) const STREAM_VERSION: &str = "/sys/fs/btrfs/features/send_stream_version";

/// What this machine can send and receive.
pub(super) fn data_here(cx: Context<'_>, engine: &dyn Engine) -> Data {
    let kernel = cx.host.read(Path::new(STREAM_VERSION)).ok();
    let knows =
        |kernel: &[u8]| version(cx, engine).is_ok_and(|version| takes_compressed(kernel, &version));
    match kernel.is_some_and(|kernel| knows(&kernel)) {
        true => Data::Compressed,
        false => Data::Plain,
    }
}

/// Whether compressed data can be sent and received where the kernel says this of streams, and btrfs-progs that of
/// themselves.
pub(super) fn takes_compressed(kernel: &[u8], version: &str) -> bool {
    let newest: Option<u32> = String::from_utf8_lossy(kernel).trim().parse().ok();
    newest.is_some_and(|newest| newest >= 2)
        && parse_version(version).is_some_and(|version| version >= TAKES_COMPRESSED)
}

/// The process that sends a snapshot from where it is, as `how` makes it of btrfs-progs there. The program is that of this
/// machine.
pub(super) fn send_from(
    program: &Tool,
    still: &StillSubvolume,
    base: Option<&Snapshot>,
    limit: Duration,
    how: impl Fn(&Tool, &Sending) -> CommandSpec,
) -> CommandSpec {
    let sending = |view| Sending {
        snapshot: still.snapshot.path.clone(),
        parent: base.map(|base| base.path.clone()),
        view,
    };
    match &still.from {
        SentFrom::Here(view) => how(program, &sending(view.clone())),
        SentFrom::There(server) => {
            let there = Tool::from_word(&server.program);
            far::there(server, how(&there, &sending(PrivateView::default())), limit)
        }
    }
}

/// What sends a snapshot, and passes on what was asked for.
pub(super) fn sender(
    engine: &dyn Engine,
    still: &StillSubvolume,
    base: Option<&Snapshot>,
    expected: &Expectation,
    data: Data,
) -> [CommandSpec; 2] {
    let target = engine.target();
    let limit = target.stall_timeout;
    let stage = command::stage(expected, Reader::Next, limit);
    let data = match still.from {
        SentFrom::Here(_) => data,
        // What can be sent is known of this machine alone.
        SentFrom::There(_) => Data::Plain,
    };
    let send = send_from(&engine.program(), still, base, limit, |program, sending| {
        data.sent_by(command::send(program, sending, limit))
    });
    [send, command::paced(stage, target.upload_limit_kib)]
}

/// Tells how far it is, if a line of a stage's says so.
pub(super) fn heard(line: &[u8], progress: OnProgress<'_>) {
    if let Some(told) = Told::read(line) {
        progress(Progress { bytes_done: Some(told.bytes), ..Progress::default() });
    }
}

/// How many names lead to what is no directory in a copy: a difference says which of those before it came and went.
pub(super) fn files(told: &Told, before: Option<u64>) -> Option<u64> {
    (before? + told.named).checked_sub(told.unnamed)
}

/// The version of btrfs-progs.
///
/// # Errors
/// When they do not tell it.
pub(super) fn version(cx: Context<'_>, engine: &dyn Engine) -> Result<String, EngineError> {
    let spec = command::version(&engine.program());
    let completed = cx.host.run(&spec, &mut |_, _| {})?;
    match completed.success() {
        true => Ok(String::from_utf8_lossy(&completed.stdout).trim().to_owned()),
        false => Err(failure(engine.target(), &spec, &completed)),
    }
}

/// Whether a snapshot cannot be sent, of which the sender and a stage have ended so: the sender failed by
/// itself, or what it says may not pass. Everything else may go better the next time.
pub(super) fn cannot_be_sent(ended: &[Completed]) -> bool {
    // A line to another machine that broke is no fault of the snapshot.
    let failed =
        |sender: &Completed| sender.is_own_failure() && sender.code() != Some(ssh::OWN_FAILURE);
    ended.first().is_some_and(failed)
        || ended.last().is_some_and(|stage| is_unfit(&stage.stderr_tail))
}

/// That somebody changed what a difference was to be made to, if that is why the stage among these failed.
pub(super) fn base_changed(specs: &[CommandSpec], ended: &[Completed]) -> Option<EngineError> {
    let mut told = specs.iter().zip(ended);
    let (stage, ended) = told.find(|(_, ended)| has_base_changed(&ended.stderr_tail))?;
    Some(EngineError::Failed {
        command: stage.display(),
        exit: ended.exit.to_string(),
        detail: "somebody changed the snapshot that the difference was to be made to, after it was looked at".into(),
    })
}

/// Why a process failed that works for a target.
pub(super) fn failure(target: &Target, spec: &CommandSpec, completed: &Completed) -> EngineError {
    if completed.left_early {
        return RunError::LeftEarly { command: spec.display() }.into();
    }
    let detail = completed.last_words(5);
    // The words of the kernel stand at the end; a name before them may say anything.
    if detail.lines().any(|line| FULL.iter().any(|end| line.ends_with(end))) {
        return EngineError::Full { repository: target.repository.clone(), detail };
    }
    EngineError::Failed { command: spec.display(), exit: completed.exit.to_string(), detail }
}

/// Says why a process failed.
pub(super) type Blame<'a> = &'a dyn Fn(&CommandSpec, &Completed) -> EngineError;

/// Runs processes, each of which reads what the one before it prints.
///
/// # Errors
/// When one of them failed.
pub(super) fn run_all(
    cx: Context<'_>,
    specs: &[CommandSpec],
    blame: Blame<'_>,
    watch: Watch<'_>,
) -> Result<(), EngineError> {
    let Some((last, before)) = specs.split_last() else { return Ok(()) };
    let chained = match before {
        [] => Chained { before: Vec::new(), last: cx.host.run(last, watch)?, bytes: None },
        before => cx.host.chain(before, last, watch)?,
    };
    match culprit(before, last, &chained) {
        Some((spec, ended)) => Err(blame(spec, ended)),
        None => Ok(()),
    }
}

/// What stands at the end of a line when there was no space: of btrfs-progs, and of our own verbs.
const FULL: &[&str] = &[
    ": No space left on device",
    ": No space left on device (os error 28)",
    ": Disk quota exceeded (os error 122)",
];

/// A UUID that nothing else has.
pub(super) fn new_uuid(host: &dyn Host) -> Uuid {
    let mut uuid = Uuid::default();
    uuid.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&host.random()));
    uuid
}

/// Reads the UUID of a snapshot.
///
/// # Errors
/// When it is none.
pub(super) fn uuid(text: &str) -> Result<Uuid, EngineError> {
    let what = || format!("{text:?} is no UUID");
    parse_uuid(text).ok_or_else(|| EngineError::Output { engine: "btrfs", what: what() })
}
