//! A subvolume that goes to two targets at the same time, each on a btrfs of its own: whole, stopped and killed midway.

use std::fs;
use std::path::Path;

use crate::bench_machine::{Ran, assert_same_tree};
use crate::parallel::{Scene, TARGETS};
use crate::subvolumes::configure;

fn scene() -> Scene {
    let scene = Scene::new(&["home"]);
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

    fn run(&self) -> Ran {
        let _ = fs::remove_file(self.machine.path("asked"));
        self.machine.run(&["--json", "run"])
    }

    /// The newest copy of a target is what the source is now.
    #[track_caller]
    fn assert_has_all(&self, target: &str) {
        let newest = self.machine.copies(target).pop().unwrap();
        let copy = self.disk(target).path(&format!("t/{newest}"));
        assert_same_tree(Path::new(&self.source.path("home")), Path::new(&copy));
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
    scene.survives_signals(
        12,
        || scene.change(),
        |after| {
            TARGETS.iter().for_each(|target| scene.assert_has_all(target));
            scene.assert_nothing_left(after);
        },
    );
}
