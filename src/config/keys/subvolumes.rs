//! `[jobs.NAME.subvolumes]`: subvolumes of btrfs, taken over as they are.

use std::path::PathBuf;

use super::hooks;
use super::source::{ReadSource, SourceKind, Trees, read_paths};
use crate::config::diagnostic::Notes;
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::Elements;
use crate::config::kinds::PATHS as LIST_OF_PATHS;
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::job::{Source, SubvolumesSource};

/// The kind of source.
pub const ROW: SourceKind =
    SourceKind { item: Item::Table(&SUBVOLUMES), read, judge_hooks: hooks::refuse_quiet };

const SUBVOLUMES: Table = Table {
    name: "subvolumes",
    says: "Protects subvolumes of btrfs, by snapshots that are sent to btrfs targets",
    start: Start::off(
        "jobs.home.subvolumes",
        "Subvolumes of btrfs: a snapshot of each is sent to btrfs targets, and only what changed since the last one.\n\
         #[jobs.home]\n\
         #targets = [\"snapshots\"]",
    ),
    variants: no_variants,
    items: &[&[Item::Value(&PATHS), Item::Value(&LEAVE_OUT)]],
};

const PATHS: Key<Elements<PathBuf>> = Key::new("paths", &LIST_OF_PATHS)
    .says("The subvolumes, by where they are seen; each is a series of its own")
    .on("['/home']");

const LEAVE_OUT: Key<Elements<PathBuf>> = Key::new("leave-out", &LIST_OF_PATHS)
    .says("Other subvolumes in them that need not be in a copy: no snapshot holds what lies in one")
    .example("['/home/alice/scratch']")
    .told();

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadSource> {
    let paths = read_paths(section, &PATHS, notes);
    let source = SubvolumesSource {
        paths: paths.iter().map(|(path, _)| path.clone()).collect(),
        leave_out: section.values(&LEAVE_OUT),
    };
    let exclude = source.leave_out.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let trees = Trees { paths, exclude, excluded_by: LEAVE_OUT.key(), one_file_system: true };
    Some(ReadSource { source: Source::Subvolumes(source), trees })
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "jobs.NAME.subvolumes",
    file: "[targets.t.btrfs]\nlocation='/r'\n[jobs.j]\ntargets=['t']\n[jobs.j.subvolumes]\nKEY",
    rows: &[
        ("paths", "paths=['/a']", "paths=['/b']"),
        ("leave-out", "paths=['/a']", "paths=['/a']\nleave-out=['/a/b']"),
    ],
}];
