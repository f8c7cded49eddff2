//! How a snapshot is sent to another machine: as a difference or as a whole, and from its beginning or behind what is there.

use super::answers::{Begun, Listing};
use super::base::Base;
use super::record::Record;
use crate::engine::StillSubvolume;
use crate::model::target::Target;
use crate::tools::btrfs::parts::{Behind, Cutting, Mark};

/// How a snapshot is sent.
pub(super) struct Way<'w> {
    /// What a difference is made to.
    pub base: Option<Base<'w>>,
    /// So many bytes make a part there; `None`: it is received as a whole.
    pub part_size: Option<u64>,
    /// The end of the part that is there.
    pub behind: Option<&'w Mark>,
}

impl<'w> Way<'w> {
    /// How a snapshot is sent as a copy of this name: behind the part of it that is there, or from its beginning.
    pub fn of(
        target: &Target,
        listing: &'w Listing,
        still: &'w StillSubvolume,
        name: &str,
    ) -> Self {
        let base = Base::newest(still, listing.copies.iter());
        // An older server knows nothing of parts.
        let part_size = target.part_size().filter(|_| listing.parts.is_some());
        let whole = Way { base, part_size, behind: None };
        let is_it = |begun: &&Begun| {
            begun.copy == name
                && still.snapshot.was_sent_as(&begun.sent, begun.generation)
                && begun.mark.is_one()
                && begun.part_size > 0
        };
        let parts = listing.parts.iter().flatten();
        let Some(begun) = parts.into_iter().find(is_it).filter(|_| part_size.is_some()) else {
            return whole;
        };
        let is_its = |record: &&Record| Some(&record.name) == begun.base.as_ref();
        let base = Base::newest(still, listing.copies.iter().filter(is_its));
        match base.is_some() == begun.base.is_some() {
            true => Way { base, part_size: Some(begun.part_size), behind: Some(&begun.mark) },
            false => whole,
        }
    }

    /// What the stage here leaves out. It takes nothing apart: the server does.
    pub fn cutting(&self) -> Option<Cutting> {
        let behind = Behind { mark: self.behind?.clone(), received: None, leave_out: true };
        Some(Cutting { every: self.part_size?, seed: None, behind: Some(behind) })
    }
}
