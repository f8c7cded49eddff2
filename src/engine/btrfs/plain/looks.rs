//! What programs of another machine tell of subvolumes there.
//!
//! When one was changed last stands at the head of what is sent of it, and Linux sends nothing of a subvolume in which
//! something is deduplicated, nor, before 5.17, while a balance runs: it says so, or waits. That keeps nobody from the copies,
//! only from taking one for what it was to the last byte.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::place::{Place, UNTOLD, unfit};
use super::line::{Asked, unread};
use super::{Depth, GONE, Plain};
use crate::engine::EngineError;
use crate::host::{ActError, CommandSpec, RunError, Subvolume};
use crate::model::shown::Show;
use crate::tools::btrfs::{command, shown};
use crate::tools::coreutils;

/// How long nothing may be heard of a look that sends: the head of a stream is made at once.
const HEAD_WITHIN: Duration = Duration::from_secs(2 * 60);

/// How often it is asked for, and how long is waited in between.
const TIMES: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(2);

/// What the kernel says when something else works on the subvolume.
const NOT_NOW: &str = ": Resource temporarily unavailable";

/// A line of whatever [`shown::show`] prints.
const OF_SHOW: &str = "\tUUID:";

/// The oldest versions that can be relied on: btrfs-progs tell of what was received as which generation, and Linux tells
/// whoever flushes a file system of all data that could not be written.
const PROGS: (u32, u32) = (5, 7);
const LINUX: (u32, u32) = (5, 8);

/// Where the kernel says its release.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

impl Plain<'_> {
    /// The subvolumes in a directory, as they were listed.
    pub(super) fn roots(
        &self,
        directory: &Path,
        printed: &[u8],
    ) -> Result<BTreeSet<PathBuf>, EngineError> {
        let listed = coreutils::listed(printed).ok_or_else(|| unread("find", printed))?;
        let roots = listed.into_iter().filter(|it| it.is_subvolume);
        let gone = self.predicted(GONE);
        let paths = roots.map(|it| directory.join(it.name));
        Ok(paths.filter(|path| !gone.contains(path)).collect())
    }

    /// Whether there is a subvolume at a path.
    fn is_root(&self, path: &Path) -> Result<bool, EngineError> {
        let directory = path.parent().unwrap_or(path);
        let printed = self.line.ask_what_may_be_missing(coreutils::list(directory))?;
        Ok(self.roots(directory, &printed)?.contains(path))
    }

    /// The subvolumes at paths; `None` where there is none.
    pub(super) fn look_at(
        &self,
        at: &[PathBuf],
        depth: Depth,
    ) -> Result<Vec<Option<Subvolume>>, EngineError> {
        if at.is_empty() {
            return Ok(Vec::new());
        }
        let btrfs = self.btrfs();
        // What another program received may lie deeper.
        let parents: BTreeSet<&Path> = at.iter().filter_map(|path| path.parent()).collect();
        let lists = parents.iter().map(|parent| coreutils::list(parent));
        let shows = at.iter().map(|path| shown::show(&btrfs, path));
        let heads = at.iter().map(|path| head(self, path)).filter(|_| depth == Depth::Change);
        let without: Vec<CommandSpec> = lists.chain(shows).collect();
        let with: Vec<CommandSpec> = without.iter().cloned().chain(heads).collect();
        let Asked { answers, is_whole } = match self.line.ask_all(&with) {
            // It waits for something, and so would each of them.
            Err(EngineError::Run(RunError::Stalled { .. })) if depth == Depth::Change => {
                return self.look_at(at, Depth::Identity);
            }
            asked => asked?,
        };
        let (lists, told) = answers.split_at(parents.len().min(answers.len()));
        let (shows, heads) = told.split_at(at.len().min(told.len()));
        let mut roots = BTreeSet::new();
        for (parent, listed) in parents.iter().zip(lists) {
            // What failed halfway may have printed half of what there is.
            let listed = match listed.clone().filter(|_| is_whole) {
                Some(listed) => listed,
                None => self.line.ask_what_may_be_missing(coreutils::list(parent))?,
            };
            roots.extend(self.roots(parent, &listed)?);
        }
        let found = at.iter().enumerate().map(|(n, path)| {
            if !roots.contains(path) {
                return Ok(None);
            }
            let told = |told: &'_ [Option<Vec<u8>>]| told.get(n).cloned().flatten();
            match self.subvolume(path, told(shows), told(heads), depth) {
                Ok(found) => Ok(Some(found)),
                // Somebody has deleted it meanwhile.
                Err(_) if !self.is_root(path)? => Ok(None),
                Err(error) => Err(error),
            }
        });
        found.collect()
    }

    /// What a subvolume is that was listed, by what was told of it, if it was.
    fn subvolume(
        &self,
        path: &Path,
        told: Option<Vec<u8>>,
        head: Option<Vec<u8>>,
        depth: Depth,
    ) -> Result<Subvolume, EngineError> {
        let shown = match told.as_deref().and_then(shown::shown) {
            Some(shown) => shown,
            None => {
                let printed = self.line.ask(shown::show(&self.btrfs(), path))?;
                shown::shown(&printed).ok_or_else(|| unread_show(&printed))?
            }
        };
        let changed = match head.map(|head| shown::generation(&head)) {
            _ if !shown.read_only || depth == Depth::Identity => UNTOLD,
            Some(Ok(changed)) => changed,
            Some(Err(_)) | None => self.changed(path)?,
        };
        Ok(Subvolume { changed, ..shown })
    }

    /// In which generation one was changed last; [`UNTOLD`] while something keeps it from being told.
    fn changed(&self, path: &Path) -> Result<u64, EngineError> {
        for left in (0..TIMES).rev() {
            match self.line.ask(head(self, path)) {
                Ok(stream) => {
                    let what = |error| format!("what it sends of {}: {error}", path.shown());
                    return shown::generation(&stream).map_err(|error| EngineError::Output {
                        engine: "btrfs",
                        what: what(error),
                    });
                }
                Err(EngineError::Run(RunError::Stalled { .. })) => break,
                Err(EngineError::Failed { detail, .. })
                    if detail.lines().any(|line| line.ends_with(NOT_NOW)) =>
                {
                    if left > 0 {
                        self.line.cx.host.pause(BETWEEN);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        tracing::warn!(
            "something else works on {} there, so whether it was changed is not known now",
            path.shown()
        );
        Ok(UNTOLD)
    }

    pub(super) fn is_still(&self, path: &Path, found: &Subvolume) -> Result<bool, EngineError> {
        let there = self.look_at(&[path.to_owned()], Depth::Identity)?.pop().flatten();
        Ok(there.is_some_and(|there| there.uuid == found.uuid && there.id == found.id))
    }

    /// Refuses what is not what was found. What a dry run only predicts has no number, and is nowhere.
    pub(super) fn require_still(&self, path: &Path, found: &Subvolume) -> Result<(), EngineError> {
        match found.id.is_none() || self.is_still(path, found)? {
            true => Ok(()),
            false => Err(ActError::NotOurs { path: path.to_owned() }.into()),
        }
    }

    /// Refuses a machine whose programs or kernel do not tell what must be known.
    pub(super) fn refuse_old(&self) -> Result<(), EngineError> {
        let version = command::version(&self.btrfs());
        let release = coreutils::print(Path::new(RELEASE));
        self.line.ask_ahead(&[version.clone(), release.clone()])?;
        let printed = self.line.ask(version)?;
        let progs = command::parse_version(&String::from_utf8_lossy(&printed))
            .ok_or_else(|| unread("btrfs", &printed))?;
        let printed = self.line.ask(release)?;
        let linux = linux(&printed).ok_or_else(|| unread("cat", &printed))?;
        refuse("btrfs-progs", progs, PROGS)?;
        refuse("Linux", linux, LINUX)
    }
}

fn head(plain: &Plain<'_>, path: &Path) -> CommandSpec {
    let mut head = shown::send_head(&plain.btrfs(), path);
    head.stall_limit = Some(HEAD_WITHIN.min(plain.line.target.stall_timeout));
    head
}

fn refuse(what: &str, found: (u32, u32), needed: (u32, u32)) -> Result<(), EngineError> {
    match found >= needed {
        true => Ok(()),
        false => Err(unfit(format!(
            "there is {what} {}.{} there, and {}.{} or later is needed",
            found.0, found.1, needed.0, needed.1
        ))),
    }
}

/// Reads a release of Linux, such as `6.1.0-18-amd64`.
fn linux(printed: &[u8]) -> Option<(u32, u32)> {
    let text = str::from_utf8(printed).ok()?.trim();
    let mut parts = text.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// That what is told of a subvolume cannot be read.
fn unread_show(printed: &[u8]) -> EngineError {
    let told = String::from_utf8_lossy(printed);
    match told.lines().any(|line| line.starts_with(OF_SHOW)) {
        true => unfit(format!(
            "btrfs-progs there do not tell what those of {}.{} or later tell of a subvolume",
            PROGS.0, PROGS.1
        )),
        false => unread("btrfs", printed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_linux() {
        for (printed, expected) in [
            (&b"6.1.0-18-amd64\n"[..], Some((6, 1))),
            (b"5.10-rc1\n", Some((5, 10))),
            (b"4.4.302+\n", Some((4, 4))),
            (b"hello\n", None),
            (b"6\n", None),
        ] {
            assert_eq!(linux(printed), expected);
        }
        assert!(refuse("Linux", (5, 8), LINUX).is_ok());
        let error = refuse("btrfs-progs", (5, 4), PROGS).unwrap_err().to_string();
        assert!(
            error.contains("there is btrfs-progs 5.4 there, and 5.7 or later is needed"),
            "{error}"
        );
    }

    #[test]
    fn what_older_programs_tell_is_no_greeting() {
        let of_old = b"home\n\tName: \t\thome\n\tUUID: \t\tx\n";
        assert!(unread_show(of_old).to_string().contains("of 5.7 or later"));
        assert!(unread_show(b"hello\n").to_string().contains("a greeting"));
    }
}
