//! The runner with real processes: small shell and Python programs stand in for the engines.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::host::{Effect, EnvValue, Exit, FdStyle, Input, SecretFd, StdoutMode, Stream, Tool};
use crate::model::secret::Secret;
use crate::model::shown::Show;
use crate::model::undo::ChildProcess;

mod held;
mod joined;
mod passed_on;
mod secrets;
mod stopping;

/// A grace period that tests can wait for, where a child does not heed its stop signal.
const SHORT: Duration = Duration::from_millis(300);

/// Less than the minute for which children sleep that are to be stopped, and more than a busy machine takes.
const IN_TIME: Duration = Duration::from_secs(45);

/// A runner with the grace period of the real one: whoever heeds its stop signal has the time for it.
fn runner() -> (Runner, Arc<StopFlag>) {
    let stop = Arc::new(StopFlag::default());
    (Runner::new(Arc::clone(&stop)), stop)
}

/// A runner that soon loses patience.
fn impatient() -> (Runner, Arc<StopFlag>) {
    let (mut runner, stop) = runner();
    runner.grace = SHORT;
    (runner, stop)
}

fn shell(script: &str) -> CommandSpec {
    CommandSpec::new(Tool::Path("/bin/sh".into()), Effect::Inspect).arg("-c").arg(script)
}

fn python(script: &str) -> CommandSpec {
    CommandSpec::new(Tool::Named("python3".into()), Effect::Inspect).arg("-c").arg(script)
}

fn run(spec: &CommandSpec) -> Result<Completed, RunError> {
    runner().0.run(spec, &mut |_, _| {})
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What waits in a shell for a file, until it is late.
fn until(path: &Path) -> String {
    let (path, looks) = (path.shown(), IN_TIME.as_millis() / 50);
    format!("i=0; until [ -e {path} ] || [ $i -gt {looks} ]; do sleep 0.05; i=$((i+1)); done")
}

/// Waits for a file that a test program writes.
fn await_file(path: &Path) -> String {
    let started = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(started.elapsed() < IN_TIME, "{path:?} does not come"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: i32) -> bool {
    crate::host::sys::process::stat(pid).unwrap().is_some_and(|process| process.is_alive())
}

fn await_end(pid: i32) {
    let started = Instant::now();
    while is_running(pid) {
        assert!(started.elapsed() < IN_TIME, "process {pid} lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A secret on its way to a variable.
fn secret(variable: &'static str, style: FdStyle, value: &str) -> SecretFd {
    SecretFd { variable, style, value: Secret::new(value) }
}

#[test]
fn the_environment_is_made_from_nothing() {
    // Cargo sets this for us, so it stands for everything that we inherited.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let mut spec =
        CommandSpec::new(Tool::Named("env".into()), Effect::Inspect).env("BORG_REPO", "/repo");
    spec.env.push(("AWS_KEY".into(), EnvValue::Secret(Secret::new("key"))));
    let out = text(&run(&spec).unwrap().stdout);
    let (mark, mut lines): (Vec<&str>, Vec<&str>) =
        out.lines().partition(|line| line.starts_with("STILLPOINT_CHILD="));
    assert_eq!(mark.len(), 1, "{out}");
    lines.sort_unstable();
    let home = format!("HOME={}", if nix::unistd::geteuid().is_root() { "/root" } else { "" });
    assert!(lines[2].starts_with(&home), "{out}");
    lines.remove(2);
    let path = format!("PATH={FIXED_PATH}");
    assert_eq!(lines, ["AWS_KEY=key", "BORG_REPO=/repo", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", &path]);
}

#[test]
fn it_starts_in_the_root_or_where_the_spec_says_in_its_own_session() {
    assert_eq!(run(&shell("pwd")).unwrap().stdout, b"/\n");
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("pwd -P");
    spec.directory = Some(dir.path().canonicalize().unwrap());
    assert_eq!(
        text(&run(&spec).unwrap().stdout).trim(),
        dir.path().canonicalize().unwrap().to_str().unwrap()
    );
    let ids = "import os; print(os.getpid() == os.getpgid(0) == os.getsid(0))";
    assert_eq!(run(&python(ids)).unwrap().stdout, b"True\n");
}

#[test]
fn input_is_null() {
    assert_eq!(run(&shell("readlink /proc/self/fd/0; cat")).unwrap().stdout, b"/dev/null\n");
}

#[test]
fn a_status_is_an_answer_and_a_missing_program_an_error() {
    let completed = run(&shell("echo out; echo err >&2; exit 3")).unwrap();
    assert_eq!(completed.exit, Exit::Code(3));
    assert_eq!((completed.stdout, completed.stderr_tail), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(run(&shell("kill -KILL $$")).unwrap().exit, Exit::Signal(9));
    let missing = CommandSpec::new(Tool::Path("/nonexistent/tool".into()), Effect::Inspect);
    assert!(matches!(run(&missing), Err(RunError::NotFound { .. })));
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut spec = CommandSpec::new(Tool::Path(broken), Effect::Inspect);
    // With a secret too: its descriptor must not hide that exec failed.
    spec.secrets.push(secret("SECRET", FdStyle::Path, "x"));
    assert!(matches!(run(&spec), Err(RunError::Spawn { .. })));
}

#[test]
fn secrets_are_read_from_descriptors_and_nowhere_else() {
    let mut spec = python(
        "import os
number = int(os.environ['BY_NUMBER'])
print(os.read(number, 100).decode())
path = os.environ['BY_PATH']
print(open(path).read(), open(path).read())
try:
    os.write(os.open(path, os.O_RDWR), b'x')
except OSError as error:
    print('sealed')
needle = 'can' + 'ary'
print(needle in repr(os.environ) or needle.encode() in open('/proc/self/cmdline', 'rb').read())
# 0 to 2, the two secrets, the one opened above for writing, and that of the listing itself.
print(len(os.listdir('/proc/self/fd')))",
    );
    spec.secrets.push(secret("BY_NUMBER", FdStyle::Number, "canary one"));
    spec.secrets.push(secret("BY_PATH", FdStyle::Path, "canary two"));
    let completed = run(&spec).unwrap();
    let lines = "canary one\ncanary two canary two\nsealed\nFalse\n7\n";
    assert_eq!(text(&completed.stdout), lines, "{}", completed.last_lines(5));
}

#[test]
fn no_other_descriptor_reaches_a_child() {
    // As if whoever started us had left one open.
    let inherited = std::fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&inherited, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .unwrap();
    let count = python("import os; print(len(os.listdir('/proc/self/fd')))");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut spec = count.clone();
                    assert_eq!(run(&spec).unwrap().stdout, b"4\n");
                    spec.secrets.push(secret("S", FdStyle::Path, "x"));
                    assert_eq!(run(&spec).unwrap().stdout, b"5\n");
                }
            });
        }
    });
}

#[test]
fn our_own_path_does_not_choose_programs() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("env");
    std::fs::write(&fake, "#!/bin/sh\necho hijacked\n").unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // The test's own PATH cannot be changed safely among threads, so the runner runs in a copy of us.
    let out = rerun("env", &[("PATH", dir.path().to_str().unwrap())]).output().unwrap();
    let out = text(&out.stdout);
    assert!(out.contains("LANG=C.UTF-8") && !out.contains("hijacked"), "{out}");
}

#[test]
fn lines_come_while_the_child_runs() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let script = format!(
        "echo first; printf 'warn\\r' >&2; while ! [ -e {0} ]; do sleep 0.01; done; printf last",
        gate.shown()
    );
    let mut spec = shell(&script);
    spec.time_limit = Some(IN_TIME);
    spec.stdout = StdoutMode::Lines;
    let mut seen = Vec::new();
    let completed = runner()
        .0
        .run(&spec, &mut |stream, line| {
            seen.push((stream, text(line)));
            if seen.len() == 2 {
                std::fs::write(&gate, "").unwrap();
            }
        })
        .unwrap();
    assert!(completed.success() && completed.stdout.is_empty());
    assert_eq!(seen.len(), 3);
    assert!(seen[..2].contains(&(Stream::Out, "first".into())));
    assert!(seen[..2].contains(&(Stream::Err, "warn".into())));
    assert_eq!(seen[2], (Stream::Out, "last".into()));
}

#[test]
fn long_output_is_whole_when_asked_for_and_flat_otherwise() {
    let mut count = 0;
    let whole = runner().0.run(&long_output(), &mut |_, _| count += 1).unwrap();
    assert_eq!((whole.stdout.len(), count), (20_000_000, 200_000));
    // What other tests take would count as well, so the rest is done by a copy of us.
    let out = rerun("flat", &[]).output().unwrap();
    let said = text(&out.stdout);
    assert!(out.status.success() && said.contains("flat: 200000 lines"), "{said}");
}

/// Twenty megabytes in lines.
fn long_output() -> CommandSpec {
    python(
        "import sys
for number in range(200000):
    sys.stdout.write(f'{number:099d}\\n')",
    )
}

/// Reads the long output by line, and says so if that takes far less memory than to keep it.
fn read_flat(runner: &Runner) {
    let mut spec = long_output();
    spec.stdout = StdoutMode::Lines;
    // Without the pages of files: of how much of our own program is mapped, the page cache decides.
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: Vec<u64> = status.split_whitespace().map(|word| word.parse().unwrap()).collect();
        (pages[1] - pages[2]) * 4096
    };
    let (mut count, mut most) = (0_u64, 0);
    let before = resident();
    runner
        .run(&spec, &mut |_, line| {
            assert_eq!(line.len(), 99);
            count += 1;
            if count % 10_000 == 0 {
                most = most.max(resident());
            }
        })
        .unwrap();
    assert!(most.saturating_sub(before) < 5_000_000, "{before} -> {most}");
    println!("flat: {count} lines");
}

#[test]
fn a_whole_output_is_never_cut() {
    let spec = python("import sys; sys.stdout.write('x' * 5000000)");
    let mut longest = 0;
    let completed =
        runner().0.run(&spec, &mut |_, line| longest = longest.max(line.len())).unwrap();
    assert_eq!((completed.stdout.len(), longest), (5_000_000, 1024 * 1024));
}

#[test]
fn the_last_of_a_long_standard_error_is_kept() {
    let script = "import sys
for number in range(100000):
    print('line', number, file=sys.stderr)";
    let completed = run(&python(script)).unwrap();
    assert!(completed.stderr_tail.len() <= 64 * 1024);
    assert_eq!(completed.last_lines(2), "line 99998\nline 99999");
    let mut quiet = shell("echo unseen");
    quiet.stdout = StdoutMode::Discard;
    let discarded = runner().0.run(&quiet, &mut |_, _| panic!("nothing is read")).unwrap();
    assert!(discarded.success() && discarded.stdout.is_empty());
}

#[test]
fn a_process_left_behind_with_the_output_open_does_not_hang_the_run() {
    let script = "import os, sys, time
print('parent', flush=True)
if os.fork() == 0:
    os.setsid()
    print('left', os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(0.3)";
    let started = Instant::now();
    let completed = run(&python(script)).unwrap();
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    let out = text(&completed.stdout);
    assert!(completed.success() && out.contains("parent"), "{out}");
    let pid = out.lines().find_map(|line| line.strip_prefix("left ")).unwrap().parse().unwrap();
    assert!(is_running(pid), "what left the group on purpose is not ours to stop");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

#[test]
fn the_recorder_is_told_of_each_child_and_its_end() {
    struct Book(Mutex<Vec<(bool, ChildProcess, bool)>>, PathBuf);
    impl ChildRecorder for Book {
        fn started(&self, child: &ChildProcess) {
            self.0.lock().unwrap().push((true, child.clone(), is_running(child.pid)));
            std::fs::write(&self.1, "").unwrap();
        }
        fn ended(&self, child: &ChildProcess) {
            self.0.lock().unwrap().push((false, child.clone(), is_running(child.pid)));
        }
    }
    let (runner, _) = runner();
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let book = Arc::new(Book(Mutex::default(), told.clone()));
    runner.record_children(Some(Arc::clone(&book) as Arc<dyn ChildRecorder>));
    // It cannot end before the recorder was told.
    let spec = shell(&format!("echo $$; {}", until(&told)));
    let completed = runner.run(&spec, &mut |_, _| {}).unwrap();
    let pid: i32 = text(&completed.stdout).trim().parse().unwrap();
    let entries = book.0.lock().unwrap().clone();
    assert_eq!(entries.len(), 2);
    let (started, ended) = (&entries[0], &entries[1]);
    assert_eq!((started.0, started.1.pid, started.2), (true, pid, true));
    assert_eq!((ended.0, &ended.1, ended.2), (false, &started.1, false));
    assert!(started.1.start_time > 0 && started.1.boot_id.len() == 36);
    runner.record_children(None);
    runner.run(&shell("true"), &mut |_, _| {}).unwrap();
    assert_eq!(book.0.lock().unwrap().len(), 2);
}

#[test]
fn nothing_begins_before_it_is_recorded() {
    struct Slow(PathBuf, Mutex<Vec<(i32, bool)>>);
    impl ChildRecorder for Slow {
        fn started(&self, child: &ChildProcess) {
            std::thread::sleep(SHORT);
            self.1.lock().unwrap().push((child.pid, self.0.exists()));
        }
        fn ended(&self, child: &ChildProcess) {
            self.1.lock().unwrap().push((child.pid, self.0.exists()));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let begun = directory.path().join("begun");
    let touch = shell(&format!("echo $$; : >{}", begun.shown()));
    let book = Arc::new(Slow(begun.clone(), Mutex::default()));
    let (runner, _) = runner();
    runner.record_children(Some(Arc::clone(&book) as Arc<dyn ChildRecorder>));
    let completed = runner.run(&touch, &mut |_, _| {}).unwrap();
    let pid: i32 = text(&completed.stdout).trim().parse().unwrap();
    assert_eq!(*book.1.lock().unwrap(), [(pid, false), (pid, true)]);

    // One that never becomes the program has ended, too.
    book.1.lock().unwrap().clear();
    let broken = directory.path().join("broken");
    std::fs::write(&broken, "#!/nonexistent\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let spec = CommandSpec::new(Tool::Path(broken), Effect::Inspect);
    let result = runner.run(&spec, &mut |_, _| {});
    assert!(matches!(result, Err(RunError::Spawn { .. })), "{result:?}");
    let book = book.1.lock().unwrap();
    assert!(book.len() == 2 && book[0].0 == book[1].0 && !is_running(book[0].0), "{book:?}");

    // Nor does anything begin that cannot be recorded, or whose recorder is gone.
    std::fs::remove_file(&begun).unwrap();
    let program = Path::new("/bin/sh");
    let alone = Role { reads: false, feeds: false };
    let mut seen = 0;
    let refused = spawn::spawn(&touch, program, (alone, Ends::default()), |pid, _| {
        seen = pid;
        Err(std::io::Error::other("the disk is full"))
    });
    assert!(refused.is_err_and(|error| error.to_string() == "the disk is full"));
    assert!(seen > 0 && !is_running(seen) && !begun.exists());
}

#[test]
fn private_binds_are_seen_by_the_child_alone() {
    if !crate::host::sys::may_as_root("private mounts") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (from, at) = (dir.path().join("from"), dir.path().join("at"));
    for (path, content) in [(&from, "captured"), (&at, "live")] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("file"), content).unwrap();
    }
    let script = format!(
        "cat {0}/file; touch {0}/new 2>/dev/null || echo ' refused'; sleep 0.3; touch {1}/live",
        at.shown(),
        from.shown()
    );
    let mut spec = shell(&script);
    let bind = |at: &Path, read_only| {
        vec![crate::host::PrivateMount::Bind { from: from.clone(), at: at.into(), read_only }]
    };
    spec.view.mounts = bind(&at, true);
    let mut outside = Vec::new();
    let completed = runner()
        .0
        .run(&spec, &mut |_, _| {
            outside.push(std::fs::read_to_string(at.join("file")).unwrap());
            assert!(!crate::host::sys::mounts::is_mount_point(&at).unwrap());
        })
        .unwrap();
    assert_eq!(text(&completed.stdout), "captured refused\n", "{}", completed.last_lines(3));
    assert_eq!(outside, ["live"]);
    assert!(from.join("live").exists() && !from.join("new").exists());
    spec.view.mounts = bind(&at, false);
    assert_eq!(text(&run(&spec).unwrap().stdout), "captured");
    assert!(from.join("new").exists() && !at.join("new").exists());
    spec.view.mounts = bind(&dir.path().join("absent"), false);
    match run(&spec) {
        Err(RunError::Spawn { source, .. }) => assert!(source.to_string().contains("absent")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn private_binds_do_not_spread_where_mounts_are_shared() {
    if !crate::host::sys::may_as_root("private mounts") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("at")).unwrap();
    let out = rerun("share mounts", &[("SCRIPT", dir.path().to_str().unwrap())]).output().unwrap();
    let said = text(&out.stdout);
    assert!(said.contains("inside: true, outside: false"), "{said}");
}

/// Runs a command with a bind in `dir`, in a namespace whose mounts are shared as systemd makes them, and says
/// who saw it. The namespace ends with this process.
fn bind_among_shared_mounts(runner: &Runner, dir: &Path) {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    for how in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | how, None::<&str>).unwrap();
    }
    let at = dir.join("at");
    let mut spec = shell("cat /proc/self/mountinfo; sleep 0.3");
    spec.view.mounts.push(crate::host::PrivateMount::Bind {
        from: dir.into(),
        at: at.clone(),
        read_only: false,
    });
    let mut outside = false;
    let completed = runner
        .run(&spec, &mut |_, _| {
            outside |= crate::host::sys::mounts::is_mount_point(&at).unwrap();
        })
        .unwrap();
    let inside = text(&completed.stdout).contains(&format!(" {} ", at.shown()));
    println!("inside: {inside}, outside: {outside}");
}

/// The test binary again, as a program that plays `role` in [`play`]; cleared but for `env`.
#[expect(clippy::disallowed_methods, reason = "the program under test is this test binary itself")]
fn rerun(role: &str, env: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "host::runner::tests::play", "--nocapture", "--test-threads=1"]);
    command.env_clear().env(ROLE, role).envs(env.iter().copied());
    command
}

/// Names the role that [`play`] plays.
const ROLE: &str = "STILLPOINT_TEST_ROLE";

/// Not a test by itself: what [`rerun`] starts.
#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let script = std::env::var("SCRIPT").unwrap_or_default();
    let (runner, _) = runner();
    match role.as_str() {
        "env" => {
            let spec = CommandSpec::new(Tool::Named("env".into()), Effect::Inspect);
            println!("{}", text(&runner.run(&spec, &mut |_, _| {}).unwrap().stdout));
        }
        "listen" => {
            let host = crate::host::system::SystemHost::new().unwrap();
            let result = crate::host::Host::run(&host, &shell(&script), &mut |_, _| {});
            println!("ended: {result:?}");
        }
        "flat" => read_flat(&runner),
        "share mounts" => bind_among_shared_mounts(&runner, Path::new(&script)),
        "wait" => drop(runner.run(&shell(&script), &mut |_, _| {})),
        "wait never kill" => {
            let mut spec = shell(&script);
            spec.never_kill = true;
            drop(runner.run(&spec, &mut |_, _| {}));
        }
        other => panic!("{other}"),
    }
}
