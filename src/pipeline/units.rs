//! The work behind `generate units`: what each job needs, written as units of systemd.

use std::path::Path;

use crate::model::job::{Config, Job};
use crate::model::needs::Needs;
use crate::systemd::Unit;

use crate::engine::Engines;
use crate::source;

/// The units as (file name, content): for each job a service, then its timer.
///
/// `config_path` is what the service hands to `-c`, and `program` the absolute path of this program.
pub fn units(
    config: &Config,
    engines: &Engines,
    config_path: &Path,
    program: &Path,
) -> Vec<(String, String)> {
    let mut made = Vec::new();
    for job in &config.jobs {
        let needs = needs(config, engines, job);
        let settings = &config.settings;
        let unit = Unit { job: &job.name, needs: &needs, settings, config_path, program };
        made.extend(unit.files());
    }
    made
}

/// What a job needs of the machine: its source, its hooks, the engines of its targets, and whoever is told of it.
pub fn needs(config: &Config, engines: &Engines, job: &Job) -> Needs {
    let hooks = Needs { foreign_programs: !job.hooks.is_empty(), ..Needs::default() };
    let metrics = config.settings.metrics_file.as_deref().and_then(Path::parent);
    let report =
        Needs { writes: metrics.map(Path::to_owned).into_iter().collect(), ..Needs::default() };
    let targets = job.targets.iter().filter_map(|target| engines.get(target));
    targets
        .fold(source::of(job).needs().and(hooks).and(report), |all, engine| all.and(engine.needs()))
}
