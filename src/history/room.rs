//! When the disk of the state directory is too full: to begin a run, and to open the history at all.

use std::path::Path;

use crate::host::sys::mounts::free_space;
use crate::model::size;

/// What a run's ledger and records need, in bytes: a ledger of a few hundred lines, history's write-ahead log (64
/// pages and one large transaction) and what history grows by, and `report.json`.
const RUN: u64 = 1 << 20;

/// How many files a run makes: its ledger, history's two side files, `report.json` with its replacement, and what
/// the engine's own state needs.
const FILES: u64 = 16;

/// What SQLite's side files take to begin with: an index of 32 KiB that is mapped into memory, and the log.
const SIDE_FILES: u64 = 64 << 10;

/// What a disk with so many free bytes, and room for so many files where that is limited, lacks for the records of a
/// run; `None` when it has room for them, and so for the history.
pub fn lacks(free: u64, files: Option<u64>) -> Option<String> {
    if free < RUN.max(SIDE_FILES) {
        return Some(format!("{} free, and a run needs {}", size::show(free), size::show(RUN)));
    }
    let files = files.filter(|files| *files < FILES)?;
    Some(format!("room for {files} more files (inodes), and a run needs {FILES}"))
}

/// Whether a directory has no room for SQLite's side files. Where that cannot be asked, SQLite says what it meets.
pub(super) fn is_too_full(directory: &Path) -> bool {
    free_space(directory).is_ok_and(|free| free < SIDE_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_lacks_what_it_has_less_of_than_a_run_needs() {
        assert_eq!(lacks(RUN, None), None);
        assert_eq!(lacks(RUN, Some(FILES)), None);
        assert!(lacks(RUN - 1, None).unwrap().contains("a run needs 1.0 MiB"));
        assert!(lacks(RUN, Some(FILES - 1)).unwrap().contains("15 more files"));
    }
}
