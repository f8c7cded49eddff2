//! Which kinds of sources and which engines there are, and which go together: one declared table each, checked here
//! and printed in the help. A new kind or engine is one row, which names its keys and its reader.

use super::key::Item;
use super::keys::engine::Engine;
use super::keys::source::SourceKind;
use super::keys::{BORG, BTRFS, COMMANDS, FILES, RESTIC, STREAMS, SUBVOLUMES};

/// A kind of source, and the engines that can take it.
pub struct Pairing {
    /// The key below `[jobs.NAME]` that chooses the kind.
    pub source: &'static str,
    /// The keys below `[targets.NAME]` of the engines that take it.
    pub engines: &'static [&'static str],
    how: Served<SourceKind>,
}

/// An engine.
pub struct EngineRow {
    /// The key below `[targets.NAME]` that chooses it.
    pub name: &'static str,
    how: Served<Engine>,
}

/// Whether this version serves what is declared.
enum Served<T: 'static> {
    /// It does, in this way.
    Now(&'static T),
    /// It knows the name; completes "this version of Stillpoint cannot … yet".
    Later(&'static str),
}

/// Every pairing there is, also those that this version cannot serve yet.
pub const PAIRINGS: &[Pairing] = &[
    Pairing { source: "files", engines: &["borg", "restic"], how: Served::Now(&FILES) },
    Pairing { source: "commands", engines: &["borg", "restic"], how: Served::Now(&COMMANDS) },
    Pairing {
        source: "machines",
        engines: &["borg", "restic"],
        how: Served::Later("back up machines"),
    },
    Pairing {
        source: "volumes",
        engines: &["borg", "restic"],
        how: Served::Later("back up volumes"),
    },
    Pairing { source: "subvolumes", engines: &["btrfs", "streams"], how: Served::Now(&SUBVOLUMES) },
];

/// Every engine there is, also those that this version cannot serve yet.
pub const ENGINES: &[EngineRow] = &[
    EngineRow { name: "borg", how: Served::Now(&BORG) },
    EngineRow { name: "restic", how: Served::Now(&RESTIC) },
    EngineRow { name: "btrfs", how: Served::Now(&BTRFS) },
    EngineRow { name: "streams", how: Served::Now(&STREAMS) },
];

impl<T> Served<T> {
    fn now(&self) -> Option<&'static T> {
        match self {
            Served::Now(how) => Some(how),
            Served::Later(_) => None,
        }
    }
}

impl Pairing {
    /// The pairing of a kind of source.
    pub fn of(source: &str) -> Option<&'static Pairing> {
        PAIRINGS.iter().find(|pairing| pairing.source == source)
    }

    /// Whether this version can serve it.
    pub fn is_available(&self) -> bool {
        self.served().is_some()
    }

    /// The kind of source, if this version serves it.
    pub(super) fn served(&self) -> Option<&'static SourceKind> {
        self.how.now()
    }

    /// What stands for it in a job.
    pub(super) fn item(&self) -> Item {
        match &self.how {
            Served::Now(kind) => kind.item,
            Served::Later(what) => Item::Later(self.source, what),
        }
    }
}

impl EngineRow {
    /// The engine, if this version serves it.
    pub(super) fn served(&self) -> Option<&'static Engine> {
        self.how.now()
    }

    /// What stands for it in a target.
    pub(super) fn item(&self) -> Item {
        match &self.how {
            Served::Now(engine) => Item::Table(engine.table),
            Served::Later(what) => Item::Later(self.name, what),
        }
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
    fn every_row_is_called_as_its_key_and_names_engines_that_there_are() {
        for pairing in PAIRINGS {
            assert_eq!(pairing.item().name(), pairing.source);
            for engine in pairing.engines {
                assert!(ENGINES.iter().any(|row| row.name == *engine), "{engine}");
            }
        }
        for engine in ENGINES {
            assert_eq!(engine.item().name(), engine.name);
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
             subvolumes  btrfs, streams\n"
        );
    }
}
