//! Two jobs of one run at the same time, each from a subvolume of one btrfs to a target on another: whole, stopped and killed
//! midway.

#![allow(clippy::print_stdout)] // how often a run was really interrupted is told

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

/// Two targets, each on a btrfs of its own, and a btrfs with the subvolumes that go there.
pub struct Scene {
    // In this order: what is mounted below the machine's directory goes before that.
    left: Disk,
    right: Disk,
    pub source: Disk,
    subvolumes: &'static [&'static str],
    pub machine: Machine,
}

/// The targets of a scene.
pub const TARGETS: [&str; 2] = ["left", "right"];

impl Scene {
    /// The disks, with these subvolumes. Nothing is configured.
    pub fn new(subvolumes: &'static [&'static str]) -> Scene {
        Scene::sized(subvolumes, [600, 600])
    }

    /// The same, with targets of this many megabytes.
    pub fn sized(subvolumes: &'static [&'static str], sizes: [u64; 2]) -> Scene {
        let machine = Machine::bare("[jobs]\n");
        let source = Disk::new(&machine, "btrfs", "disks/source", 600);
        let [left, right] = [0, 1].map(|at| {
            let place = format!("disks/{}", TARGETS[at]);
            let disk = Disk::new(&machine, "btrfs", &place, sizes[at]);
            closed_directory(disk.path("t"));
            disk
        });
        for name in subvolumes {
            must("btrfs", &["-q", "subvolume", "create", &source.path(name)]);
            fill(source.path(&format!("{name}/big")), 40);
        }
        Scene { left, right, source, subvolumes, machine }
    }

    pub fn disk(&self, target: &str) -> &Disk {
        if target == "left" { &self.left } else { &self.right }
    }

    /// What the first runs have stored is stored again, as far as it has changed.
    pub fn change(&self) {
        for name in self.subvolumes {
            fill(self.source.path(&format!("{name}/new")), 10);
        }
    }

    /// How much the ledgers say so far.
    fn lines(&self) -> usize {
        let ledgers = fs::read_dir(self.machine.path("state/ledger"));
        let ledgers = ledgers.into_iter().flatten().flatten();
        let whole = ledgers.filter(|it| !it.file_name().to_string_lossy().starts_with('.'));
        let texts = whole.filter_map(|it| fs::read_to_string(it.path()).ok());
        texts.map(|text| text.lines().count()).sum()
    }

    #[track_caller]
    fn assert_nothing_held(&self) {
        wait_for_no_process_about(&self.machine.path("").to_string_lossy());
        self.machine.assert_clean_except(&self.machine.path("disks"));
    }

    /// Nothing is held, and nothing is in a target but its copies.
    #[track_caller]
    pub fn assert_nothing_left(&self, after: &str) {
        self.assert_nothing_held();
        for target in TARGETS {
            let copies = self.machine.copies(target);
            for name in names_in(&self.disk(target).at.join("t")) {
                assert!(name == ".stillpoint" || copies.contains(&name), "{after}: {name} is left");
            }
        }
    }

    /// So many runs, each after a change, are killed and stopped in turns, each later than the one before. Nothing is
    /// held then, no copy is lost, and the next run is good.
    pub fn survives_signals(&self, rounds: usize, change: impl Fn(), assert_whole: impl Fn(&str)) {
        let mut reached = (0, 0);
        for (round, stop_at) in (3..).step_by(2).enumerate().take(rounds) {
            let is_killed = round % 2 == 0;
            let (name, code) = if is_killed { ("KILL", None) } else { ("TERM", Some(143)) };
            change();
            let newest = TARGETS.map(|name| self.machine.copies(name).pop().unwrap());
            let mut child = self.machine.start(&["run"]);
            let in_time = wait_until(&mut child, || self.lines() >= stop_at);
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
                self.machine.run(&["recover"]).expect(0);
            }
            self.assert_nothing_held();
            for (name, id) in TARGETS.iter().zip(newest) {
                assert!(self.machine.copies(name).contains(&id), "{after}: {name} has lost {id}");
            }
            self.machine.run(&["run"]).expect(0);
            assert_whole(&after);
        }
        println!("killed {} times, stopped {} times", reached.0, reached.1);
        assert!(reached.0 >= 4 && reached.1 >= 4, "too late: {reached:?}");
        self.machine.run(&["check"]).expect(0);
    }
}

fn marks(scene: &Scene) -> [PathBuf; 2] {
    ["home", "media"].map(|name| scene.machine.path(name))
}

fn change(scene: &Scene) {
    for mark in marks(scene) {
        let _ = fs::remove_file(mark);
    }
    scene.change();
}

/// Nothing is held, and each job has its one base.
#[track_caller]
fn assert_whole(scene: &Scene, after: &str) {
    scene.assert_nothing_left(after);
    assert_eq!(scene.source.snapshots().len(), 2, "{after}: {:?}", scene.source.snapshots());
    for name in TARGETS {
        assert_eq!(scene.machine.copies(name).len(), 2, "{after}: {name}");
    }
}

#[test]
fn two_jobs_at_the_same_time_are_whole_and_survive_signals_and_sigkill() {
    let scene = Scene::new(&["home", "media"]);
    // Each waits until the other one is at work, too.
    scene.machine.script(
        "meet",
        "touch \"$1\"; n=0; while [ $n -lt 300 ]; do [ -e \"$2\" ] && exit 0; sleep 0.1; n=$((n+1)); done; exit 1",
    );
    configure(&scene.machine, JOBS);
    scene.machine.run(&["init", "left", "right"]).expect(0);
    for _ in 0..2 {
        change(&scene);
        // The hooks meet, so both are at work at once.
        let report = scene.machine.run(&["--json", "run"]).expect(0).json();
        assert_eq!(report["jobs"][0]["name"], "home");
        assert_eq!(report["jobs"][1]["name"], "media");
        assert!(marks(&scene).iter().all(|mark| mark.exists()));
    }
    assert_whole(&scene, "good runs");
    scene.survives_signals(14, || change(&scene), |after| assert_whole(&scene, after));
}
