//! Real control groups: who is frozen stands still, and nobody stays frozen, whatever happens to us.
//!
//! They need root and a hierarchy of version 2 with a freezer (Linux 5.2); where none is mounted, or it is
//! read-only, one is mounted for the test alone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stillpoint::config::{self, SourceFile};
use stillpoint::engine::Engines;
use stillpoint::host::sys::mounts::mount_table;
use stillpoint::host::sys::signals::StopFlag;
use stillpoint::host::system::SystemHost;
use stillpoint::host::{ActError, Action, Host, ThawGuard};
use stillpoint::model::event::{Event, Observer};
use stillpoint::model::job::{CapturePolicy, Config, Job, Source};
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::undo::Identity;
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::source;
use stillpoint::source::files::quiesce::while_quiesced;
use stillpoint::step::context::Pipeline;
use stillpoint::step::recorder::Recorder;

use crate::bench_machine::{
    Machine, PROGRAM, command, must, processes_about, wait_for, wait_for_no_process_about,
};
use crate::btrfs::{Disk, inside, restored};

/// What takes longer than this does not come. Guards that are not to come first have a longer limit.
const PATIENCE: Duration = Duration::from_secs(60);

/// A limit of a guard that is not reached in a test, in seconds.
const NEVER: u64 = 600;

/// A control group of the test's own; what is in it dies with it.
struct Group {
    path: PathBuf,
    /// The hierarchy, if it was mounted for this test.
    mounted: Option<tempfile::TempDir>,
    scratch: tempfile::TempDir,
    members: Vec<Child>,
}

impl Group {
    /// `None`, loudly, where there is no freezer; a failure under CI.
    fn new() -> Option<Self> {
        let group = Self::try_new();
        if group.is_none() {
            // Not by a macro, whose output the test runner keeps to itself when the test passes.
            let text =
                "!!! NOT RUN: no control groups of version 2 with a freezer can be had here\n";
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI needs a freezer");
        }
        group
    }

    fn try_new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("stillpoint-test-{}-{number}", std::process::id());
        let scratch = tempfile::tempdir().unwrap();
        let table = mount_table().unwrap();
        let there = table.iter().filter(|mount| mount.file_system == "cgroup2");
        for mount in there {
            if let Some(path) = made(&mount.at.join(&name)) {
                return Some(Self { path, mounted: None, scratch, members: Vec::new() });
            }
        }
        let place = tempfile::tempdir().unwrap();
        let at = place.path().to_str().unwrap();
        let mounted = command("mount")
            .args(["-t", "cgroup2", "none", at])
            .status()
            .is_ok_and(|s| s.success());
        if !mounted {
            return None;
        }
        if let Some(path) = made(&place.path().join(&name)) {
            return Some(Self { path, mounted: Some(place), scratch, members: Vec::new() });
        }
        must("umount", &[at]);
        None
    }

    /// As the configuration names it: from the root of its hierarchy on.
    fn name(&self) -> PathBuf {
        Path::new("/").join(self.path.file_name().unwrap())
    }

    /// Starts a process in the group, or in a group below it.
    fn start(&mut self, below: &str, program: &Path, args: &[&str]) {
        let group = self.path.join(below);
        fs::create_dir_all(&group).unwrap();
        let child = command(program).args(args).stdin(Stdio::null()).spawn().unwrap();
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        self.members.push(child);
    }

    /// Starts a process in a group below this one that counts in a file.
    fn start_counter(&mut self) {
        let script = "while :; do n=$((n + 1)); echo $n >\"$1\"; sleep 0.01; done";
        let file = self.scratch.path().join("count");
        let args = ["-c", script, "counter", file.to_str().unwrap()];
        self.start("writers", Path::new("/bin/sh"), &args);
        assert!(self.is_moving());
    }

    fn count(&self) -> String {
        fs::read_to_string(self.scratch.path().join("count")).unwrap_or_default()
    }

    /// Whether the counter gets on.
    fn is_moving(&self) -> bool {
        let (before, began) = (self.count(), Instant::now());
        while began.elapsed() < PATIENCE {
            if self.count().trim().parse::<u64>().is_ok() && self.count() != before {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether the counter does not move for a while.
    fn stands_still(&self) -> bool {
        let before = self.count();
        std::thread::sleep(Duration::from_millis(300));
        self.count() == before
    }

    fn is_frozen(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).unwrap().contains("frozen 1")
    }

    /// Waits until it is not frozen, and answers how long that took.
    #[track_caller]
    fn await_thaw(&self) -> Duration {
        let began = Instant::now();
        while self.is_frozen() {
            assert!(began.elapsed() < PATIENCE, "it stays frozen");
            std::thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }
}

/// Makes a group, if that can be frozen.
fn made(path: &Path) -> Option<PathBuf> {
    fs::create_dir(path).ok()?;
    if path.join("cgroup.freeze").exists() {
        return Some(path.to_owned());
    }
    fs::remove_dir(path).unwrap();
    None
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.freeze"), "0");
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
        let remove = || -> std::io::Result<()> {
            if let Ok(entries) = fs::read_dir(&self.path) {
                for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                    fs::remove_dir(entry.path())?;
                }
                fs::remove_dir(&self.path)?;
            }
            Ok(())
        };
        // The counter's last `sleep` may take a moment to go.
        let began = Instant::now();
        while remove().is_err() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(place) = &self.mounted {
            must("umount", &[place.path().to_str().unwrap()]);
        }
        if !std::thread::panicking() {
            assert!(!self.path.exists(), "{} stays", self.path.display());
        }
    }
}

fn host() -> SystemHost {
    SystemHost::stopped_by(Arc::new(StopFlag::default())).with_guard_program(PROGRAM.into())
}

fn freeze(host: &dyn Host, group: &Path) -> Result<Option<Identity>, ActError> {
    host.act(&Action::Freeze { cgroup: group.to_owned() })
}

fn thaw(host: &dyn Host, group: &Path, identity: Option<&Identity>) -> Option<Identity> {
    let action = Action::Thaw { cgroup: group.to_owned(), identity: identity.cloned() };
    host.act(&action).unwrap()
}

fn guard(host: &dyn Host, group: &Group, limit: u64) -> Box<dyn ThawGuard> {
    host.thaw_guard(std::slice::from_ref(&group.path), Duration::from_secs(limit)).unwrap()
}

#[test]
fn a_frozen_process_stands_still_and_runs_on_afterwards() {
    let Some(mut group) = Group::new() else { return };
    group.start_counter();
    let host = host();
    let identity = freeze(&host, &group.path).unwrap().unwrap();
    assert!(group.stands_still(), "it is not frozen");
    let error = freeze(&host, &group.path).unwrap_err();
    assert!(matches!(error, ActError::AlreadyFrozen { .. }), "{error}");
    let groups = std::slice::from_ref(&group.path);
    let refused = host.thaw_guard(groups, Duration::from_secs(NEVER)).map(drop).unwrap_err();
    assert!(matches!(refused, ActError::AlreadyFrozen { .. }), "{refused}");
    assert!(group.is_frozen(), "a guard let go what it did not see frozen");
    let stranger = Identity::Inode { device: 1, inode: 1 };
    assert_eq!(thaw(&host, &group.path, Some(&stranger)), None);
    assert!(group.is_frozen(), "a group that is not the recorded one was thawed");
    assert_eq!(thaw(&host, &group.path, Some(&identity)), Some(identity.clone()));
    assert!(group.is_moving(), "it is still frozen");
    assert_eq!(thaw(&host, &group.path, Some(&identity)), None, "thawing twice");
    let path = group.path.clone();
    drop(group);
    assert_eq!(thaw(&host, &path, Some(&identity)), None, "the group is gone");
}

#[test]
fn a_group_above_a_frozen_one_and_a_frozen_group_without_processes() {
    let Some(group) = Group::new() else { return };
    let host = host();
    let identity = freeze(&host, &group.path).unwrap();
    let below = group.path.join("below");
    fs::create_dir(&below).unwrap();
    let error = freeze(&host, &below).unwrap_err();
    assert!(matches!(error, ActError::AlreadyFrozen { .. }), "{error}");
    assert_eq!(thaw(&host, &group.path, None), identity);
    assert!(freeze(&host, &below).unwrap().is_some());
    assert!(thaw(&host, &below, None).is_some());
}

#[test]
fn whoever_is_needed_for_captures_is_not_frozen() {
    let Some(mut group) = Group::new() else { return };
    let program = group.scratch.path().join("systemd-udevd");
    // Not by us, for the reason that Machine::script has.
    must("cp", &["/bin/sleep", program.to_str().unwrap()]);
    group.start("deep/down", &program, &["600"]);
    match freeze(&host(), &group.path) {
        Err(ActError::NeededAwake { process, pid, .. }) => {
            assert_eq!(process, "systemd-udevd");
            assert_eq!(pid, group.members[0].id().cast_signed());
        }
        other => panic!("{other:?}"),
    }
    assert!(!group.is_frozen());
    let down = group.path.join("deep/down");
    let _ = group.members[0].kill();
    let _ = group.members[0].wait();
    fs::remove_dir(down).unwrap();
}

#[test]
fn a_guard_that_is_dropped_or_finished_thaws() {
    let Some(mut group) = Group::new() else { return };
    group.start_counter();
    let host = host();
    for drops in [true, false] {
        let guard = guard(&host, &group, NEVER);
        freeze(&host, &group.path).unwrap();
        assert!(group.stands_still());
        if drops {
            drop(guard);
        } else {
            assert!(!guard.finish().unwrap(), "the limit was not reached");
        }
        assert!(!group.is_frozen());
        assert!(group.is_moving());
    }
    assert_eq!(processes_about(group.path.to_str().unwrap()), [] as [String; 0]);
}

#[test]
fn the_limit_thaws_and_is_told() {
    let Some(mut group) = Group::new() else { return };
    group.start_counter();
    let host = host();
    let began = Instant::now();
    // Long enough for a busy machine to freeze within it.
    let guard = guard(&host, &group, 5);
    let identity = freeze(&host, &group.path).unwrap();
    group.await_thaw();
    assert!(began.elapsed() >= Duration::from_secs(5), "it did not wait for its limit");
    assert!(group.is_moving());
    assert_eq!(thaw(&host, &group.path, identity.as_ref()), None, "it was not frozen any more");
    assert!(guard.finish().unwrap(), "nobody was told that the limit was reached");
}

#[test]
fn a_guard_ignores_stop_signals_and_one_that_was_killed_is_missed() {
    let Some(group) = Group::new() else { return };
    let host = host();
    let guarding = guard(&host, &group, NEVER);
    freeze(&host, &group.path).unwrap();
    let about = group.path.to_str().unwrap();
    let pid = || {
        let found = processes_about(about);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].split(':').next().unwrap().to_owned()
    };
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        must("kill", &["-s", signal, &pid()]);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(group.is_frozen(), "a stop signal thaws");
    assert!(!guarding.finish().unwrap());
    assert!(!group.is_frozen());

    let guarding = guard(&host, &group, NEVER);
    must("kill", &["-s", "KILL", &pid()]);
    let error = guarding.finish().unwrap_err();
    assert!(error.to_string().contains("ended early (signal: 9"), "{error}");
}

#[test]
fn a_group_that_is_gone_needs_no_guard_any_more() {
    let Some(group) = Group::new() else { return };
    let host = host();
    let below = group.path.join("short-lived");
    fs::create_dir(&below).unwrap();
    let guard = host.thaw_guard(std::slice::from_ref(&below), Duration::from_secs(60)).unwrap();
    fs::remove_dir(&below).unwrap();
    assert!(!guard.finish().unwrap());
    let absent = host.thaw_guard(std::slice::from_ref(&below), Duration::from_secs(60));
    let error = absent.map(drop).unwrap_err().to_string();
    assert!(error.contains("cannot guard") && error.contains("short-lived"), "{error}");
}

/// A machine whose one job freezes the group, with the directories it needs.
fn job_that_freezes(group: &Group, limit: &str) -> Config {
    let (root, unit) = (group.scratch.path().display(), group.name());
    let text = format!(
        r#"
        [settings]
        state-dir = "{root}/state"
        runtime-dir = "{root}/runtime"
        cache-dir = "{root}/cache"
        [targets.t.borg]
        repository = "{root}/repository"
        encryption = "none"
        [jobs.j]
        targets = ["t"]
        [jobs.j.files]
        paths = ["/etc"]
        consistent = true
        freeze-units = [{unit:?}]
        freeze-limit = "{limit}"
        "#
    );
    let files = [SourceFile { path: "m.toml".into(), text }];
    config::load(&files, "web1", stillpoint::tools::exclude::pattern_fault)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
}

struct Nobody;

impl Observer for Nobody {
    fn on(&self, _: &Event) {}
}

fn policy(job: &Job) -> &CapturePolicy {
    let Source::Files(files) = &job.source else { panic!("files") };
    &files.capture
}

/// Makes "captures" while the group's processes stand still. Answers with what was made and what the step
/// `thaw` says.
fn quietly_make<T>(config: &Config, make: impl FnOnce() -> T) -> (Option<T>, Outcome, String) {
    let (host, engines) = (host(), Engines::new());
    let pipeline = Pipeline {
        host: &host,
        config,
        engines: &engines,
        sources: &source::of,
        history: None,
        observer: &Nobody,
    };
    let run = RunId::from_bytes(host.random());
    let (came, cleanup) = session(pipeline, &run, LedgerDirectory::State, |cx| {
        let job = &config.jobs[0];
        let mut rec = Recorder::new(&Nobody, None);
        let made = while_quiesced(cx, &mut rec, job, policy(job), |_| Some(make()));
        let thaw = rec.steps.iter().find(|step| step.step == "thaw");
        let thaw = thaw.unwrap_or_else(|| panic!("{:?}", rec.steps));
        (made, thaw.outcome.clone(), thaw.detail.clone())
    })
    .unwrap();
    assert_eq!(cleanup.leftovers, []);
    came
}

#[test]
fn captures_are_made_while_writers_stand_still_and_not_when_it_takes_too_long() {
    let Some(mut group) = Group::new() else { return };
    group.start_counter();
    let config = job_that_freezes(&group, "2m");
    let (made, outcome, detail) =
        quietly_make(&config, || group.is_frozen() && group.stands_still());
    assert_eq!((made, &outcome), (Some(true), &Outcome::Ok), "{detail}");
    assert!(group.is_moving());

    let config = job_that_freezes(&group, "1s");
    let slow = || std::thread::sleep(Duration::from_millis(1_500));
    let (made, outcome, detail) = quietly_make(&config, slow);
    assert_eq!((made, outcome), (None, Outcome::Failed));
    assert!(detail.contains("raise freeze-limit"), "{detail}");
    assert!(group.is_moving());

    let config = job_that_freezes(&group, "2m");
    let (made, outcome, detail) =
        quietly_make(&config, || fs::write(group.path.join("cgroup.freeze"), "0").unwrap());
    assert_eq!((made, outcome), (None, Outcome::Failed));
    assert!(detail.contains("did not stay frozen"), "{detail}");
}

/// The variable by which the parent of the next test knows that it is the parent.
const PARENT: &str = "STILLPOINT_TEST_GUARDED_GROUP";

/// Not a test of its own: the process that the next test kills.
#[test]
fn the_parent_of_a_guard() {
    let Some(group) = std::env::var_os(PARENT) else { return };
    let (host, group) = (host(), PathBuf::from(group));
    let limit = Duration::from_secs(NEVER);
    let _guard = host.thaw_guard(std::slice::from_ref(&group), limit).unwrap();
    freeze(&host, &group).unwrap();
    println!("\nfrozen");
    // It is killed at once.
    std::thread::sleep(2 * PATIENCE);
}

#[test]
fn kill_9_of_whoever_froze_them_thaws_within_two_seconds() {
    let Some(mut group) = Group::new() else { return };
    group.start_counter();
    // A machine that stands still for seconds may do so just then, but not each time.
    let took: Vec<Duration> = (0..5).map(|_| kill_the_parent_of_a_guard(&group)).collect();
    assert!(took.iter().any(|took| *took < Duration::from_secs(2)), "{took:?}");
}

/// Freezes the group by a process that is killed then. Answers how long the group stays frozen.
fn kill_the_parent_of_a_guard(group: &Group) -> Duration {
    let mut parent = command(std::env::current_exe().unwrap())
        .args(["--exact", "quiet::the_parent_of_a_guard", "--nocapture"])
        .env(PARENT, &group.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(parent.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap() == "frozen"), "the parent did not freeze anything");
    assert!(group.stands_still());
    parent.kill().unwrap();
    let took = group.await_thaw();
    assert!(group.is_moving());
    parent.wait().unwrap();
    wait_for_no_process_about(group.path.to_str().unwrap());
    took
}

/// A machine with two file systems of which a job makes one consistent copy, and a writer that keeps changing
/// a file in each of them: first in one, then in two. At every moment, one is as far as two or one ahead.
struct Pair {
    group: Group,
    one: Disk,
    two: Disk,
    machine: Machine,
}

impl Pair {
    fn new(files: &str) -> Option<Self> {
        let mut group = Group::new()?;
        let machine = Machine::bare("[jobs]\n");
        let (one, two) =
            (Disk::new(&machine, "btrfs", "one", 200), Disk::new(&machine, "btrfs", "two", 200));
        let files = files.replace("{unit}", group.name().to_str().unwrap());
        machine.configure(&format!(
            "[jobs.host]\ntargets = [\"b\"]\n[jobs.host.files]\npaths = [\"{{root}}/one\", \"{{root}}/two\"]\ncapture = \"required\"\nfreeze-limit = \"2m\"\n{files}\n"
        ));
        machine.run(&["init", "b"]).expect(0);
        let script = "n=0; while :; do n=$((n + 1)); for file; do echo $n >\"$file.new\"; mv \"$file.new\" \"$file\"; done; done";
        let (first, second) = (one.path("file"), two.path("file"));
        group.start("", Path::new("/bin/sh"), &["-c", script, "writer", &first, &second]);
        wait_for("the writer writes", || Path::new(&second).exists());
        Some(Self { group, one, two, machine })
    }

    fn assert_running(&self) {
        let now = || fs::read_to_string(self.one.path("file")).unwrap();
        let (before, began) = (now(), Instant::now());
        while now() == before {
            assert!(began.elapsed() < PATIENCE, "the writer stands still");
        }
    }
}

#[test]
fn a_consistent_copy_shows_one_moment_of_two_file_systems() {
    let Some(pair) = Pair::new("consistent = true\nfreeze-units = [\"{unit}\"]") else { return };
    for round in 0..3 {
        pair.machine.run(&["run"]).expect(0);
        pair.assert_running();
        let back = restored(&pair.machine, "b", &format!("back-{round}"));
        let number = |disk: &Disk| -> u64 {
            let path = inside(&back, disk.path("file"));
            fs::read_to_string(path).unwrap().trim().parse().unwrap()
        };
        let (one, two) = (number(&pair.one), number(&pair.two));
        assert!(one == two || one == two + 1, "round {round}: {one} and {two} are of two moments");
    }
    pair.one.assert_no_snapshot();
    pair.two.assert_no_snapshot();
}

#[test]
fn kill_9_of_a_run_while_writers_stand_still() {
    let Some(pair) = Pair::new("consistent = true\nfreeze-units = [\"{unit}\"]") else { return };
    // They stand still for milliseconds, which a busy machine may look away for.
    let caught = (0..20).find_map(|_| {
        let mut run = pair.machine.start(&["run"]);
        while !pair.group.is_frozen() {
            if run.try_wait().unwrap().is_some() {
                return None;
            }
        }
        run.kill().unwrap();
        Some(run)
    });
    let mut run = caught.expect("no run froze anything");
    pair.group.await_thaw();
    pair.assert_running();
    run.wait().unwrap();
    pair.machine.run(&["recover"]).expect(0);
    pair.one.assert_no_snapshot();
    pair.two.assert_no_snapshot();
    pair.machine.run(&["run"]).expect(0);
    pair.assert_running();
}
