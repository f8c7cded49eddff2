//! Why a snapshot was not sent, where its sender is to blame: the first process of a chain.

use std::path::PathBuf;

use super::tree::LONGEST_PATH;
use super::{Context, EngineError, SentFrom, StillSubvolume};
use crate::host::{CommandSpec, Completed, PrivateView, Stream};
use crate::model::shown::Show;
use crate::model::target::Server;
use crate::tools::far::{self, Why};
use crate::tools::listing;

/// How the sender ends a line that says of a path that it is too long.
const TOO_LONG: &str = ": File name too long";

/// How much of such a path is shown, in bytes: that is enough to find it.
const SHOWN: usize = 512;

/// Why nothing came of what is sent, if that is the process which failed and more is known of it than it says.
pub(super) fn sender_failed(
    cx: Context<'_>,
    still: &StillSubvolume,
    before: &[CommandSpec],
    spec: &CommandSpec,
    ended: &Completed,
) -> Option<EngineError> {
    before.first().filter(|first| std::ptr::eq(*first, spec))?;
    match &still.from {
        SentFrom::Here(view) => too_long(cx, still, view, spec, ended),
        SentFrom::There(server) => Some(failed_there(server, ended)),
    }
}

/// Why another machine sent nothing.
fn failed_there(server: &Server, ended: &Completed) -> EngineError {
    let login = server.login.clone();
    match far::why(server, ended) {
        Why::NotReached(detail) => EngineError::Sender {
            login,
            detail,
            hint: "check network, host name, ssh key and host key; the next run sends again".into(),
        },
        Why::Unfit { what: detail, hint } => EngineError::Sender { login, detail, hint },
        Why::BeingSent(said) | Why::Failed(said) => EngineError::Sender {
            login,
            detail: format!("{} ({said})", ended.exit),
            hint: "look at that machine, and its kernel's log; the next run sends again".into(),
        },
    }
}

/// Which path of a snapshot is too long to be sent, if that is why it was not: the sender fails each time, and does not tell
/// which it is.
fn too_long(
    cx: Context<'_>,
    still: &StillSubvolume,
    view: &PrivateView,
    spec: &CommandSpec,
    ended: &Completed,
) -> Option<EngineError> {
    let why = ended.last_words(5);
    if !why.lines().any(|line| line.ends_with(TOO_LONG)) {
        return None;
    }
    let limit = spec.stall_limit.unwrap_or_default();
    let mut list = listing::command(&still.snapshot.path, limit);
    list.view = view.clone();
    let mut longest = PathBuf::new();
    let listed = cx.host.run(&list, &mut |stream, line| {
        let found = (stream == Stream::Out).then(|| listing::parse(line)).flatten();
        if let Some(it) = found.filter(|it| it.path.as_os_str().len() > longest.as_os_str().len()) {
            longest = it.path;
        }
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
            "{why} — btrfs sends no path of {LONGEST_PATH} bytes or more below a subvolume, so nothing is sent before it is a shorter one: it begins with {path}{more}"
        ),
    })
}
