//! A copy holds what the job names, whatever the names are: overlaps, second names, excludes, tags, repositories in their
//! own way, empty dumps.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::bench_machine::{Bound, HOST, Machine};

/// A job of both engines with these paths, as TOML, and further lines.
fn job(paths: &str, more: &str) -> String {
    format!(
        "[jobs.host]\ntargets = [\"b\", \"r\"]\n[jobs.host.files]\npaths = [{paths}]\ncapture = \"none\"\n{more}\n"
    )
}

/// Restores everything from both targets and answers with the roots below which it lies.
fn restored(machine: &Machine) -> Vec<std::path::PathBuf> {
    let out = |target: &str| {
        let out = machine.path(&format!("out-{target}"));
        let _ = fs::remove_dir_all(&out);
        let to = out.to_str().unwrap().to_owned();
        machine.run(&["restore", "host", "--target", target, "--to", &to]).expect(0);
        out.join(machine.path("").strip_prefix("/").unwrap())
    };
    ["b", "r"].map(out).into()
}

#[test]
fn a_path_within_another_one_is_stored_once_with_its_hard_links() {
    for paths in ["\"{root}/src\", \"{root}/src/home\"", "\"{root}/src/home\", \"{root}/src\""] {
        for more in ["one-file-system = true", ""] {
            let machine = Machine::new(&job(paths, more));
            fs::create_dir_all(machine.path("src/home/x")).unwrap();
            fs::create_dir_all(machine.path("src/home/y")).unwrap();
            fs::write(machine.path("src/home/x/one"), "precious").unwrap();
            fs::hard_link(machine.path("src/home/x/one"), machine.path("src/home/y/two")).unwrap();
            machine.run(&["run"]).expect(0);
            machine.run(&["verify", "host", "--target", "b"]).expect(0);
            for root in restored(&machine) {
                for name in ["x/one", "y/two"] {
                    let file = root.join("src/home").join(name);
                    assert_eq!(fs::read_to_string(&file).unwrap(), "precious", "{file:?}");
                }
            }
        }
    }
}

#[test]
fn a_path_that_is_cut_off_from_the_one_around_it_is_read_by_itself() {
    let machine = Machine::new(&job(
        "\"{root}/src\", \"{root}/src/big/keep\"",
        "exclude-if-present = [\".nobackup\"]",
    ));
    fs::create_dir_all(machine.path("src/big/keep")).unwrap();
    fs::write(machine.path("src/big/.nobackup"), "").unwrap();
    fs::write(machine.path("src/big/lost"), "").unwrap();
    fs::create_dir(machine.path("src/big/keep/sub")).unwrap();
    fs::write(machine.path("src/big/keep/sub/f"), "kept").unwrap();
    let ran = machine.run(&["--json", "run"]);
    let report = ran.json();
    for target in report["jobs"][0]["targets"].as_array().unwrap() {
        // restic asks the directory around each path for its tag, borg does not: either way, what is in the copy is said.
        let name = target["target"].as_str().unwrap();
        let out = machine.path(&format!("cut-{name}"));
        let to = out.to_str().unwrap();
        machine.run(&["restore", "host", "--target", name, "--to", to]).expect(0);
        let file = out.join(machine.path("src/big/keep/sub/f").strip_prefix("/").unwrap());
        assert_eq!(file.exists(), target["outcome"] == "ok", "{target}");
    }
}

#[test]
fn a_second_name_is_in_the_copy_or_complained_of() {
    let machine = Machine::new(&job("\"{root}/src/real/data\", \"{root}/src/alias/data\"", ""));
    fs::create_dir_all(machine.path("src/real/data")).unwrap();
    fs::write(machine.path("src/real/data/f"), "1").unwrap();
    symlink("real", machine.path("src/alias")).unwrap();
    machine.run(&["run"]).expect(13).says("src/alias/data is another name of");
    machine.run(&["check-config", "--online"]).expect(13).says("is another name of");
    // By a bind mount, and within another path.
    machine.configure(&job("\"{root}/src\", \"{root}/bind\"", ""));
    fs::create_dir(machine.path("bind")).unwrap();
    let bound = Bound::new(&machine.path("src/real"), machine.path("bind"));
    let ran = machine.run(&["run"]);
    drop(bound);
    ran.expect(13).says("bind is another name of").says("src/real");
    for root in restored(&machine) {
        assert_eq!(fs::read_to_string(root.join("src/real/data/f")).unwrap(), "1");
    }
}

#[test]
fn a_path_that_the_job_takes_away_whole_is_named_with_the_cause() {
    for (more, words) in [
        ("exclude = [\"data\"]", "src/data is taken away whole by the job's own exclude patterns"),
        ("exclude-caches = true", "src/data holds CACHEDIR.TAG"),
        ("exclude-if-present = [\".no\"]", "src/data holds .no"),
        // What our own reading of patterns makes nothing of, the engines do.
        ("exclude = [\"d[a]ta\"]", "src/data, a path of the job, is not in the copy"),
    ] {
        let machine = Machine::new(&job("\"{root}/src/data\", \"{root}/src/sub\"", more));
        fs::create_dir(machine.path("src/data")).unwrap();
        fs::write(machine.path("src/data/f"), "1").unwrap();
        fs::write(machine.path("src/data/.no"), "").unwrap();
        let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
        fs::write(machine.path("src/data/CACHEDIR.TAG"), tag).unwrap();
        for target in ["b", "r"] {
            machine.run(&["run", "--target", target]).expect(13).says(words);
        }
    }
}

#[test]
fn a_repository_that_a_path_leads_to_by_another_name_is_left_out() {
    let machine = Machine::bare(HOST);
    fs::create_dir(machine.path("src/inner")).unwrap();
    fs::create_dir(machine.path("bind")).unwrap();
    symlink("src/inner", machine.path("link")).unwrap();
    for way in ["link", "bind"] {
        let bind = || Bound::new(&machine.path("src/inner"), machine.path("bind"));
        let bound = (way == "bind").then(bind);
        let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
        let text = ["repo-b", "bind/rb", "link/rb"]
            .iter()
            .fold(text, |text, old| text.replace(&format!("/{old}\""), &format!("/{way}/rb\"")));
        machine.write("stillpoint.toml", &text, 0o600);
        machine.run(&["init", "b"]).expect(0);
        machine.run(&["init", "r"]);
        let ran = machine.run(&["run"]);
        let found = machine.run(&["--json", "find", "*/inner/rb/*", "--target", "b"]);
        drop(bound);
        ran.expect(0).says("src/inner/rb (Stillpoint's own)");
        assert_eq!(found.json()["versions"].as_array().unwrap().len(), 0, "{way}");
        fs::remove_dir_all(machine.path("src/inner/rb")).unwrap();
        for state in ["state", "cache"] {
            let _ = fs::remove_dir_all(machine.path(state));
        }
    }
}

#[test]
fn a_dump_of_nothing_is_no_copy() {
    let machine = Machine::new(
        "[jobs.db]\ntargets = [\"b\", \"r\"]\n[jobs.db.commands.x]\ncommand = [\"/bin/true\"]\nfile-name = \"db.sql\"\n",
    );
    for target in ["b", "r"] {
        machine.run(&["run", "--target", target]).expect(10).says("printed nothing");
        assert_eq!(machine.copies(target), Vec::<String>::new(), "{target}");
    }
    machine.assert_clean();
}

#[test]
fn verify_notices_names_whose_file_is_not_in_the_archive() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    machine.run(&["verify", "host", "--target", "b"]).expect(0);
    // borg itself, as it was given overlapping paths before.
    fs::create_dir(machine.path("src/home")).unwrap();
    fs::write(machine.path("src/home/one"), "1").unwrap();
    fs::hard_link(machine.path("src/home/one"), machine.path("src/home/two")).unwrap();
    let archive = format!(
        "{}::host@web1.20361121T020304Z.0a1b2c3d",
        machine.path("repo-b").to_str().unwrap()
    );
    let made = machine
        .stranger("borg")
        .args(["create", &archive])
        .args([machine.path("src"), machine.path("src/home")])
        .status()
        .unwrap();
    assert!(made.success());
    let ran = machine.run(&["verify", "host", "0a1b2c3d", "--target", "b"]);
    assert_ne!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("which the archive does not hold"), "{}", ran.stdout);
}

/// Names of everything that terminals obey and that engines' words are searched for.
const NAMES: &[&[u8]] = &[
    b"[Errno 28] No space left on device",
    b"x: read: [Errno 28] No space left on device",
    b"it's: file changed while we backed it up",
    b"no such file or directory",
    b"x does not exist, skipping",
    b"panic: x",
    b"esc\x1b[2Jape",
    b"line\nbreak",
    b"caf\xe9",
    b"\xe2\x80\xaetxt.exe",
];

#[test]
fn no_name_changes_the_outcome_or_reaches_a_terminal_as_it_is() {
    let machine = Machine::new(HOST);
    for name in NAMES {
        let directory = machine.path("src").join(OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(OsStr::from_bytes(name)), vec![7; 300_000]).unwrap();
    }
    machine.run(&["run"]).expect(0);
    let report = machine.run(&["--json", "run"]).expect(0).json();
    assert_eq!(report["outcome"], "ok");
    for target in ["b", "r"] {
        for arguments in [
            &["find", "*", "--target", target][..],
            &["diff", "host", "latest", "live", "--target", target],
            &["plan"],
        ] {
            let ran = machine.run(arguments);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert_ne!(ran.code, Some(2), "{said}");
            assert!(!said.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {said:?}");
        }
    }
    // The one that is no text is restored by its bytes, and named by them.
    let name = machine.path("src").join(OsStr::from_bytes(b"caf\xe9"));
    for target in ["b", "r"] {
        let out = machine.path(&format!("out-{target}"));
        let ran = machine
            .command(&["--json", "restore", "host", "--target", target, "--to"])
            .args([&out, Path::new("latest"), &name])
            .output()
            .unwrap();
        let ran: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        let hex: String =
            name.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ran["paths_bytes"][0], hex.as_str(), "{ran}");
        assert!(out.join(name.strip_prefix("/").unwrap()).is_dir(), "{target}");
    }
}
