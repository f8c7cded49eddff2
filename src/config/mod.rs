//! The configuration: files in, a resolved [`Config`] or every problem at its line and column out.
//!
//! `tree` parses the files into one tree that remembers where each value stood and lays the drop-ins
//! over the main file. `keys` declares every key with its kind, default, documentation and reader, one file a
//! table. `conform` holds the tree against these declarations; their readers read it into the model, and `resolve`
//! judges what targets and jobs mean together. The start file, the JSON schema and the manual page's list are
//! written from the same declarations. Everything complains to `diagnostic` and goes on. serde is not used for
//! reading: it stops at the first mistake, and people fix files one run at a time.

mod conform;
mod diagnostic;
mod key;
mod keys;
mod kind;
mod kinds;
mod origin;
mod pairing;
mod reference;
mod repository;
mod resolve;
mod schema;
mod section;
mod source;
mod start;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tree;

pub use diagnostic::{PatternFault, Problem, Problems};
pub use origin::{Origin, origins};
pub use pairing::{PAIRINGS, Pairing, show_pairings};
pub use reference::{KeyReference, TableReference, reference};
pub use resolve::excluded;
pub use schema::json_schema;
pub use source::SourceFile;
pub use start::commented_start;

use crate::model::job::Config;
use diagnostic::Notes;
use tree::Table;

/// A valid configuration, with what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is valid and yet likely not meant, such as a target that no job uses.
    pub warnings: Vec<Problem>,
}

/// Reads the main file and its drop-ins, which follow it in the order in which they apply: later wins
/// by table key, and lists are replaced. `default_host` is the machine's name, for files that give none;
/// `pattern_fault` judges exclude patterns.
///
/// # Errors
/// Everything that is wrong, in the order of files and lines.
pub fn load(
    files: &[SourceFile],
    default_host: &str,
    pattern_fault: PatternFault,
) -> Result<Loaded, Problems> {
    let mut notes = Notes::new(pattern_fault);
    let root = merged(files, &mut notes);
    conform::conform(&root, &mut notes);
    let paths = files.iter().map(|file| file.path.clone()).collect();
    let config = resolve::resolve(&root, paths, default_host, &mut notes);
    let (config, warnings) = notes.finish(files, config)?;
    Ok(Loaded { config, warnings })
}

/// All files as one tree; one that cannot be parsed is one problem, and the others still count.
fn merged(files: &[SourceFile], notes: &mut Notes) -> Table {
    let mut root = Table::default();
    for (n, file) in files.iter().enumerate() {
        match Table::parse(n, &file.text) {
            Ok(table) => root.merge(table),
            Err((at, complaint)) => {
                notes.partial = true;
                notes.problem(at, complaint);
            }
        }
    }
    root
}
