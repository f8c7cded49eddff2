//! The ledger file: an append-only list of what a run must release, durable before it is acted upon.
//!
//! One file a run, `state-dir/ledger/RUN`, one JSON object a line. The run holds a lock on its own file as
//! long as it lives, so a ledger that can be locked belongs to a dead run. What belongs together is written
//! together, with one fsync. Of lines that were not yet fsynced, a crash may leave the first ones and cut the
//! next one off: none was acted upon (the effects come after the fsync), so the whole ones name what is not
//! there, and the one that was cut off, which can only be the last, is ignored. Any other unreadable line is an
//! error: nothing is guessed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::host::ChildRecorder;
use crate::model::names::RunId;
use crate::model::undo::{ChildProcess, EntryId, Identity, Ledger, Outstanding, Undo};

mod format;

use format::{FORMAT, Line, Replaced, replay};
pub use format::{LedgerError, Replay};

/// How often a run makes the draft of its ledger anew that others have swept away.
const DRAFTS: u32 = 100;

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
        // Not in the middle of what another job writes.
        let _state = self.state();
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends, durably, what so many new entries are written down in. Entries are numbered in the order of the lines,
    /// whoever of a run's jobs comes first. A ledger that an older version began says from here on that that version
    /// cannot read it.
    fn enter(
        &self,
        count: usize,
        lines: impl FnOnce(&[EntryId]) -> Vec<Line>,
    ) -> io::Result<Vec<EntryId>> {
        let mut state = self.state();
        let first = state.next;
        state.next += count as u64;
        let entries: Vec<EntryId> = (first..state.next).map(EntryId).collect();
        let begin = state.older.clone().map(|run| Line::Begin { format: FORMAT, run });
        let lines: Vec<Line> = begin.into_iter().chain(lines(&entries)).collect();
        state.append(&lines, true)?;
        Ok(entries)
    }

    fn append(&self, lines: &[Line], durable: bool) -> io::Result<()> {
        self.state().append(lines, durable)
    }
}

impl State {
    fn append(&mut self, lines: &[Line], durable: bool) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        append_whole(&mut self.file, &bytes)?;
        if matches!(lines, [Line::Begin { .. }, ..]) {
            self.older = None;
        }
        if durable { self.file.sync_data() } else { Ok(()) }
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
        let intent =
            |(entry, undo): (&EntryId, &Undo)| Line::Intend { entry: *entry, undo: undo.clone() };
        self.enter(undos.len(), |entries| entries.iter().zip(undos).map(intent).collect())
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
        let replace = |(entry, (undo, identity)): (&EntryId, &(Undo, Identity))| Replaced {
            entry: *entry,
            undo: undo.clone(),
            identity: identity.clone(),
        };
        self.enter(replaced.len(), |entries| {
            let replaced = entries.iter().zip(replaced).map(replace).collect();
            vec![Line::Promote { entry, replaced }]
        })
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
mod tests;
