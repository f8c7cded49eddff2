//! Names and the like that one side tells the other, checked when they are read: none of them leads anywhere else.

use serde::{Deserialize, Serialize};

use super::file_name::escaped;
use crate::engine::made::{LONGEST_NAME, is_plain_item};
use crate::engine::tree::LONGEST_PATH;
use crate::tools::btrfs::command::parse_uuid;

/// A text that is checked when it is read.
macro_rules! checked {
    ($(#[$doc:meta])* $type:ident, $fits:expr, $wrong:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub(super) struct $type(String);

        impl $type {
            /// Takes the text, if it is one.
            pub fn new(text: impl Into<String>) -> Option<Self> {
                let (text, fits): (String, fn(&str) -> bool) = (text.into(), $fits);
                fits(&text).then_some(Self(text))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = &'static str;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text).ok_or($wrong)
            }
        }

        impl From<$type> for String {
            fn from(it: $type) -> String {
                it.0
            }
        }
    };
}

checked!(
    /// The name of a copy.
    CopyName, is_copy_name, "no name of a copy"
);
checked!(
    /// The path of a subvolume on the machine that it is of.
    Item, is_item, "no path of a subvolume"
);
checked!(
    /// The UUID of a snapshot.
    SentUuid, |uuid| parse_uuid(uuid).is_some(), "no UUID"
);

/// A name that leads to nothing outside of the directory of copies, of a few characters: letters, digits, and what we or
/// other programs put between them; a copy of another program's may lie in directories.
fn is_copy_name(name: &str) -> bool {
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-+:~,=".contains(&byte);
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.bytes().all(of_a_name)
    };
    name.split('/').all(is_part) && escaped(name).len() <= LONGEST_NAME
}

/// Whether a text is a path as a job names it: below it, whoever restores lays out what is in the copy.
pub(super) fn is_item(item: &str) -> bool {
    is_plain_item(Some(item)) && item.len() <= LONGEST_PATH && !item.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tree::Inside;

    #[test]
    fn names_and_paths_stay_inside() {
        for good in [
            "a",
            "12/snapshot",
            "_x",
            "home.20260101T153100+0100",
            "home@web1._2fho-me__.20261121T020304Z.00000001",
        ] {
            assert!(CopyName::new(good).is_some(), "{good}");
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in [
            "",
            ".",
            "..",
            ".stillpoint",
            ".incoming.a",
            "/a",
            "a/",
            "a//b",
            "a/..",
            "a/../b",
            "../a",
            "a/.b",
            "a/-b",
            "-a",
            "a b",
            "a\n",
            "ä",
            "a\0",
            &long,
        ] {
            assert_eq!(CopyName::new(bad), None, "{bad:?}");
        }
        for good in ["", "a", "a/b", "-a", "a\nb", "..a", "a b"] {
            assert!(Inside::new(good).is_some(), "{good:?}");
        }
        let long = "x".repeat(LONGEST_PATH + 1);
        for bad in ["/", "/a", ".", "..", "../a", "a/..", "a/../../b", "./a", "a\0", &long] {
            assert_eq!(Inside::new(bad), None, "{bad:?}");
        }
        for bad in ["", "home", "/a/../b", "../a", "/a\0b"] {
            assert_eq!(Item::new(bad), None, "{bad:?}");
        }
        assert!(Item::new("/").is_some() && Item::new("/home/a b").is_some());
    }
}
