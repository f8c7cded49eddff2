//! Subvolumes that are pulled from another machine, on which sshd and btrfs-progs are and no Stillpoint: two btrfs on loop
//! devices, and an sshd of our own in between, which lets in an account that may do what sudo lets it.

use std::fs;
use std::ops::Deref;
use std::path::Path;

use crate::bench_machine::{
    assert_same_tree, family_of, fill, kill_one_of, must, processes_about, torture,
};
use crate::btrfs::inside;
use crate::sshd::{Account, Line, Sshd};
use crate::subvolumes::{self, configure, disks};

/// What sudo lets the account run, as the README says.
const PROGRAMS: &str =
    "/usr/bin/btrfs, /usr/bin/stat, /usr/bin/mkdir, /usr/bin/rmdir, /usr/bin/sync";

/// A job that pulls the subvolume `disk/home`, whose copies go to `copies/t`.
struct Scene {
    // In this order: who works on the disks goes before them.
    line: Line,
    sshd: Sshd,
    account: Account,
    base: subvolumes::Scene,
}

impl Deref for Scene {
    type Target = subvolumes::Scene;

    fn deref(&self) -> &subvolumes::Scene {
        &self.base
    }
}

fn scene() -> Scene {
    let base = disks("t", 600);
    let account = Account::new();
    account.may_run(PROGRAMS);
    let sshd = Sshd::start(&["key"], |_, public| public.to_owned());
    let line = sshd.line("key", &account.name);
    let scene = Scene { line, sshd, account, base };
    scene.configure("", "");
    scene.machine.run(&["init", "t"]).expect(0);
    scene
}

impl Scene {
    fn configure(&self, target: &str, source: &str) {
        self.configure_as(&self.line.words, target, &format!("remote-sudo = true\n{source}"));
    }

    fn configure_as(&self, ssh: &[String], target: &str, source: &str) {
        let (port, login) = (self.sshd.port, &self.account.name);
        let text = format!(
            "[targets.t.btrfs]\nlocation = \"{{root}}/copies/t\"\n{target}\n\
             [jobs.far]\ntargets = [\"t\"]\n[jobs.far.subvolumes]\nhost = \"ssh://{login}@127.0.0.1:{port}\"\nsnapshots = \"{{root}}/disk/.stillpoint\"\nssh-command = {ssh:?}\npaths = [\"{{root}}/disk/home\"]\n{source}"
        );
        configure(&self.machine, &text);
    }

    /// The snapshots of ours on that machine.
    fn kept(&self) -> usize {
        fs::read_dir(self.disk.at.join(".stillpoint")).map_or(0, Iterator::count)
    }
}

#[test]
fn what_is_pulled_is_what_is_there_and_one_snapshot_stays() {
    let scene = scene();
    let machine = &scene.machine;
    // Whoever else makes snapshots there keeps them.
    let foreign = scene.disk.path("foreign");
    torture(&scene.home());
    fill(scene.home().join("big"), 20);
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &foreign]);
    machine.run(&["check-config", "--online"]).expect(0);
    machine.run(&["plan"]).expect(0).says("sudo -n btrfs subvolume snapshot -r --");
    assert_eq!(scene.kept(), 0);
    let (first, sent) = scene.run();
    assert!(sent > 20 << 20, "{sent}");
    assert!(first.starts_with("far@127_2e0_2e0_2e1."), "{first}");
    assert_same_tree(&scene.home(), &scene.copy(&first));
    assert_eq!(scene.kept(), 1);
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    fs::remove_file(scene.home().join("empty")).unwrap();
    let (second, sent) = scene.run();
    assert!(sent < 1 << 20, "a line was sent as {sent} bytes");
    assert_same_tree(&scene.home(), &scene.copy(&second));
    assert_eq!(scene.kept(), 1);
    assert_eq!(machine.copies("t"), [&*first, &*second]);
    assert!(Path::new(&foreign).exists());

    // What is restored is restored here, and never in the place of what happens to have that path.
    machine
        .run(&["restore", "far", &second, "--in-place", "--yes"])
        .expect(2)
        .says("its place is there");
    machine
        .run(&["restore", "far", &second, "--as-subvolume", "--in-place", "--yes"])
        .expect(2)
        .says("its place is there");
    machine.run(&["diff", "far", &second, "live"]).expect(2).says("its place is there");
    let to = machine.path("back");
    fs::create_dir(&to).unwrap();
    machine.run(&["restore", "far", "latest", "--to", to.to_str().unwrap()]).expect(0);
    assert_same_tree(&inside(&to, scene.home()), &scene.copy(&second));
    let verified = machine.run(&["verify", "far"]).expect(12);
    verified.says("no damage found").says("from which it was pulled");
    machine.run(&["estimate", "far"]).expect(0).says("home");

    // What lies in it is told.
    must("btrfs", &["-q", "subvolume", "create", &scene.disk.path("home/inner")]);
    machine.run(&["run"]).says("holds other subvolumes").says("home/inner");
    scene.configure("", "leave-out = [\"{root}/disk/home/inner\"]");
    scene.run();
    machine.assert_clean_except(&machine.path(""));
}

#[test]
fn whatever_is_killed_on_either_side_the_next_run_is_whole_and_nothing_is_left() {
    let scene = scene();
    fill(scene.home().join("big"), 4);
    let receiver = format!("btrfs receive -q -C -- {}", scene.copies.path("t"));
    let there = scene.disk.path(".stillpoint");
    let victims = ["stillpoint -c", "ssh -F none", "sender there", &*receiver];
    for (round, victim) in victims.into_iter().enumerate() {
        // What lies in buffers on the way needs no sender any more.
        let (size, patience) = if victim == "sender there" { (24, 0) } else { (4, round) };
        fill(scene.home().join(format!("new-{round}")), size);
        let before = scene.machine.copies("t");
        scene.configure("upload-limit = 2000", "");
        let is_killed = kill_one_of(&scene.machine, &["run"], patience, |id| {
            let family = family_of(id);
            let receives = family.iter().any(|it| it.contains(&receiver));
            // ssh has the words of the sender there in its own command line.
            let is_sender = |it: &String| {
                it.split_once(": ").is_some_and(|(_, words)| words.starts_with("btrfs send -q"))
            };
            let found = match victim {
                "sender there" => processes_about(&there).into_iter().find(is_sender),
                _ => family.into_iter().find(|it| it.contains(victim)),
            };
            found.filter(|_| receives)
        });
        scene.configure("", "");
        assert!(is_killed, "{victim}");
        // A run that sent all again when its difference came to nothing has made a copy.
        for copy in scene.machine.copies("t").iter().filter(|copy| !before.contains(copy)) {
            assert_same_tree(&scene.home(), &scene.copy(copy));
        }
        if victim.starts_with("stillpoint") {
            scene.machine.run(&["recover"]).expect(0);
            assert_eq!(scene.kept(), 0, "what was made there is gone");
        }
        let (copy, _) = scene.run();
        assert_same_tree(&scene.home(), &scene.copy(&copy));
        assert_eq!(scene.kept(), 1, "{victim}");
    }
    assert!(scene.machine.copies("t").len() >= victims.len());
}

#[test]
fn what_stands_in_the_way_there_is_said_and_keeps_nothing_else_from_its_turn() {
    let scene = scene();
    let machine = &scene.machine;
    fs::write(scene.home().join("x"), "x").unwrap();
    let (copy, _) = scene.run();
    let run = || machine.run(&["run"]);

    scene.account.may_run("/usr/bin/cat");
    run().says("sudo there does not run it");
    scene.account.may_run(PROGRAMS);
    scene.configure_as(&scene.line.words, "", "");
    run().says("may not do it there").says("remote-sudo = true");
    scene.configure("", "remote-program = \"/nowhere/btrfs\"");
    run().says("sudo there does not run it");
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &scene.sshd.path("odd")]);
    scene.configure_as(&scene.sshd.ssh("odd"), "", "remote-sudo = true");
    run().says("is not reached by ssh").says("Permission denied");
    fs::rename(scene.sshd.path("known"), scene.sshd.path("unknown")).unwrap();
    scene.configure_as(&scene.sshd.ssh("key"), "", "remote-sudo = true");
    run().says("is not reached by ssh").says("Host key verification failed");
    scene.configure("", "");

    // Others could change what is there, or look into it.
    let directory = scene.disk.path(".stillpoint");
    for (mode, said) in [("0755", "others may look into"), ("0720", "may be changed by others")] {
        must("chmod", &[mode, &directory]);
        run().says(said);
    }
    must("chmod", &["0700", &directory]);
    must("chown", &["1:0", &directory]);
    run().says("belongs to user 1");
    must("chown", &["0:0", &directory]);

    // Its disk is away.
    scene.disk.unmount();
    for _ in 0..2 {
        run().expect(4).says("is no subvolume");
    }
    scene.disk.mount();
    assert_eq!(machine.copies("t"), [&*copy]);
    assert_eq!(scene.kept(), 1);
    fs::write(scene.home().join("x"), "y").unwrap();
    let (_, sent) = scene.run();
    assert!(sent < 1 << 16, "it went on as a difference: {sent}");
}
