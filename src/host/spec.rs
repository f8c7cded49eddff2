//! A process as a value: what to run, what it does to the machine, what it gets and what is kept of it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::view::PrivateView;
use super::{Confinement, PipeEnd, SecretFd};
use crate::model::secret::Secret;
use crate::model::shown::{Show, is_hostile};

/// An outside program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// A program that Stillpoint knows by name, looked up on the fixed path. Who builds its commands declares it.
    Known {
        /// Its name.
        name: &'static str,
        /// What to do when it is missing.
        hint: &'static str,
    },
    /// This program itself.
    Own,
    /// A program given by its full path: a hook, a producer, an engine that the configuration names.
    Path(PathBuf),
    /// A program by name, looked up on the fixed path: the first word of a hook or producer.
    Named(OsString),
}

impl Tool {
    /// The program's name, for messages.
    pub fn name(&self) -> String {
        match self {
            Tool::Known { name, .. } => (*name).into(),
            Tool::Own => "stillpoint".into(),
            Tool::Path(path) => path.shown().to_string(),
            Tool::Named(name) => name.shown().to_string(),
        }
    }

    /// The word by which a shell of another machine finds it.
    pub fn word(&self) -> OsString {
        match self {
            Tool::Known { name, .. } => name.into(),
            Tool::Own => "stillpoint".into(),
            Tool::Path(path) => path.clone().into(),
            Tool::Named(name) => name.clone(),
        }
    }

    /// The program that the configuration names in place of this tool, or the tool.
    #[must_use]
    pub fn or(self, program: Option<&PathBuf>) -> Tool {
        program.cloned().map_or(self, Tool::Path)
    }

    /// A tool from the first word of an argv list: a path when it holds a slash, else a name.
    pub fn from_word(word: &str) -> Tool {
        if word.contains('/') { Tool::Path(word.into()) } else { Tool::Named(word.into()) }
    }

    /// What to do when it is missing.
    pub fn hint(&self) -> String {
        match self {
            Tool::Known { hint, .. } => (*hint).into(),
            Tool::Own => "mount /proc".into(),
            Tool::Path(path) => format!("check the path {} in the configuration", path.shown()),
            Tool::Named(name) => format!(
                "{} is looked up in /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin, /sbin and /bin; give a full path if it is elsewhere",
                name.shown()
            ),
        }
    }
}

/// What a command does to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only looks; a dry run runs it too. (An engine may still write its own cache or a lock.)
    Inspect,
    /// It changes something; a dry run only notes it.
    Mutate,
}

/// The value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Shown as it is.
    Plain(OsString),
    /// Shown as `***`: storage keys, which backends take from the environment alone.
    Secret(Secret),
}

/// What is kept of standard output, beyond the lines that the watcher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdoutMode {
    /// All of it, in [`Completed::stdout`].
    Whole,
    /// The same for a secret: no watcher sees a line of it, and the memory through which it came is overwritten.
    Secret,
    /// Nothing: the watcher takes line by line, so memory stays flat.
    Lines,
    /// Nothing, and it is not read either: standard output goes to `/dev/null`.
    Discard,
    /// Nothing: it is passed on to our own standard output (`restore` to a pipe). See
    /// [`RunError::Output`](super::RunError::Output).
    PassOn,
}

/// What a process reads on its standard input, besides what the one before it in a chain writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    #[default]
    Nothing,
    /// These bytes; in a chain they come before what the one before it writes.
    Bytes(Vec<u8>),
    /// What is left of our own standard input. Only for the first of a chain.
    Own,
    /// What comes out of this pipe. Only for the first of a chain.
    Pipe(PipeEnd),
}

/// What a dry host answers in the place of a mutation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prediction {
    /// The standard output to answer with.
    pub stdout: Vec<u8>,
    /// What would exist or be gone afterwards; see [`super::Host::predicted`].
    pub facts: Vec<Fact>,
}

/// One predicted fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The subject, in the words of whoever will ask.
    pub about: String,
    /// The statement, in the words of whoever will ask.
    pub value: Vec<u8>,
}

/// Judges a line of standard error. It knows how the tool speaks: a text to search for could stand in a file's name.
#[derive(Debug, Clone, Copy)]
pub struct Judge(pub fn(&[u8]) -> bool);

impl PartialEq for Judge {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Judge {}

/// The longest host name, in bytes (`__NEW_UTS_LEN` of the kernel).
pub const LONGEST_HOST_NAME: usize = 64;

/// How long a helper may take that only answers a question: a version, a passphrase, a state. It waits neither for a
/// repository nor for a disk, but whatever it asks (a keyring, a vault, systemd) may never answer, and meanwhile the
/// locks of job and target are held. Long enough for a person to touch a key.
pub const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// A process: built by `tools/`, carried out by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program.
    pub tool: Tool,
    /// What it does to the machine.
    pub effect: Effect,
    /// Arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Variables beyond the base environment (`PATH`, `LANG=C.UTF-8`, `HOME=/root`), in order.
    pub env: Vec<(String, EnvValue)>,
    /// Secrets by descriptor.
    pub secrets: Vec<SecretFd>,
    /// Ends of pipes by descriptor; their numbers are its last arguments.
    pub passed: Vec<PipeEnd>,
    /// What it reads.
    pub input: Input,
    /// What is kept of its output.
    pub stdout: StdoutMode,
    /// The working directory; `/` when absent.
    pub directory: Option<PathBuf>,
    /// Mounts that only this process and its children see.
    pub view: PrivateView,
    /// The host name that this process and its children see instead of the machine's, at most
    /// [`LONGEST_HOST_NAME`] bytes: for programs that write it into their locks. See
    /// [`Host::gives_host_names`](super::Host::gives_host_names).
    pub host_name: Option<String>,
    /// Where alone it may write; anywhere when absent. Its view is empty then.
    pub confinement: Option<Confinement>,
    /// How long it may neither write a line nor use the processor nor move bytes, to speak of, before it is
    /// stopped.
    pub stall_limit: Option<Duration>,
    /// It says again and again how far it is, also while nothing moves: its lines alone are no movement.
    pub repeats_itself: bool,
    /// Which line of standard error is movement, also of one that repeats itself: it rightly waits for what is none of its
    /// chain.
    pub moves: Option<Judge>,
    /// How long it may take in all; for hooks.
    pub time_limit: Option<Duration>,
    /// The signal that asks it to stop (restic before 0.17: SIGINT).
    pub stop_signal: i32,
    /// Never SIGKILL it (LVM and device-mapper tools): wait instead.
    pub never_kill: bool,
    /// Which line of standard error ends the process at once, by SIGKILL: what it would do next does more harm than
    /// its death.
    pub fatal: Option<Judge>,
    /// What a dry host answers.
    pub prediction: Prediction,
}

impl CommandSpec {
    /// A command with no arguments, null input, whole output and SIGTERM as its stop signal.
    pub fn new(tool: Tool, effect: Effect) -> Self {
        Self {
            tool,
            effect,
            args: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            passed: Vec::new(),
            input: Input::Nothing,
            stdout: StdoutMode::Whole,
            directory: None,
            view: PrivateView::default(),
            host_name: None,
            confinement: None,
            stall_limit: None,
            repeats_itself: false,
            moves: None,
            time_limit: None,
            stop_signal: 15,
            never_kill: false,
            fatal: None,
            prediction: Prediction::default(),
        }
    }

    /// A command that only answers a question, within [`HELPER_LIMIT`].
    pub fn helper(tool: Tool) -> Self {
        Self { time_limit: Some(HELPER_LIMIT), ..Self::new(tool, Effect::Inspect) }
    }

    /// A command that only looks and prints more than is to be held: its output is for the watcher, line by line, or for
    /// the next of a chain. It is stopped when nothing of it moves for so long.
    pub fn lines(tool: Tool, stall_limit: Duration) -> Self {
        let (stdout, stall_limit) = (StdoutMode::Lines, Some(stall_limit));
        Self { stdout, stall_limit, ..Self::new(tool, Effect::Inspect) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, value: impl Into<OsString>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, values: I) -> Self {
        self.args.extend(values.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable that may be shown.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), EnvValue::Plain(value.into())));
        self
    }

    /// The command as a person would type it, each word quoted where a shell would need it. No secret is ever among
    /// the arguments. For messages and plans; nothing ever executes it.
    pub fn display(&self) -> String {
        let mut words = vec![quote(self.tool.name())];
        for arg in &self.args {
            words.push(quote(arg));
        }
        words.join(" ")
    }
}

/// Quotes one word, so that a person can paste what a plan shows into a shell.
///
/// What a terminal would obey, and bytes that are not UTF-8, are written as bash, zsh and ksh read them (`$'…'`).
pub fn quote(word: impl AsRef<OsStr>) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let bytes = word.as_ref().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(word) if !word.is_empty() && word.chars().all(plain) => return word.to_owned(),
        Ok(word) if !word.chars().any(is_hostile) => {
            return format!("'{}'", word.replace('\'', "'\\''"));
        }
        Ok(_) | Err(_) => {}
    }
    let mut quoted = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' | '\'' => quoted.extend(['\\', character]),
                other if is_hostile(other) => {
                    let mut buffer = [0; 4];
                    for byte in other.encode_utf8(&mut buffer).bytes() {
                        quoted.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                other => quoted.push(other),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted + "'"
}

/// Quotes one word for the shell of another machine, which ssh hands it to: whichever POSIX shell that is reads it back
/// byte by byte. What a terminal would obey stays in it as it is, so this is for no person's eyes.
pub fn quote_for_ssh(word: impl AsRef<OsStr>) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = word.as_ref().as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return word.as_ref().to_owned();
    }
    let mut quoted = vec![b'\''];
    for byte in bytes {
        match byte {
            // Within quotes, fish reads these otherwise than others do.
            b'\'' | b'\\' => quoted.extend([b'\'', b'\\', *byte, b'\'']),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// Which of a child's outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; of a chain, the last one's.
    Out,
    /// Standard error; of a chain, the last one's.
    Err,
    /// The standard error of one before the last of a chain.
    ProducerErr,
}

/// Takes each line of a child's output as it comes, without its line break.
pub type Watch<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By exiting with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it failed by itself: a signal is somebody else's doing.
    pub fn is_own_failure(self) -> bool {
        matches!(self, Exit::Code(code) if code != 0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// A process that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// Nobody ran it: a dry run answers with the prediction that came with the command. What that leaves unsaid,
    /// nobody knows.
    pub is_predicted: bool,
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, where [`StdoutMode::Whole`] or [`StdoutMode::Secret`] asked for it.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error (at most 64 KiB).
    pub stderr_tail: Vec<u8>,
    /// How long it ran.
    pub elapsed: Duration,
    /// It was stopped because another process of its chain had failed: how it ended says nothing.
    pub dismissed: bool,
    /// It ended well by itself before it had read all that it was given: nothing may come of that.
    pub left_early: bool,
}

impl Completed {
    /// One that ended so, of which nothing else is known.
    pub fn ended(exit: Exit) -> Self {
        Self {
            is_predicted: false,
            exit,
            stdout: Vec::new(),
            stderr_tail: Vec::new(),
            elapsed: Duration::ZERO,
            dismissed: false,
            left_early: false,
        }
    }

    /// Whether it failed by itself.
    pub fn is_own_failure(&self) -> bool {
        self.exit.is_own_failure() && !self.dismissed
    }

    /// Whether it exited with status 0.
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// The exit status, if it exited by itself.
    pub fn code(&self) -> Option<i32> {
        match self.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        }
    }

    /// The last `count` lines of standard error as text, to be read by us.
    pub fn last_lines(&self, count: usize) -> String {
        let text = String::from_utf8_lossy(&self.stderr_tail);
        let lines: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// The last lines in which it says something to people, for a message that tells how it ended: what verbs of ours tell
    /// each other is none of it. Also that it said nothing.
    pub fn last_words(&self, count: usize) -> String {
        words(&self.for_people(count)).to_owned()
    }

    /// The same for a message that tells nothing else of it, in which it is called so.
    pub fn last_words_of(&self, who: &str, count: usize) -> String {
        match (self.for_people(count), self.exit) {
            (said, _) if !said.is_empty() => said,
            (_, Exit::Code(code)) => format!("{who} ended with exit status {code} and {SILENCE}"),
            (_, Exit::Signal(signal)) => {
                format!("{who} was killed by signal {signal} and {SILENCE}")
            }
        }
    }

    fn for_people(&self, count: usize) -> String {
        let all = self.last_lines(usize::MAX);
        let is_for_people = |line: &&str| {
            !(line.starts_with('{') && serde_json::from_str::<serde_json::Value>(line).is_ok())
        };
        let lines: Vec<&str> = all.lines().filter(is_for_people).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

const SILENCE: &str = "said nothing";

/// What a process said, for a message: it may have said nothing, and a message that ends in a colon tells nobody that.
pub fn words(said: &str) -> &str {
    match said.trim() {
        "" => "it said nothing",
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: Exit, stderr: &str) -> Completed {
        Completed { stderr_tail: stderr.into(), ..Completed::ended(exit) }
    }

    #[test]
    fn what_verbs_tell_each_other_is_not_shown_to_people() {
        let told = r#"{"bytes":12,"whole":true}"#;
        let stderr = format!("{told}\n\nstillpoint: no btrfs stream\n{told}\n");
        let words = ended(Exit::Code(1), &stderr).last_words(3);
        assert_eq!(words, "stillpoint: no btrfs stream");
        // A name that begins so is a name.
        assert_eq!(ended(Exit::Code(1), "{x}: no\n").last_words(3), "{x}: no");
    }

    #[test]
    fn of_one_that_said_nothing_a_message_says_so() {
        for silence in ["", "\n \n", "{\"bytes\":12}\n"] {
            let of = |exit| ended(exit, silence);
            assert_eq!(of(Exit::Code(1)).last_words(3), "it said nothing");
            let code = of(Exit::Code(255)).last_words_of("ssh", 3);
            assert_eq!(code, "ssh ended with exit status 255 and said nothing");
            let signal = of(Exit::Signal(9)).last_words_of("ssh", 3);
            assert_eq!(signal, "ssh was killed by signal 9 and said nothing");
        }
        assert_eq!(ended(Exit::Code(255), "a\nb\nc\n").last_words_of("ssh", 2), "b\nc");
    }

    #[test]
    fn a_display_quotes_and_debug_masks() {
        let tool = Tool::Known { name: "restic", hint: "" };
        let mut spec = CommandSpec::new(tool, Effect::Inspect).arg("-r").arg("/a b/it's");
        spec.env.push(("KEY".into(), EnvValue::Secret(Secret::new("s3cret"))));
        assert_eq!(spec.display(), r"restic -r '/a b/it'\''s'");
        assert!(!format!("{spec:?}").contains("s3cret"));
    }

    #[test]
    fn a_name_in_a_command_neither_drives_a_terminal_nor_is_lost() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(quote("a\x1b[2J\nit's"), r"$'a\x1b[2J\x0ait\'s'");
        assert_eq!(quote(OsStr::from_bytes(b"caf\xe9")), r"$'caf\xe9'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_word_is_the_same_behind_ssh_whichever_shell_is_there() {
        use std::os::unix::ffi::OsStrExt;
        // What a shell reads of a quoted word; within quotes, fish knows two escapes and the others none.
        let read = |quoted: &[u8], is_fish: bool| {
            let (mut word, mut is_quoted, mut rest) =
                (Vec::new(), false, quoted.iter().copied().peekable());
            while let Some(byte) = rest.next() {
                match byte {
                    b'\'' => is_quoted = !is_quoted,
                    b'\\' if !is_quoted => word.extend(rest.next()),
                    b'\\' if is_fish && matches!(rest.peek(), Some(b'\'' | b'\\')) => {
                        word.extend(rest.next());
                    }
                    other => word.push(other),
                }
            }
            assert!(!is_quoted);
            word
        };
        const BYTES: &[u8] = b"a'\\\n $\"`;*~\xff";
        for first in BYTES {
            for second in BYTES {
                for third in BYTES {
                    let word = [*first, *second, *third];
                    let quoted = quote_for_ssh(OsStr::from_bytes(&word));
                    for is_fish in [false, true] {
                        assert_eq!(read(quoted.as_bytes(), is_fish), word, "{quoted:?}");
                    }
                }
            }
        }
        assert_eq!(quote_for_ssh(""), "''");
        assert_eq!(quote_for_ssh("/srv/a-b.c"), "/srv/a-b.c");
    }
}
