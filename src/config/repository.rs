//! What a repository's text means: here on this machine, or elsewhere.
//!
//! Sources of the forms: borg's `Location` (borg 1.2: `ssh://`, `file://`, `[user@]host:path`, a path) and
//! restic's manual, "Preparing a new repository" (`BACKEND:…`, else a path).

use std::path::{Component, Path, PathBuf};

use super::diagnostic::Complaint;
use crate::model::near::nearest;

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
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Complaint::new(format!("{text:?} is not an absolute path")));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Complaint::new(format!("{text:?} cannot hold \"..\": write the real path")));
    }
    Ok(Location::Local(path.components().collect()))
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
