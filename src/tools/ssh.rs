//! ssh: one command on another machine, and why it came to nothing.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::host::spec::quote_for_ssh;
use crate::host::{CommandSpec, Completed, Effect, Tool};
use crate::model::target::Server;

/// The client of OpenSSH, unless the configuration names another.
const SSH: Tool =
    Tool::Known { name: "ssh", hint: "install it (Debian: apt install openssh-client)" };

/// What ssh exits with when it failed itself (ssh(1)).
pub const OWN_FAILURE: i32 = 255;

/// What a shell exits with that finds no such program, and with one that it may not start (POSIX, 2.8.2).
const NO_PROGRAM: [i32; 2] = [127, 126];

/// Nobody is there to be asked, a dead line is noticed within two minutes, and nothing but the command is wanted. Of an
/// option that is given twice, ssh takes the first, so these come last.
const OPTIONS: &[&str] = &[
    "BatchMode=yes",
    "ServerAliveInterval=30",
    "ServerAliveCountMax=4",
    "ConnectTimeout=30",
    "ClearAllForwardings=yes",
    // A connection that a person has open leads to another key than the one that is named here, and to what that may do.
    "ControlMaster=no",
    "ControlPath=none",
    // Greetings are none of what the command says.
    "LogLevel=ERROR",
];

/// A command on a server. The shell there reads each word as it is.
pub fn command(
    server: &Server,
    words: &[impl AsRef<OsStr>],
    effect: Effect,
    stall_limit: Duration,
) -> CommandSpec {
    let mut spec = CommandSpec::new(program(server), effect);
    spec.args.extend(server.ssh_command.iter().skip(1).map(Into::into));
    for option in OPTIONS {
        spec = spec.args(["-o", option]);
    }
    if let Some(port) = server.port {
        spec = spec.args(["-p", &port.to_string()]);
    }
    let words: Vec<OsString> = words.iter().map(quote_for_ssh).collect();
    spec = spec.args(["-T", "--", &server.login]).arg(words.join(" ".as_ref()));
    spec.stall_limit = Some(stall_limit);
    spec
}

/// The words of a command of this machine, behind some others.
pub fn words(behind: &[&str], spec: &CommandSpec) -> Vec<OsString> {
    let behind = behind.iter().map(OsString::from);
    behind.chain([spec.tool.word()]).chain(spec.args.iter().cloned()).collect()
}

/// A command of this machine as it is run on a server, by these words. Programs there say what is wrong in English, by which
/// alone it can be told.
pub fn there(
    server: &Server,
    words: Vec<OsString>,
    spec: CommandSpec,
    limit: Duration,
) -> CommandSpec {
    let english = ["env", "LC_ALL=C"].map(OsString::from);
    let words: Vec<OsString> = english.into_iter().chain(words).collect();
    let stall_limit = spec.stall_limit.unwrap_or(limit);
    CommandSpec {
        input: spec.input,
        stdout: spec.stdout,
        time_limit: spec.time_limit,
        prediction: spec.prediction,
        ..command(server, &words, spec.effect, stall_limit)
    }
}

/// The program on this machine.
pub fn program(server: &Server) -> Tool {
    server.ssh_command.first().map_or(SSH, |word| Tool::from_word(word))
}

/// The files of keys and settings that it is told to read (`-i`, `-F`).
pub fn files(server: &Server) -> Vec<PathBuf> {
    let words = &server.ssh_command;
    let after = words.iter().zip(words.iter().skip(1));
    let named = after.filter(|(option, _)| matches!(option.as_str(), "-i" | "-F"));
    named.map(|(_, file)| PathBuf::from(file)).filter(|file| file.is_absolute()).collect()
}

/// Why the command was not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbegun {
    /// ssh did not get there, or was not let in: in its own words.
    NotReached(String),
    /// The shell there does not find the program, or may not start it.
    NoProgram(String),
}

/// Why the command was not begun, if it was not.
pub fn unbegun(completed: &Completed) -> Option<Unbegun> {
    let said = || completed.last_words_of("ssh", 5);
    match completed.code()? {
        OWN_FAILURE => Some(Unbegun::NotReached(said())),
        code if NO_PROGRAM.contains(&code) => Some(Unbegun::NoProgram(said())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Exit;
    use crate::model::target::RemoteSide;

    fn server() -> Server {
        Server {
            login: "backup@nas".into(),
            port: Some(2222),
            directory: "/mnt/it's".into(),
            ssh_command: ["/usr/bin/ssh", "-i", "/root/.ssh/push", "-F", "none"]
                .map(Into::into)
                .into(),
            program: "stillpoint".into(),
            side: RemoteSide::Stillpoint,
        }
    }

    #[test]
    fn a_command_there_is_given_as_quoted_words_whatever_is_in_it() {
        use std::os::unix::ffi::OsStrExt;
        let odd = OsStr::from_bytes(b"/a b/$(x)`y`\n'\xe9;*");
        let mut spec = CommandSpec::helper(Tool::Path("/sbin/btrfs".into())).arg("show").arg(odd);
        spec.input = crate::host::Input::Bytes(b"x".to_vec());
        let there =
            there(&server(), words(&["sudo", "-n"], &spec), spec.clone(), Duration::from_secs(60));
        let expected = b"env LC_ALL=C sudo -n /sbin/btrfs show '/a b/$(x)`y`\n'\\''\xe9;*'";
        assert_eq!(there.args.last().unwrap().as_bytes(), expected);
        assert_eq!((there.input, there.time_limit), (spec.input, spec.time_limit));
        assert_eq!(there.stall_limit, Some(Duration::from_secs(60)));
    }

    #[test]
    fn command_lines() {
        let spec = command(
            &server(),
            &["stillpoint", "serve", "--root", "/mnt/it's"],
            Effect::Inspect,
            Duration::from_secs(60),
        );
        assert_eq!(
            spec.args,
            [
                "-i",
                "/root/.ssh/push",
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "ServerAliveInterval=30",
                "-o",
                "ServerAliveCountMax=4",
                "-o",
                "ConnectTimeout=30",
                "-o",
                "ClearAllForwardings=yes",
                "-o",
                "ControlMaster=no",
                "-o",
                "ControlPath=none",
                "-o",
                "LogLevel=ERROR",
                "-p",
                "2222",
                "-T",
                "--",
                "backup@nas",
                r"stillpoint serve --root '/mnt/it'\''s'",
            ]
        );
        assert_eq!(spec.tool, Tool::Path("/usr/bin/ssh".into()));
        assert_eq!(files(&server()), [PathBuf::from("/root/.ssh/push")]);
        let plain = Server { ssh_command: Vec::new(), port: None, ..server() };
        assert_eq!(program(&plain).name(), "ssh");
    }

    #[test]
    fn what_ssh_and_the_shell_there_say_is_told_apart_from_what_the_command_says() {
        let ended = |code| Completed {
            stderr_tail: b"Host key verification failed.\n".to_vec(),
            ..Completed::ended(Exit::Code(code))
        };
        let said = "Host key verification failed.".to_owned();
        assert_eq!(unbegun(&ended(255)), Some(Unbegun::NotReached(said.clone())));
        assert_eq!(unbegun(&ended(127)), Some(Unbegun::NoProgram(said)));
        assert_eq!(unbegun(&ended(1)), None);
        assert_eq!(unbegun(&ended(0)), None);
    }
}
