//! What is asked of a server and how it answers: one request to a process there, which ends with the answer.
//!
//! ```text
//! standard input    8 bytes "stillpt\n", version and length (4 bytes each, little-endian), the request in JSON;
//!                   behind it, where something is received, the stream
//! standard output   the answer: one JSON document, or what was asked to be printed
//! standard error    lines for people and, when nothing came of it, last of all why, in JSON
//! ```
//!
//! Nothing in a request is believed. Names are made of a few characters, paths lead from a copy's root downwards and
//! through nothing but plain names, and what is based on a copy names the copy: what that is in the file system, the
//! server alone knows.

use std::io::Read;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::allow::Allow;
use super::answers::{Refusal, VERSION};
use super::names::{CopyName, Item, SentUuid};
use super::others::Wanted;
use crate::engine::EngineError;
use crate::engine::made::Made;
use crate::engine::tree::Inside;
use crate::host::Effect;
use crate::model::bytes;
use crate::model::names::{HostName, JobName, MachineId, RunId};
use crate::model::target::ReadData;
use crate::tools::btrfs::parts::Mark;

/// The word that tells a request from anything else.
const MAGIC: [u8; 8] = *b"stillpt\n";

/// The longest request, in bytes: paths to restore are the only ones of which there can be many.
const LONGEST: u32 = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// The directory that the client's configuration names. It is not used, only compared: a key that leads elsewhere must
    /// not go unnoticed.
    #[serde(with = "bytes::exact")]
    pub directory: PathBuf,
    /// What of it.
    pub ask: Ask,
}

/// What is asked of a directory of copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Ask {
    /// To make it one that takes copies. Answered by [`Place`].
    Init {},
    /// Whether it is one that takes copies now. Answered by [`Place`].
    Probe {},
    /// Which copies there are. Answered by [`Listing`].
    List {},
    /// To receive the stream that follows. Answered by [`Taken`].
    Receive(Box<Receive>),
    /// To remove what is there of a copy that is not whole: nobody goes on with it. Answered by [`Done`].
    GiveUp { copy: CopyName },
    /// To delete copies. Answered by [`Done`].
    Delete { copies: Vec<CopyName> },
    /// To keep a copy or no longer. Answered by [`Done`].
    Pin { copy: CopyName, pinned: bool },
    /// What other programs have received there. Answered by [`Others`]. This and the next two are only said to a server
    /// that knows them ([`Listing::adopts`]).
    Others {},
    /// To have these of that be copies, pinned and proven by nobody. Answered by [`Adopted`].
    Adopt { copies: Vec<Wanted> },
    /// To note of one that all of it was compared with what was sent. Answered by [`Done`].
    Prove { copy: CopyName },
    /// To look at all of them, and to read so much. Answered by [`Checked`].
    Check { read_data: Share },
    /// To read one. Answered by [`Checked`].
    Verify { copy: CopyName },
    /// To print something of copies.
    Print(Printed),
}

impl Ask {
    /// What it does there.
    pub fn effect(&self) -> Effect {
        match self {
            Ask::Probe {} | Ask::List {} | Ask::Check { .. } | Ask::Verify { .. } => {
                Effect::Inspect
            }
            Ask::Print(_) | Ask::Others {} => Effect::Inspect,
            Ask::Adopt { .. } | Ask::Prove { .. } => Effect::Mutate,
            Ask::Init {}
            | Ask::Receive(_)
            | Ask::GiveUp { .. }
            | Ask::Delete { .. }
            | Ask::Pin { .. } => Effect::Mutate,
        }
    }

    /// Whether it may rightly take hours in which nothing comes but tidings.
    pub fn is_long_and_quiet(&self) -> bool {
        match self {
            Ask::Check { .. } | Ask::Verify { .. } | Ask::Delete { .. } => true,
            // A large file is one line.
            Ask::Print(Printed::Manifest { .. }) => true,
            Ask::Init {} | Ask::Probe {} | Ask::List {} => false,
            Ask::Receive(_) | Ask::GiveUp { .. } | Ask::Pin { .. } | Ask::Print(_) => false,
            Ask::Others {} | Ask::Adopt { .. } | Ask::Prove { .. } => false,
        }
    }

    /// What a key must be let do.
    pub fn needs(&self) -> Allow {
        match self {
            Ask::Init {} => Allow::Init,
            Ask::Probe {} | Ask::List {} => Allow::List,
            Ask::Check { .. } | Ask::Verify { .. } => Allow::Check,
            Ask::Receive(_) | Ask::GiveUp { .. } | Ask::Pin { pinned: true, .. } => Allow::Receive,
            // A copy that nobody keeps any more is as good as deleted.
            Ask::Delete { .. } | Ask::Pin { pinned: false, .. } => Allow::Delete,
            Ask::Print(_) => Allow::Restore,
            Ask::Others {} | Ask::Adopt { .. } | Ask::Prove { .. } => Allow::Adopt,
        }
    }

    /// The copies that it names.
    pub fn copies(&self) -> Vec<&CopyName> {
        match self {
            Ask::Init {} | Ask::Probe {} | Ask::List {} | Ask::Check { .. } => Vec::new(),
            // They are none yet.
            Ask::Others {} | Ask::Adopt { .. } => Vec::new(),
            Ask::Receive(receive) => receive.base.iter().collect(),
            Ask::Delete { copies } => copies.iter().collect(),
            Ask::GiveUp { copy } | Ask::Pin { copy, .. } => vec![copy],
            Ask::Verify { copy } | Ask::Prove { copy } => vec![copy],
            Ask::Print(printed) => match printed {
                Printed::Contents { copy }
                | Printed::Manifest { copy, .. }
                | Printed::Whole { copy }
                | Printed::File { copy, .. }
                | Printed::Archive { copy, .. } => vec![copy],
                Printed::Differences { older, newer } => vec![older, newer],
            },
        }
    }
}

/// What is to be received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Receive {
    pub host: HostName,
    pub job: JobName,
    pub item: Item,
    pub run: RunId,
    pub machine: Option<MachineId>,
    pub time: DateTime<Utc>,
    /// The UUID of the snapshot that is sent.
    pub sent: SentUuid,
    /// The generation that it has.
    pub generation: u64,
    /// The copy to which the stream is the difference.
    pub base: Option<CopyName>,
    /// So many bytes make a part with which an interrupted transfer goes on; `None`: it is received as a whole. Only said
    /// to a server that tells of parts ([`Listing::parts`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_size: Option<u64>,
    /// The end of the part that is there and behind which the stream begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Mark>,
}

impl Receive {
    /// Whose copy it will be.
    pub fn made(&self) -> Made {
        Made {
            host: self.host.clone(),
            job: self.job.clone(),
            item: Some(self.item.as_str().to_owned()),
            run: self.run.clone(),
            machine: self.machine.clone(),
            time: self.time,
        }
    }
}

/// What is printed of copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Printed {
    /// What lies in a copy, as [`crate::tools::listing`] tells it.
    Contents { copy: CopyName },
    /// How two differ, as [`crate::tools::btrfs::changes`] tells it.
    Differences { older: CopyName, newer: CopyName },
    /// What one holds down to the content of this share of its files, as [`crate::tools::manifest`] tells it. It names
    /// everything, so whoever may not read may not ask for it. Only said to a server that can
    /// ([`Listing::describes`]).
    Manifest { copy: CopyName, share: Share, seed: u64 },
    /// The stream of one, as `btrfs send` writes it.
    Whole { copy: CopyName },
    /// One file.
    File { copy: CopyName, path: Inside },
    /// Files and directories of one, as tar packs them.
    Archive { copy: CopyName, alone: Vec<Inside>, whole: Vec<Inside> },
}

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Share {
    None,
    Percent(f64),
    All,
}

impl Eq for Share {}

impl From<ReadData> for Share {
    fn from(read_data: ReadData) -> Self {
        match read_data {
            ReadData::None => Share::None,
            ReadData::Percent(percent) => Share::Percent(percent),
            ReadData::All => Share::All,
        }
    }
}

impl From<Share> for ReadData {
    fn from(share: Share) -> Self {
        match share {
            Share::None => ReadData::None,
            Share::Percent(percent) => ReadData::Percent(percent),
            Share::All => ReadData::All,
        }
    }
}

impl Request {
    /// The request as it is written.
    ///
    /// # Errors
    /// When it is longer than any may be.
    pub fn frame(&self) -> Result<Vec<u8>, EngineError> {
        let what = |what: String| EngineError::Unsupported { engine: "btrfs".into(), what };
        let json = serde_json::to_vec(self).map_err(|error| what(error.to_string()))?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| what("ask a server for so many paths at once".into()))?;
        Ok([&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), &json].concat())
    }

    /// Reads one, and not a byte of what follows.
    ///
    /// # Errors
    /// When it is none, or of another version.
    pub fn read(from: &mut dyn Read) -> Result<Request, Refusal> {
        let none = |what: &str| Refusal::NoRequest(what.to_owned());
        let mut head = [0; 16];
        from.read_exact(&mut head).map_err(|_| none("this is no request of Stillpoint's"))?;
        let number = |at: usize| {
            head[at..].first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
        };
        if head[..8] != MAGIC {
            return Err(none("this is no request of Stillpoint's"));
        }
        if number(8) != VERSION {
            return Err(Refusal::Version(VERSION));
        }
        let length = number(12);
        if length > LONGEST {
            return Err(none("the request is too long"));
        }
        let mut json = vec![0; usize::try_from(length).unwrap_or_default()];
        from.read_exact(&mut json).map_err(|_| none("the request is cut off"))?;
        serde_json::from_slice(&json)
            .map_err(|error| Refusal::NoRequest(format!("the request cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(ask: Ask) -> Request {
        Request { directory: "/srv/copies".into(), ask }
    }

    fn receive() -> Receive {
        Receive {
            host: HostName::new("web1").unwrap(),
            job: JobName::new("home").unwrap(),
            item: Item::new("/home").unwrap(),
            run: RunId::parse("0badc0de").unwrap(),
            machine: None,
            time: DateTime::UNIX_EPOCH,
            sent: SentUuid::new("00112233-4455-6677-8899-aabbccddeeff").unwrap(),
            generation: 7,
            base: CopyName::new("home@web1._2fhome.20261121T020304Z.00000001"),
            part_size: Some(1 << 20),
            behind: Mark::parse(&format!("3:4000000:{}", "ab".repeat(32))),
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            name: CopyName::new("home.20261121T0203+0100").unwrap(),
            uuid: SentUuid::new("00112233-4455-6677-8899-aabbccddeeff").unwrap(),
            sent: SentUuid::new("10112233-4455-6677-8899-aabbccddeeff").unwrap(),
            generation: 7,
            time: DateTime::UNIX_EPOCH,
            host: HostName::new("web1").unwrap(),
            job: JobName::new("home").unwrap(),
            item: Item::new("/home").unwrap(),
        }
    }

    fn read(bytes: &[u8]) -> Result<Request, Refusal> {
        Request::read(&mut &bytes[..])
    }

    /// A request of this text, however wrong.
    fn framed(json: &str) -> Vec<u8> {
        let length = u32::try_from(json.len()).unwrap();
        [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), json.as_bytes()].concat()
    }

    #[test]
    fn a_request_is_read_back_and_nothing_of_what_follows_is() {
        use std::os::unix::ffi::OsStrExt;
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9\nx");
        let copy = || CopyName::new("home@web1.20261121T020304Z.00000001").unwrap();
        let whole = vec![Inside::new(odd).unwrap(), Inside::new("").unwrap()];
        for ask in [
            Ask::Init {},
            Ask::Probe {},
            Ask::List {},
            Ask::Receive(Box::new(receive())),
            Ask::GiveUp { copy: copy() },
            Ask::Delete { copies: vec![copy()] },
            Ask::Pin { copy: copy(), pinned: true },
            Ask::Others {},
            Ask::Adopt { copies: vec![wanted()] },
            Ask::Prove { copy: CopyName::new("12/snapshot").unwrap() },
            Ask::Check { read_data: Share::Percent(2.5) },
            Ask::Verify { copy: copy() },
            Ask::Print(Printed::Contents { copy: copy() }),
            Ask::Print(Printed::Manifest { copy: copy(), share: Share::All, seed: u64::MAX }),
            Ask::Print(Printed::Differences { older: copy(), newer: copy() }),
            Ask::Print(Printed::Whole { copy: copy() }),
            Ask::Print(Printed::File { copy: copy(), path: Inside::new("a/b").unwrap() }),
            Ask::Print(Printed::Archive { copy: copy(), alone: Vec::new(), whole }),
        ] {
            let request = request(ask);
            let mut bytes = request.frame().unwrap();
            bytes.extend(b"btrfs-stream");
            let mut rest = &bytes[..];
            assert_eq!(Request::read(&mut rest).unwrap(), request);
            assert_eq!(rest, b"btrfs-stream");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let good = request(Ask::List {}).frame().unwrap();
        for length in 0..good.len() {
            assert!(matches!(read(&good[..length]), Err(Refusal::NoRequest(_))), "{length} bytes");
        }
        let mut newer = good.clone();
        newer[8] = 2;
        assert_eq!(read(&newer), Err(Refusal::Version(1)));
        let mut long = good.clone();
        long[12..16].copy_from_slice(&(LONGEST + 1).to_le_bytes());
        assert!(read(&long).unwrap_err().to_string().contains("too long"));
        let list = r#"{"directory": "/srv", "ask": {"list": {}}}"#;
        assert!(read(&framed(list)).is_ok());
        for wrong in [
            "",
            "{}",
            r#"{"directory": "/srv", "ask": {"list": {}}, "more": 1}"#,
            r#"{"directory": "/srv", "ask": {"list": {"more": 1}}}"#,
            r#"{"directory": "/srv", "ask": {"list": {}, "probe": {}}}"#,
            r#"{"directory": "/srv", "ask": {"shell": {}}}"#,
            r#"{"directory": "/srv", "ask": {"list": {}}} {}"#,
            r#"{"directory": "/srv", "ask": {"delete": {"copies": [".incoming.x"]}}}"#,
            r#"{"directory": "/srv", "ask": {"delete": {"copies": ["a/../b"]}}}"#,
            r#"{"directory": "/srv", "ask": {"prove": {"copy": "12/../../x"}}}"#,
            r#"{"directory": "/srv", "ask": {"adopt": {"copies": [{"name": "../x"}]}}}"#,
            r#"{"directory": "/srv", "ask": {"print": {"file": {"copy": "a", "path": "../b"}}}}"#,
            r#"{"directory": "/srv", "ask": {"print": {"file": {"copy": "a", "path": "/etc/shadow"}}}}"#,
        ] {
            assert!(matches!(read(&framed(wrong)), Err(Refusal::NoRequest(_))), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_stumble(head in proptest::collection::vec(any::<u8>(), 0..64), json in ".{0,64}", cut in 0_usize..200) {
            let _ = read(&head);
            let _ = read(&[&MAGIC[..], &head].concat());
            let _ = read(&framed(&json));
            let mut bytes = request(Ask::Receive(Box::new(receive()))).frame().unwrap();
            let at = cut % bytes.len();
            bytes[at] ^= head.first().copied().unwrap_or(1);
            if let Ok(Request { ask: Ask::Receive(it), .. }) = read(&bytes) {
                let names = it.base.iter().map(CopyName::as_str);
                prop_assert!(names.into_iter().flat_map(|it| it.split('/')).all(|it| !it.is_empty() && !it.starts_with('.')));
                prop_assert!(!it.item.as_str().contains(".."));
            }
        }
    }
}
