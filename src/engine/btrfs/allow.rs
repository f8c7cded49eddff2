//! What a key may have a server do.

/// The verb that answers.
pub const VERB: &str = "serve";

/// One thing that a key may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allow {
    /// Make the directory one that takes copies.
    Init,
    /// Ask which copies there are.
    List,
    /// Have copies checked, which reads as much as is asked for.
    Check,
    /// Add copies, and keep them.
    Receive,
    /// Read what copies hold.
    Restore,
    /// Delete copies, and no longer keep them.
    Delete,
    /// Ask what other programs have received there, have it be copies, and note that these are whole.
    Adopt,
}

impl Allow {
    /// All that there is.
    pub const ALL: [Allow; 7] = [
        Allow::Init,
        Allow::List,
        Allow::Check,
        Allow::Receive,
        Allow::Restore,
        Allow::Delete,
        Allow::Adopt,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Allow::Init => "init",
            Allow::List => "list",
            Allow::Check => "check",
            Allow::Receive => "receive",
            Allow::Restore => "restore",
            Allow::Delete => "delete",
            Allow::Adopt => "adopt",
        }
    }

    /// Reads its word; `None` when there is no such.
    pub fn parse(word: &str) -> Option<Allow> {
        Allow::ALL.into_iter().find(|allow| allow.word() == word)
    }
}
