//! The machines that gave no answer: each may keep us waiting as long again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::target::Server;

/// The machines that gave no answer, by how they are reached.
#[derive(Debug, Default)]
pub struct Silent(Mutex<BTreeSet<(String, Option<u16>)>>);

impl Silent {
    /// Whether this one gave none.
    pub fn has(&self, server: &Server) -> bool {
        self.known().contains(&(server.login.clone(), server.port))
    }

    /// Notes that it gave none.
    pub fn note(&self, server: &Server) {
        self.known().insert((server.login.clone(), server.port));
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<(String, Option<u16>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
