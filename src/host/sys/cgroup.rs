//! The freezer of control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst, since Linux 5.2).
//!
//! `1` in a group's `cgroup.freeze` stops every process in it and below it, `0` lets them run on, and
//! `cgroup.events` says which of the two is so. A group stays frozen when whoever froze it dies; that is why
//! there is a guard ([`crate::host::guard`]) and an entry in the ledger.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;

use super::{identity_of, process};
use crate::host::ActError;
use crate::model::undo::Identity;

/// How long processes get to stop, or to run on. One that waits for a device or a server stops only when it
/// has its answer.
const WAIT: Duration = Duration::from_secs(5);

/// How often a group that is to change is looked at. It is usually done before the first look.
const POLL: Duration = Duration::from_millis(2);

/// Who must run on while captures are made, by the name in `/proc/PID/comm`, which has at most 15 bytes.
/// lvm2 and device-mapper wait for udev and for each other's daemons, everything of ours that logs waits for
/// the journal, and process 1 answers for all units.
const NEEDED: &[&str] = &[
    "systemd-udevd",
    "udevd",
    "(udev-worker)",
    "dmeventd",
    "lvmpolld",
    "lvmlockd",
    "lvmdbusd",
    "sanlock",
    "dlm_controld",
    "multipathd",
    "systemd-journal",
];

/// Freezes a group. Answers with its identity once all its processes have stopped.
///
/// # Errors
/// [`ActError::NeededAwake`] and [`ActError::AlreadyFrozen`] before anything is done; otherwise the group
/// has been let go again.
pub(in crate::host) fn freeze(group: &Path) -> Result<Identity, ActError> {
    freeze_within(group, WAIT)
}

fn freeze_within(group: &Path, wait: Duration) -> Result<Identity, ActError> {
    let failed = |source| ActError::Io { what: "freeze", path: group.to_owned(), source };
    let identity = identity(group).map_err(failed)?;
    if let Some((pid, process)) = needed_awake(group).map_err(failed)? {
        return Err(ActError::NeededAwake { cgroup: group.to_owned(), process, pid });
    }
    if stands_still(group).map_err(failed)? {
        return Err(ActError::AlreadyFrozen { cgroup: group.to_owned() });
    }
    let frozen = ask(group, true).and_then(|()| becomes(group, true, wait));
    if !matches!(frozen, Ok(true)) {
        // What kept it from freezing is the news, also when this fails: then the ledger still has it.
        let _ = ask(group, false);
    }
    match frozen {
        Ok(true) => Ok(identity),
        Ok(false) => Err(ActError::DoesNotFreeze { cgroup: group.to_owned(), after: wait }),
        Err(error) => Err(failed(error)),
    }
}

/// Lets a group run on. Answers with its identity if it was frozen until now, and with `None` if it was not,
/// if it is gone, or if another one has taken its place.
///
/// # Errors
/// When the kernel refuses, or when its processes do not run on.
pub(in crate::host) fn thaw(
    group: &Path,
    expected: Option<&Identity>,
) -> Result<Option<Identity>, ActError> {
    thaw_within(group, expected, WAIT)
}

fn thaw_within(
    group: &Path,
    expected: Option<&Identity>,
    wait: Duration,
) -> Result<Option<Identity>, ActError> {
    let attempt = || -> io::Result<Option<(Identity, bool, bool)>> {
        let found = identity(group)?;
        if expected.is_some_and(|expected| *expected != found) {
            return Ok(None);
        }
        let was_frozen = is_asked(group)? && is_frozen(group)?;
        ask(group, false)?;
        Ok(Some((found, was_frozen, becomes(group, false, wait)?)))
    };
    match attempt() {
        Ok(Some((found, was_frozen, true))) => Ok(was_frozen.then_some(found)),
        Ok(Some((_, _, false))) => Err(ActError::DoesNotThaw { cgroup: group.to_owned() }),
        Ok(None) => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(ActError::Io { what: "thaw", path: group.to_owned(), source }),
    }
}

/// The file that freezes and thaws a group, open for writing. It stays that group's, whatever takes its name.
///
/// # Errors
/// When there is no such group, or the kernel cannot freeze it.
pub(in crate::host) fn switch(group: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(group.join("cgroup.freeze"))
}

/// Whether the error says that the group is gone; an open file of one says so by `ENODEV`.
pub(in crate::host) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn identity(group: &Path) -> io::Result<Identity> {
    Ok(identity_of(&group.symlink_metadata()?))
}

fn ask(group: &Path, frozen: bool) -> io::Result<()> {
    switch(group)?.write_all(if frozen { b"1" } else { b"0" })
}

/// Whether the group is frozen, or about to be, by whomever.
///
/// # Errors
/// When there is no such group.
pub(in crate::host) fn stands_still(group: &Path) -> io::Result<bool> {
    Ok(is_asked(group)? || is_frozen(group)?)
}

/// Whether the group itself was asked to freeze.
fn is_asked(group: &Path) -> io::Result<bool> {
    let text = fs::read_to_string(group.join("cgroup.freeze"))?;
    flag(text.trim()).ok_or_else(|| io::Error::other(format!("not a cgroup.freeze: {text:?}")))
}

/// Whether all processes of the group stand still, by its own doing or that of a group above it.
fn is_frozen(group: &Path) -> io::Result<bool> {
    frozen_in(&fs::read_to_string(group.join("cgroup.events"))?)
}

/// Reads the line `frozen` of a `cgroup.events`.
fn frozen_in(events: &str) -> io::Result<bool> {
    events
        .lines()
        .find_map(|line| line.strip_prefix("frozen "))
        .and_then(flag)
        .ok_or_else(|| io::Error::other(format!("no \"frozen\" in cgroup.events: {events:?}")))
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// Waits until the group is as it was asked to be. Answers whether it is.
fn becomes(group: &Path, frozen: bool, wait: Duration) -> io::Result<bool> {
    let asked = Instant::now();
    loop {
        if is_frozen(group)? == frozen {
            return Ok(true);
        }
        if asked.elapsed() >= wait {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
}

/// The first process in the group, or below it, that must not stand still while captures are made.
fn needed_awake(group: &Path) -> io::Result<Option<(i32, String)>> {
    let own = std::process::id().cast_signed();
    let mut open = vec![group.to_owned()];
    while let Some(directory) = open.pop() {
        let members = match members(&directory) {
            Ok(members) => members,
            Err(error) if directory != group && is_gone(&error) => continue,
            // The processes of a threaded group are listed in the first group above it that is none.
            Err(error) if directory != group && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        for pid in members {
            let Some(name) = process::name(pid)? else { continue };
            if pid == own || pid == 1 || NEEDED.contains(&name.as_str()) {
                return Ok(Some((pid, name)));
            }
        }
        open.extend(children(&directory)?);
    }
    Ok(None)
}

/// The processes in the group itself. The kernel writes 0 for those that our process namespace hides.
fn members(group: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let pids: Option<Vec<i32>> = text.lines().map(|line| line.parse().ok()).collect();
    let pids = pids.ok_or_else(|| io::Error::other(format!("not a cgroup.procs: {text:?}")))?;
    Ok(pids.into_iter().filter(|pid| *pid != 0).collect())
}

fn children(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.push(entry.path()),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A directory that looks like a group, whose `cgroup.events` says what the test lets it say.
    fn group(asked: &str, frozen: &str, procs: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), asked, frozen, procs);
        dir
    }

    fn fill(dir: &Path, asked: &str, frozen: &str, procs: &str) {
        fs::write(dir.join("cgroup.freeze"), format!("{asked}\n")).unwrap();
        fs::write(dir.join("cgroup.events"), format!("populated 1\nfrozen {frozen}\n")).unwrap();
        fs::write(dir.join("cgroup.procs"), procs).unwrap();
    }

    fn asked(dir: &Path) -> bool {
        fs::read_to_string(dir.join("cgroup.freeze")).unwrap().starts_with('1')
    }

    /// Does what the kernel would do, until dropped.
    struct Kernel(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

    impl Kernel {
        fn over(dir: &Path) -> Self {
            let (stop, dir) = (Arc::new(AtomicBool::new(false)), dir.to_owned());
            let stopped = Arc::clone(&stop);
            let thread = std::thread::spawn(move || {
                while !stopped.load(Ordering::SeqCst) {
                    let text = format!("populated 1\nfrozen {}\n", u8::from(asked(&dir)));
                    fs::write(dir.join("new"), text).unwrap();
                    fs::rename(dir.join("new"), dir.join("cgroup.events")).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            Self(stop, Some(thread))
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            self.1.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn a_group_freezes_and_thaws_once() {
        let dir = group("0", "0", "");
        let _kernel = Kernel::over(dir.path());
        let identity = freeze(dir.path()).unwrap();
        assert!(asked(dir.path()));
        let stranger = Identity::Inode { device: 1, inode: 1 };
        assert_eq!(thaw(dir.path(), Some(&stranger)).unwrap(), None);
        assert!(asked(dir.path()), "another group was thawed");
        assert_eq!(thaw(dir.path(), Some(&identity)).unwrap(), Some(identity.clone()));
        assert!(!asked(dir.path()));
        assert_eq!(thaw(dir.path(), Some(&identity)).unwrap(), None, "it was thawed before");
        assert_eq!(thaw(&dir.path().join("gone"), Some(&identity)).unwrap(), None);
    }

    #[test]
    fn what_does_not_freeze_is_let_go_again() {
        let dir = group("0", "0", "");
        let error = freeze_within(dir.path(), Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, ActError::DoesNotFreeze { .. }), "{error}");
        assert!(!asked(dir.path()));
    }

    #[test]
    fn what_does_not_thaw_is_an_error() {
        let dir = group("1", "1", "");
        let error = thaw_within(dir.path(), None, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, ActError::DoesNotThaw { .. }), "{error}");
    }

    #[test]
    fn what_somebody_else_froze_is_left_alone() {
        // By the group itself, or by a group above it.
        for (own, frozen) in [("1", "1"), ("1", "0"), ("0", "1")] {
            let dir = group(own, frozen, "");
            let error = freeze(dir.path()).unwrap_err();
            assert!(matches!(error, ActError::AlreadyFrozen { .. }), "{error}");
            assert_eq!(asked(dir.path()), own == "1");
        }
    }

    #[test]
    fn a_group_with_us_or_with_process_1_does_not_freeze() {
        let own = std::process::id();
        for pid in [own, 1] {
            let dir = group("0", "0", "0\n");
            let below = dir.path().join("a/b");
            fs::create_dir_all(&below).unwrap();
            fill(&dir.path().join("a"), "0", "0", "");
            fill(&below, "0", "0", &format!("0\n{pid}\n"));
            match freeze(dir.path()).unwrap_err() {
                ActError::NeededAwake { pid: found, process, .. } => {
                    assert_eq!(found, pid.cast_signed());
                    assert!(!process.is_empty());
                }
                other => panic!("{other}"),
            }
            assert!(!asked(dir.path()));
        }
    }

    #[test]
    fn the_names_of_those_that_are_needed_are_as_long_as_the_kernel_keeps_them() {
        assert!(NEEDED.iter().all(|name| name.len() <= 15));
    }

    #[test]
    fn what_is_not_of_the_format_is_an_error() {
        assert!(frozen_in("populated 1\nfrozen 1\n").unwrap());
        assert!(!frozen_in("populated 1\nfrozen 0\n").unwrap());
        for text in ["", "populated 1\n", "frozen\n", "frozen 2\n", "unfrozen 1\n"] {
            assert!(frozen_in(text).is_err(), "{text:?}");
        }
        let dir = group("yes", "0", "");
        assert!(is_asked(dir.path()).is_err());
        let dir = group("0", "0", "12\nx\n");
        assert!(members(dir.path()).is_err());
        let dir = group("0", "0", "0\n2147483647\n");
        assert_eq!(members(dir.path()).unwrap(), [i32::MAX]);
        assert_eq!(needed_awake(dir.path()).unwrap(), None, "a process that is gone");
    }
}
