//! Subvolumes that are sent to another machine, on which Stillpoint answers: two btrfs on loop devices, and an sshd of
//! our own in between.

use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use stillpoint::tools::btrfs::stream::{attribute, header, kind};

use crate::as_subvolume::falsify;
use crate::bench_machine::{
    PROGRAM, Ran, assert_same_tree, command, family_of, kill_one_of, manifest, moments, must,
    processes_about, torture, wait_for_no_process_about,
};
use crate::btrfs::inside;
use crate::sshd::Sshd;
use crate::subvolumes::{
    self, closed_directory, configure, disks, set_read_only, shown, too_deep, uuid,
};

/// The name of a key's file, and what the key may do; with the rules of the server, where it has some.
const KEYS: [(&str, &str); 6] = [
    ("all", "init,list,receive,check,restore,delete,adopt"),
    ("push", "list,receive"),
    ("thinned", "list,receive --keep-within 1s --keep-hourly 1"),
    ("crammed", "list,receive --keep-within 1s --keep-hourly 1 --min-free 80%"),
    ("check", "list,check"),
    ("read", "list,check,restore"),
];

/// One to which keys lead to `root`, and one more, `shell`, that may do anything.
fn sshd(root: &str) -> Sshd {
    let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).chain(["shell"]).collect();
    Sshd::start(&names, |name, public| match KEYS.iter().find(|(key, _)| *key == name) {
        Some((_, allow)) => {
            let serve = format!("{PROGRAM} serve --root {root} --allow {allow} --host web1");
            format!("command=\"{serve}\",restrict {public}")
        }
        None => public.to_owned(),
    })
}

/// A job on the subvolume `disk/home`, whose copies go to `copies/t` on a server.
pub struct Scene {
    // In this order: who serves what is on the disks goes before them.
    sshd: Sshd,
    base: subvolumes::Scene,
}

impl Deref for Scene {
    type Target = subvolumes::Scene;

    fn deref(&self) -> &subvolumes::Scene {
        &self.base
    }
}

pub fn scene() -> Scene {
    let base = disks("t", 600);
    let scene = Scene { sshd: sshd(&base.copies.path("t")), base };
    scene.configure("all", "");
    scene.machine.run(&["init", "t"]).expect(0);
    scene
}

impl Scene {
    pub fn configure(&self, key: &str, target: &str) {
        let port = self.sshd.port;
        let ssh = self.sshd.ssh(key);
        let text = format!(
            "[targets.t.btrfs]\nlocation = \"ssh://root@127.0.0.1:{port}{{root}}/copies/t\"\nssh-command = {ssh:?}\n{target}\n\
             [jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{{root}}/disk/home\"]\n"
        );
        configure(&self.machine, &text);
    }

    /// Asks as a hostile client does, with a stream behind the request.
    pub fn asked(&self, key: &str, ask: &str, stream: &[u8]) -> Ran {
        self.asked_about(&self.copies.path("t"), key, ask, stream)
    }

    fn asked_about(&self, directory: &str, key: &str, ask: &str, stream: &[u8]) -> Ran {
        let json = format!("{{\"directory\": \"{directory}\", \"ask\": {ask}}}");
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        self.said(key, &[b"stillpt\n\x01\0\0\0", &length[..], json.as_bytes(), stream].concat())
    }

    /// Says anything at all.
    fn said(&self, key: &str, bytes: &[u8]) -> Ran {
        let words = self.sshd.ssh(key);
        let mut ssh = command(&words[0])
            .args(&words[1..])
            .args(["-p", &self.sshd.port.to_string(), "root@127.0.0.1"])
            .arg("rm -rf /; stillpoint serve --root / --allow delete")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may refuse before it has read everything.
        let _ = ssh.stdin.take().unwrap().write_all(bytes);
        ssh.wait_with_output().unwrap().into()
    }

    /// A request to receive, as the run of this number makes it.
    pub fn receiving(sent: &str, generation: u64, run: u32, base: Option<&str>) -> String {
        let base = base.map_or("null".to_owned(), |base| format!("\"{base}\""));
        format!(
            "{{\"receive\": {{\"host\": \"web1\", \"job\": \"home\", \"item\": \"/x\", \"run\": \"{run:08x}\", \"machine\": null, \"time\": \"2026-11-27T01:02:03Z\", \"sent\": \"{sent}\", \"generation\": {generation}, \"base\": {base}}}}}"
        )
    }
}

/// What `btrfs send` prints.
fn stream(args: &[&str]) -> Vec<u8> {
    let sent = command("btrfs").args(["send", "-q"]).args(args).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    sent.stdout
}

#[test]
fn copies_on_a_server_are_as_those_on_this_machine() {
    let scene = scene();
    let machine = &scene.machine;
    machine.run(&["init", "t"]).expect(10).says("already a repository");
    machine.run(&["check-config", "--online"]).expect(0);
    scene.configure("all", "compressed-data = true");
    must("mount", &["-o", "remount,compress-force=zstd", scene.disk.at.to_str().unwrap()]);
    torture(&scene.home());
    scene.fill("big", 20);
    fs::write(scene.home().join("text"), "stillpoint\n".repeat(1 << 20)).unwrap();
    let (first, sent) = scene.run();
    assert!(
        (20 << 20..24 << 20).contains(&sent),
        "what is compressed was sent at its length: {sent}"
    );
    assert_same_tree(&scene.home(), &scene.copy(&first));
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    fs::remove_file(scene.home().join("empty")).unwrap();
    let plan = machine.run(&["plan"]).expect(0).says("serve --root");
    plan.says("--allow receive");
    assert_eq!(scene.there(), [&*first]);
    let (second, sent) = scene.run();
    assert!(sent < 1 << 20, "a line was sent as {sent} bytes");
    assert_same_tree(&scene.home(), &scene.copy(&second));
    assert_eq!(machine.copies("t"), [&*first, &*second]);
    let list = machine.run(&["--json", "list"]).expect(0).json();
    for copy in list["copies"].as_array().unwrap() {
        let at = scene.copy(copy["id"].as_str().unwrap());
        let names = must("find", &[at.to_str().unwrap(), "-not", "-type", "d", "-printf", "x"]);
        assert_eq!(copy["files"], names.len(), "{copy}");
    }

    let to = machine.path("back");
    fs::create_dir(&to).unwrap();
    machine.run(&["restore", "home", &first, "--to", to.to_str().unwrap()]).expect(0);
    let back = inside(&to, scene.home());
    assert_same_tree(&back, &scene.copy(&first));
    let new = scene.disk.path("new");
    machine.run(&["restore", "home", &first, "--as-subvolume", "--to", &new]).expect(0);
    assert_same_tree(Path::new(&new), &scene.copy(&first));
    fs::write(Path::new(&new).join("written"), "x").unwrap();
    let plain = scene.disk.path("home/plain");
    fs::write(&plain, "lost").unwrap();
    machine.run(&["restore", "home", &second, &plain, "--in-place", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(&plain).unwrap(), "changed\n");
    assert_eq!(machine.run(&["restore", "home", &plain, "--stdout"]).expect(0).stdout, "changed\n");
    machine.run(&["find", "empty"]).expect(0).says(&first);
    machine.run(&["estimate", "home"]).expect(0).says(&second);
    machine.run(&["diff", "home", &second, "live"]).expect(0);
    let diff = machine.run(&["diff", "home", &first, &second]).expect(0);
    assert!(diff.stdout.contains("home/empty"), "{}", diff.stdout);
    machine.run(&["verify", "home"]).expect(0).says("compared with the source");
    machine.run(&["verify", "home", "--read-data", "10%"]).expect(0);
    // Of the first one, what was sent went with the next run.
    machine.run(&["verify", "home", &first]).expect(12).says("keep-snapshots");
    machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0).says("all data of 2");
    machine.run(&["status"]).expect(0);

    machine.run(&["pin", "home", &first]).expect(0);
    scene.configure("all", "[targets.t.keep]\nlast = 1");
    machine.run(&["prune", "--accept"]).expect(0);
    assert_eq!(scene.there(), [&*first, &*second]);
    machine.run(&["unpin", "home", &first]).expect(0);
    machine.run(&["prune", "--dry-run"]).expect(0);
    assert_eq!(scene.there(), [&*first, &*second]);
    machine.run(&["prune"]).expect(0);
    assert_eq!(scene.there(), [&*second]);
    machine.assert_clean_except(&machine.path(""));
}

#[test]
fn a_login_with_a_shell_will_do_and_what_stands_in_the_way_is_said() {
    let scene = scene();
    let machine = &scene.machine;
    fs::write(scene.home().join("x"), "x").unwrap();
    let program = format!("remote-program = \"{PROGRAM}\"");
    scene.configure("shell", &program);
    let (copy, _) = scene.run();
    assert_eq!(scene.there(), [&*copy]);

    scene.configure("shell", "remote-program = \"/nowhere/stillpoint\"");
    machine.run(&["list"]).says("there is no /nowhere/stillpoint there");
    scene.configure("shell", "remote-program = \"/bin/echo\"");
    machine.run(&["list"]).says("cannot understand");
    // A key that nobody knows there, and a host that is not the one that was known.
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &scene.sshd.path("odd")]);
    scene.configure("odd", "");
    machine.run(&["list"]).says("cannot reach the repository").says("Permission denied");
    let odd = fs::read_to_string(scene.sshd.path("odd.pub")).unwrap();
    fs::write(scene.sshd.path("known"), format!("[127.0.0.1]:{} {odd}", scene.sshd.port)).unwrap();
    scene.configure("all", "");
    machine
        .run(&["run"])
        .expect(10)
        .says("cannot reach the repository")
        .says("Host key verification failed");
    machine.assert_clean_except(&machine.path(""));
}

#[test]
fn what_an_older_file_shares_with_the_copy_before_is_shared_there() {
    let scene = scene();
    fs::write(scene.home().join("older"), "older").unwrap();
    scene.fill("big", 20);
    scene.run();
    let at = |name: &str| scene.home().join(name).to_str().unwrap().to_owned();
    must("cp", &["--reflink=always", &at("big"), &at("older")]);
    let (copy, sent) = scene.run();
    assert!(sent < 1 << 20, "a shared extent was sent as {sent} bytes");
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn whatever_is_killed_on_either_side_the_next_run_is_whole_and_nothing_is_left() {
    let scene = scene();
    scene.fill("big", 20);
    // A key that may not delete: what is left there, the server has to see to.
    scene.configure("push", "upload-limit = 8000");
    let copies = scene.copies.path("t");
    let victims = [
        format!("btrfs receive -q -C -- {copies}"),
        "ssh -F none".to_owned(),
        format!("serve --root {copies}"),
        "stillpoint -c".to_owned(),
        "pass-stream".to_owned(),
        "btrfs send".to_owned(),
    ];
    let mut made = Vec::new();
    for (round, victim) in victims.iter().cycle().take(6).enumerate() {
        scene.fill(&format!("new-{round}"), 8);
        // Each time a little later in the life of the receiver.
        kill_one_of(&scene.machine, &["run"], round, |id| {
            let there = processes_about(&copies);
            let receives = there.iter().any(|it| it.contains("btrfs receive"));
            let found = family_of(id).into_iter().chain(there).find(|it| it.contains(victim));
            found.filter(|_| receives)
        });
        let (copy, _) = scene.run();
        assert_same_tree(&scene.home(), &scene.copy(&copy));
        made = scene.there();
        assert!(made.iter().all(|name| !name.starts_with('.')), "{victim} in {round}: {made:?}");
        assert_eq!(scene.machine.copies("t").len(), made.len(), "{victim} in round {round}");
    }
    assert!(made.len() >= 6, "{made:?}");
}

#[test]
fn a_key_does_what_it_was_let_do_and_nothing_else() {
    let scene = scene();
    let machine = &scene.machine;
    fs::write(scene.home().join("secret"), "secret\n").unwrap();
    let (copy, _) = scene.run();
    let before = scene.there();

    // By the program itself.
    scene.configure("push", "");
    let to = machine.path("back");
    fs::create_dir(&to).unwrap();
    let refused = machine.run(&["restore", "home", &copy, "--to", to.to_str().unwrap()]);
    refused.expect(4).says("may not restore");
    machine.run(&["check", "--target", "t"]).expect(4).says("may not check");
    let (newest, _) = scene.run();
    machine.run(&["prune", "--target", "t", &copy]).says("may not delete");
    scene.configure("read", "");
    machine.run(&["run"]).expect(4).says("may not receive");
    machine.run(&["pin", "home", &copy]).expect(4).says("may not receive");

    // By hand.
    let refuses = |key: &str, ask: &str, words: &str| {
        let ran = scene.asked(key, ask, b"");
        assert_ne!(ran.code, Some(0), "{ask}: {}", ran.stdout);
        assert_eq!(ran.stdout, "", "{ask}");
        assert!(ran.stderr.contains(words), "{ask}: {}", ran.stderr);
    };
    refuses("push", &format!("{{\"delete\": {{\"copies\": [\"{copy}\"]}}}}"), "may not delete");
    refuses(
        "push",
        &format!("{{\"pin\": {{\"copy\": \"{copy}\", \"pinned\": false}}}}"),
        "may not delete",
    );
    refuses("push", "{\"init\": {}}", "may not init");
    refuses("read", "{\"others\": {}}", "may not adopt");
    refuses("push", &format!("{{\"prove\": {{\"copy\": \"{copy}\"}}}}"), "may not adopt");
    refuses("push", "{\"adopt\": {\"copies\": []}}", "may not adopt");
    refuses("push", &format!("{{\"verify\": {{\"copy\": \"{copy}\"}}}}"), "may not check");
    let contents = format!("{{\"print\": {{\"contents\": {{\"copy\": \"{copy}\"}}}}}}");
    refuses("push", &contents, "may not restore");
    let manifest = format!(
        "{{\"print\": {{\"manifest\": {{\"copy\": \"{copy}\", \"share\": \"all\", \"seed\": 7}}}}}}"
    );
    for key in ["push", "check"] {
        refuses(key, &manifest, "may not restore");
    }
    scene.asked("read", &manifest, b"").expect(0).says("secret");
    let whole = format!("{{\"print\": {{\"whole\": {{\"copy\": \"{copy}\"}}}}}}");
    refuses("push", &whole, "may not restore");
    symlink("/etc", scene.copies.path("t/etc")).unwrap();
    fs::write(scene.copies.path("outside"), "outside\n").unwrap();
    let file = |copy: &str, path: &str| {
        format!("{{\"print\": {{\"file\": {{\"copy\": \"{copy}\", \"path\": \"{path}\"}}}}}}")
    };
    for (name, path, words) in [
        (&*copy, "../outside", "cannot be read"),
        (&*copy, "/etc/shadow", "cannot be read"),
        ("..", "outside", "cannot be read"),
        ("../outside", "", "cannot be read"),
        ("etc", "shadow", "is not there"),
        (".stillpoint", "target.json", "cannot be read"),
        (&*copy, "nothing", "there is no file"),
    ] {
        refuses("all", &file(name, path), words);
    }
    let printed = scene.asked("read", &file(&copy, "secret"), b"").expect(0);
    assert_eq!(printed.stdout, "secret\n");
    // Nor does any of them lead elsewhere, whatever is said.
    let ran = scene.asked_about("/", "all", "{\"list\": {}}", b"");
    assert!(ran.stderr.contains("does not lead to"), "{}", ran.stderr);
    for odd in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]] {
        assert!(scene.said("push", odd).stderr.contains("no request"));
    }
    fs::remove_file(scene.copies.path("t/etc")).unwrap();
    assert_eq!(scene.there(), [&before[..], &[newest]].concat());
}

#[test]
fn a_path_that_btrfs_cannot_send_there_is_told_by_its_name() {
    let scene = scene();
    fs::write(scene.home().join("plain"), "plain").unwrap();
    let deep = too_deep(&scene.home());
    let ran = scene.machine.run(&["run"]).expect(10);
    ran.says("sends no path of 4096 bytes or more").says("it begins with deep00xxx");
    assert_eq!(scene.there(), [] as [String; 0]);
    fs::remove_dir_all(deep).unwrap();
    scene.run();
}

#[test]
fn a_server_keeps_what_its_own_rules_keep_whatever_a_client_says() {
    let scene = scene();
    let machine = &scene.machine;
    scene.configure("thinned", "[targets.t]\nappend-only = true");
    scene.fill("big", 4);
    let (first, _) = scene.run();
    machine.run(&["pin", "home", &first]).expect(0);
    let pinned = machine.copies("t").remove(0);
    let made: Vec<String> = (0..3)
        .map(|round| {
            fs::write(scene.home().join("plain"), format!("round {round}\n")).unwrap();
            scene.run().0
        })
        .collect();
    let listed = machine.copies("t");
    assert_eq!(sorted(&listed), sorted(&[pinned, made[1].clone(), made[2].clone()]));
    assert_eq!(scene.there(), sorted(&listed));
    assert_same_tree(&scene.home(), &scene.copy(&made[2]));
    // Nobody misses them, and the next difference has its base.
    machine.run(&["status"]).expect(0);

    // One that comes from an intruder, who says that it is of another century, is of this hour.
    let snapshot = scene.disk.path("forged");
    must("btrfs", &["subvolume", "snapshot", "-r", scene.home().to_str().unwrap(), &snapshot]);
    let generation = shown(Path::new(&snapshot), "Generation:").parse().unwrap();
    let record = scene.target().join(format!(".stillpoint/copies/{}.json", made[2]));
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    assert!(record["machine"].is_string(), "{record}");
    let ask = Scene::receiving(&uuid(Path::new(&snapshot)), generation, 9, None)
        .replace("\"/x\"", &format!("{:?}", scene.home()))
        .replace("2026-", "1999-")
        .replace("\"machine\": null", &format!("\"machine\": {}", record["machine"]));
    scene.asked("thinned", &ask, &stream(&[&snapshot])).expect(0);
    let there = scene.there();
    assert!(there.len() == 3 && !there.contains(&made[1]), "{there:?}");

    // No room, by the rules of the server: found out while it comes, at once or little by little, and before that.
    let there = scene.there();
    scene.fill("bigger", 150);
    for target in ["", "part-size = 1\nupload-limit = 40000", "part-size = 0"] {
        scene.configure("crammed", &format!("{target}\n[targets.t]\nappend-only = true"));
        machine.run(&["run"]).expect(10).says("min-free wants");
        assert_eq!(scene.there(), there, "{target}");
    }
    must("fallocate", &["-l", "150M", &scene.copies.path("other")]);
    machine.run(&["run"]).expect(10).says("min-free wants");
    assert_eq!(scene.there(), there);
    fs::remove_file(scene.copies.path("other")).unwrap();
    fs::remove_file(scene.home().join("bigger")).unwrap();
    machine.run(&["run"]).expect(0);
}

#[test]
fn a_copy_there_is_compared_with_what_was_sent() {
    let scene = scene();
    let machine = &scene.machine;
    for n in 0..9 {
        fs::write(scene.home().join(format!("file-{n}")), format!("{n}").repeat(2000)).unwrap();
    }
    let (copy, _) = scene.run();
    let verdict = |args: &[&str], code: i32| {
        let ran = machine.run(&[&["--json", "verify", "home"], args].concat()).expect(code);
        let document = ran.json();
        (document["verdict"].as_str().unwrap().to_owned(), document["damage"].to_string())
    };
    assert_eq!(verdict(&[], 0).0, "ok");
    // A key that may have copies read and may not be told what is in them.
    scene.configure("check", "");
    assert_eq!(verdict(&[], 12).0, "unverifiable");
    machine.run(&["verify", "home"]).expect(12).says("may not restore");
    machine.run(&["verify", "home", "--read-data", "5%"]).expect(4).says("may not restore");
    // A server that shows one copy in the place of another one is not believed that it was made of that one's snapshot.
    scene.configure("all", "[jobs.home.keep-snapshots]\nlast = 3");
    let (second, _) = scene.run();
    let (third, _) = scene.run();
    assert_eq!(verdict(&[&second], 0).0, "ok");
    let record = |id: &str| scene.copies.path(&format!("t/.stillpoint/copies/{id}.json"));
    let read = |id: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(record(id)).unwrap()).unwrap()
    };
    let (shown, mut told) = (read(&second), read(&third));
    for field in ["uuid", "sent", "generation", "changed"] {
        told[field] = shown[field].clone();
    }
    fs::write(record(&third), told.to_string()).unwrap();
    // Nothing that is read-only can be renamed.
    [&second, &third].into_iter().for_each(|id| set_read_only(&scene.copy(id), false));
    fs::rename(scene.copy(&third), scene.copies.path("lost")).unwrap();
    fs::rename(scene.copy(&second), scene.copy(&third)).unwrap();
    falsify(&scene.copies, &third, || {});
    assert_eq!(verdict(&[&third], 12).0, "unverifiable");
    machine.run(&["verify", "home", &third]).says("was made of what run");
    let at = scene.copy(&copy);
    falsify(&scene.copies, &copy, || {
        let stamp = fs::metadata(at.join("file-5")).unwrap().modified().unwrap();
        fs::write(at.join("file-5"), "5".repeat(1999) + "6").unwrap();
        fs::File::open(at.join("file-5")).unwrap().set_modified(stamp).unwrap();
        must("chmod", &["600", at.join("file-7").to_str().unwrap()]);
    });
    let (word, damage) = verdict(&[&copy], 14);
    assert_eq!(word, "failed");
    assert_eq!(damage, "[\"file-5: content\",\"file-7: mode\"]");
    // Whoever reads it back finds nothing wrong with it.
    machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0);
    machine.assert_clean_except(&machine.path(""));
}

#[test]
fn what_another_program_received_there_is_adopted() {
    let scene = scene();
    let machine = &scene.machine;
    scene.fill("big", 5);
    closed_directory(scene.disk.path("taken"));
    let target = scene.copies.path("t");
    closed_directory(scene.copies.at.join("t/12"));
    closed_directory(scene.copies.at.join("t/open"));
    // A difference to the one before it each.
    let mut before: Option<String> = None;
    for (name, into) in [
        ("home.20260101T1531", ""),
        ("home.20260102T1531", ""),
        ("snapshot", "12"),
        ("odd one", ""),
    ] {
        fs::write(scene.home().join("round"), name).unwrap();
        let snapshot = scene.disk.path(&format!("taken/{name}"));
        must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &snapshot]);
        let difference = before.iter().flat_map(|it| ["-p", it]);
        let sent = stream(&difference.chain([&*snapshot]).collect::<Vec<_>>());
        let file = machine.path("stream");
        fs::write(&file, sent).unwrap();
        must(
            "btrfs",
            &["-q", "receive", "-f", file.to_str().unwrap(), &format!("{target}/{into}")],
        );
        before = Some(snapshot);
    }
    // Into whose directory others may come, and what is no copy of anything.
    fs::rename(scene.copies.path("t/12"), scene.copies.path("t/open/12")).unwrap();
    must("chown", &["1000", &scene.copies.path("t/open")]);
    must("btrfs", &["-q", "subvolume", "create", &scene.copies.path("t/somebody")]);
    symlink("/etc", scene.copies.path("t/link.20260101")).unwrap();
    let adopt = |words: &[&str]| {
        let words = [&["--json", "adopt", "t", "--yes"], words].concat();
        machine.run(&words).expect(0).json()
    };
    scene.configure("push", "");
    let left = adopt(&[]);
    assert_eq!(left["copies"], serde_json::json!([]));
    assert!(left["left"][0].as_str().unwrap().contains("may not adopt"), "{left}");
    scene.configure("all", "");
    let left = adopt(&[]);
    assert_eq!(
        (&left["adopted"], left["left"].as_array().unwrap().len()),
        (&2.into(), 3),
        "{left}"
    );
    for why in ["somebody else could", "not received whole", "told to no server"] {
        assert!(left["left"].to_string().contains(why), "{why}: {left}");
    }
    must("chown", &["0", &scene.copies.path("t/open")]);
    assert_eq!(adopt(&[])["adopted"], 1);
    let [first, second] = ["home.20260101T1531", "home.20260102T1531"];
    assert_eq!(machine.copies("t"), [first, second, "open/12/snapshot"]);
    let list = machine.run(&["list"]).expect(0);
    assert_eq!(list.stdout.matches("unproven").count(), 3, "{}", list.stdout);
    // Nothing is based on one that nobody has compared.
    let (third, sent) = scene.run();
    assert!(sent > 5 << 20, "{sent}");
    machine.run(&["verify", "home", "open/12/snapshot"]).expect(0).says("compared with the source");
    let base = machine.run(&["estimate", "home"]).expect(0);
    assert!(base.stdout.contains(&third), "{}", base.stdout);
    let record = scene.copies.path("t/.stillpoint/copies/open%2f12%2fsnapshot.json");
    assert!(!fs::read_to_string(&record).unwrap().contains("unproven"));
    let to = machine.path("back");
    fs::create_dir(&to).unwrap();
    let round = scene.disk.path("home/round");
    machine.run(&["restore", "home", second, &round, "--to", to.to_str().unwrap()]).expect(0);
    let back = inside(&to, &round);
    assert_eq!(fs::read_to_string(back).unwrap(), second);
    machine.run(&["unpin", "home", first]).expect(0);
    machine.run(&["prune", "--target", "t", first]).expect(0);
    assert!(!scene.copy(first).exists() && scene.copy(second).exists());
}

/// `BTRFS_SEND_A_INO` and `BTRFS_SEND_C_SYMLINK`.
const INODE: u16 = 3;
const SYMLINK: u16 = 8;

/// A command of a send stream.
fn of_stream(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    stillpoint::tools::btrfs::stream::command(kind, attributes).unwrap()
}

/// The one that begins it.
fn subvolume(uuid: &[u8], generation: u64) -> Vec<u8> {
    let generation = generation.to_le_bytes();
    let what: [(u16, &[u8]); 3] =
        [(attribute::PATH, b"x"), (attribute::UUID, uuid), (attribute::GENERATION, &generation)];
    of_stream(kind::SUBVOLUME, &what)
}

#[test]
fn a_forged_stream_makes_no_copy_and_takes_none_away() {
    let scene = scene();
    fs::write(scene.home().join("mine"), "mine\n").unwrap();
    let (copy, _) = scene.run();
    let record = scene.copies.path(&format!("t/.stillpoint/copies/{copy}.json"));
    let record_before = fs::read_to_string(&record).unwrap();
    // A subvolume of somebody else on the file system of the copies, and a difference to it.
    let others = scene.copies.path("others");
    must("btrfs", &["-q", "subvolume", "create", &others]);
    fs::write(scene.copies.path("others/secret"), "secret\n".repeat(10_000)).unwrap();
    let (base, next) = (scene.copies.path("base"), scene.copies.path("next"));
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &others, &base]);
    fs::write(scene.copies.path("others/more"), "more").unwrap();
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &others, &next]);
    let (whole, difference) = (stream(&[&next]), stream(&["-p", &base, &next]));
    let uuid = shown(Path::new(&next), "UUID:");
    let generation: u64 = shown(Path::new(&next), "Generation:").parse().unwrap();
    let before = scene.there();
    let refuses = |ask: String, stream: &[u8]| {
        let ran = scene.asked("push", &ask, stream);
        assert_ne!(ran.code, Some(0), "{ask}");
        assert_eq!(scene.there(), before, "{ask}: {}", ran.stderr);
        assert_eq!(fs::read_to_string(&record).unwrap(), record_before, "{ask}");
        ran.stderr
    };
    let receiving = |run, base: Option<&str>| Scene::receiving(&uuid, generation, run, base);
    // A parent outside: named, hidden, or in the place of one that is ours.
    refuses(receiving(1, Some("base")), &difference);
    refuses(receiving(1, None), &difference);
    refuses(receiving(1, Some(&copy)), &difference);
    // Another snapshot than the one that is claimed, another generation, and the end missing.
    refuses(Scene::receiving("00112233-4455-6677-8899-aabbccddeeff", generation, 1, None), &whole);
    refuses(Scene::receiving(&uuid, generation + 1, 1, None), &whole);
    for cut in [0, 13, 17, 100, whole.len() / 2, whole.len() - 10, whole.len() - 1] {
        refuses(receiving(1, None), &whole[..cut]);
    }
    refuses(receiving(1, None), &[&whole[..], &b"more"[..]].concat());
    // One that claims to be what was sent before, or to be a subvolume that is there.
    let known: serde_json::Value = serde_json::from_str(&record_before).unwrap();
    let (sent, there) = (known["sent"].as_str().unwrap(), known["uuid"].as_str().unwrap());
    let sent_in = known["generation"].as_u64().unwrap();
    for base in [None, Some(&*copy)] {
        for claimed in [sent, there] {
            let said = refuses(Scene::receiving(claimed, sent_in, 1, base), &difference);
            assert!(said.contains(&format!("{claimed} is a copy's already")), "{said}");
        }
    }
    // Another host's name.
    let other = receiving(1, None).replace("web1", "web2");
    assert!(refuses(other, &whole).contains("for copies of web1"));

    // What makes a link and goes on through it, to what lies beside it.
    let made = uuid.replace('-', "");
    let made: Vec<u8> =
        (0..32).step_by(2).map(|at| u8::from_str_radix(&made[at..at + 2], 16).unwrap()).collect();
    let listed = format!("l/.stillpoint/copies/{copy}.json");
    for through in [
        of_stream(3, &[(attribute::PATH, &b"l/planted"[..]), (INODE, &258_u64.to_le_bytes()[..])]),
        of_stream(
            kind::RENAME,
            &[(attribute::PATH, &b"l/.stillpoint"[..]), (attribute::PATH_TO, &b"l/x"[..])],
        ),
        of_stream(kind::UNLINK, &[(attribute::PATH, listed.as_bytes())]),
    ] {
        let forged = [
            header(1),
            subvolume(&made, generation),
            of_stream(
                SYMLINK,
                &[
                    (attribute::PATH, &b"l"[..]),
                    (INODE, &257_u64.to_le_bytes()[..]),
                    (attribute::PATH_LINK, &b"/"[..]),
                ],
            ),
            through,
            of_stream(kind::END, &[]),
        ];
        let said = refuses(receiving(1, None), &forged.concat());
        assert!(said.contains("Too many levels of symbolic links"), "{said}");
    }

    // What is taken is never written over, also not by who claims to be the same run.
    let ran = scene.asked("push", &receiving(2, None), &whole).expect(0);
    assert!(ran.stdout.contains("\"name\""), "{}", ran.stdout);
    let taken = scene.there();
    assert_eq!(taken.len(), before.len() + 1);
    let again = scene.asked("push", &receiving(2, None), &whole);
    assert!(again.stderr.contains("write over"), "{}", again.stderr);
    assert_eq!(scene.there(), taken);
    let run = copy.rsplit_once('.').unwrap().1;
    let forged = receiving(0, None)
        .replace("00000000", run)
        .replace("\"/x\"", &format!("\"{}\"", scene.home().display()))
        .replace("2026-11-27T01:02:03Z", &{
            let record: serde_json::Value = serde_json::from_str(&record_before).unwrap();
            record["time"].as_str().unwrap().to_owned()
        });
    let again = scene.asked("push", &forged, &whole);
    assert!(again.stderr.contains("write over"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&record).unwrap(), record_before);
    assert_eq!(fs::read_to_string(scene.copy(&copy).join("mine")).unwrap(), "mine\n");

    // Somebody let others into the directory.
    fs::set_permissions(scene.copies.path("t"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(scene.asked("push", &receiving(3, None), &whole).stderr.contains("others can go into"));
    wait_for_no_process_about(&scene.copies.path("t"));
}

#[test]
fn a_power_cut_of_the_server_leaves_no_hollow_copy_and_the_next_run_goes_on() {
    let scene = scene();
    let machine = &scene.machine;
    torture(&scene.home());
    for n in 0..100 {
        fs::write(scene.home().join(format!("small-{n}")), format!("file {n}\n").repeat(500))
            .unwrap();
    }
    // What was told to be stored is on the disk.
    let (first, _) = scene.run();
    let cut = scene.copies.as_cut_off(machine);
    let mut expected = vec![(first.clone(), manifest(&scene.home()))];
    scene.copies.becomes(machine, &cut);
    assert_eq!(machine.copies("t"), [first.as_str()]);
    assert!(manifest(&scene.copy(&first)) == expected[0].1, "the copy is not what was sent");
    machine.run(&["verify", "home"]).expect(0);

    // At this pace there is something to cut off for a second and a half.
    scene.configure("all", "part-size = 1\nupload-limit = 4000");
    let mut hit = 0;
    for (round, after) in moments(3, Duration::from_millis(1800)).into_iter().enumerate() {
        scene.fill(&format!("big-{round}"), 6);
        fs::write(scene.home().join("plain"), format!("round {round}\n")).unwrap();
        let is = manifest(&scene.home());
        hit += usize::from(scene.copies.cut_off_in_a_run(machine, after));
        for listed in machine.copies("t") {
            let known = expected.iter().find(|(id, _)| *id == listed).map_or(&is, |(_, was)| was);
            assert!(
                manifest(&scene.copy(&listed)) == *known,
                "{listed} is hollow, after {after:?}"
            );
        }
        machine.run(&["run"]).expect(0);
        let listed = machine.copies("t");
        let last = listed.last().unwrap();
        assert!(manifest(&scene.copy(last)) == is, "{last} is not what was sent, after {after:?}");
        for (id, was) in &expected {
            assert!(manifest(&scene.copy(id)) == *was, "{id} was lost, after {after:?}");
        }
        assert_eq!(scene.there(), sorted(&listed), "after {after:?}");
        let new = listed.into_iter().filter(|id| expected.iter().all(|(known, _)| known != id));
        expected.extend(new.map(|id| (id, is.clone())).collect::<Vec<_>>());
    }
    machine.run(&["verify", "home"]).expect(0);
    assert!(hit >= 2, "only {hit} were cut off in time");
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}
