//! Whole runs with the real engines: what is stored, what is restored, and what each thing that goes wrong
//! leads to.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stillpoint::history::History;

use crate::bench_machine::{
    COPIED, HOST, Machine, assert_same_tree, command, must, must_at_last, torture, wait_for,
    wait_for_no_loop_device,
};

#[test]
fn two_engines_store_and_restore_everything() {
    let machine = Machine::new(HOST);
    torture(&machine.path("src/torture"));
    let report = machine.run(&["--json", "run"]).expect(0).json();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["outcome"], "ok");
    assert_eq!(report["exit_code"], 0);
    let history = History::open_existing(&machine.path("state/history.sqlite")).unwrap().unwrap();
    assert_eq!(history.last_run().unwrap().unwrap().exit_code, Some(0));
    drop(history);
    let targets = report["jobs"][0]["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    for target in targets {
        assert!(target["bytes_new"].as_u64().unwrap() > 0, "{target}");
        assert!(target["files"].as_u64().unwrap() > 40, "{target}");
        let name = target["target"].as_str().unwrap();
        // The report's id is what the target lists.
        assert_eq!(machine.copies(name), [target["copy"].as_str().unwrap()]);
        let out = machine.path(&format!("out-{name}"));
        machine
            .run(&["restore", "host", "--target", name, "--to", out.to_str().unwrap()])
            .expect(0);
        let source = machine.path("src");
        assert_same_tree(&source, &out.join(source.strip_prefix("/").unwrap()));
        // A sparse file stays one where the engine can keep it so (restic 0.14 cannot without a flag of 0.15).
        let blocks = std::os::unix::fs::MetadataExt::blocks(
            &fs::metadata(out.join(source.strip_prefix("/").unwrap()).join("torture/sparse"))
                .unwrap(),
        );
        assert!(name == "r" || blocks < 1000, "{name}: {blocks} blocks");
    }
    machine.assert_clean();

    // A second run adds almost nothing.
    let report = machine.run(&["--json", "run"]).expect(0).json();
    for target in report["jobs"][0]["targets"].as_array().unwrap() {
        assert!(target["bytes_new"].as_u64().unwrap() < 100_000, "{target}");
    }
    let status = machine.run(&["--json", "status"]).expect(0).json();
    assert_eq!(status["entries"].as_array().unwrap().len(), 2);
    assert_eq!(status["entries"][0]["stale"], false);
}

#[test]
fn one_path_is_restored_and_a_missing_one_is_an_error() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    for target in ["b", "r"] {
        let out = machine.path(&format!("one-{target}"));
        let wanted = machine.path("src/sub/data.bin");
        let args = [
            "restore",
            "host",
            "latest",
            wanted.to_str().unwrap(),
            "--target",
            target,
            "--to",
            out.to_str().unwrap(),
        ];
        machine.run(&args).expect(0);
        let restored = out.join(wanted.strip_prefix("/").unwrap());
        assert_eq!(fs::read(&restored).unwrap(), fs::read(&wanted).unwrap());
        assert!(!out.join(machine.path("src/hello.txt").strip_prefix("/").unwrap()).exists());
        // A directory with something in it is not restored into.
        machine.run(&args).expect(2).says("has something in it");
        let nothing = machine.path("nothing").to_str().unwrap().to_owned();
        let elsewhere = machine.path(&format!("two-{target}"));
        machine
            .run(&[
                "restore",
                "host",
                &nothing,
                "--target",
                target,
                "--to",
                elsewhere.to_str().unwrap(),
            ])
            .expect(10);
    }
    machine.assert_clean();
}

#[test]
fn a_missing_source_is_incomplete_and_all_missing_fails() {
    let machine = Machine::new(
        r#"
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["{root}/src", "{root}/gone"]
capture = "none"
"#,
    );
    let report = machine.run(&["--json", "run"]).expect(13).json();
    for target in report["jobs"][0]["targets"].as_array().unwrap() {
        assert_eq!(target["outcome"], "incomplete", "{target}");
        assert!(target["copy"].is_string(), "{target}");
    }
    machine.configure(&HOST.replace("/src", "/gone"));
    machine.run(&["run"]).expect(10).says("does not exist");
    fs::create_dir(machine.path("gone")).unwrap();
    machine.run(&["run"]).expect(10).says("is empty");
    assert_eq!(machine.copies("b").len(), 1, "no further copy was made");
    assert_eq!(machine.copies("r").len(), 1, "no further copy was made");
    machine.assert_clean();
}

#[test]
fn excluding_everything_is_not_a_green_run() {
    let machine = Machine::new(&HOST.replace("capture", "exclude = [\"*\"]\ncapture"));
    let ran = machine.run(&["run"]);
    assert_ne!(ran.code, Some(0), "{}", ran.stdout);
}

#[test]
fn a_file_that_cannot_be_read_makes_the_copy_incomplete() {
    // Root reads everything, but not what a FUSE file system of somebody else refuses; /proc has a file
    // that always answers EIO.
    let machine = Machine::new(&HOST.replace("{root}/src", "{root}/src\", \"/proc/self/mem"));
    let report = machine.run(&["--json", "run"]).expect(13).json();
    for target in report["jobs"][0]["targets"].as_array().unwrap() {
        assert_eq!(target["outcome"], "incomplete", "{target}");
        assert!(target["unreadable_count"].as_u64().unwrap() >= 1, "{target}");
    }
}

#[test]
fn the_wrong_passphrase_fails_at_once_and_leaves_nothing() {
    let machine = Machine::new(HOST);
    machine.write("pass", "wrong\n", 0o600);
    let started = Instant::now();
    machine.run(&["run"]).expect(10).says("passphrase");
    assert!(started.elapsed() < Duration::from_secs(120));
    machine.write("pass", "correct horse\n", 0o600);
    machine.assert_clean();
    machine.run(&["run"]).expect(0);
}

#[test]
fn a_repository_that_is_gone_is_named_with_its_remedy() {
    let machine = Machine::bare(HOST);
    machine.run(&["run"]).expect(10).says("there is no repository").says("stillpoint init");
    // init refuses what exists.
    machine.run(&["init", "b", "r"]).expect(0);
    machine.run(&["init", "b"]).expect(10).says("already a repository");
    machine.run(&["init", "--existing", "b", "r"]).expect(0);
    machine.run(&["run"]).expect(0);
}

#[test]
fn a_target_that_is_not_mounted_gets_nothing_and_the_other_one_does() {
    let machine = Machine::new(HOST);
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let mount = machine.path("src").to_string_lossy().into_owned();
    let text =
        text.replace("[targets.b.borg]", &format!("[targets.b.borg]\nrequire-mount = \"{mount}\""));
    machine.write("stillpoint.toml", &text, 0o600);
    let report = machine.run(&["--json", "run"]).expect(4).json();
    let targets = report["jobs"][0]["targets"].as_array().unwrap();
    assert_eq!(targets[0]["outcome"], "failed");
    assert_eq!(targets[1]["outcome"], "ok");
    assert_eq!(machine.copies("r").len(), 1);
    machine.assert_clean();
}

#[test]
fn a_locked_repository_is_busy_and_its_lock_is_not_broken() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    let repository = machine.path("repo-b");
    let mut holder = machine
        .stranger("borg")
        .args(["with-lock", repository.to_str().unwrap(), "cat"])
        // Until we close it.
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("borg takes its lock", || machine.path("repo-b/lock.exclusive").exists());
    machine.run(&["run", "--target", "b"]).expect(5).says("locked");
    assert!(machine.path("repo-b/lock.exclusive").exists(), "the lock was broken");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success(), "somebody disturbed the holder");
}

#[test]
fn a_full_disk_fails_and_older_copies_stay() {
    let machine = Machine::bare(HOST);
    let image = machine.path("disk.img");
    let mount = machine.path("disk");
    fs::create_dir(&mount).unwrap();
    fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
    must("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
    must("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
    struct Unmount(String);
    impl Drop for Unmount {
        fn drop(&mut self) {
            must_at_last("umount", &[&self.0]);
        }
    }
    let guard = Unmount(mount.to_string_lossy().into_owned());
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text.replace("/repo-b", "/disk/repo-b").replace("/repo-r", "/disk/repo-r");
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["init", "b", "r"]).expect(0);
    machine.run(&["run"]).expect(0);
    let before = (machine.copies("b"), machine.copies("r"));
    must(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={}", machine.path("src/big").display()),
            "bs=1M",
            "count=60",
            "status=none",
        ],
    );
    machine.run(&["run"]).expect(10).says("no space");
    fs::remove_file(machine.path("src/big")).unwrap();
    // The disk gets larger, as an administrator would see to it: the next run is good, nothing older is lost.
    drop(guard);
    wait_for_no_loop_device(&image);
    must("resize2fs", &["-f", image.to_str().unwrap(), "48M"]);
    fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(192 << 20).unwrap();
    must("e2fsck", &["-fy", image.to_str().unwrap()]);
    must("resize2fs", &["-f", image.to_str().unwrap()]);
    must("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
    let guard = Unmount(mount.to_string_lossy().into_owned());
    machine.run(&["run"]).expect(0);
    let after = (machine.copies("b"), machine.copies("r"));
    assert!(before.0.iter().all(|copy| after.0.contains(copy)), "{before:?} {after:?}");
    assert!(before.1.iter().all(|copy| after.1.contains(copy)), "{before:?} {after:?}");
    machine.run(&["check"]).expect(0);
    drop(guard);
    machine.assert_clean();
}

#[test]
fn damage_is_found_and_has_its_own_exit_code() {
    for (target, below) in [("b", "repo-b/data/0"), ("r", "repo-r/data")] {
        let machine = Machine::new(HOST);
        let random = format!("of={}", machine.path("src/random").display());
        must("dd", &["if=/dev/urandom", &random, "bs=1M", "count=4", "status=none"]);
        machine.run(&["run"]).expect(0);
        machine.run(&["check", "--target", target, "--read-data"]).expect(0);
        machine.run(&["verify", "host", "--target", target]).expect(0);
        let mut files = Vec::new();
        for entry in
            must("find", &[machine.path(below).to_str().unwrap(), "-type", "f", "-size", "+300k"])
                .lines()
        {
            files.push(entry.to_owned());
        }
        assert!(!files.is_empty());
        for file in files {
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            for byte in &mut bytes[middle - 200..middle + 200] {
                *byte ^= 0x55;
            }
            must("chmod", &["u+w", &file]);
            fs::write(&file, bytes).unwrap();
        }
        // What was cached would hide what the repository lost.
        fs::remove_dir_all(machine.path("cache")).unwrap();
        let ran = machine.run(&["verify", "host", "--target", target]);
        assert!(
            [Some(14)].contains(&ran.code),
            "{target}: {:?} {}{}",
            ran.code,
            ran.stdout,
            ran.stderr
        );
        machine.run(&["check", "--target", target, "--read-data"]).expect(14).says("damage");
    }
}

#[test]
fn dumps_are_stored_and_a_failing_dump_leaves_no_copy() {
    let machine = Machine::new(
        r#"
[jobs.db]
targets = ["b", "r"]
[jobs.db.commands.good]
command = ["{root}/dump-good"]
file-name = "good.sql"
[jobs.db.commands.bad]
command = ["{root}/dump-bad"]
file-name = "bad.sql"
"#,
    );
    machine.script("dump-good", "echo 'create table t;'");
    machine.script("dump-bad", "echo 'half of'; echo 'connection lost' >&2; exit 3");
    let report = machine.run(&["--json", "run"]).expect(10).json();
    for target in report["jobs"][0]["targets"].as_array().unwrap() {
        let good = target["item"] == "good";
        assert_eq!(target["outcome"] == "ok", good, "{target}");
        assert_eq!(target["copy"].is_string(), good, "{target}");
    }
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 1, "{target}: the torn dump has no copy");
        let out = machine.path(&format!("out-{target}"));
        machine
            .run(&[
                "restore",
                "db",
                "--item",
                "good",
                "--target",
                target,
                "--to",
                out.to_str().unwrap(),
            ])
            .expect(0);
        assert_eq!(fs::read_to_string(out.join("good.sql")).unwrap(), "create table t;\n");
    }
    machine.run(&["run"]).expect(10).says("connection lost");
    machine.assert_clean();
}

#[test]
fn one_job_that_fails_does_not_stop_or_hide_the_others() {
    let jobs = format!(
        r#"
[jobs.broken]
targets = ["b"]
[jobs.broken.files]
paths = ["{{root}}/nothing-here"]
capture = "none"
{HOST}"#
    );
    let machine = Machine::new(&jobs);
    let report = machine.run(&["--json", "run"]).expect(10).json();
    assert_eq!(report["jobs"][0]["outcome"], "failed");
    assert_eq!(report["jobs"][1]["outcome"], "ok");
    assert_eq!(machine.copies("r").len(), 1);
    // A job that is left out does not hide that the others were done.
    let skip = machine.script("skip", "exit 75");
    machine.configure(&jobs.replace("nothing-here", "src").replace(
        "[jobs.host]",
        &format!("[jobs.broken.hooks]\nbefore = [[\"{skip}\"]]\n[jobs.host]"),
    ));
    let report = machine.run(&["--json", "run"]).expect(0).json();
    assert_eq!(report["jobs"][0]["outcome"], "skipped");
    assert_eq!(report["outcome"], "ok");
    // Only the named one.
    machine.run(&["run", "host"]).expect(0);
    machine.run(&["run", "hots"]).expect(3).says("did you mean host?");
}

#[test]
fn a_target_is_filled_by_copying_and_catches_up() {
    let machine = Machine::new(COPIED);
    machine.run(&["init", "c"]).expect(0);
    machine.run(&["run"]).expect(0);
    assert_eq!((machine.copies("r").len(), machine.copies("c").len()), (1, 1));
    // While c was away, r got two more.
    machine.run(&["run", "--target", "r"]).expect(0);
    machine.run(&["run", "--target", "r"]).expect(0);
    machine.run(&["run"]).expect(0);
    assert_eq!((machine.copies("r").len(), machine.copies("c").len()), (4, 4));
    let out = machine.path("out");
    machine.run(&["restore", "host", "--target", "c", "--to", out.to_str().unwrap()]).expect(0);
    let source = machine.path("src");
    assert_same_tree(&source, &out.join(source.strip_prefix("/").unwrap()));
}

#[test]
fn retention_keeps_what_the_policy_says_and_pins_hold() {
    let keep = "[targets.b.keep]\nlast = 2\n[targets.r.keep]\nlast = 2\n";
    let machine = Machine::new(&format!("{keep}{HOST}"));
    machine.run(&["run"]).expect(0);
    for target in ["b", "r"] {
        let first = machine.copies(target).remove(0);
        machine.run(&["pin", "host", &first, "--target", target]).expect(0);
    }
    for _ in 0..3 {
        machine.run(&["run"]).expect(0);
    }
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 3, "{target}: two and the pinned one");
    }
    // The mark is in the repositories: without a history they say the same.
    fs::rename(machine.path("state/history.sqlite"), machine.path("kept.sqlite")).unwrap();
    let forgotten = machine.run(&["--json", "prune", "--dry-run", "--accept"]).expect(0).json();
    for row in forgotten["decisions"].as_array().unwrap() {
        let is_pinned = row["reason"].as_str().unwrap().contains("pinned");
        assert!(!(is_pinned && row["delete"] == true), "{forgotten}");
    }
    let listed = machine.run(&["list"]).expect(0).stdout;
    let notes = listed.lines().filter_map(|line| line.split_whitespace().last());
    assert_eq!(notes.filter(|note| *note == "pinned").count(), 2, "one word for it: {listed}");
    fs::rename(machine.path("kept.sqlite"), machine.path("state/history.sqlite")).unwrap();
    // The dry run shows the set that the real one deletes.
    machine.configure(&format!("{}{HOST}", keep.replace('2', "1")));
    let dry = machine.run(&["--json", "prune", "--dry-run"]).expect(0).json();
    assert_eq!(machine.copies("b").len(), 3, "a dry run deletes nothing");
    let mut planned: Vec<String> = dry["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["delete"] == true)
        .map(|row| row["copy"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(planned.len(), 2, "{dry}");
    let real = machine.run(&["--json", "prune"]).expect(0).json();
    let mut deleted: Vec<String> = real["deleted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    planned.sort();
    deleted.sort();
    assert_eq!(planned, deleted);
    for target in ["b", "r"] {
        let pinned = machine.run(&["--json", "list", "--target", target]).expect(0).json();
        let pinned =
            pinned["copies"].as_array().unwrap().iter().find(|c| c["pinned"] == true).cloned();
        let pinned = pinned.expect("the pinned copy stays")["id"].as_str().unwrap().to_owned();
        machine.run(&["prune", &pinned, "--target", target]).says("pinned");
        machine.run(&["unpin", "host", &pinned, "--target", target]).expect(0);
    }
    machine.run(&["prune"]).expect(0);
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 1, "{target}");
    }
    machine.run(&["compact"]).expect(0);
    machine.assert_clean();
}

#[test]
fn somebody_elses_copies_are_never_touched() {
    let machine =
        Machine::new(&format!("[targets.b.keep]\nlast = 1\n[targets.r.keep]\nlast = 1\n{HOST}"));
    let foreign = |args: &[&str], program: &str| {
        let status = machine.stranger(program).args(args).output().unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    };
    let source = machine.path("src/hello.txt");
    // Names that a prefix would match.
    let archive = format!("{}::host@web1-extra", machine.path("repo-b").display());
    foreign(&["create", &archive, source.to_str().unwrap()], "borg");
    let repository = machine.path("repo-r");
    foreign(
        &[
            "-r",
            repository.to_str().unwrap(),
            "backup",
            "--host",
            "web1",
            "--tag",
            "job=host",
            source.to_str().unwrap(),
        ],
        "restic",
    );
    for _ in 0..3 {
        machine.run(&["run"]).expect(0);
    }
    for target in ["b", "r"] {
        let all = machine.run(&["--json", "list", "--all", "--target", target]).expect(0).json();
        assert_eq!(all["copies"].as_array().unwrap().len(), 2, "{target}: ours and theirs: {all}");
        assert_eq!(machine.copies(target).len(), 1);
    }
}

#[test]
fn find_and_diff_show_what_changed() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    machine.write("src/hello.txt", "hello again\n", 0o644);
    machine.write("src/brand-new", "x\n", 0o644);
    machine.run(&["run"]).expect(0);
    for target in ["b", "r"] {
        let found =
            machine.run(&["--json", "find", "hello.txt", "--target", target]).expect(0).json();
        assert_eq!(found["versions"].as_array().unwrap().len(), 2, "{target}: {found}");
        let diff = machine.run(&["--json", "diff", "host", "--target", target]).expect(0).json();
        let kinds: Vec<(String, String)> = diff["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| {
                let path = change["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
                (path, change["kind"].as_str().unwrap().to_owned())
            })
            .collect();
        assert!(kinds.contains(&("hello.txt".into(), "modified".into())), "{target}: {kinds:?}");
        assert!(kinds.contains(&("brand-new".into(), "added".into())), "{target}: {kinds:?}");
        fs::remove_file(machine.path("src/many/7")).unwrap();
        let live = machine
            .run(&["--json", "diff", "host", "latest", "live", "--target", target])
            .expect(0)
            .json();
        let live = live["changes"].as_array().unwrap().clone();
        assert!(
            live.iter()
                .any(|c| c["path"].as_str().unwrap().ends_with("many/7") && c["kind"] == "removed")
        );
        machine.write("src/many/7", "back\n", 0o644);
    }
    // One repository that cannot be read does not hide what the other one has.
    fs::rename(machine.path("repo-b"), machine.path("away")).unwrap();
    let found = machine.run(&["--json", "find", "hello.txt"]);
    assert_ne!(found.code, Some(0));
    let found = found.json();
    assert_eq!(found["versions"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!(found["unreadable"][0]["target"], "b", "{found}");
}

#[test]
fn a_copy_is_browsed_until_it_is_unmounted() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    for (target, end) in [("b", "umount"), ("b", "INT"), ("r", "umount"), ("r", "INT")] {
        let at = machine.path(&format!("mnt-{target}-{end}"));
        fs::create_dir(&at).unwrap();
        let child = machine.start(&["mount", "host", at.to_str().unwrap(), "--target", target]);
        // It may fail while the file system is only coming.
        let find =
            || command("find").arg(&at).args(["-name", "hello.txt"]).output().unwrap().stdout;
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut found = String::new();
        while found.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            found = String::from_utf8(find()).unwrap();
        }
        let seen = found.lines().next().map(|path| fs::read_to_string(path).unwrap());
        if end == "umount" {
            must_at_last("umount", &[at.to_str().unwrap()]);
        } else {
            must("kill", &["-s", end, &child.id().to_string()]);
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(seen.as_deref(), Some("hello\n"), "{target}: {said}");
        let code = if end == "umount" { 0 } else { 130 };
        assert_eq!(output.status.code(), Some(code), "{target} {end}: {said}");
        machine.assert_clean();
    }
}
