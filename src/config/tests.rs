//! Whole files in, problems or a model out.

use std::path::PathBuf;

use proptest::prelude::*;

use super::key::{AnyKey, Item, Sample, Table as Declared, node_of};
use super::keys::EFFECTS;
use super::keys::root::FILE;
use super::*;
use crate::model::job::Source;
use crate::model::shown::Show;

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: text.into() }
}

fn load_one(text: &str) -> Result<Loaded, Problems> {
    load(&[file("m.toml", text)], "web1", |pattern| {
        pattern.contains("[]").then(|| format!("{pattern:?} is malformed"))
    })
}

fn good(text: &str) -> Loaded {
    load_one(text).unwrap_or_else(|problems| panic!("refused:\n{problems}"))
}

/// `line:column message` of each problem.
fn wrong(text: &str) -> Vec<String> {
    match load_one(text) {
        Ok(_) => Vec::new(),
        Err(problems) => (problems.list().iter())
            .map(|p| format!("{}:{} {}", p.line, p.column, p.message))
            .collect(),
    }
}

const BASE: &str = r#"
[targets.usb.borg]
repository = "/srv/usb"
passphrase-file = "/etc/usb.pass"
[jobs.host]
targets = ["usb"]
[jobs.host.files]
paths = ["/etc"]
"#;

/// BASE with a piece replaced; the piece must be there, so that no test passes by testing nothing.
fn base_with(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from:?} is not in the base");
    BASE.replace(from, to)
}

#[test]
fn every_mistake_is_one_problem_at_its_place() {
    let text = r#"[settings]
lock-wait = "2 minutes"
hots = "web1"

[targets.usb.borg]
repository = "srv/usb"
upload-limit = "fast"

[targets.nas.restic]
repository = "/srv/nas"
password-file = "/etc/nas.pass"
copy-from = "disk"
pasword-file = 3

[targets.both.borg]
repository = "/srv/both"
passphrase-file = "/p"
passphrase-command = ["p"]
[targets.both.restic]
repository = "/srv/both2"
password-file = "p"
[targets.both.check]
every = "30d"
read-data = "500%"

[targets.odd.kopia]
x = 1

[targets."größe"]
keep = { last = 0 }

[jobs.host]
targets = ["usb", "nsa", "nas"]
[jobs.host.files]
paths = []
exclude = ["ä", 7, ""]
"#;
    assert_eq!(
        wrong(text),
        [
            "2:13 lock-wait: expected a length of time such as \"30s\", \"5m\", \"2h\", \"30d\" or \"1h30m\", not \"2 minutes\"",
            "3:1 unknown key \"hots\" in [settings]",
            "5:14 the passphrase is missing",
            "6:14 \"srv/usb\" is not an absolute path",
            "7:16 upload-limit: expected a whole number, found a string",
            "12:13 no target is called \"disk\"",
            "13:1 unknown key \"pasword-file\" in [targets.nas.restic]",
            "18:1 passphrase-command cannot stand beside passphrase-file: one source is enough",
            "19:15 a target has one engine, and \"borg\" is another",
            "21:17 password-file: \"p\" is not an absolute path",
            "24:13 read-data: expected true, false, \"all\" or a percentage such as \"5%\", above 0% and up to 100%, not \"500%\"",
            "26:14 unknown key \"kopia\" in [targets.odd]",
            "29:10 a target name is made of letters, digits, '-' and '_', not 'ö'",
            "29:10 the target \"größe\" names no engine",
            "30:1 this policy would keep nothing",
            "33:19 no target is called \"nsa\"",
            "35:9 the list of paths is empty: nothing would be protected",
            "36:17 exclude: expected a string, found an integer",
            "36:20 exclude: cannot be empty",
        ]
    );
}

#[test]
fn a_problem_is_shown_with_its_line_and_a_suggestion() {
    let problems = load_one(&base_with("paths = [\"/etc\"]", "pathes = [\"/etc\"]")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "m.toml:7:12: files names no paths\n    \
         [jobs.host.files]\n    \
         \u{20}          ^^^^^\n  \
         help: add paths = [\"/…\"]\n\
         m.toml:8:1: unknown key \"pathes\" in [jobs.host.files]\n    \
         pathes = [\"/etc\"]\n    \
         ^^^^^^\n  \
         help: did you mean \"paths\"?"
    );
    let json = serde_json::to_value(problems.list()).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({
            "file": "m.toml", "line": 8, "column": 1,
            "message": "unknown key \"pathes\" in [jobs.host.files]",
            "help": "did you mean \"paths\"?"
        })
    );
}

#[test]
fn a_key_in_the_wrong_table_is_sent_home() {
    let problems = load_one(&base_with("[jobs.host]", "[jobs.host]\none-file-system = true"));
    let help = problems.unwrap_err().list()[0].help.clone();
    assert_eq!(help.as_deref(), Some("it belongs in [jobs.NAME.files]"));
}

#[test]
fn a_file_that_is_no_toml_is_one_problem_and_hides_nothing_else() {
    let files = [
        file("a.toml", "[jobs.x]\ntargets = [\"t\"]\nfiles = { paths = ['/a'] }\nmax-age = 3\n"),
        file("b.toml", "[targets.t.restic\nrepository = '/r'\n"),
        file("c.toml", "[settings]\nhots = 'x'\n"),
    ];
    let problems = load(&files, "web1", |_| None).unwrap_err();
    let found: Vec<(String, usize)> =
        (problems.list().iter()).map(|p| (p.file.shown().to_string(), p.line)).collect();
    // That the target "t" is missing is not said: it may well be in the file that cannot be read.
    assert_eq!(found, [("a.toml".into(), 4), ("b.toml".into(), 1), ("c.toml".into(), 2)]);
}

#[test]
fn drop_ins_apply_in_order() {
    let files = [
        file(
            "m.toml",
            &base_with("[jobs.host]", "[targets.usb.keep]\nlast = 1\ndaily = 7\n[jobs.host]"),
        ),
        file("10.toml", "[targets.usb.keep]\nlast = 2\n[jobs.host.files]\npaths = ['/a', '/b']\n"),
        file(
            "20.toml",
            "[targets.usb]\nkeep.last = 3\n[jobs.etc]\ntargets = ['usb']\nfiles.paths = ['/etc']\n",
        ),
    ];
    let config = load(&files, "web1", |_| None).unwrap().config;
    let keep = config.targets[0].keep.clone().unwrap();
    assert_eq!((keep.last, keep.daily), (Some(3), Some(7)));
    let Source::Files(source) = &config.jobs[0].source else { panic!("files") };
    assert_eq!(source.paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(config.jobs[1].name.as_str(), "etc");
    assert_eq!(config.files.len(), 3);

    let found = origins(&files);
    let of = |key: &str| {
        let origin = found.iter().find(|origin| origin.key == key).unwrap();
        format!("{} {}:{}", origin.value, origin.file.shown(), origin.line)
    };
    assert_eq!(of("targets.usb.keep.last"), "3 20.toml:2");
    assert_eq!(of("targets.usb.keep.daily"), "7 m.toml:7");
    assert_eq!(of("jobs.host.files.paths"), "[\"/a\", \"/b\"] 10.toml:4");
}

#[test]
fn a_problem_in_a_drop_in_names_the_drop_in() {
    let files = [file("m.toml", BASE), file("d.toml", "[targets.usb.restic]\nrepository = '/x'\n")];
    let problems = load(&files, "web1", |_| None).unwrap_err();
    let first = &problems.list()[0];
    assert_eq!((first.file.to_str().unwrap(), first.line, first.column), ("d.toml", 1, 14));
}

#[test]
fn order_is_the_files_order() {
    let mut text = String::new();
    for name in ["zeta", "alpha", "mid"] {
        text += &format!("[targets.{name}.restic]\nrepository='/r/{name}'\npassword-file='/p'\n");
        text += &format!(
            "[jobs.{name}-job.files]\npaths=['/x']\n[jobs.{name}-job]\ntargets=['{name}']\n"
        );
    }
    let config = good(&text).config;
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let jobs: Vec<&str> = config.jobs.iter().map(|j| j.name.as_str()).collect();
    assert_eq!(targets, ["zeta", "alpha", "mid"]);
    assert_eq!(jobs, ["zeta-job", "alpha-job", "mid-job"]);
}

/// A rule, a file that breaks it, and a word of the problem.
const BROKEN: &[(&str, &str, &str)] = &[
    ("repository = \"/srv/usb\"", "repository = \"-rf\"", "cannot start with '-'"),
    ("repository = \"/srv/usb\"", "repository = \"ssh://-oX=1/r\"", "ssh would take it"),
    ("repository = \"/srv/usb\"", "", "borg needs a repository"),
    ("repository = \"/srv/usb\"", "repository = \"/etc/borg\"", "its own copies"),
    ("paths = [\"/etc\"]", "paths = [\"/etc\", \"/\"]", "its own copies"),
    ("paths = [\"/etc\"]", "paths = [\"/etc\", \"/etc/\"]", "listed twice"),
    ("paths = [\"/etc\"]", "paths = \"/etc\"", "expected a list of absolute paths"),
    ("paths = [\"/etc\"]", "paths = [\"/a\"]\ncapture = \"atuo\"", "expected one of"),
    ("paths = [\"/etc\"]", "paths = [\"/a\"]\nexclude = [\"\"]", "cannot be empty"),
    (
        "paths = [\"/etc\"]",
        "paths = [\"/a\"]\nexclude-if-present = [\"a/b\"]",
        "without directories",
    ),
    ("targets = [\"usb\"]", "", "names no targets"),
    ("targets = [\"usb\"]", "targets = []", "go nowhere"),
    ("targets = [\"usb\"]", "targets = [\"usb\", \"usb\"]", "listed twice"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nmax-shrink = \"150%\"", "max-shrink"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nhooks.before = [[]]", "the list is empty"),
    (
        "targets = [\"usb\"]",
        "targets = [\"usb\"]\nhooks.before = [\"a\"]",
        "expected a list of lists",
    ),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nhooks.timeout = \"1m\"", "has no effect"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nkeep.usb.last = 0", "keep nothing"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nkeep.usb.tags = []", "keep nothing"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nkeep.ubs.last = 1", "no target is called"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\nkeep.last = 1", "expected the table"),
    (
        "targets = [\"usb\"]",
        "targets = [\"usb\"]\nmachines.domains = []",
        "cannot back up machines yet",
    ),
    (
        "targets = [\"usb\"]",
        "targets = [\"usb\"]\nvolumes.volumes = []",
        "cannot back up volumes yet",
    ),
    (
        "targets = [\"usb\"]",
        "targets = [\"usb\"]\nkeep-snapshots.last = 1",
        "keeps no snapshots on this machine",
    ),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\ncommands.x.command = [\"x\"]", "needs file-name"),
    ("targets = [\"usb\"]", "targets = [\"usb\"]\n[jobs.host.commands]", "a job has one source"),
    ("[jobs.host.files]\npaths = [\"/etc\"]", "", "does not say what to protect"),
    ("[jobs.host.files]\npaths = [\"/etc\"]", "[jobs.host.commands]", "names no command"),
    (
        "[targets.usb.borg]",
        "[targets.usb]\nappend-only = true\ncompact-every = \"1d\"\n[targets.usb.borg]",
        "no effect on an append-only",
    ),
    (
        "[targets.usb.borg]",
        "[targets.usb.check]\nread-data = true\n[targets.usb.borg]",
        "how often",
    ),
    ("[targets.usb.borg]", "[targets.usb.keep]\ntags = [\"a,b\"]\n[targets.usb.borg]", "comma"),
    ("[targets.usb.borg]", "[[targets.usb.borg]]", "expected the table [targets.usb.borg]"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nencryption = \"none\"", "has no effect"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nkey-file = \"/k\"", "has no effect"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nencryption = \"aes\"", "expected one of"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nremote-program = \"borg1\"", "on this machine"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nstall-timeout = \"0s\"", "longer than nothing"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nrequire-mount = \"/\"", "always mounted"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nssh-command = [\"ssh\", \"-o a\"]", "white space"),
    ("[targets.usb.borg]", "[targets.usb.borg]\nprogram = \"borg\"", "not an absolute path"),
    ("[jobs.host]", "[jobs.\"-x\"]\n[jobs.host]", "job name"),
    ("[jobs.host]", "[settings]\nhost = \"a b\"\n[jobs.host]", "host name"),
    ("[jobs.host]", "[settings]\nstate-dir = \"/run/stillpoint\"\n[jobs.host]", "same directory"),
    ("[jobs.host]", "[settings]\nmax-age = 30\n[jobs.host]", "expected a length of time"),
    ("[jobs.host]", "parallel = 2\n[jobs.host]", "unknown key"),
    ("passphrase-file = \"/etc/usb.pass\"", "", "passphrase is missing"),
];

#[test]
fn every_rule_refuses() {
    for (from, to, word) in BROKEN {
        let found = wrong(&base_with(from, to));
        assert!(found.iter().any(|p| p.contains(word)), "{to:?} gave {found:?}, not {word:?}");
    }
}

/// What `[jobs.host.files]` and, after `---`, `[jobs.host.hooks]` hold besides BASE; the problem with the
/// place in its own line, and a word of the advice.
const NOISY: &[(&str, &str, &str)] = &[
    ("consistent = true", "1 nothing says how to stop the writers", "freeze-units"),
    ("consistent = true\nfreeze-units = []", "1 nothing says how to stop", "quiesce"),
    ("freeze-units = [\"a*\"]", "17 a unit is named in full", "x.service"),
    ("freeze-units = [\"a/b\"]", "17 a unit is named in full", "x.service"),
    ("freeze-units = [\"/\"]", "17 the whole machine cannot be frozen", "x.service"),
    ("freeze-units = [\"/a/../b\"]", "17 a control group is named by its real path", "x.service"),
    ("freeze-units = [\"-.slice\"]", "17 freeze-units: \"-.slice\" cannot start with '-'", ""),
    ("freeze-limit = \"5s\"", "1 freeze-limit has no effect", "freeze-units"),
    ("freeze-limit = \"0s\"", "16 freeze-limit: must be longer than nothing", ""),
    ("freeze-units = [\"a\"]\nfreeze-limit = \"301s\"", "16 nothing may stay frozen", "hooks"),
    ("live = [\"efi\"]", "9 live: \"efi\" is not an absolute path", ""),
    ("live = [\"/boot\"]", "9 /boot has no effect", "paths"),
    ("leave-out = [\"mnt\"]", "14 leave-out: \"mnt\" is not an absolute path", ""),
    ("leave-out = [\"/etcetera\"]", "14 /etcetera has no effect", "paths"),
    ("leave-out = [\"/etc\"]", "14 /etc would leave out /etc", "one of the two"),
    ("live = [\"/etc/x\"]\nleave-out = [\"/etc/x\"]", "14 /etc/x is read live", "one of the two"),
    ("remount-readonly.paths = [\"boot\"]", "27 paths: \"boot\" is not an absolute path", ""),
    ("remount-readonly.paths = [\"/boot\"]", "27 /boot has no effect", "paths"),
    ("lvm-thin.max-data = \"101%\"", "21 max-data: expected \"1%\" to \"100%\"", ""),
    ("lvm-thin.max-metadata = 75", "25 max-metadata: expected \"1%\" to \"100%\"", ""),
    ("lvm-classic.size = \"0G\"", "20 size: expected \"1%\" to \"100%\", or bytes", ""),
    ("capture = \"none\"\nconsistent = true", "1 consistent has no effect", "\"auto\""),
    ("capture = \"none\"\nfreeze-units = [\"a\"]", "1 freeze-units has no effect", "\"auto\""),
    ("capture = \"none\"\nfreeze-limit = \"9s\"", "1 freeze-limit has no effect", "\"auto\""),
    ("capture = \"none\"\nlive = [\"/etc/a\"]", "1 live has no effect", "\"auto\""),
    ("capture = \"none\"\nleave-out = [\"/etc/a\"]", "1 leave-out has no effect", "\"auto\""),
    ("capture = \"none\"\nlvm-thin.max-data = \"9%\"", "1 lvm-thin has no effect", "\"auto\""),
    ("capture = \"none\"\nlvm-classic.size = \"9%\"", "1 lvm-classic has no effect", "\"auto\""),
    (
        "capture = \"none\"\nremount-readonly.paths = [\"/etc\"]",
        "1 remount-readonly has no effect",
        "\"auto\"",
    ),
    (
        "capture = \"none\"\n---quiesce = [[\"a\"]]\nresume = [[\"b\"]]",
        "1 quiesce has no effect",
        "\"auto\"",
    ),
    ("---quiesce = [[\"a\"]]", "1 quiesce without resume", "add resume"),
    ("---resume = [[\"a\"]]", "1 resume without quiesce", "add quiesce"),
    ("---quiesce = [[\"a\"]]\nresume = []", "1 quiesce without resume", "add resume"),
];

fn with_files(text: &str) -> String {
    let (files, hooks) = text.split_once("---").unwrap_or((text, ""));
    format!("{BASE}{files}\n[jobs.host.hooks]\n{hooks}\n")
}

#[test]
fn what_says_nothing_about_captures_is_refused() {
    for (text, expected, advice) in NOISY {
        let problems = load_one(&with_files(text)).map(drop).unwrap_err();
        let said = |p: &Problem| format!("{} {}", p.column, p.message).starts_with(expected);
        let found = problems.list().iter().find(|problem| said(problem));
        let found = found.unwrap_or_else(|| panic!("{text:?} gave\n{problems}"));
        let help = found.help.as_deref().unwrap_or_default();
        assert!(help.contains(advice), "{text:?}: {help:?} lacks {advice:?}");
    }
}

#[test]
fn what_says_something_about_captures_is_taken() {
    for text in [
        "capture = \"required\"",
        "consistent = true\nfreeze-units = [\"a.service\", \"/b/c\"]\nfreeze-limit = \"5m\"",
        "consistent = true\n---quiesce = [[\"a\"]]\nresume = [[\"b\"]]\ntimeout = \"1m\"",
        "live = [\"/etc/a\", \"/\"]\nleave-out = [\"/etc/b\"]\nremount-readonly.paths = [\"/etc\"]",
    ] {
        assert_eq!(good(&with_files(text)).warnings, [], "{text:?}");
    }
}

#[test]
fn streams_of_commands_have_no_captures_around_which_to_be_quiet() {
    let text = base_with(
        "[jobs.host.files]\npaths = [\"/etc\"]",
        "[jobs.host.commands.x]\ncommand = [\"x\"]\nfile-name = \"x\"\n[jobs.host.hooks]\nquiesce = [[\"a\"]]\nresume = [[\"b\"]]",
    );
    let found = wrong(&text);
    assert_eq!(
        found,
        [
            "11:1 quiesce has no effect: only jobs of files run it",
            "12:1 resume has no effect: only jobs of files run it",
        ]
    );
}

#[test]
fn streams_are_parted_behind_commands_unless_somebody_says_otherwise() {
    const COMMANDS: &str = "put-command = ['a', '{name}']\nget-command = ['b', '{name}']\nlist-command = ['c']\ndelete-command = ['d', '{name}']";
    for (place, more, expected) in [
        ("directory = '/r'", "", None),
        ("directory = '/r'", "part-size = 5", Some(5 << 20)),
        (COMMANDS, "", Some(256 << 20)),
        (COMMANDS, "part-size = 0", None),
    ] {
        let text = format!(
            "[targets.t.streams]\n{place}\n{more}\n[jobs.j]\ntargets = ['t']\nsubvolumes.paths = ['/a']\n"
        );
        let loaded = load_one(&text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
        assert_eq!(loaded.config.targets[0].part_size(), expected, "{place}, {more}");
    }
}

const TWO: &str = r#"
[targets.disk.restic]
repository = "/srv/disk"
password-file = "/p"
[targets.cloud.restic]
repository = "s3:host/bucket"
password-file = "/p"
copy-from = "disk"
[targets.usb.borg]
repository = "/srv/usb"
encryption = "none"
[jobs.host]
targets = ["cloud", "disk", "usb"]
files.paths = ["/home"]
"#;

#[test]
fn copies_of_copies() {
    assert_eq!(good(TWO).warnings, []);
    for (from, to, expected) in [
        (
            "copy-from = \"disk\"",
            "copy-from = \"cloud\"",
            "8:13 a target cannot be copied from itself",
        ),
        (
            "copy-from = \"disk\"",
            "copy-from = \"usb\"",
            "8:13 \"usb\" is a borg target: only restic copies from restic",
        ),
        ("copy-from = \"disk\"", "copy-from = \"dsik\"", "8:13 no target is called \"dsik\""),
        (
            "copy-from = \"disk\"",
            "copy-from = \"d k\"",
            "8:13 copy-from: a target name is made of letters, digits, '-' and '_', not ' '",
        ),
        (
            "[\"cloud\", \"disk\", \"usb\"]",
            "[\"cloud\", \"usb\"]",
            "13:12 \"cloud\" is filled from \"disk\", which this job does not list",
        ),
        ("s3:host/bucket", "local:/srv/disk/", "6:14 the target \"disk\" has the same repository"),
        (
            "s3:host/bucket\"",
            "s3:host/bucket\"\nwhen-absent = \"skip\"",
            "7:15 when-absent looks at this machine, the repository is elsewhere",
        ),
        (
            "repository = \"/srv/disk\"",
            "repository = \"/srv/disk\"\nwhen-absent = \"skip\"",
            "4:15 when-absent = \"skip\" needs require-mount",
        ),
        (
            "repository = \"/srv/disk\"",
            "repository = \"/srv/disk\"\nrequire-mount = \"/mnt\"\nwhen-absent = \"skip\"",
            "5:15 whether the disk is there is told by /mnt, and the repository is not below it",
        ),
        (
            "password-file = \"/p\"\n[targets.cloud",
            "password-file = \"/p\"\ncopy-from = \"cloud\"\n[targets.cloud",
            "5:13 \"cloud\" is itself filled by copy-from",
        ),
    ] {
        assert!(TWO.contains(from), "{from:?}");
        let found = wrong(&TWO.replacen(from, to, 1));
        assert!(found.iter().any(|p| p == expected), "{to:?} gave {found:?}");
    }
}

#[test]
fn a_repository_below_a_path_is_fine_when_it_is_not_read() {
    let root = |more: &str| base_with("paths = [\"/etc\"]", &format!("paths = [\"/\"]\n{more}"));
    assert!(load_one(&root("exclude = [\"/srv\"]")).is_ok());
    assert!(load_one(&root("exclude = [\"usb\"]")).is_ok());
    assert!(load_one(&root("exclude = [\"/srv/usb/data\"]")).is_err());
    assert!(load_one(&root("one-file-system = true")).is_err());
    let mounted = |mount: &str| {
        root("one-file-system = true")
            .replace("repository", &format!("require-mount = \"{mount}\"\nrepository"))
    };
    assert!(load_one(&mounted("/srv")).is_ok(), "it is on another file system");
    assert!(load_one(&mounted("/mnt")).is_err());
}

#[test]
fn what_only_one_way_of_counting_knows_is_refused_in_the_other() {
    let keep = |more: &str| {
        base_with("[targets.usb.borg]", &format!("[targets.usb.keep]\n{more}\n[targets.usb.borg]"))
    };
    let btrbk = |more: &str| keep(&format!("semantics = 'btrbk'\n{more}"));
    for good in ["preserve-min = 'no'\ndaily = '*'", "preserve-min = '0h'", "preserve-min = 'all'"]
    {
        assert_eq!(wrong(&btrbk(good)), [] as [String; 0], "{good}");
    }
    assert_eq!(wrong(&btrbk("daily = 3")), ["3:1 semantics = \"btrbk\" needs preserve-min"]);
    let refused = wrong(&btrbk("preserve-min = 'latest'\nlast = 2\nwithin = '2d'"));
    assert_eq!(
        refused,
        [
            "5:1 last means nothing to btrbk: see preserve-min",
            "6:1 within means nothing to btrbk: see preserve-min"
        ]
    );
    assert_eq!(wrong(&btrbk("preserve-min = 'no'")), ["2:14 this policy would keep nothing"]);
    assert_eq!(
        wrong(&btrbk("preserve-min = 'all'\npreserve-hour-of-day = 24")),
        ["5:24 a day has the hours 0 to 23"]
    );
    assert_eq!(
        wrong(&keep("daily = 1\npreserve-min = 'all'")),
        ["4:1 preserve-min means nothing without semantics = \"btrbk\""]
    );
    for bad in ["'d'", "'2x'", "'+2d'", "'-2d'", "2", "'99999999999d'", "'2 d'", "''", "'é'"] {
        assert_eq!(wrong(&btrbk(&format!("preserve-min = {bad}"))).len(), 1, "{bad}");
    }
}

#[test]
fn space_is_promised_only_where_a_deletion_frees_it() {
    let text = |engine: &str, min_free: &str| {
        format!(
            "[targets.t.keep]\nmin-free = '{min_free}'\n[targets.t.{engine}\n[jobs.j]\ntargets = ['t']\n"
        )
    };
    let borg = "borg]\nrepository = '/r'\nencryption = 'none'";
    let files = "files.paths = ['/a']";
    let refused = wrong(&format!("{}{files}", text(borg, "10%")));
    assert_eq!(
        refused,
        [
            "2:1 min-free cannot be kept to with borg: what a deletion frees shows only when it is compacted"
        ]
    );
    for side in ["stillpoint", "btrfs-progs"] {
        let engine = format!("btrfs]\nlocation = 'ssh://nas/r'\nremote-side = '{side}'");
        let refused = wrong(&format!("{}subvolumes.paths = ['/a']", text(&engine, "10%")));
        assert_eq!(
            refused,
            ["2:1 min-free looks at this machine, the copies are elsewhere"],
            "{side}"
        );
    }
    let btrfs = |min_free| {
        format!("{}subvolumes.paths = ['/a']", text("btrfs]\nlocation = '/r'", min_free))
    };
    for good in ["1%", "99%", "20G", "1T", "500M"] {
        assert_eq!(wrong(&btrfs(good)), [] as [String; 0], "{good}");
    }
    for bad in ["0%", "100%", "0G", "5", "-1G", "10 %", "99999999999T", "1P", ""] {
        assert_eq!(wrong(&btrfs(bad)).len(), 1, "{bad}");
    }
}

#[test]
fn subvolumes_of_another_machine_are_named_so_that_they_are_found_and_told_apart() {
    let job = |keys: &str| {
        format!(
            "[settings]\nhost = 'backup'\n[targets.t.btrfs]\nlocation = '/r'\n[jobs.j]\ntargets = ['t']\n[jobs.j.subvolumes]\npaths = ['/a']\n{keys}\n"
        )
    };
    let pulled = "host = 'ssh://pull@web1:22'\nsnapshots = '/mnt/s'";
    // Links in what that machine sends would be followed where btrfs-progs alone receive it.
    let to = |side: &str| {
        let location = format!("location = 'ssh://root@nas/r'\n{side}");
        wrong(&job(pulled).replace("location = '/r'\n", &location))
    };
    assert_eq!(to(""), [] as [String; 0]);
    assert_eq!(
        to("remote-side = 'btrfs-progs'\n"),
        [
            "7:12 \"t\" cannot take what is pulled: what pull@web1 sends might follow links into other copies on root@nas, where btrfs-progs alone keep it from nothing"
        ]
    );
    // A directory of that machine may have the name of one of this.
    assert_eq!(wrong(&job(pulled).replace("'/a'", "'/r'")), [] as [String; 0]);
    let refused = |keys: &str, says: &str| {
        let refused = wrong(&job(keys));
        assert!(matches!(&*refused, [one] if one.contains(says)), "{keys}: {refused:?}");
    };
    refused("host = 'ssh://web1'", "where on that machine snapshots are made");
    refused("snapshots = '/s'", "snapshots has no effect: the subvolumes are on this machine");
    refused("remote-sudo = true", "remote-sudo has no effect");
    refused("host = 'web1'\nsnapshots = '/s'", "is no machine behind ssh");
    refused("host = 'ssh://web1/srv'\nsnapshots = '/s'", "is no machine behind ssh");
    refused("host = 'ssh://-oProxyCommand=x'\nsnapshots = '/s'", "");
    refused("host = 'ssh://web1:x'\nsnapshots = '/s'", "no user, host and port");
    refused("host = 'ssh://[fe80::1]'\nsnapshots = '/s'", "host name");
    refused("host = 'ssh://web1'\nsnapshots = 's'", "not an absolute path");
    refused("host = 'ssh://root@backup'\nsnapshots = '/s'", "which is the name of this machine");
    let keeping = format!("{pulled}\n[jobs.j.keep-snapshots]\nlast = 2\n");
    assert_eq!(wrong(&job(&keeping)), [] as [String; 0]);
    refused(&format!("{keeping}min-free = '5%'"), "how much space is free on web1");
}

#[test]
fn disks_may_take_turns_at_one_place_when_they_may_be_absent() {
    let target = |name: &str, more: &str| {
        format!(
            "[targets.{name}.restic]\nrepository='/mnt/disk/r'\npassword-file='/p'\nrequire-mount='/mnt/disk'\n{more}\n"
        )
    };
    let both = |odd: &str, even: &str| {
        let targets = format!("{}{}", target("odd", odd), target("even", even));
        format!("{targets}[jobs.j]\ntargets=['odd', 'even']\nfiles.paths=['/a']\n")
    };
    let skip = "when-absent='skip'";
    assert!(load_one(&both(skip, skip)).is_ok());
    let refused = wrong(&both(skip, ""));
    assert_eq!(refused, ["7:12 the target \"odd\" has the same repository"]);
    let refused = wrong(&both(skip, &format!("{skip}\ncopy-from='odd'")));
    assert_eq!(
        refused,
        [
            "7:12 \"even\" and \"odd\" take turns at one place, so neither can be filled from the other"
        ]
    );
}

#[test]
fn what_is_odd_is_a_warning() {
    let odd = |text: &str| -> Vec<String> {
        good(text)
            .warnings
            .iter()
            .map(|w| format!("{}:{} {}", w.line, w.column, w.message))
            .collect()
    };
    assert_eq!(odd(BASE), [] as [&str; 0]);
    assert_eq!(odd(""), ["1:1 no job is defined: nothing is protected"]);
    assert_eq!(
        odd(&base_with(
            "[jobs.host]",
            "[targets.old.restic]\nrepository='stfp:a:/b'\npassword-file='/p'\n[jobs.host]"
        )),
        ["5:10 no job uses the target \"old\"", "6:12 \"stfp\" is no restic backend known here"]
    );
    assert_eq!(
        odd(&base_with(
            "[targets.usb.borg]",
            "[targets.usb]\nappend-only=true\nkeep.last=1\n[targets.usb.borg]\nrequire-mount='/mnt'"
        )),
        [
            "4:1 keep has no effect on an append-only target: nothing is deleted there",
            "6:15 the repository is not below /mnt"
        ]
    );
}

#[test]
fn a_password_in_a_repository_is_told_without_printing_it() {
    let text = TWO.replace("s3:host/bucket", "rest:https://u:geheim@host/r");
    let warnings = good(&text).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].line, warnings[0].column), (5, 16));
    assert!(!warnings[0].to_string().contains("geheim"));
}

#[test]
fn a_machine_without_a_usable_name_must_be_given_one() {
    let files = [file("m.toml", BASE)];
    let problems = load(&files, "bad name", |_| None).unwrap_err();
    assert_eq!(problems.list().len(), 1);
    assert_eq!(problems.list()[0].help.as_deref(), Some("set host in [settings]"));
    let named = [file("m.toml", &format!("[settings]\nhost = 'web1'\n{BASE}"))];
    assert!(load(&named, "bad name", |_| None).is_ok());
}

#[test]
fn defaults() {
    let config = good(BASE).config;
    assert_eq!(config.settings.host.as_str(), "web1");
    assert_eq!(config.settings.max_age.as_secs(), 48 * 3_600);
    assert_eq!(config.jobs[0].max_shrink_percent, 50);
    let crate::model::target::EngineConfig::Borg(borg) = &config.targets[0].engine else {
        panic!("borg")
    };
    assert_eq!(borg.encryption, "repokey-blake2");
    assert_eq!(config.targets[0].stall_timeout.as_secs(), 1_800);
}

/// Every key that this version serves and that holds a value.
fn leaves(table: &Declared, name: &str, found: &mut Vec<(String, &'static dyn AnyKey)>) {
    for item in table.items() {
        let name = conform::dotted(name, item.name());
        match item {
            Item::Later(..) => {}
            Item::Table(table) => leaves(table, &name, found),
            Item::Named(table, _) => leaves(table, &format!("{name}.NAME"), found),
            Item::Value(key) => found.push((name, key)),
        }
    }
}

/// The same, from the top.
fn declared() -> Vec<(String, &'static dyn AnyKey)> {
    let mut found = Vec::new();
    leaves(&FILE, "", &mut found);
    found
}

#[test]
fn what_is_shown_of_a_key_is_taken_by_its_reader() {
    for (name, key) in declared() {
        let about = key.about();
        let sample = match about.sample {
            Sample::Default | Sample::Hidden => None,
            Sample::Off(toml) | Sample::On(toml) => Some(toml),
        };
        for toml in about.default.into_iter().chain(sample) {
            let node = node_of(&toml.replace("@HOST@", "web1"));
            let node = node.unwrap_or_else(|| panic!("{name}: {toml} is no TOML"));
            key.check(&node, &mut |_, complaint| panic!("{name}: {toml}: {}", complaint.message));
        }
        assert!(!about.says.is_empty() && !about.says.ends_with('.'), "{name}: {:?}", about.says);
    }
}

#[test]
fn every_key_changes_the_model() {
    let mut tested: Vec<String> = Vec::new();
    for effects in EFFECTS.iter().copied().flatten() {
        for (key, plain, changed) in effects.rows {
            let name = format!("{}.{key}", effects.table);
            assert!(effects.file.contains("KEY") && changed.contains(key), "{name}");
            let plain = good(&effects.with(plain)).config;
            assert_ne!(plain, good(&effects.with(changed)).config, "{name} changes nothing");
            tested.push(name);
        }
    }
    let mut declared: Vec<String> = declared().into_iter().map(|(key, _)| key).collect();
    tested.sort_unstable();
    declared.sort_unstable();
    assert_eq!(tested, declared, "every declared key has a row");
}

#[test]
fn every_key_refuses_a_value_of_another_type() {
    for (key, declared) in declared() {
        // No key holds a date.
        let text = format!("{} = 2026-11-21\n", key.replace("NAME", "x"));
        let found = wrong(&text);
        let here = format!("1:{} ", text.find("2026").unwrap() + 1);
        assert!(
            found.iter().any(|p| p.starts_with(&here)),
            "{key} ({}): {found:?}",
            declared.shown()
        );
    }
}

fn mutated() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "",
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "\r\n",
        "\t",
        "#",
        "-",
        "0",
        "ä",
        "\u{feff}",
        "\u{0}",
        "\u{1b}",
        "\u{10ffff}",
        "true",
        "inf",
        "[]",
        "[settings]\n",
        "[jobs.host]\n",
        "targets",
        "keep",
        "borg",
        "99999999999999999999",
        "\"\"\"",
        "\\u0000",
        "1979-05-27",
        "**/*",
    ]);
    let texts =
        prop::sample::select(vec![BASE.to_owned(), TWO.to_owned(), commented_start("web1")]);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, pieces), 1..8);
    (texts, edits).prop_map(|(text, edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, removed, piece) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in the files, the answer is a configuration, or problems at places that exist.
    #[test]
    fn no_file_makes_it_panic(main in mutated(), drop_in in mutated(), noise in ".*") {
        let files = [file("m.toml", &main), file("d.toml", &drop_in), file("n.toml", &noise)];
        for files in [&files[..1], &files[..2], &files[2..], &files[..0]] {
            let problems = match load(files, "web1", |_| None) {
                Ok(loaded) => loaded.warnings,
                Err(problems) => {
                    prop_assert!(!problems.list().is_empty());
                    problems.list().to_vec()
                }
            };
            for problem in problems.iter().filter(|_| !files.is_empty()) {
                let text = &files.iter().find(|file| file.path == problem.file).unwrap().text;
                let line = text.split('\n').nth(problem.line - 1).unwrap();
                prop_assert!(problem.column <= line.chars().count() + 1);
                prop_assert!(problem.to_string().lines().count() >= 3);
            }
            origins(files);
        }
    }
}

/// The one problem of a text, and its advice.
fn only_problem(text: &str) -> (String, Option<String>) {
    let problems = load_one(text).expect_err(text);
    assert_eq!(problems.list().len(), 1, "{problems}");
    (problems.list()[0].message.clone(), problems.list()[0].help.clone())
}

#[test]
fn what_is_advised_is_taken() {
    let hooks = |key: &str, value: &str| format!("{BASE}\n[jobs.host.hooks]\n{key} = {value}\n");
    let files = |key: &str, value: &str| format!("{BASE}\n{key} = {value}\n");
    let settings = |key: &str, value: &str| format!("{BASE}\n[settings]\n{key} = {value}\n");
    let command = |_: &str, value: &str| {
        format!(
            "{BASE}\n[jobs.c]\ntargets = ['usb']\n[jobs.c.commands.i]\nfile-name = 'f'\ncommand = {value}\n"
        )
    };
    type In<'a> = &'a dyn Fn(&str, &str) -> String;
    let cases: &[(In<'_>, &str, &str, &str)] = &[
        (&hooks, "after", "'curl x'", r#"[["curl", "x"]]"#),
        (&hooks, "after", "'curl'", r#"[["curl"]]"#),
        (&hooks, "after", "['curl x']", r#"[["curl", "x"]]"#),
        (&hooks, "after", "['curl x', 'b']", r#"[["curl", "x"], ["b"]]"#),
        (&hooks, "after", "['curl', 'x y']", r#"[["curl", "x y"]]"#),
        (&hooks, "after", "[['curl x']]", r#"["curl", "x"]"#),
        (&command, "", "'pg_dump  all'", r#"["pg_dump", "all"]"#),
        (&command, "", "['pg_dump all']", r#"["pg_dump", "all"]"#),
        (&files, "exclude", "'a\"b'", r#"['a"b']"#),
        (&files, "leave-out", "'/etc/x'", r#"["/etc/x"]"#),
        (&settings, "max-age", "30", "\"30s\""),
    ];
    for (place, key, bad, good) in cases {
        let (message, help) = only_problem(&place(key, bad));
        let help = help.unwrap_or_else(|| panic!("{bad}: {message}: no advice"));
        assert!(help.ends_with(good), "{bad}: {help}");
        let advised = match bad.strip_prefix("[[") {
            Some(_) => format!("[{good}]"),
            None => (*good).to_owned(),
        };
        load_one(&place(key, &advised)).unwrap_or_else(|problems| panic!("{bad}: {problems}"));
    }
    // Nothing is advised that would be refused in its turn, or that a shell would have read otherwise.
    for (place, key, bad) in [
        (&hooks as In<'_>, "after", "'./x y'"),
        (&hooks, "after", "\"sh -c 'a b'\""),
        (&hooks, "after", "'a | b'"),
        (&files, "leave-out", "'etc'"),
        (&files, "exclude", "'~/x'"),
        (&settings, "max-age", "-3"),
    ] {
        let (_, help) = only_problem(&place(key, bad));
        assert!(!help.clone().unwrap_or_default().starts_with("write"), "{bad}: {help:?}");
    }
}

#[test]
fn advice_about_names_is_toml() {
    let text = base_with("[jobs.host.files]\npaths = [\"/etc\"]\n", "");
    let problems = load_one(&text.replace("jobs.host", "jobs.\"a.b\"")).unwrap_err();
    let help = problems.list().last().unwrap().help.as_deref();
    assert_eq!(
        help,
        Some(
            "add [jobs.\"a.b\".files] or [jobs.\"a.b\".commands.ITEM] or [jobs.\"a.b\".subvolumes]"
        )
    );
    let (_, help) = only_problem(&base_with("/srv/usb", "/etc/[b]*"));
    assert_eq!(help.unwrap(), "add \"/etc/?b??\" to exclude");
    let covered = base_with("/srv/usb", "/etc/[b]*") + "exclude = [\"/etc/?b??\"]\n";
    good(&covered);
}

#[test]
fn an_escape_in_a_name_is_nowhere_shown() {
    let text =
        base_with("[\"usb\"]", "[\"bus\"]").replace("targets.usb", "targets.\"u\\u001b[2J\"");
    let shown = load_one(&text).unwrap_err().to_string();
    assert!(shown.contains("[2J") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn keys_that_this_version_refuses_are_not_offered() {
    for (wrong, place) in [("zzz = 1", "[jobs.host]"), ("volume = 1", "[jobs.host]")] {
        let (_, help) = only_problem(&base_with(place, &format!("{place}\n{wrong}")));
        let help = help.unwrap();
        for refused in ["machines", "\"volumes", " volumes"] {
            assert!(!help.contains(refused), "{wrong}: {help}");
        }
    }
}

#[test]
fn what_only_a_shell_replaces_is_refused() {
    for bad in ["~", "~/.cache", "$HOME/.cache", "/home/${USER}/x", "/a/$XDG_CACHE_HOME", "[]"] {
        let problems = wrong(&(BASE.to_owned() + &format!("exclude = ['ok', '{bad}']\n")));
        assert_eq!(problems.len(), 1, "{bad}: {problems:?}");
        assert!(problems[0].starts_with("9:18 "), "{bad}: {problems:?}");
    }
    for fine in ["*~", "~backup", "$RECYCLE.BIN", "Foo$1.class", "[~]/x", "/x/$HOMES", "a$"] {
        good(&(BASE.to_owned() + &format!("exclude = ['{fine}']\n")));
    }
    for bad in ["~/x", "$HOME/x", "/srv/$HOME/x", "/srv/${X}"] {
        let problems = wrong(&base_with("/etc", bad).replace("/etc/usb.pass", "/usb.pass"));
        assert!(!problems.is_empty(), "{bad}");
    }
}

#[test]
fn a_span_with_which_clocks_would_overflow_is_refused() {
    for key in ["lock-wait", "max-age"] {
        let text = format!("{BASE}[settings]\n{key} = \"18446744073709551615s\"\n");
        assert_eq!(wrong(&text).len(), 1, "{key}");
    }
}
