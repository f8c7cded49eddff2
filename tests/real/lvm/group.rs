//! A volume group of a test: on a loop device in a scratch directory, with the volumes that the test asks for,
//! questions about what is left, and a teardown that also copes with what a killed LVM command leaves.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench_machine::{Ran, command, must};

/// What a test asks LVM about a volume; numbers come as text, in bytes without a unit.
const FIELDS: &str = "lv_name,lv_uuid,lv_attr,lv_size,origin,pool_lv,thin_id,transaction_id,data_percent,\
                      metadata_percent,lv_tags,lv_active,lv_permissions,lv_health_status,segtype,lv_dm_path";

/// A write that takes longer than this is held up, on an emulated machine as well that is busy outside.
pub const PROMPT: Duration = Duration::from_secs(120);

/// A volume group with a name of its own. Everything goes away with it, also after a failed test.
pub struct Group {
    /// The group's name, `spNNNN`.
    pub name: String,
    /// A directory outside the group, in memory: the backing file and the mount points are in it.
    pub scratch: tempfile::TempDir,
    device: String,
    /// Writers that did not come back in time. They cannot even be killed until what they write to resumes.
    stuck: Vec<Child>,
}

/// The pool's transaction id, as both sides have it. They differ after a command that was killed in between.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Transactions {
    /// In LVM's metadata.
    pub lvm: u64,
    /// In the kernel.
    pub kernel: u64,
}

impl Group {
    /// A group of this many MiB, of which LVM takes 4.
    pub fn new(mib: u64) -> Self {
        require_device_mapper();
        let scratch = tempfile::Builder::new().prefix("stillpoint-lvm.").tempdir().unwrap();
        let name = format!("sp{:04}", RandomState::new().hash_one(std::process::id()) % 10_000);
        let backing = scratch.path().join("disk");
        fs::File::create(&backing).unwrap().set_len(mib << 20).unwrap();
        let device = must("losetup", &["--find", "--show", backing.to_str().unwrap()]);
        let group = Self { name, scratch, device: device.trim().to_owned(), stuck: Vec::new() };
        must("pvcreate", &["--quiet", &group.device]);
        must("vgcreate", &["--quiet", &group.name, &group.device]);
        group
    }

    /// A volume's name as LVM's commands take it.
    pub fn full(&self, volume: &str) -> String {
        format!("{}/{volume}", self.name)
    }

    /// The block device of an active volume.
    pub fn path(&self, volume: &str) -> PathBuf {
        Path::new("/dev").join(&self.name).join(volume)
    }

    /// A volume's name as device-mapper has it. The names of these tests hold no `-`, which it would double.
    pub fn mapped(&self, volume: &str) -> String {
        format!("{}-{volume}", self.name)
    }

    /// A thin pool.
    pub fn pool(&self, name: &str, mib: u64) {
        let size = format!("{mib}M");
        must("lvcreate", &["--quiet", "--type", "thin-pool", "-L", &size, "-n", name, &self.name]);
    }

    /// A thin volume, which may be larger than its pool.
    pub fn thin(&self, pool: &str, name: &str, mib: u64) {
        let size = format!("{mib}M");
        must("lvcreate", &["--quiet", "-V", &size, "--thinpool", pool, "-n", name, &self.name]);
    }

    /// A classic volume.
    pub fn linear(&self, name: &str, mib: u64) {
        let size = format!("{mib}M");
        must("lvcreate", &["--quiet", "-y", "-L", &size, "-n", name, &self.name]);
    }

    /// Makes a file system, `ext4` or `xfs` (which takes no less than 300 MiB), and mounts it.
    pub fn mounted(&self, volume: &str, file_system: &str) -> PathBuf {
        let device = self.path(volume);
        must(&format!("mkfs.{file_system}"), &["-q", device.to_str().unwrap()]);
        self.mount(volume, "defaults")
    }

    /// Mounts a volume below the scratch directory, by its own name.
    pub fn mount(&self, volume: &str, options: &str) -> PathBuf {
        let point = self.scratch.path().join(volume);
        fs::create_dir_all(&point).unwrap();
        let device = self.path(volume);
        must("mount", &["-o", options, device.to_str().unwrap(), point.to_str().unwrap()]);
        point
    }

    /// Takes a volume's mount away again.
    pub fn unmount(&self, volume: &str) {
        must("umount", &[self.scratch.path().join(volume).to_str().unwrap()]);
    }

    /// Runs an LVM command or another that may fail.
    pub fn try_run(&self, program: &str, args: &[&str]) -> Ran {
        command(program).args(args).stdin(Stdio::null()).output().unwrap().into()
    }

    /// All volumes, the hidden ones with their names in brackets, as LVM reports them.
    pub fn volumes(&self) -> Vec<Value> {
        let report = must(
            "lvs",
            &[
                "--all",
                "--reportformat",
                "json",
                "--units",
                "b",
                "--nosuffix",
                "-o",
                FIELDS,
                &self.name,
            ],
        );
        let report: Value = serde_json::from_str(&report).unwrap();
        report["report"][0]["lv"].as_array().unwrap().clone()
    }

    /// The names of the volumes that are not hidden, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .volumes()
            .iter()
            .map(|volume| volume["lv_name"].as_str().unwrap().to_owned())
            .filter(|name| !name.starts_with('['))
            .collect();
        names.sort();
        names
    }

    /// One field of one volume. None when there is no such volume.
    pub fn field(&self, volume: &str, field: &str) -> Option<String> {
        let volumes = self.volumes();
        let found = volumes.iter().find(|candidate| candidate["lv_name"] == volume)?;
        Some(found[field].as_str().unwrap_or_else(|| panic!("no field {field}")).to_owned())
    }

    /// The group's suspended devices, as device-mapper names them.
    pub fn suspended(&self) -> Vec<String> {
        let devices = self.devices().unwrap();
        devices.into_iter().filter(|device| device.suspended).map(|device| device.name).collect()
    }

    /// The transaction id of a pool on both sides.
    pub fn transactions(&self, pool: &str) -> Transactions {
        let lvm = self.field(pool, "transaction_id").unwrap().parse().unwrap();
        let status = must("dmsetup", &["status", &format!("{}-tpool", self.mapped(pool))]);
        let kernel = status.split_whitespace().nth(3).unwrap().parse().unwrap();
        Transactions { lvm, kernel }
    }

    /// What LVM still means to tell the pool, from its metadata: `create = "NAME"` and the like.
    pub fn queued_messages(&self) -> Vec<String> {
        let file = self.scratch.path().join("metadata");
        must("vgcfgbackup", &["--quiet", "-f", file.to_str().unwrap(), &self.name]);
        let text = fs::read_to_string(file).unwrap();
        let mut lines = text.lines();
        let mut messages = Vec::new();
        while let Some(line) = lines.next() {
            if line.trim().starts_with("message") {
                messages.push(lines.next().unwrap().trim().to_owned());
            }
        }
        messages
    }

    /// Whether 4 KiB, written past the cache to a file of a mounted volume, arrive within this time.
    pub fn takes_writes(&mut self, volume: &str, within: Duration) -> bool {
        let file = format!("of={}", self.scratch.path().join(volume).join(".probe").display());
        let mut writer = command("dd")
            .args(["if=/dev/zero", &file, "bs=4096", "count=1", "oflag=direct", "conv=notrunc"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = writer.try_wait().unwrap() {
                assert!(status.success(), "{volume} answers a write with an error");
                return true;
            }
            if Instant::now() >= deadline {
                self.stuck.push(writer);
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing is left of whatever worked on this group: these volumes, none suspended, both sides of the pool
    /// agree, nothing queued.
    #[track_caller]
    pub fn assert_whole(&self, pool: &str, names: &[&str]) {
        assert_eq!(self.names(), names);
        assert_eq!(self.suspended(), Vec::<String>::new());
        let transactions = self.transactions(pool);
        assert_eq!(transactions.lvm, transactions.kernel, "the pool is out of step");
        assert_eq!(self.queued_messages(), Vec::<String>::new());
    }
}

/// A device of the group as device-mapper has it.
struct Mapped {
    name: String,
    suspended: bool,
}

impl Group {
    fn devices(&self) -> Result<Vec<Mapped>, String> {
        let columns = ["info", "-c", "--noheadings", "--separator", " ", "-o", "name,suspended"];
        let listed = attempt("dmsetup", &columns)?;
        let ours = format!("{}-", self.name);
        let lines = listed.lines().filter_map(|line| line.trim().split_once(' '));
        Ok(lines
            .filter(|(name, _)| name.starts_with(&ours))
            .map(|(name, state)| Mapped { name: name.to_owned(), suspended: state == "Suspended" })
            .collect())
    }

    /// Takes everything away, going on when a part of it fails.
    fn tear_down(&mut self) -> Result<(), String> {
        let mut outcome = Ok(());
        let devices = self.devices()?;
        for device in devices.iter().filter(|device| device.suspended) {
            outcome = outcome.and(attempt("dmsetup", &["resume", &device.name]).map(drop));
        }
        for mut writer in self.stuck.drain(..) {
            outcome = outcome.and(writer.wait().map(drop).map_err(|error| error.to_string()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = format!("{}/", self.scratch.path().display());
        let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        for point in points.iter().rev().filter(|point| point.starts_with(&below)) {
            outcome = outcome.and(attempt("umount", &[point]).map(drop));
        }
        let removed = attempt("vgremove", &["--quiet", "-ff", "-y", &self.name]);
        if removed.is_err() {
            // LVM refuses while a pool is out of step. What stands on a device has to go before it.
            for _ in 0..4 {
                for device in self.devices()? {
                    let _ = attempt("dmsetup", &["remove", &device.name]);
                }
            }
        }
        outcome.and(removed.map(drop)).and(attempt("losetup", &["-d", &self.device]).map(drop))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let outcome = self.tear_down();
        // A test that failed has said why, and need not have left what can be taken away in order.
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

/// The output of a program, or what it complained about. Does not panic.
fn attempt(program: &str, args: &[&str]) -> Result<String, String> {
    let output = command(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Fails the test where it could only seem to pass.
fn require_device_mapper() {
    let targets = command("dmsetup").arg("targets").output();
    let targets = targets
        .map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    for target in ["thin-pool ", "snapshot "] {
        assert!(
            targets.lines().any(|line| line.starts_with(target)),
            "the kernel has no device-mapper target {target}: tests/guest/run brings one that has"
        );
    }
}
