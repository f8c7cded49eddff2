//! A path followed as the kernel would, one name at a time, with every directory and link that it passes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{identity_of, straight};
use crate::model::undo::Identity;

/// How a path leads to what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The links that are followed, in that order, each with its own identity.
    pub links: Vec<(PathBuf, Identity)>,
    /// What is at the end; `None` when nothing is, or it was not to be looked at.
    pub end: Option<Identity>,
}

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// Follows a path and shows each directory and link on the way, but not its end. Answers with the end, which is
/// not a link. Before a name is looked at, `may_look` is asked.
///
/// # Errors
/// What `failed` makes of a name that cannot be looked at, or is not to be (`WouldBlock`), and what `pass` refuses.
pub(super) fn follow<E>(
    path: &Path,
    may_look: &dyn Fn(&Path) -> bool,
    failed: impl Fn(&Path, io::Error) -> E,
    pass: &mut dyn FnMut(&Path, &Metadata) -> Result<(), E>,
) -> Result<(PathBuf, Metadata), E> {
    let look = |path: &Path| match may_look(path) {
        true => path.symlink_metadata().map_err(|source| failed(path, source)),
        false => Err(failed(path, io::ErrorKind::WouldBlock.into())),
    };
    let absolute = std::path::absolute(path).map_err(|source| failed(path, source))?;
    let mut ahead = steps(&absolute);
    let mut here = PathBuf::from("/");
    let mut found = look(&here)?;
    let mut links = 0;
    while let Some(step) = ahead.pop_front() {
        pass(&here, &found)?;
        if step == ".." {
            here.pop();
            found = look(&here)?;
            continue;
        }
        let next = here.join(&step);
        let there = look(&next)?;
        if !there.file_type().is_symlink() {
            (here, found) = (next, there);
            continue;
        }
        pass(&next, &there)?;
        links += 1;
        if links > MOST_LINKS {
            return Err(failed(&next, io::Error::from_raw_os_error(nix::libc::ELOOP)));
        }
        let target = next.read_link().map_err(|source| failed(&next, source))?;
        if target.is_absolute() {
            here = PathBuf::from("/");
            found = look(&here)?;
        }
        for step in steps(&target).into_iter().rev() {
            ahead.push_front(step);
        }
    }
    Ok((here, found))
}

/// The components of a path that lead anywhere.
fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// How a path leads to what it leads to, as far as each name on the way may be looked at.
///
/// # Errors
/// When something on the way cannot be looked at, or links lead round in a circle.
pub(in crate::host) fn way(path: &Path, may_look: &dyn Fn(&Path) -> bool) -> io::Result<Way> {
    let mut links = Vec::new();
    let end = follow(path, may_look, |_, error| error, &mut |path, found| {
        if found.file_type().is_symlink() {
            links.push((path.to_owned(), identity_of(found)));
        }
        Ok(())
    });
    match end {
        Ok((_, found)) => Ok(Way { links, end: Some(identity_of(&found)) }),
        Err(error) if straight::is_absent(&error) || error.kind() == io::ErrorKind::WouldBlock => {
            Ok(Way { links, end: None })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn own(path: &Path) -> Identity {
        let found = path.symlink_metadata().unwrap();
        Identity::Inode { device: found.dev(), inode: found.ino() }
    }

    fn way(path: &Path) -> io::Result<Way> {
        super::way(path, &|_| true)
    }

    #[test]
    fn each_link_on_the_way_is_told_also_where_the_last_one_dangles() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/inner")).unwrap();
        symlink("real", root.join("middle")).unwrap();
        symlink(root.join("middle/inner"), root.join("first")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let link = |name: &str| (root.join(name), own(&root.join(name)));

        let plain = way(&root.join("real/inner")).unwrap();
        assert_eq!(plain, Way { links: vec![], end: Some(own(&root.join("real/inner"))) });
        let led = way(&root.join("first")).unwrap();
        assert_eq!(led, Way { links: vec![link("first"), link("middle")], end: plain.end.clone() });
        assert_eq!(way(&root.join("middle/../real/inner")).unwrap().end, plain.end);
        let led = way(&root.join("dangling/x")).unwrap();
        assert_eq!(led, Way { links: vec![link("dangling")], end: None });
        assert_eq!(way(&root.join("absent/x")).unwrap(), Way { links: vec![], end: None });
        assert!(way(&root.join("round")).is_err());

        // Also where a link leads, nothing is looked at that is not to be.
        let looked = std::cell::RefCell::new(Vec::new());
        let led = super::way(&root.join("first"), &|path| {
            let may_look = !path.starts_with(root.join("real"));
            looked.borrow_mut().extend(may_look.then(|| path.to_owned()));
            may_look
        });
        let links = vec![link("first"), link("middle")];
        assert_eq!(led.unwrap(), Way { links, end: None });
        assert_eq!(looked.borrow().last(), Some(&root.join("middle")));
    }
}
