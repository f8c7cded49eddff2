//! What of a copy is packed on another machine, and by how many processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::tree::Inside;
use crate::host::CommandSpec;
use crate::tools::coreutils::chunks;
use crate::tools::tar::{Members, pack};

/// The processes that pack directories alone and whatever else with what is in it, one after the other: whoever unpacks
/// takes archives that come one behind the other. It is one, unless no command line holds all the names: of several, each
/// knows only of its own links to a file.
pub(super) fn packs(
    copy: &Path,
    alone: &[Inside],
    whole: &[Inside],
    stall_limit: Duration,
) -> Vec<CommandSpec> {
    let members = |inside: &[Inside]| -> Vec<PathBuf> {
        inside.iter().map(|inside| Path::new(".").join(inside.as_path())).collect()
    };
    let (alone, whole) = (members(alone), members(whole));
    let (of_alone, of_whole) = (chunks(&alone), chunks(&whole));
    let all: Vec<Members> = if of_alone.len() <= 1 && of_whole.len() <= 1 {
        vec![Members { alone: alone.clone(), whole: whole.clone() }]
    } else {
        let alone = of_alone.iter().map(|it| Members { alone: it.to_vec(), whole: Vec::new() });
        let whole = of_whole.iter().map(|it| Members { alone: Vec::new(), whole: it.to_vec() });
        alone.chain(whole).collect()
    };
    all.iter().map(|what| pack(copy, what, stall_limit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_line_is_longer_than_a_shell_takes_and_nothing_is_left_out() {
        let inside = |count: usize, width: usize| -> Vec<Inside> {
            (0..count).filter_map(|n| Inside::new(format!("{n:0width$}"))).collect()
        };
        let copy = Path::new("/srv/copy");
        let packed = |alone: usize, whole: usize| {
            let (alone, whole) = (inside(alone, 250), inside(whole, 250));
            packs(copy, &alone, &whole, Duration::from_secs(60))
        };
        assert_eq!(packed(1, 1).len(), 1);
        assert_eq!(packed(0, 40).len(), 1);
        let many = packed(100, 300);
        assert!(many.len() > 4, "{}", many.len());
        let mut named = 0;
        for spec in &many {
            let words = spec.args.iter().filter(|arg| arg.to_string_lossy().starts_with("./"));
            named += words.count();
            assert!(spec.args.iter().map(|arg| arg.len() + 1).sum::<usize>() < 25 << 10);
        }
        assert_eq!(named, 400);
    }
}
