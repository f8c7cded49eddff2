//! The file to start from: `generate config`.
//!
//! Prose is `# …`; a setting that is switched off is `#key = …`, so that a test can switch all of them on
//! and see that the file still loads. Alternatives that exclude each other are told in prose.

use crate::model::names::HostName;

/// A complete, commented configuration for a machine of that name, which loads as it is.
pub fn commented_start(host: &str) -> String {
    // What is no host name would be refused; a word that asks to be replaced is not.
    let host = if HostName::new(host).is_ok() { host } else { "this-host" };
    TEMPLATE.replace("@HOST@", host)
}

const TEMPLATE: &str = r#"# Stillpoint: what to protect, where copies go, and which of them stay.
#
# This file is /etc/stillpoint.toml; files in /etc/stillpoint.d/*.toml are laid over it in the order of
# their names. `stillpoint check-config` reads them and says what is wrong, at line and column. It must belong
# to root and be writable by nobody else. Secrets are never written here, only where they are.

[settings]
# Part of every copy's identity. Default: the host name.
host = "@HOST@"
# Ledger, history, reports: must survive a reboot. Locks and mount points: need not. The engines' caches.
#state-dir = "/var/lib/stillpoint"
#runtime-dir = "/run/stillpoint"
#cache-dir = "/var/cache/stillpoint"
# How long a run waits for another one that holds a lock.
#lock-wait = "2m"
# How old the last good copy may get before `status` calls it stale.
#max-age = "48h"
# A text file for Prometheus' node exporter, written after each run.
#metrics-file = "/var/lib/prometheus/node-exporter/stillpoint.prom"

# --- Targets: where copies go, and by which engine -------------------------------------------------------

[targets.disk]
# Space that deletions left is given back this often. Default: after each run that deleted something.
#compact-every = "7d"
# Never delete, prune or compact anything here (then without compact-every): append-only = true
#append-only = false

[targets.disk.borg]
# An absolute path, ssh://user@host:port/path or user@host:path.
repository = "/srv/backup/@HOST@"
# One of: passphrase-file, passphrase-command = ["program", "argument"], passphrase-credential = "name" (systemd).
passphrase-file = "/etc/stillpoint/disk.pass"
# How `init` creates it: none, authenticated, repokey, keyfile, each also with -blake2. For keyfile modes: key-file = "/path".
#encryption = "repokey-blake2"
#compression = "zstd,6"
#files-cache = "ctime,size,inode"
# Refuse to write when nothing is mounted there, instead of filling the disk below.
#require-mount = "/srv/backup"
#program = "/usr/bin/borg"
# Stop borg when nothing moved for so long.
#stall-timeout = "30m"
# Only for a repository behind ssh: remote-program = "borg1", ssh-command = ["ssh", "-i", "/root/.ssh/backup"],
# upload-limit = 5000 (KiB per second).

# Which copies stay; without this table all of them do. The newest copy always stays. Hours, days, weeks (from Monday),
# months and years begin as UTC has them, whatever the machine's time zone.
[targets.disk.keep]
last = 3
#hourly = 24
daily = 7
weekly = 4
monthly = 6
#yearly = 2
# Everything younger than this, counted back from the newest copy.
#within = "2d"
# Every copy that carries one of these tags.
#tags = ["before-upgrade"]

# How often the repository is checked, and how much of its data is read back (true, false, "5%").
[targets.disk.check]
every = "30d"
#read-data = "5%"

# A second place, by restic: a path, sftp:, rest:, s3:, b2:, rclone: and whatever else restic knows.
#[targets.cloud.restic]
#repository = "sftp:backup@nas:/restic/@HOST@"
# One of: password-file, password-command = ["program", "argument"], password-credential = "name" (systemd).
#password-file = "/etc/stillpoint/cloud.pass"
# KEY=value lines for the backend, such as AWS_SECRET_ACCESS_KEY.
#environment-file = "/etc/stillpoint/cloud.env"
# auto, off or max.
#compression = "auto"
#upload-limit = 5000
#stall-timeout = "30m"
#program = "/usr/bin/restic"
# For a local path: require-mount = "/mnt/point". Filled from another restic target of the same job by
# `restic copy`, instead of reading the source again: copy-from = "other".

# --- Jobs: what to protect ------------------------------------------------------------------------------

[jobs.system]
# In this order.
targets = ["disk"]
# Refuse to delete old copies when the new one is smaller than the last good one by more than this; or "off".
#max-shrink = "50%"
# Overrides the setting of the same name.
#max-age = "30h"

[jobs.system.files]
paths = ["/etc", "/home", "/root"]
# Patterns in restic's dialect, for every engine: a name anywhere, or a path from the root.
exclude = [".cache", "*.tmp"]
# Skip directories that hold a CACHEDIR.TAG, or a file of such a name.
#exclude-caches = true
#exclude-if-present = [".nobackup"]
# Do not cross into other file systems.
#one-file-system = true
# A directory without any entry is an error, unless it may be empty.
#allow-empty = true
# How files are held still while they are read: auto (a btrfs or LVM snapshot where there can be one, with a
# warning where not), required (that, or the job fails) or none (they are read live).
capture = "auto"
# All captures of the job show one moment: the writers are stopped while they are made, by the hooks quiesce
# and resume below, or by freezing systemd units or control groups. A guard lets those go after the limit,
# whatever happens, and the job fails then.
#consistent = true
#freeze-units = ["postgresql@15-main.service", "/system.slice/app.service"]
#freeze-limit = "10s"
# Mounted file systems that are read live on purpose; and what is knowingly not in the copy: nested mounts,
# subvolumes, swap files, each with everything below it.
#live = ["/home/media"]
#leave-out = ["/home/scratch", "/home/swapfile"]

# No snapshot is made in a thin pool that is fuller than this.
#[jobs.system.files.lvm-thin]
#max-data = "85%"
#max-metadata = "75%"
# How much a classic LVM snapshot takes in before it breaks: percent of the volume, or bytes such as "2G".
#[jobs.system.files.lvm-classic]
#size = "15%"
# File systems that nothing can take a snapshot of, made read-only while they are read.
#[jobs.system.files.remount-readonly]
#paths = ["/home/archive"]

# Retention of this job in one target, instead of the target's own.
#[jobs.system.keep.disk]
#daily = 14

# Programs to run around the job: lists of a program and its arguments, no shell. Exit 75 of `before` skips the job.
# A hook finds in its environment: STILLPOINT_HOOK (which one it is), STILLPOINT_JOB, STILLPOINT_RUN; after, on-failure
# and finally also STILLPOINT_OUTCOME (ok, warning, incomplete, failed, skipped, interrupted), STILLPOINT_EXIT_CODE (what
# the job comes to so far) and STILLPOINT_ERROR (what went wrong first). When `recover` runs a finally or resume hook
# for a run that died, its outcome is not known and these three are not set.
#[jobs.system.hooks]
#before = [["/usr/local/bin/dump-ldap", "--all"]]
# Around the making of the captures, for writers that can be told to pause; resume runs whatever happened.
#quiesce = [["/usr/local/bin/app", "pause"]]
#resume = [["/usr/local/bin/app", "continue"]]
#after = [["/usr/local/bin/ping-monitor"]]
#on-failure = [["/usr/local/bin/alert"]]
#finally = [["/usr/local/bin/tidy-up"]]
#timeout = "10m"

# The output of commands, each stored as one file: databases, above all.
#[jobs.databases]
#targets = ["disk", "cloud"]
#[jobs.databases.commands.postgres]
#command = ["sudo", "-u", "postgres", "pg_dumpall"]
#file-name = "postgres.sql"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{FILE, Key, Kind};
    use crate::config::{SourceFile, load};

    fn loaded(text: String) -> crate::config::Loaded {
        load(&[SourceFile { path: "start.toml".into(), text }], "ignored", |_| None)
            .unwrap_or_else(|problems| panic!("the start file does not load:\n{problems}"))
    }

    #[test]
    fn it_loads_as_it_is() {
        let start = loaded(commented_start("web1"));
        assert_eq!(start.warnings, []);
        assert_eq!(start.config.settings.host.as_str(), "web1");
        assert_eq!(start.config.targets[0].repository, "/srv/backup/web1");
    }

    #[test]
    fn it_loads_with_everything_switched_on() {
        let text: String = commented_start("web1")
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(off) if off.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                    format!("{off}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let all = loaded(text);
        assert_eq!(all.warnings, []);
        assert_eq!((all.config.targets.len(), all.config.jobs.len()), (2, 2));
    }

    #[test]
    fn it_tells_of_every_key() {
        fn each(keys: &[Key], text: &str) {
            for key in keys {
                match key.kind {
                    Kind::Later(_) => {}
                    Kind::Table(keys) | Kind::Named(_, keys) => each(keys, text),
                    _ => assert!(text.contains(key.name), "the start file lacks {}", key.name),
                }
            }
        }
        each(FILE, TEMPLATE);
    }

    #[test]
    fn a_host_that_is_no_name_breaks_nothing() {
        for host in ["", "a\"b", "-x", "localhost.localdomain"] {
            loaded(commented_start(host));
        }
    }
}
