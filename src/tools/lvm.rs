//! lvm2: what there is (`lvs`), making a snapshot (`lvcreate`), removing one (`lvremove`).
//!
//! Facts these commands rest on, all seen with lvm2 2.03.16:
//! - `lvs --reportformat json` keeps standard output clean of warnings; all its numbers are strings, empty
//!   where there is nothing to say; names of hidden volumes come in brackets.
//! - SIGKILL of `lvcreate` can leave the origin suspended and its pool refusing all work; SIGTERM is put off
//!   until it is done. So none of these commands is ever killed ([`CommandSpec::never_kill`]).
//! - `--select` makes LVM itself check what an object is at the moment at which it acts on it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dmsetup;
use crate::host::{CommandSpec, Effect, Fact, Tool};
use crate::model::undo::VolumeSnapshot;

/// The tag of every volume that Stillpoint makes.
pub const TAG: &str = "stillpoint";

/// What is asked of each volume.
const FIELDS: &str = "vg_name,vg_uuid,vg_free,vg_extent_size,lv_name,lv_uuid,lv_size,lv_attr,lv_tags,lv_dm_path,\
     segtype,origin,origin_uuid,pool_lv,pool_lv_uuid,thin_id,transaction_id,data_percent,\
     metadata_percent,snap_percent,lv_kernel_major,lv_kernel_minor";

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalVolume {
    /// The name of its volume group.
    pub group: String,
    /// UUID of the group.
    pub group_uuid: String,
    /// Bytes that the group has left.
    pub group_free: u64,
    /// Bytes of one extent of the group.
    pub extent: u64,
    /// Name, without the brackets of a hidden volume.
    pub name: String,
    /// The UUID that LVM gave it; a name may be given to another one.
    pub uuid: String,
    /// The size in bytes.
    pub size: u64,
    /// The ten letters of `lv_attr`.
    pub attributes: String,
    /// The tags that it bears, ours among them.
    pub tags: Vec<String>,
    /// `/dev/mapper/…`.
    pub path: PathBuf,
    /// `linear`, `thin`, `thin-pool`, `striped`, …
    pub segment_type: String,
    /// UUID of what it is a snapshot of.
    pub origin_uuid: Option<String>,
    /// The thin pool it lies in.
    pub pool: Option<String>,
    /// UUID of that pool.
    pub pool_uuid: Option<String>,
    /// Its device id in the pool.
    pub thin_id: Option<u64>,
    /// For a pool: the transaction id in LVM's own metadata.
    pub transaction_id: Option<u64>,
    /// How full it is: a pool's data, or a classic snapshot's exception store. Hundredths of a percent.
    pub data_used: Option<u32>,
    /// How full a pool's metadata are. Hundredths of a percent.
    pub metadata_used: Option<u32>,
    /// How full a classic snapshot is. Hundredths of a percent.
    pub snapshot_used: Option<u32>,
    /// The device's number, when the volume is active.
    pub device: Option<(u32, u32)>,
}

impl LogicalVolume {
    /// A classic snapshot that has overflowed: its content is lost. `lv_attr` says so by its state letter
    /// (lvs(8): `I` invalid, `S` invalid and suspended), and in older versions only by being full.
    pub fn is_overflowed(&self) -> bool {
        matches!(self.attributes.as_bytes().get(4), Some(b'I' | b'S'))
            || self.snapshot_used.is_some_and(|used| used >= 10_000)
    }

    /// What its health letter says, when it is not well (lvs(8), ninth letter).
    pub fn ailment(&self) -> Option<&'static str> {
        Some(match self.attributes.as_bytes().get(8)? {
            b'F' => "failed",
            b'D' => "out of data space",
            b'M' => "metadata is read-only",
            b'p' => "a disk is missing",
            b'X' => "unknown health",
            b'r' => "needs a refresh",
            _ => return None,
        })
    }
}

/// A command of lvm2.
fn program(name: &'static str) -> Tool {
    Tool::Known { name, hint: "install it (Debian: apt install lvm2)" }
}

/// Lists all volumes of the machine, hidden ones included.
pub fn list() -> CommandSpec {
    patient(CommandSpec::new(program("lvs"), Effect::Inspect)).args([
        "--all",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "--options",
        FIELDS,
    ])
}

/// Makes a snapshot, active, with its tags in the same command. `size` is for a classic one, in bytes.
///
/// It is active now and skipped by every later activation: one that a crash left behind must not come up at
/// the next boot and be taken for its origin, whose file system's UUID it carries.
pub fn snapshot(wanted: &VolumeSnapshot, size: Option<u64>) -> CommandSpec {
    let mut spec = patient(CommandSpec::new(program("lvcreate"), Effect::Mutate)).args([
        "--yes",
        "--snapshot",
        "--setactivationskip",
        "y",
        "--ignoreactivationskip",
        "--activate",
        "y",
        "--addtag",
        TAG,
        "--addtag",
        &wanted.tag,
    ]);
    if let Some(size) = size {
        spec = spec.args(["--size", &format!("{size}b")]);
    }
    spec.prediction.facts = vec![Change::Made(wanted.clone()).fact()];
    spec.args(["--name", &wanted.name, "--", &format!("{}/{}", wanted.group, wanted.origin)])
}

/// Removes the snapshot if, at that moment, it still is what was made: of this UUID, or, where none was
/// recorded, of this name, tag and origin.
pub fn remove(made: &VolumeSnapshot, uuid: Option<&str>) -> CommandSpec {
    let select = match uuid {
        Some(uuid) => format!("lv_uuid=\"{uuid}\""),
        None => format!("lv_name=\"{}\"", made.name),
    };
    let select = format!("{select} && lv_tags={{\"{TAG}\" && \"{}\"}}", made.tag);
    let mut spec = patient(CommandSpec::new(program("lvremove"), Effect::Mutate));
    spec.prediction.facts = vec![Change::Removed(made.clone()).fact()];
    spec.args(["--yes", "--select", &select, "--", &made.group])
}

/// The subject of predictions about snapshots.
pub const SNAPSHOTS: &str = "LVM snapshots";

/// What a command would do to them.
#[derive(Serialize, Deserialize)]
enum Change {
    Made(VolumeSnapshot),
    Removed(VolumeSnapshot),
}

impl Change {
    fn fact(&self) -> Fact {
        let value = serde_json::json!(self).to_string().into_bytes();
        Fact { about: SNAPSHOTS.into(), value }
    }
}

/// Changes what is listed into what would be after a command that was only noted.
///
/// # Errors
/// When it is no prediction of ours.
pub fn apply_prediction(volumes: &mut Vec<LogicalVolume>, change: &[u8]) -> Result<(), String> {
    let change = serde_json::from_slice(change)
        .map_err(|error| format!("a prediction about LVM snapshots: {error}"))?;
    match change {
        Change::Made(snapshot) => {
            let origin = volumes.iter().find(|volume| volume.uuid == snapshot.origin_uuid);
            volumes.extend(origin.cloned().map(|origin| as_made(snapshot, origin)));
        }
        Change::Removed(snapshot) => volumes
            .retain(|volume| (&volume.group, &volume.name) != (&snapshot.group, &snapshot.name)),
    }
    Ok(())
}

/// A snapshot as lvcreate makes it.
fn as_made(snapshot: VolumeSnapshot, origin: LogicalVolume) -> LogicalVolume {
    let device = dmsetup::device_name(&snapshot.group, &snapshot.name);
    let thin = snapshot.thin.as_ref();
    LogicalVolume {
        uuid: format!("uuid-of-{}", snapshot.name),
        attributes: if thin.is_some() { "Vwi-a-tz-k" } else { "swi-a-s--k" }.into(),
        tags: vec![TAG.into(), snapshot.tag],
        path: format!("/dev/mapper/{device}").into(),
        origin_uuid: Some(snapshot.origin_uuid),
        pool: thin.map(|thin| thin.pool.clone()),
        pool_uuid: thin.map(|thin| thin.pool_uuid.clone()),
        thin_id: thin.map(|thin| thin.device_id),
        transaction_id: None,
        data_used: None,
        metadata_used: None,
        snapshot_used: None,
        device: None,
        name: snapshot.name,
        ..origin
    }
}

/// What holds for all LVM commands.
fn patient(mut spec: CommandSpec) -> CommandSpec {
    spec.never_kill = true;
    // Only for the message that it hangs: it is asked to stop, and never forced.
    spec.time_limit = Some(Duration::from_secs(600));
    spec
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Volumes>,
}

#[derive(Deserialize)]
struct Volumes {
    lv: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    vg_name: String,
    vg_uuid: String,
    vg_free: String,
    vg_extent_size: String,
    lv_name: String,
    lv_uuid: String,
    lv_size: String,
    lv_attr: String,
    lv_tags: String,
    lv_dm_path: String,
    segtype: String,
    origin_uuid: String,
    pool_lv: String,
    pool_lv_uuid: String,
    thin_id: String,
    transaction_id: String,
    data_percent: String,
    metadata_percent: String,
    snap_percent: String,
    lv_kernel_major: String,
    lv_kernel_minor: String,
}

/// Reads what [`list`] printed.
///
/// # Errors
/// With what could not be understood: nothing is left out, because what is not listed looks removed.
pub fn parse(json: &[u8]) -> Result<Vec<LogicalVolume>, String> {
    let report: Report =
        serde_json::from_slice(json).map_err(|error| format!("lvs did not print JSON: {error}"))?;
    let mut volumes: Vec<LogicalVolume> = Vec::new();
    for row in report.report.into_iter().flat_map(|report| report.lv) {
        let volume = read(row)?;
        // A volume of several segments has several rows.
        if volumes.iter().all(|known| known.uuid != volume.uuid) {
            volumes.push(volume);
        }
    }
    Ok(volumes)
}

fn read(row: Row) -> Result<LogicalVolume, String> {
    let name = row.lv_name.trim_matches(['[', ']']).to_owned();
    let number = |field: &str, text: &str| -> Result<Option<u64>, String> {
        match text {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| format!("lvs: {field} of {name} is {text:?}, which is no number")),
        }
    };
    let needed = |field: &str, text: &str| {
        number(field, text)?.ok_or_else(|| format!("lvs: {field} of {name} is empty"))
    };
    let percent = |field: &str, text: &str| -> Result<Option<u32>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        hundredths(text)
            .map(Some)
            .ok_or_else(|| format!("lvs: {field} of {name} is {text:?}, which is no percentage"))
    };
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    // "-1" where there is no device.
    let part = |text: &str| text.parse::<u32>().ok();
    Ok(LogicalVolume {
        group_free: needed("vg_free", &row.vg_free)?,
        extent: needed("vg_extent_size", &row.vg_extent_size)?,
        size: needed("lv_size", &row.lv_size)?,
        thin_id: number("thin_id", &row.thin_id)?,
        transaction_id: number("transaction_id", &row.transaction_id)?,
        data_used: percent("data_percent", &row.data_percent)?,
        metadata_used: percent("metadata_percent", &row.metadata_percent)?,
        snapshot_used: percent("snap_percent", &row.snap_percent)?,
        device: part(&row.lv_kernel_major).zip(part(&row.lv_kernel_minor)),
        tags: row.lv_tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        path: row.lv_dm_path.into(),
        group: row.vg_name,
        group_uuid: row.vg_uuid,
        uuid: row.lv_uuid,
        attributes: row.lv_attr,
        segment_type: row.segtype,
        origin_uuid: text(row.origin_uuid),
        pool: text(row.pool_lv).map(|pool| pool.trim_matches(['[', ']']).to_owned()),
        pool_uuid: text(row.pool_lv_uuid),
        name,
    })
}

/// `12.34` as 1234; lvs prints two places.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = match part.len() {
        0 => 0,
        1 => part.parse::<u32>().ok()? * 10,
        _ => part.get(..2)?.parse::<u32>().ok()?,
    };
    Some(whole.parse::<u32>().ok()? * 100 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(change: &[(&str, &str)]) -> String {
        let mut row = serde_json::json!({
            "vg_name": "vg", "vg_uuid": "g-1", "vg_free": "1048576", "vg_extent_size": "4194304", "lv_name": "data",
            "lv_uuid": "u-1", "lv_size": "104857600", "lv_attr": "Vwi-aotz--", "lv_tags": "a,b",
            "lv_dm_path": "/dev/mapper/vg-data", "segtype": "thin", "origin": "", "origin_uuid": "",
            "pool_lv": "pool", "pool_lv_uuid": "p-1", "thin_id": "2", "transaction_id": "",
            "data_percent": "12.3", "metadata_percent": "", "snap_percent": "",
            "lv_kernel_major": "253", "lv_kernel_minor": "4",
        });
        for (key, value) in change {
            row[*key] = serde_json::json!(value);
        }
        serde_json::json!({ "report": [{ "lv": [row] }] }).to_string()
    }

    fn one(change: &[(&str, &str)]) -> LogicalVolume {
        parse(row(change).as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn what_a_command_would_do_is_seen_in_the_list() {
        use crate::model::undo::ThinSnapshot;
        let thin = ThinSnapshot {
            pool: "pool".into(),
            pool_uuid: "p-1".into(),
            device_id: 3,
            transaction_id: 7,
        };
        let snapshot = VolumeSnapshot {
            group: "vg".into(),
            group_uuid: Some("g-1".into()),
            name: "snap".into(),
            tag: "stillpoint.run=1".into(),
            origin: "data".into(),
            origin_uuid: "u-1".into(),
            thin: Some(thin),
        };
        let mut volumes = vec![one(&[])];
        let changes = |spec: CommandSpec| spec.prediction.facts;
        for fact in changes(super::snapshot(&snapshot, None)) {
            assert_eq!(fact.about, SNAPSHOTS);
            apply_prediction(&mut volumes, &fact.value).unwrap();
        }
        let made = volumes[1].clone();
        assert_eq!((made.name.as_str(), made.thin_id, made.device), ("snap", Some(3), None));
        assert_eq!(made.tags, [TAG, "stillpoint.run=1"]);
        assert_eq!(made.origin_uuid.as_deref(), Some("u-1"));
        assert!(!made.is_overflowed() && made.ailment().is_none());
        // A classic one is of no pool.
        let classic = VolumeSnapshot { thin: None, name: "old".into(), ..snapshot.clone() };
        for fact in changes(super::snapshot(&classic, Some(1 << 20))) {
            apply_prediction(&mut volumes, &fact.value).unwrap();
        }
        assert_eq!((&volumes[2].pool, volumes[2].thin_id), (&None, None));
        for fact in changes(remove(&snapshot, Some(&made.uuid))) {
            apply_prediction(&mut volumes, &fact.value).unwrap();
        }
        let left: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(left, ["data", "old"]);
        // Of an origin that is not there nothing can be made.
        let orphan = VolumeSnapshot { origin_uuid: "u-2".into(), ..snapshot };
        let made = &changes(super::snapshot(&orphan, None))[0].value;
        apply_prediction(&mut volumes, made).unwrap();
        assert_eq!(volumes.len(), 2);
        assert!(apply_prediction(&mut volumes, b"nonsense").is_err());
    }

    #[test]
    fn a_thin_volume_is_read() {
        let volume = one(&[]);
        assert_eq!((volume.name.as_str(), volume.thin_id), ("data", Some(2)));
        assert_eq!((volume.data_used, volume.metadata_used), (Some(1230), None));
        assert_eq!((volume.device, volume.tags.len()), (Some((253, 4)), 2));
        assert_eq!(volume.pool.as_deref(), Some("pool"));
        assert_eq!(one(&[("lv_kernel_major", "-1")]).device, None);
        assert_eq!(one(&[("lv_name", "[pool_tmeta]")]).name, "pool_tmeta");
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for change in
            [("thin_id", "x"), ("lv_size", ""), ("data_percent", "-"), ("vg_free", "1.5g")]
        {
            assert!(parse(row(&[change]).as_bytes()).is_err(), "{change:?}");
        }
        assert!(parse(b"").is_err());
        assert!(parse(br#"{"report":[{"lv":[{"vg_name":"vg"}]}]}"#).is_err());
        assert_eq!(parse(br#"{"report":[{"lv":[]}]}"#).unwrap(), []);
    }

    #[test]
    fn overflow_and_ailments_are_seen() {
        assert!(one(&[("lv_attr", "swi-I-s---")]).is_overflowed());
        assert!(one(&[("lv_attr", "swi-a-s---"), ("snap_percent", "100.00")]).is_overflowed());
        assert!(!one(&[("lv_attr", "swi-a-s---"), ("snap_percent", "99.99")]).is_overflowed());
        assert_eq!(one(&[("lv_attr", "twi-aotzD-")]).ailment(), Some("out of data space"));
        assert_eq!(one(&[]).ailment(), None);
    }

    #[test]
    fn commands_name_exactly_what_they_touch() {
        let snapshot_of = VolumeSnapshot {
            group: "vg".into(),
            group_uuid: Some("g-1".into()),
            name: "stillpoint.0a1b2c3d.0".into(),
            tag: "stillpoint.run=0a1b2c3d".into(),
            origin: "data".into(),
            origin_uuid: "o-1".into(),
            thin: None,
        };
        let made = snapshot(&snapshot_of, Some(4_194_304));
        assert!(made.never_kill);
        assert_eq!(
            made.display(),
            "lvcreate --yes --snapshot --setactivationskip y --ignoreactivationskip --activate y --addtag stillpoint --addtag stillpoint.run=0a1b2c3d --size 4194304b --name stillpoint.0a1b2c3d.0 -- vg/data"
        );
        let gone = remove(&snapshot_of, Some("u-9"));
        assert!(gone.never_kill);
        assert_eq!(
            gone.display(),
            r#"lvremove --yes --select 'lv_uuid="u-9" && lv_tags={"stillpoint" && "stillpoint.run=0a1b2c3d"}' -- vg"#
        );
        assert!(
            remove(&snapshot_of, None).display().contains(r#"lv_name="stillpoint.0a1b2c3d.0""#)
        );
    }
}
