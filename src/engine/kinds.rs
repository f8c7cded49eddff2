//! Which engine a target has: the one place above the model and the configuration where they are told apart.

use std::collections::BTreeMap;

use crate::model::job::Config;
use crate::model::names::TargetName;
use crate::model::target::{EngineConfig, Target};

use super::Engine;
use super::borg::BorgEngine;
use super::btrfs::BtrfsEngine;
use super::restic::ResticEngine;

/// The engines of a configuration, by target.
pub type Engines = BTreeMap<TargetName, Box<dyn Engine>>;

/// The engine of every target.
pub fn engines(config: &Config) -> Engines {
    config.targets.iter().map(|target| (target.name.clone(), engine(target, config))).collect()
}

/// The engine of a target.
pub fn engine(target: &Target, config: &Config) -> Box<dyn Engine> {
    match &target.engine {
        EngineConfig::Borg(options) => Box::new(BorgEngine::new(target, options)),
        EngineConfig::Btrfs => Box::new(BtrfsEngine::new(target)),
        EngineConfig::Restic(options) => {
            let source = target.copy_from.as_ref().and_then(|name| config.target(name));
            Box::new(ResticEngine::new(target, options, source))
        }
    }
}
