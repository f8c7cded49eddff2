//! Whether a directory takes in what a program writes to work, found out by trying.
//!
//! Figures do not tell: a file system may be out of inodes, keep its last blocks for root, or count as free what
//! it cannot give. What is written here has no name, or loses it at once, so nothing is left behind whatever
//! happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};

/// Files that are made at once: borg 1.2 has ten or so for its locks, its configuration and its self test.
const FILES: usize = 16;
/// Bytes that are claimed; borg's self test writes some hundred kilobytes below `TMPDIR`.
const BYTES: usize = 1 << 20;

/// Tries it.
///
/// # Errors
/// Why the directory does not take them in.
pub fn try_room(directory: &Path) -> io::Result<()> {
    let mut files = Vec::with_capacity(FILES);
    for number in 0..FILES {
        files.push(unnamed(directory, number)?);
    }
    claim(&mut files[0])
}

fn claim(file: &mut File) -> io::Result<()> {
    match fallocate(&*file, FallocateFlags::empty(), 0, BYTES as i64) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            file.write_all(&vec![0; BYTES])?;
            file.sync_data()
        }
        Err(error) => Err(error.into()),
    }
}

/// A file without a name; where the file system has none, one whose name is gone when this answers.
fn unnamed(directory: &Path, number: usize) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    let flags = (OFlag::O_TMPFILE | OFlag::O_CLOEXEC).bits();
    match options.clone().custom_flags(flags).open(directory) {
        Err(error)
            if matches!(
                Errno::from_raw(error.raw_os_error().unwrap_or(0)),
                Errno::EOPNOTSUPP | Errno::EISDIR
            ) => {}
        opened => return opened,
    }
    let path = directory.join(format!(".room.{}.{number}", std::process::id()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_room_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        try_room(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(try_room(&dir.path().join("missing")).is_err());
    }
}
