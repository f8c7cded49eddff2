//! How much of a snapshot would be sent: the file system says it without reading any data.

use super::sent::{run_all, send_from};
use super::unsent::sender_failed;
use super::{Context, EngineError, Estimate, Snapshot, StillSubvolume};
use crate::engine::sent::failure;
use crate::host::{CommandSpec, Completed, Stream, Tool};
use crate::model::target::Target;
use crate::tools::btrfs::command;
use crate::tools::btrfs::estimate::Lengths;

/// Tells how much would be sent to a target: all, or the difference to an earlier snapshot, of which it has a copy of this
/// name.
///
/// # Errors
/// When the file system does not tell.
pub(super) fn measured(
    cx: Context<'_>,
    target: &Target,
    program: &Tool,
    still: &StillSubvolume,
    base: Option<(&Snapshot, &str)>,
) -> Result<Estimate, EngineError> {
    let limit = target.stall_timeout;
    let base_there = base.map(|(snapshot, _)| snapshot);
    let send = send_from(program, still, base_there, limit, |program, sending| {
        command::send_without_data(program, sending, limit)
    });
    let specs = [send, command::tell_lengths(limit)];
    let blame = |spec: &CommandSpec, ended: &Completed| {
        sender_failed(cx, still, &specs, spec, ended)
            .unwrap_or_else(|| failure(target, spec, ended))
    };
    let mut told: Option<serde_json::Result<Lengths>> = None;
    run_all(cx, &specs, &blame, &mut |stream, line| {
        if stream == Stream::Out {
            told = Some(serde_json::from_slice(line));
        }
    })?;
    let unread = |what: String| EngineError::Output { engine: "btrfs", what };
    let lengths =
        told.ok_or_else(|| unread("nothing".into()))?.map_err(|error| unread(error.to_string()))?;
    Ok(Estimate { bytes: lengths.total(), based_on: base.map(|(_, copy)| copy.to_owned()) })
}
