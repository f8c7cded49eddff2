//! What a verb that goes through several targets could not read, and went on without.

use serde::Serialize;

use crate::model::names::TargetName;
use crate::pipeline::select::Unread;

use super::render;

/// A target, or a copy in it, in the JSON document.
#[derive(Serialize)]
pub struct Row<'a> {
    target: &'a TargetName,
    /// The copy; absent when the target as a whole could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<&'a str>,
    error: &'a str,
}

/// The rows of the JSON document.
pub fn rows(unread: &[Unread]) -> Vec<Row<'_>> {
    unread.iter().map(row).collect()
}

fn row(unread: &Unread) -> Row<'_> {
    Row { target: &unread.target, copy: unread.copy.as_deref(), error: &unread.error.message }
}

/// Tells a person.
pub fn warn(unread: &[Unread]) {
    for Unread { target, copy, error, .. } in unread {
        let place = copy.as_ref().map_or_else(String::new, |copy| format!(", copy {copy}"));
        render::say(&format!("stillpoint: target {target}{place}: {error}"));
    }
}
