//! Subvolumes of the source's btrfs that are no snapshots of captures: what is mounted, and what a restore puts beside
//! it. A power cut takes back all that came since the last commit, and empties what was not on the disk by then.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use stillpoint::host::{CommandSpec, Located, Subvolume};
use stillpoint::tools::btrfs::command::Told;

use super::fake_borg::Answer;
use super::fake_btrfs::{FILE_SYSTEM, id_of};
use super::fake_pool::{FakePool, option};
use super::fake_store::{FakeStore, given_back};

/// What is mounted where, from the top-level subvolume on.
const MOUNTED: [(&str, &str); 2] = [("/home", "@home"), ("/srv", "@srv")];

/// Where the machine itself finds the directory that something is received into.
pub fn received_into(receive: &CommandSpec) -> PathBuf {
    match &receive.confinement {
        Some(confinement) => confinement.staged[0].path.clone(),
        None => PathBuf::from(receive.args.last().unwrap()),
    }
}

/// A subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    id: u64,
    pub uuid: String,
    pub read_only: bool,
    /// What it was received as.
    received: Option<(String, u64)>,
    /// What was sent as what it is made of, whoever sent it.
    pub content: String,
    /// Its data is on the disk.
    is_durable: bool,
    /// It looks whole and is empty.
    pub is_emptied: bool,
}

/// All of them, by their paths from the top-level subvolume on.
#[derive(Debug, Clone, Default)]
pub struct FakeTree {
    pub nodes: BTreeMap<PathBuf, Node>,
    committed: BTreeMap<PathBuf, Node>,
    /// Staging directories that went since the last commit.
    removed: BTreeMap<PathBuf, u64>,
    made: u64,
    /// A name that every copy has in it already.
    pub taken: Option<String>,
    /// A read-only subvolume, by its path.
    pub read_only: Option<PathBuf>,
    /// How much is free where copies are received, if it is little.
    pub free: Option<u64>,
    /// The same when the next of them is on the disk.
    pub left: Option<u64>,
    /// The same when so many more of them have come.
    pub left_behind: Option<(usize, u64)>,
}

impl FakeTree {
    /// One with what is mounted in it.
    pub fn mounted() -> Self {
        let mut tree = Self::default();
        for (at, path) in MOUNTED {
            let node = tree.node(&format!("{at}-uuid"), false, "what lives");
            tree.nodes.insert(path.into(), node);
        }
        tree.commit();
        tree
    }

    /// Puts one more that lives into one of them, from the top-level subvolume on.
    pub fn nest(&mut self, path: &str) {
        let node = self.node(&format!("{path}-uuid"), false, "what lives");
        self.nodes.insert(path.into(), node);
        self.commit();
    }

    fn node(&mut self, uuid: &str, read_only: bool, content: &str) -> Node {
        self.made += 1;
        Node {
            id: id_of(uuid),
            uuid: uuid.into(),
            read_only,
            received: None,
            content: content.into(),
            is_durable: true,
            is_emptied: false,
        }
    }

    /// A path of the machine, from the top-level subvolume on.
    pub fn from_top(path: &Path) -> Option<PathBuf> {
        MOUNTED.iter().find_map(|(at, top)| {
            let below = path.strip_prefix(at).ok()?;
            Some(Path::new(top).join(below).components().collect())
        })
    }

    /// What lies at a path from the top-level subvolume on.
    pub fn find(&self, path: &Path) -> Option<Subvolume> {
        let found = self.nodes.get(path)?;
        let (received_uuid, received) = found.received.clone().unzip();
        Some(Subvolume {
            file_system: FILE_SYSTEM.into(),
            id: Some(found.id),
            uuid: Some(found.uuid.clone()),
            read_only: found.read_only,
            received_uuid,
            received: received.unwrap_or_default(),
            ..Subvolume::default()
        })
    }

    /// What lies at a path of the machine.
    pub fn at(&self, path: &Path) -> Option<Subvolume> {
        self.find(&Self::from_top(path)?)
    }

    /// Receives a copy of a pool.
    pub fn receive(&mut self, pool: &FakePool, chain: &[&CommandSpec]) -> Vec<Answer> {
        self.receive_copy(pool, Path::new(chain[0].args.last().unwrap()), chain)
    }

    /// The same of a copy that is named in another way.
    pub fn receive_copy(
        &mut self,
        pool: &FakePool,
        copy: &Path,
        chain: &[&CommandSpec],
    ) -> Vec<Answer> {
        let [_, stage, receive] = chain else { panic!("a chain of {}", chain.len()) };
        let copy = pool.subvolumes.get(copy).unwrap();
        assert!(!copy.is_emptied, "an empty copy is given back");
        assert_eq!(option(stage, "--uuid").as_deref(), Some(copy.sent.as_str()));
        let into = &receive.confinement.as_ref().unwrap().staged[0].path;
        self.add_received(stage, into, copy.changed);
        let told = Told { bytes: 100, generation: copy.changed, whole: true, ..Told::default() };
        let said = [Vec::new(), vec![serde_json::to_string(&told).unwrap()], Vec::new()];
        said.map(Answer::told).into()
    }

    /// Receives a stream of the store; a difference on top of what was received before.
    pub fn receive_stored(&mut self, store: &FakeStore, chain: &[&CommandSpec]) -> Vec<Answer> {
        let [give, .., stage, receive] = chain else { panic!("a chain of {}", chain.len()) };
        let base = option(stage, "--known-as");
        let is_it = |found: &Node, base: &String| {
            found.uuid == *base || found.received.as_ref().is_some_and(|it| it.0 == *base)
        };
        let is_there = |base: &String| self.nodes.values().any(|it| is_it(it, base));
        assert!(base.as_ref().is_none_or(is_there), "a difference to what is not there");
        let into = received_into(receive);
        let (digest, generation) = store.given(give);
        self.add_received(stage, &into, generation);
        given_back(chain.len(), &digest)
    }

    /// What lies in a directory of the machine.
    pub fn nested(&self, directory: &Path) -> Vec<PathBuf> {
        let Some(from_top) = Self::from_top(directory) else { return Vec::new() };
        let below = self.nodes.keys().filter_map(|path| path.strip_prefix(&from_top).ok());
        below.map(|below| directory.join(below)).collect()
    }

    fn add_received(&mut self, stage: &CommandSpec, into: &Path, generation: u64) {
        if let Some((more, left)) = &mut self.left_behind {
            *more -= 1;
            if *more == 0 {
                self.free = Some(*left);
                self.left_behind = None;
            }
        }
        let at = Self::from_top(&into.join(option(stage, "--name").unwrap())).unwrap();
        let sent = option(stage, "--uuid").unwrap();
        let uuid = format!("00000000-0000-0000-0002-{:012}", self.made);
        let mut node = self.node(&uuid, true, &sent);
        node.received = Some((option(stage, "--received-as").unwrap_or(sent), generation));
        node.is_durable = false;
        assert_eq!(self.nodes.insert(at, node), None, "two of one name");
    }

    /// Makes a writable snapshot, which commits. Answers with its UUID; `None` when it is not what was found.
    pub fn make_writable(
        &mut self,
        path: &Path,
        found: &Subvolume,
        at: &Path,
    ) -> io::Result<Option<String>> {
        if self.at(path).as_ref() != Some(found) {
            return Ok(None);
        }
        let source = self.nodes[&Self::from_top(path).unwrap()].clone();
        assert!(source.is_durable, "a snapshot of what is on no disk");
        let at = Self::from_top(at).unwrap();
        if self.nodes.contains_key(&at) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let uuid = format!("00000000-0000-0000-0003-{:012}", self.made);
        let mut node = self.node(&uuid, false, &source.content);
        node.is_emptied = source.is_emptied;
        self.nodes.insert(at, node);
        self.commit();
        Ok(Some(uuid))
    }

    /// Gives what lies at a path, with what lies in it, other paths.
    fn rename(&mut self, renamed: &[(&Path, &Path)]) {
        let nodes = std::mem::take(&mut self.nodes).into_iter();
        self.nodes = nodes
            .map(|(path, node)| {
                let new = renamed.iter().find_map(|(from, to)| {
                    let below = path.strip_prefix(from).ok()?;
                    Some(to.join(below).components().collect::<PathBuf>())
                });
                (new.unwrap_or(path), node)
            })
            .collect();
    }

    /// Moves what was found. Answers whether it was still that.
    pub fn relocate(&mut self, from: &Path, found: &Subvolume, to: &Path) -> bool {
        let is_it = self.find(from).as_ref() == Some(found);
        if is_it {
            assert!(!self.nodes.contains_key(to), "something is there");
            self.rename(&[(from, to)]);
        }
        is_it
    }

    /// Exchanges two that were found. Answers whether they were still that.
    pub fn exchange(&mut self, one: &Located, other: &Located) -> bool {
        let are_they =
            [one, other].iter().all(|it| self.find(&it.path).as_ref() == Some(&it.found));
        if are_they {
            assert!(
                self.nodes[&other.path].is_durable,
                "it takes a place before it is on the disk"
            );
            self.rename(&[(&one.path, &other.path), (&other.path, &one.path)]);
        }
        are_they
    }

    /// Deletes what was found. Answers whether it was still that.
    ///
    /// # Errors
    /// When another one lies in it.
    pub fn delete(&mut self, path: &Path, found: &Subvolume) -> io::Result<bool> {
        let is_it = self.find(path).as_ref() == Some(found);
        if is_it {
            if self.nodes.keys().any(|other| other != path && other.starts_with(path)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            self.nodes.remove(path);
        }
        Ok(is_it)
    }

    /// The same with all that lie in it.
    pub fn delete_whole(&mut self, path: &Path, found: &Subvolume) -> bool {
        let is_it = self.find(path).as_ref() == Some(found);
        if is_it {
            self.nodes.retain(|other, _| !other.starts_with(path));
        }
        is_it
    }

    /// Deletes what lies in a staging directory that goes.
    pub fn remove_staging(&mut self, path: &Path, inode: u64) {
        let Some(staging) = Self::from_top(path) else { return };
        self.removed.insert(path.to_owned(), inode);
        self.nodes.retain(|path, _| !path.starts_with(&staging));
    }

    /// What was done so far is not undone by a power cut.
    pub fn commit(&mut self) {
        self.committed.clone_from(&self.nodes);
        self.removed.clear();
    }

    /// Everything is on the disk.
    pub fn flush(&mut self) {
        self.nodes.values_mut().for_each(|node| node.is_durable = true);
        self.commit();
    }

    /// What a power cut does. Answers with the staging directories that are there again.
    pub fn reboot(&mut self) -> BTreeMap<PathBuf, u64> {
        self.nodes.clone_from(&self.committed);
        for node in self.nodes.values_mut().filter(|node| !node.is_durable) {
            node.is_emptied = true;
            node.is_durable = true;
        }
        let mut back = std::mem::take(&mut self.removed);
        // An empty one is no matter.
        back.retain(|path, _| {
            let staging = Self::from_top(path).unwrap();
            self.nodes.keys().any(|path| path.starts_with(&staging))
        });
        back
    }

    /// What a restore has left.
    pub fn held(&self) -> Vec<String> {
        let is_left = |(path, node): &(&PathBuf, &Node)| {
            let path = path.to_str().unwrap();
            let waits = path.contains(".before-restore.") && node.content != "what lives";
            path.contains(".stillpoint-") || waits
        };
        self.nodes.iter().filter(is_left).map(|(path, _)| format!("subvolume {path:?}")).collect()
    }

    /// The UUIDs of what is mounted after a boot.
    pub fn booted(&self) -> impl Iterator<Item = (&'static str, &String)> {
        MOUNTED.iter().filter_map(|(at, top)| Some((*at, &self.nodes.get(Path::new(top))?.uuid)))
    }
}
