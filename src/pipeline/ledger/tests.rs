use crate::model::undo::StagingDirectory;

use super::*;

fn staging(name: &str) -> Undo {
    StagingDirectory::new(name.into()).into()
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
        let of_the_exchange: Vec<_> =
            replay.outstanding.into_iter().filter(|held| held.undo != staging("/next")).collect();
        // One of both is released, and the other one is not.
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

#[test]
fn several_threads_write_and_entries_are_numbered_in_the_order_of_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    let run = RunId::from_bytes([1, 2, 3, 4]);
    let ledger = FileLedger::begin(directory.path(), &run).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let entries = ledger.intend_all(&[staging("/a"), staging("/b")]).unwrap();
                    ledger.settled(entries[0]).unwrap();
                    assert!(ledger.children().unwrap().is_empty());
                }
            });
        }
    });
    let text = fs::read_to_string(directory.path().join(run.as_str())).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let intended: Vec<u64> = lines
        .filter_map(|line| {
            let Line::Intend { entry, .. } = line else { return None };
            Some(entry.0)
        })
        .collect();
    assert_eq!(intended, (0..80).collect::<Vec<u64>>());
    assert_eq!(ledger.replay().unwrap().outstanding.len(), 40);
}
