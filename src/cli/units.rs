//! The text of `generate units`: a systemd service and timer for each job.
//!
//! The files are named after the shipped template, `stillpoint@JOB.service`, so that a generated unit takes
//! the template's place for its job and everything else (`systemctl start stillpoint@JOB`) stays the same.
//! What a unit may touch follows from the job: one that runs only borg or restic is shut into a read-only
//! file system; one that runs programs of the administrator's (hooks, dumps, passphrase commands) is not,
//! because nobody can know what those need.
//!
//! A job that may hold its files still by LVM snapshots or read-only mounts needs more, all of it measured:
//! - `/etc/lvm` writable, or `lvcreate` ends with "cannot archive volume group metadata", and `/run` too where
//!   everything else is read-only, for LVM's locks. `-An` would avoid the first and lose LVM's own backup;
//! - the modules `dm_snapshot` and `dm_thin_pool`, without which `lvcreate` refuses even a thin snapshot. They
//!   are loaded by a unit of systemd's, so that this one needs no `CAP_SYS_MODULE`;
//! - no `PrivateDevices=`, which hides the volumes, and no `PrivateIPC=`: LVM waits for udev at a System V
//!   semaphore, and in a namespace of its own it would wait for ever. `AF_NETLINK` is how it hears of udev;
//! - a neutral `OOMScoreAdjust=`, which LVM's programs inherit: killed between suspend and resume, they leave
//!   the origin suspended, and with it the machine. For the same reason `TimeoutStopSec=` is generous;
//! - with `freeze-units`, no `ProtectControlGroups=`: units are frozen through `/sys/fs/cgroup`.
//!
//! Three settings that look harmless are left out on purpose:
//! - `PrivateTmp=` where the job reads below `/tmp` or `/var/tmp`: the copy would hold an empty directory;
//! - `ReadWritePaths=` on a directory that must be a mount point: it would always look like one;
//! - a ban on `AF_INET` for borg: its host id comes from the network card, and without one it is random, so
//!   that borg no longer recognises its own stale locks. `IPAddressDeny=` cuts local jobs off instead.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::model::job::{CaptureMode, CapturePolicy, Config, Job, Settings, Source};
use crate::model::target::{EngineConfig, SecretSource, Target};

/// What capture, restore and `sudo -u` need; measured, see systemd.exec(5) for each.
const CAPABILITIES: &str = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN \
     CAP_FSETID CAP_SETFCAP CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SETUID CAP_SETGID CAP_KILL";

/// Loads what LVM snapshots are made of, before the run. Absent modules are no error.
const MODULES: &str = "\
# lvcreate asks for these modules and could not load them from here.
Wants=modprobe@dm_snapshot.service modprobe@dm_thin_pool.service
After=modprobe@dm_snapshot.service modprobe@dm_thin_pool.service
";

/// The engine would be a good victim, but LVM's programs get the same score.
const OOM_CAPTURING: &str = "\
# Not above 0: the kernel would kill lvcreate early, and a killed lvcreate can leave its volume suspended.
OOMScoreAdjust=0
";

/// Not there where LVM is not, hence the minus.
const LVM_METADATA: &str = "\
# LVM keeps a copy of its metadata there and refuses to work without.
ReadWritePaths=-/etc/lvm
";

/// The units as (file name, content): for each job a service, then its timer.
///
/// `config_path` is what the service hands to `-c`, and `program` the absolute path of this program.
pub fn units(config: &Config, config_path: &Path, program: &Path) -> Vec<(String, String)> {
    config
        .jobs
        .iter()
        .flat_map(|job| {
            [
                (
                    format!("stillpoint@{}.service", job.name),
                    service(config, job, config_path, program),
                ),
                (format!("stillpoint@{}.timer", job.name), timer(job)),
            ]
        })
        .collect()
}

fn service(config: &Config, job: &Job, config_path: &Path, program: &Path) -> String {
    let targets: Vec<&Target> = job.targets.iter().filter_map(|name| config.target(name)).collect();
    let command = format!("{} -c {}", executed(program), executed(config_path));
    let local = is_local(&targets) && !runs_foreign_programs(job, &targets);
    let captures = capture(job).is_some();
    let mut text = format!(
        "# Made by `stillpoint generate units` from job {job}. Changes belong in a drop-in.\n\
         [Unit]\n\
         Description=Stillpoint: back up job {job}\n\
         Documentation=man:stillpoint(1)\n\
         After=local-fs.target remote-fs.target{network}\n\
         {modules}\
         OnFailure=stillpoint-notify@%N.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={command} run {job}\n\
         ExecStopPost={command} recover\n\
         # 12: the copies were made, with warnings.\n\
         SuccessExitStatus=12\n\
         # The run stops its engines and gives back what it holds before it ends.\n\
         KillMode=mixed\n\
         TimeoutStopSec=180\n\
         # An engine that runs out of memory is the run's to report.\n\
         OOMPolicy=continue\n\
         {oom}\
         Nice=10\n\
         CPUWeight=20\n\
         IOWeight=20\n",
        job = job.name,
        network = if local { "" } else { " network-online.target\nWants=network-online.target" },
        modules = if captures { MODULES } else { "" },
        oom = if captures { OOM_CAPTURING } else { "OOMScoreAdjust=250\n" },
    );
    for secret in credentials(&targets) {
        line(&mut text, "LoadCredentialEncrypted", &specifiers(secret));
    }
    text.push('\n');
    confine(&mut text, &config.settings, job, &targets);
    text
}

fn timer(job: &Job) -> String {
    format!(
        "# Made by `stillpoint generate units` from job {job}. Changes belong in a drop-in.\n\
         [Unit]\n\
         Description=Stillpoint: when to back up job {job}\n\
         \n\
         [Timer]\n\
         OnCalendar=daily\n\
         RandomizedDelaySec=1h\n\
         AccuracySec=1min\n\
         # A machine that was off catches up.\n\
         Persistent=true\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n",
        job = job.name,
    )
}

/// The credentials that the job's targets name, each once, in order.
fn credentials<'a>(targets: &[&'a Target]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for target in targets {
        if let Some(SecretSource::Credential(name)) = &target.secret
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    names
}

fn confine(text: &mut String, settings: &Settings, job: &Job, targets: &[&Target]) {
    text.push_str(
        "UMask=0077\n\
         KeyringMode=private\n\
         LockPersonality=yes\n\
         ProtectClock=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectKernelTunables=yes\n\
         # Stillpoint mounts in a namespace of its own, and has engines sign their locks with a host name of the\n\
         # run, which ProtectHostname= would not let it.\n\
         RestrictNamespaces=mnt uts\n\
         RestrictRealtime=yes\n\
         SystemCallArchitectures=native\n",
    );
    let capture = capture(job);
    if capture.is_some_and(|policy| !policy.freeze_units.is_empty()) {
        text.push_str(
            "# Units are frozen through /sys/fs/cgroup, so ProtectControlGroups= is not set.\n",
        );
    } else {
        text.push_str("ProtectControlGroups=yes\n");
    }
    let mut writable = Vec::new();
    let directories = [
        ("RuntimeDirectory", "/run", &settings.runtime_dir),
        ("StateDirectory", "/var/lib", &settings.state_dir),
        ("CacheDirectory", "/var/cache", &settings.cache_dir),
    ];
    for (key, parent, path) in directories {
        match path.strip_prefix(parent) {
            Ok(below) if !below.as_os_str().is_empty() && listable(path) => {
                line(text, key, &listed(below));
                line(text, &format!("{key}Mode"), "0700");
            }
            _ => writable.push(path.clone()),
        }
    }
    // Another job may still hold its locks there.
    line(text, "RuntimeDirectoryPreserve", "yes");

    if runs_foreign_programs(job, targets) {
        text.push_str(
            "# Programs of yours run in this job; a drop-in can confine them further.\n\
             ProtectSystem=full\n",
        );
        if capture.is_some() {
            text.push_str(LVM_METADATA);
        }
        return;
    }
    text.push_str("NoNewPrivileges=yes\n");
    line(text, "CapabilityBoundingSet", CAPABILITIES);
    network(text, targets, capture.is_some());

    writable.extend(targets.iter().filter_map(|target| target.local.clone()));
    if let Some(directory) = settings.metrics_file.as_deref().and_then(Path::parent) {
        writable.push(directory.to_owned());
    }
    if uses_temporary_directories(settings, job, targets) {
        writable.extend([PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]);
    } else {
        text.push_str("PrivateTmp=yes\n");
    }
    let would_look_mounted = targets
        .iter()
        .filter_map(|target| target.require_mount.as_ref())
        .any(|mount| writable.contains(mount));
    if would_look_mounted || !writable.iter().all(|path| listable(path)) {
        text.push_str("ProtectSystem=full\n");
        if capture.is_some() {
            text.push_str(LVM_METADATA);
        }
        return;
    }
    text.push_str("ProtectSystem=strict\n");
    if capture.is_some() {
        text.push_str(LVM_METADATA);
        // LVM's locks; /run/lock/lvm may not exist yet.
        writable.push(PathBuf::from("/run"));
    }
    writable.sort();
    writable.dedup();
    for path in writable {
        // The minus: a target that is not there is the run's to report, not systemd's.
        let mut optional = std::ffi::OsString::from("-");
        optional.push(&path);
        line(text, "ReadWritePaths", &listed(Path::new(&optional)));
    }
}

fn network(text: &mut String, targets: &[&Target], captures: bool) {
    if !is_local(targets) {
        line(text, "RestrictAddressFamilies", "AF_UNIX AF_NETLINK AF_INET AF_INET6");
        return;
    }
    let mut families = vec!["AF_UNIX"];
    if captures {
        families.push("AF_NETLINK");
    }
    if targets.iter().any(|target| matches!(target.engine, EngineConfig::Borg(_))) {
        families.push("AF_INET");
    }
    line(text, "RestrictAddressFamilies", &families.join(" "));
    line(text, "IPAddressDeny", "any");
}

/// How the job holds its files still, if it may.
fn capture(job: &Job) -> Option<&CapturePolicy> {
    match &job.source {
        Source::Files(files) => {
            Some(&files.capture).filter(|policy| policy.mode != CaptureMode::None)
        }
        Source::Commands(_) => None,
    }
}

/// Whether the job starts anything besides its engines: hooks, dumps, passphrase commands, or rclone,
/// which stores renewed tokens wherever its configuration is.
fn runs_foreign_programs(job: &Job, targets: &[&Target]) -> bool {
    !job.hooks.is_empty()
        || matches!(job.source, Source::Commands(_))
        || targets.iter().any(|target| {
            matches!(target.secret, Some(SecretSource::Command(_)))
                || target.repository.starts_with("rclone:")
        })
}

/// Whether every target is on this machine.
fn is_local(targets: &[&Target]) -> bool {
    targets.iter().all(|target| target.local.is_some())
}

/// Whether something that the run needs lies in `/tmp` or `/var/tmp`, or above them.
fn uses_temporary_directories(settings: &Settings, job: &Job, targets: &[&Target]) -> bool {
    let mut paths: Vec<PathBuf> = match &job.source {
        Source::Files(files) => files.paths.clone(),
        Source::Commands(_) => Vec::new(),
    };
    paths.extend(
        [&settings.state_dir, &settings.runtime_dir, &settings.cache_dir].map(Clone::clone),
    );
    for target in targets {
        paths.extend(target.local.clone());
        paths.extend(target.require_mount.clone());
        if let Some(SecretSource::File(file)) = &target.secret {
            paths.push(file.clone());
        }
        match &target.engine {
            EngineConfig::Borg(borg) => paths.extend(borg.key_file.clone()),
            EngineConfig::Restic(restic) => paths.extend(restic.environment_file.clone()),
        }
    }
    paths.iter().any(|path| {
        ["/tmp", "/var/tmp"]
            .iter()
            .any(|temporary| path.starts_with(temporary) || Path::new(temporary).starts_with(path))
    })
}

fn line(text: &mut String, key: &str, value: &str) {
    text.push_str(key);
    text.push('=');
    text.push_str(value);
    text.push('\n');
}

/// `%` begins a specifier in a unit file and is doubled to stand for itself.
fn specifiers(value: &str) -> String {
    value.replace('%', "%%")
}

/// Whether a path can stand in a list of paths: there, unlike in a command line, systemd knows no escape
/// for control characters or bytes that are not UTF-8.
fn listable(path: &Path) -> bool {
    path.to_str().is_some_and(|path| !path.chars().any(char::is_control))
}

/// A path as one word of a list of paths.
fn listed(path: &Path) -> String {
    quoted(&specifiers(&path.to_string_lossy()))
}

/// A path as one word of a command line: there, `$` is doubled too, and any byte can be written.
fn executed(path: &Path) -> String {
    let mut word = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '"' => word.extend(['\\', c]),
                '%' | '$' => word.extend([c, c]),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        word.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => word.push(c),
            }
        }
        for byte in chunk.invalid() {
            word.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if plain(&word) { word } else { format!("\"{word}\"") }
}

fn quoted(word: &str) -> String {
    if plain(word) {
        word.to_owned()
    } else {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Whether a word needs no quotes.
fn plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.@%:+,$".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    /// A table of a target, and its name.
    struct Given {
        name: &'static str,
        text: String,
    }

    fn given(name: &'static str, engine: &str, repository: &str, secret: &str) -> Given {
        let text = format!("[targets.{name}.{engine}]\nrepository = '{repository}'\n{secret}\n");
        Given { name, text }
    }

    fn borg(name: &'static str, repository: &str) -> Given {
        given(name, "borg", repository, "passphrase-credential = 'borg-pass'")
    }

    fn restic(name: &'static str, repository: &str) -> Given {
        given(name, "restic", repository, "password-file = '/etc/stillpoint/cloud.pass'")
    }

    /// What a files job says that reads live.
    fn files(paths: &[&str]) -> String {
        format!("files = {{ paths = {paths:?}, capture = 'none', exclude = ['/srv/b'] }}")
    }

    /// One job to these targets; `job` is what it says besides.
    fn config(job: &str, targets: &[Given]) -> Config {
        let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
        let targets: String = targets.iter().map(|target| target.text.as_str()).collect();
        testing::config(&format!("{targets}[jobs.host]\ntargets = {names:?}\n{job}\n"))
    }

    fn service_of(config: &Config) -> String {
        let made =
            units(config, Path::new("/etc/stillpoint.toml"), Path::new("/usr/bin/stillpoint"));
        made[0].1.clone()
    }

    fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
        unit.lines()
            .filter_map(|line| line.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))
            .collect()
    }

    #[test]
    fn a_local_job_is_shut_in() {
        let config = config(&files(&["/etc", "/home"]), &[borg("usb", "/srv/backup/web1")]);
        let made =
            units(&config, Path::new("/etc/stillpoint.toml"), Path::new("/usr/bin/stillpoint"));
        let text: String =
            made.iter().map(|(name, text)| format!("==> {name} <==\n{text}\n")).collect();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_remote_target_needs_the_network_and_no_directory() {
        let unit = service_of(&config(
            &files(&["/etc"]),
            &[restic("disk", "local:/srv/restic"), restic("cloud", "sftp:backup@nas:/restic")],
        ));
        assert_eq!(values(&unit, "ReadWritePaths"), ["-/srv/restic"]);
        assert_eq!(
            values(&unit, "RestrictAddressFamilies"),
            ["AF_UNIX AF_NETLINK AF_INET AF_INET6"]
        );
        assert!(values(&unit, "IPAddressDeny").is_empty());
        assert!(values(&unit, "LoadCredentialEncrypted").is_empty());
    }

    #[test]
    fn borg_keeps_the_address_family_that_its_host_id_comes_from() {
        let restic_only = service_of(&config(&files(&["/etc"]), &[restic("a", "/srv/a")]));
        assert_eq!(values(&restic_only, "RestrictAddressFamilies"), ["AF_UNIX"]);
        let both =
            service_of(&config(&files(&["/etc"]), &[restic("a", "/srv/a"), borg("b", "/srv/b")]));
        assert_eq!(values(&both, "RestrictAddressFamilies"), ["AF_UNIX AF_INET"]);
        assert_eq!(values(&both, "IPAddressDeny"), ["any"]);
    }

    #[test]
    fn what_the_administrator_runs_is_not_shut_in() {
        let hooked = files(&["/etc"]) + "\nhooks.before = [['/usr/local/bin/dump']]";
        let dump = "commands.postgres = { command = ['sudo', '-u', 'postgres', 'pg_dumpall'], file-name = 'postgres.sql' }";
        let asked = "passphrase-command = ['pass', 'borg']";
        for config in [
            config(&hooked, &[borg("usb", "/srv/b")]),
            config(dump, &[borg("usb", "/srv/b")]),
            config(&files(&["/etc"]), &[given("usb", "borg", "/srv/b", asked)]),
            config(&files(&["/etc"]), &[restic("cloud", "rclone:drive:x")]),
        ] {
            let unit = service_of(&config);
            assert_eq!(values(&unit, "ProtectSystem"), ["full"]);
            for key in ["CapabilityBoundingSet", "NoNewPrivileges", "IPAddressDeny", "PrivateTmp"] {
                assert!(values(&unit, key).is_empty(), "{key} in {unit}");
            }
        }
    }

    /// A job that holds its files still, with what else it says.
    fn captured(more: &str, target: Given) -> Config {
        config(&format!("files.paths = ['/etc']\n{more}"), &[target])
    }

    fn usb() -> Given {
        borg("usb", "/srv/b")
    }

    #[test]
    fn a_job_that_captures_has_what_lvm_needs() {
        let unit = service_of(&captured("", usb()));
        assert_eq!(values(&unit, "ProtectSystem"), ["strict"]);
        assert_eq!(values(&unit, "ReadWritePaths"), ["-/etc/lvm", "-/run", "-/srv/b"]);
        assert_eq!(values(&unit, "RestrictAddressFamilies"), ["AF_UNIX AF_NETLINK AF_INET"]);
        let modules = "modprobe@dm_snapshot.service modprobe@dm_thin_pool.service";
        for key in ["Wants", "After"] {
            assert!(values(&unit, key).contains(&modules), "{key} in {unit}");
        }
        let needed = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN \
                      CAP_FSETID CAP_SETFCAP CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SETUID \
                      CAP_SETGID CAP_KILL";
        assert_eq!(values(&unit, "CapabilityBoundingSet"), [needed]);
        assert_eq!(values(&unit, "RestrictNamespaces"), ["mnt uts"]);
        assert_eq!(values(&unit, "ProtectControlGroups"), ["yes"]);
        let live = service_of(&captured("files.capture = 'none'", usb()));
        assert_eq!(values(&live, "ReadWritePaths"), ["-/srv/b"]);
        assert!(!live.contains("modprobe@"), "{live}");
    }

    #[test]
    fn the_programs_of_lvm_are_not_the_first_to_die() {
        let unit = service_of(&captured("", usb()));
        assert_eq!(values(&unit, "OOMScoreAdjust"), ["0"]);
        assert_eq!(values(&unit, "KillMode"), ["mixed"]);
        assert_eq!(values(&unit, "TimeoutStopSec"), ["180"]);
        let live = service_of(&captured("files.capture = 'none'", usb()));
        assert_eq!(values(&live, "OOMScoreAdjust"), ["250"]);
    }

    #[test]
    fn what_breaks_captures_is_never_set() {
        let frozen = "files.consistent = true\nfiles.freeze-units = ['app.service']";
        let paused =
            "hooks.quiesce = [['/usr/local/bin/pause']]\nhooks.resume = [['/usr/local/bin/go-on']]";
        for config in [
            captured(frozen, usb()),
            captured("", usb()),
            captured(&format!("{frozen}\n{paused}"), usb()),
            captured(frozen, restic("usb", "sftp:backup@nas:/restic")),
        ] {
            let unit = service_of(&config);
            for key in ["PrivateIPC", "PrivateDevices", "DevicePolicy", "ProtectKernelModules"] {
                assert!(values(&unit, key).is_empty(), "{key} in {unit}");
            }
            assert!(values(&unit, "ReadWritePaths").contains(&"-/etc/lvm"), "{unit}");
        }
    }

    #[test]
    fn units_are_frozen_through_control_groups_that_can_be_written() {
        let unit = service_of(&captured("files.freeze-units = ['postgresql.service']", usb()));
        assert!(values(&unit, "ProtectControlGroups").is_empty(), "{unit}");
        let families = values(&unit, "RestrictAddressFamilies");
        assert!(families[0].contains("AF_UNIX"), "systemctl asks over one: {families:?}");
    }

    #[test]
    fn writers_paused_by_hooks_are_not_shut_in() {
        for (quiesce, resume) in [(true, false), (false, true)] {
            let mut config = captured("", usb());
            // The configuration takes the two together alone.
            let hook = vec![vec!["/usr/local/bin/pause".to_owned()]];
            if quiesce {
                config.jobs[0].hooks.quiesce = hook.clone();
            }
            if resume {
                config.jobs[0].hooks.resume = hook;
            }
            let unit = service_of(&config);
            assert_eq!(values(&unit, "ProtectSystem"), ["full"]);
            assert_eq!(values(&unit, "ReadWritePaths"), ["-/etc/lvm"]);
            assert!(values(&unit, "NoNewPrivileges").is_empty(), "{unit}");
        }
    }

    #[test]
    fn a_source_in_tmp_is_seen_as_it_is() {
        for (source, private) in [("/", false), ("/var", false), ("/tmp/x", false), ("/home", true)]
        {
            let unit = service_of(&config(&files(&[source]), &[borg("usb", "/srv/b")]));
            assert_eq!(!values(&unit, "PrivateTmp").is_empty(), private, "{source}");
            assert_eq!(values(&unit, "ReadWritePaths").contains(&"-/tmp"), !private, "{source}");
        }
        let unit = service_of(&config(&files(&["/home"]), &[borg("usb", "/tmp/repository")]));
        assert!(values(&unit, "PrivateTmp").is_empty());
    }

    #[test]
    fn a_directory_that_must_be_a_mount_point_is_not_made_to_look_like_one() {
        let mounted =
            "passphrase-file = '/etc/stillpoint/usb.pass'\nrequire-mount = '/srv/backup/'";
        let to =
            |repository| config(&files(&["/etc"]), &[given("usb", "borg", repository, mounted)]);
        let unit = service_of(&to("/srv/backup"));
        assert_eq!(values(&unit, "ProtectSystem"), ["full"]);
        assert!(values(&unit, "ReadWritePaths").is_empty());
        let unit = service_of(&to("/srv/backup/web1"));
        assert_eq!(values(&unit, "ReadWritePaths"), ["-/srv/backup/web1"]);
    }

    #[test]
    fn paths_are_escaped_for_the_place_where_they_stand() {
        let mut config = config(&files(&["/etc"]), &[borg("usb", "/srv/my \"50%\" $x\\y")]);
        config.settings.state_dir = "/srv/state".into();
        config.settings.cache_dir = "/var/cache/still point".into();
        let made =
            units(&config, Path::new("/etc/a b/50%$\n\".toml"), Path::new("/opt/still/stillpoint"));
        let unit = &made[0].1;
        assert_eq!(
            values(unit, "ExecStart"),
            [r#"/opt/still/stillpoint -c "/etc/a b/50%%$$\x0a\".toml" run host"#]
        );
        assert_eq!(values(unit, "ReadWritePaths"), [r#""-/srv/my \"50%%\" $x\\y""#, "-/srv/state"]);
        assert_eq!(values(unit, "CacheDirectory"), ["\"still point\""]);
        assert!(values(unit, "StateDirectory").is_empty());
        config.targets[0].local = Some("/srv/line\nbreak".into());
        assert_eq!(values(&service_of(&config), "ProtectSystem"), ["full"]);
    }
}
