//! Every file in `examples/` loads, without a warning, and protects something.

use std::path::Path;

use stillpoint::config::{Loaded, SourceFile, load};
use stillpoint::model::job::{CaptureMode, Source};
use stillpoint::source;
use stillpoint::tools::exclude::pattern_fault;

fn examples() -> Vec<(String, Loaded)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut examples: Vec<(String, Loaded)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match load(&[SourceFile { path, text }], "localhost", pattern_fault) {
                Ok(loaded) => (name, loaded),
                Err(problems) => panic!("{problems}"),
            }
        })
        .collect();
    examples.sort_by(|a, b| a.0.cmp(&b.0));
    examples
}

#[test]
fn every_example_loads_without_a_warning() {
    let examples = examples();
    assert!(examples.len() >= 5, "the examples are gone");
    for (name, loaded) in &examples {
        assert_eq!(loaded.warnings, [], "{name}");
        assert!(!loaded.config.jobs.is_empty(), "{name} has no job");
    }
}

#[test]
fn only_the_example_of_captures_makes_any() {
    for (name, loaded) in examples() {
        for job in &loaded.config.jobs {
            if let Source::Files(files) = &job.source {
                let captures = files.capture.mode != CaptureMode::None;
                assert_eq!(captures, name == "captured-host.toml", "{name}, job {}", job.name);
            }
        }
    }
}

#[test]
fn the_examples_together_show_what_there_is() {
    let examples = examples();
    let jobs = || examples.iter().flat_map(|(_, loaded)| &loaded.config.jobs);
    let targets = || examples.iter().flat_map(|(_, loaded)| &loaded.config.targets);
    for engine in ["borg", "restic", "btrfs", "streams"] {
        assert!(targets().any(|target| target.engine.name() == engine), "no {engine}");
    }
    for kind in ["files", "commands", "subvolumes"] {
        assert!(jobs().any(|job| job.source.kind() == kind), "no {kind}");
    }
    assert!(
        jobs().all(|job| source::of(job).kind() == job.source.kind()),
        "a room of another kind"
    );
    assert!(targets().any(|target| target.copy_from.is_some()), "no copy-from");
    assert!(targets().any(|target| target.require_mount.is_some()), "no require-mount");
    assert!(targets().any(|target| target.append_only), "no append-only target");
    assert!(jobs().any(|job| !job.hooks.is_empty()), "no hooks");
    assert!(jobs().any(|job| !job.keep.is_empty()), "no retention of a job's own");
    let captures = || {
        jobs().filter_map(|job| match &job.source {
            Source::Files(files) => Some(&files.capture),
            Source::Commands(_) | Source::Subvolumes(_) => None,
        })
    };
    assert!(captures().any(|policy| policy.mode == CaptureMode::Required), "no capture");
    assert!(captures().any(|policy| policy.consistent), "nothing consistent");
    assert!(captures().any(|policy| !policy.freeze_units.is_empty()), "nothing frozen");
    assert!(captures().any(|policy| !policy.live.is_empty()), "nothing live");
    assert!(captures().any(|policy| !policy.leave_out.is_empty()), "nothing left out");
    assert!(captures().any(|policy| !policy.remount_readonly.is_empty()), "no remount");
}
