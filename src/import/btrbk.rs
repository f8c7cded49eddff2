//! btrbk's configuration (btrbk.conf(5), version 0.32): sections without end marks, each with options that those in it
//! inherit.

use super::draft::{Draft, Job, NO_STREAMS_THERE, Pair, Place, Target, is_inside, quoted};
use super::draft::{THERE, behind_ssh, encrypted, limit, received_in, stored_in};
use super::lines::{Failed, Line, numbered, unquoted};

/// A section with its options.
#[derive(Debug, Clone, Default)]
struct Section<'t> {
    /// What it is of, and where that stands.
    of: Line<'t>,
    options: Vec<(&'t str, Line<'t>)>,
    targets: Vec<Section<'t>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    Global,
    Volume,
    Subvolume,
}

#[derive(Debug, Default)]
struct Volume<'t> {
    section: Section<'t>,
    /// Whether the file names it: subvolumes need none.
    is_named: bool,
    subvolumes: Vec<Section<'t>>,
}

#[derive(Debug, Default)]
struct File<'t> {
    global: Section<'t>,
    volumes: Vec<Volume<'t>>,
}

/// What a file becomes.
///
/// # Errors
/// When a line cannot be read, as btrbk could not.
pub(super) fn draft(text: &str) -> Result<Draft, Failed> {
    let file = read(text)?;
    let mut draft = Draft::default();
    told_of_options(&mut draft.notes, &[&file.global]);
    for volume in &file.volumes {
        let of_volume = &volume.section;
        told_of_options(&mut draft.notes, &[of_volume]);
        if volume.subvolumes.is_empty() {
            draft
                .notes
                .push(format!("{} has no subvolume, so nothing of it is sent", of_volume.of));
        }
        for subvolume in &volume.subvolumes {
            add(&mut draft, &file.global, volume, subvolume);
        }
    }
    Ok(draft)
}

/// Adds the job that a subvolume becomes.
fn add(draft: &mut Draft, global: &Section<'_>, volume: &Volume<'_>, subvolume: &Section<'_>) {
    let around = [subvolume, &volume.section, global];
    let left = |why: &str| format!("{} is NOT in this configuration: {why}", subvolume.of);
    let path = if !volume.is_named || subvolume.of.value.starts_with('/') {
        subvolume.of.value.to_owned()
    } else {
        format!("{}/{}", volume.section.of.value, subvolume.of.value)
    };
    let path = match Place::read(&path) {
        Some(Place::Here(path)) if !path.contains('*') => path,
        Some(Place::Here(_)) => {
            let why = "a pattern stands for several subvolumes, which are named one by one here";
            return draft.notes.push(left(why));
        }
        Some(Place::There { .. }) => {
            let why = "it is on another machine: name that in a job of its own (subvolumes.host and snapshots, see the README)";
            return draft.notes.push(left(why));
        }
        None => return draft.notes.push(left("it is no path")),
    };
    let mut notes = vec![format!("{}", subvolume.of)];
    told_of_options(&mut notes, &[subvolume]);
    let mut targets: Vec<(String, Vec<Pair>)> = Vec::new();
    let declared = around.iter().flat_map(|section| &section.targets);
    for target in declared {
        let of_target = [&[target][..], &around].concat();
        match target_of(draft, target, &of_target) {
            // The innermost section comes first.
            Ok(name) if targets.iter().any(|(known, _)| *known == name) => {}
            Ok(name) => targets.push((name, keep("target", &of_target, &mut notes))),
            Err(why) => notes.push(format!("{} is NOT in this configuration: {why}", target.of)),
        }
    }
    if targets.is_empty() {
        notes.push("no target of it is left, so the job is NOT in this configuration: it would send nothing".into());
        return draft.notes.extend(notes);
    }
    if let Some(create) = option(&around, "snapshot_create").filter(|it| it.value != "always") {
        notes.push(format!("{create}: has no equal, each run makes a snapshot"));
    }
    let name = option(&around, "snapshot_name").map(|line| line.value);
    let name = name.unwrap_or_else(|| path.rsplit('/').next().unwrap_or_default());
    let keep_snapshots = keep("snapshot", &around, &mut notes);
    let leave_out = snapshot_dir(&around, volume, &path).into_iter().collect();
    draft.job(
        name,
        Job { path: path.clone(), leave_out, targets, keep_snapshots, notes, ..Job::default() },
    );
}

/// Where btrbk's snapshots lie, if that is in the subvolume itself: none of them need be in a copy.
fn snapshot_dir(around: &[&Section<'_>], volume: &Volume<'_>, path: &str) -> Option<String> {
    let directory = option(around, "snapshot_dir").filter(|line| line.value != "no")?.value;
    let base = if volume.is_named { volume.section.of.value } else { path };
    let at = if directory.starts_with('/') {
        directory.to_owned()
    } else {
        format!("{base}/{directory}")
    };
    let Some(Place::Here(at)) = Place::read(&at) else { return None };
    is_inside(&at, path).then_some(at)
}

/// The name of the target that a target becomes, or why there is none.
fn target_of(
    draft: &mut Draft,
    target: &Section<'_>,
    around: &[&Section<'_>],
) -> Result<String, String> {
    let (kind, url) = match target.of.value.split_once(char::is_whitespace) {
        Some((kind, url)) if !kind.contains(['/', ':']) => (kind, unquoted(url.trim_start())),
        _ => ("send-receive", unquoted(target.of.value)),
    };
    let place = Place::read(url).ok_or("it is neither a path nor a place behind ssh")?;
    let mut notes = vec![format!("{}", target.of)];
    told_of_options(&mut notes, &[target]);
    let mut keys: Vec<Pair> = Vec::new();
    let engine = match (kind, &place) {
        ("send-receive", Place::Here(path)) => {
            let (location, note) = received_in(path);
            keys.push(location);
            notes.push(note);
            "btrfs"
        }
        ("send-receive", Place::There { .. }) => {
            keys.extend(there(&place, around));
            notes.push(THERE.into());
            "btrfs"
        }
        ("raw", Place::Here(path)) => {
            let (directory, note) = stored_in(path);
            keys.push(directory);
            notes.push(note);
            raw(around, &mut keys, &mut notes);
            "streams"
        }
        ("raw", Place::There { .. }) => return Err(NO_STREAMS_THERE.into()),
        (kind, _) => return Err(format!("there is no target of the kind {kind}")),
    };
    if let Some(line) = option(around, "rate_limit").filter(|line| line.value != "no") {
        match limit(line.value, line) {
            Ok(limit) => keys.push(limit),
            Err(note) => notes.push(note),
        }
    }
    let here = place.here();
    Ok(draft.target(&place.name(), Target { name: String::new(), engine, keys, here, notes }))
}

/// The keys of a directory on another machine.
fn there(place: &Place, around: &[&Section<'_>]) -> Vec<Pair> {
    let value = |key| option(around, key).map(|line| line.value).filter(|value| *value != "no");
    let port = value("ssh_port").filter(|port| *port != "default").map(str::to_owned);
    let mut options = Vec::new();
    if let Some(identity) = value("ssh_identity") {
        options.extend(["-i", identity]);
    }
    if let Some(ciphers) = value("ssh_cipher_spec").filter(|it| *it != "default") {
        options.extend(["-c", ciphers]);
    }
    if value("ssh_compression") == Some("yes") {
        options.push("-C");
    }
    behind_ssh(place, value("ssh_user"), port, &options)
}

fn raw(around: &[&Section<'_>], keys: &mut Vec<Pair>, notes: &mut Vec<String>) {
    notes.push(
        "what btrbk stored there stays as it is and is not seen, so that all is sent once".into(),
    );
    let value = |key| option(around, key).filter(|line| line.value != "no");
    match value("raw_target_compress") {
        None => keys.push(("compression", quoted("none"))),
        Some(line) if line.value == "zstd" => {}
        Some(line) => notes.push(format!("{line}: streams are compressed by zstd")),
    }
    if let Some(line) = value("raw_target_encrypt") {
        let (recipients, note) = encrypted(line);
        keys.push(recipients);
        notes.push(note);
    }
}

/// The policy of the snapshots or of the copies in a target.
fn keep(which: &str, around: &[&Section<'_>], notes: &mut Vec<String>) -> Vec<Pair> {
    let preserve = option(around, &format!("{which}_preserve"));
    let minimum = option(around, &format!("{which}_preserve_min"));
    let numbers =
        preserve.filter(|line| line.value != "no").map(|line| (line, periods(line.value)));
    let numbers = match numbers {
        None => Vec::new(),
        Some((_, Some(numbers))) => numbers,
        Some((line, None)) => {
            notes.push(format!("{line}: cannot be read, so all of it stays"));
            return vec![("semantics", quoted("btrbk")), ("preserve-min", quoted("all"))];
        }
    };
    let minimum = match minimum.map_or("all", |line| line.value) {
        // btrbk keeps its newest one all the same.
        "no" if numbers.is_empty() => "latest",
        minimum => minimum,
    };
    // All copies stay where there is no policy.
    if minimum == "all" && which == "target" {
        return Vec::new();
    }
    let mut keys = vec![("semantics", quoted("btrbk")), ("preserve-min", quoted(minimum))];
    keys.extend(numbers);
    let value = |key| option(around, key).map(|line| line.value);
    if let Some(day) = value("preserve_day_of_week").filter(|day| *day != "sunday") {
        keys.push(("preserve-day-of-week", quoted(day)));
    }
    if let Some(hour) = value("preserve_hour_of_day").and_then(|hour| hour.parse::<u8>().ok()) {
        keys.extend((hour != 0).then(|| ("preserve-hour-of-day", hour.to_string())));
    }
    keys
}

/// `14d 8w *m` as keys.
fn periods(value: &str) -> Option<Vec<Pair>> {
    const UNITS: [(char, &str); 5] =
        [('h', "hourly"), ('d', "daily"), ('w', "weekly"), ('m', "monthly"), ('y', "yearly")];
    let one = |word: &str| {
        let unit = word.chars().last()?;
        let count = word.strip_suffix(unit)?;
        let (_, key) = UNITS.iter().find(|(known, _)| *known == unit.to_ascii_lowercase())?;
        let count = match count {
            "*" => quoted("*"),
            count => count.parse::<u32>().ok()?.to_string(),
        };
        Some((*key, count))
    };
    value.split_whitespace().map(one).collect()
}

/// What an option is here, the innermost section first.
fn option<'s, 't>(around: &'s [&Section<'t>], key: &str) -> Option<&'s Line<'t>> {
    around.iter().find_map(|section| {
        section.options.iter().rfind(|(known, _)| *known == key).map(|(_, line)| line)
    })
}

/// Options that become keys, or that are told of where they would.
const READ: &[&str] = &[
    "snapshot_name",
    "snapshot_create",
    "snapshot_preserve",
    "snapshot_preserve_min",
    "target_preserve",
    "target_preserve_min",
    "preserve_day_of_week",
    "preserve_hour_of_day",
    "ssh_identity",
    "ssh_user",
    "ssh_port",
    "ssh_compression",
    "ssh_cipher_spec",
    "rate_limit",
    "raw_target_compress",
    "raw_target_encrypt",
];

/// What becomes of the others.
const OTHERS: &[(&[&str], &str)] = &[
    (
        &["timestamp_format"],
        "copies are named by job, host and UTC; those that are there keep their names",
    ),
    (
        &["snapshot_dir"],
        "snapshots lie in the top-level subvolume as .stillpoint.*; those that are there stay where they are, and may go when their copies are adopted and newer ones exist",
    ),
    (
        &["incremental", "incremental_prefs", "incremental_clones", "incremental_resolve"],
        "the newest snapshot of which the target has a copy is always the base, and all is sent where there is none",
    ),
    (&["group", "noauto"], "has no equal: name jobs when you run them"),
    (
        &[
            "lockfile",
            "transaction_log",
            "transaction_syslog",
            "cache_dir",
            "warn_unknown_targets",
            "ignore_extent_data_inline",
        ],
        "is not needed: locks and history are kept in any case",
    ),
    (
        &[
            "backend",
            "backend_local",
            "backend_remote",
            "backend_local_user",
            "compat",
            "compat_local",
            "compat_remote",
            "btrfs_progs_compat",
        ],
        "has no equal: Stillpoint runs as root, on both machines",
    ),
    (&["stream_buffer", "stream_buffer_remote", "rate_limit_remote"], "has no equal"),
    (
        &[
            "stream_compress",
            "stream_compress_level",
            "stream_compress_long",
            "stream_compress_threads",
            "stream_compress_adapt",
        ],
        "has no equal: let ssh compress (ssh-command = [\"ssh\", \"-C\"])",
    ),
    (
        &["btrfs_commit_delete", "safe_commands"],
        "is so in any case: what is deleted is gone for good before its record is",
    ),
    (
        &["snapshot_qgroup_destroy", "target_qgroup_destroy", "archive_qgroup_destroy"],
        "has no equal: newer kernels drop the groups of deleted subvolumes by themselves",
    ),
    (
        &["archive_preserve", "archive_preserve_min", "archive_exclude", "archive_exclude_older"],
        "has no equal: there is no archive verb",
    ),
    (
        &[
            "raw_target_compress_level",
            "raw_target_compress_long",
            "raw_target_compress_threads",
            "raw_target_block_size",
            "raw_target_split",
            "gpg_keyring",
            "gpg_recipient",
            "openssl_ciphername",
            "openssl_iv_size",
            "openssl_keyfile",
            "kdf_backend",
            "kdf_keysize",
            "kdf_keygen",
        ],
        "has no equal: streams are compressed by zstd and encrypted by age",
    ),
];

/// Tells of each line what it does not become.
fn told_of_options(notes: &mut Vec<String>, sections: &[&Section<'_>]) {
    for (key, line) in sections.iter().flat_map(|section| &section.options) {
        if READ.contains(key) {
            continue;
        }
        let becomes = OTHERS.iter().find(|(keys, _)| keys.contains(key)).map(|(_, what)| *what);
        notes.push(format!("{line}: {}", becomes.unwrap_or("is not known, and left out")));
    }
}

fn read(text: &str) -> Result<File<'_>, Failed> {
    let mut file = File::default();
    let (mut context, mut in_target) = (Context::Global, false);
    for (number, raw) in numbered(text) {
        let line = uncommented(raw).trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim_start();
        let is_key = key.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !is_key {
            return Err(Failed { line: number, what: "it is no option of btrbk's".into() });
        }
        let of = Line { number, text: line, value: unquoted(value) };
        match key.to_ascii_lowercase().as_str() {
            "volume" => {
                let section = Section { of, ..Section::default() };
                file.volumes.push(Volume { section, is_named: true, subvolumes: Vec::new() });
                (context, in_target) = (Context::Volume, false);
            }
            "subvolume" => {
                if context == Context::Global {
                    file.volumes.push(Volume::default());
                }
                let volume = file.volumes.last_mut();
                volume
                    .into_iter()
                    .for_each(|it| it.subvolumes.push(Section { of, ..Section::default() }));
                (context, in_target) = (Context::Subvolume, false);
            }
            "target" => {
                let target = Section { of: Line { value, ..of }, ..Section::default() };
                here(&mut file, context).targets.push(target);
                in_target = true;
            }
            _ => {
                let section = here(&mut file, context);
                let section = match section.targets.last_mut().filter(|_| in_target) {
                    Some(target) => target,
                    None => here(&mut file, context),
                };
                section.options.push((key, of));
            }
        }
    }
    Ok(file)
}

/// The section that is open.
fn here<'f, 't>(file: &'f mut File<'t>, context: Context) -> &'f mut Section<'t> {
    let File { global, volumes } = file;
    let Some(volume) = volumes.last_mut().filter(|_| context != Context::Global) else {
        return global;
    };
    let Volume { section, subvolumes, .. } = volume;
    match subvolumes.last_mut().filter(|_| context == Context::Subvolume) {
        Some(subvolume) => subvolume,
        None => section,
    }
}

/// A line without its comment: `#` begins one, but for within quotes.
fn uncommented(line: &str) -> &str {
    let mut quote = None;
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (None, '#') => return &line[..at],
            (None, '"' | '\'') if line[at + 1..].contains(letter) => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    line
}
