//! Names that parse at the edge: of jobs, targets, hosts and runs.
//!
//! A name that exists as one of these types is safe to put into an archive name, a file name below the
//! state directory or an argv operand: it is not empty, starts with a letter or digit and holds no
//! separator that another layer would read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name accepted; archive names hold three of them and file systems allow 255 bytes.
pub const LONGEST_NAME: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {kind} cannot be empty")]
    Empty {
        /// What sort of name was expected.
        kind: &'static str,
    },
    /// The text is longer than [`LONGEST_NAME`] bytes.
    #[error("a {kind} has at most {LONGEST_NAME} characters, this has {length}")]
    TooLong {
        /// What sort of name was expected.
        kind: &'static str,
        /// How many bytes the text has.
        length: usize,
    },
    /// A character that the name may not hold.
    #[error("a {kind} is made of {allowed}, not {found:?}")]
    Character {
        /// What sort of name was expected.
        kind: &'static str,
        /// The characters it may hold, in words.
        allowed: &'static str,
        /// The first character that is not one of them.
        found: char,
    },
}

fn check(
    kind: &'static str,
    text: &str,
    extra: &str,
    allowed: &'static str,
) -> Result<(), NameError> {
    let Some(first) = text.chars().next() else { return Err(NameError::Empty { kind }) };
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::Character {
            kind,
            allowed: "a letter or digit first",
            found: first,
        });
    }
    if let Some(found) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !extra.contains(*c)) {
        return Err(NameError::Character { kind, allowed, found });
    }
    if text.len() > LONGEST_NAME {
        return Err(NameError::TooLong { kind, length: text.len() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $extra:literal, $allowed:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Takes the text as a name.
            ///
            /// # Errors
            /// When it is empty, too long or holds a character that such a name may not hold.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($kind, &text, $extra, $allowed)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// A job's name: the key of `[jobs.NAME]`.
    JobName, "job name", "-_", "letters, digits, '-' and '_'"
);
name!(
    /// A target's name: the key of `[targets.NAME]`.
    TargetName, "target name", "-_", "letters, digits, '-' and '_'"
);

impl TargetName {
    /// The name of what is served to other machines, where nothing asks for it.
    pub(super) fn of_served() -> Self {
        Self("served".to_owned())
    }
}

name!(
    /// The host as it stands in every copy's identity. Dots are allowed, since host names have them.
    HostName, "host name", "-_.", "letters, digits, '-', '_' and '.'"
);

/// What every text has that is read by its own `parse`: itself, and its way into files and out of them. The second
/// word ends what is said of a text that is none.
macro_rules! parsed {
    ($type:ident, $wrong:literal) => {
        impl $type {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(&text).ok_or_else(|| format!("{text:?} {}", $wrong))
            }
        }

        impl From<$type> for String {
            fn from(it: $type) -> String {
                it.0
            }
        }
    };
}
pub(super) use parsed;

/// The random identity of one run: eight lower-case hexadecimal digits.
///
/// It is what makes two runs in the same second distinguishable, and what every artefact of a run carries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Makes the identity from four bytes that the caller drew at random.
    pub fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(format!("{:08x}", u32::from_be_bytes(bytes)))
    }

    /// Reads an identity back; `None` when the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self(text.to_owned()))
    }
}

parsed!(RunId, "is not a run id (eight hexadecimal digits)");

/// The random identity of a state directory: sixteen lower-case hexadecimal digits.
///
/// Host names come in pairs (a cloned machine, `localhost`), so every copy carries this beside the host's name.
/// Whoever can read a repository can forge it: that a copy is ours is proven by our own record of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

impl MachineId {
    /// Makes an identity from bytes that the caller drew at random.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// Reads an identity back; `None` when the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self(text.to_owned()))
    }
}

parsed!(MachineId, "is not a machine's identity (sixteen hexadecimal digits)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_other_layers_would_read() {
        for bad in ["", "-f", "a/b", "a b", "a.b", "../x", "ä", &"x".repeat(65)] {
            assert!(JobName::new(bad).is_err(), "{bad:?} was taken as a job name");
        }
        assert_eq!(JobName::new("web-1_x").unwrap().as_str(), "web-1_x");
        assert_eq!(HostName::new("web1.example.org").unwrap().as_str(), "web1.example.org");
    }

    #[test]
    fn a_run_id_is_eight_hex_digits() {
        assert_eq!(RunId::from_bytes([0, 1, 0xab, 0xff]).as_str(), "0001abff");
        assert_eq!(RunId::parse("0001abff").unwrap().as_str(), "0001abff");
        assert!(RunId::parse("0001ABFF").is_none());
        assert!(RunId::parse("1abff").is_none());
        let machine = MachineId::from_bytes([0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(machine.as_str(), "00010203040506ff");
        assert_eq!(MachineId::parse("00010203040506ff"), Some(machine));
        assert!(MachineId::parse("00010203040506FF").is_none());
    }
}
