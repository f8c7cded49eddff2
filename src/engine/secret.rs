//! Where a passphrase comes from: a file, a command or a systemd credential. The same for every engine.

use std::path::Path;

use super::EngineError;
use crate::host::{CommandSpec, Host, RunError, StdoutMode, Tool, TrustKind};
use crate::model::secret::Secret;
use crate::model::shown::Show;
use crate::model::target::SecretSource;

/// Decrypts credentials outside a unit.
const SYSTEMD_CREDS: Tool = Tool::Known {
    name: "systemd-creds",
    hint: "it comes with systemd 250 and later; use passphrase-file where it is missing",
};

/// Gets a passphrase. One line break at its end is not part of it.
///
/// # Errors
/// [`EngineError::Secret`] when it cannot be had or is empty, and the host's own errors.
pub fn resolve(host: &dyn Host, source: &SecretSource) -> Result<Secret, EngineError> {
    let (secret, from) = match source {
        SecretSource::File(path) => (read_private(host, path)?, path.shown().to_string()),
        SecretSource::Command(argv) => {
            let Some((program, args)) = argv.split_first() else {
                return Err(EngineError::Secret { what: "the command is empty".into() });
            };
            let spec = CommandSpec::helper(Tool::from_word(program)).args(args);
            (output(host, spec)?, program.clone())
        }
        SecretSource::Credential(name) => match host.environment("CREDENTIALS_DIRECTORY") {
            Some(directory) => {
                let path = Path::new(&directory).join(name);
                (read(host, &path)?, path.shown().to_string())
            }
            // Outside a unit there is no such directory; the encrypted file is where units get it from.
            None => {
                let spec = CommandSpec::helper(SYSTEMD_CREDS)
                    .arg("decrypt")
                    .arg(format!("--name={name}"))
                    .arg(Path::new("/etc/credstore.encrypted").join(name))
                    .arg("-");
                (output(host, spec)?, format!("the credential {name}"))
            }
        },
    };
    let secret = secret.without_line_break();
    if secret.reveal().is_empty() {
        return Err(EngineError::Secret { what: format!("{from} holds nothing") });
    }
    Ok(secret)
}

/// Reads a file that holds a secret, if it still does.
///
/// # Errors
/// [`EngineError::Untrusted`] when others may read or change it, and nothing is read then.
pub fn read_private(host: &dyn Host, path: &Path) -> Result<Secret, EngineError> {
    check_private(host, path)?;
    read(host, path)
}

/// Refuses a file with a secret that others may read or change. That it is missing is for its reader to say.
///
/// # Errors
/// [`EngineError::Untrusted`].
pub fn check_private(host: &dyn Host, path: &Path) -> Result<(), EngineError> {
    match host.check_trusted(path, TrustKind::Secret) {
        Err(error) if !error.is_missing() => Err(EngineError::Untrusted(error)),
        Err(_) | Ok(()) => Ok(()),
    }
}

fn read(host: &dyn Host, path: &Path) -> Result<Secret, EngineError> {
    host.read(path).map(Secret::new).map_err(|error| {
        let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
        EngineError::Secret { what: format!("{error}{}", why.unwrap_or_default()) }
    })
}

/// The command's standard output; only its standard error may be shown.
fn output(host: &dyn Host, mut spec: CommandSpec) -> Result<Secret, EngineError> {
    spec.stdout = StdoutMode::Secret;
    let mut completed = match host.run(&spec, &mut |_, _| {}) {
        // No engine has been started that could have left a lock, and asking again would wait again.
        Err(error @ RunError::TimedOut { .. }) => {
            return Err(EngineError::Secret { what: error.to_string() });
        }
        ended => ended?,
    };
    // What a command that failed has printed may be a secret all the same.
    let printed = Secret::new(std::mem::take(&mut completed.stdout));
    if completed.success() {
        return Ok(printed);
    }
    let (exit, said) = (completed.exit, completed.last_words(3));
    let what = format!("{} failed ({exit}): {said}", spec.tool.name());
    Err(EngineError::Secret { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scripted::{Answer, ScriptedHost};
    use crate::host::HELPER_LIMIT;

    fn get(host: &ScriptedHost, source: &SecretSource) -> Result<Vec<u8>, String> {
        resolve(host, source)
            .map(|secret| secret.reveal().to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_loses_one_line_break() {
        let mut host = ScriptedHost::new([]);
        host.files.insert("/p".into(), b"two words \n\n".to_vec());
        host.files.insert("/empty".into(), b"\n".to_vec());
        assert_eq!(get(&host, &SecretSource::File("/p".into())).unwrap(), b"two words \n");
        let empty = get(&host, &SecretSource::File("/empty".into())).unwrap_err();
        assert!(empty.contains("/empty holds nothing"), "{empty}");
        let missing = get(&host, &SecretSource::File("/missing".into())).unwrap_err();
        assert!(missing.contains("cannot read /missing: "), "{missing}");
    }

    #[test]
    fn a_secret_that_others_may_read_is_not_used() {
        let mut host = ScriptedHost::new([]);
        host.files.insert("/p".into(), b"secret\n".to_vec());
        host.untrusted.push("/p".into());
        let error = resolve(&host, &SecretSource::File("/p".into())).unwrap_err();
        assert_eq!(error.trouble(), crate::model::outcome::Trouble::Configuration);
        assert_eq!(error.hint().as_deref(), Some("chmod go-rwx /p"));
    }

    #[test]
    fn a_command_that_fails_gives_no_passphrase_and_shows_no_output() {
        let source = SecretSource::Command(vec!["pass".into(), "show".into(), "x".into()]);
        let host = ScriptedHost::new([Answer::new(0, "secret\n", "")]);
        assert_eq!(get(&host, &source).unwrap(), b"secret");
        assert_eq!(host.commands(), ["pass show x"]);
        // A vault may never answer, and the locks of job and target are held.
        assert_eq!(host.asked.lock().unwrap()[0].time_limit, Some(HELPER_LIMIT));
        let host = ScriptedHost::new([Answer::new(1, "half a secret", "gpg: no key\n")]);
        let error = get(&host, &source).unwrap_err();
        assert!(error.contains("pass failed (exit status 1): gpg: no key"), "{error}");
        assert!(!error.contains("half"));
    }

    #[test]
    fn a_credential_comes_from_the_unit_or_is_decrypted() {
        let source = SecretSource::Credential("usb".into());
        let mut host = ScriptedHost::new([]);
        host.environment.insert("CREDENTIALS_DIRECTORY".into(), "/creds".into());
        host.files.insert("/creds/usb".into(), b"a".to_vec());
        assert_eq!(get(&host, &source).unwrap(), b"a");
        let host = ScriptedHost::new([Answer::new(0, "b", "")]);
        assert_eq!(get(&host, &source).unwrap(), b"b");
        assert_eq!(
            host.commands(),
            ["systemd-creds decrypt --name=usb /etc/credstore.encrypted/usb -"]
        );
        assert_eq!(host.asked.lock().unwrap()[0].time_limit, Some(HELPER_LIMIT));
    }
}
