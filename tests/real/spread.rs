//! A subvolume that goes to two targets at the same time, each on a btrfs of its own: whole, stopped and killed midway.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use crate::bench_machine::{
    PROGRAM, Ran, assert_same_tree, command, family_of, fill, names_in, run_and_kill_one_of,
};
use crate::btrfs::inside;
use crate::parallel::{Scene, TARGETS};
use crate::subvolumes::{closed_directory, configure};

fn scene() -> Scene {
    scene_of([600, 600])
}

/// The same, with targets of this many megabytes.
fn scene_of(sizes: [u64; 2]) -> Scene {
    let scene = Scene::sized(&["home"], sizes);
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

    /// Both targets are given up when nothing moves for so long.
    fn with_stall_timeout(&self, limit: &str) {
        let wrapper = self.machine.path("btrfs-instead");
        self.configure(&format!(
            "program = \"{}\"\nstall-timeout = \"{limit}\"",
            wrapper.display()
        ));
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
        assert_eq!((scene.asked("send"), scene.asked("receive")), (1, 2), "{round}");
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

#[test]
fn a_target_that_has_no_room_leaves_the_other_its_copy() {
    let scene = scene_of([130, 600]);
    fill(scene.source.path("home/large"), 200);
    scene.instead("");
    let report = scene.run();
    let code = report.code;
    let report = report.json();
    let outcomes: Vec<_> = report["jobs"][0]["targets"].as_array().unwrap().iter().collect();
    assert_eq!((code, scene.asked("send"), scene.asked("receive")), (Some(10), 1, 2), "{report:#}");
    assert_eq!(outcomes[0]["outcome"], "failed", "{report:#}");
    assert_eq!(outcomes[1]["outcome"], "ok", "{report:#}");
    assert_eq!(scene.machine.copies("left"), [] as [String; 0]);
    scene.assert_has_all("right");
    scene.assert_nothing_left("a full target");
}

#[test]
fn of_a_shared_sender_that_dies_there_is_no_copy() {
    let scene = scene();
    for how in [
        // In the midst, by a signal; and by itself.
        "/usr/bin/btrfs \"$@\" | head -c 9000000; kill -9 $$",
        "/usr/bin/btrfs \"$@\" | head -c 9000000; exit 1",
        // When all is sent.
        "/usr/bin/btrfs \"$@\"; exit 1",
        "/usr/bin/btrfs \"$@\"; kill -9 $$",
        // Before anything is.
        "exit 1",
    ] {
        scene.instead(&format!("if [ \"$1\" = send ]; then {how}; fi"));
        let ran = scene.run();
        assert_eq!(ran.code, Some(10), "{how}");
        assert_eq!((scene.asked("send"), scene.asked("receive")), (1, 2), "{how}");
        for target in TARGETS {
            assert_eq!(scene.machine.copies(target), [] as [String; 0], "{how}");
        }
        ran.says("send");
        scene.assert_nothing_left(how);
    }
    scene.instead("");
    scene.run().expect(0);
    TARGETS.iter().for_each(|target| scene.assert_has_all(target));
}

#[test]
fn who_takes_nothing_is_sent_to_alone_and_the_other_one_goes_on() {
    let scene = scene();
    scene.instead(&format!(
        "case \"$1 $*\" in receive*left*) if ! [ -e '{0}' ]; then touch '{0}'; kill -STOP $$; fi;; esac",
        scene.machine.path("stopped").display()
    ));
    scene.with_stall_timeout("20s");
    let report = scene.run().expect(0).json();
    assert_eq!((scene.asked("send"), scene.asked("receive")), (2, 3), "{report:#}");
    let steps = report["jobs"][0]["steps"].as_array().unwrap();
    let stored: Vec<_> = steps.iter().filter(|step| step["step"] == "backup").collect();
    let detail = |at: usize| stored[at]["detail"].as_str().unwrap();
    assert!(detail(0).contains("for this target alone"), "{report:#}");
    assert!(!detail(1).contains("for this target alone"), "{report:#}");
    assert!(stored[1]["seconds"].as_f64() < stored[0]["seconds"].as_f64(), "{report:#}");
    TARGETS.iter().for_each(|target| scene.assert_has_all(target));
    scene.assert_nothing_left("a receiver that stood still");
}

#[test]
fn when_sharing_itself_fails_each_is_sent_to_alone() {
    for victim in ["share-stream", "take-shared"] {
        let scene = scene();
        // Slow enough to be met.
        scene.instead(
            "if [ \"$1\" = send ]; then /usr/bin/btrfs \"$@\" | (head -c 1000000; sleep 2; cat); exit 0; fi",
        );
        let (killed, ended) = run_and_kill_one_of(&scene.machine, &["run"], 0, |id| {
            family_of(id).into_iter().find(|line| line.contains(victim))
        });
        assert_eq!((killed, ended.code()), (true, Some(0)), "{victim}");
        TARGETS.iter().for_each(|target| scene.assert_has_all(target));
        scene.assert_nothing_left(victim);
    }
}

#[test]
fn a_sender_that_works_and_says_nothing_is_no_stalled_one() {
    let scene = scene();
    // In the group of the sender, and about the machine: so it must go with the sender, and is seen when it does not.
    let about = scene.machine.path("").display().to_string();
    let works = |seconds: u32| {
        format!("timeout --foreground {seconds} sh -c 'while :; do :; done' '{about}'")
    };
    // For longer than anything may stand still.
    scene.instead(&format!("if [ \"$1\" = send ]; then {}; fi", works(14)));
    scene.with_stall_timeout("5s");
    let report = scene.run().expect(0).json();
    assert_eq!((scene.asked("send"), scene.asked("receive")), (1, 2), "{report:#}");
    TARGETS.iter().for_each(|target| scene.assert_has_all(target));
    // Nobody waits for it when nobody is there any more to take what it sends.
    scene.instead(&format!("case \"$1\" in send) {};; receive) exit 1;; esac", works(3600)));
    scene.with_stall_timeout("5s");
    scene.change();
    scene.run().expect(10);
    scene.assert_nothing_left("receivers that fail at once");
}

#[test]
fn a_receiver_that_works_and_reads_nothing_makes_no_stalled_sender() {
    let scene = scene();
    let [ready, gone] = ["ready", "gone"].map(|name| scene.machine.path(name));
    let (ready, gone) = (ready.display(), gone.display());
    // Nothing is sent before one of the two has failed, so the other one keeps nobody waiting. In the midst it works for
    // longer than anything may stand still; more is to come than fits into all the pipes.
    scene.instead(&format!(
        "case \"$1 $*\" in
receive*left*) touch '{gone}'; exit 1;;
receive*) touch '{ready}'; timeout --foreground 14 sh -c 'while :; do :; done';;
send*) n=0; until [ -e '{ready}' ] && [ -e '{gone}' ]; do sleep 0.1; n=$((n+1)); [ $n -lt 300 ] || exit 1; done; sleep 1;;
esac"
    ));
    scene.with_stall_timeout("5s");
    let report = scene.run();
    let code = report.code;
    let report = report.json();
    assert_eq!((scene.asked("send"), scene.asked("receive")), (1, 2), "{report:#}");
    let outcomes: Vec<_> = report["jobs"][0]["targets"].as_array().unwrap().iter().collect();
    assert_eq!((code, &outcomes[0]["outcome"]), (Some(10), &"failed".into()), "{report:#}");
    assert_eq!(outcomes[1]["outcome"], "ok", "{report:#}");
    scene.assert_has_all("right");
    scene.assert_nothing_left("a receiver that read nothing for long");
}

/// A subvolume goes to a directory of stored streams and to one of subvolumes.
#[test]
fn a_stored_stream_is_shared_as_one_and_has_its_own_sender_in_parts() {
    let scene = scene();
    scene.instead("");
    let [streams, scratch] = ["s", "scratch"].map(|name| scene.disk("left").path(name));
    closed_directory(&streams);
    closed_directory(&scratch);
    let program = scene.machine.path("btrfs-instead");
    let program = program.display();
    // Both get the very same: all of it, and then the same difference.
    for (part, sent) in [(1, 2), (0, 1)] {
        configure(
            &scene.machine,
            &format!(
                "parallel-targets = 2
[targets.stored.streams]
directory = \"{streams}\"
scratch = \"{scratch}\"
program = \"{program}\"
part-size = {part}
[targets.right.btrfs]
location = \"{{root}}/disks/right/t\"
program = \"{program}\"
[jobs.home]
targets = [\"stored\", \"right\"]
subvolumes.paths = [\"{{root}}/disks/source/home\"]
"
            ),
        );
        scene.machine.run(&["init", "stored"]);
        let report = scene.run().expect(0).json();
        assert_eq!((scene.asked("send"), scene.asked("receive")), (sent, 1), "{report:#}");
        scene.assert_has_all("right");
        let newest = scene.machine.copies("stored").pop().unwrap();
        let objects = names_in(Path::new(&streams));
        let objects = objects.iter().filter(|it| it.starts_with(&format!("{newest}.btrfs")));
        assert_eq!(objects.count() > 1, part > 0, "{report:#}");
        let back = scene.machine.path(&format!("back{part}"));
        fs::create_dir(&back).unwrap();
        let to = back.to_str().unwrap();
        scene.machine.run(&["restore", "home", "--target", "stored", "--to", to]).expect(0);
        let home = scene.source.path("home");
        assert_same_tree(Path::new(&home), &inside(&back, &home));
        scene.change();
    }
}

/// Whoever stands behind it finds it as they would find the sender: it is to blame for nothing when nobody reads, and tells
/// when the stream is not whole.
#[test]
fn what_takes_a_shared_stream_ends_as_its_sender_would() {
    let piece = [&1000_u32.to_be_bytes()[..], &[7; 1000]].concat();
    let (alive, end) = ([0xff; 4], [0; 4]);
    let taking = |given: &[u8], is_read: bool| {
        let mut taker = command(PROGRAM);
        taker.arg("take-shared").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = taker.stderr(Stdio::piped()).spawn().unwrap();
        if !is_read {
            drop(child.stdout.take());
        }
        child.stdin.take().unwrap().write_all(given).unwrap();
        child.wait_with_output().unwrap()
    };
    let ended = taking(&[&alive[..], &piece, &alive, &end].concat(), true);
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &piece[4..]), "{ended:?}");
    let ended = taking(&[&piece[..], &alive].concat(), true);
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(1), &piece[4..]), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains(r#"{"torn":true}"#), "{ended:?}");
    let ended = taking(&piece, false);
    assert_eq!((ended.status.signal(), &ended.stderr[..]), (Some(13), &b""[..]), "{ended:?}");
}
