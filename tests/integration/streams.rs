//! What goes wrong in a run that stores what commands print, by the loops of [`crate::loops`].

use std::path::Path;

use stillpoint::model::job::Config;

use crate::configured::configured;
use crate::faults::{LIVE, Scene, text};
use crate::loops;

/// A dump of a database, beside the service that hooks stop and start.
const STREAMED: Scene = Scene { config, ..LIVE };

fn config(state: &Path) -> Config {
    let dump = "[jobs.host.commands.database]\ncommand = ['/dump', 'database']\nfile-name = 'database.sql'";
    configured(&text(state, dump, ""))
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&STREAMED);
    let stored = effects.iter().filter(|effect| effect.contains("--stdin-name")).count();
    assert_eq!(stored, 1, "one chain, one effect: {effects:?}");
    loops::failing_any_effect(&STREAMED);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&STREAMED);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&STREAMED);
}
