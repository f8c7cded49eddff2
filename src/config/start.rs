//! The file to start from: `generate config`, written from what the keys declare of themselves.
//!
//! Prose is `# …`; a setting that is switched off is `#key = …`, so that a test can switch all of them on
//! and see that the file still loads. Alternatives that exclude each other are told in prose.

use super::key::{About, Item, Prose, Sample, Table, node_of};
use super::keys::root::FILE;
use crate::model::names::HostName;

/// A complete, commented configuration for a machine of that name, which loads as it is.
pub fn commented_start(host: &str) -> String {
    // What is no host name would be refused; a word that asks to be replaced is not.
    let host = if HostName::new(host).is_ok() { host } else { "this-host" };
    let mut text = String::new();
    table(&FILE, &mut text);
    text.replace("@HOST@", host)
}

/// A table with its keys, and the tables below it: the first variant, what stands beside it, and the other variants.
fn table(declared: &Table, text: &mut String) {
    let start = declared.start;
    if !text.is_empty() {
        text.push('\n');
    }
    prose(start.lead, text);
    if let Some(header) = start.header {
        setting(&format!("[{header}]"), start.on, text);
        for item in declared.items() {
            match item {
                Item::Value(about) => key(about.about(), start.on, text),
                Item::Table(_) | Item::Named(..) | Item::Later(..) => {}
            }
        }
    }
    let mut variants = (declared.variants)().into_iter();
    let beside = declared.items.iter().copied().flatten().copied();
    for item in variants.next().into_iter().chain(beside).chain(variants) {
        match item {
            Item::Table(below) | Item::Named(below, _) => table(below, text),
            Item::Value(_) | Item::Later(..) => {}
        }
    }
}

fn key(about: &About, table_is_on: bool, text: &mut String) {
    match about.prose {
        Prose::Silent => {}
        Prose::Says => prose(&format!("{}.", about.says), text),
        Prose::Text(lines) => prose(lines, text),
    }
    let (sample, on) = match about.sample {
        Sample::Default => (about.default, false),
        Sample::Off(toml) => (Some(toml), false),
        Sample::On(toml) => (Some(toml), true),
        Sample::Hidden => (None, false),
    };
    if let Some(node) = sample.and_then(node_of) {
        setting(&format!("{} = {}", about.name, node.to_toml()), on && table_is_on, text);
    }
}

/// Lines for people. Empty ones stay empty, and what begins with `#` is a setting that is switched off.
fn prose(lines: &str, text: &mut String) {
    for line in lines.lines() {
        let is_plain = !line.is_empty() && !line.starts_with('#');
        text.push_str(if is_plain { "# " } else { "" });
        text.push_str(line);
        text.push('\n');
    }
}

fn setting(line: &str, on: bool, text: &mut String) {
    text.push_str(if on { "" } else { "#" });
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SourceFile, load};

    fn loaded(text: String) -> crate::config::Loaded {
        load(&[SourceFile { path: "start.toml".into(), text }], "ignored", |_| None)
            .unwrap_or_else(|problems| panic!("the start file does not load:\n{problems}"))
    }

    #[test]
    fn it_loads_as_it_is() {
        let start = loaded(commented_start("web1"));
        assert_eq!(start.warnings, []);
        assert_eq!(start.config.settings.host.as_str(), "web1");
        assert_eq!(start.config.targets[0].repository, "/srv/backup/web1");
    }

    #[test]
    fn it_loads_with_everything_switched_on() {
        let text: String = commented_start("web1")
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(off) if off.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                    format!("{off}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let all = loaded(text);
        assert_eq!(all.warnings, []);
        assert_eq!((all.config.targets.len(), all.config.jobs.len()), (4, 3));
    }

    #[test]
    fn it_tells_of_every_key() {
        fn each(table: &Table, text: &str) {
            for item in table.items() {
                match item {
                    Item::Later(..) => {}
                    Item::Table(table) | Item::Named(table, _) => each(table, text),
                    Item::Value(key) => {
                        let name = key.about().name;
                        assert!(text.contains(name), "the start file lacks {name}");
                    }
                }
            }
        }
        each(&FILE, &commented_start("web1"));
    }

    #[test]
    fn no_line_is_wider_than_people_read() {
        for line in commented_start("web1").lines() {
            assert!(line.chars().count() <= 125, "{line}");
        }
    }

    #[test]
    fn a_host_that_is_no_name_breaks_nothing() {
        for host in ["", "a\"b", "-x", "localhost.localdomain"] {
            loaded(commented_start(host));
        }
    }
}
