//! What a verb that goes through several targets could not look through, and went on without.

use serde::Serialize;

use crate::model::names::TargetName;
use crate::step::error::StepError;

use super::render;

/// A target, or a copy in it, that could not be read.
#[derive(Serialize)]
pub struct Unreadable {
    target: TargetName,
    /// The copy; absent when the target as a whole could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
    error: String,
}

impl Unreadable {
    /// Tells a person at once, and keeps it for the document.
    pub fn tell(target: &TargetName, copy: Option<String>, error: StepError) -> Self {
        let place = copy.as_ref().map_or_else(String::new, |copy| format!(", copy {copy}"));
        render::say(&format!("stillpoint: target {target}{place}: {error}"));
        Self { target: target.clone(), copy, error: error.message }
    }
}
