//! What borg says on standard error with `--log-json`: one JSON object a line, and now and then plain text
//! (argument errors, ssh, a remote side that is not borg).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A log message.
    Message(Message),
    /// How far `create` is: bytes and files handled, and the path it is at.
    Archiving {
        /// Bytes of the source.
        bytes: u64,
        /// Files.
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
    /// A record that says nothing of use here (the end of a progress, a file's status).
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
    /// The text.
    pub text: String,
    /// The class of an error or, since borg 1.4, of a warning.
    pub id: Option<String>,
}

/// How bad a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For developers.
    Debug,
    /// For the curious.
    Info,
    /// Something was left out or is odd.
    Warning,
    /// It failed.
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

/// The number in `[Errno N]`, where a message holds one.
pub fn errno(text: &str) -> Option<i32> {
    let (_, after) = text.rsplit_once("[Errno ")?;
    after.split_once(']')?.0.parse().ok()
}

/// The path that a warning is about, in both readings that are possible.
///
/// borg writes `PATH: WHAT: [Errno N] …` or `PATH: [Errno N] …` or `PATH: WORDS`, and a path may hold colons
/// itself. So the first answer takes everything before the error as the path, and the second, which is nearly
/// always right, takes away a last word that says what was tried.
pub fn path_of(text: &str) -> (&str, &str) {
    let Some(at) = text.rfind(": [Errno ") else {
        let head = text.rfind(": ").map_or(text, |at| &text[..at]);
        return (head, head);
    };
    let head = &text[..at];
    let shorter = match head.rsplit_once(": ") {
        Some((path, word)) if !word.contains('/') => path,
        _ => head,
    };
    (head, shorter)
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
}
