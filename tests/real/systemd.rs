//! What `systemd-analyze verify` says of the shipped and the generated units: it must say nothing.
//!
//! The units name programs by absolute path, so they are verified below a root directory of the test's own
//! in which those programs exist.

#![allow(clippy::disallowed_methods)] // tests start programs themselves

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use stillpoint::engine::engines;
use stillpoint::model::job::Config;
use stillpoint::pipeline::units::units;

use crate::bench_machine::{Machine, PROGRAM, Ran, command, must};
use crate::btrfs::{Disk, inside, restored};
use crate::configured::configured;

/// A place for the program that has to be quoted in a unit.
const ODD_PROGRAM: &str = "/opt/my 50% tools/stillpoint";

/// A root directory with systemd's own units, ours, and the programs that ours start.
fn root_with(units: &[(String, String)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let vendor = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&vendor).unwrap();
    for entry in fs::read_dir("/usr/lib/systemd/system").expect("systemd is installed") {
        let path = entry.unwrap().path();
        let ours_need = path.extension().is_some_and(|kind| kind == "target" || kind == "slice")
            || path.ends_with("modprobe@.service");
        if ours_need {
            fs::copy(&path, vendor.join(path.file_name().unwrap())).unwrap();
        }
    }
    let directory = root.path().join("etc/systemd/system");
    fs::create_dir_all(&directory).unwrap();
    for (name, content) in units {
        fs::write(directory.join(name), content).unwrap();
    }
    for program in ["/usr/bin/stillpoint", "/usr/bin/logger", "/sbin/modprobe", ODD_PROGRAM] {
        let path = root.path().join(&program[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    root
}

/// What `systemd-analyze verify` says of one unit, and whether it was content.
fn verify(root: &Path, name: &str) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--root"])
        .arg(root)
        .arg(name)
        .env("LC_ALL", "C")
        .output()
        .expect("systemd-analyze runs: tests/run installs systemd");
    let said = [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.success(), said.concat())
}

fn shipped() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut units: Vec<(String, String)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    units.sort();
    units
}

/// A job with everything that can go wrong in a unit: quotes, specifiers, credentials, odd directories.
fn config() -> Config {
    configured(
        r#"
[settings]
state-dir = "/srv/it's 100% state"
runtime-dir = "/run/still point"
metrics-file = "/var/lib/node_exporter/stillpoint.prom"

[targets.near.borg]
repository = '/srv/"quoted" 50%/web1'
passphrase-credential = "borg.pass"
[targets.far.borg]
repository = "ssh://backup@nas/./web1"
passphrase-credential = "borg.pass"
ssh-command = ["ssh"]

[jobs.all_of-it]
targets = ["near"]
files = { paths = ["/"], one-file-system = true, capture = "none", exclude = ["/srv/*/web1"] }
[jobs.home]
targets = ["far"]
files = { paths = ["/home"], one-file-system = true, capture = "none" }
[jobs.with-hooks]
targets = ["near"]
files = { paths = ["/etc"], one-file-system = true, capture = "none" }
hooks.before = [["/usr/local/bin/dump"]]
[jobs.captured]
targets = ["near"]
files = { paths = ["/"], one-file-system = true, exclude = ["/srv/*/web1"] }
[jobs.frozen]
targets = ["far"]
files = { paths = ["/srv"], one-file-system = true, freeze-units = ["app.service"] }
"#,
    )
}

fn assert_clean(units: &[(String, String)]) {
    let root = root_with(units);
    for (name, content) in units {
        // A template is verified as an instance of itself.
        let name = match name.split_once("@.") {
            Some((stem, suffix)) => format!("{stem}@host.{suffix}"),
            None => name.clone(),
        };
        let (passed, said) = verify(root.path(), &name);
        assert!(passed && said.is_empty(), "{name}:\n{said}\n{content}");
    }
}

#[test]
fn the_shipped_units_verify() {
    let units = shipped();
    assert!(units.len() >= 8, "{} units are shipped", units.len());
    assert_clean(&units);
}

#[test]
fn the_generated_units_verify() {
    let config = config();
    let mut made = units(
        &config,
        &engines(&config),
        Path::new("/etc/my $config.toml"),
        Path::new(ODD_PROGRAM),
    );
    assert_eq!(made.len(), 10);
    let needed = shipped().into_iter().filter(|(name, _)| name.starts_with("stillpoint-notify@"));
    made.extend(needed);
    assert_clean(&made);
}

#[test]
fn verify_complains_of_a_broken_unit() {
    let config = config();
    let mut made = units(
        &config,
        &engines(&config),
        Path::new("/etc/x.toml"),
        Path::new("/usr/bin/stillpoint"),
    );
    made[0].1.push_str("ProtectSystemm=strict\n");
    made[2].1 = made[2].1.replace("/usr/bin/stillpoint", "/usr/bin/nothing-here");
    let root = root_with(&made);
    let (_, said) = verify(root.path(), &made[0].0);
    assert!(said.contains("ProtectSystemm"), "{said}");
    let (passed, said) = verify(root.path(), &made[2].0);
    assert!(!passed, "{said}");
}

/// Runs the program in a namespace like a unit's: `ProtectSystem=` makes a disk and some of its directories
/// read-only by mounting the latter over themselves.
fn confined(machine: &Machine, disk: &Disk, directories: &[&str], args: &[&str]) -> Ran {
    let script = r#"
        mount -o remount,bind,ro "$1"
        shift
        while [ "$1" != -- ]; do
            mount --bind "$1" "$1"
            mount -o remount,bind,ro "$1"
            shift
        done
        shift
        exec "$@"
    "#;
    command("unshare")
        .args(["--mount", "--propagation", "slave", "sh", "-e", "-c", script, "sh"])
        .arg(&disk.at)
        .args(directories)
        .args(["--", PROGRAM, "-c"])
        .arg(machine.path("stillpoint.toml"))
        .args(args)
        .output()
        .unwrap()
        .into()
}

#[test]
fn a_confined_unit_captures_what_the_machine_sees() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("root")]);
    fs::create_dir_all(disk.path("root/etc/lvm")).unwrap();
    fs::write(disk.path("root/etc/fstab"), "a table").unwrap();
    fs::write(disk.path("root/etc/lvm/lvm.conf"), "a configuration").unwrap();
    machine.configure(
        r#"
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["{root}/disk/root"]
one-file-system = true
capture = "required"
"#,
    );
    machine.run(&["init", "b", "r"]).expect(0);
    let etc = disk.path("root/etc");
    let output = confined(&machine, &disk, &[&etc, &disk.path("root/etc/lvm")], &["--json", "run"]);
    let report = output.expect(0).json();
    let captures = report["jobs"][0]["captures"].as_array().unwrap();
    assert_eq!(captures.len(), 1, "{report:#}");
    assert_eq!(captures[0]["path"], *disk.path("root"));
    for target in ["b", "r"] {
        let back = restored(&machine, target, &format!("back-{target}"));
        let path = inside(&back, disk.path("root/etc/lvm/lvm.conf"));
        assert_eq!(fs::read_to_string(path).unwrap(), "a configuration");
    }
    disk.assert_no_snapshot();
}

#[test]
fn a_confined_unit_makes_writable_what_a_killed_run_outside_left_read_only() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "ext4", "boot", 64);
    fs::write(disk.path("vmlinuz"), "kernel").unwrap();
    let jobs = r#"
[jobs.host]
targets = ["r"]
[jobs.host.files]
paths = ["{root}/boot"]
[jobs.host.files.remount-readonly]
paths = ["{root}/boot"]
"#;
    machine.configure(jobs);
    machine.run(&["init", "r"]).expect(0);
    let program = machine.script(
        "restic-that-kills",
        "case \"$*\" in 'backup '*) kill -KILL $PPID; sleep 5;; esac; exec /usr/bin/restic \"$@\"",
    );
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text
        .replace("[targets.r.restic]\n", &format!("[targets.r.restic]\nprogram = \"{program}\"\n"));
    machine.write("stillpoint.toml", &text, 0o600);
    let ran = machine.run(&["run"]);
    assert_eq!(ran.code, None, "{}", ran.stderr);
    fs::write(disk.path("probe"), "").expect_err("nothing was made read-only");
    confined(&machine, &disk, &[], &["recover"]).expect(0);
    fs::write(disk.path("after"), "writable again").unwrap();
}
