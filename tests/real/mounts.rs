//! Copies that are served as file systems: whoever is killed, nothing stays mounted, and nobody else's mount goes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::bench_machine::{Machine, Ran, command, must, must_at_last, processes_about, wait_for};

const JOBS: &str = r#"
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
"#;

/// A machine with a copy in both repositories, and an empty directory.
fn machine() -> (Machine, PathBuf) {
    let machine = Machine::new(JOBS);
    machine.run(&["run", "host"]).expect(0);
    let at = machine.path("copy");
    fs::create_dir(&at).unwrap();
    (machine, at)
}

fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == at.to_str())
}

/// Mounts a copy and waits until that is said. Answers with the process and its engine's number.
fn serve(machine: &Machine, at: &Path, target: &str) -> (Child, String) {
    let text = at.to_str().unwrap();
    let mut verb = machine.start(&["mount", "host", "--target", target, text]);
    let mut said = String::new();
    BufReader::new(verb.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains(&format!("is at {text} until")), "{said}");
    assert!(is_mounted(at), "it was said before it was true");
    assert!(fs::read_dir(at).unwrap().next().is_some(), "the copy is empty");
    let ours = format!("{}:", verb.id());
    let engine = processes_about(text).into_iter().find(|line| !line.starts_with(&ours)).unwrap();
    (verb, engine.split(':').next().unwrap().to_owned())
}

/// Whether a process has ended, reaped or not: whoever inherits it may be slow to reap it.
fn is_dead(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

fn kill(victims: &[&str]) {
    must("kill", &[&["-KILL"], victims].concat());
}

#[test]
fn whoever_is_killed_nothing_stays_mounted() {
    let (machine, at) = machine();
    for target in ["b", "r"] {
        for victims in ["stillpoint", "engine", "both"] {
            let (verb, engine) = serve(&machine, &at, target);
            // Somebody looks around in it.
            let mut user = command("sleep").arg("300").current_dir(&at).spawn().unwrap();
            let id = verb.id().to_string();
            match victims {
                "stillpoint" => kill(&[&id]),
                "engine" => kill(&[&engine]),
                // Stopped, the engine cannot clean up in the moment between the two.
                _ => {
                    must("kill", &["-STOP", &engine]);
                    kill(&[&id, &engine]);
                }
            }
            let ended = Ran::from(verb.wait_with_output().unwrap());
            let after = format!("{target}, {victims} killed: {}", ended.stderr);
            if victims == "engine" {
                assert_eq!(ended.code, Some(10), "{after}");
                assert!(ended.stderr.contains("killed by signal 9"), "{after}");
            } else {
                // One that lives on is for recover to stop: whoever looks around keeps it from ending by itself.
                if victims == "both" {
                    wait_for("the engine is gone", || is_dead(&engine));
                    assert!(is_mounted(&at), "the scene is another one");
                }
                machine.run(&["recover"]).expect(0).says("released what run");
            }
            assert!(!is_mounted(&at), "{after}");
            machine.run(&["recover"]).expect(0).says("nothing to release");
            machine.assert_clean();
            user.kill().unwrap();
            user.wait().unwrap();
        }
    }
}

#[test]
fn a_mount_of_somebody_else_at_the_same_place_stays() {
    let (machine, at) = machine();
    let text = at.to_str().unwrap();
    let (mut verb, engine) = serve(&machine, &at, "r");
    must("kill", &["-STOP", &engine]);
    kill(&[&verb.id().to_string(), &engine]);
    verb.wait().unwrap();
    wait_for("the engine is gone", || is_dead(&engine));
    must("umount", &["-l", text]);
    // The kernel gives it the same number and the same device.
    let mut theirs = machine
        .stranger("restic")
        .args(["mount", text])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("it is mounted", || is_mounted(&at));
    let recovered = machine.run(&["recover"]);
    let stays = is_mounted(&at) && fs::read_dir(&at).unwrap().next().is_some();
    must("kill", &["-INT", &theirs.id().to_string()]);
    theirs.wait().unwrap();
    recovered.expect(0).says("released what run");
    assert!(stays, "somebody else's mount is gone");
    machine.assert_clean();
}

#[test]
fn a_mount_ends_when_it_is_unmounted_and_by_ctrl_c() {
    let (machine, at) = machine();
    for target in ["b", "r"] {
        let (verb, _) = serve(&machine, &at, target);
        // A run of its own leaves what lives alone.
        machine.run(&["recover"]).expect(0).says("nothing to release");
        assert!(is_mounted(&at));
        must_at_last("umount", &[at.to_str().unwrap()]);
        Ran::from(verb.wait_with_output().unwrap()).expect(0);
        machine.assert_clean();
        let (verb, _) = serve(&machine, &at, target);
        must("kill", &["-INT", &verb.id().to_string()]);
        Ran::from(verb.wait_with_output().unwrap()).expect(130);
        machine.assert_clean();
    }
}

#[test]
fn an_engine_that_cannot_mount_is_told_with_the_package_that_is_missing() {
    let (machine, at) = machine();
    let borg = machine.script(
        "borg",
        "case \" $* \" in *' mount '*) BORG_FUSE_IMPL=none exec borg \"$@\";; esac; exec borg \"$@\"",
    );
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text.replace("[targets.b.borg]", &format!("[targets.b.borg]\nprogram = \"{borg}\""));
    machine.write("stillpoint.toml", &text, 0o600);
    let mounted = machine.run(&["mount", "host", "--target", "b", at.to_str().unwrap()]);
    mounted.expect(4).says("python3-pyfuse3");
    machine.assert_clean();
}
