//! libvirt, through the bindings of the libvirt project.

/// The library's version. libvirt encodes it as 1,000,000 × major + 1,000 × minor + release
/// (`virGetVersion` in libvirt-host's reference).
pub(super) fn library_version() -> Option<String> {
    virt::connect::Connect::version().ok().map(decode)
}

fn decode(version: u32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_encoded_version_is_taken_apart() {
        assert_eq!(decode(9_000_000), "9.0.0");
        assert_eq!(decode(11_003_002), "11.3.2");
    }
}
