//! Where each value of the merged configuration comes from, for `check-config --show`.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::diagnostic::Notes;
use super::tree::Table;
use super::{SourceFile, conform, merged};
use crate::model::bytes;

/// One value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The key with its tables: `jobs.host.files.paths`.
    pub key: String,
    /// The value as TOML on one line.
    pub value: String,
    /// The file that gave it.
    #[serde(flatten, serialize_with = "file")]
    pub file: PathBuf,
    /// The line of its key, counted from 1.
    pub line: usize,
}

fn file<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("file", "file_bytes", Some(path), serializer)
}

/// Every value that counts after the drop-ins were laid over the main file, in the order of the files.
/// Files that cannot be parsed contribute nothing; [`super::load`] says what is wrong with them.
pub fn origins(files: &[SourceFile]) -> Vec<Origin> {
    let root = merged(files, &mut Notes::new(|_| None));
    let mut found = Vec::new();
    collect(&root, "", files, &mut found);
    found
}

fn collect(table: &Table, name: &str, files: &[SourceFile], found: &mut Vec<Origin>) {
    for entry in &table.entries {
        let key = conform::dotted(name, &entry.key);
        match entry.node.value.table() {
            Some(table) if !table.entries.is_empty() => collect(table, &key, files, found),
            Some(_) | None => {
                let Some(file) = files.get(entry.at.file) else { continue };
                let before = file.text.bytes().take(entry.at.start);
                found.push(Origin {
                    key,
                    value: entry.node.to_toml(),
                    file: file.path.clone(),
                    line: before.filter(|byte| *byte == b'\n').count() + 1,
                });
            }
        }
    }
}
