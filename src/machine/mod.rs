//! The hypervisor's side of the machine: libvirt, behind host's [`Hypervisor`].
//!
//! This is the only room that names `virt`, and it does so only with the feature `libvirt`. Without it the
//! program is built and runs on machines that have no libvirt at all, and every call says that it has none.

use crate::host::Hypervisor;

#[cfg(feature = "libvirt")]
mod libvirt;

/// Where the machine's own guests are.
pub const CONNECTION: &str = "qemu:///system";

/// The hypervisor at a libvirt URI. Nothing is connected before it is first asked.
pub fn hypervisor(uri: &str) -> Box<dyn Hypervisor + Send + Sync> {
    #[cfg(feature = "libvirt")]
    {
        Box::new(libvirt::Libvirt::at(uri))
    }
    #[cfg(not(feature = "libvirt"))]
    {
        let _ = uri;
        Box::new(crate::host::NoHypervisor)
    }
}

/// The version of the libvirt library that this program runs with, as `9.0.0`; `None` when it was built
/// without libvirt, or when the library does not say.
///
/// Asks the library in this process: no daemon, no connection, no privileges.
pub fn library_version() -> Option<String> {
    #[cfg(feature = "libvirt")]
    {
        libvirt::library_version()
    }
    #[cfg(not(feature = "libvirt"))]
    {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{HypervisorError, NoHypervisor};

    #[test]
    fn a_version_is_three_numbers_with_libvirt_and_nothing_without() {
        let version = library_version();
        assert_eq!(version.is_some(), cfg!(feature = "libvirt"), "{version:?}");
        if let Some(version) = version {
            let parts: Vec<&str> = version.split('.').collect();
            assert_eq!(parts.len(), 3, "{version}");
            assert!(parts.iter().all(|part| part.parse::<u32>().is_ok()), "{version}");
        }
    }

    #[test]
    fn where_there_is_no_hypervisor_it_is_said_why() {
        let error = hypervisor("nowhere:///at-all").guests().unwrap_err();
        let is_built = match error {
            HypervisorError::NotBuilt => false,
            HypervisorError::NoConnection { uri, reason } => {
                assert_eq!(uri, "nowhere:///at-all");
                assert!(!reason.is_empty());
                true
            }
            other => panic!("{other}"),
        };
        assert_eq!(is_built, cfg!(feature = "libvirt"));
        let error = NoHypervisor.guests().unwrap_err();
        assert_eq!(error.to_string(), "this build has no libvirt");
        assert!(error.hint().is_some());
    }
}
