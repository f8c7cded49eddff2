//! How a files job is held still, read: the keys of `[jobs.NAME.files]` that say it, and what they and the
//! hooks `quiesce` and `resume` mean together.

use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Complaint, Notes};
use super::section::Section;
use super::source::Place;
use super::value;
use crate::model::job::{CaptureMode, CapturePolicy, ThinLimits};
use crate::model::shown::Show;

/// Services that hang for longer are a worse harm than a copy that does not show one moment.
const LONGEST_FREEZE: Duration = Duration::from_secs(5 * 60);

/// Keys that only say something about captures, so that they mean nothing where there are none.
const OF_CAPTURES: &[&str] = &[
    "consistent",
    "freeze-units",
    "freeze-limit",
    "live",
    "leave-out",
    "lvm-thin",
    "lvm-classic",
    "remount-readonly",
];

/// The hooks around the captures.
const QUIET_HOOKS: &[&str] = &["quiesce", "resume"];

/// Reads the policy from `[jobs.NAME.files]`; `paths` are the job's.
pub(super) fn read(
    section: &Section<'_>,
    paths: &[(PathBuf, Place)],
    notes: &mut Notes,
) -> CapturePolicy {
    let mode = mode(section);
    if mode == CaptureMode::None {
        for key in OF_CAPTURES.iter().filter(|key| section.has(key)) {
            without_capture(section, key, notes);
        }
    }
    let default = CapturePolicy::default();
    let live = related(section, "live", paths, notes);
    let leave_out = related(section, "leave-out", paths, notes);
    for (path, at) in &leave_out {
        if let Some((own, _)) = paths.iter().find(|(own, _)| own.starts_with(path)) {
            let complaint = Complaint::new(format!(
                "{} would leave out {}, which is a path of this job",
                path.shown(),
                own.shown()
            ));
            notes.problem(*at, complaint.help("take one of the two away"));
        }
        if live.iter().any(|(live, _)| live == path) {
            let message = format!("{} is read live, and so it is in the copy", path.shown());
            notes.problem(*at, Complaint::new(message).help("name it in one of the two lists"));
        }
    }
    let percent = |table: &Option<Section<'_>>, key| {
        table.as_ref().and_then(|table| table.get(key, value::percentage))
    };
    let thin = section.table("lvm-thin");
    let thin = ThinLimits {
        data_percent: percent(&thin, "max-data").unwrap_or(default.thin.data_percent),
        metadata_percent: percent(&thin, "max-metadata").unwrap_or(default.thin.metadata_percent),
    };
    let classic = section.table("lvm-classic");
    let remount = section.table("remount-readonly");
    let remount = remount.map(|table| related(&table, "paths", paths, notes)).unwrap_or_default();
    let only = |list: Vec<(PathBuf, Place)>| list.into_iter().map(|(path, _)| path).collect();
    CapturePolicy {
        mode,
        consistent: section.flag("consistent"),
        freeze_units: freeze_units(section, notes),
        freeze_limit: freeze_limit(section, notes).unwrap_or(default.freeze_limit),
        live: only(live),
        leave_out: only(leave_out),
        thin,
        classic_size: classic
            .and_then(|table| table.get("size", value::snapshot_size))
            .unwrap_or(default.classic_size),
        remount_readonly: only(remount),
    }
}

fn mode(section: &Section<'_>) -> CaptureMode {
    match section.get("capture", |node| value::word(node, &["auto", "required", "none"])) {
        Some("required") => CaptureMode::Required,
        Some("none") => CaptureMode::None,
        _ => CaptureMode::Auto,
    }
}

fn without_capture(section: &Section<'_>, key: &str, notes: &mut Notes) {
    let complaint = Complaint::new(format!("{key} has no effect: capture = \"none\" reads live"))
        .help(format!("take {key} away, or write capture = \"auto\""));
    notes.problem(section.key_at(key), complaint);
}

/// The paths of a list, each of which must have to do with a path of the job.
fn related(
    section: &Section<'_>,
    key: &str,
    paths: &[(PathBuf, Place)],
    notes: &mut Notes,
) -> Vec<(PathBuf, Place)> {
    let list = section.list(key, value::path);
    for (path, at) in &list {
        let concerned =
            |(own, _): &(PathBuf, Place)| own.starts_with(path) || path.starts_with(own);
        // Without paths there is one problem already, and every path here would be another.
        if !paths.is_empty() && !paths.iter().any(concerned) {
            let complaint = Complaint::new(format!(
                "{} has no effect: it is neither above nor below a path of this job",
                path.shown()
            ));
            notes.missing(*at, complaint.help("take it away, or add it to paths"));
        }
    }
    list
}

fn freeze_units(section: &Section<'_>, notes: &mut Notes) -> Vec<String> {
    let units = section.list("freeze-units", value::text);
    for (unit, at) in &units {
        let wrong = if unit.starts_with('/') {
            let parts = || unit.split('/').filter(|part| !part.is_empty());
            if parts().next().is_none() {
                Some("the whole machine cannot be frozen")
            } else if parts().any(|part| part == "." || part == "..") {
                Some("a control group is named by its real path, without \".\" and \"..\"")
            } else {
                None
            }
        } else if unit.contains(['*', '?', '[', '/', ' ']) {
            Some("a unit is named in full, such as \"postgresql.service\"")
        } else {
            None
        };
        if let Some(message) = wrong {
            let complaint = Complaint::new(format!("{message}, not {unit:?}"));
            notes.problem(
                *at,
                complaint.help("name units, or control groups such as \"/system.slice/x.service\""),
            );
        }
    }
    units.into_iter().map(|(unit, _)| unit.to_owned()).collect()
}

fn freeze_limit(section: &Section<'_>, notes: &mut Notes) -> Option<Duration> {
    let limit = section.get("freeze-limit", value::long_span)?;
    if limit > LONGEST_FREEZE {
        let complaint = Complaint::new("nothing may stay frozen for longer than 5m")
            .help("a capture takes seconds; long-lasting work belongs into hooks");
        notes.problem(section.value_at("freeze-limit"), complaint);
    }
    Some(limit)
}

/// Judges what says how the writers of a files job are stopped.
pub(super) fn check_writers(files: &Section<'_>, hooks: Option<&Section<'_>>, notes: &mut Notes) {
    let is_filled = |section: &Section<'_>, key: &str| {
        section.has(key)
            && section.get(key, |node| value::list(node, "")).is_none_or(|list| !list.is_empty())
    };
    let freezes = is_filled(files, "freeze-units");
    let quiesces = hooks.is_some_and(|hooks| is_filled(hooks, "quiesce"));
    if files.flag("consistent") && !freezes && !quiesces && mode(files) != CaptureMode::None {
        let complaint = Complaint::new("nothing says how to stop the writers")
            .help("add freeze-units = [\"…\"], or hooks quiesce and resume");
        notes.missing(files.key_at("consistent"), complaint);
    }
    if files.has("freeze-limit") && !freezes && mode(files) != CaptureMode::None {
        let complaint = Complaint::new("freeze-limit has no effect: the job freezes nothing")
            .help("add freeze-units = [\"…\"]");
        notes.missing(files.key_at("freeze-limit"), complaint);
    }
    let Some(hooks) = hooks else { return };
    for (one, other, why) in [
        ("quiesce", "resume", "nothing would let the writers go on"),
        ("resume", "quiesce", "nothing made the writers pause"),
    ] {
        if is_filled(hooks, one) && !is_filled(hooks, other) {
            let complaint = Complaint::new(format!("{one} without {other}: {why}"))
                .help(format!("add {other} = [[\"…\"]]"));
            notes.missing(hooks.key_at(one), complaint);
        }
    }
    if mode(files) == CaptureMode::None {
        for key in QUIET_HOOKS.iter().filter(|key| hooks.has(key)) {
            without_capture(hooks, key, notes);
        }
    }
}

/// Refuses the hooks around captures where the source is never captured.
pub(super) fn refuse_quiet_hooks(hooks: &Section<'_>, notes: &mut Notes) {
    for key in QUIET_HOOKS.iter().filter(|key| hooks.has(key)) {
        let complaint = Complaint::new(format!("{key} has no effect: this job makes no captures"))
            .help("use before and finally");
        notes.problem(hooks.key_at(key), complaint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::FILES;

    #[test]
    fn the_keys_of_captures_are_declared() {
        for key in OF_CAPTURES {
            assert!(FILES.iter().any(|declared| declared.name == *key), "{key}");
        }
    }
}
