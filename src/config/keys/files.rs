//! `[jobs.NAME.files]`: files and directories.

use std::path::PathBuf;

use super::capture;
use super::source::{ReadSource, SourceKind, Trees, read_paths};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::Elements;
use crate::config::kinds::{FLAG, PATHS as LIST_OF_PATHS, PATTERNS};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::job::{FilesSource, Source};

/// The kind of source.
pub const ROW: SourceKind =
    SourceKind { item: Item::Table(&FILES), read, judge_hooks: capture::check_writers };

const FILES: Table = Table {
    name: "files",
    says: "Protects files and directories",
    start: Start::on("jobs.system.files", ""),
    variants: no_variants,
    items: &[
        &[
            Item::Value(&PATHS),
            Item::Value(&EXCLUDE),
            Item::Value(&EXCLUDE_CACHES),
            Item::Value(&EXCLUDE_IF_PRESENT),
            Item::Value(&ONE_FILE_SYSTEM),
            Item::Value(&ALLOW_EMPTY),
        ],
        capture::KEYS,
    ],
};

const PATHS: Key<Elements<PathBuf>> = Key::new("paths", &LIST_OF_PATHS)
    .says("What is protected, with everything below it")
    .on("['/etc', '/home', '/root']");

const EXCLUDE: Key<Elements<String>> = Key::new("exclude", &PATTERNS)
    .says(
        "Patterns in restic's dialect, for every engine: a name anywhere, or a path from the root",
    )
    .on("['.cache', '*.tmp']")
    .told();

const EXCLUDE_CACHES: Key<bool> = Key::new("exclude-caches", &FLAG)
    .says("Skip directories that hold a CACHEDIR.TAG")
    .default("false")
    .example("true")
    .prose("Skip directories that hold a CACHEDIR.TAG, or a file of such a name.");

const EXCLUDE_IF_PRESENT: Key<Elements<String>> = Key::new("exclude-if-present", &PATTERNS)
    .says("Skip directories that hold a file of such a name")
    .example("['.nobackup']");

const ONE_FILE_SYSTEM: Key<bool> = Key::new("one-file-system", &FLAG)
    .says("Do not cross into other file systems")
    .default("false")
    .example("true")
    .told();

const ALLOW_EMPTY: Key<bool> = Key::new("allow-empty", &FLAG)
    .says("Accept a directory without any entry")
    .default("false")
    .example("true")
    .prose("A directory without any entry is an error, unless it may be empty.");

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadSource> {
    let paths = read_paths(section, &PATHS, notes);
    for (pattern, at) in section.list(&EXCLUDE) {
        if let Some(fault) = (notes.pattern_fault)(&pattern) {
            notes.problem(at, Complaint::new(fault));
        }
    }
    for (name, at) in section.list(&EXCLUDE_IF_PRESENT) {
        if name.contains('/') {
            let message = "exclude-if-present takes names of files, without directories";
            notes.problem(at, Complaint::new(message));
        }
    }
    let files = FilesSource {
        paths: paths.iter().map(|(path, _)| path.clone()).collect(),
        exclude: section.values(&EXCLUDE),
        exclude_caches: section.get(&EXCLUDE_CACHES)?,
        exclude_if_present: section.values(&EXCLUDE_IF_PRESENT),
        one_file_system: section.get(&ONE_FILE_SYSTEM)?,
        capture: capture::read(section, &paths, notes)?,
        allow_empty: section.get(&ALLOW_EMPTY)?,
    };
    let (exclude, one_file_system) = (files.exclude.clone(), files.one_file_system);
    let trees = Trees { paths, exclude, excluded_by: EXCLUDE.key(), one_file_system };
    Some(ReadSource { source: Source::Files(files), trees })
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "jobs.NAME.files",
    file: "TARGET [jobs.j]\ntargets=['t']\n[jobs.j.files]\nKEY",
    rows: &[
        ("paths", "paths=['/a']", "paths=['/b']"),
        ("exclude", "paths=['/a']", "paths=['/a']\nexclude=['x']"),
        ("exclude-caches", "paths=['/a']", "paths=['/a']\nexclude-caches=true"),
        ("exclude-if-present", "paths=['/a']", "paths=['/a']\nexclude-if-present=['x']"),
        ("one-file-system", "paths=['/a']", "paths=['/a']\none-file-system=true"),
        ("allow-empty", "paths=['/a']", "paths=['/a']\nallow-empty=true"),
    ],
}];
