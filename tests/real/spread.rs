//! A subvolume that goes to two targets at the same time, each on a btrfs of its own: whole, stopped and killed midway.

use std::fs;
use std::path::Path;

use crate::bench_machine::{
    Machine, Ran, assert_same_tree, fill, must, wait_for_no_process_about, wait_until,
};
use crate::btrfs::Disk;
use crate::subvolumes::{closed_directory, configure};

const TARGETS: [&str; 2] = ["left", "right"];

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
    let [left, right] = TARGETS.map(|name| {
        let disk = Disk::new(&machine, "btrfs", &format!("disks/{name}"), 600);
        closed_directory(disk.path("t"));
        disk
    });
    must("btrfs", &["-q", "subvolume", "create", &source.path("home")]);
    fill(source.path("home/big"), 40);
    let scene = Scene { left, right, source, machine };
    scene.configure("");
    scene.machine.run(&["init", "left", "right"]).expect(0);
    scene
}

impl Scene {
    /// Both targets have what is given.
    fn configure(&self, target: &str) {
        let of = |name: &str| {
            format!(
                "[targets.{name}.btrfs]\nlocation = \"{{root}}/disks/{name}/t\"\n{target}\n[targets.{name}.keep]\nlast = 2\n"
            )
        };
        let job = "[jobs.home]\ntargets = [\"left\", \"right\"]\nsubvolumes.paths = [\"{root}/disks/source/home\"]\n";
        let text = format!("parallel-targets = 2\n{}{}{job}", of("left"), of("right"));
        configure(&self.machine, &text);
    }

    /// A program in the place of btrfs-progs, which notes what it is asked for; `body` comes first.
    fn instead(&self, body: &str) {
        let log = self.machine.path("asked");
        let wrapper = self.machine.script(
            "btrfs-instead",
            &format!("echo \"$1\" >>'{}'\n{body}\nexec /usr/bin/btrfs \"$@\"", log.display()),
        );
        self.configure(&format!("program = \"{wrapper}\""));
    }

    /// How often the program was asked for this in the last run.
    fn asked(&self, word: &str) -> usize {
        let log = self.machine.path("asked");
        let asked = fs::read_to_string(&log).unwrap();
        asked.lines().filter(|line| *line == word).count()
    }

    fn disk(&self, target: &str) -> &Disk {
        if target == "left" { &self.left } else { &self.right }
    }

    fn change(&self) {
        fill(self.source.path("home/new"), 10);
    }

    fn run(&self) -> Ran {
        let _ = fs::remove_file(self.machine.path("asked"));
        self.machine.run(&["--json", "run"])
    }

    /// How much the ledgers say so far.
    fn lines(&self) -> usize {
        let ledgers = fs::read_dir(self.machine.path("state/ledger"));
        let ledgers = ledgers.into_iter().flatten().flatten();
        let whole = ledgers.filter(|it| !it.file_name().to_string_lossy().starts_with('.'));
        let texts = whole.filter_map(|it| fs::read_to_string(it.path()).ok());
        texts.map(|text| text.lines().count()).sum()
    }

    /// The newest copy of a target is what the source is now.
    #[track_caller]
    fn assert_has_all(&self, target: &str) {
        let newest = self.machine.copies(target).pop().unwrap();
        let copy = self.disk(target).path(&format!("t/{newest}"));
        assert_same_tree(Path::new(&self.source.path("home")), Path::new(&copy));
    }

    /// Nothing is held, and nothing is in a target but its copies.
    #[track_caller]
    fn assert_nothing_left(&self, after: &str) {
        wait_for_no_process_about(&self.machine.path("").to_string_lossy());
        self.machine.assert_clean_except(&self.machine.path("disks"));
        for name in TARGETS {
            let copies = self.machine.copies(name);
            for left in fs::read_dir(self.disk(name).path("t")).unwrap() {
                let left = left.unwrap().file_name().into_string().unwrap();
                assert!(left == ".stillpoint" || copies.contains(&left), "{after}: {left} is left");
            }
        }
    }
}

#[test]
fn two_targets_at_the_same_time_are_whole_and_survive_signals_and_sigkill() {
    let scene = scene();
    // Each receiver waits until the other one is at work, too.
    scene.instead(&format!(
        "if [ \"$1\" = receive ]; then mkdir -p '{0}'; touch '{0}'/$$; n=0; while [ $(ls '{0}' | wc -l) -lt 2 ]; do sleep 0.1; n=$((n+1)); [ $n -lt 300 ] || exit 1; done; fi",
        scene.machine.path("met").display()
    ));
    for round in ["first copies", "differences"] {
        let _ = fs::remove_dir_all(scene.machine.path("met"));
        let report = scene.run().expect(0).json();
        let targets = report["jobs"][0]["targets"].as_array().unwrap();
        let names: Vec<_> =
            targets.iter().map(|target| target["target"].as_str().unwrap()).collect();
        assert_eq!(names, TARGETS, "{report}");
        TARGETS.iter().for_each(|target| scene.assert_has_all(target));
        assert_eq!(scene.source.snapshots().len(), 1, "{round}");
        assert_eq!((scene.asked("send"), scene.asked("receive")), (2, 2), "{round}");
        scene.assert_nothing_left(round);
        scene.change();
    }
    scene.configure("");
    let mut reached = (0, 0);
    for (round, stop_at) in (3..).step_by(2).enumerate().take(12) {
        let is_killed = round % 2 == 0;
        let (name, code) = if is_killed { ("KILL", None) } else { ("TERM", Some(143)) };
        scene.change();
        let newest = TARGETS.map(|name| scene.machine.copies(name).pop().unwrap());
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
        for (name, id) in TARGETS.iter().zip(newest) {
            assert!(scene.machine.copies(name).contains(&id), "{after}: {name} has lost {id}");
        }
        scene.machine.run(&["run"]).expect(0);
        TARGETS.iter().for_each(|target| scene.assert_has_all(target));
        scene.assert_nothing_left(&after);
    }
    println!("killed {} times, stopped {} times", reached.0, reached.1);
    assert!(reached.0 >= 4 && reached.1 >= 4, "too late: {reached:?}");
    scene.machine.run(&["check"]).expect(0);
}
