//! What borg says on standard error with `--log-json`: one JSON object a line, and now and then plain text
//! (argument errors, ssh, a remote side that is not borg).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// One line of what borg prints on standard error with `--log-json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A log message.
    Message(Message),
    /// How far `create` is: bytes and files handled, and the path it is at.
    Archiving {
        /// Bytes of the source.
        bytes: u64,
        /// How many files were read so far.
        files: u64,
        /// The path, as borg stores it.
        path: String,
    },
    /// How far another verb is; the units are borg's own and differ by verb.
    Working {
        /// Which work: borg's own id of the operation (`extract`, `repository.check`).
        operation: String,
        /// Steps or bytes done.
        current: Option<u64>,
        /// Steps or bytes in all.
        total: Option<u64>,
        /// What it shows to people.
        message: String,
    },
    /// What `create --list` did with a path.
    Item {
        /// `d` a directory was stored, `x` it was left out.
        status: char,
        /// The path, bytes that are not UTF-8 as `?`.
        path: String,
    },
    /// A record that says nothing of use here (the end of a progress).
    Other,
    /// Text that is not JSON.
    Text(String),
}

/// A log message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How bad it is.
    pub level: Level,
    /// The logger (`borg.archiver`, `borg.repository`).
    pub logger: String,
    /// What borg says, for a person.
    pub text: String,
    /// The class of an error or, since borg 1.4, of a warning.
    pub id: Option<String>,
}

/// How bad a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `DEBUG`: for whoever develops borg.
    Debug,
    /// For the curious.
    Info,
    /// Something was left out or is odd.
    Warning,
    /// `ERROR`: something failed.
    Error,
    /// It failed badly.
    Critical,
}

/// Text as borg sends it. Python passes bytes that are not UTF-8 as lone surrogates, which JSON allows and
/// Rust's strings do not; here they become the bytes they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireText(Vec<u8>);

impl WireText {
    /// The exact text, for a path.
    pub fn into_os_string(self) -> OsString {
        OsString::from_vec(self.0)
    }

    /// The text for people; what is not UTF-8 is replaced.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The text, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl<'de> Deserialize<'de> for WireText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = WireText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<WireText, E> {
                Ok(WireText(without_surrogates(bytes)))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Turns the surrogates U+DC80 to U+DCFF (as three bytes each) back into the bytes 0x80 to 0xff.
fn without_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match rest {
            [0xed, high @ (0xb2 | 0xb3), low @ 0x80..=0xbf, after @ ..] => {
                text.push(((high & 0b11) << 6) | (low & 0x3f));
                rest = after;
            }
            _ => {
                text.push(first);
                rest = tail;
            }
        }
    }
    text
}

/// A line as it comes.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "type")]
    kind: WireText,
    levelname: Option<WireText>,
    name: Option<WireText>,
    message: Option<WireText>,
    msgid: Option<WireText>,
    original_size: Option<u64>,
    nfiles: Option<u64>,
    path: Option<WireText>,
    current: Option<u64>,
    total: Option<u64>,
    status: Option<char>,
}

/// Reads one line of standard error.
///
/// # Errors
/// When it begins like a JSON object and is not one that borg sends, in words.
pub fn parse_line(line: &[u8]) -> Result<Line, String> {
    if !line.starts_with(b"{") {
        return Ok(Line::Text(String::from_utf8_lossy(line).trim_end().to_owned()));
    }
    let broken = |why: &dyn fmt::Display| {
        format!("a log line cannot be read ({why}): {}", String::from_utf8_lossy(line))
    };
    let record: Record = serde_json::from_slice(line).map_err(|error| broken(&error))?;
    let text = |field: Option<WireText>| field.map(|text| text.lossy());
    match record.kind.as_str() {
        Some("log_message") => {
            let level = match record.levelname.as_ref().and_then(WireText::as_str) {
                Some("DEBUG") => Level::Debug,
                Some("INFO") => Level::Info,
                Some("WARNING") => Level::Warning,
                Some("ERROR") => Level::Error,
                Some("CRITICAL") => Level::Critical,
                _ => return Err(broken(&"no known level")),
            };
            Ok(Line::Message(Message {
                level,
                logger: text(record.name).unwrap_or_default(),
                text: text(record.message).ok_or_else(|| broken(&"no message"))?,
                id: text(record.msgid),
            }))
        }
        // The last record of a progress has none of these fields.
        Some("archive_progress") => Ok(match (record.original_size, record.nfiles, record.path) {
            (Some(bytes), Some(files), Some(path)) => {
                Line::Archiving { bytes, files, path: path.lossy() }
            }
            _ => Line::Other,
        }),
        Some("file_status") => Ok(match (record.status, record.path) {
            (Some(status), Some(path)) => Line::Item { status, path: path.lossy() },
            _ => Line::Other,
        }),
        Some("progress_percent" | "progress_message") => Ok(match record.message {
            Some(message) => Line::Working {
                operation: text(record.msgid).unwrap_or_default(),
                current: record.current,
                total: record.total,
                message: message.lossy().trim().to_owned(),
            },
            None => Line::Other,
        }),
        _ => Ok(Line::Other),
    }
}

/// An error of the operating system at the end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemError<'a> {
    /// `errno`.
    pub number: i32,
    /// What stands before it: `PATH: open`, `PATH`, `OSError`.
    pub about: &'a str,
}

/// What borg was at when an error of the system came, as it names it (`backup_io` in its source): at the source alone.
/// Not `read`, within which it also writes to the repository.
const AT_THE_SOURCE: &[&str] =
    &["dir_open", "flags", "fstat", "fstat2", "open", "readlink", "scandir", "stat"];

impl SystemError<'_> {
    /// Whether the repository may be what the error is about, and not the source.
    pub fn may_be_of_the_repository(&self) -> bool {
        let operation = self.about.rsplit_once(": ").map_or("", |(_, word)| word);
        !AT_THE_SOURCE.contains(&operation) && !operation.starts_with("extended stat")
    }
}

/// The error of the system with which a message ends: `… [Errno 13] Permission denied: 'NAME'`, or without the name.
///
/// Path and name belong to users and may themselves read `[Errno 28] No space left on device`. So the message is read
/// from its end, where Python's notation says where the name begins and the system's own words must follow the number.
pub fn system_error(text: &str) -> Option<SystemError<'_>> {
    // The one warning of `create` that ends in a path.
    if text.starts_with("Unknown file type: ") {
        return None;
    }
    let mut head = text.trim_end();
    // `rename` and `link` name two, with an arrow between them.
    for separator in [": ", " -> ", ": "] {
        if let Some(before) = without_quoted(head).and_then(|head| head.strip_suffix(separator)) {
            head = before;
        }
    }
    let (about, error) = head.rsplit_once("[Errno ")?;
    let (number, words) = error.split_once("] ")?;
    let number = number.parse().ok()?;
    let own = std::io::Error::from_raw_os_error(number).to_string();
    let is_own = own.strip_suffix(&format!(" (os error {number})")) == Some(words);
    is_own.then_some(SystemError { number, about: about.strip_suffix(": ").unwrap_or(about) })
}

/// The text without the literal of a Python string at its end.
fn without_quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next_back().filter(|last| ['\'', '"'].contains(last))?;
    let inside = &text[..text.len() - 1];
    let begin = inside.match_indices(quote).map(|(at, _)| at).rfind(|at| {
        // An odd number of backslashes makes it part of the string.
        let backslashes = inside[..*at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        backslashes % 2 == 0
    })?;
    Some(&text[..begin])
}

/// The number of the error of the system with which a message ends.
pub fn errno(text: &str) -> Option<i32> {
    system_error(text).map(|error| error.number)
}

/// Whether a line of standard error says that there is no space where the repository is. Only a message can: the lines
/// of progress hold paths.
pub fn is_about_full_repository(line: &[u8]) -> bool {
    let candidate = |mark: &[u8]| line.windows(mark.len()).any(|part| part == mark);
    // Most lines are progress, and need not be parsed twice.
    if !NO_SPACE.iter().any(|number| candidate(format!("[Errno {number}]").as_bytes())) {
        return false;
    }
    match parse_line(line) {
        Ok(Line::Message(message)) => message.level >= Level::Warning && message.is_no_space(),
        Ok(
            Line::Archiving { .. }
            | Line::Working { .. }
            | Line::Item { .. }
            | Line::Other
            | Line::Text(_),
        )
        | Err(_) => false,
    }
}

/// `ENOSPC` and `EDQUOT`.
const NO_SPACE: [i32; 2] = [28, 122];

impl Message {
    /// Whether it says that there is no space where the repository is. An unforeseen exception says so in the last line
    /// of its trace.
    pub fn is_no_space(&self) -> bool {
        let text = end_of_trace(&self.text).unwrap_or(&self.text);
        is_no_space(text)
    }
}

/// Whether one line says that there is no space where the repository is.
pub fn is_no_space(text: &str) -> bool {
    system_error(text)
        .is_some_and(|error| NO_SPACE.contains(&error.number) && error.may_be_of_the_repository())
}

/// The last line of a Python trace, before the description of the system that borg appends.
pub fn end_of_trace(text: &str) -> Option<&str> {
    if !text.starts_with("Traceback") {
        return None;
    }
    let lines =
        text.lines().take_while(|line| !line.trim().is_empty() && !line.starts_with("Platform:"));
    lines.last().filter(|line| !line.starts_with(' '))
}

/// The path that a warning is about, in both readings that are possible.
///
/// borg writes `PATH: WHAT: [Errno N] …` or `PATH: [Errno N] …` or `PATH: WORDS`, and a path may hold colons
/// itself. So the first answer takes everything before the error as the path, and the second, which is nearly
/// always right, takes away a last word that says what was tried.
pub fn path_of(text: &str) -> (&str, &str) {
    let Some(SystemError { about: head, .. }) = system_error(text) else {
        let head = text.rfind(": ").map_or(text, |at| &text[..at]);
        return (head, head);
    };
    let shorter = match head.rsplit_once(": ") {
        Some((path, word)) if !word.contains('/') => path,
        _ => head,
    };
    (head, shorter)
}

/// The space that `compact` says it freed, as borg rounds it, if the line says that. An append-only repository
/// has no such line.
pub fn freed_space(line: &[u8]) -> Option<String> {
    let Ok(Line::Message(message)) = parse_line(line) else { return None };
    let text = message.text.strip_prefix("Remote: ").unwrap_or(&message.text);
    let amount = text.strip_prefix("compaction freed ")?.strip_suffix(" repository space.")?;
    (message.level == Level::Info).then(|| amount.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_progress_and_text() {
        let line = br#"{"type": "log_message", "time": 1.5, "message": "gone", "levelname": "ERROR", "name": "borg.archiver", "msgid": "Repository.DoesNotExist"}"#;
        let expected = Message {
            level: Level::Error,
            logger: "borg.archiver".into(),
            text: "gone".into(),
            id: Some("Repository.DoesNotExist".into()),
        };
        assert_eq!(parse_line(line), Ok(Line::Message(expected)));
        let line = br#"{"original_size": 9, "compressed_size": 0, "deduplicated_size": 0, "nfiles": 2, "path": "a", "time": 1.0, "type": "archive_progress", "finished": false}"#;
        assert_eq!(parse_line(line), Ok(Line::Archiving { bytes: 9, files: 2, path: "a".into() }));
        assert_eq!(
            parse_line(br#"{"time": 1.0, "type": "archive_progress", "finished": true}"#),
            Ok(Line::Other)
        );
        assert_eq!(parse_line(b"usage: borg"), Ok(Line::Text("usage: borg".into())));
        for bad in [&b"{"[..], b"{}", br#"{"type":"log_message","levelname":"LOUD","message":"x"}"#]
        {
            assert!(parse_line(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn bytes_that_are_no_text_come_back_as_they_were() {
        let text: WireText = serde_json::from_str(r#""n\udcff\udc80\u00e4\ud83d\ude00""#).unwrap();
        assert_eq!(text.into_os_string().into_vec(), b"n\xff\x80\xc3\xa4\xf0\x9f\x98\x80");
    }

    #[test]
    fn paths_in_warnings() {
        let denied = "/a: b/c: open: [Errno 13] Permission denied: 'c'";
        assert_eq!(path_of(denied), ("/a: b/c: open", "/a: b/c"));
        assert_eq!(errno(denied), Some(13));
        let missing = "/nonexist: [Errno 2] No such file or directory: 'nonexist'";
        assert_eq!(path_of(missing), ("/nonexist", "/nonexist"));
        let changed = "/var/log/x: file changed while we backed it up";
        assert_eq!(path_of(changed).1, "/var/log/x");
        assert_eq!(errno(changed), None);
    }

    #[test]
    fn the_repository_is_full_when_a_message_says_so_and_not_a_name() {
        let line = |level: &str, text: &str| {
            serde_json::json!({
                "type": "log_message", "levelname": level, "name": "borg.archiver", "message": text,
            })
            .to_string()
        };
        for (level, text) in [
            ("WARNING", "/srv/f: read: [Errno 28] No space left on device"),
            ("WARNING", "/srv/f: read: [Errno 28] No space left on device: '/repo/data/0/5'"),
            ("WARNING", "/srv/f: [Errno 122] Disk quota exceeded"),
            (
                "ERROR",
                "Traceback (most recent call last):\n  File \"x\"\nOSError: [Errno 28] No space left on device\n\nPlatform: Linux",
            ),
        ] {
            assert!(is_about_full_repository(line(level, text).as_bytes()), "{text}");
        }
        for (level, text) in [
            ("WARNING", "/srv/[Errno 28]: open: [Errno 13] Permission denied: '[Errno 28]'"),
            (
                "WARNING",
                "/srv/x: [Errno 28] No space left on device: file changed while we backed it up",
            ),
            (
                "WARNING",
                "/srv/x: stat: [Errno 2] No such file or directory: 'x: [Errno 28] No space left on device'",
            ),
            (
                "WARNING",
                r#"/srv/it's: open: [Errno 13] Permission denied: "it's: [Errno 28] No space left on device""#,
            ),
            ("WARNING", "Unknown file type: /srv/x: [Errno 28] No space left on device"),
            // A file system of the source may say it as well, but not of the repository.
            ("WARNING", "/srv/x: open: [Errno 28] No space left on device: 'x'"),
            ("INFO", "/srv/f: read: [Errno 28] No space left on device"),
        ] {
            assert!(!is_about_full_repository(line(level, text).as_bytes()), "{text}");
        }
        let progress = r#"{"original_size":1,"nfiles":1,"path":"/srv/x: read: [Errno 28] No space left on device","type":"archive_progress","finished":false}"#;
        assert!(!is_about_full_repository(progress.as_bytes()));
        assert!(!is_about_full_repository(b"/srv/f: read: [Errno 28] No space left on device"));
    }

    mod names {
        use proptest::prelude::*;

        use super::super::*;

        /// Names made of everything that is looked for.
        fn hostile() -> impl Strategy<Value = String> {
            let part = prop::sample::select(vec![
                "[Errno 28] No space left on device",
                "[Errno 122] Disk quota exceeded",
                "[Errno 2]",
                ": ",
                "'",
                "\"",
                "\\",
                "read",
                "open",
                "file changed while we backed it up",
                " -> ",
                "x",
                "\n",
                "Traceback",
                "é",
            ]);
            prop::collection::vec(part, 1..8).prop_map(|parts| parts.concat())
        }

        /// As Python writes a string.
        fn literal(name: &str) -> String {
            let quote = if name.contains('\'') && !name.contains('"') { '"' } else { '\'' };
            let mut text = String::from(quote);
            for character in name.chars() {
                match character {
                    '\n' => text.push_str("\\n"),
                    other if other == quote || other == '\\' => text.extend(['\\', other]),
                    other => text.push(other),
                }
            }
            text.push(quote);
            text
        }

        proptest! {
            #[test]
            fn the_error_is_the_one_that_happened_whatever_the_name(name in hostile(), number in 1..40i32, named: bool) {
                let error = std::io::Error::from_raw_os_error(number).to_string();
                let words = error.strip_suffix(&format!(" (os error {number})")).unwrap().to_owned();
                let mut text = format!("/srv/{name}: open: [Errno {number}] {words}");
                if named {
                    text.push_str(&format!(": {}", literal(&name)));
                }
                let about = format!("/srv/{name}: open");
                prop_assert_eq!(system_error(&text), Some(SystemError { number, about: &about }));
                let path = format!("/srv/{name}");
                prop_assert_eq!(path_of(&text).1, &path);
                prop_assert!(!is_no_space(&text));
            }

            #[test]
            fn a_name_alone_is_no_error(name in hostile()) {
                for words in ["file changed while we backed it up", "file type changed (race condition), skipping file"] {
                    let text = format!("/srv/{name}: {words}");
                    prop_assert_eq!(system_error(&text), None);
                }
            }
        }
    }

    #[test]
    fn the_space_that_compaction_freed() {
        for (version, expected) in
            [("borg-1.2.4-legacy", "about 4.03 kB"), ("borg-1.4.5-modern", "about 4.03 kB")]
        {
            let path =
                format!("{}/tests/fixtures/{version}/compact.err", env!("CARGO_MANIFEST_DIR"));
            let said = std::fs::read(path).unwrap();
            let freed = said.split(|byte| *byte == b'\n').find_map(freed_space);
            assert_eq!(freed.as_deref(), Some(expected), "{version}");
        }
        assert_eq!(freed_space(b"compaction freed about 1 kB repository space."), None);
    }
}
