//! What an engine laid out in directories of ours, and its way into place.

use std::path::PathBuf;

use crate::model::undo::Identity;

/// A directory of ours that an engine fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Where it is.
    pub path: PathBuf,
    /// What must be there: the path may lie in a directory that somebody else can write to.
    pub identity: Identity,
    /// Which place below the destination it stands for; empty for the destination itself. Moving is within one
    /// file system, so every mount and btrfs subvolume that gets something has a directory of its own.
    pub at: PathBuf,
}

/// Moves what lies in staging directories to the same paths below a destination.
///
/// No link is resolved on the way, and nothing is touched that was not laid out: directories that exist are
/// merged, and each other entry replaces what has its name in one step. So whoever dies in the midst of it
/// leaves the old or the new of every file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The destination.
    pub destination: PathBuf,
    /// What must be there.
    pub identity: Identity,
    /// The staging directories, the destination's own first, each before what lies below its place.
    pub staged: Vec<Staged>,
    /// What the copy itself names, below the destination; empty: everything that was laid out. A directory
    /// above it keeps its owner and mode where it exists, and is taken as it was laid out where it does not.
    pub named: Vec<PathBuf>,
    /// Places below the destination where something else is mounted.
    pub mounted: Vec<PathBuf>,
    /// Of these and of the destination itself (empty), where nothing can be stored, and why. What should lie there
    /// was laid out elsewhere, and is refused for this reason, and directories there keep what they have.
    pub closed: Vec<Refused>,
    /// What is left as it is wherever it is come upon, with all that is in it. Where the copy has a directory at the
    /// name of such a link, that is refused: what is in it has no place then.
    pub in_use: Vec<InUse>,
}

/// Something that must stay what it is while this program runs: a directory that it works in, or a link on the way
/// to one. It is known by what it is, not by its path: mounts and links give it other ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The directory or link.
    pub identity: Identity,
    /// What it is to this program, in words that follow "it is".
    pub what: String,
}

/// What a [`Placement`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// How many entries were moved (a directory that did not exist counts once) or merged.
    pub entries: u64,
    /// What was left as it was, and why; at most the first hundred.
    pub refused: Vec<Refused>,
    /// How many were left in all.
    pub refused_count: u64,
    /// What was left as it was because it is in use, and what it is.
    pub passed_over: Vec<Refused>,
    /// What of [`Placement::named`] is not there afterwards, and is not passed over.
    pub missing: Vec<PathBuf>,
}

/// An entry that was not put into place. What was there before is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its path below the destination.
    pub path: PathBuf,
    /// Why it was left as it was, for a person.
    pub reason: String,
}

/// Keeps a process from writing anywhere but where it is to write.
///
/// It sees every file system read-only, except the directories named here. In the staged ones no symbolic link
/// leads anywhere (`nosymfollow`, Linux 5.10), so a copy that holds a link and something behind it cannot make
/// the engine write elsewhere, not even into the other directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The directories that it fills, with the absolute paths at which it sees them in [`Staged::at`], each
    /// before what is shown below it. The first of these paths must exist.
    pub staged: Vec<Staged>,
    /// What else it may write: its cache and its own memory, a repository on a local disk. What is not there
    /// is left out, and what is read-only to everybody stays so.
    pub writable: Vec<PathBuf>,
}

impl Confinement {
    /// Where the machine itself finds what the process sees at this path.
    pub fn outside(&self, path: &std::path::Path) -> PathBuf {
        let around = self.staged.iter().filter_map(|staged| {
            Some((staged.at.components().count(), staged, path.strip_prefix(&staged.at).ok()?))
        });
        match around.max_by_key(|(depth, ..)| *depth) {
            Some((_, staged, rest)) if rest.as_os_str().is_empty() => staged.path.clone(),
            Some((_, staged, rest)) => staged.path.join(rest),
            None => path.to_owned(),
        }
    }
}
