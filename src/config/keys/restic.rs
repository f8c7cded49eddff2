//! `[targets.NAME.restic]`: copies are restic snapshots.

use std::path::PathBuf;
use std::time::Duration;

use super::engine::{self, Engine, ReadEngine, check_mount, read_repository};
use super::secret::Secret;
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::Word;
use crate::config::kinds::{ARGV, FILE_NAME, PATH, TEXT};
use crate::config::repository;
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::names::TargetName;
use crate::model::target::{EngineConfig, ResticOptions, WhenAbsent};

/// The engine's row.
pub const ROW: Engine = Engine { table: &RESTIC, read, can_check: true };

const RESTIC: Table = Table {
    name: "restic",
    says: "Copies are restic snapshots",
    start: Start::off(
        "targets.cloud.restic",
        "A second place, by restic: a path, sftp:, rest:, s3:, b2:, rclone: and whatever else restic knows.",
    ),
    variants: no_variants,
    items: &[&[
        Item::Value(&REPOSITORY),
        Item::Value(&SECRET.file),
        Item::Value(&SECRET.command),
        Item::Value(&SECRET.credential),
        Item::Value(&ENVIRONMENT_FILE),
        Item::Value(&COMPRESSION),
        Item::Value(&UPLOAD_LIMIT),
        Item::Value(&STALL_TIMEOUT),
        Item::Value(&PROGRAM),
        Item::Value(&REQUIRE_MOUNT),
        Item::Value(&WHEN_ABSENT),
        Item::Value(&COPY_FROM),
    ]],
};

const REPOSITORY: Key<String> = engine::REPOSITORY
    .says("Any restic repository, handed through untouched")
    .on("'sftp:backup@nas:/restic/@HOST@'");

const SECRET: Secret = Secret {
    word: "password",
    file: Key::new("password-file", &PATH)
        .says("A file that holds the password")
        .on("'/etc/stillpoint/cloud.pass'")
        .prose("One of: password-file, password-command = [\"program\", \"argument\"], password-credential = \"name\" (systemd)."),
    command: Key::new("password-command", &ARGV)
        .says("A command that prints the password")
        .hidden(),
    credential: Key::new("password-credential", &FILE_NAME)
        .says("A systemd credential that holds the password")
        .hidden(),
    instead: "",
};

const ENVIRONMENT_FILE: Key<PathBuf> = Key::new("environment-file", &PATH)
    .says("KEY=value lines for the backend, such as AWS_SECRET_ACCESS_KEY")
    .example("'/etc/stillpoint/cloud.env'")
    .told();

const COMPRESSION: Key<String> = Key::new("compression", &Word(&["auto", "off", "max"]))
    .says("How new data is compressed, as restic --compression takes it")
    .example("'auto'")
    .prose("auto, off or max.");

const UPLOAD_LIMIT: Key<u32> = engine::UPLOAD_LIMIT.example("5000");

const STALL_TIMEOUT: Key<Duration> = engine::STALL_TIMEOUT;

const PROGRAM: Key<PathBuf> =
    engine::PROGRAM.says("The restic program on this machine").example("'/usr/bin/restic'");

const REQUIRE_MOUNT: Key<PathBuf> = engine::REQUIRE_MOUNT.hidden().prose(
    "For a local path: require-mount = \"/mnt/point\", when-absent = \"skip\". Filled from another restic target of the same job by\n\
     `restic copy`, instead of reading the source again: copy-from = \"other\".",
);

const WHEN_ABSENT: Key<WhenAbsent> = engine::WHEN_ABSENT.hidden();

const COPY_FROM: Key<String> = Key::new("copy-from", &TEXT)
    .says("Filled by `restic copy` from this target, which the job lists too, instead of reading the source again")
    .hidden();

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadEngine> {
    let secret = SECRET.read(section, true, notes);
    let repository = read_repository(section, notes);
    if repository.as_deref().is_some_and(repository::holds_password) {
        // Said at the table and not at the value, whose line would print the password.
        let complaint = Complaint::new("the repository holds a password: plans and logs show it")
            .help("newer restic reads RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD from environment-file");
        notes.warning(section.at, complaint);
    }
    let location = repository.as_deref().and_then(|text| {
        let at = section.value_at(&REPOSITORY);
        let (location, doubt) = notes.taken(at, repository::restic(text))?;
        if let Some(doubt) = doubt {
            notes.warning(at, doubt);
        }
        Some(location)
    });
    let copy_from = section.get(&COPY_FROM).and_then(|name| {
        let wrong = |error| Complaint::new(format!("{}: {error}", COPY_FROM.key()));
        notes.taken(section.value_at(&COPY_FROM), TargetName::new(&name).map_err(wrong))
    });
    check_mount(section, location.as_ref(), notes);
    let config = EngineConfig::Restic(ResticOptions {
        environment_file: section.get(&ENVIRONMENT_FILE),
        compression: section.get(&COMPRESSION),
    });
    let common = ReadEngine::new(section, repository, location, config)?;
    Some(ReadEngine { secret, copy_from, copy_from_at: section.value_at(&COPY_FROM), ..common })
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[
    Effects {
        table: "targets.NAME.restic",
        file: "[targets.t.restic]\npassword-file='/p'\nKEY\n[targets.u.restic]\nrepository='/u'\npassword-file='/p'\n[jobs.j]\ntargets=['t', 'u']\nfiles.paths=['/a']\n",
        rows: &[("repository", "repository='/r'", "repository='/other'")],
    },
    Effects {
        table: "targets.NAME.restic",
        file: "[targets.t.restic]\nrepository='/r'\nKEY\n[targets.u.restic]\nrepository='/u'\npassword-file='/p'\n[jobs.j]\ntargets=['t', 'u']\nfiles.paths=['/a']\n",
        rows: &[
            ("password-file", "password-file='/p'", "password-file='/x'"),
            ("password-command", "password-file='/p'", "password-command=['x']"),
            ("password-credential", "password-file='/p'", "password-credential='x'"),
            ("environment-file", "password-file='/p'", "password-file='/p'\nenvironment-file='/e'"),
            ("copy-from", "password-file='/p'", "password-file='/p'\ncopy-from='u'"),
            ("compression", "password-file='/p'", "password-file='/p'\ncompression='max'"),
            ("require-mount", "password-file='/p'", "password-file='/p'\nrequire-mount='/r'"),
            (
                "when-absent",
                "password-file='/p'\nrequire-mount='/r'",
                "password-file='/p'\nrequire-mount='/r'\nwhen-absent='skip'",
            ),
            ("program", "password-file='/p'", "password-file='/p'\nprogram='/x'"),
            ("upload-limit", "password-file='/p'", "password-file='/p'\nupload-limit=5"),
            ("stall-timeout", "password-file='/p'", "password-file='/p'\nstall-timeout='1h'"),
        ],
    },
];
