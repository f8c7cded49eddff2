//! libvirt, through the bindings of the libvirt project.
//!
//! So far it does what libvirt's own test hypervisor can prove: it lists guests, says how they are and how they are
//! defined, starts and pauses them and cuts their power. Whatever else [`GuestChange`] names is refused with
//! [`HypervisorError::NotYet`], and so are the questions about jobs, checkpoints and frozen file systems.

use std::sync::{Mutex, PoisonError};

use virt::connect::Connect;
use virt::domain::{
    Domain, DomainPausedReason, DomainShutoffReason, DomainState, DomainStateReason,
};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber, clear_error_callback};
use virt::sys;

use crate::host::{
    BlockJob, Checkpoint, Definition, FreezeState, Guest, GuestCall, GuestChange, GuestJob,
    GuestState, Hypervisor, HypervisorError, OffReason, PauseReason,
};
use crate::model::guest::GuestUuid;
use crate::model::secret::Secret;

/// The library's version. libvirt encodes it as 1,000,000 × major + 1,000 × minor + release
/// (`virGetVersion` in libvirt-host's reference).
pub(super) fn library_version() -> Option<String> {
    Connect::version().ok().map(decode)
}

fn decode(version: u32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000)
}

/// A hypervisor that libvirt reaches.
pub(super) struct Libvirt {
    uri: String,
    /// Opened when it is first needed, and again when the daemon was restarted.
    connection: Mutex<Option<Connect>>,
}

impl Libvirt {
    /// The one at this URI.
    pub(super) fn at(uri: &str) -> Self {
        Self { uri: uri.into(), connection: Mutex::new(None) }
    }

    fn connect(&self) -> Result<Connect, HypervisorError> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = held.as_ref().filter(|it| it.is_alive().unwrap_or(false)) {
            return Ok(connection.clone());
        }
        // It would print every error, also those that are answers.
        clear_error_callback();
        let connection = Connect::open(Some(&self.uri)).map_err(|error| {
            HypervisorError::NoConnection { uri: self.uri.clone(), reason: error.message().into() }
        })?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    fn find(&self, guest: &GuestUuid) -> Result<Option<Domain>, HypervisorError> {
        match self.connect()?.lookup_domain_by_uuid_string(guest.as_str()) {
            Ok(domain) => Ok(Some(domain)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(failed(format!("look for guest {guest}"), &error)),
        }
    }

    fn get(&self, guest: &GuestUuid, name: &str) -> Result<Domain, HypervisorError> {
        self.find(guest)?.ok_or_else(|| HypervisorError::Gone { name: name.to_owned() })
    }
}

fn is_gone(error: &Error) -> bool {
    error.code().is(ErrorNumber::NoDomain)
}

fn failed(call: String, error: &Error) -> HypervisorError {
    HypervisorError::Failed { call, code: error.code().to_raw(), reason: error.message().into() }
}

fn not_yet<T>(call: String) -> Result<T, HypervisorError> {
    Err(HypervisorError::NotYet { call })
}

/// Everything that there is to say of a guest.
fn describe(domain: &Domain) -> Result<Guest, Error> {
    let uuid = domain.uuid_string()?;
    let (state, reason) = domain.state()?;
    Ok(Guest {
        // libvirt writes nothing else.
        uuid: GuestUuid::parse(&uuid).ok_or_else(Error::last_error)?,
        name: domain.name()?,
        run: domain.id(),
        state: match (state, reason) {
            (Enum::Known(state), Enum::Known(reason)) => state_of(state, reason),
            (Enum::Unknown(_), _) | (_, Enum::Unknown(_)) => GuestState::Unknown,
        },
        persistent: domain.is_persistent()?,
        // One that is not persistent has no such flag.
        autostart: domain.autostart().unwrap_or(false),
        managed_save: domain.has_managed_save(0)?,
    })
}

fn state_of(state: DomainState, reason: DomainStateReason) -> GuestState {
    match (state, reason) {
        (_, DomainStateReason::Paused(reason)) => GuestState::Paused(match reason {
            Enum::Known(DomainPausedReason::User) => PauseReason::User,
            Enum::Known(DomainPausedReason::IOError) => PauseReason::IoError,
            other => PauseReason::Other(other.to_raw()),
        }),
        (_, DomainStateReason::Shutoff(reason)) => GuestState::Off(match reason {
            Enum::Known(DomainShutoffReason::Shutdown) => OffReason::ByItself,
            Enum::Known(DomainShutoffReason::Destroyed) => OffReason::Destroyed,
            Enum::Known(DomainShutoffReason::Crashed) => OffReason::Crashed,
            Enum::Known(DomainShutoffReason::Saved) => OffReason::Saved,
            other => OffReason::Other(other.to_raw()),
        }),
        (DomainState::Running | DomainState::Blocked, _) => GuestState::Running,
        (DomainState::Shutdown, _) => GuestState::ShuttingDown,
        (DomainState::Crashed, _) => GuestState::Crashed,
        (DomainState::PMSuspended, _) => GuestState::Asleep,
        (DomainState::NoState | DomainState::Paused | DomainState::Shutoff, _) => {
            GuestState::Unknown
        }
    }
}

impl Hypervisor for Libvirt {
    fn version(&self) -> Result<String, HypervisorError> {
        let version = self.connect()?.lib_version();
        version.map(decode).map_err(|error| failed("ask for the version".into(), &error))
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        let failed = |error: &Error| failed("list the guests".into(), error);
        let domains = self.connect()?.list_all_domains(0).map_err(|error| failed(&error))?;
        let mut guests = Vec::new();
        for domain in &domains {
            match describe(domain) {
                Ok(guest) => guests.push(guest),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        guests.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(guests)
    }

    fn guest(&self, guest: &GuestUuid) -> Result<Option<Guest>, HypervisorError> {
        let Some(domain) = self.find(guest)? else { return Ok(None) };
        match describe(&domain) {
            Ok(guest) => Ok(Some(guest)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(failed(format!("look at guest {guest}"), &error)),
        }
    }

    fn definition(&self, guest: &GuestUuid, which: Definition) -> Result<Secret, HypervisorError> {
        let domain = self.get(guest, guest.as_str())?;
        let which = match which {
            Definition::Live => 0,
            Definition::Inactive => sys::VIR_DOMAIN_XML_INACTIVE,
        };
        let xml = domain.xml_desc(which | sys::VIR_DOMAIN_XML_SECURE);
        xml.map(Secret::new)
            .map_err(|error| failed(format!("read the definition of guest {guest}"), &error))
    }

    fn job(&self, guest: &GuestUuid) -> Result<Option<GuestJob>, HypervisorError> {
        not_yet(format!("ask what keeps guest {guest} busy"))
    }

    fn block_job(
        &self,
        guest: &GuestUuid,
        _disk: &str,
    ) -> Result<Option<BlockJob>, HypervisorError> {
        not_yet(format!("ask what keeps the disks of guest {guest} busy"))
    }

    fn checkpoints(&self, guest: &GuestUuid) -> Result<Vec<Checkpoint>, HypervisorError> {
        not_yet(format!("list the checkpoints of guest {guest}"))
    }

    fn freeze_state(&self, guest: &GuestUuid) -> Result<FreezeState, HypervisorError> {
        not_yet(format!("ask whether guest {guest} is frozen"))
    }

    fn change(&self, call: &GuestCall) -> Result<Option<u32>, HypervisorError> {
        tracing::debug!(call = %call.summary(), "changing a guest");
        let domain = || self.get(&call.guest, &call.name);
        let done = match &call.change {
            GuestChange::Destroy => domain()?.destroy_flags(sys::VIR_DOMAIN_DESTROY_GRACEFUL),
            GuestChange::Start { paused: false } => domain()?.create_with_flags(0),
            GuestChange::Suspend => domain()?.suspend(),
            GuestChange::Resume => domain()?.resume(),
            GuestChange::SetAutostart(autostart) => domain()?.set_autostart(*autostart),
            GuestChange::Shutdown { .. }
            | GuestChange::Start { paused: true }
            | GuestChange::StayOff
            | GuestChange::AgentTimeout(_)
            | GuestChange::Freeze
            | GuestChange::Thaw
            | GuestChange::Snapshot { .. }
            | GuestChange::Commit { .. }
            | GuestChange::Pivot { .. }
            | GuestChange::AbortCommit { .. }
            | GuestChange::CreateCheckpoint { .. }
            | GuestChange::DeleteCheckpoint { .. }
            | GuestChange::BeginBackup { .. }
            | GuestChange::AbortJob => return not_yet(call.summary()),
        };
        match done {
            Ok(()) => Ok(None),
            Err(error) if is_gone(&error) => Err(HypervisorError::Gone { name: call.name.clone() }),
            Err(error) => Err(failed(call.summary(), &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoded_version_is_taken_apart() {
        assert_eq!(decode(9_000_000), "9.0.0");
        assert_eq!(decode(11_003_002), "11.3.2");
    }

    const WEB: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
    const MAIL: &str = "7b0a4a7e-5a40-4d4e-8d3e-0f3c7a1b2c3d";

    /// libvirt's own test hypervisor, in this process, with two guests that nobody else has.
    fn bench() -> (Libvirt, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let domain = |name: &str, uuid: &str, more: &str| {
            format!(
                "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid>\
                 <memory>8192</memory><os><type>hvm</type></os>{more}</domain>"
            )
        };
        let secret = "<devices><graphics type='vnc' port='5901' passwd='canary'/></devices>";
        let guests = domain("web1", WEB, secret) + &domain("mail", MAIL, "");
        std::fs::write(&file, format!("<node>{guests}</node>")).unwrap();
        let path = file.path().canonicalize().unwrap();
        (Libvirt::at(&format!("test://{}", path.to_str().unwrap())), file)
    }

    fn uuid(text: &str) -> GuestUuid {
        GuestUuid::parse(text).unwrap()
    }

    fn change(change: GuestChange) -> GuestCall {
        GuestCall { guest: uuid(WEB), name: "web1".into(), change }
    }

    #[test]
    fn guests_are_listed_and_found_by_what_identifies_them() {
        let (libvirt, _file) = bench();
        let guests = libvirt.guests().unwrap();
        let names: Vec<(&str, &str)> =
            guests.iter().map(|guest| (guest.name.as_str(), guest.uuid.as_str())).collect();
        assert_eq!(names, [("mail", MAIL), ("web1", WEB)]);
        let web = libvirt.guest(&uuid(WEB)).unwrap().unwrap();
        assert_eq!(web, guests[1]);
        assert_eq!(web.state, GuestState::Running);
        assert!(web.persistent && !web.autostart && !web.managed_save && web.run.is_some());
        assert_eq!(libvirt.guest(&uuid(&WEB.replace('6', "7"))).unwrap(), None);
        let version = libvirt.version().unwrap();
        assert_eq!(version.split('.').count(), 3, "{version}");
    }

    #[test]
    fn a_guest_goes_through_its_states_and_says_why() {
        let (libvirt, _file) = bench();
        let state = || libvirt.guest(&uuid(WEB)).unwrap().unwrap();
        let first = state().run;
        let steps = [
            (GuestChange::Suspend, GuestState::Paused(PauseReason::User)),
            (GuestChange::Resume, GuestState::Running),
            (GuestChange::Destroy, GuestState::Off(OffReason::Destroyed)),
            (GuestChange::Start { paused: false }, GuestState::Running),
        ];
        for (step, after) in steps {
            let call = change(step);
            assert_eq!(libvirt.change(&call).unwrap(), None);
            let guest = state();
            assert_eq!(guest.state, after, "{}", call.summary());
            let is_off = matches!(after, GuestState::Off(_));
            assert_eq!(guest.run.is_none(), is_off, "{}", call.summary());
        }
        assert_ne!(state().run, first, "each start has a number of its own");
        libvirt.change(&change(GuestChange::SetAutostart(true))).unwrap();
        assert!(state().autostart);
        // The other one was left alone.
        assert_eq!(libvirt.guest(&uuid(MAIL)).unwrap().unwrap().state, GuestState::Running);
    }

    #[test]
    fn a_definition_is_whole_and_secret() {
        let (libvirt, _file) = bench();
        for which in [Definition::Live, Definition::Inactive] {
            let xml = libvirt.definition(&uuid(WEB), which).unwrap();
            let text = String::from_utf8(xml.reveal().to_vec()).unwrap();
            assert!(text.contains("<name>web1</name>") && text.contains("canary"), "{text}");
            assert!(!format!("{xml:?}").contains("canary"));
            // Only one that runs has a number.
            assert_eq!(text.contains("id='"), which == Definition::Live, "{text}");
        }
    }

    #[test]
    fn what_is_refused_not_there_or_not_made_yet_is_told_apart() {
        let (libvirt, _file) = bench();
        let error = libvirt.change(&change(GuestChange::Start { paused: false })).unwrap_err();
        let HypervisorError::Failed { code, .. } = error else { panic!("{error:?}") };
        assert_ne!(code, 0);
        let message = error.to_string();
        assert!(message.starts_with("cannot start guest web1: "), "{message}");
        assert!(message.contains("already running"), "in libvirt's own words: {message}");
        let stranger =
            GuestCall { guest: uuid(&WEB.replace('6', "7")), ..change(GuestChange::Resume) };
        let error = libvirt.change(&stranger).unwrap_err();
        assert_eq!(error.to_string(), "there is no guest web1");
        assert!(libvirt.definition(&stranger.guest, Definition::Live).is_err());
        let shutdown = GuestChange::Shutdown { by: crate::host::ShutdownBy::Acpi };
        for later in [shutdown, GuestChange::Freeze, GuestChange::Thaw, GuestChange::AbortJob] {
            let error = libvirt.change(&change(later)).unwrap_err();
            assert!(matches!(error, HypervisorError::NotYet { .. }), "{error:?}");
        }
        assert!(libvirt.job(&uuid(WEB)).is_err() && libvirt.freeze_state(&uuid(WEB)).is_err());
        assert!(libvirt.block_job(&uuid(WEB), "vda").is_err());
        assert!(libvirt.checkpoints(&uuid(WEB)).is_err());
    }
}
