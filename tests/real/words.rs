//! What verbs say is what happened: nothing done is not a result, nothing protected is not fine.

use crate::bench_machine::{HOST, Machine};

#[test]
fn a_dry_run_says_would_and_makes_nothing() {
    let machine = Machine::new(&format!(
        "[targets.b.keep]\nlast = 1\n[targets.b.check]\nevery = \"0s\"\n{HOST}[jobs.host.hooks]\nfinally = [[\"true\"]]\n"
    ));
    machine.run(&["run"]).expect(0);
    machine.run(&["run"]).expect(0);
    let lies = ["no damage found", "given back", "1 deleted", "target lists", "hooks written"];
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
    machine.run(&["compact", "--dry-run"]).expect(0).says("compact b: would give back");
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
