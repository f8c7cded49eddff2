//! Units of systemd: a service and a timer for each job, from what the job needs.
//!
//! The files are named after the shipped template, `stillpoint@JOB.service`, so that a generated unit takes
//! the template's place for its job and everything else (`systemctl start stillpoint@JOB`) stays the same.
//! What a unit may touch follows from the job: one that runs only borg or restic is shut into a read-only
//! file system; one that runs programs of the administrator's (hooks, dumps, passphrase commands) is not,
//! because nobody can know what those need.
//!
//! A job that may run LVM's programs, for snapshots or read-only mounts, needs more, all of it measured:
//! - `/etc/lvm` writable, or `lvcreate` ends with "cannot archive volume group metadata", and `/run` too where
//!   everything else is read-only, for LVM's locks. `-An` would avoid the first and lose LVM's own backup;
//! - the modules `dm_snapshot` and `dm_thin_pool`, without which `lvcreate` refuses even a thin snapshot. They
//!   are loaded by a unit of systemd's, so that this one needs no `CAP_SYS_MODULE`;
//! - no `PrivateDevices=`, which hides the volumes, and no `PrivateIPC=`: LVM waits for udev at a System V
//!   semaphore, and in a namespace of its own it would wait for ever. `AF_NETLINK` is how it hears of udev;
//! - a neutral `OOMScoreAdjust=`, which LVM's programs inherit: killed between suspend and resume, they leave
//!   the origin suspended, and with it the machine. For the same reason `TimeoutStopSec=` is generous;
//! - where control groups are frozen, no `ProtectControlGroups=`: that is done through `/sys/fs/cgroup`.
//!
//! Three settings that look harmless are left out on purpose:
//! - `PrivateTmp=` where the job reads below `/tmp` or `/var/tmp`: the copy would hold an empty directory;
//! - `ReadWritePaths=` on a directory that must be a mount point: it would always look like one;
//! - a ban on `AF_INET` for an engine that looks at the machine's addresses; `IPAddressDeny=` cuts local jobs off
//!   instead.

mod words;

use std::path::{Path, PathBuf};

use crate::model::job::Settings;
use crate::model::names::JobName;
use crate::model::needs::{Needs, Network};

use words::{executed, listable, listed, specifiers};

/// What capture, restore and `sudo -u` need; measured, see systemd.exec(5) for each.
const CAPABILITIES: &str = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN \
     CAP_FSETID CAP_SETFCAP CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_CHROOT";

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

/// What every service can do without.
const HARMLESS: &str = "\
UMask=0077
KeyringMode=private
LockPersonality=yes
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
# Stillpoint mounts in a namespace of its own, and has engines sign their locks with a host name of the
# run, which ProtectHostname= would not let it.
RestrictNamespaces=mnt uts
RestrictRealtime=yes
SystemCallArchitectures=native
";

/// Why a service that freezes units may write to their control groups.
const FREEZING: &str = "\
# Units are frozen through /sys/fs/cgroup, so ProtectControlGroups= is not set.
";

/// What the units of a job are made from.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// The job.
    pub job: &'a JobName,
    /// What all parts of the job need together, besides Stillpoint's own directories.
    pub needs: &'a Needs,
    /// Which directories are Stillpoint's own.
    pub settings: &'a Settings,
    /// What the service hands to `-c`.
    pub config_path: &'a Path,
    /// The absolute path of this program.
    pub program: &'a Path,
}

impl Unit<'_> {
    /// The service and its timer, as (file name, content).
    pub fn files(self) -> [(String, String); 2] {
        [
            (format!("stillpoint@{}.service", self.job), self.service()),
            (format!("stillpoint@{}.timer", self.job), timer(self.job)),
        ]
    }

    fn service(self) -> String {
        let Unit { job, needs, .. } = self;
        let command = format!("{} -c {}", executed(self.program), executed(self.config_path));
        let reaches_nobody = needs.network < Network::Reached && !needs.foreign_programs;
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
             # The run stops its engines and releases what it holds before it ends.\n\
             KillMode=mixed\n\
             TimeoutStopSec=180\n\
             # An engine that runs out of memory is the run's to report.\n\
             OOMPolicy=continue\n\
             {oom}\
             Nice=10\n\
             CPUWeight=20\n\
             IOWeight=20\n",
            network = if reaches_nobody {
                ""
            } else {
                " network-online.target\nWants=network-online.target"
            },
            modules = if needs.volume_manager { MODULES } else { "" },
            oom = if needs.volume_manager { OOM_CAPTURING } else { "OOMScoreAdjust=250\n" },
        );
        for credential in &needs.credentials {
            line(&mut text, "LoadCredentialEncrypted", &specifiers(credential));
        }
        text.push('\n');
        text.push_str(HARMLESS);
        text.push_str(match needs.control_groups {
            true => FREEZING,
            false => "ProtectControlGroups=yes\n",
        });
        let elsewhere = own_directories(&mut text, self.settings);
        if needs.foreign_programs {
            text.push_str(
                "# Programs of yours run in this job; a drop-in can confine them further.\n",
            );
            protect_system(&mut text, needs);
        } else {
            confine(&mut text, needs, self.settings, elsewhere);
        }
        text
    }
}

fn timer(job: &JobName) -> String {
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
    )
}

/// Names Stillpoint's own directories where systemd makes such ones, and answers with those that lie elsewhere.
fn own_directories(text: &mut String, settings: &Settings) -> Vec<PathBuf> {
    let mut elsewhere = Vec::new();
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
            _ => elsewhere.push(path.clone()),
        }
    }
    // Another job may still hold its locks there.
    line(text, "RuntimeDirectoryPreserve", "yes");
    elsewhere
}

/// Shuts a service in that starts nothing but what Stillpoint knows.
fn confine(text: &mut String, needs: &Needs, settings: &Settings, mut writable: Vec<PathBuf>) {
    text.push_str("NoNewPrivileges=yes\n");
    line(text, "CapabilityBoundingSet", CAPABILITIES);
    network(text, needs);
    writable.extend(needs.writes.iter().cloned());
    let own = [&settings.state_dir, &settings.runtime_dir, &settings.cache_dir];
    let read = needs.reads.iter().chain(&needs.public);
    let seen = read.chain(&needs.writes).chain(&needs.mount_points).chain(own);
    if seen.into_iter().any(|path| meets_temporary(path)) {
        writable.extend([PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]);
    } else {
        text.push_str("PrivateTmp=yes\n");
    }
    let would_look_mounted = needs.mount_points.iter().any(|mount| writable.contains(mount));
    if would_look_mounted || !writable.iter().all(|path| listable(path)) {
        protect_system(text, needs);
        return;
    }
    text.push_str("ProtectSystem=strict\n");
    if needs.volume_manager {
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

/// The system's own programs and settings stay as they are; everything else can be written to.
fn protect_system(text: &mut String, needs: &Needs) {
    text.push_str("ProtectSystem=full\n");
    if needs.volume_manager {
        text.push_str(LVM_METADATA);
    }
}

fn network(text: &mut String, needs: &Needs) {
    if needs.network == Network::Reached {
        line(text, "RestrictAddressFamilies", "AF_UNIX AF_NETLINK AF_INET AF_INET6");
        return;
    }
    let mut families = vec!["AF_UNIX"];
    if needs.volume_manager {
        families.push("AF_NETLINK");
    }
    if needs.network == Network::Addresses {
        families.push("AF_INET");
    }
    line(text, "RestrictAddressFamilies", &families.join(" "));
    line(text, "IPAddressDeny", "any");
}

/// Whether a path lies in `/tmp` or `/var/tmp`, or above them.
fn meets_temporary(path: &Path) -> bool {
    ["/tmp", "/var/tmp"]
        .iter()
        .any(|temporary| path.starts_with(temporary) || Path::new(temporary).starts_with(path))
}

fn line(text: &mut String, key: &str, value: &str) {
    text.push_str(key);
    text.push('=');
    text.push_str(value);
    text.push('\n');
}
