//! Mutations of the machine that are not processes.
//!
//! Whatever is removed or signalled is first looked at again, because the record of it may be older than the
//! machine: the identity decides, never the name or the number. What is already gone counts as done.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use crate::host::sys::received::Watched;
use crate::host::sys::{
    cgroup, identity_of, is_identical, mounts, place, process, received, shown, snapshots, straight,
};
use crate::host::{ActError, Action, SubvolumeAction};
use crate::model::undo::{ChildProcess, Identity};

/// How long a group gets to vanish after SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How long a process that must not be killed gets to end by itself.
const NEVER_KILL_WAIT: Duration = Duration::from_secs(120);

/// How often a dead process is looked at that whoever inherited it has to reap: five seconds long. Looks are
/// counted rather than time, because a machine that stands still reaps nothing meanwhile.
const REAP_LOOKS: u32 = 100;

/// How often a process that is to end is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Carries out one action; see [`crate::host::Host::act`].
pub(super) fn carry_out(action: &Action, watched: &Watched) -> Result<Option<Identity>, ActError> {
    match action {
        Action::CreateDirectory { path, mode } => {
            create_directory(path, *mode).map(Some).map_err(failed("create", path))
        }
        Action::EnsureDirectory { path, mode } => {
            ensure_directory(path, *mode).map_err(failed("create", path))
        }
        Action::ReplaceFile { path, mode, content } => {
            replace_file(path, *mode, content).map(Some).map_err(failed("replace", path))
        }
        Action::RemoveStaging { path, identity } => {
            remove_staging(path, identity.as_ref()).map(|()| None)
        }
        Action::RemoveFile { path } => {
            remove_file(path).map(|()| None).map_err(failed("remove", path))
        }
        Action::Remount { path, device, read_only } => mounts::remount(path, *device, *read_only)
            .map(|()| None)
            .map_err(failed("remount", path)),
        Action::Subvolume(action) => carry_out_on_subvolume(action),
        Action::FlushFileSystem { path } => {
            let opened = watched.of(path);
            received::flush(path, opened.as_deref())
                .map(|()| None)
                .map_err(failed("write out", path))
        }
        Action::Freeze { cgroup } => cgroup::freeze(cgroup).map(Some),
        Action::Thaw { cgroup, identity } => cgroup::thaw(cgroup, identity.as_ref()),
        Action::Show { path, found, at } => {
            match shown::show(path, found, at).map_err(failed("show", path))? {
                Some((id, device)) => Ok(Some(Identity::Mount { id, device })),
                None => Err(ActError::NotOurs { path: path.clone() }),
            }
        }
        Action::Unmount { path, id, device, subvolume } => {
            let unmounted = match subvolume {
                None => mounts::unmount_unserved(path, *id, *device),
                Some(uuid) => shown::hide(path, *id, *device, uuid),
            };
            let is_unmounted = unmounted.map_err(failed("unmount", path))?;
            Ok(is_unmounted.then_some(Identity::Mount { id: *id, device: *device }))
        }
        Action::StopProcess { child, grace } => stop_process(child, *grace).map(|()| None),
    }
}

fn carry_out_on_subvolume(action: &SubvolumeAction) -> Result<Option<Identity>, ActError> {
    match action {
        SubvolumeAction::MakeSnapshot { device, origin, path, name } => {
            let made = snapshots::make(device, origin, name)
                .map_err(failed("make a snapshot of", path))?;
            Ok(made.uuid.map(|uuid| Identity::Subvolume { uuid }))
        }
        SubvolumeAction::DeleteSnapshot { device, name, found } => {
            let is_deleted =
                snapshots::delete(device, found, name).map_err(failed("delete", name))?;
            if_ours(is_deleted, name)
        }
        SubvolumeAction::DeleteWhole { device, path, found } => {
            let is_deleted =
                snapshots::delete_whole(device, found, path).map_err(failed("delete", path))?;
            if_ours(is_deleted, path)
        }
        SubvolumeAction::CommitDeletions { device, file_system } => {
            snapshots::commit(device, file_system.as_deref())
                .map(|()| None)
                .map_err(failed("wait for the btrfs on", device))
        }
        SubvolumeAction::RenameSubvolume { path, name, found } => {
            let is_renamed = received::rename(path, found, name).map_err(failed("rename", path))?;
            if_ours(is_renamed, path)
        }
        SubvolumeAction::DeleteSubvolume { path, found } => {
            let is_deleted = received::delete(path, found).map_err(failed("delete", path))?;
            if_ours(is_deleted, path)
        }
        SubvolumeAction::MakeWritable { path, found, at } => {
            let made =
                received::writable(path, found, at).map_err(failed("make a snapshot of", path))?;
            match made {
                Some(made) => Ok(made.uuid.map(|uuid| Identity::Subvolume { uuid })),
                None => Err(ActError::NotOurs { path: path.clone() }),
            }
        }
        SubvolumeAction::MoveSubvolume { device, from, found, to } => {
            let is_moved = snapshots::relocate(device, (from, found), to)
                .map_err(failed("move a subvolume to", to))?;
            if_ours(is_moved, from)
        }
        SubvolumeAction::ExchangeSubvolumes { device, one, other } => {
            let is_exchanged =
                snapshots::exchange(device, one, other).map_err(failed("exchange", &one.path))?;
            if_ours(is_exchanged, &one.path)
        }
    }
}

/// Says of an error what was tried, and with what.
fn failed(
    what: &'static str,
    path: &(impl AsRef<Path> + ?Sized),
) -> impl FnOnce(io::Error) -> ActError {
    move |source| ActError::Io { what, path: path.as_ref().to_owned(), source }
}

/// What is answered for something that is only changed if it is still the one that was found.
fn if_ours(is_done: bool, path: &Path) -> Result<Option<Identity>, ActError> {
    if is_done { Ok(None) } else { Err(ActError::NotOurs { path: path.to_owned() }) }
}

fn create_directory(path: &Path, mode: u32) -> io::Result<Identity> {
    place::create(path, mode)
}

fn ensure_directory(path: &Path, mode: u32) -> io::Result<Option<Identity>> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(None),
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = path.parent() {
        ensure_directory(parent, mode)?;
    }
    match create_directory(path, mode) {
        Ok(identity) => Ok(Some(identity)),
        // Somebody else was faster, which is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(None),
        Err(error) => Err(error),
    }
}

fn replace_file(path: &Path, mode: u32, content: &[u8]) -> io::Result<Identity> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let mut new_name = std::ffi::OsString::from(".");
    new_name.push(name);
    new_name.push(format!(".{:016x}", u64::from_be_bytes(random)));
    let new = directory.join(new_name);
    let written = write_new(&new, mode, content).and_then(|identity| {
        fs::rename(&new, path)?;
        File::open(directory)?.sync_all()?;
        Ok(identity)
    });
    if written.is_err() {
        // After a rename there is nothing of that name; before it, nobody else knows of the file.
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<Identity> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(identity_of(&file.metadata()?))
}

fn remove_staging(path: &Path, identity: Option<&Identity>) -> Result<(), ActError> {
    let failed = |source| ActError::Io { what: "remove", path: path.to_owned(), source };
    let not_ours = || ActError::NotOurs { path: path.to_owned() };
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(not_ours());
    };
    // The way to it is the administrator's; from here on it is held.
    let above = match File::open(above) {
        Ok(above) => above,
        Err(error) if straight::is_absent(&error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let held = match straight::open_within(&above, Path::new(name), DIRECTORY) {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if straight::is_elsewhere(&error) => return Err(not_ours()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            return Err(ActError::Mounted { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    let found = held.metadata().map_err(failed)?;
    if identity.is_some_and(|identity| !is_identical(identity, &found)) {
        return Err(not_ours());
    }
    let canonical = path.canonicalize().map_err(failed)?;
    if let Some(at) = mounts::mounted_below(&canonical).map_err(failed)? {
        return Err(ActError::Mounted { path: at });
    }
    // Without a recorded identity, only an empty directory can be let go without asking whose it is.
    if identity.is_some() {
        empty(&held).map_err(failed)?;
    }
    match unlinkat(&above, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ENOTEMPTY) if identity.is_none() => Err(not_ours()),
        Err(error) => Err(failed(error.into())),
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// Removes what is in a held directory, following no link and entering nothing that is mounted there. A btrfs subvolume
/// is deleted as it is.
fn empty(directory: &File) -> io::Result<()> {
    // The list is complete before anything goes: a directory that changes while it is read may hide an entry.
    for name in place::names_in(directory)? {
        let removed = match straight::open_within(directory, Path::new(&name), DIRECTORY) {
            Ok(_) if received::delete_whole(directory, &name)? => Ok(()),
            Ok(inner) => {
                empty(&inner)?;
                unlinkat(directory, name.as_os_str(), UnlinkatFlags::RemoveDir)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A file, a link, …
            Err(error) if straight::is_elsewhere(&error) => {
                unlinkat(directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir)
            }
            Err(error) => return Err(error),
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !straight::is_absent(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn stop_process(child: &ChildProcess, grace: Duration) -> Result<(), ActError> {
    let failed = |source| ActError::Io { what: "read", path: "/proc".into(), source };
    if child.never_kill {
        let found = process::identify(child.pid).map_err(failed)?;
        if !found.is_some_and(|found| found.is_same(child)) {
            return Ok(());
        }
        let ended = wait_for_end(NEVER_KILL_WAIT, || Ok(!process::group_is_alive(child.pid)?));
        return match ended.map_err(failed)? {
            true => Ok(()),
            false => Err(ActError::StillRunning { pid: child.pid }),
        };
    }
    let mut left = process::survivors(child).map_err(failed)?;
    if left.is_empty() {
        return wait_until_reaped(child).map_err(failed);
    }
    for (signal, wait) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, KILL_WAIT)] {
        for process in &left {
            tell(process.pid, signal)?;
        }
        let ended = wait_for_end(wait, || {
            left = process::survivors(child)?;
            if signal == Signal::SIGKILL {
                // One that was just being started has not heard of it.
                left.iter()
                    .try_for_each(|process| tell(process.pid, signal))
                    .map_err(io::Error::other)?;
            }
            Ok(left.is_empty())
        });
        if ended.map_err(failed)? {
            return wait_until_reaped(child).map_err(failed);
        }
    }
    Err(ActError::StillRunning { pid: left.first().map_or(child.pid, |process| process.pid) })
}

/// Signals a process; one that is gone needs no signal.
fn tell(pid: i32, signal: Signal) -> Result<(), ActError> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => {
            let path = format!("/proc/{pid}").into();
            Err(ActError::Io { what: "stop", path, source: error.into() })
        }
    }
}

/// Whether something has ended within so long.
fn wait_for_end(
    wait: Duration,
    mut has_ended: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let asked = Instant::now();
    loop {
        if has_ended()? {
            return Ok(true);
        }
        let left = wait.saturating_sub(asked.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(left.min(POLL));
    }
}

/// Waits for a dead process to be reaped, as long as that may take. Until then engines take it for a living
/// one, since a signal reaches it, and its lock in a repository for a valid one. That nobody reaps it is no
/// error: it harms nothing itself.
fn wait_until_reaped(child: &ChildProcess) -> io::Result<()> {
    for _ in 0..REAP_LOOKS {
        match process::identify(child.pid)? {
            Some(found) if found.is_same(child) => std::thread::sleep(POLL),
            Some(_) | None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use super::*;
    use crate::host::system::SystemHost;
    use crate::host::{ChildRecorder, CommandSpec, Effect, Exit, Host, Tool};

    fn carry_out(action: &Action) -> Result<Option<Identity>, ActError> {
        super::carry_out(action, &Watched::default())
    }

    fn inode(path: &Path) -> Identity {
        identity_of(&path.symlink_metadata().unwrap())
    }

    fn remove(path: &Path, identity: Option<Identity>) -> Result<Option<Identity>, ActError> {
        carry_out(&Action::RemoveStaging { path: path.into(), identity })
    }

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn directories_get_their_mode_and_answer_who_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let made = carry_out(&Action::CreateDirectory { path: path.clone(), mode: 0o777 }).unwrap();
        assert!(is_identical(&made.unwrap(), &path.metadata().unwrap()));
        assert_eq!(mode_of(&path), 0o777);
        let again = carry_out(&Action::CreateDirectory { path: path.clone(), mode: 0o700 });
        assert!(matches!(again, Err(ActError::Io { what: "create", .. })));
        let deep = path.join("a/b");
        let ensure = Action::EnsureDirectory { path: deep.clone(), mode: 0o750 };
        let made = carry_out(&ensure).unwrap().unwrap();
        assert!(is_identical(&made, &deep.metadata().unwrap()));
        assert_eq!((mode_of(&deep), mode_of(deep.parent().unwrap())), (0o750, 0o750));
        assert_eq!(carry_out(&ensure).unwrap(), None);
        fs::write(path.join("file"), "").unwrap();
        let ensure = Action::EnsureDirectory { path: path.join("file"), mode: 0o750 };
        assert!(carry_out(&ensure).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        for content in ["first, and longer", "second"] {
            let action =
                Action::ReplaceFile { path: path.clone(), mode: 0o640, content: content.into() };
            assert_eq!(carry_out(&action).unwrap(), Some(inode(&path)));
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(mode_of(&path), 0o640);
        }
        let blocked = dir.path().join("directory");
        fs::create_dir_all(blocked.join("full")).unwrap();
        let action = Action::ReplaceFile { path: blocked, mode: 0o600, content: vec![] };
        assert!(carry_out(&action).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn staging_is_removed_only_when_it_is_the_recorded_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        assert!(remove(&path, None).is_ok(), "already gone");
        fs::create_dir_all(path.join("deep")).unwrap();
        fs::write(path.join("deep/file"), "x").unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&precious, path.join("link")).unwrap();
        let other = Identity::Inode { device: 1, inode: 1 };
        assert!(matches!(remove(&path, Some(other)), Err(ActError::NotOurs { .. })));
        assert!(matches!(remove(&path, None), Err(ActError::NotOurs { .. })), "not empty");
        let identity = inode(&path);
        remove(&path, Some(identity.clone())).unwrap();
        assert!(!path.exists() && precious.join("file").exists());
        remove(&path, Some(identity.clone())).unwrap();
        fs::create_dir(&path).unwrap();
        remove(&path, None).unwrap();
        assert!(!path.exists());
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(matches!(remove(&path, Some(inode(&precious))), Err(ActError::NotOurs { .. })));
    }

    #[test]
    fn a_directory_is_the_one_that_was_made_when_its_device_has_another_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let create = Action::CreateDirectory { path: path.clone(), mode: 0o700 };
        let made = carry_out(&create).unwrap().unwrap();
        let Identity::Directory { device, inode, born } = made else { panic!("{made:?}") };
        assert!(born.is_some(), "what cargo builds on knows when a file was made");
        let refused = [
            Identity::Directory { device, inode: inode + 1, born },
            Identity::Directory { device, inode, born: born.map(|at| at + 1) },
            Identity::Directory { device: device + 1, inode, born: None },
        ];
        for other in refused {
            let told = format!("{other:?}");
            assert!(matches!(remove(&path, Some(other)), Err(ActError::NotOurs { .. })), "{told}");
        }
        remove(&path, Some(Identity::Directory { device: device + 1, inode, born })).unwrap();
        assert!(!path.exists());
        let old = Identity::Directory { device, inode, born: None };
        let made = carry_out(&create).unwrap().unwrap();
        assert!(matches!(made, Identity::Directory { device: there, .. } if there == device));
        assert_ne!(made, old);
        fs::write(path.join("ours"), "x").unwrap();
        remove(&path, Some(made)).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn staging_with_a_mount_in_it_is_left_alone() {
        // The kernel's own mounts serve as the example: nothing has to be mounted for the test.
        let error = remove(Path::new("/proc"), Some(inode(Path::new("/proc")))).unwrap_err();
        assert!(matches!(error, ActError::Mounted { .. }), "{error}");
    }

    /// Tells the test of the child that a host has started.
    struct Announce(std::sync::mpsc::Sender<ChildProcess>);

    impl ChildRecorder for Announce {
        fn started(&self, child: &ChildProcess) {
            self.0.send(child.clone()).unwrap();
        }
        fn ended(&self, _: &ChildProcess) {}
    }

    #[test]
    fn a_process_of_a_dead_run_is_stopped_only_if_it_is_the_same_one() {
        let host = SystemHost::stopped_by(Arc::default());
        let (sender, started) = std::sync::mpsc::channel();
        host.record_children(Some(Arc::new(Announce(sender))));
        let stop = |child: &ChildProcess, grace| {
            carry_out(&Action::StopProcess { child: child.clone(), grace })
        };
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(300));
        for (script, grace, expected) in [
            ("echo; exec sleep 60", long, Exit::Signal(15)),
            ("trap '' TERM; echo; while :; do sleep 0.05; done", short, Exit::Signal(9)),
        ] {
            let stop = |child: &ChildProcess| stop(child, grace);
            let spec = CommandSpec::new(Tool::Path("/bin/sh".into()), Effect::Inspect);
            let spec = spec.arg("-c").arg(script);
            std::thread::scope(|scope| {
                let (says, ready) = std::sync::mpsc::channel();
                let host = &host;
                let spec = &spec;
                let running =
                    scope.spawn(move || host.run(spec, &mut |_, _| says.send(()).unwrap()));
                let child = started.recv().unwrap();
                ready.recv().unwrap();
                stop(&ChildProcess { start_time: child.start_time + 1, ..child.clone() }).unwrap();
                stop(&ChildProcess { boot_id: "another".into(), ..child.clone() }).unwrap();
                assert!(process::group_is_alive(child.pid).unwrap(), "a stranger was stopped");
                stop(&child).unwrap();
                assert_eq!(running.join().unwrap().unwrap().exit, expected);
                stop(&child).unwrap();
            });
        }
    }
}
