//! Objects in which streams are stored, as a process of ours reads, passes on or writes them: it tells how long each was
//! and what its hash is.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::host::{CommandSpec, Effect, Tool};
use crate::model::hash::hex;
use crate::tools::told;

/// The verb of ours that passes an object on.
pub const VERB: &str = "pass-object";

/// Where an object comes from.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// Whoever stands before it in a chain.
    Before,
    /// A file.
    File(&'a Path),
    /// A stage that stands before it and passes on one part after the other, of which it takes the next. See [`ShareEnd`].
    Share,
}

/// Where it goes.
#[derive(Debug, Clone, Copy)]
pub enum To<'a> {
    /// The next of a chain.
    Next,
    /// A new file, which is on the disk when the process ends well.
    File(&'a Path),
    /// Nobody: it is read for its own sake.
    Nobody,
}

/// Passes an object on.
pub fn pass(from: From<'_>, to: To<'_>, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::lines(Tool::Own, stall_limit).arg(VERB);
    spec = match from {
        From::Before => spec,
        From::Share => spec.arg("--share"),
        From::File(path) => spec.arg("--from").arg(path),
    };
    match to {
        To::Next => spec,
        To::Nobody => spec.arg("--to-nobody"),
        To::File(path) => {
            spec.effect = Effect::Mutate;
            spec.arg("--to").arg(path)
        }
    }
}

/// Has it tell nothing of what went by, but how a share ended: another one behind it tells what becomes of that.
pub fn untold(pass: CommandSpec) -> CommandSpec {
    pass.arg("--untold")
}

/// What went by, as the verb tells it on its standard error, in a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut digesting = Digesting::default();
        digesting.take(bytes);
        digesting.finish()
    }

    /// The last that was told.
    pub fn last(stderr: &[u8]) -> Option<Digest> {
        told::last(stderr)
    }
}

/// How a share of a stream ended, as whoever took it tells on its standard error, in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareEnd {
    /// The word that stands at its end, when another one follows; `None`: it was the last.
    pub share_ends: Option<String>,
}

impl ShareEnd {
    /// The last that was told.
    pub fn last(stderr: &[u8]) -> Option<ShareEnd> {
        told::last(stderr)
    }
}

/// Takes what goes by.
#[derive(Debug, Default)]
pub struct Digesting {
    bytes: u64,
    hash: Sha256,
}

impl Digesting {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// What it was.
    pub fn finish(self) -> Digest {
        Digest { bytes: self.bytes, sha256: hex(&self.hash.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let limit = Duration::from_secs(60);
        let at = Path::new("/mnt/-x");
        let stored = pass(From::Before, To::File(at), limit);
        assert_eq!(stored.display(), "stillpoint pass-object --to /mnt/-x");
        assert_eq!(stored.effect, Effect::Mutate);
        let read = pass(From::File(at), To::Next, limit);
        assert_eq!(read.display(), "stillpoint pass-object --from /mnt/-x");
        assert_eq!(read.effect, Effect::Inspect);
        let shared = pass(From::Share, To::File(at), limit);
        assert_eq!(shared.display(), "stillpoint pass-object --share --to /mnt/-x");
        let untold = untold(pass(From::Share, To::Next, limit));
        assert_eq!(untold.display(), "stillpoint pass-object --share --untold");
    }

    #[test]
    fn what_went_by_is_told_among_other_lines() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.bytes, 3);
        let line = serde_json::to_string(&digest).unwrap();
        let all = format!("{{\"bytes\":3,\"whole\":true}}\n{line}\nerror: no\n");
        assert_eq!(Digest::last(all.as_bytes()), Some(digest));
        assert_eq!(Digest::last(b"error: no"), None);
        for share_ends in [None, Some("0:7:x".to_owned())] {
            let end = ShareEnd { share_ends };
            let all = format!("{}\n{line}\n", serde_json::to_string(&end).unwrap());
            assert_eq!(ShareEnd::last(all.as_bytes()), Some(end));
        }
        assert_eq!(ShareEnd::last(line.as_bytes()), None);
    }
}
