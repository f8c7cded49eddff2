//! `[targets.NAME.streams]`: copies are stored streams.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::engine::{self, Engine, ReadEngine, check_mount};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::{Read, Scalar, wrong_type};
use crate::config::kinds::{ARGV, LONG_SPAN, PATH};
use crate::config::repository::Location;
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::Node;
use crate::model::target::{EngineConfig, StoreCommands, StreamsOptions, WhenAbsent};

/// The engine's row.
pub const ROW: Engine = Engine { table: &STREAMS, read, can_check: true };

const STREAMS: Table = Table {
    name: "streams",
    says: "Copies are stored streams of btrfs send, compressed and encrypted",
    start: Start::off(
        "targets.archive.streams",
        "For subvolumes alone: what btrfs send says becomes files of any file system, or objects of any storage that has\n\
         commands for it. age encrypts them to recipients, so that this machine needs no key to write them.",
    ),
    variants: no_variants,
    items: &[&[
        Item::Value(&DIRECTORY),
        Item::Value(&REQUIRE_MOUNT),
        Item::Value(&PUT),
        Item::Value(&GET),
        Item::Value(&LIST),
        Item::Value(&DELETE),
        Item::Value(&ENVIRONMENT_FILE),
        Item::Value(&COMPRESSION),
        Item::Value(&RECIPIENTS_FILE),
        Item::Value(&IDENTITY_FILE),
        Item::Value(&FULL_EVERY),
        Item::Value(&SCRATCH),
        Item::Value(&PART_SIZE),
        Item::Value(&UPLOAD_LIMIT),
        Item::Value(&WHEN_ABSENT),
        Item::Value(&STALL_TIMEOUT),
        Item::Value(&PROGRAM),
    ]],
};

const DIRECTORY: Key<PathBuf> = Key::new("directory", &PATH)
    .says("The directory in which they are files")
    .on("'/mnt/nfs/@HOST@'");

const REQUIRE_MOUNT: Key<PathBuf> = engine::REQUIRE_MOUNT.example("'/mnt/nfs'");

const PUT: Key<Vec<String>> = Key::new("put-command", &ARGV)
    .says("Instead of a directory: stores its standard input as the object {name}, in the place of an earlier one")
    .hidden()
    .prose(
        "Instead of a directory, four commands, in which {name} is an object: put-command = [\"rclone\", \"rcat\",\n\
         \"remote:web1/{name}\"] stores its standard input, get-command prints one, list-command prints all names, a line\n\
         each, delete-command deletes one. For their secrets: environment-file = \"/path\" with KEY=value lines.",
    );

const GET: Key<Vec<String>> =
    Key::new("get-command", &ARGV).says("Writes the object {name} to its standard output").hidden();

const LIST: Key<Vec<String>> = Key::new("list-command", &ARGV)
    .says("Writes the names of all objects to its standard output, a line each")
    .hidden();

const DELETE: Key<Vec<String>> =
    Key::new("delete-command", &ARGV).says("Deletes the object {name}").hidden();

const ENVIRONMENT_FILE: Key<PathBuf> = Key::new("environment-file", &PATH)
    .says("KEY=value lines for those commands, such as RCLONE_CONFIG_PASS")
    .hidden();

const COMPRESSION: Key<Option<u8>> = Key::new(
    "compression",
    &Scalar {
        read: compression,
        shown: "\"none\", \"zstd\" or \"zstd,LEVEL\", from 1 to 19",
        schema: || json!({ "type": "string", "pattern": "^(none|zstd(,([1-9]|1[0-9]))?)$" }),
    },
)
.says("How streams are compressed: none, zstd or zstd,LEVEL")
.default("'zstd,3'");

const RECIPIENTS_FILE: Key<PathBuf> = Key::new("recipients-file", &PATH)
    .says("Those to whom age encrypts, a line each; without it nothing is encrypted")
    .example("'/etc/stillpoint/age.recipients'")
    .told();

const IDENTITY_FILE: Key<PathBuf> = Key::new("identity-file", &PATH)
    .says("The key of one of them: only to read copies back (restore, verify, check)")
    .example("'/root/age.key'")
    .told();

const FULL_EVERY: Key<Duration> = Key::new("full-every", &LONG_SPAN)
    .says("All is sent anew when the last whole copy is so old, or 100 differences were made to it")
    .default("'30d'")
    .told();

const SCRATCH: Key<PathBuf> = Key::new("scratch", &PATH)
    .says("A directory of a btrfs, in which copies are received to be restored; by default beside what is restored")
    .example("'/mnt/pool/scratch'")
    .told();

const PART_SIZE: Key<u32> = engine::PART_SIZE
    .says("So many MiB of a stream are stored by themselves, and a transfer that was interrupted goes on behind them; 0: it begins again. By default 256 behind commands, 0 in a directory")
    .example("256")
    .hidden()
    .prose("A longer stream is stored in parts of so many MiB each, part-size = 256, behind which an interrupted transfer goes\non; 0: in one. Default: 256 behind commands, 0 in a directory.");

/// Behind commands a line may break after hours. In a directory that is rare, and all of a part is written to its disk
/// before the next one begins.
const PART_BEHIND_COMMANDS: u32 = 256;

const UPLOAD_LIMIT: Key<u32> = engine::UPLOAD_LIMIT;

const WHEN_ABSENT: Key<WhenAbsent> = engine::WHEN_ABSENT;

const STALL_TIMEOUT: Key<Duration> = engine::STALL_TIMEOUT;

const PROGRAM: Key<PathBuf> =
    engine::PROGRAM.says("The btrfs program on this machine").example("'/usr/bin/btrfs'");

/// What stands for an object in a command.
const NAME: &str = "{name}";

fn compression(node: &Node) -> Read<Option<u8>> {
    let Some(text) = node.value.text() else { return wrong_type("a compression", node) };
    let level = match text {
        "none" => return Ok(None),
        "zstd" => Some(3),
        _ => text.strip_prefix("zstd,").and_then(|level| level.parse().ok()),
    };
    match level {
        // To read back what a higher one made takes more memory than any zstd allows itself.
        Some(level @ 1..=19) => Ok(Some(level)),
        Some(_) | None => Err(Complaint::new(format!("{text:?} is no compression"))
            .help("write \"none\", \"zstd\" or \"zstd,LEVEL\" with a level from 1 to 19")),
    }
}

/// Reads the four commands, which there must be where there is no directory.
fn commands(section: &Section<'_>, notes: &mut Notes) -> Option<StoreCommands> {
    let mut given = Vec::new();
    for key in [&PUT, &GET, &LIST, &DELETE] {
        let Some(argv) = section.get(key) else {
            if !section.has(key) {
                let message = format!("{} needs a {}", section.key, key.key());
                notes.missing(section.at, Complaint::new(message));
            }
            continue;
        };
        let names_one = argv.iter().skip(1).any(|word| word.contains(NAME));
        if names_one == (key.key() == LIST.key()) {
            let message = match names_one {
                true => format!("{} lists all objects, so {NAME} stands for none", key.key()),
                false => {
                    format!("{} does not say of which object: {NAME} stands for it", key.key())
                }
            };
            notes.problem(section.value_at(key), Complaint::new(message));
        }
        given.push(argv);
    }
    let [put, get, list, delete] = <[Vec<String>; 4]>::try_from(given).ok()?;
    Some(StoreCommands { put, get, list, delete })
}

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadEngine> {
    let first_command = [&PUT, &GET, &LIST, &DELETE].into_iter().find(|key| section.has(*key));
    let directory = section.get(&DIRECTORY);
    let by_commands = match (section.has(&DIRECTORY), first_command) {
        (true, Some(command)) => {
            let message = format!("{} and {} cannot both be", DIRECTORY.key(), command.key());
            notes.problem(section.key_at(command), Complaint::new(message));
            None
        }
        (false, Some(_)) => commands(section, notes),
        (true, None) => None,
        (false, None) => {
            let message = format!("{} needs a {}", section.key, DIRECTORY.key());
            let complaint = Complaint::new(message)
                .help("or put-command, get-command, list-command and delete-command");
            notes.missing(section.at, complaint);
            None
        }
    };
    if directory.is_some() && section.has(&ENVIRONMENT_FILE) {
        let message = format!("{} is for commands, and there are none", ENVIRONMENT_FILE.key());
        notes.warning(section.key_at(&ENVIRONMENT_FILE), Complaint::new(message));
    }
    if section.has(&IDENTITY_FILE) && !section.has(&RECIPIENTS_FILE) {
        let message =
            "nothing is encrypted without recipients-file: identity-file only opens earlier copies";
        notes.warning(section.key_at(&IDENTITY_FILE), Complaint::new(message));
    }
    let location = match &by_commands {
        Some(commands) => Some(Location::Remote(commands.list.join(" "))),
        None => directory.clone().map(Location::Local),
    };
    check_mount(section, location.as_ref(), notes);
    let repository = match &by_commands {
        Some(commands) => Some(commands.list.join(" ")),
        // What people typed in a TOML file is text.
        None => directory.and_then(|path| path.to_str().map(str::to_owned)),
    };
    let usual = if by_commands.is_some() { PART_BEHIND_COMMANDS } else { 0 };
    let config = EngineConfig::Streams(StreamsOptions {
        commands: by_commands,
        environment_file: section.get(&ENVIRONMENT_FILE),
        compression: section.get(&COMPRESSION)?,
        recipients_file: section.get(&RECIPIENTS_FILE),
        identity_file: section.get(&IDENTITY_FILE),
        full_every: section.get(&FULL_EVERY)?,
        scratch: section.get(&SCRATCH),
        part_size: engine::part_size(section.get(&PART_SIZE).unwrap_or(usual)),
    });
    let common = ReadEngine::new(section, repository, location, config)?;
    let at = if section.has(&DIRECTORY) { &DIRECTORY as &dyn Keyed } else { &LIST };
    Some(ReadEngine { repository_at: section.value_at(at), ..common })
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[
    Effects {
        table: "targets.NAME.streams",
        file: "[targets.t.streams]\nKEY\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n",
        rows: &[
            ("directory", "directory='/r'", "directory='/x'"),
            ("require-mount", "directory='/r/s'", "directory='/r/s'\nrequire-mount='/r'"),
            ("compression", "directory='/r'", "directory='/r'\ncompression='none'"),
            ("recipients-file", "directory='/r'", "directory='/r'\nrecipients-file='/x'"),
            (
                "identity-file",
                "directory='/r'\nrecipients-file='/x'",
                "directory='/r'\nrecipients-file='/x'\nidentity-file='/y'",
            ),
            ("full-every", "directory='/r'", "directory='/r'\nfull-every='7d'"),
            ("scratch", "directory='/r'", "directory='/r'\nscratch='/x'"),
            ("part-size", "directory='/r'", "directory='/r'\npart-size=5"),
            ("upload-limit", "directory='/r'", "directory='/r'\nupload-limit=5"),
            (
                "when-absent",
                "directory='/r/s'\nrequire-mount='/r'",
                "directory='/r/s'\nrequire-mount='/r'\nwhen-absent='skip'",
            ),
            ("program", "directory='/r'", "directory='/r'\nprogram='/x'"),
            ("stall-timeout", "directory='/r'", "directory='/r'\nstall-timeout='1h'"),
        ],
    },
    Effects {
        table: "targets.NAME.streams",
        file: "[targets.t.streams]\nKEY\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n",
        rows: &[
            (
                "put-command",
                COMMANDS,
                "put-command=['x', '{name}']\nget-command=['g', '{name}']\nlist-command=['l']\ndelete-command=['d', '{name}']",
            ),
            (
                "get-command",
                COMMANDS,
                "put-command=['p', '{name}']\nget-command=['x', '{name}']\nlist-command=['l']\ndelete-command=['d', '{name}']",
            ),
            (
                "list-command",
                COMMANDS,
                "put-command=['p', '{name}']\nget-command=['g', '{name}']\nlist-command=['x']\ndelete-command=['d', '{name}']",
            ),
            (
                "delete-command",
                COMMANDS,
                "put-command=['p', '{name}']\nget-command=['g', '{name}']\nlist-command=['l']\ndelete-command=['x', '{name}']",
            ),
            (
                "environment-file",
                COMMANDS,
                "put-command=['p', '{name}']\nget-command=['g', '{name}']\nlist-command=['l']\ndelete-command=['d', '{name}']\nenvironment-file='/e'",
            ),
        ],
    },
];

#[cfg(test)]
const COMMANDS: &str = "put-command=['p', '{name}']\nget-command=['g', '{name}']\nlist-command=['l']\ndelete-command=['d', '{name}']";

#[cfg(test)]
mod tests {
    use crate::config::{SourceFile, load};

    #[track_caller]
    fn refused(table: &str, with: &str) {
        let text = format!(
            "[targets.t.streams]\n{table}\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n"
        );
        let file = SourceFile { path: "/etc/stillpoint.toml".into(), text };
        let told = load(&[file], "web1", |_| None).err().unwrap().to_string();
        assert!(told.contains(with), "{told}");
    }

    #[test]
    fn there_is_one_place_and_it_is_said_whole() {
        refused("", "needs a directory");
        refused("put-command=['p', '{name}']", "needs a get-command");
        refused("directory='/r'\nput-command=['p', '{name}']", "cannot both be");
        refused(
            "put-command=['p', '{name}']\nget-command=['g']\nlist-command=['l', '{name}']\ndelete-command=['d', '{name}']",
            "get-command does not say of which object",
        );
        refused(
            "put-command=['p', '{name}']\nget-command=['g', '{name}']\nlist-command=['l', '{name}']\ndelete-command=['d', '{name}']",
            "stands for none",
        );
        refused("directory='/r'\ncompression='zstd,20'", "is no compression");
        refused("directory='/r'\ncompression='gzip'", "is no compression");
    }
}
