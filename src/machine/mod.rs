//! The hypervisor's side of the machine; so far only which libvirt this program is linked with.
//!
//! This is the only room that names `virt`, and it does so only with the feature `libvirt`. Without it the
//! program is built and runs on machines that have no libvirt at all.

#[cfg(feature = "libvirt")]
mod libvirt;

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
}
