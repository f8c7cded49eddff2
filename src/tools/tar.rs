//! GNU tar, which carries files from one place to another with all that is to be known of them, and cat for one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::{CommandSpec, Effect, StdoutMode, Tool};

/// GNU tar.
const TAR: Tool = Tool::Known { name: "tar", hint: "install it (Debian: apt install tar)" };

/// cat of the coreutils.
const CAT: Tool = Tool::Known { name: "cat", hint: "install it (Debian: apt install coreutils)" };

/// Owners by number, and everything that is attached to a file.
const FAITHFUL: &[&str] = &["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"];

/// What is carried, as paths that begin with `./`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Directories without what is in them.
    pub alone: Vec<PathBuf>,
    /// Files and directories with what is in them.
    pub whole: Vec<PathBuf>,
}

/// Writes what lies below a directory to standard output.
pub fn pack(below: &Path, what: &Members, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::lines(TAR, stall_limit)
        .args(["--create", "--file=-", "--sparse"])
        .args(FAITHFUL.iter().copied())
        .arg(directory(below));
    if !what.alone.is_empty() {
        spec = spec.arg("--no-recursion").args(what.alone.iter().cloned());
    }
    // Before nothing, it would be an error.
    match what.whole.as_slice() {
        [] => spec,
        whole => spec.arg("--recursion").args(whole.iter().cloned()),
    }
}

/// Lays out below a directory what comes from standard input.
pub fn unpack(below: &Path, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::new(TAR, Effect::Mutate)
        .args(["--extract", "--file=-", "--same-owner", "--preserve-permissions"])
        // With the last, it reads on to the end of its input, beyond that of the archive: who feeds it would otherwise lose
        // it now and then while it still has padding to hand over.
        .args(["--delay-directory-restore", "--ignore-zeros"])
        .args(FAITHFUL.iter().copied())
        .arg(directory(below));
    spec.stall_limit = Some(stall_limit);
    spec
}

/// Writes a file to our own standard output.
pub fn print(file: &Path, stall_limit: Duration) -> CommandSpec {
    let mut spec = CommandSpec::new(CAT, Effect::Inspect).arg("--").arg(file);
    spec.stdout = StdoutMode::PassOn;
    spec.stall_limit = Some(stall_limit);
    spec
}

fn directory(path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from("--directory=");
    option.push(path);
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let limit = Duration::from_secs(60);
        let what = Members { alone: vec!["./a".into()], whole: vec!["./a/-b".into()] };
        let packed = pack(Path::new("/srv/copy"), &what, limit);
        assert_eq!(
            packed.display(),
            "tar --create --file=- --sparse --numeric-owner --xattrs '--xattrs-include=*' --acls \
             --directory=/srv/copy --no-recursion ./a --recursion ./a/-b"
        );
        assert_eq!(packed.effect, Effect::Inspect);
        let alone = Members { whole: Vec::new(), ..what };
        assert!(
            pack(Path::new("/srv/copy"), &alone, limit).display().ends_with("--no-recursion ./a")
        );
        let unpacked = unpack(Path::new("/to"), limit);
        assert_eq!(
            unpacked.display(),
            "tar --extract --file=- --same-owner --preserve-permissions --delay-directory-restore --ignore-zeros \
             --numeric-owner --xattrs '--xattrs-include=*' --acls --directory=/to"
        );
        assert_eq!(unpacked.effect, Effect::Mutate);
        let printed = print(Path::new("/srv/copy/-x"), limit);
        assert_eq!(
            (printed.display().as_str(), printed.stdout),
            ("cat -- /srv/copy/-x", StdoutMode::PassOn)
        );
    }
}
