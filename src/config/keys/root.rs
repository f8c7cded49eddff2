//! The whole file.

use super::job::JOB;
use super::settings::SETTINGS;
use super::target::TARGET;
use crate::config::key::{Item, Names, Start, Table, no_variants};
use crate::model::names::{JobName, TargetName};

/// The table `targets`.
pub const TARGETS: Item = Item::Named(
    &TARGET,
    Names {
        word: "NAME",
        fits: |name| TargetName::new(name).map(drop).map_err(|error| error.to_string()),
    },
);

/// The table `jobs`.
pub const JOBS: Item = Item::Named(
    &JOB,
    Names {
        word: "NAME",
        fits: |name| JobName::new(name).map(drop).map_err(|error| error.to_string()),
    },
);

/// The whole file.
pub const FILE: Table = Table {
    name: "",
    says: "",
    start: Start::lines(
        "Stillpoint: what to protect, where copies go, and which of them stay.\n\
         #\n\
         This file is /etc/stillpoint.toml; files in /etc/stillpoint.d/*.toml are laid over it in the order of\n\
         their names. `stillpoint check-config` reads them and says what is wrong, at line and column. It must belong\n\
         to root and be writable by nobody else. Secrets are never written here, only where they are.",
    ),
    variants: no_variants,
    items: &[&[Item::Table(&SETTINGS), TARGETS, JOBS]],
};
