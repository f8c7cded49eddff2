//! A job, resolved: what to protect, how to hold it still, where it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::keep::KeepPolicy;
use super::names::{HostName, JobName, TargetName};
use super::target::{Server, Target};

/// The whole configuration, validated: every reference in it leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[settings]`, with defaults filled in.
    pub settings: Settings,
    /// Targets, in the file's order.
    pub targets: Vec<Target>,
    /// Jobs, in the file's order.
    pub jobs: Vec<Job>,
    /// The files it was read from: the main file first, then the drop-ins in order.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// The target of that name.
    pub fn target(&self, name: &TargetName) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == *name)
    }

    /// The job of that name.
    pub fn job(&self, name: &JobName) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == *name)
    }

    /// In whose name the copies of a job are made: that of the machine which its source is on. A job that there is not, or
    /// not any more, is taken for one of this machine.
    pub fn host_of(&self, job: &JobName) -> &HostName {
        self.job(job).and_then(|job| job.source.host()).unwrap_or(&self.settings.host)
    }

    /// What a job keeps in a target: its own policy, else the target's.
    pub fn keep<'a>(&'a self, job: &'a Job, target: &'a Target) -> Option<&'a KeepPolicy> {
        job.keep.get(&target.name).or(target.keep.as_ref())
    }
}

/// `[settings]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Part of every copy's identity.
    pub host: HostName,
    /// Ledger, history, reports. Survives a reboot.
    pub state_dir: PathBuf,
    /// Locks and mount points. Does not.
    pub runtime_dir: PathBuf,
    /// The engines' caches and their temporary files.
    pub cache_dir: PathBuf,
    /// Where engines that cannot do without a cache keep it instead of `cache_dir`, because nothing can be written there.
    pub fallback_cache: Option<PathBuf>,
    /// How many jobs of a run are at work at the same time, at least one.
    pub parallel: u32,
    /// How many targets of a job take its copies at the same time, at least one.
    pub parallel_targets: u32,
    /// How long a run waits for a lock.
    pub lock_wait: Duration,
    /// A Prometheus textfile to write after each run.
    pub metrics_file: Option<PathBuf>,
    /// How old the last good copy may get before `status` calls it stale.
    pub max_age: Duration,
}

/// What to protect, how to hold it still, where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The key of `[jobs.NAME]`.
    pub name: JobName,
    /// Where it goes, in the order in which the targets are served.
    pub targets: Vec<TargetName>,
    /// What to protect.
    pub source: Source,
    /// Retention that overrides the target's own.
    pub keep: BTreeMap<TargetName, KeepPolicy>,
    /// Which snapshots stay on this machine besides those that the next run needs; `None`: no others.
    pub keep_snapshots: Option<KeepPolicy>,
    /// Programs that run around the job.
    pub hooks: Hooks,
    /// How much smaller than the last good copy a copy may be before retention refuses to run, in
    /// percent of files or bytes. 100 switches the guard off.
    pub max_shrink_percent: u8,
    /// Overrides the setting of the same name for `status`.
    pub max_age: Option<Duration>,
}

/// What a job protects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `[jobs.NAME.files]`.
    Files(FilesSource),
    /// `[jobs.NAME.commands.ITEM]`, in the file's order.
    Commands(Vec<CommandSource>),
    /// `[jobs.NAME.subvolumes]`.
    Subvolumes(SubvolumesSource),
}

impl Source {
    /// Whether what is held still and what is sent can be had apart from each other.
    pub fn can_be_had_apart(&self) -> bool {
        match self {
            Source::Files(_) | Source::Commands(_) => false,
            Source::Subvolumes(_) => true,
        }
    }

    /// Whether its captures can stay on this machine from run to run.
    pub fn keeps_snapshots(&self) -> bool {
        match self {
            Source::Files(_) | Source::Commands(_) => false,
            Source::Subvolumes(source) => source.existing.is_none(),
        }
    }

    /// The name of the machine that it is on, if that is another one.
    pub fn host(&self) -> Option<&HostName> {
        self.far_machine().map(|from| &from.host)
    }

    /// The machine that it is on, if that is another one.
    pub fn far_machine(&self) -> Option<&FarMachine> {
        match self {
            Source::Files(_) | Source::Commands(_) => None,
            Source::Subvolumes(subvolumes) => subvolumes.from.as_ref(),
        }
    }

    /// The subvolumes of this machine that are taken over as they are, with an empty directory for each that lies in them.
    pub fn subvolumes_here(&self) -> &[PathBuf] {
        match self {
            Source::Files(_) | Source::Commands(_) => &[],
            Source::Subvolumes(SubvolumesSource { from: Some(_), .. }) => &[],
            Source::Subvolumes(SubvolumesSource { paths, from: None, .. }) => paths,
        }
    }

    /// Whether a run makes a file system read-only to read it, which all see.
    pub fn makes_read_only(&self) -> bool {
        match self {
            Source::Files(files) => !files.capture.remount_readonly.is_empty(),
            Source::Commands(_) | Source::Subvolumes(_) => false,
        }
    }

    /// The key that chose it.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Files(_) => "files",
            Source::Commands(_) => "commands",
            Source::Subvolumes(_) => "subvolumes",
        }
    }
}

/// Files and directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSource {
    /// The paths that are protected; absolute.
    pub paths: Vec<PathBuf>,
    /// Exclude patterns in restic's dialect.
    pub exclude: Vec<String>,
    /// Skip directories that hold a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Skip directories that hold a file of one of these names.
    pub exclude_if_present: Vec<String>,
    /// Do not cross into other file systems.
    pub one_file_system: bool,
    /// How the source is held still.
    pub capture: CapturePolicy,
    /// A directory without any entry is accepted as a source.
    pub allow_empty: bool,
}

/// Whether a source is held still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureMode {
    /// By the best provider that fits; a warning when none does.
    Auto,
    /// By a provider, or not at all.
    Required,
    /// Nothing is captured: files are read as they are at that time.
    None,
}

/// How a source is held still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturePolicy {
    /// Whether volumes are captured, and whether one that cannot be is an error.
    pub mode: CaptureMode,
    /// Writers are stopped around all captures of the job, so that they show one moment.
    pub consistent: bool,
    /// Whose processes are frozen meanwhile: names of systemd units, or control groups from the root of
    /// their hierarchy (`/system.slice/app.service`).
    pub freeze_units: Vec<String>,
    /// How long they may stay frozen before they are let go, whatever happens.
    pub freeze_limit: Duration,
    /// Mounted file systems that are read live on purpose, with what is mounted below them.
    pub live: Vec<PathBuf>,
    /// What lies below the paths and is knowingly not in the copy: mounted file systems, subvolumes and
    /// swap files, each with everything below it.
    pub leave_out: Vec<PathBuf>,
    /// When a thin pool is too full for a snapshot.
    pub thin: ThinLimits,
    /// How much a classic snapshot can take in before it breaks.
    pub classic_size: ClassicSize,
    /// Mounted file systems that are made read-only while they are read.
    pub remount_readonly: Vec<PathBuf>,
}

/// How full a thin pool may be when a snapshot is made in it, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinLimits {
    /// Of its data.
    pub data_percent: u8,
    /// Of its metadata.
    pub metadata_percent: u8,
}

/// The size of a classic snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassicSize {
    /// Percent of its origin.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

/// Subvolumes of btrfs, each taken over as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubvolumesSource {
    /// Where they are seen: absolute paths, each a series of its own.
    pub paths: Vec<PathBuf>,
    /// What lies in them and is knowingly in no copy: other subvolumes, each with everything below it.
    pub leave_out: Vec<PathBuf>,
    /// The machine that they are on; `None`: this one.
    pub from: Option<FarMachine>,
    /// The snapshots that another program makes of them, which are sent instead of own ones; `None`: a run makes its own.
    pub existing: Option<ExistingSnapshots>,
}

/// Another machine, whose subvolumes are pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarMachine {
    /// Whose copies they are.
    pub host: HostName,
    /// How it is reached, and the directory there in which snapshots are made.
    pub server: Server,
}

/// Snapshots that another program makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingSnapshots {
    /// How they are called, as patterns: where the machine sees them, or their paths from the top-level subvolume on.
    pub called: Vec<String>,
    /// Each of them is sent, not only the newest one.
    pub all: bool,
}

/// What a run does of what jobs say, and for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The only target that is served.
    pub target: Option<&'a TargetName>,
    /// What is done.
    pub part: Part,
}

/// A part of what jobs of subvolumes do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The snapshots alone, which go to no target.
    Snapshots,
    /// What was made before is sent; no snapshot is made.
    Transfer,
}

impl Part {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Part::Whole => "whole",
            Part::Snapshots => "snapshots",
            Part::Transfer => "transfer",
        }
    }
}

/// One stream: the standard output of a command, stored as one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSource {
    /// The key of `[jobs.NAME.commands.ITEM]`; the item of the series.
    pub item: String,
    /// argv; no shell.
    pub command: Vec<String>,
    /// The name of the file in the copy.
    pub file_name: String,
}

/// Programs that run around a job; argv lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before anything else; a failure fails the job, exit 75 skips it.
    pub before: Vec<Vec<String>>,
    /// Just before the captures are made: make writers pause. A failure fails the job.
    pub quiesce: Vec<Vec<String>>,
    /// As soon as the captures exist, whatever happened: let writers go on. Also in `recover`.
    pub resume: Vec<Vec<String>>,
    /// After all targets, when the job did not fail.
    pub after: Vec<Vec<String>>,
    /// When the job failed, is incomplete or was interrupted.
    pub on_failure: Vec<Vec<String>>,
    /// Always, also after a signal and in `recover`.
    pub finally: Vec<Vec<String>>,
    /// How long one hook may take before its process group is stopped.
    pub timeout: Option<Duration>,
}

impl Hooks {
    /// Whether no hook is named.
    pub fn is_empty(&self) -> bool {
        self.named().next().is_none()
    }

    /// Every hook, with its key in the configuration, in the order in which a run comes to them.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Vec<String>)> {
        [
            ("before", &self.before),
            ("quiesce", &self.quiesce),
            ("resume", &self.resume),
            ("after", &self.after),
            ("on-failure", &self.on_failure),
            ("finally", &self.finally),
        ]
        .into_iter()
        .flat_map(|(name, hooks)| hooks.iter().map(move |argv| (name, argv)))
    }
}
