//! Why restic ended without success.
//!
//! Since 0.17 the exit status says it for the usual cases, since 0.18 a last line of JSON repeats it; before
//! that there is English text, which has been stable. The status is believed where it is specific.

use super::message::{self, Line};
use crate::host::Exit;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no repository.
    NoRepository,
    /// `init` found one.
    Exists,
    /// The password is wrong, or empty.
    WrongPassword,
    /// Another process holds the lock.
    Locked,
    /// The storage is full.
    Full,
    /// The storage does not answer.
    Unreachable,
    /// The repository is damaged.
    Damaged,
    /// No source is there.
    NoSource,
    /// restic itself crashed; its lock is left behind.
    Crashed,
    /// None of these: the message is all that is known.
    Other,
}

/// A failure and restic's own words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it is.
    pub kind: Kind,
    /// The last lines that say something, at most five.
    pub detail: String,
}

/// How restic before 0.17 begins a line about a file that it cannot restore. The file's name follows, and anything
/// may be in that.
const ABOUT_A_FILE: &str = "ignoring error for ";

/// Says why restic failed, from its exit status and its standard error.
pub fn diagnose(exit: Exit, stderr: &[u8]) -> Failure {
    let mut words = Words::of(exit);
    for line in stderr.split(|byte| *byte == b'\n') {
        words.take(message::line(line));
    }
    words.failure()
}

/// What restic said while it failed.
struct Words {
    exit: Exit,
    /// Its last message, if it ended with one: a code and a text.
    exit_error: Option<(i64, String)>,
    /// All that says something, in order.
    texts: Vec<String>,
    /// Its last words as text. Like `others`, only what restic says of itself: a problem with a file may hold any name.
    fatal: Vec<String>,
    /// What it said of itself before.
    others: Vec<String>,
    /// The first line of a crash; its trace follows, which says nothing.
    crash: Option<String>,
}

impl Words {
    fn of(exit: Exit) -> Self {
        let (texts, fatal, others) = (Vec::new(), Vec::new(), Vec::new());
        Self { exit, exit_error: None, texts, fatal, others, crash: None }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::ExitError { code, message } => {
                self.exit_error = Some((code, message.trim().to_owned()));
            }
            Line::Problem(problem) => {
                let text = problem.message.trim().to_owned();
                if problem.item.is_none() {
                    self.others.push(text.clone());
                }
                self.texts.push(text);
            }
            Line::Text(text) => self.take_text(text),
            Line::Status(_) | Line::Summary(_) | Line::Other(_) | Line::Empty => {}
        }
    }

    fn take_text(&mut self, text: String) {
        if self.crash.is_some() || message::is_routine(&text) {
            return;
        }
        let may_be_crash = !matches!(self.exit, Exit::Code(0 | 1 | 3));
        if may_be_crash && (text.starts_with("panic: ") || text.starts_with("fatal error: ")) {
            self.crash = Some(text);
            return;
        }
        if text.starts_with("Fatal: ") {
            self.fatal.push(text.clone());
        } else if !text.starts_with(ABOUT_A_FILE) {
            self.others.push(text.clone());
        }
        self.texts.push(text);
    }

    fn failure(mut self) -> Failure {
        if let Some(crash) = self.crash.take() {
            self.texts.push(crash);
            return Failure { kind: Kind::Crashed, detail: last(&self.texts) };
        }
        let kind = self.kind();
        // A lock's owner and age are in the lines after the first.
        let detail = self.exit_error.map_or_else(|| last(&self.texts), |(_, text)| text);
        let detail = if detail.is_empty() { "restic did not say why".into() } else { detail };
        Failure { kind, detail }
    }

    fn kind(&self) -> Kind {
        let code = match (&self.exit_error, self.exit) {
            (Some((code, _)), _) => *code,
            (None, Exit::Code(code)) => i64::from(code),
            (None, Exit::Signal(_)) => 0,
        };
        match code {
            10 => Kind::NoRepository,
            11 => Kind::Locked,
            12 => Kind::WrongPassword,
            _ => {
                let last = self.exit_error.as_ref().map_or(Kind::Other, |(_, text)| by_text(text));
                let said =
                    [last, by_text(&self.fatal.join("\n")), by_text(&self.others.join("\n"))];
                said.into_iter().find(|kind| *kind != Kind::Other).unwrap_or(Kind::Other)
            }
        }
    }
}

/// Whether restic ended because a signal asked it to: status 130, or (0.18, on SIGTERM) status 1 and a line
/// that says so.
pub fn was_stopped(exit: Exit, stderr: &[u8]) -> bool {
    let said =
        |bytes| matches!(message::line(bytes), Line::Text(text) if message::is_farewell(&text));
    exit == Exit::Code(130) || stderr.split(|byte| *byte == b'\n').any(said)
}

fn last(texts: &[String]) -> String {
    texts[texts.len().saturating_sub(5)..].join("\n")
}

/// Whether restic's words are about stored data that is not what it was.
pub fn speaks_of_damage(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "decrypting blob",
        "nonce is invalid",
        "ciphertext verification failed",
        "repository contains errors",
        "could be damaged",
        "LoadIndex returned errors",
        "does not match",
        "not found in repository",
        "invalid data returned",
        "not found in index",
    ];
    WORDS.iter().any(|word| text.contains(word))
}

/// Whether restic's words about damage are about stored data or directories, and not only about the index. A copy from
/// one repository to another reads those of the first one alone.
pub fn speaks_of_stored_data(text: &str) -> bool {
    // Up to 0.15 the name of the function in which it was found, since then a text with the blob.
    ["StreamPack", " blob ", "not found in repository"].iter().any(|word| text.contains(word))
}

fn by_text(text: &str) -> Kind {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["wrong password or no key found", "an empty password is not"]) {
        Kind::WrongPassword
    } else if says(&["unable to create lock", "repository is already locked"]) {
        Kind::Locked
    } else if says(&["config file already exists", "already initialized"]) {
        Kind::Exists
    } else if says(&["no space left on device", "quota exceeded", "Insufficient Storage"]) {
        Kind::Full
    } else if says(&[
        "connection refused",
        "Connection refused",
        "connection reset",
        "connection timed out",
        "Connection timed out",
        "no route to host",
        "No route to host",
        "network is unreachable",
        "Network is unreachable",
        "no such host",
        "Could not resolve hostname",
        "i/o timeout",
        "TLS handshake timeout",
        "unable to start the sftp session",
        "Host key verification failed",
        "Permission denied (publickey",
    ]) {
        // Before "unable to open config file", which restic also says when the storage does not answer.
        Kind::Unreachable
    } else if says(&[
        "source directories/files do not exist",
        "target directories/files do not exist",
    ]) {
        Kind::NoSource
    } else if says(&[
        "unable to open config file",
        "Is there a repository at the following location",
    ]) {
        Kind::NoRepository
    } else if speaks_of_damage(text) {
        Kind::Damaged
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(version: &str, case: &str) -> (Exit, Vec<u8>) {
        let path = format!("{}/tests/fixtures/restic-{version}/{case}", env!("CARGO_MANIFEST_DIR"));
        let stderr = std::fs::read(format!("{path}.err")).unwrap();
        let code: i32 =
            std::fs::read_to_string(format!("{path}.rc")).unwrap().trim().parse().unwrap();
        let exit = if code < 0 { Exit::Signal(-code) } else { Exit::Code(code) };
        (exit, stderr)
    }

    fn recorded(version: &str, case: &str) -> Failure {
        let (exit, stderr) = recording(version, case);
        diagnose(exit, &stderr)
    }

    #[test]
    fn every_row_of_the_matrix() {
        for version in ["0.14.0", "0.18.0", "0.19.1"] {
            for (case, kind) in [
                ("catconfig-norepo", Kind::NoRepository),
                ("init-exists", Kind::Exists),
                ("wrong-pass", Kind::WrongPassword),
                ("check-wrong-pass", Kind::WrongPassword),
                ("check-locked", Kind::Locked),
                ("prune-locked", Kind::Locked),
                ("backup-only-missing-source", Kind::NoSource),
                ("check-corrupt-readdata", Kind::Damaged),
                ("bad-flag", Kind::Other),
                ("backup-SIGTERM", Kind::Other),
                ("backup-SIGINT", Kind::Other),
            ] {
                let failure = recorded(version, case);
                assert_eq!(failure.kind, kind, "{version} {case}: {failure:?}");
                assert!(!failure.detail.is_empty());
            }
            assert!(recorded(version, "check-locked").detail.contains("locked by PID"));
            assert!(recorded(version, "bad-flag").detail.contains("--nosuch"));
        }
    }

    #[test]
    fn a_stop_is_told_from_a_failure() {
        for version in ["0.14.0", "0.18.0", "0.19.1"] {
            let stopped = |case: &str| {
                let (exit, stderr) = recording(version, case);
                was_stopped(exit, &stderr)
            };
            assert!(stopped("backup-SIGINT"), "{version}");
            // Before 0.17, SIGTERM kills it outright.
            assert_eq!(stopped("backup-SIGTERM"), version != "0.14.0");
            assert!(!stopped("wrong-pass") && !stopped("prune-locked"));
        }
    }

    #[test]
    fn a_storage_that_does_not_answer_is_no_missing_repository() {
        let stderr = b"Fatal: unable to open config file: client.Head: Head \"http://127.0.0.1:1/config\": dial tcp 127.0.0.1:1: connect: connection refused\nIs there a repository at the following location?\nrest:http://127.0.0.1:1/\n";
        assert_eq!(diagnose(Exit::Code(1), stderr).kind, Kind::Unreachable);
        let stderr = b"subprocess ssh: ssh: connect to host 127.0.0.1 port 22: Connection refused\n{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"Fatal: unable to open repository at sftp:x: unable to start the sftp session, error: EOF\"}\n";
        assert_eq!(diagnose(Exit::Code(1), stderr).kind, Kind::Unreachable);
    }

    #[test]
    fn a_crash_is_told_without_its_trace() {
        let stderr = b"panic: runtime error: invalid memory address\n[signal SIGSEGV]\n\ngoroutine 1 [running]:\nmain.main()\n";
        let failure = diagnose(Exit::Code(2), stderr);
        assert_eq!(failure.kind, Kind::Crashed);
        assert_eq!(failure.detail, "panic: runtime error: invalid memory address");
    }

    #[test]
    fn the_name_of_a_file_that_is_not_restored_says_nothing_about_the_repository() {
        for name in [
            "wrong password or no key found",
            "unable to create lock",
            "no space left on device",
            "Connection refused",
            "ciphertext verification failed",
        ] {
            let stderr = format!(
                "ignoring error for /home/{name}: open /to/home/{name}: permission denied\nFatal: There were 1 errors\n"
            );
            let failure = diagnose(Exit::Code(1), stderr.as_bytes());
            assert_eq!(failure.kind, Kind::Other, "{name}");
            assert!(failure.detail.contains(name), "{}", failure.detail);
        }
    }

    #[test]
    fn a_full_disk() {
        let stderr = b"Fatal: unable to save snapshot: write /srv/r/tmp: no space left on device\n";
        assert_eq!(diagnose(Exit::Code(1), stderr).kind, Kind::Full);
    }
}
