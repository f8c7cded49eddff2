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
    /// A number that all names of one file have; `None` where it has but one, or nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<u64>,
}

/// Lists a tree.
pub fn command(root: &Path, stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(Tool::Own, stall_limit).args([VERB, "--"]).arg(root)
}

/// The option of the verb that has it read what find on another machine has found.
const OF_FIND: &str = "--of-find";

/// Lists what [`find`](super::coreutils::find) prints.
pub fn of_find(stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(Tool::Own, stall_limit).args([VERB, OF_FIND])
}

/// Reads what find prints of an entry, without the zero that ends it; `None` when it is none.
pub fn parse_found(entry: &[u8]) -> Option<Listed> {
    use std::os::unix::ffi::OsStrExt;
    let mut words = entry.splitn(7, |byte| *byte == b' ');
    let mut word = || str::from_utf8(words.next()?).ok();
    let kind = match word()? {
        "f" => '-',
        other => {
            other.chars().next().filter(|kind| "dlpsbc".contains(*kind) && other.len() == 1)?
        }
    };
    let size = word()?.parse().ok()?;
    let (seconds, fraction) = word()?.split_once('.')?;
    let modified =
        DateTime::from_timestamp(seconds.parse().ok()?, fraction.get(..9)?.parse().ok()?);
    let mode = u32::from_str_radix(word()?, 8).ok()?;
    let (uid, gid) = (word()?.parse().ok()?, word()?.parse().ok()?);
    let path = std::ffi::OsStr::from_bytes(words.next()?).into();
    let size = (kind == '-').then_some(size);
    Some(Listed { path, kind, size, modified, mode, uid, gid, shared: None })
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
            shared: None,
        };
        let line = serde_json::to_vec(&listed).unwrap();
        assert!(!line.contains(&b'\n'));
        assert_eq!(parse(&line), Some(listed));
        assert_eq!(parse(b"x"), None);
        let spec = command(Path::new("/srv/-copy"), Duration::from_secs(60));
        assert_eq!(spec.display(), "stillpoint list-tree -- /srv/-copy");
        assert_eq!(of_find(Duration::from_secs(1)).display(), "stillpoint list-tree --of-find");
    }

    #[test]
    fn what_find_prints_is_the_same() {
        let found = parse_found(b"f 5 1732690923.0000000040 4755 0 50 caf\xe9\nx y").unwrap();
        let listed = Listed {
            path: OsString::from_vec(b"caf\xe9\nx y".to_vec()).into(),
            kind: '-',
            size: Some(5),
            modified: DateTime::from_timestamp(1_732_690_923, 4),
            mode: 0o4755,
            uid: 0,
            gid: 50,
            shared: None,
        };
        assert_eq!(found, listed);
        let root = parse_found(b"d 12 -5.5000000000 700 0 0 ").unwrap();
        assert_eq!((root.path.as_os_str().len(), root.kind, root.size), (0, 'd', None));
        for bad in [&b""[..], b"f 5", b"x 5 1.0000000000 700 0 0 a", b"f 5 1 700 0 0 a"] {
            assert_eq!(parse_found(bad), None);
        }
    }
}
