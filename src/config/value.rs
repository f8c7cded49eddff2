//! Single values: what a string, number or list in the file must be to be taken.
//!
//! Whatever passes here is safe as one operand of a command: no value that a program would read as an
//! option, none with a NUL byte, no path whose meaning depends on a working directory.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::diagnostic::{Complaint, suggest};
use super::source::Place;
use super::tree::{Node, Value};
use crate::model::job::ClassicSize;
use crate::model::span;
use crate::model::target::ReadData;

type Read<T> = Result<T, Complaint>;

fn wrong_type<T>(expected: &str, node: &Node) -> Read<T> {
    Err(Complaint::new(format!("expected {expected}, found {}", node.type_name())))
}

/// Any string without control characters.
pub(super) fn line(node: &Node) -> Read<&str> {
    let Value::Text(text) = &node.value else { return wrong_type("a string", node) };
    match text.chars().find(|c| c.is_control()) {
        Some(found) => Err(Complaint::new(format!("cannot hold the control character {found:?}"))),
        None if text.is_empty() => Err(Complaint::new("cannot be empty")),
        None => Ok(text),
    }
}

/// A string that no program takes for an option.
pub(super) fn text(node: &Node) -> Read<&str> {
    let text = line(node)?;
    if text.starts_with('-') {
        return Err(Complaint::new(format!(
            "{text:?} cannot start with '-': it would be taken for an option"
        )));
    }
    Ok(text)
}

/// A string that is the name of a file, without directories.
pub(super) fn file_name(node: &Node) -> Read<&str> {
    let name = text(node)?;
    if name.contains('/') || name == "." || name == ".." {
        return Err(Complaint::new(format!(
            "{name:?} is no file name: it cannot hold a directory"
        )));
    }
    Ok(name)
}

/// `true` or `false`.
pub(super) fn flag(node: &Node) -> Read<bool> {
    match &node.value {
        Value::Flag(flag) => Ok(*flag),
        Value::Text(text) if text == "true" || text == "false" => wrong_type("true or false", node)
            .map_err(|c: Complaint| c.help("write it without quotes")),
        _ => wrong_type("true or false", node),
    }
}

/// A whole number not below `least`.
pub(super) fn whole(node: &Node, least: u32) -> Read<u32> {
    let Value::Whole(number) = node.value else { return wrong_type("a whole number", node) };
    match u32::try_from(number) {
        Ok(number) if number >= least => Ok(number),
        _ => Err(Complaint::new(format!("expected a number from {least} to {}", u32::MAX))),
    }
}

/// A length of time.
pub(super) fn span(node: &Node) -> Read<Duration> {
    match &node.value {
        Value::Text(text) => span::parse(text).map_err(Complaint::new),
        Value::Whole(number) => wrong_type("a length of time", node).map_err(|c: Complaint| {
            match span::parse(&format!("{number}s")) {
                Ok(_) => {
                    c.help(format!("write it in quotes and with its unit, such as \"{number}s\""))
                }
                Err(_) => c,
            }
        }),
        _ => wrong_type("a length of time such as \"30s\" or \"2h\"", node),
    }
}

/// A length of time longer than nothing.
pub(super) fn long_span(node: &Node) -> Read<Duration> {
    match span(node)? {
        Duration::ZERO => Err(Complaint::new("must be longer than nothing")),
        span => Ok(span),
    }
}

/// An absolute path, without `.` components and doubled or trailing slashes.
pub(super) fn path(node: &Node) -> Read<PathBuf> {
    let text = text(node)?;
    let path = Path::new(text);
    if !path.is_absolute() {
        let complaint = Complaint::new(format!("{text:?} is not an absolute path"));
        return Err(if text.starts_with('~') {
            complaint.help("write the home directory out; there is no shell that would")
        } else {
            complaint
        });
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Complaint::new(format!("{text:?} cannot hold \"..\": write the real path")));
    }
    match shell_variable(text) {
        Some(variable) => {
            Err(Complaint::new(format!("{text:?} holds {variable:?}, and there is no shell"))
                .help("write out what it stands for"))
        }
        None => Ok(path.components().collect()),
    }
}

/// An exclude pattern or the like, which may start with `-`.
pub(super) fn pattern(node: &Node) -> Read<&str> {
    let text = line(node)?;
    if text == "~" || text.starts_with("~/") {
        let complaint =
            Complaint::new(format!("{text:?} means no home directory: there is no shell"));
        return Err(complaint.help(format!(
            "write the directory out, or /home/*{} for everybody's; [~] is a tilde",
            &text[1..]
        )));
    }
    match shell_variable(text) {
        Some(variable) => {
            Err(Complaint::new(format!("{text:?} holds {variable:?}, and there is no shell"))
                .help("write out what it stands for; [$] is a dollar"))
        }
        None => Ok(text),
    }
}

/// What a shell would replace in the text: `${…}`, or one of the variables that people think of. Other names
/// with a dollar are names (`$RECYCLE.BIN`).
fn shell_variable(text: &str) -> Option<&str> {
    const KNOWN: &[&str] = &["HOME", "USER", "LOGNAME", "HOSTNAME", "PWD", "TMPDIR"];
    text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        if rest.starts_with('{') {
            return rest.find('}').map(|end| &text[at..at + end + 2]);
        }
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
        let known = KNOWN.contains(&name) || name.starts_with("XDG_");
        known.then(|| &text[at..at + 1 + name.len()])
    })
}

/// The elements of an array.
pub(super) fn list<'t>(node: &'t Node, of: &str) -> Read<&'t [Node]> {
    match &node.value {
        Value::List(nodes) => Ok(nodes),
        _ => wrong_type(&format!("a list of {of}"), node),
    }
}

/// What to write instead of a command that was written as one string: the same words as a list, in TOML. `None`
/// when a shell would have made something else of the string, or no command comes of it.
fn as_argv(text: &str) -> Option<String> {
    const OF_SHELLS: &[char] = &[
        '\'', '"', '\\', '`', '$', '|', '&', ';', '<', '>', '(', ')', '*', '?', '[', '~', '#', '{',
    ];
    if text.contains(OF_SHELLS) || text.contains(char::is_control) {
        return None;
    }
    let words: Vec<Node> = (text.split_whitespace())
        .map(|word| Node { at: Place::default(), value: Value::Text(word.to_owned()) })
        .collect();
    let node = Node { at: Place::default(), value: Value::List(words) };
    argv(&node).ok().map(|_| node.to_toml())
}

/// What to write instead of a list of commands that is none: one string, or strings where lists belong.
pub(super) fn as_argvs(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => as_argv(text).map(|argv| format!("[{argv}]")),
        Value::List(nodes) if !nodes.is_empty() => {
            let texts: Vec<&str> = nodes
                .iter()
                .map(|node| match &node.value {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect::<Option<_>>()?;
            if texts[0].contains(char::is_whitespace) {
                let argvs: Option<Vec<String>> = texts.into_iter().map(as_argv).collect();
                return argvs.map(|argvs| format!("[{}]", argvs.join(", ")));
            }
            argv(node).ok().map(|_| format!("[{}]", node.to_toml()))
        }
        _ => None,
    }
}

/// Adds what to write instead, or what a command looks like.
fn with_argv(complaint: Complaint, instead: Option<String>) -> Complaint {
    match instead {
        Some(instead) => complaint.help(format!("write {instead}")),
        None => complaint.help("there is no shell: write each argument as a string of its own"),
    }
}

/// A program with its arguments.
pub(super) fn argv(node: &Node) -> Read<Vec<String>> {
    const EXPECTED: &str = "strings: a program and its arguments";
    let words = match &node.value {
        Value::Text(text) => list(node, EXPECTED).map_err(|c| with_argv(c, as_argv(text)))?,
        _ => list(node, EXPECTED)?,
    };
    let argv: Vec<String> = words
        .iter()
        .map(|word| match &word.value {
            Value::Text(text) if text.contains('\0') => {
                Err(Complaint::new("an argument cannot hold a NUL"))
            }
            Value::Text(text) => Ok(text.clone()),
            _ => wrong_type("a list of strings: a program and its arguments", word),
        })
        .collect::<Read<_>>()?;
    let Some(program) = argv.first() else {
        return Err(Complaint::new("the list is empty: it must name a program"));
    };
    if program.is_empty() || program.starts_with('-') {
        return Err(Complaint::new(format!("{program:?} is no program")));
    }
    if program.contains('/') && !program.starts_with('/') {
        return Err(Complaint::new(format!("{program:?} is not an absolute path")));
    }
    if argv.len() == 1 && program.contains(' ') {
        return Err(with_argv(
            Complaint::new(format!("no program is called {program:?}")),
            as_argv(program),
        ));
    }
    Ok(argv)
}

/// One of some words.
pub(super) fn word(node: &Node, words: &'static [&'static str]) -> Read<&'static str> {
    let expected = || {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        quoted.join(", ")
    };
    let Value::Text(text) = &node.value else {
        return wrong_type(&format!("one of {}", expected()), node);
    };
    match words.iter().find(|word| *word == text) {
        Some(word) => Ok(word),
        None => Err(Complaint::new(format!("expected one of {}, not {text:?}", expected()))
            .help(suggest(text, words))),
    }
}

fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    // Only digits and a point: the parser of floats also takes "inf", "1e1" and "+5".
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number.parse().ok().filter(|number| plain && *number > 0.0 && *number <= 100.0)
}

/// How much of the data a check reads.
pub(super) fn share(node: &Node) -> Read<ReadData> {
    const EXPECTED: &str = "true, false, \"all\" or a percentage such as \"5%\"";
    match &node.value {
        Value::Flag(true) => Ok(ReadData::All),
        Value::Flag(false) => Ok(ReadData::None),
        Value::Text(text) if text == "all" => Ok(ReadData::All),
        Value::Text(text) => percent(text).map(ReadData::Percent).ok_or_else(|| {
            Complaint::new(format!("expected {EXPECTED}, above 0% and up to 100%, not {text:?}"))
        }),
        _ => wrong_type(EXPECTED, node),
    }
}

/// By how much a copy may shrink, in percent; 100 is `"off"`.
pub(super) fn shrink(node: &Node) -> Read<u8> {
    const EXPECTED: &str = "\"1%\" to \"100%\" or \"off\"";
    let Value::Text(text) = &node.value else { return wrong_type(EXPECTED, node) };
    if text == "off" {
        return Ok(100);
    }
    whole_percent(text).ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

/// `1%` to `100%`, without a fraction.
fn whole_percent(text: &str) -> Option<u8> {
    // The parser of numbers would also take a sign.
    let digits = text.strip_suffix('%').filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| (1..=100).contains(number))
}

/// `"1%"` to `"100%"`.
pub(super) fn percentage(node: &Node) -> Read<u8> {
    const EXPECTED: &str = "\"1%\" to \"100%\"";
    let Value::Text(text) = &node.value else { return wrong_type(EXPECTED, node) };
    whole_percent(text).ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

/// A percentage or a number of bytes, with the units of lvcreate(8), which are powers of 1024.
pub(super) fn snapshot_size(node: &Node) -> Read<ClassicSize> {
    const EXPECTED: &str =
        "\"1%\" to \"100%\", or bytes with their unit such as \"2G\" (K, M, G, T)";
    let Value::Text(text) = &node.value else { return wrong_type(EXPECTED, node) };
    let percent = || whole_percent(text).map(ClassicSize::Percent);
    let bytes = || {
        let shift = match text.bytes().last()? {
            b'K' => 10,
            b'M' => 20,
            b'G' => 30,
            b'T' => 40,
            _ => return None,
        };
        let digits = &text[..text.len() - 1];
        let count: u64 =
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
        let bytes = count.checked_mul(1 << shift).filter(|bytes| *bytes > 0)?;
        Some(ClassicSize::Bytes(bytes))
    };
    percent()
        .or_else(bytes)
        .ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

/// A compression as borg takes it: `borg help compression`, of borg 1.2 and 1.4.
pub(super) fn borg_compression(node: &Node) -> Read<&str> {
    let text = text(node)?;
    if known_compression(text, true) {
        return Ok(text);
    }
    Err(Complaint::new(format!("{text:?} is no compression that borg knows"))
        .help("such as \"lz4\", \"zstd,6\", \"zlib,6\", \"lzma,6\", \"none\" or \"auto,zstd,6\""))
}

fn known_compression(text: &str, may_wrap: bool) -> bool {
    let (name, rest) = match text.split_once(',') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let level = |most: u32| match rest {
        None => true,
        Some(level) => level.parse().is_ok_and(|level: u32| level <= most),
    };
    match (name, rest) {
        ("none" | "lz4", rest) => rest.is_none(),
        ("zstd", _) => level(22) && rest != Some("0"),
        ("zlib" | "lzma", _) => level(9),
        ("auto", Some(rest)) => may_wrap && known_compression(rest, false),
        ("obfuscate", Some(rest)) => rest.split_once(',').is_some_and(|(spec, rest)| {
            let known = spec.parse().is_ok_and(|spec: u32| matches!(spec, 1..=6 | 110..=123 | 250));
            may_wrap
                && known
                && (known_compression(rest, false)
                    || rest.starts_with("auto,") && known_compression(rest, true))
        }),
        _ => false,
    }
}

/// A files cache mode as borg takes it: `borg create --files-cache`, of borg 1.2 and 1.4.
pub(super) fn borg_files_cache(node: &Node) -> Read<&str> {
    /// The sets borg accepts; the order of the words does not matter to it.
    const MODES: &[&[&str]] = &[
        &["ctime", "size", "inode"],
        &["mtime", "size", "inode"],
        &["ctime", "size"],
        &["mtime", "size"],
        &["ctime", "rechunk"],
        &["mtime", "rechunk"],
        &["size"],
        &["disabled"],
    ];
    let text = text(node)?;
    let mut words: Vec<&str> = text.split(',').collect();
    words.sort_unstable();
    let known = MODES.iter().any(|mode| {
        let mut mode = mode.to_vec();
        mode.sort_unstable();
        mode == words
    });
    if known {
        return Ok(text);
    }
    let modes: Vec<String> = MODES.iter().map(|mode| mode.join(",")).collect();
    Err(Complaint::new(format!("{text:?} is no files cache mode that borg knows"))
        .help(format!("one of {}", modes.join(" ; "))))
}

/// Why a text cannot be the name of a job's item, if so.
pub(super) fn item_name(name: &str) -> Read<()> {
    use crate::model::names::LONGEST_NAME;
    let found = name.chars().find(|c| c.is_control() || *c == '/');
    if let Some(found) = found {
        return Err(Complaint::new(format!("an item's name cannot hold {found:?}")));
    }
    if name.is_empty() || name.starts_with(['-', '.']) {
        return Err(Complaint::new("an item's name cannot be empty or start with '-' or '.'"));
    }
    if name.len() > LONGEST_NAME {
        return Err(Complaint::new(format!("an item's name has at most {LONGEST_NAME} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Table;

    fn node(toml: &str) -> Node {
        Table::parse(0, &format!("k = {toml}")).unwrap().entries.remove(0).node
    }

    #[test]
    fn paths_are_absolute_and_clean() {
        assert_eq!(path(&node("'/a//b/./c/'")).unwrap().as_os_str(), "/a/b/c");
        assert_eq!(path(&node("'/'")).unwrap().as_os_str(), "/");
        for bad in ["''", "'a'", "'./a'", "'~/a'", "'/a/../b'", "'-/a'", r#""/a\nb""#, "3"] {
            assert!(path(&node(bad)).is_err(), "{bad} was taken as a path");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!(share(&node("'5%'")).unwrap(), ReadData::Percent(5.0));
        assert_eq!(share(&node("'2.5%'")).unwrap(), ReadData::Percent(2.5));
        assert_eq!(share(&node("true")).unwrap(), ReadData::All);
        assert_eq!(share(&node("false")).unwrap(), ReadData::None);
        for bad in ["'0%'", "'101%'", "'5'", "5", "'inf%'", "'1e1%'", "'-5%'", "'+5%'", "'%'"] {
            assert!(share(&node(bad)).is_err(), "{bad} was taken as a share");
        }
        assert_eq!(shrink(&node("'50%'")).unwrap(), 50);
        assert_eq!(shrink(&node("'off'")).unwrap(), 100);
        for bad in ["'0%'", "'101%'", "'+5%'", "'%'", "50", "'999999%'", "'5.5%'"] {
            assert!(shrink(&node(bad)).is_err(), "{bad} was taken as a limit");
        }
    }

    #[test]
    fn sizes_of_snapshots() {
        for (text, size) in [
            ("15%", ClassicSize::Percent(15)),
            ("100%", ClassicSize::Percent(100)),
            ("64K", ClassicSize::Bytes(65_536)),
            ("2G", ClassicSize::Bytes(2 << 30)),
            ("1T", ClassicSize::Bytes(1 << 40)),
        ] {
            assert_eq!(snapshot_size(&node(&format!("'{text}'"))).unwrap(), size);
        }
        let bad = [
            "'0%'",
            "'101%'",
            "'0G'",
            "'2'",
            "2",
            "'G'",
            "'2g'",
            "'2GiB'",
            "'+2G'",
            "'1.5G'",
            "'99999999T'",
            "'2 G'",
            "''",
            "'2€'",
        ];
        for bad in bad {
            assert!(snapshot_size(&node(bad)).is_err(), "{bad} was taken as a size");
        }
        assert_eq!(percentage(&node("'85%'")).unwrap(), 85);
        for bad in ["'0%'", "'101%'", "85", "'off'", "'2G'", "'+5%'"] {
            assert!(percentage(&node(bad)).is_err(), "{bad} was taken as a percentage");
        }
    }

    #[test]
    fn argv_names_a_program() {
        assert_eq!(argv(&node("['sudo', '-u', 'x', '']")).unwrap().len(), 4);
        for bad in ["[]", "['']", "['-x']", "['./x']", "['a b']", r#"["a", "\u0000"]"#, "['a', 1]"]
        {
            assert!(argv(&node(bad)).is_err(), "{bad} was taken as a command");
        }
    }

    #[test]
    fn what_borg_knows() {
        for good in ["none", "lz4", "zstd", "zstd,22", "zlib,0", "auto,zstd,6", "auto,lz4"] {
            assert!(borg_compression(&node(&format!("'{good}'"))).is_ok(), "{good}");
        }
        for good in ["obfuscate,110,zstd,3", "obfuscate,2,auto,lzma"] {
            assert!(borg_compression(&node(&format!("'{good}'"))).is_ok(), "{good}");
        }
        for bad in ["zst", "zstd,23", "zstd,0", "lz4,1", "auto", "auto,auto,lz4", "obfuscate,7,lz4"]
        {
            assert!(borg_compression(&node(&format!("'{bad}'"))).is_err(), "{bad}");
        }
        assert!(borg_files_cache(&node("'inode,size,ctime'")).is_ok());
        assert!(borg_files_cache(&node("'ctime,inode'")).is_err());
    }
}
