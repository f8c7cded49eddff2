//! Locks of engines in repositories, children of dead runs, and what a reboot leaves: what is ours and dead goes,
//! by its identity, and whatever lives stays.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::bench_machine::{
    HOST, Machine, command, must, names_in, processes_about, wait_for, wait_for_no_process_about,
};

/// A job whose restic holds its lock for as long as the command that it reads takes.
const DUMP: &str = r#"
[jobs.host]
targets = ["r"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
[jobs.dump]
targets = ["r"]
[jobs.dump.commands.x]
command = ["sleep", "300"]
file-name = "x"
"#;

fn restic(machine: &Machine, args: &[&str]) -> std::process::Command {
    let mut restic = machine.stranger("restic");
    restic.args(args);
    restic
}

fn restic_locks(machine: &Machine) -> Vec<String> {
    let mut names = names_in(&machine.path("repo-r/locks"));
    names.retain(|name| !name.contains("-tmp-"));
    names
}

/// A restic in a process namespace of its own, as in another container: alive at work, with our host name, and
/// with a process number that means nothing here.
struct Container(Child);

impl Container {
    /// Starts a backup of what is handed to it, which takes its lock.
    fn new(machine: &Machine) -> Self {
        let before = restic_locks(machine).len();
        let script = "mount -t proc proc /proc; echo 400000 > /proc/sys/kernel/ns_last_pid; exec 3<&0; \
                      restic -q backup --stdin --stdin-filename dump <&3 & wait $!";
        let mut unshare = command("unshare");
        unshare
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script])
            .envs(restic(machine, &[]).get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped());
        let child = unshare.spawn().unwrap();
        wait_for("the container's restic takes its lock", || restic_locks(machine).len() > before);
        Self(child)
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.0.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Lets its input end. Answers whether its backup is good, as it sees it.
    fn finish(mut self) -> bool {
        drop(self.0.stdin.take());
        self.0.wait().unwrap().success()
    }
}

/// Starts a run of ours that holds restic's lock, and kills it, as the kernel does when memory is short. Its
/// engine dies with it, without giving its lock back.
fn kill_a_run(machine: &Machine) {
    let before = restic_locks(machine);
    let mut run = machine.start(&["run", "dump"]);
    wait_for("our restic takes its lock", || restic_locks(machine).len() > before.len());
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let engine = || -> Option<String> {
        // Threads start children, and each has a list of its own.
        let tasks = fs::read_dir(format!("/proc/{}/task", run.id())).ok()?;
        let lists =
            tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
        let all: String = lists.collect();
        all.split_whitespace()
            .find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "restic\n")
            })
            .map(str::to_owned)
    };
    let engine = engine().unwrap_or_else(|| panic!("no restic in {children}"));
    // Stopped, it cannot clean up in the moment between the two.
    must("kill", &["-STOP", &engine]);
    must("kill", &["-KILL", &run.id().to_string(), &engine]);
    run.wait().unwrap();
    assert_eq!(restic_locks(machine).len(), before.len() + 1, "it gave its lock back");
}

fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 88_172_645_463_325_252;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[test]
fn a_living_restic_elsewhere_with_our_host_name_loses_neither_lock_nor_data() {
    let machine = Machine::new(DUMP);
    machine.run(&["run", "host"]).expect(0);
    let mut container = Container::new(&machine);
    let living = restic_locks(&machine);
    container.feed(&noise(48 << 20));
    kill_a_run(&machine);
    machine.run(&["recover"]).expect(0).says("released what run");
    assert_eq!(restic_locks(&machine), living, "only ours goes");
    // What it has written so far belongs to no snapshot yet: a prune would take it for garbage.
    machine.run(&["compact", "--target", "r"]).expect(5).says("locked");
    assert!(container.finish(), "the container's backup failed");
    let sound = restic(&machine, &["check", "--read-data"]).status().unwrap();
    assert!(sound.success(), "the container's copy is damaged");
    machine.run(&["run", "host"]).expect(0);
    machine.assert_clean();
}

/// Gives a number to a new process, as a machine does that was started anew: a daemon has it now.
fn take_number(pid: i32) -> Option<Child> {
    for _ in 0..200 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut daemon = command("sleep").arg("300").spawn().unwrap();
        if daemon.id().cast_signed() == pid {
            return Some(daemon);
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    None
}

#[test]
fn a_borg_lock_goes_although_its_process_number_is_somebody_elses_now() {
    let machine = Machine::new(&DUMP.replace(r#"["r"]"#, r#"["b"]"#));
    machine.run(&["run", "host"]).expect(0);
    let exclusive = machine.path("repo-b/lock.exclusive");
    let holders = || -> Vec<String> {
        fs::read_dir(&exclusive).map_or(Vec::new(), |entries| {
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        })
    };
    let mut run = machine.start(&["run", "dump"]);
    wait_for("borg takes its lock", || !holders().is_empty());
    let name = holders().remove(0);
    assert!(name.starts_with("web1.stillpoint-"), "{name}");
    let (_, rest) = name.rsplit_once('.').unwrap();
    let pid: i32 = rest.split('-').next().unwrap().parse().unwrap();
    must("kill", &["-STOP", &pid.to_string()]);
    must("kill", &["-KILL", &run.id().to_string(), &pid.to_string()]);
    run.wait().unwrap();
    wait_for("it is reaped", || !Path::new(&format!("/proc/{pid}")).exists());
    // Beside it, somebody else's of the same number, who is elsewhere.
    let mut daemon = take_number(pid).expect("a number can be taken as root");
    assert_eq!(holders(), [name]);
    machine.run(&["recover"]).expect(0).says("released what run");
    assert_eq!(holders(), Vec::<String>::new());
    let ran = machine.run(&["run", "host"]);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    ran.expect(0);
    machine.assert_clean();
}

#[test]
fn the_lock_of_a_run_that_was_killed_goes_by_its_name() {
    let machine = Machine::new(DUMP);
    kill_a_run(&machine);
    // restic itself would say that its process is dead only if it bore our host name.
    let shown = restic(&machine, &["cat", "lock", "--no-lock", &restic_locks(&machine)[0]]);
    let shown = String::from_utf8({ shown }.output().unwrap().stdout).unwrap();
    assert!(shown.contains("\"hostname\": \"web1.stillpoint-"), "{shown}");
    machine.run(&["recover"]).expect(0).says("released what run");
    assert_eq!(restic_locks(&machine), Vec::<String>::new());
    machine.assert_clean();
}

/// What of a run's holds a lock in a repository: names of borg's roster and exclusive lock, or restic's locks.
fn held_in(machine: &Machine, target: &str) -> String {
    if target == "r" {
        return restic_locks(machine).join(" ");
    }
    let roster = fs::read_to_string(machine.path("repo-b/lock.roster")).unwrap_or_default();
    let exclusive = fs::read_dir(machine.path("repo-b/lock.exclusive")).map_or(0, Iterator::count);
    let is_held = roster.contains("stillpoint-") || exclusive > 0;
    if is_held { format!("{roster} {exclusive}") } else { String::new() }
}

/// The engine that a process of ours has started.
fn engine_of(parent: u32, name: &str) -> Option<String> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let all: String = lists.collect();
    all.split_whitespace()
        .find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .map(str::to_owned)
}

#[test]
fn the_lock_of_a_killed_reader_is_known_and_goes() {
    let machine = Machine::new(HOST);
    fs::write(machine.path("src/big"), noise(8 << 20)).unwrap();
    machine.run(&["run"]).expect(0);
    let big = machine.path("src/big");
    for (target, name) in [("b", "borg"), ("r", "restic")] {
        let big = big.to_str().unwrap();
        // Nobody reads what it prints, so it waits in the midst of it.
        let args = ["restore", "host", "latest", big, "--stdout", "--target", target];
        let mut reading = machine.start(&args);
        let streams = || {
            engine_of(reading.id(), name).filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                line.contains("--stdout") || line.contains("dump")
            })
        };
        wait_for("the engine holds its lock", || {
            streams().is_some() && !held_in(&machine, target).is_empty()
        });
        let engine = streams().unwrap();
        must("kill", &["-STOP", &engine]);
        must("kill", &["-KILL", &reading.id().to_string(), &engine]);
        reading.wait().unwrap();
        wait_for("it is reaped", || !Path::new(&format!("/proc/{engine}")).exists());
        assert!(!held_in(&machine, target).is_empty(), "{target}: it gave its lock back");
        machine.run(&["recover"]).expect(0).says("released what run");
        assert_eq!(held_in(&machine, target), "", "{target}");
    }
    machine.run(&["run"]).expect(0);
    machine.assert_clean();
}

/// The first look of a restore is a child of the run like the others.
#[test]
fn whatever_a_restore_started_is_known_to_recover() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    // It is asked for its version first, which must not be taken for the listing.
    let lists = machine.path("lists");
    let body = format!(
        "for word; do test \"$word\" = list && {{ trap '' TERM; : >{}; while :; do sleep 1; done; }}; done; exec borg \"$@\"",
        lists.display()
    );
    let slow = machine.script("slow-borg", &body);
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let borg = format!("[targets.b.borg]\nprogram = \"{slow}\"");
    machine.write("stillpoint.toml", &text.replace("[targets.b.borg]", &borg), 0o600);
    for words in [
        &["restore", "host", "--target", "b", "--to", "/nonexistent"][..],
        &["find", "hello.txt", "--target", "b"],
    ] {
        let mut reading = machine.start(words);
        wait_for("it lists", || lists.exists());
        must("kill", &["-KILL", &reading.id().to_string()]);
        reading.wait().unwrap();
        assert!(!processes_about(&slow).is_empty(), "{words:?}: the scene is another one");
        machine.write("stillpoint.toml", &text, 0o600);
        machine.run(&["recover"]).expect(0);
        assert_eq!(processes_about(&slow), Vec::<String>::new(), "{words:?}");
        machine.write("stillpoint.toml", &text.replace("[targets.b.borg]", &borg), 0o600);
        fs::remove_file(&lists).unwrap();
    }
    machine.write("stillpoint.toml", &text, 0o600);
    machine.assert_clean();
}

#[test]
fn what_a_dead_child_started_is_stopped_and_what_only_has_its_numbers_is_not() {
    let machine = Machine::new(DUMP);
    let marker = machine.path("grandchild").to_string_lossy().into_owned();
    // A shell that dies at once, and two that it started: one that ignores what it gets when its parent dies.
    let body = format!(
        "echo data; sh -c 'trap \"\" TERM; : >\"$0.ready\"; while :; do sleep 1; done' {marker} | cat; wait"
    );
    let script = machine.script("dump", &body);
    machine.configure(&DUMP.replace(r#"["sleep", "300"]"#, &format!("[\"{script}\"]")));
    let mut run = machine.start(&["run", "dump"]);
    wait_for("the grandchild ignores it", || Path::new(&format!("{marker}.ready")).exists());
    wait_for("our restic takes its lock", || !restic_locks(&machine).is_empty());
    must("kill", &["-KILL", &run.id().to_string()]);
    run.wait().unwrap();
    wait_for("the child itself is gone", || processes_about(&script).is_empty());
    assert!(!processes_about(&marker).is_empty(), "the scene is another one");
    machine.run(&["recover"]).expect(0).says("released what run");
    assert_eq!(processes_about(&marker), Vec::<String>::new());
    wait_for_no_process_about(&machine.path("").to_string_lossy());
    machine.assert_clean();
}

#[test]
fn a_restic_that_says_again_and_again_that_nothing_moves_is_stopped() {
    let machine = Machine::new("");
    let mount = machine.path("src/dead");
    fs::create_dir(&mount).unwrap();
    // What comes first is of the target above.
    machine.configure(&format!("stall-timeout = \"4s\"\n{DUMP}"));
    machine.run(&["run", "host"]).expect(0);
    // A file system whose server does not answer any more.
    let mut server = restic(&machine, &["mount", mount.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("it is mounted", || {
        fs::read_to_string("/proc/self/mountinfo").unwrap().contains(mount.to_str().unwrap())
    });
    must("kill", &["-STOP", &server.id().to_string()]);
    let ran = machine.run(&["run", "host"]);
    must("kill", &["-CONT", &server.id().to_string()]);
    must("kill", &["-INT", &server.id().to_string()]);
    server.wait().unwrap();
    ran.expect(10).says("made no progress for 5s");
}
