//! What verbs say is what happened: nothing done is not a result, nothing protected is not fine.

use crate::bench_machine::{HOST, Machine, must};

#[test]
fn a_dry_run_says_would_and_makes_nothing() {
    let machine = Machine::new(&format!(
        "[targets.b.keep]\nlast = 1\n[targets.b.check]\nevery = \"0s\"\n{HOST}[jobs.host.hooks]\nfinally = [[\"true\"]]\n"
    ));
    machine.run(&["run"]).expect(0);
    machine.run(&["run"]).expect(0);
    let lies = ["no damage found", " freed", "1 deleted", "target lists", "hooks written"];
    for verb in [&["check", "--dry-run"][..], &["compact", "--dry-run"], &["plan"]] {
        for json in [false, true] {
            let mut words = verb.to_vec();
            if json {
                words.insert(0, "--json");
            }
            let ran = machine.run(&words).expect(0).says("would");
            for lie in lies {
                assert!(!ran.stdout.contains(lie), "{words:?}: {}", ran.stdout);
                assert!(!ran.stderr.contains(lie), "{words:?}: {}", ran.stderr);
            }
        }
    }
    machine.run(&["check", "--dry-run", "--read-data=5%"]).expect(0).says("check r: would check");
    machine.run(&["compact", "--dry-run"]).expect(0).says("compact b: would free");
}

#[test]
fn what_protects_nothing_is_not_fine() {
    let machine = Machine::bare("");
    machine.run(&["status"]).expect(13).says("nothing is protected");
    machine.run(&["-q", "status"]).expect(13).says("nothing is protected");
    let document = machine.run(&["--json", "status"]).expect(13).json();
    assert_eq!(document["entries"], serde_json::json!([]));
    machine.write("stillpoint.toml", "", 0o600);
    for verb in ["list", "check", "compact", "prune"] {
        machine.run(&[verb]).expect(3).says("names no target");
    }
}

#[test]
fn every_value_is_part_of_the_one_document() {
    let machine = Machine::bare(HOST);
    let document = machine.run(&["--json", "check-config", "--show"]).expect(0).json();
    let values = document["values"].as_array().unwrap();
    assert!(values.iter().any(|value| value["key"] == "jobs.host.files.paths"), "{values:?}");
    assert_eq!(
        machine.run(&["--json", "check-config"]).expect(0).json()["values"],
        serde_json::Value::Null
    );
    machine.configure("nonsense = 1\n");
    let document = machine.run(&["--json", "check-config", "--show"]).expect(3).json();
    assert_eq!((&document["valid"], document["values"].is_array()), (&false.into(), true));
}

#[test]
fn colours_are_decided_in_one_place() {
    let machine = Machine::bare(HOST);
    // The log's line and the program's own.
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = machine.command(&["-vvv", "list"]);
        command.envs(variables.iter().copied()).env_remove("JOURNAL_STREAM");
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stderr).contains('\u{1b}')
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

/// Replaces a text of the configuration; it must be there.
fn reconfigure(machine: &Machine, from: &str, to: &str) {
    let text = std::fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    machine.write("stillpoint.toml", &text.replace(from, to), 0o600);
}

#[test]
fn a_moved_repository_is_read_and_written_when_a_person_has_said_so() {
    let machine = Machine::new(&HOST.replace(r#", "r""#, ""));
    machine.run(&["run"]).expect(0);
    std::fs::rename(machine.path("repo-b"), machine.path("moved-b")).unwrap();
    reconfigure(&machine, "/repo-b\"", "/moved-b\"");
    let to = machine.path("out");
    machine.run(&["list"]).expect(0).says("init --moved b");
    machine.run(&["verify", "host"]).expect(0).says("no damage");
    machine.run(&["restore", "host", "--to", to.to_str().unwrap()]).expect(0);
    machine.run(&["check-config", "--online"]).expect(10).says("was at another place");
    // Reading has not taught borg the new place.
    machine.run(&["run"]).expect(10).says("stillpoint init --moved TARGET");
    assert_eq!(machine.copies("b").len(), 1);
    machine.run(&["init", "--moved", "b"]).expect(0).says("accepted at its present place");
    let run = machine.run(&["run"]).expect(0);
    assert!(!run.stderr.contains("place"), "{}", run.stderr);
    assert_eq!(machine.copies("b").len(), 2);
}

#[test]
fn what_a_verb_does_not_use_does_not_keep_it_from_reading() {
    let machine = Machine::bare("");
    let hook = machine.script("hook", "true");
    machine.configure(&format!(
        "{}\n[jobs.other]\ntargets = [\"r\"]\n[jobs.other.files]\npaths = [\"{{root}}/src\"]\ncapture = \"none\"\n[jobs.other.hooks]\nbefore = [[\"{hook}\"]]\n",
        HOST.replace(r#"["b", "r"]"#, r#"["b"]"#)
    ));
    machine.write("pass-r", "other\n", 0o600);
    reconfigure(
        &machine,
        "password-file = \"",
        &format!("password-file = \"{}\" # ", machine.path("pass-r").display()),
    );
    machine.run(&["init", "b", "r"]).expect(0);
    machine.run(&["run"]).expect(0);
    machine.write("pass-r", "other\n", 0o644);
    must("chmod", &["644", &hook]);
    let to = machine.path("out");
    machine.run(&["restore", "host", "--to", to.to_str().unwrap()]).expect(0);
    machine.run(&["list", "--target", "b"]).expect(0);
    machine.run(&["run", "host"]).expect(0);
    machine.run(&["status"]).expect(0);
    // What is used is still refused, each with its place and its remedy.
    machine.run(&["run"]).expect(3).says("target r: ").says("chmod go-rwx").says("chmod u+x");
    machine.run(&["list", "--target", "r"]).expect(3).says("chmod go-rwx");
    machine.run(&["check-config"]).expect(3).says("before hook").says("may be read by others");
}

#[test]
fn init_says_what_is_in_its_way_and_what_it_left() {
    let machine = Machine::bare(HOST);
    reconfigure(&machine, "/repo-b\"", "/no/such/repo-b\"");
    machine.run(&["init", "b"]).expect(4).says("there is no directory").says("/no/such");
    // The target of the other engine, in both directions.
    let other = Machine::bare(HOST);
    other.run(&["init", "b", "r"]).expect(0);
    for (target, repository, engine) in [("b", "repo-r", "restic"), ("r", "repo-b", "borg")] {
        let text = std::fs::read_to_string(other.path("stillpoint.toml")).unwrap();
        let swapped = text
            .replace("/repo-b\"", "/X\"")
            .replace("/repo-r\"", "/repo-b\"")
            .replace("/X\"", "/repo-r\"");
        other.write("stillpoint.toml", &swapped, 0o600);
        let words = format!("{repository} is a {engine} repository");
        for verb in [&["list", "--target", target][..], &["init", target]] {
            other.run(verb).expect(3).says(&words);
        }
        other.write("stillpoint.toml", &text, 0o600);
    }
    // borg makes the directory before it asks for what it is to be locked with.
    let torn = Machine::bare(&HOST.replace(r#", "r""#, ""));
    std::fs::write(torn.path("pass"), b"p\xe4ss\n").unwrap();
    torn.run(&["init", "b"]).expect(10).says("not UTF-8");
    assert!(!torn.path("repo-b").exists());
    torn.write("pass", "words\n", 0o600);
    // As an init leaves it that is killed in between.
    std::fs::create_dir_all(torn.path("repo-b/data")).unwrap();
    let config = "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 0\nstorage_quota = 0\nadditional_free_space = 0\nid = 00000000000000000000000000000000000000000000000000000000000000aa\n";
    torn.write("repo-b/config", config, 0o600);
    torn.write("repo-b/README", "This is a Borg Backup repository.\n", 0o600);
    let said = torn.run(&["run"]).expect(10);
    assert!(!said.stderr.contains("is damaged:"), "{}", said.stderr);
    said.says("its `init` did not end");
}

#[test]
fn compaction_says_what_became_free() {
    let job = HOST.replace(r#"["b", "r"]"#, "[\"b\"]\nmax-shrink = \"off\"");
    let machine = Machine::new(&format!("[targets.b.keep]\nlast = 1\n{job}"));
    for size in [2 << 20, 1, 1] {
        let noise: Vec<u8> =
            (0..size).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(machine.path("src/noise"), noise).unwrap();
        machine.run(&["run"]).expect(0);
    }
    machine.run(&["compact", "--target", "b"]).expect(0).says("compact b: ok");
    must(
        "sed",
        &[
            "-i",
            "s/^append_only = 0/append_only = 1/",
            machine.path("repo-b/config").to_str().unwrap(),
        ],
    );
    let said = machine.run(&["compact", "--target", "b"]).expect(12).says("append-only");
    assert!(!said.stdout.contains("freed"), "{}", said.stdout);
}

#[test]
fn owners_and_permissions_are_changes() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    must("chmod", &["000", machine.path("src/hello.txt").to_str().unwrap()]);
    must("chown", &["12345", machine.path("src/many/3").to_str().unwrap()]);
    for target in ["b", "r"] {
        let said = machine.run(&["diff", "host", "latest", "live", "--target", target]).expect(0);
        let changed: Vec<&str> = said
            .stdout
            .lines()
            .filter(|line| line.starts_with("m ") && line.contains("/src/"))
            .collect();
        assert_eq!(changed.len(), 2, "{target}: {}", said.stdout);
        assert!(changed[0].ends_with("src/hello.txt") && changed[1].ends_with("src/many/3"));
    }
}

#[test]
fn hooks_are_told_how_the_job_ended() {
    let machine = Machine::bare("");
    let tell = machine.script(
        "tell",
        &format!("echo \"$STILLPOINT_HOOK $STILLPOINT_OUTCOME $STILLPOINT_EXIT_CODE [$STILLPOINT_ERROR]\" >> '{}'", machine.path("told").display()),
    );
    let hooks = format!(
        "[jobs.host.hooks]\nbefore = [[\"{tell}\"]]\nafter = [[\"{tell}\"]]\non-failure = [[\"{tell}\"]]\nfinally = [[\"{tell}\"]]\n"
    );
    machine.configure(&format!("{HOST}{hooks}"));
    machine.run(&["init", "b", "r"]).expect(0);
    machine.run(&["run"]).expect(0);
    std::fs::rename(machine.path("repo-b"), machine.path("away")).unwrap();
    machine.run(&["run"]).expect(10);
    let told = std::fs::read_to_string(machine.path("told")).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["before   []", "after ok 0 []", "finally ok 0 []"], "{told}");
    assert_eq!(lines.len(), 6, "{told}");
    for (line, hook) in lines[4..].iter().zip(["on-failure", "finally"]) {
        assert!(
            line.starts_with(&format!("{hook} failed 10 [there is no repository at ")),
            "{line}"
        );
    }
}

#[test]
fn a_dry_run_leaves_no_directory_of_an_engine() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    for directory in ["state", "run", "cache"] {
        std::fs::remove_dir_all(machine.path(directory)).unwrap();
    }
    let to = machine.path("out");
    for verb in [
        &["plan"][..],
        &["prune", "--dry-run"],
        &["check", "--dry-run"],
        &["compact", "--dry-run"],
        &["restore", "host", "--dry-run", "--to", to.to_str().unwrap()],
    ] {
        machine.run(verb).expect(0);
        for directory in ["state", "run", "cache", "out"] {
            assert!(!machine.path(directory).exists(), "{verb:?} made {directory}");
        }
        let left = std::fs::read_dir(machine.path("")).unwrap().flatten();
        let aside = left.filter(|entry| entry.file_name().to_string_lossy().contains("dry"));
        assert_eq!(aside.count(), 0, "{verb:?}");
    }
}

#[test]
fn what_was_asked_for_in_a_wrong_way_is_a_usage_error() {
    let machine = Machine::bare(HOST);
    let to = machine.path("to");
    let to = to.to_str().unwrap();
    let refused: [(&[&str], &str); 6] = [
        (&["find", "["], "is not a pattern"),
        (&["restore", "host", "latest", "etc/hosts", "--to", to], "is not an absolute path"),
        (&["restore", "host", "/a", "/b", "--stdout"], "name one path"),
        (&["restore", "host", "/a", "--as-subvolume", "--to", to], "name no path"),
        // Nobody can be asked.
        (&["restore", "host", "--in-place"], "--yes"),
        (&["diff"], "JOB"),
    ];
    for (words, says) in refused {
        machine.run(words).expect(2).says(says);
    }
    assert!(!machine.path("to").exists());
}
