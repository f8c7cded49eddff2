//! `[jobs.NAME.commands.ITEM]`: the output of commands, each stored as one file.

use super::hooks;
use super::source::{ReadSource, SourceKind, Trees};
use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Names, Start, Table, no_variants};
use crate::config::kinds::{ARGV, FILE_NAME as A_FILE_NAME};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::job::{CommandSource, Source};
use crate::model::names::LONGEST_NAME;

/// The kind of source.
pub const ROW: SourceKind = SourceKind {
    item: Item::Named(&COMMANDS, Names { word: "ITEM", fits: item_name }),
    read,
    judge_hooks: hooks::refuse_quiet,
};

const COMMANDS: Table = Table {
    name: "commands",
    says: "Protects the output of commands",
    start: Start::off(
        "jobs.databases.commands.postgres",
        "The output of commands, each stored as one file: databases, above all.\n\
         #[jobs.databases]\n\
         #targets = [\"disk\", \"cloud\"]",
    ),
    variants: no_variants,
    items: &[&[Item::Value(&COMMAND), Item::Value(&FILE_NAME)]],
};

const COMMAND: Key<Vec<String>> = Key::new("command", &ARGV)
    .says("The program and its arguments; no shell")
    .on("['sudo', '-u', 'postgres', 'pg_dumpall']");

const FILE_NAME: Key<String> = Key::new("file-name", &A_FILE_NAME)
    .says("The name of the file in the copy")
    .on("'postgres.sql'");

fn read(section: &Section<'_>, notes: &mut Notes) -> Option<ReadSource> {
    if section.entries().is_empty() {
        let complaint = Complaint::new("commands names no command")
            .help("add [jobs.NAME.commands.ITEM] with command and file-name");
        notes.missing(section.at, complaint);
    }
    let items = section.tables();
    let commands = items.iter().filter_map(|item| read_item(item, notes)).collect();
    Some(ReadSource { source: Source::Commands(commands), trees: Trees::default() })
}

fn read_item(section: &Section<'_>, notes: &mut Notes) -> Option<CommandSource> {
    let needed: [(&dyn Keyed, &str); 2] = [(&COMMAND, "[\"…\"]"), (&FILE_NAME, "\"…\"")];
    for (key, example) in needed.into_iter().filter(|(key, _)| !section.has(*key)) {
        let message = format!("the item {:?} needs {}", section.key, key.key());
        let complaint = Complaint::new(message).help(format!("add {} = {example}", key.key()));
        notes.missing(section.at, complaint);
    }
    Some(CommandSource {
        item: section.key.to_owned(),
        command: section.get(&COMMAND)?,
        file_name: section.get(&FILE_NAME)?,
    })
}

/// Why a text cannot be the name of an item, if so.
fn item_name(name: &str) -> Result<(), String> {
    let found = name.chars().find(|c| c.is_control() || *c == '/');
    if let Some(found) = found {
        return Err(format!("an item's name cannot hold {found:?}"));
    }
    if name.is_empty() || name.starts_with(['-', '.']) {
        return Err("an item's name cannot be empty or start with '-' or '.'".into());
    }
    if name.len() > LONGEST_NAME {
        return Err(format!("an item's name has at most {LONGEST_NAME} bytes"));
    }
    Ok(())
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "jobs.NAME.commands.NAME",
    file: "TARGET [jobs.j]\ntargets=['t']\n[jobs.j.commands.x]\nKEY",
    rows: &[
        ("command", "command=['c']\nfile-name='f'", "command=['d']\nfile-name='f'"),
        ("file-name", "command=['c']\nfile-name='f'", "command=['c']\nfile-name='g'"),
    ],
}];
