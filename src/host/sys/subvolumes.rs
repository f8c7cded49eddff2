//! What a btrfs subvolume is and which ones lie in it, asked of the kernel itself.
//!
//! `btrfs subvolume list` prints one subvolume a line, and `show` its name above what it says of it; everybody who
//! may make a directory may make a subvolume with a line break in its name. The calls used here (linux/btrfs.h,
//! since 4.18) have no such trouble.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use super::straight;

/// The inode of the root directory of every subvolume, `BTRFS_FIRST_FREE_OBJECTID`.
const ROOT_INODE: u64 = 256;
/// `BTRFS_MAX_ROOTREF_BUFFER_NUM`.
const REFERENCES: usize = 255;
/// `BTRFS_VOL_NAME_MAX` + 1.
const NAME: usize = 256;
/// `BTRFS_INO_LOOKUP_USER_PATH_MAX`: 4080 − `BTRFS_VOL_NAME_MAX` − 1.
const PATH: usize = 3824;

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
struct RootReferences {
    min_tree: u64,
    references: [Reference; REFERENCES],
    count: u8,
    align: [u8; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Reference {
    tree: u64,
    directory: u64,
}

/// `struct btrfs_ioctl_ino_lookup_user_args`.
#[repr(C)]
struct Lookup {
    directory: u64,
    tree: u64,
    name: [u8; NAME],
    path: [u8; PATH],
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct Information {
    tree: u64,
    name: [u8; NAME],
    parent: u64,
    directory: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    /// Of its last change, its making, what was received as it, and its reception.
    generations: [u64; 4],
    /// Of the same.
    times: [[u64; 2]; 4],
    reserved: [u64; 8],
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FileSystem {
    highest_device: u64,
    devices: u64,
    uuid: [u8; 16],
    rest: [u64; 124],
}

/// `struct btrfs_ioctl_search_args`: which items are looked for, and then the first that was found.
#[repr(C)]
struct Search {
    tree: u64,
    /// From and to, of each: the first number of a key, its last, and a generation.
    objects: [u64; 2],
    offsets: [u64; 2],
    generations: [u64; 2],
    kinds: [u32; 2],
    /// How many at most; how many there are.
    items: u32,
    unused: [u32; 9],
    found: Found,
    rest: [u8; 3960],
}

/// `struct btrfs_ioctl_search_header`, of an item that is in what follows.
#[repr(C)]
struct Found {
    generation: u64,
    object: u64,
    offset: u64,
    kind: u32,
    /// In bytes.
    length: u32,
}

/// The tree of all UUIDs of a file system, `BTRFS_UUID_TREE_OBJECTID`.
const UUIDS: u64 = 9;

/// Which subvolumes were received as a UUID, `BTRFS_UUID_KEY_RECEIVED_SUBVOL`: their numbers, of eight bytes each.
const RECEIVED: u32 = 252;

/// `BTRFS_ROOT_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1;

/// Where the superblock lies, and in it the UUID and the magic word (`struct btrfs_super_block`).
const SUPERBLOCK: u64 = 0x1_0000;
const SUPERBLOCK_UUID: usize = 0x20;
const SUPERBLOCK_MAGIC: usize = 0x40;
const MAGIC: &[u8] = b"_BHRfS_M";

/// The calls. They only fill the structure that they are given, whose size is part of their number.
mod calls {
    nix::ioctl_readwrite!(search, 0x94, 17, super::Search);
    nix::ioctl_read!(file_system, 0x94, 31, super::FileSystem);
    nix::ioctl_read!(information, 0x94, 60, super::Information);
    nix::ioctl_readwrite!(root_references, 0x94, 61, super::RootReferences);
    nix::ioctl_readwrite!(lookup, 0x94, 62, super::Lookup);
}

/// What is known of a subvolume. The first three tell it from every other one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subvolume {
    /// The UUID of its file system.
    pub file_system: String,
    /// Its number in that, which is never given to another one. `None` of one that a dry run only predicts.
    pub id: Option<u64>,
    /// Its UUID, as btrfs-progs print it. The top-level subvolume of an old file system has none.
    pub uuid: Option<String>,
    /// The UUID of the subvolume that it is a snapshot of.
    pub parent_uuid: Option<String>,
    /// Whether nobody can write to it.
    pub read_only: bool,
    /// What it was received as: the UUID that the stream claimed. Only a whole one has it.
    pub received_uuid: Option<String>,
    /// The generation of its file system in which it was changed last (`ctransid`). A snapshot has that of what it is one of,
    /// until somebody changes it.
    pub changed: u64,
    /// The generation of its file system in which it was made (`otransid`).
    pub made_in: u64,
    /// The generation that the stream claimed, of the sender's file system (`stransid`).
    pub received: u64,
    /// When it was made here (`otime`), by this machine's clock.
    pub made: DateTime<Utc>,
}

/// The number of the top-level subvolume, `BTRFS_FS_TREE_OBJECTID`.
pub(super) const TOP: u64 = 5;

impl Subvolume {
    /// Whether it was received whole as what was sent under this UUID and was of this generation there.
    pub fn is_received_as(&self, sent: &str, generation: u64) -> bool {
        self.read_only && self.received_uuid.as_deref() == Some(sent) && self.received == generation
    }

    /// Whether it is the one that holds all others.
    pub fn is_top_level(&self) -> bool {
        self.id == Some(TOP)
    }
}

/// The subvolume whose root directory is `root`; `None` when no subvolume's root is there, or nothing at all, or
/// only behind a link.
///
/// # Errors
/// When the file system does not answer: a kernel before 4.18.
pub(in crate::host) fn at(root: &Path) -> io::Result<Option<Subvolume>> {
    match open(root)? {
        Some(directory) => of(&directory),
        None => Ok(None),
    }
}

/// The subvolume of which a held directory is the root; `None` when it is none, or was deleted since.
///
/// # Errors
/// See [`at`].
pub(super) fn of(directory: &File) -> io::Result<Option<Subvolume>> {
    if directory.metadata()?.ino() != ROOT_INODE {
        return Ok(None);
    }
    let mut asked = Box::new(Information {
        tree: 0,
        name: [0; NAME],
        parent: 0,
        directory: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        generations: [0; 4],
        times: [[0; 2]; 4],
        reserved: [0; 8],
    });
    #[expect(unsafe_code, reason = "the structure is the one that this call fills")]
    let answer = unsafe { calls::information(directory.as_raw_fd(), &raw mut *asked) };
    match answer {
        Ok(_) => Ok(Some(Subvolume {
            file_system: file_system_of(directory)?,
            id: Some(asked.tree),
            uuid: shown(asked.uuid),
            parent_uuid: shown(asked.parent_uuid),
            read_only: asked.flags & READ_ONLY != 0,
            received_uuid: shown(asked.received_uuid),
            changed: asked.generations[0],
            made_in: asked.generations[1],
            received: asked.generations[2],
            made: moment(asked.times[1]),
        })),
        // Deleted while it was open; or somebody has mounted a file system of another kind there.
        Err(Errno::ENOENT | Errno::ENOTTY) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A moment as the kernel tells it: seconds since 1970, and nanoseconds. An impossible one is the beginning of 1970.
fn moment([seconds, nanoseconds]: [u64; 2]) -> DateTime<Utc> {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    // The second number has 32 bits, and as many of padding.
    let nanoseconds = (nanoseconds & u64::from(u32::MAX)) as u32;
    DateTime::from_timestamp(seconds, nanoseconds).unwrap_or_default()
}

/// The UUID of the btrfs that holds a directory.
///
/// # Errors
/// When the file system does not answer.
pub(super) fn file_system_of(directory: &File) -> io::Result<String> {
    let mut asked =
        Box::new(FileSystem { highest_device: 0, devices: 0, uuid: [0; 16], rest: [0; 124] });
    #[expect(unsafe_code, reason = "the structure is the one that this call fills")]
    unsafe { calls::file_system(directory.as_raw_fd(), &raw mut *asked) }?;
    shown(asked.uuid).ok_or_else(|| io::Error::other("the file system has no UUID"))
}

/// The UUID of the btrfs that lies on a device; `None` when there is no such device, or no btrfs on it.
///
/// # Errors
/// When the device cannot be read.
pub(in crate::host) fn file_system_on(device: &Path) -> io::Result<Option<String>> {
    let device = match File::open(device) {
        Ok(device) => device,
        Err(error) if is_no_device(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut superblock = [0; SUPERBLOCK_MAGIC + MAGIC.len()];
    match device.read_exact_at(&mut superblock, SUPERBLOCK) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (head, magic) = superblock.split_at(SUPERBLOCK_MAGIC);
    let uuid = head[SUPERBLOCK_UUID..].first_chunk().filter(|_| magic == MAGIC);
    Ok(uuid.copied().and_then(shown))
}

/// Whether a device is not there, or is no longer behind its name.
fn is_no_device(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    straight::is_elsewhere(error) || number == Some(libc::ENXIO) || number == Some(libc::ENODEV)
}

/// A UUID in its usual form; `None` when it is all zeros, as one is that was never given.
fn shown(uuid: [u8; 16]) -> Option<String> {
    (uuid != [0; 16]).then(|| uuid_text(uuid))
}

/// A UUID as btrfs-progs print it.
pub fn uuid_text(uuid: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(uuid));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A directory, and never what somebody put in its place or in that of a directory above it; `None` when there is
/// none.
fn open(directory: &Path) -> io::Result<Option<File>> {
    match straight::open(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if straight::is_elsewhere(&error) => Ok(None),
        // Only another file system denies root anything: a user has mounted his own there meanwhile.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// The subvolumes below `above`, a directory of a btrfs, that lie in the same subvolume as that; as paths below
/// it. One that is deleted meanwhile is not among them, and a directory that is gone has none.
///
/// # Errors
/// When the file system does not answer: it is no btrfs, or a kernel before 4.18.
pub(in crate::host) fn nested(above: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(directory) = open(above)? else { return Ok(Vec::new()) };
    Ok(nested_in(&directory)?.into_iter().map(|path| above.join(path)).collect())
}

/// The same below a held directory, as paths relative to it.
pub(super) fn nested_in(directory: &File) -> io::Result<Vec<PathBuf>> {
    let is_root = directory.metadata()?.ino() == ROOT_INODE;
    let mut found = Vec::new();
    let mut asked = Box::new(RootReferences {
        min_tree: 0,
        references: [Reference { tree: 0, directory: 0 }; REFERENCES],
        count: 0,
        align: [0; 7],
    });
    loop {
        #[expect(unsafe_code, reason = "the structure is the one that this call fills")]
        let answer = unsafe { calls::root_references(directory.as_raw_fd(), &raw mut *asked) };
        // There are more than fit, and the first ones are there all the same.
        let more = match answer {
            Ok(_) => false,
            Err(Errno::EOVERFLOW) => true,
            Err(error) => return Err(error.into()),
        };
        for reference in asked.references.iter().take(usize::from(asked.count)) {
            match path_of(directory, *reference) {
                Ok(path) => found.push(path),
                // It was deleted since it was listed.
                Err(Errno::ENOENT) => {}
                // On the way up from it, the root of the subvolume came before the directory.
                Err(Errno::EACCES) if !is_root => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !more {
            return Ok(found);
        }
    }
}

/// How many subvolumes of the file system of a directory were received as this UUID, wherever they lie.
///
/// # Errors
/// When the file system does not answer: it is no btrfs, or whoever asks is not root.
pub(in crate::host) fn received_as(directory: &Path, uuid: [u8; 16]) -> io::Result<usize> {
    let Some(directory) = open(directory)? else { return Ok(0) };
    let [object, offset] = [&uuid[..8], &uuid[8..]]
        .map(|half| half.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)));
    let mut asked = Box::new(Search {
        tree: UUIDS,
        objects: [object; 2],
        offsets: [offset; 2],
        generations: [0, u64::MAX],
        kinds: [RECEIVED; 2],
        items: 1,
        unused: [0; 9],
        found: Found { generation: 0, object: 0, offset: 0, kind: 0, length: 0 },
        rest: [0; 3960],
    });
    #[expect(unsafe_code, reason = "the structure is the one that this call fills")]
    unsafe { calls::search(directory.as_raw_fd(), &raw mut *asked) }?;
    let found = &asked.found;
    let is_it = asked.items == 1
        && [found.object, found.offset] == [object, offset]
        && found.kind == RECEIVED;
    Ok(if is_it { found.length as usize / size_of::<u64>() } else { 0 })
}

/// All subvolumes beneath the root of a held one, in whichever of them they lie, with their paths beneath it. One that
/// is deleted or moved meanwhile may not be among them, and none whose path is too long to be followed.
///
/// # Errors
/// When the file system does not answer.
pub(super) fn all_beneath(top: &File) -> io::Result<Vec<(PathBuf, Subvolume)>> {
    let mut found = Vec::new();
    // No deeper than a path can be long, whoever nests them.
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = match straight::open_beneath(top, &path, flags) {
            Ok(directory) => directory,
            Err(error) if straight::is_elsewhere(&error) => continue,
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => continue,
            Err(error) => return Err(error),
        };
        let Some(subvolume) = of(&directory)? else { continue };
        open.extend(nested_in(&directory)?.into_iter().map(|nested| path.join(nested)));
        if !path.as_os_str().is_empty() {
            found.push((path, subvolume));
        }
    }
    Ok(found)
}

fn path_of(directory: &File, reference: Reference) -> Result<PathBuf, Errno> {
    let mut lookup = Box::new(Lookup {
        directory: reference.directory,
        tree: reference.tree,
        name: [0; NAME],
        path: [0; PATH],
    });
    #[expect(unsafe_code, reason = "the structure is the one that this call fills")]
    unsafe { calls::lookup(directory.as_raw_fd(), &raw mut *lookup) }?;
    // The path ends with a slash where there is one.
    Ok(Path::new(text(&lookup.path)).join(text(&lookup.name)))
}

fn text(bytes: &[u8]) -> &OsStr {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    OsStr::from_bytes(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_large_as_the_kernel_says() {
        assert_eq!(size_of::<Search>(), 4096);
        assert_eq!(std::mem::offset_of!(Search, found), 104);
        assert_eq!(size_of::<RootReferences>(), 4096);
        assert_eq!(size_of::<Lookup>(), 4096);
        assert_eq!(size_of::<Information>(), 504);
        assert_eq!(size_of::<FileSystem>(), 1024);
        assert_eq!(std::mem::offset_of!(Information, uuid), 296);
    }

    #[test]
    fn a_uuid_has_its_usual_form_and_zeros_are_none() {
        let uuid: [u8; 16] = std::array::from_fn(|n| u8::try_from(n).unwrap() * 17);
        assert_eq!(shown(uuid).as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        assert_eq!(shown([0; 16]), None);
    }

    #[test]
    fn what_is_gone_or_replaced_is_no_subvolume() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, file, link) =
            (dir.path().join("absent"), dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        for path in [&absent, &file, &link] {
            assert_eq!(at(path).unwrap(), None, "{path:?}");
            assert_eq!(nested(path).unwrap(), [] as [PathBuf; 0], "{path:?}");
        }
        assert_eq!(at(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_device_is_known_by_its_superblock() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        assert_eq!(file_system_on(&image).unwrap(), None);
        std::fs::write(&image, "short").unwrap();
        assert_eq!(file_system_on(&image).unwrap(), None);
        let mut bytes = vec![0; 0x1_0000 + 0x1000];
        bytes[0x1_0020..0x1_0030].copy_from_slice(&[0x11; 16]);
        std::fs::write(&image, &bytes).unwrap();
        assert_eq!(file_system_on(&image).unwrap(), None);
        bytes[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
        std::fs::write(&image, &bytes).unwrap();
        let uuid = "11111111-1111-1111-1111-111111111111";
        assert_eq!(file_system_on(&image).unwrap().as_deref(), Some(uuid));
    }

    #[test]
    fn another_file_system_is_an_error() {
        assert!(nested(Path::new("/proc")).is_err());
    }
}
