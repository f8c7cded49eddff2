//! Units of systemd, from the text of a configuration: what each part of a job needs is in them, and no more.

use std::path::{Path, PathBuf};

use stillpoint::engine::engines;
use stillpoint::model::job::Config;
use stillpoint::pipeline::units::units;

use crate::configured::configured;

/// A repository of borg's on this machine.
const LOCAL: &str =
    r#"borg = { repository = "/srv/b", passphrase-file = "/etc/stillpoint/b.pass" }"#;

/// One of restic's behind ssh.
const FAR: &str =
    r#"restic = { repository = "sftp:backup@nas:/restic", password-file = "/etc/p" }"#;

/// Where Stillpoint keeps its own, in the usual way.
const USUAL: &str = "";

fn restic(repository: &str) -> String {
    format!(
        r#"restic = {{ repository = {repository:?}, password-file = "/etc/stillpoint/cloud.pass" }}"#
    )
}

fn borg(repository: &str) -> String {
    format!(
        r#"borg = {{ repository = {repository:?}, passphrase-file = "/etc/stillpoint/usb.pass" }}"#
    )
}

/// A job with this source (and hooks, and the like) that goes to these targets.
fn config(settings: &str, job: &str, targets: &[&str]) -> Config {
    let mut text = format!("[settings]\nhost = \"web1\"\n{settings}\n");
    let mut names = Vec::new();
    for (n, target) in targets.iter().enumerate() {
        text.push_str(&format!("[targets.t{n}]\n{target}\n"));
        names.push(format!("t{n}"));
    }
    text.push_str(&format!("[jobs.host]\ntargets = {names:?}\n{job}\n"));
    configured(&text)
}

/// Files that are read live.
fn live(path: &str) -> String {
    format!("files = {{ paths = [{path:?}], capture = \"none\" }}")
}

fn made(config: &Config) -> Vec<(String, String)> {
    let config_path = Path::new("/etc/stillpoint.toml");
    units(config, &engines(config), config_path, Path::new("/usr/bin/stillpoint"))
}

fn service(settings: &str, job: &str, targets: &[&str]) -> String {
    made(&config(settings, job, targets)).swap_remove(0).1
}

fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))
        .collect()
}

#[test]
fn a_local_job_is_shut_in() {
    let job = r#"files = { paths = ["/etc", "/home"], capture = "none" }"#;
    let usb = r#"borg = { repository = "/srv/backup/web1", passphrase-credential = "borg-pass" }"#;
    let text: String = made(&config(USUAL, job, &[usb]))
        .iter()
        .map(|(name, text)| format!("==> {name} <==\n{text}\n"))
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn a_remote_target_needs_the_network_and_no_directory() {
    let unit = service(USUAL, &live("/etc"), &[&restic("local:/srv/restic"), FAR]);
    assert_eq!(values(&unit, "ReadWritePaths"), ["-/srv/restic"]);
    assert_eq!(values(&unit, "RestrictAddressFamilies"), ["AF_UNIX AF_NETLINK AF_INET AF_INET6"]);
    assert!(values(&unit, "IPAddressDeny").is_empty());
    assert!(values(&unit, "LoadCredentialEncrypted").is_empty());
}

#[test]
fn borg_keeps_the_address_family_that_its_host_id_comes_from() {
    let restic_only = service(USUAL, &live("/etc"), &[&restic("/srv/a")]);
    assert_eq!(values(&restic_only, "RestrictAddressFamilies"), ["AF_UNIX"]);
    let both = service(USUAL, &live("/etc"), &[&restic("/srv/a"), LOCAL]);
    assert_eq!(values(&both, "RestrictAddressFamilies"), ["AF_UNIX AF_INET"]);
    assert_eq!(values(&both, "IPAddressDeny"), ["any"]);
}

#[test]
fn credentials_are_loaded_each_once() {
    let of = |path: &str| {
        format!(r#"borg = {{ repository = {path:?}, passphrase-credential = "50%-usb" }}"#)
    };
    let unit = service(USUAL, &live("/etc"), &[&of("/srv/a"), &of("/srv/b")]);
    assert_eq!(values(&unit, "LoadCredentialEncrypted"), ["50%%-usb"]);
}

#[test]
fn what_the_administrator_runs_is_not_shut_in() {
    let hooked = format!("{}\nhooks = {{ before = [[\"/usr/local/bin/dump\"]] }}", live("/etc"));
    let dump = r#"commands.postgres = { command = ["sudo", "-u", "postgres", "pg_dumpall"], file-name = "postgres.sql" }"#;
    let asked = r#"borg = { repository = "/srv/b", passphrase-command = ["pass", "borg"] }"#;
    for (job, target) in [
        (hooked.as_str(), LOCAL),
        (dump, LOCAL),
        (live("/etc").as_str(), asked),
        (live("/etc").as_str(), restic("rclone:drive:x").as_str()),
    ] {
        let unit = service(USUAL, job, &[target]);
        assert_eq!(values(&unit, "ProtectSystem"), ["full"]);
        for key in ["CapabilityBoundingSet", "NoNewPrivileges", "IPAddressDeny", "PrivateTmp"] {
            assert!(values(&unit, key).is_empty(), "{key} in {unit}");
        }
    }
}

/// Files that may be captured, with more said about it.
fn captured(more: &str) -> String {
    format!("[jobs.host.files]\npaths = [\"/etc\"]\n{more}")
}

#[test]
fn a_job_that_captures_has_what_lvm_needs() {
    let unit = service(USUAL, &captured(""), &[LOCAL]);
    assert_eq!(values(&unit, "ProtectSystem"), ["strict"]);
    assert_eq!(values(&unit, "ReadWritePaths"), ["-/etc/lvm", "-/run", "-/srv/b"]);
    assert_eq!(values(&unit, "RestrictAddressFamilies"), ["AF_UNIX AF_NETLINK AF_INET"]);
    let modules = "modprobe@dm_snapshot.service modprobe@dm_thin_pool.service";
    for key in ["Wants", "After"] {
        assert!(values(&unit, key).contains(&modules), "{key} in {unit}");
    }
    let needed = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN \
                  CAP_FSETID CAP_SETFCAP CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SETUID \
                  CAP_SETGID CAP_KILL CAP_SYS_CHROOT";
    assert_eq!(values(&unit, "CapabilityBoundingSet"), [needed]);
    assert_eq!(values(&unit, "RestrictNamespaces"), ["mnt uts"]);
    assert_eq!(values(&unit, "ProtectControlGroups"), ["yes"]);
    let live = service(USUAL, &live("/etc"), &[LOCAL]);
    assert_eq!(values(&live, "ReadWritePaths"), ["-/srv/b"]);
    assert!(!live.contains("modprobe@"), "{live}");
}

#[test]
fn the_programs_of_lvm_are_not_the_first_to_die() {
    let unit = service(USUAL, &captured(""), &[LOCAL]);
    assert_eq!(values(&unit, "OOMScoreAdjust"), ["0"]);
    assert_eq!(values(&unit, "KillMode"), ["mixed"]);
    assert_eq!(values(&unit, "TimeoutStopSec"), ["180"]);
    let live = service(USUAL, &live("/etc"), &[LOCAL]);
    assert_eq!(values(&live, "OOMScoreAdjust"), ["250"]);
}

#[test]
fn what_breaks_captures_is_never_set() {
    let frozen = captured("consistent = true\nfreeze-units = [\"app.service\"]");
    let pausing = "quiesce = [[\"/usr/local/bin/p\"]]\nresume = [[\"/usr/local/bin/r\"]]";
    let hooked = format!("{frozen}\n[jobs.host.hooks]\n{pausing}");
    for (job, target) in
        [(&frozen, LOCAL), (&captured(""), LOCAL), (&hooked, LOCAL), (&frozen, FAR)]
    {
        let unit = service(USUAL, job, &[target]);
        for key in ["PrivateIPC", "PrivateDevices", "DevicePolicy", "ProtectKernelModules"] {
            assert!(values(&unit, key).is_empty(), "{key} in {unit}");
        }
        assert!(values(&unit, "ReadWritePaths").contains(&"-/etc/lvm"), "{unit}");
    }
}

#[test]
fn units_are_frozen_through_control_groups_that_can_be_written() {
    let job = captured("consistent = true\nfreeze-units = [\"postgresql.service\"]");
    let unit = service(USUAL, &job, &[LOCAL]);
    assert!(values(&unit, "ProtectControlGroups").is_empty(), "{unit}");
    let families = values(&unit, "RestrictAddressFamilies");
    assert!(families[0].contains("AF_UNIX"), "systemctl asks over one: {families:?}");
}

#[test]
fn writers_paused_by_hooks_are_not_shut_in() {
    let pausing = "quiesce = [[\"/usr/local/bin/p\"]]\nresume = [[\"/usr/local/bin/r\"]]";
    let job = captured(&format!("consistent = true\n[jobs.host.hooks]\n{pausing}"));
    let unit = service(USUAL, &job, &[LOCAL]);
    assert_eq!(values(&unit, "ProtectSystem"), ["full"]);
    assert_eq!(values(&unit, "ReadWritePaths"), ["-/etc/lvm"]);
    assert!(values(&unit, "NoNewPrivileges").is_empty(), "{unit}");
}

#[test]
fn a_source_in_tmp_is_seen_as_it_is() {
    for (source, private) in [("/", false), ("/var", false), ("/tmp/x", false), ("/home", true)] {
        let job = format!(
            r#"files = {{ paths = [{source:?}], capture = "none", exclude = ["/srv/b"] }}"#
        );
        let unit = service(USUAL, &job, &[LOCAL]);
        assert_eq!(!values(&unit, "PrivateTmp").is_empty(), private, "{source}");
        assert_eq!(values(&unit, "ReadWritePaths").contains(&"-/tmp"), !private, "{source}");
    }
    let unit = service(USUAL, &live("/home"), &[&borg("/tmp/repository")]);
    assert!(values(&unit, "PrivateTmp").is_empty());
    let unit = service("metrics-file = \"/var/tmp/m.prom\"", &live("/home"), &[LOCAL]);
    assert!(values(&unit, "PrivateTmp").is_empty());
}

#[test]
fn a_directory_that_must_be_a_mount_point_is_not_made_to_look_like_one() {
    let on = |repository: &str| {
        format!(
            r#"borg = {{ repository = {repository:?}, passphrase-file = "/etc/p", require-mount = "/srv/backup/" }}"#
        )
    };
    let unit = service(USUAL, &live("/etc"), &[&on("/srv/backup")]);
    assert_eq!(values(&unit, "ProtectSystem"), ["full"]);
    assert!(values(&unit, "ReadWritePaths").is_empty());
    let unit = service(USUAL, &live("/etc"), &[&on("/srv/backup/web1")]);
    assert_eq!(values(&unit, "ReadWritePaths"), ["-/srv/backup/web1"]);
}

#[test]
fn paths_are_escaped_for_the_place_where_they_stand() {
    let settings = "state-dir = \"/srv/state\"\ncache-dir = \"/var/cache/still point\"";
    let mut config = config(settings, &live("/etc"), &[&borg("/srv/my \"50%\" x\\y")]);
    let config_path = Path::new("/etc/a b/50%$\n\".toml");
    let made = units(&config, &engines(&config), config_path, Path::new("/opt/still/stillpoint"));
    let unit = &made[0].1;
    assert_eq!(
        values(unit, "ExecStart"),
        [r#"/opt/still/stillpoint -c "/etc/a b/50%%$$\x0a\".toml" run host"#]
    );
    assert_eq!(values(unit, "ReadWritePaths"), [r#""-/srv/my \"50%%\" x\\y""#, "-/srv/state"]);
    assert_eq!(values(unit, "CacheDirectory"), ["\"still point\""]);
    assert!(values(unit, "StateDirectory").is_empty());
    // No configuration can hold such a path today; a default made from something else might.
    config.settings.state_dir = PathBuf::from("/srv/line\nbreak");
    let made = units(&config, &engines(&config), config_path, Path::new("/opt/stillpoint"));
    assert_eq!(values(&made[0].1, "ProtectSystem"), ["full"]);
}
