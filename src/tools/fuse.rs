//! What every engine needs to serve a copy as a file system, and how it is said that it is missing.

use crate::host::Tool;

/// Unmounts what somebody who is not root has mounted.
pub const FUSERMOUNT: Tool =
    Tool::Known { name: "fusermount3", hint: "install it (Debian: apt install fuse3)" };

/// What is missing on this machine, with its remedy, if whoever could not mount says so in the words of libfuse.
pub fn missing(said: &str) -> Option<&'static str> {
    let is_absent = |line: &&str| {
        ["not found", "No such file", "no such file"].iter().any(|words| line.contains(words))
    };
    let absent = |what: &str| said.lines().filter(is_absent).any(|line| line.contains(what));
    // libfuse: "fuse: device not found, try 'modprobe fuse' first".
    if absent("/dev/fuse") || absent("fuse: device") {
        return Some("there is no /dev/fuse — load the kernel's module (modprobe fuse)");
    }
    absent("fusermount")
        .then_some("fusermount3 is not installed — install it (Debian: apt install fuse3)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        for (said, words) in [
            (
                "unable to mount: fusermount: exec: \"fusermount3\": executable file not found in $PATH",
                "fuse3",
            ),
            ("fuse: device not found, try 'modprobe fuse' first", "modprobe"),
            (
                "/bin/fusermount3: fuse device not found, try 'modprobe fuse' first\nopen /dev/fuse: no such file",
                "modprobe",
            ),
        ] {
            assert!(missing(said).is_some_and(|remedy| remedy.contains(words)), "{said}");
        }
        assert_eq!(missing("Repository /r does not exist.\nfusermount3: entry not mounted"), None);
    }
}
