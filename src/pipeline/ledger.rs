//! The ledger file: an append-only list of what a run must give back, durable before it is acted upon.
//!
//! One file a run, `state-dir/ledger/RUN`, one JSON object a line. The run holds a lock on its own file as
//! long as it lives, so a ledger that can be locked belongs to a dead run. What belongs together is written
//! together, with one fsync. Of lines that were not yet fsynced, a crash may leave the first ones and cut the
//! next one off: none was acted upon (the effects come after the fsync), so the whole ones name what is not
//! there, and the one that was cut off, which can only be the last, is ignored. Any other unreadable line is an
//! error: nothing is guessed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::host::ChildRecorder;
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, EntryId, Identity, Ledger, Outstanding, Undo};
use crate::step::error::{StepError, write_hint};

/// The version of the ledger's format. Format 1 named every [`Undo`] by its kind alone, and knew nothing of what is kept;
/// it is read all the same.
const FORMAT: u32 = 2;

/// How often a run makes the draft of its ledger anew that others have swept away.
const DRAFTS: u32 = 100;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Begin { format: u32, run: RunId },
    Intend { entry: EntryId, undo: Undo },
    Made { entry: EntryId, identity: Identity },
    Settled { entry: EntryId },
    Promote { entry: EntryId, replaced: Vec<Replaced> },
    ChildStarted { child: ChildProcess },
    ChildEnded { pid: i32, start_time: u64 },
}

/// What was kept so far, and is to be given back since something else is kept in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Replaced {
    entry: EntryId,
    undo: Undo,
    identity: Identity,
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The operating system refused.
    #[error("cannot {what} the ledger {}", path.shown())]
    Io {
        /// The verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line in the middle cannot be read.
    #[error("line {line} of the ledger {} cannot be read", path.shown())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by a later Stillpoint.
    #[error("the ledger {} has format {format}, which this version does not know", path.shown())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

impl LedgerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            LedgerError::Io { source, .. } => write_hint(source),
            LedgerError::Unreadable { .. } => None,
            LedgerError::Newer { .. } => Some("use the newer version of stillpoint that wrote it"),
        }
    }
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        Self::from_error(Trouble::Environment, &error, error.hint())
    }
}

/// What a ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// The run; `None` when the crash came before the first line was complete.
    pub run: Option<RunId>,
    /// What must be given back, newest first.
    pub outstanding: Vec<Outstanding>,
    /// Children that were not seen to end.
    pub children: Vec<ChildProcess>,
    /// All children, also those that were.
    pub started: Vec<ChildProcess>,
    /// The newest format that it says to have.
    format: u32,
    next: u64,
    /// Bytes of complete lines; a cut-off line behind them is overwritten by the next writer.
    complete: u64,
}

fn replay(path: &Path, bytes: &[u8]) -> Result<Replay, LedgerError> {
    let (mut run, mut newest) = (None, 0);
    let mut entries: BTreeMap<EntryId, Outstanding> = BTreeMap::new();
    let mut children: Vec<ChildProcess> = Vec::new();
    let mut started = Vec::new();
    let mut next = 0;
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for (index, text) in bytes[..complete].split(|byte| *byte == b'\n').enumerate() {
        if text.is_empty() {
            continue;
        }
        let line = serde_json::from_slice(text).map_err(|source| LedgerError::Unreadable {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        match line {
            Line::Begin { format, .. } if format > FORMAT => {
                return Err(LedgerError::Newer { path: path.to_owned(), format });
            }
            Line::Begin { run: id, format } => (run, newest) = (Some(id), format),
            Line::Intend { entry, undo } => {
                next = entry.0 + 1;
                entries.insert(entry, Outstanding { entry, undo, identity: None });
            }
            Line::Made { entry, identity } => {
                if let Some(outstanding) = entries.get_mut(&entry) {
                    outstanding.identity = Some(identity);
                }
            }
            Line::Settled { entry } => {
                entries.remove(&entry);
            }
            Line::Promote { entry, replaced } => {
                entries.remove(&entry);
                for Replaced { entry, undo, identity } in replaced {
                    next = entry.0 + 1;
                    let identity = Some(identity);
                    entries.insert(entry, Outstanding { entry, undo, identity });
                }
            }
            Line::ChildStarted { child } => {
                started.push(child.clone());
                children.push(child);
            }
            Line::ChildEnded { pid, start_time } => {
                children.retain(|child| child.pid != pid || child.start_time != start_time);
            }
        }
    }
    let outstanding = entries.into_values().rev().collect();
    let (format, complete) = (newest, complete as u64);
    Ok(Replay { run, outstanding, children, started, format, next, complete })
}

/// The ledger of a live run, or of a dead one that is being recovered.
pub struct FileLedger {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    next: u64,
    /// The run of an adopted ledger of an older format, until something is intended in it.
    older: Option<RunId>,
}

impl FileLedger {
    /// Starts the ledger of a run and locks it. From here on a crash is recoverable.
    ///
    /// # Errors
    /// When the file cannot be made durable; then the run must not start.
    pub fn begin(directory: &Path, run: &RunId) -> Result<Self, LedgerError> {
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError::Io { what, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(fail("create the directory of", directory))?;
        // Locked under a name that recover passes over, and renamed when it is whole: nobody can take it
        // for the ledger of a dead run in between.
        let draft = directory.join(format!(".{run}"));
        let path = directory.join(run.as_str());
        let file = lock_draft(&draft).map_err(fail("create", &draft))?;
        let ledger =
            Self { path: path.clone(), state: Mutex::new(State { file, next: 0, older: None }) };
        let begun = ledger.append(&[Line::Begin { format: FORMAT, run: run.clone() }], true);
        begun.map_err(|error| {
            // It names nothing. If it stays, the next session sweeps it away.
            let _ = fs::remove_file(&draft);
            fail("write", &draft)(error)
        })?;
        fs::rename(&draft, &path).map_err(fail("name", &path))?;
        sync_directory(directory).map_err(fail("sync the directory of", directory))?;
        Ok(ledger)
    }

    /// Takes over the ledger of a dead run. `None` when its run is alive or it is gone.
    ///
    /// # Errors
    /// When it cannot be read; it is left as it is.
    pub fn adopt(path: &Path) -> Result<Option<(Self, Replay)>, LedgerError> {
        let fail = |what| {
            let path = path.to_owned();
            move |source| LedgerError::Io { what, path, source }
        };
        let mut file = match OpenOptions::new().append(true).read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail("open")(error)),
        };
        if !crate::lock::try_hold(&file).map_err(fail("lock"))? {
            return Ok(None);
        }
        // Its run may have ended, and removed it, between our opening and our locking it.
        if !path.exists() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail("read"))?;
        let replay = replay(path, &bytes)?;
        if replay.complete < bytes.len() as u64 {
            file.set_len(replay.complete).map_err(fail("trim"))?;
        }
        let older = replay.run.clone().filter(|_| replay.format < FORMAT);
        let state = Mutex::new(State { file, next: replay.next, older });
        Ok(Some((Self { path: path.to_owned(), state }, replay)))
    }

    /// What the ledger of a dead run says, without changing anything: a disk may not take a write just now.
    /// `None` when its run is alive, or the ledger cannot be read.
    pub fn peek(path: &Path) -> Option<Replay> {
        let mut file = File::open(path).ok()?;
        if !crate::lock::try_hold(&file).ok()? {
            return None;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        replay(path, &bytes).ok()
    }

    /// What this ledger says now.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub fn replay(&self) -> Result<Replay, LedgerError> {
        let bytes = fs::read(&self.path).map_err(|source| LedgerError::Io {
            what: "read",
            path: self.path.clone(),
            source,
        })?;
        replay(&self.path, &bytes)
    }

    /// Removes the file if nothing is outstanding; otherwise it stays for recover. Answers with what stays.
    ///
    /// # Errors
    /// When it cannot be read or removed.
    pub fn close(self) -> Result<Vec<Outstanding>, LedgerError> {
        let left = self.replay()?.outstanding;
        if left.is_empty() {
            let fail = |source| LedgerError::Io { what: "remove", path: self.path.clone(), source };
            fs::remove_file(&self.path).map_err(fail)?;
            if let Some(directory) = self.path.parent() {
                sync_directory(directory).map_err(fail)?;
            }
        }
        Ok(left)
    }

    /// Numbers for so many new entries, and what must be written before them: a ledger that an older version began says
    /// from here on that that version cannot read it.
    fn number(&self, count: usize) -> (Vec<EntryId>, Vec<Line>) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = state.next;
        state.next += count as u64;
        let begin = state.older.clone().map(|run| Line::Begin { format: FORMAT, run });
        ((first..state.next).map(EntryId).collect(), begin.into_iter().collect())
    }

    fn append(&self, lines: &[Line], durable: bool) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        append_whole(&mut state.file, &bytes)?;
        if matches!(lines, [Line::Begin { .. }, ..]) {
            state.older = None;
        }
        if durable { state.file.sync_data() } else { Ok(()) }
    }
}

/// What a line is appended to: the ledger's file.
trait Lines: Write {
    fn length(&self) -> io::Result<u64>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Lines for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Writes lines whole or not at all. A full disk takes the beginning of them, and the next line, once there
/// is space again, would make the ledger unreadable in the middle.
fn append_whole(lines: &mut dyn Lines, bytes: &[u8]) -> io::Result<()> {
    let before = lines.length()?;
    lines.write_all(bytes).inspect_err(|_| {
        if let Err(error) = lines.cut(before) {
            tracing::warn!(%error, "cannot take back what was half written to the ledger");
        }
    })
}

impl Ledger for FileLedger {
    fn intend_all(&self, undos: &[Undo]) -> io::Result<Vec<EntryId>> {
        if undos.is_empty() {
            return Ok(Vec::new());
        }
        let (entries, mut lines) = self.number(undos.len());
        let intent =
            |(entry, undo): (&EntryId, &Undo)| Line::Intend { entry: *entry, undo: undo.clone() };
        lines.extend(entries.iter().zip(undos).map(intent));
        self.append(&lines, true)?;
        Ok(entries)
    }

    fn made_all(&self, made: &[(EntryId, Identity)]) -> io::Result<()> {
        let line = |(entry, identity): &(EntryId, Identity)| Line::Made {
            entry: *entry,
            identity: identity.clone(),
        };
        self.append(&made.iter().map(line).collect::<Vec<_>>(), true)
    }

    fn settled_all(&self, entries: &[EntryId]) -> io::Result<()> {
        let line = |entry: &EntryId| Line::Settled { entry: *entry };
        self.append(&entries.iter().map(line).collect::<Vec<_>>(), true)
    }

    fn promote(&self, entry: EntryId, replaced: &[(Undo, Identity)]) -> io::Result<Vec<EntryId>> {
        let (entries, mut lines) = self.number(replaced.len());
        let replace = |(entry, (undo, identity)): (&EntryId, &(Undo, Identity))| Replaced {
            entry: *entry,
            undo: undo.clone(),
            identity: identity.clone(),
        };
        let replaced = entries.iter().zip(replaced).map(replace).collect();
        lines.push(Line::Promote { entry, replaced });
        self.append(&lines, true)?;
        Ok(entries)
    }

    fn children(&self) -> io::Result<Vec<ChildProcess>> {
        Ok(self.replay().map_err(io::Error::other)?.started)
    }
}

impl ChildRecorder for FileLedger {
    fn started(&self, child: &ChildProcess) {
        if let Err(error) = self.append(&[Line::ChildStarted { child: child.clone() }], true) {
            // The child dies with us by its parent-death signal; the record is the second line of defence.
            tracing::warn!(pid = child.pid, %error, "cannot record a child in the ledger");
        }
    }

    fn ended(&self, child: &ChildProcess) {
        // Not durable on purpose: a stale record is harmless, since recover compares start times.
        let line = Line::ChildEnded { pid: child.pid, start_time: child.start_time };
        if let Err(error) = self.append(&[line], false) {
            tracing::warn!(pid = child.pid, %error, "cannot record the end of a child in the ledger");
        }
    }
}

/// The ledgers in a directory, in no order that matters; drafts of runs that never began are left out.
///
/// # Errors
/// When the directory exists but cannot be read.
pub fn ledgers(directory: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let fail = |source| LedgerError::Io { what: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_str().is_some_and(|name| RunId::parse(name).is_some()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Creates a draft and locks it. Whoever sweeps may take it for a dead run's in the moment between the two, and
/// removes it; then another one is made.
fn lock_draft(path: &Path) -> io::Result<File> {
    for _ in 0..DRAFTS {
        let file =
            OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(path)?;
        let is_held = crate::lock::try_hold(&file)?;
        if is_at(&file, path)? {
            // From here on nobody else gets the lock, nor takes the file away.
            return if is_held { Ok(file) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether an open file is the one that has this name now.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.ino() == file.metadata()?.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the drafts of runs that died before they began; they name nothing that was acquired.
///
/// # Errors
/// When the directory exists but cannot be read, or a draft cannot be removed.
pub fn sweep_drafts(directory: &Path) -> Result<(), LedgerError> {
    let fail = |source| LedgerError::Io { what: "sweep", path: directory.to_owned(), source };
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let draft = name.to_str().and_then(|name| name.strip_prefix('.'));
        if draft.and_then(RunId::parse).is_none() {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        // Another sweep may have removed it meanwhile, and its run, which was not dead, have made another one.
        if crate::lock::try_hold(&file).map_err(fail)?
            && is_at(&file, &entry.path()).map_err(fail)?
        {
            fs::remove_file(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A ledger that remembers nothing, for dry runs, which acquire nothing.
pub struct NoLedger;

impl Ledger for NoLedger {
    fn intend_all(&self, undos: &[Undo]) -> io::Result<Vec<EntryId>> {
        Ok(vec![EntryId(0); undos.len()])
    }

    fn made_all(&self, _: &[(EntryId, Identity)]) -> io::Result<()> {
        Ok(())
    }

    fn settled_all(&self, _: &[EntryId]) -> io::Result<()> {
        Ok(())
    }

    fn promote(&self, _: EntryId, replaced: &[(Undo, Identity)]) -> io::Result<Vec<EntryId>> {
        Ok(vec![EntryId(0); replaced.len()])
    }

    fn children(&self) -> io::Result<Vec<ChildProcess>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use crate::model::undo::StagingDirectory;

    use super::*;

    fn staging(name: &str) -> Undo {
        StagingDirectory { path: name.into() }.into()
    }

    #[test]
    fn what_was_not_settled_is_outstanding_newest_first() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::from_bytes([1, 2, 3, 4]);
        let ledger = FileLedger::begin(directory.path(), &run).unwrap();
        let a = ledger.intend(staging("/a")).unwrap();
        let b = ledger.intend(staging("/b")).unwrap();
        let c = ledger.intend(staging("/c")).unwrap();
        let identity = Identity::Inode { device: 1, inode: 2 };
        ledger.made(a, identity.clone()).unwrap();
        ledger.settled(b).unwrap();
        drop(ledger);

        let path = directory.path().join(run.as_str());
        let (ledger, replay) = FileLedger::adopt(&path).unwrap().unwrap();
        assert_eq!(replay.run, Some(run));
        assert_eq!(
            replay.outstanding,
            [
                Outstanding { entry: c, undo: staging("/c"), identity: None },
                Outstanding { entry: a, undo: staging("/a"), identity: Some(identity) },
            ]
        );
        // Entries made by recover must not collide with the dead run's.
        assert_eq!(ledger.intend(staging("/d")).unwrap(), EntryId(3));
        for outstanding in ledger.replay().unwrap().outstanding {
            ledger.settled(outstanding.entry).unwrap();
        }
        assert!(ledger.close().unwrap().is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn a_live_ledger_is_not_adopted() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::from_bytes([1, 2, 3, 4]);
        let ledger = FileLedger::begin(directory.path(), &run).unwrap();
        let path = directory.path().join(run.as_str());
        assert!(FileLedger::adopt(&path).unwrap().is_none());
        drop(ledger);
        assert!(FileLedger::adopt(&path).unwrap().is_some());
    }

    #[test]
    fn runs_begin_while_others_sweep() {
        let directory = tempfile::tempdir().unwrap();
        let begun = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !begun.load(std::sync::atomic::Ordering::Relaxed) {
                        sweep_drafts(directory.path()).unwrap();
                    }
                });
            }
            let results: Vec<_> = (0..300_u32)
                .map(|n| {
                    let run = RunId::from_bytes(n.to_be_bytes());
                    let ledger = FileLedger::begin(directory.path(), &run)?;
                    ledger.close()
                })
                .collect();
            begun.store(true, std::sync::atomic::Ordering::Relaxed);
            for result in results {
                assert_eq!(result.unwrap(), []);
            }
        });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_cut_off_last_line_is_ignored_and_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::from_bytes([1, 2, 3, 4]);
        let ledger = FileLedger::begin(directory.path(), &run).unwrap();
        ledger.intend(staging("/a")).unwrap();
        drop(ledger);
        let path = directory.path().join(run.as_str());
        let whole = fs::read(&path).unwrap();
        let lines = whole.iter().filter(|byte| **byte == b'\n').count();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (ledger, replay) = FileLedger::adopt(&path).unwrap().unwrap();
            let complete = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert!(complete < lines);
            assert_eq!(replay.outstanding.len(), 0, "cut at {cut}");
            ledger.intend(staging("/again")).unwrap();
            assert_eq!(ledger.replay().unwrap().outstanding.len(), 1, "cut at {cut}");
        }
    }

    #[test]
    fn an_unreadable_line_in_the_middle_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("01020304");
        fs::write(&path, "{\"begin\":{\"format\":1,\"run\":\"01020304\"}}\nrubbish\n{}\n").unwrap();
        assert!(matches!(FileLedger::adopt(&path), Err(LedgerError::Unreadable { line: 2, .. })));
        fs::write(&path, "{\"begin\":{\"format\":9,\"run\":\"01020304\"}}\n").unwrap();
        assert!(matches!(FileLedger::adopt(&path), Err(LedgerError::Newer { format: 9, .. })));
    }

    #[test]
    fn a_ledger_of_format_1_is_read_and_what_is_added_to_it_keeps_older_versions_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("01020304");
        let old = concat!(
            r#"{"begin":{"format":1,"run":"01020304"}}"#,
            "\n",
            r#"{"intend":{"entry":0,"undo":{"remove-staging":{"path":"/a"}}}}"#,
            "\n",
            r#"{"intend":{"entry":1,"undo":{"release-engine-lock":{"target":"usb"}}}}"#,
            "\n",
            r#"{"made":{"entry":0,"identity":{"inode":{"device":1,"inode":2}}}}"#,
            "\n",
            r#"{"settled":{"entry":1}}"#,
            "\n",
        );
        fs::write(&path, old).unwrap();
        let (ledger, replay) = FileLedger::adopt(&path).unwrap().unwrap();
        let identity = Some(Identity::Inode { device: 1, inode: 2 });
        let expected = Outstanding { entry: EntryId(0), undo: staging("/a"), identity };
        assert_eq!(replay.outstanding, [expected]);
        // To settle is something that format 1 knows.
        ledger.settled(EntryId(0)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(r#""format":2"#), "{text}");
        for name in ["/b", "/c"] {
            ledger.intend(staging(name)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let added: Vec<&str> = text.lines().skip(6).collect();
        assert_eq!(added[0], r#"{"begin":{"format":2,"run":"01020304"}}"#);
        assert_eq!(added.len(), 3, "{text}");
        let replay = ledger.replay().unwrap();
        assert_eq!((replay.outstanding.len(), replay.run), (2, RunId::parse("01020304")));
    }

    #[test]
    fn what_is_kept_is_exchanged_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::from_bytes([1, 2, 3, 4]);
        let ledger = FileLedger::begin(directory.path(), &run).unwrap();
        let path = directory.path().join(run.as_str());
        let identity = |inode| Identity::Inode { device: 1, inode };
        let other = ledger.intend(staging("/other")).unwrap();
        let new = ledger.intend(staging("/new")).unwrap();
        ledger.made(new, identity(2)).unwrap();
        let before = fs::read(&path).unwrap().len();
        let old = ledger.promote(new, &[(staging("/old"), identity(1))]).unwrap();
        let after = fs::read(&path).unwrap().len();
        assert_eq!(old, [EntryId(2)]);
        assert_eq!(ledger.intend(staging("/next")).unwrap(), EntryId(3), "no number twice");
        ledger.settled_all(&[EntryId(3), old[0]]).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 8);
        drop(ledger);
        let outstanding = |entry, undo, identity| Outstanding { entry, undo, identity };
        let held = outstanding(other, staging("/other"), None);
        let is_new = outstanding(new, staging("/new"), Some(identity(2)));
        let is_old = outstanding(EntryId(2), staging("/old"), Some(identity(1)));
        for cut in before..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (_, replay) = FileLedger::adopt(&path).unwrap().unwrap();
            let of_the_exchange: Vec<_> = replay
                .outstanding
                .into_iter()
                .filter(|held| held.undo != staging("/next"))
                .collect();
            // One of both is given back, and the other one is not.
            let expected = if cut < after { &is_new } else { &is_old };
            assert_eq!(of_the_exchange, [expected.clone(), held.clone()], "cut at {cut}");
        }
        fs::write(&path, &whole).unwrap();
        let (ledger, replay) = FileLedger::adopt(&path).unwrap().unwrap();
        assert_eq!(replay.outstanding, [held]);
        // The first base replaces none.
        let first = ledger.intend(staging("/first")).unwrap();
        assert_eq!(ledger.promote(first, &[]).unwrap(), []);
        assert_eq!(ledger.replay().unwrap().outstanding.len(), 1);
    }

    /// A file on a disk that is full after so many bytes.
    struct Bounded {
        content: Vec<u8>,
        space: usize,
    }

    impl Write for Bounded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.space - self.content.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines for Bounded {
        fn length(&self) -> io::Result<u64> {
            Ok(self.content.len() as u64)
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            self.content.truncate(length as usize);
            Ok(())
        }
    }

    #[test]
    fn what_is_written_together_is_there_up_to_where_a_crash_cut_it_off() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::from_bytes([1, 2, 3, 4]);
        let ledger = FileLedger::begin(directory.path(), &run).unwrap();
        let path = directory.path().join(run.as_str());
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let undos = ["/a", "/b", "/c"].map(staging);
        let before = fs::read(&path).unwrap().len();
        let entries = ledger.intend_all(&undos).unwrap();
        assert_eq!(entries, [EntryId(0), EntryId(1), EntryId(2)]);
        assert_eq!(ledger.intend(staging("/d")).unwrap(), EntryId(3), "no number is given twice");
        ledger.settled(EntryId(3)).unwrap();
        let identity = |inode| Identity::Inode { device: 1, inode };
        ledger.made_all(&[(entries[0], identity(1)), (entries[2], identity(3))]).unwrap();
        let found = ledger.replay().unwrap().outstanding;
        let identities: Vec<_> = found.iter().map(|entry| entry.identity.clone()).collect();
        assert_eq!(identities, [Some(identity(3)), None, Some(identity(1))]);
        ledger.settled_all(&[entries[1], entries[2]]).unwrap();
        assert_eq!(ledger.replay().unwrap().outstanding.len(), 1);
        // Nothing is written for nothing.
        let whole = fs::read(&path).unwrap();
        assert_eq!(ledger.intend_all(&[]).unwrap(), []);
        ledger.made_all(&[]).unwrap();
        ledger.settled_all(&[]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        drop(ledger);
        for cut in before..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (_, replay) = FileLedger::adopt(&path).unwrap().unwrap();
            let outstanding = match lines(&whole[..cut]) {
                // The begin, three intents, one more that is settled, two identities, two settled.
                1 => 0,
                2 => 1,
                3 => 2,
                5 => 4,
                9 => 2,
                _ => 3,
            };
            assert_eq!(replay.outstanding.len(), outstanding, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_a_full_disk_cut_off_does_not_spoil_the_next() {
        let mut disk = Bounded { content: Vec::new(), space: 8 };
        append_whole(&mut disk, b"one\n").unwrap();
        let error = append_whole(&mut disk, b"a longer line\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.space = 100;
        append_whole(&mut disk, b"two\n").unwrap();
        assert_eq!(disk.content, b"one\ntwo\n");
    }

    #[test]
    fn a_child_that_ended_is_not_listed() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = FileLedger::begin(directory.path(), &RunId::from_bytes([9; 4])).unwrap();
        let child = |pid| ChildProcess {
            pid,
            start_time: 7,
            boot_id: "b".into(),
            never_kill: false,
            mark: None,
        };
        ledger.started(&child(10));
        ledger.started(&child(11));
        ledger.ended(&child(10));
        assert_eq!(ledger.replay().unwrap().children, [child(11)]);
    }
}
