//! A path that `btrfs send` cannot take: it fails each time, and does not tell which it is.

use std::path::PathBuf;

use super::sent::said;
use super::{Context, EngineError, SentFrom, StillSubvolume};
use crate::host::{CommandSpec, Completed, Stream};
use crate::model::shown::Show;
use crate::tools::listing;

/// The longest path below a subvolume that the kernel sends, in bytes, with the zero that ends it.
const LONGEST: usize = 4096;

/// How the sender ends a line that says so.
const SAYS: &str = ": File name too long";

/// How much of such a path is shown, in bytes: that is enough to find it.
const SHOWN: usize = 512;

/// Says which path it is, if that is why a snapshot of this machine cannot be sent. The sender is the first of a chain.
pub(super) fn named(
    cx: Context<'_>,
    still: &StillSubvolume,
    before: &[CommandSpec],
    spec: &CommandSpec,
    ended: &Completed,
) -> Option<EngineError> {
    let SentFrom::Here(view) = &still.from else { return None };
    before.first().filter(|first| std::ptr::eq(*first, spec))?;
    let why = said(ended, 5);
    if !why.lines().any(|line| line.ends_with(SAYS)) {
        return None;
    }
    let limit = spec.stall_limit.unwrap_or_default();
    let mut list = listing::command(&still.snapshot.path, limit);
    list.view = view.clone();
    let mut longest = PathBuf::new();
    let listed = cx.host.run(&list, &mut |stream, line| {
        let found = (stream == Stream::Out).then(|| listing::parse(line)).flatten();
        let longer = found.filter(|it| it.path.as_os_str().len() > longest.as_os_str().len());
        longest = longer.map_or_else(|| std::mem::take(&mut longest), |it| it.path);
    });
    // A walk that comes to it fails as well, and has told what is above it.
    if let Err(error) = listed {
        tracing::debug!(%error, "it is not known which path is too long");
    }
    let text = longest.shown().to_string();
    let end = text.floor_char_boundary(SHOWN.min(text.len()));
    let path = &text[..end];
    let more = if end < text.len() { "…" } else { "" };
    Some(EngineError::Failed {
        command: spec.display(),
        exit: ended.exit.to_string(),
        detail: format!(
            "{why} — btrfs sends no path of {LONGEST} bytes or more below a subvolume, so nothing is sent before it is a shorter one: it begins with {path}{more}"
        ),
    })
}
