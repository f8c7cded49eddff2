//! A directory of another btrfs that receives subvolumes, in memory: what is not on the disk yet is emptied by a power
//! cut, and what was deleted is there again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint::host::{CommandSpec, Exit, Input, PrivateMount, Subvolume, uuid_text};
use stillpoint::tools::btrfs::command::{Told, parse_uuid};
use stillpoint::tools::btrfs::parts::{BASE_CHANGED, Cut, Mark, part_name, part_uuid};

use super::fake_borg::Answer;
use super::fake_btrfs::FakeBtrfs;

/// Where it is.
pub const LOCATION: &str = "/pool";

/// The UUID of its file system.
const FILE_SYSTEM: &str = "pool-fs-uuid";

/// A received subvolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    id: u64,
    pub uuid: String,
    /// What was sent.
    pub sent: String,
    /// The generation that it had.
    pub generation: u64,
    /// What it is based on.
    pub parent: Option<String>,
    /// The copy that it is based on, by parts or not.
    pub base: Option<String>,
    /// The generation in which it was changed last.
    pub changed: u64,
    /// It was received to its end.
    is_whole: bool,
    /// Its data is on the disk.
    is_durable: bool,
    /// It looks whole and is empty.
    pub is_emptied: bool,
}

/// The directory.
#[derive(Debug, Clone, Default)]
pub struct FakePool {
    pub subvolumes: BTreeMap<PathBuf, Received>,
    uncommitted: BTreeMap<PathBuf, Received>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    made: u64,
    /// A difference is made to something else than what it is to.
    pub is_mistaken: bool,
    /// What is sent has no file in it.
    pub holds_nothing: bool,
    /// What sends fails by itself.
    pub is_unsendable: bool,
    /// What comes from another machine.
    pub on_the_way: Option<OnTheWay>,
    /// How many copies there is room for; there is no end of it by default.
    pub room: Option<u64>,
    /// Copies that were deleted and take up their room still.
    unfreed: u64,
    /// Something else takes up what becomes free.
    pub is_crowded: bool,
    /// What becomes of what is received from now on.
    pub ails: Ailment,
    /// How often its file system was mounted.
    pub mounts: u64,
    /// How often a device of it could not be written to.
    pub failures: u64,
    /// Kind, mode and owner of what is not a directory of root's alone, as `stat` tells them.
    pub odd: BTreeMap<PathBuf, String>,
    /// A program of its machine, or some words of its command, that does not do what it is told, its exit status, and what is said of it.
    pub refused: Option<(&'static str, i32, &'static str)>,
    /// What its machine says of its kernel and of btrfs-progs, if not what they are elsewhere.
    pub linux: Option<&'static str>,
    pub progs: Option<&'static str>,
    /// Somebody sends what is in it.
    pub is_being_read: bool,
    /// Files that have been there for more than a day.
    pub old: BTreeSet<PathBuf>,
}

/// How a file system loses what is received, of which somebody else was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ailment {
    #[default]
    None,
    /// A device cannot be written to.
    Failing,
    /// It is mounted anew before what it was told is on the disk.
    MountedAnew,
}

/// A stream, from its sender to whoever receives it.
#[derive(Debug, Clone)]
pub struct OnTheWay {
    sent: String,
    generation: u64,
    /// What it is based on, as the sender calls it, and in which generation that was changed last, if that is told.
    parent: Option<String>,
    parent_generation: Option<u64>,
}

impl OnTheWay {
    /// A snapshot that claims to be this one.
    pub fn claiming(sent: &str, generation: u64, parent: Option<&str>) -> Self {
        let (sent, parent) = (sent.to_owned(), parent.map(str::to_owned));
        Self { sent, generation, parent, parent_generation: None }
    }

    /// What a snapshot's sender sends, through the stage behind it.
    pub fn of(source: &FakeBtrfs, send: &CommandSpec, stage: &CommandSpec) -> Self {
        let snapshot = |path: &Path| source.seen(path);
        let sent = snapshot(Path::new(send.args.last().unwrap()));
        let base = option(send, "-p").map(|path| snapshot(Path::new(&path)));
        let parent = base.map(|base| base.uuid.clone());
        assert_eq!(option(stage, "--uuid").as_ref(), Some(&sent.uuid));
        assert_eq!(option(stage, "--based-on"), parent);
        let parent_generation = base.map(|base| base.changed + u64::from(source.bases_change));
        Self { sent: sent.uuid.clone(), generation: sent.changed, parent, parent_generation }
    }

    /// What the processes of a chain say of which a stage finds that somebody changed what its stream is a difference to;
    /// `None` where nobody did.
    pub fn changed(&self, stage: &CommandSpec, count: usize) -> Option<Vec<Answer>> {
        let expected = option(stage, "--based-on-generation");
        assert_eq!(expected.is_some(), self.parent.is_some(), "nobody looks at that");
        let now = self.parent_generation?.to_string();
        if expected == Some(now) {
            return None;
        }
        let stopped = || Answer { exit: Exit::Signal(15), ..Answer::good("") };
        let mut answers: Vec<Answer> = (0..count).map(|_| stopped()).collect();
        answers[count.saturating_sub(2).min(1)] =
            Answer { exit: Exit::Code(1), ..Answer::told(vec![BASE_CHANGED.to_owned()]) };
        Some(answers)
    }
}

/// Where the machine itself finds the directory that a stream is received into.
fn received_into(receive: &CommandSpec) -> PathBuf {
    let directory = Path::new(receive.args.last().unwrap());
    match &receive.view.mounts[..] {
        // On another machine, nobody could be kept from following links.
        [] => directory.to_owned(),
        [PrivateMount::Unlinked { from, at }] => from.join(directory.strip_prefix(at).unwrap()),
        others => panic!("{others:?}"),
    }
}

impl FakePool {
    /// Whether something is a part of it.
    pub fn holds(path: &Path) -> bool {
        path.starts_with(LOCATION)
    }

    /// Our own directory in it.
    pub fn own() -> PathBuf {
        Path::new(LOCATION).join(".stillpoint")
    }

    /// Whether something is in our own directory of a target in it.
    pub fn is_own(path: &Path) -> bool {
        Self::holds(path) && path.iter().any(|name| name == ".stillpoint")
    }

    /// Makes a target of a directory in it.
    pub fn mark(&mut self, at: &Path, id: &str) {
        let marker = format!(r#"{{"format": 1, "id": "{id}"}}"#);
        self.write(&at.join(".stillpoint/target.json"), marker.as_bytes());
    }

    /// Receives what a snapshot's sender sends, or what comes from another machine, through the stage before it.
    pub fn receive(&mut self, source: &FakeBtrfs, chain: &[&CommandSpec]) -> Vec<Answer> {
        self.receive_until(source, chain, false)
    }

    /// The same of a stream that is torn: what was received of it by then, if it is taken apart.
    pub fn receive_torn(&mut self, source: &FakeBtrfs, chain: &[&CommandSpec]) -> Vec<Answer> {
        let mut answers = self.receive_until(source, chain, true);
        for answer in &mut answers {
            answer.exit = Exit::Signal(15);
        }
        let failed = if self.is_unsendable { 0 } else { answers.len() - 2 };
        answers[failed].exit = Exit::Code(1);
        answers
    }

    /// Receives a stream to its end, or until it is torn behind its first part.
    fn receive_until(
        &mut self,
        source: &FakeBtrfs,
        chain: &[&CommandSpec],
        is_torn: bool,
    ) -> Vec<Answer> {
        let (on_the_way, stage, receive) = match chain {
            [send, stage, receive] => (OnTheWay::of(source, send, stage), stage, receive),
            [stage, receive] => {
                assert_eq!(stage.input, Input::Own);
                (self.on_the_way.take().expect("a stream comes"), stage, receive)
            }
            _ => panic!("a chain of {}", chain.len()),
        };
        if let Some(answers) = on_the_way.changed(stage, chain.len()) {
            return answers;
        }
        let OnTheWay { sent, generation, parent: based_on, .. } = on_the_way;
        assert_eq!(option(stage, "--uuid").as_ref(), Some(&sent));
        assert_eq!(option(stage, "--based-on"), based_on);
        let parent = option(stage, "--known-as");
        let base = self.subvolumes.values().find(|there| Some(&there.uuid) == parent.as_ref());
        assert_eq!(base.is_some(), parent.is_some(), "a difference to what is not there");
        assert!(base.is_none_or(|base| !base.is_emptied), "a difference to what is empty");
        assert!(base.is_none_or(|base| Some(&base.sent) == based_on.as_ref()), "to another one");
        if let Some(shared) = option(stage, "--shared-as") {
            let is_it = |it: &&Received| it.is_whole && it.sent == shared;
            assert_eq!(self.subvolumes.values().filter(is_it).count(), 1, "which one is found?");
            assert_eq!(Some(shared), based_on);
        }
        // A difference names nothing new.
        let named = if parent.is_some() || self.holds_nothing { 0 } else { 5 };
        let at = received_into(receive).join(option(stage, "--name").unwrap());
        let mut parent = match self.is_mistaken {
            true => parent.map(|_| "another-uuid".to_owned()),
            false => parent,
        };
        let (mut told, mut first) = (Vec::new(), 0);
        if let Some(seed) = option(stage, "--part-seed") {
            let seed = parse_uuid(&seed).unwrap();
            if let Some(mark) = option(stage, "--behind").map(|it| Mark::parse(&it).unwrap()) {
                parent = option(stage, "--behind-known-as");
                let there = self.subvolumes.values().find(|it| Some(&it.uuid) == parent.as_ref());
                let there = there.expect("the part is there");
                assert!(there.is_whole && there.is_durable && !there.is_emptied, "{there:?}");
                assert_eq!(mark, mark_of(mark.part));
                first = mark.part + 1;
            }
            for part in first..PARTS {
                let is_whole = !is_torn || part == 0;
                let claimed = uuid_text(part_uuid(seed, part));
                let name = part_name(at.file_name().unwrap().to_str().unwrap(), part);
                parent =
                    Some(self.put(at.with_file_name(name), &claimed, generation, parent, is_whole));
                if !is_whole {
                    break;
                }
                let cut = Cut {
                    mark: mark_of(part),
                    uuid: claimed,
                    named: named.min(u64::from(part + 1 - first)),
                    unnamed: 0,
                    unpacked: 0,
                    last: part + 1 == PARTS,
                };
                told.push(serde_json::to_string(&cut).unwrap());
            }
        }
        if !is_torn {
            self.put(at, &sent, generation, parent, true);
            let named = named.saturating_sub(first.into());
            let passed = Told { bytes: 100, commands: 9, named, generation, ..Told::default() };
            let whole = Told { whole: true, ..passed };
            told.push(serde_json::to_string(&whole).unwrap());
        }
        self.ail();
        // The stage is the last but one.
        let mut said = vec![Vec::new(); chain.len()];
        said[chain.len() - 2] = told;
        said.into_iter().map(Answer::told).collect()
    }

    /// Puts something there that was received. Answers with its UUID.
    fn put(
        &mut self,
        at: PathBuf,
        sent: &str,
        generation: u64,
        parent: Option<String>,
        is_whole: bool,
    ) -> String {
        let there = self.subvolumes.iter().find(|(_, it)| Some(&it.uuid) == parent.as_ref());
        let base = match there {
            Some((path, part)) if path.to_str().unwrap().contains(".part") => part.base.clone(),
            Some(_) | None => parent.clone(),
        };
        let received = Received {
            sent: sent.to_owned(),
            generation,
            parent,
            base,
            is_whole,
            ..Received::default()
        };
        self.add(1, at, received)
    }

    /// Loses what was received.
    fn ail(&mut self) {
        match self.ails {
            Ailment::None => return,
            Ailment::Failing => self.failures += 1,
            Ailment::MountedAnew => self.mounts += 1,
        }
        for there in self.subvolumes.values_mut().filter(|there| !there.is_durable) {
            there.is_emptied = true;
        }
    }

    /// Gives something its number, its UUID, in which its kind is told, and its place. Answers with the UUID.
    fn add(&mut self, kind: u8, at: PathBuf, received: Received) -> String {
        self.made += 1;
        let uuid = format!("00000000-0000-0000-{kind:04}-{:012}", self.made);
        let (id, changed) = (2000 + self.made, 100 + self.made);
        let received = Received { id, uuid: uuid.clone(), changed, ..received };
        assert_eq!(self.subvolumes.insert(at, received), None, "two of one name");
        uuid
    }

    /// Receives what another program sends, which need not be on the disk when it is done. Answers with its UUID.
    pub fn somebody_elses(
        &mut self,
        name: &str,
        sent: &str,
        generation: u64,
        parent: Option<String>,
        is_durable: bool,
    ) -> String {
        let sent = sent.to_owned();
        let received = Received {
            sent,
            generation,
            parent,
            is_whole: true,
            is_durable,
            ..Received::default()
        };
        self.add(4, Path::new(LOCATION).join(name), received)
    }

    /// Tells how long a stream would be with data.
    pub fn measure(&self, chain: &[&CommandSpec]) -> Vec<Answer> {
        let [send, count] = chain else { panic!("a chain of {}", chain.len()) };
        assert!(send.args.iter().any(|arg| arg == "--no-data"));
        assert!(count.args.iter().any(|arg| arg == "--lengths"));
        let lengths = r#"{"commands": 100, "data": 200}"#;
        vec![Answer::good(""), Answer::good(lengths)]
    }

    /// Puts a copy beside each that there is, which claims to be of the same snapshot and is another one. Answers with
    /// their UUIDs.
    pub fn forge(&mut self) -> Vec<String> {
        let there: Vec<(PathBuf, Received)> = self.subvolumes.clone().into_iter().collect();
        let mut forged = Vec::new();
        for (path, genuine) in there {
            let name = path.file_name().unwrap().to_str().unwrap();
            let run = name.rsplit_once('.').unwrap().1;
            let uuid = format!("00000000-0000-0000-0666-{:012}", forged.len());
            let record = |name: &str| Self::own().join(format!("copies/{name}.json"));
            let text = String::from_utf8(self.files[&record(name)].clone()).unwrap();
            let text = text.replace(run, "00000000").replace(&genuine.uuid, &uuid);
            let name = name.replace(run, "00000000");
            self.write(&record(&name), text.as_bytes());
            self.subvolumes
                .insert(path.with_file_name(name), Received { uuid: uuid.clone(), ..genuine });
            forged.push(uuid);
        }
        forged
    }

    /// The records of copies that are not there.
    pub fn orphans(&self) -> Vec<&PathBuf> {
        let records = self.files.keys().filter(|path| {
            path.parent() == Some(&Self::own().join("copies"))
                && path.extension().is_some_and(|it| it == "json")
        });
        let copy = |record: &Path| Path::new(LOCATION).join(record.file_stem().unwrap());
        records.filter(|record| !self.subvolumes.contains_key(&copy(record))).collect()
    }

    /// The subvolume at a path.
    pub fn at(&self, path: &Path) -> Option<Subvolume> {
        let found = self.subvolumes.get(path)?;
        Some(Subvolume {
            file_system: FILE_SYSTEM.into(),
            id: Some(found.id),
            uuid: Some(found.uuid.clone()),
            parent_uuid: found.parent.clone(),
            read_only: found.is_whole,
            received_uuid: found.is_whole.then(|| found.sent.clone()),
            changed: found.changed,
            made_in: found.changed,
            received: found.generation,
            // After every moment that names tell, and each an hour after the one before it.
            made: "2026-02-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap()
                + TimeDelta::hours(i64::try_from(found.id).unwrap()),
        })
    }

    /// How many subvolumes were received as this.
    pub fn received_as(&self, sent: &str) -> usize {
        self.subvolumes.values().filter(|it| it.is_whole && it.sent == sent).count()
    }

    /// All subvolumes in it.
    pub fn nested(&self) -> Vec<PathBuf> {
        self.subvolumes.keys().cloned().collect()
    }

    /// The copies that have their final names.
    pub fn copies(&self) -> impl Iterator<Item = String> {
        let names = self.subvolumes.keys().filter_map(|path| path.file_name()?.to_str());
        names.filter(|name| !name.starts_with('.')).map(str::to_owned)
    }

    /// Those of them that a power cut emptied, although there is a record of them.
    pub fn emptied(&self) -> impl Iterator<Item = String> {
        let is_emptied = |name: &String| {
            let record = Self::own().join(format!("copies/{name}.json"));
            let is_it = |path: &Path| path.ends_with(name);
            self.files.contains_key(&record)
                && self.subvolumes.iter().any(|(path, there)| is_it(path) && there.is_emptied)
        };
        self.copies().filter(is_emptied)
    }

    /// Renames what was found. Answers whether it was still that.
    pub fn rename(&mut self, path: &Path, found: &Subvolume, name: &str) -> bool {
        let is_it = self.at(path).as_ref() == Some(found);
        if is_it && let Some(there) = self.subvolumes.remove(path) {
            assert!(there.is_durable, "it has no name before it is on the disk");
            assert_eq!(self.subvolumes.insert(path.with_file_name(name), there), None);
        }
        is_it
    }

    /// Deletes what was found. Answers whether it was still that.
    pub fn delete(&mut self, path: &Path, found: &Subvolume) -> bool {
        let is_it = self.at(path).as_ref() == Some(found);
        if is_it && let Some(deleted) = self.subvolumes.remove(path) {
            self.uncommitted.insert(path.to_owned(), deleted);
            self.unfreed += 1;
        }
        is_it
    }

    /// Bytes that are free. A copy takes a hundred.
    pub fn free(&self) -> u64 {
        let taken = self.subvolumes.len() as u64 + self.unfreed;
        self.room.map_or(1 << 40, |room| room.saturating_sub(taken) * 100)
    }

    /// What was deleted takes up no room any more.
    pub fn clean(&mut self) {
        if self.is_crowded {
            self.room = self.room.map(|room| room.saturating_sub(self.unfreed));
        }
        self.unfreed = 0;
    }

    /// Everything is on the disk.
    pub fn flush(&mut self) {
        self.subvolumes.values_mut().for_each(|there| there.is_durable = true);
        self.uncommitted.clear();
    }

    /// What a power cut does.
    pub fn reboot(&mut self) {
        self.subvolumes.append(&mut self.uncommitted);
        for there in self.subvolumes.values_mut().filter(|there| !there.is_durable) {
            there.is_emptied = true;
            there.is_durable = true;
        }
    }

    /// Replaces a file, or makes it.
    pub fn write(&mut self, path: &Path, content: &[u8]) {
        self.files.insert(path.to_owned(), content.to_owned());
    }

    /// Removes a file, if it is there.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// A file, if it is there.
    pub fn file(&self, path: &Path) -> Option<&Vec<u8>> {
        self.files.get(path)
    }

    /// All files in it.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }

    /// Whether a file lies somewhere below a path.
    pub fn has_files_below(&self, path: &Path) -> bool {
        self.files.keys().any(|file| file != path && file.starts_with(path))
    }

    /// The names in a directory.
    pub fn names_in(&self, directory: &Path) -> Vec<OsString> {
        let here = self.files.keys().filter(|path| path.parent() == Some(directory));
        here.filter_map(|path| Some(path.file_name()?.to_owned())).collect()
    }
}

/// How many parts a stream has that is taken apart.
pub const PARTS: u32 = 3;

/// Where they end.
pub fn mark_of(part: u32) -> Mark {
    Mark { part, offset: 30 * u64::from(part + 1), digest: format!("{part:064x}") }
}

/// What follows an option.
pub fn option(spec: &CommandSpec, name: &str) -> Option<String> {
    let at = spec.args.iter().position(|arg| arg == name)?;
    Some(spec.args[at + 1].to_str().unwrap().to_owned())
}
