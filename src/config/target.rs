//! `[targets.NAME]`, read: the engine, its secret, its options, and what these mean together.

use std::path::Path;
use std::time::Duration;

use super::diagnostic::{Complaint, Notes};
use super::file::{BORG_ENCRYPTION, TARGET};
use super::repository::{self, Location};
use super::section::Section;
use super::source::Place;
use super::tree::{Value, bare};
use super::value;
use crate::model::keep::KeepPolicy;
use crate::model::names::TargetName;
use crate::model::shown::Show;
use crate::model::target::{
    BorgOptions, CheckPolicy, EngineConfig, ReadData, ResticOptions, SecretSource, Target,
};

/// How long nothing may move before an engine is stopped, unless the file says otherwise.
const STALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// borg's recommended mode for machines without hardware SHA-256, and a sound one everywhere.
const ENCRYPTION: &str = "repokey-blake2";
/// The engines that this version knows by name.
const ENGINES: [&str; 3] = ["borg", "restic", "btrfs"];

/// A target with what the checks between targets and jobs need.
#[derive(Debug)]
pub(super) struct ReadTarget {
    /// The target itself.
    pub target: Target,
    /// Where its name stands.
    pub at: Place,
    /// Where it keeps copies; `None` when that could not be read.
    pub location: Option<Location>,
    /// Where the repository stands.
    pub repository_at: Place,
    /// Where `copy-from` stands, if it does.
    pub copy_from_at: Place,
}

/// What the table of an engine gives: what every target has, and what this engine alone understands.
struct ReadEngine {
    repository: String,
    location: Option<Location>,
    secret: Option<SecretSource>,
    copy_from: Option<TargetName>,
    config: EngineConfig,
}

/// Reads one target; `None` when it has no name or engine to speak of, which has then been noted.
pub(super) fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadTarget> {
    let named: Vec<&str> = ENGINES.into_iter().filter(|engine| section.has(engine)).collect();
    if named.is_empty() {
        no_engine(section, notes);
    }
    for second in named.iter().skip(1) {
        let message = format!("a target has one engine, and {:?} is another", named[0]);
        notes.problem(section.key_at(second), Complaint::new(message));
    }
    // All are read, so that the problems of all show; the first is the one that counts.
    let borg = section.table("borg").map(|part| (read_borg(&part, notes), part));
    let restic = section.table("restic").map(|part| (read_restic(&part, notes), part));
    let keep = section.table("keep").map(|keep| read_keep(&keep, notes));
    let check = section.table("check").and_then(|check| read_check(&check, notes));
    let append_only = section.flag("append-only");
    if append_only && section.has("compact-every") {
        let message = "compact-every has no effect on an append-only target";
        notes.problem(section.key_at("compact-every"), Complaint::new(message));
    }
    if append_only && section.has("keep") {
        let message = "keep has no effect on an append-only target: nothing is deleted there";
        notes.warning(section.key_at("keep"), Complaint::new(message));
    }
    let (engine, part) = borg.or(restic)?;
    let target = Target {
        name: TargetName::new(section.key).ok()?,
        local: engine.location.as_ref().and_then(Location::local).map(Path::to_owned),
        repository: engine.repository,
        secret: engine.secret,
        require_mount: part.path("require-mount"),
        program: part.path("program"),
        copy_from: engine.copy_from,
        upload_limit_kib: part.whole("upload-limit"),
        stall_timeout: part.span("stall-timeout").unwrap_or(STALL_TIMEOUT),
        engine: engine.config,
        keep,
        check,
        compact_every: section.span("compact-every"),
        append_only,
    };
    Some(ReadTarget {
        target,
        at: section.at,
        location: engine.location,
        repository_at: part.value_at("repository"),
        copy_from_at: part.value_at("copy-from"),
    })
}

fn no_engine(section: &Section<'_>, notes: &mut Notes) {
    // A table that is no known key is an engine misspelt, and has been reported as an unknown key.
    let misspelt = section.entries().iter().any(|entry| {
        matches!(entry.node.value, Value::Table(_))
            && !TARGET.iter().any(|key| key.name == entry.key)
    });
    if !misspelt {
        let name = bare(section.key);
        let complaint = Complaint::new(format!("the target {:?} names no engine", section.key))
            .help(format!("add [targets.{name}.borg] or [targets.{name}.restic]"));
        notes.missing(section.at, complaint);
    }
}

fn read_borg(section: &Section<'_>, notes: &mut Notes) -> ReadEngine {
    let encryption =
        section.get("encryption", |node| value::word(node, BORG_ENCRYPTION)).unwrap_or(ENCRYPTION);
    let needs_secret = encryption != "none";
    let passphrase = read_secret(section, "passphrase", needs_secret, notes);
    if section.has("key-file") && !encryption.starts_with("keyfile") {
        let complaint = Complaint::new(format!("key-file has no effect with {encryption:?}"))
            .help("a repository with its key in a file has encryption = \"keyfile-blake2\"");
        notes.problem(section.key_at("key-file"), complaint);
    }
    let ssh_command = section.get("ssh-command", value::argv).unwrap_or_default();
    if ssh_command.iter().any(|word| word.contains(char::is_whitespace)) {
        let message = "ssh-command: borg splits it at white space, so no element can hold any";
        notes.problem(section.value_at("ssh-command"), Complaint::new(message));
    }
    let repository = read_repository(section, notes);
    let location = repository.as_deref().and_then(|text| match repository::borg(text) {
        Ok(location) => Some(location),
        Err(complaint) => {
            notes.problem(section.value_at("repository"), complaint);
            None
        }
    });
    if matches!(location, Some(Location::Local(_))) {
        for key in ["remote-program", "ssh-command", "upload-limit"] {
            if section.has(key) {
                let message = format!("{key} has no effect: the repository is on this machine");
                notes.problem(section.key_at(key), Complaint::new(message));
            }
        }
    }
    check_mount(section, location.as_ref(), notes);
    let options = BorgOptions {
        key_file: section.path("key-file"),
        encryption: encryption.to_owned(),
        compression: section.get("compression", value::borg_compression).map(str::to_owned),
        files_cache: section.get("files-cache", value::borg_files_cache).map(str::to_owned),
        remote_program: section.text("remote-program"),
        ssh_command,
    };
    ReadEngine {
        repository: repository.unwrap_or_default(),
        location,
        secret: passphrase,
        copy_from: None,
        config: EngineConfig::Borg(options),
    }
}

fn read_restic(section: &Section<'_>, notes: &mut Notes) -> ReadEngine {
    let password = read_secret(section, "password", true, notes);
    let repository = read_repository(section, notes);
    if repository.as_deref().is_some_and(repository::holds_password) {
        // Said at the table and not at the value, whose line would print the password.
        let complaint = Complaint::new("the repository holds a password: plans and logs show it")
            .help("newer restic reads RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD from environment-file");
        notes.warning(section.at, complaint);
    }
    let location = repository.as_deref().and_then(|text| match repository::restic(text) {
        Ok((location, doubt)) => {
            if let Some(doubt) = doubt {
                notes.warning(section.value_at("repository"), doubt);
            }
            Some(location)
        }
        Err(complaint) => {
            notes.problem(section.value_at("repository"), complaint);
            None
        }
    });
    let copy_from = section.text("copy-from").and_then(|name| match TargetName::new(&name) {
        Ok(name) => Some(name),
        Err(error) => {
            let at = section.value_at("copy-from");
            notes.problem(at, Complaint::new(format!("copy-from: {error}")));
            None
        }
    });
    check_mount(section, location.as_ref(), notes);
    let options = ResticOptions {
        environment_file: section.path("environment-file"),
        compression: section
            .get("compression", |node| value::word(node, &["auto", "off", "max"]))
            .map(str::to_owned),
    };
    ReadEngine {
        repository: repository.unwrap_or_default(),
        location,
        secret: password,
        copy_from,
        config: EngineConfig::Restic(options),
    }
}

fn read_repository(section: &Section<'_>, notes: &mut Notes) -> Option<String> {
    if !section.has("repository") {
        let message = format!("{} needs a repository", section.key);
        notes.missing(section.at, Complaint::new(message));
    }
    section.text("repository")
}

fn read_secret(
    section: &Section<'_>,
    word: &str,
    needed: bool,
    notes: &mut Notes,
) -> Option<SecretSource> {
    let [file, command, credential] =
        ["file", "command", "credential"].map(|form| format!("{word}-{form}"));
    let forms = [&file, &command, &credential];
    let mut given: Vec<&str> =
        forms.iter().map(|form| form.as_str()).filter(|form| section.has(form)).collect();
    given.sort_by_key(|form| section.key_at(form));
    for second in given.iter().skip(1) {
        let message = format!("{second} cannot stand beside {}: one source is enough", given[0]);
        notes.problem(section.key_at(second), Complaint::new(message));
    }
    if given.is_empty() && needed {
        let mut complaint = Complaint::new(format!("the {word} is missing"))
            .help(format!("add {file}, {command} or {credential}"));
        if section.key == "borg" {
            complaint = Complaint::new(complaint.message)
                .help(format!("add {file}, {command} or {credential}, or encryption = \"none\""));
        }
        notes.missing(section.at, complaint);
    }
    if let Some(first) = given.first().filter(|_| !needed) {
        let message = format!("{first} has no effect with encryption = \"none\"");
        notes.problem(section.key_at(first), Complaint::new(message));
    }
    None.or_else(|| section.path(&file).map(SecretSource::File))
        .or_else(|| section.get(&command, value::argv).map(SecretSource::Command))
        .or_else(|| section.text(&credential).map(SecretSource::Credential))
}

fn check_mount(section: &Section<'_>, location: Option<&Location>, notes: &mut Notes) {
    let Some(mount) = section.path("require-mount") else { return };
    let at = section.value_at("require-mount");
    if mount.parent().is_none() {
        notes.problem(at, Complaint::new("require-mount: something is always mounted at \"/\""));
    }
    match location {
        Some(Location::Local(path)) if !path.starts_with(&mount) => {
            let message = format!("the repository is not below {}", mount.shown());
            notes.warning(at, Complaint::new(message));
        }
        Some(Location::Remote(_)) => {
            let message = "require-mount looks at this machine, the repository is elsewhere";
            notes.warning(at, Complaint::new(message));
        }
        Some(Location::Local(_)) | None => {}
    }
}

fn read_check(section: &Section<'_>, notes: &mut Notes) -> Option<CheckPolicy> {
    if !section.has("every") {
        let complaint = Complaint::new("check does not say how often").help("add every = \"30d\"");
        notes.missing(section.at, complaint);
    }
    Some(CheckPolicy {
        every: section.span("every")?,
        read_data: section.get("read-data", value::share).unwrap_or(ReadData::None),
    })
}

/// Reads `[targets.NAME.keep]` or `[jobs.NAME.keep.TARGET]`.
pub(super) fn read_keep(section: &Section<'_>, notes: &mut Notes) -> KeepPolicy {
    let policy = KeepPolicy {
        last: section.whole("last"),
        hourly: section.whole("hourly"),
        daily: section.whole("daily"),
        weekly: section.whole("weekly"),
        monthly: section.whole("monthly"),
        yearly: section.whole("yearly"),
        within: section.span("within"),
        tags: section
            .list("tags", value::text)
            .into_iter()
            .map(|(tag, _)| tag.to_owned())
            .collect(),
    };
    for (tag, at) in section.list("tags", value::text) {
        if tag.contains(',') {
            notes.problem(at, Complaint::new("a tag cannot hold a comma: restic splits there"));
        }
    }
    let counts =
        [policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly];
    let keeps = counts.iter().flatten().any(|count| *count > 0)
        || section.has("within")
        || !policy.tags.is_empty();
    // A count that could not be read is a problem of its own and may well keep something.
    let unreadable = ["last", "hourly", "daily", "weekly", "monthly", "yearly"]
        .iter()
        .any(|key| section.has(key) && section.whole(key).is_none());
    if !keeps && !unreadable && !section.entries().is_empty() {
        let complaint = Complaint::new("this policy would keep nothing")
            .help("leave the table out to keep everything");
        notes.problem(section.at, complaint);
    }
    policy
}
