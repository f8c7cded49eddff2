//! A short, stable number for a text of any length; and hashes as text.

/// FNV-1a, 64 bit. The same on every machine and in every version, and no secret: whoever wants two texts with one
/// number finds them.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text can be a SHA-256, as [`hex`] writes it.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::{fnv, hex, is_sha256};

    #[test]
    fn it_is_fnv_1a() {
        // From the reference's own list of test vectors.
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_hash_is_64_digits_in_lower_case() {
        let hash = hex(&[0x0a; 32]);
        assert_eq!(&hash[..4], "0a0a");
        assert!(is_sha256(&hash));
        let bad = [hash.to_uppercase(), hash[1..].to_owned(), format!("{hash}0"), "g".repeat(64)];
        assert!(!bad.iter().any(|text| is_sha256(text)), "{bad:?}");
    }
}
