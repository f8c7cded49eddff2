//! Small programs that every machine has, as they are asked to look at files of another one and to change them there:
//! those of the GNU coreutils, and find and xargs of the findutils.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::{CommandSpec, Effect, Input, Tool};

/// The hint for one that is missing on this machine; all of them are asked on others alone.
const HINT: &str = "install it (Debian: apt install coreutils findutils)";

/// The kind of file in a mode, and a directory, a link and a file as such (`S_IFMT`, `S_IFDIR`, `S_IFLNK`, `S_IFREG`).
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const FILE: u32 = 0o100_000;

/// The magic number of btrfs as `stat` tells it (`BTRFS_SUPER_MAGIC`).
const BTRFS: &str = "9123683e";

/// The inode of the root of every subvolume of a btrfs (`BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_INODE: u64 = 256;

fn looks(name: &'static str) -> CommandSpec {
    CommandSpec::new(Tool::Known { name, hint: HINT }, Effect::Inspect)
}

fn changes(name: &'static str) -> CommandSpec {
    CommandSpec::new(Tool::Known { name, hint: HINT }, Effect::Mutate)
}

/// What is at paths; for each that is there what [`Stat::parse`] reads, ended by a zero.
pub fn stat(paths: &[&Path]) -> CommandSpec {
    looks("stat").args(["--printf", "%f %u %n\\0", "--"]).args(paths)
}

/// What file system holds a path, as [`FileSystem::parse`] reads it.
pub fn file_system(path: &Path) -> CommandSpec {
    looks("stat").args(["-f", "-c", "%t %i", "--"]).arg(path)
}

/// What is in a directory, as [`listed`] reads it.
pub fn list(directory: &Path) -> CommandSpec {
    let one = ["-mindepth", "1", "-maxdepth", "1", "-printf", "%i %y %P\\0"];
    looks("find").arg(directory).args(one)
}

/// What is in directories, as [`listed`] reads it, of what has such a name (a pattern of the shell's) and was not written to
/// for so many minutes by that machine's clock: each with its whole path.
pub fn list_old(directories: &[&Path], pattern: &str, minutes: u32) -> CommandSpec {
    let age = format!("+{minutes}");
    let one = ["-mindepth", "1", "-maxdepth", "1", "-name", pattern, "-mmin", &age];
    looks("find").args(directories).args(one).args(["-printf", "%i %y %p\\0"])
}

/// Prints a file.
pub fn print(file: &Path) -> CommandSpec {
    looks("cat").arg("--").arg(file)
}

/// Writes standard input to a file, and that to the disk.
pub fn write(to: &Path, content: Vec<u8>) -> CommandSpec {
    let mut of = OsString::from("of=");
    of.push(to);
    CommandSpec { input: Input::Bytes(content), ..changes("dd").arg(of).arg("conv=fsync") }
}

/// Gives a file another name, in the place of what has that.
pub fn replace(from: &Path, to: &Path) -> CommandSpec {
    changes("mv").args(["-T", "-f", "--"]).args([from, to])
}

/// Gives something another name that nothing has. Whether it has it then, a look must tell.
pub fn rename(from: &Path, to: &Path) -> CommandSpec {
    changes("mv").args(["-T", "-n", "--"]).args([from, to])
}

/// Removes a file, if it is there.
pub fn remove(file: &Path) -> CommandSpec {
    changes("rm").args(["-f", "--"]).arg(file)
}

/// Makes a directory that nobody else can go into, if it is missing.
pub fn make_directory(path: &Path) -> CommandSpec {
    changes("mkdir").args(["-p", "-m", "0700", "--"]).arg(path)
}

/// Makes a directory that nobody else can go into, and that was not there.
pub fn make_new_directory(path: &Path) -> CommandSpec {
    changes("mkdir").args(["-m", "0700", "--"]).arg(path)
}

/// Removes a directory in which nothing is.
pub fn remove_directory(path: &Path) -> CommandSpec {
    changes("rmdir").arg("--").arg(path)
}

/// Waits until the file system of a path is on its disk. Unlike `btrfs filesystem sync`, it tells of data that was lost.
pub fn flush(path: &Path) -> CommandSpec {
    changes("sync").args(["-f", "--"]).arg(path)
}

/// Waits until the names in a directory are on its disk.
pub fn flush_directory(path: &Path) -> CommandSpec {
    changes("sync").arg("--").arg(path)
}

/// What is in a tree, [`FOUND`] for each, ended by a zero.
pub fn find(root: &Path, stall_limit: Duration) -> CommandSpec {
    let mut spec = looks("find").arg(root).args(["-xdev", "-printf", FOUND]);
    spec.stall_limit = Some(stall_limit);
    spec
}

/// Kind, size, time of the last change of the content, mode, owner, group, and the path below the root.
const FOUND: &str = "%y %s %T@ %m %U %G %P\\0";

/// Runs commands one after the other, whatever becomes of each: the words of one command, and what it reads. The words of
/// the others come by its standard input, as they are.
pub fn all(commands: &[Vec<OsString>]) -> (Vec<OsString>, Input) {
    // xargs takes so many words at a time, and with -x never fewer, which would make words of one command another one:
    // `env` is told one thing again and again until a command has as many.
    const FILLER: &str = "LC_ALL=C";
    let width = commands.iter().map(Vec::len).max().unwrap_or_default();
    let mut words: Vec<u8> = Vec::new();
    for command in commands {
        let filler = std::iter::repeat_n(OsString::from(FILLER), width - command.len());
        for word in filler.chain(command.iter().cloned()) {
            words.extend(word.as_encoded_bytes());
            words.push(0);
        }
    }
    let width = width.to_string();
    let xargs = ["xargs", "-0", "-x", "-n", &width, "env"].map(OsString::from).into();
    (xargs, Input::Bytes(words))
}

/// The same, with a mark before what the first of them prints, and one behind what each of them does.
pub fn all_marked(commands: &[Vec<OsString>], mark: &str) -> (Vec<OsString>, Input) {
    let marking: Vec<OsString> = vec!["echo".into(), mark.into()];
    let each = commands.iter().flat_map(|command| [command.clone(), marking.clone()]);
    all(&[marking.clone()].into_iter().chain(each).collect::<Vec<_>>())
}

/// What each of some commands has printed.
///
/// # Errors
/// When the marks of [`all_marked`] are not where they belong.
pub fn parts<'o>(printed: &'o [u8], mark: &str, count: usize) -> Option<Vec<&'o [u8]>> {
    let mark = [mark.as_bytes(), b"\n"].concat();
    let mut rest = printed.strip_prefix(&*mark)?;
    let mut parts = Vec::new();
    while let Some(end) = rest.windows(mark.len()).position(|window| window == mark) {
        parts.push(&rest[..end]);
        rest = &rest[end + mark.len()..];
    }
    (rest.is_empty() && parts.len() == count).then_some(parts)
}

/// Takes words apart into as many as a command line takes, that of a shell too, which is given all of them as one word
/// (`MAX_ARG_STRLEN` of Linux, 128 KiB), and quoted. What is said of each of them is not more than is kept of it.
pub fn chunks<T: AsRef<std::ffi::OsStr>>(words: &[T]) -> Vec<&[T]> {
    const BYTES: usize = 12 << 10;
    const COUNT: usize = 200;
    let (mut chunks, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, word) in words.iter().enumerate() {
        let length = word.as_ref().len() + 1;
        if at > begin && (bytes + length > BYTES || at - begin == COUNT) {
            chunks.push(&words[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += length;
    }
    chunks.extend(Some(&words[begin..]).filter(|rest| !rest.is_empty()));
    chunks
}

/// What xargs exits with when a command of it failed (xargs(1)).
pub const ONE_FAILED: i32 = 123;

/// What is at a path, not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    mode: u32,
    /// The owner's number.
    pub uid: u32,
}

impl Stat {
    /// Reads what [`stat`] says of one, and which path it is of.
    pub fn parse(line: &[u8]) -> Option<(Stat, PathBuf)> {
        use std::os::unix::ffi::OsStrExt;
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (mode, uid, path) = (words.next()?, words.next()?, words.next()?);
        let mode = u32::from_str_radix(str::from_utf8(mode).ok()?, 16).ok()?;
        let uid = str::from_utf8(uid).ok()?.parse().ok()?;
        Some((Stat { mode, uid }, std::ffi::OsStr::from_bytes(path).into()))
    }

    /// Its permission bits.
    pub fn permissions(self) -> u32 {
        self.mode & 0o7777
    }

    /// Whether it is a directory.
    pub fn is_directory(self) -> bool {
        self.mode & KIND == DIRECTORY
    }

    /// Whether it is a symbolic link.
    pub fn is_link(self) -> bool {
        self.mode & KIND == LINK
    }

    /// Whether it is a regular file.
    pub fn is_file(self) -> bool {
        self.mode & KIND == FILE
    }
}

/// Far more subvolumes than a btrfs has, and far less than another UUID leaves.
const SUBVOLUMES: u64 = 1 << 32;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    is_btrfs: bool,
    id: u64,
}

impl FileSystem {
    /// Reads what [`file_system`] says.
    pub fn parse(printed: &[u8]) -> Option<FileSystem> {
        let (kind, id) = str::from_utf8(printed.trim_ascii()).ok()?.split_once(' ')?;
        Some(FileSystem { is_btrfs: kind == BTRFS, id: u64::from_str_radix(id, 16).ok()? })
    }

    /// Whether it is a btrfs.
    pub fn is_btrfs(self) -> bool {
        self.is_btrfs
    }

    /// Its number, of a btrfs.
    pub fn id(self) -> Option<u64> {
        self.is_btrfs.then_some(self.id)
    }

    /// Its number, whatever it is.
    pub fn number(self) -> u64 {
        self.id
    }

    /// Whether it is the btrfs that had this number, at whichever of its subvolumes.
    pub fn has_id(self, id: u64) -> bool {
        self.is_btrfs && self.id ^ id < SUBVOLUMES
    }

    /// Whether it is the btrfs of this UUID. The number of a btrfs is both halves of its UUID and the number of the
    /// subvolume, one laid over the other (`btrfs_statfs` of Linux).
    pub fn is_of(self, uuid: [u8; 16]) -> bool {
        let [first, second] = [0, 8].map(|at| {
            let half = uuid[at..at + 8].iter();
            half.fold(0, |number, byte| number << 8 | u64::from(*byte))
        });
        self.is_btrfs && self.id ^ first ^ second < SUBVOLUMES
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: OsString,
    /// Its inode.
    pub inode: u64,
    /// Whether it is the root of a subvolume, in a directory of a btrfs.
    pub is_subvolume: bool,
}

/// Reads what [`list`] prints; `None` when that is not whole.
pub fn listed(printed: &[u8]) -> Option<Vec<Listed>> {
    use std::os::unix::ffi::OsStrExt;
    let Some(entries) = printed.strip_suffix(b"\0") else {
        return printed.is_empty().then(Vec::new);
    };
    let entry = |entry: &[u8]| {
        let mut words = entry.splitn(3, |byte| *byte == b' ');
        let (inode, kind, name) = (words.next()?, words.next()?, words.next()?);
        let inode: u64 = str::from_utf8(inode).ok()?.parse().ok()?;
        let name = std::ffi::OsStr::from_bytes(name).to_owned();
        Some(Listed { name, inode, is_subvolume: kind == b"d" && inode == ROOT_INODE })
    };
    entries.split(|byte| *byte == 0).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let (a, b) = (Path::new("/srv/-a b"), Path::new("/srv/b"));
        for (spec, line) in [
            (stat(&[a, b]), r"stat --printf '%f %u %n\0' -- '/srv/-a b' /srv/b"),
            (file_system(b), "stat -f -c '%t %i' -- /srv/b"),
            (list(b), r"find /srv/b -mindepth 1 -maxdepth 1 -printf '%i %y %P\0'"),
            (
                list_old(&[a, b], ".*.json", 60),
                "find '/srv/-a b' /srv/b -mindepth 1 -maxdepth 1 -name '.*.json' -mmin +60 -printf '%i %y %p\\0'",
            ),
            (print(a), "cat -- '/srv/-a b'"),
            (write(a, b"x".to_vec()), "dd 'of=/srv/-a b' conv=fsync"),
            (replace(a, b), "mv -T -f -- '/srv/-a b' /srv/b"),
            (rename(a, b), "mv -T -n -- '/srv/-a b' /srv/b"),
            (remove(b), "rm -f -- /srv/b"),
            (make_new_directory(b), "mkdir -m 0700 -- /srv/b"),
            (remove_directory(b), "rmdir -- /srv/b"),
            (make_directory(b), "mkdir -p -m 0700 -- /srv/b"),
            (flush(b), "sync -f -- /srv/b"),
            (flush_directory(b), "sync -- /srv/b"),
            (
                find(b, Duration::from_secs(1)),
                "find /srv/b -xdev -printf '%y %s %T@ %m %U %G %P\\0'",
            ),
        ] {
            assert_eq!(spec.display(), line);
        }
    }

    #[test]
    fn many_commands_at_once() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let commands = [words(&["cat", "--", "/a\nb"]), words(&["ls", "/"])];
        let (xargs, input) = all(&commands);
        assert_eq!(xargs, words(&["xargs", "-0", "-x", "-n", "3", "env"]));
        assert_eq!(input, Input::Bytes("cat\0--\0/a\nb\0LC_ALL=C\0ls\0/\0".into()));
        let (same, input) = all_marked(&commands, "M");
        assert_eq!(same, xargs);
        let read = "LC_ALL=C\0echo\0M\0cat\0--\0/a\nb\0LC_ALL=C\0echo\0M\0LC_ALL=C\0ls\0/\0LC_ALL=C\0echo\0M\0";
        assert_eq!(input, Input::Bytes(read.into()));
        assert_eq!(parts(b"M\na\nM\nb\nM\n", "M", 2), Some(vec![&b"a\n"[..], b"b\n"]));
        assert_eq!(parts(b"M\nM\nbM\n", "M", 2), Some(vec![&b""[..], b"b"]));
        // What is printed before the first mark is said by somebody else.
        for torn in [&b""[..], b"M\na\nM\n", b"M\nM\nM\nx", b"M\nM\nM\nM\n", b"hello\nM\nM\nM\n"] {
            assert_eq!(parts(torn, "M", 2), None);
        }
    }

    #[test]
    fn as_many_words_as_a_shell_takes() {
        let sizes = |words: &[String]| chunks(words).iter().map(|it| it.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [] as [usize; 0]);
        assert_eq!(sizes(&vec!["/a".into(); 450]), [200, 200, 50]);
        assert_eq!(sizes(&["a".repeat(10 << 10), "b".repeat(5 << 10), "c".into()]), [1, 2]);
        assert_eq!(sizes(&["a".repeat(30 << 10), "b".into()]), [1, 1]);
        let words: Vec<String> = (0..5000).map(|n| format!("/{n}")).collect();
        assert_eq!(chunks(&words).concat(), words);
    }

    #[test]
    fn a_btrfs_is_known_by_its_number() {
        // As stat told it of a btrfs, of its root, and of a subvolume in it.
        let uuid = u128::to_be_bytes(0x6c00_f0b0_934f_41dd_8727_1a33_c5a1_1109);
        for (said, is_of) in [
            (&b"9123683e eb27ea8356ee50d1\n"[..], true),
            (b"9123683e eb27ea8356ee51d4\n", true),
            (b"9123683e eb27ea8256ee50d1\n", false),
            (b"ef53 eb27ea8356ee50d1\n", false),
        ] {
            let found = FileSystem::parse(said).unwrap();
            assert_eq!(found.is_of(uuid), is_of, "{found:?}");
            let beside = found.id().map(|id| id ^ 256 ^ 300);
            assert_eq!(beside.is_some_and(|id| found.has_id(id)), found.is_btrfs());
            assert!(!found.has_id(7), "{found:?}");
            assert_eq!(found.is_btrfs(), !said.starts_with(b"ef53"));
        }
        for bad in [&b""[..], b"9123683e", b"9123683e x", b"hello\n9123683e eb27ea8356ee50d1"] {
            assert!(FileSystem::parse(bad).is_none_or(|it| !it.is_btrfs()), "{bad:?}");
        }
    }

    #[test]
    fn what_stat_tells() {
        let (found, path) = Stat::parse(b"41c0 0 /srv/a b").unwrap();
        assert_eq!((found.permissions(), found.uid, found.is_directory()), (0o700, 0, true));
        assert_eq!(path, Path::new("/srv/a b"));
        assert!(Stat::parse(b"a1ff 5 /l").unwrap().0.is_link());
        assert!(Stat::parse(b"8180 0 /f").unwrap().0.is_file());
        for bad in [&b""[..], b"41c0 0", b"x 0 /a", b"41c0 root /a", b"stat: no"] {
            assert_eq!(Stat::parse(bad), None);
        }
    }

    #[test]
    fn what_is_listed() {
        let one =
            |inode, name: &str, is_subvolume| Listed { name: name.into(), inode, is_subvolume };
        let all = listed(b"256 d home@web1\x00257 d plain\x00256 f a b\n256 d c\0").unwrap();
        let expected = [
            one(256, "home@web1", true),
            one(257, "plain", false),
            one(256, "a b\n256 d c", false),
        ];
        assert_eq!(all, expected);
        assert_eq!(listed(b""), Some(Vec::new()));
        for torn in [&b"256 d home"[..], b"256 d\0", b"x d a\0", b"256 d a\0\0"] {
            assert_eq!(listed(torn), None);
        }
    }
}
