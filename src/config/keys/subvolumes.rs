//! `[jobs.NAME.subvolumes]`: subvolumes of btrfs, taken over as they are.

use std::path::PathBuf;

use super::engine;
use super::hooks;
use super::source::{ReadSource, SourceKind, Trees, read_paths};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::{Choice, Elements};
use crate::config::kinds::{FLAG, PATH, PATHS as LIST_OF_PATHS, PATTERNS, TEXT};
use crate::config::repository;
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::job::{ExistingSnapshots, FarMachine, Source, SubvolumesSource};
use crate::model::names::HostName;
use crate::model::target::{RemoteSide, Server};

/// The kind of source.
pub const ROW: SourceKind =
    SourceKind { item: Item::Table(&SUBVOLUMES), read, judge_hooks: hooks::refuse_quiet };

const SUBVOLUMES: Table = Table {
    name: "subvolumes",
    says: "Protects subvolumes of btrfs, by snapshots that are sent to btrfs and streams targets",
    start: Start::off(
        "jobs.home.subvolumes",
        "Subvolumes of btrfs: a snapshot of each is sent, and only what changed since the last one. Those that another program\n\
         makes are sent instead with existing = [\"/home/.snapshots/*/snapshot\"] in [jobs.home.subvolumes], where the newest one is\n\
         sent, or with send = \"all\" each that came since the last; nothing of theirs is ever deleted.\n\
         #[jobs.home]\n\
         #targets = [\"snapshots\", \"archive\"]",
    ),
    variants: no_variants,
    items: &[&[
        Item::Value(&PATHS),
        Item::Value(&LEAVE_OUT),
        Item::Value(&HOST),
        Item::Value(&SNAPSHOTS),
        Item::Value(&REMOTE_SUDO),
        Item::Value(&REMOTE_PROGRAM),
        Item::Value(&SSH_COMMAND),
        Item::Value(&EXISTING),
        Item::Value(&SEND),
    ]],
};

const PATHS: Key<Elements<PathBuf>> = Key::new("paths", &LIST_OF_PATHS)
    .says("The subvolumes, by where they are seen; each is a series of its own")
    .on("['/home']");

const LEAVE_OUT: Key<Elements<PathBuf>> = Key::new("leave-out", &LIST_OF_PATHS)
    .says("Other subvolumes in them that need not be in a copy: no snapshot holds what lies in one")
    .example("['/home/alice/scratch']")
    .told();

const HOST: Key<String> = Key::new("host", &TEXT)
    .says("The machine that they are on, from which they are pulled: ssh://user@host:port. It needs sshd, btrfs-progs and the coreutils; its copies are those of this host")
    .hidden()
    .prose("From another machine, which needs sshd and btrfs-progs, they are pulled with host = \"ssh://root@web1\" and\nsnapshots = \"/mnt/btrfs/.stillpoint\", a directory there for our snapshots: see the README.");

const SNAPSHOTS: Key<PathBuf> = Key::new("snapshots", &PATH)
    .says("A directory of that machine, on the btrfs that the subvolumes are on, for snapshots of ours alone; it is made if only it is missing")
    .hidden();

const REMOTE_SUDO: Key<bool> = Key::new("remote-sudo", &FLAG)
    .says("Run btrfs-progs and the coreutils there by sudo, for a login that is not root's")
    .default("false")
    .hidden();

const REMOTE_PROGRAM: Key<String> =
    Key::new("remote-program", &TEXT).says("btrfs on that machine").default("'btrfs'").hidden();

const SSH_COMMAND: Key<Vec<String>> = engine::SSH_COMMAND;

/// Reads which machine they are on.
fn far_machine(section: &Section<'_>, notes: &mut Notes) -> Option<FarMachine> {
    if !section.has(&HOST) {
        let why = "has no effect: the subvolumes are on this machine";
        section.refuse(&[&SNAPSHOTS, &REMOTE_SUDO, &REMOTE_PROGRAM, &SSH_COMMAND], why, notes);
        return None;
    }
    if !section.has(&SNAPSHOTS) {
        let complaint = Complaint::new("it is not said where on that machine snapshots are made")
            .help(format!(
                "name a directory on the btrfs that holds the subvolumes: {} = \"/…/.stillpoint\"",
                SNAPSHOTS.key()
            ));
        notes.missing(section.key_at(&HOST), complaint);
    }
    let text = section.get(&HOST)?;
    let (login, port) = notes.taken(section.value_at(&HOST), repository::machine(&text))?;
    let name = login.rsplit_once('@').map_or(&*login, |(_, host)| host);
    let named = HostName::new(name).map_err(|error| {
        Complaint::new(error.to_string()).help("give it a name, with HostName in ~/.ssh/config")
    });
    let host = notes.taken(section.value_at(&HOST), named)?;
    let server = Server {
        login,
        port,
        directory: section.get(&SNAPSHOTS)?,
        ssh_command: section.get(&SSH_COMMAND).unwrap_or_default(),
        side: RemoteSide::BtrfsProgs { sudo: section.get(&REMOTE_SUDO)? },
        program: section.get(&REMOTE_PROGRAM)?,
    };
    Some(FarMachine { host, server })
}

const EXISTING: Key<Elements<String>> = Key::new("existing", &PATTERNS)
    .says("Make no snapshots, and send those that another program makes: their paths, as patterns in which * stands for what is in one name; as the machine sees them, or without a leading slash from the top-level subvolume on")
    .hidden();

const SEND: Key<bool> = Key::new("send", &Choice(&[("newest", false), ("all", true)]))
    .says("Of the existing snapshots, send the newest one, or all that came after the last one that was sent")
    .default("'newest'")
    .hidden();

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadSource> {
    let paths = read_paths(section, &PATHS, notes);
    let from = far_machine(section, notes);
    let source = SubvolumesSource {
        paths: paths.iter().map(|(path, _)| path.clone()).collect(),
        leave_out: section.values(&LEAVE_OUT),
        from,
        existing: read_existing(section, notes),
    };
    // What lies there can be in the way of nothing here.
    if section.has(&HOST) {
        return Some(ReadSource { source: Source::Subvolumes(source), trees: Trees::default() });
    }
    let exclude = source.leave_out.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let trees = Trees { paths, exclude, excluded_by: LEAVE_OUT.key(), one_file_system: true };
    Some(ReadSource { source: Source::Subvolumes(source), trees })
}

fn read_existing(section: &Section<'_>, notes: &mut Notes) -> Option<ExistingSnapshots> {
    if !section.has(&EXISTING) {
        if section.has(&SEND) {
            let complaint =
                Complaint::new("send has no effect: each run sends the snapshot it makes")
                    .help("name the snapshots that another program makes: existing = [\"…\"]");
            notes.problem(section.key_at(&SEND), complaint);
        }
        return None;
    }
    if section.has(&HOST) {
        let complaint = Complaint::new(
            "the snapshots that another program makes are sent only from this machine",
        )
        .help("leave it out: a run makes snapshots of its own there");
        notes.problem(section.key_at(&EXISTING), complaint);
    }
    if section.is_empty_list(&EXISTING) {
        let complaint = Complaint::new("the list of patterns is empty: nothing would be sent");
        notes.problem(section.value_at(&EXISTING), complaint);
    }
    Some(ExistingSnapshots { called: section.values(&EXISTING), all: section.get(&SEND)? })
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "jobs.NAME.subvolumes",
    file: "[targets.t.btrfs]\nlocation='/r'\n[jobs.j]\ntargets=['t']\n[jobs.j.subvolumes]\nKEY",
    rows: &[
        ("paths", "paths=['/a']", "paths=['/b']"),
        ("leave-out", "paths=['/a']", "paths=['/a']\nleave-out=['/a/b']"),
        ("host", "paths=['/a']", "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'"),
        (
            "snapshots",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/x'",
        ),
        (
            "remote-sudo",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'\nremote-sudo=true",
        ),
        (
            "remote-program",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'\nremote-program='/x'",
        ),
        (
            "ssh-command",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'",
            "paths=['/a']\nhost='ssh://h'\nsnapshots='/s'\nssh-command=['ssh', '-4']",
        ),
        ("existing", "paths=['/a']", "paths=['/a']\nexisting=['/s/*']"),
        ("send", "paths=['/a']\nexisting=['/s/*']", "paths=['/a']\nexisting=['/s/*']\nsend='all'"),
    ],
}];
