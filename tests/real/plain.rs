//! Subvolumes that are sent to another machine, on which btrfs-progs are and no Stillpoint: two btrfs on loop devices, and an
//! sshd of our own in between, which lets in an account that may do what sudo lets it.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::bench_machine::{
    assert_same_tree, command, family_of, fill, kill_one_of, must, processes_about, torture,
};
use crate::btrfs::inside;
use crate::sshd::{Account, Line, Sshd};
use crate::subvolumes::{self, configure, disks, made};

/// What sudo lets the account run, as the README says.
const PROGRAMS: &str = "/usr/bin/btrfs, /usr/bin/cat, /usr/bin/dd, /usr/bin/find, /usr/bin/mkdir, /usr/bin/mv, /usr/bin/rm, /usr/bin/stat, /usr/bin/sync, /usr/bin/tar";

/// The directory of copies: what a shell makes of its name must not happen.
const ODD: &str = "it's $(touch x) `touch x`; *";

/// A job on the subvolume `disk/home`, whose copies go to a directory of `copies` behind ssh.
pub struct Scene {
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

pub fn scene(directory: &'static str, megabytes: u64) -> Scene {
    let base = disks(directory, megabytes);
    let account = Account::new();
    account.may_run(PROGRAMS);
    let sshd = Sshd::start(&["key"], |_, public| public.to_owned());
    let line = sshd.line("key", &account.name);
    let scene = Scene { line, sshd, account, base };
    scene.configure("");
    scene.machine.run(&["init", "t"]).expect(0);
    scene
}

impl Scene {
    fn configure(&self, target: &str) {
        self.configure_as(&self.line.words, "remote-sudo = true", target);
    }

    fn configure_as(&self, ssh: &[String], sudo: &str, target: &str) {
        let (port, login, directory) = (self.sshd.port, &self.account.name, self.directory);
        let text = format!(
            "[targets.t.btrfs]\nlocation = \"ssh://{login}@127.0.0.1:{port}{{root}}/copies/{directory}\"\nremote-side = \"btrfs-progs\"\nssh-command = {ssh:?}\n{sudo}\n{target}\n\
             [jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{{root}}/disk/home\"]\n"
        );
        configure(&self.machine, &text);
    }

    /// What there is of records.
    fn records(&self) -> usize {
        fs::read_dir(self.target().join(".stillpoint/copies")).unwrap().count()
    }
}

/// Asserts that a shell reads words in a line and does nothing else.
#[track_caller]
fn assert_words(line: &str) {
    let mut is_quoted = false;
    let mut rest = line.chars();
    while let Some(next) = rest.next() {
        match next {
            '\'' => is_quoted = !is_quoted,
            '\\' if !is_quoted => assert!(matches!(rest.next(), Some('\'' | '\\')), "{line}"),
            other => assert!(
                is_quoted
                    || other == ' '
                    || other.is_ascii_alphanumeric()
                    || "-_./:=@%+,".contains(other),
                "{other:?} in {line}"
            ),
        }
    }
    assert!(!is_quoted, "{line}");
    assert!(line.starts_with("env LC_ALL=C "), "{line}");
}

#[test]
fn copies_there_are_as_those_on_this_machine_and_the_shell_is_given_words_alone() {
    let scene = scene(ODD, 600);
    let machine = &scene.machine;
    machine.run(&["init", "t"]).expect(10).says("already a repository");
    machine.run(&["check-config", "--online"]).expect(0);
    torture(&scene.home());
    let odd = scene.home().join(OsStr::from_bytes(b"-a'b\n$(touch x)\xe9"));
    fs::write(&odd, "odd\n").unwrap();
    for n in 0..150 {
        let directory = scene.home().join(format!("many/{n:0240}"));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700 + n % 8)).unwrap();
        fs::write(directory.join("x"), n.to_string()).unwrap();
    }
    fill(scene.home().join("big"), 20);
    let (first, sent) = scene.run();
    assert!(sent > 20 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&first));
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    fs::remove_file(scene.home().join("empty")).unwrap();
    machine.run(&["plan"]).expect(0).says("sudo -n btrfs receive -q -C --");
    assert_eq!(scene.there(), [&*first]);
    let (second, sent) = scene.run();
    assert!(sent < 1 << 20, "a line was sent as {sent} bytes");
    assert_same_tree(&scene.home(), &scene.copy(&second));
    assert_eq!(machine.copies("t"), [&*first, &*second]);

    // More names than a shell takes, in more directories.
    let names: Vec<String> =
        (0..150).map(|n| scene.disk.path(&format!("home/many/{n:0240}/x"))).collect();
    let to = machine.path("many");
    fs::create_dir(&to).unwrap();
    let mut words = vec!["restore", "home", &*second];
    words.extend(names.iter().map(String::as_str));
    machine.run(&[&*words, &["--to", to.to_str().unwrap()]].concat()).expect(0);
    let back = inside(&to, scene.home().join("many"));
    assert_same_tree(&back, &scene.copy(&second).join("many"));

    let to = machine.path("back");
    fs::create_dir(&to).unwrap();
    machine.run(&["restore", "home", &first, "--to", to.to_str().unwrap()]).expect(0);
    let back = inside(&to, scene.home());
    assert_same_tree(&back, &scene.copy(&first));
    let plain = scene.disk.path("home/plain");
    assert_eq!(machine.run(&["restore", "home", &plain, "--stdout"]).expect(0).stdout, "changed\n");
    fs::write(&odd, "lost").unwrap();
    let args = ["restore", "home", &second].map(OsStr::new);
    let restored = machine.command(&[]).args(args).arg(&odd).args(["--in-place", "--yes"]).status();
    assert!(restored.unwrap().success());
    assert_eq!(fs::read_to_string(&odd).unwrap(), "odd\n");
    machine.run(&["find", "empty"]).expect(0).says(&first);
    let diff = machine.run(&["diff", "home", &first, &second]).expect(0);
    assert!(diff.stdout.contains("home/empty"), "{}", diff.stdout);
    machine.run(&["verify", "home"]).expect(12).says("no Stillpoint is where the copy lies");
    machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0).says("all data of 2");
    let whole = scene.disk.path("back");
    machine.run(&["restore", "home", &second, "--as-subvolume", "--to", &whole]).expect(0);
    assert_same_tree(Path::new(&whole), &scene.copy(&second));

    machine.run(&["pin", "home", &first]).expect(0);
    scene.configure("[targets.t.keep]\nlast = 1");
    machine.run(&["prune", "--accept"]).expect(0);
    assert_eq!(scene.there(), [&*first, &*second]);
    machine.run(&["unpin", "home", &first]).expect(0);
    // What another machine is just about to rename stays, and what nobody will.
    let own = scene.target().join(".stillpoint");
    let fresh = own.join(".target.json.0123456789abcdef");
    let old = own.join(format!("copies/.{second}.json.0123456789abcdef"));
    for draft in [&fresh, &old] {
        fs::write(draft, "{").unwrap();
    }
    must("touch", &["-d", "25 hours ago", old.to_str().unwrap()]);
    machine.run(&["prune"]).expect(0);
    assert_eq!((scene.there(), scene.records()), (vec![second.clone()], 1));
    assert!(fresh.exists());

    // The disk comes into this machine, and goes on.
    scene.base.configure("", "");
    assert_eq!(machine.copies("t"), [&*second]);
    machine.run(&["check", "--target", "t"]).expect(0);
    fs::write(scene.home().join("plain"), "here\n").unwrap();
    let (third, sent) = scene.run();
    assert!(sent < 1 << 20, "a line was sent as {sent} bytes");

    // And back, with what was adopted here, in a directory of its own and beside names that are no text.
    let (snapshot, nested) = (scene.disk.path("snapshot"), scene.copy("12"));
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &snapshot]);
    fs::create_dir(&nested).unwrap();
    let stream = machine.path("stream");
    must("btrfs", &["-q", "send", "-f", stream.to_str().unwrap(), &snapshot]);
    must("btrfs", &["-q", "receive", "-f", stream.to_str().unwrap(), nested.to_str().unwrap()]);
    for odd in [&b"\xff\n256 d x"[..], b"12\xff"] {
        let odd = scene.target().join(OsStr::from_bytes(odd));
        let made = command("btrfs").args(["-q", "subvolume", "create"]).arg(&odd).status();
        assert!(made.unwrap().success());
    }
    let adopt =
        ["adopt", "t", "12/*", "--job", "home", "--item", &scene.disk.path("home"), "--yes"];
    machine.run(&adopt).expect(0);
    let adopted = "12/snapshot".to_owned();
    scene.configure("");
    let copies = machine.copies("t");
    assert_eq!(copies.len(), 3);
    assert!(copies.contains(&adopted) && copies.contains(&third), "{copies:?}");
    machine.run(&["check", "--target", "t"]).expect(0);
    let plain = scene.disk.path("home/plain");
    let printed = machine.run(&["restore", "home", &adopted, &plain, "--stdout"]).expect(0);
    assert_eq!(printed.stdout, "here\n");
    machine.run(&["unpin", "home", &adopted]).expect(0);
    fs::write(scene.home().join("plain"), "back\n").unwrap();
    // Nobody has compared what was adopted, so it is no base, and that is a warning.
    let ran = machine.run(&["--json", "run"]).expect(12);
    assert!(ran.stdout.contains("another program received that one"), "{}", ran.stdout);
    let (_, sent) = made(&ran);
    assert!(sent < 1 << 20, "a line was sent as {sent} bytes");
    must("chown", &["1", nested.to_str().unwrap()]);
    machine.run(&["prune", "--target", "t", &adopted]).expect(4).says("belongs to user 1 there");
    must("chown", &["0", nested.to_str().unwrap()]);
    machine.run(&["prune", "--target", "t", &adopted]).expect(0);
    assert!(!scene.copy(&adopted).exists());
    assert_eq!(machine.copies("t").len(), 3);

    let given = scene.account.given();
    assert!(given.len() > 50, "{given:#?}");
    given.iter().for_each(|line| assert_words(line));
    assert!(!Path::new(&scene.account.path("x")).exists());
    machine.assert_clean_except(&machine.path(""));
}

#[test]
fn whatever_is_killed_on_either_side_the_next_run_is_whole_and_nothing_is_left() {
    let scene = scene("t", 600);
    fill(scene.home().join("big"), 8);
    let copies = scene.copies.path("t");
    let receiver = format!("btrfs receive -q -C -- {copies}");
    let victims = [&*receiver, "ssh -F none", "stillpoint -c", "pass-stream", "btrfs send"];
    // ssh has its words in its own command line.
    let receives =
        |it: &String| it.split_once(": ").is_some_and(|(_, words)| words.starts_with(&receiver));
    for (round, victim) in victims.into_iter().enumerate() {
        // Each time a little later in the life of the receiver. What lies in buffers on the way needs no sender any more.
        let (size, patience) = if victim == "btrfs send" { (24, 0) } else { (8, round.min(3)) };
        fill(scene.home().join(format!("new-{round}")), size);
        scene.configure("upload-limit = 3000");
        let is_killed = kill_one_of(&scene.machine, &["run"], patience, |id| {
            let found = processes_about(&copies).into_iter().find(receives)?;
            match victim == receiver {
                true => Some(found),
                false => family_of(id).into_iter().find(|it| it.contains(victim)),
            }
        });
        assert!(is_killed, "{victim}");
        scene.configure("");
        let (copy, _) = scene.run();
        assert_same_tree(&scene.home(), &scene.copy(&copy));
        let there = scene.there();
        assert!(there.iter().all(|name| !name.starts_with('.')), "{victim}: {there:?}");
        assert_eq!((scene.machine.copies("t").len(), scene.records()), (there.len(), there.len()));
    }
    // One that was killed too late has made its copy.
    assert!(scene.there().len() >= victims.len());
}

#[test]
fn what_stands_in_the_way_there_is_said_and_changes_nothing() {
    let scene = scene("t", 200);
    let machine = &scene.machine;
    fs::write(scene.home().join("x"), "x").unwrap();
    let (copy, _) = scene.run();
    let list = || machine.run(&["list"]);

    scene.account.may_run("/usr/bin/cat");
    list().says("sudo there does not run it");
    scene.account.may_run(PROGRAMS);
    scene.configure_as(&scene.line.words, "", "");
    list().says("may not do it there").says("remote-sudo = true");
    scene.configure("remote-program = \"/nowhere/btrfs\"");
    machine.run(&["run"]).says("sudo there does not run it");
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &scene.sshd.path("odd")]);
    scene.configure_as(&scene.sshd.ssh("odd"), "remote-sudo = true", "");
    list().says("cannot reach the repository ssh://").says("Permission denied");
    fs::rename(scene.sshd.path("known"), scene.sshd.path("unknown")).unwrap();
    scene.configure_as(&scene.sshd.ssh("key"), "remote-sudo = true", "");
    list().says("cannot reach the repository").says("Host key verification failed");
    scene.configure("");

    // Others can go there, or put something there, or it is somebody's.
    let directory = scene.copies.path("t");
    must("chmod", &["0755", &directory]);
    machine.run(&["run"]).says("others can go into");
    must("chmod", &["0720", &directory]);
    list().says("may be changed by others");
    must("chmod", &["0700", &directory]);
    must("chown", &["1:0", &directory]);
    list().says("belongs to user 1");
    must("chown", &["0:0", &directory]);
    assert_eq!(machine.copies("t"), [&*copy]);

    // Somebody reads what is to go.
    fill(scene.home().join("big"), 20);
    let (read, _) = scene.run();
    fs::remove_file(scene.home().join("big")).unwrap();
    let (last, _) = scene.run();
    let kept = || vec![copy.clone(), last.clone()];
    let mut reader = command("btrfs")
        .args(["-q", "send"])
        .arg(scene.copy(&read))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It sends, and goes no further than a pipe takes.
    reader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let prune = ["prune", "--target", "t", &*read];
    machine.run(&prune).expect(11).says("if somebody reads it, the next run deletes it");
    assert!(machine.copies("t").contains(&read));
    reader.kill().unwrap();
    reader.wait().unwrap();
    machine.run(&prune).expect(0);
    assert_eq!(scene.there(), kept());

    // The file system is mounted anew before what was sent to it is on the disk.
    fs::write(scene.home().join("x"), "y").unwrap();
    scene.account.pauses_at("sync -f");
    let run =
        machine.command(&["run"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    scene.account.await_pause();
    scene.copies.unmount();
    scene.copies.mount();
    scene.account.go_on();
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("was mounted anew"), "{said}");
    assert_eq!((machine.copies("t"), scene.there(), scene.records()), (kept(), kept(), 2));

    // What does not fit leaves nothing.
    fill(scene.home().join("big"), 300);
    machine.run(&["run"]).expect(10).says("no space is left");
    assert_eq!((scene.there(), scene.records()), (kept(), 2));
    fs::remove_file(scene.home().join("big")).unwrap();

    // The disk is away, and a stranger's is there; and one of no btrfs that somebody has copied the files to.
    let marker = fs::read(scene.copies.at.join("t/.stillpoint/target.json")).unwrap();
    scene.copies.unmount();
    fs::create_dir(&directory).unwrap();
    must("chmod", &["0700", &directory]);
    machine.run(&["run"]).expect(10).says("stillpoint init");
    assert_eq!(scene.there(), [] as [&str; 0]);
    fs::create_dir_all(scene.copies.at.join("t/.stillpoint/copies")).unwrap();
    fs::write(scene.copies.at.join("t/.stillpoint/target.json"), &marker).unwrap();
    machine.run(&["run"]).says("is on no btrfs");
    assert_eq!(scene.there(), [] as [&str; 0]);
    fs::remove_dir_all(&directory).unwrap();
    scene.copies.mount();
    let other = String::from_utf8(marker.clone()).unwrap().replace("\"id\": \"", "\"id\": \"0");
    fs::write(scene.copies.at.join("t/.stillpoint/target.json"), other).unwrap();
    let before = scene.there();
    assert_ne!(machine.run(&["run"]).code, Some(0), "another disk went unnoticed");
    assert_eq!(scene.there().iter().filter(|it| before.contains(it)).count(), before.len());
    fs::write(scene.copies.at.join("t/.stillpoint/target.json"), marker).unwrap();

    // A link leads elsewhere than anybody looked, at the end of the way or on it.
    std::os::unix::fs::symlink(&directory, scene.copies.path("link")).unwrap();
    std::os::unix::fs::symlink(&scene.copies.at, scene.copies.path("above")).unwrap();
    let toml = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    for (by, link) in [("/copies/link", "copies/link"), ("/copies/above/t", "copies/above")] {
        let toml = toml.replace("/copies/t\"", &format!("{by}\""));
        machine.write("stillpoint.toml", &toml, 0o600);
        list().says(&format!("{link} is a link there"));
    }
}
