//! Reading copies back: what was stored is compared with its hash, and received where it is to be seen.

use std::collections::BTreeMap;

use super::catalog::{Catalog, Harm};
use super::given::given;
use super::record::Record;
use super::store::ByHand;
use super::{StreamsEngine, Unpacked};
use crate::engine::made::chosen;
use crate::engine::received::Room;
use crate::engine::sent::{failure, new_uuid, uuid};
use crate::engine::tree::Tree;
use crate::engine::{
    AsSubvolume, CheckReport, Context, EngineError, Fetch, OnProgress, received, secret,
};
use crate::host::spec::quote;
use crate::host::{CommandSpec, Completed, Exit, Subvolume, TrustKind, Watch, uuid_text};
use crate::model::copy::Copy;
use crate::model::event::Progress;
use crate::model::target::ReadData;
use crate::tools::btrfs::command::{self, Reader};
use crate::tools::btrfs::stage::{Expectation, Parent, Uuid};
use crate::tools::object::Digest;
use crate::tools::{age, zstd};

/// What reading a copy back showed.
pub(super) enum Found {
    /// What was sent, to its end.
    Whole,
    /// The stored bytes, and no more: they are encrypted, and no key here opens them. Why.
    Stored(&'static str),
    /// It is damaged so, and what of it, in words.
    Damaged(Harm, String),
}

impl StreamsEngine {
    /// Checks all copies; see [`Engine::check`](crate::engine::Engine::check).
    pub(super) fn check_all(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        // What was read before says nothing of what is there now.
        self.forget();
        let catalog = self.open(cx)?;
        let mut damage = catalog.damage();
        let records: Vec<&Record> = catalog.records().collect();
        let all = records.len() + damage.len();
        let chosen = chosen(cx.host, &records, read_data);
        let count = chosen.len();
        let is_chosen = |name: &str| chosen.iter().any(|record| record.name == name);
        let marked = records.iter().map(|record| &record.name);
        let marked = marked.filter(|name| catalog.is_damaged(name) && !is_chosen(name));
        damage.extend(marked.map(|name| self.marked(name)));
        let mut closed: BTreeMap<&str, usize> = BTreeMap::new();
        for record in chosen {
            progress(Progress { current: Some(record.name.clone()), ..Progress::default() });
            match self.read_back(&catalog, record)? {
                Found::Whole => {}
                Found::Stored(why) => *closed.entry(why).or_default() += 1,
                Found::Damaged(_, what) => damage.push(what),
            }
        }
        let stored_only: usize = closed.values().sum();
        let mut extent = format!("the records of {} copies", records.len());
        if count > stored_only {
            extent.push_str(&format!(", and all data of {}", count - stored_only));
        }
        if stored_only > 0 {
            extent.push_str(&format!(", and the stored bytes of {stored_only}"));
        }
        let why: Vec<&str> = closed.into_keys().collect();
        let unverifiable = (stored_only > 0).then(|| why.join("; "));
        Ok(CheckReport { unverifiable, ..CheckReport::of_copies(damage, extent, all) })
    }

    /// Reads one copy back with all that it is a difference to; see [`Engine::verify`](crate::engine::Engine::verify).
    pub(super) fn verify_one(
        &self,
        cx: Context<'_>,
        copy: &Copy,
    ) -> Result<CheckReport, EngineError> {
        self.forget();
        let catalog = self.open(cx)?;
        let chain = self.chain(&catalog, &copy.id)?;
        let (mut damage, mut unverifiable) = (Vec::new(), None);
        for record in &chain {
            match self.read_back(&catalog, record)? {
                Found::Whole => {}
                Found::Stored(why) => unverifiable = Some(why.to_owned()),
                Found::Damaged(_, what) => damage.push(what),
            }
        }
        let extent = match (unverifiable.is_none(), chain.len()) {
            (true, 1) => format!("all data of the copy, {BY_HASH}"),
            (true, count) => {
                format!("all data of the copy and of the {} before it, {BY_HASH}", count - 1)
            }
            (false, count) => format!("the stored bytes of {count} streams"),
        };
        Ok(CheckReport { unverifiable, ..CheckReport::found(damage, extent) })
    }

    pub(super) fn chain<'c>(
        &self,
        catalog: &'c Catalog<'_>,
        id: &str,
    ) -> Result<Vec<&'c Record>, EngineError> {
        let gone = || catalog.store.damaged(format!("the copy {id} is not there"));
        catalog.chain(id).ok_or_else(gone)
    }

    /// What opens a copy; `None` where it takes a key that this machine has not.
    pub(super) fn openers(
        &self,
        cx: Context<'_>,
        record: &Record,
    ) -> Result<Option<Vec<CommandSpec>>, EngineError> {
        let limit = self.target.stall_timeout;
        let mut openers = Vec::new();
        if record.recipients.is_some() {
            let Some(identity) = &self.options.identity_file else { return Ok(None) };
            secret::check_private(cx.host, identity)?;
            openers.push(age::decrypt(identity, limit));
        }
        openers.extend(record.compressed.then(|| zstd::decompress(limit)));
        Ok(Some(openers))
    }

    /// What is said of a copy that was found damaged, and is not read now.
    fn marked(&self, name: &str) -> String {
        let target = &self.target.name;
        format!(
            "{name} was found damaged when it was read last (`stillpoint check --read-data --target {target}` reads it again, `stillpoint prune --accept --target {target} {}` takes all that is known of this target as it is, and deletes that one unless a newer copy needs it)",
            quote(name)
        )
    }

    /// Reads all of one stream, and has no further difference be made to it where it is damaged.
    fn read_back(&self, catalog: &Catalog<'_>, record: &Record) -> Result<Found, EngineError> {
        let name = &record.name;
        let sound = match self.look(catalog, record)? {
            Found::Damaged(harm, what) => {
                return Ok(Found::Damaged(harm, noted(catalog, record, harm, what)));
            }
            // Nobody has looked at what it holds.
            Found::Stored(_) if catalog.mark(name) == Some(Harm::Within) => {
                return Ok(Found::Damaged(Harm::Within, format!("{name} {MARKED_WITHIN}")));
            }
            sound @ (Found::Whole | Found::Stored(_)) => sound,
        };
        if let Err(error) = catalog.mark_sound(name) {
            tracing::warn!("{name} is still marked as damaged, and is not: {error}");
        }
        Ok(sound)
    }

    fn look(&self, catalog: &Catalog<'_>, record: &Record) -> Result<Found, EngineError> {
        self.look_and_hear(catalog, record, None, &mut |_, _| {})
    }

    /// Reads all of one stream, with this option to the stage that reads it, and hears what that tells.
    pub(super) fn look_and_hear(
        &self,
        catalog: &Catalog<'_>,
        record: &Record,
        option: Option<&str>,
        watch: Watch<'_>,
    ) -> Result<Found, EngineError> {
        let store = &catalog.store;
        let Some(openers) = self.openers(store.cx, record)? else {
            let damage = self.compare_stored(catalog, record)?;
            let damaged = |what| Found::Damaged(Harm::Stored, what);
            return Ok(damage.map_or(Found::Stored(BEYOND), damaged));
        };
        let expected = expectation(record, None)?;
        let limit = self.target.stall_timeout;
        let stage = command::stage(&expected, Reader::Nobody, limit).arg(command::DIGEST);
        let stage = stage.args(option);
        let given = given(catalog, record, &openers, std::slice::from_ref(&stage), watch)?;
        let Some((spec, ended)) = given.culprit() else {
            let passed = given.ended.last().and_then(|stage| Digest::last(&stage.stderr_tail));
            if let Some(another) = given.another(record) {
                return Ok(Found::Damaged(Harm::Stored, another));
            }
            return Ok(match passed.as_ref() == Some(&record.stream) {
                true => Found::Whole,
                false => {
                    let what = format!("{} holds not what was sent", record.object());
                    Found::Damaged(Harm::Within, what)
                }
            });
        };
        if ended.left_early {
            return Err(failure(&self.target, spec, ended));
        }
        if let Some(damage) = self.damage_behind(catalog, record, ended)? {
            return Ok(Found::Damaged(Harm::Stored, damage));
        }
        if given.ended.iter().any(has_no_key) {
            return Ok(Found::Stored(UNFIT));
        }
        let said = ended.last_words(3);
        // It was killed, or lacks something else than what it was given: another key, a place to run in, memory.
        let lacks_something = match &spec.tool {
            tool if *tool == age::PROGRAM => true,
            tool if *tool == zstd::PROGRAM => !zstd::blames_what_it_reads(&said),
            _ => false,
        };
        if lacks_something || matches!(ended.exit, Exit::Signal(_)) {
            return Err(failure(&self.target, spec, ended));
        }
        // What is to the last byte what was sent may still hold what nobody can tell names of.
        if option.is_some() && given.ended.last().is_some_and(|last| std::ptr::eq(ended, last)) {
            return Err(untold(record, &said));
        }
        Ok(Found::Damaged(Harm::Within, format!("{} cannot be read: {said}", given.object)))
    }

    /// Whoever fails in a chain may do so because of what it was given: what is damaged in that, if anything is. age calls
    /// damage in the beginning of what it reads a missing key.
    fn damage_behind(
        &self,
        catalog: &Catalog<'_>,
        record: &Record,
        ended: &Completed,
    ) -> Result<Option<String>, EngineError> {
        match ended.exit {
            Exit::Code(_) => self.compare_stored(catalog, record),
            // Whoever killed it did not ask what it read.
            Exit::Signal(_) => Ok(None),
        }
    }

    /// Reads what was stored, without opening it. Answers what is damaged.
    fn compare_stored(
        &self,
        catalog: &Catalog<'_>,
        record: &Record,
    ) -> Result<Option<String>, EngineError> {
        for (object, stored) in record.objects() {
            let damage = catalog.store.compare(&object, stored)?;
            if damage.is_some() {
                return Ok(damage);
            }
        }
        Ok(None)
    }

    /// Receives a copy, and all that it is a difference to before; see [`Engine::unpack`](crate::engine::Engine::unpack).
    pub(super) fn receive(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<(), EngineError> {
        self.receive_as(cx, wanted, progress)?;
        let unpacked = Unpacked { copy: wanted.copy.id.clone(), at: wanted.into.join(wanted.name) };
        *self.unpacked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(unpacked);
        Ok(())
    }

    /// Restores a copy; see [`Engine::restore_as_subvolume`](crate::engine::Engine::restore_as_subvolume).
    pub(super) fn receive_as(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        let _told = cx.host.watch_writes(wanted.into)?;
        let mut room = Room::of(cx.host, wanted)?;
        let received = self.receive_chain(&self.open(cx)?, wanted, &mut room, progress)?;
        room.settled()?;
        Ok(received)
    }

    /// What it takes to receive a copy; see [`Engine::fetch`](crate::engine::Engine::fetch).
    pub(super) fn fetch_of(&self, cx: Context<'_>, copy: &Copy) -> Result<Fetch, EngineError> {
        let catalog = self.open(cx)?;
        let chain = self.chain(&catalog, &copy.id)?;
        let sum = |digests: fn(&Record) -> &[Digest]| {
            let mut all = chain.iter().copied().flat_map(digests);
            all.try_fold(0_u64, |sum, digest| sum.checked_add(digest.bytes))
        };
        let bytes = sum(|record| record.stored.objects());
        Ok(Fetch { bytes, laid_out: sum(|record| std::slice::from_ref(&record.stream)) })
    }

    /// Receives a copy, beside all that it is a difference to.
    fn receive_chain(
        &self,
        catalog: &Catalog<'_>,
        wanted: &AsSubvolume<'_>,
        room: &mut Room<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        let (mut received, mut base) = (Subvolume::default(), None::<String>);
        let chain = self.chain(catalog, &wanted.copy.id)?;
        if let (true, Some(above)) = (chain.len() > 1, wanted.into.parent()) {
            // Whoever may write there could put something else in the place of the directory from one stream to the next.
            let trusted = catalog.store.cx.host.check_trusted(above, TrustKind::Directory);
            trusted.map_err(EngineError::Untrusted)?;
        }
        for record in chain {
            progress(Progress { current: Some(record.name.clone()), ..Progress::default() });
            let is_it = record.name == wanted.copy.id;
            let name = if is_it { wanted.name } else { &record.name };
            // btrfs receive looks for what a difference is made to by its path from the root of the mount, which is another
            // one for whoever is confined and sees the directory alone. So it has the directory for its root instead, as the
            // stage has made sure that no path in the stream leads out of it.
            let confinement = wanted.confinement.clone().filter(|_| record.base.is_none());
            let wanted = AsSubvolume { name, confinement, ..*wanted };
            // Whatever shares data with what lies there finds that by the UUID it was received as, and others may have been
            // received as what was sent.
            let other = (!is_it || wanted.nameless).then(|| new_uuid(catalog.store.cx.host));
            received =
                self.receive_one(catalog, record, (base.as_deref(), other), &wanted, room)?;
            base = other.map(uuid_text);
        }
        Ok(received)
    }

    /// Receives one stream on top of what was received as this UUID, as another one than it claims to be if that is named.
    fn receive_one(
        &self,
        catalog: &Catalog<'_>,
        record: &Record,
        (base, other): (Option<&str>, Option<Uuid>),
        wanted: &AsSubvolume<'_>,
        room: &mut Room<'_>,
    ) -> Result<Subvolume, EngineError> {
        let store = &catalog.store;
        let remedy = REMEDY;
        let repository = self.target.repository.clone();
        let openers = self.openers(store.cx, record)?;
        let openers = openers
            .ok_or_else(|| EngineError::KeyMissing { repository: repository.clone(), remedy })?;
        let limit = self.target.stall_timeout;
        let expected = Expectation { name: wanted.name.into(), ..expectation(record, base)? };
        let stage = command::received_as(command::stage(&expected, Reader::Next, limit), other);
        let receive = [room.watching(stage), received::receiver(self, wanted)];
        let given = given(catalog, record, &openers, &receive, &mut |_, line| room.look(line));
        let given = room.judged(given)?;
        if given.ended.last().is_some_and(|last| last.is_predicted) {
            return Ok(Subvolume::default());
        }
        if let Some((spec, ended)) = given.culprit() {
            return Err(match failure(&self.target, spec, ended).of_place(wanted.into) {
                full @ EngineError::PlaceFull { .. } => full,
                error => match self.damage_behind(catalog, record, ended) {
                    Ok(Some(damage)) => store.damaged(noted(catalog, record, Harm::Stored, damage)),
                    Ok(None) if given.ended.iter().any(has_no_key) => {
                        EngineError::KeyMissing { repository, remedy }
                    }
                    // How it failed first is the news.
                    Ok(None) | Err(_) => error,
                },
            });
        }
        if let Some(another) = given.another(record) {
            return Err(store.damaged(noted(catalog, record, Harm::Stored, another)));
        }
        let sent = other.map_or_else(|| record.sent.clone(), uuid_text);
        received::found(store.cx.host, wanted, &sent, Some(record.generation))
    }

    /// A copy that was received, as the directory that it is.
    pub(super) fn tree<'a>(
        &'a self,
        cx: Context<'a>,
        copy: &Copy,
    ) -> Result<Tree<'a>, EngineError> {
        if let Some(tree) = self.received(cx, copy)? {
            return Ok(tree);
        }
        let what = format!(
            "take something out of a copy, which is a stream and has to be received before — restore it (stillpoint restore --to), or receive it by hand: {}",
            self.by_hand(cx, copy)?
        );
        Err(EngineError::unsupported(&self.target, &what))
    }

    /// The same; `None` where it was not received.
    pub(super) fn received<'a>(
        &'a self,
        cx: Context<'a>,
        copy: &Copy,
    ) -> Result<Option<Tree<'a>>, EngineError> {
        let unpacked = self.unpacked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = unpacked.as_ref().filter(|it| it.copy == copy.id).map(|it| it.at.clone());
        Ok(match path {
            Some(path) if cx.host.subvolume(&path)?.is_some() => {
                Some(Tree { cx, target: &self.target, path })
            }
            Some(_) | None => None,
        })
    }

    /// How a person receives a copy without us.
    pub(super) fn by_hand(&self, cx: Context<'_>, copy: &Copy) -> Result<String, EngineError> {
        let catalog = self.open(cx)?;
        let chain = self.chain(&catalog, &copy.id)?;
        let pipe = |record: &&Record| {
            let read = |object: ByHand<'_>| {
                let mut read = catalog.store.by_hand(object);
                if record.recipients.is_some() {
                    read.push_str(" | age -d -i KEY");
                }
                read
            };
            let (object, count) = (record.object(), record.stored.objects().len());
            let mut pipe = match count {
                0 | 1 => read(ByHand::Object(&object)),
                _ => format!(
                    "for part in {object} $(seq -f {object}.%06g 1 {last}); do {read}; done",
                    object = quote(&object),
                    last = count - 1,
                    read = read(ByHand::Variable("part"))
                ),
            };
            if record.compressed {
                pipe.push_str(" | zstd -d");
            }
            pipe + " | btrfs receive DIR"
        };
        let said: Vec<String> = chain.iter().take(1).map(pipe).collect();
        let more = match chain.len() - 1 {
            0 => String::new(),
            more => format!(", and then so with the {more} made to it, in order"),
        };
        Ok(said.concat() + &more)
    }
}

/// How what was read is known to be what was sent.
const BY_HASH: &str = "by the hash of what was sent";

/// What is said of a copy of which only what is stored could be read.
const BEYOND: &str =
    "unverifiable beyond the stored hash: encrypted, and no identity-file is named here";

/// The same, where there is a key.
const UNFIT: &str =
    "unverifiable beyond the stored hash: encrypted, and no key in the identity-file opens it";

/// What is said of a copy of which no more than the stored bytes could be read, and those are right.
const MARKED_WITHIN: &str =
    "is stored as it was, and was found not to hold what was sent when it was opened last";

pub(super) const REMEDY: &str = "name the key of one of its recipients with identity-file";

/// Notes beside a copy that it is damaged: what becomes a difference to it is lost with it. Answers with what is told.
pub(super) fn noted(catalog: &Catalog<'_>, record: &Record, harm: Harm, damage: String) -> String {
    match catalog.mark_damaged(&record.name, harm) {
        Ok(()) => damage,
        Err(error) => format!(
            "{damage} (which could not be noted beside it, so the next copy may become a difference to it: {error})"
        ),
    }
}

/// Whether it is age, and none of the keys that it was given fits.
fn has_no_key(ended: &Completed) -> bool {
    age::has_no_key(&ended.last_lines(5))
}

/// What the stream of a copy must be; on top of what was received as this UUID, if not as what was sent.
fn expectation(record: &Record, base: Option<&str>) -> Result<Expectation, EngineError> {
    let parent = record.base.as_ref().map(|sent| -> Result<Parent, EngineError> {
        let received = base.unwrap_or(&sent.sent);
        // Whoever stored it has looked at that.
        let (sent, received) = (uuid(&sent.sent)?, uuid(received)?);
        Ok(Parent { sent, received, shared: received, generation: None })
    });
    Ok(Expectation {
        name: record.name.clone(),
        uuid: uuid(&record.sent)?,
        parent: parent.transpose()?,
    })
}

/// That it is not known what names a stream makes, which is as it was sent.
pub(super) fn untold(record: &Record, why: &str) -> EngineError {
    let what = format!("the names in {} cannot be told: {why}", record.object());
    EngineError::Output { engine: "streams", what }
}
