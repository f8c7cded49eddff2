//! `[targets.NAME]`: where copies go, by which engine, and what happens to them there.

use std::path::Path;
use std::time::Duration;

use super::check::{self, CHECK};
use super::engine::{Engine, ReadEngine};
use super::keep::{self, OF_TARGET as KEEP};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Start, Table};
use crate::config::kinds::{FLAG, SPAN};
use crate::config::pairing::ENGINES;
use crate::config::repository::Location;
use crate::config::section::Section;
use crate::config::source::Span;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::bare;
use crate::model::names::TargetName;
use crate::model::target::Target;

/// The tables, by name.
pub const TARGET: Table = Table {
    name: "targets",
    says: "Where copies go, by name",
    start: Start::on(
        "targets.disk",
        "--- Targets: where copies go, and by which engine -------------------------------------------------------\n\n",
    ),
    variants: || ENGINES.iter().map(|engine| engine.item()).collect(),
    items: &[&[
        Item::Table(&KEEP),
        Item::Table(&CHECK),
        Item::Value(&COMPACT_EVERY),
        Item::Value(&APPEND_ONLY),
    ]],
};

const COMPACT_EVERY: Key<Duration> = Key::new("compact-every", &SPAN)
    .says("How often the space of deleted copies is freed; by default after each run that deleted something")
    .example("'7d'")
    .prose("How often the space of deleted copies is freed. Default: after each run that deleted something.");

const APPEND_ONLY: Key<bool> = Key::new("append-only", &FLAG)
    .says("Never delete, prune or compact anything here")
    .default("false")
    .prose("Never delete, prune or compact anything here (then without compact-every): append-only = true");

/// A target with what the checks between targets and jobs need.
pub struct ReadTarget {
    /// The target itself.
    pub target: Target,
    /// Where its name stands.
    pub at: Span,
    /// Where it keeps copies; `None` when that could not be read.
    pub location: Option<Location>,
    /// Where the repository stands.
    pub repository_at: Span,
    /// Where `copy-from` stands, if it does.
    pub copy_from_at: Span,
}

/// Reads one target; `None` when it has no name or engine to speak of, which has then been noted.
pub fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadTarget> {
    let engine = read_engine(section, notes);
    let keep = section.table(&KEEP).map(|keep| keep::read(&keep, notes));
    let check = section.table(&CHECK).and_then(|check| check::read(&check, notes));
    let append_only = section.get(&APPEND_ONLY)?;
    if append_only && section.has(&COMPACT_EVERY) {
        let message = "compact-every has no effect on an append-only target";
        notes.problem(section.key_at(&COMPACT_EVERY), Complaint::new(message));
    }
    if append_only && section.has(&KEEP) {
        let message = "keep has no effect on an append-only target: nothing is deleted there";
        notes.warning(section.key_at(&KEEP), Complaint::new(message));
    }
    let engine = engine?;
    if let Some(keep) = section.table(&KEEP).filter(|keep| keep.has(&keep::MIN_FREE)) {
        check_min_free(&keep, &engine, notes);
    }
    let target = Target {
        name: TargetName::new(section.key).ok()?,
        local: engine.location.as_ref().and_then(Location::local).map(Path::to_owned),
        repository: engine.repository,
        secret: engine.secret,
        require_mount: engine.require_mount,
        when_absent: engine.when_absent,
        program: engine.program,
        copy_from: engine.copy_from,
        upload_limit_kib: engine.upload_limit_kib,
        stall_timeout: engine.stall_timeout,
        engine: engine.config,
        keep,
        check,
        compact_every: section.get(&COMPACT_EVERY),
        append_only,
    };
    Some(ReadTarget {
        target,
        at: section.at,
        location: engine.location,
        repository_at: engine.repository_at,
        copy_from_at: engine.copy_from_at,
    })
}

/// Refuses a promise of free space that cannot be kept.
fn check_min_free(keep: &Section<'_>, engine: &ReadEngine, notes: &mut Notes) {
    let at = keep.key_at(&keep::MIN_FREE);
    if !engine.config.frees_by_itself() {
        let message = format!(
            "min-free cannot be kept to with {}: what a deletion frees shows only when it is compacted",
            engine.config.name()
        );
        let complaint = Complaint::new(message).help("use counted rules, and compact-every");
        notes.problem(at, complaint);
    } else if engine.location.as_ref().is_some_and(|location| location.local().is_none()) {
        let message = "min-free looks at this machine, the copies are elsewhere";
        let complaint = Complaint::new(message).help("use counted rules: last, daily, weekly, …");
        notes.problem(at, complaint);
    }
}

/// The first engine that can be read. All are read, so that the problems of all show.
fn read_engine(section: &Section<'_>, notes: &mut Notes) -> Option<ReadEngine> {
    let named: Vec<Item> =
        ENGINES.iter().map(|engine| engine.item()).filter(|engine| section.has(engine)).collect();
    if named.is_empty() {
        no_engine(section, notes);
    }
    for second in named.iter().skip(1) {
        let message = format!("a target has one engine, and {:?} is another", named[0].name());
        notes.problem(section.key_at(second), Complaint::new(message));
    }
    let mut first = None;
    for row in ENGINES.iter().filter_map(|engine| engine.served()) {
        let Some(part) = section.table(row.table) else { continue };
        refuse_check(section, row, notes);
        first = first.or((row.read)(&part, notes));
    }
    first
}

/// Refuses checks of what the engine cannot check.
fn refuse_check(section: &Section<'_>, engine: &Engine, notes: &mut Notes) {
    if section.has(&CHECK) && !engine.can_check {
        let complaint =
            Complaint::new(format!("{} cannot check what it stores", engine.table.name))
                .help(format!("remove [targets.{}.check]", bare(section.key)));
        notes.problem(section.key_at(&CHECK), complaint);
    }
}

fn no_engine(section: &Section<'_>, notes: &mut Notes) {
    if section.holds_misspelt_table(&TARGET) {
        return;
    }
    let name = bare(section.key);
    let tables: Vec<String> = (ENGINES.iter().filter_map(|engine| engine.served()))
        .map(|engine| format!("[targets.{name}.{}]", engine.table.name))
        .collect();
    let complaint = Complaint::new(format!("the target {:?} names no engine", section.key))
        .help(format!("add {}", tables.join(" or ")));
    notes.missing(section.at, complaint);
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "targets.NAME",
    file: "[targets.t]\nKEY\nTARGET JOB",
    rows: &[("compact-every", "", "compact-every='7d'"), ("append-only", "", "append-only=true")],
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::BORG;
    use crate::config::source::SourceFile;
    use crate::config::tree::Table as Tree;

    #[test]
    fn what_cannot_be_checked_takes_no_check() {
        let text = "[targets.t.check]\nevery = \"30d\"\n".to_owned();
        let tree = Tree::parse(0, &text).unwrap();
        let section = Section::root(&tree).table(&TARGET).unwrap().tables().remove(0);
        let files = [SourceFile { path: "/c.toml".into(), text: text.clone() }];
        let refused = |can_check| {
            let mut notes = Notes::new(|_| None);
            refuse_check(&section, &Engine { can_check, ..BORG }, &mut notes);
            notes.finish(&files, None).unwrap_err().to_string()
        };
        assert_eq!(refused(true), "");
        assert_eq!(
            refused(false),
            "/c.toml:1:12: borg cannot check what it stores\n\
             \x20   [targets.t.check]\n\
             \x20              ^^^^^\n\
             \x20 help: remove [targets.t.check]"
        );
    }
}
