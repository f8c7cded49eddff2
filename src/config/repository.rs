//! What a repository's text means: here on this machine, or elsewhere.
//!
//! Sources of the forms: borg's `Location` (borg 1.2: `ssh://`, `file://`, `[user@]host:path`, a path) and
//! restic's manual, "Preparing a new repository" (`BACKEND:…`, else a path).

use std::path::{Component, Path, PathBuf};

use super::diagnostic::Complaint;
use crate::model::near::nearest;
use crate::model::target::{RemoteSide, Server};

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// On this machine.
    Local(PathBuf),
    /// Behind ssh or a service: the text, without a trailing slash.
    Remote(String),
}

impl Location {
    /// The directory of a repository on this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Location::Local(path) => Some(path),
            Location::Remote(_) => None,
        }
    }
}

/// restic's backends, as prefixes of a repository.
const RESTIC_BACKENDS: &[&str] =
    &["local", "sftp", "rest", "s3", "swift", "b2", "azure", "gs", "rclone"];

fn local(text: &str) -> Result<Location, Complaint> {
    absolute(text).map(Location::Local)
}

/// Reads the absolute path of a directory, here or on another machine.
fn absolute(text: &str) -> Result<PathBuf, Complaint> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Complaint::new(format!("{text:?} is not an absolute path")));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Complaint::new(format!("{text:?} cannot hold \"..\": write the real path")));
    }
    Ok(path.components().collect())
}

fn remote(text: &str) -> Location {
    Location::Remote(text.trim_end_matches('/').to_owned())
}

/// Whether the text holds a password, as a URL may: `https://user:password@host`.
pub(super) fn holds_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// Refuses a user or host that ssh would read as an option.
fn login(login: &str) -> Result<(), Complaint> {
    let host = login.rsplit_once('@').map_or(login, |(_, host)| host);
    if host.is_empty() {
        return Err(Complaint::new("the repository names no host"));
    }
    if host.starts_with('-') || login.starts_with('-') {
        return Err(Complaint::new(format!(
            "{login:?} cannot start with '-': ssh would take it for an option"
        )));
    }
    Ok(())
}

/// Reads a repository of borg.
pub(super) fn borg(text: &str) -> Result<Location, Complaint> {
    const FORMS: &str =
        "write an absolute path, \"ssh://user@host:port/path\" or \"user@host:path\"";
    // The brackets of an IPv6 address hold "::" as well.
    let behind_address = text.rsplit_once(']').map_or(text, |(_, rest)| rest);
    if behind_address.contains("::") {
        return Err(Complaint::new("a repository is named without \"::\" and an archive"));
    }
    if let Some(found) = text.chars().find(|c| matches!(c, '{' | '}')) {
        return Err(Complaint::new(format!("a repository cannot hold {found:?}"))
            .help("borg would replace what stands in braces: write it out"));
    }
    if let Some(rest) = text.strip_prefix("ssh://") {
        let Some((host, path)) = rest.split_once('/') else {
            return Err(Complaint::new("the repository names no path").help(FORMS));
        };
        login(host)?;
        if path.trim_matches('/').is_empty() {
            return Err(Complaint::new("the repository names no path").help(FORMS));
        }
        return Ok(remote(text));
    }
    if let Some(path) = text.strip_prefix("file://") {
        return local(path).map_err(|complaint| complaint.help(FORMS));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Complaint::new(format!("borg knows no {scheme:?} repositories")).help(FORMS));
    }
    match text.split_once(':') {
        Some((host, path)) if !host.contains('/') => {
            login(host)?;
            if path.is_empty() {
                return Err(Complaint::new("the repository names no path").help(FORMS));
            }
            Ok(remote(text))
        }
        _ => local(text).map_err(|complaint| complaint.help(FORMS)),
    }
}

/// Reads a repository of restic. The second value is a doubt about a backend that is not known here,
/// since a newer restic may have it.
pub(super) fn restic(text: &str) -> Result<(Location, Option<Complaint>), Complaint> {
    const FORMS: &str = "write an absolute path, or a backend such as \"sftp:user@host:/path\"";
    let Some((backend, rest)) = text
        .split_once(':')
        .filter(|(word, _)| word.len() > 1 && word.bytes().all(|b| b.is_ascii_alphanumeric()))
    else {
        return Ok((local(text).map_err(|complaint| complaint.help(FORMS))?, None));
    };
    if rest.trim_matches('/').is_empty() && backend != "local" {
        return Err(Complaint::new(format!("the {backend:?} repository names no place")));
    }
    match backend {
        "local" => Ok((local(rest).map_err(|complaint| complaint.help(FORMS))?, None)),
        "sftp" => {
            let host = match rest.strip_prefix("//") {
                Some(rest) => rest.split('/').next().unwrap_or(rest),
                None => match rest.split_once(':') {
                    Some((host, path)) if !path.is_empty() => host,
                    _ => return Err(Complaint::new("the repository names no path").help(FORMS)),
                },
            };
            login(host)?;
            Ok((remote(text), None))
        }
        known if RESTIC_BACKENDS.contains(&known) => Ok((remote(text), None)),
        other => {
            let doubt = Complaint::new(format!("{other:?} is no restic backend known here"));
            Ok((
                remote(text),
                Some(match nearest(other, RESTIC_BACKENDS.iter().copied()) {
                    Some(near) => doubt.help(format!("did you mean \"{near}:\"?")),
                    None => doubt.help("it is handed to restic as it is"),
                }),
            ))
        }
    }
}

/// Reads where copies of btrfs are; with the machine that has them, if that is another one.
pub(super) fn btrfs(text: &str) -> Result<(Location, Option<Server>), Complaint> {
    const FORMS: &str = "write an absolute path or \"ssh://user@host:port/path\"";
    let Some(rest) = text.strip_prefix("ssh://") else {
        return Ok((local(text).map_err(|complaint| complaint.help(FORMS))?, None));
    };
    let Some((at, path)) = rest.split_once('/') else {
        return Err(Complaint::new("the location names no path").help(FORMS));
    };
    let (login, port) = login_and_port(at).map_err(|complaint| complaint.help(FORMS))?;
    if path.trim_matches('/').is_empty() {
        return Err(Complaint::new("the location names no path").help(FORMS));
    }
    let directory = absolute(&format!("/{path}")).map_err(|complaint| complaint.help(FORMS))?;
    let (ssh_command, side) = (Vec::new(), RemoteSide::Stillpoint);
    let program = "stillpoint".to_owned();
    let server = Server { login, port, directory, ssh_command, side, program };
    Ok((remote(text), Some(server)))
}

/// Reads a machine behind ssh, of which no path is named: who logs in where, and at which port.
pub(super) fn machine(text: &str) -> Result<(String, Option<u16>), Complaint> {
    const FORMS: &str = "write \"ssh://user@host:port\"";
    let at = text.strip_prefix("ssh://").filter(|at| !at.contains('/'));
    let wrong = || Complaint::new(format!("{text:?} is no machine behind ssh"));
    at.ok_or_else(wrong).and_then(login_and_port).map_err(|complaint| complaint.help(FORMS))
}

/// Reads what stands between `ssh://` and a path.
fn login_and_port(at: &str) -> Result<(String, Option<u16>), Complaint> {
    let wrong = |at: &str| Complaint::new(format!("{at:?} is no user, host and port"));
    let (user, place) = match at.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, at),
    };
    // An IPv6 address stands in brackets, and ssh takes it without.
    let bracketed = place.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(|| wrong(at))?)),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map(|port| port.parse().map_err(|_| wrong(at))).transpose()?;
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let of_an_address = |c: char| of_a_name(c) || c == '%' || (bracketed.is_some() && c == ':');
    let is_name = |user: &str| !user.is_empty() && user.chars().all(of_a_name);
    if !host.chars().all(of_an_address) || !user.is_none_or(is_name) || port == Some(0) {
        return Err(wrong(at));
    }
    let login_name = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
    login(&login_name)?;
    Ok((login_name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borg_repositories() {
        assert_eq!(borg("/srv/r").unwrap(), Location::Local("/srv/r".into()));
        assert_eq!(borg("/srv//b/").unwrap(), Location::Local("/srv/b".into()));
        assert!(matches!(borg("ssh://nas/srv/r"), Ok(Location::Remote(_))));
        assert_eq!(borg("file:///srv/b").unwrap(), Location::Local("/srv/b".into()));
        for good in ["ssh://u@h:22/srv/b", "ssh://h/./b", "u@h:b", "h:/srv/b", "ssh://[::1]/b"] {
            assert!(matches!(borg(good), Ok(Location::Remote(_))), "{good:?} was refused");
        }
        for bad in [
            "srv/b",
            "./b",
            "/srv/../b",
            "ssh://h",
            "ssh://h/",
            "ssh:///b",
            "ssh://-oX=y/b",
            "ssh://u@-oX=y/b",
            "u@-h:b",
            "h:",
            "sftp://h/b",
            "/srv/b::a",
            "/srv/{hostname}",
        ] {
            assert!(borg(bad).is_err(), "{bad:?} was taken as a borg repository");
        }
    }

    #[test]
    fn places_of_btrfs() {
        assert_eq!(btrfs("/srv//b/").unwrap(), (Location::Local("/srv/b".into()), None));
        for (text, login, port, directory) in [
            ("ssh://nas/srv/b/", "nas", None, "/srv/b"),
            ("ssh://u@h.example:22/a b", "u@h.example", Some(22), "/a b"),
            ("ssh://u@[fe80::1%eth0]:22/b", "u@fe80::1%eth0", Some(22), "/b"),
            ("ssh://[::1]/b", "::1", None, "/b"),
        ] {
            let (location, server) = btrfs(text).unwrap();
            assert_eq!(location, Location::Remote(text.trim_end_matches('/').into()));
            let server = server.unwrap();
            let found = (server.login.as_str(), server.port, server.directory.to_str().unwrap());
            assert_eq!(found, (login, port, directory));
        }
        for bad in [
            "srv/b",
            "/srv/../b",
            "ssh://h",
            "ssh://h/",
            "ssh:///b",
            "ssh://h/../b",
            "ssh://-oX=y/b",
            "ssh://u@-oX=y/b",
            "ssh://-u@h/b",
            "ssh://u v@h/b",
            "ssh://u:secret@h/b",
            "ssh://h:x/b",
            "ssh://h:0/b",
            "ssh://h:65536/b",
            "ssh://[::1/b",
            "ssh://[::1]x/b",
            "ssh://a:b:c/b",
            "u@h:b",
            "sftp://h/b",
        ] {
            assert!(btrfs(bad).is_err(), "{bad:?} was taken as a place of btrfs");
        }
    }

    #[test]
    fn passwords_in_urls() {
        assert!(holds_password("rest:https://u:secret@h:8000/r"));
        for good in ["rest:https://u@h:8000/r", "rest:https://h:8000/a:b@c", "s3:h/b", "/a"] {
            assert!(!holds_password(good), "{good:?}");
        }
    }

    #[test]
    fn restic_repositories() {
        for local in ["local:/srv/r", "/srv/r"] {
            assert_eq!(restic(local).unwrap().0, Location::Local("/srv/r".into()), "{local}");
        }
        for good in [
            "/srv/r",
            "/srv/a:b",
            "sftp:u@h:/r",
            "sftp://u@h:22//r",
            "rest:https://h/r",
            "s3:s3.amazonaws.com/bucket",
            "b2:bucket:path",
            "rclone:remote:path",
        ] {
            assert!(matches!(restic(good), Ok((_, None))), "{good:?} was refused or doubted");
        }
        let doubt = restic("stfp:u@h:/r").unwrap().1.unwrap();
        assert_eq!(doubt.help.as_deref(), Some("did you mean \"sftp:\"?"));
        for bad in
            ["r", "./r", "local:r", "sftp:-oX=y:/r", "sftp:u@-h:/r", "sftp:h", "s3:", "/../r"]
        {
            assert!(restic(bad).is_err(), "{bad:?} was taken as a restic repository");
        }
    }
}
