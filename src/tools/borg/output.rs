//! What borg prints on standard output: pure parsers of its JSON documents and lines.
//!
//! borg runs with `TZ=UTC`, so its times, which carry no zone, are UTC.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;

use crate::model::names::MachineId;

use super::log::WireText;

/// `borg list --json REPOSITORY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The archives, oldest first.
    pub archives: Vec<Archive>,
    /// The repository's id.
    pub repository_id: String,
    /// The encryption mode.
    pub encryption: Option<String>,
}

/// One archive of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its name, which is unique in the repository.
    pub name: String,
    /// When it was begun.
    pub time: DateTime<Utc>,
}

/// The statistics of `borg create --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Statistics {
    /// Bytes of the source.
    pub original_size: u64,
    /// Bytes that were new to the repository, compressed.
    pub deduplicated_size: u64,
    /// How many files it holds.
    pub nfiles: u64,
}

/// One item of `borg list --json-lines REPOSITORY::ARCHIVE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `-` file, `d` directory, `l` link and so on.
    pub kind: char,
    /// The path as stored, without a leading slash.
    pub path: PathBuf,
    /// Bytes of a file; `None` for anything else, and for further names of a file.
    pub size: Option<u64>,
    /// When it was last modified.
    pub modified: Option<DateTime<Utc>>,
    /// For a further name of a file (a hard link): the first one.
    pub link_to: Option<PathBuf>,
    /// Permission bits, set-id and sticky ones included.
    pub mode: Option<u32>,
    /// Owner, by number.
    pub uid: Option<u32>,
    /// Group, by number.
    pub gid: Option<u32>,
}

/// One line of `borg diff --json-lines`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path as stored, without a leading slash.
    pub path: PathBuf,
    /// How it differs.
    pub changes: Vec<ChangeRecord>,
}

/// One way in which a path differs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChangeRecord {
    /// `added`, `removed directory`, `modified`, `changed link`, `mode`, `owner`, `mtime`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// For `mode`: what it was, as `-rw-r--r--`.
    pub old_mode: Option<String>,
    /// For `mode`: what it is.
    pub new_mode: Option<String>,
    /// For `modified`: bytes that came.
    pub added: Option<u64>,
    /// For `modified`: bytes that went.
    pub removed: Option<u64>,
}

impl ChangeRecord {
    /// borg 1.2 calls a file modified, by no bytes, when only its mode or times differ.
    fn is_empty(&self) -> bool {
        self.kind == "modified" && self.added == Some(0) && self.removed == Some(0)
    }
}

/// Reads a listing of a repository.
///
/// # Errors
/// When it is not one, in words.
pub fn parse_listing(bytes: &[u8]) -> Result<Listing, String> {
    #[derive(Deserialize)]
    struct Document {
        archives: Vec<Entry>,
        repository: Repository,
        encryption: Option<Encryption>,
    }
    #[derive(Deserialize)]
    struct Entry {
        // The exact name; "name" has its odd bytes replaced.
        barchive: WireText,
        time: String,
    }
    #[derive(Deserialize)]
    struct Repository {
        id: String,
    }
    #[derive(Deserialize)]
    struct Encryption {
        mode: String,
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| format!("a list of archives: {error}"))?;
    let archives = document.archives.into_iter().map(|entry| {
        let name = entry
            .barchive
            .as_str()
            .ok_or_else(|| format!("an archive's name is not UTF-8: {}", entry.barchive.lossy()))?;
        Ok(Archive { name: name.to_owned(), time: parse_time(&entry.time)? })
    });
    Ok(Listing {
        archives: archives.collect::<Result<_, String>>()?,
        repository_id: document.repository.id,
        encryption: document.encryption.map(|encryption| encryption.mode),
    })
}

/// Reads a listing with comments: which machine each archive says made it. A comment that is not one of ours says
/// nothing.
///
/// # Errors
/// When it is not a listing, in words.
pub fn parse_machines(bytes: &[u8]) -> Result<BTreeMap<String, MachineId>, String> {
    #[derive(Deserialize)]
    struct Document {
        archives: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        barchive: WireText,
        comment: WireText,
    }
    #[derive(Deserialize)]
    struct Comment {
        machine: MachineId,
    }
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| format!("a list of archives with comments: {error}"))?;
    let machine = |entry: Entry| {
        let comment: Comment = serde_json::from_str(entry.comment.as_str()?).ok()?;
        Some((entry.barchive.as_str()?.to_owned(), comment.machine))
    };
    Ok(document.archives.into_iter().filter_map(machine).collect())
}

/// Reads what `create --json` printed.
///
/// # Errors
/// When it is not that, in words.
pub fn parse_created(bytes: &[u8]) -> Result<Statistics, String> {
    #[derive(Deserialize)]
    struct Document {
        archive: Created,
    }
    #[derive(Deserialize)]
    struct Created {
        stats: Statistics,
    }
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| format!("the statistics of a new archive: {error}"))?;
    Ok(document.archive.stats)
}

/// Reads one line of an archive's listing.
///
/// # Errors
/// When it is not one, in words.
pub fn parse_item(line: &[u8]) -> Result<Item, String> {
    #[derive(Deserialize)]
    struct Record {
        #[serde(rename = "type")]
        kind: char,
        path: WireText,
        size: Option<u64>,
        mtime: Option<String>,
        mode: Option<String>,
        uid: Option<u32>,
        gid: Option<u32>,
        // For a further name of a file that was listed before: its first name.
        source: Option<WireText>,
    }
    let record: Record = serde_json::from_slice(line).map_err(|error| {
        format!("an entry of an archive ({error}): {}", String::from_utf8_lossy(line))
    })?;
    // borg gives only the first name of a file its size, and all the others zero.
    let source = record.source.map(|name| PathBuf::from(name.into_os_string()));
    let link_to = source.filter(|name| record.kind != 'l' && !name.as_os_str().is_empty());
    let has_size = record.kind == '-' && link_to.is_none();
    Ok(Item {
        kind: record.kind,
        path: record.path.into_os_string().into(),
        size: record.size.filter(|_| has_size),
        modified: record.mtime.as_deref().map(parse_time).transpose()?,
        link_to,
        mode: record.mode.as_deref().and_then(parse_mode),
        uid: record.uid,
        gid: record.gid,
    })
}

/// Reads permissions as `ls -l` shows them: `-rwsr-x--t`. `None` when it is something else.
fn parse_mode(text: &str) -> Option<u32> {
    let signs: &[u8; 10] = text.as_bytes().try_into().ok()?;
    let mut mode = 0;
    for (at, sign) in signs[1..].iter().enumerate() {
        let bit = 0o400 >> at;
        // Set-id and sticky stand where x would, small with it and capital without.
        let special = [0o4000, 0o2000, 0o1000][at / 3];
        mode |= match (sign, at % 3) {
            (b'-', _) => 0,
            (b'r', 0) | (b'w', 1) | (b'x', 2) => bit,
            (b's' | b't', 2) => bit | special,
            (b'S' | b'T', 2) => special,
            _ => return None,
        };
    }
    Some(mode)
}

/// Reads one line of a comparison.
///
/// # Errors
/// When it is not one, in words.
pub fn parse_difference(line: &[u8]) -> Result<Difference, String> {
    #[derive(Deserialize)]
    struct Record {
        path: WireText,
        changes: Vec<ChangeRecord>,
    }
    let mut record: Record = serde_json::from_slice(line)
        .map_err(|error| format!("a difference ({error}): {}", String::from_utf8_lossy(line)))?;
    record.changes.retain(|change| !change.is_empty());
    Ok(Difference { path: record.path.into_os_string().into(), changes: record.changes })
}

/// Reads `borg --version`: `borg 1.2.4`.
pub fn parse_version(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = text.trim().strip_prefix("borg ")?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// Reads a time with or without a zone; without one it is UTC.
fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .map(|time| time.and_utc())
        .map_err(|error| format!("the time {text:?}: {error}"))
}

/// What `mount` lacks of Python's bindings of libfuse, with its remedy, if borg says so.
pub fn fuse_missing(said: &str) -> Option<&'static str> {
    // borg 1.1: "loading FUSE support failed", since 1.2: "no FUSE support"; both after these words.
    said.contains("mount not available").then_some(
        "borg has no FUSE support here — install it (Debian: apt install python3-pyfuse3 fuse3; borg before 1.2: python3-llfuse), or restore instead",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(version: &str, case: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/{version}/{case}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    #[test]
    fn recorded_listings() {
        for version in ["borg-1.2.4-legacy", "borg-1.4.5-modern"] {
            let listing = parse_listing(&fixture(version, "list-json.out")).unwrap();
            let names: Vec<&str> = listing.archives.iter().map(|a| a.name.as_str()).collect();
            assert_eq!(names[..3], ["a1", "a2", "a3"], "{version}");
            assert_eq!(listing.encryption.as_deref(), Some("repokey"));
            assert_eq!(listing.repository_id.len(), 64);
            let year = listing.archives[0].time.format("%Y").to_string();
            assert_eq!(year, "2026", "{version}");
        }
    }

    #[test]
    fn recorded_statistics() {
        let created = parse_created(&fixture("borg-1.2.4-legacy", "create-missing-source.out"));
        let created = created.unwrap();
        assert_eq!((created.nfiles, created.deduplicated_size), (3, 542));
        assert!(parse_created(b"").is_err());
    }

    #[test]
    fn recorded_entries() {
        let bytes = fixture("borg-1.4.5-modern", "list-archive-jsonlines.out");
        let items: Vec<Item> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| parse_item(line).unwrap())
            .collect();
        assert_eq!(items[0].kind, 'd');
        assert_eq!(items[0].size, None);
        assert_eq!(items[2].path, PathBuf::from("tmp/t/fx/src/sub/f1"));
        assert_eq!(items[2].size, Some(120_000));
        assert_eq!(items[2].modified.unwrap().to_rfc3339(), "2026-11-21T02:10:31.263123+00:00");
        let further = br#"{"type": "-", "path": "b", "source": "a", "linktarget": "a", "size": 0, "mtime": "2026-11-21T02:10:31.263123"}"#;
        assert_eq!(parse_item(further).unwrap().size, None);
        assert!(parse_item(b"tmp/t").is_err());
    }

    #[test]
    fn modified_by_no_bytes_is_not_modified() {
        let line = br#"{"changes": [{"added": 0, "removed": 0, "type": "modified"}, {"new_mode": "-rw-------", "old_mode": "-rw-r--r--", "type": "mode"}], "path": "f"}"#;
        let difference = parse_difference(line).unwrap();
        assert_eq!(difference.changes.len(), 1);
        assert_eq!(difference.changes[0].kind, "mode");
        let line = br#"{"changes": [{"added": 0, "removed": 1, "type": "modified"}], "path": "f"}"#;
        assert_eq!(parse_difference(line).unwrap().changes.len(), 1);
    }

    #[test]
    fn a_difference_keeps_odd_names() {
        let line = br#"{"changes": [{"size": 1, "type": "removed"}], "path": "src/n\udcff"}"#;
        let difference = parse_difference(line).unwrap();
        assert_eq!(difference.changes[0].kind, "removed");
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(difference.path.as_os_str().as_bytes(), b"src/n\xff");
    }

    #[test]
    fn what_a_mount_lacks_is_named_with_its_package() {
        for (why, package) in [
            ("no FUSE support, BORG_FUSE_IMPL=pyfuse3,llfuse.", "python3-pyfuse3"),
            (
                "loading FUSE support failed [ImportError: No module named 'llfuse']",
                "python3-llfuse",
            ),
        ] {
            let remedy = fuse_missing(&format!("borg mount not available: {why}"));
            assert!(remedy.is_some_and(|remedy| remedy.contains(package)), "{why}");
        }
        assert_eq!(fuse_missing("Repository /r does not exist."), None);
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version(b"borg 1.2.4\n").as_deref(), Some("1.2.4"));
        assert_eq!(parse_version(b"borg: not found"), None);
    }

    #[test]
    fn permissions() {
        for (text, mode) in [
            ("-rw-r-----", 0o640),
            ("drwxrwxrwt", 0o1777),
            ("-rwsr-sr-x", 0o6755),
            ("-rwSr-Sr-T", 0o7644),
            ("----------", 0),
        ] {
            assert_eq!(parse_mode(text), Some(mode), "{text}");
        }
        for bad in ["", "-rw", "-rwxrwxrwxr", "-xrw------", "-rw-r--r-é"] {
            assert_eq!(parse_mode(bad), None, "{bad}");
        }
    }
}
