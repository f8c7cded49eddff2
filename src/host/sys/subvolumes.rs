//! Which subvolumes lie in a btrfs subvolume, asked of the kernel itself.
//!
//! `btrfs subvolume list` prints one subvolume a line, and everybody who may make a directory may make a
//! subvolume with a line break in its name. The two calls used here (linux/btrfs.h, since 4.18) have no such
//! trouble.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The inode of a subvolume's root directory, `BTRFS_FIRST_FREE_OBJECTID`.
const ROOT: u64 = 256;
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

/// The two calls. They only fill the structure that they are given, whose size is part of their number.
mod calls {
    nix::ioctl_readwrite!(root_references, 0x94, 61, super::RootReferences);
    nix::ioctl_readwrite!(lookup, 0x94, 62, super::Lookup);
}

/// The subvolumes below `above`, a directory of a btrfs, that lie in the same subvolume as that; as paths below
/// it.
///
/// # Errors
/// When the file system does not answer: it is no btrfs, or a kernel before 4.18.
pub(in crate::host) fn nested(above: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = File::open(above)?;
    let is_root = directory.metadata()?.ino() == ROOT;
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
            match path_of(&directory, *reference) {
                Ok(path) => found.push(above.join(path)),
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

fn path_of(directory: &File, reference: Reference) -> Result<PathBuf, Errno> {
    let mut lookup = Box::new(Lookup {
        directory: reference.directory,
        tree: reference.tree,
        name: [0; NAME],
        path: [0; PATH],
    });
    #[expect(unsafe_code, reason = "the structure is the one that this call fills")]
    unsafe {
        calls::lookup(directory.as_raw_fd(), &raw mut *lookup)?;
    }
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
        assert_eq!(size_of::<RootReferences>(), 4096);
        assert_eq!(size_of::<Lookup>(), 4096);
    }

    #[test]
    fn another_file_system_is_an_error() {
        assert!(nested(Path::new("/proc")).is_err());
    }
}
