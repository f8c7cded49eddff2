//! `[targets.NAME.borg]`: copies are borg archives.

use std::path::PathBuf;

use serde_json::json;

use super::engine::{self, Engine, ReadEngine, check_mount, read_repository};
use super::secret::Secret;
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Start, Table, no_variants};
use crate::config::kind::{Read, Scalar, Word};
use crate::config::kinds::{ARGV, FILE_NAME, PATH, TEXT, text};
use crate::config::repository::{self, Location};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::Node;
use crate::model::target::{BorgOptions, EngineConfig, WhenAbsent};

/// The engine's row.
pub const ROW: Engine = Engine { table: &BORG, read, can_check: true };

const BORG: Table = Table {
    name: "borg",
    says: "Copies are borg archives",
    start: Start::on("targets.disk.borg", ""),
    variants: no_variants,
    items: &[&[
        Item::Value(&REPOSITORY),
        Item::Value(&SECRET.file),
        Item::Value(&SECRET.command),
        Item::Value(&SECRET.credential),
        Item::Value(&ENCRYPTION),
        Item::Value(&KEY_FILE),
        Item::Value(&COMPRESSION),
        Item::Value(&FILES_CACHE),
        Item::Value(&REQUIRE_MOUNT),
        Item::Value(&WHEN_ABSENT),
        Item::Value(&PROGRAM),
        Item::Value(&STALL_TIMEOUT),
        Item::Value(&REMOTE_PROGRAM),
        Item::Value(&SSH_COMMAND),
        Item::Value(&UPLOAD_LIMIT),
    ]],
};

const REPOSITORY: Key<String> = engine::REPOSITORY
    .says("An absolute path, ssh://user@host:port/path or user@host:path")
    .on("'/srv/backup/@HOST@'")
    .told();

const SECRET: Secret = Secret {
    word: "passphrase",
    file: Key::new("passphrase-file", &PATH)
        .says("A file that holds the passphrase")
        .on("'/etc/stillpoint/disk.pass'")
        .prose("One of: passphrase-file, passphrase-command = [\"program\", \"argument\"], passphrase-credential = \"name\" (systemd)."),
    command: Key::new("passphrase-command", &ARGV)
        .says("A command that prints the passphrase")
        .hidden(),
    credential: Key::new("passphrase-credential", &FILE_NAME)
        .says("A systemd credential that holds the passphrase")
        .hidden(),
    instead: ", or encryption = \"none\"",
};

/// The modes of `borg init --encryption` in borg 1.x (`borg init --help`). By default borg's recommended one for
/// machines without hardware SHA-256, and a sound one everywhere.
const ENCRYPTION: Key<String> = Key::new(
    "encryption",
    &Word(&[
        "none",
        "authenticated",
        "authenticated-blake2",
        "repokey",
        "repokey-blake2",
        "keyfile",
        "keyfile-blake2",
    ]),
)
.says("The mode in which `init` creates the repository")
.default("'repokey-blake2'")
.prose("How `init` creates it: none, authenticated, repokey, keyfile, each also with -blake2.\nFor keyfile modes: key-file = \"/path\".");

const KEY_FILE: Key<PathBuf> =
    Key::new("key-file", &PATH).says("The key of a keyfile repository").hidden();

const COMPRESSION: Key<String> = Key::new(
    "compression",
    &Scalar {
        read: compression,
        shown: "a compression, as `borg help compression` has it",
        schema: || json!({ "type": "string", "minLength": 1 }),
    },
)
.says("How new data is compressed")
.example("'zstd,6'");

const FILES_CACHE: Key<String> = Key::new(
    "files-cache",
    &Scalar {
        read: files_cache,
        shown: "a mode, as borg create --files-cache takes it",
        schema: || json!({ "type": "string", "minLength": 1 }),
    },
)
.says("How borg recognises an unchanged file")
.example("'ctime,size,inode'");

const REQUIRE_MOUNT: Key<PathBuf> = engine::REQUIRE_MOUNT.example("'/srv/backup'").told();

const WHEN_ABSENT: Key<WhenAbsent> = engine::WHEN_ABSENT;

const PROGRAM: Key<PathBuf> =
    engine::PROGRAM.says("The borg program on this machine").example("'/usr/bin/borg'");

const STALL_TIMEOUT: Key<std::time::Duration> = engine::STALL_TIMEOUT.told();

const REMOTE_PROGRAM: Key<String> = Key::new("remote-program", &TEXT)
    .says("The borg program on the other side")
    .hidden()
    .prose("Only for a repository behind ssh: remote-program = \"borg1\", ssh-command = [\"ssh\", \"-i\", \"/root/.ssh/backup\"],\nupload-limit = 5000 (KiB per second).");

const SSH_COMMAND: Key<Vec<String>> = engine::SSH_COMMAND;

const UPLOAD_LIMIT: Key<u32> = engine::UPLOAD_LIMIT.hidden();

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadEngine> {
    let encryption = section.get(&ENCRYPTION)?;
    let secret = SECRET.read(section, encryption != "none", notes);
    if section.has(&KEY_FILE) && !encryption.starts_with("keyfile") {
        let complaint = Complaint::new(format!("key-file has no effect with {encryption:?}"))
            .help("a repository with its key in a file has encryption = \"keyfile-blake2\"");
        notes.problem(section.key_at(&KEY_FILE), complaint);
    }
    let ssh_command = section.get(&SSH_COMMAND).unwrap_or_default();
    if ssh_command.iter().any(|word| word.contains(char::is_whitespace)) {
        let message = "ssh-command: borg splits it at white space, so no element can hold any";
        notes.problem(section.value_at(&SSH_COMMAND), Complaint::new(message));
    }
    let repository = read_repository(section, notes);
    let location = repository
        .as_deref()
        .and_then(|text| notes.taken(section.value_at(&REPOSITORY), repository::borg(text)));
    if matches!(location, Some(Location::Local(_))) {
        let why = "has no effect: the repository is on this machine";
        section.refuse(&[&REMOTE_PROGRAM, &SSH_COMMAND, &UPLOAD_LIMIT], why, notes);
    }
    check_mount(section, location.as_ref(), notes);
    let config = EngineConfig::Borg(BorgOptions {
        key_file: section.get(&KEY_FILE),
        encryption,
        compression: section.get(&COMPRESSION),
        files_cache: section.get(&FILES_CACHE),
        remote_program: section.get(&REMOTE_PROGRAM),
        ssh_command,
    });
    let common = ReadEngine::new(section, repository, location, config)?;
    Some(ReadEngine { secret, ..common })
}

/// A compression as borg takes it: `borg help compression`, of borg 1.2 and 1.4.
fn compression(node: &Node) -> Read<String> {
    let text = text(node)?;
    if known_compression(text, true) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(format!("{text:?} is no compression that borg knows"))
        .help("such as \"lz4\", \"zstd,6\", \"zlib,6\", \"lzma,6\", \"none\" or \"auto,zstd,6\""))
}

fn known_compression(text: &str, may_wrap: bool) -> bool {
    let (name, rest) = match text.split_once(',') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let level = |most: u32| match rest {
        None => true,
        Some(level) => level.parse().is_ok_and(|level: u32| level <= most),
    };
    match (name, rest) {
        ("none" | "lz4", rest) => rest.is_none(),
        ("zstd", _) => level(22) && rest != Some("0"),
        ("zlib" | "lzma", _) => level(9),
        ("auto", Some(rest)) => may_wrap && known_compression(rest, false),
        ("obfuscate", Some(rest)) => rest.split_once(',').is_some_and(|(spec, rest)| {
            let known = spec.parse().is_ok_and(|spec: u32| matches!(spec, 1..=6 | 110..=123 | 250));
            may_wrap
                && known
                && (known_compression(rest, false)
                    || rest.starts_with("auto,") && known_compression(rest, true))
        }),
        _ => false,
    }
}

/// A files cache mode as borg takes it: `borg create --files-cache`, of borg 1.2 and 1.4.
fn files_cache(node: &Node) -> Read<String> {
    /// The sets borg accepts; the order of the words does not matter to it.
    const MODES: &[&[&str]] = &[
        &["ctime", "size", "inode"],
        &["mtime", "size", "inode"],
        &["ctime", "size"],
        &["mtime", "size"],
        &["ctime", "rechunk"],
        &["mtime", "rechunk"],
        &["size"],
        &["disabled"],
    ];
    let text = text(node)?;
    let mut words: Vec<&str> = text.split(',').collect();
    words.sort_unstable();
    let known = MODES.iter().any(|mode| {
        let mut mode = mode.to_vec();
        mode.sort_unstable();
        mode == words
    });
    if known {
        return Ok(text.to_owned());
    }
    let modes: Vec<String> = MODES.iter().map(|mode| mode.join(",")).collect();
    Err(Complaint::new(format!("{text:?} is no files cache mode that borg knows"))
        .help(format!("one of {}", modes.join(" ; "))))
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[
    Effects {
        table: "targets.NAME.borg",
        file: "[targets.t.borg]\npassphrase-file='/p'\nKEY\nJOB",
        rows: &[
            ("repository", "repository='/r'", "repository='/other'"),
            (
                "when-absent",
                "repository='/r/s'\nrequire-mount='/r'",
                "repository='/r/s'\nrequire-mount='/r'\nwhen-absent='skip'",
            ),
        ],
    },
    Effects {
        table: "targets.NAME.borg",
        file: "[targets.t.borg]\nrepository='ssh://h/r'\nKEY\nJOB",
        rows: &[
            ("passphrase-file", "passphrase-file='/p'", "passphrase-file='/x'"),
            ("passphrase-command", "passphrase-file='/p'", "passphrase-command=['x']"),
            ("passphrase-credential", "passphrase-file='/p'", "passphrase-credential='x'"),
            ("remote-program", "passphrase-file='/p'", "passphrase-file='/p'\nremote-program='x'"),
            (
                "ssh-command",
                "passphrase-file='/p'",
                "passphrase-file='/p'\nssh-command=['ssh', '-4']",
            ),
            ("upload-limit", "passphrase-file='/p'", "passphrase-file='/p'\nupload-limit=5"),
            ("stall-timeout", "passphrase-file='/p'", "passphrase-file='/p'\nstall-timeout='1h'"),
            ("program", "passphrase-file='/p'", "passphrase-file='/p'\nprogram='/x'"),
            ("compression", "passphrase-file='/p'", "passphrase-file='/p'\ncompression='zstd'"),
            (
                "files-cache",
                "passphrase-file='/p'",
                "passphrase-file='/p'\nfiles-cache='mtime,size'",
            ),
            ("require-mount", "passphrase-file='/p'", "passphrase-file='/p'\nrequire-mount='/x'"),
            ("encryption", "passphrase-file='/p'", "passphrase-file='/p'\nencryption='keyfile'"),
            (
                "key-file",
                "passphrase-file='/p'\nencryption='keyfile'",
                "passphrase-file='/p'\nencryption='keyfile'\nkey-file='/k'",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn what_borg_knows() {
        let compression = |text: &str| compression(&node_of(&format!("'{text}'")).unwrap());
        for good in ["none", "lz4", "zstd", "zstd,22", "zlib,0", "auto,zstd,6", "auto,lz4"] {
            assert!(compression(good).is_ok(), "{good}");
        }
        for good in ["obfuscate,110,zstd,3", "obfuscate,2,auto,lzma"] {
            assert!(compression(good).is_ok(), "{good}");
        }
        for bad in ["zst", "zstd,23", "zstd,0", "lz4,1", "auto", "auto,auto,lz4", "obfuscate,7,lz4"]
        {
            assert!(compression(bad).is_err(), "{bad}");
        }
        assert!(files_cache(&node_of("'inode,size,ctime'").unwrap()).is_ok());
        assert!(files_cache(&node_of("'ctime,inode'").unwrap()).is_err());
    }
}
