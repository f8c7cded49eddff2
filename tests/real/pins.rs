//! A copy is known by every id that it had, with both engines.

use crate::bench_machine::{HOST, Machine};

/// Pins and unpins the older copy of a target. Answers with the ids that it had on the way.
fn ids_of(machine: &Machine, target: &str) -> [String; 3] {
    let first = machine.copies(target).remove(0);
    let change = |verb: &str, id: &str| -> String {
        let said = machine.run(&["--json", verb, "host", id, "--target", target]).expect(0).json();
        assert_eq!(said["pinned"], verb == "pin");
        said["copy"].as_str().unwrap().to_owned()
    };
    let pinned = change("pin", &first);
    assert_ne!(pinned, first);
    let unpinned = change("unpin", &pinned);
    assert_ne!(pinned, unpinned);
    [first, pinned, unpinned]
}

#[test]
fn the_id_that_a_copy_had_before_a_pin_still_means_it() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    machine.write("src/hello.txt", "newer", 0o644);
    machine.run(&["run"]).expect(0);
    for target in ["b", "r"] {
        let [first, pinned, now] = ids_of(&machine, target);
        let on = |words: &[&str]| machine.run(&[words, &["--target", target]].concat());
        for id in [&first, &pinned] {
            let told = format!("{now} in target {target}");
            // Twice is as good as once.
            on(&["unpin", "host", id]).expect(0).says(&told).says("is not pinned");
            on(&["verify", "host", id]).expect(0).says(&now);
            on(&["diff", "host", id, "latest"]).expect(0).says("hello.txt");
            let dry = on(&["--json", "prune", id, "--dry-run"]).expect(0).json();
            let meant = |row: &&serde_json::Value| row["delete"] == true;
            let rows = dry["decisions"].as_array().unwrap().iter();
            assert_eq!(rows.filter(meant).map(|row| &row["copy"]).collect::<Vec<_>>(), [&now]);
            let hello = machine.path("src/hello.txt");
            let restored = on(&["restore", "host", id, hello.to_str().unwrap(), "--stdout"]);
            assert_eq!(restored.expect(0).stdout, "hello\n", "{target} {id}");
        }
        // And while it is pinned.
        let again = on(&["--json", "pin", "host", &pinned]).expect(0).json();
        let again = again["copy"].as_str().unwrap().to_owned();
        for id in [&first, &now, &again] {
            on(&["pin", "host", id])
                .expect(0)
                .says(&format!("{again} in target {target} is pinned"));
        }
        on(&["unpin", "host", &again]).expect(0);
        on(&["unpin", "host", &again]).expect(0).says("is not pinned");
    }
    // Without history, the engine's own words are enough for the name with and without its pin.
    let first = machine.copies("b").remove(0);
    std::fs::remove_file(machine.path("state/history.sqlite")).unwrap();
    machine.run(&["verify", "host", &format!("{first}.pinned"), "--target", "b"]).expect(0);
    machine.assert_clean();
}
