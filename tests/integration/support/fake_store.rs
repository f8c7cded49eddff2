//! A place that stores streams, in memory: files of a directory, or the same objects behind commands. What was removed
//! there and did not reach the disk comes back with a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use stillpoint::host::{CommandSpec, Exit, Input, Subvolume};
use stillpoint::tools::btrfs::command::Told;
use stillpoint::tools::btrfs::edits::{Edit, Edited};
use stillpoint::tools::btrfs::parts::{Mark, told_of};
use stillpoint::tools::btrfs::shares::BEGINS;
use stillpoint::tools::btrfs::stream::StreamError;
use stillpoint::tools::object::{Digest, ShareEnd};

use super::fake_borg::Answer;
use super::fake_btrfs::FakeBtrfs;
use super::fake_pool::{OnTheWay, PARTS, mark_of, option};
use super::fake_tree::received_into;

/// Where it is.
pub const LOCATION: &str = "/archive";

/// A directory of a btrfs, in which copies are received to be read.
pub const SCRATCH: &str = "/scratch";

/// The program of the commands.
pub const KEEPER: &str = "keeper";

/// The objects.
#[derive(Debug, Clone, Default)]
pub struct FakeStore {
    pub objects: BTreeMap<String, Vec<u8>>,
    uncommitted: BTreeMap<String, Vec<u8>>,
    /// What was received to be read.
    pub received: BTreeMap<PathBuf, Subvolume>,
    unreceived: BTreeMap<PathBuf, Subvolume>,
    /// How age ends, where it does not open what it reads, and what it says.
    pub age: Option<(Exit, String)>,
    /// The same of zstd.
    pub zstd: Option<(Exit, String)>,
    /// What a stream that is listed does besides what each of them does.
    pub more: Vec<(String, Edit)>,
    /// Of how many parts streams are where those are small.
    pub parts: u32,
    /// What a stage says of a stream whose storing fails.
    pub unfit: bool,
    /// Files that are there and cannot be read.
    pub unreadable: BTreeSet<PathBuf>,
    /// How often commands listed all objects.
    pub lists: usize,
    /// The objects that were read back behind commands.
    pub read_back: Vec<String>,
    /// Directories around that which were removed, with their inodes.
    pub removed: BTreeMap<PathBuf, u64>,
}

impl FakeStore {
    /// Whether something is a part of it.
    pub fn holds(path: &Path) -> bool {
        path.starts_with(LOCATION)
    }

    /// Whether something is where copies are received to be read.
    pub fn is_scratch(path: &Path) -> bool {
        path.starts_with(SCRATCH)
    }

    /// Whether a chain that ends so stores something here.
    pub fn takes(last: &CommandSpec) -> bool {
        stored_at(last).is_some()
    }

    /// A new place.
    pub fn made() -> Self {
        let marker = br#"{"format": 1, "id": "0123456789abcdef"}"#.to_vec();
        let objects = [("target.json".to_owned(), marker)].into();
        Self { objects, parts: PARTS, ..Self::default() }
    }

    /// Stores what a snapshot's sender sends, through all that stands in between, or a text.
    pub fn take(&mut self, source: &FakeBtrfs, chain: &[&CommandSpec]) -> Vec<Answer> {
        let (first, last) = (chain.first().unwrap(), chain.last().unwrap());
        let name = stored_at(last).unwrap();
        let digest = |content: &[u8]| serde_json::to_string(&Digest::of(content)).unwrap();
        if let Some(text) = text_of(first) {
            self.objects.insert(name, text.to_owned());
            return chain.iter().map(|_| Answer::told(Vec::new())).collect();
        }
        let stage = chain[1];
        if let Some(answers) = OnTheWay::of(source, first, stage).changed(stage, chain.len()) {
            return answers;
        }
        let snapshot = source.seen(Path::new(first.args.last().unwrap()));
        assert_eq!(option(stage, "--uuid").as_deref(), Some(snapshot.uuid.as_str()));
        let base = option(stage, "--based-on");
        assert_eq!(base, option(stage, "--known-as"), "others must find it by what was sent");
        assert_eq!(base.is_some(), option(first, "-p").is_some());
        let stream = format!("{} on {base:?}", snapshot.uuid).into_bytes();
        let named = if base.is_some() { 0 } else { 5 };
        let told = Told {
            bytes: 100,
            commands: 9,
            named,
            generation: snapshot.changed,
            whole: true,
            ..Told::default()
        };
        let told = vec![serde_json::to_string(&told).unwrap(), digest(&stream)];
        let (share, more) = self.share(stage, &stream, &name);
        let content = [share, b" stored"].concat();
        let mut said = vec![digest(&content)];
        assert_eq!(self.objects.insert(name, content), None, "two of one name");
        let is_ours = |it: &&CommandSpec| it.args[0] == "pass-object";
        let teller = chain.iter().rposition(is_ours).unwrap();
        let takes = |it: &&CommandSpec| it.args.iter().any(|arg| arg == "--share");
        let taker = chain.iter().position(takes);
        assert_eq!(taker.is_some(), option(stage, "--share-size").is_some());
        let ended = serde_json::to_string(&ShareEnd { share_ends: more }).unwrap();
        if taker == Some(teller) {
            said.insert(0, ended.clone());
        }
        let says = |n: usize| match n {
            1 => told.clone(),
            n if n == teller => said.clone(),
            n if Some(n) == taker => vec![ended.clone()],
            _ => Vec::new(),
        };
        (0..chain.len()).map(|n| Answer::told(says(n))).collect()
    }

    /// The share of a stream that goes into an object, and the word at its end if another one follows: streams are of some
    /// parts where those are small.
    fn share<'s>(
        &self,
        stage: &CommandSpec,
        stream: &'s [u8],
        object: &str,
    ) -> (&'s [u8], Option<String>) {
        if option(stage, "--share-size").is_none_or(|size| size != SMALL.to_string()) {
            return (stream, None);
        }
        let (first, number) = parted(object);
        if let Some(mark) = option(stage, "--share-behind").map(|it| Mark::parse(&it).unwrap()) {
            assert_eq!(mark, mark_of(mark.part));
            assert!(number > mark.part, "it has that");
        }
        if let Some(before) = number.checked_sub(1) {
            assert!(self.objects.contains_key(&part(&first, before)), "{object} has no {before}");
        }
        let at = |part: u32| stream.len() * part as usize / self.parts as usize;
        let more = (number + 1 < self.parts).then(|| mark_of(number).word());
        (&stream[at(number)..at(number + 1)], more)
    }

    /// Waits for the first byte of a stream that is to be stored, behind what is there of it.
    pub fn await_first(&self, source: &FakeBtrfs, chain: &[&CommandSpec]) -> Vec<Answer> {
        let [first, stage, last] = chain else { panic!("{chain:?}") };
        if let Some(answers) = OnTheWay::of(source, first, stage).changed(stage, chain.len()) {
            return answers;
        }
        let behind = option(stage, "--share-behind").map(|it| Mark::parse(&it).unwrap());
        if behind.as_ref().is_some_and(|mark| *mark != mark_of(mark.part)) {
            let stopped = || Answer { exit: Exit::Signal(15), ..Answer::good("") };
            return vec![stopped(), refused(&StreamError::Differs { at: 7 }), stopped()];
        }
        assert!(last.args.iter().any(|arg| arg == "--to-nobody"));
        let word = behind.map_or_else(|| BEGINS.to_owned(), |mark| mark.word());
        let told = serde_json::to_string(&ShareEnd { share_ends: Some(word) }).unwrap();
        vec![Answer::good(""), Answer::good(""), Answer::told(vec![told])]
    }

    /// Reads back an object behind commands.
    pub fn give_back(&mut self, chain: &[&CommandSpec]) -> Vec<Answer> {
        let [get, pass] = chain else { panic!("{chain:?}") };
        assert!(get.args[0] == "get" && pass.args.iter().any(|arg| arg == "--to-nobody"));
        let name = get.args[1].to_str().unwrap().to_owned();
        let told = serde_json::to_string(&Digest::of(&self.objects[&name])).unwrap();
        self.read_back.push(name);
        vec![Answer::good(""), Answer::told(vec![told])]
    }

    /// Gives away an object that is a part of a stream.
    pub fn give(&self, chain: &[&CommandSpec]) -> Vec<Answer> {
        let content = self.file(Path::new(&option(chain[0], "--from").unwrap())).unwrap();
        let told = serde_json::to_string(&Digest::of(content)).unwrap();
        self.opened(chain, |n| match n {
            0 => Answer::told(vec![told.clone()]),
            _ => Answer::good(""),
        })
    }

    /// What a chain answers that opens something: what each says if nothing fails. Where age or zstd does not open what it
    /// reads, all behind it is stopped.
    fn opened(&self, chain: &[&CommandSpec], says: impl Fn(usize) -> Answer) -> Vec<Answer> {
        let opener = |name| chain.iter().position(|it| it.tool.name() == name);
        let of_zstd = || opener("zstd").zip(self.zstd.as_ref());
        let fails = opener("age").zip(self.age.as_ref()).or_else(of_zstd);
        let answer = |n: usize| match fails {
            Some((at, (exit, said))) if n == at => {
                Answer { exit: *exit, ..Answer::told(vec![said.clone()]) }
            }
            Some((at, _)) if n > at => Answer { exit: Exit::Signal(15), ..Answer::good("") },
            Some(_) | None => says(n),
        };
        (0..chain.len()).map(answer).collect()
    }

    /// The stream of which an object is, or a part of it.
    fn stream(&self, object: &str) -> Vec<u8> {
        let (first, _) = parted(object);
        let parts = (0..).map_while(|number| self.objects.get(&part(&first, number)));
        parts.flat_map(|it| it.strip_suffix(b" stored").unwrap_or(b"torn").to_vec()).collect()
    }

    /// A chain that failed has stored the beginning of an object.
    pub fn tear(&mut self, chain: &[&CommandSpec]) {
        let name = stored_at(chain.last().unwrap()).unwrap();
        let whole = text_of(chain[0]).unwrap_or(b"a stream");
        self.objects.insert(name, whole[..whole.len() / 2].to_vec());
    }

    /// Whether a process gives an object of this place to others.
    pub fn gives(first: &CommandSpec) -> bool {
        option(first, "--from").is_some_and(|from| Self::holds(Path::new(&from)))
    }

    /// Whether a chain that ends so reads an object of this place for its own sake.
    pub fn is_read_by(first: &CommandSpec, last: &CommandSpec) -> bool {
        Self::gives(first)
            && (last.args.iter().any(|arg| arg == "--to-nobody") || last.args[0] == "pass-stream")
    }

    /// Reads an object for its own sake, as it is stored or as what was sent. Nothing here notices what was changed but
    /// who looks at the hashes; [`FakeStore::age`] may fail before.
    pub fn read(&mut self, chain: &[&CommandSpec]) -> Vec<Answer> {
        let from = PathBuf::from(option(chain[0], "--from").unwrap());
        let content = self.file(&from).unwrap();
        let sent = &*self.stream(from.file_name().unwrap().to_str().unwrap());
        let told = |content: &[u8]| serde_json::to_string(&Digest::of(content)).unwrap();
        let is_listed = chain.last().unwrap().args.iter().any(|arg| arg == "--edits");
        let edits = if is_listed { self.edits(sent) } else { String::new() };
        self.opened(chain, |n| match n {
            0 => Answer::told(vec![told(content)]),
            n if n + 1 == chain.len() => {
                Answer { stderr: vec![told(sent)], ..Answer::good(edits.clone()) }
            }
            _ => Answer::good(""),
        })
    }

    /// What a stream does: a whole one makes `d/a` of four bytes, and a difference writes five more to it and moves it to
    /// another directory.
    fn edits(&self, sent: &[u8]) -> String {
        let is_whole = sent.ends_with(b" on None");
        let directory = || Edit::Make { kind: 'd', device: 0 };
        let made = vec![
            ("d".into(), directory()),
            ("d/a".into(), Edit::Make { kind: '-', device: 0 }),
            ("d/a".into(), Edit::Write(4)),
        ];
        let changed = vec![
            ("d/a".into(), Edit::Write(9)),
            ("o258-1-0".into(), directory()),
            ("d/a".into(), Edit::Rename("o258-1-0/a".into())),
            ("d".into(), Edit::Rmdir),
            ("o258-1-0".into(), Edit::Rename("d".into())),
            ("b".into(), Edit::Link("d/a".into())),
            ("b".into(), Edit::Unlink),
        ];
        let all = if is_whole { made } else { changed };
        let all = all.into_iter().chain(self.more.clone());
        let line = |(n, (path, edit)): (usize, (String, Edit))| {
            let edited = Edited { at: n as u64, path: path.into(), edit };
            serde_json::to_string(&edited).unwrap() + "\n"
        };
        all.enumerate().map(line).collect()
    }

    /// What is told of an object that is given away, and the generation of what was sent.
    pub fn given(&self, give: &CommandSpec) -> (String, u64) {
        let from = option(give, "--from").unwrap();
        let content = self.file(Path::new(&from)).unwrap();
        let name = Path::new(&from).file_name().unwrap().to_str().unwrap();
        let record = &self.objects[&format!("{}.json", name.split_once(".btrfs").unwrap().0)];
        let record: serde_json::Value = serde_json::from_slice(record).unwrap();
        let digest = serde_json::to_string(&Digest::of(content)).unwrap();
        (digest, record["generation"].as_u64().unwrap())
    }

    /// Receives a copy to be read.
    pub fn receive(&mut self, chain: &[&CommandSpec]) -> Vec<Answer> {
        let stage = chain.iter().find(|it| it.args[0] == "pass-stream").unwrap();
        let (digest, generation) = self.given(chain[0]);
        let said = digest;
        let copy = option(stage, "--name").unwrap();
        let base = option(stage, "--known-as");
        let is_there = |base: &String| {
            self.received.values().any(|it| it.received_uuid.as_ref() == Some(base))
        };
        assert!(base.as_ref().is_none_or(is_there), "a difference to what is not there");
        let uuid = format!("00000000-0000-0000-0002-{:012}", self.received.len());
        let found = Subvolume {
            uuid: Some(uuid),
            read_only: true,
            received_uuid: option(stage, "--received-as").or_else(|| option(stage, "--uuid")),
            received: generation,
            ..Subvolume::default()
        };
        let into = received_into(chain.last().unwrap());
        assert_eq!(self.received.insert(into.join(copy), found), None, "two of one name");
        given_back(chain.len(), &said)
    }

    /// Deletes what was received, if it is still that.
    pub fn delete(&mut self, path: &Path, found: &Subvolume) -> bool {
        let is_it = self.received.get(path) == Some(found);
        if is_it && let Some(deleted) = self.received.remove(path) {
            self.unreceived.insert(path.to_owned(), deleted);
        }
        is_it
    }

    /// Deletes what was received into a staging directory that goes.
    pub fn remove_staging(&mut self, path: &Path, inode: u64) {
        if !path.starts_with(SCRATCH) {
            return;
        }
        self.removed.insert(path.to_owned(), inode);
        self.unreceived.extend(self.received.extract_if(.., |it, _| it.starts_with(path)));
    }

    /// Carries out a command.
    pub fn keeper(&mut self, spec: &CommandSpec) -> Answer {
        let words: Vec<&str> = spec.args.iter().map(|word| word.to_str().unwrap()).collect();
        let stdout = match words.as_slice() {
            ["list"] => {
                self.lists += 1;
                self.objects.keys().map(|name| format!("{name}\n")).collect()
            }
            ["get", name] => String::from_utf8(self.objects[*name].clone()).unwrap(),
            ["delete", name] => {
                self.objects.remove(*name).unwrap();
                String::new()
            }
            other => panic!("the keeper knows no {other:?}"),
        };
        Answer::good(stdout)
    }

    /// The copies that are listed.
    pub fn copies(&self) -> impl Iterator<Item = String> {
        let names = self.objects.keys().filter_map(|name| name.strip_suffix(".json"));
        let is_copy =
            |name: &&str| *name != "target" && !self.objects.contains_key(&format!("{name}.gone"));
        names.filter(is_copy).map(str::to_owned)
    }

    /// What is neither a copy nor belongs to one. What is recorded of parts while they are stored belongs to none, even
    /// when theirs has become one.
    pub fn strays(&self) -> Vec<String> {
        let copies: Vec<String> = self.copies().collect();
        let is_of_one = |object: &&String| {
            !object.ends_with(".begun")
                && (*object == "target.json"
                    || copies.iter().any(|copy| object.starts_with(copy.as_str())))
        };
        self.objects.keys().filter(|object| !is_of_one(object)).cloned().collect()
    }

    /// A file, if it is there.
    pub fn file(&self, path: &Path) -> Option<&Vec<u8>> {
        self.objects.get(&name(path)?)
    }

    /// Replaces a file, or makes it.
    pub fn write(&mut self, path: &Path, content: &[u8]) {
        self.objects.insert(name(path).unwrap(), content.to_owned());
    }

    /// Removes a file, if it is there.
    pub fn remove(&mut self, path: &Path) {
        let Some(name) = name(path) else { return };
        if let Some(removed) = self.objects.remove(&name) {
            self.uncommitted.insert(name, removed);
        }
    }

    /// Everything is on the disk.
    pub fn flush(&mut self) {
        self.uncommitted.clear();
        self.unreceived.clear();
        self.removed.clear();
    }

    /// What a power cut does.
    pub fn reboot(&mut self) {
        self.objects.append(&mut self.uncommitted);
        self.received.append(&mut self.unreceived);
    }

    /// The names in it.
    pub fn names(&self) -> Vec<OsString> {
        self.objects.keys().map(OsString::from).collect()
    }
}

fn name(path: &Path) -> Option<String> {
    let name = path.strip_prefix(LOCATION).ok()?;
    Some(name.to_str()?.to_owned()).filter(|name| !name.is_empty())
}

/// Streams are in parts where these are so small, in bytes.
const SMALL: u64 = 1 << 20;

/// A small object as a whole, if a process is given one to pass on.
fn text_of(first: &CommandSpec) -> Option<&[u8]> {
    match &first.input {
        Input::Bytes(text) => Some(text),
        Input::Nothing | Input::Own | Input::Pipe(_) => None,
    }
}

/// How a stage ends that refuses a stream.
pub fn refused(error: &StreamError) -> Answer {
    Answer { exit: Exit::Code(1), ..Answer::told(vec![told_of(error).unwrap().to_owned()]) }
}

/// The first object of a stream, and which part of it this one holds.
fn parted(object: &str) -> (String, u32) {
    let number = object.rsplit_once('.').filter(|(_, number)| number.len() == 6);
    let number = number.and_then(|(first, number)| Some((first, number.parse().ok()?)));
    number.map_or((object.to_owned(), 0), |(first, number)| (first.to_owned(), number))
}

/// The object that holds a part of a stream, by its first one.
pub fn part(first: &str, number: u32) -> String {
    if number == 0 { first.to_owned() } else { format!("{first}.{number:06}") }
}

/// The object that the last process of a chain stores.
fn stored_at(last: &CommandSpec) -> Option<String> {
    if last.tool.name() == KEEPER && last.args[0] == "put" {
        return Some(last.args[1].to_str()?.to_owned());
    }
    name(&PathBuf::from(option(last, "--to")?))
}

/// What so many processes tell of a stream that is received: the first, that it gave all, and the last but one, what passed.
pub fn given_back(count: usize, digest: &str) -> Vec<Answer> {
    let passed = Told { bytes: 100, whole: true, ..Told::default() };
    let says = |n: usize| match n {
        0 => vec![digest.to_owned()],
        n if n + 2 == count => vec![serde_json::to_string(&passed).unwrap()],
        _ => Vec::new(),
    };
    (0..count).map(|n| Answer::told(says(n))).collect()
}
