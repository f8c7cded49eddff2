//! The borg engine against the real borg, through the real host. Needs root (owners, a loop device).
#![allow(clippy::disallowed_methods)] // what the tests do around the engine is not part of it

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, TimeZone, Utc};
use stillpoint::engine::borg::BorgEngine;
use stillpoint::engine::{
    BackupReport, BackupRequest, ChangeKind, Claim, Context, Engine, EngineError, Input,
    RestoreRequest,
};
use stillpoint::host::dry::DryHost;
use stillpoint::host::system::SystemHost;
use stillpoint::host::{CommandSpec, Effect, Host, Tool};
use stillpoint::model::copy::{Copy, Series};
use stillpoint::model::job::Settings;
use stillpoint::model::names::{JobName, RunId};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::{EngineConfig, ReadData};
use stillpoint::tools::Tree;

use crate::bench_machine::{must_at_last, wait_for, write_with_mode};
use crate::configured::configured;

/// A repository, a tree and what an engine call needs, in one temporary directory.
struct Bench {
    directory: tempfile::TempDir,
    settings: Settings,
    host: SystemHost,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let below = |name: &str| directory.path().join(name);
        let settings = configured(&format!(
            "[settings]\nhost = 'web1.example.org'\nlock-wait = '1s'\n\
             state-dir = '{0}/state'\nruntime-dir = '{0}/run'\ncache-dir = '{0}/cache'",
            directory.path().display()
        ))
        .settings;
        fs::create_dir(below("tree")).unwrap();
        write_with_mode(&below("pass"), "correct horse\n", 0o600);
        write_with_mode(&below("wrong"), "incorrect horse\n", 0o600);
        Self { settings, host: SystemHost::new().unwrap(), directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn engine_with(&self, repository: &Path, passphrase: &str) -> BorgEngine {
        // Another borg than the installed one: `pip install borgbackup==1.4.5` somewhere below /opt.
        let program =
            std::env::var("STILLPOINT_TEST_BORG").map(|path| format!("program = '{path}'"));
        let target = configured(&format!(
            r#"
[targets.usb.borg]
repository = '{}'
passphrase-file = '{}'
compression = "lz4"
files-cache = "ctime,size,inode"
stall-timeout = "1m"
{}
"#,
            repository.display(),
            self.path(passphrase).display(),
            program.unwrap_or_default(),
        ))
        .targets
        .remove(0);
        let EngineConfig::Borg(options) = &target.engine else { panic!("not borg's") };
        BorgEngine::new(&target, options)
    }

    fn engine(&self) -> BorgEngine {
        self.engine_with(&self.path("repo"), "pass")
    }

    /// A ready repository.
    fn initialised(&self) -> BorgEngine {
        let engine = self.engine();
        engine.init(self.cx()).unwrap();
        engine
    }

    fn on<'a>(&'a self, host: &'a dyn Host) -> Context<'a> {
        Context {
            host,
            settings: &self.settings,
            temporary: None,
            lock_wait: Duration::from_secs(1),
            run: None,
            seat: None,
        }
    }

    fn cx(&self) -> Context<'_> {
        self.on(&self.host)
    }

    /// A request for a copy of these paths, at a second of its own.
    fn request(&self, second: u32, paths: &[PathBuf]) -> BackupRequest {
        BackupRequest {
            series: Series {
                host: self.settings.host.clone(),
                job: JobName::new("host_1").unwrap(),
                item: None,
            },
            machine: None,
            run: RunId::from_bytes(second.to_be_bytes()),
            time: Utc.with_ymd_and_hms(2026, 11, 21, 2, 3, second).unwrap(),
            input: Input::Tree {
                expected: Vec::new(),
                tree: Tree { paths: paths.to_vec(), ..Tree::default() },
            },
        }
    }

    fn backup(&self, engine: &BorgEngine, second: u32) -> BackupReport {
        let request = self.request(second, &[self.path("tree")]);
        engine.backup(self.cx(), &request, &mut |_| {}).unwrap()
    }

    fn names(&self, engine: &BorgEngine) -> Vec<String> {
        engine.list(self.cx()).unwrap().into_iter().map(|copy| copy.id).collect()
    }

    fn only(&self, engine: &BorgEngine) -> Copy {
        let mut copies = engine.list(self.cx()).unwrap();
        assert_eq!(copies.len(), 1);
        copies.remove(0)
    }

    fn restore(
        &self,
        engine: &BorgEngine,
        copy: &Copy,
        paths: &[PathBuf],
        to: &str,
    ) -> Result<PathBuf, EngineError> {
        let to = self.path(to);
        fs::create_dir_all(&to).unwrap();
        let request = RestoreRequest {
            paths: paths.to_vec(),
            ..RestoreRequest::new(copy.clone(), to.clone())
        };
        engine.restore(self.cx(), &request, &mut |_| {})?;
        Ok(to)
    }
}

fn run(program: &str, args: &[&OsStr]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where a path of the source lies below a restore directory.
fn restored(to: &Path, path: &Path) -> PathBuf {
    to.join(path.strip_prefix("/").unwrap())
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let bench = Bench::new();
    let tree = bench.path("tree");
    let plain = tree.join("plain");
    fs::write(&plain, "content").unwrap();
    std::os::unix::fs::chown(&plain, Some(12345), Some(54321)).unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o4751)).unwrap();
    let old = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::options().write(true).open(&plain).unwrap().set_modified(old).unwrap();
    let attribute = ["-n", "user.colour", "-v", "blue"].map(OsStr::new);
    run("setfattr", &[&attribute[..], &[plain.as_os_str()]].concat());
    fs::hard_link(&plain, tree.join("second name")).unwrap();
    std::os::unix::fs::symlink("nowhere", tree.join("link")).unwrap();
    let odd = tree.join(OsStr::from_bytes(b"-odd\xff{now}"));
    fs::write(&odd, "odd").unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    drop(sparse);

    let engine = bench.engine();
    let made = engine.init(bench.cx()).unwrap();
    assert!(made.key_export.unwrap().starts_with("BORG_KEY "));
    let probe = engine.probe(bench.cx()).unwrap();
    assert_eq!(probe.repository_id, made.repository_id);
    assert_eq!(probe.encryption.as_deref(), Some("repokey-blake2"));

    let mut seen = 0;
    let request = bench.request(1, std::slice::from_ref(&tree));
    let report = engine.backup(bench.cx(), &request, &mut |_| seen += 1).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report:?}");
    assert_eq!(report.files, Some(3), "a second name is no second file: {report:?}");
    assert!(report.size.unwrap() > 64 << 20 && report.bytes_new.unwrap() < 4 << 20);
    assert!(seen > 0);
    let copy = bench.only(&engine);
    assert_eq!(Some(&copy.id), engine.name_for(&request).as_ref());
    assert_eq!(report.id.as_ref(), Some(&copy.id));
    assert_eq!(copy.series.as_ref(), Some(&request.series));
    assert_eq!(copy.run.as_ref(), Some(&request.run));
    assert_eq!(copy.time, request.time);

    let to = bench.restore(&engine, &copy, &[], "all").unwrap();
    let back = restored(&to, &plain);
    let meta = fs::metadata(&back).unwrap();
    assert_eq!(fs::read(&back).unwrap(), b"content");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12345, 54321, 0o4751));
    assert_eq!(meta.modified().unwrap(), old);
    let args = ["--only-values", "-n", "user.colour"].map(OsStr::new);
    assert_eq!(run("getfattr", &[&args[..], &[back.as_os_str()]].concat()), "blue");
    assert_eq!(fs::metadata(restored(&to, &tree.join("second name"))).unwrap().ino(), meta.ino());
    let link = fs::read_link(restored(&to, &tree.join("link"))).unwrap();
    assert_eq!(link, PathBuf::from("nowhere"));
    assert_eq!(fs::read(restored(&to, &odd)).unwrap(), b"odd");
    let sparse = fs::metadata(restored(&to, &tree.join("sparse"))).unwrap();
    assert_eq!(sparse.len(), 64 << 20);
    // The last chunk, of at most eight megabytes, holds data and is written whole.
    assert!(sparse.blocks() * 512 <= 8 << 20, "{} blocks: holes were filled", sparse.blocks());

    // One path alone, by its exact and awkward name.
    let to = bench.restore(&engine, &copy, std::slice::from_ref(&odd), "one").unwrap();
    assert_eq!(fs::read(restored(&to, &odd)).unwrap(), b"odd");
    assert!(!restored(&to, &plain).exists());
    let missing = bench.restore(&engine, &copy, &[tree.join("pla")], "none").unwrap_err();
    assert!(missing.to_string().contains("never matched"), "{missing}");

    let dry =
        RestoreRequest { dry_run: true, ..RestoreRequest::new(copy.clone(), bench.path("one")) };
    engine.restore(bench.cx(), &dry, &mut |_| {}).unwrap();
    assert!(!restored(&bench.path("one"), &plain).exists());

    let mut entries = Vec::new();
    engine.contents(bench.cx(), &copy, &mut |entry| entries.push(entry)).unwrap();
    let find = |path: &Path| entries.iter().find(|entry| entry.path == path).unwrap();
    let (entry, other) = (find(&plain), find(&tree.join("second name")));
    // Whichever of the two names comes first has the size.
    let sizes = [entry.size, other.size];
    assert!(sizes.contains(&Some(7)) && sizes.contains(&None), "{sizes:?}");
    assert_eq!(find(&tree.join("sparse")).size, Some(64 << 20));
    assert_eq!((find(&tree).kind, find(&tree.join("link")).kind, entry.kind), ('d', 'l', '-'));
    // borg rounds to microseconds, in UTC as we asked.
    let off = entry.modified.unwrap() - DateTime::<Utc>::from(old);
    assert!(off.abs() <= chrono::TimeDelta::microseconds(1), "{off}");
}

#[test]
fn copies_are_compared_deleted_compacted_and_checked() {
    let bench = Bench::new();
    let engine = bench.initialised();
    let tree = bench.path("tree");
    fs::write(tree.join("same"), vec![7; 300_000]).unwrap();
    fs::write(tree.join("changes"), "before").unwrap();
    fs::write(tree.join("goes"), "x").unwrap();
    fs::write(tree.join("turns"), "x").unwrap();
    bench.backup(&engine, 1);
    fs::write(tree.join("changes"), "afterwards").unwrap();
    fs::remove_file(tree.join("goes")).unwrap();
    fs::remove_file(tree.join("turns")).unwrap();
    fs::create_dir(tree.join("turns")).unwrap();
    fs::write(tree.join("comes"), "y").unwrap();
    fs::set_permissions(tree.join("same"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = bench.backup(&engine, 2);
    assert!(second.bytes_new.unwrap() < 100_000, "{second:?}");

    let copies = engine.list(bench.cx()).unwrap();
    let mut changes = Vec::new();
    engine
        .diff(bench.cx(), &copies[0], &copies[1], &mut |change| {
            let name = change.path.file_name().unwrap().to_str().unwrap().to_owned();
            changes.push((name, change.kind));
        })
        .unwrap();
    for expected in [
        ("changes", ChangeKind::Modified),
        ("goes", ChangeKind::Removed),
        ("comes", ChangeKind::Added),
        ("same", ChangeKind::Metadata),
        ("turns", ChangeKind::Type),
    ] {
        let expected = (expected.0.to_owned(), expected.1);
        assert!(changes.contains(&expected), "{expected:?} is not in {changes:?}");
    }

    // A half-made archive of a run that was cut off, and somebody else's.
    let left = format!("{}.checkpoint", copies[1].id);
    for name in [left.as_str(), "mine{0}"] {
        let operand = format!(
            "{}::{}",
            bench.path("repo").display(),
            name.replace('{', "{{").replace('}', "}}")
        );
        let status = Command::new("borg")
            .args(["create", &operand, tree.to_str().unwrap()])
            .env("BORG_BASE_DIR", bench.path("other"))
            .env("BORG_PASSPHRASE", "correct horse")
            .status();
        assert!(status.unwrap().success());
    }
    let copies = engine.list(bench.cx()).unwrap();
    let half = copies.iter().find(|copy| copy.id == left).unwrap();
    assert_eq!(engine.unfinished(half).as_ref(), Some(&copies[1].id));
    assert_eq!((half.series.as_ref(), half.run.as_ref()), (None, copies[1].run.as_ref()));
    let age = Utc::now() - copies.iter().find(|copy| copy.id == "mine{0}").unwrap().time;
    assert!(age.num_minutes().abs() < 15, "the time of other archives is not UTC: {age}");

    let doomed = [copies[0].id.clone(), left, "mine{0}".into(), "was never there".into()];
    engine.delete(bench.cx(), &doomed).unwrap();
    assert_eq!(bench.names(&engine), [copies[1].id.clone()]);
    engine.compact(bench.cx(), &mut |_| {}).unwrap();
    for read_data in [ReadData::None, ReadData::Percent(5.0), ReadData::All] {
        let report = engine.check(bench.cx(), read_data, &mut |_| {}).unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
    }
    assert!(engine.verify(bench.cx(), &copies[1]).unwrap().damage.is_empty());
}

/// The repository's biggest segment, with one byte in its middle turned over.
fn flip_a_byte(repository: &Path) {
    let segments = fs::read_dir(repository.join("data/0")).unwrap().map(|entry| entry.unwrap());
    let biggest = segments.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
    let file = fs::File::options().read(true).write(true).open(biggest).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], middle).unwrap();
}

#[test]
fn a_flipped_byte_is_found_by_check_verify_and_restore() {
    let bench = Bench::new();
    let engine = bench.initialised();
    let noise: Vec<u8> =
        (0..500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    fs::write(bench.path("tree/noise"), noise).unwrap();
    bench.backup(&engine, 1);
    let copy = bench.only(&engine);
    flip_a_byte(&bench.path("repo"));
    let verified = engine.verify(bench.cx(), &copy).unwrap();
    assert!(!verified.damage.is_empty(), "{verified:?}");
    let error = bench.restore(&engine, &copy, &[], "back").unwrap_err();
    assert_eq!(error.trouble(), Trouble::Damage, "{error:?}");
    for read_data in [ReadData::None, ReadData::All] {
        let checked = engine.check(bench.cx(), read_data, &mut |_| {}).unwrap();
        assert!(!checked.damage.is_empty(), "{checked:?}");
    }
}

#[test]
fn what_stands_in_the_way_is_named() {
    let bench = Bench::new();
    let missing = bench.engine().probe(bench.cx()).unwrap_err();
    assert!(matches!(missing, EngineError::RepositoryMissing { .. }), "{missing:?}");
    // What an unmounted disk leaves: the directory alone.
    fs::create_dir(bench.path("repo")).unwrap();
    let empty = bench.engine().list(bench.cx()).unwrap_err();
    assert!(matches!(empty, EngineError::RepositoryMissing { .. }), "{empty:?}");

    let engine = bench.initialised();
    let exists = engine.init(bench.cx()).unwrap_err();
    assert!(matches!(exists, EngineError::RepositoryExists { .. }), "{exists:?}");
    let wrong = bench.engine_with(&bench.path("repo"), "wrong");
    let wrong = wrong.list(bench.cx()).unwrap_err();
    assert!(matches!(wrong, EngineError::WrongPassphrase { .. }), "{wrong:?}");
    let none = bench.engine_with(&bench.path("repo"), "no such file");
    let none = none.list(bench.cx()).unwrap_err();
    assert!(matches!(none, EngineError::Secret { .. }), "{none:?}");

    // Moved on purpose or swapped by somebody: a person must say before anything is written there. It is read all the
    // same.
    fs::rename(bench.path("repo"), bench.path("moved")).unwrap();
    let moved = bench.engine_with(&bench.path("moved"), "pass");
    let request = bench.request(1, &[bench.path("tree")]);
    let refused = moved.backup(bench.cx(), &request, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, EngineError::Moved { .. }), "{refused:?}");
    assert_eq!(moved.list(bench.cx()).unwrap().len(), 0);

    let unreachable = bench.engine_with(Path::new("ssh://nobody@127.0.0.1:1/x"), "pass");
    let unreachable = unreachable.list(bench.cx()).unwrap_err();
    assert!(matches!(unreachable, EngineError::Unreachable { .. }), "{unreachable:?}");
}

#[test]
fn a_lock_is_waited_for_and_a_dead_ones_is_taken_over() {
    let bench = Bench::new();
    let engine = bench.initialised();
    fs::write(bench.path("tree/f"), "x").unwrap();
    let repository = bench.path("repo");
    let mut holder = Command::new("borg")
        .args(["with-lock", repository.to_str().unwrap(), "cat"])
        // Until its input ends, which is when it is waited for.
        .stdin(Stdio::piped())
        .env("BORG_BASE_DIR", bench.path("other"))
        .env("BORG_PASSPHRASE", "correct horse")
        .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
        .spawn()
        .unwrap();
    wait_for("borg with-lock takes its lock", || repository.join("lock.exclusive").exists());
    let request = bench.request(1, &[bench.path("tree")]);
    let locked = engine.backup(bench.cx(), &request, &mut |_| {}).unwrap_err();
    assert!(matches!(locked, EngineError::Locked { .. }), "{locked:?}");
    assert_eq!(locked.trouble(), Trouble::Busy);
    // Killed outright, it leaves its lock; the next borg sees that its process is gone.
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(repository.join("lock.exclusive").exists());
    engine.release_dead_lock(bench.cx(), Claim { owner: None, children: &[] }).unwrap();
    assert_eq!(bench.backup(&engine, 2).outcome, Outcome::Ok);
}

#[test]
fn sources_that_are_missing_or_cannot_be_read() {
    let bench = Bench::new();
    let engine = bench.initialised();
    let tree = bench.path("tree");
    fs::write(tree.join("f"), "x").unwrap();
    let gone = bench.path("gone");

    let one = bench.request(1, &[tree.clone(), gone.clone()]);
    let report = engine.backup(bench.cx(), &one, &mut |_| {}).unwrap();
    assert_eq!((report.outcome, report.unreadable_count), (Outcome::Incomplete, 1));
    assert!(report.unreadable[0].contains("gone"), "{:?}", report.unreadable);
    assert_eq!(bench.names(&engine).len(), 1);

    let all = bench.request(2, &[gone.clone(), bench.path("tree/f/below a file")]);
    let error = engine.backup(bench.cx(), &all, &mut |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::NoSource { .. }), "{error:?}");
    assert!(!error.to_string().contains("could not be deleted"), "{error}");
    assert_eq!(bench.names(&engine).len(), 1, "the archive of nothing is still there");

    // Its first page is not mapped, so reading from the start fails with an input/output error.
    let unreadable = bench.request(3, &[tree.clone(), "/proc/self/mem".into()]);
    let report = engine.backup(bench.cx(), &unreadable, &mut |_| {}).unwrap();
    assert_eq!(
        (report.outcome, report.unreadable_count),
        (Outcome::Incomplete, 1),
        "{:?}",
        report.unreadable
    );
    assert!(report.unreadable[0].contains("/proc/self/mem"), "{:?}", report.unreadable);
    let nothing = bench.request(4, &["/proc/self/mem".into()]);
    let error = engine.backup(bench.cx(), &nothing, &mut |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::NoSource { .. }), "{error:?}");
    assert_eq!(bench.names(&engine).len(), 2);
}

fn shell(script: &str) -> Box<CommandSpec> {
    let spec = CommandSpec::new(Tool::from_word("/bin/sh"), Effect::Inspect);
    Box::new(spec.args(["-c", script]))
}

#[test]
fn a_stream_is_stored_whole_or_not_at_all() {
    let bench = Bench::new();
    let engine = bench.initialised();
    let mut request = bench.request(1, &[]);
    request.series.item = Some("post/gres".into());
    request.input = Input::Stream {
        producer: shell("head -c 3000000 /dev/zero; echo end"),
        file_name: "-dump {1}.sql".into(),
    };
    let report = engine.backup(bench.cx(), &request, &mut |_| {}).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report:?}");
    assert_eq!(report.files, Some(1));
    let copy = bench.only(&engine);
    assert_eq!(copy.series.as_ref().unwrap().item.as_deref(), Some("post/gres"));
    let to = bench.restore(&engine, &copy, &[], "back").unwrap();
    let back = fs::read(to.join("-dump {1}.sql")).unwrap();
    assert_eq!((back.len(), &back[3_000_000..]), (3_000_004, &b"end\n"[..]));

    for (second, script) in [
        (2, "head -c 3000000 /dev/zero; echo no server >&2; exit 3"),
        (3, "echo no server >&2; kill -9 $$"),
        (4, "echo no server >&2; exit 1"),
    ] {
        let mut request = bench.request(second, &[]);
        request.input = Input::Stream { producer: shell(script), file_name: "d".into() };
        match engine.backup(bench.cx(), &request, &mut |_| {}).unwrap_err() {
            EngineError::Producer { stderr_tail, .. } => assert_eq!(stderr_tail, "no server"),
            other => panic!("{script}: {other:?}"),
        }
        assert_eq!(bench.names(&engine).len(), 1, "{script} left an archive");
    }

    let wrong = bench.engine_with(&bench.path("repo"), "wrong");
    request.input = Input::Stream { producer: shell("exec cat /dev/zero"), file_name: "d".into() };
    let wrong = wrong.backup(bench.cx(), &request, &mut |_| {}).unwrap_err();
    assert!(matches!(wrong, EngineError::WrongPassphrase { .. }), "{wrong:?}");
}

/// A small file system of its own; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(image: &Path, at: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(24 << 20).unwrap();
        run("mkfs.ext4", &[OsStr::new("-q"), OsStr::new("-F"), image.as_os_str()]);
        fs::create_dir(at).unwrap();
        run("mount", &[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), at.as_os_str()]);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        must_at_last("umount", &[self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_the_older_copies() {
    let bench = Bench::new();
    let disk = SmallDisk::new(&bench.path("image"), &bench.path("disk"));
    let engine = bench.engine_with(&disk.0.join("repo"), "pass");
    engine.init(bench.cx()).unwrap();
    fs::write(bench.path("tree/f"), "x").unwrap();
    bench.backup(&engine, 1);
    let mut noise = vec![0; 40 << 20];
    use std::io::Read;
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(bench.path("tree/noise"), noise).unwrap();
    let request = bench.request(2, &[bench.path("tree")]);
    let full = engine.backup(bench.cx(), &request, &mut |_| {}).unwrap_err();
    assert!(matches!(full, EngineError::Full { .. }), "{full:?}");
    drop(engine);
    let engine = bench.engine_with(&disk.0.join("repo"), "pass");
    assert_eq!(bench.names(&engine).len(), 1);
}

#[test]
fn a_dry_run_changes_nothing_and_predicts_the_list() {
    let bench = Bench::new();
    let engine = bench.initialised();
    fs::write(bench.path("tree/f"), "x").unwrap();
    bench.backup(&engine, 1);
    let before = bench.names(&engine);
    let host = DryHost::new(Arc::new(SystemHost::new().unwrap()));
    let cx = bench.on(&host);
    let request = bench.request(2, &[bench.path("tree")]);
    let report = engine.backup(cx, &request, &mut |_| {}).unwrap();
    assert_eq!((report.outcome, report.files), (Outcome::Ok, None));
    engine.delete(cx, &before).unwrap();
    engine.compact(cx, &mut |_| {}).unwrap();
    let predicted: Vec<String> = engine.list(cx).unwrap().into_iter().map(|copy| copy.id).collect();
    assert_eq!(predicted, [engine.name_for(&request).unwrap()]);
    assert_eq!(bench.names(&engine), before);
}

/// The mark of a pin is the archive's name: it is there for every machine, and in an append-only repository too.
#[test]
fn borg_pins_are_in_the_name() {
    let bench = Bench::new();
    let engine = bench.initialised();
    fs::write(bench.path("tree/file"), "content").unwrap();
    let request = bench.request(1, &[bench.path("tree")]);
    engine.backup(bench.cx(), &request, &mut |_| {}).unwrap();
    let before = engine.list(bench.cx()).unwrap().remove(0);
    for append_only in ["0", "1"] {
        let status =
            Command::new(std::env::var_os("STILLPOINT_TEST_BORG").unwrap_or("borg".into()))
                .args(["config", bench.path("repo").to_str().unwrap(), "append_only", append_only])
                .env("BORG_BASE_DIR", bench.path("other"))
                .stdout(Stdio::null())
                .status()
                .unwrap();
        assert!(status.success());
        let pinned = engine.set_pin(bench.cx(), &before, true).unwrap();
        assert_eq!(pinned, format!("{}.pinned", before.id));
        let listed = engine.list(bench.cx()).unwrap();
        let [copy] = listed.as_slice() else { panic!("{listed:#?}") };
        assert!(copy.pinned && copy.id == pinned && copy.original.as_ref() == Some(&before.id));
        assert_eq!(
            (&copy.series, &copy.run, copy.time),
            (&before.series, &before.run, before.time)
        );
        assert!(copy.answers_to(&before.id) && copy.answers_to(&pinned));
        assert_eq!(engine.set_pin(bench.cx(), copy, true).unwrap(), pinned, "twice is once");
        // By its old name it cannot be deleted any more.
        engine.delete(bench.cx(), std::slice::from_ref(&before.id)).unwrap();
        assert_eq!(engine.list(bench.cx()).unwrap(), listed);
        assert_eq!(engine.verify(bench.cx(), copy).unwrap().damage, Vec::<String>::new());
        assert_eq!(engine.set_pin(bench.cx(), copy, false).unwrap(), before.id);
        assert_eq!(engine.list(bench.cx()).unwrap(), std::slice::from_ref(&before));
    }
}
