//! A machine for the real tests: a directory with a source tree, repositories and a configuration, and the
//! built program to run against it. Everything goes away with it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_stillpoint");

/// A job that copies the machine's tree to both targets.
pub const HOST: &str = r#"
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
"#;

/// A job that copies it to a restic target, from which a second one is filled, `c`, which is yet to be made.
pub const COPIED: &str = r#"
[targets.c.restic]
repository = "{root}/repo-c"
password-file = "{root}/pass"
copy-from = "r"
[jobs.host]
targets = ["r", "c"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
"#;

/// What opens the repositories of a [`Machine`].
const PASSPHRASE: &str = "correct horse";

/// A directory of its own with everything in it.
pub struct Machine {
    pub root: tempfile::TempDir,
}

/// What a run of the program gave.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// Asserts the exit code, showing everything when it is another one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(words), "{words:?} is missing in:\n{all}");
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command of a test: this is a test's own process, not one of the product's.
#[expect(clippy::disallowed_methods, reason = "tests start programs themselves")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A command, its words alone, that is ended after some minutes: where a verb that was to refuse serves instead, one test
/// fails, and the others have their turn.
pub fn bounded(endless: &Command) -> Command {
    let mut bounded = command("timeout");
    bounded.args(["--foreground", "--kill-after=60", "900"]).arg(endless.get_program());
    bounded.args(endless.get_args()).stdin(Stdio::null());
    bounded
}

/// Runs a program that must succeed and answers with its output.
#[track_caller]
pub fn must(program: &str, args: &[&str]) -> String {
    let output =
        command(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|error| {
            panic!(
                "{program} cannot be started ({error}); tests/run installs what the real tests need"
            )
        });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a restic repository, if there is one that this opens, cost its commands next to nothing to open: see
/// `cheap_key.py`.
#[track_caller]
pub fn make_keys_cheap(repository: &Path, password: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/cheap_key.py");
    if repository.join("keys").is_dir() {
        must("/usr/bin/python3", &[script, repository.to_str().unwrap(), password]);
    }
}

/// Runs a program that takes a file system away from whoever writes or looks, until it succeeds: a file that we
/// had open is for a moment open in a child that a test beside this one forks.
#[track_caller]
pub fn must_at_last(program: &str, args: &[&str]) {
    wait_for(&format!("{program} {args:?}"), || {
        command(program).args(args).stdin(Stdio::null()).status().unwrap().success()
    });
}

/// A directory that shows another one, until the end.
pub struct Bound {
    pub at: PathBuf,
}

impl Bound {
    pub fn new(from: &Path, at: PathBuf) -> Self {
        must("mount", &["--bind", from.to_str().unwrap(), at.to_str().unwrap()]);
        Self { at }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Of a test that has failed the cause is to be seen, and two panics would end all the others.
        if std::thread::panicking() {
            let _ = command("umount").args(["--lazy".as_ref(), self.at.as_os_str()]).status();
            return;
        }
        must_at_last("umount", &[self.at.to_str().unwrap()]);
    }
}

impl Machine {
    /// A machine with a small tree, a borg target `b`, a restic target `r`, both created, and the given
    /// jobs and settings in TOML. `{root}` stands for the machine's directory.
    pub fn new(jobs: &str) -> Self {
        let machine = Self::bare(jobs);
        machine.run(&["init", "b", "r"]).expect(0);
        machine
    }

    /// The same without any repository.
    pub fn bare(jobs: &str) -> Self {
        let root = tempfile::Builder::new().prefix("stillpoint-real.").tempdir().unwrap();
        let machine = Self { root };
        machine.write("pass", &format!("{PASSPHRASE}\n"), 0o600);
        machine.write("src/hello.txt", "hello\n", 0o644);
        machine.write("src/sub/data.bin", &"0123456789abcdef".repeat(4096), 0o600);
        for number in 0..40 {
            machine.write(
                &format!("src/many/{number}"),
                &format!("file {number}\n").repeat(number + 1),
                0o644,
            );
        }
        machine.configure(jobs);
        machine
    }

    /// Replaces the configuration; targets and settings stay what they are.
    pub fn configure(&self, jobs: &str) {
        let text = format!(
            r#"
[settings]
host = "web1"
state-dir = "{{root}}/state"
runtime-dir = "{{root}}/run"
cache-dir = "{{root}}/cache"
lock-wait = "1s"
[targets.b.borg]
repository = "{{root}}/repo-b"
passphrase-file = "{{root}}/pass"
[targets.r.restic]
repository = "{{root}}/repo-r"
password-file = "{{root}}/pass"
{jobs}
"#
        );
        self.write(
            "stillpoint.toml",
            &text.replace("{root}", &self.path("").to_string_lossy()),
            0o600,
        );
    }

    /// A bare engine, as another client of the machine's repositories starts it.
    pub fn stranger(&self, program: &str) -> Command {
        let mut bare = command(program);
        bare.env("BORG_PASSPHRASE", PASSPHRASE)
            .env("BORG_BASE_DIR", self.path("other"))
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("RESTIC_REPOSITORY", self.path("repo-r"))
            .env("RESTIC_PASSWORD", PASSPHRASE)
            .env("RESTIC_CACHE_DIR", self.path("other"));
        bare
    }

    pub fn path(&self, below: &str) -> PathBuf {
        if below.is_empty() { self.root.path().to_owned() } else { self.root.path().join(below) }
    }

    pub fn write(&self, below: &str, text: &str, mode: u32) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_with_mode(&path, text, mode);
    }

    /// An executable script, as an administrator's hook or dump would be.
    ///
    /// Another process writes it: what we have open for writing, so has each child that a test beside this one
    /// forks meanwhile, until it comes to `exec`, and so long nobody can execute it.
    pub fn script(&self, name: &str, body: &str) -> String {
        let path = self.path(name).to_string_lossy().into_owned();
        let mut install = command("install")
            .args(["--mode=755", "/dev/stdin", &path])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // It ends with the statement, and with it install's input.
        write!(install.stdin.take().unwrap(), "#!/bin/sh\n{body}\n").unwrap();
        assert!(install.wait().unwrap().success(), "{path} cannot be written");
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        // A shell that starts the tests in the background has SIGINT and SIGQUIT ignored, which we would inherit.
        let mut command = command("env");
        command.args(["--default-signal=INT,QUIT,TERM", PROGRAM, "-c"]);
        command.arg(self.path("stillpoint.toml")).args(args).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let ran = bounded(&self.command(args)).output().unwrap().into();
        if args.first() == Some(&"init") {
            for below in ["repo-r", "repo-c", "repo-d"] {
                make_keys_cheap(&self.path(below), PASSPHRASE);
            }
        }
        ran
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The ids of all listed copies of a target, oldest first.
    pub fn copies(&self, target: &str) -> Vec<String> {
        let list = self.run(&["--json", "list", "--target", target]).expect(0).json();
        list["copies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|copy| copy["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Nothing is held: no ledger, no staging, no lock of an engine, no child.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.assert_clean_except(Path::new("/nowhere"));
    }

    /// The same, where a test itself has something mounted.
    #[track_caller]
    pub fn assert_clean_except(&self, mounted: &Path) {
        for below in ["state/ledger", "cache/tmp", "repo-r/locks"] {
            let mut left: Vec<_> = fs::read_dir(self.path(below)).map_or(Vec::new(), |entries| {
                entries.map(|entry| entry.unwrap().file_name()).collect()
            });
            if below == "repo-r/locks" {
                // A restic that is stopped while it writes its lock leaves `ID-tmp-NUMBER`, which no restic
                // takes for a lock.
                left.retain(|name| !name.to_string_lossy().contains("-tmp-"));
            }
            assert!(left.is_empty(), "{below} holds {left:?}");
        }
        assert!(!self.path("repo-b/lock.exclusive").exists(), "borg's lock is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.path("").to_string_lossy().into_owned();
        let below: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|at| at.starts_with(&root) && !Path::new(at).starts_with(mounted))
            // A test may keep its repository on a disk.
            .filter(|at| *at != format!("{root}/repo-r"))
            .collect();
        assert!(below.is_empty(), "mounted below {root}: {below:?}");
        let strays: Vec<String> = processes_about(&root);
        assert!(strays.is_empty(), "processes are left: {strays:?}");
    }
}

/// The command lines of processes that name this text, without ourselves.
pub fn processes_about(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push(format!("{pid}: {line}"));
        }
    }
    found
}

/// A process and all that descend from it, each as [`processes_about`] tells them. What a command line without any path of
/// the machine looks like, so do others' that run beside it.
pub fn family_of(process: u32) -> Vec<String> {
    let processes = stillpoint::host::sys::process::all().unwrap();
    let mut family = vec![i32::try_from(process).unwrap()];
    let mut known = 0;
    while known < family.len() {
        let parent = family[known];
        let children = processes.iter().filter(|it| it.parent == parent);
        family.extend(children.map(|it| it.pid));
        known += 1;
    }
    let of_it = |line: &String| {
        line.split(':').next().is_some_and(|pid| family.iter().any(|it| it.to_string() == pid))
    };
    processes_about("").into_iter().filter(of_it).collect()
}

/// What a program answers to each of these lines.
#[track_caller]
pub fn answers(program: &mut Command, lines: Vec<String>) -> Vec<String> {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (asked, text) = (lines.len(), lines.concat());
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let answered = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(answered.status.success());
    let answers = String::from_utf8(answered.stdout).unwrap();
    let answers: Vec<String> = answers.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), asked);
    answers
}

/// Waits until `ready`, or the child has ended. Answers whether it became ready.
pub fn wait_until(child: &mut Child, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if ready() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "it hangs");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Waits until something of the test's own making has come about.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until an image is behind no loop device any more. A process that a test beside this one started may
/// have it mounted in its own namespace after it was unmounted here.
#[track_caller]
pub fn wait_for_no_loop_device(image: &Path) {
    let image = image.to_str().unwrap();
    wait_for("the loop device goes away", || {
        must("losetup", &["--associated", image]).trim().is_empty()
    });
}

/// Waits until no process names this text any more.
pub fn wait_for_no_process_about(text: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !processes_about(text).is_empty() {
        assert!(Instant::now() < deadline, "children outlive the run: {:?}", processes_about(text));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a verb and kills a process of it: the one whose line [`processes_about`] tells is what `victim` answers with, given
/// the verb's own process, as soon as it did so more than `patience` times. Answers whether that came about, when nothing
/// about the machine runs any more.
pub fn kill_one_of(
    machine: &Machine,
    args: &[&str],
    patience: usize,
    victim: impl Fn(u32) -> Option<String>,
) -> bool {
    let (killed, _) = run_and_kill_one_of(machine, args, patience, victim);
    wait_for_no_process_about(&machine.path("").to_string_lossy());
    killed
}

/// The same, and how the verb ended. What it left running may still run.
pub fn run_and_kill_one_of(
    machine: &Machine,
    args: &[&str],
    patience: usize,
    victim: impl Fn(u32) -> Option<String>,
) -> (bool, ExitStatus) {
    let mut child = machine.start(args);
    let (id, mut killed, mut seen) = (child.id(), false, 0);
    wait_until(&mut child, || {
        let Some(found) = victim(id) else { return false };
        seen += 1;
        if seen > patience {
            let pid = found.split(':').next().unwrap();
            killed = command("kill").args(["-9", pid]).status().unwrap().success();
        }
        killed
    });
    (killed, child.wait().unwrap())
}

/// So many moments within a time, each at random in its own share of it.
pub fn moments(count: u32, within: Duration) -> Vec<Duration> {
    let share = within / count;
    let mut random = [0; 4];
    let mut moment = |n: u32| {
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
        share * n + share.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
    };
    (0..count).map(&mut moment).collect()
}

/// Writes so much that nothing makes smaller and nothing else holds.
pub fn fill(path: impl AsRef<Path>, megabytes: u64) {
    let mut noise = fs::File::open("/dev/urandom").unwrap().take(megabytes << 20);
    std::io::copy(&mut noise, &mut fs::File::create(path).unwrap()).unwrap();
}

/// A tree with everything that a backup may lose.
pub fn torture(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("plain"), "plain\n").unwrap();
    fs::set_permissions(root.join("plain"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(root.join("plain"), Some(12_345), Some(54_321)).unwrap();
    fs::write(root.join("setuid"), "x").unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("plain"), root.join("deep/hard")).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    let name = OsStr::from_bytes(b"not-utf8-\xff\xfe");
    fs::write(root.join(name), "odd name").unwrap();
    fs::write(root.join("new\nline"), "odd name").unwrap();
    fs::write(root.join("-f"), "looks like an option").unwrap();
    fs::write(root.join("deep/er/{now}"), "looks like a placeholder").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    must("mkfifo", &[root.join("fifo").to_str().unwrap()]);
    must("setfattr", &["-n", "user.note", "-v", "kept", root.join("plain").to_str().unwrap()]);
    must("touch", &["-d", "2001-02-03T04:05:06.789Z", root.join("plain").to_str().unwrap()]);
    must("touch", &["-d", "1999-12-31T23:59:59Z", root.join("deep").to_str().unwrap()]);
}

/// Everything about a tree that must survive, as text.
pub fn manifest(root: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, lines: &mut Vec<String>) {
        let mut entries: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let mut line = format!(
                "{:?} mode {:o} owner {}:{} links {}",
                path.strip_prefix(root).unwrap(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                if kind.is_dir() { 0 } else { meta.nlink() },
            );
            if kind.is_file() {
                let content = fs::read(&path).unwrap();
                let sum = Sha256::digest(&content);
                line.push_str(&format!(
                    " size {} sum {sum:x?} mtime {}.{}",
                    meta.len(),
                    meta.mtime(),
                    meta.mtime_nsec() / 1000
                ));
                let xattr = command("getfattr")
                    .args(["--absolute-names", "-d", "--"])
                    .arg(&path)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&xattr.stdout).into_owned();
                line.extend(text.lines().filter(|line| line.contains('=')));
            } else if kind.is_symlink() {
                line.push_str(&format!(" to {:?}", fs::read_link(&path).unwrap()));
            } else if kind.is_dir() {
                line.push_str(&format!(" mtime {}", meta.mtime()));
            }
            lines.push(line);
            if kind.is_dir() {
                walk(root, &path, lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines
}

/// Asserts that two trees are the same, naming the first differences.
#[track_caller]
pub fn assert_same_tree(one: &Path, other: &Path) {
    let (one, other) = (manifest(one), manifest(other));
    let differing: Vec<_> = one
        .iter()
        .filter(|line| !other.contains(line))
        .map(|line| format!("- {line}"))
        .chain(other.iter().filter(|line| !one.contains(line)).map(|line| format!("+ {line}")))
        .collect();
    assert!(differing.is_empty(), "the trees differ:\n{}", differing.join("\n"));
    assert!(!one.is_empty());
}

/// The names in a directory, in their order, of whatever bytes.
pub fn names_in(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A file with these permission bits: secrets that others can read are refused.
pub fn write_with_mode(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
