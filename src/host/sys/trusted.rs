//! Files that decide what root does: they must not be changeable by anybody else.
//!
//! A file is as safe as the least safe directory on the way to it, links included. So the path is walked
//! component by component, as the kernel does it: each directory, link and the object itself must belong to
//! root or to us, and must not be writable by group or others. In a sticky directory (`/tmp`) that anybody
//! may write, what belongs to us cannot be replaced, so such a directory is passed. Since nobody else can
//! change any step of the walk, its result stays true, and what is read is read from the descriptor that was
//! checked.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::way;
use crate::model::shown::Show;

use nix::fcntl::OFlag;

/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustKind {
    /// A regular file.
    File,
    /// A regular file that also nobody else may read: it holds a secret.
    Secret,
    /// A regular file with an execute permission.
    Program,
    /// A directory on the way to something: in a sticky one (`/tmp`), what is ours cannot be replaced.
    Passage,
    /// A directory in which nobody else may put anything.
    Directory,
}

/// Why something is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is missing or cannot be looked at.
    #[error("cannot read {}", path.shown())]
    Io {
        /// The file or the directory on the way.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {uid}, who could change it", path.shown())]
    Owner {
        /// The file, link or directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Its permissions let others write.
    #[error("{} may be changed by others (mode {mode:04o})", path.shown())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds a secret and its permissions let others read.
    #[error("{} holds a secret and may be read by others (mode {mode:04o})", path.shown())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is something else than what is wanted there.
    #[error("{} is not {wanted}", path.shown())]
    Kind {
        /// The object.
        path: PathBuf,
        /// What it should be, with its article.
        wanted: &'static str,
    },
}

impl TrustError {
    /// What to do about it, as a command where there is one.
    pub fn hint(&self) -> Option<String> {
        let quoted = |path: &Path| crate::host::spec::quote(path);
        match self {
            TrustError::Io { .. } => None,
            TrustError::Owner { path, .. } => Some(format!("chown root {}", quoted(path))),
            TrustError::Writable { path, .. } => Some(format!("chmod go-w {}", quoted(path))),
            TrustError::Readable { path, .. } => Some(format!("chmod go-rwx {}", quoted(path))),
            TrustError::Kind { path, wanted } if *wanted == PROGRAM => {
                Some(format!("chmod u+x {}", quoted(path)))
            }
            TrustError::Kind { .. } => None,
        }
    }

    /// Whether there is simply nothing at the path, or at a directory on the way to it.
    pub fn is_missing(&self) -> bool {
        matches!(self, TrustError::Io { source, .. } if super::straight::is_absent(source))
    }

    /// The object that is not trusted.
    pub fn path(&self) -> &Path {
        match self {
            TrustError::Io { path, .. }
            | TrustError::Owner { path, .. }
            | TrustError::Writable { path, .. }
            | TrustError::Readable { path, .. }
            | TrustError::Kind { path, .. } => path,
        }
    }
}

const PROGRAM: &str = "an executable file";

/// Reads a file that only root and we can change; with `private`, that also nobody else can read.
///
/// # Errors
/// See [`TrustError`]; nothing is read then.
pub fn read_trusted(path: &Path, private: bool) -> Result<Vec<u8>, TrustError> {
    let kind = if private { TrustKind::Secret } else { TrustKind::File };
    let (mut file, path) = open_trusted(path, kind)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|source| TrustError::Io { path, source })?;
    Ok(content)
}

/// Checks a file, program or directory and everything on the way to it. Answers with its path without links.
///
/// # Errors
/// See [`TrustError`].
pub fn check_trusted(path: &Path, kind: TrustKind) -> Result<PathBuf, TrustError> {
    let (resolved, found) = walk(path)?;
    check_object(&resolved, &found, kind)?;
    Ok(resolved)
}

/// Opens what the walk found and checks the open descriptor, not the name, so that there is no gap between
/// the check and the reading.
fn open_trusted(path: &Path, kind: TrustKind) -> Result<(File, PathBuf), TrustError> {
    let resolved = check_trusted(path, kind)?;
    let failed = |source| TrustError::Io { path: resolved.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits())
        .open(&resolved)
        .map_err(failed)?;
    check_object(&resolved, &file.metadata().map_err(failed)?, kind)?;
    Ok((file, resolved))
}

/// Follows a path as the kernel would and checks each directory and link that it passes. Answers with the
/// end of it, which is not a link and is not checked yet.
fn walk(path: &Path) -> Result<(PathBuf, Metadata), TrustError> {
    let failed = |path: &Path, source| TrustError::Io { path: path.to_owned(), source };
    way::follow(path, &|_| true, failed, &mut |path, found| {
        match found.file_type().is_symlink() {
            // The permission bits of a link mean nothing, but its owner could replace it in a sticky directory.
            true => check_owner(path, found),
            false => check_object(path, found, TrustKind::Passage),
        }
    })
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), TrustError> {
    let uid = found.uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        Ok(())
    } else {
        Err(TrustError::Owner { path: path.to_owned(), uid })
    }
}

fn check_object(path: &Path, found: &Metadata, kind: TrustKind) -> Result<(), TrustError> {
    let mode = found.mode() & 0o7777;
    let (fits, wanted) = match kind {
        TrustKind::Passage | TrustKind::Directory => (found.is_dir(), "a directory"),
        TrustKind::File | TrustKind::Secret => (found.is_file(), "a regular file"),
        TrustKind::Program => (found.is_file() && mode & 0o111 != 0, PROGRAM),
    };
    if !fits {
        return Err(TrustError::Kind { path: path.to_owned(), wanted });
    }
    check_owner(path, found)?;
    let sticky = kind == TrustKind::Passage && mode & 0o1000 != 0;
    // A write permission in an access control list shows in the group's bits, so it is seen here too.
    if mode & 0o022 != 0 && !sticky {
        return Err(TrustError::Writable { path: path.to_owned(), mode });
    }
    if kind == TrustKind::Secret && mode & 0o044 != 0 {
        return Err(TrustError::Readable { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn file(dir: &Path, name: &str, bits: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, "content").unwrap();
        mode(&path, bits);
        path
    }

    #[test]
    fn modes_decide_and_the_remedy_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_trusted(&file(dir.path(), "a", 0o644), false).unwrap(), b"content");
        assert_eq!(read_trusted(&file(dir.path(), "b", 0o400), true).unwrap(), b"content");
        for bits in [0o666, 0o664, 0o620, 0o602] {
            let path = file(dir.path(), "bad", bits);
            let error = read_trusted(&path, false).unwrap_err();
            assert!(matches!(error, TrustError::Writable { mode, .. } if mode == bits));
            assert_eq!(error.hint().unwrap(), format!("chmod go-w {}", path.shown()));
        }
        for bits in [0o640, 0o604] {
            let error = read_trusted(&file(dir.path(), "open", bits), true).unwrap_err();
            assert!(matches!(error, TrustError::Readable { .. }), "{error}");
        }
        let missing = read_trusted(&dir.path().join("missing"), false).unwrap_err();
        assert!(matches!(missing, TrustError::Io { .. }) && missing.is_missing());
        assert!(matches!(read_trusted(dir.path(), false), Err(TrustError::Kind { .. })));
    }

    #[test]
    fn a_directory_on_the_way_that_others_may_write_is_refused_unless_sticky() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir_all(open.join("inner")).unwrap();
        let path = file(&open.join("inner"), "config", 0o600);
        for bits in [0o777, 0o775] {
            mode(&open, bits);
            let error = read_trusted(&path, false).unwrap_err();
            assert!(
                matches!(&error, TrustError::Writable { path, .. } if *path == open),
                "{error}"
            );
        }
        mode(&open, 0o1777);
        read_trusted(&path, false).unwrap();
    }

    #[test]
    fn a_link_is_as_safe_as_every_step_of_its_chain() {
        let dir = tempfile::tempdir().unwrap();
        let (safe, loose) = (dir.path().join("safe"), dir.path().join("loose"));
        fs::create_dir(&safe).unwrap();
        fs::create_dir(&loose).unwrap();
        let target = file(&safe, "target", 0o600);
        symlink("../safe/target", loose.join("middle")).unwrap();
        let link = dir.path().join("link");
        symlink(loose.join("middle"), &link).unwrap();
        assert_eq!(check_trusted(&link, TrustKind::File).unwrap(), target.canonicalize().unwrap());
        // The link and its final target are both in safe places; only the link between them is not.
        mode(&loose, 0o777);
        assert!(matches!(read_trusted(&link, false), Err(TrustError::Writable { .. })));
        let round = dir.path().join("round");
        symlink(&round, &round).unwrap();
        assert!(matches!(read_trusted(&round, false), Err(TrustError::Io { .. })));
    }

    #[test]
    fn programs_must_be_executable_and_directories_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "hook", 0o644);
        let error = check_trusted(&path, TrustKind::Program).unwrap_err();
        assert_eq!(error.hint().unwrap(), format!("chmod u+x {}", path.shown()));
        mode(&path, 0o755);
        check_trusted(&path, TrustKind::Program).unwrap();
        assert!(check_trusted(&path, TrustKind::Directory).is_err());
        check_trusted(dir.path(), TrustKind::Directory).unwrap();
        // Nobody can replace what is ours there, and anybody can put something beside it.
        mode(dir.path(), 0o1777);
        check_trusted(dir.path(), TrustKind::Passage).unwrap();
        assert!(check_trusted(dir.path(), TrustKind::Directory).is_err());
    }

    #[test]
    fn what_belongs_to_others_is_refused_even_in_a_sticky_directory() {
        if !crate::host::sys::may_as_root("giving files away") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o1777);
        let path = file(dir.path(), "theirs", 0o600);
        chown(&path, Some(1000), None).unwrap();
        assert!(matches!(read_trusted(&path, false), Err(TrustError::Owner { uid: 1000, .. })));
        let own = file(dir.path(), "own", 0o600);
        let link = dir.path().join("their-link");
        symlink(&own, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(1000), None).unwrap();
        assert!(matches!(read_trusted(&link, false), Err(TrustError::Owner { uid: 1000, .. })));
    }

    #[test]
    fn a_file_that_is_swapped_while_it_is_read_is_never_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let good = file(dir.path(), "good", 0o600);
        let evil = dir.path().join("evil");
        fs::write(&evil, "evil").unwrap();
        mode(&evil, 0o666);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let next = dir.path().join("next");
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for source in [&good, &evil] {
                        let _ = fs::remove_file(&next);
                        let _ = fs::hard_link(source, &next);
                        let _ = fs::rename(&next, &path);
                        // Renaming between two names of one file does nothing, so the old name is dropped.
                        let _ = fs::remove_file(&path);
                        let _ = fs::hard_link(source, &path);
                    }
                }
            });
            let mut read = 0;
            let begun = std::time::Instant::now();
            let past = |seconds| begun.elapsed() >= std::time::Duration::from_secs(seconds);
            while !past(1) || (read == 0 && !past(60)) {
                if let Ok(content) = read_trusted(&path, false) {
                    read += 1;
                    if content != b"content" {
                        stop.store(true, std::sync::atomic::Ordering::Relaxed);
                        panic!("read the file that anybody may write");
                    }
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(read > 0);
        });
    }
}
