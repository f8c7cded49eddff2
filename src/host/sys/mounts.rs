//! What is mounted where, and how much is free there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::makedev;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{namespace, straight};

/// One line of `/proc/PID/mountinfo`, as proc(5) describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's number, which another one gets once this is unmounted.
    pub id: u32,
    /// The number of the device: major, minor. btrfs gives each subvolume one of its own.
    pub device: (u32, u32),
    /// The directory of the file system that is shown; for btrfs, from its top-level subvolume on.
    pub root: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
    /// Options of this mount alone: `ro` here does not keep others from writing.
    pub options: String,
    /// `ext4`, `btrfs`, `proc`, …
    pub file_system: String,
    /// The device's path, or whatever the file system calls its source.
    pub source: PathBuf,
    /// Options of the file system itself, for all its mounts.
    pub super_options: String,
}

/// File systems whose disk other machines write to as well.
const SHARED_DISK: &[&str] = &["gfs2", "ocfs2"];

/// File systems that have no number of a block device, or need none, and which this machine alone changes, or
/// nobody: erofs and its like are images, which may lie in a file.
const LOCAL_WITHOUT_DISK: &[&str] = &[
    "bcachefs", "btrfs", "cramfs", "erofs", "ramfs", "romfs", "rootfs", "squashfs", "tmpfs",
    "ubifs", "zfs",
];

/// File systems that the kernel makes up: there is nothing in them to back up, and nothing is kept in them.
const KERNEL: &[&str] = &[
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// File systems that are a view of directories on this machine, in which its own file systems answer.
const VIEWS: &[&str] = &["aufs", "ecryptfs", "overlay"];

/// What an overlay calls its source that is a sealed image and not a view of directories: the root of image-based
/// systems (mount.composefs(1)).
const SEALED: &str = "composefs";

impl MountEntry {
    /// Whether somebody may change the file system past this machine's mounts of it: a server, the program behind
    /// a FUSE mount, whoever writes to the directories below an overlay, another machine on the same disk.
    pub fn is_changed_elsewhere(&self) -> bool {
        // The kernel gives the number 0:N to what lies on no block device.
        let on_a_disk = self.device.0 != 0;
        let kind = self.file_system.as_str();
        let is_sealed = kind == "overlay" && self.source == Path::new(SEALED);
        match on_a_disk {
            true => SHARED_DISK.contains(&kind),
            false => !LOCAL_WITHOUT_DISK.contains(&kind) && !is_sealed,
        }
    }

    /// Whether a look at it may take until somebody else answers, if ever: a server, another machine on the same
    /// disk, the program behind a FUSE mount, whatever an automount point is waiting for.
    pub fn waits_for_others(&self) -> bool {
        let kind = self.file_system.as_str();
        let is_elsewhere = self.is_changed_elsewhere() && !self.is_made_up();
        (is_elsewhere && !VIEWS.contains(&kind)) || kind == "fuseblk"
    }

    /// Whether the kernel makes up what is in it.
    pub fn is_made_up(&self) -> bool {
        KERNEL.contains(&self.file_system.as_str())
    }

    /// Whether root may not even look at it: a FUSE mount of another user, without `allow_other` (fuse(8)).
    pub fn is_closed_to_root(&self) -> bool {
        let says = |option: &str| self.super_options.split(',').any(|said| said == option);
        let owner = self.super_options.split(',').find_map(|said| said.strip_prefix("user_id="));
        self.is_fuse() && owner.is_some_and(|owner| owner != "0") && !says("allow_other")
    }

    /// Whether a program serves it.
    pub fn is_fuse(&self) -> bool {
        self.file_system == "fuse" || self.file_system.starts_with("fuse.")
    }

    /// Whether nobody can write to the file system through any mount.
    pub fn is_frozen_read_only(&self) -> bool {
        self.super_options.split(',').any(|option| option == "ro")
    }
}

/// All mounts that the calling thread sees, in the order of a walk: whatever hides another one comes after it.
///
/// # Errors
/// When the table cannot be read or has a line that is not in the format of proc(5).
pub fn mount_table() -> io::Result<Vec<MountEntry>> {
    parse_mount_table(&std::fs::read("/proc/thread-self/mountinfo")?)
}

/// All mount points that the calling thread sees, in the same order.
///
/// # Errors
/// See [`mount_table`].
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(mount_table()?.into_iter().map(|entry| entry.at).collect())
}

/// Reads a `/proc/PID/mountinfo`, with the octal escapes of blanks undone.
///
/// The kernel's order is that of their making, which is not enough: an initramfs mounts `/proc`, `/dev` and
/// `/run` before the root, and moves them there.
///
/// # Errors
/// When a line is not as proc(5) says.
pub fn parse_mount_table(table: &[u8]) -> io::Result<Vec<MountEntry>> {
    let lines = table.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mounts = lines
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                io::Error::other(format!(
                    "not a line of mountinfo: {}",
                    String::from_utf8_lossy(line)
                ))
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(walked(mounts))
}

/// The mount by which a path is seen. Of several at one place that is the last one.
pub fn mount_of<'m>(mounts: &'m [MountEntry], path: &Path) -> Option<&'m MountEntry> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.at));
    around.max_by_key(|mount| mount.at.components().count())
}

/// One mount, with its number and that of the mount that it is mounted on.
type Numbered = (u32, u32, MountEntry);

/// Puts every mount behind the one that it is mounted on. Of those on one mount, the deeper places come first:
/// what is mounted above them hides them.
fn walked(mounts: Vec<Numbered>) -> Vec<MountEntry> {
    let known: BTreeSet<u32> = mounts.iter().map(|(id, ..)| *id).collect();
    let mut mounted_on: BTreeMap<u32, Vec<(u32, MountEntry)>> = BTreeMap::new();
    // The last one is taken first.
    let mut open = Vec::new();
    for (id, parent, entry) in mounts.into_iter().rev() {
        // What a root is mounted on is not in the table, or is itself.
        if id == parent || !known.contains(&parent) {
            open.push((id, entry));
        } else {
            mounted_on.entry(parent).or_default().push((id, entry));
        }
    }
    let depth = |(_, entry): &(u32, MountEntry)| entry.at.components().count();
    open.sort_by_key(depth);
    let mut walked = Vec::with_capacity(known.len());
    while let Some((id, entry)) = open.pop() {
        walked.push(entry);
        let mut on_it = mounted_on.remove(&id).unwrap_or_default();
        on_it.sort_by_key(depth);
        open.append(&mut on_it);
    }
    walked
}

/// `ID PARENT MAJOR:MINOR ROOT AT OPTIONS [OPTIONAL…] - TYPE SOURCE SUPER-OPTIONS`; `None` when it is not.
fn parse_line(line: &[u8]) -> Option<Numbered> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    let at = unescape(fields.get(4)?).filter(|path| path.is_absolute())?;
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
    let id = number(fields.first()?)?;
    let entry = MountEntry {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: unescape(fields.get(3)?)?,
        at,
        options: text(fields.get(5)?),
        file_system: text(fields.get(dash + 1)?),
        source: unescape(fields.get(dash + 2)?)?,
        super_options: text(fields.get(dash + 3)?),
    };
    Some((id, number(fields.get(1)?)?, entry))
}

/// Undoes `\040` and its like; `None` when a backslash is not followed by three octal digits.
fn unescape(field: &[u8]) -> Option<PathBuf> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            path.push(byte);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..3)?).ok()?;
        path.push(u8::from_str_radix(digits, 8).ok()?);
        rest = &after[3..];
    }
    Some(OsString::from_vec(path).into())
}

/// The file system that stands for one that is mounted once somebody goes there, as `x-systemd.automount` has it.
const ON_DEMAND: &str = "autofs";

/// Where that was asked for and nothing came of it. The answer may take a minute and a half, so it is asked for once.
static IN_VAIN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Whether something is mounted exactly at `path` (bind mounts count). A path that is not there is none. What is mounted on
/// demand is asked for first, since only then it is known whether its disk is there.
///
/// # Errors
/// When the path or the table cannot be looked at.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if straight::is_absent(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let what = || -> io::Result<Option<String>> {
        let top = mount_table()?.into_iter().rfind(|entry| entry.at == path);
        Ok(top.map(|entry| entry.file_system))
    };
    let mut found = what()?;
    let mut in_vain = IN_VAIN.lock().unwrap_or_else(PoisonError::into_inner);
    if found.as_deref() == Some(ON_DEMAND) && !in_vain.contains(&path) {
        // That it cannot be had is no error but the answer.
        let _ = File::open(&path);
        found = what()?;
        if found.as_deref() == Some(ON_DEMAND) {
            in_vain.insert(path);
        }
    }
    Ok(found.is_some_and(|file_system| file_system != ON_DEMAND))
}

/// The first mount point at or below `path`, which must be canonical.
///
/// # Errors
/// When the table cannot be read.
pub fn mounted_below(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(mount_points()?.into_iter().find(|at| at.starts_with(path)))
}

/// Changes whether the file system of this device that is mounted at `path` can be written, for all its
/// mounts. One that is already so, or that is no longer there, is left as it is.
///
/// # Errors
/// When the kernel refuses (somebody has a file open for writing), or says afterwards that it is not so.
pub fn remount(path: &Path, device: (u32, u32), read_only: bool) -> io::Result<()> {
    let find = || -> io::Result<Option<MountEntry>> {
        let mut table = mount_table()?;
        let top = table.iter().rposition(|entry| entry.at == path);
        Ok(top.map(|at| table.swap_remove(at)).filter(|entry| entry.device == device))
    };
    let Some(found) = find()? else { return Ok(()) };
    if found.is_frozen_read_only() == read_only {
        return Ok(());
    }
    // A remount sets all flags anew; those of the mount itself are to stay.
    let mut flags = MsFlags::MS_REMOUNT | flags_of(&found.options) | flags_of(&found.super_options);
    if read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    // A remount also sets `ro` on, or takes it off, this one mount in this one namespace. Whoever makes the file
    // system writable again may live in another one, as a unit does, and could not reach this: so it is done
    // in a namespace that ends with it.
    let place = path.to_owned();
    let remounted = std::thread::spawn(move || -> io::Result<()> {
        namespace::detach()?;
        // Held, and looked at once more: whoever owns a directory above it may have put another one there.
        let held = straight::open(&place, OFlag::O_PATH)?;
        if held.metadata()?.dev() != makedev(device.0.into(), device.1.into()) {
            return Err(io::Error::other("another file system was there before it was reached"));
        }
        let place = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
        Ok(mount(None::<&str>, place.as_str(), None::<&str>, flags, None::<&str>)?)
    });
    remounted.join().map_err(|_| io::Error::other("the thread that remounts it panicked"))??;
    match find()? {
        Some(now) if now.is_frozen_read_only() != read_only => {
            Err(io::Error::other("the kernel took the request and did not carry it out"))
        }
        _ => Ok(()),
    }
}

/// Unmounts the FUSE mount of this number and device, whoever still uses it, if it is what one reaches at the path
/// and the program that served it is gone. Answers whether that was done.
///
/// A number and a device are given away again, and a mount that is served is not one whose server has ended:
/// only the kernel's word that nobody is connected makes sure.
///
/// # Errors
/// When it cannot be looked at or unmounted.
pub fn unmount_unserved(path: &Path, id: u32, device: (u32, u32)) -> io::Result<bool> {
    let is_it = |entry: &MountEntry| entry.id == id && entry.device == device && entry.is_fuse();
    let held = match straight::open(path, OFlag::O_PATH) {
        Ok(held) => held,
        Err(error) if straight::is_absent(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // From here on the number is not given away.
    if mount_number(&held)? != Some(id) || !mount_table()?.iter().any(is_it) {
        return Ok(false);
    }
    match fstatfs(&held) {
        Err(Errno::ENOTCONN | Errno::ECONNABORTED) => {}
        Ok(_) | Err(_) => return Ok(false),
    }
    let place = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
    umount2(place.as_str(), MntFlags::MNT_DETACH)?;
    Ok(true)
}

/// The number of the mount that something lies in.
pub(super) fn mount_number(held: &impl AsRawFd) -> io::Result<Option<u32>> {
    let told = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", held.as_raw_fd()))?;
    let number = told.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(number.and_then(|number| number.trim().parse().ok()))
}

/// The flags that the options of a mount or a file system stand for, without `ro`.
pub(super) fn flags_of(options: &str) -> MsFlags {
    options.split(',').fold(MsFlags::empty(), |flags, option| {
        flags
            | match option {
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                "sync" => MsFlags::MS_SYNCHRONOUS,
                "dirsync" => MsFlags::MS_DIRSYNC,
                "lazytime" => MsFlags::MS_LAZYTIME,
                _ => MsFlags::empty(),
            }
    })
}

/// Whether nothing can be written to the file system at `path`, which must exist: mounted read-only here, or
/// made so by the kernel after an error.
///
/// # Errors
/// When the file system cannot be asked.
pub fn is_read_only(path: &Path) -> io::Result<bool> {
    Ok(statvfs(path)?.flags().contains(FsFlags::ST_RDONLY))
}

/// Bytes that an unprivileged writer may still use in the file system at `path`, which must exist. What
/// only root may use is left out, since filling it is what stops a machine.
///
/// # Errors
/// When the file system cannot be asked.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let answer = statvfs(path)?;
    // The types are narrower than u64 on 32-bit machines.
    #[allow(clippy::useless_conversion)]
    let (blocks, size) = (u64::from(answer.blocks_available()), u64::from(answer.fragment_size()));
    Ok(blocks.saturating_mul(size))
}

/// How large the file system at `path` is, which must exist, in bytes.
///
/// # Errors
/// When the file system cannot be asked.
pub fn total_space(path: &Path) -> io::Result<u64> {
    let answer = statvfs(path)?;
    // The types are narrower than u64 on 32-bit machines.
    #[allow(clippy::useless_conversion)]
    let (blocks, size) = (u64::from(answer.blocks()), u64::from(answer.fragment_size()));
    Ok(blocks.saturating_mul(size))
}

/// How many files can still be made in the file system at `path`, which must exist; `None` where it makes inodes as
/// they are needed (btrfs) and so says that it has none.
///
/// # Errors
/// When the file system cannot be asked.
pub fn free_files(path: &Path) -> io::Result<Option<u64>> {
    let answer = statvfs(path)?;
    #[allow(clippy::useless_conversion)] // the types are narrower than u64 on 32-bit machines
    let (all, free) = (u64::from(answer.files()), u64::from(answer.files_available()));
    Ok((all > 0).then_some(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid - proc proc rw
97 22 0:44 /@home /srv/with\\040blank\\134and\\012line rw,relatime shared:7 master:2 - btrfs /dev/sdb rw
";

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table = parse_mount_table(TABLE.as_bytes()).unwrap();
        let points: Vec<PathBuf> = table.iter().map(|entry| entry.at.clone()).collect();
        let expected = ["/", "/srv/with blank\\and\nline", "/proc"];
        assert_eq!(points, expected.map(PathBuf::from));
        assert_eq!(table[1].device, (0, 44));
        assert_eq!(table[1].root, PathBuf::from("/@home"));
        assert_eq!(table[1].file_system, "btrfs");
        assert_eq!(table[1].source, PathBuf::from("/dev/sdb"));
        assert_eq!(table[0].super_options, "rw,errors=remount-ro");
        assert!(!table[0].is_frozen_read_only());
    }

    #[test]
    fn what_others_change_is_told_by_its_device_and_kind() {
        let entry = |major: u32, kind: &str| MountEntry {
            id: 1,
            device: (major, 7),
            root: "/".into(),
            at: "/srv".into(),
            options: "ro".into(),
            file_system: kind.into(),
            source: "source".into(),
            super_options: "ro".into(),
        };
        for kind in [
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "9p",
            "virtiofs",
            "ceph",
            "afs",
            "glusterfs",
            "lustre",
            "fuse",
            "fuse.sshfs",
            "fuse.rclone",
            "overlay",
            "ecryptfs",
            "vboxsf",
        ] {
            assert!(entry(0, kind).is_changed_elsewhere(), "{kind}");
        }
        for kind in ["btrfs", "zfs", "tmpfs", "ubifs", "erofs"] {
            assert!(!entry(0, kind).is_changed_elsewhere(), "{kind}");
        }
        let image = MountEntry { source: "composefs".into(), ..entry(0, "overlay") };
        assert!(!image.is_changed_elsewhere());
        for kind in ["ext4", "xfs", "vfat", "squashfs", "iso9660", "fuseblk"] {
            assert!(!entry(8, kind).is_changed_elsewhere(), "{kind}");
        }
        for kind in ["gfs2", "ocfs2"] {
            assert!(entry(253, kind).is_changed_elsewhere(), "{kind}");
            assert!(entry(253, kind).waits_for_others(), "{kind}");
        }
        for kind in ["nfs4", "cifs", "9p", "ceph", "fuse", "fuse.sshfs", "autofs"] {
            assert!(entry(0, kind).waits_for_others(), "{kind}");
        }
        for kind in ["btrfs", "zfs", "tmpfs", "overlay", "proc", "sysfs"] {
            assert!(!entry(0, kind).waits_for_others(), "{kind}");
        }
        assert!(entry(8, "fuseblk").waits_for_others());
        assert!(!entry(8, "ext4").waits_for_others());
    }

    #[test]
    fn a_users_own_fuse_mount_is_closed_to_root() {
        let entry = |kind: &str, super_options: &str| MountEntry {
            id: 1,
            device: (0, 7),
            root: "/".into(),
            at: "/home/u/mnt".into(),
            options: "rw,nosuid,nodev".into(),
            file_system: kind.into(),
            source: "source".into(),
            super_options: super_options.into(),
        };
        let private = "rw,user_id=1000,group_id=1000";
        assert!(entry("fuse.sshfs", private).is_closed_to_root());
        assert!(entry("fuse", private).is_closed_to_root());
        for (kind, options) in [
            ("fuse.sshfs", "rw,user_id=1000,group_id=1000,allow_other"),
            ("fuse.sshfs", "rw,user_id=0,group_id=0"),
            ("fuseblk", private),
            ("ext4", private),
        ] {
            assert!(!entry(kind, options).is_closed_to_root(), "{kind} {options}");
        }
    }

    #[test]
    fn what_hides_another_mount_comes_after_it() {
        let table = "\
22 28 0:20 / /sys rw - sysfs sysfs rw
23 28 0:21 / /proc rw - proc proc rw
24 22 0:22 / /sys/kernel/debug rw - debugfs debugfs rw
28 1 254:1 / / rw - ext4 /dev/vda1 rw
31 28 0:30 / /srv rw - ext4 /dev/vdb rw
30 31 0:31 / /srv rw - ext4 /dev/vdc rw
33 28 0:33 / /a rw - ext4 /dev/vdd rw
32 31 0:32 / /srv/hidden rw - ext4 /dev/vde rw
34 30 0:34 / /srv/seen rw - ext4 /dev/vdf rw
35 28 0:35 / /a/hidden rw - ext4 /dev/vdg rw
";
        let table = parse_mount_table(table.as_bytes()).unwrap();
        let order: Vec<&Path> = table.iter().map(|entry| entry.at.as_path()).collect();
        let place = |at: &str| order.iter().position(|place| *place == Path::new(at)).unwrap();
        let devices: Vec<u32> = table.iter().map(|entry| entry.device.1).collect();
        let of = |minor: u32| devices.iter().position(|device| *device == minor).unwrap();
        assert_eq!((order.len(), order[0]), (10, Path::new("/")));
        assert!(place("/sys") < place("/sys/kernel/debug"));
        assert!(of(30) < of(31), "the upper one of two at one place");
        assert!(place("/srv/hidden") < of(31), "{order:?}");
        assert!(of(31) < place("/srv/seen"));
        assert!(place("/a/hidden") < place("/a"), "{order:?}");
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        for table in [
            "22 1 8:1 /\n",
            "22 1 8:1 / /a\\04 rw - ext4 /dev/sda rw\n",
            "22 1 8:1 / relative rw - ext4 /dev/sda rw\n",
            "22 1 8:1 / /a rw ext4 /dev/sda rw\n",
        ] {
            assert!(parse_mount_table(table.as_bytes()).is_err(), "{table}");
        }
    }

    #[test]
    fn the_root_and_proc_are_mount_points_and_a_new_directory_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(dir.path()).unwrap());
        assert!(!is_mount_point(&dir.path().join("absent")).unwrap());
        assert!(free_space(dir.path()).unwrap() > 0);
    }

    #[test]
    fn what_is_mounted_on_demand_is_there_once_its_disk_is() {
        if !super::super::may_as_root("mounting") {
            return;
        }
        struct Unmounted<'p>(&'p Path);
        impl Drop for Unmounted<'_> {
            fn drop(&mut self) {
                while umount2(self.0, MntFlags::MNT_DETACH).is_ok() {}
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        // Whoever answers, which is this process as it mounts it, is shown the place as it is. Nobody else goes there.
        let (_answers, asks) = nix::unistd::pipe().unwrap();
        let options = format!("fd={},minproto=5,maxproto=5,direct", asks.as_raw_fd());
        let none = MsFlags::empty();
        match mount(Some("test"), &at, Some(ON_DEMAND), none, Some(&*options)) {
            Err(Errno::ENODEV) if std::env::var_os("CI").is_none() => {
                eprintln!("SKIPPED: this kernel has no {ON_DEMAND}");
                return;
            }
            mounted => mounted.unwrap(),
        }
        let _unmounted = Unmounted(&at);
        assert!(mount_points().unwrap().contains(&at));
        assert!(!is_mount_point(&at).unwrap(), "nothing came of the demand");
        mount(Some("test"), &at, Some("tmpfs"), none, None::<&str>).unwrap();
        assert!(is_mount_point(&at).unwrap());
    }
}
