//! What restic prints, line by line: JSON objects with a `message_type`, between them plain text.
//!
//! With `--json`, standard error still carries plain lines in every version, so a line of text is a value
//! here and not an error. What a command must print to have succeeded (its summary, a snapshot, an
//! entry) is read strictly.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use crate::model::hash::is_sha256;

/// One line of output.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// `status`: how far it is.
    Status(Status),
    /// `summary`: what it did. Read by the function of the command.
    Summary(Value),
    /// `error`: something that went wrong with one file, or that `check` found.
    Problem(Problem),
    /// `exit_error` (0.18): why it ends.
    ExitError {
        /// The exit status that will follow.
        code: i64,
        /// Why it ended, in restic's words.
        message: String,
    },
    /// An object of another type.
    Other(Value),
    /// Plain text, terminal control sequences taken off. Never empty.
    Text(String),
    /// A line without text.
    Empty,
}

/// How far a backup or a restore is. Numbers that restic leaves out are zero there, and `None` here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes read or restored.
    pub bytes_done: Option<u64>,
    /// Bytes in all, as far as it knows.
    pub bytes_total: Option<u64>,
    /// Files read or restored.
    pub files_done: Option<u64>,
    /// A file at which it is.
    pub current: Option<String>,
}

/// Something that went wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path that it is about, if restic names one.
    pub item: Option<String>,
    /// `scan`, `archival`, `restore`.
    pub during: Option<String>,
    /// restic's words; before 0.17.1 made from an errno, where there is one.
    pub message: String,
    /// Whether restic gave no cause at all: `"error":{}`, before 0.17.1.
    pub mute: bool,
    /// Whether the file was not there any more.
    pub vanished: bool,
}

/// Linux's "no such file or directory".
const ENOENT: i64 = 2;

/// Reads one line.
pub fn line(bytes: &[u8]) -> Line {
    let bytes = plain(bytes);
    if bytes.is_empty() {
        return Line::Empty;
    }
    let object = bytes
        .starts_with(b"{")
        .then(|| serde_json::from_slice::<Value>(bytes).ok())
        .flatten()
        .filter(Value::is_object);
    let Some(value) = object else {
        return Line::Text(String::from_utf8_lossy(bytes).into_owned());
    };
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    match value.get("message_type").and_then(Value::as_str) {
        Some("status") => Line::Status(status(&value)),
        Some("summary") => Line::Summary(value),
        Some("error") => Line::Problem(problem(&value)),
        Some("exit_error") => Line::ExitError {
            code: value.get("code").and_then(Value::as_i64).unwrap_or(1),
            message: text("message").unwrap_or_default(),
        },
        _ => Line::Other(value),
    }
}

/// Takes off the "erase line" that restic puts before messages on what it takes for a terminal.
fn plain(bytes: &[u8]) -> &[u8] {
    let mut bytes = bytes.trim_ascii();
    while let Some(rest) = bytes.strip_prefix(b"\x1b[2K") {
        bytes = rest.trim_ascii();
    }
    bytes
}

fn status(value: &Value) -> Status {
    let number =
        |names: &[&str]| names.iter().find_map(|name| value.get(*name)).and_then(Value::as_u64);
    Status {
        bytes_done: number(&["bytes_done", "bytes_restored"]),
        bytes_total: number(&["total_bytes"]),
        files_done: number(&["files_done", "files_restored"]),
        current: value
            .get("current_files")
            .and_then(|files| files.get(0))
            .and_then(Value::as_str)
            .map(str::to_owned),
    }
}

/// `{"error":{"message":…}}` since 0.17.1; `{"error":{"Op":…,"Path":…,"Err":13}}` or `{"error":{}}` before;
/// `{"message":…}` in `check`.
fn problem(value: &Value) -> Problem {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let error = value.get("error");
    let of_error = |name: &str| error.and_then(|error| error.get(name));
    let item = text(value.get("item")).filter(|item| !item.is_empty());
    let errno = of_error("Err").and_then(Value::as_i64);
    let message = text(of_error("message"))
        .or_else(|| text(value.get("message")))
        .or_else(|| text(error))
        .or_else(|| {
            let errno = errno.and_then(|errno| i32::try_from(errno).ok())?;
            let operation = text(of_error("Op")).unwrap_or_else(|| "read".into());
            let path = text(of_error("Path")).or_else(|| item.clone()).unwrap_or_default();
            Some(format!("{operation} {path}: {}", std::io::Error::from_raw_os_error(errno)))
        });
    let mute = message.is_none();
    let message = message.unwrap_or_else(|| "restic did not say why".into());
    Problem {
        // A name at the end may read like the cause.
        vanished: errno == Some(ENOENT)
            || (message.ends_with(": no such file or directory")
                && !item.as_ref().is_some_and(|item| message.ends_with(item.as_str()))),
        during: text(value.get("during")),
        item,
        message,
        mute,
    }
}

/// The source path that a line of text calls missing: `/x does not exist, skipping`.
pub fn missing_source(text: &str) -> Option<&str> {
    text.strip_suffix(" does not exist, skipping")
}

/// Whether a line of text tells of a request that was repeated, or of the end itself: nothing that
/// somebody would have to read after a success.
pub fn is_routine(text: &str) -> bool {
    // What it does to the storage, and the name of the file there: `Load(<data/1a2b>, 0, 0) returned error, …`.
    const CALLS: [&str; 6] = ["Delete(", "List(", "Load(", "Remove(", "Save(", "Stat("];
    let is_of_storage = CALLS.iter().any(|call| text.starts_with(call));
    let says = |words: &str| is_of_storage && text.contains(words);
    says(") returned error, retrying after ")
        || says(") operation successful after ")
        || is_farewell(text)
        || text.starts_with("Warning: at least one source file could not be read")
        || text.starts_with("Warning: failed to read all source data")
}

/// Whether a line says that a signal arrived: `signal interrupt received, cleaning up`.
pub fn is_farewell(text: &str) -> bool {
    text.starts_with("signal ") && text.ends_with("cleaning up")
}

/// What `backup` did.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BackupSummary {
    /// 8 digits in 0.14, 64 later.
    pub snapshot_id: String,
    /// Files in the snapshot.
    pub total_files_processed: Option<u64>,
    /// The bytes of all of them.
    pub total_bytes_processed: Option<u64>,
    /// Bytes added before compression.
    pub data_added: Option<u64>,
    /// Bytes added to the repository (0.17).
    pub data_added_packed: Option<u64>,
    /// Then the id is invented.
    #[serde(default)]
    pub dry_run: bool,
}

/// Reads the summary of `backup`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn backup_summary(value: Value) -> Result<BackupSummary, String> {
    let summary: BackupSummary = serde_json::from_value(value)
        .map_err(|error| format!("a backup summary that cannot be read: {error}"))?;
    let id = &summary.snapshot_id;
    if id.len() < 8 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("a backup summary with {id:?} for a snapshot id"));
    }
    Ok(summary)
}

/// What `restore` did (0.16).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RestoreSummary {
    /// Everything that was laid out, directories included.
    pub files_restored: Option<u64>,
    /// How many bytes were written.
    pub bytes_restored: Option<u64>,
}

/// What `check` found (0.18). Also printed when nothing was checked: see the exit status first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CheckSummary {
    /// The number of errors that it found.
    pub num_errors: u64,
}

/// One snapshot, as `snapshots` and the first line of `ls` show it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// 64 digits.
    pub id: String,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// `--host`.
    #[serde(default)]
    pub hostname: String,
    /// `--tag`.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// The snapshot that this one is a re-tagged or copied version of.
    #[serde(default)]
    pub original: Option<String>,
    /// What its making said (0.17).
    #[serde(default)]
    pub summary: Option<SnapshotSummary>,
}

/// The part of a snapshot that is kept of its making.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SnapshotSummary {
    /// Files in it.
    pub total_files_processed: Option<u64>,
    /// The bytes of all of them.
    pub total_bytes_processed: Option<u64>,
}

/// Reads the output of `snapshots --json`.
///
/// # Errors
/// A sentence that says what is wrong with it; a single entry that cannot be read spoils the listing.
pub fn snapshots(output: &[u8]) -> Result<Vec<Snapshot>, String> {
    // An empty repository is `[]`, or `null` in some versions.
    let snapshots: Option<Vec<Snapshot>> = serde_json::from_slice(output)
        .map_err(|error| format!("a list of snapshots that cannot be read: {error}"))?;
    let snapshots = snapshots.unwrap_or_default();
    match snapshots.iter().find(|snapshot| !is_id(&snapshot.id)) {
        Some(bad) => Err(format!("a list of snapshots with {:?} for an id", bad.id)),
        None => Ok(snapshots),
    }
}

/// Whether a text is a whole id, of a snapshot or of another file.
pub fn is_id(text: &str) -> bool {
    is_sha256(text)
}

/// `cat lock ID`, as far as it says whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LockFile {
    /// The machine, as its kernel names it.
    pub hostname: String,
    /// The number of the process that holds it.
    pub pid: i32,
    /// When it was made or last refreshed, which restic does every five minutes.
    pub time: DateTime<Utc>,
}

/// `cat config`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RepositoryConfig {
    /// The repository's own id.
    pub id: String,
}

/// One line of `ls --json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// The first: which snapshot it is.
    Snapshot(String),
    /// A file, directory or other entry.
    Node(Node),
}

/// An entry of a snapshot. Bytes of a name that are not UTF-8 are U+FFFD: restic's JSON has nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// The absolute path in the snapshot.
    pub path: PathBuf,
    /// `file`, `dir`, `symlink`, `dev`, `chardev`, `fifo`, `socket`, `irregular`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes; files only.
    pub size: Option<u64>,
    /// When it was last modified.
    pub mtime: Option<DateTime<Utc>>,
    /// As Go has it; see [`Node::permissions`].
    mode: Option<u32>,
    /// Owner, by number.
    pub uid: Option<u32>,
    /// Group, by number.
    pub gid: Option<u32>,
}

impl Node {
    /// Permission bits as chmod(2) has them, set-id and sticky ones included.
    pub fn permissions(&self) -> Option<u32> {
        // Bits of Go's io/fs.FileMode.
        let special = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
        self.mode.map(|mode| {
            let set = special.iter().filter(|(bit, _)| mode & bit != 0);
            set.fold(mode & 0o777, |mode, (_, bit)| mode | bit)
        })
    }
}

/// Reads one line of `ls --json`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn listed(bytes: &[u8]) -> Result<Listed, String> {
    #[derive(Deserialize)]
    struct Head {
        struct_type: Option<String>,
        message_type: Option<String>,
        id: Option<String>,
    }
    let broken = |error| format!("a line of a listing that cannot be read: {error}");
    let head: Head = serde_json::from_slice(bytes).map_err(broken)?;
    // `struct_type` is in every version so far and called deprecated since `message_type` came.
    match head.message_type.or(head.struct_type).as_deref() {
        Some("snapshot") => {
            head.id.map(Listed::Snapshot).ok_or_else(|| "a listing whose snapshot has no id".into())
        }
        Some("node") => serde_json::from_slice(bytes).map(Listed::Node).map_err(broken),
        other => Err(format!("a line of a listing of the type {other:?}")),
    }
}

/// One line of `diff --json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// A difference: the path and restic's letters for it (`+ - M T U`, several at once).
    Change(PathBuf, String),
    /// The last line.
    End,
}

/// Reads one line of `diff --json`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn compared(bytes: &[u8]) -> Result<Compared, String> {
    #[derive(Deserialize)]
    struct Raw {
        message_type: String,
        path: Option<String>,
        modifier: Option<String>,
    }
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|error| format!("a line of a comparison that cannot be read: {error}"))?;
    match (raw.message_type.as_str(), raw.path, raw.modifier) {
        ("change", Some(path), Some(modifier)) => {
            // A directory ends in a slash there.
            let trimmed = path.trim_end_matches('/');
            let path = if trimmed.is_empty() { "/" } else { trimmed };
            Ok(Compared::Change(path.into(), modifier))
        }
        ("statistics", ..) => Ok(Compared::End),
        (other, ..) => Err(format!("a line of a comparison of the type {other:?}")),
    }
}

/// The space that `prune` says it freed, as restic rounds it: `total prune: 2 blobs / 496 B`.
pub fn pruned(line: &str) -> Option<String> {
    let (_, space) = line.trim().strip_prefix("total prune:")?.split_once(" / ")?;
    Some(space.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_three_versions() {
        let old = br#"{"message_type":"error","error":{"Op":"open","Path":"/f","Err":13},"during":"archival","item":"/f"}"#;
        let new = br#"{"message_type":"error","error":{"message":"open /f: permission denied"},"during":"archival","item":"/f"}"#;
        for (bytes, starts) in [(&old[..], "open /f: Permission denied"), (&new[..], "open /f: p")]
        {
            let Line::Problem(problem) = line(bytes) else { panic!("{bytes:?}") };
            assert!(problem.message.starts_with(starts), "{problem:?}");
            assert_eq!(problem.item.as_deref(), Some("/f"));
            assert!(!problem.vanished && !problem.mute);
        }
        let gone = br#"{"message_type":"error","error":{"Op":"lstat","Path":"/f","Err":2},"during":"archival","item":"/f"}"#;
        assert!(matches!(line(gone), Line::Problem(p) if p.vanished));
        let mute = br#"{"message_type":"error","error":{},"during":"archival","item":"/f"}"#;
        assert!(
            matches!(line(mute), Line::Problem(p) if p.mute && !p.vanished && p.message == "restic did not say why")
        );
        assert_eq!(
            line(b"\x1b[2Ksignal interrupt received, cleaning up"),
            Line::Text("signal interrupt received, cleaning up".into())
        );
        assert_eq!(line(b" "), Line::Empty);
        assert!(matches!(line(b"{broken"), Line::Text(_)));
    }

    #[test]
    fn a_status_with_a_number_beyond_i64_is_read() {
        let bytes = br#"{"message_type":"status","seconds_remaining":9223372036854775808,"percent_done":0,"total_files":1,"bytes_done":18446744073709551615,"current_files":["/stdin"]}"#;
        assert_eq!(
            line(bytes),
            Line::Status(Status {
                bytes_done: Some(u64::MAX),
                current: Some("/stdin".into()),
                ..Status::default()
            })
        );
    }

    #[test]
    fn a_summary_needs_an_id() {
        for bad in [
            r#"{}"#,
            r#"{"snapshot_id":""}"#,
            r#"{"snapshot_id":"latest"}"#,
            r#"{"snapshot_id":7}"#,
        ] {
            assert!(backup_summary(serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listing_with_one_bad_entry_is_an_error() {
        assert_eq!(snapshots(b"null").unwrap(), []);
        assert_eq!(snapshots(b"[]").unwrap(), []);
        assert!(snapshots(b"").is_err());
        assert!(snapshots(br#"[{"id":"00","time":"2026-11-21T02:11:59Z"}]"#).is_err());
        assert!(snapshots(br#"[{"time":"2026-11-21T02:11:59Z"}]"#).is_err());
    }

    #[test]
    fn differences() {
        let read = |text: &str| compared(text.as_bytes());
        assert_eq!(
            read(r#"{"message_type":"change","path":"/tmp/","modifier":"U"}"#),
            Ok(Compared::Change("/tmp".into(), "U".into()))
        );
        assert_eq!(
            read(r#"{"message_type":"change","path":"/","modifier":"U"}"#),
            Ok(Compared::Change("/".into(), "U".into()))
        );
        assert_eq!(read(r#"{"message_type":"statistics","changed_files":1}"#), Ok(Compared::End));
        assert!(read(r#"{"message_type":"change","path":"/x"}"#).is_err());
        assert!(read("error: x").is_err());
    }

    #[test]
    fn the_space_that_prune_freed() {
        assert_eq!(pruned("total prune:           2 blobs / 496 B").as_deref(), Some("496 B"));
        assert_eq!(pruned("remaining:             6 blobs / 1.203 KiB"), None);
    }

    #[test]
    fn permissions_of_a_node() {
        let node = |mode: u32| -> Node {
            serde_json::from_str(&format!(r#"{{"path":"/a","type":"dir","mode":{mode}}}"#)).unwrap()
        };
        // /tmp, as restic 0.14 listed it.
        assert_eq!(node(2_148_532_735).permissions(), Some(0o1777));
        assert_eq!(node(0o644 | 1 << 23).permissions(), Some(0o4644));
    }
}
