//! btrfs-backup-ng's configuration (`config.toml`, versions 0.8 to 0.10), and the locks that it left.

use serde_json::Value;
use toml::de::DeTable;

use super::draft::{Draft, Job, NO_STREAMS_THERE, Pair, Place, Target, is_inside, quoted};
use super::draft::{THERE, behind_ssh, encrypted, limit, received_in, stored_in};
use super::lines::{Failed, Look};
use super::snapper::snapshots_of;

mod keep;
mod section;

use keep::Policy;
use section::{Section, line_of};

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
        "Of each hour, day, week, month and year the newest copy stays here, not the oldest. They are counted from the newest copy on, and not from where min ends: so as many more of them are named here as min may reach into."
            .into(),
    );
    root.told(&["global", "volumes"], &mut draft.notes);
    global.told(&["retention", "snapshot_dir", "transfer_stall_timeout"], &mut draft.notes);
    keep::told(global.section("retention"), &[], &mut draft.notes);
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

/// A volume that becomes a job.
#[derive(Clone, Copy)]
struct Volume<'t> {
    global: Section<'t>,
    own: Section<'t>,
    /// Its snapshots are snapper's.
    is_snappers: bool,
}

/// Adds the job that a volume becomes.
fn add(draft: &mut Draft, global: Section<'_>, own: Section<'_>, look: Look<'_>) {
    const READ: &[&str] = &[
        "path",
        "enabled",
        "targets",
        "retention",
        "source_retention",
        "snapshot_dir",
        "snapshot_prefix",
        "source",
        "snapper",
    ];
    let line = own.line("path");
    let Some(Place::Here(path)) = own.text_of("path").as_deref().and_then(Place::read) else {
        let what = "a volume without a path of this machine is NOT in this configuration: name the other one in a job of its own (subvolumes.host and snapshots, see the README)";
        return draft.notes.push(format!("line {line}: {what}"));
    };
    let mut notes = vec![format!("line {line}, {path}")];
    if own.flag("enabled") == Some(false) {
        notes.push("it is not enabled, so it is NOT in this configuration".into());
        return draft.notes.extend(notes);
    }
    own.told(READ, &mut notes);
    let is_snappers = own.text_of("source").as_deref() == Some("snapper");
    let volume = Volume { global, own, is_snappers };
    let directory = snapshot_dir(global, own, &path);
    locked(&directory, look, &mut notes);
    keep::told(own.section("retention"), &[global.section("retention")], &mut notes);
    let targets = targets_of(draft, volume, &mut notes);
    if targets.is_empty() {
        notes.push(
            "no target of it is left, so it is NOT in this configuration: it would send nothing"
                .into(),
        );
        return draft.notes.extend(notes);
    }
    let mut job = Job { path, targets, notes, ..Job::default() };
    match is_snappers {
        true => snappers(volume, &mut job),
        false => natives(volume, &directory, &mut job),
    }
    let name = own.text_of("snapshot_prefix").unwrap_or_default();
    let name = match name.trim_end_matches(['-', '.', '_']) {
        // It is made of the path there, too.
        "" => job.path.trim_matches('/').replace('/', "-"),
        prefix => prefix.to_owned(),
    };
    draft.job(&name, job);
}

/// What a job makes snapshots of itself.
fn natives(volume: Volume<'_>, directory: &str, job: &mut Job) {
    let scopes = volume.scopes(volume.own.section("source_retention"), &mut job.notes);
    job.keep_snapshots = Policy::of(&scopes, &mut job.notes).of_snapshots();
    job.notes.push(format!("what is in {directory} is the base of the first difference, and is never deleted: do so yourself when you need it no more (btrfs subvolume delete)"));
    if is_inside(directory, &job.path) {
        job.leave_out.push(directory.to_owned());
    }
}

/// What snapper makes snapshots of, and keeps.
fn snappers(volume: Volume<'_>, job: &mut Job) {
    volume.own.section("snapper").told(&["config_name"], &mut job.notes);
    let (directory, called) = snapshots_of(&job.path);
    job.leave_out.push(directory);
    job.existing = vec![called, ("send", quoted("all"))];
}

impl<'t> Volume<'t> {
    /// The policies that hold for something of it, the widest first.
    fn scopes(&self, narrowest: Section<'t>, notes: &mut Vec<String>) -> [Section<'t>; 3] {
        let [global, own] = [self.global, self.own].map(|around| around.section("retention"));
        keep::told(narrowest, &[global, own], notes);
        [global, own, narrowest]
    }
}

/// Where a volume's snapshots lie: below the volume, or in a directory of its name in one that may be elsewhere.
fn snapshot_dir(global: Section<'_>, volume: Section<'_>, path: &str) -> String {
    let directory = volume.text_of("snapshot_dir").or_else(|| global.text_of("snapshot_dir"));
    let directory = directory.unwrap_or_else(|| ".snapshots".into());
    let at = match directory.starts_with('/') {
        true => format!("{directory}/{}", path.rsplit('/').next().unwrap_or_default()),
        false => format!("{path}/{directory}"),
    };
    let mut names: Vec<&str> = Vec::new();
    for name in at.split('/').filter(|name| !name.is_empty() && *name != ".") {
        match name {
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// The targets of a volume, each with the policy there.
fn targets_of(
    draft: &mut Draft,
    volume: Volume<'_>,
    notes: &mut Vec<String>,
) -> Vec<(String, Vec<Pair>)> {
    let mut targets: Vec<(String, Vec<Pair>)> = Vec::new();
    for target in volume.own.sections("targets") {
        let (line, url) = (target.line("path"), target.text_of("path").unwrap_or_default());
        match target_of(draft, volume, target) {
            Ok(name) if targets.iter().any(|(known, _)| *known == name) => {}
            Ok(name) => {
                let mut said = Vec::new();
                let scopes = volume.scopes(target.section("retention"), &mut said);
                let keep = Policy::of(&scopes, &mut said).of_copies();
                notes.extend(said.into_iter().map(|said| format!("line {line}, {url}: {said}")));
                targets.push((name, keep));
            }
            Err(why) => {
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
            // What is stored as a stream is not adopted.
            let to: Vec<&str> = to.into_iter().filter(|to| !to.starts_with("raw")).collect();
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
fn target_of(draft: &mut Draft, volume: Volume<'_>, target: Section<'_>) -> Result<String, String> {
    let text = target.text_of("path").unwrap_or_default();
    let text = text.trim();
    let mut notes = vec![format!("line {}, {text}", target.line("path"))];
    let mut keys: Vec<Pair> = Vec::new();
    let (engine, place) = if let Some(path) = text.strip_prefix("raw://") {
        ("streams", Place::read(path).ok_or("it is no path")?)
    } else if text.starts_with("raw+ssh://") {
        return Err(NO_STREAMS_THERE.into());
    } else if text.starts_with("shell://") {
        return Err("a shell command cannot tell what it has stored; see put-command and others of [targets.NAME.streams]".into());
    } else {
        ("btrfs", Place::read(text).ok_or("it is neither a path nor a place behind ssh")?)
    };
    const READ: &[&str] = &[
        "path",
        "retention",
        "require_mount",
        "optional",
        "rate_limit",
        "compress",
        "encrypt",
        "ssh_port",
        "ssh_key",
    ];
    target.told(READ, &mut notes);
    let mount = mounted(&place, target, &mut notes);
    let name = place.name();
    let place = match engine {
        "btrfs" if volume.is_snappers => snappers_copies(place),
        _ => place,
    };
    match (&place, engine) {
        (Place::Here(path), "streams") => stored(path, target, &mut keys, &mut notes),
        (Place::Here(path), _) => {
            let (location, note) = received_in(path);
            keys.push(location);
            notes.push(note);
        }
        (Place::There { .. }, _) => {
            keys.extend(there(&place, target));
            notes.push(THERE.into());
        }
    }
    keys.extend(mount);
    if let Some(rate) = target.text_of("rate_limit") {
        match limit(&rate, format_args!("rate_limit = {rate:?}")) {
            Ok(limit) => keys.push(limit),
            Err(note) => notes.push(note),
        }
    }
    let stall = volume.global.whole("transfer_stall_timeout");
    if let Some(seconds) = stall.filter(|seconds| *seconds > 0) {
        keys.push(("stall-timeout", quoted(&format!("{seconds}s"))));
    }
    let here = place.here();
    Ok(draft.target(&name, Target { name: String::new(), engine, keys, here, notes }))
}

/// Where the copies of snapper's snapshots lie in a target: numbered as snapper itself has them.
fn snappers_copies(place: Place) -> Place {
    let below = |path: &str| format!("{}/.snapshots", path.trim_end_matches('/'));
    match place {
        Place::Here(path) => Place::Here(below(&path)),
        Place::There { user, host, port, path } => {
            Place::There { user, host, port, path: below(&path) }
        }
    }
}

/// A directory of streams.
fn stored(path: &str, target: Section<'_>, keys: &mut Vec<Pair>, notes: &mut Vec<String>) {
    let (directory, note) = stored_in(path);
    keys.push(directory);
    notes.push(note);
    notes.push(
        "what is stored there stays as it is and is not seen, so that all is sent once".into(),
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

/// What must be mounted, and whether a target may be away.
fn mounted(place: &Place, target: Section<'_>, notes: &mut Vec<String>) -> Vec<Pair> {
    let mount = match (place, target.switch("require_mount")) {
        (Place::Here(path), Some(true)) => Some(path.clone()),
        (Place::Here(_), None) => target.text_of("require_mount"),
        (Place::Here(_), Some(false)) | (Place::There { .. }, _) => None,
    };
    let around = |mount: &String| {
        let path = place.here().unwrap_or_default();
        mount != "/" && (path == *mount || is_inside(&path, mount))
    };
    let known = mount.as_deref().and_then(Place::read).and_then(|it| it.here()).filter(around);
    if mount.is_some() && known.is_none() {
        let says = target.says("require_mount");
        notes.push(format!(
            "{says}: is no mount point around it, so nothing is said of what must be mounted"
        ));
    }
    let mut keys: Vec<Pair> = known.iter().map(|mount| ("require-mount", quoted(mount))).collect();
    match (target.switch("optional"), place) {
        (Some(true), Place::Here(_)) if known.is_some() => keys.push(("when-absent", quoted("skip"))),
        (Some(true), Place::Here(_)) => notes.push("optional = true: say in require-mount what is away then; when-absent = \"skip\" is told by that".into()),
        (Some(true), Place::There { .. }) => {
            notes.push("optional = true: has no equal, a machine that is away is an error".into());
        }
        (Some(false) | None, _) => {}
    }
    keys
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
