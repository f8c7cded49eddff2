//! Virtual machines: what identifies one.

use serde::{Deserialize, Serialize};

use super::names::parsed;

/// The UUID of a guest, which it keeps when it is renamed and which no other guest of a hypervisor has.
/// 32 hexadecimal digits in five groups, in small letters, as libvirt writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestUuid(String);

impl GuestUuid {
    /// Reads one as people and tools write it: with or without hyphens, in letters of any case. `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let digits = digits.to_ascii_lowercase();
        let groups =
            [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        Some(Self(groups.join("-")))
    }
}

parsed!(GuestUuid, "is no UUID");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_the_same_however_it_is_written() {
        let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
        for text in [uuid, "6695EB01F6A4830479AA97F2502E193F"] {
            assert_eq!(GuestUuid::parse(text).unwrap().as_str(), uuid);
        }
        for text in ["", "6695eb01", "6695eb01-f6a4-8304-79aa-97f2502e193g", &format!("{uuid}0")] {
            assert_eq!(GuestUuid::parse(text), None, "{text}");
        }
        // Not at a byte within a letter, either.
        assert_eq!(GuestUuid::parse("ä695eb01f6a4830479aa97f2502e193"), None);
        let written = serde_json::to_string(&GuestUuid::parse(uuid)).unwrap();
        assert_eq!(written, format!("\"{uuid}\""));
        assert_eq!(serde_json::from_str::<GuestUuid>(&written).unwrap().as_str(), uuid);
        assert!(serde_json::from_str::<GuestUuid>("\"web1\"").is_err());
    }
}
