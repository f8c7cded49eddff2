//! Programs of another machine that has btrfs-progs and the coreutils, run there by ssh: how many are asked at once, and why
//! one of them failed.

use std::ffi::OsString;
use std::time::Duration;

use super::coreutils;
use super::ssh::{self, Unbegun};
use crate::host::{CommandSpec, Completed, Effect};
use crate::model::target::{RemoteSide, Server};

/// How programs there say that only root may do something.
const FORBIDDEN: [&str; 2] = [": Permission denied", ": Operation not permitted"];

/// How they say that nothing is at a path.
const MISSING: [&str; 2] = [": No such file or directory", ": Not a directory"];

/// How they say that a file cannot be read because of what is at its path, now or another time.
const OF_THE_FILE: [&str; 6] = [
    MISSING[0],
    MISSING[1],
    ": Input/output error",
    ": Structure needs cleaning",
    ": Is a directory",
    ": Too many levels of symbolic links",
];

/// How sudo says that it runs nothing without a password, or not this: the lines of its own versions, and of sudo-rs.
const ASKS_FOR_A_PASSWORD: [&str; 6] = [
    "sudo: a password is required",
    "sudo: a terminal is required to read the password; either use the -S option to read from standard input or configure an askpass helper",
    "sudo: a terminal is required to read the password; either use ssh's -t option or configure an askpass helper",
    "sudo: no tty present and no askpass program specified",
    "sudo: sorry, you must have a tty to run sudo",
    "sudo: interactive authentication is required",
];

/// The same of somebody whom it lets do nothing of the kind: how the line begins, what comes behind a name, and its end.
const LETS_NOTHING: [(&str, &str, &str); 3] = [
    ("Sorry, user ", " is not allowed to execute ", "."),
    ("", " is not in the sudoers file", "."),
    ("sudo: I'm sorry ", ". I'm afraid I can't do that", ""),
];

/// How sudo says that there is no such program, and what helps.
const NOT_FOUND: &str = ": command not found";
const INSTALL: &str =
    "install btrfs-progs, coreutils, findutils and tar there, or name btrfs with remote-program";

/// What programs say of an option that only others of their name know; those of busybox know few.
const OTHER_PROGRAMS: [&str; 4] =
    [": unrecognized option ", ": unrecognized: ", ": invalid option -- ", ": unknown option "];

/// What btrfs-progs say of a subvolume that cannot be deleted because it is being sent.
const BEING_SENT: &str = "send may be in progress";

/// The words before those of a program there.
fn behind(server: &Server) -> &'static [&'static str] {
    match server.side {
        RemoteSide::BtrfsProgs { sudo: true } => &["sudo", "-n"],
        RemoteSide::BtrfsProgs { sudo: false } | RemoteSide::Stillpoint => &[],
    }
}

/// The words of a process that is run there.
pub fn words(server: &Server, spec: &CommandSpec) -> Vec<OsString> {
    ssh::words(behind(server), spec)
}

/// A process as it is run there.
pub fn there(server: &Server, spec: CommandSpec, stall_limit: Duration) -> CommandSpec {
    let words = words(server, &spec);
    ssh::there(server, words, spec, stall_limit)
}

/// Many questions that are asked there one after the other, by one connection. The mark is a text that none of them prints.
pub fn all(
    server: &Server,
    specs: &[CommandSpec],
    mark: &str,
    stall_limit: Duration,
) -> CommandSpec {
    let commands: Vec<_> = specs.iter().map(|spec| words(server, spec)).collect();
    let (words, input) = coreutils::all_marked(&commands, mark);
    let mut spec = CommandSpec::new(ssh::program(server), Effect::Inspect);
    spec.input = input;
    ssh::there(server, words, spec, stall_limit)
}

/// What many questions were answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// What each printed; what failed may have printed half of what there is.
    pub printed: Vec<Vec<u8>>,
    /// Whether all of them ended well.
    pub is_whole: bool,
}

/// Reads the answers to [`all`]; `None` where they did not come, or something else was printed.
pub fn answers(completed: &Completed, mark: &str, count: usize) -> Option<Answers> {
    let some_failed = completed.code() == Some(coreutils::ONE_FAILED);
    if !completed.success() && !some_failed {
        return None;
    }
    let parts = coreutils::parts(&completed.stdout, mark, count)?;
    let printed = parts.into_iter().map(<[u8]>::to_owned).collect();
    Some(Answers { printed, is_whole: !some_failed })
}

/// Whether a program fails by saying that something is not there, and nothing else. Both stat and find exit so; a line that
/// is cut does not.
pub fn is_missing(completed: &Completed, program: &str) -> bool {
    completed.code() == Some(1) && says_only(completed, program, &MISSING)
}

/// Whether a program fails to read a file by saying what is wrong with that, or that it is not there, and nothing else.
pub fn is_of_the_file(completed: &Completed, program: &str) -> bool {
    completed.code() == Some(1) && says_only(completed, program, &OF_THE_FILE)
}

/// Whether a program fails by saying that something is in a directory, and nothing else.
pub fn is_not_empty(completed: &Completed, program: &str) -> bool {
    completed.code() == Some(1) && says_only(completed, program, &[": Directory not empty"])
}

/// Whether a program says lines that end so, and no others. Whatever else stands there was not said by it.
fn says_only(completed: &Completed, program: &str, ends: &[&str]) -> bool {
    let said = String::from_utf8_lossy(&completed.stderr_tail);
    let of_program =
        |line: &&str| line.strip_prefix(program).is_some_and(|line| line.starts_with(": "));
    let mut lines = said.lines().filter(of_program).peekable();
    lines.peek().is_some() && lines.all(|line| ends_so(line, ends))
}

/// Whether a line ends so. The coreutils that are written in Rust tell the number of the error behind that.
fn ends_so(line: &str, ends: &[&str]) -> bool {
    let numbered = line.strip_suffix(')').and_then(|line| line.rsplit_once(" (os error "));
    let is_number = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
    let line = numbered.filter(|(_, number)| is_number(number)).map_or(line, |(line, _)| line);
    ends.iter().any(|end| line.ends_with(end))
}

/// What sudo says of why it does not run a program, if it says so.
pub fn blames_sudo(completed: &Completed) -> Option<String> {
    let said = completed.last_lines(5);
    said.lines().find(|line| is_of_sudo(line)).map(str::to_owned)
}

/// Whether sudo says in a line that it does not run something.
fn is_of_sudo(line: &str) -> bool {
    let lets_nothing = |(begin, middle, end): &(&str, &str, &str)| {
        let rest = line.strip_prefix(begin).and_then(|line| line.strip_suffix(end));
        rest.is_some_and(|rest| rest.contains(middle))
    };
    ASKS_FOR_A_PASSWORD.contains(&line) || LETS_NOTHING.iter().any(lets_nothing)
}

/// Why a program there did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// ssh did not get there, was not let in, or the line broke: in its own words.
    NotReached(String),
    /// It cannot be done there, and what may be done about that.
    Unfit {
        /// What is in the way.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A subvolume is being sent, and cannot be deleted meanwhile: in the words of btrfs-progs.
    BeingSent(String),
    /// It failed, in its own words.
    Failed(String),
}

/// Why a program there failed.
pub fn why(server: &Server, completed: &Completed) -> Why {
    let login = &server.login;
    match ssh::unbegun(completed) {
        Some(Unbegun::NotReached(said)) => return Why::NotReached(said),
        Some(Unbegun::NoProgram(said)) => {
            return Why::Unfit {
                what: format!("a program is not there, or this login may not start it ({said})"),
                hint: INSTALL.into(),
            };
        }
        None => {}
    }
    let said = completed.last_words(5);
    if said.lines().any(|line| line.starts_with("sudo: ") && line.ends_with(NOT_FOUND)) {
        return Why::Unfit {
            what: format!("a program is not there ({said})"),
            hint: INSTALL.into(),
        };
    }
    if let Some(line) = blames_sudo(completed) {
        return Why::Unfit {
            what: format!("sudo there does not run it without a password ({line})"),
            hint: "let it in /etc/sudoers.d there, as the README says".into(),
        };
    }
    if said.lines().any(|line| OTHER_PROGRAMS.iter().any(|words| line.contains(words))) {
        return Why::Unfit {
            what: format!("its programs are others than are needed ({said})"),
            hint: "install the GNU coreutils and findutils there".into(),
        };
    }
    if said.contains(BEING_SENT) {
        return Why::BeingSent(said);
    }
    // The words of the kernel stand at the end; a name before them may say anything.
    if said.lines().any(|line| ends_so(line, &FORBIDDEN)) {
        return Why::Unfit {
            what: format!("{login} may not do it there ({said})"),
            hint: "log in as root, or let sudo do it with remote-sudo = true".into(),
        };
    }
    Why::Failed(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Exit, Tool};

    fn server(sudo: bool) -> Server {
        Server {
            login: "pull@web1".into(),
            port: None,
            directory: "/mnt/s".into(),
            ssh_command: Vec::new(),
            side: RemoteSide::BtrfsProgs { sudo },
            program: "btrfs".into(),
        }
    }

    fn ended(code: i32, stdout: &[u8], stderr: &str) -> Completed {
        Completed {
            stdout: stdout.to_owned(),
            stderr_tail: stderr.as_bytes().to_owned(),
            ..Completed::ended(Exit::Code(code))
        }
    }

    #[test]
    fn command_lines() {
        let limit = Duration::from_secs(5);
        let show =
            CommandSpec::helper(Tool::Named("btrfs".into())).args(["subvolume", "show", "/a b"]);
        let line = |spec: CommandSpec| spec.args.last().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            line(there(&server(true), show.clone(), limit)),
            "env LC_ALL=C sudo -n btrfs subvolume show '/a b'"
        );
        assert_eq!(
            line(there(&server(false), show.clone(), limit)),
            "env LC_ALL=C btrfs subvolume show '/a b'"
        );
        let both = all(&server(true), &[show.clone(), show], "M", limit);
        assert_eq!(line(both), "env LC_ALL=C xargs -0 -x -n 6 env");
    }

    #[test]
    fn answers_are_read_as_far_as_they_came() {
        let read = |code, stdout: &[u8]| answers(&ended(code, stdout, ""), "M", 2);
        let printed = vec![b"a\n".to_vec(), Vec::new()];
        assert_eq!(
            read(0, b"M\na\nM\nM\n"),
            Some(Answers { printed: printed.clone(), is_whole: true })
        );
        assert_eq!(read(123, b"M\na\nM\nM\n"), Some(Answers { printed, is_whole: false }));
        assert_eq!(read(255, b"M\na\nM\nM\n"), None, "a line that broke");
        assert_eq!(read(0, b"hello\nM\na\nM\nM\n"), None, "a greeting");
    }

    #[test]
    fn what_is_missing_is_told_from_what_failed() {
        let is = |code, stderr: &str| is_missing(&ended(code, b"", stderr), "stat");
        let missing = "stat: cannot statx '/x': No such file or directory\n";
        assert!(is(1, missing));
        assert!(is(1, &format!("Could not chdir to home directory /h: I/O error\n{missing}")));
        assert!(!is(1, ""));
        assert!(!is(1, "env: 'stat': No such file or directory\n"));
        assert!(!is(255, missing), "the line broke");
        let full = ended(1, b"", "rmdir: failed to remove 'x': Directory not empty\n");
        assert!(is_not_empty(&full, "rmdir") && !is_missing(&full, "rmdir"));
        assert!(is(1, "stat: cannot stat '/x': No such file or directory (os error 2)\n"));
        assert!(!is(1, "stat: cannot stat '/x': Input/output error (os error 5)\n"));
        assert!(!is(1, &format!("{missing}stat: cannot statx '/y': Input/output error\n")));
    }

    #[test]
    fn why_it_failed() {
        let why = |code, stderr: &str| why(&server(false), &ended(code, b"", stderr));
        let unfit = |code, stderr: &str, wanted: &str| match why(code, stderr) {
            Why::Unfit { what, .. } => assert!(what.contains(wanted), "{what}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            why(255, "Host key verification failed.\n"),
            Why::NotReached("Host key verification failed.".into())
        );
        unfit(127, "env: 'btrfs': No such file or directory\n", "is not there");
        unfit(1, "sudo: a password is required\n", "without a password");
        let sent = "ERROR: Could not destroy subvolume/snapshot: Operation not permitted\nWARNING: deletion failed with EPERM, you don't have permissions or send may be in progress";
        assert_eq!(why(1, sent), Why::BeingSent(sent.into()));
        unfit(1, "ERROR: Could not create subvolume: Operation not permitted\n", "may not do it");
        assert_eq!(
            why(1, "sudo: unable to resolve host x\nERROR: no\n"),
            Why::Failed("sudo: unable to resolve host x\nERROR: no".into())
        );
    }
}
