//! From the tree to the model: reads the sections, then judges what they mean together.
//!
//! A value that was refused has been noted by `conform` and is absent here. Whatever stands in its
//! place never leaves this room, because a configuration with a problem is not handed out.

use std::path::{Path, PathBuf};

use super::diagnostic::{Complaint, Notes, suggest};
use super::keys::job::{self, ReadJob};
use super::keys::root::{JOBS, TARGETS};
use super::keys::settings::{self, SETTINGS};
use super::keys::target::{self, ReadTarget};
use super::pairing::Pairing;
use super::repository::Location;
use super::section::Section;
use super::source::Span;
use super::tree::Table;
use crate::model::glob::glob;
use crate::model::job::Config;
use crate::model::shown::Show;
use crate::model::target::Target;

/// Reads everything. The result is only good when no problem was noted.
pub(super) fn resolve(
    root: &Table,
    files: Vec<PathBuf>,
    default_host: &str,
    notes: &mut Notes,
) -> Option<Config> {
    let root = Section::root(root);
    let settings = settings::read(&root.part(&SETTINGS), default_host, notes);
    let targets = root.part(&TARGETS);
    let defined: Vec<&str> = targets.entries().iter().map(|entry| entry.key.as_str()).collect();
    let targets: Vec<ReadTarget> =
        targets.tables().iter().filter_map(|section| target::read(section, notes)).collect();
    let jobs: Vec<ReadJob> = (root.part(&JOBS).tables().iter())
        .filter_map(|section| job::read(section, &defined, notes))
        .collect();
    between_targets(&targets, &defined, notes);
    for job in &jobs {
        for (name, at) in &job.targets {
            if let Some(target) = targets.iter().find(|target| target.target.name == *name) {
                job_and_target(job, target, *at, &defined, notes);
            }
        }
    }
    for target in &targets {
        let name = &target.target.name;
        if !jobs.iter().any(|job| job.job.targets.contains(name)) {
            let message = format!("no job uses the target {:?}", name.as_str());
            notes.warning(target.at, Complaint::new(message));
        }
    }
    for job in &jobs {
        let host = job.job.source.host();
        if let Some(host) =
            host.filter(|host| settings.as_ref().is_some_and(|it| it.host == **host))
        {
            let message = format!(
                "its subvolumes are on {host}, which is the name of this machine: their copies would claim to be of here"
            );
            let complaint = Complaint::new(message)
                .help("protect what is here without host, or give that machine another name in ~/.ssh/config");
            notes.problem(job.at, complaint);
        }
    }
    if jobs.is_empty() {
        let at = root.at;
        notes.warning(at, Complaint::new("no job is defined: nothing is protected"));
    }
    Some(Config {
        settings: settings?,
        targets: targets.into_iter().map(|target| target.target).collect(),
        jobs: jobs.into_iter().map(|job| job.job).collect(),
        files,
    })
}

/// What holds between targets, whatever the jobs are.
fn between_targets(targets: &[ReadTarget], defined: &[&str], notes: &mut Notes) {
    for (n, target) in targets.iter().enumerate() {
        let same =
            |other: &&ReadTarget| target.location.is_some() && other.location == target.location;
        for other in targets[..n].iter().filter(same) {
            same_place(target, other, notes);
        }
        let Some(from) = target.target.copy_from.as_ref() else { continue };
        let at = target.copy_from_at;
        if !defined.contains(&from.as_str()) {
            let complaint = Complaint::new(format!("no target is called {:?}", from.as_str()));
            notes.missing(at, complaint.help(suggest(from.as_str(), defined)));
        } else if *from == target.target.name {
            notes.problem(at, Complaint::new("a target cannot be copied from itself"));
        } else if let Some(source) = targets.iter().find(|other| other.target.name == *from) {
            let (own, other) = (target.target.engine.name(), source.target.engine.name());
            if own != other {
                let message = format!(
                    "{:?} is a {other} target: only {own} copies from {own}",
                    from.as_str()
                );
                notes.problem(at, Complaint::new(message));
            } else if source.target.copy_from.is_some() {
                let complaint =
                    Complaint::new(format!("{:?} is itself filled by copy-from", from.as_str()))
                        .help("copy from the target that is backed up to directly");
                notes.problem(at, complaint);
            }
        }
    }
}

/// Two targets at one place: disks that take turns there, or a mistake.
fn same_place(target: &ReadTarget, other: &ReadTarget, notes: &mut Notes) {
    let (one, other) = (&target.target, &other.target);
    let (name, other_name) = (one.name.as_str(), other.name.as_str());
    if !one.takes_turns_with(other) {
        let message = format!("the target {other_name:?} has the same repository");
        let complaint = Complaint::new(message);
        let is_here = target.location.as_ref().and_then(Location::local).is_some();
        notes.problem(
            target.repository_at,
            match is_here {
                true => complaint.help(
                    "for disks that take turns there, give both require-mount and when-absent = \"skip\"",
                ),
                false => complaint,
            },
        );
    } else if one.copy_from.as_ref() == Some(&other.name)
        || other.copy_from.as_ref() == Some(&one.name)
    {
        let message = format!(
            "{name:?} and {other_name:?} take turns at one place, so neither can be filled from the other"
        );
        notes.problem(target.repository_at, Complaint::new(message));
    }
}

/// What holds between a job and one of its targets. `at` is where the job names it.
fn job_and_target(job: &ReadJob, read: &ReadTarget, at: Span, defined: &[&str], notes: &mut Notes) {
    let target = &read.target;
    let kind = job.job.source.kind();
    let engine = target.engine.name();
    if !Pairing::of(kind).is_some_and(|pairing| pairing.engines.contains(&engine)) {
        let message = format!("{kind} cannot go to a {engine} target");
        notes.problem(at, Complaint::new(message));
    }
    if let Some(from) = target.copy_from.as_ref()
        && defined.contains(&from.as_str())
        && !job.job.targets.contains(from)
    {
        let complaint = Complaint::new(format!(
            "{:?} is filled from {:?}, which this job does not list",
            target.name.as_str(),
            from.as_str()
        ))
        .help(format!("add {:?} to the job's targets", from.as_str()));
        notes.missing(at, complaint);
    }
    refuse_links_of_others(job, target, at, notes);
    if target.append_only && job.job.keep.contains_key(&target.name) {
        let message =
            format!("the job's keep has no effect: {:?} is append-only", target.name.as_str());
        notes.warning(at, Complaint::new(message));
    }
    let Some(repository) = read.location.as_ref().and_then(Location::local) else { return };
    let trees = &job.trees;
    for (path, path_at) in &trees.paths {
        // A mount of its own below the path is not entered, so nothing there is read.
        let outside = trees.one_file_system
            && target.require_mount.as_ref().is_some_and(|mount| {
                repository.starts_with(mount) && mount.starts_with(path) && mount != path
            });
        if repository.starts_with(path) && !outside && !excluded(repository, &trees.exclude) {
            let complaint = Complaint::new(format!(
                "the repository of {:?} lies below {}: the job would back up its own copies",
                target.name.as_str(),
                path.shown()
            ))
            .help(format!("add {} to {}", covering(repository), trees.excluded_by));
            notes.problem(*path_at, complaint);
        }
    }
}

/// Refuses what is pulled from one machine to be received by btrfs-progs alone on another one: a run would refuse it as well.
fn refuse_links_of_others(job: &ReadJob, target: &Target, at: Span, notes: &mut Notes) {
    let (Some(from), Some(server)) = (job.job.source.far_machine(), target.bare_server()) else {
        return;
    };
    let message = format!(
        "{:?} cannot take what is pulled: what {} sends might follow links into other copies on {}, where btrfs-progs alone keep it from nothing",
        target.name.as_str(),
        from.server.login,
        server.login
    );
    let help = "have a Stillpoint answer there (without remote-side), or pull to a directory of this machine";
    notes.problem(at, Complaint::new(message).help(help));
}

/// An exclude pattern, in TOML, that surely covers the path: signs that mean something in a pattern stand as `?`.
fn covering(path: &Path) -> String {
    let one = |c: char| if "*?[]\\${}".contains(c) || c.is_control() { '?' } else { c };
    let pattern: String = path.to_string_lossy().chars().map(one).collect();
    toml::Value::String(pattern).to_string()
}

/// Whether exclude patterns surely cover a path or a directory above it. restic's dialect, of which
/// only names, `*`, `?` and `**` are understood here; of anything cleverer no safety is derived.
pub fn excluded(path: &Path, patterns: &[String]) -> bool {
    let names: Vec<&str> =
        path.to_str().unwrap_or_default().split('/').filter(|name| !name.is_empty()).collect();
    // In restic the last pattern that matches decides, and `!` brings back.
    let verdict = patterns.iter().rev().find_map(|pattern| {
        let (pattern, verdict) = match pattern.strip_prefix('!') {
            Some(pattern) => (pattern, false),
            None => (pattern.as_str(), true),
        };
        if pattern.contains(['[', '\\', '$']) {
            return (!verdict).then_some(false);
        }
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        let starts = if pattern.starts_with('/') { 0..1 } else { 0..names.len() };
        let mut starts = starts;
        (!parts.is_empty() && starts.any(|start| covers(&parts, &names[start..])))
            .then_some(verdict)
    });
    verdict.unwrap_or(false)
}

/// Whether the parts of a pattern match the first names of a path.
fn covers(parts: &[&str], names: &[&str]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, _) => true,
        (Some((&"**", rest)), _) => {
            (0..=names.len()).any(|skipped| covers(rest, &names[skipped..]))
        }
        (Some((part, parts)), Some((name, names))) => glob(part, name) && covers(parts, names),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_surely_cover_a_repository() {
        let covered = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            excluded(Path::new("/srv/backup/web1"), &patterns)
        };
        for good in ["/srv", "/srv/backup/", "/srv/*/web?", "web1", "backup/w*", "/**/web1", "srv"]
        {
            assert!(covered(&[good]), "{good}");
        }
        for bad in ["/backup", "/srv/back", "web", "/srv/backup/web1/data", "/srv/[b]ackup", "/"] {
            assert!(!covered(&[bad]), "{bad}");
        }
        assert!(!covered(&["/srv", "!/srv/backup"]));
        assert!(covered(&["!/srv/backup", "/srv"]));
        assert!(!covered(&["/srv", "![s]rv"]), "a pattern not understood gives no safety");
    }
}
