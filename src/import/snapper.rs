//! A configuration of snapper's (snapper-configs(5)): assignments as a shell reads them.

use super::draft::{Draft, Job, Pair, Place, Target, list, quoted};
use super::lines::{Failed, numbered, unquoted};

/// Where a person is asked to say where.
const SHELF: &str = "/mnt/shelf/copies";

/// What a file becomes.
///
/// # Errors
/// When a line is no assignment, it names no subvolume, or is of another file system than btrfs.
pub(super) fn draft(text: &str) -> Result<Draft, Failed> {
    let mut draft = Draft::default();
    let mut subvolume = None;
    let mut notes = Vec::new();
    for (number, line) in numbered(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_name =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let failed = |what: &str| Failed { line: number, what: what.to_owned() };
        let (name, value) = line
            .split_once('=')
            .filter(|(name, _)| is_name(name))
            .ok_or_else(|| failed("it is no assignment"))?;
        let value = unquoted(value.trim());
        match name {
            "SUBVOLUME" => {
                let Some(Place::Here(path)) = Place::read(value) else {
                    return Err(failed("the subvolume is no path"));
                };
                subvolume = Some((number, path));
            }
            "FSTYPE" if value == "btrfs" => {}
            "FSTYPE" => return Err(failed("only subvolumes of btrfs can be sent")),
            _ => notes.push(format!("line {number}, {line}: stays snapper's own")),
        }
    }
    let (number, path) =
        subvolume.ok_or_else(|| Failed { line: 1, what: "it names no SUBVOLUME".into() })?;
    let place = [
        "snapper sends nothing: say here where copies are to go, a directory of another btrfs, into which others may not come (chmod go-rwx)",
    ];
    let target = Target {
        name: String::new(),
        engine: "btrfs",
        keys: vec![("location", quoted(SHELF))],
        here: Some(SHELF.into()),
        notes: place.map(str::to_owned).into(),
    };
    let target = draft.target("shelf", target);
    draft.notes = vec![
        "snapper goes on making and deleting its snapshots as it does. Stillpoint sends the newest one that can no longer be changed, and never deletes any. Without existing = … each run makes a snapshot of its own instead.".into(),
        "If snapper deletes all that a target has copies of before the next run, that sends everything: have it keep some longer than targets are away.".into(),
    ];
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    notes.insert(0, format!("line {number}, SUBVOLUME={path}"));
    let (leave_out, existing) = snapshots_of(&path);
    let (leave_out, existing) = (vec![leave_out], vec![existing]);
    let targets = vec![(target, Vec::new())];
    draft.job(&name, Job { path, leave_out, existing, targets, notes, ..Job::default() });
    Ok(draft)
}

/// Where snapper puts its snapshots of a subvolume, and the key that says what their paths are like.
pub(super) fn snapshots_of(path: &str) -> (String, Pair) {
    let directory = format!("{}/.snapshots", path.trim_end_matches('/'));
    let called = format!("{directory}/*/snapshot");
    (directory, ("existing", list([called.as_str()])))
}
