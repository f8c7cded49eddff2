//! Whose copies are whose: two machines under one name, clones, forgers, and a machine that lost its state.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::bench_machine::{COPIED, HOST, Machine, bounded, command, must};

const KEEP_ONE: &str = "[targets.b.keep]\nlast = 1\n[targets.r.keep]\nlast = 1\n";

/// Another machine of the same name that shares the repositories: its configuration beside the first one's.
fn second_machine(machine: &Machine) -> PathBuf {
    let root = machine.path("").display().to_string();
    let mut text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    for own in ["state", "cache", "run"] {
        text = text.replace(&format!("{root}/{own}\""), &format!("{root}/{own}-2\""));
    }
    machine.write("two.toml", &text, 0o600);
    machine.path("two.toml")
}

fn as_second(config: &PathBuf, args: &[&str], code: i32) -> String {
    let mut second = command(crate::bench_machine::PROGRAM);
    let output = bounded(second.arg("-c").arg(config).args(args)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

fn lose_history(machine: &Machine) {
    for lost in ["history.sqlite", "history.sqlite-wal", "history.sqlite-shm"] {
        let _ = fs::remove_file(machine.path("state").join(lost));
    }
}

#[test]
fn two_machines_of_one_name_leave_each_others_copies_alone() {
    let machine = Machine::new(&format!("{KEEP_ONE}{HOST}"));
    let two = second_machine(&machine);
    for _ in 0..2 {
        machine.run(&["-q", "run"]).expect(0);
        as_second(&two, &["-q", "run"], 0);
    }
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 2, "{target}: one of each machine");
    }
    // Each says so, and neither takes the other's for its own latest.
    machine.run(&["run"]).expect(0).says("1 that this machine neither made nor adopted left alone");
    let shown = machine.run(&["prune", "--dry-run"]).expect(0);
    assert_eq!(shown.stdout.matches("neither made nor adopted").count(), 2, "{}", shown.stdout);
    assert!(shown.stdout.contains("marked as of machine"), "{}", shown.stdout);
    machine.run(&["list"]).expect(0).says("not this machine's");
    as_second(&two, &["-q", "run"], 0);
    let out = machine.path("out");
    machine
        .run(&["restore", "host", "--to", out.to_str().unwrap()])
        .expect(0)
        .says("neither made nor adopted by this machine");
    // Copies carry the identity with both engines, and taking those of somebody who lives is not done in passing.
    machine.run(&["adopt", "b", "--yes"]).expect(0).says("1 adopted");
    let taken = machine.run(&["--json", "adopt", "r", "--dry-run"]).expect(0).json();
    let maker = taken["copies"][0]["machine"].as_str().unwrap().to_owned();
    assert_ne!(maker, "", "{taken}");
    let newest = machine.copies("b").pop().unwrap();
    let comment = must(
        "env",
        &[
            "BORG_PASSPHRASE=correct horse",
            &format!("BORG_BASE_DIR={}", machine.path("borg-base").display()),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes",
            "borg",
            "info",
            "--json",
            &format!("{}::{newest}", machine.path("repo-b").display()),
        ],
    );
    assert!(comment.contains(&format!("\\\"machine\\\":\\\"{maker}\\\"")), "{comment}");
}

#[test]
fn a_clone_with_the_same_state_begins_anew() {
    let machine = Machine::new(&format!("{KEEP_ONE}{HOST}"));
    machine.run(&["-q", "run"]).expect(0);
    let two = second_machine(&machine);
    must(
        "cp",
        &["-a", machine.path("state").to_str().unwrap(), machine.path("state-2").to_str().unwrap()],
    );
    // What this machine is known by stands in its history; for the clone it is another's.
    let history = Connection::open(machine.path("state-2/history.sqlite")).unwrap();
    history.execute("UPDATE machine SET installation = 'of another machine'", []).unwrap();
    drop(history);
    let shared = [machine.copies("b"), machine.copies("r")].concat();
    let said = as_second(&two, &["prune", "--dry-run"], 0);
    assert!(
        said.contains("made on another machine") && said.contains("0 would be deleted"),
        "{said}"
    );
    let said = as_second(&two, &["run"], 0);
    assert!(said.contains("gets an identity of its own"), "{said}");
    as_second(&two, &["-q", "run"], 0);
    for copy in &shared {
        assert!([machine.copies("b"), machine.copies("r")].concat().contains(copy), "{copy}");
    }
    // The original goes on as before.
    machine.run(&["-q", "run"]).expect(0);
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 2, "{target}: one of each");
    }
}

#[test]
fn whoever_can_only_add_cannot_make_us_delete_or_hold_back() {
    let machine = Machine::new(&format!("[targets.r.keep]\nlast = 2\n{HOST}"));
    machine.run(&["-q", "run"]).expect(0);
    machine.run(&["-q", "run"]).expect(0);
    let genuine = machine.copies("r");
    let listed = machine.run(&["--json", "list", "--target", "r"]).expect(0).json();
    let of = |key: &str| listed["copies"][0][key].as_str().unwrap().to_owned();
    machine.write("forged/f", "forged\n", 0o644);
    // Under our name, run and machine: years old, of now, and to come.
    for time in ["2019-01-01 00:00:00", "2026-01-01 00:00:00", "2037-01-01 00:00:00"] {
        let tags = format!("job=host,run={},machine={}", of("run"), of("machine"));
        must(
            "restic",
            &[
                "-q",
                "-r",
                machine.path("repo-r").to_str().unwrap(),
                "--password-file",
                machine.path("pass").to_str().unwrap(),
                "--no-cache",
                "backup",
                "--host",
                &of("host"),
                "--tag",
                &tags,
                "--time",
                time,
                machine.path("forged").to_str().unwrap(),
            ],
        );
    }
    let ran = machine.run(&["run"]).expect(0);
    ran.says("3 that this machine neither made nor adopted left alone")
        .says("somebody forges them");
    let left = machine.copies("r");
    assert_eq!(left.len(), 2 + 3);
    assert!(left.contains(&genuine[1]) && !left.contains(&genuine[0]), "the policy goes on");
    let out = machine.path("out");
    let args = ["restore", "host", "--target", "r", "--to", out.to_str().unwrap()];
    machine.run(&args).expect(0);
    assert!(
        out.join(machine.path("src").strip_prefix("/").unwrap()).exists(),
        "not the forged one"
    );
}

#[test]
fn lost_state_is_answered_by_the_repository_and_adopted_on_a_persons_word() {
    let machine = Machine::new(&format!("{KEEP_ONE}{HOST}"));
    machine.run(&["-q", "run"]).expect(0);
    lose_history(&machine);
    let status = machine.run(&["status"]).expect(13);
    assert!(!status.stdout.contains("never run"), "{}", status.stdout);
    status.says("the target lists 1 copy, the newest of");
    let json = machine.run(&["--json", "status"]).expect(13).json();
    assert_eq!(json["entries"][0]["listed"]["copies"], 1, "{json}");
    machine.run(&["-q", "run"]).expect(0);
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 2, "{target}");
        // Nobody is there to be asked.
        machine.run(&["adopt", target]).expect(2).says("--yes");
        machine.run(&["adopt", target, "--dry-run"]).expect(0).says("1 would be adopted");
        machine.run(&["adopt", target, "--yes"]).expect(0).says("1 adopted");
        machine.run(&["adopt", target, "--yes"]).expect(0).says("nothing to adopt");
    }
    machine.run(&["-q", "prune", "--accept"]).expect(0);
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 1, "{target}: the policy counts what was adopted");
    }
    let status = machine.run(&["--json", "status"]).expect(0).json();
    assert!(status["entries"][0]["listed"].is_null(), "nobody is asked without need: {status}");
}

#[test]
fn copies_of_another_name_are_reached_and_taken_over() {
    let machine = Machine::new(HOST);
    machine.run(&["-q", "run"]).expect(0);
    let host = machine.run(&["--json", "list"]).expect(0).json()["copies"][0]["host"].clone();
    let host = host.as_str().unwrap();
    // The machine and the job have other names now.
    let config = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let renamed = config.replace("[jobs.host", "[jobs.system");
    let renamed = renamed.replace(&format!("host = \"{host}\""), "host = \"rescue\"");
    machine.write("stillpoint.toml", &renamed, 0o600);
    if !renamed.contains("rescue") {
        machine.write(
            "stillpoint.toml",
            &renamed.replace("[settings]", "[settings]\nhost = \"rescue\""),
            0o600,
        );
    }
    machine.run(&["list", "--job", "host"]).expect(3).says("--target");
    machine.run(&["list", "--job", "host", "--target", "b"]).expect(0).says("host@");
    for target in ["b", "r"] {
        let id = machine.copies(target).remove(0);
        let restore = |out: &str, args: &[&str], code: i32| {
            let to = machine.path(&format!("{out}-{target}"));
            let all = [args, &["--target", target, "--to", to.to_str().unwrap()]].concat();
            machine.run(&[&["restore"][..], &all].concat()).expect(code)
        };
        restore("latest", &["host"], 10).says("use --host");
        restore("host", &["host", "--host", host], 0);
        restore("id", &["host", &id], 0).says(&format!("on host {host}"));
        // An id in a named target means that copy, whatever the job.
        restore("other", &["system", &id], 0).says("of job host");
        machine.run(&["verify", "host", "--host", host, "--target", target]).expect(0);
        machine
            .run(&["diff", "host", "latest", "live", "--host", host, "--target", target])
            .expect(0);
    }
    machine.run(&["-q", "run"]).expect(0);
    machine.run(&["list"]).expect(0).says("HOST").says("rescue");
    for target in ["b", "r"] {
        let args =
            ["adopt", target, "--job", "system", "--from-job", "host", "--host", host, "--yes"];
        machine.run(&args).expect(0).says("1 adopted");
        let json = machine
            .run(&["--json", "list", "--job", "system", "--target", target])
            .expect(0)
            .json();
        assert_eq!(json["copies"].as_array().unwrap().len(), 2, "{json}");
        assert!(
            json["copies"].as_array().unwrap().iter().all(|copy| copy["ours"] == true),
            "{json}"
        );
    }
}

#[test]
fn a_job_that_was_of_another_kind_restores_what_it_is_now_and_what_it_was() {
    let dump = "[jobs.host]\ntargets = [\"b\", \"r\"]\n[jobs.host.commands.pg]\ncommand = [\"echo\", \"dump\"]\nfile-name = \"pg.sql\"\n";
    let machine = Machine::new(dump);
    machine.run(&["-q", "run"]).expect(0);
    machine.configure(HOST);
    for target in ["b", "r"] {
        // Nothing is there of its new kind yet: the only stream is meant.
        machine.run(&["verify", "host", "--target", target]).expect(0);
    }
    machine.run(&["-q", "run"]).expect(0);
    let restored = |target: &str, item: &[&str]| {
        let to = machine.path(&format!("out-{target}-{}", item.len()));
        let args = ["--json", "restore", "host", "--target", target, "--to", to.to_str().unwrap()];
        machine.run(&[&args[..], item].concat()).expect(0);
        to.join("pg.sql").exists() || to.join("stdin").exists()
    };
    for target in ["b", "r"] {
        assert!(!restored(target, &[]), "{target}: files are what it stores now");
        assert!(restored(target, &["--item", "pg"]), "{target}");
        machine.run(&["verify", "host", "--target", target, "--item", "files"]).expect(0);
        machine.run(&["diff", "host", "latest", "live", "--target", target]).expect(0);
    }
    machine.configure(dump);
    machine.run(&["verify", "host", "--target", "r"]).expect(0);
    machine.run(&["verify", "host", "--target", "r", "--item", "files"]).expect(0);
}

#[test]
fn what_a_target_caught_up_with_is_ours_there_too() {
    let machine = Machine::new(&format!("[targets.c.keep]\nlast = 1\n{COPIED}"));
    machine.run(&["init", "c"]).expect(0);
    machine.run(&["-q", "run"]).expect(0);
    fs::rename(machine.path("repo-c"), machine.path("away")).unwrap();
    machine.run(&["-q", "run"]).expect(10);
    fs::rename(machine.path("away"), machine.path("repo-c")).unwrap();
    machine.run(&["run"]).expect(0).says("2 copied from r");
    assert_eq!(machine.copies("c").len(), 1, "the policy counts what it caught up with");
}
