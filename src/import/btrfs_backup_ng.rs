//! btrfs-backup-ng's configuration (`config.toml`, versions 0.8 and 0.9), and the locks that it left.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::draft::{Draft, Job, NO_STREAMS_THERE, Pair, Place, Target, is_inside, quoted};
use super::draft::{behind_ssh, encrypted, limit, received_in, stored_in};
use super::lines::{Failed, Look};
use super::snapper::snapshots_of;

/// A table of the file.
#[derive(Clone, Copy)]
struct Section<'t> {
    text: &'t str,
    table: Option<&'t DeTable<'t>>,
}

/// What a file becomes, and the locks beside the snapshots.
///
/// # Errors
/// When it is no TOML, or names no volume.
pub(super) fn draft(text: &str, look: Look<'_>) -> Result<Draft, Failed> {
    let table = DeTable::parse(text).map_err(|error| Failed {
        line: line_of(text, error.span().unwrap_or_default().start),
        what: format!("not valid TOML: {}", error.message()),
    })?;
    let root = Section { text, table: Some(table.get_ref()) };
    let global = root.section("global");
    let mut draft = Draft::default();
    draft.notes.push(
        "Of each hour, day, week, month and year the newest copy stays here, not the oldest."
            .into(),
    );
    root.told(&["global", "volumes"], &mut draft.notes);
    global.told(&["retention", "snapshot_dir", "transfer_stall_timeout"], &mut draft.notes);
    let volumes = root.sections("volumes");
    if volumes.is_empty() {
        let what =
            "there is no [[volumes]] — options in a file of arguments (@FILE) are not read".into();
        return Err(Failed { line: 1, what });
    }
    for volume in volumes {
        add(&mut draft, global, volume, look);
    }
    Ok(draft)
}

/// Adds the job that a volume becomes.
fn add(draft: &mut Draft, global: Section<'_>, volume: Section<'_>, look: Look<'_>) {
    const READ: &[&str] = &[
        "path",
        "enabled",
        "targets",
        "retention",
        "snapshot_dir",
        "snapshot_prefix",
        "source",
        "snapper",
    ];
    let line = volume.line("path");
    let Some(Place::Here(path)) = volume.text_of("path").as_deref().and_then(Place::read) else {
        let what = "a volume without a path of this machine is NOT in this configuration: name the other one in a job of its own (subvolumes.host and snapshots, see the README)";
        return draft.notes.push(format!("line {line}: {what}"));
    };
    let mut notes = vec![format!("line {line}, {path}")];
    if volume.flag("enabled") == Some(false) {
        notes.push("it is not enabled, so it is NOT in this configuration".into());
        return draft.notes.extend(notes);
    }
    volume.told(READ, &mut notes);
    let is_snappers = volume.text_of("source").as_deref() == Some("snapper");
    let directory = snapshot_dir(global, volume, &path);
    locked(&directory, look, &mut notes);
    let retention = match volume.section("retention") {
        Section { table: None, .. } => global.section("retention"),
        own => own,
    };
    let keep = keep(retention, &mut notes);
    let targets = targets_of(draft, global, volume, &keep, &mut notes);
    if targets.is_empty() {
        notes.push(
            "no target of it is left, so it is NOT in this configuration: it would send nothing"
                .into(),
        );
        return draft.notes.extend(notes);
    }
    let prefix = volume.text_of("snapshot_prefix").unwrap_or_default();
    let name = match prefix.trim_end_matches(['-', '.', '_']) {
        "" => path.rsplit('/').next().unwrap_or_default().to_owned(),
        prefix => prefix.to_owned(),
    };
    let mut leave_out: Vec<String> =
        is_inside(&directory, &path).then_some(directory).into_iter().collect();
    let (mut existing, mut keep_snapshots) = (Vec::new(), keep);
    if is_snappers {
        notes.push("of snapper's snapshots, those of all kinds are sent: a type, or numbers to leave out, cannot be named".into());
        let (directory, called) = snapshots_of(&path);
        if !leave_out.contains(&directory) {
            leave_out.push(directory);
        }
        // They are snapper's to keep.
        (existing, keep_snapshots) = (vec![called, ("send", quoted("all"))], Vec::new());
    }
    let job = Job { path, leave_out, existing, targets, keep_snapshots, notes, ..Job::default() };
    draft.job(&name, job);
}

/// Where a volume's snapshots lie.
fn snapshot_dir(global: Section<'_>, volume: Section<'_>, path: &str) -> String {
    let directory = volume.text_of("snapshot_dir").or_else(|| global.text_of("snapshot_dir"));
    let directory = directory.unwrap_or_else(|| ".snapshots".into());
    let at = match directory.starts_with('/') {
        true => directory,
        false => format!("{path}/{directory}"),
    };
    Place::read(&at).and_then(|place| place.here()).unwrap_or_default()
}

/// The targets of a volume, each with the policy there.
fn targets_of(
    draft: &mut Draft,
    global: Section<'_>,
    volume: Section<'_>,
    keep: &[Pair],
    notes: &mut Vec<String>,
) -> Vec<(String, Vec<Pair>)> {
    let stall = global.whole("transfer_stall_timeout");
    let mut targets: Vec<(String, Vec<Pair>)> = Vec::new();
    for target in volume.sections("targets") {
        match target_of(draft, target, stall) {
            Ok(name) if targets.iter().any(|(known, _)| *known == name) => {}
            Ok(name) => targets.push((name, keep.to_vec())),
            Err(why) => {
                let (line, url) = (target.line("path"), target.text_of("path").unwrap_or_default());
                notes.push(format!("line {line}, {url} is NOT in this configuration: {why}"));
            }
        }
    }
    targets
}

/// Tells of transfers that were cut off: what is there of them is not whole.
fn locked(directory: &str, look: Look<'_>, notes: &mut Vec<String>) {
    for file in [".btrfs-backup-ng.locks", ".outstanding_transfers"] {
        let path = format!("{directory}/{file}");
        let Some(content) = look(&path) else { continue };
        let Ok(Value::Object(locks)) = serde_json::from_slice::<Value>(&content) else {
            notes.push(format!(
                "{path} cannot be read: see for yourself which transfers were cut off"
            ));
            continue;
        };
        for (snapshot, held) in locks {
            let to: Vec<&str> =
                held["locks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if !to.is_empty() {
                notes.push(format!(
                    "{path}: sending {snapshot} to {} was cut off: if it is there, delete it (btrfs subvolume delete) before you adopt",
                    to.join(", ")
                ));
            }
        }
    }
}

/// The name of the target that a target becomes, or why there is none.
fn target_of(draft: &mut Draft, target: Section<'_>, stall: Option<i64>) -> Result<String, String> {
    let text = target.text_of("path").unwrap_or_default();
    let mut notes = vec![format!("line {}, {text}", target.line("path"))];
    let mut keys: Vec<Pair> = Vec::new();
    let (engine, place) = if let Some(path) = text.strip_prefix("raw://") {
        ("streams", Place::read(path).ok_or("it is no path")?)
    } else if text.starts_with("raw+ssh://") {
        return Err(NO_STREAMS_THERE.into());
    } else if text.starts_with("shell://") {
        return Err("a shell command cannot tell what it has stored; see put-command and others of [targets.NAME.streams]".into());
    } else {
        ("btrfs", Place::read(&text).ok_or("it is neither a path nor a place behind ssh")?)
    };
    const READ: &[&str] =
        &["path", "require_mount", "rate_limit", "compress", "encrypt", "ssh_port", "ssh_key"];
    target.told(READ, &mut notes);
    match (&place, engine) {
        (Place::Here(path), "streams") => {
            keys.push(stored_in(path));
            notes.push(
                "what is stored there stays as it is and is not seen, so that all is sent once"
                    .into(),
            );
            if target.text_of("compress").is_none_or(|it| it == "none") {
                keys.push(("compression", quoted("none")));
            }
            if let Some(how) = target.text_of("encrypt").filter(|it| it != "none") {
                let (recipients, note) = encrypted(format_args!("encrypt = {how:?}"));
                keys.push(recipients);
                notes.push(note);
            }
        }
        (Place::Here(path), _) => {
            let (location, note) = received_in(path);
            keys.push(location);
            notes.push(note);
        }
        (Place::There { .. }, _) => {
            keys.extend(there(&place, target));
            notes.push("Stillpoint must be on that machine as well: see the README. What was sent there is not seen, so that all is sent once".into());
        }
    }
    if let (Place::Here(path), Some(true)) = (&place, target.flag("require_mount")) {
        keys.push(("require-mount", quoted(path)));
    }
    if let Some(rate) = target.text_of("rate_limit") {
        match limit(&rate, format_args!("rate_limit = {rate:?}")) {
            Ok(limit) => keys.push(limit),
            Err(note) => notes.push(note),
        }
    }
    if let Some(seconds) = stall.filter(|seconds| *seconds > 0) {
        keys.push(("stall-timeout", quoted(&format!("{seconds}s"))));
    }
    let here = place.here();
    Ok(draft.target(&place.name(), Target { name: String::new(), engine, keys, here, notes }))
}

/// The keys of a directory on another machine.
fn there(place: &Place, target: Section<'_>) -> Vec<Pair> {
    let port = target.whole("ssh_port").map(|port| port.to_string());
    let key = target.text_of("ssh_key");
    let mut options: Vec<&str> = key.iter().flat_map(|key| ["-i", key.as_str()]).collect();
    if target.text_of("compress").is_some_and(|it| it != "none") {
        options.push("-C");
    }
    behind_ssh(place, None, port, &options)
}

/// The policy, which is the same for snapshots and copies. What it says where it says nothing is its program's default.
fn keep(retention: Section<'_>, notes: &mut Vec<String>) -> Vec<Pair> {
    const COUNTS: [(&str, i64); 5] =
        [("hourly", 24), ("daily", 7), ("weekly", 4), ("monthly", 12), ("yearly", 0)];
    retention.told(&["min", "hourly", "daily", "weekly", "monthly", "yearly"], notes);
    let minimum = retention.text_of("min").unwrap_or_else(|| "1d".into());
    let Some(within) = span(&minimum) else {
        notes.push(format!("retention min = {minimum:?}: cannot be read, so all of it stays"));
        return Vec::new();
    };
    let mut keys: Vec<Pair> = within.into_iter().map(|span| ("within", quoted(&span))).collect();
    for (key, default) in COUNTS {
        let count = retention.whole(key).unwrap_or(default);
        keys.extend((count > 0).then(|| (key, count.to_string())));
    }
    if keys.is_empty() {
        keys.push(("last", "1".into()));
    }
    keys
}

/// A length of time as ours, no shorter than the longest that it may be; `Some(None)` for nothing.
fn span(text: &str) -> Option<Option<String>> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let count: u32 = text.strip_suffix(unit)?.trim().parse().ok()?;
    let span = match unit {
        'h' => format!("{count}h"),
        'd' => format!("{count}d"),
        'w' => format!("{count}w"),
        'm' | 'M' => format!("{}d", count.checked_mul(31)?),
        'y' | 'Y' => format!("{}d", count.checked_mul(366)?),
        _ => return None,
    };
    Some((count > 0).then_some(span))
}

impl<'t> Section<'t> {
    fn value(&self, key: &str) -> Option<&'t DeValue<'t>> {
        self.table?.get(key).map(|value| value.get_ref())
    }

    fn section(&self, key: &str) -> Section<'t> {
        let table = match self.value(key) {
            Some(DeValue::Table(table)) => Some(table),
            _ => None,
        };
        Section { text: self.text, table }
    }

    /// The tables of an array.
    fn sections(&self, key: &str) -> Vec<Section<'t>> {
        let Some(DeValue::Array(values)) = self.value(key) else { return Vec::new() };
        let tables = values.iter().filter_map(|value| match value.get_ref() {
            DeValue::Table(table) => Some(Section { text: self.text, table: Some(table) }),
            _ => None,
        });
        tables.collect()
    }

    fn text_of(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        }
    }

    fn whole(&self, key: &str) -> Option<i64> {
        match self.value(key)? {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The line on which a key stands; 1 where it does not.
    fn line(&self, key: &str) -> usize {
        let key = self.table.and_then(|table| table.get_key_value(key));
        key.map_or(1, |(key, _)| line_of(self.text, key.span().start))
    }

    /// Tells of what is not read.
    fn told(&self, read: &[&str], notes: &mut Vec<String>) {
        for (key, value) in self.table.into_iter().flatten() {
            if read.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let line = line_of(self.text, key.span().start);
            let says = self.text.get(key.span().start..value.span().end).unwrap_or_default();
            // What is a whole table is told by its name.
            let says = if says.contains('\n') { key.get_ref().as_ref() } else { says };
            let says = if is_secret(key.get_ref()) { key.get_ref().as_ref() } else { says };
            notes.push(format!("line {line}, {says}: {}", becomes(key.get_ref())));
        }
    }
}

/// What the configuration must not repeat.
fn is_secret(key: &str) -> bool {
    key.contains("password") || key.contains("passphrase") || key.contains("notifications")
}

fn becomes(key: &str) -> &'static str {
    match key {
        "timestamp_format" => {
            "copies are named by job, host and UTC; those that are there keep their names"
        }
        "incremental" => {
            "the newest snapshot of which a target has a copy is always the base, and all is sent where there is none"
        }
        "log_file" | "transaction_log" | "quiet" | "verbose" => {
            "has no equal: a run tells on standard error, and history has the rest"
        }
        "transfer_timeout" => "has no equal: what still moves is not stopped",
        "parallel_volumes" => {
            "is parallel in [settings], by default 1: so many jobs are at work at once, none two on one target"
        }
        "parallel_targets" => "has no equal: the targets of a job are served one after another",
        "notifications" => {
            "has no equal: see OnFailure= of the units, or the hooks on-failure and after"
        }
        "ssh_sudo" | "ssh_password_auth" => "has no equal: the login is root's, by a key",
        "ssh_auth_sock" | "ssh_host_key_policy" => "has no equal: say it in /root/.ssh/config",
        "gpg_recipient" | "gpg_keyring" | "openssl_cipher" => {
            "has no equal: streams are encrypted by age"
        }
        "skip_remote_lock" => "is not needed",
        _ => "is not known, and left out",
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}
