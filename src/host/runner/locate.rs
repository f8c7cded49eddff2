//! Where a program is, and whether it is still the one that root put there.

use std::path::{Path, PathBuf};

use crate::host::sys::trusted::{TrustError, TrustKind, check_trusted};
use crate::host::{RunError, Tool};
use crate::model::shown::Show;

/// Where programs are looked up, and the children's own `PATH`. Ours plays no part: whoever can set it could
/// otherwise choose what root runs.
pub const FIXED_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The full path of a tool, which nobody but root and we can change.
///
/// # Errors
/// [`RunError::NotFound`] or [`RunError::Unsafe`].
pub(in crate::host) fn find_program(tool: &Tool) -> Result<PathBuf, RunError> {
    find_in(tool, FIXED_PATH)
}

fn find_in(tool: &Tool, search_path: &str) -> Result<PathBuf, RunError> {
    let missing = |hint: String| RunError::NotFound { tool: tool.name(), hint };
    let path = match tool {
        Tool::Path(path) if path.is_absolute() => path.clone(),
        Tool::Path(_) => return Err(missing("give its full path, from / on".into())),
        // The kernel's own link to this very program, also when its file has been replaced meanwhile.
        Tool::Own => return Ok("/proc/self/exe".into()),
        Tool::Known { .. } | Tool::Named(_) => {
            by_name(&tool.name(), search_path).ok_or_else(|| missing(tool.hint()))?
        }
    };
    match check_trusted(&path, TrustKind::Program) {
        // The name is kept rather than what its links lead to: some programs act by the name they have.
        Ok(_) => Ok(path),
        Err(error) if error.is_missing() => Err(missing(tool.hint())),
        Err(TrustError::Io { path, source }) => {
            Err(missing(format!("{} cannot be looked at: {source}", path.shown())))
        }
        Err(error @ TrustError::Kind { .. }) => Err(missing(format!(
            "{error}{}",
            error.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
        ))),
        Err(error) => Err(RunError::Unsafe { path: error.path().to_owned() }),
    }
}

/// A plain name on the search path; a name with a slash would be a path, and so is none.
fn by_name(name: &str, search_path: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    which::which_in(name, Some(search_path), Path::new("/")).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(dir: &Path, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn names_are_looked_up_on_the_fixed_path_only() {
        let found = find_program(&Tool::Named("sh".into())).unwrap();
        assert!(FIXED_PATH.split(':').any(|dir| found == Path::new(dir).join("sh")), "{found:?}");
        for name in ["no-such-program-anywhere", "", "../bin/sh", "usr/bin/env"] {
            let error = find_program(&Tool::Named(name.into())).unwrap_err();
            assert!(matches!(error, RunError::NotFound { .. }), "{name}");
        }
        assert!(matches!(
            find_program(&Tool::Path("bin/sh".into())),
            Err(RunError::NotFound { .. })
        ));
    }

    #[test]
    fn a_program_that_others_can_replace_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = program(dir.path(), "tool", 0o755);
        let search = dir.path().to_str().unwrap();
        assert_eq!(find_in(&Tool::Named("tool".into()), search).unwrap(), path);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        match find_in(&Tool::Named("tool".into()), search) {
            Err(RunError::Unsafe { path }) => assert_eq!(path, dir.path()),
            other => panic!("{other:?}"),
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let path = program(dir.path(), "loose", 0o757);
        assert!(matches!(find_program(&Tool::Path(path)), Err(RunError::Unsafe { .. })));
        let path = program(dir.path(), "text", 0o644);
        match find_program(&Tool::Path(path)) {
            Err(RunError::NotFound { hint, .. }) => assert!(hint.contains("chmod u+x"), "{hint}"),
            other => panic!("{other:?}"),
        }
    }
}
