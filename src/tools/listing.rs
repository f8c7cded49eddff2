//! What lies in a tree, an entry a line, as a process of ours tells it: what is read can be large, and whoever asks may
//! be told to stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::host::{CommandSpec, Tool};
use crate::model::bytes;

/// The verb of ours that lists a tree.
pub const VERB: &str = "list-tree";

/// An entry of a tree, as the verb lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its path below the root of the tree; empty: the root itself.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// `-` file, `d` directory, `l` link, `p` pipe, `s` socket, `b` and `c` devices.
    pub kind: char,
    /// Bytes; `None` for what has no size.
    pub size: Option<u64>,
    /// When it was last modified.
    pub modified: Option<DateTime<Utc>>,
    /// Permission bits, set-id and sticky ones included.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
}

/// Lists a tree.
pub fn command(root: &Path, stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(Tool::Own, stall_limit).args([VERB, "--"]).arg(root)
}

/// Reads a line; `None` when it is none.
pub fn parse(line: &[u8]) -> Option<Listed> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn an_entry_of_any_name_is_written_and_read_back() {
        let listed = Listed {
            path: OsString::from_vec(b"caf\xe9\nx".to_vec()).into(),
            kind: '-',
            size: Some(5),
            modified: "2026-11-26T01:02:03.000000004Z".parse().ok(),
            mode: 0o4755,
            uid: 0,
            gid: 50,
        };
        let line = serde_json::to_vec(&listed).unwrap();
        assert!(!line.contains(&b'\n'));
        assert_eq!(parse(&line), Some(listed));
        assert_eq!(parse(b"x"), None);
        let spec = command(Path::new("/srv/-copy"), Duration::from_secs(60));
        assert_eq!(spec.display(), "stillpoint list-tree -- /srv/-copy");
    }
}
