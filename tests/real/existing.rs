//! Snapshots that were there before the run: those that snapper and btrbk make, and those that runs of ours have kept.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};

use crate::bench_machine::must;
use crate::subvolumes::{Scene, made, scene, set_read_only};

/// Debian's snapper, for the subvolume of a scene.
pub struct Snapper {
    config: String,
    snapshots: PathBuf,
}

impl Snapper {
    pub fn new(scene: &Scene) -> Self {
        // Its configurations are the machine's own.
        let name = scene.machine.path("");
        let name: String =
            name.to_str().unwrap().chars().filter(char::is_ascii_alphanumeric).collect();
        let snapshots = scene.home().join(".snapshots");
        let snapper = Self { config: format!("stillpoint{name}"), snapshots };
        snapper.does(&["create-config", scene.home().to_str().unwrap()]);
        snapper
    }

    fn does(&self, words: &[&str]) -> String {
        must("snapper", &[&["--no-dbus", "-c", &self.config], words].concat())
    }

    /// Has it make one. Answers with its number.
    pub fn makes(&self) -> String {
        self.does(&["create", "--print-number"]).trim().to_owned()
    }

    pub fn at(&self, number: &str) -> PathBuf {
        self.snapshots.join(number).join("snapshot")
    }
}

impl Drop for Snapper {
    fn drop(&mut self) {
        let words = ["--no-dbus", "-c", &self.config, "delete-config"];
        let _ = std::process::Command::new("snapper").args(words).output();
    }
}

/// When a subvolume was made, as btrfs-progs say it: in whole seconds.
pub fn made_at(at: &Path) -> DateTime<Utc> {
    let shown = must("btrfs", &["subvolume", "show", at.to_str().unwrap()]);
    let line = shown.lines().find_map(|line| line.trim().strip_prefix("Creation time:")).unwrap();
    DateTime::parse_from_str(line.trim(), "%Y-%m-%d %H:%M:%S %z").unwrap().to_utc()
}

/// The times of the copies in the target, oldest first.
fn times(scene: &Scene) -> Vec<DateTime<Utc>> {
    let list = scene.machine.run(&["--json", "list", "--target", "t"]).expect(0).json();
    let copies = list["copies"].as_array().unwrap();
    copies.iter().map(|copy| copy["time"].as_str().unwrap().parse().unwrap()).collect()
}

fn up_to_date(scene: &Scene) {
    let before = scene.machine.copies("t");
    let ran = scene.machine.run(&["--json", "run"]).expect(0);
    let document = ran.json();
    assert_eq!(document["outcome"], "skipped", "{document:#}");
    assert_eq!(document["jobs"][0]["targets"][0]["copy"], serde_json::Value::Null);
    ran.says("up to date");
    assert_eq!(scene.machine.copies("t"), before);
}

/// In a snapshot, the place of the others is an empty directory, which is not sent.
pub fn assert_same_files(one: &Path, other: &Path) {
    must("diff", &["-r", "-x", ".snapshots", one.to_str().unwrap(), other.to_str().unwrap()]);
}

#[test]
fn what_snapper_makes_is_sent_and_snapper_goes_on_as_it_does() {
    let scene = scene(600);
    scene.fill("big", 20);
    let snapper = Snapper::new(&scene);
    let first = snapper.makes();
    let file = format!("/etc/snapper/configs/{}", snapper.config);
    let printed = scene.machine.run(&["import", "snapper", &file]).expect(0).stdout;
    let keys = |printed: &str| -> String {
        let of = |line: &&str| line.starts_with("existing = ") || line.starts_with("leave-out = ");
        let keys: Vec<&str> = printed.lines().filter(of).collect();
        assert_eq!(keys.len(), 2, "{printed}");
        keys.join("\n")
    };
    let keys = keys(&printed);
    scene.configure("", &keys);
    scene.machine.run(&["check-config", "--online"]).expect(0).says("1 snapshot is there to send");
    let (copy, sent) = scene.run();
    assert!(sent > 20 << 20, "{sent}");
    assert_same_files(&snapper.at(&first), &scene.copy(&copy));
    let late = times(&scene)[0] - made_at(&snapper.at(&first));
    assert!(late < TimeDelta::seconds(1), "the copy is of the moment at which it was made: {late}");
    up_to_date(&scene);

    // Three of one second, the second of which holds nothing new.
    scene.configure("", &format!("{keys}\nsend = \"all\""));
    fs::write(scene.home().join("second"), "2").unwrap();
    let second = snapper.makes();
    let third = snapper.makes();
    fs::write(scene.home().join("fourth"), "4").unwrap();
    let fourth = snapper.makes();
    let (_, sent) = scene.run();
    assert!(sent < 100 << 10, "{sent}");
    let copies = scene.machine.copies("t");
    assert_eq!(copies.len(), 4);
    for (number, copy) in [&first, &second, &third, &fourth].into_iter().zip(&copies) {
        assert_same_files(&snapper.at(number), &scene.copy(copy));
    }
    assert!(times(&scene).is_sorted_by(|one, next| one < next));
    up_to_date(&scene);

    // One that somebody makes writable is not sent.
    let fifth = snapper.makes();
    set_read_only(&snapper.at(&fifth), false);
    up_to_date(&scene);
    let told = format!(
        "newer, and not sent, since it can be or was written to since it was made: home/.snapshots/{fifth}/"
    );
    scene.machine.run(&["run"]).expect(0).says(&told);
    fs::write(snapper.at(&fifth).join("forged"), "x").unwrap();
    must("sync", &["-f", snapper.at(&fifth).to_str().unwrap()]);
    set_read_only(&snapper.at(&fifth), true);
    up_to_date(&scene);

    // It deletes all of which there are copies, and the next one is sent as a whole.
    for number in [&first, &second, &third, &fourth, &fifth] {
        snapper.does(&["delete", number]);
    }
    let sixth = snapper.makes();
    let ran = scene.machine.run(&["--json", "run"]).expect(0);
    let warnings = ran.json()["warnings"].to_string();
    assert!(warnings.contains("so all of it is sent"), "{}\n{}", ran.stdout, ran.stderr);
    let (copy, sent) = made(&ran);
    assert!(sent > 20 << 20, "{sent}");
    assert_same_files(&snapper.at(&sixth), &scene.copy(&copy));
    let listed = snapper.does(&["--csvout", "list", "--columns", "number"]);
    assert_eq!(listed.lines().skip(1).collect::<Vec<_>>(), ["0", &*sixth], "nothing else went");
    scene.disk.assert_no_snapshot();
}

#[test]
fn a_snapshot_that_is_deleted_before_it_was_sent_is_told_of() {
    let scene = scene(600);
    scene.fill_with_small_files();
    let snapshots = scene.disk.path("taken");
    fs::create_dir(&snapshots).unwrap();
    let first = format!("{snapshots}/home.1");
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", scene.home().to_str().unwrap(), &first]);
    // Its path from the top-level subvolume on, which needs no mount.
    let wrapper = scene.machine.script(
        "btrfs-instead",
        &format!(
            "if [ \"$1\" = send ]; then /usr/bin/btrfs -q subvolume delete {first}; fi\nexec /usr/bin/btrfs \"$@\""
        ),
    );
    scene.configure(&format!("program = \"{wrapper}\""), "existing = [\"taken/home.*\"]");
    let ran = scene.machine.run(&["run"]).expect(10);
    ran.says("the snapshot taken/home.1 was deleted or made writable by somebody else while it was needed");
    assert_eq!(scene.strays(), [] as [String; 0]);
    scene.configure("", "existing = [\"taken/home.*\"]");
    scene.machine.run(&["run"]).expect(10).says("there is no read-only snapshot of");
}

#[test]
fn snapshots_are_made_and_sent_apart_from_each_other() {
    let scene = scene(600);
    scene.fill("big", 5);
    let refused = scene.machine.run(&["run", "--snapshots-only"]).expect(3);
    refused.says("nothing would keep the snapshots of job home");
    scene.configure("", "[jobs.home.keep-snapshots]\nlast = 2");
    scene
        .machine
        .run(&["run", "--no-snapshot"])
        .expect(10)
        .says("run the job without --no-snapshot");
    for made in 1..=3 {
        fs::write(scene.home().join("round"), format!("{made}\n")).unwrap();
        scene.machine.run(&["run", "--snapshots-only"]).expect(0);
        assert_eq!(scene.kept(), made.min(2));
    }
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    scene.machine.run(&["status"]).expect(13).says("STALE");
    fs::write(scene.home().join("round"), "in no snapshot\n").unwrap();
    let (copy, _) = made(&scene.machine.run(&["--json", "run", "--no-snapshot"]).expect(0));
    assert_eq!(fs::read_to_string(scene.copy(&copy).join("round")).unwrap(), "3\n");
    assert_eq!(scene.kept(), 2);
    scene.machine.run(&["run", "--no-snapshot"]).expect(0).says("up to date");
    scene.machine.run(&["status"]).expect(0);
    // It is what the next one is a difference to.
    let (_, sent) = scene.run();
    assert!(sent < 100 << 10, "{sent}");
}
