//! What captures use of lvm2, on one volume group with one thin pool in memory. What LVM has in its own
//! metadata and what the kernel knows are kept apart, because a killed `lvcreate` leaves them so.

use std::collections::BTreeSet;

use stillpoint::host::{CommandSpec, Exit};

use super::fake_borg::Answer;

/// The volume group.
pub const GROUP: &str = "vg";
const GROUP_UUID: &str = "group-uuid";
/// Bytes of one extent.
pub const EXTENT: u64 = 4 << 20;
/// The major number of device-mapper's devices.
pub const MAJOR: u32 = 253;

pub(super) const POOL: &str = "pool";
const POOL_UUID: &str = "pool-uuid";

/// How far an `lvcreate` had come when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// LVM has written its metadata and suspended the devices; the kernel was told nothing yet.
    BeforeMessages,
    /// The kernel has made the device and does not know the new transaction.
    BetweenMessages,
    /// Everything is done but letting the devices go on.
    BeforeResume,
}

/// What a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Linear,
    /// A classic snapshot.
    Classic,
    /// A volume in the pool, by its device id.
    Thin(u64),
    Pool,
    /// A part of the pool.
    Hidden,
}

/// A logical volume, as LVM's metadata have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeVolume {
    pub name: String,
    pub uuid: String,
    pub size: u64,
    pub attributes: String,
    pub tags: Vec<String>,
    pub kind: Kind,
    /// Name of what it is a snapshot of.
    pub origin: Option<String>,
    /// Minor number, when it is active.
    pub minor: Option<u32>,
}

/// The group, and what the kernel knows of it.
#[derive(Debug, Clone, Default)]
pub struct FakeLvm {
    pub free: u64,
    /// What is free when there is no snapshot.
    spare: u64,
    pub volumes: Vec<FakeVolume>,
    /// The pool's transaction in LVM's metadata.
    pub transaction: u64,
    /// The pool's transaction in the kernel.
    pub kernel_transaction: u64,
    /// The devices of the pool that the kernel knows.
    pub devices: BTreeSet<u64>,
    /// Names of suspended devices.
    pub suspended: BTreeSet<String>,
    /// Of 1000 blocks of the pool's data, how many are used.
    pub pool_data: u32,
    /// Of 1000 blocks of the pool's metadata, how many are used.
    pub pool_metadata: u32,
    /// How often a snapshot is still in use when it is to be removed.
    pub in_use: u32,
    /// The group's disk is not plugged in.
    pub away: bool,
    /// The UUID of another group of the same name that is there.
    pub namesake: Option<String>,
    made: u32,
}

impl FakeLvm {
    /// A group with a pool and nothing in it.
    pub fn new(free: u64) -> Self {
        let mut group =
            Self { free, spare: free, transaction: 7, kernel_transaction: 7, ..FakeLvm::default() };
        (group.pool_data, group.pool_metadata) = (400, 100);
        group.add("pool", Kind::Pool, "twi-aotz--", 100 * EXTENT);
        for (name, attributes) in [
            ("pool_tdata", "Twi-ao----"),
            ("pool_tmeta", "ewi-ao----"),
            ("lvol0_pmspare", "ewi-------"),
        ] {
            group.add(name, Kind::Hidden, attributes, EXTENT);
        }
        group
    }

    /// Adds a volume that was there before, and answers its minor number.
    pub fn add(&mut self, name: &str, kind: Kind, attributes: &str, size: u64) -> u32 {
        self.made += 1;
        let minor = self.made;
        if let Kind::Thin(id) = kind {
            self.devices.insert(id);
        }
        self.volumes.push(FakeVolume {
            name: name.to_owned(),
            uuid: if kind == Kind::Pool { POOL_UUID.into() } else { format!("lv-{minor}") },
            size,
            attributes: attributes.to_owned(),
            tags: Vec::new(),
            kind,
            origin: None,
            minor: Some(minor),
        });
        minor
    }

    /// The snapshots that Stillpoint made.
    pub fn snapshots(&self) -> Vec<&FakeVolume> {
        self.volumes.iter().filter(|volume| volume.name.starts_with("stillpoint.")).collect()
    }

    /// What is wrong with the group, if something is.
    pub fn ailments(&self) -> Vec<String> {
        let mut wrong: Vec<String> =
            self.suspended.iter().map(|name| format!("{name} is suspended")).collect();
        if self.transaction != self.kernel_transaction {
            wrong.push(format!(
                "LVM is at transaction {}, the kernel at {}",
                self.transaction, self.kernel_transaction
            ));
        }
        let is_classic = |volume: &&FakeVolume| volume.kind == Kind::Classic;
        let taken: u64 = self.volumes.iter().filter(is_classic).map(|volume| volume.size).sum();
        if self.free + taken != self.spare {
            wrong.push(format!("{} of {} bytes are free", self.free, self.spare));
        }
        let known: BTreeSet<u64> = self.thin_ids().collect();
        if known != self.devices {
            wrong.push(format!("LVM knows the devices {known:?}, the kernel {:?}", self.devices));
        }
        wrong
    }

    /// Carries out a command of lvm2.
    ///
    /// # Panics
    /// On a command that nobody thought of, and on one that would hang.
    pub fn answer(&mut self, program: &str, spec: &CommandSpec) -> Answer {
        assert!(spec.never_kill, "{} may be killed", spec.display());
        let words = words_of(spec);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (program, words.as_slice()) {
            (
                "lvs",
                [
                    "--all",
                    "--reportformat",
                    "json",
                    "--units",
                    "b",
                    "--nosuffix",
                    "--options",
                    fields,
                ],
            ) => {
                let seen = if self.away { &[] } else { self.volumes.as_slice() };
                let mut rows: Vec<serde_json::Value> =
                    seen.iter().map(|volume| self.row(volume, fields)).collect();
                if let Some(namesake) = &self.namesake {
                    let mut row = self.row(&self.volumes[0], fields);
                    row["vg_uuid"] = namesake.as_str().into();
                    row["lv_uuid"] = "somebody-elses".into();
                    rows.push(row);
                }
                Answer::good(serde_json::json!({ "report": [{ "lv": rows }] }).to_string())
            }
            ("lvcreate", _) => self.create(&Wanted::read(&words)),
            ("lvremove", ["--yes", "--select", select, "--", GROUP]) => self.remove(select),
            _ => panic!("the fake lvm was not told about: {program} {words:?}"),
        }
    }

    /// Does as much of an `lvcreate` as was done when it was killed.
    pub fn half_create(&mut self, spec: &CommandSpec, stage: Stage) {
        let words = words_of(spec);
        let wanted = Wanted::read(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let (transaction, devices) = (self.kernel_transaction, self.devices.clone());
        assert_eq!(self.create(&wanted).exit, Exit::Code(0), "{wanted:?}");
        let made = self.volumes.last_mut().expect("it was just made");
        made.minor = None;
        let is_thin = wanted.size.is_none();
        self.suspended.insert(device(&wanted.origin));
        if is_thin {
            self.suspended.insert(format!("{}-tpool", device(POOL)));
            if stage != Stage::BeforeResume {
                self.kernel_transaction = transaction;
            }
            if stage == Stage::BeforeMessages {
                self.devices = devices;
            }
        } else {
            self.suspended.insert(format!("{}-real", device(&wanted.origin)));
        }
    }

    /// A boot makes all devices anew, but for those that are skipped.
    pub fn reboot(&mut self) {
        self.suspended.clear();
        for volume in self.volumes.iter_mut().filter(|volume| volume.attributes.ends_with('k')) {
            volume.minor = None;
        }
    }

    /// The classic snapshots take in no more.
    pub fn overflow(&mut self) {
        for volume in self.volumes.iter_mut().filter(|volume| volume.kind == Kind::Classic) {
            volume.attributes = "swi-I-s--k".into();
        }
    }

    fn create(&mut self, wanted: &Wanted) -> Answer {
        self.assert_none_waits(&wanted.origin);
        let Some(origin) = self.volumes.iter().find(|volume| volume.name == wanted.origin) else {
            return failure(5, "Failed to find logical volume");
        };
        if self.volumes.iter().any(|volume| volume.name == wanted.name) {
            return failure(5, "Logical Volume already exists in volume group");
        }
        let (origin, whole) = (origin.kind, origin.size);
        let (kind, attributes, size) = match (origin, wanted.size) {
            (Kind::Thin(_), None) => {
                if !self.is_in_step() {
                    return failure(5, "Failed to suspend vg/pool with queued messages.");
                }
                let id = self.thin_ids().max().unwrap_or(0) + 1;
                (Kind::Thin(id), "Vwi-a-tz-k", whole)
            }
            (Kind::Linear, Some(size)) => {
                assert_eq!(size % EXTENT, 0, "not whole extents: {size}");
                if size > self.free {
                    return failure(5, "Volume group \"vg\" has insufficient free space");
                }
                (Kind::Classic, "swi-a-s--k", size)
            }
            (kind, size) => panic!("a snapshot of {kind:?} with the size {size:?}"),
        };
        let origin = Some(wanted.origin.clone());
        self.add(&wanted.name, kind, attributes, size);
        if let Kind::Classic = kind {
            self.free -= size;
        } else {
            self.transaction += 1;
            self.kernel_transaction += 1;
        }
        let made = self.volumes.last_mut().expect("it was just made");
        (made.origin, made.tags) = (origin, wanted.tags.clone());
        Answer::good("")
    }

    fn remove(&mut self, select: &str) -> Answer {
        let unknown = || panic!("a selection nobody thought of: {select}");
        let (what, tags) = select.split_once(" && lv_tags={").unwrap_or_else(unknown);
        let tags: Vec<&str> =
            tags.strip_suffix('}').unwrap_or_else(|| panic!("{select}")).split(" && ").collect();
        let quoted = |text: &str| -> String {
            let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            inside.unwrap_or_else(|| panic!("not quoted: {text} in {select}")).to_owned()
        };
        let tags: Vec<String> = tags.into_iter().map(quoted).collect();
        let (field, value) = what.split_once('=').unwrap_or_else(unknown);
        let value = quoted(value);
        let selected = |volume: &FakeVolume| {
            let is_it = match field {
                "lv_uuid" => volume.uuid == value,
                "lv_name" => volume.name == value,
                field => panic!("a field nobody thought of: {field}"),
            };
            is_it && tags.iter().all(|tag| volume.tags.contains(tag))
        };
        // LVM says nothing of it and exits with 0 when it selects nothing.
        let Some(at) = self.volumes.iter().position(selected) else { return Answer::good("") };
        if self.in_use > 0 {
            self.in_use -= 1;
            return failure(5, "Logical volume vg/… in use.");
        }
        let FakeVolume { name, origin, .. } = &self.volumes[at];
        self.assert_none_waits(name);
        self.assert_none_waits(origin.as_deref().expect("a snapshot has an origin"));
        match self.volumes[at].kind {
            Kind::Thin(id) => {
                if !self.is_in_step() {
                    return failure(5, "Failed to suspend vg/pool with queued messages.");
                }
                self.devices.remove(&id);
                self.transaction += 1;
                self.kernel_transaction += 1;
            }
            Kind::Classic => self.free += self.volumes[at].size,
            kind => panic!("{kind:?} {} was removed", self.volumes[at].name),
        }
        self.volumes.remove(at);
        Answer::good("")
    }

    /// Sends the messages that are still queued, as every LVM command does. The kernel refuses to make a
    /// device that it has; then the pool stays out of step.
    fn is_in_step(&mut self) -> bool {
        if self.transaction == self.kernel_transaction {
            return true;
        }
        let ids: BTreeSet<u64> = self.thin_ids().collect();
        let queued: Vec<u64> = ids.difference(&self.devices).copied().collect();
        let [id] = queued.as_slice() else { return false };
        self.devices.insert(*id);
        self.kernel_transaction += 1;
        self.transaction == self.kernel_transaction
    }

    fn thin_ids(&self) -> impl Iterator<Item = u64> {
        self.volumes.iter().filter_map(|volume| match volume.kind {
            Kind::Thin(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn is_suspended(&self, volume: &str) -> bool {
        let name = device(volume);
        ["", "-real", "-cow", "-tpool"]
            .iter()
            .any(|part| self.suspended.contains(&format!("{name}{part}")))
    }

    /// LVM waits without end for a volume that stays suspended, or for its pool.
    fn assert_none_waits(&self, volume: &str) {
        let is_thin = |known: &&FakeVolume| matches!(known.kind, Kind::Thin(_));
        let known = self.volumes.iter().find(|known| known.name == volume);
        let pool = known.filter(is_thin).map(|_| POOL);
        for name in std::iter::once(volume).chain(pool) {
            assert!(!self.is_suspended(name), "LVM would hang: {:?}", self.suspended);
        }
    }

    fn row(&self, volume: &FakeVolume, fields: &str) -> serde_json::Value {
        let is_thin = matches!(volume.kind, Kind::Thin(_));
        let is_pool = volume.kind == Kind::Pool;
        let percent = |of_thousand: u32| format!("{}.{}0", of_thousand / 10, of_thousand % 10);
        let filled = |is: bool, text: String| if is { text } else { String::new() };
        let origin = volume.origin.as_ref();
        let mut row = serde_json::Map::new();
        for field in fields.split(',').map(str::trim) {
            let value = match field {
                "vg_name" => GROUP.to_owned(),
                "vg_uuid" => GROUP_UUID.to_owned(),
                "vg_free" => self.free.to_string(),
                "vg_extent_size" => EXTENT.to_string(),
                "lv_name" if volume.kind == Kind::Hidden => format!("[{}]", volume.name),
                "lv_name" => volume.name.clone(),
                "lv_uuid" => volume.uuid.clone(),
                "lv_size" => volume.size.to_string(),
                "lv_attr" => volume.attributes.clone(),
                "lv_tags" => volume.tags.join(","),
                "lv_dm_path" => format!("/dev/mapper/{}", device(&volume.name)),
                "segtype" => match volume.kind {
                    Kind::Thin(_) => "thin".to_owned(),
                    Kind::Pool => "thin-pool".to_owned(),
                    _ => "linear".to_owned(),
                },
                "origin" => origin.cloned().unwrap_or_default(),
                "origin_uuid" => origin
                    .and_then(|name| self.volumes.iter().find(|other| other.name == *name))
                    .map(|origin| origin.uuid.clone())
                    .unwrap_or_default(),
                "pool_lv" => filled(is_thin, POOL.into()),
                "pool_lv_uuid" => filled(is_thin, POOL_UUID.into()),
                "thin_id" => match volume.kind {
                    Kind::Thin(id) => id.to_string(),
                    _ => String::new(),
                },
                "transaction_id" => filled(is_pool, self.transaction.to_string()),
                "data_percent" => filled(is_pool, percent(self.pool_data)),
                "metadata_percent" => filled(is_pool, percent(self.pool_metadata)),
                "snap_percent" => filled(volume.kind == Kind::Classic, "0.10".into()),
                "lv_kernel_major" => volume.minor.map_or("-1".into(), |_| MAJOR.to_string()),
                "lv_kernel_minor" => volume.minor.map_or("-1".into(), |minor| minor.to_string()),
                field => panic!("lvs is asked for {field}, which the fake does not have"),
            };
            row.insert(field.to_owned(), value.into());
        }
        row.into()
    }
}

/// What an `lvcreate` is to make.
#[derive(Debug)]
struct Wanted {
    name: String,
    origin: String,
    tags: Vec<String>,
    size: Option<u64>,
}

impl Wanted {
    fn read(words: &[&str]) -> Self {
        let [
            "--yes",
            "--snapshot",
            "--setactivationskip",
            "y",
            "--ignoreactivationskip",
            rest @ ..,
        ] = words
        else {
            panic!("the fake lvm was not told about: lvcreate {words:?}");
        };
        let (size, tags, name, origin) = match rest {
            ["--activate", "y", "--addtag", one, "--addtag", two, "--name", name, "--", origin] => {
                (None, [*one, *two], name, origin)
            }
            [
                "--activate",
                "y",
                "--addtag",
                one,
                "--addtag",
                two,
                "--size",
                size,
                "--name",
                name,
                "--",
                origin,
            ] => {
                let bytes = size.strip_suffix('b').and_then(|size| size.parse().ok());
                (
                    Some(bytes.unwrap_or_else(|| panic!("no size: {size}"))),
                    [*one, *two],
                    name,
                    origin,
                )
            }
            _ => panic!("the fake lvm was not told about: lvcreate {words:?}"),
        };
        let (group, origin) = origin.split_once('/').expect("GROUP/ORIGIN");
        assert_eq!(group, GROUP);
        Self {
            name: (*name).to_owned(),
            origin: origin.to_owned(),
            tags: tags.map(str::to_owned).into(),
            size,
        }
    }
}

pub(super) fn words_of(spec: &CommandSpec) -> Vec<String> {
    spec.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
}

pub(super) fn device(volume: &str) -> String {
    format!("{GROUP}-{}", volume.replace('-', "--"))
}

pub(super) fn failure(code: i32, text: &str) -> Answer {
    Answer { exit: Exit::Code(code), stdout: Vec::new(), stderr: vec![format!("  {text}")] }
}
