//! systemctl: which control group a unit has.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::{CommandSpec, Effect, Tool};

const SYSTEMCTL: Tool = Tool::Known {
    name: "systemctl",
    hint: "it comes with systemd; without it, name control groups such as \"/app\" in freeze-units",
};

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whether systemd has a unit of that name at all.
    pub known: bool,
    /// Whether it runs, is about to, or is about to stop.
    pub active: bool,
    /// Its control group, from the root of the hierarchy on; `None` when it has no processes.
    pub group: Option<PathBuf>,
}

/// Asks what a unit is and which control group it has. systemctl answers also for a unit that it does not
/// know.
pub fn show_group(unit: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(SYSTEMCTL, Effect::Inspect)
        .args(["show", "--property=LoadState,ActiveState,ControlGroup", "--"])
        .arg(unit);
    spec.time_limit = Some(PATIENCE);
    spec
}

/// Reads what [`show_group`] printed.
///
/// # Errors
/// When it is not one line for each of the three properties (org.freedesktop.systemd1(5)).
pub fn parse_group(text: &[u8]) -> Result<Unit, String> {
    let text = String::from_utf8_lossy(text);
    let (mut state, mut active, mut group) = (None, None, None);
    for line in text.lines() {
        let place = match line.split_once('=') {
            Some(("LoadState", value)) => (&mut state, value),
            Some(("ActiveState", value)) => (&mut active, value),
            Some(("ControlGroup", value)) => (&mut group, value),
            _ => return Err(format!("systemctl show printed {line:?}")),
        };
        if place.0.replace(place.1).is_some() {
            return Err(format!("systemctl show printed two units: {text:?}"));
        }
    }
    let state = state.ok_or("systemctl show printed no LoadState")?;
    let active = active.ok_or("systemctl show printed no ActiveState")?;
    let group = match group.ok_or("systemctl show printed no ControlGroup")? {
        "" => None,
        group if group.starts_with('/') => Some(PathBuf::from(group)),
        group => return Err(format!("systemctl show printed the control group {group:?}")),
    };
    Ok(Unit {
        known: state != "not-found",
        active: active != "inactive" && active != "failed",
        group,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_one_unit() {
        let spec = show_group("a@b.service");
        assert_eq!(
            spec.display(),
            "systemctl show --property=LoadState,ActiveState,ControlGroup -- a@b.service"
        );
        assert_eq!(spec.effect, Effect::Inspect);
    }

    #[test]
    fn it_tells_running_from_stopped_and_unknown() {
        let unit = |text: &str| parse_group(text.as_bytes());
        let group = Some("/system.slice/cron.service".into());
        assert_eq!(
            unit("ControlGroup=/system.slice/cron.service\nLoadState=loaded\nActiveState=active\n"),
            Ok(Unit { known: true, active: true, group })
        );
        assert_eq!(
            unit("LoadState=loaded\nActiveState=inactive\nControlGroup=\n"),
            Ok(Unit { known: true, active: false, group: None })
        );
        // A unit that only starts others, as Debian's postgresql.service.
        assert_eq!(
            unit("LoadState=loaded\nActiveState=active\nControlGroup=\n"),
            Ok(Unit { known: true, active: true, group: None })
        );
        assert_eq!(
            unit("LoadState=not-found\nActiveState=inactive\nControlGroup=\n"),
            Ok(Unit { known: false, active: false, group: None })
        );
        for text in [
            "",
            "LoadState=loaded\n",
            "ControlGroup=/a\n",
            "LoadState=loaded\nControlGroup=/a\n",
            "LoadState=loaded\nActiveState=active\nControlGroup=a\n",
            "LoadState=loaded\nControlGroup=/a\n\nLoadState=loaded\nControlGroup=/b\n",
            "LoadState=loaded\nActiveState=active\nControlGroup=/a\nControlGroup=/b\n",
        ] {
            assert!(unit(text).is_err(), "{text:?}");
        }
    }
}
