//! Processes as `/proc` shows them: who they are, which group they are in, and whether they move.
//!
//! A process number alone names nothing, because the kernel uses numbers again: number, start time and boot
//! together do. A group's number stays taken as long as one member lives, even after its leader was reaped.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::model::undo::{CHILD_MARK, ChildProcess};

/// One process, from `/proc/PID/stat` (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its number.
    pub pid: i32,
    /// `R`, `S`, `D`, `T`, `Z` and so on.
    pub state: char,
    /// The number of its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// How many of its threads have not ended.
    pub threads: u64,
    /// Clock ticks that it has spent on a processor, in user and kernel mode.
    pub ticks: u64,
    /// Clock ticks after boot at which it began.
    pub start_time: u64,
}

impl ProcessStat {
    /// Reads the one line of the file.
    ///
    /// # Errors
    /// When it is not in the format of proc(5).
    pub fn parse(line: &str) -> io::Result<Self> {
        Self::fields(line).ok_or_else(|| io::Error::other(format!("not a process stat: {line:?}")))
    }

    /// The name in parentheses may itself hold blanks and parentheses, so the fields after it are counted
    /// from the last closing one.
    fn fields(line: &str) -> Option<Self> {
        let (pid, _) = line.split_once(" (")?;
        let (_, rest) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            threads: number(17)?,
            ticks: number(11)?.saturating_add(number(12)?),
            start_time: number(19)?,
        })
    }

    /// Whether it still runs, which what only waits to be reaped does not. A process whose first thread has
    /// ended while another one is held up in the kernel looks dead by its state alone.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }
}

/// Requires that the kernel tells about processes and mounts, without which nothing here can be known.
///
/// # Errors
/// When it does not; the error names what is missing.
pub fn require_proc() -> io::Result<()> {
    for path in ["/proc/self/status", "/proc/self/mountinfo"] {
        std::fs::File::open(path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("/proc is not usable: cannot open {path}: {error}"),
            )
        })?;
    }
    Ok(())
}

/// Whether the kernel lets us do everything to files, as far as their owner and mode go.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The process of this number; `None` when there is none.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn stat(pid: i32) -> io::Result<Option<ProcessStat>> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(bytes) => ProcessStat::parse(&String::from_utf8_lossy(&bytes)).map(Some),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of a process as `/proc/PID/comm` has it, at most 15 bytes; `None` when there is no such process.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn name(pid: i32) -> io::Result<Option<String>> {
    match std::fs::read(format!("/proc/{pid}/comm")) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All processes that we may see.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> io::Result<Vec<ProcessStat>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(process) = stat(pid)?
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Whether a process of the group still runs.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn group_is_alive(group: i32) -> io::Result<bool> {
    Ok(all()?.iter().any(|process| process.group == group && process.is_alive()))
}

/// Where the kernel gives the boot its name.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The name of this boot, [`BOOT_ID`]: differs after each one.
///
/// # Errors
/// When it cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// What tells a living or unreaped process from any later one of its number; `None` when there is none.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn identify(pid: i32) -> io::Result<Option<ChildProcess>> {
    let Some(process) = stat(pid)? else { return Ok(None) };
    let start_time = process.start_time;
    Ok(Some(ChildProcess { pid, start_time, boot_id: boot_id()?, never_kill: false, mark: None }))
}

/// What runs of a recorded child: itself, and what is in its process group or session.
///
/// The number of a group and of a session stays taken as long as one member lives. So when another process has the
/// child's number, nothing of the child's runs. When nobody has it, there may be members of its group, or those of
/// a later group of that number whose leader has ended too: only the mark in their environment tells them apart.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn survivors(child: &ChildProcess) -> io::Result<Vec<ProcessStat>> {
    if boot_id()? != child.boot_id {
        return Ok(Vec::new());
    }
    let processes = all()?;
    let leader = processes.iter().find(|process| process.pid == child.pid);
    if leader.is_some_and(|leader| leader.start_time != child.start_time) {
        return Ok(Vec::new());
    }
    let is_member = |process: &ProcessStat| {
        (process.group == child.pid || process.session == child.pid)
            && process.start_time >= child.start_time
            && process.is_alive()
    };
    let mut found = Vec::new();
    for process in processes.iter().copied().filter(is_member) {
        if leader.is_some() || is_marked(process.pid, child.mark.as_deref())? {
            found.push(process);
        } else {
            tracing::warn!(
                pid = process.pid,
                "a process may be left of the dead child {}, but nothing proves it, so it is left alone",
                child.pid
            );
        }
    }
    Ok(found)
}

/// Whether a process began with this mark in its environment.
fn is_marked(pid: i32, mark: Option<&str>) -> io::Result<bool> {
    let Some(mark) = mark else { return Ok(false) };
    let wanted = format!("{CHILD_MARK}={mark}");
    match std::fs::read(format!("/proc/{pid}/environ")) {
        Ok(bytes) => Ok(bytes.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())),
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// What the processes of one command have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Time on a processor.
    pub cpu: Duration,
    /// Bytes that went through read and write calls.
    pub bytes: u64,
}

/// The activity of a command: of all in the group of `leader` and all that descend from it (`sudo` gives its
/// child a group of its own).
///
/// # Errors
/// When `/proc` cannot be read.
pub fn activity(leader: i32) -> io::Result<Activity> {
    let processes = all()?;
    let (mut ticks, mut bytes) = (0_u64, 0_u64);
    for pid in family(&processes, leader) {
        let spent = processes.iter().find(|process| process.pid == pid).map_or(0, |p| p.ticks);
        ticks = ticks.saturating_add(spent);
        bytes = bytes.saturating_add(moved_bytes(pid)?);
    }
    let cpu = Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second()?);
    Ok(Activity { cpu, bytes })
}

fn ticks_per_second() -> io::Result<u64> {
    sysconf(SysconfVar::CLK_TCK)?
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .ok_or_else(|| io::Error::other("the length of a clock tick is not known"))
}

/// The numbers of the group and of its descendants.
fn family(processes: &[ProcessStat], leader: i32) -> HashSet<i32> {
    let mut family: HashSet<i32> =
        processes.iter().filter(|p| p.group == leader).map(|p| p.pid).collect();
    loop {
        let before = family.len();
        family.extend(
            processes
                .iter()
                .filter(|p| family.contains(&p.parent))
                .map(|p| p.pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            return family;
        }
    }
}

/// Bytes that went through read and write calls of one process, from `/proc/PID/io`. A process that is gone
/// or that we may not look at counts as nothing; its processor time still counts.
fn moved_bytes(pid: i32) -> io::Result<u64> {
    let text = match std::fs::read_to_string(format!("/proc/{pid}/io")) {
        Ok(text) => text,
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    let counter = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse::<u64>().ok()
    };
    match (counter("rchar:"), counter("wchar:")) {
        (Some(read), Some(written)) => Ok(read.saturating_add(written)),
        _ => Err(io::Error::other(format!("not a process io table: {text:?}"))),
    }
}

/// A process that ends while it is looked at answers ESRCH instead of a missing file.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "4711 (a (b) c d) S 12 4711 4711 0 -1 4194560 150 0 1 0 7 5 0 0 20 0 1 0 98765 2772992 220 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0\n";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        assert_eq!(
            ProcessStat::parse(LINE).unwrap(),
            ProcessStat {
                pid: 4711,
                state: 'S',
                parent: 12,
                group: 4711,
                session: 4711,
                threads: 1,
                ticks: 12,
                start_time: 98765
            }
        );
        assert!(ProcessStat::parse("4711 (sh) S 12").is_err());
    }

    #[test]
    fn what_waits_to_be_reaped_is_dead_once_its_last_thread_is() {
        let with = |state, threads| {
            ProcessStat { state, threads, ..ProcessStat::parse(LINE).unwrap() }.is_alive()
        };
        assert!(with('S', 1) && with('D', 4) && with('Z', 2));
        assert!(!with('Z', 1) && !with('X', 0));
    }

    #[test]
    fn a_family_holds_the_group_and_all_descendants() {
        let process = |pid, parent, group| ProcessStat {
            pid,
            state: 'S',
            parent,
            group,
            session: group,
            threads: 1,
            ticks: 0,
            start_time: 0,
        };
        let all =
            [process(12, 11, 12), process(13, 12, 12), process(10, 1, 10), process(11, 10, 11)];
        assert_eq!(family(&all, 10), HashSet::from([10, 11, 12, 13]));
        assert_eq!(family(&all, 12), HashSet::from([12, 13]));
    }

    #[test]
    fn we_are_alive_and_move() {
        let own = i32::try_from(std::process::id()).unwrap();
        let us = stat(own).unwrap().unwrap();
        assert!(us.is_alive() && group_is_alive(us.group).unwrap());
        assert_eq!(identify(own).unwrap().unwrap().boot_id.len(), 36);
        assert_eq!(stat(i32::MAX).unwrap(), None);
        assert!(name(own).unwrap().is_some_and(|name| !name.is_empty() && !name.contains('\n')));
        assert_eq!(name(i32::MAX).unwrap(), None);
        // Reading is itself activity.
        assert_ne!(activity(us.group).unwrap(), activity(us.group).unwrap());
    }
}
