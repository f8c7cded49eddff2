//! What copies hold, read from their streams: nothing is received, and nothing of the data is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use chrono::DateTime;

use super::catalog::Catalog;
use super::read::{Found, REMEDY, noted, untold};
use super::record::Record;
use super::{Built, StreamsEngine};
use crate::engine::tree::{change, root_of};
use crate::engine::{Change, Context, EngineError, Entry};
use crate::host::Stream;
use crate::model::copy::{Copy, Series};
use crate::tools::btrfs::command;
use crate::tools::btrfs::edits::Edited;
use crate::tools::btrfs::names::{Names, NamesError, Node};

impl Built {
    /// What of a chain is still to be read; `None` where this is of something else.
    fn rest<'c, 'r>(&self, chain: &'c [&'r Record]) -> Option<&'c [&'r Record]> {
        let (read, rest) = chain.split_at_checked(self.copies.len())?;
        let is_of_it = read.iter().map(|record| &record.name).eq(&self.copies);
        is_of_it.then_some(rest)
    }
}

impl StreamsEngine {
    /// Hands on what a copy holds; see [`Engine::contents`](crate::engine::Engine::contents).
    pub(super) fn list_names(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        let root = root_of(copy)?;
        let catalog = self.open(cx)?;
        let chain = self.chain(&catalog, &copy.id)?;
        let series = chain.last().map(|record| record.made.series());
        let known = series.as_ref().and_then(|series| self.read_before().remove(series));
        let built = self.built(&catalog, known.unwrap_or_default(), &chain)?;
        let mut walk = built.names.walk();
        while let Some((path, node)) = walk.step().map_err(|error| too_long(copy, &error))? {
            each(entry(&root, &path, node));
        }
        if let Some(series) = series {
            self.read_before().insert(series, built);
        }
        Ok(())
    }

    /// Hands on how two copies differ; see [`Engine::diff`](crate::engine::Engine::diff).
    pub(super) fn compare(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        let root = root_of(newer)?;
        let catalog = self.open(cx)?;
        let before = self.chain(&catalog, &older.id)?;
        let after = self.chain(&catalog, &newer.id)?;
        let pairs = before.iter().zip(&after);
        let common = pairs.take_while(|(one, other)| one.name == other.name).count();
        let shared = self.built(&catalog, Built::default(), &before[..common])?;
        let older = self.built(&catalog, shared.clone(), &before)?;
        let names = shared.names.after(&older.names);
        let built = self.built(&catalog, Built { names, ..shared }, &after)?;
        let differences = built.names.differences(&older.names, common > 0);
        for differing in differences.map_err(|error| too_long(newer, &error))? {
            each(change(&root, differing));
        }
        Ok(())
    }

    fn read_before(&self) -> MutexGuard<'_, BTreeMap<Series, Built>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names that all streams of a chain make, some of which may have been read.
    fn built(
        &self,
        catalog: &Catalog<'_>,
        known: Built,
        chain: &[&Record],
    ) -> Result<Built, EngineError> {
        let (mut built, rest) = match known.rest(chain) {
            Some(rest) => (known, rest),
            None => (Built::default(), chain),
        };
        for record in rest {
            self.read_names(catalog, record, &mut built.names)?;
            built.copies.push(record.name.clone());
        }
        Ok(built)
    }

    /// Reads one stream, and carries out what it does to names.
    fn read_names(
        &self,
        catalog: &Catalog<'_>,
        record: &Record,
        names: &mut Names,
    ) -> Result<(), EngineError> {
        let key_missing = || EngineError::KeyMissing {
            repository: self.target.repository.clone(),
            remedy: REMEDY,
        };
        self.openers(catalog.store.cx, record)?.ok_or_else(key_missing)?;
        let mut failed = None;
        let found =
            self.look_and_hear(catalog, record, Some(command::EDITS), &mut |stream, line| {
                if stream != Stream::Out || failed.is_some() {
                    return;
                }
                failed = match Edited::read(line) {
                    Some(edited) => names.take(&edited).err().map(|error| error.to_string()),
                    None => Some("a process of ours told them in words that are not known".into()),
                };
            })?;
        match (found, failed) {
            (Found::Damaged(harm, what), _) => {
                Err(catalog.store.damaged(noted(catalog, record, harm, what)))
            }
            (Found::Stored(_), _) => Err(key_missing()),
            // It is to the last byte what was sent: whoever does not understand it says nothing against it.
            (Found::Whole, Some(what)) => Err(untold(record, &what)),
            (Found::Whole, None) => Ok(()),
        }
    }
}

fn too_long(copy: &Copy, error: &NamesError) -> EngineError {
    EngineError::Output { engine: "streams", what: format!("{}: {error}", copy.id) }
}

fn entry(root: &Path, path: &Path, node: &Node) -> Entry {
    let modified = node.modified;
    Entry {
        path: root.join(path),
        kind: node.kind,
        size: (node.kind == '-').then_some(node.size),
        modified: modified.and_then(|(seconds, rest)| DateTime::from_timestamp(seconds, rest)),
        mode: Some(node.mode),
        uid: Some(node.uid),
        gid: Some(node.gid),
        shared: None,
    }
}
