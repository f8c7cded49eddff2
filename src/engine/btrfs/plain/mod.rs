//! A directory on another machine that has btrfs-progs and the coreutils, and no Stillpoint.
//!
//! Each question and each change is one program there, behind ssh, which is given words alone. What they say is believed as
//! far as it is about what root has there; that something is so is never inferred from how a program ended, but looked at.
//! The format is that of a directory of this machine, and so are the records: whoever mounts the disk there, or has
//! Stillpoint serve it, finds a target.
//!
//! Nobody locks such a directory: ssh cannot hold a lock over several commands, and one that is left would have to be broken
//! by a guess. It does without. Names of copies are those of runs, each record is a file of its own, what is removed is
//! known by its UUID and from the history of whoever removes it, and a file that was to be renamed is nobody's only after a
//! day. Jobs of this machine wait for each other here. What a flush tells one machine it tells no other, so more is asked
//! (standing.rs).

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::IgnoredAny;

use super::file_name::draft_of;
use super::place::{Place, damaged, on_no_btrfs, refuse_open};
use crate::engine::sent::{STREAM_VERSION, takes_compressed};
use crate::engine::tree::Inside;
use crate::engine::{Context, EngineError};
use crate::host::{CommandSpec, Completed, Fact, Subvolume, Tool};
use crate::model::shown::Show;
use crate::model::target::{Server, Target};
use crate::tools::btrfs::{command, shown};
use crate::tools::coreutils::{self, Stat};
use crate::tools::{listing, tar};

mod line;
mod looks;
mod packs;
mod standing;
mod strangers;

use line::{Asked, Line, unread};
use packs::packs;
use standing::Standing;
use strangers::refuse_strangers;

/// How much of a subvolume is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Which it is.
    Identity,
    /// When it was changed last, too.
    Change,
}

/// A directory behind ssh.
pub(super) struct Plain<'a> {
    line: Line<'a>,
    /// What was found at paths that nobody but root changes.
    known: RefCell<BTreeMap<PathBuf, Stat>>,
    /// How the file system stood when this began; `None`: it was not to be told.
    before: OnceCell<Option<Standing>>,
}

impl<'a> Plain<'a> {
    /// That of a target.
    pub fn of(cx: Context<'a>, target: &'a Target, server: &'a Server) -> Self {
        Self {
            line: Line::to(cx, target, server),
            known: RefCell::default(),
            before: OnceCell::new(),
        }
    }

    /// How the file system stands now.
    fn standing(&self) -> Result<Standing, EngineError> {
        let btrfs = self.btrfs();
        self.line.ask_ahead(&Standing::questions(&btrfs, self.directory()))?;
        Standing::now(&self.line, &btrfs, self.directory())
    }

    /// What is in a file; or what is wrong with it, if it is the file that keeps it from being read.
    fn print(&self, file: &Path) -> Result<Result<Vec<u8>, EngineError>, EngineError> {
        self.line
            .ask_of_a_file(coreutils::print(file))
            .map(|content| content.map_err(|said| damaged(file, said)))
    }

    /// What is at paths; those at which nothing is are left out.
    fn stat(&self, paths: &[&Path]) -> Result<BTreeMap<PathBuf, Stat>, EngineError> {
        let chunks = coreutils::chunks(paths);
        let specs: Vec<CommandSpec> = chunks.iter().map(|paths| coreutils::stat(paths)).collect();
        if specs.len() > 1 {
            self.line.ask_ahead(&specs)?;
        }
        let mut found = BTreeMap::new();
        for (paths, spec) in chunks.iter().zip(specs) {
            let printed = self.line.ask_what_may_be_missing(spec)?;
            let Some(ended) = printed.strip_suffix(b"\0") else {
                match printed.is_empty() {
                    true => continue,
                    false => return Err(unread("stat", &printed)),
                }
            };
            for line in ended.split(|byte| *byte == 0) {
                let read = Stat::parse(line).filter(|(_, path)| paths.contains(&&**path));
                let (stat, path) = read.ok_or_else(|| unread("stat", line))?;
                found.insert(path, stat);
            }
        }
        Ok(found)
    }

    /// What is at a path and above it, as it was when this was asked first.
    fn known(&self, path: &Path) -> Result<BTreeMap<PathBuf, Stat>, EngineError> {
        let is_known = self.known.borrow().contains_key(path);
        if !is_known {
            let found = self.stat(&way(path))?;
            self.known.borrow_mut().extend(found);
        }
        Ok(self.known.borrow().clone())
    }

    /// Refuses a path that leads through a link.
    fn refuse_links(&self, paths: &[PathBuf]) -> Result<(), EngineError> {
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let found = self.stat(&paths)?;
        match found.iter().find(|(_, found)| found.is_link()) {
            None => Ok(()),
            Some((link, _)) => Err(EngineError::NoSource {
                detail: format!("{} is a symbolic link, which is not followed", link.shown()),
            }),
        }
    }

    /// Paths of which a dry run predicts something.
    fn predicted(&self, what: &str) -> Vec<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let paths = self.line.cx.host.predicted(&self.about(what)).into_iter();
        paths.map(|path| OsString::from_vec(path).into()).collect()
    }

    fn about(&self, what: &str) -> String {
        format!("{what} {}", self.line.target.repository)
    }

    fn fact(&self, what: &str, path: &Path) -> Fact {
        let value = path.as_os_str().as_encoded_bytes().to_owned();
        Fact { about: self.about(what), value }
    }

    /// Where something is predicted to be in a file.
    fn content_of(&self, file: &Path) -> String {
        format!("{} {}", self.about(FILE), file.shown())
    }
}

/// What a dry run predicts of paths: a file that is there, or behind a word no more; and a subvolume that is not.
const FILE: &str = "file in";
const NO_MORE: &str = "no more";
const GONE: &str = "subvolume deleted from";

/// A path, and all above it.
fn way(path: &Path) -> Vec<&Path> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way
}

impl Place for Plain<'_> {
    fn directory(&self) -> &Path {
        &self.line.server.directory
    }

    fn is_there(&self, path: &Path) -> Result<bool, EngineError> {
        let found = self.stat(&way(path))?;
        let is_there = found.contains_key(path);
        // Links as well: what lies behind one is there, and leads elsewhere than anybody looked.
        let is_way = |found: &Stat| found.is_directory() || found.is_link();
        let on_the_way = found.into_iter().filter(|(_, found)| is_way(found));
        self.known.borrow_mut().extend(on_the_way);
        Ok(is_there)
    }

    fn require_btrfs(&self) -> Result<(), EngineError> {
        if let Some(Some(_)) = self.before.get() {
            return Ok(());
        }
        let printed = self.line.ask(coreutils::file_system(self.directory()))?;
        match coreutils::FileSystem::parse(&printed) {
            Some(found) if found.is_btrfs() => Ok(()),
            Some(_) => Err(on_no_btrfs(self.directory())),
            None => Err(unread("stat", &printed)),
        }
    }

    fn require_closed(&self) -> Result<(), EngineError> {
        match self.known(self.directory())?.get(self.directory()) {
            Some(found) => refuse_open(self.directory(), found.permissions()),
            None => Ok(()),
        }
    }

    fn require_new(&self) -> Result<(), EngineError> {
        self.refuse_old()
    }

    fn require_trusted(&self, directory: &Path) -> Result<(), EngineError> {
        refuse_strangers(directory, &self.known(directory)?)
    }

    fn name(&self) -> String {
        self.line.target.repository.clone()
    }

    fn look_ahead(&self, file: &Path, directory: &Path) -> Result<(), EngineError> {
        let specs = [
            coreutils::stat(&way(file)),
            coreutils::stat(&way(directory)),
            coreutils::print(file),
            coreutils::list(directory),
        ];
        let btrfs = self.btrfs();
        let standing = Standing::questions(&btrfs, self.directory());
        self.line.ask_ahead(&specs.into_iter().chain(standing).collect::<Vec<_>>())?;
        // Who only reads needs none.
        let _ = self.before.set(Standing::now(&self.line, &btrfs, self.directory()).ok());
        Ok(())
    }

    fn names(&self, directory: &Path) -> Result<BTreeSet<OsString>, EngineError> {
        let printed = self.line.ask_what_may_be_missing(coreutils::list(directory))?;
        let listed = coreutils::listed(&printed).ok_or_else(|| unread("find", &printed))?;
        let mut names: BTreeSet<OsString> = listed.into_iter().map(|it| it.name).collect();
        // In the order in which it would be done.
        for path in self.predicted(FILE) {
            let (path, is_there) = match path.strip_prefix(NO_MORE) {
                Ok(gone) => (Path::new("/").join(gone), false),
                Err(_) => (path, true),
            };
            match path.file_name().filter(|_| path.parent() == Some(directory)) {
                Some(name) if is_there => names.insert(name.to_owned()),
                Some(name) => names.remove(name),
                None => false,
            };
        }
        Ok(names)
    }

    fn drafts(&self, directories: &[PathBuf]) -> Result<Vec<PathBuf>, EngineError> {
        // A line may hang for hours between two steps of another machine.
        const DAY: u32 = 24 * 60;
        let directories: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
        let old = coreutils::list_old(&directories, ".*.json.*", DAY);
        let printed = self.line.ask_what_may_be_missing(old)?;
        let listed = coreutils::listed(&printed).ok_or_else(|| unread("find", &printed))?;
        let drafts = listed.into_iter().map(|it| PathBuf::from(it.name));
        let is_one = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(draft_of).is_some()
                && path.parent().is_some_and(|parent| directories.contains(&parent))
        };
        Ok(drafts.filter(is_one).collect())
    }

    fn read(&self, files: &[PathBuf]) -> Result<Vec<Result<Vec<u8>, EngineError>>, EngineError> {
        let foretold: BTreeMap<&PathBuf, Vec<u8>> = files
            .iter()
            .filter_map(|file| {
                Some((file, self.line.cx.host.predicted(&self.content_of(file)).pop()?))
            })
            .collect();
        let real: Vec<&PathBuf> = files.iter().filter(|it| !foretold.contains_key(*it)).collect();
        let contents: Vec<Result<Vec<u8>, EngineError>> = match real.as_slice() {
            [file] => vec![self.print(file)?],
            real => {
                let specs: Vec<CommandSpec> =
                    real.iter().map(|file| coreutils::print(file)).collect();
                let Asked { answers, is_whole } = self.line.ask_all(&specs)?;
                // What failed halfway may have printed half of what there is.
                let content = |(answer, file): (Option<Vec<u8>>, &&PathBuf)| match answer {
                    Some(content) if is_whole => Ok(Ok(content)),
                    Some(content) if serde_json::from_slice::<IgnoredAny>(&content).is_ok() => {
                        Ok(Ok(content))
                    }
                    Some(_) | None => self.print(file),
                };
                answers.into_iter().zip(real).map(content).collect::<Result<_, _>>()?
            }
        };
        let known = foretold.into_iter().map(|(file, content)| (file, Ok(content)));
        let mut known: BTreeMap<&PathBuf, _> =
            known.chain(real.into_iter().zip(contents)).collect();
        Ok(files.iter().filter_map(|file| known.remove(file)).collect())
    }

    fn subvolumes(&self, at: &[PathBuf]) -> Result<Vec<Option<Subvolume>>, EngineError> {
        self.look_at(at, Depth::Change)
    }

    fn nested(&self) -> Result<Vec<PathBuf>, EngineError> {
        let printed = self.line.ask(coreutils::list(self.directory()))?;
        Ok(self.roots(self.directory(), &printed)?.into_iter().collect())
    }

    fn make_directory(&self, path: &Path) -> Result<(), EngineError> {
        self.line.change(coreutils::make_directory(path), Vec::new()).map(drop)
    }

    fn write(&self, path: &Path, content: Vec<u8>) -> Result<(), EngineError> {
        let random = || u32::from_be_bytes(self.line.cx.host.random());
        let mut draft = OsString::from(".");
        draft.push(path.file_name().unwrap_or_default());
        draft.push(format!(".{:08x}{:08x}", random(), random()));
        let draft = path.with_file_name(draft);
        let foretold = Fact { about: self.content_of(path), value: content.clone() };
        let facts = vec![self.fact(FILE, path), foretold];
        let written = self.line.change(coreutils::write(&draft, content), Vec::new());
        let replaced =
            written.and_then(|_| self.line.change(coreutils::replace(&draft, path), facts));
        if let Err(error) = replaced {
            let _shield = self.line.cx.host.shield();
            if let Err(error) = self.line.change(coreutils::remove(&draft), Vec::new()) {
                tracing::warn!(%error, "{} stays for a day", draft.shown());
            }
            return Err(error);
        }
        self.flush()
    }

    fn remove(&self, path: &Path) -> Result<(), EngineError> {
        let gone = Path::new(NO_MORE).join(path.strip_prefix("/").unwrap_or(path));
        self.line.change(coreutils::remove(path), vec![self.fact(FILE, &gone)]).map(drop)
    }

    fn flush(&self) -> Result<(), EngineError> {
        let before = self.before.get_or_init(|| self.standing().ok());
        let mut flush = coreutils::flush(self.directory());
        flush.stall_limit = Some(self.line.silence());
        if !self.line.change(flush, Vec::new())? {
            return Ok(());
        }
        let now = self.standing()?;
        let doubts = match before {
            Some(before) => now.doubts_since(before),
            None => Some("how its file system stood before is not known".into()),
        };
        match doubts {
            None => Ok(()),
            Some(why) => {
                Err(self.line.not_so(format!("{why}, so what was sent may be lost there")))
            }
        }
    }

    fn rename(&self, path: &Path, found: Subvolume, name: &str) -> Result<(), EngineError> {
        self.require_still(path, &found)?;
        let to = path.with_file_name(name);
        let is_done = self.line.change(coreutils::rename(path, &to), Vec::new())?;
        if is_done && !self.is_still(&to, &found)? {
            return Err(self.line.not_so(format!("{} has not become {name}", path.shown())));
        }
        // Unlike a flush of the whole, this fails where nothing can be written any more.
        let mut flush = coreutils::flush_directory(self.directory());
        flush.stall_limit = Some(self.line.silence());
        self.line.change(flush, Vec::new())?;
        self.flush()
    }

    fn delete(&self, path: &Path, found: Subvolume) -> Result<(), EngineError> {
        // What another program received may lie deeper, where somebody else can put something else in its place.
        if let Some(above) = path.parent().filter(|above| *above != self.directory()) {
            self.require_trusted(above)?;
        }
        self.require_still(path, &found)?;
        let delete = shown::delete(&self.btrfs(), path.to_owned(), self.line.silence());
        let is_done = self.line.change(delete, vec![self.fact(GONE, path)])?;
        match is_done && self.is_still(path, &found)? {
            true => Err(self.line.not_so(format!("{} is still there", path.shown()))),
            false => Ok(()),
        }
    }

    fn btrfs(&self) -> Tool {
        Tool::from_word(&self.line.server.program)
    }

    fn takes_compressed(&self) -> bool {
        let kernel = coreutils::print(Path::new(STREAM_VERSION));
        let told = self.line.ask_all(&[kernel, command::version(&self.btrfs())]).ok();
        let told: Option<Vec<Vec<u8>>> = told.and_then(|told| told.answers.into_iter().collect());
        match told.as_deref() {
            Some([kernel, version]) => takes_compressed(kernel, &String::from_utf8_lossy(version)),
            Some(_) | None => false,
        }
    }

    fn there(&self, spec: CommandSpec) -> CommandSpec {
        self.line.there(spec)
    }

    fn receiver(&self, stall_limit: Duration) -> Result<CommandSpec, EngineError> {
        Ok(self.there(command::receive(&self.btrfs(), self.directory(), stall_limit)))
    }

    fn pack(
        &self,
        copy: &Path,
        alone: &[Inside],
        whole: &[Inside],
    ) -> Result<CommandSpec, EngineError> {
        let all = || alone.iter().chain(whole).map(Inside::as_path);
        // The last name may well be one of a link.
        let above = all().flat_map(|inside| inside.ancestors().skip(1));
        let above: BTreeSet<PathBuf> = above.map(|inside| copy.join(inside)).collect();
        self.refuse_links(&above.into_iter().collect::<Vec<_>>())?;
        let packs = packs(copy, alone, whole, self.line.target.stall_timeout);
        Ok(match packs.as_slice() {
            [pack] => self.there(pack.clone()),
            packs => self.line.one_after_the_other(packs),
        })
    }

    fn file(&self, copy: &Path, inside: &Inside) -> Result<CommandSpec, EngineError> {
        let file = copy.join(inside.as_path());
        let way: Vec<PathBuf> =
            inside.as_path().ancestors().map(|inside| copy.join(inside)).collect();
        self.refuse_links(&way)?;
        let found = self.stat(&[&file])?;
        if !found.get(&file).is_some_and(|found| found.is_file()) {
            let detail = format!("there is no file {} in the copy", inside.as_path().shown());
            return Err(EngineError::NoSource { detail });
        }
        Ok(self.there(tar::print(&file, self.line.target.stall_timeout)))
    }

    fn contents(&self, copy: &Path) -> Vec<CommandSpec> {
        let limit = self.line.target.stall_timeout;
        vec![self.there(coreutils::find(copy, limit)), listing::of_find(limit)]
    }

    fn why(&self, spec: &CommandSpec, completed: &Completed) -> EngineError {
        self.line.why(spec, completed)
    }
}
