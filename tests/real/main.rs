//! Tests on real parts: borg, restic, file systems, signals. They need root and the packages that
//! `tests/run` installs; what is missing fails, loudly.
#![allow(missing_docs)]
