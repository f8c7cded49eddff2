//! The shape of the configuration file: every key there is, what it holds and what it says.
//!
//! This is the one declaration. The check of keys and types, the suggestions, the JSON schema and the
//! test that every key has an effect all read it. Keys that this version knows but cannot serve are
//! declared too, so that they are refused by name instead of as a misspelling.

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key, kebab-case.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it says, for the schema.
    pub says: &'static str,
}

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A string that is safe as an operand: not empty, no control characters, no `-` first.
    Text,
    /// A host name.
    Host,
    /// A file name without directories.
    FileName,
    /// A whole number from this one up to 2³²−1.
    Whole(u32),
    /// `true` or `false`.
    Flag,
    /// A length of time.
    Span,
    /// A length of time longer than nothing.
    LongSpan,
    /// An absolute path.
    Path,
    /// A list of [`Kind::Text`].
    Texts,
    /// A list of patterns, which may start with `-`.
    Patterns,
    /// A list of [`Kind::Path`].
    Paths,
    /// A program with its arguments.
    Argv,
    /// A list of [`Kind::Argv`].
    Argvs,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A borg compression specification.
    BorgCompression,
    /// A borg files cache mode.
    BorgFilesCache,
    /// `"1%"` to `"100%"`, or `"off"`, which is the same as the latter.
    Shrink,
    /// `true`, `false`, `"all"` or a percentage.
    Share,
    /// `"1%"` to `"100%"`.
    Percent,
    /// `"1%"` to `"100%"`, or a number of bytes such as `"2G"`.
    SnapshotSize,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table whose keys are names and whose values are tables with these keys.
    Named(Names, &'static [Key]),
    /// Known, but not in this version: completes "this version of Stillpoint cannot … yet".
    Later(&'static str),
}

/// What the keys of a [`Kind::Named`] table name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Targets.
    Target,
    /// Jobs.
    Job,
    /// A target that is defined elsewhere.
    Reference,
    /// Items of a job, such as its command streams.
    Item,
}

const fn key(name: &'static str, kind: Kind, says: &'static str) -> Key {
    Key { name, kind, says }
}

/// The modes of `borg init --encryption` in borg 1.x (`borg init --help`).
pub const BORG_ENCRYPTION: &[&str] = &[
    "none",
    "authenticated",
    "authenticated-blake2",
    "repokey",
    "repokey-blake2",
    "keyfile",
    "keyfile-blake2",
];

/// The whole file.
pub const FILE: &[Key] = &[
    key("settings", Kind::Table(SETTINGS), "What holds for all jobs; everything in it is optional"),
    key("targets", Kind::Named(Names::Target, TARGET), "Where copies go, by name"),
    key("jobs", Kind::Named(Names::Job, JOB), "What to protect, by name"),
];

/// `[settings]`.
pub const SETTINGS: &[Key] = &[
    key("host", Kind::Host, "Part of every copy's identity; default: the host name"),
    key("state-dir", Kind::Path, "Ledger, history and reports; must survive a reboot"),
    key("runtime-dir", Kind::Path, "Locks and mount points; need not survive a reboot"),
    key("cache-dir", Kind::Path, "Caches and temporary files of the engines"),
    key("lock-wait", Kind::Span, "How long a run waits for a lock"),
    key("metrics-file", Kind::Path, "A Prometheus text file, written after each run"),
    key("max-age", Kind::LongSpan, "How old the last good copy may get before it is stale"),
];

/// `[targets.NAME]`.
pub const TARGET: &[Key] = &[
    key("borg", Kind::Table(BORG), "Copies are borg archives"),
    key("restic", Kind::Table(RESTIC), "Copies are restic snapshots"),
    key("btrfs", Kind::Later("write to btrfs targets"), "Copies are received subvolumes"),
    key("keep", Kind::Table(KEEP), "Which copies stay; absent: all of them"),
    key("check", Kind::Table(CHECK), "Regular checks of the repository"),
    key("compact-every", Kind::Span, "How often space is given back; absent: after each deletion"),
    key("append-only", Kind::Flag, "Nothing is ever deleted, pruned or compacted here"),
];

/// `[targets.NAME.borg]`.
pub const BORG: &[Key] = &[
    key("repository", Kind::Text, "An absolute path, ssh://user@host:port/path or user@host:path"),
    key("passphrase-file", Kind::Path, "A file that holds the passphrase"),
    key("passphrase-command", Kind::Argv, "A command that prints the passphrase"),
    key("passphrase-credential", Kind::FileName, "A systemd credential that holds the passphrase"),
    key("key-file", Kind::Path, "The key of a keyfile repository"),
    key("encryption", Kind::Word(BORG_ENCRYPTION), "The mode in which init creates it"),
    key("compression", Kind::BorgCompression, "As borg create --compression takes it"),
    key("files-cache", Kind::BorgFilesCache, "How borg recognises an unchanged file"),
    key("require-mount", Kind::Path, "Refuse when nothing is mounted there"),
    key("program", Kind::Path, "The borg program on this machine"),
    key("remote-program", Kind::Text, "The borg program on the other side"),
    key("ssh-command", Kind::Argv, "ssh and its options"),
    key("upload-limit", Kind::Whole(1), "KiB per second"),
    key("stall-timeout", Kind::LongSpan, "Stop the engine when nothing moved for so long"),
];

/// `[targets.NAME.restic]`.
pub const RESTIC: &[Key] = &[
    key("repository", Kind::Text, "Any restic repository, handed through untouched"),
    key("password-file", Kind::Path, "A file that holds the password"),
    key("password-command", Kind::Argv, "A command that prints the password"),
    key("password-credential", Kind::FileName, "A systemd credential that holds the password"),
    key("environment-file", Kind::Path, "KEY=value lines for the backend"),
    key("copy-from", Kind::Text, "Filled by restic copy from this target"),
    key("compression", Kind::Word(&["auto", "off", "max"]), "As restic --compression takes it"),
    key("require-mount", Kind::Path, "Refuse when nothing is mounted there"),
    key("program", Kind::Path, "The restic program on this machine"),
    key("upload-limit", Kind::Whole(1), "KiB per second"),
    key("stall-timeout", Kind::LongSpan, "Stop the engine when nothing moved for so long"),
];

/// `[targets.NAME.keep]` and `[jobs.NAME.keep.TARGET]`.
pub const KEEP: &[Key] = &[
    key("last", Kind::Whole(0), "The newest copies"),
    key("hourly", Kind::Whole(0), "One copy for each of so many hours of UTC"),
    key("daily", Kind::Whole(0), "One copy for each of so many days of UTC"),
    key("weekly", Kind::Whole(0), "One copy for each of so many weeks of UTC"),
    key("monthly", Kind::Whole(0), "One copy for each of so many months of UTC"),
    key("yearly", Kind::Whole(0), "One copy for each of so many years of UTC"),
    key("within", Kind::LongSpan, "Every copy younger than this, counted from the newest"),
    key("tags", Kind::Texts, "Every copy that carries one of these tags"),
];

/// `[targets.NAME.check]`.
pub const CHECK: &[Key] = &[
    key("every", Kind::Span, "How long after a check the next one is due"),
    key("read-data", Kind::Share, "How much of the data is read back: true, false or \"5%\""),
];

/// `[jobs.NAME]`.
pub const JOB: &[Key] = &[
    key("targets", Kind::Texts, "Where it goes, in this order"),
    key("files", Kind::Table(FILES), "Protects files and directories"),
    key("commands", Kind::Named(Names::Item, COMMAND), "Protects the output of commands"),
    key("machines", Kind::Later("back up machines"), "Protects libvirt guests"),
    key("subvolumes", Kind::Later("back up subvolumes"), "Protects btrfs subvolumes"),
    key("volumes", Kind::Later("back up volumes"), "Protects LVM volumes"),
    key("keep", Kind::Named(Names::Reference, KEEP), "Overrides a target's keep for this job"),
    key("keep-snapshots", Kind::Later("keep local snapshots"), "Which local snapshots stay"),
    key("hooks", Kind::Table(HOOKS), "Programs that run around the job"),
    key("max-shrink", Kind::Shrink, "Refuse retention when a copy shrank by more; or \"off\""),
    key("max-age", Kind::LongSpan, "Overrides the setting for this job"),
];

/// `[jobs.NAME.files]`.
pub const FILES: &[Key] = &[
    key("paths", Kind::Paths, "Absolute paths"),
    key("exclude", Kind::Patterns, "Patterns in restic's dialect, for every engine"),
    key("exclude-caches", Kind::Flag, "Skip directories that hold a CACHEDIR.TAG"),
    key("exclude-if-present", Kind::Patterns, "Skip directories that hold a file of such a name"),
    key("one-file-system", Kind::Flag, "Do not cross into other file systems"),
    key("capture", Kind::Word(&["auto", "required", "none"]), "How the files are held still"),
    key("consistent", Kind::Flag, "All captures of the job show one moment: writers are stopped"),
    key("freeze-units", Kind::Texts, "systemd units or control groups (/…) to freeze meanwhile"),
    key("freeze-limit", Kind::LongSpan, "How long they may stay frozen; at most 5m"),
    key("live", Kind::Paths, "Mounted file systems that are read live on purpose"),
    key("leave-out", Kind::Paths, "Mounts, subvolumes and swap files that are not in the copy"),
    key("lvm-thin", Kind::Table(LVM_THIN), "When a thin pool is too full for a snapshot"),
    key("lvm-classic", Kind::Table(LVM_CLASSIC), "How large a classic LVM snapshot is made"),
    key("remount-readonly", Kind::Table(REMOUNT_READONLY), "What is made read-only while read"),
    key("allow-empty", Kind::Flag, "Accept a directory without any entry"),
];

/// `[jobs.NAME.files.lvm-thin]`.
pub const LVM_THIN: &[Key] = &[
    key("max-data", Kind::Percent, "No snapshot when the pool's data is fuller than this"),
    key("max-metadata", Kind::Percent, "No snapshot when its metadata is fuller than this"),
];

/// `[jobs.NAME.files.lvm-classic]`.
pub const LVM_CLASSIC: &[Key] =
    &[key("size", Kind::SnapshotSize, "Percent of the volume (\"15%\") or bytes (\"2G\")")];

/// `[jobs.NAME.files.remount-readonly]`.
pub const REMOUNT_READONLY: &[Key] =
    &[key("paths", Kind::Paths, "Mounted file systems, made read-only while they are read")];

/// `[jobs.NAME.commands.ITEM]`.
pub const COMMAND: &[Key] = &[
    key("command", Kind::Argv, "The program and its arguments; no shell"),
    key("file-name", Kind::FileName, "The name of the file in the copy"),
];

/// `[jobs.NAME.hooks]`.
pub const HOOKS: &[Key] = &[
    key("before", Kind::Argvs, "Before anything else; exit 75 skips the job"),
    key("quiesce", Kind::Argvs, "Just before the captures are made: make writers pause"),
    key("resume", Kind::Argvs, "As soon as the captures exist, whatever happened: let them go on"),
    key("after", Kind::Argvs, "After all targets, when the job did not fail"),
    key("on-failure", Kind::Argvs, "When the job failed, is incomplete or was interrupted"),
    key("finally", Kind::Argvs, "Always"),
    key("timeout", Kind::LongSpan, "How long one hook may take"),
];
