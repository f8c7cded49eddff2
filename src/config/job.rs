//! `[jobs.NAME]`, read: its one source, its hooks, its own retention, and where it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::capture;
use super::diagnostic::{Complaint, Notes, suggest};
use super::file::JOB;
use super::pairing::PAIRINGS;
use super::section::Section;
use super::source::Place;
use super::target::read_keep;
use super::tree::{Value, bare};
use super::value;
use crate::model::job::{CommandSource, FilesSource, Hooks, Job, Source};
use crate::model::names::{JobName, TargetName};
use crate::model::shown::Show;

/// Retention refuses to run when a copy is smaller than the last good one by more than this.
const MAX_SHRINK_PERCENT: u8 = 50;

/// A job with what the checks between targets and jobs need.
#[derive(Debug)]
pub(super) struct ReadJob {
    /// The job itself.
    pub job: Job,
    /// Each target it lists that exists, with the place of the mention.
    pub targets: Vec<(TargetName, Place)>,
    /// The paths it protects, each with its place.
    pub paths: Vec<(PathBuf, Place)>,
}

/// Reads one job; `None` when it has no name or source to speak of, which has then been noted.
/// `defined` are the targets that exist, readable or not.
pub(super) fn read(section: &Section<'_>, defined: &[&str], notes: &mut Notes) -> Option<ReadJob> {
    let targets = read_targets(section, defined, notes);
    let mut kinds: Vec<&str> =
        PAIRINGS.iter().map(|pairing| pairing.source).filter(|kind| section.has(kind)).collect();
    kinds.sort_by_key(|kind| section.key_at(kind));
    if kinds.is_empty() {
        no_source(section, notes);
    }
    for second in kinds.iter().skip(1) {
        let complaint =
            Complaint::new(format!("a job has one source, and {:?} is another", kinds[0]))
                .help("make it a job of its own");
        notes.problem(section.key_at(second), complaint);
    }
    let files = section.table("files").map(|files| read_files(&files, notes));
    let commands = section.table("commands").map(|commands| {
        if commands.entries().is_empty() {
            let complaint = Complaint::new("commands names no command")
                .help("add [jobs.NAME.commands.ITEM] with command and file-name");
            notes.missing(commands.at, complaint);
        }
        section.tables("commands").iter().filter_map(|item| read_command(item, notes)).collect()
    });
    let hooks = section.table("hooks").map(|hooks| read_hooks(&hooks, notes)).unwrap_or_default();
    match (section.table("files"), section.table("hooks")) {
        (Some(files), hooks) => capture::check_writers(&files, hooks.as_ref(), notes),
        (None, Some(hooks)) => capture::refuse_quiet_hooks(&hooks, notes),
        (None, None) => {}
    }
    let keep = read_keeps(section, &targets, defined, notes);
    let name = JobName::new(section.key).ok()?;
    let (source, paths) = match (files, commands) {
        (Some((files, paths)), _) => (Source::Files(files), paths),
        (None, Some(commands)) => (Source::Commands(commands), Vec::new()),
        (None, None) => return None,
    };
    let job = Job {
        name,
        targets: targets.iter().map(|(name, _)| name.clone()).collect(),
        source,
        keep,
        hooks,
        max_shrink_percent: section.get("max-shrink", value::shrink).unwrap_or(MAX_SHRINK_PERCENT),
        max_age: section.span("max-age"),
    };
    Some(ReadJob { job, targets, paths })
}

fn no_source(section: &Section<'_>, notes: &mut Notes) {
    // A table that is no known key is a source misspelt, and has been reported as an unknown key.
    let misspelt = section.entries().iter().any(|entry| {
        matches!(entry.node.value, Value::Table(_)) && !JOB.iter().any(|key| key.name == entry.key)
    });
    if !misspelt {
        let name = bare(section.key);
        let message = format!("the job {:?} does not say what to protect", section.key);
        let complaint = Complaint::new(message)
            .help(format!("add [jobs.{name}.files] or [jobs.{name}.commands.ITEM]"));
        notes.missing(section.at, complaint);
    }
}

fn read_targets(
    section: &Section<'_>,
    defined: &[&str],
    notes: &mut Notes,
) -> Vec<(TargetName, Place)> {
    let is_empty_list = section.get("targets", |node| value::list(node, "")).map(<[_]>::is_empty);
    if !section.has("targets") {
        let message = format!("the job {:?} names no targets", section.key);
        notes.missing(section.at, Complaint::new(message).help("add targets = [\"…\"]"));
    } else if is_empty_list == Some(true) {
        let complaint = Complaint::new("the list of targets is empty: the job would go nowhere");
        notes.problem(section.value_at("targets"), complaint);
    }
    let mut targets: Vec<(TargetName, Place)> = Vec::new();
    for (name, at) in section.list("targets", value::text) {
        if !defined.contains(&name) {
            let complaint = Complaint::new(format!("no target is called {name:?}"));
            notes.missing(at, complaint.help(suggest(name, defined)));
        } else if targets.iter().any(|(earlier, _)| earlier.as_str() == name) {
            notes.problem(at, Complaint::new(format!("the target {name:?} is listed twice")));
        } else if let Ok(name) = TargetName::new(name) {
            targets.push((name, at));
        }
    }
    targets
}

fn read_keeps(
    section: &Section<'_>,
    targets: &[(TargetName, Place)],
    defined: &[&str],
    notes: &mut Notes,
) -> BTreeMap<TargetName, crate::model::keep::KeepPolicy> {
    let mut keeps = BTreeMap::new();
    let Some(table) = section.table("keep") else { return keeps };
    for entry in table.entries() {
        let name = entry.key.as_str();
        if !defined.contains(&name) {
            let complaint = Complaint::new(format!("no target is called {name:?}"));
            let help = if super::file::KEEP.iter().any(|key| key.name == name) {
                format!(
                    "a job's rules stand under a target: [jobs.{}.keep.TARGET]",
                    bare(section.key)
                )
            } else {
                suggest(name, defined)
            };
            notes.missing(entry.at, complaint.help(help));
        } else if !targets.iter().any(|(target, _)| target.as_str() == name) {
            let message = format!("this job does not go to the target {name:?}");
            notes.missing(entry.at, Complaint::new(message));
        }
        let Some(policy) = Section::of(entry).map(|keep| read_keep(&keep, notes)) else { continue };
        if let Ok(name) = TargetName::new(name) {
            keeps.insert(name, policy);
        }
    }
    keeps
}

fn read_files(section: &Section<'_>, notes: &mut Notes) -> (FilesSource, Vec<(PathBuf, Place)>) {
    let is_empty_list = section.get("paths", |node| value::list(node, "")).map(<[_]>::is_empty);
    if !section.has("paths") {
        let complaint = Complaint::new("files names no paths").help("add paths = [\"/…\"]");
        notes.missing(section.at, complaint);
    } else if is_empty_list == Some(true) {
        let complaint = Complaint::new("the list of paths is empty: nothing would be protected");
        notes.problem(section.value_at("paths"), complaint);
    }
    let paths = section.list("paths", value::path);
    for (n, (path, at)) in paths.iter().enumerate() {
        if paths[..n].iter().any(|(earlier, _)| earlier == path) {
            let message = format!("the path {} is listed twice", path.shown());
            notes.problem(*at, Complaint::new(message));
        }
    }
    for (pattern, at) in section.list("exclude", value::pattern) {
        if let Some(fault) = (notes.pattern_fault)(pattern) {
            notes.problem(at, Complaint::new(fault));
        }
    }
    for (name, at) in section.list("exclude-if-present", value::pattern) {
        if name.contains('/') {
            let message = "exclude-if-present takes names of files, without directories";
            notes.problem(at, Complaint::new(message));
        }
    }
    let texts = |key| {
        section.list(key, value::pattern).into_iter().map(|(text, _)| text.to_owned()).collect()
    };
    let files = FilesSource {
        paths: paths.iter().map(|(path, _)| path.clone()).collect(),
        exclude: texts("exclude"),
        exclude_caches: section.flag("exclude-caches"),
        exclude_if_present: texts("exclude-if-present"),
        one_file_system: section.flag("one-file-system"),
        capture: capture::read(section, &paths, notes),
        allow_empty: section.flag("allow-empty"),
    };
    (files, paths)
}

fn read_command(section: &Section<'_>, notes: &mut Notes) -> Option<CommandSource> {
    for (key, example) in [("command", "[\"…\"]"), ("file-name", "\"…\"")] {
        if !section.has(key) {
            let message = format!("the item {:?} needs {key}", section.key);
            notes.missing(
                section.at,
                Complaint::new(message).help(format!("add {key} = {example}")),
            );
        }
    }
    Some(CommandSource {
        item: section.key.to_owned(),
        command: section.get("command", value::argv)?,
        file_name: section.get("file-name", value::file_name)?.to_owned(),
    })
}

fn read_hooks(section: &Section<'_>, notes: &mut Notes) -> Hooks {
    let lists = |key| section.list(key, value::argv).into_iter().map(|(argv, _)| argv).collect();
    let timeout: Option<Duration> = section.span("timeout");
    let hooks = Hooks {
        before: lists("before"),
        quiesce: lists("quiesce"),
        resume: lists("resume"),
        after: lists("after"),
        on_failure: lists("on-failure"),
        finally: lists("finally"),
        timeout,
    };
    let named = ["before", "quiesce", "resume", "after", "on-failure", "finally"]
        .iter()
        .any(|key| section.has(key));
    if section.has("timeout") && !named {
        let message = "timeout has no effect: the job has no hooks";
        notes.missing(section.key_at("timeout"), Complaint::new(message));
    }
    hooks
}
