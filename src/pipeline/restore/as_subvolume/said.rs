//! What a person should know of a subvolume that was restored.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::host::Subvolume;
use crate::host::spec::quote;
use crate::model::copy::Copy;
use crate::model::names::JobName;
use crate::model::shown::Show;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::place::Place;

/// The longest name that a file system takes, in bytes.
const LONGEST_NAME: usize = 255;

/// Where what lies at a path goes.
pub(super) fn aside(path: &Path, now: DateTime<Utc>) -> PathBuf {
    let suffix = now.format(".before-restore.%Y%m%dT%H%M%SZ").to_string();
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut name = name[..name.len().min(LONGEST_NAME - suffix.len())].to_vec();
    name.extend(suffix.as_bytes());
    path.with_file_name(OsString::from_vec(name))
}

/// What is said of a copy in whose place the copy around it has something of its own.
pub(super) fn has_no_room(copy: &Copy) -> String {
    format!(
        "{} is not put back as well: the copy around it has a directory or a file in its place, as there is where a subvolume is mounted — restore it by itself with --item {}",
        copy.id,
        quote(item(copy))
    )
}

/// What is said of a copy that could not be put back into its place.
pub(super) fn is_not_put_back(copy: &Copy, error: &StepError) -> String {
    format!(
        "{} could not be put into its place ({error}) — restore it by itself with --item {}",
        copy.id,
        quote(item(copy))
    )
}

fn item(copy: &Copy) -> &Path {
    let series = copy.series.as_ref();
    Path::new(series.and_then(|series| series.item.as_deref()).unwrap_or_default())
}

/// What is said of subvolumes of a job of which there is no copy by the same run.
pub(super) fn lacking(lacking: &[(JobName, PathBuf)]) -> Vec<String> {
    let told = |(job, path): &(JobName, PathBuf)| {
        format!(
            "the run that made this copy made none of {path}, so nothing is there: `stillpoint restore {job} --item {quoted} --as-subvolume --in-place` restores the newest one there is",
            path = path.shown(),
            quoted = quote(path)
        )
    };
    lacking.iter().map(told).collect()
}

/// An error that comes after all that was to be done, which it must not hide.
pub(super) fn after_all(place: &Place, aside: Option<&Path>, error: StepError) -> StepError {
    let place = place.at.shown();
    let done = match aside {
        Some(aside) => format!(
            "{place} and its copy have changed places, and what was there before is {} from the top-level subvolume on",
            aside.shown()
        ),
        None => format!("the copy was put at {place}"),
    };
    StepError { message: format!("{done}; but then: {}", error.message), ..error }
}

/// What lay in the subvolume that was there before and is in the new one no more.
pub(super) fn left_behind(
    cx: RunContext<'_>,
    place: &Place,
    restitched: &[PathBuf],
) -> Vec<String> {
    let mounted = place.mounted.iter().map(|at| {
        format!(
            "what is mounted at {} {} mounted in what was there before: mount it again",
            at.shown(),
            cx.tense("stays", "would stay")
        )
    });
    let nested = place
        .nested
        .iter()
        .filter(|nested| !restitched.contains(nested))
        .map(|nested| {
            format!(
                "the subvolume {} {} in what was there before: move it from there, or restore it by itself",
                place.at.join(nested).shown(),
                cx.tense("stays", "would stay")
            )
        });
    nested.chain(mounted).collect()
}

/// What else there is to say.
pub(super) fn notes(
    cx: RunContext<'_>,
    place: &Place,
    before: Option<&Path>,
    made: &Subvolume,
) -> Vec<String> {
    let (Some(before), Some(live)) = (before, &place.live) else { return Vec::new() };
    let mut notes = Vec::new();
    let showing: Vec<String> = place.showing.iter().map(|at| at.shown().to_string()).collect();
    let is_mounted = place.beside == place.at;
    if is_mounted {
        notes.push(format!(
            "what was there before is {} in the top-level subvolume now: `mount -o subvolid=5 {device} DIR` and `btrfs subvolume delete DIR/{}` delete it",
            before.shown(),
            quote(before),
            device = quote(&place.device),
        ));
    } else {
        let before = place.at.with_file_name(before.file_name().unwrap_or_default());
        notes.push(format!(
            "what was there before is {}: `btrfs subvolume delete {}` deletes it",
            before.shown(),
            quote(&before)
        ));
    }
    if !showing.is_empty() {
        notes.push(format!(
            "{} shows what was there before until it is mounted again (umount and mount, or a new boot)",
            showing.join(", ")
        ));
    }
    let by_number = mounted_by_number(cx, &place.at, live.found.id);
    notes.extend(by_number.map(|how| {
        let new = made.id.map_or("the new one's number".to_owned(), |id| id.to_string());
        let (how, remedy) = match how {
            ByNumber::Named => (
                "by subvolid= in /etc/fstab",
                format!("write subvolid={new} there, or subvol=/{}", place.path.shown()),
            ),
            ByNumber::Default => (
                "by /etc/fstab as the default subvolume, which is known by its number",
                format!("`btrfs subvolume set-default {new} {}`", quote(&place.at)),
            ),
        };
        let at = place.at.shown();
        format!("{at} is mounted {how}: that is what was there before, so {remedy}")
    }));
    notes.push("it is another subvolume to btrfs, so the next run sends all of it".to_owned());
    notes
}

/// How `/etc/fstab` mounts a subvolume that it means by its number.
enum ByNumber {
    /// It says the number.
    Named,
    /// It says nothing, and means the default subvolume.
    Default,
}

/// How the system mounts a place, if that means this very subvolume and no other one of its path.
fn mounted_by_number(cx: RunContext<'_>, at: &Path, id: Option<u64>) -> Option<ByNumber> {
    let table = cx.host().read(Path::new("/etc/fstab")).ok()?;
    let table = String::from_utf8_lossy(&table).into_owned();
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, place, "btrfs", options, ..] = fields.as_slice() else { return None };
        if place.starts_with('#') || Path::new(&place.replace("\\040", " ")) != at {
            return None;
        }
        let says = |key: &str| options.split(',').find_map(|option| option.strip_prefix(key));
        match says("subvolid=") {
            Some(number) => (number.parse().ok() == id).then_some(ByNumber::Named),
            None if says("subvol=").is_none() => Some(ByNumber::Default),
            None => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_has_a_name_that_the_file_system_takes() {
        let now = DateTime::from_timestamp(1_795_745_700, 0).unwrap();
        let suffix = now.format(".before-restore.%Y%m%dT%H%M%SZ").to_string();
        let of = |path: &str| aside(Path::new(path), now);
        assert_eq!(of("a/@home"), PathBuf::from(format!("a/@home{suffix}")));
        let long = of(&format!("a/{}", "x".repeat(255)));
        assert_eq!(long.file_name().unwrap().len(), LONGEST_NAME);
        assert!(long.to_str().unwrap().ends_with(&suffix));
    }
}
