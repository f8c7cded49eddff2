//! What a part of a job needs of the machine: its source, its engines, its hooks. Whoever starts runs anywhere else
//! than in an administrator's terminal, such as a systemd unit, has to let them have it.

use std::path::PathBuf;

/// What is needed. Nothing, by default; see [`Needs::and`] for what several need together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Programs of the administrator's own are started, and nobody can know what those need.
    pub foreign_programs: bool,
    /// Directories that are written to, whether they exist yet or not.
    pub writes: Vec<PathBuf>,
    /// What is read: it must be seen as it is on the machine.
    pub reads: Vec<PathBuf>,
    /// The same of files of the configuration that hold no secret: others may read them, but not change them.
    pub public: Vec<PathBuf>,
    /// Directories that must be mount points, and must not look like ones when nothing is mounted there.
    pub mount_points: Vec<PathBuf>,
    /// How much of a network there must be.
    pub network: Network,
    /// Credentials of systemd's, by name, each once.
    pub credentials: Vec<String>,
    /// LVM's programs may run: they make device nodes, load kernel modules, and must never be killed.
    pub volume_manager: bool,
    /// Control groups are frozen and let run on.
    pub control_groups: bool,
}

/// How much of a network there must be. The later include the earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// None at all.
    #[default]
    None,
    /// The kind of socket that shows the machine's own addresses. Nothing is sent.
    Addresses,
    /// Other machines are reached.
    Reached,
}

impl Needs {
    /// What this one and another need together.
    #[must_use]
    pub fn and(mut self, other: Needs) -> Needs {
        let Needs {
            foreign_programs,
            writes,
            reads,
            public,
            mount_points,
            network,
            credentials,
            volume_manager,
            control_groups,
        } = other;
        self.foreign_programs |= foreign_programs;
        self.writes.extend(writes);
        self.reads.extend(reads);
        self.public.extend(public);
        self.mount_points.extend(mount_points);
        self.network = self.network.max(network);
        for credential in credentials {
            if !self.credentials.contains(&credential) {
                self.credentials.push(credential);
            }
        }
        self.volume_manager |= volume_manager;
        self.control_groups |= control_groups;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_they_need_what_each_needs() {
        let one = Needs {
            writes: vec!["/srv/a".into()],
            network: Network::Reached,
            credentials: vec!["usb".into()],
            volume_manager: true,
            ..Needs::default()
        };
        let other = Needs {
            foreign_programs: true,
            writes: vec!["/srv/b".into()],
            reads: vec!["/etc".into()],
            public: vec!["/etc/names".into()],
            mount_points: vec!["/srv".into()],
            network: Network::Addresses,
            credentials: vec!["usb".into(), "cloud".into()],
            control_groups: true,
            ..Needs::default()
        };
        let both = Needs {
            foreign_programs: true,
            writes: vec!["/srv/a".into(), "/srv/b".into()],
            reads: vec!["/etc".into()],
            public: vec!["/etc/names".into()],
            mount_points: vec!["/srv".into()],
            network: Network::Reached,
            credentials: vec!["usb".into(), "cloud".into()],
            volume_manager: true,
            control_groups: true,
        };
        assert_eq!(one.clone().and(other), both);
        assert_eq!(Needs::default().and(one.clone()), one);
    }
}
