//! What every engine's table has, and what reading one gives.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Key, Keyed, Table};
use crate::config::kind::Choice;
use crate::config::kinds::{ARGV, LONG_SPAN, PATH, TEXT, Whole};
use crate::config::repository::Location;
use crate::config::section::Section;
use crate::config::source::Span;
use crate::model::names::TargetName;
use crate::model::shown::Show;
use crate::model::target::{EngineConfig, SecretSource, WhenAbsent};

/// An engine: its table, and who reads it.
pub struct Engine {
    /// `[targets.NAME.ENGINE]`.
    pub table: &'static Table,
    /// Reads its table.
    pub read: fn(&Section<'_>, &mut Notes) -> Option<ReadEngine>,
    /// Whether it can check a repository, so that `[targets.NAME.check]` goes with it.
    pub can_check: bool,
}

/// What the table of an engine says.
pub struct ReadEngine {
    /// The repository as the engine is told it.
    pub repository: String,
    /// Where the repository stands in the file.
    pub repository_at: Span,
    /// Where the repository is; `None` when that could not be read.
    pub location: Option<Location>,
    /// Where the passphrase comes from.
    pub secret: Option<SecretSource>,
    /// The target that this one is filled from.
    pub copy_from: Option<TargetName>,
    /// Where that stands in the file.
    pub copy_from_at: Span,
    /// See [`REQUIRE_MOUNT`].
    pub require_mount: Option<PathBuf>,
    /// See [`WHEN_ABSENT`].
    pub when_absent: WhenAbsent,
    /// See [`PROGRAM`].
    pub program: Option<PathBuf>,
    /// See [`UPLOAD_LIMIT`].
    pub upload_limit_kib: Option<u32>,
    /// See [`STALL_TIMEOUT`].
    pub stall_timeout: Duration,
    /// What this engine alone understands.
    pub config: EngineConfig,
}

/// The repository; an engine says in which forms.
pub const REPOSITORY: Key<String> = Key::new("repository", &TEXT);

/// Guards against a disk that is not there.
pub const REQUIRE_MOUNT: Key<PathBuf> = Key::new("require-mount", &PATH)
    .says("Refuse to write when nothing is mounted there, instead of filling the disk below");

/// What to make of a disk that is not there.
pub const WHEN_ABSENT: Key<WhenAbsent> =
    Key::new("when-absent", &Choice(&[("fail", WhenAbsent::Fail), ("skip", WhenAbsent::Skip)]))
        .says("What a run makes of a disk that is away: it fails, or goes on without it")
        .default("'fail'")
        .example("'skip'");

/// The engine's program on this machine.
pub const PROGRAM: Key<PathBuf> = Key::new("program", &PATH);

/// How much the engine may send.
pub const UPLOAD_LIMIT: Key<u32> = Key::new("upload-limit", &Whole(1)).says("KiB per second");

/// How much of what `btrfs send` sends makes a part, in MiB; an engine says what becomes of it.
pub const PART_SIZE: Key<u32> = Key::new("part-size", &Whole(0));

/// The same in bytes; `None` where nothing is taken apart.
pub fn part_size(mebibytes: u32) -> Option<u64> {
    (mebibytes > 0).then_some(u64::from(mebibytes) << 20)
}

/// How another machine is reached, also by a source.
pub const SSH_COMMAND: Key<Vec<String>> =
    Key::new("ssh-command", &ARGV).says("ssh and its options").hidden();

/// How long nothing may move.
pub const STALL_TIMEOUT: Key<Duration> = Key::new("stall-timeout", &LONG_SPAN)
    .says("Stop the engine when nothing moved for so long")
    .default("'30m'");

impl ReadEngine {
    /// What every engine's table says, with what this engine's alone says.
    pub fn new(
        section: &Section<'_>,
        repository: Option<String>,
        location: Option<Location>,
        config: EngineConfig,
    ) -> Option<Self> {
        Some(Self {
            repository: repository.unwrap_or_default(),
            repository_at: section.value_at(&REPOSITORY),
            location,
            secret: None,
            copy_from: None,
            copy_from_at: section.at,
            require_mount: section.get(&REQUIRE_MOUNT),
            when_absent: section.get(&WHEN_ABSENT)?,
            program: section.get(&PROGRAM),
            upload_limit_kib: section.get(&UPLOAD_LIMIT),
            stall_timeout: section.get(&STALL_TIMEOUT)?,
            config,
        })
    }
}

/// Reads the repository, which there must be.
pub fn read_repository(section: &Section<'_>, notes: &mut Notes) -> Option<String> {
    if !section.has(&REPOSITORY) {
        let message = format!("{} needs a repository", section.key);
        notes.missing(section.at, Complaint::new(message));
    }
    section.get(&REPOSITORY)
}

/// Judges `when-absent`: only a mount tells a disk that is away from a repository that somebody has deleted.
fn check_absence(section: &Section<'_>, location: Option<&Location>, notes: &mut Notes) {
    if section.get(&WHEN_ABSENT) != Some(WhenAbsent::Skip) {
        return;
    }
    let at = section.value_at(&WHEN_ABSENT);
    let mount = section.get(&REQUIRE_MOUNT);
    match (location, mount) {
        (Some(Location::Remote(_)), _) => {
            let message = "when-absent looks at this machine, the repository is elsewhere";
            notes.problem(at, Complaint::new(message));
        }
        (Some(Location::Local(path)), Some(mount)) if !path.starts_with(&mount) => {
            let message = format!(
                "whether the disk is there is told by {}, and the repository is not below it",
                mount.shown()
            );
            notes.problem(at, Complaint::new(message));
        }
        (Some(Location::Local(_)), None) if !section.has(&REQUIRE_MOUNT) => {
            let complaint = Complaint::new("when-absent = \"skip\" needs require-mount")
                .help("nothing else tells a disk that is away from a repository that is gone");
            notes.missing(at, complaint);
        }
        (Some(Location::Local(_)) | None, _) => {}
    }
}

/// Judges `require-mount` against where the repository is.
pub fn check_mount(section: &Section<'_>, location: Option<&Location>, notes: &mut Notes) {
    check_absence(section, location, notes);
    let Some(mount) = section.get(&REQUIRE_MOUNT) else { return };
    let at = section.value_at(&REQUIRE_MOUNT);
    if mount.parent().is_none() {
        let message = format!("{}: something is always mounted at \"/\"", REQUIRE_MOUNT.key());
        notes.problem(at, Complaint::new(message));
    }
    match location {
        Some(Location::Local(path)) if !path.starts_with(&mount) => {
            let message = format!("the repository is not below {}", mount.shown());
            notes.warning(at, Complaint::new(message));
        }
        Some(Location::Remote(_)) => {
            let message = "require-mount looks at this machine, the repository is elsewhere";
            notes.warning(at, Complaint::new(message));
        }
        Some(Location::Local(_)) | None => {}
    }
}
