//! How a files job is held still: the keys of `[jobs.NAME.files]` that say it, and what they and the hooks
//! `quiesce` and `resume` mean together.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::hooks::{QUIESCE, RESUME};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::{Choice, Elements, Read, Scalar, wrong_type};
use crate::config::kinds::{FLAG, LONG_SPAN, PATHS, PERCENT, TEXTS};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::Node;
use crate::model::job::{CaptureMode, CapturePolicy, ClassicSize, ThinLimits};
use crate::model::shown::Show;
use crate::model::size::{bytes, whole_percent};

/// Services that hang for longer are a worse harm than a copy that does not show one moment.
const LONGEST_FREEZE: Duration = Duration::from_secs(5 * 60);

/// The keys.
pub const KEYS: &[Item] = &[
    Item::Value(&CAPTURE),
    Item::Value(&CONSISTENT),
    Item::Value(&FREEZE_UNITS),
    Item::Value(&FREEZE_LIMIT),
    Item::Value(&LIVE),
    Item::Value(&LEAVE_OUT),
    Item::Table(&LVM_THIN),
    Item::Table(&LVM_CLASSIC),
    Item::Table(&REMOUNT_READONLY),
];

const CAPTURE: Key<CaptureMode> = Key::new(
    "capture",
    &Choice(&[
        ("auto", CaptureMode::Auto),
        ("required", CaptureMode::Required),
        ("none", CaptureMode::None),
    ]),
)
.says("How the files are held still while they are read")
.default("'auto'")
.on("'auto'")
.prose(
    "How files are held still while they are read: auto (a btrfs or LVM snapshot where there can be one, with a\n\
     warning where not), required (that, or the job fails) or none (they are read live).",
);

const CONSISTENT: Key<bool> = Key::new("consistent", &FLAG)
    .says("All captures of the job show one moment: the writers are stopped while they are made")
    .default("false")
    .example("true")
    .prose(
        "All captures of the job show one moment: the writers are stopped while they are made, by the hooks quiesce\n\
         and resume below, or by freezing systemd units or control groups. A guard lets those go after the limit,\n\
         whatever happens, and the job fails then.",
    );

const FREEZE_UNITS: Key<Elements<String>> = Key::new("freeze-units", &TEXTS)
    .says("systemd units or control groups (/…) to freeze while captures are made")
    .example("['postgresql@15-main.service', '/system.slice/app.service']");

const FREEZE_LIMIT: Key<Duration> = Key::new("freeze-limit", &LONG_SPAN)
    .says("How long they may stay frozen; at most 5m")
    .default("'10s'");

const LIVE: Key<Elements<PathBuf>> = Key::new("live", &PATHS)
    .says("Mounted file systems that are read live on purpose")
    .example("['/home/media']")
    .prose(
        "Mounted file systems that are read live on purpose; and what is knowingly not in the copy: nested mounts,\n\
         subvolumes, swap files, each with everything below it.",
    );

const LEAVE_OUT: Key<Elements<PathBuf>> = Key::new("leave-out", &PATHS)
    .says(
        "Mounts, subvolumes and swap files that are not in the copy, each with everything below it",
    )
    .example("['/home/scratch', '/home/swapfile']");

const LVM_THIN: Table = Table {
    name: "lvm-thin",
    says: "When a thin pool is too full for a snapshot",
    start: Start::off(
        "jobs.system.files.lvm-thin",
        "No snapshot is made in a thin pool that is fuller than this.",
    ),
    variants: no_variants,
    items: &[&[Item::Value(&MAX_DATA), Item::Value(&MAX_METADATA)]],
};

const MAX_DATA: Key<u8> = Key::new("max-data", &PERCENT)
    .says("No snapshot when the pool's data is fuller than this")
    .default("'85%'");

const MAX_METADATA: Key<u8> = Key::new("max-metadata", &PERCENT)
    .says("No snapshot when its metadata is fuller than this")
    .default("'75%'");

const LVM_CLASSIC: Table = Table {
    name: "lvm-classic",
    says: "How large a classic LVM snapshot is made",
    start: Start::off(
        "jobs.system.files.lvm-classic",
        "How much a classic LVM snapshot takes in before it breaks: percent of the volume, or bytes such as \"2G\".",
    ),
    variants: no_variants,
    items: &[&[Item::Value(&SIZE)]],
};

const SIZE: Key<ClassicSize> = Key::new("size", &SNAPSHOT_SIZE)
    .says("Percent of the volume (\"15%\") or bytes (\"2G\")")
    .default("'15%'");

const SNAPSHOT_SIZE: Scalar<ClassicSize> = Scalar {
    read: snapshot_size,
    shown: "a percentage or bytes with their unit",
    schema: || json!({ "type": "string", "pattern": "^[0-9]+[%KMGT]$" }),
};

const REMOUNT_READONLY: Table = Table {
    name: "remount-readonly",
    says: "What is made read-only while it is read",
    start: Start::off(
        "jobs.system.files.remount-readonly",
        "File systems that nothing can take a snapshot of, made read-only while they are read.",
    ),
    variants: no_variants,
    items: &[&[Item::Value(&READONLY_PATHS)]],
};

const READONLY_PATHS: Key<Elements<PathBuf>> = Key::new("paths", &PATHS)
    .says("Mounted file systems, made read-only while they are read")
    .example("['/home/archive']");

/// Reads the policy from `[jobs.NAME.files]`; `paths` are the job's.
pub fn read(
    section: &Section<'_>,
    paths: &Elements<PathBuf>,
    notes: &mut Notes,
) -> Option<CapturePolicy> {
    let mode = section.get(&CAPTURE)?;
    if mode == CaptureMode::None {
        // All others say something about captures, and mean nothing where there are none.
        for key in KEYS.iter().filter(|key| key.name() != CAPTURE.key() && section.has(*key)) {
            without_capture(section, key, notes);
        }
    }
    let live = related(section, &LIVE, paths, notes);
    let leave_out = related(section, &LEAVE_OUT, paths, notes);
    for (path, at) in &leave_out {
        if let Some((own, _)) = paths.iter().find(|(own, _)| own.starts_with(path)) {
            let complaint = Complaint::new(format!(
                "{} would leave out {}, which is a path of this job",
                path.shown(),
                own.shown()
            ));
            notes.problem(*at, complaint.help("take one of the two away"));
        }
        if live.iter().any(|(live, _)| live == path) {
            let message = format!("{} is read live, and so it is in the copy", path.shown());
            notes.problem(*at, Complaint::new(message).help("name it in one of the two lists"));
        }
    }
    let thin = section.part(&LVM_THIN);
    let remount = related(&section.part(&REMOUNT_READONLY), &READONLY_PATHS, paths, notes);
    let only = |list: Elements<PathBuf>| list.into_iter().map(|(path, _)| path).collect();
    Some(CapturePolicy {
        mode,
        consistent: section.get(&CONSISTENT)?,
        freeze_units: freeze_units(section, notes),
        freeze_limit: freeze_limit(section, notes)?,
        live: only(live),
        leave_out: only(leave_out),
        thin: ThinLimits {
            data_percent: thin.get(&MAX_DATA)?,
            metadata_percent: thin.get(&MAX_METADATA)?,
        },
        classic_size: section.part(&LVM_CLASSIC).get(&SIZE)?,
        remount_readonly: only(remount),
    })
}

fn without_capture(section: &Section<'_>, key: &dyn Keyed, notes: &mut Notes) {
    let name = key.key();
    let complaint = Complaint::new(format!("{name} has no effect: capture = \"none\" reads live"))
        .help(format!("take {name} away, or write capture = \"auto\""));
    notes.problem(section.key_at(key), complaint);
}

/// The paths of a list, each of which must have to do with a path of the job.
fn related(
    section: &Section<'_>,
    key: &Key<Elements<PathBuf>>,
    paths: &Elements<PathBuf>,
    notes: &mut Notes,
) -> Elements<PathBuf> {
    let list = section.list(key);
    for (path, at) in &list {
        let concerned = |own: &PathBuf| own.starts_with(path) || path.starts_with(own);
        // Without paths there is one problem already, and every path here would be another.
        if !paths.is_empty() && !paths.iter().any(|(own, _)| concerned(own)) {
            let complaint = Complaint::new(format!(
                "{} has no effect: it is neither above nor below a path of this job",
                path.shown()
            ));
            notes.missing(*at, complaint.help("take it away, or add it to paths"));
        }
    }
    list
}

fn freeze_units(section: &Section<'_>, notes: &mut Notes) -> Vec<String> {
    for (unit, at) in section.list(&FREEZE_UNITS) {
        let wrong = if unit.starts_with('/') {
            let parts = || unit.split('/').filter(|part| !part.is_empty());
            if parts().next().is_none() {
                Some("the whole machine cannot be frozen")
            } else if parts().any(|part| part == "." || part == "..") {
                Some("a control group is named by its real path, without \".\" and \"..\"")
            } else {
                None
            }
        } else if unit.contains(['*', '?', '[', '/', ' ']) {
            Some("a unit is named in full, such as \"postgresql.service\"")
        } else {
            None
        };
        if let Some(message) = wrong {
            let complaint = Complaint::new(format!("{message}, not {unit:?}"));
            notes.problem(
                at,
                complaint.help("name units, or control groups such as \"/system.slice/x.service\""),
            );
        }
    }
    section.values(&FREEZE_UNITS)
}

fn freeze_limit(section: &Section<'_>, notes: &mut Notes) -> Option<Duration> {
    let limit = section.get(&FREEZE_LIMIT)?;
    if limit > LONGEST_FREEZE {
        let complaint = Complaint::new("nothing may stay frozen for longer than 5m")
            .help("a capture takes seconds; long-lasting work belongs into hooks");
        notes.problem(section.value_at(&FREEZE_LIMIT), complaint);
    }
    Some(limit)
}

/// Judges what says how the writers of a files job are stopped.
pub fn check_writers(files: &Section<'_>, hooks: Option<&Section<'_>>, notes: &mut Notes) {
    let is_filled =
        |section: &Section<'_>, key: &dyn Keyed| section.has(key) && !section.is_empty_list(key);
    let freezes = is_filled(files, &FREEZE_UNITS);
    let quiesces = hooks.is_some_and(|hooks| is_filled(hooks, &QUIESCE));
    let captures = files.get(&CAPTURE) != Some(CaptureMode::None);
    if captures && files.get(&CONSISTENT) == Some(true) && !freezes && !quiesces {
        let complaint = Complaint::new("nothing says how to stop the writers")
            .help("add freeze-units = [\"…\"], or hooks quiesce and resume");
        notes.missing(files.key_at(&CONSISTENT), complaint);
    }
    if captures && files.has(&FREEZE_LIMIT) && !freezes {
        let complaint = Complaint::new("freeze-limit has no effect: the job freezes nothing")
            .help("add freeze-units = [\"…\"]");
        notes.missing(files.key_at(&FREEZE_LIMIT), complaint);
    }
    let Some(hooks) = hooks else { return };
    for (one, other, why) in [
        (&QUIESCE, &RESUME, "nothing would let the writers go on"),
        (&RESUME, &QUIESCE, "nothing made the writers pause"),
    ] {
        if is_filled(hooks, one) && !is_filled(hooks, other) {
            let complaint = Complaint::new(format!("{} without {}: {why}", one.key(), other.key()))
                .help(format!("add {} = [[\"…\"]]", other.key()));
            notes.missing(hooks.key_at(one), complaint);
        }
    }
    if !captures {
        for key in [&QUIESCE, &RESUME].into_iter().filter(|key| hooks.has(*key)) {
            without_capture(hooks, key, notes);
        }
    }
}

/// A percentage or a number of bytes, with the units of lvcreate(8), which are powers of 1024.
fn snapshot_size(node: &Node) -> Read<ClassicSize> {
    const EXPECTED: &str =
        "\"1%\" to \"100%\", or bytes with their unit such as \"2G\" (K, M, G, T)";
    let Some(text) = node.value.text() else { return wrong_type(EXPECTED, node) };
    let percent = || whole_percent(text).map(ClassicSize::Percent);
    let bytes = || bytes(text).map(ClassicSize::Bytes);
    percent()
        .or_else(bytes)
        .ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[
    Effects {
        table: "jobs.NAME.files",
        file: "TARGET [jobs.j]\ntargets=['t']\n[jobs.j.files]\nKEY",
        rows: &[
            ("capture", "paths=['/a']", "paths=['/a']\ncapture='none'"),
            ("freeze-units", "paths=['/a']", "paths=['/a']\nfreeze-units=['a.service']"),
            ("live", "paths=['/a']", "paths=['/a']\nlive=['/a/b']"),
            ("leave-out", "paths=['/a']", "paths=['/a']\nleave-out=['/a/b']"),
            (
                "consistent",
                "paths=['/a']\nfreeze-units=['a.service']",
                "paths=['/a']\nfreeze-units=['a.service']\nconsistent=true",
            ),
            (
                "freeze-limit",
                "paths=['/a']\nfreeze-units=['a.service']",
                "paths=['/a']\nfreeze-units=['a.service']\nfreeze-limit='9s'",
            ),
        ],
    },
    Effects {
        table: "jobs.NAME.files.lvm-thin",
        file: "TARGET [jobs.j]\ntargets=['t']\n[jobs.j.files]\nKEY",
        rows: &[
            ("max-data", "paths=['/a']", "paths=['/a']\nlvm-thin.max-data='50%'"),
            ("max-metadata", "paths=['/a']", "paths=['/a']\nlvm-thin.max-metadata='50%'"),
        ],
    },
    Effects {
        table: "jobs.NAME.files.lvm-classic",
        file: "TARGET [jobs.j]\ntargets=['t']\n[jobs.j.files]\nKEY",
        rows: &[("size", "paths=['/a']", "paths=['/a']\nlvm-classic.size='3G'")],
    },
    Effects {
        table: "jobs.NAME.files.remount-readonly",
        file: "TARGET [jobs.j]\ntargets=['t']\n[jobs.j.files]\nKEY",
        rows: &[("paths", "paths=['/a']", "paths=['/a']\nremount-readonly.paths=['/a']")],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn sizes_of_snapshots() {
        let read = |text| snapshot_size(&node_of(text).unwrap());
        for (text, size) in [
            ("'15%'", ClassicSize::Percent(15)),
            ("'100%'", ClassicSize::Percent(100)),
            ("'64K'", ClassicSize::Bytes(65_536)),
            ("'2G'", ClassicSize::Bytes(2 << 30)),
            ("'1T'", ClassicSize::Bytes(1 << 40)),
        ] {
            assert_eq!(read(text).unwrap(), size);
        }
        let bad = "'0%' '101%' '0G' '2' 2 'G' '2g' '2GiB' '+2G' '1.5G' '99999999T' '' '2€'";
        for bad in bad.split(' ').chain(["'2 G'"]) {
            assert!(read(bad).is_err(), "{bad} was taken as a size");
        }
    }
}
