//! The hypervisor, by the same door as everything else: questions are methods, and each change is a value,
//! [`GuestCall`], that goes through [`Hypervisor::change`]. So a dry run prints it and predicts what would be
//! after it, and the fault loops count it, let it fail and die around it.
//!
//! Names of libvirt's own calls and constants stand beside what is made of them
//! (<https://libvirt.org/html/libvirt-libvirt-domain.html>, and libvirt-domain-checkpoint beside it).

use crate::model::guest::GuestUuid;
use crate::model::secret::Secret;

mod call;
pub(super) mod predict;

pub use call::{BackupDisk, GuestCall, GuestChange, Overlay, ShutdownBy};

/// What a guest is doing (`virDomainState`), with the reason where it decides what may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestState {
    /// It runs (`RUNNING`, `BLOCKED`).
    Running,
    /// Its processors stand still.
    Paused(PauseReason),
    /// It was told to shut down, and does (`SHUTDOWN`).
    ShuttingDown,
    /// It is off (`SHUTOFF`).
    Off(OffReason),
    /// It crashed and was kept for somebody to look (`CRASHED`).
    Crashed,
    /// It sleeps by its own power management (`PMSUSPENDED`).
    Asleep,
    /// The hypervisor does not say, or says what we do not know.
    Unknown,
}

/// Why a guest is paused (`virDomainPausedReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// Somebody did it, or it was started so (`USER`): which of them it was, only a ledger can tell.
    User,
    /// A disk could not be written (`IOERROR`): full, most often.
    IoError,
    /// Anything else, by libvirt's number.
    Other(u32),
}

/// How a guest came to be off (`virDomainShutoffReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffReason {
    /// By itself (`SHUTDOWN`): its file systems are clean.
    ByItself,
    /// Its power was cut (`DESTROYED`).
    Destroyed,
    /// The hypervisor's process died (`CRASHED`).
    Crashed,
    /// Its memory was saved (`SAVED`).
    Saved,
    /// Anything else, by libvirt's number: also `UNKNOWN`, which is what a daemon that was just started says.
    Other(u32),
}

/// A guest as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// What identifies it (`virDomainGetUUIDString`).
    pub uuid: GuestUuid,
    /// Its name (`virDomainGetName`), which may change.
    pub name: String,
    /// A number that each start gives it anew (`virDomainGetID`): with it, one knows that a guest was not restarted in
    /// between. `None` when it is off, or when only a dry run has started it.
    pub run: Option<u32>,
    /// What it is doing (`virDomainGetState`).
    pub state: GuestState,
    /// Whether its definition stays when it ends (`virDomainIsPersistent`).
    pub persistent: bool,
    /// Whether it is started when the machine boots (`virDomainGetAutostart`).
    pub autostart: bool,
    /// Whether its next start goes on from saved memory (`virDomainHasManagedSaveImage`): what its disks hold then
    /// belongs to that memory.
    pub managed_save: bool,
}

/// Which of a guest's two definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definition {
    /// As it runs now; the other one when it is off.
    Live,
    /// As its next start will find it (`VIR_DOMAIN_XML_INACTIVE`).
    Inactive,
}

/// What keeps a guest busy as a whole (`virDomainGetJobStats`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestJob {
    /// A backup (`VIR_DOMAIN_JOB_OPERATION_BACKUP`).
    Backup {
        /// Bytes that hold what was overwritten meanwhile (`VIR_DOMAIN_JOB_DISK_TEMP_USED`).
        scratch_used: Option<u64>,
    },
    /// Anything else, by libvirt's number of the operation.
    Other(u32),
}

/// What keeps one disk busy (`virDomainGetBlockJobInfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockJob {
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all, as known now.
    pub of: u64,
    /// Whether a pivot may follow: the live definition says `<mirror ready='yes'>`. That all is done does not say it.
    pub ready: bool,
}

/// A point from which on changed blocks are known (`virDomainCheckpointPtr`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// The disks whose dirty bitmap is whole: those for which its XML has a size
    /// (`VIR_DOMAIN_CHECKPOINT_XML_SIZE`).
    pub intact: Vec<String>,
}

/// Whether a guest's file systems stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeState {
    /// They take writes.
    Thawed,
    /// They do not, and its agent refuses most else.
    Frozen,
}

/// Why a call to the hypervisor has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The program was built without the feature `libvirt`.
    #[error("this build has no libvirt")]
    NotBuilt,
    /// A call that this version of Stillpoint does not make.
    #[error("this version cannot {call}")]
    NotYet {
        /// What it was to do.
        call: String,
    },
    /// The hypervisor is not there.
    #[error("cannot reach the hypervisor at {uri}: {reason}")]
    NoConnection {
        /// The URI of the connection.
        uri: String,
        /// In its library's words.
        reason: String,
    },
    /// There is no such guest any more (`VIR_ERR_NO_DOMAIN`).
    #[error("there is no guest {name}")]
    Gone {
        /// Its name, or its UUID where that is all that is known.
        name: String,
    },
    /// It refused, or failed.
    #[error("cannot {call}: {reason} (libvirt error {code})")]
    Failed {
        /// What it was to do.
        call: String,
        /// libvirt's number (`virErrorNumber`), by which one tells what it means.
        code: u32,
        /// In libvirt's words.
        reason: String,
    },
}

impl HypervisorError {
    /// What to do about it, when there is something to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            HypervisorError::NotBuilt => Some("build it with the feature libvirt"),
            HypervisorError::NoConnection { .. } => {
                Some("is it running? systemctl status libvirtd (or virtqemud)")
            }
            HypervisorError::NotYet { .. }
            | HypervisorError::Gone { .. }
            | HypervisorError::Failed { .. } => None,
        }
    }
}

/// The hypervisor of this machine. What a method asks changes nothing, and a dry run asks it too.
pub trait Hypervisor {
    /// The version of the one that we are connected to, as `9.0.0` (`virConnectGetLibVersion`): it may be older than
    /// the library that we were built with.
    ///
    /// # Errors
    /// See [`HypervisorError`], as for all that follow.
    fn version(&self) -> Result<String, HypervisorError>;

    /// All guests, running or not, in the order of their names (`virConnectListAllDomains`).
    ///
    /// # Errors
    /// When they cannot be listed. One that goes away meanwhile is left out.
    fn guests(&self) -> Result<Vec<Guest>, HypervisorError>;

    /// The guest of this UUID (`virDomainLookupByUUIDString`); `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be looked up.
    fn guest(&self, guest: &GuestUuid) -> Result<Option<Guest>, HypervisorError>;

    /// A guest's definition in XML (`virDomainGetXMLDesc`), with the passwords in it (`VIR_DOMAIN_XML_SECURE`).
    ///
    /// # Errors
    /// [`HypervisorError::Gone`] when there is no such guest.
    fn definition(&self, guest: &GuestUuid, which: Definition) -> Result<Secret, HypervisorError>;

    /// What keeps it busy, if something does.
    ///
    /// # Errors
    /// [`HypervisorError::Gone`] when there is no such guest.
    fn job(&self, guest: &GuestUuid) -> Result<Option<GuestJob>, HypervisorError>;

    /// What keeps one of its disks busy, if something does. `disk` is a target's name, `vda`.
    ///
    /// # Errors
    /// [`HypervisorError::Gone`] when there is no such guest.
    fn block_job(&self, guest: &GuestUuid, disk: &str)
    -> Result<Option<BlockJob>, HypervisorError>;

    /// Its checkpoints, those before the ones that follow them (`virDomainListAllCheckpoints`).
    ///
    /// # Errors
    /// [`HypervisorError::Gone`] when there is no such guest.
    fn checkpoints(&self, guest: &GuestUuid) -> Result<Vec<Checkpoint>, HypervisorError>;

    /// Asks its agent whether its file systems stand still (`guest-fsfreeze-status`, by `virDomainQemuAgentCommand`).
    ///
    /// # Errors
    /// [`HypervisorError::Failed`] with code 86 when no agent answers: then nobody knows.
    fn freeze_state(&self, guest: &GuestUuid) -> Result<FreezeState, HypervisorError>;

    /// Changes a guest. Answers how many file systems it was that a freeze or a thaw reached; `None` after anything
    /// else, and where nobody can know.
    ///
    /// # Errors
    /// See [`HypervisorError`]. A freeze that failed may still come about.
    fn change(&self, call: &GuestCall) -> Result<Option<u32>, HypervisorError>;
}

/// What stands in for a hypervisor where there is none: every call says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHypervisor;

impl Hypervisor for NoHypervisor {
    fn version(&self) -> Result<String, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn guest(&self, _: &GuestUuid) -> Result<Option<Guest>, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn definition(&self, _: &GuestUuid, _: Definition) -> Result<Secret, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn job(&self, _: &GuestUuid) -> Result<Option<GuestJob>, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn block_job(&self, _: &GuestUuid, _: &str) -> Result<Option<BlockJob>, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn checkpoints(&self, _: &GuestUuid) -> Result<Vec<Checkpoint>, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn freeze_state(&self, _: &GuestUuid) -> Result<FreezeState, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }

    fn change(&self, _: &GuestCall) -> Result<Option<u32>, HypervisorError> {
        Err(HypervisorError::NotBuilt)
    }
}
