//! Two jobs of one run at the same time, each from a subvolume of one btrfs to a target on another: whole, stopped and killed
//! midway.

use std::fs;
use std::path::PathBuf;

use crate::bench_machine::{Machine, fill, must, names_in, wait_for_no_process_about, wait_until};
use crate::btrfs::Disk;
use crate::subvolumes::{closed_directory, configure};

const JOBS: &str = r#"parallel = 2
[targets.left.btrfs]
location = "{root}/disks/left/t"
[targets.left.keep]
last = 2
[targets.right.btrfs]
location = "{root}/disks/right/t"
[targets.right.keep]
last = 2
[jobs.home]
targets = ["left"]
subvolumes.paths = ["{root}/disks/source/home"]
hooks.before = [["{root}/meet", "{root}/home", "{root}/media"]]
[jobs.media]
targets = ["right"]
subvolumes.paths = ["{root}/disks/source/media"]
hooks.before = [["{root}/meet", "{root}/media", "{root}/home"]]
"#;

struct Scene {
    // In this order: what is mounted below the machine's directory goes before that.
    left: Disk,
    right: Disk,
    source: Disk,
    machine: Machine,
}

fn scene() -> Scene {
    let machine = Machine::bare("[jobs]\n");
    let source = Disk::new(&machine, "btrfs", "disks/source", 600);
    let [left, right] = ["disks/left", "disks/right"].map(|at| {
        let disk = Disk::new(&machine, "btrfs", at, 600);
        closed_directory(disk.path("t"));
        disk
    });
    for name in ["home", "media"] {
        must("btrfs", &["-q", "subvolume", "create", &source.path(name)]);
        fill(source.path(&format!("{name}/big")), 40);
    }
    // Each waits until the other one is at work, too.
    machine.script(
        "meet",
        "touch \"$1\"; n=0; while [ $n -lt 300 ]; do [ -e \"$2\" ] && exit 0; sleep 0.1; n=$((n+1)); done; exit 1",
    );
    configure(&machine, JOBS);
    machine.run(&["init", "left", "right"]).expect(0);
    Scene { left, right, source, machine }
}

impl Scene {
    /// What the first runs have stored is stored again, as far as it has changed.
    fn change(&self) {
        for name in ["home", "media"] {
            let _ = fs::remove_file(self.machine.path(name));
            fill(self.source.path(&format!("{name}/new")), 10);
        }
    }

    fn marks(&self) -> [PathBuf; 2] {
        ["home", "media"].map(|name| self.machine.path(name))
    }

    /// How much the ledgers say so far.
    fn lines(&self) -> usize {
        let ledgers = fs::read_dir(self.machine.path("state/ledger"));
        let ledgers = ledgers.into_iter().flatten().flatten();
        let whole = ledgers.filter(|it| !it.file_name().to_string_lossy().starts_with('.'));
        let texts = whole.filter_map(|it| fs::read_to_string(it.path()).ok());
        texts.map(|text| text.lines().count()).sum()
    }

    /// Nothing is held, and each job has its one base.
    #[track_caller]
    fn assert_whole(&self, after: &str) {
        wait_for_no_process_about(&self.machine.path("").to_string_lossy());
        self.machine.assert_clean_except(&self.machine.path("disks"));
        assert_eq!(self.source.snapshots().len(), 2, "{after}: {:?}", self.source.snapshots());
        for (name, disk) in [("left", &self.left), ("right", &self.right)] {
            let copies = self.machine.copies(name);
            assert_eq!(copies.len(), 2, "{after}: {name}");
            for name in names_in(&disk.at.join("t")) {
                assert!(name == ".stillpoint" || copies.contains(&name), "{after}: {name} is left");
            }
        }
    }
}

#[test]
fn two_jobs_at_the_same_time_are_whole_and_survive_signals_and_sigkill() {
    let scene = scene();
    for _ in 0..2 {
        scene.change();
        // The hooks meet, so both are at work at once.
        let report = scene.machine.run(&["--json", "run"]).expect(0).json();
        assert_eq!(report["jobs"][0]["name"], "home");
        assert_eq!(report["jobs"][1]["name"], "media");
        assert!(scene.marks().iter().all(|mark| mark.exists()));
    }
    scene.assert_whole("good runs");
    let mut reached = (0, 0);
    for (round, stop_at) in (3..).step_by(2).enumerate().take(14) {
        let is_killed = round % 2 == 0;
        let (name, code) = if is_killed { ("KILL", None) } else { ("TERM", Some(143)) };
        scene.change();
        let newest = ["left", "right"].map(|name| scene.machine.copies(name).pop().unwrap());
        let mut child = scene.machine.start(&["run"]);
        let in_time = wait_until(&mut child, || scene.lines() >= stop_at);
        let after = format!("SIG{name} at line {stop_at}");
        if in_time {
            must("kill", &["-s", name, &child.id().to_string()]);
        }
        let ended = child.wait_with_output().unwrap();
        if in_time && ended.status.code() == code {
            *(if is_killed { &mut reached.0 } else { &mut reached.1 }) += 1;
        } else {
            assert_eq!(ended.status.code(), Some(0), "{after}: {ended:?}");
        }
        // After a signal there is nothing to recover.
        if is_killed {
            scene.machine.run(&["recover"]).expect(0);
        }
        wait_for_no_process_about(&scene.machine.path("").to_string_lossy());
        scene.machine.assert_clean_except(&scene.machine.path("disks"));
        for (name, id) in ["left", "right"].iter().zip(newest) {
            assert!(scene.machine.copies(name).contains(&id), "{after}: {name} has lost {id}");
        }
        scene.machine.run(&["run"]).expect(0);
        scene.assert_whole(&after);
    }
    println!("killed {} times, stopped {} times", reached.0, reached.1);
    assert!(reached.0 >= 4 && reached.1 >= 4, "too late: {reached:?}");
    scene.machine.run(&["check"]).expect(0);
}
