//! What the kernel must be asked directly: mounts, processes, signals, and who may change a file.
//!
//! Parsers of `/proc` are pure functions with tests on recorded text; around each is one thin reader. Code
//! outside `host` gets here only through [`trusted`] and [`signals`], which the command line needs before
//! there is a [`super::Host`].

pub mod cgroup;
pub mod mounts;
pub mod private;
pub mod process;
pub mod signals;
pub mod subvolumes;
pub mod trusted;
