//! What a local user may do to his own directories while root captures them: he swaps his nested subvolumes for
//! links, and gives subvolumes names that look like something else.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use stillpoint::host::system::SystemHost;
use stillpoint::host::{Access, CommandSpec, Effect, Host, PrivateMount, PrivateView, Tool};

use crate::bench_machine::{Machine, command, must, wait_for};
use crate::btrfs::{Disk, inside, restored};

const USER: u32 = 12345;

/// A command that runs as a user who owns nothing but his home.
fn user(program: &str, args: &[&str]) -> std::process::Command {
    let mut command = command("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]);
    command.arg(program).args(args).stdin(Stdio::null());
    command
}

#[track_caller]
fn as_user(program: &str, args: &[&str]) {
    let output = user(program, args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A machine with a btrfs on which a user has a directory of his own, and one borg job of all of it.
fn machine(program: &str) -> (Machine, Disk, PathBuf) {
    let machine = Machine::bare("[jobs]\n");
    fs::set_permissions(machine.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let disk = Disk::new(&machine, "btrfs", "disk", 400);
    let bob = disk.at.join("bob");
    fs::create_dir(&bob).unwrap();
    chown(&bob, Some(USER), Some(USER)).unwrap();
    fs::write(disk.path("file"), "root's").unwrap();
    machine.configure(
        "[jobs.host]\ntargets = [\"b\"]\n[jobs.host.files]\npaths = [\"{root}/disk\"]\ncapture = \"auto\"\n",
    );
    if !program.is_empty() {
        let engine = machine.script("engine", program);
        let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
        let table = "[targets.b.borg]\n";
        let text = text.replace(table, &format!("{table}program = \"{engine}\"\n"));
        machine.write("stillpoint.toml", &text, 0o600);
    }
    machine.run(&["init", "b"]).expect(0);
    (machine, disk, bob)
}

/// Somebody who goes on until he is stopped.
struct Flipper(Child);

impl Drop for Flipper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Swaps `bob/a` for a link to `victim` and back, as fast as he can. `bob/flips` shows that he does.
fn flipping(bob: &Path, victim: &Path) -> Flipper {
    const SWAP: &str = "
import os, sys
bob, victim = sys.argv[1:]
os.chdir(bob)
open('flips', 'w').close()
while True:
    os.rename('a', 'real')
    os.symlink(victim, 'a')
    os.unlink('a')
    os.rename('real', 'a')
";
    let arguments = ["-c", SWAP, bob.to_str().unwrap(), victim.to_str().unwrap()];
    let flipper =
        Flipper(user("/usr/bin/python3", &arguments).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the user to swap", || bob.join("flips").exists());
    flipper
}

#[test]
fn a_subvolume_that_is_swapped_for_a_link_all_the_time_is_never_shown_where_it_leads() {
    // What the engine has mounted, each time that it reads.
    let (machine, disk, bob) = machine(
        "here=${0%/*}; case \" $* \" in *' create '*) cat /proc/self/mountinfo >>\"$here/seen\"; cat \"$here/victim/precious\" >>\"$here/read\";; esac; exec /usr/bin/borg \"$@\"",
    );
    let victim = machine.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("precious"), "root's\n").unwrap();
    for name in ["a", "b", "c", "d"] {
        as_user("btrfs", &["-q", "subvolume", "create", bob.join(name).to_str().unwrap()]);
    }
    as_user("sh", &["-c", &format!("echo the user\\'s >{}/a/precious", bob.display())]);
    let mut codes = Vec::new();
    {
        let _flipper = flipping(&bob, &victim);
        for _ in 0..8 {
            let ran = machine.run(&["run"]);
            let code = ran.code;
            assert!(matches!(code, Some(0 | 12 | 13)), "{code:?}\n{}\n{}", ran.stdout, ran.stderr);
            codes.push(code);
            disk.assert_no_snapshot();
        }
    }
    let seen = fs::read_to_string(machine.path("seen")).unwrap();
    let at = |path: &Path| {
        let at = format!(" {} ", path.display());
        seen.lines().filter(|line| line.contains(&at)).count()
    };
    assert_eq!(at(&bob.join("b")), 8, "the others are shown at their places:\n{seen}");
    assert_eq!(at(&victim), 0, "{codes:?}\n{seen}");
    assert!(!seen.contains("/victim"), "{seen}");
    let read = fs::read_to_string(machine.path("read")).unwrap();
    assert!(read.lines().all(|line| line == "root's"), "{read}");
    machine.run(&["recover"]).expect(0).says("nothing to release");
    // When nobody swaps, it is in the copy again.
    as_user(
        "sh",
        &["-c", &format!("cd {}; [ -d real ] && rm -f a && mv real a; :", bob.display())],
    );
    machine.run(&["run"]).expect(0);
    let back = inside(&restored(&machine, "b", "back"), bob.join("a/precious"));
    assert_eq!(fs::read_to_string(back).unwrap(), "the user's\n");
    machine.assert_clean_except(&disk.at);
}

#[test]
fn a_subvolume_that_was_moved_between_survey_and_snapshot_is_told_and_nothing_is_left() {
    let (machine, disk, bob) = machine("");
    let others = disk.path("others");
    must("btrfs", &["-q", "subvolume", "create", &others]);
    fs::write(disk.path("others/secret"), "secret").unwrap();
    fs::set_permissions(&others, fs::Permissions::from_mode(0o700)).unwrap();
    as_user("btrfs", &["-q", "subvolume", "create", bob.join("a").to_str().unwrap()]);
    let swap = machine.script(
        "swap",
        &format!(
            "exec setpriv --reuid={USER} --regid={USER} --clear-groups sh -c 'cd {} && mv a real && ln -s {others} a'",
            bob.display()
        ),
    );
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let hooks = format!("\n[jobs.host.hooks]\nquiesce = [[\"{swap}\"]]\nresume = [[\"true\"]]\n");
    machine.write("stillpoint.toml", &(text + &hooks), 0o600);
    machine
        .run(&["run"])
        .expect(13)
        .says(&format!("{} is not in the copy", bob.join("a").display()));
    disk.assert_no_snapshot();
    machine.run(&["recover"]).expect(0).says("nothing to release");
    let back = restored(&machine, "b", "back");
    assert_eq!(fs::read_link(inside(&back, bob.join("a"))).unwrap(), Path::new(&others));
    machine.assert_clean_except(&disk.at);
}

#[test]
fn names_that_speak_of_our_snapshot_keep_nobody_from_giving_it_back() {
    // While the engine reads, the user makes subvolumes that a list would take for our snapshot.
    let (machine, disk, bob) = machine(
        "here=${0%/*}; case \" $* \" in *' create '*) name=$(nsenter --target $PPID --mount btrfs subvolume list \"$here/disk\" | sed -n 's/.* path \\(\\.stillpoint\\..*\\.0\\)$/\\1/p'); for own in \"x\nID 5 gen 5 top level 5 path $name\" \"$name\"; do nsenter --target $PPID --mount setpriv --reuid=12345 --regid=12345 --clear-groups btrfs -q subvolume create \"$here/disk/bob/$own\" && echo \"$name\" >\"$here/name\"; done;; esac; exec /usr/bin/borg \"$@\"",
    );
    machine.run(&["run"]).expect(0);
    let name = fs::read_to_string(machine.path("name")).unwrap();
    assert!(bob.join(name.trim()).exists(), "the user's own is not ours");
    let host = SystemHost::stopped_by(Arc::default());
    assert_eq!(host.subvolume_on(Path::new(&disk.device), name.trim().as_ref()).unwrap(), None);
    machine.run(&["recover"]).expect(0).says("nothing to release");
    machine.assert_clean_except(&disk.at);
}

#[test]
fn subvolumes_of_any_name_are_captured() {
    let (machine, disk, bob) = machine("");
    let names: [&[u8]; 6] = [
        b"caf\xe9",
        b"line\nbreak",
        b"\x1b[31mred",
        b"-r",
        b"%s,subvolid=5",
        b".stillpoint.0a1b2c3d.0",
    ];
    for name in names {
        let path = bob.join(OsStr::from_bytes(name));
        let mut create = command("btrfs");
        create.args(["-q", "subvolume", "create", "--"]).arg(&path);
        assert!(create.status().unwrap().success(), "{}", path.display());
        fs::write(path.join("deep"), name).unwrap();
    }
    let report = machine.run(&["--json", "run"]).expect(0).json();
    let captures = report["jobs"][0]["captures"].as_array().unwrap();
    assert_eq!(captures.len(), 1 + names.len(), "{report:#}");
    assert!(captures.iter().all(|capture| capture["provider"] == "btrfs"), "{report:#}");
    let back = restored(&machine, "b", "back");
    for name in names {
        let path = inside(&back, bob.join(OsStr::from_bytes(name)).join("deep"));
        assert_eq!(fs::read(&path).unwrap(), name, "{}", path.display());
    }
    let host = SystemHost::stopped_by(Arc::default());
    let theirs = host.nested_subvolumes(&disk.at).unwrap();
    assert_eq!(theirs.len(), names.len(), "{theirs:?}");
    machine.assert_clean_except(&disk.at);
}

#[test]
fn a_directory_of_a_device_is_shown_and_never_through_a_link() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "ext4", "disk", 32);
    fs::create_dir_all(disk.path("srv/www")).unwrap();
    fs::write(disk.path("srv/www/page"), "page").unwrap();
    std::os::unix::fs::symlink("www", disk.path("srv/link")).unwrap();
    // As the device of a snapshot is mounted nowhere else.
    disk.unmount();
    let (workplace, at) = (machine.path("mnt"), machine.path("at"));
    for directory in ["mnt/root", "mnt/part", "at"] {
        fs::create_dir_all(machine.path(directory)).unwrap();
    }
    let host = SystemHost::stopped_by(Arc::default());
    let list = |directory: &str| {
        let mut spec = CommandSpec::new(Tool::Path("/bin/ls".into()), Effect::Inspect).arg(&at);
        spec.view = PrivateView {
            mounts: vec![PrivateMount::Device {
                device: disk.device.clone().into(),
                at: at.clone(),
                file_system: "ext4".into(),
                options: String::new(),
                directory: Some(directory.into()),
                access: Access::Read,
            }],
            workplace: workplace.clone(),
            ..PrivateView::default()
        };
        host.run(&spec, &mut |_, _| {})
    };
    assert_eq!(list("/srv/www").unwrap().stdout, b"page\n");
    assert!(list("/srv/link").is_err());
    assert!(fs::read_dir(&at).unwrap().next().is_none(), "nobody else sees it");
}
