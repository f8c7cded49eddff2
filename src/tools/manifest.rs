//! What a copy holds, down to the content of its files, as a process of ours tells it in an order in which another one
//! walks over what was sent as it: so two trees of any size are compared by walking both once, and one of them may be on
//! another machine.
//!
//! Every hash begins with a number that whoever compares has drawn for this once. So whoever tells what a copy holds has
//! what was hashed at hand now, in the copy or elsewhere: what it was told or has noted before does not help it. Names,
//! sizes and the like are what it says. That the copy holds it, only a restore proves.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::{CommandSpec, PrivateView, Tool};
use crate::model::bytes;
use crate::model::hash::fnv;

/// The verb of ours that describes a copy.
pub const DESCRIBE: &str = "describe-tree";

/// The verb of ours that compares what was sent with what the other one tells of a copy.
pub const COMPARE: &str = "compare-tree";

/// Of which files the content is read, and what every hash begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The share of the files, in percent.
    pub share: f64,
    /// Drawn by whoever compares, anew each time.
    pub seed: u64,
}

impl Sample {
    /// Whether the content of a file is read.
    pub fn has(&self, path: &Path) -> bool {
        /// As fine as a share is told.
        const PARTS: u64 = 1_000_000;
        let mut bytes = self.seed.to_be_bytes().to_vec();
        bytes.extend(path.as_os_str().as_bytes());
        // The last bytes of the path reach the low bits alone.
        let mixed = fnv(&bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((mixed % PARTS) as f64) < self.share / 100.0 * PARTS as f64
    }

    fn words(&self) -> [String; 4] {
        let share = self.share.clamp(0.0, 100.0).to_string();
        ["--share".to_owned(), share, "--seed".to_owned(), self.seed.to_string()]
    }
}

/// An entry of a tree. The order of the entries is that of their paths, name by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its path below the root of the tree; empty: the root itself.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// `-` file, `d` directory, `l` link, `p` pipe, `s` socket, `b` and `c` devices.
    pub kind: char,
    /// Permission bits, set-id and sticky ones included.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// When it was last modified, in seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
    /// Bytes of a file.
    pub size: Option<u64>,
    /// The number of the device that it is.
    pub device: Option<u64>,
    /// Where a symbolic link leads.
    #[serde(with = "bytes::exact")]
    pub target: PathBuf,
    /// The first path at which the same file was met; empty for one that was not met before.
    #[serde(with = "bytes::exact")]
    pub same_as: PathBuf,
    /// SHA-256 of the seed and all its extended attributes; `None`: it has none.
    pub attributes: Option<String>,
    /// SHA-256 of the seed and its content, where that was read.
    pub content: Option<String>,
}

impl Described {
    /// Whether it is a file that was not met by another name before.
    pub fn has_content(&self) -> bool {
        self.kind == '-' && self.same_as.as_os_str().is_empty()
    }
}

/// A line of a description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// An entry.
    Is(Described),
    /// One that cannot be looked at, or whose content cannot be read. What is in it is not told.
    Unreadable(Difference),
}

impl Told {
    /// Which path it is about.
    pub fn path(&self) -> &Path {
        match self {
            Told::Is(entry) => &entry.path,
            Told::Unreadable(entry) => &entry.path,
        }
    }
}

/// How a path differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path below the roots.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// In what, in words.
    pub what: String,
}

/// What a comparison says last. Without this it has not come to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Entries that were compared.
    pub entries: u64,
    /// Files whose content was compared.
    pub contents: u64,
    /// Paths that differ.
    pub differing: u64,
}

/// A line of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A path that differs; of many, the first ones.
    Differs(Difference),
    /// The end.
    Compared(Summary),
    /// The end, for what was sent cannot be read; why.
    NoSource(String),
}

/// Describes a copy.
pub fn describe(root: &Path, sample: Sample, stall_limit: Duration) -> CommandSpec {
    let spec = CommandSpec::lines(Tool::Own, stall_limit).arg(DESCRIBE);
    spec.args(sample.words()).arg("--").arg(root)
}

/// Compares what was sent with the copy that is described on standard input.
pub fn compare(
    source: &Path,
    view: PrivateView,
    sample: Sample,
    stall_limit: Duration,
) -> CommandSpec {
    let spec = CommandSpec::lines(Tool::Own, stall_limit).arg(COMPARE);
    let spec = spec.args(sample.words()).arg("--").arg(source);
    CommandSpec { view, ..spec }
}

/// How the same path differs in two trees; `None` when it does not.
///
/// The time of the root does not count: whatever is new is received in it first, under a name of its own, and where that
/// is all that happens to the root, `btrfs send` tells no time of it.
pub fn differs(source: &Described, copy: &Described) -> Option<String> {
    if source.kind != copy.kind {
        return Some(format!("kind ({} and {})", source.kind, copy.kind));
    }
    let mut what = Vec::new();
    let mut note = |differs: bool, name: &'static str| what.extend(differs.then_some(name));
    note(source.mode != copy.mode, "mode");
    note((source.uid, source.gid) != (copy.uid, copy.gid), "owner");
    let is_root = source.path.as_os_str().is_empty();
    note(source.modified != copy.modified && !is_root, "time");
    note(source.size != copy.size, "size");
    note(source.device != copy.device, "device number");
    note(source.target != copy.target, "target of the link");
    note(source.same_as != copy.same_as, "hard links");
    note(source.attributes != copy.attributes, "extended attributes");
    note(source.content != copy.content, "content");
    (!what.is_empty()).then(|| what.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> Described {
        Described {
            path: "a".into(),
            kind: '-',
            mode: 0o644,
            uid: 1,
            gid: 2,
            modified: (3, 4),
            size: Some(5),
            device: None,
            target: PathBuf::new(),
            same_as: PathBuf::new(),
            attributes: None,
            content: Some("x".into()),
        }
    }

    #[test]
    fn every_part_of_an_entry_counts() {
        let one = described();
        assert_eq!(differs(&one, &one), None);
        let others = [
            ("kind (- and d)", Described { kind: 'd', ..described() }),
            ("mode", Described { mode: 0o600, ..described() }),
            ("owner", Described { uid: 9, ..described() }),
            ("owner", Described { gid: 9, ..described() }),
            ("time", Described { modified: (3, 5), ..described() }),
            ("size", Described { size: None, ..described() }),
            ("device number", Described { device: Some(1), ..described() }),
            ("target of the link", Described { target: "b".into(), ..described() }),
            ("hard links", Described { same_as: "b".into(), ..described() }),
            ("extended attributes", Described { attributes: Some("y".into()), ..described() }),
            ("content", Described { content: None, ..described() }),
        ];
        for (what, other) in others {
            assert_eq!(differs(&one, &other).as_deref(), Some(what));
        }
        let root = Described { path: PathBuf::new(), kind: 'd', ..described() };
        assert_eq!(differs(&root, &Described { modified: (3, 5), ..root.clone() }), None);
        let other = Described { modified: (3, 5), mode: 0o600, ..root.clone() };
        assert_eq!(differs(&root, &other).as_deref(), Some("mode"));
    }

    #[test]
    fn lines_are_written_and_read_back() {
        let unreadable = Difference { path: "b".into(), what: "x".into() };
        for told in [Told::Is(described()), Told::Unreadable(unreadable)] {
            let written = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Told>(&written).unwrap(), told);
        }
        let (sample, limit) = (Sample { share: 5.0, seed: 7 }, Duration::from_secs(60));
        let spec = describe(Path::new("/srv/-x"), sample, limit);
        assert_eq!(spec.display(), "stillpoint describe-tree --share 5 --seed 7 -- /srv/-x");
        let spec = compare(Path::new("/srv/-x"), PrivateView::default(), sample, limit);
        assert_eq!(spec.display(), "stillpoint compare-tree --share 5 --seed 7 -- /srv/-x");
    }

    #[test]
    fn a_share_of_the_files_is_chosen_and_another_one_by_another_seed() {
        let of = |share: f64, seed: u64| -> Vec<u32> {
            let sample = Sample { share, seed };
            (0..10_000).filter(|n| sample.has(Path::new(&format!("d/{n}")))).collect()
        };
        assert_eq!((of(100.0, 1).len(), of(0.0, 1).len()), (10_000, 0));
        let (one, other) = (of(5.0, 1), of(5.0, 2));
        assert!((350..650).contains(&one.len()), "{}", one.len());
        assert_ne!(one, other);
    }
}
