//! The restic engine against real restics, through the real host: Debian's own, and 0.18 where
//! `STILLPOINT_RESTIC_018` names it (`tests/run` does). Needs root (private mounts, FUSE).
#![allow(clippy::disallowed_methods)] // what the tests do around the engine is not part of it
#![allow(clippy::print_stderr)] // what was not run is said loudly

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use stillpoint::engine::restic::ResticEngine;
use stillpoint::engine::{
    BackupReport, BackupRequest, ChangeKind, Claim, Context, Engine, EngineError, Input,
    RestoreRequest,
};
use stillpoint::host::dry::DryHost;
use stillpoint::host::sys::process;
use stillpoint::host::sys::signals::StopFlag;
use stillpoint::host::system::SystemHost;
use stillpoint::host::{CommandSpec, Effect, Host, PrivateMount, RunError, Tool};
use stillpoint::model::copy::{Copy, Series};
use stillpoint::model::job::Settings;
use stillpoint::model::names::{JobName, RunId};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::{EngineConfig, ReadData, Target};
use stillpoint::tools::Tree;

use crate::bench_machine::{make_keys_cheap, wait_for, write_with_mode};
use crate::configured::configured;

/// The restics to try; `None` is the one on the fixed path.
fn restics() -> Vec<Option<PathBuf>> {
    let newer = std::env::var_os("STILLPOINT_RESTIC_018").map(PathBuf::from);
    if newer.is_none() {
        eprintln!("!!! NOT RUN with restic 0.18: STILLPOINT_RESTIC_018 is not set");
    }
    [None].into_iter().chain(newer.map(Some)).collect()
}

/// A tree and what an engine call needs, in one temporary directory.
struct Bench {
    directory: tempfile::TempDir,
    settings: Settings,
    host: SystemHost,
    stop: Arc<StopFlag>,
    program: Option<PathBuf>,
}

/// Runs a test once with each restic.
fn with_each(test: impl Fn(&Bench)) {
    for program in restics() {
        test(&Bench::new(program));
    }
}

/// The engine of a target, which may be filled from another one.
fn of(target: &Target, source: Option<&Target>) -> ResticEngine {
    let EngineConfig::Restic(options) = &target.engine else { panic!("not restic's") };
    ResticEngine::new(target, options, source)
}

impl Bench {
    fn new(program: Option<PathBuf>) -> Self {
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
        write_with_mode(&below("env"), "# for the backend\nexport STILLPOINT_PROBE='x y'\n", 0o600);
        let stop = Arc::new(StopFlag::default());
        let host = SystemHost::stopped_by(stop.clone());
        Self { settings, host, stop, program, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn is_old(&self) -> bool {
        self.program.is_none()
    }

    fn target(&self, repository: &str, password: &str) -> Target {
        let program = self.program.as_ref();
        let program = program.map(|path| format!("program = '{}'", path.display()));
        let text = format!(
            r#"
[targets.{repository}.restic]
repository = '{}'
password-file = '{}'
environment-file = '{}'
compression = "auto"
stall-timeout = "1m"
{}
"#,
            self.path(repository).display(),
            self.path(password).display(),
            self.path("env").display(),
            program.unwrap_or_default(),
        );
        configured(&text).targets.remove(0)
    }

    fn engine(&self) -> ResticEngine {
        of(&self.target("repo", "pass"), None)
    }

    /// A ready repository.
    fn initialised(&self) -> ResticEngine {
        let engine = self.engine();
        engine.init(self.cx()).unwrap();
        make_keys_cheap(&self.path("repo"), "correct horse");
        engine
    }

    fn on<'a>(&'a self, host: &'a dyn Host) -> Context<'a> {
        let lock_wait = Duration::from_secs(1);
        Context {
            host,
            settings: &self.settings,
            temporary: None,
            lock_wait,
            run: None,
            seat: None,
        }
    }

    fn cx(&self) -> Context<'_> {
        self.on(&self.host)
    }

    fn series(&self) -> Series {
        Series {
            host: self.settings.host.clone(),
            job: JobName::new("web").unwrap(),
            item: Some("a, b".into()),
        }
    }

    fn request(&self, second: u32, paths: &[PathBuf]) -> BackupRequest {
        BackupRequest {
            series: self.series(),
            machine: None,
            run: RunId::from_bytes(second.to_be_bytes()),
            time: time(second),
            input: Input::Tree {
                expected: Vec::new(),
                tree: Tree {
                    paths: paths.to_vec(),
                    exclude: vec!["*.tmp".into()],
                    exclude_caches: true,
                    exclude_if_present: vec![".nobackup".into()],
                    one_file_system: true,
                    block_size: None,
                    view: stillpoint::host::PrivateView::default(),
                },
            },
        }
    }

    fn backup(&self, engine: &dyn Engine, second: u32) -> Result<BackupReport, EngineError> {
        let request = self.request(second, &[self.path("tree")]);
        engine.backup(self.cx(), &request, &mut |_| {})
    }

    fn list(&self, engine: &dyn Engine) -> Vec<Copy> {
        let mut copies = engine.list(self.cx()).unwrap();
        copies.sort_by_key(|copy| copy.time);
        copies
    }

    fn restore(
        &self,
        engine: &dyn Engine,
        copy: &Copy,
        paths: &[PathBuf],
        to: &str,
    ) -> Result<PathBuf, EngineError> {
        let to = self.path(to);
        let request = RestoreRequest {
            paths: paths.to_vec(),
            ..RestoreRequest::new(copy.clone(), to.clone())
        };
        engine.restore(self.cx(), &request, &mut |_| {})?;
        Ok(to.join(self.path("tree").strip_prefix("/").unwrap()))
    }

    /// restic itself, beside the engine.
    fn restic(&self, args: &[&str]) -> Command {
        let program = self.program.clone().unwrap_or_else(|| "restic".into());
        let mut command = Command::new(program);
        command
            .args(args)
            .env("RESTIC_REPOSITORY", self.path("repo"))
            .env("RESTIC_PASSWORD", "correct horse")
            .env("RESTIC_CACHE_DIR", self.path("other-cache"));
        command
    }

    /// A backup that holds its lock, which bears this host name, until its input ends.
    fn lock_holder(&self, name: &str) -> Child {
        let restic = self.restic(&[]);
        let child = Command::new("unshare")
            .args(["--uts", "sh", "-c", r#"hostname "$1"; exec "$0" backup --stdin --json"#])
            .arg(restic.get_program())
            .arg(name)
            .envs(restic.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("restic takes its lock", || self.locks() > 0);
        child
    }

    fn locks(&self) -> usize {
        fs::read_dir(self.path("repo/locks")).unwrap().count()
    }

    /// Overwrites a few bytes in every pack with data.
    fn spoil_packs(&self) {
        for directory in fs::read_dir(self.path("repo/data")).unwrap() {
            for pack in fs::read_dir(directory.unwrap().path()).unwrap() {
                let path = pack.unwrap().path();
                let mut bytes = fs::read(&path).unwrap();
                if bytes.len() > 50_000 {
                    bytes[1_000..1_016].fill(b'X');
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, bytes).unwrap();
                }
            }
        }
    }

    /// Files that hold data, whole or on their way.
    fn packs(&self) -> usize {
        let directories = fs::read_dir(self.path("repo/data")).unwrap();
        directories.map(|directory| fs::read_dir(directory.unwrap().path()).unwrap().count()).sum()
    }
}

fn time(second: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 1, 2, 3, second).unwrap()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn fill(tree: &Path) {
    fs::create_dir_all(tree.join("sub/deeper")).unwrap();
    fs::write(tree.join("plain"), "hello").unwrap();
    fs::write(tree.join("sub/noise"), noise(3_000_000, 7)).unwrap();
    fs::write(tree.join("a[b]*c"), "glob").unwrap();
    fs::write(tree.join("abc"), "what the glob would match").unwrap();
    fs::write(tree.join("back\\slash"), "x").unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"n\xffme")), "not UTF-8").unwrap();
    fs::write(tree.join("left.tmp"), "excluded").unwrap();
    fs::write(tree.join("secret"), "0400").unwrap();
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o400)).unwrap();
    std::os::unix::fs::chown(tree.join("secret"), Some(1234), Some(4321)).unwrap();
    fs::hard_link(tree.join("plain"), tree.join("sub/second-name")).unwrap();
    symlink("nowhere", tree.join("dangling")).unwrap();
}

/// What must be the same after a restore.
fn description(root: &Path) -> Vec<String> {
    fn walk(path: &Path, root: &Path, into: &mut Vec<String>) {
        let found = fs::symlink_metadata(path).unwrap();
        let content = if found.is_file() {
            format!("{:?}", fs::read(path).unwrap())
        } else if found.is_symlink() {
            format!("{:?}", fs::read_link(path).unwrap())
        } else {
            String::new()
        };
        into.push(format!(
            "{:?} {:o} {}:{} {}.{} {} {content}",
            path.strip_prefix(root).unwrap(),
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
            if found.is_dir() { 0 } else { found.nlink() },
        ));
        if found.is_dir() {
            let mut names: Vec<PathBuf> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names.iter().for_each(|name| walk(name, root, into));
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines
}

#[test]
fn restic_makes_and_lists_and_gives_back() {
    with_each(|bench| {
        let engine = bench.engine();
        let made = engine.init(bench.cx()).unwrap();
        assert_eq!(made.repository_id.as_ref().unwrap().len(), 64);
        let again = engine.init(bench.cx());
        assert!(matches!(again, Err(EngineError::RepositoryExists { .. })), "{again:?}");
        let probe = engine.probe(bench.cx()).unwrap();
        assert_eq!(probe.repository_id, made.repository_id);
        assert_eq!(bench.list(&engine), []);
        let empty = engine.check(bench.cx(), ReadData::None, &mut |_| {}).unwrap();
        assert_eq!(empty.damage, Vec::<String>::new());

        let tree = bench.path("tree");
        fill(&tree);
        let first = bench.backup(&engine, 1).unwrap();
        assert_eq!(first.outcome, Outcome::Ok, "{first:?}");
        assert!(first.bytes_new.unwrap() > 3_000_000);
        let copies = bench.list(&engine);
        assert_eq!(copies.len(), 1);
        assert!(copies[0].id.starts_with(&first.id.unwrap()));
        assert_eq!(copies[0].series, Some(bench.series()));
        assert_eq!(copies[0].run, Some(RunId::from_bytes([0, 0, 0, 1])));
        assert_eq!(copies[0].time, time(1));
        assert_eq!(copies[0].tags, Vec::<String>::new());
        assert_eq!(copies[0].files.is_none(), bench.is_old());

        let back = bench.restore(&engine, &copies[0], &[], "everything").unwrap();
        fs::remove_file(tree.join("left.tmp")).unwrap();
        let (mut wanted, mut got) = (description(&tree), description(&back));
        // The tree itself was touched by the removal above.
        wanted.remove(0);
        got.remove(0);
        assert_eq!(got, wanted);

        fs::write(tree.join("plain"), "changed").unwrap();
        fs::write(tree.join("new"), "new").unwrap();
        fs::remove_file(tree.join("abc")).unwrap();
        fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o440)).unwrap();
        fs::remove_file(tree.join("dangling")).unwrap();
        fs::write(tree.join("dangling"), "a file now").unwrap();
        let second = bench.backup(&engine, 2).unwrap();
        assert!(second.bytes_new.unwrap() < 100_000, "{second:?}");
        let copies = bench.list(&engine);
        let mut changes = Vec::new();
        engine
            .diff(bench.cx(), &copies[0], &copies[1], &mut |change| {
                if let Ok(name) = change.path.strip_prefix(&tree) {
                    changes.push((name.display().to_string(), change.kind));
                }
            })
            .unwrap();
        for expected in [
            ("plain", ChangeKind::Modified),
            ("new", ChangeKind::Added),
            ("abc", ChangeKind::Removed),
            ("secret", ChangeKind::Metadata),
            ("dangling", ChangeKind::Type),
        ] {
            assert!(changes.contains(&(expected.0.into(), expected.1)), "{expected:?} {changes:?}");
        }

        engine.delete(bench.cx(), &[copies[0].id.clone()]).unwrap();
        assert_eq!(bench.list(&engine), copies[1..]);
        engine.compact(bench.cx(), &mut |_| {}).unwrap();
        let checked = engine.check(bench.cx(), ReadData::Percent(50.0), &mut |_| {}).unwrap();
        assert_eq!(checked.damage, Vec::<String>::new());
        let verified = engine.verify(bench.cx(), &copies[1]).unwrap();
        assert_eq!(verified.damage, Vec::<String>::new());
        assert_eq!(bench.locks(), 0);
    });
}

#[test]
fn restic_restores_exactly_what_was_named() {
    with_each(|bench| {
        let tree = bench.path("tree");
        fill(&tree);
        let engine = bench.initialised();
        bench.backup(&engine, 1).unwrap();
        let copy = bench.list(&engine).remove(0);

        let mut entries = Vec::new();
        engine.contents(bench.cx(), &copy, &mut |entry| entries.push(entry)).unwrap();
        let plain = entries.iter().find(|entry| entry.path == tree.join("plain")).unwrap();
        assert_eq!((plain.kind, plain.size), ('-', Some(5)));
        assert!(!entries.iter().any(|entry| entry.path == tree.join("left.tmp")));

        let asked = [tree.join("a[b]*c"), tree.join("back\\slash"), tree.join("dangling")];
        let back = bench.restore(&engine, &copy, &asked, "some").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&back).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a[b]*c", "back\\slash", "dangling"]);

        let odd = [tree.join(OsStr::from_bytes(b"n\xffme"))];
        let back = bench.restore(&engine, &copy, &odd, "odd").unwrap();
        assert_eq!(fs::read(back.join(OsStr::from_bytes(b"n\xffme"))).unwrap(), b"not UTF-8");

        let back = bench.restore(&engine, &copy, &[tree.join("sub")], "sub").unwrap();
        assert_eq!(fs::read(back.join("sub/noise")).unwrap(), noise(3_000_000, 7));
        assert!(!back.join("plain").exists());

        let absent = bench.restore(&engine, &copy, &[tree.join("plain"), tree.join("nope")], "no");
        assert!(absent.unwrap_err().to_string().contains("nope is not in the copy"));

        let request = RestoreRequest {
            dry_run: true,
            ..RestoreRequest::new(copy.clone(), bench.path("preview"))
        };
        let preview = engine.restore(bench.cx(), &request, &mut |_| {});
        assert_eq!(matches!(preview, Err(EngineError::Unsupported { .. })), bench.is_old());
        assert!(!bench.path("preview/tmp").exists());

        // What lies there already proves nothing, in place or anywhere else.
        let since = tree.join(OsStr::from_bytes(b"made since\xff"));
        let elsewhere = bench.path("since");
        for to in [Path::new("/"), &elsewhere] {
            let at = to.join(since.strip_prefix("/").unwrap());
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, "x").unwrap();
            fs::write(tree.join("plain"), "spoiled, and longer").unwrap();
            let restore = |path: PathBuf| {
                let request = RestoreRequest {
                    paths: vec![path],
                    ..RestoreRequest::new(copy.clone(), to.to_owned())
                };
                engine.restore(bench.cx(), &request, &mut |_| {})
            };
            let absent = restore(since.clone()).unwrap_err();
            assert!(absent.to_string().contains("is not in the copy"), "{absent}");
            for name in [&b"plain"[..], b"n\xffme", b"sub"] {
                let path = tree.join(OsStr::from_bytes(name));
                restore(path.clone()).unwrap();
                restore(path).unwrap();
            }
            let plain = to.join(tree.strip_prefix("/").unwrap()).join("plain");
            assert_eq!(fs::metadata(plain).unwrap().len(), 5);
        }

        // A directory is where the file should be.
        let blocked = bench.path("blocked").join(tree.strip_prefix("/").unwrap());
        fs::create_dir_all(blocked.join("plain/in/the/way")).unwrap();
        assert!(bench.restore(&engine, &copy, &[tree.join("plain")], "blocked").is_err());

        let gone = Copy { id: "0".repeat(64), ..copy };
        assert!(engine.contents(bench.cx(), &gone, &mut |_| {}).is_err());
        assert!(engine.verify(bench.cx(), &gone).is_err());
        assert!(bench.restore(&engine, &gone, &[], "gone").is_err());
    });
}

#[test]
fn restic_finds_a_flipped_byte() {
    with_each(|bench| {
        fill(&bench.path("tree"));
        let engine = bench.initialised();
        bench.backup(&engine, 1).unwrap();
        let copy = bench.list(&engine).remove(0);
        let mut packs = Vec::new();
        for directory in fs::read_dir(bench.path("repo/data")).unwrap() {
            for pack in fs::read_dir(directory.unwrap().path()).unwrap() {
                packs.push(pack.unwrap().path());
            }
        }
        let largest = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
        fs::set_permissions(largest, fs::Permissions::from_mode(0o600)).unwrap();
        let file = fs::File::options().read(true).write(true).open(largest).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 1000).unwrap();

        let structure = engine.check(bench.cx(), ReadData::None, &mut |_| {}).unwrap();
        assert_eq!(structure.damage, Vec::<String>::new(), "only reading the data shows it");
        let all = engine.check(bench.cx(), ReadData::All, &mut |_| {}).unwrap();
        assert!(!all.damage.is_empty());
        let verified = engine.verify(bench.cx(), &copy).unwrap();
        assert_eq!(verified.damage.len(), 1, "{verified:?}");
        assert!(bench.restore(&engine, &copy, &[], "broken").is_err());

        // And when directories are what is lost:
        for pack in &packs {
            let length = fs::metadata(pack).unwrap().len();
            fs::set_permissions(pack, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(pack, vec![0; usize::try_from(length).unwrap()]).unwrap();
        }
        fs::remove_dir_all(bench.path("cache")).unwrap();
        let verified = engine.verify(bench.cx(), &copy).unwrap();
        assert_eq!(verified.damage.len(), 1, "{verified:?}");
        let all = engine.check(bench.cx(), ReadData::None, &mut |_| {}).unwrap();
        assert!(!all.damage.is_empty());
        assert_eq!(bench.locks(), 0, "also after a crash of restic 0.18");
    });
}

#[test]
fn restic_says_what_stands_in_the_way() {
    let run = RunId::parse("0badcafe").unwrap();
    with_each(|bench| {
        fill(&bench.path("tree"));
        let missing = bench.engine().probe(bench.cx());
        assert!(matches!(missing, Err(EngineError::RepositoryMissing { .. })), "{missing:?}");
        let missing = bench.backup(&bench.engine(), 1);
        assert!(matches!(missing, Err(EngineError::RepositoryMissing { .. })), "{missing:?}");
        let engine = bench.initialised();
        let wrong = of(&bench.target("repo", "wrong"), None);
        for error in [
            wrong.probe(bench.cx()).map(drop),
            wrong.list(bench.cx()).map(drop),
            bench.backup(&wrong, 1).map(drop),
            wrong.check(bench.cx(), ReadData::None, &mut |_| {}).map(drop),
        ] {
            assert!(matches!(error, Err(EngineError::WrongPassphrase { .. })), "{error:?}");
        }
        bench.backup(&engine, 1).unwrap();
        let copy = bench.list(&engine).remove(0);

        let cx = Context { run: Some(&run), ..bench.cx() };
        let owner = engine.lock_owner(cx).unwrap();
        let mut holder = bench.lock_holder(&owner);
        let recorded = process::identify(holder.id().cast_signed()).unwrap().unwrap();
        let children = [recorded];
        let claim = Claim { owner: Some(&owner), children: &children };
        for error in [
            engine.delete(bench.cx(), std::slice::from_ref(&copy.id)),
            engine.compact(bench.cx(), &mut |_| {}).map(drop),
            engine.check(bench.cx(), ReadData::None, &mut |_| {}).map(drop),
        ] {
            assert_eq!(error.as_ref().unwrap_err().trouble(), Trouble::Busy, "{error:?}");
            assert!(error.unwrap_err().to_string().contains("PID"));
        }
        // Looking and making copies go on beside it.
        engine.probe(bench.cx()).unwrap();
        bench.backup(&engine, 2).unwrap();
        assert_eq!(bench.list(&engine).len(), 2);
        // The lock of a living process stays.
        let held = engine.release_dead_lock(bench.cx(), claim);
        assert!(matches!(held, Err(EngineError::Locked { .. })), "{held:?}");
        assert_eq!(bench.locks(), 1);
        holder.kill().unwrap();
        assert!(engine.delete(bench.cx(), std::slice::from_ref(&copy.id)).is_err());
        // Another run's claim is to another name.
        let other = Claim { owner: Some("web1.stillpoint-00000000"), ..claim };
        engine.release_dead_lock(bench.cx(), other).unwrap();
        assert_eq!(bench.locks(), 1);
        // Also before it is reaped, while restic takes it for a living one.
        engine.release_dead_lock(bench.cx(), claim).unwrap();
        assert_eq!(bench.locks(), 0);
        holder.wait().unwrap();
        engine.delete(bench.cx(), &[copy.id]).unwrap();
        assert_eq!(bench.list(&engine).len(), 1);
    });
}

#[test]
fn restic_with_missing_sources() {
    with_each(|bench| {
        fill(&bench.path("tree"));
        let engine = bench.initialised();
        let nothing = bench.request(1, &[bench.path("gone"), bench.path("also-gone")]);
        let result = engine.backup(bench.cx(), &nothing, &mut |_| {});
        assert!(matches!(result, Err(EngineError::NoSource { .. })), "{result:?}");
        assert_eq!(bench.list(&engine), []);
        let some = bench.request(2, &[bench.path("tree/sub"), bench.path("gone")]);
        let report = engine.backup(bench.cx(), &some, &mut |_| {}).unwrap();
        assert_eq!(report.outcome, Outcome::Incomplete);
        assert_eq!(report.unreadable, [format!("{} is not there", bench.path("gone").display())]);
        assert_eq!(bench.list(&engine).len(), 1);
    });
}

#[test]
fn restic_reads_a_capture_under_the_original_path() {
    with_each(|bench| {
        let (tree, capture) = (bench.path("tree"), bench.path("capture"));
        fill(&capture);
        fs::write(tree.join("live"), "not in the capture").unwrap();
        let engine = bench.initialised();
        let mut request = bench.request(1, &[tree.clone(), tree.join("live")]);
        let Input::Tree { tree: read, .. } = &mut request.input else { unreachable!() };
        read.view.mounts.push(PrivateMount::Bind {
            from: capture.clone(),
            at: tree.clone(),
            read_only: true,
        });
        let report = engine.backup(bench.cx(), &request, &mut |_| {}).unwrap();
        assert_eq!(report.outcome, Outcome::Incomplete);
        assert_eq!(report.unreadable_count, 1, "{report:?}");
        let copy = bench.list(&engine).remove(0);
        let back = bench.restore(&engine, &copy, &[], "back").unwrap();
        assert_eq!(fs::read(back.join("plain")).unwrap(), b"hello");
        assert!(!back.join("live").exists());
    });
}

#[test]
fn restic_stores_a_stream_only_when_its_producer_succeeds() {
    with_each(|bench| {
        let engine = bench.initialised();
        let request = |second, script: &str, file_name: &str| BackupRequest {
            input: Input::Stream {
                producer: Box::new(
                    CommandSpec::new(Tool::from_word("/bin/sh"), Effect::Inspect)
                        .args(["-c", script]),
                ),
                file_name: file_name.into(),
            },
            ..bench.request(second, &[])
        };
        let run = |second, script: &str| {
            engine.backup(bench.cx(), &request(second, script, "all data.sql"), &mut |_| {})
        };
        // One that is stopped while it just makes its lock leaves that.
        let locked = format!(
            "until [ -n \"$(ls '{}')\" ]; do sleep 0.1; done; sleep 1; echo half; kill -9 $$",
            bench.path("repo/locks").display()
        );
        for script in [&locked, "echo half; echo why >&2; exit 3", "exit 1"] {
            let error = run(1, script).unwrap_err();
            assert!(matches!(error, EngineError::Producer { .. }), "{error:?}");
            assert_eq!(bench.list(&engine), [], "{script}");
            if script == locked {
                assert_eq!(bench.locks(), 0, "{script}");
            }
        }
        let report = run(2, "echo a notice >&2; head -c 2000000 /dev/zero; echo end").unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{report:?}");
        assert_eq!(report.size, Some(2_000_004));
        let copy = bench.list(&engine).remove(0);
        bench.restore(&engine, &copy, &["/all data.sql".into()], "stream").unwrap();
        let back = fs::read(bench.path("stream/all data.sql")).unwrap();
        assert_eq!((back.len(), back.ends_with(b"end\n")), (2_000_004, true));
        let odd = engine.backup(bench.cx(), &request(3, "echo x", "a/b"), &mut |_| {});
        assert!(matches!(odd, Err(EngineError::Unsupported { .. })), "{odd:?}");
        // restic ends first, and the producer without a reader is not the cause.
        let wrong = of(&bench.target("repo", "wrong"), None);
        let endless = request(4, "exec cat /dev/zero", "all data.sql");
        let wrong = wrong.backup(bench.cx(), &endless, &mut |_| {}).unwrap_err();
        assert!(matches!(wrong, EngineError::WrongPassphrase { .. }), "{wrong:?}");
    });
}

#[test]
fn restic_copies_between_repositories() {
    with_each(|bench| {
        fill(&bench.path("tree"));
        let source = bench.initialised();
        let second = of(&bench.target("second", "wrong"), Some(source.target()));
        second.init(bench.cx()).unwrap();
        let polynomial = |engine: &str, password: &str| {
            let mut command = bench.restic(&["cat", "config"]);
            command.env("RESTIC_REPOSITORY", bench.path(engine)).env("RESTIC_PASSWORD", password);
            let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
            output.lines().find(|line| line.contains("chunker")).unwrap().to_owned()
        };
        assert_eq!(polynomial("repo", "correct horse"), polynomial("second", "incorrect horse"));

        bench.backup(&source, 1).unwrap();
        bench.backup(&source, 2).unwrap();
        let copies = bench.list(&source);
        second.copy_from(bench.cx(), &source, &[&copies[1]], &mut |_| {}).unwrap();
        second.copy_from(bench.cx(), &source, &[&copies[1]], &mut |_| {}).unwrap();
        let there = bench.list(&second);
        assert_eq!(there.len(), 1);
        assert_eq!(there[0].original.as_ref(), Some(&copies[1].id));
        assert_eq!((&there[0].series, &there[0].run), (&copies[1].series, &copies[1].run));
        assert_eq!(there[0].time, copies[1].time);
        bench.restore(&second, &there[0], &[], "from-second").unwrap();
        let unknown = Copy { id: "0".repeat(64), ..copies[1].clone() };
        let unknown = second.copy_from(bench.cx(), &source, &[&unknown], &mut |_| {});
        assert!(unknown.is_err(), "restic passes over it with exit status 0");
        second.copy_from(bench.cx(), &source, &[], &mut |_| {}).unwrap();
        assert_eq!(bench.list(&second).len(), 1);

        // What is damaged in the first says nothing of the second.
        fs::write(bench.path("tree/new"), noise(300_000, 9)).unwrap();
        bench.backup(&source, 3).unwrap();
        let new = bench.list(&source).pop().unwrap();
        bench.spoil_packs();
        let error = second.copy_from(bench.cx(), &source, &[&new], &mut |_| {}).unwrap_err();
        assert!(matches!(error, EngineError::DamagedBetween { source_only: true, .. }), "{error}");
    });
}

#[test]
fn restic_pins_follow_the_snapshot() {
    with_each(|bench| {
        fill(&bench.path("tree"));
        let engine = bench.initialised();
        bench.backup(&engine, 1).unwrap();
        bench.backup(&engine, 2).unwrap();
        let copies = bench.list(&engine);
        let pinned = engine.set_pin(bench.cx(), &copies[0], true).unwrap();
        assert_ne!(pinned, copies[0].id);
        let now = bench.list(&engine);
        assert_eq!(now.len(), 2);
        assert!(now[0].id == pinned && now[0].pinned && !now[1].pinned);
        assert_eq!(now[0].original.as_ref(), Some(&copies[0].id));
        assert_eq!((&now[0].series, &now[0].run), (&copies[0].series, &copies[0].run));
        assert_eq!(engine.set_pin(bench.cx(), &now[0], true).unwrap(), pinned);
        let free = engine.set_pin(bench.cx(), &now[0], false).unwrap();
        let last = bench.list(&engine);
        assert!(last[0].id == free && !last[0].pinned);
        assert_eq!(last[0].original.as_ref(), Some(&copies[0].id));
        // Somebody else's snapshot has no series, and can be pinned all the same.
        let tree = bench.path("tree");
        assert!(
            bench
                .restic(&["backup", "--tag", "mine", "--quiet", tree.to_str().unwrap()])
                .status()
                .unwrap()
                .success()
        );
        let foreign = bench.list(&engine).into_iter().find(|copy| copy.series.is_none()).unwrap();
        assert_eq!(foreign.tags, ["mine"]);
        let moved = engine.set_pin(bench.cx(), &foreign, true).unwrap();
        let foreign = bench.list(&engine).into_iter().find(|copy| copy.id == moved).unwrap();
        assert_eq!(foreign.tags, ["mine"]);
        assert!(foreign.pinned);
    });
}

#[test]
fn restic_interrupted_leaves_neither_copy_nor_lock() {
    with_each(|bench| {
        fs::write(bench.path("tree/noise"), noise(8_000_000, 3)).unwrap();
        bench.initialised();
        let mut target = bench.target("repo", "pass");
        target.upload_limit_kib = Some(200);
        let slow = of(&target, None);
        let result = std::thread::scope(|scope| {
            let running = scope.spawn(|| bench.backup(&slow, 1));
            // restic looks for other locks for 200 ms before it knows its own as one to remove, and only then
            // does it write.
            wait_for("restic writes data", || bench.packs() > 0);
            assert!(!running.is_finished());
            bench.stop.raise(15);
            running.join().unwrap()
        });
        let error = result.unwrap_err();
        assert!(matches!(error, EngineError::Run(RunError::Interrupted { signal: 15, .. })));
        assert_eq!(error.trouble(), Trouble::Signal(15));
        assert_eq!(bench.locks(), 0, "{:?}", bench.program);
        let host = SystemHost::stopped_by(Arc::default());
        assert_eq!(slow.list(bench.on(&host)).unwrap(), []);
    });
}

#[test]
fn restic_serves_one_copy_at_a_directory() {
    with_each(|bench| {
        fill(&bench.path("tree"));
        let engine = bench.initialised();
        bench.backup(&engine, 1).unwrap();
        bench.backup(&engine, 2).unwrap();
        let copy = bench.list(&engine).remove(0);
        let at = bench.path("mnt");
        fs::create_dir(&at).unwrap();
        let spec = engine.mount(bench.cx(), &copy, &at).unwrap();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| bench.host.run(&spec, &mut |_, _| {}));
            let inside = at.join(&copy.id[..8]).join(bench.path("tree").strip_prefix("/").unwrap());
            wait_for("the copy is served", || inside.join("plain").exists());
            assert_eq!(fs::read(inside.join("plain")).unwrap(), b"hello");
            assert_eq!(fs::read_dir(&at).unwrap().count(), 1);
            bench.stop.raise(2);
            let ended = serving.join().unwrap();
            assert!(matches!(ended, Err(RunError::Interrupted { .. })), "{ended:?}");
        });
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "unmounted");
        assert_eq!(bench.locks(), 0);
    });
}

#[test]
fn restic_dry_run_touches_nothing_and_predicts() {
    with_each(|bench| {
        fill(&bench.path("tree"));
        let engine = bench.initialised();
        bench.backup(&engine, 1).unwrap();
        let before = bench.list(&engine);
        let files = || {
            let output = Command::new("find").arg(bench.path("repo")).output().unwrap().stdout;
            String::from_utf8(output).unwrap()
        };
        let repository = files();
        let dry = DryHost::new(Arc::new(SystemHost::stopped_by(Arc::default())));
        let cx = bench.on(&dry);
        let request = bench.request(2, &[bench.path("tree")]);
        let report = engine.backup(cx, &request, &mut |_| {}).unwrap();
        assert_eq!(report.outcome, Outcome::Ok);
        let copies = engine.list(cx).unwrap();
        assert_eq!(copies.len(), 2);
        assert_eq!(copies[1].series, Some(bench.series()));
        assert_eq!(Some(&copies[1].id), report.id.as_ref());
        engine.delete(cx, &[before[0].id.clone()]).unwrap();
        engine.compact(cx, &mut |_| {}).unwrap();
        for report in [
            engine.check(cx, ReadData::All, &mut |_| {}).unwrap(),
            engine.verify(cx, &before[0]).unwrap(),
        ] {
            assert_eq!((report.damage.len(), report.extent.as_str()), (0, "nothing (dry run)"));
        }
        let restore = RestoreRequest {
            paths: vec![bench.path("tree")],
            dry_run: true,
            ..RestoreRequest::new(before[0].clone(), bench.path("back"))
        };
        engine.restore(cx, &restore, &mut |_| {}).unwrap();
        assert!(!bench.path("back").exists());
        assert_eq!(engine.list(cx).unwrap(), copies[1..]);
        assert_eq!(files(), repository);
        assert_eq!(bench.list(&engine), before);
    });
}

#[test]
fn restic_gives_a_changing_tree_back_without_calling_it_damage() {
    with_each(|bench| {
        let tree = bench.path("tree");
        let engine = bench.initialised();
        let mut log = fs::File::create(tree.join("log")).unwrap();
        let report = std::thread::scope(|scope| {
            let running = scope.spawn(|| bench.backup(&engine, 1));
            // Each name once: of a file that went while its attributes were read, restic before 0.17.1 says
            // only that it failed, and one that is there again cannot be told from one that was refused.
            for number in 0.. {
                if running.is_finished() {
                    break;
                }
                log.write_all(&noise(10_000, 9)).unwrap();
                let passing = tree.join(format!("comes.{number}"));
                fs::write(&passing, "x").unwrap();
                fs::remove_file(&passing).unwrap();
            }
            running.join().unwrap().unwrap()
        });
        assert_eq!(report.outcome, Outcome::Ok, "{report:?}");
    });
}
