//! systemctl: which control group a unit has.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::{CommandSpec, Effect, Tool};

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whether systemd has a unit of that name at all.
    pub known: bool,
    /// Its control group, from the root of the hierarchy on; `None` when it is not running.
    pub group: Option<PathBuf>,
}

/// Asks what a unit is and which control group it has. systemctl answers also for a unit that it does not
/// know.
pub fn show_group(unit: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(Tool::Systemctl, Effect::Inspect)
        .args(["show", "--property=LoadState", "--property=ControlGroup", "--"])
        .arg(unit);
    spec.time_limit = Some(PATIENCE);
    spec
}

/// Reads what [`show_group`] printed.
///
/// # Errors
/// When it is not one line for each of the two properties (org.freedesktop.systemd1(5)).
pub fn parse_group(text: &[u8]) -> Result<Unit, String> {
    let text = String::from_utf8_lossy(text);
    let (mut state, mut group) = (None, None);
    for line in text.lines() {
        let place = match line.split_once('=') {
            Some(("LoadState", value)) => (&mut state, value),
            Some(("ControlGroup", value)) => (&mut group, value),
            _ => return Err(format!("systemctl show printed {line:?}")),
        };
        if place.0.replace(place.1).is_some() {
            return Err(format!("systemctl show printed two units: {text:?}"));
        }
    }
    let state = state.ok_or("systemctl show printed no LoadState")?;
    let group = match group.ok_or("systemctl show printed no ControlGroup")? {
        "" => None,
        group if group.starts_with('/') => Some(PathBuf::from(group)),
        group => return Err(format!("systemctl show printed the control group {group:?}")),
    };
    Ok(Unit { known: state != "not-found", group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_one_unit() {
        let spec = show_group("a@b.service");
        assert_eq!(
            spec.display(),
            "systemctl show --property=LoadState --property=ControlGroup -- a@b.service"
        );
        assert_eq!(spec.effect, Effect::Inspect);
    }

    #[test]
    fn it_tells_running_from_stopped_and_unknown() {
        let unit = |text: &str| parse_group(text.as_bytes());
        let group = Some("/system.slice/cron.service".into());
        assert_eq!(
            unit("ControlGroup=/system.slice/cron.service\nLoadState=loaded\n"),
            Ok(Unit { known: true, group })
        );
        assert_eq!(
            unit("LoadState=loaded\nControlGroup=\n"),
            Ok(Unit { known: true, group: None })
        );
        assert_eq!(
            unit("LoadState=not-found\nControlGroup=\n"),
            Ok(Unit { known: false, group: None })
        );
        for text in [
            "",
            "LoadState=loaded\n",
            "ControlGroup=/a\n",
            "LoadState=loaded\nControlGroup=a\n",
            "LoadState=loaded\nControlGroup=/a\n\nLoadState=loaded\nControlGroup=/b\n",
            "LoadState=loaded\nControlGroup=/a\nControlGroup=/b\n",
        ] {
            assert!(unit(text).is_err(), "{text:?}");
        }
    }
}
