//! What tells that a file system of another machine may have lost what was written to it.
//!
//! Of data that could not be written, Linux tells whoever flushes the file system first and nobody after him, so that
//! somebody else may have been told what was ours to hear. A machine or a file system that was started anew knows of
//! nothing. So it is also asked what stays: the name of the boot, the number of the mount, and how often devices failed.

use std::collections::BTreeMap;
use std::path::Path;

use super::line::{Line, unread};
use crate::engine::EngineError;
use crate::host::sys::process::BOOT_ID;
use crate::host::{CommandSpec, Tool};
use crate::model::shown::Show;
use crate::tools::btrfs::command::parse_uuid;
use crate::tools::btrfs::shown;
use crate::tools::coreutils::{self, FileSystem};

/// Where the kernel has a directory for each btrfs that is mounted, by its UUID. It has another inode after each mount.
const MOUNTED: &str = "/sys/fs/btrfs";

/// How a file system stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    boot: Vec<u8>,
    mount: u64,
    failures: BTreeMap<String, u64>,
}

impl Standing {
    /// What is asked for it.
    pub fn questions(btrfs: &Tool, directory: &Path) -> [CommandSpec; 4] {
        [
            coreutils::print(Path::new(BOOT_ID)),
            coreutils::file_system(directory),
            coreutils::list(Path::new(MOUNTED)),
            shown::failures(btrfs, directory),
        ]
    }

    /// How the file system of a directory stands now. What it is asked of is a btrfs, if this can be told.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn now(line: &Line<'_>, btrfs: &Tool, directory: &Path) -> Result<Self, EngineError> {
        let [boot, file_system, mounted, failures] = Self::questions(btrfs, directory);
        let boot = line.ask(boot)?;
        let printed = line.ask(file_system)?;
        let file_system = FileSystem::parse(&printed).ok_or_else(|| unread("stat", &printed))?;
        let printed = line.ask(mounted)?;
        let listed = coreutils::listed(&printed).ok_or_else(|| unread("find", &printed))?;
        let is_it = |name: &std::ffi::OsStr| {
            name.to_str().and_then(parse_uuid).is_some_and(|uuid| file_system.is_of(uuid))
        };
        let mount = listed.into_iter().find(|it| is_it(&it.name)).map(|it| it.inode);
        let mount = mount.ok_or_else(|| {
            let directory = directory.shown();
            line.not_so(format!("the file system of {directory} is not in {MOUNTED} there, so nobody would be told that it was mounted anew"))
        })?;
        let printed = line.ask(failures)?;
        let failures = shown::failed(&printed).ok_or_else(|| unread("btrfs", &printed))?;
        Ok(Self { boot, mount, failures })
    }

    /// Why what was written since an earlier moment may be lost, if it may.
    pub fn doubts_since(&self, before: &Self) -> Option<String> {
        if self.boot != before.boot {
            return Some("that machine was started anew".into());
        }
        if self.mount != before.mount {
            return Some("its file system was mounted anew".into());
        }
        let failed = |(what, count): (&String, &u64)| {
            format!("{what} was {} and is {count}", before.failures.get(what).unwrap_or(&0))
        };
        let mut failed = self
            .failures
            .iter()
            .filter(|(what, count)| before.failures.get(*what) != Some(count))
            .map(failed);
        let gone = before.failures.keys().find(|what| !self.failures.contains_key(*what));
        let device = failed.next().or_else(|| gone.map(|what| format!("{what} is gone")));
        device
            .map(|device| format!("a device of its file system could not be written to ({device})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_flush_doubtful() {
        let failures = |all: &[(&str, u64)]| {
            all.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
        };
        let before = Standing {
            boot: b"a\n".into(),
            mount: 7,
            failures: failures(&[("[/dev/a].write_io_errs", 3), ("[/dev/b].write_io_errs", 0)]),
        };
        assert_eq!(before.doubts_since(&before), None);
        let doubts = |now: Standing| now.doubts_since(&before).unwrap();
        let anew = doubts(Standing { boot: b"b\n".into(), ..before.clone() });
        assert!(anew.contains("started anew"), "{anew}");
        let anew = doubts(Standing { mount: 8, ..before.clone() });
        assert!(anew.contains("mounted anew"), "{anew}");
        for (now, told) in [
            (
                vec![("[/dev/a].write_io_errs", 3), ("[/dev/b].write_io_errs", 2)],
                "[/dev/b].write_io_errs was 0 and is 2",
            ),
            // Somebody has set it back, and what failed meanwhile is not known.
            (
                vec![("[/dev/a].write_io_errs", 0), ("[/dev/b].write_io_errs", 0)],
                "[/dev/a].write_io_errs was 3 and is 0",
            ),
            (vec![("[/dev/a].write_io_errs", 3)], "[/dev/b].write_io_errs is gone"),
        ] {
            let told_now = doubts(Standing { failures: failures(&now), ..before.clone() });
            assert!(told_now.contains(told), "{told_now}");
        }
    }
}
