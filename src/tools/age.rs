//! age, which encrypts a stream to those who may read it: whoever stores it needs no secret.

use std::path::Path;
use std::time::Duration;

use crate::host::{CommandSpec, Tool};

/// age.
pub const PROGRAM: Tool = Tool::Known { name: "age", hint: "install it (Debian: apt install age)" };

/// Encrypts standard input to standard output, for everybody whom a file names.
pub fn encrypt(recipients: &Path, stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(PROGRAM, stall_limit)
        .args(["--encrypt", "--recipients-file"])
        .arg(recipients)
}

/// Undoes that with a key of one of them.
pub fn decrypt(identity: &Path, stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(PROGRAM, stall_limit).args(["--decrypt", "--identity"]).arg(identity)
}

/// Those whom a file of recipients names, each once.
pub fn recipients(file: &[u8]) -> Vec<&[u8]> {
    let lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut named: Vec<&[u8]> =
        lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// Whether age said that none of the keys it was given opens what it read.
pub fn has_no_key(said: &str) -> bool {
    // As age 1.0 to 1.2 say it; nothing of what is read can stand in the line.
    said.lines()
        .any(|line| line.trim_end() == "age: error: no identity matched any of the recipients")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let limit = Duration::from_secs(60);
        let encrypted = encrypt(Path::new("/etc/age.recipients"), limit);
        assert_eq!(encrypted.display(), "age --encrypt --recipients-file /etc/age.recipients");
        let decrypted = decrypt(Path::new("/root/age.key"), limit);
        assert_eq!(decrypted.display(), "age --decrypt --identity /root/age.key");
    }

    #[test]
    fn recipients_are_the_same_in_any_order() {
        let named: Vec<&[u8]> = vec![b"age1a", b"age1b"];
        assert_eq!(recipients(b"# me\nage1b\n\n  age1a\r\nage1b"), named);
        assert!(recipients(b"# nobody\n").is_empty());
    }
}
