//! Which source kinds go to which engines: one declared table, checked here and printed in the help.

use super::file::{JOB, Kind};

/// A kind of source and the engines that can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairing {
    /// The key below `[jobs.NAME]` that chooses the kind.
    pub source: &'static str,
    /// The keys below `[targets.NAME]` of the engines that take it.
    pub engines: &'static [&'static str],
}

/// Every pairing there is, also those that this version cannot serve yet.
pub const PAIRINGS: &[Pairing] = &[
    Pairing { source: "files", engines: &["borg", "restic"] },
    Pairing { source: "commands", engines: &["borg", "restic"] },
    Pairing { source: "machines", engines: &["borg", "restic"] },
    Pairing { source: "volumes", engines: &["borg", "restic"] },
    Pairing { source: "subvolumes", engines: &["btrfs"] },
];

impl Pairing {
    /// The pairing of a kind of source.
    pub fn of(source: &str) -> Option<&'static Pairing> {
        PAIRINGS.iter().find(|pairing| pairing.source == source)
    }

    /// Whether this version can serve it.
    pub fn is_available(&self) -> bool {
        JOB.iter().any(|key| key.name == self.source && !matches!(key.kind, Kind::Later(_)))
    }
}

/// The table as text, one kind a line, for the help and `check-config`.
pub fn show_pairings() -> String {
    PAIRINGS
        .iter()
        .map(|pairing| {
            let later = if pairing.is_available() { "" } else { "  (not in this version)" };
            format!("{:<10}  {}{later}\n", pairing.source, pairing.engines.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pairing_names_a_key_of_the_file() {
        for pairing in PAIRINGS {
            assert!(JOB.iter().any(|key| key.name == pairing.source), "{}", pairing.source);
            for engine in pairing.engines {
                let known = crate::config::file::TARGET.iter().any(|key| key.name == *engine);
                assert!(known, "{engine}");
            }
        }
    }

    #[test]
    fn the_printed_table() {
        assert_eq!(
            show_pairings(),
            "files       borg, restic\n\
             commands    borg, restic\n\
             machines    borg, restic  (not in this version)\n\
             volumes     borg, restic  (not in this version)\n\
             subvolumes  btrfs  (not in this version)\n"
        );
    }
}
