//! What captures use of btrfs-progs, on one file system in memory: subvolumes that the machine sees, and
//! snapshots in the top-level subvolume, which only a command with the right private mount reaches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stillpoint::host::{Access, CommandSpec, Effect, Exit, PrivateMount};

use super::fake_borg::Answer;

/// The device that the file system is on.
pub const DEVICE: &str = "/dev/sdb";

/// A snapshot in the top-level subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub uuid: String,
    pub parent_uuid: String,
    pub read_only: bool,
}

/// The file system.
#[derive(Debug, Clone, Default)]
pub struct FakeBtrfs {
    /// Subvolumes as the machine sees them, with their UUIDs.
    pub subvolumes: BTreeMap<PathBuf, String>,
    /// Which of them are nested in which other one.
    pub nested: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// What lies in the top-level subvolume, by name.
    pub top: BTreeMap<String, Snapshot>,
    made: u32,
}

impl FakeBtrfs {
    /// Carries out a command as btrfs would.
    ///
    /// # Panics
    /// On a command that nobody thought of.
    pub fn answer(&mut self, spec: &CommandSpec) -> Answer {
        let words: Vec<String> =
            spec.args.iter().map(|arg| arg.value().to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let top = top_of(spec);
        let name_of = |path: &str| -> String {
            let top = top.as_deref().expect("only below a private mount of the top level");
            let name = Path::new(path).strip_prefix(top).expect("a path in the top level");
            name.to_str().unwrap().to_owned()
        };
        match words.as_slice() {
            ["subvolume", "show", "--", path] => {
                let name = name_of(path);
                let found = self.top.get(&name);
                let text = found
                    .map(|found| shown(&name, &found.uuid, &found.parent_uuid, found.read_only));
                text.map_or_else(|| failure("Not a Btrfs subvolume: Invalid argument"), good)
            }
            // There is only this one.
            ["filesystem", "show", "--raw", "--", _] => {
                good("Label: none  uuid: fs-uuid\n\tTotal devices 1\n\n".into())
            }
            ["subvolume", "list", "-o", "--", path] => {
                assert_eq!(Some(Path::new(path)), top.as_deref());
                let lines = self.top.keys().enumerate().map(|(number, name)| {
                    format!("ID {} gen 31 top level 5 path {name}\n", 300 + number)
                });
                good(lines.collect())
            }
            ["subvolume", "snapshot", "-r", "--", source, path] => {
                let name = name_of(path);
                let Some(parent) = self.subvolumes.get(Path::new(source)) else {
                    return failure("Not a Btrfs subvolume: Invalid argument");
                };
                if self.top.contains_key(&name) {
                    return failure("target path already exists");
                }
                self.made += 1;
                let (uuid, parent_uuid) = (format!("snap-{}", self.made), parent.clone());
                self.top.insert(name, Snapshot { uuid, parent_uuid, read_only: true });
                good(String::new())
            }
            ["subvolume", "delete", "--commit-after", "--", path] => {
                match self.top.remove(&name_of(path)) {
                    Some(_) => good(String::new()),
                    None => failure("Could not find subvolume"),
                }
            }
            _ => panic!("the fake btrfs was not told about: {words:?}"),
        }
    }
}

/// Where the command sees the top-level subvolume.
fn top_of(spec: &CommandSpec) -> Option<PathBuf> {
    match spec.view.mounts.as_slice() {
        [] => None,
        [PrivateMount::Device { device, at, file_system, options, directory: None, access }] => {
            assert_eq!((file_system.as_str(), options.as_str()), ("btrfs", "subvolid=5"));
            assert_eq!(device, Path::new(DEVICE));
            let reads = spec.effect == Effect::Inspect;
            assert_eq!(*access, if reads { Access::Read } else { Access::Write });
            Some(at.clone())
        }
        mounts => panic!("a view that btrfs has no use for: {mounts:?}"),
    }
}

fn shown(name: &str, uuid: &str, parent: &str, read_only: bool) -> String {
    let flags = if read_only { "readonly" } else { "-" };
    format!(
        "{name}\n\tName: \t\t\t{name}\n\tUUID: \t\t\t{uuid}\n\tParent UUID: \t\t{parent}\n\tReceived UUID: \t\t-\n\tFlags: \t\t\t{flags}\n"
    )
}

fn good(stdout: String) -> Answer {
    Answer { exit: Exit::Code(0), stdout, stderr: Vec::new() }
}

fn failure(text: &str) -> Answer {
    Answer { exit: Exit::Code(1), stdout: String::new(), stderr: vec![format!("ERROR: {text}")] }
}
