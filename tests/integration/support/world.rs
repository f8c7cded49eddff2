//! The state of a machine in memory, what processes do to it, and what is to go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::ThreadId;
use std::time::Duration;

use stillpoint::host::{CommandSpec, EnvValue, Exit, Input, MountEntry, PrivateMount, Tool};

use super::fake_borg::{Answer, FakeBorg};
use super::fake_btrfs::FakeBtrfs;
use super::fake_guests::{FakeGuest, FakeGuests};
use super::fake_lvm::{FakeLvm, Stage};
use super::fake_plain::Plain;
use super::fake_pool::{FakePool, OnTheWay, option};
use super::fake_pulled;
use super::fake_server::FakeServer;
use super::fake_store::{FakeStore, KEEPER};
use super::fake_tree::{FakeTree, received_into};
use super::fake_vault::FakeVault;

/// What happens at the n-th effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails and changes nothing.
    Fail(usize),
    /// The power is cut before it.
    CutBefore(usize),
    /// The power is cut after it.
    CutAfter(usize),
    /// The power is cut in the middle of an `lvcreate`.
    CutInside(usize, Stage),
    /// We are killed before it, and the machine runs on.
    KillBefore(usize),
    /// We are killed after it, and the machine runs on.
    KillAfter(usize),
    /// We are killed in the middle of an `lvcreate`, and it with us.
    KillInside(usize, Stage),
    /// SIGTERM arrives while it runs: a process is stopped, an action is completed.
    Signal(usize),
}

impl Fault {
    /// The ways to die at an effect, or rather just before and just after it.
    pub fn deaths_at(n: usize) -> [Fault; 4] {
        [Fault::CutBefore(n), Fault::CutAfter(n), Fault::KillBefore(n), Fault::KillAfter(n)]
    }

    /// What can happen at any effect: it fails, a signal comes, or it is the last one before a death.
    pub fn all_at(n: usize) -> [Fault; 6] {
        let [cut_before, cut_after, kill_before, kill_after] = Fault::deaths_at(n);
        [Fault::Fail(n), Fault::Signal(n), cut_before, cut_after, kill_before, kill_after]
    }
}

/// What somebody else does in the middle of an effect, or the machine by itself.
type Meanwhile = fn(&mut World);

/// What stays when the power goes.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The repository.
    pub borg: FakeBorg,
    /// That of one more engine.
    pub vault: FakeVault,
    /// A directory of another btrfs that takes copies.
    pub pool: FakePool,
    /// A place that stores streams.
    pub store: FakeStore,
    /// Another machine behind ssh.
    pub server: Option<Box<FakeServer>>,
    /// Directories below the cache directory, with their inode.
    pub staging: BTreeMap<PathBuf, u64>,
    /// Whether the service that the `before` hook stops is running.
    pub service_up: bool,
    /// How often hooks ran, by their first argument.
    pub hooks: Vec<String>,
    /// Effects so far.
    pub effects: Vec<String>,
    /// What is to go wrong.
    pub fault: Option<Fault>,
    /// The thread in which a fault has ended us: whatever another one was about to do, it does not.
    pub died: Option<ThreadId>,
    /// Locks that are held, with how many holders.
    pub locks: BTreeSet<PathBuf>,
    /// Files by which engines hold their locks, in the repositories themselves.
    pub engine_locks: BTreeSet<PathBuf>,
    /// Locks in the order in which somebody asked for them.
    pub asked: Vec<PathBuf>,
    /// What is mounted.
    pub mounts: Vec<MountEntry>,
    /// Mount points at which nothing is mounted.
    pub unmounted: BTreeSet<PathBuf>,
    /// Where a look would never come back.
    pub silent: Option<PathBuf>,
    /// A person was told that a copy is mounted.
    pub is_told: bool,
    /// Mount points that were remounted since the boot.
    pub remounted: BTreeSet<PathBuf>,
    /// Mount points that are in use when they are to be made read-only, the next time.
    pub busy: BTreeSet<PathBuf>,
    /// A btrfs.
    pub btrfs: FakeBtrfs,
    /// What lies on it besides.
    pub tree: FakeTree,
    /// How many snapshots are kept beyond a run.
    pub bases: usize,
    /// The id of the file system that is where snapshots of ours are that others pull, if it is another one than before.
    pub other_id: Option<&'static str>,
    /// A snapshot that was begun comes about when somebody removes the directory that it is to be in.
    pub is_late: bool,
    /// Files that were replaced.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// A volume group.
    pub lvm: FakeLvm,
    /// Guests of its hypervisor.
    pub guests: FakeGuests,
    /// Databases, by name.
    pub databases: Vec<String>,
    /// Swap files that are in use.
    pub swap_files: Vec<PathBuf>,
    /// What happens while the `quiesce` hook runs: after the survey, before the captures.
    pub while_pausing: Option<Meanwhile>,
    /// Whether the application that the `quiesce` hook pauses writes.
    pub writers_paused: bool,
    /// What happens while borg reads.
    pub while_reading: Option<Meanwhile>,
    /// What borg saw beyond the machine's own mounts when it last read.
    pub seen: Vec<PrivateMount>,
    /// How long somebody waited for something outside to come about.
    pub waited: Duration,
    /// What happens while somebody waits.
    pub while_waiting: Option<Meanwhile>,
    /// borg reads until it is stopped by whoever watches over the captures.
    pub reads_forever: bool,
    /// Control groups that are frozen. A boot makes them anew, so a power cut thaws them.
    pub frozen: BTreeSet<PathBuf>,
    /// How long every control group takes to freeze.
    pub freezing_takes: Duration,
    /// Whether the guard's limit comes while it stands.
    pub guard_fires: bool,
    /// Bytes and files for which there is room, where there is little.
    pub state_disk: Option<(u64, Option<u64>)>,
    /// How many things were made.
    pub inodes: u64,
    /// How often somebody asked for the time.
    pub ticks: i64,
    /// The signal that arrived.
    pub signal: Option<i32>,
    /// How often somebody asked for random bytes.
    pub draws: u32,
    /// How often the machine was booted.
    pub boots: u32,
}

impl World {
    /// A machine whose service runs and whose repository is empty.
    pub fn new() -> Self {
        let borg = FakeBorg { files: 100, id: "77".into(), ..FakeBorg::default() };
        Self { service_up: true, borg, ..Self::default() }
    }

    /// All copies that there are, by id, oldest first: ids sort by time where one job makes them.
    pub fn copies(&self) -> Vec<String> {
        let named = self.borg.archives.keys().chain(self.vault.copies.keys()).cloned();
        let far = self.server.iter().flat_map(|server| server.world.pool.copies());
        named.chain(self.pool.copies()).chain(self.store.copies()).chain(far).collect()
    }

    /// Everything that a run must have released when it is over, and has not.
    pub fn held(&self) -> Vec<String> {
        let mut held: Vec<String> = Vec::new();
        held.extend(self.staging.keys().map(|path| format!("staging {}", path.display())));
        held.extend(self.frozen.iter().map(|path| format!("frozen {}", path.display())));
        let pulled = self.server.iter().flat_map(|server| server.world.btrfs.top.keys());
        let snapshots: Vec<&String> = self.btrfs.ours().chain(pulled).collect();
        if snapshots.len() != self.bases {
            held.extend(snapshots.iter().map(|name| format!("snapshot {name}")));
            held.push(format!("{} is to be kept", self.bases));
        }
        held.extend(self.tree.held());
        let far = self.server.iter().flat_map(|server| server.world.pool.emptied());
        let emptied = self.pool.emptied().chain(far);
        held.extend(emptied.map(|name| format!("an empty copy {name}")));
        held.extend(self.store.received.keys().map(|path| format!("unpacked {}", path.display())));
        held.extend(self.lvm.snapshots().iter().map(|volume| format!("volume {}", volume.name)));
        held.extend(self.lvm.ailments());
        held.extend(self.guests.values().flat_map(FakeGuest::held));
        held.extend(self.engine_locks.iter().map(|path| format!("lock {}", path.display())));
        let served = self.mounts.iter().filter(|mount| mount.is_fuse() || mount.options == SHOWN);
        held.extend(served.map(|mount| format!("mount {} at {}", mount.id, mount.at.display())));
        let is_read_only = |path: &&PathBuf| {
            let mount = self.mounts.iter().rfind(|mount| mount.at == **path);
            mount.is_some_and(MountEntry::is_frozen_read_only)
        };
        let read_only = self.remounted.iter().filter(is_read_only);
        held.extend(read_only.map(|path| format!("{} read-only", path.display())));
        if !self.service_up {
            held.push(format!("the service is down; hooks: {:?}", self.hooks));
        }
        if self.writers_paused {
            held.push(format!("writers are paused; hooks: {:?}", self.hooks));
        }
        held
    }

    /// What a power cut and the boot after it change.
    pub fn reboot(&mut self) {
        self.boots += 1;
        self.frozen.clear();
        self.lvm.reboot();
        self.guests.values_mut().for_each(FakeGuest::reboot);
        self.btrfs.reboot();
        self.pool.reboot();
        self.store.reboot();
        self.staging.append(&mut self.store.removed);
        self.staging.extend(self.tree.reboot());
        for (at, uuid) in self.tree.booted() {
            self.btrfs.subvolumes.insert(at.into(), uuid.clone());
        }
        for mount in &mut self.mounts {
            if self.remounted.contains(&mount.at) {
                mount.super_options = "rw".into();
            }
        }
        self.remounted.clear();
        self.mounts.retain(|mount| !mount.is_fuse() && mount.options != SHOWN);
    }

    /// borg mounts a copy. The kernel gives each a number that is free.
    pub fn serve(&mut self, at: &Path) {
        let id = (100..).find(|id| self.mounts.iter().all(|mount| mount.id != *id)).unwrap();
        self.mounts.push(MountEntry {
            id,
            device: (0, id),
            root: "/".into(),
            at: at.into(),
            options: "ro".into(),
            file_system: "fuse".into(),
            source: "borgfs".into(),
            super_options: "ro,user_id=0".into(),
        });
    }

    /// Shows a subvolume at a place. Answers with the mount's number and device.
    pub fn show(&mut self, path: &Path, at: &Path) -> (u32, (u32, u32)) {
        self.serve(at);
        let shown = self.mounts.last_mut().unwrap();
        shown.root = path.into();
        shown.options = SHOWN.into();
        shown.file_system = "btrfs".into();
        (shown.id, shown.device)
    }

    /// Takes the mount away that one sees at a place.
    pub fn unmount(&mut self, at: &Path) {
        let top = self.mounts.iter().rposition(|mount| mount.at == at).unwrap();
        self.mounts.remove(top);
    }
}

/// The file by which borg holds its lock while it changes something, if that bears a name of a run's.
pub fn lock_of(spec: &CommandSpec) -> Option<PathBuf> {
    let owner = spec.env.iter().find(|(name, _)| name == "BORG_HOST_ID")?;
    let EnvValue::Plain(owner) = &owner.1 else { panic!("a secret name") };
    Some(PathBuf::from(format!("{LOCKED}/{}.4711-0", owner.to_str()?)))
}

/// The options of a mount that shows a subvolume.
pub const SHOWN: &str = "ro,nosuid,nodev";

/// The directory of such files.
pub const LOCKED: &str = "/repo/lock.exclusive";

/// What a process does, and what it says.
pub fn carry_out(world: &mut World, spec: &CommandSpec) -> Answer {
    match spec.tool.name().as_str() {
        "borg" => world.borg.answer(spec),
        "vault" => world.vault.answer(spec),
        "ssh" => ask(world, spec, None),
        program @ ("lvs" | "lvcreate" | "lvremove") => world.lvm.answer(program, spec),
        "dmsetup" => world.lvm.dmsetup(spec),
        KEEPER => world.store.keeper(spec),
        "btrfs" => {
            let at = Path::new(spec.args.last().unwrap());
            match (first_word(spec).as_str(), FakePool::holds(at)) {
                ("filesystem" | "--version", _) => {}
                ("subvolume", true) => world.pool.clean(),
                ("subvolume", false) => world.btrfs.clean(),
                _ => panic!("nobody thought of {}", spec.display()),
            }
            Answer::good("")
        }
        "systemctl" => {
            let unit = spec.args.last().unwrap().to_string_lossy().into_owned();
            let (state, active, group) = match unit.as_str() {
                "stopped.service" => ("loaded", "inactive", String::new()),
                "typo.service" => ("not-found", "inactive", String::new()),
                // It only starts others.
                "no-process.service" => ("loaded", "active", String::new()),
                unit => ("loaded", "active", format!("/system.slice/{unit}")),
            };
            Answer::good(format!("LoadState={state}\nActiveState={active}\nControlGroup={group}\n"))
        }
        _ => {
            let word = first_word(spec);
            match word.as_str() {
                "stop" => world.service_up = false,
                "start" => world.service_up = true,
                "pause" => {
                    world.writers_paused = true;
                    if let Some(meanwhile) = world.while_pausing {
                        meanwhile(world);
                    }
                }
                "continue" => world.writers_paused = false,
                "broken" => return injected(&spec.tool),
                _ => {}
            }
            world.hooks.push(word);
            Answer::good("")
        }
    }
}

/// What processes do and say of which each reads what the one before it writes.
pub fn carry_out_chain(world: &mut World, chain: &[&CommandSpec]) -> Vec<Answer> {
    let is_far = chain[0].tool.name() == "ssh";
    let pulled = fake_pulled::sender(world, chain[0]);
    let chain: Vec<&CommandSpec> = match &pulled {
        Some((_, send)) => [&[send], &chain[1..]].concat(),
        None => chain.to_vec(),
    };
    let chain = &chain[..];
    let (first, last) = (chain[0], chain[chain.len() - 1]);
    let names = |spec: &CommandSpec, holds: fn(&Path) -> bool| {
        spec.args.last().is_some_and(|path| holds(Path::new(path)))
    };
    let World { pool, store, btrfs, tree, server, .. } = world;
    let btrfs = pulled.as_ref().map_or(&*btrfs, |(there, _)| there);
    match first_word(last).as_str() {
        "receive" if FakeStore::is_scratch(&received_into(last)) => store.receive(chain),
        // On its way back.
        "receive" if FakeStore::gives(first) => tree.receive_stored(store, chain),
        "receive" if is_far && FakeTree::from_top(&received_into(last)).is_some() => {
            let pool = &server.as_ref().expect("there is a server").world.pool;
            tree.receive_copy(pool, &given_back(pool, first), chain)
        }
        "receive" if names(first, FakePool::holds) => tree.receive(pool, chain),
        "receive" => pool.receive(btrfs, chain),
        "list-changes" => pool.measure(chain),
        "pass-object" if first.tool.name() == KEEPER => store.give_back(chain),
        "pass-object" if awaits(last) => store.await_first(btrfs, chain),
        _ if FakeStore::takes(last) => store.take(btrfs, chain),
        _ if FakeStore::is_read_by(first, last) => store.read(chain),
        _ => match chain {
            [send, stage, ssh] if ssh.tool.name() == "ssh" => {
                let stream = OnTheWay::of(btrfs, send, stage);
                if let Some(command) = Plain::of(ssh) {
                    let server = world.server.as_mut().expect("there is a server");
                    let [told, taken] = server.receive(stream, stage, &command);
                    return vec![Answer::good(""), told, taken];
                }
                vec![Answer::good(""), Answer::good(""), ask(world, ssh, Some(stream))]
            }
            _ => chain.iter().map(|spec| carry_out(world, spec)).collect(),
        },
    }
}

/// The copy that another machine gives back: the one that is named to btrfs there, or to Stillpoint.
fn given_back(pool: &FakePool, first: &CommandSpec) -> PathBuf {
    let Input::Bytes(asked) = &first.input else {
        return PathBuf::from(first.args.last().unwrap());
    };
    let asked = String::from_utf8_lossy(asked);
    let named = |path: &&PathBuf| asked.contains(path.file_name().unwrap().to_str().unwrap());
    pool.subvolumes.keys().find(named).unwrap().clone()
}

/// Whether a process only waits for the first byte of what another one sends.
fn awaits(last: &CommandSpec) -> bool {
    let has = |option: &str| last.args.iter().any(|arg| arg == option);
    has("--share") && has("--to-nobody")
}

/// The same of a stream that is torn before its end, which is received in parts.
pub fn receive_torn(world: &mut World, chain: &[&CommandSpec]) -> Vec<Answer> {
    let pulled = fake_pulled::sender(world, chain[0]);
    let World { pool, btrfs, server, .. } = world;
    if let Some((there, send)) = &pulled {
        return pool.receive_torn(there, &[&[send], &chain[1..]].concat());
    }
    match (chain, server) {
        ([send, stage, ssh], Some(server)) => {
            let command = Plain::of(ssh).expect("it receives there");
            server.world.pool.receive_torn(btrfs, &[*send, *stage, &command.spec])
        }
        (chain, _) => pool.receive_torn(btrfs, chain),
    }
}

/// What the machine behind ssh says of a request, and of what is sent behind it.
fn ask(world: &mut World, ssh: &CommandSpec, stream: Option<OnTheWay>) -> Answer {
    let server = world.server.as_mut().expect("there is a server");
    if server.only_port.is_some_and(|port| option(ssh, "-p").as_deref() != Some(port)) {
        let stderr = vec!["ssh: connect to host: Connection refused".into()];
        return Answer { exit: Exit::Code(255), stdout: Vec::new(), stderr };
    }
    match Plain::of(ssh) {
        Some(command) => server.run(&command),
        None => server.answer(ssh, stream),
    }
}

fn first_word(spec: &CommandSpec) -> String {
    spec.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What a process says that failed for no reason of its own.
pub fn injected(tool: &Tool) -> Answer {
    match tool.name().as_str() {
        "borg" => FakeBorg::failure("Error", "injected", 2),
        _ => {
            Answer { exit: Exit::Code(1), stdout: Vec::new(), stderr: vec!["injected".to_owned()] }
        }
    }
}
