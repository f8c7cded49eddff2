//! `[targets.NAME.btrfs]`: copies are read-only subvolumes.

use std::path::PathBuf;
use std::time::Duration;

use super::engine::{self, Engine, ReadEngine, check_mount};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::Choice;
use crate::config::kinds::{FLAG, TEXT};
use crate::config::repository::{self, Location};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::target::{BtrfsOptions, EngineConfig, RemoteSide, Server, WhenAbsent};

/// The engine's row.
pub const ROW: Engine = Engine { table: &BTRFS, read, can_check: true };

const BTRFS: Table = Table {
    name: "btrfs",
    says: "Copies are read-only subvolumes, taken over by btrfs send and receive",
    start: Start::off(
        "targets.snapshots.btrfs",
        "For subvolumes alone: a directory of another btrfs, which gets a read-only subvolume for each copy. With\n\
         location = \"ssh://root@nas/mnt/backup\" it is on another machine, with Stillpoint or btrfs-progs on it.",
    ),
    variants: no_variants,
    items: &[&[
        Item::Value(&LOCATION),
        Item::Value(&REQUIRE_MOUNT),
        Item::Value(&UPLOAD_LIMIT),
        Item::Value(&COMPRESSED_DATA),
        Item::Value(&PART_SIZE),
        Item::Value(&WHEN_ABSENT),
        Item::Value(&STALL_TIMEOUT),
        Item::Value(&PROGRAM),
        Item::Value(&REMOTE_SIDE),
        Item::Value(&REMOTE_SUDO),
        Item::Value(&REMOTE_PROGRAM),
        Item::Value(&SSH_COMMAND),
    ]],
};

const LOCATION: Key<String> = Key::new("location", &TEXT)
    .says("A directory of a btrfs, in which copies are received: an absolute path, or ssh://user@host:port/path, on whose other side is what remote-side says")
    .on("'/mnt/backup/@HOST@'");

const REQUIRE_MOUNT: Key<PathBuf> = engine::REQUIRE_MOUNT.example("'/mnt/backup'");

const UPLOAD_LIMIT: Key<u32> = engine::UPLOAD_LIMIT;

const COMPRESSED_DATA: Key<bool> = Key::new("compressed-data", &FLAG)
    .says("What btrfs has compressed is sent and stored as it is, where both sides can (Linux 6.0, btrfs-progs 6.2)")
    .default("false")
    .hidden()
    .prose("What btrfs has compressed is sent as it is with compressed-data = true: see the README on kernels.");

const PART_SIZE: Key<u32> = engine::PART_SIZE
    .says("So many MiB of what is sent make a part, with which a transfer that was interrupted goes on; 0: it begins again. By default 256 behind ssh, 0 on this machine")
    .example("256")
    .prose("A transfer that was interrupted goes on behind the last of its parts, of so many MiB each; 0: it begins again.\nDefault: 256 behind ssh, 0 on this machine.");

/// What makes a part behind a line that may drop, in MiB.
const PART_BEHIND_SSH: u32 = 256;

const WHEN_ABSENT: Key<WhenAbsent> = engine::WHEN_ABSENT;

const STALL_TIMEOUT: Key<Duration> = engine::STALL_TIMEOUT;

const PROGRAM: Key<PathBuf> =
    engine::PROGRAM.says("The btrfs program on this machine").example("'/usr/bin/btrfs'");

const REMOTE_SIDE: Key<RemoteSide> = Key::new(
    "remote-side",
    // Whether by sudo, remote-sudo says.
    &Choice(&[
        ("stillpoint", RemoteSide::Stillpoint),
        ("btrfs-progs", RemoteSide::BtrfsProgs { sudo: false }),
    ]),
)
.says("What is on the other side of ssh: Stillpoint, or btrfs-progs and the coreutils alone, where the key may do anything")
.default("'stillpoint'")
.hidden();

const REMOTE_SUDO: Key<bool> = Key::new("remote-sudo", &FLAG)
    .says("Run btrfs-progs and the coreutils on the other side by sudo, for a login that is not root's")
    .default("false")
    .hidden();

const REMOTE_PROGRAM: Key<String> = Key::new("remote-program", &TEXT)
    .says("Stillpoint, or btrfs, on the other side; a key with a command of its own in authorized_keys decides it there")
    .hidden()
    .prose("Only with a location behind ssh: ssh-command = [\"ssh\", \"-i\", \"/root/.ssh/backup\"],\nremote-program = \"/usr/local/bin/stillpoint\"; and where no Stillpoint is on the other side,\nremote-side = \"btrfs-progs\", with remote-sudo = true for a login that is not root's.");

const SSH_COMMAND: Key<Vec<String>> = engine::SSH_COMMAND;

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadEngine> {
    if !section.has(&LOCATION) {
        let message = format!("{} needs a {}", section.key, LOCATION.key());
        notes.missing(section.at, Complaint::new(message));
    }
    let text = section.get(&LOCATION);
    let place = text
        .as_deref()
        .and_then(|text| notes.taken(section.value_at(&LOCATION), repository::btrfs(text)));
    let (location, server) = place.map_or((None, None), |(location, place)| {
        (Some(location), place.map(|place| server(section, place)))
    });
    if matches!(location, Some(Location::Local(_))) {
        let why = "has no effect: the copies are on this machine";
        section.refuse(&[&REMOTE_SIDE, &REMOTE_SUDO, &REMOTE_PROGRAM, &SSH_COMMAND], why, notes);
    }
    if section.get(&REMOTE_SUDO) == Some(true)
        && section.get(&REMOTE_SIDE) == Some(RemoteSide::Stillpoint)
    {
        let message = format!(
            "{} has no effect: Stillpoint on the other side is started as {} says",
            REMOTE_SUDO.key(),
            REMOTE_PROGRAM.key()
        );
        let complaint = Complaint::new(message)
            .help("for btrfs-progs alone, add remote-side = \"btrfs-progs\"");
        notes.problem(section.key_at(&REMOTE_SUDO), complaint);
    }
    check_mount(section, location.as_ref(), notes);
    let usual = if server.is_some() { PART_BEHIND_SSH } else { 0 };
    let part_size = engine::part_size(section.get(&PART_SIZE).unwrap_or(usual));
    let config = EngineConfig::Btrfs(BtrfsOptions {
        server,
        compressed_data: section.get(&COMPRESSED_DATA)?,
        part_size,
    });
    let common = ReadEngine::new(section, text, location, config)?;
    Some(ReadEngine { repository_at: section.value_at(&LOCATION), ..common })
}

fn server(section: &Section<'_>, place: Server) -> Server {
    let (side, program) = match section.get(&REMOTE_SIDE) {
        Some(RemoteSide::BtrfsProgs { .. }) => {
            let sudo = section.get(&REMOTE_SUDO) == Some(true);
            (RemoteSide::BtrfsProgs { sudo }, "btrfs".to_owned())
        }
        Some(RemoteSide::Stillpoint) | None => (place.side, place.program),
    };
    Server {
        ssh_command: section.get(&SSH_COMMAND).unwrap_or_default(),
        program: section.get(&REMOTE_PROGRAM).unwrap_or(program),
        side,
        ..place
    }
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "targets.NAME.btrfs",
    file: "[targets.t.btrfs]\nKEY\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n",
    rows: &[
        ("location", "location='/r'", "location='/x'"),
        ("require-mount", "location='/r/s'", "location='/r/s'\nrequire-mount='/r'"),
        ("part-size", "location='/r'", "location='/r'\npart-size=5"),
        ("upload-limit", "location='/r'", "location='/r'\nupload-limit=5"),
        ("compressed-data", "location='/r'", "location='/r'\ncompressed-data=true"),
        (
            "when-absent",
            "location='/r/s'\nrequire-mount='/r'",
            "location='/r/s'\nrequire-mount='/r'\nwhen-absent='skip'",
        ),
        ("program", "location='/r'", "location='/r'\nprogram='/x'"),
        ("stall-timeout", "location='/r'", "location='/r'\nstall-timeout='1h'"),
        ("ssh-command", "location='ssh://h/r'", "location='ssh://h/r'\nssh-command=['ssh', '-4']"),
        ("remote-side", "location='ssh://h/r'", "location='ssh://h/r'\nremote-side='btrfs-progs'"),
        (
            "remote-sudo",
            "location='ssh://h/r'\nremote-side='btrfs-progs'",
            "location='ssh://h/r'\nremote-side='btrfs-progs'\nremote-sudo=true",
        ),
        ("remote-program", "location='ssh://h/r'", "location='ssh://h/r'\nremote-program='/x'"),
    ],
}];
