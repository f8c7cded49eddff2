//! What LVM and the kernel do, where code of ours relies on it: how snapshots are made and mounted, what an
//! `lvcreate` that was killed half-way leaves, and which commands mend that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::group::{Group, PROMPT, Transactions};
use crate::bench_machine::{command, must};

/// How long it is looked at that a write is held up.
const HELD_UP: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn snapshots_are_made_mounted_and_removed() {
    let mut group = Group::new(1000);
    group.pool("pool", 200);
    group.thin("pool", "data", 100);
    let data = group.mounted("data", "ext4");
    fs::write(data.join("file"), "before\n").unwrap();
    group.linear("classic", 320);
    let classic = group.mounted("classic", "xfs");
    fs::write(classic.join("file"), "before\n").unwrap();

    must("lvcreate", &["-s", "-kn", "-ay", "-n", "thin_snap", &group.full("data")]);
    must("lvcreate", &["-s", "-kn", "-ay", "-L40M", "-n", "classic_snap", &group.full("classic")]);
    fs::write(data.join("file"), "after\n").unwrap();
    fs::write(classic.join("file"), "after\n").unwrap();
    assert_eq!(group.names(), ["classic", "classic_snap", "data", "pool", "thin_snap"]);
    assert_eq!(group.field("thin_snap", "segtype").as_deref(), Some("thin"));
    assert_eq!(group.field("classic_snap", "origin").as_deref(), Some("classic"));

    let view = group.mount("thin_snap", "ro");
    assert_eq!(fs::read_to_string(view.join("file")).unwrap(), "before\n");
    // The snapshot's file system has the uuid of its origin, which XFS refuses.
    let device = group.path("classic_snap");
    let point = group.scratch.path().join("refused");
    fs::create_dir(&point).unwrap();
    let refused =
        group.try_run("mount", &["-o", "ro", device.to_str().unwrap(), point.to_str().unwrap()]);
    assert_eq!(refused.code, Some(32), "{}", refused.stderr);
    let view = group.mount("classic_snap", "ro,nouuid");
    assert_eq!(fs::read_to_string(view.join("file")).unwrap(), "before\n");

    group.unmount("thin_snap");
    group.unmount("classic_snap");
    must("lvremove", &["-y", &group.full("thin_snap"), &group.full("classic_snap")]);
    group.assert_whole("pool", &["classic", "data", "pool"]);
    assert!(group.takes_writes("data", PROMPT) && group.takes_writes("classic", PROMPT));
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn a_new_thin_volume_gets_the_highest_id_and_one() {
    let group = Group::new(300);
    group.pool("pool", 100);
    for name in ["a", "b", "c"] {
        group.thin("pool", name, 50);
    }
    must("lvremove", &["-y", &group.full("b")]);
    must("lvcreate", &["-s", "-kn", "-ay", "-n", "snap", &group.full("a")]);
    let id = |name| group.field(name, "thin_id").unwrap();
    assert_eq!([id("a"), id("c"), id("snap")], ["1", "3", "4"], "a gap is not filled");
    must("lvremove", &["-y", &group.full("snap")]);
    must("lvcreate", &["-s", "-kn", "-ay", "-n", "again", &group.full("c")]);
    assert_eq!(id("again"), "4", "the id of a removed volume is used again");
}

/// An `lvcreate` of a thin snapshot, killed before the kernel was asked for this. The names are strace's.
pub struct Point {
    /// What the ioctl that never happened is about.
    pub before: &'static str,
    pub matches: fn(&str) -> bool,
    /// Whether the origin is left suspended.
    pub suspended: bool,
    /// The pool's ids afterwards, from what both were.
    ids: fn(u64) -> Transactions,
    /// Whether LVM cannot go on, since the kernel already has the volume that it means to create.
    wedged: bool,
}

pub const POINTS: &[Point] = &[
    Point {
        before: "the origin's suspend",
        matches: |line| line.contains("DM_DEV_SUSPEND, ") && line.contains("=DM_SUSPEND_FLAG"),
        suspended: false,
        ids: |id| Transactions { lvm: id + 1, kernel: id },
        wedged: false,
    },
    Point {
        before: "create_snap",
        matches: |line| line.contains("create_snap "),
        suspended: true,
        ids: |id| Transactions { lvm: id + 1, kernel: id },
        wedged: false,
    },
    Point {
        before: "set_transaction_id",
        matches: |line| line.contains("set_transaction_id "),
        suspended: true,
        ids: |id| Transactions { lvm: id + 1, kernel: id },
        wedged: true,
    },
    Point {
        before: "the origin's resume",
        matches: |line| line.contains("DM_DEV_SUSPEND, ") && !line.contains("=DM_SUSPEND_FLAG"),
        suspended: true,
        ids: |id| Transactions { lvm: id + 1, kernel: id + 1 },
        wedged: false,
    },
];

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn a_killed_lvcreate_can_be_mended() {
    let mut group = Group::new(300);
    group.pool("pool", 100);
    group.thin("pool", "data", 50);
    let data = group.mounted("data", "ext4");
    fs::write(data.join("file"), "kept\n").unwrap();
    let trace = group.scratch.path().join("trace");
    let snapshot = group.full("snap");

    let whole = create(&group, &trace, None);
    must("lvremove", &["-y", &snapshot]);
    for point in POINTS {
        let before = format!("killed before {}", point.before);
        let id = group.transactions("pool").lvm;
        let id = kill_at(&mut group, &trace, &whole, point, id);

        assert_eq!(group.names(), ["data", "pool", "snap"], "{before}");
        assert_eq!(group.field("snap", "thin_id").as_deref(), Some("2"), "{before}");
        assert_eq!(group.field("snap", "lv_active").as_deref(), Some(""), "{before}");
        assert_eq!(group.transactions("pool"), (point.ids)(id), "{before}");
        assert_eq!(group.queued_messages(), ["create = \"snap\""], "{before}");
        let suspended = if point.suspended { vec![group.mapped("data")] } else { Vec::new() };
        assert_eq!(group.suspended(), suspended, "{before}");
        let within = if point.suspended { HELD_UP } else { PROMPT };
        assert_eq!(group.takes_writes("data", within), !point.suspended, "{before}");

        for device in suspended {
            must("dmsetup", &["resume", &device]);
        }
        assert!(group.takes_writes("data", PROMPT), "{before}");
        if point.wedged {
            let refused = group.try_run("lvremove", &["-y", &snapshot]);
            refused.expect(5).says("already contain thin device with device_id 2");
            let pool = format!("{}-tpool", group.mapped("pool"));
            must("dmsetup", &["message", &pool, "0", "delete 2"]);
        }
        must("lvremove", &["-y", &snapshot]);

        group.assert_whole("pool", &["data", "pool"]);
        assert!(group.takes_writes("data", PROMPT), "{before}");
        must("lvcreate", &["-s", "-kn", "-ay", "-n", "snap", &group.full("data")]);
        must("lvremove", &["-y", &snapshot]);
        group.assert_whole("pool", &["data", "pool"]);
        println!("{before}: mended");
    }
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "kept\n");
    group.unmount("data");
    must("lvchange", &["-an", &group.full("data"), &group.full("pool")]);
    must("lvchange", &["-ay", "-y", &group.full("pool_tmeta")]);
    must("thin_check", &["-q", group.path("pool_tmeta").to_str().unwrap()]);
    must("lvchange", &["-an", &group.full("pool_tmeta")]);
}

/// Makes the snapshot `snap` of `data`, killed when it asks device-mapper for the n-th time. Answers with what
/// it asked for, one line a request.
fn create(group: &Group, trace: &Path, kill_at: Option<usize>) -> Vec<String> {
    let mut strace = command("strace");
    strace.args(["-f", "-v", "-s200", "-e", "trace=ioctl", "-P", "/dev/mapper/control", "-o"]);
    strace.arg(trace);
    if let Some(n) = kill_at {
        strace.args(["-e", &format!("inject=ioctl:signal=SIGKILL:when={n}")]);
    }
    strace.args(["lvcreate", "-s", "-kn", "-ay", "-n", "snap", &group.full("data")]);
    let output = strace.output().unwrap();
    assert_eq!(output.status.success(), kill_at.is_none(), "{output:?}");
    let lines = fs::read_to_string(trace).unwrap();
    lines.lines().filter(|line| line.contains(" ioctl(")).map(str::to_owned).collect()
}

/// Kills at this point. How often LVM asks before it varies by a few, so that this may take several attempts,
/// each mended before the next. Answers with the pool's transaction id before the last of them.
fn kill_at(group: &mut Group, trace: &Path, whole: &[String], point: &Point, id: u64) -> u64 {
    let position = |lines: &[String]| lines.iter().position(|line| (point.matches)(line));
    let mut n = position(whole).expect(point.before) + 1;
    let mut id = id;
    for _ in 0..20 {
        let lines = create(group, trace, Some(n));
        match position(&lines) {
            Some(at) if at + 1 == lines.len() => return id,
            Some(at) => n = at + 1,
            None => n += 1,
        }
        for device in group.suspended() {
            must("dmsetup", &["resume", &device]);
        }
        let ids = group.transactions("pool");
        if ids.lvm != ids.kernel {
            let pool = format!("{}-tpool", group.mapped("pool"));
            group.try_run("dmsetup", &["message", &pool, "0", "delete 2"]);
        }
        if group.names().contains(&"snap".to_owned()) {
            must("lvremove", &["-y", &group.full("snap")]);
        }
        group.assert_whole("pool", &["data", "pool"]);
        id = group.transactions("pool").lvm;
    }
    panic!("lvcreate could not be killed before {} in twenty attempts", point.before);
}
