//! Which subvolumes lie in another one, where the kernel cannot be asked: on another machine.
//!
//! `btrfs subvolume list` prints one a line, and a name with line breaks may look like several. So nothing is decided by
//! this but what a person is told: whoever makes such a name could as well make what it pretends.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::host::{CommandSpec, Effect, Tool};

/// Lists the subvolumes that lie in the one at a path, as [`nested`] reads them.
pub fn list_nested(program: &Tool, path: &Path) -> CommandSpec {
    CommandSpec::new(program.clone(), Effect::Inspect)
        .args(["subvolume", "list", "-o", "--"])
        .arg(path)
}

/// Where the subvolumes are that [`list_nested`] lists of the one that is seen at a path, of which `shown` was told by
/// [`show`](super::shown::show).
pub fn nested(at: &Path, shown: &[u8], listed: &[u8]) -> Vec<PathBuf> {
    let name = from_top(shown);
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for line in listed.split(|byte| *byte == b'\n') {
        match (path_of(line), paths.last_mut()) {
            (Some(path), _) => paths.push(path.to_owned()),
            (None, Some(last)) => {
                last.push(b'\n');
                last.extend(line);
            }
            (None, None) => {}
        }
    }
    let place = |path: Vec<u8>| {
        let path = Path::new(OsStr::from_bytes(path.strip_suffix(b"\n").unwrap_or(&path)));
        at.join(path.strip_prefix(&name).unwrap_or(path))
    };
    paths.into_iter().map(place).collect()
}

/// Where a subvolume is, from the top-level one on: what stands before all that is told of it.
fn from_top(shown: &[u8]) -> PathBuf {
    let end = shown.windows(7).position(|window| window == b"\n\tName:").unwrap_or(0);
    let name = Path::new(OsStr::from_bytes(&shown[..end]));
    // The top-level one is `/`.
    name.strip_prefix("/").unwrap_or(name).to_owned()
}

/// The path in `ID 258 gen 9 top level 257 path home/alice`.
fn path_of(line: &[u8]) -> Option<&[u8]> {
    let words = ["ID", "", "gen", "", "top", "level", "", "path"];
    let mut rest = line;
    for word in words {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let found = &rest[..end];
        let fits = match word {
            "" => !found.is_empty() && found.iter().all(u8::is_ascii_digit),
            word => found == word.as_bytes(),
        };
        if !fits {
            return None;
        }
        rest = &rest[end + 1..];
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_they_are() {
        let listed = b"ID 258 gen 9 top level 257 path @home/alice\nID 260 gen 9 top level 257 path @home/a b\nc\nID 9\n";
        let paths = |shown: &[u8]| nested(Path::new("/home"), shown, listed);
        assert_eq!(
            paths(b"@home\n\tName: \t\t\t@home\n"),
            [PathBuf::from("/home/alice"), "/home/a b\nc\nID 9".into()]
        );
        let listed = b"ID 258 gen 9 top level 5 path @home\n";
        assert_eq!(
            nested(Path::new("/mnt"), b"/\n\tName: \t\t\t<FS_TREE>\n", listed),
            [PathBuf::from("/mnt/@home")]
        );
        assert_eq!(nested(Path::new("/mnt"), b"", b""), [] as [PathBuf; 0]);
    }

    #[test]
    fn command_lines() {
        let list = list_nested(&Tool::Named("btrfs".into()), Path::new("/-a"));
        assert_eq!(list.display(), "btrfs subvolume list -o -- /-a");
    }
}
