//! btrfs-progs: making, recognising and deleting snapshots.
//!
//! All of them work in the top-level subvolume, which only the command itself sees mounted: so a snapshot
//! lies outside every source tree, and nobody on the machine stumbles over it.

use std::path::Path;

use crate::host::{Access, CommandSpec, Effect, PrivateMount, PrivateView, Tool};

/// A command that sees the top-level subvolume of the file system on `device` at `top`, an empty directory.
fn at_top(effect: Effect, device: &Path, top: &Path) -> CommandSpec {
    let mut spec = CommandSpec::new(Tool::Btrfs, effect);
    spec.view = PrivateView {
        mounts: vec![PrivateMount::Device {
            device: device.to_owned(),
            at: top.to_owned(),
            file_system: "btrfs".into(),
            // 5 is the id of the top-level subvolume, BTRFS_FS_TREE_OBJECTID.
            options: "subvolid=5".into(),
            directory: None,
            access: if effect == Effect::Inspect { Access::Read } else { Access::Write },
        }],
        ..PrivateView::default()
    };
    spec
}

/// Makes a read-only snapshot of the subvolume at `source` as `name` in the top-level subvolume.
pub fn snapshot(device: &Path, top: &Path, source: &Path, name: &str) -> CommandSpec {
    at_top(Effect::Mutate, device, top)
        .args(["subvolume", "snapshot", "-r", "--"])
        .arg(source)
        .arg(top.join(name))
}

/// Asks what the subvolume `name` of the top-level subvolume is. The answer begins with the name as it is, so it can
/// be believed only of a name that is ours.
pub fn show(device: &Path, top: &Path, name: &str) -> CommandSpec {
    at_top(Effect::Inspect, device, top).args(["subvolume", "show", "--"]).arg(top.join(name))
}

/// Asks which file system is mounted at a path, or lies on a device.
pub fn show_file_system(place: &Path) -> CommandSpec {
    CommandSpec::new(Tool::Btrfs, Effect::Inspect)
        .args(["filesystem", "show", "--raw", "--"])
        .arg(place)
}

/// The UUID, from what [`show_file_system`] printed.
///
/// # Errors
/// When it printed none, or more than one.
pub fn parse_file_system(text: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(text);
    // A label may hold the word as well, and stands before it.
    let heads = text.lines().filter(|line| line.starts_with("Label:"));
    let mut uuids = heads.filter_map(|line| line.rsplit_once("uuid: ")).map(|(_, uuid)| uuid);
    match (uuids.next(), uuids.next()) {
        (Some(uuid), None) => Ok(uuid.trim().to_owned()),
        _ => Err(format!("btrfs filesystem show did not name one file system: {:?}", text.trim())),
    }
}

/// Lists what lies in the top-level subvolume, to see whether a name is there.
pub fn list(device: &Path, top: &Path) -> CommandSpec {
    at_top(Effect::Inspect, device, top).args(["subvolume", "list", "-o", "--"]).arg(top)
}

/// Deletes the subvolume `name` of the top-level subvolume, durably.
pub fn delete(device: &Path, top: &Path, name: &str) -> CommandSpec {
    at_top(Effect::Mutate, device, top)
        .args(["subvolume", "delete", "--commit-after", "--"])
        .arg(top.join(name))
}

/// What a subvolume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subvolume {
    /// Its UUID; the top-level subvolume of an old file system has none.
    pub uuid: Option<String>,
    /// The UUID of the subvolume it is a snapshot of.
    pub parent_uuid: Option<String>,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// Reads what [`show`] printed: the first line of each kind, since names that others chose come after them.
///
/// # Errors
/// When a line that every subvolume has is missing.
pub fn parse_show(text: &[u8]) -> Result<Subvolume, String> {
    let text = String::from_utf8_lossy(text);
    let field = |name: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(name)).map(|value| {
            let value = value.trim().to_owned();
            Some(value).filter(|value| value != "-")
        })
    };
    let uuid = field("UUID:").ok_or("btrfs subvolume show printed no UUID")?;
    let parent_uuid = field("Parent UUID:").ok_or("btrfs subvolume show printed no parent UUID")?;
    let flags = field("Flags:").ok_or("btrfs subvolume show printed no flags")?;
    Ok(Subvolume {
        uuid,
        parent_uuid,
        read_only: flags.is_some_and(|flags| flags.split(',').any(|flag| flag == "readonly")),
    })
}

/// The mount by which an engine sees a snapshot over the original path.
pub fn mount_of(device: &Path, name: &str, at: &Path, access: Access) -> PrivateMount {
    PrivateMount::Device {
        device: device.to_owned(),
        at: at.to_owned(),
        file_system: "btrfs".into(),
        options: format!("subvol=/{name}"),
        directory: None,
        access,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "home
\tName: \t\t\thome
\tUUID: \t\t\t8f3c0a51-0000-4f3b-8f3c-0a510f3b8f3c
\tParent UUID: \t\t-
\tReceived UUID: \t\t-
\tCreation time: \t\t2026-11-21 02:03:04 +0000
\tSubvolume ID: \t\t257
\tGeneration: \t\t31
\tFlags: \t\t\t-
\tSnapshot(s):
\t\t\t\t.stillpoint.0a1b2c3d.0
";

    #[test]
    fn a_subvolume_is_read() {
        let shown = parse_show(SHOWN.as_bytes()).unwrap();
        assert_eq!(shown.uuid.as_deref(), Some("8f3c0a51-0000-4f3b-8f3c-0a510f3b8f3c"));
        assert_eq!((shown.parent_uuid, shown.read_only), (None, false));
        let text = SHOWN.replace("Flags: \t\t\t-", "Flags: \t\t\treadonly");
        assert!(parse_show(text.as_bytes()).unwrap().read_only);
        assert!(parse_show(b"ERROR: not a subvolume\n").is_err());
    }

    #[test]
    fn a_file_system_is_known_by_its_uuid() {
        let shown = "Label: 'my uuid: x'  uuid: 45681ed6-2d96-4481-bcaa-e0876d9524e8
\tTotal devices 1 FS bytes used 245760
\tdevid    1 size 419430400 used 92274688 path /dev/loop0

";
        let uuid = Ok("45681ed6-2d96-4481-bcaa-e0876d9524e8".to_owned());
        assert_eq!(parse_file_system(shown.as_bytes()), uuid);
        assert!(parse_file_system(b"").is_err());
        assert!(parse_file_system(shown.repeat(2).as_bytes()).is_err());
    }

    #[test]
    fn only_the_command_sees_the_top_level() {
        let spec =
            snapshot(Path::new("/dev/sda"), Path::new("/run/s/mnt"), Path::new("/home"), ".s.1.0");
        assert_eq!(spec.display(), "btrfs subvolume snapshot -r -- /home /run/s/mnt/.s.1.0");
        assert_eq!(spec.view.mounts.len(), 1);
        assert_eq!(spec.effect, Effect::Mutate);
    }
}
