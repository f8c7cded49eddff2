//! A configuration in the making: targets and jobs with their keys, and what is to be said of each.

use std::fmt::{self, Write as _};

use crate::model::names::LONGEST_NAME;
use crate::model::shown;

/// A configuration that another program's becomes.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// What is said at the beginning.
    pub notes: Vec<String>,
    /// Where copies go.
    pub targets: Vec<Target>,
    /// What is protected.
    pub jobs: Vec<Job>,
}

/// A key and its value, in TOML.
pub(super) type Pair = (&'static str, String);

/// Where copies go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Its name.
    pub name: String,
    /// The key of its engine.
    pub engine: &'static str,
    /// The keys of that, first of all where it is.
    pub keys: Vec<Pair>,
    /// The directory, if it is one of this machine.
    pub here: Option<String>,
    /// What is said of it.
    pub notes: Vec<String>,
}

/// What is protected.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Its name.
    pub name: String,
    /// The subvolume.
    pub path: String,
    /// What lies in it and need not be in a copy.
    pub leave_out: Vec<String>,
    /// The keys by which another program's snapshots are sent instead of own ones.
    pub existing: Vec<Pair>,
    /// The names of its targets, each with the policy there; with an empty one, all copies stay.
    pub targets: Vec<(String, Vec<Pair>)>,
    /// The policy for the snapshots that stay here; with an empty one, only what the next difference needs.
    pub keep_snapshots: Vec<Pair>,
    /// What is said of it.
    pub notes: Vec<String>,
}

/// A text in TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Texts in TOML.
pub(super) fn list<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

impl Draft {
    /// The name of a target, which is made of `wanted` if no other one has it. What is at the same place is the same target,
    /// with the keys that were named first.
    pub fn target(&mut self, wanted: &str, target: Target) -> String {
        let place = |it: &Target| (it.engine, it.keys.first().cloned());
        if let Some(known) = self.targets.iter_mut().find(|it| place(it) == place(&target)) {
            // Sections inherit targets, so one line may be met more than once.
            let of = target.notes.first().cloned().unwrap_or_default();
            if known.keys != target.keys {
                let what = "the same place, whose options are those that were named first";
                known.notes.push(format!("{of}: {what}"));
            }
            let new = target.notes.into_iter().filter(|note| !known.notes.contains(note));
            known.notes.extend(new.collect::<Vec<_>>());
            return known.name.clone();
        }
        let name = free(wanted, |name| self.targets.iter().any(|it| it.name == name));
        self.targets.push(Target { name: name.clone(), ..target });
        name
    }

    /// Adds a job, whose name is made of `wanted`. What it would copy of its own copies is left out.
    pub fn job(&mut self, wanted: &str, mut job: Job) {
        let name = free(wanted, |name| self.jobs.iter().any(|it| it.name == name));
        let its_own =
            self.targets.iter().filter(|it| job.targets.iter().any(|(of, _)| *of == it.name));
        let inside = its_own.filter_map(|it| it.here.clone()).filter(|at| is_inside(at, &job.path));
        job.leave_out.extend(inside.collect::<Vec<_>>());
        self.jobs.push(Job { name, ..job });
    }

    /// Writes it down.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        comment(&mut text, &self.notes);
        for target in &self.targets {
            text.push('\n');
            comment(&mut text, &target.notes);
            table(&mut text, &format!("targets.{}.{}", target.name, target.engine), &target.keys);
        }
        for job in &self.jobs {
            text.push('\n');
            comment(&mut text, &job.notes);
            let name = &job.name;
            let targets = list(job.targets.iter().map(|(target, _)| target.as_str()));
            table(&mut text, &format!("jobs.{name}"), &[("targets", targets)]);
            let mut keys = vec![("paths", list([job.path.as_str()]))];
            if !job.leave_out.is_empty() {
                keys.push(("leave-out", list(job.leave_out.iter().map(String::as_str))));
            }
            keys.extend(job.existing.clone());
            table(&mut text, &format!("jobs.{name}.subvolumes"), &keys);
            if !job.keep_snapshots.is_empty() {
                table(&mut text, &format!("jobs.{name}.keep-snapshots"), &job.keep_snapshots);
            }
            for (target, keep) in job.targets.iter().filter(|(_, keep)| !keep.is_empty()) {
                table(&mut text, &format!("jobs.{name}.keep.{target}"), keep);
            }
        }
        text
    }
}

fn table(text: &mut String, name: &str, keys: &[Pair]) {
    let _ = writeln!(text, "[{name}]");
    for (key, value) in keys {
        let _ = writeln!(text, "{key} = {value}");
    }
}

/// Notes may quote what a file says, which must not end a comment.
fn comment(text: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "{}", format!("# {}", shown::text(note)).trim_end());
    }
}

/// A name that is not taken, of letters, digits and dashes.
fn free(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = wanted.chars().map(letter).collect();
    let name = name.trim_start_matches(['-', '_']).trim_end_matches('-');
    // A number may follow.
    let name = match name.get(..name.len().min(LONGEST_NAME - 4)) {
        Some("") | None => "root",
        Some(name) => name,
    };
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.to_owned())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .unwrap_or_default()
}

/// Where another program sends copies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory of this machine.
    Here(String),
    /// One of another one: who, where, by which port, and the directory.
    There { user: Option<String>, host: String, port: Option<String>, path: String },
}

impl Place {
    /// Reads `/path`, `ssh://[user@]host[:port]/path` or `[user@]host:/path`.
    pub fn read(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Place::Here(tidy(text)));
        }
        let (login, path) = match text.strip_prefix("ssh://") {
            Some(rest) => rest.split_at_checked(rest.find('/')?)?,
            None => text.split_once(':').filter(|(_, path)| path.starts_with('/'))?,
        };
        let login = login.trim_end_matches(':');
        let (user, machine) = match login.rsplit_once('@') {
            Some((user, machine)) => (Some(user.to_owned()), machine),
            None => (None, login),
        };
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let (host, port) = match machine.rsplit_once(':').filter(|(_, port)| is_port(port)) {
            // What stands before it may be a part of an address of IPv6, which stands in brackets then.
            Some((host, port))
                if !port.is_empty() && !host.contains(':') || host.ends_with(']') =>
            {
                (host, Some(port.to_owned()))
            }
            _ => (machine, None),
        };
        let is_one = !host.is_empty() && !host.starts_with('-');
        is_one.then(|| Place::There { user, host: host.to_owned(), port, path: tidy(path) })
    }

    /// The directory, if it is one of this machine.
    pub fn here(&self) -> Option<String> {
        match self {
            Place::Here(path) => Some(path.clone()),
            Place::There { .. } => None,
        }
    }

    /// What a target there may be called.
    pub fn name(&self) -> String {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        match self {
            Place::Here(path) => {
                let mut names: Vec<&str> = path.rsplit('/').take(2).collect();
                names.reverse();
                names.retain(|name| !["", "mnt", "media", "srv"].contains(name));
                names.join("-")
            }
            Place::There { host, path, .. } => format!("{host}-{}", last(path)),
        }
    }
}

/// Why there is no target for streams on another machine.
pub(super) const NO_STREAMS_THERE: &str =
    "streams are stored in a directory, or behind commands of yours (put-command and others)";

/// The keys of a directory on another machine, with the login and the port that are named beside it: those in the place
/// go before. ssh is named only where it has options.
pub(super) fn behind_ssh(
    place: &Place,
    user: Option<&str>,
    port: Option<String>,
    options: &[&str],
) -> Vec<Pair> {
    let Place::There { user: own, host, port: its_own, path } = place else { return Vec::new() };
    let user = own.as_deref().or(user).unwrap_or("root");
    let port = its_own.clone().or(port).map(|port| format!(":{port}")).unwrap_or_default();
    let mut keys = vec![("location", quoted(&format!("ssh://{user}@{host}{port}{path}")))];
    if !options.is_empty() {
        keys.push(("ssh-command", list([&["ssh"][..], options].concat())));
    }
    keys
}

/// The key of a directory of this machine into which copies are received, and what is to be done there.
pub(super) fn received_in(path: &str) -> (Pair, String) {
    (("location", quoted(path)), format!("others may not come into it: chmod go-rwx {path}"))
}

/// The key of a directory in which streams are stored, beside what is stored there, and what is to be done first.
pub(super) fn stored_in(path: &str) -> (Pair, String) {
    let directory = format!("{path}/stillpoint");
    (("directory", quoted(&directory)), format!("make it first: mkdir -m 700 {directory}"))
}

/// What is said of a directory on another machine.
pub(super) const THERE: &str = "Stillpoint must be on that machine as well, or remote-side = \"btrfs-progs\" be said here: see the README. What was sent there is sent again once, unless Stillpoint is there and a key that may adopt has it adopted";

/// The key of streams that are to be encrypted, and what is to be done first. `said` is what asks for it.
pub(super) fn encrypted(said: impl fmt::Display) -> (Pair, String) {
    (
        ("recipients-file", quoted("/etc/stillpoint/age.recipients")),
        format!(
            "{said}: streams are encrypted by age; make that file (age-keygen) before anything is stored"
        ),
    )
}

/// The key of a rate with a unit, or what is wrong with it. `said` is what names it.
pub(super) fn limit(rate: &str, said: impl fmt::Display) -> Result<Pair, String> {
    match kib(rate) {
        Some(kib) => Ok(("upload-limit", kib.to_string())),
        None => Err(format!("{said}: is no rate, so there is no limit")),
    }
}

/// A rate with a unit, in KiB per second; it may have up to three decimals.
fn kib(rate: &str) -> Option<u32> {
    let rate = rate.trim();
    let digits = rate.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_one = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok().filter(|_| is_one)?;
    let number = whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(thousandths)?;
    let shift = match rate[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let bytes = number.checked_mul(1 << shift)? / 1_000;
    u32::try_from((bytes >> 10).max(1)).ok()
}

/// Whether a path leads to what lies below another one.
pub(super) fn is_inside(path: &str, around: &str) -> bool {
    path != around && std::path::Path::new(path).starts_with(around)
}

/// A path without a slash at its end, or two of them.
fn tidy(path: &str) -> String {
    let names: Vec<&str> =
        path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_anything() {
        let named = |wanted: &str| free(wanted, |name| name == "taken");
        for (wanted, name) in [
            ("home", "home"),
            ("@home", "home"),
            ("größe", "gr--e"),
            ("", "root"),
            ("---", "root"),
            ("taken", "taken-2"),
            ("a.b c", "a-b-c"),
        ] {
            assert_eq!(named(wanted), name, "{wanted}");
        }
        assert!(named(&"x".repeat(500)).len() <= LONGEST_NAME);
    }

    #[test]
    fn rates_may_have_decimals() {
        for (rate, read) in [
            ("10M", Some(10_240)),
            ("1.5m", Some(1_536)),
            ("0.25G", Some(262_144)),
            ("500", Some(1)),
            (" 2k ", Some(2)),
            ("1.5555M", None),
            ("1.-5M", None),
            (".5M", None),
            ("M", None),
        ] {
            assert_eq!(kib(rate), read, "{rate}");
        }
    }

    #[test]
    fn places_are_read() {
        let there = |user: Option<&str>, host: &str, port: Option<&str>, path: &str| {
            let [user, port] = [user, port].map(|it| it.map(str::to_owned));
            Some(Place::There { user, host: host.into(), port, path: path.into() })
        };
        for (text, place) in [
            ("/mnt//a/./b/", Some(Place::Here("/mnt/a/b".into()))),
            ("/", Some(Place::Here("/".into()))),
            ("ssh://nas/mnt/a", there(None, "nas", None, "/mnt/a")),
            ("ssh://u@nas:2222/mnt/a", there(Some("u"), "nas", Some("2222"), "/mnt/a")),
            ("ssh://[fe80::1]:22/a", there(None, "[fe80::1]", Some("22"), "/a")),
            ("ssh://[fe80::1]/a", there(None, "[fe80::1]", None, "/a")),
            ("ssh://u@nas:/mnt/a", there(Some("u"), "nas", None, "/mnt/a")),
            ("nas:/mnt/a", there(None, "nas", None, "/mnt/a")),
            ("u@nas:/mnt/a", there(Some("u"), "nas", None, "/mnt/a")),
            ("ssh://-oProxyCommand=x/a", None),
            ("ssh:///a", None),
            ("relative/a", None),
            ("nas:relative", None),
            ("", None),
        ] {
            assert_eq!(Place::read(text), place, "{text}");
        }
    }

    #[test]
    fn what_a_note_quotes_ends_no_comment() {
        let mut text = String::new();
        comment(&mut text, &["a\nkey = 1\r\u{85}x".to_owned()]);
        assert_eq!(text, "# a\\nkey = 1\\r\\u{85}x\n");
    }
}
