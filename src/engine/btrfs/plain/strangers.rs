//! Who else than root may change what is in a directory of another machine, or what its path leads to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::place::unfit;
use crate::engine::EngineError;
use crate::model::shown::Show;
use crate::tools::coreutils::Stat;

/// Refuses a directory in which somebody else than root may put something, or on the way to which, by what is known of all
/// that is on that way.
pub(super) fn refuse_strangers(
    directory: &Path,
    known: &BTreeMap<PathBuf, Stat>,
) -> Result<(), EngineError> {
    // Permission of others to write; and that what lies in a directory is its owner's alone to replace.
    const OPEN: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    for path in directory.ancestors() {
        let shown = path.shown();
        let Some(found) = known.get(path).filter(|it| it.is_directory() || it.is_link()) else {
            return Err(unfit(format!("there is no directory {shown} there")));
        };
        let passes = path != directory && found.permissions() & STICKY != 0;
        if found.is_link() {
            return Err(unfit(format!(
                "{shown} is a link there — write the location as `readlink -f` tells it there"
            )));
        }
        if found.uid != 0 {
            return Err(unfit(format!(
                "{shown} belongs to user {} there, who could change it — chown root {shown}",
                found.uid
            )));
        }
        if found.permissions() & OPEN != 0 && !passes {
            return Err(unfit(format!(
                "{shown} may be changed by others there (mode {:04o}) — chmod go-w {shown}",
                found.permissions()
            )));
        }
    }
    Ok(())
}
