//! What must never look like success, or mean more than was said: runs that do nothing, readers that go away,
//! names that several copies answer to.

use std::fs;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::bench_machine::{Bound, COPIED, HOST, Machine, Ran, bounded, command, must};

#[test]
fn a_copied_target_does_not_ask_for_what_retention_just_deleted() {
    let machine = Machine::new(&format!("[targets.r.keep]\nlast = 1\n{COPIED}"));
    machine.run(&["init", "c"]).expect(0);
    machine.run(&["run"]).expect(0);
    // While c was away, r got one more, which the next run deletes there before c is filled.
    machine.run(&["run", "--target", "r"]).expect(0);
    let report = machine.run(&["--json", "run"]).expect(0).json();
    let steps = report["jobs"][0]["steps"].as_array().unwrap();
    let copy = steps.iter().find(|step| step["step"] == "copy").unwrap();
    assert_eq!(copy["detail"], "1 copied from r");
    assert_eq!((machine.copies("r").len(), machine.copies("c").len()), (1, 2));
}

#[test]
fn a_run_that_would_do_nothing_is_not_green() {
    let machine = Machine::bare(&HOST.replace(r#"["b", "r"]"#, r#"["b"]"#));
    for verb in ["run", "plan"] {
        machine.run(&[verb, "--target", "r"]).expect(3).says("no job uses target r");
        machine.run(&[verb, "host", "--target", "r"]).expect(3).says("does not use target r");
    }
    machine.configure("");
    machine.run(&["run"]).expect(3).says("names no job");
}

#[test]
fn a_reader_that_went_away_does_not_hide_a_failure() {
    let machine = Machine::new(&HOST.replace("/src", "/gone"));
    for arguments in [&["run"][..], &["--json", "run"]] {
        let mut child = machine.start(arguments);
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(10), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_written_to_standard_output_is_told_with_its_place() {
    let machine = Machine::new(&HOST.replace(r#"["b", "r"]"#, r#"["b"]"#));
    for arguments in [&["run"][..], &["--json", "run"], &["list"], &["--json", "list"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = bounded(&machine.command(arguments)).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output: No space left"), "{said}");
    }
    assert_eq!(machine.copies("b").len(), 2, "the copies were made all the same");
}

#[test]
fn prune_deletes_by_name_only_what_the_name_means() {
    let machine = Machine::new(HOST);
    for _ in 0..3 {
        machine.run(&["run"]).expect(0);
    }
    let copies = machine.copies("b");
    // Every archive of the job begins so.
    machine.run(&["prune", "host@web1", "--target", "b"]).expect(2).says("ambiguous");
    assert_eq!(machine.copies("b"), copies);
    // A pinned copy is there; that it stays is a refusal, not an absence.
    machine.run(&["pin", "host", &copies[0], "--target", "b"]).expect(0);
    let said = machine.run(&["prune", &copies[0], "--target", "b"]).expect(12).says("is pinned");
    assert!(!said.stderr.contains("no target"), "{}", said.stderr);
    machine.run(&["prune", &copies[1], "--target", "b"]).expect(0);
    assert_eq!(machine.copies("b").len(), 2);
    machine.run(&["prune", "nothing-of-the-kind", "--target", "b"]).expect(10).says("lists a copy");
}

#[test]
fn prune_asks_for_the_target_of_a_copy_that_is_in_several() {
    let machine = Machine::new(COPIED);
    machine.run(&["init", "c"]).expect(0);
    for _ in 0..3 {
        machine.run(&["run"]).expect(0);
    }
    let (first, second) = (machine.copies("r"), machine.copies("c"));
    // What was copied to c answers to the id that it has in r.
    for name in [&first[0][..], &first[0][..12]] {
        for arguments in
            [&["prune", name][..], &["prune", name, "--dry-run"], &["prune", name, "--job", "host"]]
        {
            machine.run(arguments).expect(2).says("several targets").says("r, c — choose one with");
        }
    }
    assert_eq!((machine.copies("r"), machine.copies("c")), (first.clone(), second.clone()));
    machine.run(&["prune", &first[0], "--target", "r"]).expect(0);
    assert_eq!((machine.copies("r").len(), machine.copies("c").len()), (2, 3));
    // Now it names one copy only.
    machine.run(&["prune", &first[0]]).expect(0);
    assert_eq!(machine.copies("c").len(), 2);
    // A run is meant with all that it made.
    let listed = machine.run(&["--json", "list"]).expect(0).json().to_string();
    let run = listed.split(r#""run":""#).nth(1).unwrap()[..8].to_owned();
    machine.run(&["prune", &run]).expect(0);
    assert_eq!((machine.copies("r").len(), machine.copies("c").len()), (1, 1));
    // A target that cannot be read may hold it too, but nothing goes there.
    std::fs::rename(machine.path("repo-c"), machine.path("away")).unwrap();
    let last = machine.copies("r").remove(0);
    machine.run(&["prune", &last]).expect(10).says("target c").says("the last good copy");
}

#[test]
fn copies_that_shrank_wait_for_a_person() {
    let machine =
        Machine::new(&format!("[targets.b.keep]\nlast = 1\n{}", HOST.replace(r#", "r""#, "")));
    machine.run(&["run"]).expect(0);
    std::fs::remove_dir_all(machine.path("src/many")).unwrap();
    machine.run(&["run"]).expect(12).says("files where the last good one had");
    machine.run(&["run"]).expect(12).says("files where the last good one had");
    assert_eq!(machine.copies("b").len(), 3, "the whole copy is still there");
    machine.run(&["prune", "--accept"]).expect(0);
    assert_eq!(machine.copies("b").len(), 1);
    machine.run(&["run"]).expect(0);
    assert_eq!(machine.copies("b").len(), 1);
}

#[test]
fn a_misspelt_target_is_found_before_any_repository_is_made() {
    let machine = Machine::bare(HOST);
    machine.run(&["init", "b", "bb"]).expect(3).says("did you mean b?");
    assert!(!machine.path("repo-b").exists(), "its key would never have been shown");
}

#[test]
fn a_program_that_is_not_there_is_found_before_a_run_needs_it() {
    let job = |hook: &str| {
        format!(
            r#"
[targets.s.restic]
repository = "{{root}}/repo-s"
password-command = ["{{root}}/no-secret"]
{HOST}
[jobs.host.hooks]
before = [["true"]]
{hook} = [["/bin/true"], ["{{root}}/no-hook", "argument"], ["no-such-name"]]
[jobs.dump]
targets = ["b"]
[jobs.dump.commands.all]
command = ["{{root}}/no-command"]
file-name = "all"
"#
        )
    };
    let machine = Machine::new(&job("finally"));
    for hook in ["before", "quiesce", "resume", "after", "on-failure", "finally"] {
        let text = job(hook);
        machine.configure(&match hook {
            "before" => text.replace("before = [[\"true\"]]\n", ""),
            // They mean nothing where nothing is held still, nor one without the other.
            "quiesce" | "resume" => {
                let other = if hook == "quiesce" { "resume" } else { "quiesce" };
                text.replace("capture = \"none\"", "consistent = true")
                    .replace("before =", &format!("{other} ="))
            }
            _ => text,
        });
        let ran = machine.run(&["check-config", "--online"]).expect(4);
        let mut told = ran.stdout.lines().filter(|line| line.starts_with("FAIL"));
        let mut told = |place: &str, cause: &str| {
            let found = told.find(|line| line.contains(place)).unwrap_or_default();
            assert!(found.contains(cause) && found.contains(" — "), "{place}: {}", ran.stdout);
        };
        told("target s", "no-secret");
        let place = format!("job host, {hook} hook: ");
        told(&place, "no-hook");
        told(&place, "no-such-name");
        told("job dump, all: ", "no-command");
        assert!(ran.stdout.contains(&format!("ok    {place}/bin/true\n")), "{}", ran.stdout);
    }
    // What is there and cannot be run keeps every run from starting.
    machine.configure(&job("finally"));
    machine.write("no-hook", "#!/bin/sh\n", 0o644);
    let said = machine.run(&["check-config"]).expect(3).says("job host, finally hook: ");
    assert!(
        said.stdout.contains("no-hook") && said.stdout.contains("chmod u+x"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_ledger_that_others_could_have_written_is_not_carried_out() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    let planted = |place: &str| {
        let hook = format!(
            r#"{{"run-hook":{{"promise":"finally","job":"host","argv":["/bin/touch","{}"],"timeout":null}}}}"#,
            machine.path("planted").display()
        );
        let lines = format!(
            "{{\"begin\":{{\"format\":1,\"run\":\"0badc0de\"}}}}\n{{\"intend\":{{\"entry\":0,\"undo\":{hook}}}}}\n"
        );
        machine.write(&format!("{place}/ledger/0badc0de"), &lines, 0o600);
    };
    for (place, key) in [("state", "state-dir"), ("run", "runtime-dir")] {
        planted(place);
        std::os::unix::fs::chown(machine.path(place), Some(65534), None).unwrap();
        for verb in [&["recover"][..], &["run"], &["restore", "host", "latest", "--to", "/x"]] {
            let ran = machine.run(verb).expect(3);
            let ran = ran.says(&format!("settings, {key}: ")).says("belongs to user 65534");
            ran.says("chown root");
        }
        assert!(!machine.path("planted").exists(), "{place}");
        // The test is true: what stands there is a ledger that would be carried out.
        std::os::unix::fs::chown(machine.path(place), Some(0), None).unwrap();
        machine.run(&["recover"]).expect(0);
        std::fs::remove_file(machine.path("planted")).unwrap();
    }
}

#[test]
fn two_names_of_one_repository_are_told_to_be_one() {
    let two_names = r#"
[targets.r2.restic]
repository = "local:{root}/link/repo-r"
password-file = "{root}/pass"
[jobs.host]
targets = ["b", "r", "r2"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
"#;
    let machine = Machine::new(two_names);
    std::os::unix::fs::symlink(machine.path(""), machine.path("link")).unwrap();
    let ran = machine.run(&["check-config", "--online"]).expect(3);
    assert_eq!(ran.stdout.matches(" free").count(), 2, "{}", ran.stdout);
    ran.says("targets r and r2 are the same repository under two names");
    machine.run(&["run"]).expect(3).says("targets r and r2 mean the same repository");
    assert_eq!((machine.copies("b").len(), machine.copies("r").len()), (1, 1));
}

/// No path tells it.
#[test]
fn a_repository_that_is_seen_a_second_time_elsewhere_gets_no_second_copy() {
    let twice = r#"
[targets.b2.borg]
repository = "{root}/again/repo-b"
passphrase-file = "{root}/pass"
[targets.r2.restic]
repository = "local:{root}/again/repo-r"
password-file = "{root}/pass"
[targets.s.streams]
directory = "{root}/out"
[targets.s2.streams]
directory = "{root}/again/out"
[jobs.host]
targets = ["b", "b2", "r", "r2"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
"#;
    let machine = Machine::new(twice);
    for name in ["again", "out"] {
        std::fs::create_dir(machine.path(name)).unwrap();
    }
    let again = Bound::new(&machine.path(""), machine.path("again"));
    machine.run(&["init", "s"]).expect(0);
    let are_same =
        |one: &str| format!("targets {one} and {one}2 are the same repository under two names");
    // No engine was asked yet which repository it is.
    let mut ran = machine.run(&["run", "host"]).expect(3);
    for target in ["b", "r"] {
        ran = ran.says(&are_same(target));
        assert_eq!(machine.copies(target).len(), 1, "{target}");
    }
    machine.run(&["run", "host", "--target", "b2"]).expect(3).says(&are_same("b"));
    machine.run(&["prune", "--target", "r2"]).expect(3).says(&are_same("r"));
    machine.run(&["init", "--moved", "b2"]).expect(3).says(&are_same("b"));
    machine.run(&["init", "--existing", "s2"]).expect(3).says(&are_same("s"));
    let mut ran = machine.run(&["check-config", "--online"]).expect(3);
    for target in ["b", "r", "s"] {
        ran = ran.says(&are_same(target));
    }
    // Where it is another one now, what was remembered is of then.
    drop(again);
    let ran = machine.run(&["check-config", "--online"]).expect(10);
    assert!(!ran.stdout.contains("under two names"), "{}", ran.stdout);
    machine.run(&["run", "host"]).expect(10);
    assert_eq!((machine.copies("b").len(), machine.copies("r").len()), (2, 2));
}

#[test]
fn latest_is_the_newest_good_copy_in_any_target() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    let restored = |out: &str| {
        let to = machine.path(out);
        let report = machine
            .run(&["--json", "restore", "host", "--to", to.to_str().unwrap()])
            .expect(0)
            .json();
        report["target"].as_str().unwrap().to_owned()
    };
    assert_eq!(restored("one"), "b", "of one run, the first target serves it");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    machine.run(&["run", "--target", "r"]).expect(0);
    assert_eq!(restored("two"), "r", "b missed the last run");
}

#[test]
fn a_lost_history_does_not_open_the_way_to_the_copies() {
    let keep = "[targets.b.keep]\nlast = 1\n[targets.r.keep]\nlast = 1\n";
    let machine = Machine::new(&format!("{keep}{HOST}"));
    machine.run(&["run"]).expect(0);
    // The machine is installed anew, and its timer is faster than the person who restores.
    for lost in ["history.sqlite", "history.sqlite-wal", "history.sqlite-shm"] {
        let _ = std::fs::remove_file(machine.path("state").join(lost));
    }
    std::fs::remove_dir_all(machine.path("src")).unwrap();
    machine.write("src/hello.txt", "hello\n", 0o644);
    let genuine = [machine.copies("b").remove(0), machine.copies("r").remove(0)];
    for _ in 2..=4 {
        machine
            .run(&["run"])
            .expect(0)
            .says("1 that this machine neither made nor adopted left alone");
        for (target, genuine) in ["b", "r"].iter().zip(&genuine) {
            let copies = machine.copies(target);
            assert!(copies.contains(genuine), "{target}");
            assert_eq!(copies.len(), 2, "{target}");
        }
    }
    // Not even a person's word about the policy means those.
    machine.run(&["-q", "prune", "--accept"]).expect(0);
    machine.run(&["prune", &genuine[0], "--target", "b"]).expect(12).says("adopt");
    assert!(machine.copies("b").contains(&genuine[0]));
}

#[test]
fn a_name_of_any_bytes_is_restored_and_is_not_called_removed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let machine = Machine::new(HOST);
    let name = machine.path("src").join(OsStr::from_bytes(b"n\xff\x1b[31m"));
    std::fs::write(&name, "odd\n").unwrap();
    machine.run(&["run"]).expect(0);
    for target in ["b", "r"] {
        let diff = machine.run(&["diff", "host", "latest", "live", "--target", target]).expect(0);
        let said = diff.stdout;
        assert!(!said.contains("\n- ") && !said.contains('\x1b'), "{target}: {said}");
        let out = machine.path(&format!("out-{target}"));
        let mut restore = machine.command(&["-q", "restore", "host", "--target", target, "--to"]);
        let output = restore.arg(&out).arg("latest").arg(&name).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && output.stdout.is_empty(), "{target}: {said}");
        assert_eq!(std::fs::read(out.join(name.strip_prefix("/").unwrap())).unwrap(), b"odd\n");
    }
}

#[test]
fn a_source_that_is_only_a_link_is_told() {
    let machine = Machine::new(&HOST.replace("/src\"]", "/link\", \"{root}/src/sub\"]"));
    std::os::unix::fs::symlink(machine.path("src"), machine.path("link")).unwrap();
    let told = "is a symbolic link, of which only the link itself would be stored";
    machine.run(&["run"]).expect(13).says(told);
    machine.configure(&HOST.replace("/src", "/link"));
    let name = format!("name {} instead", machine.path("src").display());
    for (arguments, code) in [(&["run"][..], 10), (&["check-config", "--online"], 13)] {
        let said = machine.run(arguments).expect(code).says(told).says(&name);
        let all = said.stdout + &said.stderr;
        assert!(!all.contains("not mounted"), "a link is no mount point: {all}");
    }
    // A link on the way to a source is followed.
    machine.configure(&HOST.replace("/src", "/link/many"));
    machine.run(&["run"]).expect(0);
    let to = machine.path("back");
    std::fs::create_dir(&to).unwrap();
    machine.run(&["restore", "host", "--target", "b", "--to", to.to_str().unwrap()]).expect(0);
    let file = to.join(machine.path("link/many/7").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "file 7\n".repeat(8));
}

#[test]
fn retention_counts_days_of_local_time_in_a_plan_as_in_fact() {
    let job = HOST.replace(r#"["b", "r"]"#, r#"["r"]"#);
    let machine = Machine::new(&job);
    machine.run(&["run"]).expect(0);
    machine.run(&["run"]).expect(0);
    let listed = machine.run(&["--json", "list", "--target", "r"]).expect(0).json();
    let times = listed["copies"].as_array().unwrap().iter();
    let newest = times.map(|copy| copy["time"].as_str().unwrap().to_owned()).max().unwrap();
    let newest: DateTime<Utc> = newest.parse().unwrap();
    machine.configure(&format!("[targets.r.keep]\ndaily = 5\n{job}"));
    let etc = machine.path("etc");
    must("cp", &["-a", "/etc", etc.to_str().unwrap()]);
    let pruned = |zone: &str, args: &[&str]| {
        let localtime = etc.join("localtime");
        let _ = fs::remove_file(&localtime);
        fs::write(&localtime, zone_file(zone)).unwrap();
        let program = machine.command(args);
        let mut inside = command("unshare");
        inside.args(["--mount", "--propagation", "private", "sh", "-c"]);
        inside.args(["mount --bind \"$1\" /etc && shift && exec \"$@\"", "sh"]).arg(&etc);
        inside.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        // What a shell says of it counts for nothing: a plan there would show another set than the nightly run deletes.
        inside.env("TZ", "XXX-05:43:21");
        Ran::from(inside.output().unwrap()).expect(0).json()
    };
    let doomed = |zone: &str| {
        let planned = pruned(zone, &["--json", "prune", "--dry-run"]);
        let decisions = planned["decisions"].as_array().unwrap().clone();
        assert_eq!(decisions.len(), 2, "{planned}");
        let ids = decisions.into_iter().filter(|copy| copy["delete"] == true);
        ids.map(|copy| copy["copy"].clone()).collect::<Vec<_>>()
    };
    // Midnight comes between the two where the newer one is made.
    assert_eq!(doomed(&zone_in_which(newest, 0)), Vec::<Value>::new());
    let noon = zone_in_which(newest, 43_200);
    let planned = doomed(&noon);
    assert_eq!(planned.len(), 1);
    assert_eq!(pruned(&noon, &["--json", "prune"])["deleted"], Value::from(planned));
}

/// A file of tzfile(5), version 2, that says nothing but this rule.
fn zone_file(rule: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..2 {
        bytes.extend(b"TZif2");
        bytes.extend([0; 15]);
        // No indicators, leap seconds or transitions; one type of local time with a name of four bytes.
        for count in [0_u32, 0, 0, 0, 1, 4] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend([0; 6]);
        bytes.extend(b"XXX\0");
    }
    bytes.extend(format!("\n{rule}\n").bytes());
    bytes
}

/// The time zone (tzset(3)) in which clocks show so many seconds after midnight at this moment.
fn zone_in_which(time: DateTime<Utc>, clock: i64) -> String {
    let ahead = (clock - time.timestamp()).rem_euclid(86_400);
    format!("XXX-{:02}:{:02}:{:02}", ahead / 3_600, ahead / 60 % 60, ahead % 60)
}
