//! A machine from which subvolumes are pulled: what its programs do with them and with the snapshots of ours there, and say.

use std::path::{Path, PathBuf};

use stillpoint::host::{CommandSpec, Exit, Subvolume};

use super::fake_borg::Answer;
use super::fake_btrfs::{self, FakeBtrfs};
use super::fake_plain::{Plain, head, or_none};
use super::world::World;

/// The directory of our snapshots there.
pub const SNAPSHOTS: &str = "/snaps/.stillpoint";

/// The number of its file system.
const ID: &str = "eb27ea8356ee50d1";

/// The sender of a chain as it is run there, if another machine sends, and what it sends from.
pub fn sender(world: &World, first: &CommandSpec) -> Option<(FakeBtrfs, CommandSpec)> {
    let mut there = Plain::of(first).filter(|there| there.words()[..2] == ["btrfs", "send"])?;
    for arg in &mut there.spec.args {
        let place = Path::new(&arg).strip_prefix(SNAPSHOTS).ok().and_then(Path::parent);
        if let Some(name) = place.map(Path::to_owned) {
            *arg = name.into();
        }
    }
    Some((world.server.as_ref()?.world.btrfs.clone(), there.spec))
}

/// The name of what is in a directory of its own.
fn name_of(below: &Path) -> &str {
    assert!(below.ends_with("snapshot"), "{below:?}");
    below.parent().unwrap().to_str().unwrap()
}

/// The subvolume at a path.
fn at(btrfs: &FakeBtrfs, path: &Path) -> Option<Subvolume> {
    match path.strip_prefix(SNAPSHOTS) {
        Ok(below) => btrfs.find(Path::new(fake_btrfs::DEVICE), name_of(below)),
        Err(_) => btrfs.at(path),
    }
}

fn is_made(world: &World) -> bool {
    world.files.contains_key(Path::new(SNAPSHOTS))
}

fn missing(at: &Path) -> Answer {
    Answer {
        exit: Exit::Code(1),
        stdout: Vec::new(),
        stderr: vec![format!("stat: cannot find '{}': No such file or directory", at.display())],
    }
}

/// What a program says that looks at something of these.
pub fn look(world: &World, words: &[&str]) -> Option<Answer> {
    let btrfs = &world.btrfs;
    let path = Path::new(words.last()?);
    let is_ours = Path::new(SNAPSHOTS).starts_with(path) || path.starts_with(SNAPSHOTS);
    Some(match words {
        ["stat", "-f", "-c", "%t %i", "--", _] => {
            match path == Path::new(SNAPSHOTS) && !is_made(world) {
                true => missing(path),
                false => Answer::good(format!("9123683e {}\n", world.other_id.unwrap_or(ID))),
            }
        }
        ["stat", "--printf", _, "--", paths @ ..] if is_ours => {
            let mut answer = Answer::good("");
            for path in paths.iter().map(Path::new) {
                let mode = match path {
                    path if path == Path::new(SNAPSHOTS) => is_made(world).then_some("41c0"),
                    path if Path::new(SNAPSHOTS).starts_with(path) => Some("41ed"),
                    path => at(btrfs, path).map(|_| "41ed"),
                };
                match mode {
                    Some(mode) => {
                        answer.stdout.extend(format!("{mode} 0 {}\0", path.display()).into_bytes())
                    }
                    None => {
                        let Answer { exit, stderr, .. } = missing(path);
                        (answer.exit, answer.stderr) = (exit, stderr);
                    }
                }
            }
            answer
        }
        ["btrfs", "subvolume", "show", "--", _] => match at(btrfs, path) {
            Some(found) => Answer::good(shown(path, &found)),
            None => missing(path),
        },
        ["btrfs", "subvolume", "list", "-o", "--", _] => {
            let nested: Vec<PathBuf> = btrfs.nested.get(path).cloned().unwrap_or_default();
            let line = |nested: &PathBuf| {
                format!("ID 300 gen 9 top level 256 path @{}\n", nested.display())
            };
            Answer::good(nested.iter().map(line).collect::<String>())
        }
        ["btrfs", "send", "-q", "--no-data", "-p", one, "--", same] if one == same => {
            match at(btrfs, path).and_then(|found| head(path, found)) {
                Some(stdout) => Answer { stdout, ..Answer::good("") },
                None => missing(path),
            }
        }
        _ => return None,
    })
}

fn shown(path: &Path, found: &Subvolume) -> String {
    format!(
        "@{}\n\tName: \t\t\tx\n\tUUID: \t\t\t{}\n\tParent UUID: \t\t{}\n\tReceived UUID: \t\t-\n\tCreation time: \t\t2026-11-27 02:03:04 +0100\n\tSubvolume ID: \t\t{}\n\tGen at creation: \t1\n\tFlags: \t\t\t{}\n\tSend transid: \t\t0\n\tSnapshot(s):\n",
        path.display(),
        or_none(&found.uuid),
        or_none(&found.parent_uuid),
        found.id.unwrap(),
        if found.read_only { "readonly" } else { "-" },
    )
}

/// What one does that changes something of these.
pub fn change(world: &mut World, words: &[&str]) -> Option<Answer> {
    let device = Path::new(fake_btrfs::DEVICE);
    let path = Path::new(words.last()?);
    if !Path::new(SNAPSHOTS).starts_with(path) && !path.starts_with(SNAPSHOTS) {
        return None;
    }
    match words {
        ["mkdir", "-p", "-m", "0700", "--", _] => {
            world.files.insert(SNAPSHOTS.into(), Vec::new());
        }
        ["mkdir", "-m", "0700", "--", _] => {
            assert!(is_made(world) && world.files.insert(path.into(), Vec::new()).is_none());
        }
        ["rmdir", "--", _] => {
            if world.files.contains_key(path) && std::mem::take(&mut world.is_late) {
                let origin = world.btrfs.at(Path::new("/home")).unwrap();
                let name = path.file_name().unwrap().to_str().unwrap();
                world.btrfs.make(device, &origin, name).unwrap();
            }
            if at(&world.btrfs, &path.join("snapshot")).is_some() {
                let said =
                    format!("rmdir: failed to remove '{}': Directory not empty", path.display());
                return Some(Answer {
                    exit: Exit::Code(1),
                    stdout: Vec::new(),
                    stderr: vec![said],
                });
            }
            if world.files.remove(path).is_none() {
                let said = format!(
                    "rmdir: failed to remove '{}': No such file or directory",
                    path.display()
                );
                return Some(Answer {
                    exit: Exit::Code(1),
                    stdout: Vec::new(),
                    stderr: vec![said],
                });
            }
        }
        ["btrfs", "subvolume", "snapshot", "-r", "--", of, _] => {
            let place = path.parent().unwrap();
            if !world.files.contains_key(place) {
                return Some(missing(place));
            }
            let name = name_of(path.strip_prefix(SNAPSHOTS).unwrap());
            let Some(origin) = world.btrfs.at(Path::new(of)) else {
                return Some(missing(Path::new(of)));
            };
            world.btrfs.make(device, &origin, name).unwrap();
        }
        ["btrfs", "subvolume", "delete", "-c", "--", _] => {
            let found = at(&world.btrfs, path).expect("it was looked at");
            let name = name_of(path.strip_prefix(SNAPSHOTS).unwrap());
            assert!(world.btrfs.delete(device, &found, name));
            world.btrfs.commit(device);
        }
        ["sync", "-f", "--", _] => world.btrfs.commit(device),
        _ => return None,
    }
    Some(Answer::good(""))
}
