//! `[targets.NAME.btrfs]`: copies are read-only subvolumes.

use std::path::PathBuf;
use std::time::Duration;

use super::engine::{self, Engine, ReadEngine, check_mount};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kinds::PATH;
use crate::config::repository::Location;
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::target::EngineConfig;

/// The engine's row.
pub const ROW: Engine = Engine { table: &BTRFS, read, can_check: true };

const BTRFS: Table = Table {
    name: "btrfs",
    says: "Copies are read-only subvolumes, taken over by btrfs send and receive",
    start: Start::off(
        "targets.snapshots.btrfs",
        "For subvolumes alone: a directory of another btrfs, which gets a read-only subvolume for each copy.",
    ),
    variants: no_variants,
    items: &[&[
        Item::Value(&LOCATION),
        Item::Value(&REQUIRE_MOUNT),
        Item::Value(&STALL_TIMEOUT),
        Item::Value(&PROGRAM),
    ]],
};

const LOCATION: Key<PathBuf> = Key::new("location", &PATH)
    .says("A directory of a btrfs, in which copies are received")
    .on("'/mnt/backup/@HOST@'");

const REQUIRE_MOUNT: Key<PathBuf> = engine::REQUIRE_MOUNT.example("'/mnt/backup'");

const STALL_TIMEOUT: Key<Duration> = engine::STALL_TIMEOUT;

const PROGRAM: Key<PathBuf> =
    engine::PROGRAM.says("The btrfs program on this machine").example("'/usr/bin/btrfs'");

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadEngine> {
    if !section.has(&LOCATION) {
        let message = format!("{} needs a {}", section.key, LOCATION.key());
        notes.missing(section.at, Complaint::new(message));
    }
    let path = section.get(&LOCATION);
    let location = path.clone().map(Location::Local);
    check_mount(section, location.as_ref(), notes);
    // What people typed in a TOML file is text.
    let repository = path.and_then(|path| path.to_str().map(str::to_owned));
    let common = ReadEngine::new(section, repository, location, EngineConfig::Btrfs)?;
    Some(ReadEngine { repository_at: section.value_at(&LOCATION), ..common })
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "targets.NAME.btrfs",
    file: "[targets.t.btrfs]\nKEY\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n",
    rows: &[
        ("location", "location='/r'", "location='/x'"),
        ("require-mount", "location='/r/s'", "location='/r/s'\nrequire-mount='/r'"),
        ("program", "location='/r'", "location='/r'\nprogram='/x'"),
        ("stall-timeout", "location='/r'", "location='/r'\nstall-timeout='1h'"),
    ],
}];
