use proptest::prelude::*;

use super::*;
use crate::config::{self, Loaded, SourceFile};
use crate::model::job::{Job, Source};
use crate::model::keep::{ALL, BtrbkSchedule, KeepPolicy, Period, PreserveMin};
use crate::model::names::{JobName, TargetName};
use crate::model::target::WhenAbsent;
use crate::tools::exclude::pattern_fault;

fn nothing(_: &str) -> Option<Vec<u8>> {
    None
}

/// Ours, which must be without a fault.
fn loaded(text: &str) -> Loaded {
    let file = SourceFile { path: "/etc/stillpoint.toml".into(), text: text.to_owned() };
    config::load(&[file], "web1", pattern_fault)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn job<'l>(loaded: &'l Loaded, name: &str) -> &'l Job {
    loaded.config.job(&JobName::new(name).unwrap()).unwrap_or_else(|| panic!("no job {name}"))
}

fn paths(job: &Job) -> Vec<&str> {
    match &job.source {
        Source::Subvolumes(source) => {
            source.paths.iter().map(|path| path.to_str().unwrap()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn keep<'j>(job: &'j Job, target: &str) -> Option<&'j KeepPolicy> {
    job.keep.get(&TargetName::new(target).unwrap())
}

const BTRBK: &str = "# of this machine
transaction_log            /var/log/btrbk.log
snapshot_preserve_min   2d
snapshot_preserve      14d
target_preserve_min    no
target_preserve        20d 10w *m   # for years
ssh_identity /etc/btrbk/ssh/id
snapshot_dir _snaps
target /mnt/backup/all

volume /mnt/pool
  subvolume home
    target /mnt/usb/home
      target_preserve 5y
    target raw ssh://nas/raw
  subvolume  '@root'
    snapshot_name root
    snapshot_preserve_min latest
    snapshot_preserve no
    snapshot_create onchange
    target send-receive \"ssh://backup@nas:2222/mnt/b\"
      preserve_day_of_week monday
      preserve_hour_of_day 5
      rate_limit 10m
    target raw /mnt/nfs
      raw_target_encrypt gpg
      gpg_recipient me@x
  subvolume data/*

volume ssh://db/mnt/pool
  subvolume pg
";

#[test]
fn a_configuration_of_btrbk() {
    let text = import(Program::Btrbk, BTRBK, &nothing).unwrap();
    let loaded = loaded(&text);
    let home = job(&loaded, "home");
    assert_eq!(paths(home), ["/mnt/pool/home"]);
    let targets: Vec<&str> = home.targets.iter().map(TargetName::as_str).collect();
    assert_eq!(targets, ["usb-home", "backup-all"]);
    let schedule =
        |preserve_min| Some(BtrbkSchedule { preserve_min, day_of_week: 0, hour_of_day: 0 });
    let all = KeepPolicy {
        daily: Some(20),
        weekly: Some(10),
        monthly: Some(ALL),
        btrbk: schedule(PreserveMin::No),
        ..KeepPolicy::default()
    };
    assert_eq!(keep(home, "backup-all"), Some(&all));
    let years =
        KeepPolicy { yearly: Some(5), btrbk: schedule(PreserveMin::No), ..KeepPolicy::default() };
    assert_eq!(keep(home, "usb-home"), Some(&years));
    let here = KeepPolicy {
        daily: Some(14),
        btrbk: schedule(PreserveMin::Within(2, Period::Day)),
        ..KeepPolicy::default()
    };
    assert_eq!(home.keep_snapshots.as_ref(), Some(&here));

    let root = job(&loaded, "root");
    assert_eq!(paths(root), ["/mnt/pool/@root"]);
    let latest = KeepPolicy { btrbk: schedule(PreserveMin::Latest), ..KeepPolicy::default() };
    assert_eq!(root.keep_snapshots.as_ref(), Some(&latest));
    let btrbk = keep(root, "nas-b").unwrap().btrbk.unwrap();
    assert_eq!((btrbk.day_of_week, btrbk.hour_of_day), (1, 5));
    for said in [
        "location = \"ssh://backup@nas:2222/mnt/b\"",
        "ssh-command = [\"ssh\", \"-i\", \"/etc/btrbk/ssh/id\"]",
        "upload-limit = 10240",
        "directory = \"/mnt/nfs/stillpoint\"",
        "# make it first: mkdir -m 700 /mnt/nfs/stillpoint",
        "recipients-file = ",
        "# line 2, transaction_log            /var/log/btrbk.log: is not needed",
        "# line 15, target raw ssh://nas/raw is NOT in this configuration",
        "# line 20, snapshot_create onchange: has no equal",
        "# line 27, gpg_recipient me@x: has no equal",
        "# line 28, subvolume data/* is NOT in this configuration: a pattern",
        "# line 31, subvolume pg is NOT in this configuration: it is on another machine",
        "stillpoint init usb-home",
        "stillpoint adopt backup-all",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    assert!(text.contains("adopt nas-b       # with a key that may adopt, "), "{text}");
}

#[test]
fn snapshots_that_lie_in_the_subvolume_need_not_be_in_a_copy() {
    let text = "snapshot_dir .snapshots\nsubvolume /home\n target /mnt/a\nvolume /mnt/pool\n subvolume .\n target /mnt/a\n";
    let text = import(Program::Btrbk, text, &nothing).unwrap();
    let loaded = loaded(&text);
    let leave_out = |name: &str| match &job(&loaded, name).source {
        Source::Subvolumes(source) => source.leave_out.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(leave_out("home"), [std::path::Path::new("/home/.snapshots")]);
    assert_eq!(leave_out("pool"), [std::path::Path::new("/mnt/pool/.snapshots")]);
    assert_eq!(loaded.config.targets.len(), 1, "both go to one: {text}");
    // All of btrbk's stays by default.
    assert_eq!(keep(job(&loaded, "home"), "a"), None);
    let schedule = job(&loaded, "home").keep_snapshots.as_ref().unwrap().btrbk.unwrap();
    assert_eq!(schedule.preserve_min, PreserveMin::All);
}

const NG: &str = r#"
[global]
snapshot_dir = ".snaps"
incremental = true
transfer_stall_timeout = 600
[global.notifications.email]
enabled = true
smtp_password = "hunter2"
[global.retention]
min = "2M"
hourly = 0
yearly = 3
[[volumes]]
path = "/home"
snapshot_prefix = "web1-"
[[volumes.targets]]
path = "/mnt/backup/home"
require_mount = true
[[volumes.targets]]
path = "ssh://u@nas:/mnt/b"
ssh_port = 2222
ssh_key = "/root/.ssh/b"
ssh_sudo = true
compress = "zstd"
rate_limit = "5M"
[[volumes.targets]]
path = "shell://cat > x"
[[volumes]]
path = "/srv"
enabled = false
[[volumes]]
path = "/var"
source = "snapper"
[volumes.retention]
min = "soon"
[[volumes.targets]]
path = "raw:///mnt/raw"
encrypt = "gpg"
gpg_recipient = "me\nkey = 1"
"#;

#[test]
fn a_configuration_of_btrfs_backup_ng_and_its_locks() {
    let locks = br#"{"web1-20260101-000000": {"locks": ["/mnt/backup/home\n[x]", "raw:///mnt/raw"]}, "b": {"parent_locks": ["c"]}}"#;
    let look = |path: &str| (path == "/home/.snaps/.btrfs-backup-ng.locks").then(|| locks.to_vec());
    let text = import(Program::BtrfsBackupNg, NG, &look).unwrap();
    let loaded = loaded(&text);
    let home = job(&loaded, "web1");
    assert_eq!(paths(home), ["/home"]);
    let policy = keep(home, "backup-home").unwrap();
    assert_eq!(policy.within, Some(std::time::Duration::from_secs(62 * 86_400)));
    // It counts from where those 62 days end.
    let counts = (policy.hourly, policy.daily, policy.yearly, policy.last);
    assert_eq!(counts, (None, Some(7 + 63), Some(3 + 2), None));
    assert_eq!(home.keep_snapshots.as_ref(), Some(policy));
    assert_eq!(keep(job(&loaded, "var"), "raw"), None, "what cannot be read deletes nothing");
    let var = job(&loaded, "var");
    assert_eq!(existing(var), (["/var/.snapshots/*/snapshot".to_owned()].into(), true));
    assert_eq!(var.keep_snapshots, None, "they are snapper's");
    for said in [
        "require-mount = \"/mnt/backup/home\"",
        "location = \"ssh://u@nas:2222/mnt/b\"",
        "ssh-command = [\"ssh\", \"-i\", \"/root/.ssh/b\", \"-C\"]",
        "upload-limit = 5120",
        "stall-timeout = \"600s\"",
        "leave-out = [\"/home/.snaps\"]",
        "# line 23, ssh_sudo = true: has no equal",
        "shell://cat > x is NOT in this configuration",
        "# line 29, /srv",
        "recipients-file = ",
        "sending web1-20260101-000000 to /mnt/backup/home\\n[x] was cut off",
        "stillpoint adopt nas-b       # with a key that may adopt",
        "what is in /home/.snaps is the base of the first difference, and is never deleted",
        "# line 37, raw:///mnt/raw: retention min = \"soon\": cannot be read, so all of it stays",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    assert!(!text.contains("sending b to"), "{text}");
    for (wrong, line) in
        [("[global\n", 1), ("a = 1\n", 1), ("/home\n-p x\n", 1), ("x = 1\ny = ]\n", 2)]
    {
        let failed = import(Program::BtrfsBackupNg, wrong, &nothing).unwrap_err();
        assert_eq!(failed.line, line, "{failed}");
    }
}

/// Every key that version 0.10.0 knows.
const KNOWN: &str = r#"
[global]
snapshot_dir = ".snapshots"
timestamp_format = "%Y%m%d-%H%M%S"
incremental = true
log_file = "/var/log/x.log"
transaction_log = "/var/log/x.jsonl"
transfer_timeout = 3600
transfer_stall_timeout = 900
parallel_volumes = 2
parallel_targets = 3
quiet = false
verbose = false
btrfs_debug = false
[global.retention]
min = "1d"
hourly = 24
daily = 7
weekly = 4
monthly = 12
yearly = 0
keep = 0
[global.notifications.email]
smtp_password = "hunter2"
[global.notifications.webhook.headers]
Authorization = "Bearer hunter3"
[[volumes]]
path = "/home"
snapshot_prefix = "home-"
snapshot_dir = ".snapshots"
enabled = true
source = "native"
retention = {daily = 14, weekly = 8}
source_retention = {keep = 3}
[[volumes.targets]]
path = "/mnt/usb/home"
retention = {min = "2d"}
require_mount = "/mnt/usb"
optional = true
compress = "none"
rate_limit = "1.5M"
[[volumes.targets]]
path = "ssh://backup@server:/backups/home"
ssh_sudo = true
ssh_port = 22
ssh_key = "/root/.ssh/k"
ssh_auth_sock = "/run/a"
ssh_password_auth = true
ssh_host_key_policy = "strict"
skip_remote_lock = false
optional = true
[[volumes.targets]]
path = "raw:///mnt/usb/raw"
encrypt = "gpg"
gpg_recipient = "me"
gpg_keyring = "/k"
openssl_cipher = "aes-256-cbc"
[[volumes]]
path = "/"
source = "snapper"
[volumes.snapper]
config_name = "root"
include_types = ["single"]
exclude_cleanup = []
min_age = "1h"
[[volumes.targets]]
path = "ssh://backup@server:/backups/root"
"#;

#[test]
fn every_key_of_btrfs_backup_ng_is_known() {
    let text = import(Program::BtrfsBackupNg, KNOWN, &nothing).unwrap();
    assert!(!text.contains("is not known") && !text.contains("hunter"), "{text}");
    let loaded = loaded(&text);
    for said in [
        "log_file = ",
        "transfer_timeout = ",
        "btrfs_debug = ",
        "notifications: ",
        "include_types = ",
        "min_age = ",
        "optional = true: has no equal",
        "upload-limit = 1536",
        "location = \"ssh://backup@server/backups/root/.snapshots\"",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    let root = job(&loaded, "root");
    assert_eq!(existing(root), (["/.snapshots/*/snapshot".to_owned()].into(), true));
    let usb = keep(job(&loaded, "home"), "usb-home").unwrap();
    assert_eq!(usb.within, Some(std::time::Duration::from_secs(2 * 86_400)));
    assert_eq!((usb.daily, usb.weekly, usb.monthly), (Some(14 + 3), Some(8 + 2), Some(12 + 2)));
    let unknown = KNOWN.replace("keep = 3", "keeep = 3, dayly = 1");
    let text = import(Program::BtrfsBackupNg, &unknown, &nothing).unwrap();
    assert_eq!(text.matches("is not known, and left out").count(), 2, "{text}");
}

/// What a configuration with these lines becomes: of one volume `/home` with a target `/mnt/b/c`.
fn ng(global: &str, volume: &str, target: &str) -> (Loaded, String) {
    let text = format!(
        "[global]\n{global}\n[[volumes]]\npath = \"/home\"\n{volume}\n[[volumes.targets]]\npath = \"/mnt/b/c\"\n{target}\n"
    );
    let text = import(Program::BtrfsBackupNg, &text, &nothing).unwrap();
    (loaded(&text), text)
}

#[test]
fn the_narrowest_policy_of_btrfs_backup_ng_says_what_differs_from_the_wider() {
    let (loaded, text) = ng(
        "[global.retention]\nmin = \"30m\"\nhourly = 0\nmonthly = 0",
        "retention = {daily = 30}\nsource_retention = {min = \"6h\", hourly = 48}",
        "retention = {keep = 5, min = \"0s\"}",
    );
    let home = job(&loaded, "home");
    let last = KeepPolicy { last: Some(5), ..KeepPolicy::default() };
    assert_eq!(keep(home, "b-c"), Some(&last));
    let here = KeepPolicy {
        within: Some(std::time::Duration::from_secs(6 * 3_600)),
        hourly: Some(48 + 7),
        daily: Some(30 + 2),
        weekly: Some(4 + 2),
        ..KeepPolicy::default()
    };
    assert_eq!(home.keep_snapshots.as_ref(), Some(&here));
    for said in [
        "min, hourly, monthly of its retention: as the wider one says",
        "daily, monthly of its retention: as the wider one says",
        "retention keep = 5: hourly to yearly mean nothing beside it",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    let minutes = ng("retention = {min = \"30m\", hourly = 1}", "", "");
    let minutes = keep(job(&minutes.0, "home"), "b-c").unwrap();
    assert_eq!(minutes.within, Some(std::time::Duration::from_secs(1_800)));
    assert_eq!(minutes.hourly, Some(1 + 2));
}

#[test]
fn what_btrfs_backup_ng_refuses_to_carry_out_is_not_carried_out() {
    let nothing = "hourly = 0, daily = 0, weekly = 0, monthly = 0";
    let read = |more: &str| ng(&format!("retention = {{{nothing}{more}}}"), "", "");
    for more in ["", ", min = \"1d\"", ", min = \"0s\"", ", min = \"6h\", keep = 0"] {
        let (loaded, text) = read(more);
        let home = job(&loaded, "home");
        assert_eq!(keep(home, "b-c"), None, "{more}");
        let schedule = home.keep_snapshots.as_ref().unwrap().btrbk.unwrap();
        assert_eq!(schedule.preserve_min, PreserveMin::All, "{more}");
        assert!(text.contains("refuses to carry that out, so all of it stays"), "{text}");
    }
    // An age alone is a policy, and so is a number.
    let days = keep(job(&read(", min = \"2d\"").0, "home"), "b-c").unwrap().clone();
    assert_eq!(days.within, Some(std::time::Duration::from_secs(2 * 86_400)));
    assert_eq!((days.last, days.hourly, days.daily), (None, None, None));
    let three = keep(job(&read(", keep = 3").0, "home"), "b-c").unwrap().clone();
    assert_eq!(three.last, Some(3));
}

#[test]
fn what_is_to_stay_or_cannot_be_read_stays() {
    for retention in
        ["min = \"all\"", "min = \"300y\"", "min = 3", "min = \"1D\"", "daily = true", "keep = -1"]
    {
        let (loaded, text) = ng(&format!("retention = {{{retention}}}"), "", "");
        let home = job(&loaded, "home");
        assert_eq!(keep(home, "b-c"), None, "{retention}");
        let schedule = home.keep_snapshots.as_ref().unwrap().btrbk.unwrap();
        assert_eq!(schedule.preserve_min, PreserveMin::All, "{retention}");
        let is_wrong = !["min = \"all\"", "min = \"300y\""].contains(&retention);
        let said = format!("retention {retention}: cannot be read, so all of it stays");
        assert_eq!(text.contains(&said), is_wrong, "{said}\n{text}");
    }
}

#[test]
fn what_must_be_mounted_and_what_may_be_away() {
    for (target, mount, skips, said) in [
        ("require_mount = true", Some("/mnt/b/c"), false, ""),
        ("require_mount = \"yes\"", Some("/mnt/b/c"), false, ""),
        ("require_mount = \"/mnt/b/\"\noptional = true", Some("/mnt/b"), true, ""),
        ("require_mount = false\noptional = true", None, false, "say in require-mount"),
        ("require_mount = \"/\"", None, false, "is no mount point around it"),
        ("require_mount = \"/mnt/other\"", None, false, "is no mount point around it"),
        ("optional = \"false\"", None, false, ""),
    ] {
        let (loaded, text) = ng("", "", target);
        let read = &loaded.config.targets[0];
        assert_eq!(read.require_mount.as_deref(), mount.map(std::path::Path::new), "{target}");
        assert_eq!(read.when_absent == WhenAbsent::Skip, skips, "{target}");
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn snapshots_of_btrfs_backup_ng_lie_below_the_volume_or_under_its_name_elsewhere() {
    for (directory, at) in [
        (".snapshots", "/srv/home/.snapshots"),
        ("../.snaps/./x", "/srv/.snaps/x"),
        ("/snaps/", "/snaps/home"),
    ] {
        let text = format!(
            "[global]\nsnapshot_dir = \"{directory}\"\n[[volumes]]\npath = \"/srv/home\"\n[[volumes.targets]]\npath = \"/mnt/b\"\n"
        );
        let locks = br#"{"srv-home-20260101-000000": {"locks": ["/mnt/b"]}}"#;
        let look =
            |path: &str| (path == format!("{at}/.btrfs-backup-ng.locks")).then(|| locks.to_vec());
        let text = import(Program::BtrfsBackupNg, &text, &look).unwrap();
        assert!(text.contains("sending srv-home-20260101-000000 to /mnt/b was cut off"), "{text}");
        let loaded = loaded(&text);
        let Source::Subvolumes(source) = &job(&loaded, "srv-home").source else { panic!("{text}") };
        let inside = at.starts_with("/srv/home/").then(|| std::path::PathBuf::from(at));
        assert_eq!(source.leave_out, Vec::from_iter(inside), "{text}");
    }
}

/// How the snapshots are called that a job sends, and whether it sends all of them.
fn existing(job: &Job) -> (Vec<String>, bool) {
    let Source::Subvolumes(source) = &job.source else { panic!("{job:?}") };
    let existing = source.existing.clone().unwrap();
    (existing.called, existing.all)
}

#[test]
fn a_configuration_of_snapper() {
    let text = "# x\nSUBVOLUME=\"/\"\nFSTYPE=\"btrfs\"\nTIMELINE_LIMIT_HOURLY=\"10\"\n";
    let text = import(Program::Snapper, text, &nothing).unwrap();
    let loaded = loaded(&text);
    let root = job(&loaded, "root");
    assert_eq!(paths(root), ["/"]);
    assert_eq!(existing(root), (["/.snapshots/*/snapshot".to_owned()].into(), false));
    assert!(text.contains("leave-out = [\"/.snapshots\", \"/mnt/shelf/copies\"]"), "{text}");
    assert!(text.contains("# line 4, TIMELINE_LIMIT_HOURLY=\"10\": stays snapper's own"), "{text}");
    for (wrong, line) in
        [("FSTYPE=ext4\n", 1), ("\nrm -rf /\n", 2), ("X=1\n", 1), ("SUBVOLUME=home\n", 1)]
    {
        let failed = import(Program::Snapper, wrong, &nothing).unwrap_err();
        assert_eq!(failed.line, line, "{failed}");
    }
}

fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "(volume|subvolume|target|snapshot_dir|snapshot_preserve|target_preserve|target_preserve_min|snapshot_name|rate_limit)",
        "(/[a-z.*\"' ]{0,6}|ssh://[a-z@:]{0,6}/x|raw /y|[0-9*]{1,3}[hdwmyx]|all|no|latest|\\.)",
        "[ -~\u{80}-\u{ff}\r\t]{0,8}",
    ];
    prop::collection::vec(prop::collection::vec(word, 1..4), 0..12).prop_map(|lines| {
        let lines: Vec<String> = lines.into_iter().map(|words| words.join(" ")).collect();
        lines.join("\n")
    })
}

proptest! {
    #[test]
    fn whatever_it_says_it_is_refused_or_becomes_toml(text in words()) {
        for program in Program::ALL {
            if let Ok(imported) = import(program, &text, &nothing) {
                let read = toml::from_str::<toml::Table>(&imported);
                prop_assert!(read.is_ok(), "{:?}\n{}", read, imported);
            }
        }
    }
}
