//! Which engine a target has: the one place above the model and the configuration where they are told apart.

use std::collections::BTreeMap;

use crate::model::job::Config;
use crate::model::names::TargetName;
use crate::model::target::{EngineConfig, RemoteSide, Target};

use super::Engine;
use super::borg::BorgEngine;
use super::btrfs::{BtrfsEngine, FarEngine};
use super::restic::ResticEngine;
use super::streams::StreamsEngine;

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
        EngineConfig::Btrfs(options) => match &options.server {
            None => Box::new(BtrfsEngine::new(target, options)),
            Some(server) => match server.side {
                RemoteSide::Stillpoint => Box::new(FarEngine::new(target, server, options)),
                RemoteSide::BtrfsProgs { .. } => Box::new(BtrfsEngine::new(target, options)),
            },
        },
        EngineConfig::Streams(options) => Box::new(StreamsEngine::new(target, options)),
        EngineConfig::Restic(options) => {
            let source = target.copy_from.as_ref().and_then(|name| config.target(name));
            Box::new(ResticEngine::new(target, options, source))
        }
    }
}
