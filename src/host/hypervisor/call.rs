//! Changes of guests, as values.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::guest::GuestUuid;
use crate::model::shown::{Show, text};

/// A change of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCall {
    /// Which one.
    pub guest: GuestUuid,
    /// Its name, for people.
    pub name: String,
    /// What is to happen to it.
    pub change: GuestChange,
}

/// What can be done to a guest. A disk is meant by its target's name, `vda`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestChange {
    /// Asks it to shut down, and does not wait for it to obey (`virDomainShutdownFlags`).
    Shutdown {
        /// Through which channel the guest is asked.
        by: ShutdownBy,
    },
    /// Cuts its power, after its last writes were handed on (`virDomainDestroyFlags`, `DESTROY_GRACEFUL`). Only where
    /// the configuration says so.
    Destroy,
    /// Starts it, from saved memory if it has some (`virDomainCreateWithFlags`).
    Start {
        /// Whether its processors stand still until it is resumed (`START_PAUSED`).
        paused: bool,
    },
    /// Stops its processors (`virDomainSuspend`).
    Suspend,
    /// Lets them go on (`virDomainResume`).
    Resume,
    /// Makes it stay off when it shuts down this time, whatever its definition says
    /// (`virDomainSetLifecycleAction`: `POWEROFF`, `DESTROY`, live only).
    StayOff,
    /// Sets whether it is started when the machine boots (`virDomainSetAutostart`).
    SetAutostart(bool),
    /// How long its agent may take to answer from now on; `None`: for ever, as libvirt has it by itself
    /// (`virDomainAgentSetResponseTimeout`).
    AgentTimeout(Option<Duration>),
    /// Has its agent make all its file systems stand still (`virDomainFSFreeze`).
    Freeze,
    /// Has its agent let them go (`virDomainFSThaw`). Harmless when they are.
    Thaw,
    /// Sends what it writes from now on into new files, all at one moment (`virDomainSnapshotCreateXML` with
    /// `DISK_ONLY`, `ATOMIC`, `NO_METADATA` and `REUSE_EXT`: the files are made by us).
    Snapshot {
        /// For each disk, where to.
        overlays: Vec<Overlay>,
        /// Whether the hypervisor freezes and thaws it around that moment (`QUIESCE`).
        quiesce: bool,
    },
    /// Begins to bring what lies in the topmost file of a disk into the one below it, never further down
    /// (`virDomainBlockCommit` with `ACTIVE`, `SHALLOW` and `DELETE`).
    Commit {
        /// Which disk.
        disk: String,
    },
    /// Goes over to the file below, when all is in it (`virDomainBlockJobAbort` with `PIVOT`).
    Pivot {
        /// Which disk.
        disk: String,
    },
    /// Ends the work on a disk and leaves it on its topmost file (`virDomainBlockJobAbort`).
    AbortCommit {
        /// Which disk.
        disk: String,
    },
    /// Notes from now on which blocks change (`virDomainCheckpointCreateXML`).
    CreateCheckpoint {
        /// Its name.
        name: String,
        /// Of which disks.
        disks: Vec<String>,
    },
    /// Forgets one: what changed since is counted to the one before it (`virDomainCheckpointDelete`).
    DeleteCheckpoint {
        /// Its name.
        name: String,
        /// Whether only the hypervisor's own record goes (`METADATA_ONLY`), where the bitmap is broken.
        metadata_only: bool,
    },
    /// Shows its disks as they are at one moment on a socket, to read from (`virDomainBackupBegin`, pull mode).
    BeginBackup {
        /// A unix socket, which the hypervisor makes.
        socket: PathBuf,
        /// Which disks, and how.
        disks: Vec<BackupDisk>,
        /// A checkpoint that begins at the same moment.
        checkpoint: Option<String>,
    },
    /// Ends what keeps the guest busy: a backup, here (`virDomainAbortJob`).
    AbortJob,
}

/// Who is asked to shut a guest down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownBy {
    /// Its own power button (`ACPI_POWER_BTN`).
    Acpi,
    /// Its agent (`GUEST_AGENT`).
    Agent,
}

/// Where the new writes of a disk go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The disk.
    pub disk: String,
    /// The file.
    pub file: PathBuf,
}

/// How a disk is shown for a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDisk {
    /// The disk.
    pub disk: String,
    /// Where what is overwritten meanwhile is kept.
    pub scratch: PathBuf,
    /// The checkpoint since which changed blocks are told; all are to be read when absent.
    pub since: Option<String>,
}

impl GuestCall {
    /// What it does, as an order, for plans and messages.
    pub fn summary(&self) -> String {
        let guest = format!("guest {}", text(&self.name));
        match &self.change {
            GuestChange::Shutdown { by: ShutdownBy::Acpi } => {
                format!("shut down {guest} by its power button")
            }
            GuestChange::Shutdown { by: ShutdownBy::Agent } => {
                format!("shut down {guest} by its agent")
            }
            GuestChange::Destroy => format!("cut the power of {guest}"),
            GuestChange::Start { paused: false } => format!("start {guest}"),
            GuestChange::Start { paused: true } => format!("start {guest} paused"),
            GuestChange::Suspend => format!("pause {guest}"),
            GuestChange::Resume => format!("resume {guest}"),
            GuestChange::StayOff => format!("let {guest} stay off when it shuts down"),
            GuestChange::SetAutostart(true) => format!("have {guest} started at boot"),
            GuestChange::SetAutostart(false) => format!("have {guest} not started at boot"),
            GuestChange::AgentTimeout(Some(limit)) => {
                format!("give the agent of {guest} {}s to answer", limit.as_secs())
            }
            GuestChange::AgentTimeout(None) => format!("give the agent of {guest} any time"),
            GuestChange::Freeze => format!("freeze the file systems of {guest}"),
            GuestChange::Thaw => format!("thaw the file systems of {guest}"),
            GuestChange::Snapshot { overlays, quiesce } => {
                let how = if *quiesce { " while it is frozen" } else { "" };
                let to = |one: &Overlay| format!("{} to {}", text(&one.disk), one.file.shown());
                let to: Vec<String> = overlays.iter().map(to).collect();
                format!("send new writes of {guest} aside{how}: {}", to.join(", "))
            }
            GuestChange::Commit { disk } => {
                format!("bring new writes of {guest} back into disk {}", text(disk))
            }
            GuestChange::Pivot { disk } => {
                format!("put {guest} back on its own disk {}", text(disk))
            }
            GuestChange::AbortCommit { disk } => {
                format!("end the work on disk {} of {guest}", text(disk))
            }
            GuestChange::CreateCheckpoint { name, disks } => {
                format!("make checkpoint {} of {guest} for {}", text(name), text(&disks.join(", ")))
            }
            GuestChange::DeleteCheckpoint { name, metadata_only: false } => {
                format!("delete checkpoint {} of {guest}", text(name))
            }
            GuestChange::DeleteCheckpoint { name, metadata_only: true } => {
                format!("delete the record of checkpoint {} of {guest}", text(name))
            }
            GuestChange::BeginBackup { socket, disks, checkpoint } => {
                let with =
                    checkpoint.iter().map(|name| format!(", with checkpoint {}", text(name)));
                let disks: Vec<&str> = disks.iter().map(|disk| disk.disk.as_str()).collect();
                let (disks, with) = (disks.join(", "), with.collect::<String>());
                format!("show {} of {guest} on {}{with}", text(&disks), socket.shown())
            }
            GuestChange::AbortJob => format!("end the job of {guest}"),
        }
    }
}
