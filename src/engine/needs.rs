//! What an engine needs of the machine because of its target, whichever engine it is.

use crate::model::needs::{Needs, Network};
use crate::model::target::{SecretSource, Target};

/// What reaching the repository and opening it takes.
pub(super) fn of_target(target: &Target) -> Needs {
    let local = target.local.clone();
    let mut needs = Needs {
        network: if local.is_some() { Network::None } else { Network::Reached },
        writes: local.into_iter().collect(),
        mount_points: target.require_mount.clone().into_iter().collect(),
        ..Needs::default()
    };
    match &target.secret {
        Some(SecretSource::File(file)) => needs.reads.push(file.clone()),
        Some(SecretSource::Command(_)) => needs.foreign_programs = true,
        Some(SecretSource::Credential(name)) => needs.credentials.push(name.clone()),
        None => {}
    }
    needs
}
